//! Files and directories of procfs: about the tree's own tasks, made when these exist, or about the host.
use super::{Captured, Description, Kind, Made, Need, Stage, TaskState, open};
use crate::capture::Capture;
use crate::failure::{About, Result};
use crate::look::{Look, Survey};
use crate::restore::{Bind, Make};
use godwit_image::{Code, Envelope, KindId, Refusal, Subject, Verdict};
use godwit_linux::filesystem;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::os::fd::AsFd;

const S_IFMT: u32 = 0o170_000;
const O_PATH: u32 = 0o10_000_000;
const O_ACCMODE: u32 = 3;

/// State.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// Absolute path.
    pub path: String,
    /// Open flags.
    pub flags: u32,
    /// Position in bytes, or a directory's cookie.
    pub position: u64,
    /// st_mode & S_IFMT.
    pub file_type: u32,
    /// The task that it is about, if it is about one.
    pub task: Option<i32>,
}

/// The kind.
#[derive(Debug)]
pub struct ProcFile;

/// The number in the path of a file about a task: the first component that is one.
fn task(path: &str) -> Option<i32> {
    path.split('/').find_map(|part| part.parse().ok())
}

/// The process of a task that lives.
fn process_of(task: i32) -> Option<i32> {
    godwit_linux::proc::status::read(task, task).ok().map(|status| status.tgid)
}

fn refuse(look: &Look, pids: &BTreeSet<i32>) -> Option<Refusal> {
    let refuse = |cause: String| Some(Refusal::new(Code::NOT_MIGRATABLE, look.subject(), cause));
    if look.link.ends_with(b" (deleted)") {
        return refuse("it is about a task that has ended".to_owned());
    }
    let Ok(path) = std::str::from_utf8(&look.link) else {
        return refuse("its path is not UTF-8".to_owned());
    };
    if path.contains("/pressure/") && look.flags() & O_ACCMODE != 0 {
        return refuse("it may hold a pressure trigger, which cannot be read".to_owned());
    }
    match task(path) {
        Some(number) if process_of(number).is_none() => {
            refuse(format!("it is about task {number}, which has ended or cannot be seen from here"))
        }
        Some(number) if !process_of(number).is_some_and(|process| pids.contains(&process)) => {
            let refusal = refuse(format!("it is about task {number}, which is outside the tree"));
            refusal.map(|refusal| refusal.choice("move that process as well"))
        }
        _ => None,
    }
}

impl Kind for ProcFile {
    fn id(&self) -> KindId {
        KindId(19)
    }
    fn name(&self) -> &'static str {
        "proc file"
    }
    fn version(&self) -> u16 {
        1
    }
    fn stage(&self) -> Stage {
        Stage::Late
    }
    fn needs(&self, envelope: &Envelope) -> Result<Vec<Need>> {
        let state: State = open(envelope)?;
        Ok(match state.task {
            Some(_) => Vec::new(),
            None => vec![Need::path(state.path, state.file_type)],
        })
    }
    fn make(&self, envelope: &Envelope, _: &mut Make) -> Result<Made> {
        let state: State = open(envelope)?;
        let subject = || Subject::Path(state.path.clone());
        let file = godwit_linux::file::open(state.path.as_bytes(), state.flags).about(subject)?;
        if state.position != 0 && state.flags & O_PATH == 0 {
            godwit_linux::file::seek(file.as_fd(), state.position).about(subject)?;
        }
        Ok(vec![file])
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

impl Description for ProcFile {
    fn recognise(&self, look: &Look) -> bool {
        look.link.starts_with(b"/") && look.filesystem() == Some(filesystem::PROC)
    }
    fn examine(&self, look: &Look, survey: &Survey) -> Verdict {
        match refuse(look, &survey.pids) {
            Some(refusal) => Verdict::Blocks(refusal),
            None => Verdict::Recreated("what it says is what the destination's kernel says".to_owned()),
        }
    }
    fn foresee(&self, look: &Look, _: &Survey) -> Vec<Need> {
        let path = look.text();
        if task(&path).is_some() { Vec::new() } else { vec![Need::path(path, look.file_type())] }
    }
    fn capture(&self, look: &Look, capture: &mut Capture) -> Result<Captured> {
        if let Some(refusal) = refuse(look, &capture.survey.pids) {
            return Err(refusal);
        }
        let path = look.text();
        let state = State {
            flags: look.flags(),
            position: look.information.position.max(0) as u64,
            file_type: look.mode & S_IFMT,
            task: task(&path),
            path,
        };
        Captured::new(Vec::new(), &state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_comes_back_from_its_payload() {
        let state = State { path: "/proc/7".to_owned(), flags: 0, position: 1, file_type: 0o040_000, task: Some(7) };
        super::super::assert_round_trip(&state);
        super::super::assert_round_trip(&State { task: None, ..state });
    }

    #[test]
    fn a_path_tells_its_task() {
        assert_eq!(task("/proc/46/task/47/stat"), Some(46));
        assert_eq!(task("/proc/sys/kernel/osrelease"), None);
        assert_eq!(task("/proc"), None);
    }
}
