//! Clocks through a move between hosts with other uptimes: never back, never far ahead, and what waits for them waits on.
//! Needs root, namespaces and a C compiler; without root it says so and passes.

use godwit_linux::features::{self, Feature};
use godwit_testbed::workload::{self, Run, Verdict};
use godwit_testbed::{Host, Options, Pair, leftover};
use std::path::Path;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
const GODWIT: &str = env!("CARGO_BIN_EXE_godwit");
/// On disk, seen by both hosts.
const CHECKPOINTS: &str = "/var/tmp/godwit-testbed/clocks";

/// What reads clocks or waits for a time.
const WORKLOADS: [&str; 4] = ["clocks", "clocks_absolute", "timerfd", "itimers"];

fn godwit(host: &Host, arguments: &[&str]) -> String {
    let output = host.command(GODWIT).args(arguments).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "godwit {arguments:?} in {}: {said}", host.name());
    said
}

/// Takes a tree from one host to the other through a checkpoint.
fn carry(run: &Run, from: &Host, to: &Host, step: &str) {
    let directory = Path::new(CHECKPOINTS).join(format!("{}-{}-{step}", leftover::process_name(), run.pid));
    let _ = std::fs::remove_dir_all(&directory);
    let path = directory.display().to_string();
    godwit(from, &["checkpoint", &run.pid.to_string(), &path]);
    let said = godwit(to, &["restore", "--detach", &path]);
    assert_eq!(said.trim(), run.pid.to_string());
    std::fs::remove_dir_all(&directory).unwrap();
}

fn there_and_back(clocks: [i64; 2]) {
    std::fs::create_dir_all(CHECKPOINTS).unwrap();
    let options = Options { executable: Some(GODWIT.into()), clocks: Some(clocks), ..Options::default() };
    let pair = Pair::new(&options).unwrap();
    for workload in workload::all().unwrap().iter().filter(|workload| WORKLOADS.contains(&workload.name.as_str())) {
        let run = workload.start(&pair.source, None).unwrap();
        run.await_ready(&pair.source, PATIENCE).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        carry(&run, &pair.source, &pair.destination, "there");
        std::thread::sleep(Duration::from_millis(200));
        carry(&run, &pair.destination, &pair.source, "back");
        std::thread::sleep(Duration::from_millis(200));
        let verdict = run.stop(&pair.source, PATIENCE).unwrap();
        assert_eq!(verdict, Verdict::Pass, "{} with clocks {clocks:?}", workload.name);
    }
}

#[test]
fn clocks_go_on_from_where_they_were() {
    if !features::probe().has(Feature::TimeNamespaces) {
        return eprintln!("skipped: no time namespace can be made here");
    }
    // To a shorter uptime, to a longer one, and between hosts that have been up for equally long.
    for clocks in [[100_000, 0], [0, 1_000_000], [50, 50]] {
        there_and_back(clocks);
    }
}
