//! Tasks with their own numbers, each born as the plan says (see `lineage`): forked by programs from each other, the root
//! from the restorer.
use super::puppet::Puppet;
use super::{Restorer, missing};
use crate::failure::{About, Result, malformed};
use crate::injector::Ran;
use crate::lineage::Birth;
use godwit_image::task::Task;
use godwit_image::{Code, ObjectId, Pid, Refusal, Subject};
use godwit_linux::arena::Slot;
use godwit_linux::clone::{self, Arguments};
use godwit_linux::program::{Argument, Program};
use godwit_linux::stub::{Ending, Healing};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

const SYS_GETPID: i64 = 39;
const SYS_IOCTL: i64 = 16;
const TIOCSCTTY: u64 = 0x540e;
const SYS_SETSID: i64 = 112;
const CLONE_VM: u64 = 0x100;
const CLONE_FS: u64 = 0x200;
const CLONE_FILES: u64 = 0x400;
const CLONE_SIGHAND: u64 = 0x800;
const SIGCHLD: i32 = 17;
/// How long a number may stay in use after its owner has vanished.
const NUMBER_PATIENCE: Duration = Duration::from_millis(500);
const NUMBER_PAUSE: Duration = Duration::from_millis(1);

pub(super) fn unsupported(pid: Pid, cause: String) -> Refusal {
    Refusal::new(Code::UNSUPPORTED, Subject::Process(pid.0), cause)
}

/// A birth to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Newborn {
    /// Its number; 0 = any.
    pub(super) pid: Pid,
    /// CLONE_* flags.
    pub(super) flags: u64,
    /// Signal to the parent at its end.
    pub(super) exit_signal: i32,
}

impl Newborn {
    /// A process that helps building and ends again.
    pub(super) fn helper(pid: Pid) -> Newborn {
        Newborn { pid, flags: 0, exit_signal: SIGCHLD }
    }
}

impl Restorer {
    pub(super) fn slot(&self, thread: Pid) -> Result<Slot> {
        let slot = self.slots.get(&thread).and_then(|index| self.arena.slot(*index));
        slot.ok_or_else(|| malformed(Subject::Process(thread.0), "it has no slot"))
    }

    pub(super) fn puppet(&self, thread: Pid) -> Result<&Puppet> {
        self.puppets.get(&thread).ok_or_else(|| malformed(Subject::Process(thread.0), "it does not exist yet"))
    }

    pub(super) fn puppet_mut(&mut self, thread: Pid) -> Result<&mut Puppet> {
        self.puppets.get_mut(&thread).ok_or_else(|| malformed(Subject::Process(thread.0), "it does not exist yet"))
    }

    /// Where a program of a thread lies.
    pub(super) fn place(&self, thread: Pid, program: &Program) -> Result<Slot> {
        let small = self.slot(thread)?;
        Ok(if small.holds(program) { small } else { self.arena.bulk() })
    }

    /// Runs one program in one thread, in its own slot or, when it is large, in the common one.
    pub(super) fn run(&mut self, thread: Pid, program: &Program) -> Result<Ran> {
        let slot = self.place(thread, program)?;
        let puppet = self.puppets.get_mut(&thread).ok_or_else(|| missing(ObjectId(0)))?;
        puppet.start(&self.arena, slot, program, Ending::Trap)?;
        puppet.finish(&self.arena, slot, program)
    }

    pub(super) fn task(&self, pid: Pid) -> Result<Task> {
        self.tree
            .tasks
            .iter()
            .find(|task| task.pid == pid)
            .cloned()
            .ok_or_else(|| malformed(Subject::Process(pid.0), "it is referred to and not in the image"))
    }

    /// Creates a task and, first, everybody whom that takes.
    pub(super) fn create(&mut self, pid: Pid) -> Result<()> {
        if self.puppets.contains_key(&pid) {
            return Ok(());
        }
        let task = self.task(pid)?;
        let birth = self.lineage.birth(pid).ok_or_else(|| malformed(Subject::Process(pid.0), "it has no parent"))?;
        match birth {
            Birth::Root => self.create_root(&task)?,
            Birth::Fork => {
                self.create(task.parent)?;
                // It begins as a copy of its parent: when they share pages, the parent's have to be there.
                let own = task.space.and_then(|space| self.tree.space(space));
                if let Some(parent_space) = own.and_then(|space| space.parent) {
                    self.build_space(parent_space)?;
                }
                let parent_space = self.task(task.parent)?.space;
                if let Some(space) = parent_space.filter(|space| self.built.contains(space)) {
                    self.part_areas(space)?;
                    self.copies.insert(pid);
                }
                let thread = self.birth_thread(&task)?;
                self.fork_task(thread, &task)?;
            }
            // Creating the parent creates it too.
            Birth::EarlyFork => return self.create(task.parent),
            Birth::Errand(leader) => {
                self.create(task.parent)?;
                self.create(leader)?;
                self.run_errand(leader, &task)?;
            }
            Birth::Zombie(leader) => {
                self.create(task.parent)?;
                self.create(leader)?;
                self.fork_task(leader, &task)?;
            }
            Birth::StandIn(leader) => {
                self.create(task.parent)?;
                self.create_stand_in(leader, Some(task.parent))?;
                self.fork_task(leader, &task)?;
            }
        }
        let early: Vec<Pid> = self.lineage.born(|birth| birth == Birth::EarlyFork).map(|(pid, _)| pid).collect();
        for child in early {
            let child = self.task(child)?;
            if child.parent == pid && !self.puppets.contains_key(&child.pid) {
                self.create_early(&child)?;
            }
        }
        self.enter_session(&task)
    }

