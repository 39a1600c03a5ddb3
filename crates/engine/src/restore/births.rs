//! Births of threads: made by their leader with the numbers that they had, attached while the next ones are made.
//!
//! A thread that needs no more privileges than it is born with does what makes it itself at once, before anybody has attached
//! to it. That spares it a stop and a start, which cost more than all of its calls.
use super::Restorer;
use super::puppet::Puppet;
use super::skeleton::{clone_arguments, patiently};
use super::stop::CONTINUED;
use crate::failure::{About, Result};
use crate::resource::{self, Kind, Stage};
use godwit_image::credentials::Credentials;
use godwit_image::task::{State, Task, Thread};
use godwit_image::{Code, Envelope, Pid, Refusal, Subject};
use godwit_linux::arena::Slot;
use godwit_linux::clone::{self, Arguments};
use godwit_linux::proc::stat;
use godwit_linux::program::Program;
use godwit_linux::scheduling;
use godwit_linux::stub::{Ending, Healing};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const SYS_GETPID: i64 = 39;
const SYS_UNSHARE: i64 = 272;
/// CLONE_VM | FS | FILES | SIGHAND | THREAD | SYSVSEM.
const THREAD_FLAGS: u64 = 0x100 | 0x200 | 0x400 | 0x800 | 0x1_0000 | 0x4_0000;
const CLONE_FS: u64 = 0x200;
const CLONE_FILES: u64 = 0x400;
/// Their entries and data fit the large slot.
const THREADS_PER_PROGRAM: usize = 2000;
/// Threads from which on their maker is busy for longer than it takes to go to another processor.
const BUSY: usize = 16;
/// How long a newborn may take to do what it is born for.
const BIRTH_TIME_MAX: Duration = Duration::from_secs(10);
/// Looks at a newborn before the processor is given away for longer.
const YIELDS_MAX: u32 = 200;
/// For how long.
const BIRTH_PAUSE: Duration = Duration::from_micros(20);
/// Looks before it is asked what is the matter.
const LOOKS_MAX: u32 = 1000;
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

