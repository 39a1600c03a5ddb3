//! Regular files by path: position, flags and identity of the description travel. The destination has the same file, or
//! gets it, where the file system is a host's own (tmpfs).
use super::file_content::{self, Sort};
use super::{Captured, Description, Kind, Length, Made, Need, Stage, TaskState, open};
use crate::capture::Capture;
use crate::failure::{About, Result};
use crate::look::{Look, Purpose, Survey};
use crate::restore::{Bind, Make};
use crate::tmpfs_file;
use godwit_image::{Code, Envelope, KindId, ObjectId, Refusal, Subject, Verdict};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

const S_IFREG: u32 = 0o100_000;
const O_PATH: u32 = 0o10_000_000;

/// State.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// Absolute path in the mount namespace.
    pub path: String,
    /// Open flags.
    pub flags: u32,
    /// Position in bytes.
    pub position: u64,
    /// Length in bytes at the source.
    pub bytes: u64,
    /// It is mapped or executed: the destination's file must have the same length.
    pub mapped: bool,
    /// Its content, where the file system is the host's own and it has to be carried.
    pub content: Option<ObjectId>,
}

/// The kind.
#[derive(Debug)]
pub struct RegularFile;

fn refuse(look: &Look) -> Option<Refusal> {
    let refuse = |cause| Some(Refusal::new(Code::NOT_MIGRATABLE, look.subject(), cause));
    let Ok(path) = std::str::from_utf8(&look.link) else {
        return refuse("its path is not UTF-8");
    };
    let same = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino()) == (look.device, look.inode);
    if std::fs::symlink_metadata(path).is_ok_and(same) {
        return None;
    }
    if look.link.ends_with(b" (deleted)") {
        return refuse("the name by which it was opened was removed, and it has another one that cannot be found");
    }
    refuse(
        "its name leads to another file, or to none, as seen from here: it is in another mount namespace or mounted over",
    )
}

/// More is what others have added to it since; less would take away what the program has written or read.
fn length(mapped: bool, bytes: u64) -> Length {
    if mapped { Length::Exactly(bytes) } else { Length::AtLeast(bytes) }
}

impl Kind for RegularFile {
    fn id(&self) -> KindId {
        KindId(4)
    }
    fn name(&self) -> &'static str {
        "regular file"
    }
    fn version(&self) -> u16 {
        1
    }
    fn stage(&self) -> Stage {
        Stage::AsItComes
    }
    fn needs(&self, envelope: &Envelope) -> Result<Vec<Need>> {
        let state: State = open(envelope)?;
        if state.content.is_some() {
            return Ok(Vec::new());
        }
        let length = length(state.mapped, state.bytes);
        Ok(vec![Need::Path { path: state.path, length, file_type: S_IFREG }])
    }
    fn make(&self, envelope: &Envelope, make: &mut Make) -> Result<Made> {
        let state: State = open(envelope)?;
        let subject = || Subject::Path(state.path.clone());
        let file = File::from(godwit_linux::file::open(state.path.as_bytes(), state.flags).about(subject)?);
        let metadata = file.metadata().about(subject)?;
        if metadata.mode() & 0o170_000 != S_IFREG {
            return Err(Refusal::new(Code::FILE_DIFFERS, subject(), "it is not a regular file here"));
        }
        if let Some(content) = state.content {
            let wanted = make.made(content, 0)?;
            let wanted = File::from(wanted.try_clone_to_owned().about(subject)?).metadata().about(subject)?;
            if (wanted.dev(), wanted.ino()) != (metadata.dev(), metadata.ino()) {
                return Err(Refusal::new(Code::RESTORE_FAILED, subject(), "its name leads to another file by now"));
            }
        }
        if let Some(cause) = length(state.mapped, state.bytes).differs(metadata.size()) {
            return Err(Refusal::new(Code::FILE_DIFFERS, subject(), cause));
        }
        if state.flags & O_PATH == 0 {
            godwit_linux::file::seek(file.as_fd(), state.position).about(subject)?;
        }
        Ok(vec![file.into()])
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

impl Description for RegularFile {
    fn recognise(&self, look: &Look) -> bool {
        look.file_type() == S_IFREG && look.link.starts_with(b"/")
    }
    fn examine(&self, look: &Look, _: &Survey) -> Verdict {
        refuse(look).map_or(Verdict::Carried, Verdict::Blocks)
    }
    fn foresee(&self, look: &Look, _: &Survey) -> Vec<Need> {
        let path = look.text();
        if tmpfs_file::is_private(look) && look.flags() & O_PATH == 0 {
            return tmpfs_file::place(look, &path).map(|place| place.foresee()).unwrap_or_default();
        }
        let mapped = matches!(look.purpose, Purpose::Mapping { .. } | Purpose::Executable);
        vec![Need::Path { path, length: length(mapped, look.bytes), file_type: S_IFREG }]
    }
    fn capture(&self, look: &Look, capture: &mut Capture) -> Result<Captured> {
        if let Some(refusal) = refuse(look) {
            return Err(refusal);
        }
        let path = look.text();
        let content = if tmpfs_file::is_private(look) && look.flags() & O_PATH == 0 {
            Some(file_content::capture(look, Sort::Named(tmpfs_file::place(look, &path)?), capture)?)
        } else {
            None
        };
        let state = State {
            path,
            flags: look.flags(),
            position: look.information.position.max(0) as u64,
            bytes: look.bytes,
            mapped: matches!(look.purpose, Purpose::Mapping { .. } | Purpose::Executable),
            content,
        };
        Captured::new(content.into_iter().collect(), &state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_comes_back_from_its_payload() {
        let state = State { path: "/a".to_owned(), flags: 0o2, position: 1, bytes: 2, mapped: true, content: None };
        super::super::assert_round_trip(&state);
        super::super::assert_round_trip(&State { content: Some(ObjectId(9)), ..state });
    }
}
