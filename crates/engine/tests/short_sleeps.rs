//! A process whose threads sleep for a moment, again and again, at one place and at another, is let go on each time with no more than
//! its own time: also when it came back while it was looked at, and something else lies where its time was.
use godwit_engine::freeze::freeze;
use godwit_engine::preparation::Preparation;
use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const MOMENT: Duration = Duration::from_millis(1);
/// How long it is frozen and let go.
const WORK: Duration = Duration::from_secs(8);
const PATIENCE: Duration = Duration::from_secs(20);
/// What lies where a time was: it is one itself, of a quarter of an hour.
const OTHER: u64 = 1000;

#[inline(never)]
fn sleep_deeply() {
    let mut other = [OTHER; 64];
    black_box(&mut other);
    std::thread::sleep(MOMENT);
    black_box(&mut other);
}

/// Says a word every time it has come round. Does nothing unless it is asked to be the victim.
#[test]
fn victim() {
    if std::env::var_os("GODWIT_VICTIM").is_none() {
        return;
    }
    loop {
        std::thread::sleep(MOMENT);
        sleep_deeply();
        println!("round");
    }
}

#[test]
fn nobody_sleeps_longer_than_it_wanted_to() {
    let own = std::env::current_exe().unwrap();
    let mut victim = Command::new(own)
        .args(["--exact", "victim", "--nocapture"])
        .env("GODWIT_VICTIM", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let rounds = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&rounds);
    let output = BufReader::new(victim.stdout.take().unwrap());
    std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            counted.fetch_add(u64::from(line == "round"), Ordering::Relaxed);
        }
    });
    let goes_on = |why: &str| {
        let (before, begin) = (rounds.load(Ordering::Relaxed), Instant::now());
        while rounds.load(Ordering::Relaxed) < before + 2 {
            assert!(begin.elapsed() < PATIENCE, "{why}");
            std::thread::sleep(MOMENT);
        }
    };
    goes_on("the victim does not begin");
    let pid = victim.id() as i32;
    let (begin, mut freezes) = (Instant::now(), 0);
    while begin.elapsed() < WORK {
        freeze(pid, Preparation::of(pid)).unwrap().release();
        freezes += 1;
        // Some moments for it between two of them.
        std::thread::sleep(Duration::from_micros(freezes % 7 * 100));
    }
    goes_on(&format!("it stands still, {freezes} times frozen: {:?}", victim.try_wait()));
    victim.kill().unwrap();
    victim.wait().unwrap();
}
