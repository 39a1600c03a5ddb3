//! An engine that is killed at any moment of its work leaves the process unharmed: a busy process with many threads goes
//! on, with right results, however often that happens.
//!
//! The test starts itself again, in a PID namespace of its own, as the observer; that starts itself as the victim, and again
//! and again as the engine, which freezes, captures and lets go until it is killed. Another victim, of which some thread is always in
//! a signal handler, is killed_engine_signals.c.
use godwit_engine::preparation::Preparation;
use godwit_linux::proc::syscall::{self, Activity};
use godwit_linux::signal;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const KILLS: u64 = 200;
/// Engines one right after the other: the next ones find threads that have yet to go on by themselves.
const SERIES: u64 = 4;
/// Engines whose first pass is measured.
const PASSES: usize = 5;
/// Threads that compute.
const BUSY: usize = 6;
/// And: one that sleeps, two that send a byte to and fro.
const COUNTERS: usize = BUSY + 3;
/// An engine that dies in a program is waited for that long by the stub, plus a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("observer") => observer(&arguments[2], &arguments[3..]),
        Some("victim") => victim(&arguments[2]),
        Some("engine") => engine(arguments[2].parse().expect("a number")),
        // What the runner of tests passes to list or to choose tests.
        Some("--list") => println!("killed_engine: test"),
        _ => {
            if !std::fs::read_to_string("/proc/self/status").is_ok_and(|status| status.contains("\nUid:\t0\t")) {
                println!("killed_engine: skipped: needs root");
                return;
            }
            let own = std::env::current_exe().expect("own path");
            // In another PID namespace somebody may have our number at the same time.
            let namespace = std::fs::read_link("/proc/self/ns/pid").expect("a PID namespace");
            let name = format!("godwit-killed-engine-{}-{}", std::process::id(), namespace.display());
            let file = std::env::temp_dir().join(&name);
            observe(&own, &file, &[own.as_path(), Path::new("victim"), &file]);
            let handling = std::env::temp_dir().join(name + "-signals");
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/killed_engine_signals.c");
            let built = Command::new("cc").args(["-O1", "-pthread", "-o"]).arg(&handling).arg(source).status();
            assert!(built.expect("cc runs").success(), "the other victim is not built");
            observe(&own, &file, &[&handling, &file, Path::new(&COUNTERS.to_string())]);
            let _ = std::fs::remove_file(&handling);
        }
    }
}

fn observe(own: &Path, file: &Path, victim: &[&Path]) {
    let status = Command::new("unshare")
        .args(["-fpm", "--mount-proc", "--kill-child"])
        .arg(own)
        .arg("observer")
        .arg(file)
        .args(victim)
        .status()
        .expect("unshare runs");
    let _ = std::fs::remove_file(file);
    assert!(status.success(), "the observer of {victim:?} says no: {status}");
}

fn counters(file: &File) -> [u64; COUNTERS] {
    let mut raw = [0_u8; COUNTERS * 8];
    file.read_exact_at(&mut raw, 0).expect("counters");
    std::array::from_fn(|index| u64::from_le_bytes(raw[index * 8..index * 8 + 8].try_into().expect("8 bytes")))
}

/// Sends a signal to every thread that waits in the stub of a dead engine, as no thread of a victim of ours waits: its handler runs
/// when it is let go, and leads back. Returns how many there are.
fn interrupt_stranded(pid: i32) -> usize {
    const RT_SIGTIMEDWAIT: u32 = 128;
    const SIGUSR2: i32 = 12;
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the victim's threads");
    let threads = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok());
    threads
        .filter(|tid| matches!(syscall::read(pid, *tid), Ok(Activity::Call { number: RT_SIGTIMEDWAIT, .. })))
        .filter(|tid| signal::send_to_thread(pid, *tid, SIGUSR2).is_ok())
        .count()
}

