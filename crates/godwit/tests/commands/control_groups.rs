//! Destinations that may use less than their machine has: processors (cpuset) and memory (memory control group).
use crate::bad_input::{assert_refused, hold};
use crate::scene::{GODWIT, Receiver, Scratch, godwit, json, pair};
use godwit_testbed::{Host, leftover};
use std::path::{Path, PathBuf};

/// A control group of a controller of version 1, gone with the test.
struct Group(PathBuf);

impl Group {
    /// `None`: it cannot be made here, which is said.
    fn new(controller: &str, settings: &[(&str, &str)]) -> Option<Group> {
        let own = format!("/sys/fs/cgroup/{controller}/godwit-test-{}", leftover::process_name());
        let group = Group(PathBuf::from(own));
        let made = std::fs::create_dir(&group.0)
            .and_then(|()| settings.iter().try_for_each(|(name, value)| std::fs::write(group.0.join(name), value)));
        if let Err(error) = made {
            println!("skipped: no control group of {controller} can be made: {error}");
            return None;
        }
        Some(group)
    }

    /// A receiver of `host` within the group.
    fn receiver(&self, host: &Host) -> Receiver {
        let procs = self.0.join("cgroup.procs");
        let script = format!("echo $$ > {}; exec {GODWIT} receive --listen {}:0", procs.display(), host.address());
        Receiver::of(host.command("/bin/sh").args(["-c", &script]))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Who is in it still belongs to a host that ends; until then it cannot be removed.
        for pid in std::fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default().lines() {
            let above = self.0.parent().unwrap_or(Path::new("/")).join("cgroup.procs");
            let _ = std::fs::write(above, pid);
        }
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_thread_that_is_bound_to_processors_that_are_not_there_may_run_on_any_and_that_is_said() {
    let scratch = Scratch::new("processors");
    let Some(group) = Group::new("cpuset", &[("cpuset.cpus", "0"), ("cpuset.mems", "0")]) else { return };
    let Some(pair) = pair(&scratch) else { return };
    let receiver = group.receiver(&pair.destination);
    let holder = hold(&pair.source, "none", None);
    let pid = holder.pid.to_string();
    let bind = pair.source.command("taskset").args(["-a", "-p", "-c", "1", &pid]).output().expect("taskset");
    if !bind.status.success() {
        return println!("skipped: there is no second processor: {bind:?}");
    }
    let checked = godwit(&pair.source, &["check", "--json", &pid, "--to", &receiver.destination()]);
    assert!(checked.status.success(), "{checked:?}");
    let said = json(&checked)["destination_changes"].to_string();
    assert!(said.contains("GW1205") && said.contains("bound to the processor 1"), "{said}");
    let moved = godwit(&pair.source, &["migrate", "--json", &pid, &receiver.destination()]);
    assert!(moved.status.success(), "{moved:?}");
    assert!(json(&moved)["changes"].to_string().contains("GW1205"), "{moved:?}");
    let bound = pair.destination.command("taskset").args(["-p", "-c", &pid]).output().expect("taskset");
    assert!(String::from_utf8_lossy(&bound.stdout).trim().ends_with(": 0"), "{bound:?}");
}

#[test]
fn a_destination_whose_control_group_allows_too_little_memory_leaves_the_process_at_the_source() {
    let scratch = Scratch::new("memory-group");
    let Some(group) = Group::new("memory", &[("memory.limit_in_bytes", "48M")]) else { return };
    let Some(pair) = pair(&scratch) else { return };
    let receiver = group.receiver(&pair.destination);
    let memory = hold(&pair.source, "memory", None);
    let moved = godwit(&pair.source, &["migrate", "--json", &memory.pid.to_string(), &receiver.destination()]);
    println!("{}", String::from_utf8_lossy(&moved.stderr));
    assert_refused("a small group", &moved, &["GW1203", "GW1204", "GW1301"], "");
    assert!(memory.goes_on(), "it goes on at the source");
}
