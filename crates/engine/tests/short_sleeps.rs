//! A process whose threads sleep for a moment, again and again, at one place and at another, is let go on each time with no more than
//! its own time: also when it came back while it was looked at, and something else lies where its time was.
use godwit_engine::freeze::freeze;
use godwit_engine::preparation::Preparation;
use std::hint::black_box;
use std::time::{Duration, Instant};
use victim::Victim;

#[path = "victim/mod.rs"]
mod victim;

const MOMENT: Duration = Duration::from_millis(1);
/// How long it is frozen and let go.
const WORK: Duration = Duration::from_secs(8);
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
    if !victim::is_asked_for() {
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
    let mut victim = Victim::start();
    let (begin, mut freezes) = (Instant::now(), 0);
    while begin.elapsed() < WORK {
        freeze(victim.pid(), Preparation::of(victim.pid())).unwrap().release();
        freezes += 1;
        // Some moments for it between two of them.
        std::thread::sleep(Duration::from_micros(freezes % 7 * 100));
    }
    victim.goes_on(2, &format!("{freezes} times frozen"));
}
