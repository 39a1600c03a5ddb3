//! Sessions and process groups whose leaders are gone, and who adopts whom: processes that take a number for a while.
use super::Restorer;
use super::skeleton::{Newborn, unsupported};
use crate::failure::{About, Result, malformed};
use crate::lineage::Birth;
use godwit_image::task::{State, Task};
use godwit_image::{Code, Pid, Refusal, Subject};
use godwit_linux::proc::stat;
use godwit_linux::program::Program;
use godwit_linux::stub::Ending;
use std::collections::BTreeSet;

const SYS_EXIT_GROUP: i64 = 231;
const SYS_SETPGID: i64 = 109;
const SYS_WAIT4: i64 = 61;
const SYS_PRCTL: i64 = 157;
const PR_SET_CHILD_SUBREAPER: u64 = 36;
/// Wait also for children whose exit signal is not SIGCHLD.
const WALL: u64 = 0x4000_0000;
/// The slot and number of a process that lives only for one fork.
pub(super) const ERRAND: Pid = Pid(0);

/// A process that holds the number of a dead leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct StandIn {
    /// Its number.
    pid: Pid,
    /// Who forked it and waits for it; the restorer when none.
    parent: Option<Pid>,
}

impl Restorer {
    /// Takes the number of a dead session leader and makes its session.
    pub(super) fn create_stand_in(&mut self, number: Pid, parent: Option<Pid>) -> Result<()> {
        if self.stand_ins.iter().any(|stand_in| stand_in.pid == number) {
            return Ok(());
        }
        let created = match parent {
            Some(parent) => self.fork(parent, Newborn::helper(number)).map(drop),
            None => self.fork_from_restorer(Newborn::helper(number)),
        };
        created.map_err(|refusal| in_use(refusal, &format!("session {number}")))?;
        self.stand_ins.push(StandIn { pid: number, parent });
        self.make_session(number)
    }

    /// Forks a task from a process that a session leader forks for it, and lets the task's parent adopt it.
    pub(super) fn run_errand(&mut self, leader: Pid, task: &Task) -> Result<()> {
        let pid = self.fork(leader, Newborn::helper(ERRAND))?;
        self.fork_task(ERRAND, task)?;
        self.adopting(Some(task.parent), |restorer| restorer.end_helper(ERRAND, pid, Some(leader)))
    }

    /// Has `parent` (or the restorer) adopt whatever loses its parent below it while `work` runs.
    fn adopting(&mut self, parent: Option<Pid>, work: impl FnOnce(&mut Restorer) -> Result<()>) -> Result<()> {
        self.set_subreaper(parent, true)?;
        let result = work(self);
        self.set_subreaper(parent, false)?;
        result
    }

    fn set_subreaper(&mut self, pid: Option<Pid>, on: bool) -> Result<()> {
        let Some(pid) = pid else {
            return godwit_linux::signal::set_own_subreaper(on).about(|| Subject::Host);
        };
        let mut program = Program::new();
        program.call("prctl", SYS_PRCTL, [PR_SET_CHILD_SUBREAPER.into(), u64::from(on).into()]);
        self.run(pid, &program).map(drop)
    }

    /// Ends a helper and has its parent wait for it. `slot` is what it is known as here.
    fn end_helper(&mut self, slot: Pid, pid: Pid, parent: Option<Pid>) -> Result<()> {
        let mut program = Program::new();
        program.call("exit_group", SYS_EXIT_GROUP, [0_u64.into()]);
        let place = self.slot(slot)?;
        self.puppet(slot)?.start(&self.arena, place, &program, Ending::Exit)?;
        let mut puppet = self.puppets.remove(&slot).ok_or_else(|| malformed(Subject::Process(pid.0), "it is gone"))?;
        puppet.await_end(0)?;
        puppet.bury();
        match parent {
            Some(parent) => {
                let mut program = Program::new();
                let zero = 0_u64.into();
                program.call("wait4", SYS_WAIT4, [pid.0.into(), zero, WALL.into(), zero]);
                self.run(parent, &program).map(drop)
            }
            None => godwit_linux::ptrace::wait(pid.0).map(drop).or_else(|error| {
                // Waiting for it as its tracer was waiting for it as its parent.
                if error.number == 10 { Ok(()) } else { Err(error).about(|| Subject::Process(pid.0)) }
            }),
        }
    }

