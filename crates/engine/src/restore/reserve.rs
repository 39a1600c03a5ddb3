//! The root, with threads and large memory of it, made before its tree is stopped: a fork and an empty address space take their time, and new pages
//! cost more than what is put into them.
//!
//! What the source foresees of its root's large memory (see `foresight`) is mapped and made in a child with the root's own number,
//! which later becomes the root. It shares our table of descriptors until then, so that it has every object that is opened
//! meanwhile. What the captured tree does not have after all is given back, and what it has besides is made as ever: nothing
//! depends on the foresight but time. It dies with us like every half-built task.
use super::crew::Member;
use super::finish::own_credentials;
use super::puppet::{Puppet, bury_all};
use super::{ADDRESS_MAX, Restorer, crew, piecework, space};
use crate::failure::{About, Result};
use crate::foresight::Foresight;
use godwit_image::credentials::Credentials;
use godwit_image::memory::{Area, AreaFlags, Backing, PAGE_BYTES};
use godwit_image::page_set::{PageSet, Run};
use godwit_image::task::Task;
use godwit_image::tree::Tree;
use godwit_image::{Code, ObjectId, Pid, Refusal, Subject};
use godwit_linux::arena::{Arena, Slot};
use godwit_linux::memory::{self, ForeignAddress, ForeignMemory};
use godwit_linux::program::Program;
use godwit_linux::stub::Ending;
use godwit_linux::{clone, descriptor, file, limits, scheduling, time_namespace};
use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

const SYS_MMAP: i64 = 9;
const SYS_MPROTECT: i64 = 10;
const SYS_MUNMAP: i64 = 11;
const SYS_MADVISE: i64 = 28;
const SYS_SETSID: i64 = 112;
const SYS_UNSHARE: i64 = 272;
const SYS_SETNS: i64 = 308;
const CLONE_FILES: u64 = 0x400;
const CLONE_NEWTIME: u64 = 0x80;
const SIGCHLD: i32 = 17;
const READ_WRITE: u64 = 3;
const READ_EXECUTE: u64 = 5;
const MAP_SHARED_NOREPLACE: u64 = 0x10_0001;
const MADV_HUGEPAGE: u64 = 14;
const MADV_POPULATE_WRITE: u64 = 23;
const MADV_COLLAPSE: u64 = 25;
const HUGE_PAGE_BYTES: u64 = 2 << 20;
const RLIMIT_NOFILE: u32 = 7;
/// Where our programs lie until the tree tells what is free in it: below everything that is ever chosen for that.
const ARENA_FIRST: u64 = 0x8_0000_0000;
const ARENA_LAST: u64 = 0xf_0000_0000;
const GIB: u64 = 1 << 30;
/// Memory that is made in one program: some milliseconds' worth.
const PROGRAM_BYTES: u64 = 64 << 20;
/// What this host is to have left.
const LEFT_FREE: u64 = 64 << 20;

/// A root to be, with memory.
#[derive(Debug)]
pub struct Reserve {
    pub(super) pid: Pid,
    pub(super) puppet: Option<Puppet>,
    pub(super) arena: Rc<Arena>,
    /// What this process may do, and so it may.
    own_credentials: Credentials,
    /// It leads a session.
    leads_session: bool,
    /// Its threads.
    pub(super) crew: Vec<Member>,
    /// Ascending.
    areas: Vec<Area>,
    /// Which of them are large.
    large: PageSet,
    small_pages: bool,
    made: PageSet,
    /// Pages that came before the tree and lie here.
    staged: PageSet,
}

/// What of a reserve the tree has.
#[derive(Debug)]
pub(super) struct Reserved {
    /// The root's space.
    pub(super) space: ObjectId,
    /// Whole areas that are mapped already.
    pub(super) areas: PageSet,
    /// Those of them that the task itself may fill.
    own: PageSet,
    /// Pages that exist in them and were not filled: to be given back.
    made: PageSet,
    /// Those of them that came before the tree.
    pub(super) staged: PageSet,
}

