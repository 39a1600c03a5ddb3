//! A wait with an absolute time that the kernel continues (restart_syscall(2)) is known for what it is whenever its thread is stopped:
//! also when the thread had not had a processor yet since it was let go the last time, at the look before the freeze.
use godwit_engine::capture::{Decision, Options, capture_at_a_good_moment};
use godwit_engine::freeze::freeze;
use godwit_engine::preparation::Preparation;
use godwit_engine::resource::edge::Choice;
use std::fs::DirEntry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use victim::Victim;

#[path = "victim/mod.rs"]
mod victim;

const THREADS: usize = 16;
/// How long it is frozen, captured and let go.
const WORK: Duration = Duration::from_secs(8);
/// Who takes the processors from its threads.
const OTHERS: usize = 2;
/// Registers of struct user_regs_struct.
const RAX: usize = 10;
const ORIG_RAX: usize = 15;
const RESTART_SYSCALL: u64 = 219;
const EINTR: i64 = -4;

/// Says a word every time it has come round. Does nothing unless it is asked to be the victim.
#[test]
fn victim() {
    if !victim::is_asked_for() {
        return;
    }
    for _ in 0..THREADS {
        std::thread::spawn(|| {
            loop {
                std::thread::park_timeout(Duration::from_secs(1000));
            }
        });
    }
    loop {
        println!("round");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn no_continued_wait_ends_with_the_freeze() {
    let mut victim = Victim::start();
    // What it says goes to us, who are not frozen; what it inherited leads anywhere.
    let directory = format!("/proc/{}/fd", victim.pid());
    let decide = |entry: std::io::Result<DirEntry>| {
        let entry = entry.unwrap();
        let link = std::fs::read_link(entry.path()).unwrap().to_string_lossy().into_owned();
        let descriptor = entry.file_name().to_string_lossy().parse().unwrap();
        let leads_out = ["pipe:", "socket:"].iter().any(|kind| link.starts_with(kind));
        leads_out.then_some(Decision { pid: None, descriptor, choice: Choice::Null })
    };
    let options = Options { edges: std::fs::read_dir(directory).unwrap().filter_map(decide).collect() };
    let over = Arc::new(AtomicBool::new(false));
    for _ in 0..OTHERS {
        let over = Arc::clone(&over);
        std::thread::spawn(move || while !over.load(Ordering::Relaxed) {});
    }
    let (begin, mut freezes, mut continued) = (Instant::now(), 0_u64, 0);
    while begin.elapsed() < WORK {
        let mut frozen = Some(freeze(victim.pid(), Preparation::of(victim.pid())).unwrap());
        let captives = capture_at_a_good_moment(&mut frozen, &options, None).unwrap();
        for thread in captives.tree.tasks.iter().flat_map(|task| &task.threads) {
            let (answer, call) = (thread.registers[RAX] as i64, thread.registers[ORIG_RAX]);
            assert!((answer, call) != (EINTR, RESTART_SYSCALL), "thread {} in freeze {freezes}", thread.tid.0);
            continued += u64::from(!thread.note.is_empty());
        }
        drop(frozen);
        freezes += 1;
    }
    over.store(true, Ordering::Relaxed);
    assert!(continued > 0);
    println!("{freezes} freezes, {continued} interrupted calls");
    victim.goes_on(2, &format!("{freezes} times frozen"));
}
