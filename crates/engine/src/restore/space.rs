//! Address spaces: everything of the restorer goes, the image's layout and areas come.
use super::fill::Filler;
use super::{ADDRESS_MAX, Restorer, joined, missing};
use crate::failure::{About, Result};
use godwit_image::memory::{AddressSpace, Area, AreaFlags, Backing, PAGE_BYTES};
use godwit_image::page_set::{PageSet, Run};
use godwit_image::{Code, ObjectId, Pid, Refusal, Subject};
use godwit_linux::area_query::{Areas, Found};
use godwit_linux::proc::maps;
use godwit_linux::program::{Argument, Program};
use godwit_linux::ptrace;

const SYS_MMAP: i64 = 9;
const SYS_MPROTECT: i64 = 10;
const SYS_MUNMAP: i64 = 11;
const SYS_MADVISE: i64 = 28;
const SYS_PRCTL: i64 = 157;
const SYS_ARCH_PRCTL: i64 = 158;
const SYS_MLOCK2: i64 = 325;
const SYS_RSEQ: i64 = 334;
const SYS_SET_ROBUST_LIST: i64 = 273;
const SYS_MSEAL: i64 = 462;
const PR_SET_MM: u64 = 35;
const PR_SET_MM_MAP: u64 = 14;
const ARCH_MAP_VDSO_64: u64 = 0x2003;
const RSEQ_FLAG_UNREGISTER: u64 = 1;
const MLOCK_ONFAULT: u64 = 1;
const MADV_DONTNEED: u64 = 4;
const MADV_HUGEPAGE: u64 = 14;
const MADV_POPULATE_WRITE: u64 = 23;
const MADV_COLLAPSE: u64 = 25;
/// Bytes of a transparent huge page.
const HUGE_PAGE_BYTES: u64 = 2 << 20;
const MADV_GUARD_INSTALL: u64 = 102;

/// MAP_* bits.
mod map {
    pub(super) const SHARED: u64 = 1;
    pub(super) const PRIVATE: u64 = 2;
    pub(super) const DROPPABLE: u64 = 8;
    pub(super) const ANONYMOUS: u64 = 0x20;
    pub(super) const GROWSDOWN: u64 = 0x100;
    pub(super) const NORESERVE: u64 = 0x4000;
    pub(super) const FIXED_NOREPLACE: u64 = 0x10_0000;
}

/// Entries after which a program is run and a new one begun: they and their data fit the large slot.
pub(super) const CALLS_MAX: usize = 4000;

/// The programs that give pages back.
pub(super) fn giving_back(pages: &PageSet) -> Vec<Program> {
    let of_runs = |runs: &[Run]| {
        let mut program = Program::new();
        for run in runs {
            program.call("madvise", SYS_MADVISE, [run.start.into(), run.bytes().into(), MADV_DONTNEED.into()]);
        }
        program
    };
    pages.runs().chunks(CALLS_MAX).map(of_runs).collect()
}

/// madvise(2) advice per area flag.
const ADVICE: [(u32, u64); 8] = [
    (AreaFlags::DONT_FORK, 10),
    (AreaFlags::WIPE_ON_FORK, 18),
    (AreaFlags::DONT_DUMP, 16),
    (AreaFlags::HUGE_PAGE, 14),
    (AreaFlags::NO_HUGE_PAGE, 15),
    (AreaFlags::MERGEABLE, 12),
    (AreaFlags::SEQUENTIAL, 2),
    (AreaFlags::RANDOM, 1),
];

/// A range that a fork keeps from its parent.
#[derive(Clone, Copy, Debug)]
struct Kept {
    range: Run,
    /// PROT_* bits in the parent.
    protection: u32,
}

/// Whether a fork's mapping of the parent's area is the child's area: private, of the same object at the same place.
fn alike(child: &Area, parent: &Area) -> bool {
    let same_backing = match (&child.backing, &parent.backing) {
        (Backing::Anonymous, Backing::Anonymous) => true,
        (Backing::File { object: a, offset: x }, Backing::File { object: b, offset: y }) => {
            a == b && x.wrapping_sub(child.start) == y.wrapping_sub(parent.start)
        }
        _ => false,
    };
    let kind = AreaFlags::SHARED | AreaFlags::GROWS_DOWN | AreaFlags::HUGE_TLB | AreaFlags::NO_RESERVE;
    same_backing && child.flags & kind == parent.flags & kind
}