impl Reserve {
    /// Makes as much of what is foreseen as time and memory allow. `None`: it is not worth it, or cannot be had here.
    ///
    /// # Errors
    /// The child could not be made or died: go on without.
    pub fn make(foresight: &Foresight, patience: Duration) -> Result<Option<Reserve>> {
        match Reserve::try_make(foresight, patience) {
            // One of their numbers is taken, or it has more of them than there may be here: whatever it is shows when they are needed.
            Err(_) if !foresight.threads.is_empty() => {
                let alone = Foresight { threads: Vec::new(), states: Vec::new(), ..foresight.clone() };
                Reserve::try_make(&alone, patience)
            }
            other => other,
        }
    }

    fn try_make(foresight: &Foresight, patience: Duration) -> Result<Option<Reserve>> {
        let begin = Instant::now();
        let subject = || Subject::Process(foresight.root);
        let available = godwit_linux::proc::meminfo::read().about(subject)?.available;
        let Some((pieces, made)) = foresight.pieces.told() else { return Ok(None) };
        let bytes = foresight.present.bytes().saturating_add(made.bytes());
        let mut areas = [&foresight.areas[..], &pieces].concat();
        areas.sort_unstable_by_key(|area| area.start);
        let apart = areas.windows(2).all(|pair| pair[0].end <= pair[1].start);
        if !foresight.is_sound() || !apart || bytes.saturating_add(LEFT_FREE) > available {
            return Ok(None);
        }
        let Some(arena) = foresight_arena(&areas, crew::slots(foresight)) else { return Ok(None) };
        let number = clone::fork_sleeper(&[foresight.root], CLONE_FILES, SIGCHLD).about(subject)?;
        let pid = Pid(number);
        let puppet = Some(Puppet::attach(pid, pid)?);
        let small_pages = foresight.small_pages || !huge_pages_are_allowed();
        let large = foresight.areas.iter().map(|area| Run { start: area.start, end: area.end }).collect();
        let (crew, none) = (Vec::new(), PageSet::new());
        let mut reserve = Reserve {
            pid,
            puppet,
            arena: Rc::new(arena),
            own_credentials: own_credentials()?,
            leads_session: foresight.leads_session,
            crew,
            areas,
            large,
            small_pages,
            made: none.clone(),
            staged: none,
        };
        reserve.map(&foresight.areas)?;
        if !pieces.is_empty() {
            piecework::make(&pieces, &made, |program| reserve.run(program))?;
            reserve.made = made;
        }
        let writable = pieces.iter().filter(|area| area.protection == READ_WRITE as u32).map(run).collect();
        reserve.bear(foresight, &writable)?;
        for run in foresight.present.runs() {
            let mut start = run.start;
            while start < run.end {
                if begin.elapsed() > patience {
                    return Ok(Some(reserve));
                }
                let end = run.end.min((start + PROGRAM_BYTES) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES);
                reserve.populate(Run { start, end })?;
                start = end;
            }
        }
        Ok(Some(reserve))
    }

    /// Where its programs lie. The tree may be built with those, too.
    pub(super) fn arena(&self) -> Rc<Arena> {
        Rc::clone(&self.arena)
    }

    pub(super) fn run(&mut self, program: &Program) -> Result<()> {
        let slot = self.slot();
        match &mut self.puppet {
            Some(puppet) => {
                puppet.start(&self.arena, slot, program, Ending::Trap)?;
                puppet.finish(&self.arena, slot, program).map(drop)
            }
            None => Err(Refusal::new(Code::PROCESS_VANISHED, Subject::Process(self.pid.0), "it has ended")),
        }
    }

    fn slot(&self) -> Slot {
        self.arena.bulk()
    }

