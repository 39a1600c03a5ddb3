//! Open descriptions and mappings of files that live only as long as they are open: removed ones, and those made by
//! O_TMPFILE. Their contents are [`file_content`](super::file_content).
use super::file_content::{self, O_TMPFILE, Opening, Sort};
use super::{Captured, Description, Kind, Made, Need, Stage, TaskState, huge_file, open};
use crate::capture::Capture;
use crate::failure::Result;
use crate::look::{Look, Survey};
use crate::restore::{Bind, Make};
use godwit_image::{Code, Envelope, KindId, Refusal, Verdict};
use std::path::Path;

const S_IFREG: u32 = 0o100_000;
const O_PATH: u32 = 0o10_000_000;
/// This kind's number.
pub(super) const ID: KindId = KindId(16);

/// One open description, or mapping, of a file without a name.
#[derive(Debug)]
pub struct UnlinkedFile;

pub(super) fn sort(look: &Look) -> Result<Sort> {
    let refuse = |cause| Err(Refusal::new(Code::UNSUPPORTED, look.subject(), cause));
    if huge_file::page_bytes(look).is_some() {
        return refuse("it was removed from a file system of huge pages, or is shared memory out of them");
    }
    let text = look.link.strip_suffix(b" (deleted)").and_then(|path| std::str::from_utf8(path).ok());
    let Some(path) = text.filter(|path| path.starts_with('/')) else {
        return refuse("its former path is not known, or not UTF-8");
    };
    let parts = Path::new(path);
    let number = parts.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix('#'));
    if look.flags() & O_TMPFILE == O_TMPFILE || number.is_some_and(|number| number == look.inode.to_string()) {
        let directory = parts.parent().and_then(Path::to_str).unwrap_or("/");
        return Ok(Sort::Temporary(directory.to_owned()));
    }
    Ok(Sort::Unlinked(path.to_owned()))
}

impl Kind for UnlinkedFile {
    fn id(&self) -> KindId {
        ID
    }
    fn name(&self) -> &'static str {
        "unlinked file"
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

impl Description for UnlinkedFile {
    fn recognise(&self, look: &Look) -> bool {
        look.file_type() == S_IFREG && look.links == 0 && look.link.starts_with(b"/") && look.flags() & O_PATH == 0
    }
    fn examine(&self, look: &Look, survey: &Survey) -> Verdict {
        if let Some(refusal) = survey.shared_outside(look) {
            return Verdict::Blocks(refusal);
        }
        match sort(look) {
            Err(refusal) => Verdict::Blocks(refusal),
            Ok(Sort::Unlinked(path)) if Path::new(&path).exists() => Verdict::Degraded(
                "its name belongs to another file now: /proc will show it in a directory .godwit-N".to_owned(),
            ),
            Ok(Sort::Temporary(_)) => Verdict::Recreated(
                "its inode number is the file system's choice; whether O_EXCL keeps it from getting a name cannot be seen, it may get one"
                    .to_owned(),
            ),
            Ok(_) => Verdict::Recreated("its inode number is the file system's choice".to_owned()),
        }
    }
    fn foresee(&self, _: &Look, _: &Survey) -> Vec<Need> {
        Vec::new()
    }
    fn capture(&self, look: &Look, capture: &mut Capture) -> Result<Captured> {
        let content = file_content::capture(look, sort(look)?, capture)?;
        file_content::captured(content, look)
    }
}
