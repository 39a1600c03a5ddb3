//! Moves a process through this process's memory and back to life: `bounce PID`, for trying the engine out.
use godwit_engine::preparation::Preparation;
use godwit_engine::{capture, freeze, pages, restore};
use std::time::Instant;

/// Time that this thread has run, whatever else the machine did.
fn on_processor() -> std::time::Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    std::time::Duration::from_nanos(text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0))
}

fn main() {
    let pid: i32 = std::env::args().nth(1).and_then(|text| text.parse().ok()).expect("usage: bounce PID");
    let t0 = Instant::now();
    let mut frozen = freeze::freeze(pid, Preparation::of(pid)).unwrap_or_else(|e| panic!("{e}"));
    let t1 = Instant::now();
    let captives = capture::capture(&mut frozen, &capture::Options::default()).unwrap_or_else(|e| panic!("{e}"));
    let t2 = Instant::now();
    let mut saved = Vec::new();
    pages::read(&captives, |owner, ranges, bytes| {
        saved.push((owner, ranges.to_vec(), bytes.to_vec()));
        Ok(())
    })
    .unwrap_or_else(|e| panic!("{e}"));
    let t3 = Instant::now();
    if std::env::args().nth(2).as_deref() == Some("thaw") {
        frozen.release();
        return;
    }
    frozen.kill();
    std::thread::sleep(std::time::Duration::from_millis(50));
    let t4 = Instant::now();
    godwit_linux::signal::set_own_mask(!(1 << 4));
    let mut restorer = restore::Restorer::begin(captives.tree).unwrap_or_else(|e| panic!("{e}"));
    let t5 = Instant::now();
    let c5 = on_processor();
    for (owner, ranges, bytes) in &saved {
        restorer.write(*owner, ranges, bytes).unwrap_or_else(|e| panic!("{e}"));
    }
    let t6 = Instant::now();
    let c6 = on_processor();
    restorer.complete().unwrap_or_else(|e| panic!("{e}"));
    let t7 = Instant::now();
    if std::env::args().nth(2).as_deref() == Some("hold") {
        restorer.hold().unwrap_or_else(|e| panic!("{e}"));
    }
    restorer.resume().unwrap_or_else(|e| panic!("{e}"));
    let t8 = Instant::now();
    godwit_linux::signal::set_own_mask(0);
    eprintln!(
        "freeze {:?} capture {:?} read {:?} | begin {:?} pages {:?} ({:?} on the processor) complete {:?} resume {:?}",
        t1 - t0,
        t2 - t1,
        t3 - t2,
        t5 - t4,
        t6 - t5,
        c6 - c5,
        t7 - t6,
        t8 - t7
    );
    std::thread::sleep(std::time::Duration::from_secs(2));
}
