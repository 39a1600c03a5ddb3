//! Directories: open ones with their position, working directories and roots (opened O_PATH).
use super::{Captured, Description, Kind, Made, Need, Stage, TaskState, open};
use crate::capture::Capture;
use crate::failure::{About, Result};
use crate::look::{Look, Survey};
use crate::restore::{Bind, Make};
use godwit_image::{Code, Envelope, KindId, Refusal, Subject, Verdict};
use serde::{Deserialize, Serialize};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

const S_IFDIR: u32 = 0o040_000;
const O_PATH: u32 = 0o10_000_000;

/// State.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// Absolute path in the mount namespace.
    pub path: String,
    /// Open flags.
    pub flags: u32,
    /// The file system's position cookie.
    pub position: u64,
}

/// The kind.
#[derive(Debug)]
pub struct Directory;

fn refuse(look: &Look) -> Option<Refusal> {
    if look.links == 0 || look.link.ends_with(b" (deleted)") {
        let refusal = Refusal::new(
            Code::NOT_MIGRATABLE,
            look.subject(),
            "the directory was removed; it has no name to open it by",
        );
        return Some(refusal.choice("change to another directory in the program, or close the descriptor"));
    }
    let Ok(path) = std::str::from_utf8(&look.link) else {
        return Some(Refusal::new(Code::UNSUPPORTED, look.subject(), "its path is not UTF-8"));
    };
    let same = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino()) == (look.device, look.inode);
    if std::fs::symlink_metadata(path).is_ok_and(same) {
        return None;
    }
    let cause = "its path leads to another directory, as seen from here: it is hidden below a mount, or in a mount that is not attached";
    Some(Refusal::new(Code::NOT_MIGRATABLE, look.subject(), cause))
}

impl Kind for Directory {
    fn id(&self) -> KindId {
        KindId(3)
    }
    fn name(&self) -> &'static str {
        "directory"
    }
    fn version(&self) -> u16 {
        1
    }
    fn stage(&self) -> Stage {
        Stage::AsItComes
    }
    fn needs(&self, envelope: &Envelope) -> Result<Vec<Need>> {
        let state: State = open(envelope)?;
        Ok(vec![Need::path(state.path, S_IFDIR)])
    }
    fn make(&self, envelope: &Envelope, _: &mut Make) -> Result<Made> {
        let state: State = open(envelope)?;
        let subject = || Subject::Path(state.path.clone());
        let file = godwit_linux::file::open(state.path.as_bytes(), state.flags).about(subject)?;
        if state.flags & O_PATH == 0 && state.position != 0 {
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

impl Description for Directory {
    fn recognise(&self, look: &Look) -> bool {
        look.file_type() == S_IFDIR && look.link.starts_with(b"/") && !look.link.starts_with(b"/proc/")
    }
    fn examine(&self, look: &Look, _: &Survey) -> Verdict {
        refuse(look).map_or(Verdict::Carried, Verdict::Blocks)
    }
    fn foresee(&self, look: &Look, _: &Survey) -> Vec<Need> {
        vec![Need::path(look.text(), look.file_type())]
    }
    fn capture(&self, look: &Look, _: &mut Capture) -> Result<Captured> {
        if let Some(refusal) = refuse(look) {
            return Err(refusal);
        }
        let state = State { path: look.text(), flags: look.flags(), position: look.information.position.max(0) as u64 };
        Captured::new(Vec::new(), &state)
    }
}