    /// A child from before its parent's session; it may have such children itself.
    fn create_early(&mut self, task: &Task) -> Result<()> {
        self.fork_task(task.parent, task)?;
        let early: Vec<Pid> = self.lineage.born(|birth| birth == Birth::EarlyFork).map(|(pid, _)| pid).collect();
        for child in early {
            let child = self.task(child)?;
            if child.parent == task.pid && !self.puppets.contains_key(&child.pid) {
                self.create_early(&child)?;
            }
        }
        self.enter_session(task)
    }

    fn create_root(&mut self, task: &Task) -> Result<()> {
        let pid = task.pid;
        crate::clock::continue_in_children(&self.tree.host)?;
        let own_session = godwit_linux::process::session_of(0).about(|| Subject::Host)?;
        if task.session != pid && task.session.0 != own_session {
            if task.session.0 == 0 {
                let cause = "its session's leader is outside of its PID namespace, and the session here has a number";
                return Err(unsupported(pid, cause.to_owned()).choice("start the program with setsid"));
            }
            self.forget_reserve()?;
            self.create_stand_in(task.session, None)?;
            return self.fork_task(task.session, task);
        }
        if self.adopt_reserve(task)? {
            return Ok(());
        }
        let newborn = Newborn { pid, flags: 0, exit_signal: task.exit_signal.max(0) };
        self.fork_from_restorer(newborn)
    }

    /// Forks this very process.
    pub(super) fn fork_from_restorer(&mut self, newborn: Newborn) -> Result<()> {
        let Newborn { pid, exit_signal, .. } = newborn;
        let fork = || clone::fork_sleeper(&[pid.0], 0, exit_signal).map_err(|error| creation(pid, error));
        let got = patiently(fork)?;
        if got != pid.0 {
            return Err(Refusal::new(Code::RESTORE_FAILED, Subject::Process(pid.0), format!("it became {got}")));
        }
        self.puppets.insert(pid, Puppet::attach(pid, pid)?);
        self.unregister_restartable_sequence(pid)
    }

    /// The thread of its parent that forks a task.
    fn birth_thread(&mut self, task: &Task) -> Result<Pid> {
        let Some(thread) = task.parent_thread.filter(|thread| *thread != task.parent) else { return Ok(task.parent) };
        let parent = self.task(task.parent)?;
        if !parent.threads.iter().any(|other| other.tid == thread && !other.dead) {
            return Ok(task.parent);
        }
        self.create_threads(&parent)?;
        Ok(thread)
    }

    /// Forks a task of the image from a thread.
    pub(super) fn fork_task(&mut self, creator: Pid, task: &Task) -> Result<()> {
        let flags = self.shared_with(creator, task)?;
        let newborn = Newborn { pid: task.pid, flags, exit_signal: task.exit_signal.max(0) };
        self.fork(creator, newborn).map(drop)
    }

    /// What a task shares with its creator, as CLONE_* flags. Sharing with anybody else cannot be made.
    fn shared_with(&self, creator: Pid, task: &Task) -> Result<u64> {
        let tasks = &self.tree.tasks;
        let of = |pid: Pid| tasks.iter().find(|other| other.threads.iter().any(|thread| thread.tid == pid));
        let thread_of = |pid: Pid| of(pid).and_then(|task| task.threads.iter().find(|thread| thread.tid == pid));
        let mut flags = 0;
        if let (Some(parent), Some(thread), Some(first)) =
            (of(creator), thread_of(creator), task.threads.iter().find(|thread| !thread.dead))
        {
            if task.space.is_some() && task.space == parent.space {
                flags |= CLONE_VM;
                if task.shares_actions {
                    flags |= CLONE_SIGHAND;
                }
            }
            if first.files.is_some() && first.files == thread.files {
                flags |= CLONE_FILES;
            }
            if first.filesystem.is_some() && first.filesystem == thread.filesystem {
                flags |= CLONE_FS;
            }
        }
        let Some(first) = task.threads.iter().find(|thread| !thread.dead) else { return Ok(flags) };
        let shares_elsewhere = |flag: u64, shares: &dyn Fn(&Task) -> bool| {
            flags & flag == 0 && tasks.iter().take_while(|other| other.pid != task.pid).any(shares)
        };
        let space = shares_elsewhere(CLONE_VM, &|other| task.space.is_some() && other.space == task.space);
        let files = shares_elsewhere(CLONE_FILES, &|other| {
            other.threads.iter().any(|t| t.files.is_some() && t.files == first.files)
        });
        let context = shares_elsewhere(CLONE_FS, &|other| {
            other.threads.iter().any(|t| t.filesystem.is_some() && t.filesystem == first.filesystem)
        });
        for (shares, what) in [(space, "memory"), (files, "file table"), (context, "working directory")] {
            if shares {
                let cause = format!("it shares its {what} with a process that is not the one that forks it");
                return Err(unsupported(task.pid, cause));
            }
        }
        Ok(flags)
    }

