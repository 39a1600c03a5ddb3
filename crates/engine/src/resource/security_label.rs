//! Labels of security modules (SELinux contexts, AppArmor profiles): a task keeps what it had, or the move is refused.
//! They cannot be given to another process, so a restorer under the same label is what it takes.
use super::{Captured, Description, Kind, Made, Need, Running, Stage, TaskState, open};
use crate::capture::Capture;
use crate::failure::Result;
use crate::injector::Injector;
use crate::restore::{Bind, Make};
use godwit_image::{Code, Envelope, KindId, Pid, Refusal, Subject, Verdict};
use serde::{Deserialize, Serialize};

/// What AppArmor calls nothing.
const NO_PROFILE: &str = "unconfined";
/// Labels that the next execve, file, key or socket would get: set by few programs, and only for a moment.
const NEXT: [&str; 4] = ["exec", "fscreate", "keycreate", "sockcreate"];

/// State.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// Threads and their labels, as /proc/TID/attr/current.
    pub labels: Vec<(Pid, String)>,
}

/// The kind.
#[derive(Debug)]
pub struct SecurityLabel;

impl Kind for SecurityLabel {
    fn id(&self) -> KindId {
        KindId(43)
    }
    fn name(&self) -> &'static str {
        "security label"
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

/// The label, empty where no module gives one.
fn label(pid: i32, tid: i32, name: &str) -> String {
    // EINVAL: no module answers.
    let text = crate::procfs::text(&format!("/proc/{pid}/task/{tid}/attr/{name}")).unwrap_or_default();
    plain(&text)
}

fn plain(text: &str) -> String {
    let text = text.trim_end_matches(['\0', '\n']);
    if text == NO_PROFILE { String::new() } else { text.to_owned() }
}

fn pending(pid: i32, tid: i32) -> Option<Refusal> {
    let (name, label) = NEXT.iter().map(|name| (name, label(pid, tid, name))).find(|(_, label)| !label.is_empty())?;
    let cause = format!("it has set a security label for later ({name}: {label})");
    Some(Refusal::new(Code::UNSUPPORTED, Subject::Thread(pid, tid), cause).choice("try again"))
}

impl TaskState for SecurityLabel {
    fn examine(&self, Running { pid, .. }: Running<'_>) -> Vec<(Subject, Verdict)> {
        let label = label(pid, pid, "current");
        if label.is_empty() {
            return Vec::new();
        }
        let told = format!("the restorer has to run under its label {label}, or the restore is refused");
        vec![(Subject::Process(pid), Verdict::Recreated(told))]
    }

    fn capture(&self, injector: &mut Injector<'_>, _: &mut Capture) -> Result<Vec<Captured>> {
        let pid = injector.process().pid;
        let first = injector.process().threads[0].tid();
        // Where the first thread has none, no module gives labels, or nothing is confined.
        if label(pid, first, "current").is_empty() {
            return Ok(Vec::new());
        }
        let mut labels = Vec::new();
        for thread in &injector.process().threads {
            if let Some(refusal) = pending(pid, thread.tid()) {
                return Err(refusal);
            }
            labels.push((Pid(thread.tid()), label(pid, thread.tid(), "current")));
        }
        Ok(vec![Captured::new(Vec::new(), &State { labels })?])
    }

    fn restore(&self, envelope: &Envelope, task: Pid, bind: &mut Bind) -> Result<()> {
        let state: State = open(envelope)?;
        let own = bind.tree().tasks.iter().find(|of_tree| of_tree.threads.iter().any(|thread| thread.tid == task));
        let pid = own.map_or(task, |task| task.pid);
        for (thread, wanted) in &state.labels {
            let now = label(pid.0, thread.0, "current");
            if now != *wanted {
                let cause = format!(
                    "its security label was {wanted}, and here it would be {}",
                    if now.is_empty() { "none" } else { &now }
                );
                return Err(Refusal::new(Code::DESTINATION_LACKS, Subject::Thread(pid.0, thread.0), cause).choice(
                    format!("run godwit at the destination under this label (runcon {wanted}, or aa-exec -p {wanted})"),
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_without_their_ends() {
        assert_eq!(plain("unconfined\n"), "");
        assert_eq!(plain("/usr/sbin/cupsd (enforce)\n"), "/usr/sbin/cupsd (enforce)");
        assert_eq!(plain("system_u:system_r:init_t:s0\0"), "system_u:system_r:init_t:s0");
        super::super::assert_round_trip(&State { labels: vec![(Pid(1), "a".to_owned())] });
    }
}
