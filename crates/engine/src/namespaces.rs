//! Which namespaces a task lives in: those of the restorer are what it gets, so others are refused by name.
use crate::failure::Result;
use godwit_image::{Code, Refusal, Subject};
use std::ffi::OsString;

/// Namespaces by their names in /proc/PID/ns, with what a task outside of ours would lose.
const KINDS: [(&str, &str); 6] = [
    ("mnt", "mounts"),
    ("net", "network devices and addresses"),
    ("uts", "host name"),
    ("ipc", "System V objects and message queues"),
    ("user", "user ids and privileges"),
    ("cgroup", "view of the cgroups"),
];

fn link(pid: i32, name: &str) -> Option<OsString> {
    // Not there: the kernel has no such namespaces, or the process is gone; both are found elsewhere.
    std::fs::read_link(format!("/proc/{pid}/ns/{name}")).ok().map(std::path::PathBuf::into_os_string)
}

/// Whether a task lives in the same namespaces as this process, and in the same time namespace as the root of its tree.
///
/// # Errors
/// GW1104: it does not.
pub(crate) fn judge(pid: i32, root: i32) -> Result<()> {
    let own = std::process::id() as i32;
    for (name, what) in KINDS {
        let (here, there) = (link(own, name), link(pid, name));
        if there.is_some() && here != there {
            let cause = format!("it lives in a {name} namespace of its own ({what}), which godwit does not carry yet");
            return Err(Refusal::new(Code::UNSUPPORTED, Subject::Process(pid), cause)
                .choice(format!("run godwit inside its namespaces: nsenter -a -t {pid} godwit …")));
        }
    }
    let time = link(pid, "time");
    if time.is_some() && (time != link(root, "time") || time != link(pid, "time_for_children")) {
        let cause = "it lives in another time namespace than the root of the tree, or its children would";
        return Err(Refusal::new(Code::UNSUPPORTED, Subject::Process(pid), cause)
            .choice("move the part of the tree that has clocks of its own by itself"));
    }
    Ok(())
}
