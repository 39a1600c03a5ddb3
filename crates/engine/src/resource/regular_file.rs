//! Regular files by path: the destination has the same file; position, flags and identity of the description travel.
use super::{Captured, Description, Kind, Made, Need, Stage, TaskState, open};
use crate::capture::Capture;
use crate::failure::{About, Result};
use crate::look::{Look, Purpose, Survey};
use crate::restore::{Bind, Make};
use godwit_image::{Code, Envelope, KindId, Refusal, Subject, Verdict};
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
}

/// The kind.
#[derive(Debug)]
pub struct RegularFile;

fn refuse(look: &Look) -> Option<Refusal> {
    if look.links == 0 || look.link.ends_with(b" (deleted)") {
        return Some(Refusal::new(
            Code::UNSUPPORTED,
            look.subject(),
            "the file was removed and lives only as long as it is open",
        ));
    }
    if std::str::from_utf8(&look.link).is_err() {
        return Some(Refusal::new(Code::UNSUPPORTED, look.subject(), "its path is not UTF-8"));
    }
    None
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
        Stage::Early
    }
    fn needs(&self, envelope: &Envelope) -> Result<Vec<Need>> {
        let state: State = open(envelope)?;
        let bytes = state.mapped.then_some(state.bytes);
        Ok(vec![Need::Path { path: state.path, bytes, file_type: S_IFREG }])
    }
    fn make(&self, envelope: &Envelope, _: &mut Make) -> Result<Made> {
        let state: State = open(envelope)?;
        let subject = || Subject::Path(state.path.clone());
        let file = File::from(godwit_linux::file::open(state.path.as_bytes(), state.flags).about(subject)?);
        let metadata = file.metadata().about(subject)?;
        if metadata.mode() & 0o170_000 != S_IFREG {
            return Err(Refusal::new(Code::FILE_DIFFERS, subject(), "it is not a regular file here"));
        }
        if state.mapped && metadata.size() != state.bytes {
            let cause = format!("it has {} bytes here and {} at the source", metadata.size(), state.bytes);
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
        look.file_type() == S_IFREG && look.link.starts_with(b"/") && !look.link.starts_with(b"/memfd:")
    }
    fn examine(&self, look: &Look, _: &Survey) -> Verdict {
        refuse(look).map_or(Verdict::Carried, Verdict::Blocks)
    }
    fn capture(&self, look: &Look, _: &mut Capture) -> Result<Captured> {
        if let Some(refusal) = refuse(look) {
            return Err(refusal);
        }
        let state = State {
            path: look.text(),
            flags: look.flags(),
            position: look.information.position.max(0) as u64,
            bytes: look.bytes,
            mapped: matches!(look.purpose, Purpose::Mapping { .. } | Purpose::Executable),
        };
        Captured::new(Vec::new(), &state)
    }
}
