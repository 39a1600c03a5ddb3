//! The pulse: a thread that tells the other side that we live while the main thread cannot: it freezes a tree of a thousand threads, or
//! builds one, on a host that has other things to do. It says nothing but heartbeats, only between two frames, and has no descriptor
//! but the lane's: the numbers of all others may change under it.
use godwit_handoff::frame::Frame;
use godwit_handoff::{Malformed, Message, MigrationId, Packet};
use godwit_linux::descriptor;
use godwit_linux::poll::{self, Readiness};
use godwit_linux::scheduling::Precedence;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What both threads know.
#[derive(Debug)]
struct Gate {
    /// No frame is half sent, and none waits to leave: somebody else may say something.
    is_between: bool,
    /// When something was said last.
    said: Instant,
    /// Bytes that the thread has said.
    spoken: u64,
    /// The thread is to end.
    is_over: bool,
    /// Whether the thread has a table of its own, and the file that it does not need in ours any more.
    began: Option<(io::Result<()>, File)>,
}

#[derive(Debug)]
struct Shared {
    gate: Mutex<Gate>,
    changed: Condvar,
}

impl Shared {
    fn gate(&self) -> MutexGuard<'_, Gate> {
        // Nothing in here can be half changed.
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The main thread's end. Dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct Pulse {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    is_open: bool,
}

impl Pulse {
    /// Starts the thread for what can be written to `lane`; it says nothing before the gate is open. `period`: after so long without a
    /// word it says one.
    ///
    /// # Errors
    /// No thread or descriptor is free, or the thread could not leave our table of descriptors.
    pub(crate) fn start(lane: &File, migration: MigrationId, period: Duration) -> io::Result<Pulse> {
        let mut word = Vec::new();
        let packet = Packet { migration, message: Message::Heartbeat };
        let invalid = |error: Malformed| io::Error::other(error.to_string());
        Frame::Packet(packet).encode(&mut word).map_err(invalid)?;
        let lane = lane.try_clone()?;
        let gate = Gate { is_between: false, said: Instant::now(), spoken: 0, is_over: false, began: None };
        let shared = Arc::new(Shared { gate: Mutex::new(gate), changed: Condvar::new() });
        let theirs = shared.clone();
        let thread = std::thread::Builder::new().name("pulse".to_owned()).spawn(move || {
            let own = descriptor::leave_table_with(lane.as_fd());
            let (own, began) = match own {
                Ok(own) => (Some(File::from(own)), Ok(())),
                Err(error) => (None, Err(error.into())),
            };
            theirs.gate().began = Some((began, lane));
            theirs.changed.notify_all();
            if let Some(own) = own {
                beat(&theirs, own, &word, period);
            }
        })?;
        let pulse = Pulse { shared, thread: Some(thread), is_open: false };
        let mut gate = pulse.shared.gate();
        let began = loop {
            if let Some((began, _closed_in_our_table)) = gate.began.take() {
                break began;
            }
            gate = pulse.shared.changed.wait(gate).unwrap_or_else(PoisonError::into_inner);
        };
        drop(gate);
        began.map(|()| pulse)
    }

    /// To be called before bytes of a frame leave.
    pub(crate) fn close(&mut self) {
        if std::mem::take(&mut self.is_open) {
            self.shared.gate().is_between = false;
        }
    }

    /// To be called when all that was to leave has left.
    pub(crate) fn open(&mut self) {
        let mut gate = self.shared.gate();
        (gate.is_between, gate.said) = (true, Instant::now());
        self.is_open = true;
    }

    /// Bytes that the thread has said.
    pub(crate) fn spoken(&self) -> u64 {
        self.shared.gate().spoken
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.shared.gate().is_over = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // Until it has ended the lane has not.
            let _ = thread.join();
        }
    }
}