/// Gives the processor away: at first to whoever waits for this one, then so that somebody who waits behind others for another
/// one is fetched to it.
fn pause(looks: &mut u32) {
    *looks += 1;
    if *looks < YIELDS_MAX { std::thread::yield_now() } else { std::thread::sleep(BIRTH_PAUSE) }
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
        let mut programs = Programs::new();
        for thread in task.threads.iter().skip(1) {
            let is_plain = !thread.dead
                && !self.puppets.contains_key(&thread.tid)
                && super::credentials::are_those_of_birth(&thread.credentials, own)
                && self.queued(task, thread).is_empty();
            if is_plain {
                let program = self.thread_program(task, thread, own);
                if self.slot(thread.tid)?.holds(&program) {
                    programs.insert(thread.tid, program);
                }
            }
        }
        self.create_threads_with(task, &programs)?;
        Ok(programs)
    }

    /// Creates the threads of a task beside its leader, once; each waits in the stub and is attached. A thread is made by
    /// one that has its file table and working directory: the leader, or the first one whose own they are.
    pub(super) fn create_threads(&mut self, task: &Task) -> Result<()> {
        self.create_threads_with(task, &Programs::new())
    }

    fn create_threads_with(&mut self, task: &Task, programs: &Programs) -> Result<()> {
        let Some(leader) = task.threads.first() else { return Ok(()) };
        if task.threads.len() < 2 || task.threads.get(1).is_some_and(|second| self.puppets.contains_key(&second.tid)) {
            return Ok(());
        }
        // A dead leader has no tables any more: what it makes is made as its first living thread.
        let model = task.threads.iter().find(|thread| !thread.dead).unwrap_or(leader);
        let mut makers: Vec<(&Thread, Pid)> = vec![(model, leader.tid)];
        let mut made: Vec<(Pid, Vec<Pid>)> = vec![(leader.tid, Vec::new())];
        let mut separate: Vec<(Pid, u64)> = Vec::new();
        for thread in &task.threads[1..] {
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
            for chunk in threads.chunks(THREADS_PER_PROGRAM) {
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
            let made = self.try_make_threads(pid, maker, &missing, programs);
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
                self.await_birth(pid, *tid, slot)?;
                self.puppets.insert(*tid, Puppet::begin(pid, *tid)?);
            }
            self.puppet_mut(*tid)?.arrive_from_stub()?;
            if let Some(program) = programs.get(tid) {
                self.puppet(*tid)?.answers(&self.arena, slot, program)?;
            }
        }
        Ok(())
    }

    /// Waits until a newborn has done what it was born for.
    fn await_birth(&self, pid: Pid, tid: Pid, slot: Slot) -> Result<()> {
        let begin = Instant::now();
        let mut looks = 0;
        while !self.arena.done(slot) {
            pause(&mut looks);
            if looks.is_multiple_of(LOOKS_MAX) {
                let subject = Subject::Thread(pid.0, tid.0);
                if !stat::read(pid.0, tid.0).is_ok_and(|stat| !matches!(stat.state, b'Z' | b'X')) {
                    return Err(Refusal::new(Code::PROCESS_VANISHED, subject, "it ended when it had just been made"));
                }
                if begin.elapsed() > BIRTH_TIME_MAX {
                    return Err(Refusal::new(Code::RESTORE_FAILED, subject, "it was made and does not run"));
                }
            }
        }
        Ok(())
    }

    /// Makes threads until all are there, or one cannot be made.
    fn try_make_threads(&mut self, pid: Pid, maker: Pid, threads: &[Pid], programs: &Programs) -> Result<()> {
        let mut nothing = Program::new();
        nothing.call("getpid", SYS_GETPID, []);
        let mut making = Program::new();
        for tid in threads {
            let slot = self.slot(*tid)?;
            let first = programs.get(tid).unwrap_or(&nothing);
            self.arena
                .lay(slot, first, self.arena.base(), Ending::Exit, &Healing::default())
                .about(|| Subject::Thread(pid.0, tid.0))?;
            let numbers = making.data(&tid.0.to_le_bytes());
            let arguments = Arguments { flags: THREAD_FLAGS, set_tid_size: 1, ..Arguments::default() };
            let place = clone_arguments(&mut making, &arguments, Some(numbers));
            making.clone_task(place, clone::ARGUMENTS_BYTES, self.arena.base() + slot.offset as u64);
        }
        let place = self.place(maker, &making)?;
        self.puppet(maker)?.start(&self.arena, place, &making, Ending::Trap)?;
        if threads.len() >= BUSY
            && let Ok(stat) = stat::read(pid.0, maker.0)
        {
            // Both of us have enough to do for a processor. Of what only costs time nothing is said.
            let _ = scheduling::leave_processor(stat.processor as u32);
        }
        // Each is attached as soon as it has done what it was born for, while the maker goes on.
        for tid in threads {
            let slot = self.slot(*tid)?;
            let mut looks = 0;
            while !self.arena.done(slot) && !self.arena.done(place) && looks < LOOKS_MAX {
                pause(&mut looks);
            }
            // The maker has ended, one way or another, or takes its time: both are found out below.
            if !self.arena.done(slot) {
                break;
            }
            self.puppets.insert(*tid, Puppet::begin(pid, *tid)?);
        }
        let maker = self.puppets.get_mut(&maker).ok_or_else(|| super::missing(godwit_image::ObjectId(0)))?;
        maker.finish(&self.arena, place, &making).map(drop).map_err(|refusal| {
            if refusal.cause.contains("File exists") {
                return Refusal::new(Code::PID_IN_USE, refusal.subject, "the number of one of its threads is in use");
            }
            refusal
        })
    }
}