/// What a fork of ours has of us and loses first: actions, and what the kernel would write into memory that goes.
pub(super) fn begin_anew(program: &mut Program, pid: Pid) -> Result<()> {
    let now = ptrace::restartable_sequence(pid.0).about(|| Subject::Process(pid.0))?;
    super::thread::default_actions(program);
    if now.address != 0 {
        program.call(
            "rseq",
            SYS_RSEQ,
            [now.address.into(), now.length.into(), RSEQ_FLAG_UNREGISTER.into(), now.signature.into()],
        );
    }
    program.call("set_robust_list", SYS_SET_ROBUST_LIST, [0_u64.into(), 24_u64.into()]);
    Ok(())
}

/// MAP_* bits of an area but for those that tell what is mapped.
fn map_flags(area: &Area) -> u64 {
    let mut flags = map::FIXED_NOREPLACE;
    flags |= match (area.has(AreaFlags::DROPPABLE), area.has(AreaFlags::SHARED)) {
        (true, _) => map::DROPPABLE,
        (false, true) => map::SHARED,
        (false, false) => map::PRIVATE,
    };
    if area.has(AreaFlags::GROWS_DOWN) {
        flags |= map::GROWSDOWN;
    }
    if area.has(AreaFlags::NO_RESERVE) {
        flags |= map::NORESERVE;
    }
    flags
}

/// The same of an area of anonymous memory.
pub(super) fn anonymous_flags(area: &Area) -> u64 {
    map_flags(area) | map::ANONYMOUS
}

impl Restorer {
    /// The first living task of a space.
    pub(super) fn owner_of(&self, space: ObjectId) -> Result<Pid> {
        self.tree.tasks.iter().find(|task| task.space == Some(space)).map(|task| task.pid).ok_or_else(|| missing(space))
    }

    pub(super) fn unregister_restartable_sequence(&mut self, pid: Pid) -> Result<()> {
        let mut program = Program::new();
        begin_anew(&mut program, pid)?;
        self.run(pid, &program).map(drop)
    }

    /// Builds a space in its first task, once.
    pub(super) fn build_space(&mut self, id: ObjectId) -> Result<()> {
        if self.fillers.contains_key(&id) || self.built.contains(&id) {
            return Ok(());
        }
        let pid = self.owner_of(id)?;
        self.create(pid)?;
        let space = self.tree.space(id).cloned().ok_or_else(|| missing(id))?;
        let kept = self.kept(pid, &space);
        let cleared = self.clear(pid, &space, &kept)?;
        self.map(pid, &space, &kept, cleared)?;
        self.forget_foreign_pages(pid, &space, &kept)?;
        self.make_huge(pid, &space)?;
        self.built.insert(id);
        self.fillers.insert(id, Filler::open(pid, &space.areas, self.joined.get(&id).map_or(&[], Vec::as_slice))?);
        Ok(())
    }

    /// Ranges of the parent's space that a fork inherits and keeps, because pages in them are shared copy-on-write. They
    /// carry their area in the child, and the protection that they have now.
    fn kept(&self, pid: Pid, space: &AddressSpace) -> Vec<Kept> {
        let parent_task = self.tree.tasks.iter().find(|task| task.pid == pid).map(|task| task.parent);
        let of_parent_task =
            self.tree.tasks.iter().find(|task| Some(task.pid) == parent_task).and_then(|task| task.space);
        // A copy of the parent from before it had its memory has nothing of it.
        if !self.copies.contains(&pid) {
            return Vec::new();
        }
        let parent = space.parent.filter(|parent| of_parent_task == Some(*parent) && self.built.contains(parent));
        let Some(parent) = parent.and_then(|parent| self.tree.space(parent)) else { return Vec::new() };
        // After an execve nothing is shared; an equal program file is what lets PR_SET_MM_MAP leave it alone.
        if parent.executable != space.executable {
            return Vec::new();
        }
        let mut kept = Vec::new();
        let mut first = 0;
        for area in space.areas.iter().filter(|area| area.backing != Backing::Kernel && !area.has(AreaFlags::SHARED)) {
            while parent.areas.get(first).is_some_and(|other| other.end <= area.start) {
                first += 1;
            }
            for other in parent.areas[first..].iter().take_while(|other| other.start < area.end) {
                let range = Run { start: area.start.max(other.start), end: area.end.min(other.end) };
                let shares = !space.inherited.intersection(&[range].into_iter().collect()).is_empty();
                if shares && alike(area, other) {
                    kept.push(Kept { range, protection: other.protection });
                }
            }
        }
        kept
    }