    /// Nothing of ours stays in it but the arena; large areas come.
    fn map(&mut self, areas: &[Area]) -> Result<()> {
        let mut program = Program::new();
        space::begin_anew(&mut program, self.pid)?;
        let (base, end) = (self.arena.base(), self.arena.base() + self.arena.length() as u64);
        for (first, last) in [(0x1_0000, base), (end, ADDRESS_MAX)] {
            program.call("munmap", SYS_MUNMAP, [first.into(), (last - first).into()]);
        }
        if self.leads_session {
            program.call("setsid", SYS_SETSID, []);
        }
        for area in areas {
            let flags = space::anonymous_flags(area);
            let arguments = [
                area.start.into(),
                area.bytes().into(),
                area.protection.into(),
                flags.into(),
                (-1_i32).into(),
                0_u64.into(),
            ];
            program.call("mmap", SYS_MMAP, arguments);
            if area.has(AreaFlags::HUGE_PAGE) {
                let arguments = [area.start.into(), area.bytes().into(), MADV_HUGEPAGE.into()];
                program.try_call("madvise", SYS_MADVISE, arguments);
            }
        }
        self.run(&program)
    }

    /// Makes pages: huge ones where the source has all of one, since they take no more memory then.
    fn populate(&mut self, range: Run) -> Result<()> {
        let mut program = Program::new();
        let mut advise = |start: u64, bytes: u64, advice: u64| {
            program.try_call("madvise", SYS_MADVISE, [start.into(), bytes.into(), advice.into()]);
        };
        let forbidden = |start: u64| {
            let area = self.areas.iter().find(|area| area.start <= start && start < area.end);
            area.is_none_or(|area| area.has(AreaFlags::NO_HUGE_PAGE))
        };
        if !self.small_pages && !forbidden(range.start) {
            let mut start = range.start.next_multiple_of(HUGE_PAGE_BYTES);
            while start + HUGE_PAGE_BYTES <= range.end {
                advise(start, PAGE_BYTES, MADV_POPULATE_WRITE);
                advise(start, HUGE_PAGE_BYTES, MADV_COLLAPSE);
                start += HUGE_PAGE_BYTES;
            }
        }
        // What is there already costs next to nothing.
        advise(range.start, range.bytes(), MADV_POPULATE_WRITE);
        self.made.insert(range);
        self.run(&program)
    }

    /// Pages that are there, whether the tree has them or not.
    pub(super) fn note_made(&mut self, pages: Run) {
        self.made.insert(pages);
    }

    /// Which areas of the tree's root are in here as they are to be.
    fn fitting(&self, tree: &Tree) -> Option<Reserved> {
        let is_it = |root: &&Task| root.pid == self.pid && root.exit_signal == SIGCHLD;
        let root = tree.root().filter(is_it).filter(|root| root.session == root.pid || !self.leads_session)?;
        let space = tree.space(root.space?)?;
        if space.parent.is_some() || (space.huge_pages_disabled && !self.small_pages) {
            return None;
        }
        let huge = |area: &Area| !space.huge.intersection(&[run(area)].into_iter().collect()).is_empty();
        let alike = |area: &&Area| {
            let start = self.areas.partition_point(|own| own.start < area.start);
            self.areas.get(start).is_some_and(|own| {
                (own.start, own.end, own.protection, own.flags) == (area.start, area.end, area.protection, area.flags)
                    && area.backing == Backing::Anonymous
                    && area.protection_key == 0
                    // Small areas are made without huge pages.
                    && (space.huge.is_empty() || self.large.contains(area.start) || !huge(area))
            })
        };
        let areas: PageSet = space.areas.iter().filter(alike).map(run).collect();
        let made = self.made.intersection(&areas);
        let own = areas.intersection(&self.large);
        let staged = self.staged.intersection(&own);
        Some(Reserved { space: space.id, areas, own, made, staged })
    }

    /// Takes pages that come before their tree, if they belong into large memory: tells how many bytes are new. Without `bytes` they
    /// are zero.
    pub(super) fn take(&mut self, range: Run, bytes: Option<&[u8]>) -> Result<Option<u64>> {
        static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
        if !self.large.covers(range.start, range.end) || !(range.start | range.end).is_multiple_of(PAGE_BYTES) {
            return Ok(None);
        }
        let before = self.staged.bytes();
        let subject = || Subject::Process(self.pid.0);
        let mut at = range.start;
        while at < range.end {
            let part = match bytes {
                Some(bytes) => bytes,
                None => &ZEROS[..(range.end - at).min(ZEROS.len() as u64) as usize],
            };
            let written = memory::scatter(self.pid.0, &[(at, part)]).about(subject)?;
            if written != part.len() {
                return Err(Refusal::new(
                    Code::RESTORE_FAILED,
                    subject(),
                    "its memory, which was made before, cannot be written",
                ));
            }
            at += part.len() as u64;
        }
        self.staged.insert(range);
        self.made.insert(range);
        Ok(Some(self.staged.bytes() - before))
    }

