//! Births of threads: made by their leader with the numbers that they had, attached while the next ones are made.
//!
//! A thread that needs no more privileges than it is born with does what makes it itself at once, before anybody has attached
//! to it. That spares it a stop and a start, which cost more than all of its calls.
use super::Restorer;
use super::newborn::{self, Maker, Unborn};
use super::puppet::Puppet;
use super::skeleton::patiently;
use super::stop::CONTINUED;
use crate::failure::Result;
use crate::resource::{self, Kind, Stage};
use godwit_image::credentials::Credentials;
use godwit_image::task::{State, Task, Thread};
use godwit_image::{Code, Envelope, Pid, Refusal, Subject};
use godwit_linux::program::Program;
use std::collections::BTreeMap;

const SYS_UNSHARE: i64 = 272;
const CLONE_FS: u64 = 0x200;
const CLONE_FILES: u64 = 0x400;
/// State of a task that is restored without a word about its threads.
const OF_PROCESSES: [&dyn Kind; 4] = [
    &resource::affiliation::Affiliation,
    &resource::membarrier::Membarrier,
    &resource::future_locks::FutureLocks,
    &resource::resumption_code::ResumptionCode,
];

fn mixed(task: &Task, thread: &Thread, what: &str) -> Refusal {
    let cause = format!("it shares its {what} with some tasks and not with all of those that share something with it");
    Refusal::new(Code::UNSUPPORTED, Subject::Thread(task.pid.0, thread.tid.0), cause)
}

/// What threads do at their births, by number; the others only wait.
pub(super) type Programs = BTreeMap<Pid, Program>;

impl Restorer {
    /// Whether nobody asks for the threads of a task before its memory and its descriptors are what they were: then they are born
    /// last, by [`Restorer::bear_threads`].
    pub(super) fn threads_can_wait(&self, task: &Task) -> bool {
        let Some(leader) = task.threads.first() else { return false };
        let alike =
            |thread: &Thread| !thread.dead && thread.files == leader.files && thread.filesystem == leader.filesystem;
        let is_apart = |envelope: &Envelope| {
            let kind = resource::kind_of(envelope);
            kind.is_ok_and(|kind| kind.stage() != Stage::Late && kind.id() != resource::owner::Owner.id())
        };
        let is_of_process = |envelope: &Envelope| OF_PROCESSES.iter().any(|kind| kind.id() == envelope.kind);
        matches!(task.state, State::Running)
            && task.untold != CONTINUED
            && task.threads.iter().all(alike)
            && self.tree.objects.iter().all(is_apart)
            && task.objects.iter().all(|id| self.tree.object(*id).is_some_and(is_of_process))
    }

    /// Creates the threads of a task that are not there yet, and gives those that can have them their own programs. Returns who
    /// has done what it was given.
    pub(super) fn bear_threads(&mut self, task: &Task, own: &Credentials) -> Result<Programs> {
        let (mut programs, mut of_crew) = (Programs::new(), Vec::new());
        let crew = self.crew.as_ref().filter(|_| self.threads_can_wait(task));
        for thread in task.threads.iter().skip(1) {
            let is_of_crew = crew.is_some_and(|crew| crew.threads.contains(&thread.tid));
            let is_plain = !thread.dead
                && (is_of_crew || !self.puppets.contains_key(&thread.tid))
                && super::credentials::are_those_of_birth(&thread.credentials, own)
                && self.queued(task, thread).is_empty();
            if is_plain {
                let whole = self.program_of(task, thread, own, true);
                if crew.is_some_and(|crew| crew.has_done(thread.tid, &whole)) {
                    programs.insert(thread.tid, whole);
                    continue;
                }
                let program = self.thread_program(task, thread, own);
                if self.slot(thread.tid)?.holds(&program) {
                    if is_of_crew {
                        of_crew.push((thread.tid, program));
                    } else {
                        programs.insert(thread.tid, program);
                    }
                }
            }
        }
        self.run_beside(&of_crew)?;
        self.create_threads_with(task, &programs)?;
        programs.extend(of_crew);
        Ok(programs)
    }

    /// Creates the threads of a task beside its leader, once; each waits in the stub and is attached. A thread is made by
    /// one that has its file table and working directory: the leader, or the first one whose own they are.
    pub(super) fn create_threads(&mut self, task: &Task) -> Result<()> {
        self.create_threads_with(task, &Programs::new())
    }