    /// Unmaps all but the arena and what is kept, and sets the layout: by the program that is returned.
    fn clear(&mut self, pid: Pid, space: &AddressSpace, kept: &[Kept]) -> Result<Program> {
        let mut stay: PageSet = kept.iter().map(|kept| kept.range).collect();
        stay.insert(Run { start: self.arena.base(), end: self.arena.base() + self.arena.length() as u64 });
        stay.extend(&self.reserved_areas(space.id).cloned().unwrap_or_default());
        let everything: PageSet = [Run { start: 0x1_0000, end: ADDRESS_MAX }].into_iter().collect();
        let mut program = Program::new();
        for gap in everything.difference(&stay).runs() {
            program.call("munmap", SYS_MUNMAP, [gap.start.into(), gap.bytes().into()]);
            if program.calls().len() >= CALLS_MAX {
                self.run(pid, &std::mem::take(&mut program))?;
            }
        }
        let executable = self.inherited_number(space.executable).ok_or_else(|| missing(space.executable))?;
        // The program file cannot be changed while it is mapped (EBUSY): a fork that keeps areas has it already.
        let executable = if kept.is_empty() { executable } else { -1 };
        let auxiliary = program.data(&space.layout.auxiliary_vector);
        let mut map = Vec::with_capacity(104);
        for address in space.layout.addresses {
            map.extend_from_slice(&address.to_le_bytes());
        }
        let pointer = map.len();
        map.extend_from_slice(&[0; 8]);
        map.extend_from_slice(&(space.layout.auxiliary_vector.len() as u32).to_le_bytes());
        map.extend_from_slice(&executable.to_le_bytes());
        let length = map.len();
        let map = program.data(&map);
        if let Argument::Data(offset) = map {
            program.point(offset + pointer, auxiliary);
        }
        program.call(
            "prctl(PR_SET_MM_MAP)",
            SYS_PRCTL,
            [PR_SET_MM.into(), PR_SET_MM_MAP.into(), map, length.into(), 0_u64.into()],
        );
        Ok(program)
    }

    /// Maps every area, or the parts of it that are not kept from the parent, behind what a program does before.
    fn map(&mut self, pid: Pid, space: &AddressSpace, kept: &[Kept], mut program: Program) -> Result<()> {
        let stay: PageSet = kept.iter().map(|kept| kept.range).collect();
        let mut kernel_start = None;
        self.attach(&mut program, space)?;
        let reserved = self.reserved_areas(space.id).cloned().unwrap_or_default();
        let joined = match (kept.is_empty(), reserved.is_empty()) {
            (true, true) => joined::find(&space.areas),
            (true, false) => {
                let free = space.areas.iter().filter(|area| !reserved.contains(area.start));
                joined::find(&free.cloned().collect::<Vec<_>>())
            }
            (false, _) => Vec::new(),
        };
        for area in space.areas.iter().filter(|area| !reserved.contains(area.start)) {
            if program.calls().len() >= CALLS_MAX {
                self.run(pid, &std::mem::take(&mut program))?;
            }
            match joined::of(&joined, area) {
                Some(group) if group.range.start == area.start => {
                    self.map_area(&mut program, &Area { protection: joined::PROTECTION, ..area.clone() }, group.range)?;
                    continue;
                }
                Some(_) => continue,
                None => {}
            }
            if self.is_attachment(area) {
                continue;
            }
            if area.backing == Backing::Kernel {
                kernel_start.get_or_insert(area.start);
                continue;
            }
            let whole: PageSet = [Run { start: area.start, end: area.end }].into_iter().collect();
            for part in whole.difference(&stay).runs() {
                self.map_area(&mut program, area, *part)?;
            }
        }
        for kept in kept {
            let area = space.areas.iter().find(|area| area.start <= kept.range.start && kept.range.end <= area.end);
            if let Some(area) = area.filter(|area| area.protection != kept.protection) {
                let range = kept.range;
                program.call(
                    "mprotect",
                    SYS_MPROTECT,
                    [range.start.into(), range.bytes().into(), area.protection.into()],
                );
            }
            if program.calls().len() >= CALLS_MAX {
                self.run(pid, &std::mem::take(&mut program))?;
            }
        }
        if let Some(start) = kernel_start {
            program.call("arch_prctl(ARCH_MAP_VDSO_64)", SYS_ARCH_PRCTL, [ARCH_MAP_VDSO_64.into(), start.into()]);
        }
        self.run(pid, &program).map(drop)?;
        if !joined.is_empty() {
            self.joined.insert(space.id, joined);
        }
        self.check_kernel_areas(pid, space)
    }