    /// Gives pages back that came before their tree and are not true any more; returns which of them were here.
    pub(super) fn give_back(&mut self, pages: &PageSet) -> Result<PageSet> {
        let gone = self.staged.intersection(pages);
        for program in space::giving_back(&gone) {
            self.run(&program)?;
        }
        self.staged = self.staged.difference(&gone);
        self.made = self.made.difference(&gone);
        Ok(gone)
    }

    /// Pages that came before the tree.
    pub(super) fn staged(&self) -> &PageSet {
        &self.staged
    }

    pub(super) fn read(&self, address: u64, buffer: &mut [u8]) -> Result<()> {
        let memory = ForeignMemory::open(self.pid.0).about(|| Subject::Process(self.pid.0))?;
        memory.read(ForeignAddress(address), buffer).about(|| Subject::Process(self.pid.0))
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        // Its number must be free again for whoever asks next.
        let crew = self.crew.drain(..).map(|member| member.puppet);
        bury_all(crew.chain(self.puppet.take()));
    }
}

fn run(area: &Area) -> Run {
    Run { start: area.start, end: area.end }
}

/// An arena that is nowhere where the areas are.
fn foresight_arena(areas: &[Area], slots: usize) -> Option<Arena> {
    let free = |start: u64| areas.iter().all(|area| area.end <= start || start + GIB <= area.start);
    let mut places = (ARENA_FIRST..ARENA_LAST).step_by(GIB as usize).filter(|start| free(*start));
    places.find_map(|start| Arena::new(slots, start).ok())
}

/// Whether this host's administrator wants no huge pages at all.
fn huge_pages_are_allowed() -> bool {
    let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    setting.is_ok_and(|setting| !setting.contains("[never]"))
}

impl Restorer {
    /// Keeps a reserve for the root, if it fits.
    pub(super) fn take_reserve(&mut self, reserve: Reserve) -> Result<()> {
        self.reserved = reserve.fitting(&self.tree);
        let with_memory =
            self.reserved.as_ref().filter(|reserved| !reserved.made.intersection(&reserved.own).is_empty());
        self.promised = with_memory.map(|reserved| (reserved.space, reserved.own.clone()));
        let stays = self.reserved.as_ref().map(|reserved| reserved.staged.clone()).unwrap_or_default();
        self.staging.rescue(&reserve, &stays)?;
        self.reserve = self.reserved.is_some().then_some(reserve);
        Ok(())
    }

    /// Areas of a space into which the task itself may receive pages: they are there already, but for a misfortune.
    pub fn prepared(&self) -> Option<&(ObjectId, PageSet)> {
        self.promised.as_ref()
    }

    /// Lets the reserve go, which has the root's number.
    pub(super) fn forget_reserve(&mut self) -> Result<()> {
        self.reserved = None;
        match self.reserve.take() {
            Some(reserve) => self.staging.rescue(&reserve, &PageSet::new()),
            None => Ok(()),
        }
    }

    /// Makes the reserve the root, if there is one that it can be.
    pub(super) fn adopt_reserve(&mut self, task: &Task) -> Result<bool> {
        // Children from before its session would be copies of all of it.
        let is_alone = self.lineage.born(|birth| birth == crate::lineage::Birth::EarlyFork).next().is_none();
        if !is_alone {
            self.forget_reserve()?;
        }
        let Some(reserve) = self.reserve.take() else { return Ok(false) };
        let has_pages = !reserve.staged.is_empty();
        match self.adopt(reserve, task) {
            Ok(()) => Ok(true),
            // With it go pages that are nowhere else.
            Err(refusal) if has_pages => Err(refusal),
            Err(_) => self.forget_reserve().map(|()| false),
        }
    }

