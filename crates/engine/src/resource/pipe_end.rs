//! Ends of pipes, as descriptors refer to them: the two that pipe(2) gave, and those opened again through /proc.
use super::pipe_content::{self, End, O_ACCMODE, O_ASYNC, O_WRONLY};
use super::{Captured, Description, Kind, Made, Need, Stage, TaskState, edge, open};
use crate::capture::Capture;
use crate::failure::{About, Result};
use crate::look::{Look, Survey};
use crate::restore::{Bind, Make};
use godwit_image::{Code, Envelope, KindId, Refusal, Subject, Verdict};
use godwit_linux::{file, readiness};

const S_IFIFO: u32 = 0o010_000;
const O_LARGEFILE: u32 = 0o100_000;
const O_PATH: u32 = 0o10_000_000;

/// The kind.
#[derive(Debug)]
pub struct PipeEnd;

/// Who is at a pipe, as its ends tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sides {
    /// It has no writer: a reader sees the end. `None` when this end cannot tell.
    pub(super) hung_up: Option<bool>,
    /// An end is open for writing in the tree.
    pub(super) writers: bool,
}

/// Looks who holds the ends of a pipe or FIFO, by what /proc and the ends themselves tell.
///
/// # Errors
/// GW1102: an end is outside the tree.
pub(super) fn sides(look: &Look, survey: &Survey, outside: &[(i32, i32)]) -> Result<Sides> {
    if !outside.is_empty() {
        return Err(edge::cut(look, edge::held_outside(outside)));
    }
    let (mut readers, mut writers) = (false, false);
    for (pid, descriptor) in survey.holders(&look.link).iter().copied().chain(look.number().map(|fd| (look.pid, fd))) {
        let access = if (pid, Some(descriptor)) == (look.pid, look.number()) {
            look.flags() & O_ACCMODE
        } else {
            survey.flags((pid, descriptor)).map_or(3, |flags| flags & O_ACCMODE)
        };
        readers |= access == 0 || access == 2;
        writers |= access == 1 || access == 2;
    }
    let now = readiness::ready(look.borrow(), readiness::ALL).about(|| look.subject())?;
    let hung_up = (look.flags() & O_ACCMODE == 0).then_some(now & readiness::HANG_UP != 0);
    let unseen = match look.flags() & O_ACCMODE {
        // A reader that has seen no writer yet does not tell either; who opened it so early shows by its flags alone.
        0 => !writers && hung_up == Some(false) && look.flags() & O_LARGEFILE == 0,
        O_WRONLY => !readers && now & readiness::ERROR == 0,
        _ => false,
    };
    if unseen && !survey.descriptors_in_flight() {
        return Err(edge::cut(
            look,
            "its other end is held outside the tree, by a process that cannot be seen from here",
        ));
    }
    Ok(Sides { hung_up: hung_up.filter(|_| !writers), writers })
}

fn examine(look: &Look, survey: &Survey) -> Result<Sides> {
    let sides = sides(look, survey, survey.outside(&look.link))?;
    if sides.hung_up == Some(false) && !survey.descriptors_in_flight() {
        let cause = "it was opened again through /proc when nobody could write to it; that cannot be made again";
        return Err(Refusal::new(Code::NOT_MIGRATABLE, look.subject(), cause).choice("close it in the program"));
    }
    Ok(sides)
}

impl Kind for PipeEnd {
    fn id(&self) -> KindId {
        KindId(6)
    }
    fn name(&self) -> &'static str {
        "pipe"
    }
    fn version(&self) -> u16 {
        1
    }
    fn stage(&self) -> Stage {
        Stage::AsItComes
    }
    fn needs(&self, _: &Envelope) -> Result<Vec<Need>> {
        Ok(Vec::new())
    }
    fn make(&self, envelope: &Envelope, make: &mut Make) -> Result<Made> {
        let state: End = open(envelope)?;
        let subject = || Subject::Object(format!("pipe {}", state.content));
        let index = usize::from(state.flags & O_ACCMODE == O_WRONLY);
        let content = make.made(state.content, index)?;
        // open(2) always adds this flag, pipe(2) never: so there is one such description per end, and it is the first.
        if state.flags & O_LARGEFILE != 0 {
            return Ok(vec![pipe_content::reopen(content, state.flags, subject)?]);
        }
        file::set_status_flags(content, state.flags & !O_ASYNC).about(subject)?;
        Ok(vec![content.try_clone_to_owned().about(subject)?])
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

impl Description for PipeEnd {
    fn recognise(&self, look: &Look) -> bool {
        look.file_type() == S_IFIFO && look.link.starts_with(b"pipe:[") && look.flags() & O_PATH == 0
    }
    fn examine(&self, look: &Look, survey: &Survey) -> Verdict {
        examine(look, survey).map_or_else(Verdict::Blocks, |_| Verdict::Carried)
    }
    fn foresee(&self, _: &Look, _: &Survey) -> Vec<Need> {
        Vec::new()
    }
    fn capture(&self, look: &Look, capture: &mut Capture) -> Result<Captured> {
        let sides = examine(look, &capture.survey)?;
        let content = pipe_content::capture(look, capture, None, sides.writers)?;
        End { content, flags: look.flags(), hung_up: sides.hung_up == Some(true) }.captured()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_linux::pidfd::PidFd;
    use godwit_linux::pipe;
    use std::os::fd::AsRawFd;

    fn looked(file: &impl AsRawFd) -> Look {
        let own = PidFd::open(std::process::id() as i32).unwrap();
        Look::descriptor(&own, file.as_raw_fd()).unwrap().unwrap()
    }

    #[test]
    fn an_end_whose_other_end_nobody_in_sight_holds_is_an_edge() {
        let own = std::process::id() as i32;
        let (reader, writer) = pipe::create(0).unwrap();
        let both = Survey::new(&[own]);
        assert_eq!(sides(&looked(&reader), &both, &[]).unwrap(), Sides { hung_up: None, writers: true });
        let cut = sides(&looked(&reader), &both, &[(1, 5)]).unwrap_err();
        assert_eq!((cut.code, cut.choices.len()), (Code::EDGE, 2));
        let none = Survey::new(&[]);
        assert_eq!(sides(&looked(&writer), &none, &[]).unwrap_err().code, Code::EDGE);
        drop(writer);
        let told = sides(&looked(&reader), &Survey::new(&[own]), &[]).unwrap();
        assert_eq!(told, Sides { hung_up: Some(true), writers: false });
    }
}
