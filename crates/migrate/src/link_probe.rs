//! What a link carries and how long a word takes over it: some bytes of nothing over a connection of their own, and how fast the
//! other side's kernel acknowledges them.
use crate::transport::{self, Lane};
use godwit_handoff::frame::Frame;
use godwit_image::{Code, Refusal, Subject};
use godwit_linux::poll::{self, Readiness};
use godwit_linux::tcp;
use godwit_strategy::LinkProfile;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const CONNECT: Duration = Duration::from_secs(5);
/// Bytes of one frame.
const FRAME_BYTES: usize = 64 << 10;
/// Enough for a fast link.
const BYTES_MAX: u64 = 16 << 20;
/// Enough for a slow one.
const TIME_MAX: Duration = Duration::from_millis(150);
/// Between two looks at what has been acknowledged.
const LOOK: Duration = Duration::from_micros(100);
/// So much may always be under way.
const UNDER_WAY: u64 = 16 << 10;
/// What is under way besides what the link itself holds: as much as goes in that time. More would only lie in queues, and stand before
/// the move that comes next.
const QUEUED: Duration = Duration::from_millis(20);
/// How long what is still under way is waited for in the end.
const DRAIN: Duration = Duration::from_millis(100);

/// Measures the link to a destination. None where it cannot be: over ssh nobody tells how far the bytes have come.
///
/// # Errors
/// The destination is none, or cannot be reached.
pub(crate) fn probe(destination: &str, remote_program: Option<PathBuf>) -> Result<Option<LinkProfile>, Refusal> {
    let transport = transport::parse(destination, remote_program)?;
    if !destination.starts_with("tcp://") {
        return Ok(None);
    }
    let failed = |error: io::Error| {
        let cause = format!("the link could not be measured: {error}");
        Refusal::new(Code::LINK_LOST, Subject::Object(transport.name()), cause)
    };
    let lane = transport.connect(CONNECT).map_err(failed)?;
    measure(lane).map(Some).map_err(failed)
}

fn measure(mut lane: Lane) -> io::Result<LinkProfile> {
    let mut frame = Vec::new();
    Frame::Probe(&[0; FRAME_BYTES]).encode(&mut frame).map_err(io::Error::other)?;
    let begin = Instant::now();
    let mut seen: Vec<(f64, u64)> = Vec::new();
    let (mut written, mut gone) = (0, 0);
    loop {
        let advance = tcp::advance(lane.writer.as_fd())?;
        seen.push((begin.elapsed().as_secs_f64(), advance.acknowledged));
        if advance.acknowledged >= BYTES_MAX || begin.elapsed() >= TIME_MAX {
            drain(&lane, written)?;
            let round_trip_ms = advance.round_trip.as_secs_f64() * 1e3;
            return Ok(LinkProfile { bytes_per_second: rate(&seen), round_trip_ms });
        }
        let most = most_under_way(rate(&seen), advance.round_trip).min(BYTES_MAX);
        let free = (most + advance.acknowledged).saturating_sub(written) as usize;
        let part = free.min(frame.len() - gone);
        if part == 0 {
            std::thread::sleep(LOOK);
            continue;
        }
        match lane.writer.write(&frame[gone..gone + part]) {
            Ok(count) => {
                written += count as u64;
                gone = (gone + count) % frame.len();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let room = Readiness { readable: false, writable: true };
                poll::wait(&[(lane.writer.as_fd(), room)], Some(LOOK))?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Bytes that may be under way over a link of which so much is known. The way there and back counts twice, so that a window which is
/// too small for the link doubles with each.
fn most_under_way(rate: f64, round_trip: Duration) -> u64 {
    UNDER_WAY.max((rate * (QUEUED + round_trip.min(TIME_MAX) * 2).as_secs_f64()) as u64)
}

/// Waits until what was written has arrived: closing leaves it to the kernel, which goes on sending it beside whatever comes next.
fn drain(lane: &Lane, written: u64) -> io::Result<()> {
    let begin = Instant::now();
    while tcp::advance(lane.writer.as_fd())?.acknowledged < written && begin.elapsed() < DRAIN {
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Bytes per second in the second half of the time: at first what lies in buckets and queues is filled, and the sender goes slowly.
fn rate(seen: &[(f64, u64)]) -> f64 {
    let Some(last) = seen.last() else { return 0.0 };
    let first = seen.iter().find(|(time, _)| *time >= last.0 / 2.0).unwrap_or(last);
    let (time, bytes) = (last.0 - first.0, last.1.saturating_sub(first.1));
    if time > 0.0 && bytes > 0 { bytes as f64 / time } else { last.1 as f64 / last.0.max(1e-6) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

    #[test]
    fn what_came_at_first_does_not_count() {
        // A bucket of 64 KB leaves at once, then a byte each microsecond.
        let seen: Vec<(f64, u64)> =
            (1..=100).map(|step| (f64::from(step) / 1e3, 64_000 + u64::from(step as u32) * 1000)).collect();
        assert!((rate(&seen) / 1e6 - 1.0).abs() < 0.05, "{}", rate(&seen));
        assert!(rate(&[(0.5, 100)]) > 0.0 && rate(&[]) == 0.0);
    }

    #[test]
    fn no_more_is_under_way_than_the_link_needs() {
        // 10 Mbit/s: some 25 KB besides what is on the way.
        assert_eq!(most_under_way(1.25e6, Duration::ZERO), 25_000);
        assert_eq!(most_under_way(0.0, Duration::from_secs(4000)), UNDER_WAY);
        // A window that is too small for the way there and back doubles.
        let (round_trip, window) = (Duration::from_millis(50), 1e6);
        assert!(most_under_way(window / round_trip.as_secs_f64(), round_trip) >= 2_000_000);
    }

    #[test]
    fn a_link_is_measured_by_what_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let reader = std::thread::spawn(move || {
            let (mut there, _) = listener.accept().unwrap();
            let mut buffer = vec![0; 1 << 16];
            while there.read(&mut buffer).is_ok_and(|count| count > 0) {}
        });
        let link = probe(&format!("tcp://{address}"), None).unwrap().unwrap();
        reader.join().unwrap();
        assert!(link.bytes_per_second > 1e7 && link.round_trip_ms < 100.0, "{link:?}");
        assert_eq!(probe("ssh://nobody", None), Ok(None));
        assert_eq!(probe("udp://x", None).unwrap_err().code, Code::USAGE);
    }
}
