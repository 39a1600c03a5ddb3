//! Every workload, unmoved: sets up its state, works, verifies it, passes. One that does not says nothing about a move.
//! `WORKLOAD=name,name` chooses.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use godwit_linux::namespace::User;
use godwit_testbed::workload::{self, Verdict, Workload};
use godwit_testbed::{Error, Options, Pair};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn every_workload_passes_unmoved() {
    let options = Options { executable: Some(env!("CARGO_BIN_EXE_testbed").into()), ..Options::default() };
    let pair = Pair::new(&options).unwrap();
    let chosen = std::env::var("WORKLOAD").unwrap_or_default();
    let chosen: Vec<&str> = chosen.split(',').filter(|name| !name.is_empty()).collect();
    let mut runs: Vec<(Workload, Option<User>)> = Vec::new();
    for workload in workload::all().unwrap() {
        if chosen.is_empty() || chosen.contains(&workload.name.as_str()) {
            runs.extend(workload.users().into_iter().map(|user| (workload.clone(), user)));
        }
    }
    assert!(!runs.is_empty());
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    // Few at a time: they measure how long their calls take.
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((workload, user)) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let name = format!("{} as {}", workload.name, user.as_ref().map_or(0, |user| user.user));
                    match unmoved(&pair, workload, user.clone()) {
                        Ok(Verdict::Pass) => {}
                        Ok(Verdict::Skip(reason)) => println!("{name}: skipped: {reason}"),
                        Ok(verdict) => wrong.lock().unwrap().push(format!("{name}: {verdict}")),
                        Err(error) => wrong.lock().unwrap().push(format!("{name}: {error}")),
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), runs.len(), wrong.join("\n"));
}

fn unmoved(pair: &Pair, workload: &Workload, user: Option<User>) -> Result<Verdict, Error> {
    let run = workload.start(&pair.source, user)?;
    if let Err(verdict) = run.await_ready(&pair.source, PATIENCE) {
        return Ok(verdict);
    }
    thread::sleep(Duration::from_millis(500));
    run.stop(&pair.source, PATIENCE)
}
