//! Threads of the root that are made with it, before the tree is stopped: the kernel takes longer to make one than to do all else
//! that a thread needs.
//!
//! They wait, attached and stopped. Where the source could read what each has set for itself (`foresight`), it has done so at its
//! birth: who is to do just the same when the tree has come has nothing left to do, and what differs is done again. Which of them the
//! captured tree does not have end when their root becomes the tree's, and those that it has besides are born as ever.
//!
//! Restartable sequences are written to whenever their thread runs. So they are registered at birth only in small areas, which are
//! there by then and into which nothing of the tree has come yet; who is to have others, or whose area does not stay, ends before that
//! area goes, and is born as ever.
use super::Restorer;
use super::newborn::{self, Maker, Unborn};
use super::puppet::Puppet;
use super::reserve::Reserve;
use super::thread::plain_program;
use crate::failure::{About, Result};
use crate::foresight::{Foreseen, Foresight};
use crate::resource::affiliation;
use crate::usual_schedule::{UsualSchedule, told};
use godwit_image::memory::PAGE_BYTES;
use godwit_image::page_set::{PageSet, Run};
use godwit_image::task::{Scheduling, Task, Thread};
use godwit_image::{Pid, Subject};
use godwit_linux::arena::Slot;
use godwit_linux::program::Program;
use godwit_linux::scheduling;
use godwit_linux::stub::Ending;
use std::collections::{BTreeMap, BTreeSet};

const SYS_EXIT: i64 = 60;
const SYS_SET_TID_ADDRESS: i64 = 218;
const SYS_SET_ROBUST_LIST: i64 = 273;
const SYS_RSEQ: i64 = 334;
const RSEQ_FLAG_UNREGISTER: u64 = 1;
const ROBUST_LIST_BYTES: u64 = 24;
/// Slots besides those of the root and its threads: for whoever else is in the tree, or comes meanwhile.
const SLOTS_SPARE: usize = 6;

/// How many slots an arena is to have for a root and a tree with these threads.
pub(super) fn slots(foresight: &Foresight) -> usize {
    let tasks = foresight.threads.len() + 1;
    tasks + tasks / 8 + SLOTS_SPARE
}

/// What a thread has done at its birth.
#[derive(Debug)]
pub(super) struct Birth {
    program: Program,
    /// Address, length, signature and flags of its restartable sequences; address 0: none.
    sequence: (u64, u32, u32, u32),
}

impl Birth {
    /// Of a thread that is foreseen so, and its blocked signals; `None` where its restartable sequences would be in memory outside of
    /// `areas`. What it does elsewhere only leads there.
    fn of(tid: Pid, foreseen: &Foreseen, areas: &PageSet) -> Option<Birth> {
        let thread = foreseen.thread(tid);
        let birth = Birth { program: plain_program(&thread), sequence: thread.restartable_sequence };
        birth.lies_in(areas).then_some(birth)
    }

    fn pages(&self) -> Option<Run> {
        let (address, length, ..) = self.sequence;
        let end = address.saturating_add(length.into()).checked_next_multiple_of(PAGE_BYTES)?;
        (address != 0).then_some(Run { start: address / PAGE_BYTES * PAGE_BYTES, end })
    }

    fn lies_in(&self, areas: &PageSet) -> bool {
        self.sequence.0 == 0 || self.pages().is_some_and(|pages| areas.covers(pages.start, pages.end))
    }
}

/// A thread that is to be.
#[derive(Debug)]
struct Expected {
    tid: Pid,
    slot: Slot,
    /// Its blocked signals in the end.
    mask: Option<u64>,
    birth: Option<Birth>,
}

impl Expected {
    fn unborn(&self) -> Unborn<'_> {
        Unborn { tid: self.tid, slot: self.slot, program: self.birth.as_ref().map(|birth| &birth.program) }
    }
}

