//! Files and directories of sysfs, and of control groups: opened again by their path; what they say is the destination's.
use super::{Captured, Description, Kind, Made, Need, Stage, TaskState, open};
use crate::capture::Capture;
use crate::failure::{About, Result};
use crate::look::{Look, Survey};
use crate::restore::{Bind, Make};
use godwit_image::{Code, Envelope, KindId, Refusal, Subject, Verdict};
use godwit_linux::filesystem;
use serde::{Deserialize, Serialize};
use std::os::fd::AsFd;

const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;

/// State.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// Absolute path.
    pub path: String,
    /// Open flags.
    pub flags: u32,
    /// Position in bytes.
    pub position: u64,
    /// st_mode & S_IFMT.
    pub file_type: u32,
}

/// The kind.
#[derive(Debug)]
pub struct SysfsFile;

fn refuse(look: &Look) -> Option<Refusal> {
    if look.link.ends_with(b" (deleted)") || std::str::from_utf8(&look.link).is_err() {
        return Some(Refusal::new(Code::NOT_MIGRATABLE, look.subject(), "its name was removed"));
    }
    if look.number().is_none() {
        return Some(Refusal::new(Code::NOT_MIGRATABLE, look.subject(), "it is mapped: it is a device's memory"));
    }
    None
}

impl Kind for SysfsFile {
    fn id(&self) -> KindId {
        KindId(20)
    }
    fn name(&self) -> &'static str {
        "sysfs file"
    }
    fn version(&self) -> u16 {
        1
    }
    fn stage(&self) -> Stage {
        Stage::Early
    }
    fn needs(&self, envelope: &Envelope) -> Result<Vec<Need>> {
        let state: State = open(envelope)?;
        Ok(vec![Need::path(state.path, state.file_type)])
    }
    fn make(&self, envelope: &Envelope, _: &mut Make) -> Result<Made> {
        let state: State = open(envelope)?;
        let subject = || Subject::Path(state.path.clone());
        let file = godwit_linux::file::open(state.path.as_bytes(), state.flags).about(subject)?;
        if state.position != 0 {
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

impl Description for SysfsFile {
    fn recognise(&self, look: &Look) -> bool {
        let of_type = look.file_type() == S_IFREG || (look.file_type() == S_IFDIR && look.number().is_some());
        let own = |kind| kind == filesystem::SYSFS || filesystem::CONTROL_GROUPS.contains(&kind);
        // The kernel is asked last: there are many pipes and sockets.
        of_type && look.filesystem().is_some_and(own)
    }
    fn examine(&self, look: &Look, _: &Survey) -> Verdict {
        match refuse(look) {
            Some(refusal) => Verdict::Blocks(refusal),
            None => Verdict::Recreated("what it says is what the destination's kernel says".to_owned()),
        }
    }
    fn foresee(&self, look: &Look, _: &Survey) -> Vec<Need> {
        vec![Need::path(look.text(), look.file_type())]
    }
    fn capture(&self, look: &Look, _: &mut Capture) -> Result<Captured> {
        if let Some(refusal) = refuse(look) {
            return Err(refusal);
        }
        let position = look.information.position.max(0) as u64;
        let (path, flags, file_type) = (look.text(), look.flags(), look.file_type());
        Captured::new(Vec::new(), &State { path, flags, position, file_type })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_comes_back_from_its_payload() {
        super::super::assert_round_trip(&State { path: "/sys".to_owned(), flags: 0, position: 7, file_type: S_IFDIR });
    }
}