    /// Gives areas that were mapped as one their own protections, once: before anybody is forked from this space, and when
    /// all bytes are there.
    pub(super) fn part_areas(&mut self, id: ObjectId) -> Result<()> {
        self.return_unused(id)?;
        let Some(groups) = self.joined.remove(&id) else { return Ok(()) };
        let pid = self.owner_of(id)?;
        let mut program = Program::new();
        for (run, protection) in groups.iter().flat_map(|group| &group.parts) {
            program.call("mprotect", SYS_MPROTECT, [run.start.into(), run.bytes().into(), (*protection).into()]);
            if program.calls().len() >= CALLS_MAX {
                self.run(pid, &std::mem::take(&mut program))?;
            }
        }
        if let Some(filler) = self.fillers.get_mut(&id) {
            filler.part(&groups);
        }
        self.run(pid, &program).map(drop)
    }

    /// Drops pages of the parent that the fork brought along and the child never had, or has its own version of.
    fn forget_foreign_pages(&mut self, pid: Pid, space: &AddressSpace, kept: &[Kept]) -> Result<()> {
        let Some(parent) = space.parent.filter(|_| !kept.is_empty()) else { return Ok(()) };
        let mut brought = self.filled.get(&parent).cloned().unwrap_or_default();
        if let Some(of_parent) = self.tree.space(parent) {
            brought.extend(&of_parent.inherited);
        }
        let ranges: PageSet = kept.iter().map(|kept| kept.range).collect();
        for program in giving_back(&brought.intersection(&ranges).difference(&space.inherited)) {
            self.run(pid, &program)?;
        }
        Ok(())
    }

    fn map_area(&self, program: &mut Program, area: &Area, part: Run) -> Result<()> {
        let mut flags = map_flags(area);
        let (descriptor, offset) = match self.backing_number(&area.backing)? {
            Some((number, offset)) => (number, offset + (part.start - area.start)),
            None => {
                flags |= map::ANONYMOUS;
                (-1, 0)
            }
        };
        program.call(
            "mmap",
            SYS_MMAP,
            [
                part.start.into(),
                part.bytes().into(),
                area.protection.into(),
                flags.into(),
                descriptor.into(),
                offset.into(),
            ],
        );
        Ok(())
    }

    /// What was in huge pages will be: where the area asks for them they come at the first write; elsewhere one page is
    /// touched and its surroundings collapsed. A kernel or host that gives none leaves small ones.
    fn make_huge(&mut self, pid: Pid, space: &AddressSpace) -> Result<()> {
        let mut program = Program::new();
        let reserved = self.reserved_areas(space.id).cloned().unwrap_or_default();
        let missing = |area: &&Area| !area.has(AreaFlags::HUGE_TLB) && !reserved.contains(area.start);
        for area in space.areas.iter().filter(missing) {
            let of_area = [Run { start: area.start, end: area.end }].into_iter().collect();
            let huge = space.huge.intersection(&of_area);
            if huge.is_empty() {
                continue;
            }
            if area.has(AreaFlags::HUGE_PAGE) {
                program.try_call(
                    "madvise",
                    SYS_MADVISE,
                    [area.start.into(), area.bytes().into(), MADV_HUGEPAGE.into()],
                );
                continue;
            }
            for run in huge.runs() {
                let mut start = run.start.next_multiple_of(HUGE_PAGE_BYTES);
                while start + HUGE_PAGE_BYTES <= run.end {
                    let mut advise = |bytes: u64, advice: u64| {
                        program.try_call("madvise", SYS_MADVISE, [start.into(), bytes.into(), advice.into()]);
                    };
                    advise(PAGE_BYTES, MADV_POPULATE_WRITE);
                    advise(HUGE_PAGE_BYTES, MADV_COLLAPSE);
                    start += HUGE_PAGE_BYTES;
                    if program.calls().len() >= CALLS_MAX {
                        self.run(pid, &std::mem::take(&mut program))?;
                    }
                }
            }
        }
        if program.is_empty() { Ok(()) } else { self.run(pid, &program).map(drop) }
    }

