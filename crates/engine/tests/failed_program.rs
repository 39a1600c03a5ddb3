//! A program of ours that fails in one thread is an error here, and nothing at all for the process.
use godwit_engine::freeze::freeze;
use godwit_engine::injector::Injector;
use godwit_engine::preparation::Preparation;
use godwit_linux::proc::stat;
use godwit_linux::program::Program;
use std::time::Duration;
use victim::Victim;

#[path = "victim/mod.rs"]
mod victim;

const THREADS: usize = 5;
const SYS_CLOSE: i64 = 3;
const SYS_GETPID: i64 = 39;
const SYS_NANOSLEEP: i64 = 35;
/// How long after its freeze a thread is back whose program lasts 3 s, and that nobody comes for behind it.
const LATE: Duration = Duration::from_secs(6);
/// Words of the victim that are waited for.
const ROUNDS: u64 = 500;

/// Says a word every time all its threads have come round. Does nothing unless it is asked to be the victim.
#[test]
fn victim() {
    if !victim::is_asked_for() {
        return;
    }
    let barrier = std::sync::Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for index in 0..THREADS {
            let barrier = &barrier;
            scope.spawn(move || {
                loop {
                    std::thread::sleep(Duration::from_millis(1));
                    barrier.wait();
                    if index == 0 {
                        println!("round");
                    }
                }
            });
        }
    });
}

#[test]
fn others_are_taken_back_when_one_fails() {
    let mut victim = Victim::start();
    let pid = victim.pid();
    let too_late = {
        let mut program = Program::new();
        let time = [3_u64.to_le_bytes(), 0_u64.to_le_bytes()].concat();
        let time = program.data(&time);
        program.call("nanosleep", SYS_NANOSLEEP, [time, 0_u64.into()]);
        program
    };
    let mut refused = Program::new();
    refused.call("close", SYS_CLOSE, [u64::MAX.into()]);
    // The last of them leaves a thread that nobody takes back; the first thread, which cleans, has nothing to do with it.
    let late = "did not end in time";
    for (bad, from, cause) in [(&refused, 0, "os error 9"), (&refused, 0, "os error 9"), (&too_late, 1, late)] {
        let mut frozen = freeze(pid, Preparation::of(pid)).unwrap();
        let process = &mut frozen.processes[0];
        let mut injector = Injector::install(process).unwrap();
        let mut good = Program::new();
        good.call("getpid", SYS_GETPID, []);
        let programs: Vec<(usize, &Program)> =
            (from..injector.threads()).map(|index| (index, if index == 1 { bad } else { &good })).collect();
        let failed = injector.run_those(&programs).unwrap_err();
        assert!(failed.to_string().contains(cause), "{failed}");
        drop(injector);
        frozen.release();
        // Until the late thread has come back, too.
        if from == 1 {
            std::thread::sleep(LATE);
        }
        victim.goes_on(ROUNDS, cause);
    }
    // We trace the late one still: a signal that would end it has stopped it.
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let tid = task.unwrap().file_name().to_str().unwrap().parse().unwrap();
        assert_ne!(stat::read(pid, tid).unwrap().state, b't', "thread {tid} has stopped");
    }
}
