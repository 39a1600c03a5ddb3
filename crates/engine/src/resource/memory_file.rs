//! Open descriptions and mappings of nameless files in memory: memfds, and what is behind MAP_SHARED|MAP_ANONYMOUS.
//! Their contents are [`file_content`](super::file_content).
use super::file_content::{self, Opening, Sort};
use super::huge_file;
use super::{Captured, Description, Kind, Made, Need, Stage, TaskState, open};
use crate::capture::Capture;
use crate::failure::Result;
use crate::look::{Look, Survey};
use crate::restore::{Bind, Make};
use godwit_image::{Code, Envelope, KindId, Refusal, Verdict};
use godwit_linux::memory_file;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

const S_IFREG: u32 = 0o100_000;
const MEMFD: &[u8] = b"/memfd:";
const ANONYMOUS: &[u8] = b"/dev/zero (deleted)";
const DELETED: &[u8] = b" (deleted)";

/// The device on which the kernel keeps all files of this kind, and System V shared memory.
pub(super) fn home() -> Option<u64> {
    static HOME: OnceLock<Option<u64>> = OnceLock::new();
    *HOME.get_or_init(|| File::from(memory_file::create(b"", None).ok()?).metadata().ok().map(|data| data.dev()))
}

pub(super) fn sort(look: &Look) -> Option<Sort> {
    if look.file_type() != S_IFREG || look.links != 0 {
        return None;
    }
    if let Some(huge) = huge_file::sort(look) {
        return Some(Sort::Huge(huge));
    }
    if home() != Some(look.device) {
        return None;
    }
    if look.link == ANONYMOUS {
        return Some(Sort::Anonymous);
    }
    memfd_name(look).map(Sort::Memfd)
}

/// The name that a memfd was given.
pub(super) fn memfd_name(look: &Look) -> Option<Vec<u8>> {
    Some(look.link.strip_prefix(MEMFD)?.strip_suffix(DELETED)?.to_vec())
}

/// One open description, or mapping, of a nameless file in memory.
#[derive(Debug)]
pub struct MemoryFile;

impl Kind for MemoryFile {
    fn id(&self) -> KindId {
        KindId(15)
    }
    fn name(&self) -> &'static str {
        "memory file"
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
    fn make(&self, envelope: &Envelope, make: &mut Make) -> Result<Made> {
        let state: Opening = open(envelope)?;
        Ok(vec![file_content::make_opening(envelope, &state, make)?])
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

impl Description for MemoryFile {
    fn recognise(&self, look: &Look) -> bool {
        sort(look).is_some()
    }
    fn examine(&self, look: &Look, survey: &Survey) -> Verdict {
        match survey.shared_outside(look) {
            Some(refusal) => Verdict::Blocks(refusal),
            None => Verdict::Recreated("its inode number is the kernel's choice".to_owned()),
        }
    }
    fn foresee(&self, _: &Look, _: &Survey) -> Vec<Need> {
        Vec::new()
    }
    fn capture(&self, look: &Look, capture: &mut Capture) -> Result<Captured> {
        let Some(sort) = sort(look) else {
            return Err(Refusal::new(Code::NOT_MIGRATABLE, look.subject(), "it changed while it was looked at"));
        };
        let content = file_content::capture(look, sort, capture)?;
        file_content::captured(content, look)
    }
}
