//! Descriptors that stand for processes or threads: of the tree's own tasks, and of ones that have ended and been waited
//! for. Source: pidfd_open(2). Late: the tasks must exist.
use super::{Captured, Description, Kind, Made, Need, Stage, TaskState, edge, open};
use crate::capture::Capture;
use crate::failure::{About, Result, malformed};
use crate::look::{Look, Survey};
use crate::restore::{Bind, Make};
use godwit_image::{Envelope, KindId, Refusal, Subject, Verdict};
use godwit_linux::{clone, file, pidfd, ptrace, signal};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

const SIGKILL: i32 = 9;
const O_NONBLOCK: u32 = 0o4_000;
const O_ASYNC: u32 = 0o20_000;
/// PIDFD_THREAD, as the open flags keep it.
const O_EXCL: u32 = 0o200;

/// State.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// The process, or with PIDFD_THREAD the thread; `None` when it has ended and been waited for.
    pub number: Option<i32>,
    /// Open flags; O_NONBLOCK and PIDFD_THREAD among them.
    pub flags: u32,
}

/// The kind.
#[derive(Debug)]
pub struct PidDescriptor;

/// The number that it stands for, if that belongs to the tree or to nobody any more.
fn number(look: &Look, survey: &Survey) -> Result<Option<i32>> {
    let told = look.information.pidfd.as_ref().ok_or_else(|| malformed(look.subject(), "fdinfo has no Pid"))?.pid;
    let cut = |cause: String| -> Refusal { edge::cut(look, cause) };
    match told {
        -1 => Ok(None),
        0 => Err(cut("it stands for a process of another PID namespace".to_owned())),
        pid if survey.pids.contains(&pid) => Ok(Some(pid)),
        tid if survey.pids.iter().any(|pid| Path::new(&format!("/proc/{pid}/task/{tid}")).exists()) => Ok(Some(tid)),
        pid => {
            let comm = crate::procfs::comm(pid, pid).unwrap_or_default();
            let comm = String::from_utf8_lossy(&comm).into_owned();
            Err(cut(format!("it stands for process {pid} ({comm}), which is outside the tree")))
        }
    }
}

/// A pidfd of a process that has ended and been waited for: of one made for it.
fn of_nobody(flags: u32, subject: impl Fn() -> Subject) -> Result<OwnedFd> {
    let pid = clone::fork_sleeper(&[], 0, 0).about(&subject)?;
    let made = pidfd::open_with_flags(pid, flags);
    signal::send_to_process(pid, SIGKILL).about(&subject)?;
    while !matches!(ptrace::wait(pid), Ok(ptrace::Event::Ended(_)) | Err(_)) {}
    made.about(subject)
}

impl Kind for PidDescriptor {
    fn id(&self) -> KindId {
        KindId(13)
    }
    fn name(&self) -> &'static str {
        "pidfd"
    }
    fn version(&self) -> u16 {
        1
    }
    fn stage(&self) -> Stage {
        Stage::Late
    }
    fn needs(&self, _: &Envelope) -> Result<Vec<Need>> {
        Ok(Vec::new())
    }
    fn make(&self, envelope: &Envelope, _: &mut Make) -> Result<Made> {
        let state: State = open(envelope)?;
        let flags = state.flags & (O_NONBLOCK | O_EXCL);
        let made = match state.number {
            Some(number) => pidfd::open_with_flags(number, flags).about(|| Subject::Process(number))?,
            None => of_nobody(flags, || Subject::Object(format!("pidfd {}", envelope.id)))?,
        };
        file::set_status_flags(made.as_fd(), state.flags & !O_ASYNC).about(|| Subject::Object("pidfd".to_owned()))?;
        Ok(vec![made])
    }
    fn bind(&self, _: &Envelope, _: &mut Bind) -> Result<()> {
        Ok(())
    }
    fn description(&self) -> Option<&dyn Description> {
        Some(self)
    }
    fn task_state(&self) -> Option<&dyn TaskState> {
        None
    }
}

impl Description for PidDescriptor {
    fn recognise(&self, look: &Look) -> bool {
        look.link == b"anon_inode:[pidfd]" && look.information.pidfd.is_some()
    }
    fn examine(&self, look: &Look, survey: &Survey) -> Verdict {
        match number(look, survey) {
            Ok(Some(_)) => Verdict::Carried,
            Ok(None) => Verdict::Degraded("the status that its process ended with (PIDFD_GET_INFO) is lost".to_owned()),
            Err(refusal) => Verdict::Blocks(refusal),
        }
    }
    fn foresee(&self, _: &Look, _: &Survey) -> Vec<Need> {
        Vec::new()
    }
    fn capture(&self, look: &Look, capture: &mut Capture) -> Result<Captured> {
        let number = number(look, &capture.survey)?;
        Captured::new(Vec::new(), &State { number, flags: look.flags() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_image::Code;
    use godwit_linux::pidfd::PidFd;
    use std::os::fd::AsRawFd;

    #[test]
    fn states_come_back() {
        super::super::assert_round_trip(&State { number: Some(4_194_304), flags: 0o4202 });
        super::super::assert_round_trip(&State { number: None, flags: 2 });
    }

    #[test]
    fn whom_it_stands_for_decides() {
        let own = std::process::id() as i32;
        let process = PidFd::open(own).unwrap();
        let look = |file: &OwnedFd| Look::descriptor(&process, file.as_raw_fd()).unwrap().unwrap();
        let of_own = pidfd::open_with_flags(own, 0).unwrap();
        assert!(PidDescriptor.recognise(&look(&of_own)));
        assert_eq!(number(&look(&of_own), &Survey::new(&[own])).unwrap(), Some(own));
        assert_eq!(number(&look(&of_own), &Survey::new(&[])).unwrap_err().code, Code::EDGE);
        let of_none = of_nobody(O_NONBLOCK, || Subject::Host).unwrap();
        assert_eq!(number(&look(&of_none), &Survey::new(&[])).unwrap(), None);
        assert_ne!(look(&of_none).flags() & O_NONBLOCK, 0);
    }
}
