//! Ends of FIFOs: opened by a path that the destination must have as well.
use super::pipe_content::{self, End, O_ACCMODE, O_WRONLY};
use super::pipe_end::{Sides, sides};
use super::{Captured, Description, Kind, Made, Need, Stage, TaskState, open};
use crate::capture::Capture;
use crate::failure::{About, Result};
use crate::look::{Look, Survey};
use crate::restore::{Bind, Make};
use godwit_image::{Code, Envelope, KindId, Refusal, Subject, Verdict};
use godwit_linux::readiness;

const S_IFIFO: u32 = 0o010_000;
const O_PATH: u32 = 0o10_000_000;

/// The kind.
#[derive(Debug)]
pub struct FifoEnd;

fn examine(look: &Look, survey: &Survey) -> Result<(Sides, String)> {
    let refuse = |cause| Refusal::new(Code::UNSUPPORTED, look.subject(), cause);
    if look.links == 0 || look.link.ends_with(b" (deleted)") {
        return Err(refuse("the FIFO was removed and lives only as long as it is open").choice("keep its name"));
    }
    let path = std::str::from_utf8(&look.link).map_err(|_| refuse("its path is not UTF-8"))?.to_owned();
    let outside = survey.outside_file(look.device, look.inode);
    Ok((sides(look, survey, &outside)?, path))
}

impl Kind for FifoEnd {
    fn id(&self) -> KindId {
        KindId(7)
    }
    fn name(&self) -> &'static str {
        "FIFO"
    }
    fn version(&self) -> u16 {
        1
    }
    fn stage(&self) -> Stage {
        Stage::Early
    }
    fn needs(&self, _: &Envelope) -> Result<Vec<Need>> {
        // The content asks for the path.
        Ok(Vec::new())
    }
    fn make(&self, envelope: &Envelope, make: &mut Make) -> Result<Made> {
        let state: End = open(envelope)?;
        let subject = || Subject::Object(format!("FIFO {}", state.content));
        let content = make.made(state.content, 0)?;
        let end = if state.hung_up && state.flags & O_ACCMODE == 0 {
            // A writer must be there when it is opened, and go: it sees that.
            let writer = pipe_content::reopen(content, O_WRONLY, subject)?;
            let end = pipe_content::reopen(content, state.flags, subject)?;
            drop(writer);
            end
        } else {
            pipe_content::reopen(content, state.flags, subject)?
        };
        Ok(vec![end])
    }
    fn bind(&self, envelope: &Envelope, bind: &mut Bind) -> Result<()> {
        let state: End = open(envelope)?;
        let without_writers = bind.made_count(state.content) == 1;
        if without_writers && state.flags & O_ACCMODE == 0 {
            let subject = || Subject::Object(format!("FIFO {}", state.content));
            let now = readiness::ready(bind.own()?, readiness::IN).about(subject)?;
            if (now & readiness::HANG_UP != 0) != state.hung_up {
                let cause = "some readers have seen a writer go and some have not: that cannot be made again";
                return Err(Refusal::new(Code::RESTORE_FAILED, subject(), cause));
            }
        }
        Ok(())
    }
    fn description(&self) -> Option<&dyn Description> {
        Some(self)
    }
    fn task_state(&self) -> Option<&dyn TaskState> {
        None
    }
}

impl Description for FifoEnd {
    fn recognise(&self, look: &Look) -> bool {
        look.file_type() == S_IFIFO && look.link.starts_with(b"/") && look.flags() & O_PATH == 0
    }
    fn examine(&self, look: &Look, survey: &Survey) -> Verdict {
        examine(look, survey).map_or_else(Verdict::Blocks, |_| Verdict::Carried)
    }
    fn foresee(&self, look: &Look, _: &Survey) -> Vec<Need> {
        vec![Need::path(look.text(), look.file_type())]
    }
    fn capture(&self, look: &Look, capture: &mut Capture) -> Result<Captured> {
        let (sides, path) = examine(look, &capture.survey)?;
        let content = pipe_content::capture(look, capture, Some(path), sides.writers)?;
        End { content, flags: look.flags(), hung_up: sides.hung_up == Some(true) }.captured()
    }
}