/// PID 1 of the namespace.
fn observer(path: &str, victim: &[String]) {
    let own = std::env::current_exe().expect("own path");
    let handles = Path::new(&victim[0]) != own;
    let mut victim = start(path, victim);
    let file = File::open(path).expect("counters");
    // Of one engine alone we may see nothing, when others have the processors until its pass is over.
    let mut passes: Vec<Duration> = Vec::new();
    while passes.len() < PASSES {
        passes.push(one_pass(&own, victim.id()));
        await_progress(&file, &mut victim, 0);
    }
    passes.sort_unstable();
    let pass = passes[PASSES / 2];
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let (mut captured, mut stranded) = (0, 0);
    let mut refused = std::collections::BTreeMap::new();
    for round in 0..KILLS {
        let mut engine = Command::new(&own)
            .args(["engine", &victim.id().to_string()])
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .expect("engine");
        // It says so when it is about to begin.
        let mut output = engine.stdout.take().expect("pipe");
        let mut byte = [0];
        output.read_exact(&mut byte).expect("the engine begins");
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // At any moment of one and a half passes.
        std::thread::sleep(pass.mul_f64((random >> 33) as f64 / (1_u64 << 31) as f64 * 1.5));
        engine.kill().expect("kill");
        engine.wait().expect("wait");
        let mut rest = Vec::new();
        output.read_to_end(&mut rest).expect("pipe");
        captured += rest.iter().filter(|byte| **byte == b'+').count();
        for line in String::from_utf8_lossy(&rest).split('\n').filter(|line| line.starts_with("GW")) {
            *refused.entry(line.to_owned()).or_insert(0_u64) += 1;
        }
        if let Some(status) = victim.try_wait().expect("wait") {
            panic!("round {round}: the victim ended: {status}");
        }
        if handles {
            stranded += interrupt_stranded(victim.id() as i32);
        }
        if round % SERIES != SERIES - 1 {
            continue;
        }
        await_progress(&file, &mut victim, round);
    }
    println!(
        "killed_engine: {KILLS} kills survived; captured and let go {captured} times before; {stranded} threads in a handler behind the stub; refused: {refused:?}"
    );
    assert!(captured > 0, "the engines did not work: nothing was shown");
    assert!(!handles || stranded > 0, "no thread was left in the stub: nothing was shown");
    victim.kill().expect("kill");
    victim.wait().expect("wait");
}

