//! Workloads whose state is broken from outside say so; and those that are only frozen for seconds do not.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use godwit_testbed::workload::{self, Verdict};
use godwit_testbed::{Host, Options, Pair};

const PATIENCE: Duration = Duration::from_secs(60);

/// Workload; what breaks it (`$P` is its process); a part of what it has to say.
const BREAKS: &[(&str, &str, &str)] = &[
    ("limits", "prlimit --pid $P --nofile=100:100", "limit 7"),
    ("limits", "echo 400 > /proc/$P/oom_score_adj", "out-of-memory"),
    ("affinity", "taskset -p 1 $P", "processor"),
    ("io_priority", "ionice -c 3 -p $P", "I/O priority"),
    ("scheduling", "renice -n 11 -p $P", "nice of the first thread"),
    (
        "memory_private",
        "for line in $(grep ' rw-p 00000000 00:00 0' /proc/$P/maps | cut -d' ' -f1); do
            from=$((0x${line%-*})); to=$((0x${line#*-}))
            [ $((to - from)) = 4194304 ] && at=$from && break
        done
        printf broken | dd of=/proc/$P/mem bs=1 seek=$((at + 1000)) conv=notrunc",
        "byte 1000",
    ),
    (
        "file_offsets",
        "for f in /proc/$P/fd/*; do case $(readlink $f) in *.append) : > $(readlink $f);; esac; done",
        "file appended to",
    ),
    ("file_shared", "rm $(readlink /proc/$P/fd/3)", "inode"),
    ("unlinked_file", "truncate -s 5 /proc/$P/fd/3", "read: "),
    ("directory", "rm $(readlink /proc/$P/fd/3)/file-4*", "entries read"),
    ("pipe", "head -c 10 < /proc/$P/fd/3 > /dev/null", "unread bytes"),
    ("pipe_packets", "head -c 1 < /proc/$P/fd/3 > /dev/null", "size of a packet"),
    ("fifo", "head -c 3 < /proc/$P/fd/3 > /dev/null", "contents"),
    ("unopened_memory", "rm /dev/shm/workload-*-child", "shm_open"),
    ("shm_file", "rm /dev/shm/workload-*", "stat of the file by name"),
    ("tmpfs_file", "truncate -s 9 /tmp/workload-*/file", "pread"),
    ("sysv_shm", "ipcrm -a", "segment found by its key"),
    ("sysv_objects", "ipcrm -a", "semaphores found by their key"),
    ("message_queue", "rm /dev/mqueue/workload-*", "opening the queue by its name"),
    ("inotify", "touch $(dirname $(readlink /proc/$P/fd/3))/another", "event"),
    ("directories", "mv $(readlink /proc/$P/cwd) $(readlink /proc/$P/cwd).moved", "working directory"),
    ("tree", "kill -KILL $(awk '{print $1}' /proc/$P/task/$P/children)", "parent of a leaf"),
    ("stopped", "kill -CONT $(awk '{print $1}' /proc/$P/task/$P/children)", "a stopped child ran"),
    ("zombie", "kill -USR1 $P", "is not there"),
    ("pty", "stty -F /dev/pts/0 rows 44", "size"),
    ("pty", "head -c 4 < /dev/pts/0 > /dev/null & sleep 0.1", "read of a line"),
    // Calls that a stop signal interrupts: what a careless freeze would show.
    ("blocked_poll", "kill -STOP $P; sleep 0.3; kill -CONT $P", "epoll_wait returned -1 (Interrupted system call)"),
    ("blocked_receive", "kill -STOP $P; sleep 0.3; kill -CONT $P", "recv, timed returned -1 (Interrupted system call)"),
    ("alarm", "kill -ALRM $(awk '{print $1}' /proc/$P/task/$P/children); sleep 0.1", "the alarm rang"),
    ("signal_pending", "kill -WINCH $P", "a signal too many"),
    ("signal_queue", "kill -HUP $P", "pending signals"),
    ("root_directory", "rmdir /var/tmp/godwit-testbed/run-*-root_directory/report.root/below", "working directory"),
];

/// Workloads of one process without calls that a stop signal itself interrupts: frozen for seconds, they go on.
const FROZEN: &[&str] = &[
    "getpid",
    "registers",
    "tls",
    "threads_64",
    "rseq",
    "clocks",
    "timerfd",
    "posix_timers",
    "memory_private",
    "heap",
    "blocked_futex",
    "blocked_sleep",
    "blocked_read",
    "affinity",
    "dead_thread_leader",
    "pipe",
];

fn pair() -> Pair {
    Pair::new(&Options { executable: Some(env!("CARGO_BIN_EXE_testbed").into()), ..Options::default() }).unwrap()
}

/// The verdict of a workload on which a script was let loose while it worked.
fn verdict_after(host: &Host, name: &str, script: &str) -> Verdict {
    let workload = workload::all().unwrap().into_iter().find(|workload| workload.name == name).unwrap();
    let run = workload.start(host, None).unwrap();
    run.await_ready(host, PATIENCE).unwrap_or_else(|verdict| panic!("{name}: {verdict}"));
    thread::sleep(Duration::from_millis(100));
    host.command("sh").arg("-c").arg(format!("P={}\n{script}", run.pid)).output().unwrap();
    thread::sleep(Duration::from_millis(100));
    run.stop(host, PATIENCE).unwrap()
}

#[test]
fn a_broken_state_is_noticed() {
    let unnoticed = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((name, script, expected)) = BREAKS.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // A pair of its own: some scripts break more than their workload.
                    let (pair, start) = (pair(), Instant::now());
                    let verdict = verdict_after(&pair.source, name, script);
                    let said = verdict.to_string();
                    println!("{name}: {:.1} s: {said:.200}", start.elapsed().as_secs_f64());
                    if verdict == Verdict::Pass || !said.contains(expected) {
                        unnoticed.lock().unwrap().push(format!("{name} after {script}: {said}"));
                    }
                }
            });
        }
    });
    let unnoticed = unnoticed.into_inner().unwrap();
    assert!(unnoticed.is_empty(), "{}", unnoticed.join("\n"));
}

#[test]
fn a_freeze_of_seconds_breaks_nothing() {
    let mut broken = Vec::new();
    let pair = pair();
    thread::scope(|scope| {
        let runs: Vec<_> = FROZEN
            .iter()
            .map(|name| {
                (
                    name,
                    scope.spawn(|| {
                        verdict_after(&pair.source, name, "kill -STOP $P; sleep 3; kill -CONT $P; sleep 0.3")
                    }),
                )
            })
            .collect();
        for (name, run) in runs {
            let verdict = run.join().unwrap();
            if verdict != Verdict::Pass {
                broken.push(format!("{name}: {verdict}"));
            }
        }
    });
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