/// What a thread does that is not to stay: before it ends it forgets what the kernel would write to at its end.
fn ending(birth: Option<&Birth>) -> Program {
    let mut program = Program::new();
    if let Some(Birth { sequence: (address, length, signature, _), .. }) = birth {
        program.call("set_tid_address", SYS_SET_TID_ADDRESS, [0_u64.into()]);
        program.call("set_robust_list", SYS_SET_ROBUST_LIST, [0_u64.into(), ROBUST_LIST_BYTES.into()]);
        if *address != 0 {
            let flags = RSEQ_FLAG_UNREGISTER;
            program.call("rseq", SYS_RSEQ, [(*address).into(), (*length).into(), flags.into(), (*signature).into()]);
        }
    }
    program.call("exit", SYS_EXIT, [0_u64.into()]);
    program
}

/// A thread of a reserve.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) puppet: Puppet,
    /// Where its programs lie.
    slot: Slot,
    birth: Option<Birth>,
}

/// Threads that have become the tree's.
#[derive(Debug)]
pub(super) struct Crew {
    pub(super) threads: BTreeSet<Pid>,
    births: BTreeMap<Pid, Birth>,
    /// How they are scheduled, and where they may run.
    scheduling: Scheduling,
    io_priority: i32,
    affinity: Vec<u8>,
}

impl Crew {
    /// As who has made them has it: so it is handed on at birth.
    fn of(maker: Pid, threads: BTreeSet<Pid>, births: BTreeMap<Pid, Birth>, usual: &UsualSchedule) -> Result<Crew> {
        let subject = || Subject::Process(maker.0);
        let now = scheduling::get(maker.0).about(subject)?;
        let scheduling = usual.without_turn(told(&now));
        let io_priority = scheduling::io_priority(maker.0).about(subject)?;
        let affinity = scheduling::affinity(maker.0).about(subject)?;
        Ok(Crew { threads, births, scheduling, io_priority, affinity })
    }

    /// Whether a thread has done this program at its birth.
    pub(super) fn has_done(&self, thread: Pid, program: &Program) -> bool {
        self.births.get(&thread).is_some_and(|birth| birth.program == *program)
    }

    /// Whether it has the restartable sequences that it is to have.
    pub(super) fn is_registered(&self, thread: Pid) -> bool {
        self.births.get(&thread).is_some_and(|birth| birth.sequence.0 != 0)
    }

    /// Whether a thread of it is scheduled as it is to be.
    pub(super) fn is_scheduled(&self, thread: &Thread, usual: &UsualSchedule) -> bool {
        self.threads.contains(&thread.tid)
            && (self.scheduling, self.io_priority) == (thread.scheduling, thread.io_priority)
            && self.affinity == usual.affinity(thread)
    }
}

impl Restorer {
    /// Which threads of the root may be some that were made like their leader, and with nothing else: none where one has tables of its
    /// own, or the leader has ended.
    pub(super) fn crew_of<'t>(&self, task: &'t Task) -> Result<BTreeMap<Pid, &'t Thread>> {
        let Some(leader) = task.threads.first() else { return Ok(BTreeMap::new()) };
        let alike =
            |thread: &Thread| !thread.dead && thread.files == leader.files && thread.filesystem == leader.filesystem;
        for envelope in task.objects.iter().filter_map(|id| self.tree.object(*id)) {
            if !affiliation::is_inherited(envelope)? {
                return Ok(BTreeMap::new());
            }
        }
        let all = task.threads.iter().all(alike);
        Ok(task.threads.iter().skip(1).filter(|_| all).map(|thread| (thread.tid, thread)).collect())
    }

    /// Takes the threads of a reserve over.
    pub(super) fn take_crew(&mut self, reserve: &mut Reserve) -> Result<()> {
        let (mut threads, mut births) = (BTreeSet::new(), BTreeMap::new());
        for Member { puppet, birth, .. } in reserve.crew.drain(..) {
            let tid = puppet.tid();
            threads.insert(tid);
            births.extend(birth.map(|birth| (tid, birth)));
            self.puppets.insert(tid, puppet);
        }
        self.crew = Some(Crew::of(reserve.pid, threads, births, &self.schedule)?);
        Ok(())
    }
}