    fn adopt(&mut self, mut reserve: Reserve, task: &Task) -> Result<()> {
        let pid = task.pid;
        let subject = || Subject::Process(pid.0);
        let (soft, hard) = limits::get(std::process::id() as i32, RLIMIT_NOFILE).about(subject)?;
        limits::set(pid.0, RLIMIT_NOFILE, soft, hard).about(subject)?;
        if let ([_], [_]) = (self.tree.tasks.as_slice(), task.threads.as_slice()) {
            // Until it gets its own mask; nobody else has anything to do for it. It only saves time.
            let _ = scheduling::bring_here(pid.0);
        }
        let mut program = Program::new();
        // The clocks that our children have now, it has not: it was born before.
        let clocks = "/proc/thread-self/ns/time_for_children";
        let mut namespace = None;
        let differs = || std::fs::read_link(clocks).ok() != std::fs::read_link(format!("/proc/{pid}/ns/time")).ok();
        if time_namespace::children_have_other() && differs() {
            let opened = file::open(clocks.as_bytes(), 0).about(subject)?;
            program.call("setns", SYS_SETNS, [opened.as_raw_fd().into(), CLONE_NEWTIME.into()]);
            namespace = Some(opened);
        }
        let wanted = if namespace.is_none() { self.crew_of(task)? } else { BTreeMap::new() };
        // Before any of its areas goes.
        let staying = self.reserved.as_ref().map(|reserved| reserved.areas.clone()).unwrap_or_default();
        let stays = |member: &Member| {
            let thread = wanted.get(&member.puppet.tid());
            thread.is_some_and(|thread| crew::can_become(member, thread, &staying))
        };
        reserve.dismiss(stays)?;
        // As a fork would have it: a copy of our table as it is now. Threads of one table can only keep it together.
        let all_stay = !reserve.crew.is_empty() && descriptor::leave_shared_table().about(subject)?;
        if !all_stay {
            reserve.dismiss(|_| false)?;
            program.call("unshare", SYS_UNSHARE, [CLONE_FILES.into()]);
        }
        if !Rc::ptr_eq(&self.arena, &reserve.arena) {
            let (base, length) = (self.arena.base(), self.arena.length());
            let arena = self.arena.descriptor().as_raw_fd();
            let (flags, zero) = (MAP_SHARED_NOREPLACE, 0_u64);
            let arguments = [base.into(), length.into(), READ_WRITE.into(), flags.into(), arena.into(), zero.into()];
            program.call("mmap", SYS_MMAP, arguments);
            let code = godwit_linux::arena::CODE_BYTES;
            program.call("mprotect", SYS_MPROTECT, [base.into(), code.into(), READ_EXECUTE.into()]);
        }
        reserve.run(&program)?;
        drop(namespace);
        self.take_crew(&mut reserve)?;
        self.own_credentials = Some(std::mem::take(&mut reserve.own_credentials));
        if let Some(puppet) = reserve.puppet.take() {
            self.puppets.insert(pid, puppet);
        }
        Ok(())
    }

    /// Areas of a space that are mapped already.
    pub(super) fn reserved_areas(&self, space: ObjectId) -> Option<&PageSet> {
        self.reserved.as_ref().filter(|reserved| reserved.space == space).map(|reserved| &reserved.areas)
    }

    /// Gives back pages that were made for nothing: before anybody is forked from the space, and when all bytes are there.
    pub(super) fn return_unused(&mut self, space: ObjectId) -> Result<()> {
        let Some(reserved) = self.reserved.as_mut().filter(|reserved| reserved.space == space) else { return Ok(()) };
        let made = std::mem::take(&mut reserved.made);
        let filled = self.filled.get(&space).cloned().unwrap_or_default();
        let pid = self.owner_of(space)?;
        for program in space::giving_back(&made.difference(&filled)) {
            self.run(pid, &program)?;
        }
        Ok(())
    }
}
