//! Which namespaces a task lives in: those of the restorer are what it gets, so others are refused by name.
use crate::failure::Result;
use godwit_image::{Code, Refusal, Subject};
use std::ffi::OsString;

/// The namespaces of this process.
#[derive(Debug)]
pub(crate) struct Home([Option<OsString>; KINDS.len()]);

impl Home {
    /// Looks at this process: to be done before a freeze, since links of /proc take their time.
    pub(crate) fn own() -> Home {
        let own = std::process::id() as i32;
        Home(KINDS.map(|(name, _)| link(own, name)))
    }
}

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
pub(crate) fn judge(pid: i32, root: i32, home: &Home) -> Result<()> {
    for ((name, what), here) in KINDS.iter().zip(&home.0) {
        let there = link(pid, name);
        if there.is_some() && *here != there {
            let cause = format!("it lives in a {name} namespace of its own ({what}), which godwit does not carry yet");
            return Err(Refusal::new(Code::UNSUPPORTED, Subject::Process(pid), cause)
                .choice(format!("run godwit inside its namespaces: nsenter -a -t {pid} godwit …")));
        }
    }
    let time = link(pid, "time");
    let is_roots = || pid == root || time == link(root, "time");
    if time.is_some() && (!is_roots() || time != link(pid, "time_for_children")) {
        let cause = "it lives in another time namespace than the root of the tree, or its children would";
        return Err(Refusal::new(Code::UNSUPPORTED, Subject::Process(pid), cause)
            .choice("move the part of the tree that has clocks of its own by itself"));
    }
    Ok(())
}
