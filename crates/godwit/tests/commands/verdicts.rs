//! What `check` says against what a migration then does, for every workload: how often it promises too much, and too little.
use crate::scene::{PATIENCE, Receiver, Scratch, godwit, json, pair};
use godwit_testbed::Pair;
use godwit_testbed::workload::{self, Verdict, Workload};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What came of one workload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// Said yes, and moved.
    Moved,
    /// Said no, and was refused.
    Refused,
    /// Could not tell, and was refused.
    Undecided,
    /// Said yes, and was refused.
    FalseYes,
    /// Said no, and moved.
    FalseNo,
    /// This machine cannot have it.
    Skipped,
}

fn compare(pair: &Pair, receiver: &Receiver, workload: &Workload) -> (Outcome, String) {
    let run = workload.start(&pair.source, None).expect("it starts");
    match run.await_ready(&pair.source, PATIENCE) {
        Ok(()) => {}
        Err(Verdict::Skip(reason)) => return (Outcome::Skipped, reason),
        Err(verdict) => panic!("{}: {verdict}", workload.name),
    }
    let (pid, target) = (run.pid.to_string(), receiver.destination());
    let check = godwit(&pair.source, &["check", "--json", &pid, "--to", &target]);
    let moved = godwit(&pair.source, &["migrate", "--json", &pid, &target]);
    let undecided = json(&check)["findings"]
        .as_array()
        .is_some_and(|findings| findings.iter().any(|finding| finding["verdict"] == "undecided"));
    let outcome = match (check.status.success(), moved.status.success()) {
        (true, true) => Outcome::Moved,
        (false, false) => Outcome::Refused,
        (true, false) if undecided => Outcome::Undecided,
        (true, false) => Outcome::FalseYes,
        (false, true) => Outcome::FalseNo,
    };
    let (host, pid) = if moved.status.success() {
        let pid = json(&moved)["destination_pid"].as_u64().unwrap_or_default();
        (&pair.destination, u32::try_from(pid).expect("a number"))
    } else {
        (&pair.source, run.pid)
    };
    let verdict = run.stop_as(pid, host, PATIENCE).expect("it is asked to stop");
    let said =
        format!("check {}, migrate {}, {verdict}", json(&check)["outcome"], String::from_utf8_lossy(&moved.stderr));
    (outcome, said)
}

#[test]
fn check_promises_neither_too_much_nor_too_little() {
    let workloads = workload::all().expect("workloads");
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let (next, found) = (&next, &outcomes);
    std::thread::scope(|scope| {
        for worker in 0..3 {
            let workloads = &workloads;
            scope.spawn(move || {
                let scratch = Scratch::new(&format!("verdicts-{worker}"));
                let Some(pair) = pair(&scratch) else { return };
                let receiver = Receiver::start(&pair.destination, &[]);
                while let Some(workload) = workloads.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (outcome, said) = compare(&pair, &receiver, workload);
                    found.lock().expect("nobody panics").push((workload.name.clone(), outcome, said));
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().expect("nobody panics");
    for of in
        [Outcome::Moved, Outcome::Refused, Outcome::Undecided, Outcome::FalseYes, Outcome::FalseNo, Outcome::Skipped]
    {
        let those: Vec<_> = outcomes.iter().filter(|(_, outcome, _)| *outcome == of).collect();
        println!("{of:?}: {}", those.len());
        for (name, _, said) in those.iter().filter(|_| of != Outcome::Moved) {
            println!("  {name}: {said}");
        }
    }
    let wrong = outcomes.iter().filter(|(_, outcome, _)| matches!(outcome, Outcome::FalseYes | Outcome::FalseNo));
    let wrong: Vec<&str> = wrong.map(|(name, _, _)| name.as_str()).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}
