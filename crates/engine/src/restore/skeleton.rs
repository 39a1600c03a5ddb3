//! Tasks with their own numbers, in their own sessions and groups, parents before children: each forked from its own parent
//! by a program, the root from the restorer.
use super::puppet::Puppet;
use super::{Restorer, missing};
use crate::failure::{About, Result};
use crate::injector::Ran;
use godwit_image::task::{State, Task};
use godwit_image::{Code, Pid, Refusal, Subject};
use godwit_linux::arena::Slot;
use godwit_linux::clone::{self, Arguments};
use godwit_linux::program::{Argument, Program};
use godwit_linux::stub::{Ending, Healing};

const SYS_GETPID: i64 = 39;
const SYS_KILL: i64 = 62;
const SYS_EXIT_GROUP: i64 = 231;
const SYS_SETSID: i64 = 112;
const SYS_SETPGID: i64 = 109;

fn unsupported(pid: Pid, cause: String) -> Refusal {
    Refusal::new(Code::UNSUPPORTED, Subject::Process(pid.0), cause)
}

impl Restorer {
    pub(super) fn slot(&self, thread: Pid) -> Result<Slot> {
        let slot = self.slots.get(&thread).and_then(|index| self.arena.slot(*index));
        slot.ok_or_else(|| Refusal::new(Code::MALFORMED, Subject::Process(thread.0), "it has no slot"))
    }

    pub(super) fn puppet(&self, thread: Pid) -> Result<&Puppet> {
        self.puppets
            .get(&thread)
            .ok_or_else(|| Refusal::new(Code::MALFORMED, Subject::Process(thread.0), "it does not exist yet"))
    }

    /// Runs one program in one thread, in its own slot or, when it is large, in the common one.
    pub(super) fn run(&mut self, thread: Pid, program: &Program) -> Result<Ran> {
        let small = self.slot(thread)?;
        let slot = if small.holds(program) { small } else { self.arena.bulk() };
        let puppet = self.puppets.get_mut(&thread).ok_or_else(|| missing(godwit_image::ObjectId(0)))?;
        puppet.start(&self.arena, slot, program)?;
        puppet.finish(&self.arena, slot, program)
    }

    pub(super) fn task(&self, pid: Pid) -> Result<Task> {
        self.tree.tasks.iter().find(|task| task.pid == pid).cloned().ok_or_else(|| {
            Refusal::new(Code::MALFORMED, Subject::Process(pid.0), "it is referred to and not in the image")
        })
    }

    /// Creates a task and, first, all its ancestors.
    pub(super) fn create(&mut self, pid: Pid) -> Result<()> {
        if self.puppets.contains_key(&pid) {
            return Ok(());
        }
        let task = self.task(pid)?;
        let root = self.tree.root().map(|root| root.pid);
        if root == Some(pid) {
            let fork = clone::fork_sleeper(&[pid.0], 0, task.exit_signal.max(0));
            let got = fork.map_err(|error| creation(pid, error))?;
            if got != pid.0 {
                return Err(Refusal::new(Code::RESTORE_FAILED, Subject::Process(pid.0), format!("it became {got}")));
            }
            self.puppets.insert(pid, Puppet::attach(pid, pid)?);
            self.unregister_restartable_sequence(pid)?;
        } else {
            self.create(task.parent)?;
            self.fork(&task)?;
        }
        self.enter_session(&task)
    }

    fn fork(&mut self, task: &Task) -> Result<()> {
        let slot = self.slot(task.pid)?;
        let mut first = Program::new();
        first.call("getpid", SYS_GETPID, []);
        self.arena
            .lay(slot, &first, self.arena.base(), Ending::Exit, &Healing::default())
            .about(|| Subject::Process(task.pid.0))?;
        let mut program = Program::new();
        let numbers = program.data(&task.pid.0.to_le_bytes());
        let arguments =
            Arguments { exit_signal: task.exit_signal.max(0) as u64, set_tid_size: 1, ..Arguments::default() };
        let place = clone_arguments(&mut program, &arguments, numbers);
        program.clone_task(place, clone::ARGUMENTS_BYTES, self.arena.base() + slot.offset as u64);
        self.run(task.parent, &program).map_err(|refusal| creation_refusal(task.pid, refusal))?;
        self.puppets.insert(task.pid, Puppet::attach(task.pid, task.pid)?);
        Ok(())
    }

    /// Sessions: a leader makes its own; everybody else must have inherited the right one.
    fn enter_session(&mut self, task: &Task) -> Result<()> {
        let now = godwit_linux::proc::stat::read_process_wide(task.pid.0)
            .map_err(|error| crate::failure::malformed(Subject::Process(task.pid.0), error))?;
        if now.session != task.session.0 {
            if task.session != task.pid {
                let cause = format!("its session {} has no leader in the tree", task.session);
                return Err(unsupported(task.pid, cause));
            }
            let mut program = Program::new();
            program.call("setsid", SYS_SETSID, []);
            self.run(task.pid, &program)?;
        }
        Ok(())
    }

    /// Process groups, once every task exists: leaders first.
    pub(super) fn enter_groups(&mut self) -> Result<()> {
        let tasks: Vec<(Pid, Pid)> = self.tree.tasks.iter().map(|task| (task.pid, task.group)).collect();
        for leaders in [true, false] {
            for (pid, group) in tasks.iter().filter(|(pid, group)| (pid == group) == leaders) {
                let now = godwit_linux::proc::stat::read_process_wide(pid.0)
                    .map_err(|error| crate::failure::malformed(Subject::Process(pid.0), error))?;
                if now.process_group == group.0 {
                    continue;
                }
                let mut program = Program::new();
                program.call("setpgid", SYS_SETPGID, [0_i32.into(), group.0.into()]);
                self.run(*pid, &program).map_err(|refusal| {
                    unsupported(*pid, format!("its process group {group} cannot be entered: {}", refusal.cause))
                })?;
            }
        }
        Ok(())
    }

    /// Every task that no page made necessary.
    pub(super) fn create_remaining(&mut self) -> Result<()> {
        let tasks: Vec<Pid> = self.tree.tasks.iter().map(|task| task.pid).collect();
        for pid in tasks {
            self.create(pid)?;
        }
        Ok(())
    }

    /// Ends the tasks that are zombies in the image, as they ended.
    pub(super) fn end_zombies(&mut self) -> Result<()> {
        let zombies: Vec<(Pid, i32)> = self
            .tree
            .tasks
            .iter()
            .filter_map(|task| if let State::Zombie(status) = task.state { Some((task.pid, status)) } else { None })
            .collect();
        for (pid, status) in zombies {
            let mut program = Program::new();
            if status & 0x7f == 0 {
                program.call("exit_group", SYS_EXIT_GROUP, [(status >> 8 & 0xff).into()]);
            } else {
                program.call("kill", SYS_KILL, [pid.0.into(), (status & 0x7f).into()]);
            }
            let slot = self.slot(pid)?;
            self.puppet(pid)?.start(&self.arena, slot, &program)?;
            let puppet = self.puppets.get_mut(&pid).ok_or_else(|| missing(godwit_image::ObjectId(0)))?;
            puppet.await_end(status & 0x7f)?;
            puppet.bury();
        }
        Ok(())
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
pub(super) fn clone_arguments(program: &mut Program, arguments: &Arguments, numbers: Argument) -> Argument {
    let place = program.data(&arguments.bytes());
    if let Argument::Data(offset) = place {
        program.point(offset + clone::SET_TID_OFFSET, numbers);
    }
    place
}