    /// Process groups, once every task exists: leaders first. A dead leader's number is taken by a stand-in until all
    /// members have entered.
    pub(super) fn enter_groups(&mut self) -> Result<()> {
        let tasks: Vec<(Pid, Pid)> = self.tree.tasks.iter().map(|task| (task.pid, task.group)).collect();
        let leaders: BTreeSet<Pid> = tasks.iter().filter(|(pid, group)| pid == group).map(|(pid, _)| *pid).collect();
        for (pid, group) in tasks.iter().filter(|(pid, group)| pid == group) {
            self.enter_group(*pid, *group)?;
        }
        for (pid, group) in tasks.iter().filter(|(_, group)| !leaders.contains(group)) {
            let exists = self.stand_ins.iter().any(|stand_in| stand_in.pid == *group);
            if exists || self.group_now(*pid)? == group.0 {
                continue;
            }
            if group.0 <= 0 {
                let cause = "the leader of its process group is outside of its PID namespace";
                return Err(unsupported(*pid, cause.to_owned()).choice("start the program with setsid"));
            }
            self.fork(*pid, Newborn::helper(*group))
                .map_err(|refusal| in_use(refusal, &format!("process group {group}")))?;
            self.stand_ins.push(StandIn { pid: *group, parent: Some(*pid) });
            self.enter_group(*group, *group)?;
        }
        for (pid, group) in tasks.iter().filter(|(pid, group)| pid != group) {
            self.enter_group(*pid, *group)?;
        }
        self.end_stand_ins()
    }

    fn group_now(&self, pid: Pid) -> Result<i32> {
        godwit_linux::process::group_of(pid.0).about(|| Subject::Process(pid.0))
    }

    fn enter_group(&mut self, pid: Pid, group: Pid) -> Result<()> {
        if self.group_now(pid)? == group.0 {
            return Ok(());
        }
        let mut program = Program::new();
        program.call("setpgid", SYS_SETPGID, [0_i32.into(), group.0.into()]);
        self.run(pid, &program).map(drop).map_err(|refusal| {
            unsupported(pid, format!("its process group {group} cannot be entered: {}", refusal.cause))
        })
    }

    fn end_stand_ins(&mut self) -> Result<()> {
        // Youngest first: one may have been forked by another.
        while let Some(StandIn { pid, parent }) = self.stand_ins.pop() {
            self.adopting(parent, |restorer| restorer.end_helper(pid, pid, parent))?;
        }
        Ok(())
    }

    /// Ends the tasks that are zombies in the image, as they ended; who was born by one is adopted by its parent.
    pub(super) fn end_zombies(&mut self) -> Result<()> {
        let zombies: Vec<(Pid, i32)> = self
            .tree
            .tasks
            .iter()
            .filter_map(|task| if let State::Zombie(status) = task.state { Some((task.pid, status)) } else { None })
            .collect();
        for (pid, status) in zombies {
            let of_zombie = self.lineage.born(|birth| birth == Birth::Zombie(pid)).next();
            match of_zombie {
                Some((child, _)) => {
                    let adopter = self.task(child)?.parent;
                    self.adopting(Some(adopter), |restorer| restorer.end_zombie(pid, status))?;
                }
                None => self.end_zombie(pid, status)?,
            }
        }
        Ok(())
    }

    fn end_zombie(&mut self, pid: Pid, status: i32) -> Result<()> {
        let task = self.task(pid)?;
        let program = self.zombie_program(&task, status)?;
        let slot = self.slot(pid)?;
        self.puppet(pid)?.start(&self.arena, slot, &program, Ending::Exit)?;
        let puppet = self.puppet_mut(pid)?;
        puppet.await_end(status & 0x7f)?;
        puppet.bury();
        Ok(())
    }

    /// Everybody has the parent of the image.
    pub(super) fn check_parents(&self) -> Result<()> {
        for task in self.tree.tasks.iter().skip(1) {
            let now = stat::read_process_wide(task.pid.0).about(|| Subject::Process(task.pid.0))?;
            if now.parent != task.parent.0 {
                let cause = format!("its parent became {} instead of {}", now.parent, task.parent);
                return Err(Refusal::new(Code::RESTORE_FAILED, Subject::Process(task.pid.0), cause));
            }
        }
        Ok(())
    }
}

fn in_use(refusal: Refusal, whose: &str) -> Refusal {
    if refusal.code != Code::PID_IN_USE {
        return refusal;
    }
    let cause = format!("the leader of {whose} has ended or is outside of the tree, and its number is in use here");
    Refusal::new(Code::PID_IN_USE, refusal.subject, cause)
        .choice("restore it in a PID namespace of its own: unshare --pid --fork --mount-proc godwit restore DIR")
        .choice("start the program with setsid")
}
