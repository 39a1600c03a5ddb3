//! What a process belongs to: the audit login, the scheduler's automatic group of its session, the cgroup, the core-sharing
//! group.
use super::{Captured, Description, Kind, Made, Need, Running, Stage, TaskState, open};
use crate::capture::Capture;
use crate::failure::{About, Result};
use crate::injector::Injector;
use crate::restore::{Bind, Make};
use godwit_image::{Code, Envelope, KindId, Pid, Refusal, Subject, Verdict};
use godwit_linux::program::Program;
use godwit_linux::scheduling;
use serde::{Deserialize, Serialize};

const SYS_WRITE: i64 = 1;
const SYS_CLOSE: i64 = 3;
const SYS_OPENAT: i64 = 257;
const AT_FDCWD: i64 = -100;
const O_WRONLY: u64 = 1;
/// Nobody has logged in.
const NO_LOGIN: u32 = u32::MAX;

/// State.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// /proc/PID/loginuid.
    pub audit_login: u32,
    /// Nice value of the automatic group of its session, when it is not 0.
    pub group_nice: i32,
    /// Path of its cgroup in the unified hierarchy, for people: it is not brought back.
    pub cgroup: String,
}

/// The kind.
#[derive(Debug)]
pub struct Affiliation;

impl Kind for Affiliation {
    fn id(&self) -> KindId {
        KindId(42)
    }
    fn name(&self) -> &'static str {
        "affiliation"
    }
    fn version(&self) -> u16 {
        1
    }
    fn stage(&self) -> Stage {
        Stage::Early
    }
    fn needs(&self, _: &Envelope) -> Result<Vec<Need>> {
        Ok(Vec::new())
    }
    fn make(&self, _: &Envelope, _: &mut Make) -> Result<Made> {
        Ok(Vec::new())
    }
    fn bind(&self, _: &Envelope, _: &mut Bind) -> Result<()> {
        Ok(())
    }
    fn description(&self) -> Option<&dyn Description> {
        None
    }
    fn task_state(&self) -> Option<&dyn TaskState> {
        Some(self)
    }
}

fn text(pid: i32, name: &str) -> String {
    // Not there: a kernel without it; then there is nothing to carry.
    crate::procfs::text(&format!("/proc/{pid}/{name}")).unwrap_or_default().trim().to_owned()
}

fn audit_login(pid: i32) -> u32 {
    text(pid, "loginuid").parse().unwrap_or(NO_LOGIN)
}

/// From `/autogroup-25 nice 0`.
fn group_nice(text: &str) -> i32 {
    text.rsplit_once(" nice ").and_then(|(_, nice)| nice.parse().ok()).unwrap_or(0)
}

/// The line of the unified hierarchy, `0::/path`.
fn cgroup(text: &str) -> &str {
    text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/")
}

fn core_group(pid: i32) -> Option<Refusal> {
    let cookie = scheduling::core_cookie(pid).unwrap_or(0);
    (cookie != 0).then(|| {
        let cause = "it belongs to a group that shares processor cores only with itself (core scheduling), which this build does not carry";
        Refusal::new(Code::UNSUPPORTED, Subject::Process(pid), cause).choice("start it without core scheduling (coresched)")
    })
}

impl TaskState for Affiliation {
    fn examine(&self, Running { pid, .. }: Running<'_>) -> Vec<(Subject, Verdict)> {
        let mut found = Vec::new();
        if let Some(refusal) = core_group(pid) {
            found.push((Subject::Process(pid), Verdict::Blocks(refusal)));
        }
        let cgroups = text(pid, "cgroup");
        if cgroup(&cgroups) != "/" {
            let told = format!(
                "it leaves cgroup {} and its limits: it will live in that of whoever restores it",
                cgroup(&cgroups)
            );
            found.push((Subject::Process(pid), Verdict::Recreated(told)));
        }
        if audit_login(pid) != NO_LOGIN {
            let told =
                "its audit login is kept where CAP_AUDIT_CONTROL allows; its audit session is a new one".to_owned();
            found.push((Subject::Process(pid), Verdict::Recreated(told)));
        }
        found
    }

    fn capture(&self, injector: &mut Injector<'_>, _: &mut Capture) -> Result<Vec<Captured>> {
        let pid = injector.process().pid;
        if let Some(refusal) = core_group(pid) {
            return Err(refusal);
        }
        let state = State {
            audit_login: audit_login(pid),
            group_nice: group_nice(&text(pid, "autogroup")),
            cgroup: cgroup(&text(pid, "cgroup")).to_owned(),
        };
        Ok(vec![Captured::new(Vec::new(), &state)?])
    }

    fn restore(&self, envelope: &Envelope, task: Pid, bind: &mut Bind) -> Result<()> {
        let state: State = open(envelope)?;
        if audit_login(task.0) != state.audit_login {
            // Only the task itself may, and only with CAP_AUDIT_CONTROL once somebody has logged in: audit records then
            // name the restorer's login, which is said beforehand.
            let mut program = Program::new();
            let path = program.text(b"/proc/thread-self/loginuid");
            let file = program.try_call("open", SYS_OPENAT, [AT_FDCWD.into(), path, O_WRONLY.into(), 0_u64.into()]);
            let number = state.audit_login.to_string();
            let bytes = program.data(number.as_bytes());
            program.try_call("write", SYS_WRITE, [file.into(), bytes, number.len().into()]);
            program.try_call("close", SYS_CLOSE, [file.into()]);
            bind.run(task, &program)?;
        }
        if group_nice(&text(task.0, "autogroup")) != state.group_nice {
            let path = format!("/proc/{}/autogroup", task.0);
            std::fs::write(&path, state.group_nice.to_string()).about(|| Subject::Path(path))?;
        }
        Ok(())
    }
}

/// Whether what of this a thread has to itself is what one of ours is born with; true of all other kinds.
pub(crate) fn is_inherited(envelope: &Envelope) -> Result<bool> {
    if envelope.kind != Affiliation.id() {
        return Ok(true);
    }
    let state: State = open(envelope)?;
    Ok(audit_login(std::process::id() as i32) == state.audit_login)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_proc() {
        assert_eq!(group_nice("/autogroup-25 nice -3"), -3);
        assert_eq!(group_nice(""), 0);
        assert_eq!(cgroup("12:cpu:/a\n0::/user.slice/x.scope"), "/user.slice/x.scope");
        assert_eq!(cgroup("1:name=systemd:/"), "/");
        super::super::assert_round_trip(&State { audit_login: 1000, group_nice: 5, cgroup: "/a".to_owned() });
    }
}