    fn create_threads_with(&mut self, task: &Task, programs: &Programs) -> Result<()> {
        let Some(leader) = task.threads.first() else { return Ok(()) };
        let is_there = |thread: &Thread| self.puppets.contains_key(&thread.tid);
        if task.threads.iter().skip(1).all(is_there) {
            return Ok(());
        }
        // A dead leader has no tables any more: what it makes is made as its first living thread.
        let model = task.threads.iter().find(|thread| !thread.dead).unwrap_or(leader);
        let mut makers: Vec<(&Thread, Pid)> = vec![(model, leader.tid)];
        let mut made: Vec<(Pid, Vec<Pid>)> = vec![(leader.tid, Vec::new())];
        let mut separate: Vec<(Pid, u64)> = Vec::new();
        // Those that are there already are like their leader (see `crew`).
        for thread in task.threads[1..].iter().filter(|thread| !is_there(thread)) {
            let alike = |other: &Thread| other.files == thread.files && other.filesystem == thread.filesystem;
            if let Some((_, maker)) = makers.iter().find(|(other, _)| alike(other)) {
                if let Some((_, list)) = made.iter_mut().find(|(other, _)| other == maker) {
                    list.push(thread.tid);
                }
                continue;
            }
            let flags = self.own_tables(task, thread, model)?;
            if let Some((_, list)) = made.first_mut() {
                list.push(thread.tid);
            }
            separate.push((thread.tid, flags));
            makers.push((thread, thread.tid));
            made.push((thread.tid, Vec::new()));
        }
        for (maker, threads) in made {
            if let Some((_, flags)) = separate.iter().find(|(tid, _)| *tid == maker) {
                let mut program = Program::new();
                program.call("unshare", SYS_UNSHARE, [(*flags).into()]);
                self.run(maker, &program)?;
            }
            for chunk in threads.chunks(newborn::THREADS_PER_PROGRAM) {
                self.make_threads(task.pid, maker, chunk, programs)?;
            }
        }
        Ok(())
    }

    /// What a thread has to itself beside the model, as CLONE_* flags. What it shares with anybody but its own kind cannot
    /// be made.
    fn own_tables(&self, task: &Task, thread: &Thread, model: &Thread) -> Result<u64> {
        let others = |shares: &dyn Fn(&Thread) -> bool| {
            let all = self.tree.tasks.iter().flat_map(|task| &task.threads);
            let same = |t: &Thread| t.files == thread.files && t.filesystem == thread.filesystem;
            all.filter(|other| !same(other)).any(shares)
        };
        let mut flags = 0;
        if thread.files != model.files {
            flags |= CLONE_FILES;
            if others(&|other| other.files == thread.files) {
                return Err(mixed(task, thread, "file table"));
            }
        }
        if thread.filesystem != model.filesystem {
            flags |= CLONE_FS;
            if others(&|other| other.filesystem == thread.filesystem) {
                return Err(mixed(task, thread, "working directory"));
            }
        }
        Ok(flags)
    }

    fn make_threads(&mut self, pid: Pid, maker: Pid, threads: &[Pid], programs: &Programs) -> Result<()> {
        let mut missing = threads.to_vec();
        patiently(|| {
            let made = self.try_make_threads(maker, &missing, programs);
            if made.is_err() {
                // The program ended at the first whose number was in use.
                let there = crate::procfs::threads(pid.0).unwrap_or_default();
                missing.retain(|tid| !there.contains(&tid.0));
            }
            made
        })?;
        for tid in threads {
            let slot = self.slot(*tid)?;
            if !self.puppets.contains_key(tid) {
                newborn::await_birth(&self.arena, pid, *tid, slot)?;
                self.puppets.insert(*tid, Puppet::begin(pid, *tid)?);
            }
            self.puppet_mut(*tid)?.arrive_from_stub()?;
            if let Some(program) = programs.get(tid) {
                self.puppet(*tid)?.answers(&self.arena, slot, program)?;
            }
        }
        Ok(())
    }

    fn try_make_threads(&mut self, maker: Pid, threads: &[Pid], programs: &Programs) -> Result<()> {
        let mut unborn = Vec::with_capacity(threads.len());
        for tid in threads {
            unborn.push(Unborn { tid: *tid, slot: self.slot(*tid)?, program: programs.get(tid) });
        }
        let slot = self.slot(maker)?;
        let puppet = self.puppets.get_mut(&maker).ok_or_else(|| super::missing(godwit_image::ObjectId(0)))?;
        let mut born = Vec::with_capacity(threads.len());
        let made = newborn::make(&self.arena, Maker { puppet, slot }, &unborn, &mut born);
        self.puppets.extend(born.into_iter().map(|puppet| (puppet.tid(), puppet)));
        made
    }
}