    /// The kernel places its own pages where it likes when the wanted range is taken: look again.
    fn check_kernel_areas(&self, pid: Pid, space: &AddressSpace) -> Result<()> {
        let wanted: Vec<&Area> = space.areas.iter().filter(|area| area.backing == Backing::Kernel).collect();
        let queries = Areas::of(pid.0).about(|| Subject::Process(pid.0))?;
        let known: godwit_linux::errno::Result<Vec<_>> = wanted.iter().map(|area| queries.at(area.start)).collect();
        let known: Vec<Option<Found>> = match known {
            Ok(known) => known,
            // It cannot be asked for one.
            Err(_) => {
                let maps = godwit_linux::proc::maps::read(pid.0).about(|| Subject::Process(pid.0))?;
                let found = |map: maps::Area| Some(Found { start: map.start, end: map.end, name: map.name });
                maps.into_iter().map(found).collect()
            }
        };
        for area in wanted {
            let is_it = |found: &Found| {
                (found.start, found.end, &found.name[..]) == (area.start, area.end, area.name.as_bytes())
            };
            if !known.iter().flatten().any(is_it) {
                return Err(Refusal::new(
                    Code::DESTINATION_LACKS,
                    Subject::Mapping(pid.0, area.start, area.name.clone()),
                    "this kernel's own pages have another layout",
                ));
            }
        }
        Ok(())
    }

    /// What can only be set when memory is full and every child is forked: advice, locks, seals.
    pub(super) fn finish_space(&mut self, id: ObjectId) -> Result<()> {
        let pid = self.owner_of(id)?;
        let space = self.tree.space(id).cloned().ok_or_else(|| missing(id))?;
        let mut program = Program::new();
        for run in space.guards.runs() {
            program.call("madvise", SYS_MADVISE, [run.start.into(), run.bytes().into(), MADV_GUARD_INSTALL.into()]);
            if program.calls().len() >= CALLS_MAX {
                self.run(pid, &std::mem::take(&mut program))?;
            }
        }
        let areas = || space.areas.iter().filter(|area| area.backing != Backing::Kernel);
        for (flag, advice) in ADVICE {
            // Neighbours that are advised alike take one call.
            let advised: PageSet =
                areas().filter(|area| area.has(flag)).map(|area| Run { start: area.start, end: area.end }).collect();
            for run in advised.runs() {
                program.call("madvise", SYS_MADVISE, [run.start.into(), run.bytes().into(), advice.into()]);
                if program.calls().len() >= CALLS_MAX {
                    self.run(pid, &std::mem::take(&mut program))?;
                }
            }
        }
        for area in areas() {
            if area.has(AreaFlags::LOCKED | AreaFlags::LOCKED_ON_FAULT) {
                let flags = if area.has(AreaFlags::LOCKED_ON_FAULT) { MLOCK_ONFAULT } else { 0 };
                program.call("mlock2", SYS_MLOCK2, [area.start.into(), area.bytes().into(), flags.into()]);
            }
            if area.has(AreaFlags::SEALED) {
                program.call("mseal", SYS_MSEAL, [area.start.into(), area.bytes().into(), 0_u64.into()]);
            }
            if program.calls().len() >= CALLS_MAX {
                self.run(pid, &std::mem::take(&mut program))?;
            }
        }
        if program.is_empty() { Ok(()) } else { self.run(pid, &program).map(drop) }
    }
}