fn start(path: &str, victim: &[String]) -> Child {
    // Without the descriptors that this process has from whoever runs the tests: they are edges of the victim's tree.
    let close =
        "for fd in /proc/self/fd/*; do fd=${fd##*/}; [ $fd -gt 2 ] && eval \"exec $fd>&-\"; done; exec \"$0\" \"$@\"";
    let victim = Command::new("bash")
        .args(["-c", close])
        .args(victim)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("victim");
    let begin = Instant::now();
    while std::fs::metadata(path).map_or(0, |metadata| metadata.len()) < (COUNTERS * 8) as u64 {
        assert!(begin.elapsed() < PATIENCE, "the victim does not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    victim
}

/// Waits until every thread has come round.
fn await_progress(file: &File, victim: &mut Child, round: u64) {
    let before = counters(file);
    let killed = Instant::now();
    while counters(file).iter().zip(before).any(|(now, before)| *now <= before + 1) {
        if let Some(status) = victim.try_wait().expect("wait") {
            panic!("round {round}: the victim ended: {status}");
        }
        let now = counters(file);
        assert!(killed.elapsed() < PATIENCE, "round {round}: a thread stands still: {before:?}, {now:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// How long an engine takes on this machine for one freeze, capture and release; it is killed behind it.
fn one_pass(own: &Path, pid: u32) -> Duration {
    let mut engine = Command::new(own)
        .args(["engine", &pid.to_string()])
        .stdout(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()
        .expect("engine");
    let mut output = engine.stdout.take().expect("pipe");
    let mut byte = [0];
    output.read_exact(&mut byte).expect("the engine begins");
    let begin = Instant::now();
    output.read_exact(&mut byte).expect("the engine goes on");
    let pass = begin.elapsed();
    assert_eq!(byte, *b"+", "the victim is refused: nothing can be shown");
    engine.kill().expect("kill");
    engine.wait().expect("wait");
    pass
}

/// Freezes, captures and lets go until it is killed. Writes a byte before the first time, and after each how it went.
fn engine(pid: i32) {
    let mut output = std::io::stdout();
    output.write_all(b".").and_then(|()| output.flush()).expect("pipe");
    loop {
        let Ok(mut frozen) = godwit_engine::freeze::freeze(pid, Preparation::of(pid)) else { continue };
        let captured = godwit_engine::capture::capture(&mut frozen, &Default::default());
        // A refusal is none of the victim's business: what an engine before this one has left is refused for a while.
        let word = captured.map_or_else(|refusal| format!("\n{refusal}\n"), |_| String::from("+"));
        frozen.release();
        output.write_all(word.as_bytes()).and_then(|()| output.flush()).expect("pipe");
    }
}

/// Threads whose results are checked all the time; any error ends the process.
fn victim(path: &str) {
    // No descriptor of a test runner is part of it.
    let file = File::create(path).expect("counters");
    let counts: Arc<[AtomicU64; COUNTERS]> = Arc::new(std::array::from_fn(|_| AtomicU64::new(0)));
    for index in 0..BUSY {
        let counts = Arc::clone(&counts);
        std::thread::spawn(move || {
            let expected = work(index as u64);
            loop {
                check(work(index as u64) == expected, "a result differs");
                counts[index].fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let sleeper = Arc::clone(&counts);
    std::thread::spawn(move || {
        loop {
            let begin = Instant::now();
            std::thread::sleep(Duration::from_millis(2));
            check(begin.elapsed() >= Duration::from_millis(2), "a sleep was too short");
            sleeper[BUSY].fetch_add(1, Ordering::Relaxed);
        }
    });
    let ((mut from_there, mut to_here), (mut from_here, mut to_there)) =
        (std::io::pipe().expect("a pipe"), std::io::pipe().expect("a pipe"));
    let (first, second) = (Arc::clone(&counts), Arc::clone(&counts));
    std::thread::spawn(move || {
        for number in 0_u64.. {
            let result = to_there.write_all(&number.to_le_bytes());
            check(result.is_ok(), "a write failed");
            let mut answer = [0; 8];
            check(from_there.read_exact(&mut answer).is_ok(), "a read failed");
            check(u64::from_le_bytes(answer) == number + 1, "an answer differs");
            first[BUSY + 1].fetch_add(1, Ordering::Relaxed);
        }
    });
    std::thread::spawn(move || {
        loop {
            let mut question = [0; 8];
            check(from_here.read_exact(&mut question).is_ok(), "a read failed");
            let answer = u64::from_le_bytes(question) + 1;
            check(to_here.write_all(&answer.to_le_bytes()).is_ok(), "a write failed");
            second[BUSY + 2].fetch_add(1, Ordering::Relaxed);
        }
    });
    loop {
        let raw: Vec<u8> = counts.iter().flat_map(|count| count.load(Ordering::Relaxed).to_le_bytes()).collect();
        check(file.write_all_at(&raw, 0).is_ok(), "the counters cannot be written");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn check(right: bool, what: &str) {
    if !right {
        // Where the observer's directory of counters is, so that there is something to read.
        let _ = std::fs::write("/tmp/godwit-killed-engine-victim", what);
        std::process::exit(9);
    }
}

/// Integers and floating-point numbers in registers for a while.
fn work(seed: u64) -> u64 {
    let (mut a, mut x) = (seed | 1, 1.5_f64 + seed as f64);
    for _ in 0..20_000 {
        a = a.wrapping_mul(6_364_136_223_846_793_005).rotate_left(17) ^ seed;
        x = (x * 1.000_1 + 0.3).sqrt() + (a & 7) as f64;
    }
    a ^ x.to_bits()
}
