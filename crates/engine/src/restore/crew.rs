//! Threads of the root that are made with it, before the tree is stopped: the kernel takes longer to make one than to do all else
//! that a thread needs.
//!
//! They wait, attached and stopped, with nothing but their numbers. Which of them the captured tree does not have end when their root
//! becomes the tree's, and those that it has besides are born as ever.
use super::Restorer;
use super::newborn::{self, Maker, Unborn};
use super::puppet::Puppet;
use super::reserve::Reserve;
use crate::failure::{About, Result};
use crate::foresight::Foresight;
use crate::resource::affiliation;
use godwit_image::task::{Scheduling, Task, Thread};
use godwit_image::{Pid, Subject};
use godwit_linux::arena::Slot;
use godwit_linux::program::Program;
use godwit_linux::scheduling;
use godwit_linux::stub::Ending;
use std::collections::BTreeSet;

const SYS_EXIT: i64 = 60;
/// Slots besides those of the root and its threads: for whoever else is in the tree, or comes meanwhile.
const SLOTS_SPARE: usize = 6;

/// How many slots an arena is to have for a root and a tree with these threads.
pub(super) fn slots(foresight: &Foresight) -> usize {
    let tasks = foresight.threads.len() + 1;
    tasks + tasks / 8 + SLOTS_SPARE
}

/// Threads that have become the tree's.
#[derive(Debug)]
pub(super) struct Crew {
    pub(super) threads: BTreeSet<Pid>,
    /// How they are scheduled, and where they may run.
    scheduling: Scheduling,
    io_priority: i32,
    affinity: Vec<u8>,
}

impl Crew {
    /// As who has made them has it: so it is handed on at birth.
    fn of(maker: Pid, threads: BTreeSet<Pid>) -> Result<Crew> {
        let subject = || Subject::Process(maker.0);
        let now = scheduling::get(maker.0).about(subject)?;
        let scheduling = Scheduling {
            policy: now.policy,
            flags: now.flags,
            nice: now.nice,
            priority: now.priority,
            runtime: now.runtime,
            deadline: now.deadline,
            period: now.period,
        };
        let io_priority = scheduling::io_priority(maker.0).about(subject)?;
        Ok(Crew { threads, scheduling, io_priority, affinity: scheduling::affinity(maker.0).about(subject)? })
    }

    /// Whether a thread of it is scheduled as it is to be.
    pub(super) fn is_scheduled(&self, thread: &Thread, processors: &[u8]) -> bool {
        let affinity = if thread.affinity.is_empty() { processors } else { &thread.affinity };
        self.threads.contains(&thread.tid)
            && (self.scheduling, self.io_priority) == (thread.scheduling, thread.io_priority)
            && self.affinity == affinity
    }
}

impl Restorer {
    /// Which threads of the root may be some that were made like their leader, and with nothing else: none where one has tables of its
    /// own, or the leader has ended.
    pub(super) fn crew_of(&self, task: &Task) -> Result<BTreeSet<Pid>> {
        let Some(leader) = task.threads.first() else { return Ok(BTreeSet::new()) };
        let alike =
            |thread: &Thread| !thread.dead && thread.files == leader.files && thread.filesystem == leader.filesystem;
        for envelope in task.objects.iter().filter_map(|id| self.tree.object(*id)) {
            if !affiliation::is_inherited(envelope)? {
                return Ok(BTreeSet::new());
            }
        }
        let all = task.threads.iter().all(alike);
        Ok(task.threads.iter().skip(1).filter(|_| all).map(|thread| thread.tid).collect())
    }

    /// Takes the threads of a reserve over.
    pub(super) fn take_crew(&mut self, reserve: &mut Reserve) -> Result<()> {
        let crew: Vec<(Puppet, Slot)> = reserve.crew.drain(..).collect();
        let threads = crew.iter().map(|(puppet, _)| puppet.tid()).collect();
        self.puppets.extend(crew.into_iter().map(|(puppet, _)| (puppet.tid(), puppet)));
        self.crew = Some(Crew::of(reserve.pid, threads)?);
        Ok(())
    }
}

impl Reserve {
    /// Makes its threads. The first of `numbers` whose number is taken is the end of it.
    pub(super) fn bear(&mut self, numbers: &[i32]) -> Result<()> {
        let numbers: Vec<Pid> = numbers.iter().map(|number| Pid(*number)).collect();
        for threads in numbers.chunks(newborn::THREADS_PER_PROGRAM) {
            let first = self.crew.len() + 1;
            let slots = (first..).map_while(|index| self.arena.slot(index));
            let unborn: Vec<Unborn<'_>> =
                threads.iter().zip(slots).map(|(tid, slot)| Unborn { tid: *tid, slot, program: None }).collect();
            let (Some(puppet), Some(slot)) = (&mut self.puppet, self.arena.slot(0)) else { return Ok(()) };
            let mut born = Vec::with_capacity(threads.len());
            let made = newborn::make(&self.arena, Maker { puppet, slot }, &unborn, &mut born);
            let slots = unborn.iter().map(|unborn| unborn.slot);
            self.crew.extend(born.into_iter().zip(slots));
            made?;
            for Unborn { tid, slot, .. } in unborn.iter().skip(self.crew.len() + 1 - first) {
                newborn::await_birth(&self.arena, self.pid, *tid, *slot)?;
                self.crew.push((Puppet::begin(self.pid, *tid)?, *slot));
            }
            for (puppet, _) in &mut self.crew[first - 1..] {
                puppet.arrive_from_stub()?;
                puppet.remember_registers()?;
            }
        }
        Ok(())
    }

    /// Ends those of its threads that are not to stay.
    pub(super) fn dismiss(&mut self, stays: impl Fn(Pid) -> bool) -> Result<()> {
        let mut program = Program::new();
        program.call("exit", SYS_EXIT, [0_u64.into()]);
        for (puppet, slot) in self.crew.iter().filter(|(puppet, _)| !stays(puppet.tid())) {
            puppet.start(&self.arena, *slot, &program, Ending::Exit)?;
        }
        for (puppet, _) in self.crew.iter_mut().filter(|(puppet, _)| !stays(puppet.tid())) {
            puppet.await_end(0)?;
            puppet.bury();
        }
        self.crew.retain(|(puppet, _)| !puppet.is_dead());
        Ok(())
    }
}