/// Whether a thread can go on as this one: what it has registered is what it is to have, in areas that stay.
pub(super) fn can_become(member: &Member, thread: &Thread, staying: &PageSet) -> bool {
    member.birth.as_ref().is_none_or(|birth| {
        birth.sequence.0 == 0 || (birth.sequence == thread.restartable_sequence && birth.lies_in(staying))
    })
}

impl Reserve {
    /// Makes the threads that are foreseen. The first one whose number is taken is the end of it. `areas`: memory that they may
    /// write to.
    pub(super) fn bear(&mut self, foresight: &Foresight, areas: &PageSet) -> Result<()> {
        let slots = (1..).map_while(|index| self.arena.slot(index)).take(foresight.threads.len());
        let mut expected: Vec<Expected> = Vec::with_capacity(foresight.threads.len());
        for (index, (number, slot)) in foresight.threads.iter().zip(slots).enumerate() {
            let (tid, foreseen) = (Pid(*number), foresight.states.get(index));
            let birth = foreseen.and_then(|foreseen| Birth::of(tid, foreseen, areas));
            let birth = birth.filter(|birth| slot.holds(&birth.program));
            let mask = foreseen.and_then(Foreseen::mask).filter(|_| birth.is_some());
            expected.push(Expected { tid, slot, mask, birth });
        }
        while !expected.is_empty() {
            let later = expected.split_off(expected.len().min(newborn::THREADS_PER_PROGRAM));
            self.bear_some(std::mem::replace(&mut expected, later))?;
        }
        Ok(())
    }

    fn bear_some(&mut self, expected: Vec<Expected>) -> Result<()> {
        let first = self.crew.len();
        let unborn: Vec<Unborn<'_>> = expected.iter().map(Expected::unborn).collect();
        let (Some(puppet), Some(slot)) = (&mut self.puppet, self.arena.slot(0)) else { return Ok(()) };
        let mut born = Vec::with_capacity(unborn.len());
        let made = newborn::make(&self.arena, Maker { puppet, slot }, &unborn, &mut born);
        let (mut born, mut masks) = (born.into_iter(), Vec::with_capacity(expected.len()));
        for Expected { tid, slot, mask, birth } in expected {
            let puppet = match born.next() {
                Some(puppet) => puppet,
                None if made.is_err() => break,
                None => {
                    newborn::await_birth(&self.arena, self.pid, tid, slot)?;
                    Puppet::begin(self.pid, tid)?
                }
            };
            if let Some(pages) = birth.as_ref().and_then(Birth::pages) {
                self.note_made(pages);
            }
            self.crew.push(Member { puppet, slot, birth });
            masks.push(mask);
        }
        made?;
        for (Member { puppet, slot, birth }, mask) in self.crew[first..].iter_mut().zip(masks) {
            puppet.arrive_from_stub()?;
            puppet.remember_registers()?;
            if let Some(birth) = birth {
                puppet.answers(&self.arena, *slot, &birth.program)?;
            }
            if let Some(mask) = mask {
                puppet.set_mask(mask).about(|| puppet.subject())?;
            }
        }
        Ok(())
    }

    /// Ends those of its threads that are not to stay.
    pub(super) fn dismiss(&mut self, stays: impl Fn(&Member) -> bool) -> Result<()> {
        let goes = |member: &Member| !stays(member);
        for Member { puppet, slot, birth } in self.crew.iter().filter(|member| goes(member)) {
            puppet.start(&self.arena, *slot, &ending(birth.as_ref()), Ending::Exit)?;
        }
        for Member { puppet, .. } in self.crew.iter_mut().filter(|member| goes(member)) {
            puppet.await_end(0)?;
            puppet.bury();
        }
        self.crew.retain(|member| !member.puppet.is_dead());
        Ok(())
    }
}