/// The thread's life.
fn beat(shared: &Shared, mut lane: File, word: &[u8], period: Duration) {
    // Where thousands wait for a processor a word could come too late; it takes some microseconds every few seconds.
    let _precedence = Precedence::take();
    let room = Readiness { readable: false, writable: true };
    let mut gate = shared.gate();
    while !gate.is_over {
        let silent = gate.said.elapsed();
        let due = if gate.is_between { period.saturating_sub(silent) } else { period };
        if due > Duration::ZERO {
            (gate, _) = shared.changed.wait_timeout(gate, due).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        // Where there is room for a word there is room for all of it: a socket is writable when a third of it is free, a pipe when a
        // page is.
        let has_room = poll::wait(&[(lane.as_fd(), room)], Some(Duration::ZERO)).is_ok_and(|ready| ready[0].writable);
        if has_room {
            match lane.write(word) {
                Ok(count) if count == word.len() => gate.spoken += count as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // The main thread finds out by itself.
                _ => return,
            }
        }
        // Without room there is something on its way that has not been read: as good as a word.
        gate.said = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::os::unix::net::UnixStream;

    const PERIOD: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_millis(200);

    fn pair() -> (File, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (File::from(OwnedFd::from(ours)), theirs)
    }

    fn word() -> Vec<u8> {
        let mut word = Vec::new();
        let packet = Packet { migration: MigrationId([5; 16]), message: Message::Heartbeat };
        Frame::Packet(packet).encode(&mut word).unwrap();
        word
    }

    #[test]
    fn it_speaks_between_frames_alone_and_lets_go_of_the_lane() {
        let (ours, mut theirs) = pair();
        let mut pulse = Pulse::start(&ours, MigrationId([5; 16]), PERIOD).unwrap();
        let hears =
            |theirs: &UnixStream| poll::wait(&[(theirs.as_fd(), Readiness::READABLE)], Some(LONG)).unwrap()[0].readable;
        // Nobody has said who we are.
        assert!(!hears(&theirs));
        pulse.open();
        let mut heard = vec![0; word().len()];
        for _ in 0..3 {
            theirs.read_exact(&mut heard).unwrap();
            assert_eq!(heard, word());
        }
        pulse.close();
        // What was on its way.
        theirs.set_nonblocking(true).unwrap();
        while theirs.read(&mut heard).is_ok_and(|count| count > 0) {}
        assert!(!hears(&theirs), "within a frame");
        assert!(pulse.spoken() >= 3 * heard.len() as u64);
        pulse.open();
        assert!(hears(&theirs));
        drop(pulse);
        while theirs.read(&mut heard).is_ok_and(|count| count > 0) {}
        drop(ours);
        assert_eq!(theirs.read(&mut heard).unwrap(), 0, "somebody still has the lane");
    }

    #[test]
    fn a_full_lane_and_numbers_that_change_do_not_harm_it() {
        let (mut ours, mut theirs) = pair();
        let mut pulse = Pulse::start(&ours, MigrationId([5; 16]), PERIOD).unwrap();
        let mut filled = 0;
        while let Ok(count) = ours.write(&[7; 1000]) {
            filled += count;
        }
        pulse.open();
        std::thread::sleep(LONG);
        assert_eq!(pulse.spoken(), 0);
        // Another file gets the lane's number; the thread has its own.
        let number = ours.as_raw_fd();
        let kept = ours.try_clone().unwrap();
        drop(ours);
        let other = File::open("/dev/null").unwrap();
        assert!(other.as_raw_fd() <= number);
        let mut bytes = vec![0; filled];
        theirs.read_exact(&mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 7));
        let mut heard = vec![0; word().len()];
        theirs.read_exact(&mut heard).unwrap();
        assert_eq!(heard, word());
        drop((pulse, kept));
    }

    #[test]
    fn it_ends_when_nobody_hears_it() {
        let (ours, theirs) = pair();
        let mut pulse = Pulse::start(&ours, MigrationId([5; 16]), PERIOD).unwrap();
        pulse.open();
        drop(theirs);
        let begin = Instant::now();
        while !pulse.thread.as_ref().unwrap().is_finished() {
            assert!(begin.elapsed() < Duration::from_secs(20), "it goes on for nobody");
            std::thread::sleep(PERIOD);
        }
    }
}
