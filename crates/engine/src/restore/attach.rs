//! Attaching System V shared memory: whole segments by shmat(2), so that they count and shmdt(2) knows them; then the
//! parts that the process has detached are taken out, and the rest gets its protection.
use super::Restorer;
use crate::failure::Result;
use crate::resource::{self, sysv_attachment};
use godwit_image::ObjectId;
use godwit_image::memory::{AddressSpace, Area, Backing, PAGE_BYTES};
use godwit_image::page_set::{PageSet, Run};
use godwit_linux::program::Program;
use std::collections::BTreeMap;

const SYS_MPROTECT: i64 = 10;
const SYS_MUNMAP: i64 = 11;
const SYS_SHMAT: i64 = 30;
const SHM_RDONLY: u64 = 0o10_000;
const PROT_READ: u32 = 1;
const PROT_READ_WRITE: u32 = 3;

impl Restorer {
    /// Whether an area is an attachment, mapped by [`Restorer::attach`].
    pub(super) fn is_attachment(&self, area: &Area) -> bool {
        match &area.backing {
            Backing::File { object, .. } => {
                self.tree.object(*object).is_some_and(|envelope| envelope.kind == sysv_attachment::ID)
            }
            Backing::Anonymous | Backing::Kernel => false,
        }
    }

    /// Adds the calls that attach everything a space has attached. They come before all other mappings: a segment first
    /// takes more than what is left of it in the end.
    pub(super) fn attach(&self, program: &mut Program, space: &AddressSpace) -> Result<()> {
        let mut groups: BTreeMap<(ObjectId, u64), Vec<&Area>> = BTreeMap::new();
        for area in space.areas.iter().filter(|area| self.is_attachment(area)) {
            if let Backing::File { object, offset } = &area.backing {
                groups.entry((*object, area.start.wrapping_sub(*offset))).or_default().push(area);
            }
        }
        for ((object, base), areas) in groups {
            let envelope = self.tree.object(object).ok_or_else(|| super::missing(object))?;
            let state: sysv_attachment::State = resource::open(envelope)?;
            let (flags, protection) = if state.read_only { (SHM_RDONLY, PROT_READ) } else { (0, PROT_READ_WRITE) };
            program.call("shmat", SYS_SHMAT, [state.id.into(), base.into(), flags.into()]);
            let end = base.saturating_add(state.bytes.next_multiple_of(PAGE_BYTES));
            let whole: PageSet = [Run { start: base, end }].into_iter().collect();
            let left: PageSet = areas.iter().map(|area| Run { start: area.start, end: area.end }).collect();
            for hole in whole.difference(&left).runs() {
                program.call("munmap", SYS_MUNMAP, [hole.start.into(), hole.bytes().into()]);
            }
            for area in &areas {
                let mut protect = |protection: u32| {
                    program.call("mprotect", SYS_MPROTECT, [area.start.into(), area.bytes().into(), protection.into()]);
                };
                if area.protection != protection {
                    protect(area.protection);
                } else if areas.len() > 1 {
                    // Areas of attachments never join again: a border that was made once has to be made again.
                    protect(0);
                    protect(protection);
                }
            }
        }
        Ok(())
    }
}
