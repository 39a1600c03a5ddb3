//! What this machine can do, found by trying: root, namespaces, the system calls the engine stands on, a shaped link.

use std::fs;
use std::process::{Command, Stdio};

use super::child;
use super::report::Report;

/// Tries the system calls in a namespace of its own; prints `NAME\tok` or `NAME\tERROR` for each.
const KERNEL_PROBE: &str = include_str!("kernel_probe.pl");

/// The namespaces that a host of the testbed has of its own.
const NAMESPACES: [(&str, &[&str]); 5] = [
    ("PID", &["--pid", "--mount-proc"]),
    ("mount", &["--mount"]),
    ("network", &["--net"]),
    ("IPC", &["--ipc"]),
    ("UTS", &["--uts"]),
];

/// What is missing for anything to work here, each with what to do. Empty is well.
pub(super) fn missing() -> Vec<String> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return vec!["this is not Linux on x86_64, and Godwit knows no other machine".to_owned()];
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if effective_user(&status) != Some(0) {
        return vec!["no root: run this as root (it makes namespaces and installs Debian packages)".to_owned()];
    }
    let mut lacks: Vec<String> = NAMESPACES
        .iter()
        .filter_map(|(name, options)| {
            let mut unshare = Command::new("unshare");
            unshare.args(*options).args(["--fork", "true"]);
            let error = attempt(unshare).err()?;
            Some(format!("no new {name} namespace ({error}): in a container, allow it namespaces (docker: --privileged); else build the kernel with them"))
        })
        .collect();
    if lacks.is_empty() {
        lacks = kernel_lacks();
    }
    lacks
}

/// The system calls without which nothing can be moved.
fn kernel_lacks() -> Vec<String> {
    let mut probe = Command::new("unshare");
    probe.args(["--fork", "--pid", "--mount-proc", "--kill-child=KILL", "perl", "-e", KERNEL_PROBE]);
    match attempt(probe) {
        Ok(output) => lacks_of(&output),
        Err(error) => vec![format!("the kernel could not be tried ({error}): perl, which Debian always has, does it")],
    }
}

/// Reads what the probe prints.
fn lacks_of(output: &str) -> Vec<String> {
    let verdicts: Vec<_> = output.lines().filter_map(|line| line.split_once('\t')).collect();
    if verdicts.last() != Some(&("end", "ok")) {
        return vec![format!("the kernel could not be tried: the probe broke off after {:?}", verdicts.last())];
    }
    let lacks = verdicts.iter().filter(|(_, verdict)| *verdict != "ok");
    lacks
        .map(|(name, error)| format!("the kernel refuses {name} ({error}): too old, or a seccomp filter of this container; Linux 5.13 and later have it"))
        .collect()
}

/// A pair of devices and a shaper: what hosts of the testbed are linked with. Needs the packages.
pub(super) fn check_link(report: &mut Report) {
    let script = "ip link add name left0 type veth peer name right0 && tc qdisc add dev left0 root tbf rate 1gbit burst 64kb latency 50ms";
    let mut command = Command::new("unshare");
    command.args(["--net", "--fork", "sh", "-c", script]);
    match attempt(command) {
        Ok(_) => report.passed(1),
        Err(error) => report.failed(&format!(
            "no link between two hosts ({error}): the kernel needs veth and sch_tbf (Debian: the linux-image package, not the cloud one; modprobe veth sch_tbf)"
        )),
    }
}

/// Runs `command` to its end and returns its output, or in one line why not.
fn attempt(mut command: Command) -> Result<String, String> {
    let output = command.env("PATH", child::path()).stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let reason = text.lines().last().unwrap_or_default().trim().to_owned();
    Err(if reason.is_empty() { output.status.to_string() } else { reason })
}

/// The effective user of `/proc/PID/status`.
fn effective_user(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_user_is_the_second() {
        assert_eq!(effective_user("Name:\tx\nUid:\t1000\t0\t7\t8\nGid:\t5\t5\t5\t5\n"), Some(0));
        assert_eq!(effective_user("Name:\tx\n"), None);
    }

    /// The probe and its reader understand each other: it tries the kernel to the end, whatever that says.
    #[test]
    fn the_probe_is_understood() {
        let mut probe = Command::new("unshare");
        probe.args(["--map-root-user", "--user", "--fork", "--pid", "--mount-proc", "--kill-child=KILL"]);
        probe.args(["perl", "-e", KERNEL_PROBE]);
        // Where this user may not make namespaces there is nothing to try, and `missing` says so.
        let Ok(output) = attempt(probe) else { return };
        let names: Vec<_> = output.lines().filter_map(|line| Some(line.split_once('\t')?.0)).collect();
        assert_eq!(names.first().zip(names.last()), Some((&"pidfd_open", &"end")), "{output}");
        assert!(names.contains(&"clone3 with set_tid"), "{output}");
        assert!(lacks_of(&output).iter().all(|lack| !lack.contains("broke off") && !lack.contains("(ok)")), "{output}");
    }

    #[test]
    fn a_refusal_is_named_and_a_broken_probe_is_not_taken_for_well() {
        assert!(lacks_of("pidfd_open\tok\nclone3 with set_tid\tok\nend\tok\n").is_empty());
        let lacks = lacks_of("pidfd_open\tok\nclone3 with set_tid\tFunction not implemented\nend\tok\n");
        assert!(lacks.len() == 1 && lacks[0].contains("clone3 with set_tid (Function not implemented)"), "{lacks:?}");
        assert_eq!(lacks_of("pidfd_open\tok\n").len(), 1);
        assert_eq!(lacks_of("").len(), 1);
    }
}
