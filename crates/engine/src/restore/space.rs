//! Address spaces: everything of the restorer goes, the image's layout and areas come.
use super::fill::Filler;
use super::{ADDRESS_MAX, Restorer, missing};
use crate::failure::{About, Result};
use godwit_image::memory::{AddressSpace, Area, AreaFlags, Backing};
use godwit_image::{Code, ObjectId, Pid, Refusal, Subject};
use godwit_linux::program::{Argument, Program};
use godwit_linux::ptrace;

const SYS_MMAP: i64 = 9;
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

/// MAP_* bits.
mod map {
    pub(super) const SHARED: u64 = 1;
    pub(super) const PRIVATE: u64 = 2;
    pub(super) const ANONYMOUS: u64 = 0x20;
    pub(super) const GROWSDOWN: u64 = 0x100;
    pub(super) const NORESERVE: u64 = 0x4000;
    pub(super) const FIXED_NOREPLACE: u64 = 0x10_0000;
}

/// Entries after which a program is run and a new one begun: they and their data fit the large slot.
const CALLS_MAX: usize = 4000;

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

impl Restorer {
    /// The first living task of a space.
    fn owner_of(&self, space: ObjectId) -> Result<Pid> {
        self.tree.tasks.iter().find(|task| task.space == Some(space)).map(|task| task.pid).ok_or_else(|| missing(space))
    }

    pub(super) fn unregister_restartable_sequence(&mut self, pid: Pid) -> Result<()> {
        let now = ptrace::restartable_sequence(pid.0).about(|| Subject::Process(pid.0))?;
        let mut program = Program::new();
        if now.address != 0 {
            program.call(
                "rseq",
                SYS_RSEQ,
                [now.address.into(), now.length.into(), RSEQ_FLAG_UNREGISTER.into(), now.signature.into()],
            );
        }
        program.call("set_robust_list", SYS_SET_ROBUST_LIST, [0_u64.into(), 24_u64.into()]);
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
        self.clear(pid, &space)?;
        self.map(pid, &space)?;
        self.built.insert(id);
        self.fillers.insert(id, Filler::open(pid)?);
        Ok(())
    }

    /// Unmaps all but the arena and sets the layout.
    fn clear(&mut self, pid: Pid, space: &AddressSpace) -> Result<()> {
        let (start, end) = (self.arena.base(), self.arena.base() + self.arena.length() as u64);
        let mut program = Program::new();
        program.call("munmap", SYS_MUNMAP, [0x1_0000_u64.into(), (start - 0x1_0000).into()]);
        program.call("munmap", SYS_MUNMAP, [end.into(), (ADDRESS_MAX - end).into()]);
        let executable = self.inherited_number(space.executable).ok_or_else(|| missing(space.executable))?;
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
        self.run(pid, &program).map(drop)
    }

    /// Maps every area.
    fn map(&mut self, pid: Pid, space: &AddressSpace) -> Result<()> {
        let mut program = Program::new();
        let mut kernel_start = None;
        for area in &space.areas {
            if area.backing == Backing::Kernel {
                kernel_start.get_or_insert(area.start);
                continue;
            }
            self.map_area(&mut program, area)?;
            if program.calls().len() >= CALLS_MAX {
                self.run(pid, &std::mem::take(&mut program))?;
            }
        }
        if let Some(start) = kernel_start {
            program.call("arch_prctl(ARCH_MAP_VDSO_64)", SYS_ARCH_PRCTL, [ARCH_MAP_VDSO_64.into(), start.into()]);
        }
        self.run(pid, &program).map(drop)?;
        self.check_kernel_areas(pid, space)
    }

    fn map_area(&self, program: &mut Program, area: &Area) -> Result<()> {
        let mut flags = map::FIXED_NOREPLACE;
        flags |= if area.has(AreaFlags::SHARED) { map::SHARED } else { map::PRIVATE };
        if area.has(AreaFlags::GROWS_DOWN) {
            flags |= map::GROWSDOWN;
        }
        if area.has(AreaFlags::NO_RESERVE) {
            flags |= map::NORESERVE;
        }
        let (descriptor, offset) = match self.backing_number(&area.backing)? {
            Some((number, offset)) => (number, offset),
            None => {
                flags |= map::ANONYMOUS;
                (-1, 0)
            }
        };
        program.call(
            "mmap",
            SYS_MMAP,
            [
                area.start.into(),
                area.bytes().into(),
                area.protection.into(),
                flags.into(),
                descriptor.into(),
                offset.into(),
            ],
        );
        Ok(())
    }

    /// The kernel places its own pages where it likes when the wanted range is taken: look again.
    fn check_kernel_areas(&self, pid: Pid, space: &AddressSpace) -> Result<()> {
        let wanted = space.areas.iter().filter(|area| area.backing == Backing::Kernel);
        let maps = godwit_linux::proc::maps::read(pid.0)
            .map_err(|error| crate::failure::malformed(Subject::Process(pid.0), error))?;
        for area in wanted {
            let found = maps
                .iter()
                .any(|map| map.start == area.start && map.end == area.end && map.name == area.name.as_bytes());
            if !found {
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
        for area in space.areas.iter().filter(|area| area.backing != Backing::Kernel) {
            for (flag, advice) in ADVICE {
                if area.has(flag) {
                    program.call("madvise", SYS_MADVISE, [area.start.into(), area.bytes().into(), advice.into()]);
                }
            }
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
        self.run(pid, &program).map(drop)
    }
}