    /// Forks from a stopped thread by a program in it. Returns the newborn's number.
    pub(super) fn fork(&mut self, creator: Pid, newborn: Newborn) -> Result<Pid> {
        let slot = self.slot(newborn.pid)?;
        let mut first = Program::new();
        first.call("getpid", SYS_GETPID, []);
        self.arena
            .lay(slot, &first, self.arena.base(), Ending::Exit, &Healing::default())
            .about(|| Subject::Process(newborn.pid.0))?;
        let mut program = Program::new();
        let arguments = Arguments {
            flags: newborn.flags,
            exit_signal: newborn.exit_signal as u64,
            set_tid_size: u64::from(newborn.pid.0 != 0),
            ..Arguments::default()
        };
        let numbers = (newborn.pid.0 != 0).then(|| program.data(&newborn.pid.0.to_le_bytes()));
        let place = clone_arguments(&mut program, &arguments, numbers);
        let step = program.clone_task(place, clone::ARGUMENTS_BYTES, self.arena.base() + slot.offset as u64);
        let run = || self.run(creator, &program).map_err(|refusal| creation_refusal(newborn.pid, refusal));
        let ran = patiently(run)?;
        let pid = Pid(ran.result("clone3", step).about(|| Subject::Process(newborn.pid.0))? as i32);
        self.puppets.insert(newborn.pid, Puppet::attach(pid, pid)?);
        Ok(pid)
    }

    /// A leader makes its session; everybody else was born in the right one.
    fn enter_session(&mut self, task: &Task) -> Result<()> {
        if task.session == task.pid {
            return self.make_session(task.pid);
        }
        let now = godwit_linux::process::session_of(task.pid.0).about(|| Subject::Process(task.pid.0))?;
        if now != task.session.0 {
            return Err(unsupported(task.pid, format!("its session {} cannot be had: it is in {now}", task.session)));
        }
        Ok(())
    }

    pub(super) fn make_session(&mut self, pid: Pid) -> Result<()> {
        let mut program = Program::new();
        let now = godwit_linux::process::session_of(pid.0).about(|| Subject::Process(pid.0))?;
        if now != pid.0 {
            program.call("setsid", SYS_SETSID, []);
        }
        // At once: what is forked from here on inherits the controlling terminal, and gets it in no other way.
        for envelope in &self.tree.objects {
            if crate::resource::pty::controls(envelope, pid)? {
                let slave = self.made.get(&envelope.id).and_then(|made| made.get(1)).map(|file| file.as_raw_fd());
                let slave = slave.ok_or_else(|| missing(envelope.id))?;
                program.call("ioctl(TIOCSCTTY)", SYS_IOCTL, [slave.into(), TIOCSCTTY.into(), 0_u64.into()]);
            }
        }
        if program.is_empty() { Ok(()) } else { self.run(pid, &program).map(drop) }
    }

    /// Every task that no page made necessary.
    pub(super) fn create_remaining(&mut self) -> Result<()> {
        let tasks: Vec<Pid> = self.tree.tasks.iter().map(|task| task.pid).collect();
        for pid in tasks {
            self.create(pid)?;
        }
        Ok(())
    }
}

/// Creates somebody whose number may be in use for a moment still: one who is gone from /proc gives its number back a little
/// later (kernel/exit.c, release_task: free_pids comes last).
pub(super) fn patiently<T>(mut create: impl FnMut() -> Result<T>) -> Result<T> {
    let begin = Instant::now();
    loop {
        match create() {
            Err(refusal) if refusal.code == Code::PID_IN_USE && begin.elapsed() < NUMBER_PATIENCE => {
                std::thread::sleep(NUMBER_PAUSE);
            }
            other => return other,
        }
    }
}

fn creation(pid: Pid, error: godwit_linux::Errno) -> Refusal {
    let code = match error.number {
        17 => Code::PID_IN_USE,
        1 => Code::NOT_PERMITTED,
        22 => Code::DESTINATION_LACKS,
        _ => Code::RESTORE_FAILED,
    };
    Refusal::new(code, Subject::Process(pid.0), error.to_string())
}

fn creation_refusal(pid: Pid, refusal: Refusal) -> Refusal {
    if refusal.cause.contains("File exists") {
        return Refusal::new(Code::PID_IN_USE, Subject::Process(pid.0), refusal.cause);
    }
    refusal
}

/// Places clone_args whose set_tid points to `numbers` in the same program's data.
pub(super) fn clone_arguments(program: &mut Program, arguments: &Arguments, numbers: Option<Argument>) -> Argument {
    let place = program.data(&arguments.bytes());
    if let (Argument::Data(offset), Some(numbers)) = (place, numbers) {
        program.point(offset + clone::SET_TID_OFFSET, numbers);
    }
    place
}
