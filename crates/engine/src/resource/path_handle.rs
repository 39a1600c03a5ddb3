//! O_PATH descriptors, which only name a file: of any type but directories (those are [`directory`](super::directory)).
use super::file_content;
use super::{Captured, Description, Kind, Made, Need, Stage, TaskState, memory_file, open, unlinked_file};
use crate::capture::Capture;
use crate::failure::{About, Result};
use crate::look::{Look, Survey};
use crate::restore::{Bind, Make};
use godwit_image::{Code, Envelope, KindId, ObjectId, Refusal, Subject, Verdict};
use godwit_linux::filesystem;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

const S_IFDIR: u32 = 0o040_000;
const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;
const O_PATH: u32 = 0o10_000_000;
const O_NOFOLLOW: u32 = 0o400_000;

/// State.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// Absolute path in the mount namespace; of a nameless file what /proc shows.
    pub path: String,
    /// Open flags, O_PATH among them.
    pub flags: u32,
    /// st_mode & S_IFMT.
    pub file_type: u32,
    /// The content of a file that has no name.
    pub content: Option<ObjectId>,
}

/// The kind.
#[derive(Debug)]
pub struct PathHandle;

fn refuse(look: &Look) -> Option<Refusal> {
    if std::str::from_utf8(&look.link).is_err() {
        return Some(Refusal::new(Code::UNSUPPORTED, look.subject(), "its path is not UTF-8"));
    }
    let same = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino()) == (look.device, look.inode);
    let found = std::fs::symlink_metadata(look.text()).is_ok_and(same);
    if found || (look.links == 0 && look.file_type() == S_IFREG) {
        return None;
    }
    let cause = "its name was removed or leads to another file, as seen from here";
    Some(Refusal::new(Code::NOT_MIGRATABLE, look.subject(), cause))
}

impl Kind for PathHandle {
    fn id(&self) -> KindId {
        KindId(28)
    }
    fn name(&self) -> &'static str {
        "path handle"
    }
    fn version(&self) -> u16 {
        1
    }
    fn stage(&self) -> Stage {
        Stage::Early
    }
    fn needs(&self, envelope: &Envelope) -> Result<Vec<Need>> {
        let state: State = open(envelope)?;
        if state.content.is_some() {
            return Ok(Vec::new());
        }
        Ok(vec![Need::path(state.path, state.file_type)])
    }
    fn make(&self, envelope: &Envelope, make: &mut Make) -> Result<Made> {
        let state: State = open(envelope)?;
        let subject = || Subject::Path(state.path.clone());
        if let Some(content) = state.content {
            return Ok(vec![file_content::reopen(make.made(content, 0)?, state.flags | O_PATH, subject)?]);
        }
        // The path is the file's own: it is a symbolic link only when the handle is one of a symbolic link.
        let flags = state.flags | O_PATH | O_NOFOLLOW;
        let file = File::from(godwit_linux::file::open(state.path.as_bytes(), flags).about(subject)?);
        let metadata = file.metadata().about(subject)?;
        if metadata.mode() & S_IFMT != state.file_type {
            return Err(Refusal::new(Code::FILE_DIFFERS, subject(), "it is of another type here"));
        }
        if state.flags & O_NOFOLLOW != 0 {
            return Ok(vec![file.into()]);
        }
        Ok(vec![file_content::reopen(file.as_fd(), state.flags | O_PATH, subject)?])
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

impl Description for PathHandle {
    fn recognise(&self, look: &Look) -> bool {
        look.number().is_some()
            && look.flags() & O_PATH != 0
            && look.file_type() != S_IFDIR
            && look.link.starts_with(b"/")
            && look.filesystem() != Some(filesystem::PROC)
    }
    fn examine(&self, look: &Look, _: &Survey) -> Verdict {
        refuse(look).map_or(Verdict::Carried, Verdict::Blocks)
    }
    fn foresee(&self, look: &Look, _: &Survey) -> Vec<Need> {
        if look.links == 0 || look.link.ends_with(b" (deleted)") {
            return Vec::new();
        }
        vec![Need::path(look.text(), look.file_type())]
    }
    fn capture(&self, look: &Look, capture: &mut Capture) -> Result<Captured> {
        if let Some(refusal) = refuse(look) {
            return Err(refusal);
        }
        let content = if look.links == 0 {
            let sort = match memory_file::sort(look) {
                Some(sort) => sort,
                None => unlinked_file::sort(look)?,
            };
            Some(file_content::capture(look, sort, capture)?)
        } else {
            None
        };
        let state = State { path: look.text(), flags: look.flags(), file_type: look.file_type(), content };
        Captured::new(content.into_iter().collect(), &state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_comes_back_from_its_payload() {
        let state = State { path: "/a".to_owned(), flags: O_PATH, file_type: 0o120_000, content: None };
        super::super::assert_round_trip(&state);
        super::super::assert_round_trip(&State { content: Some(ObjectId(1)), ..state });
    }
}
