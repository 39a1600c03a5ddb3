//! Many small areas, made in a task before its tree is stopped: mapped, with pages where the source has some, and with their final
//! protections.
use super::joined;
use super::space::{CALLS_MAX, anonymous_flags};
use crate::failure::Result;
use godwit_image::memory::{Area, AreaFlags};
use godwit_image::page_set::{PageSet, Run};
use godwit_linux::proc::status;
use godwit_linux::program::Program;

const SYS_MMAP: i64 = 9;
const SYS_MPROTECT: i64 = 10;
const SYS_MADVISE: i64 = 28;
const SYS_PRCTL: i64 = 157;
const PR_SET_THP_DISABLE: u64 = 41;
const MADV_NOHUGEPAGE: u64 = 15;
const MADV_POPULATE_WRITE: u64 = 23;

/// Calls that are run in a task some thousands at a time.
struct Calls<R> {
    program: Program,
    run: R,
}

impl<R: FnMut(&Program) -> Result<()>> Calls<R> {
    fn next(&mut self) -> Result<&mut Program> {
        if self.program.calls().len() >= CALLS_MAX {
            (self.run)(&std::mem::take(&mut self.program))?;
        }
        Ok(&mut self.program)
    }

    fn finish(mut self) -> Result<()> {
        (self.run)(&self.program)
    }
}

/// Makes areas, in ascending order, and pages of them, by programs that `run` runs.
///
/// # Errors
/// Those of `run`.
pub(super) fn make(areas: &[Area], pages: &PageSet, run: impl FnMut(&Program) -> Result<()>) -> Result<()> {
    let mut calls = Calls { program: Program::new(), run };
    let own = std::process::id() as i32;
    // A huge page would be more memory than the source has. What we have ourselves a fork has, too.
    let may_be_huge = status::read(own, own).is_ok_and(|status| status.thp_enabled != Some(false));
    let set_small = |program: &mut Program, small: bool| {
        if may_be_huge {
            let zero = 0_u64;
            let arguments = [PR_SET_THP_DISABLE.into(), u64::from(small).into(), zero.into(), zero.into(), zero.into()];
            program.call("prctl(PR_SET_THP_DISABLE)", SYS_PRCTL, arguments);
        }
    };
    set_small(calls.next()?, true);
    let groups = joined::find(areas);
    let mut parts: Vec<(Run, u32)> = Vec::new();
    for area in areas {
        let mut range = Run { start: area.start, end: area.end };
        match joined::of(&groups, area) {
            Some(group) if group.range.start == area.start => {
                range = group.range;
                parts.extend(&group.parts);
            }
            Some(_) => continue,
            None if area.protection != joined::PROTECTION => parts.push((range, area.protection)),
            None => {}
        }
        let filled = !pages.intersection(&[range].into_iter().collect()).is_empty();
        // What will never be written is not counted as if it might be.
        let protection = if filled || range.end != area.end { joined::PROTECTION } else { area.protection };
        let (flags, none, zero) = (anonymous_flags(area), -1_i32, 0_u64);
        let arguments =
            [range.start.into(), range.bytes().into(), protection.into(), flags.into(), none.into(), zero.into()];
        calls.next()?.call("mmap", SYS_MMAP, arguments);
    }
    for run in pages.runs() {
        // Pages that cannot be had now come when they are written.
        let arguments = [run.start.into(), run.bytes().into(), MADV_POPULATE_WRITE.into()];
        calls.next()?.try_call("madvise", SYS_MADVISE, arguments);
    }
    for (run, protection) in parts {
        let arguments = [run.start.into(), run.bytes().into(), protection.into()];
        calls.next()?.call("mprotect", SYS_MPROTECT, arguments);
    }
    let small = areas.iter().filter(|area| area.has(AreaFlags::NO_HUGE_PAGE));
    let small: PageSet = small.map(|area| Run { start: area.start, end: area.end }).collect();
    for run in small.runs() {
        let arguments = [run.start.into(), run.bytes().into(), MADV_NOHUGEPAGE.into()];
        calls.next()?.call("madvise", SYS_MADVISE, arguments);
    }
    set_small(calls.next()?, false);
    calls.finish()
}
