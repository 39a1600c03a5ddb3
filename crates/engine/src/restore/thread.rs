//! Threads: created by their leader, each made what it was by a program of its own, all of them at the same time.
use super::puppet::Puppet;
use super::skeleton::clone_arguments;
use super::{Restorer, credentials, missing};
use crate::failure::{About, Result};
use godwit_image::credentials::Credentials;
use godwit_image::task::{State, Task, Thread};
use godwit_image::{ObjectId, Pid, Subject};
use godwit_linux::clone::{self, Arguments};
use godwit_linux::program::Program;
use godwit_linux::stub::{Ending, Healing};

const SYS_RT_SIGACTION: i64 = 13;
const SYS_GETPID: i64 = 39;
const SYS_SETITIMER: i64 = 38;
const SYS_RT_SIGQUEUEINFO: i64 = 129;
const SYS_SIGALTSTACK: i64 = 131;
const SYS_PERSONALITY: i64 = 135;
const SYS_PRCTL: i64 = 157;
const SYS_SET_TID_ADDRESS: i64 = 218;
const SYS_SET_ROBUST_LIST: i64 = 273;
const SYS_RT_TGSIGQUEUEINFO: i64 = 297;
const SYS_RSEQ: i64 = 334;
const PR_SET_PDEATHSIG: u64 = 1;
const PR_SET_DUMPABLE: u64 = 4;
const PR_SET_NAME: u64 = 15;
const PR_SET_TSC: u64 = 26;
const PR_SET_TIMERSLACK: u64 = 29;
const PR_SET_CHILD_SUBREAPER: u64 = 36;
const PR_SET_THP_DISABLE: u64 = 41;
const PR_SET_MDWE: u64 = 65;
const PR_SET_MEMORY_MERGE: u64 = 67;
/// CLONE_VM | FS | FILES | SIGHAND | THREAD | SYSVSEM.
const THREAD_FLAGS: u64 = 0x100 | 0x200 | 0x400 | 0x800 | 0x1_0000 | 0x4_0000;
const SIGNALS: usize = 64;
/// SIGKILL and SIGSTOP have no disposition.
const UNCATCHABLE: [usize; 2] = [9, 19];
/// sigaltstack(2): ss_flags that may be set.
const SS_DISABLE: i32 = 2;
const SS_AUTODISARM: i32 = i32::MIN;
/// PR_GET_TSC's default.
const PR_TSC_ENABLE: i32 = 1;

impl Restorer {
    /// Creates the threads of a task beside its leader; each waits in the stub and is attached.
    pub(super) fn create_threads(&mut self, task: &Task) -> Result<()> {
        let others: Vec<Pid> = task.threads.iter().skip(1).map(|thread| thread.tid).collect();
        if others.is_empty() {
            return Ok(());
        }
        let mut program = Program::new();
        for tid in &others {
            let slot = self.slot(*tid)?;
            let mut first = Program::new();
            first.call("getpid", SYS_GETPID, []);
            self.arena
                .lay(slot, &first, self.arena.base(), Ending::Exit, &Healing::default())
                .about(|| Subject::Thread(task.pid.0, tid.0))?;
            let numbers = program.data(&tid.0.to_le_bytes());
            let arguments = Arguments { flags: THREAD_FLAGS, set_tid_size: 1, ..Arguments::default() };
            let place = clone_arguments(&mut program, &arguments, numbers);
            program.clone_task(place, clone::ARGUMENTS_BYTES, self.arena.base() + slot.offset as u64);
        }
        self.run(task.pid, &program)?;
        for tid in others {
            self.puppets.insert(tid, Puppet::attach(task.pid, tid)?);
        }
        Ok(())
    }

    /// Runs one program in each of several threads at the same time.
    pub(super) fn run_all(&mut self, programs: &[(Pid, Program)]) -> Result<()> {
        let mut begun = Vec::with_capacity(programs.len());
        for (tid, program) in programs {
            let slot = self.slot(*tid)?;
            if !slot.holds(program) {
                self.run(*tid, program)?;
                continue;
            }
            self.puppet(*tid)?.start(&self.arena, slot, program)?;
            begun.push((*tid, slot, program));
        }
        for (tid, slot, program) in begun {
            let puppet = self.puppets.get_mut(&tid).ok_or_else(|| missing(ObjectId(0)))?;
            puppet.finish(&self.arena, slot, program)?;
        }
        Ok(())
    }

    /// Process-wide state that needs no privilege to be gone yet: dispositions, flags of the address space.
    pub(super) fn process_program(&self, task: &Task) -> Program {
        let mut program = Program::new();
        for (index, action) in task.actions.iter().enumerate().take(SIGNALS) {
            let signal = index + 1;
            if UNCATCHABLE.contains(&signal) {
                continue;
            }
            let mut raw = Vec::with_capacity(32);
            for word in [action.handler, action.flags, action.restorer, action.mask] {
                raw.extend_from_slice(&word.to_le_bytes());
            }
            let new = program.data(&raw);
            program.call("rt_sigaction", SYS_RT_SIGACTION, [signal.into(), new, 0_u64.into(), 8_u64.into()]);
        }
        let prctl = |program: &mut Program, option: u64, value: u64| {
            let zero = 0_u64.into();
            program.call("prctl", SYS_PRCTL, [option.into(), value.into(), zero, zero, zero]);
        };
        if task.child_subreaper {
            prctl(&mut program, PR_SET_CHILD_SUBREAPER, 1);
        }
        if let Some(space) = task.space.and_then(|id| self.tree.space(id)) {
            if space.huge_pages_disabled {
                prctl(&mut program, PR_SET_THP_DISABLE, 1);
            }
            if space.memory_merge {
                prctl(&mut program, PR_SET_MEMORY_MERGE, 1);
            }
            if space.deny_write_execute != 0 {
                prctl(&mut program, PR_SET_MDWE, u64::from(space.deny_write_execute));
            }
        }
        program
    }

    /// One thread's own state, privileges last.
    pub(super) fn thread_program(&self, task: &Task, thread: &Thread, now: &Credentials) -> Program {
        let mut program = Program::new();
        let zero: u64 = 0;
        let prctl = |program: &mut Program, option: u64, value: godwit_linux::program::Argument| {
            program.call("prctl", SYS_PRCTL, [option.into(), value, zero.into(), zero.into(), zero.into()]);
        };
        let mut name = thread.name.clone();
        name.truncate(15);
        let name = program.text(&name);
        prctl(&mut program, PR_SET_NAME, name);
        prctl(&mut program, PR_SET_TIMERSLACK, thread.timer_slack_ns.into());
        if thread.timestamp_counter_mode > PR_TSC_ENABLE {
            prctl(&mut program, PR_SET_TSC, thread.timestamp_counter_mode.into());
        }
        let (address, length, signature, flags) = thread.restartable_sequence;
        if address != 0 {
            program.call("rseq", SYS_RSEQ, [address.into(), length.into(), flags.into(), signature.into()]);
        }
        let (head, bytes) = thread.robust_list;
        program.call("set_robust_list", SYS_SET_ROBUST_LIST, [head.into(), bytes.max(24).into()]);
        program.call("set_tid_address", SYS_SET_TID_ADDRESS, [thread.clear_child_tid.into()]);
        let stack = thread.alternate_stack;
        if stack.flags & SS_DISABLE == 0 {
            let mut raw = Vec::with_capacity(24);
            raw.extend_from_slice(&stack.address.to_le_bytes());
            raw.extend_from_slice(&u64::from((stack.flags & SS_AUTODISARM) as u32).to_le_bytes());
            raw.extend_from_slice(&stack.size.to_le_bytes());
            let new = program.data(&raw);
            program.call("sigaltstack", SYS_SIGALTSTACK, [new, zero.into()]);
        }
        program.call("personality", SYS_PERSONALITY, [thread.personality.into()]);
        self.queue_signals(&mut program, task, thread);
        credentials::program(&mut program, &thread.credentials, now);
        prctl(&mut program, PR_SET_PDEATHSIG, thread.parent_death_signal.into());
        if let Some(space) = task.space.and_then(|id| self.tree.space(id)) {
            // Changing credentials clears it; 2 (only root may read) cannot be set, and is what the kernel chose then.
            if space.dumpable < 2 {
                prctl(&mut program, PR_SET_DUMPABLE, u64::from(space.dumpable).into());
            }
        }
        program
    }

    fn queue_signals(&self, program: &mut Program, task: &Task, thread: &Thread) {
        let number = |information: &[u8]| {
            let mut raw = [0; 4];
            raw.copy_from_slice(information.get(..4).unwrap_or(&[0; 4]));
            i32::from_le_bytes(raw)
        };
        for queued in &thread.pending {
            let information = program.data(&queued.information);
            program.call(
                "rt_tgsigqueueinfo",
                SYS_RT_TGSIGQUEUEINFO,
                [task.pid.0.into(), thread.tid.0.into(), number(&queued.information).into(), information],
            );
        }
        if task.threads.iter().find(|thread| !thread.dead).map(|first| first.tid) == Some(thread.tid) {
            for queued in &task.pending {
                let information = program.data(&queued.information);
                program.call(
                    "rt_sigqueueinfo",
                    SYS_RT_SIGQUEUEINFO,
                    [task.pid.0.into(), number(&queued.information).into(), information],
                );
            }
        }
    }

    /// Interval timers, armed as late as possible: from here on they run.
    pub(super) fn timer_program(task: &Task) -> Program {
        let mut program = Program::new();
        for (which, (value, interval)) in task.interval_timers.into_iter().enumerate() {
            if value == 0 {
                continue;
            }
            let mut raw = Vec::with_capacity(32);
            for word in [interval / 1_000_000, interval % 1_000_000, value / 1_000_000, value % 1_000_000] {
                raw.extend_from_slice(&word.to_le_bytes());
            }
            let new = program.data(&raw);
            program.call("setitimer", SYS_SETITIMER, [which.into(), new, 0_u64.into()]);
        }
        program
    }

    /// Living tasks.
    pub(super) fn living(&self) -> Vec<Task> {
        self.tree.tasks.iter().filter(|task| !matches!(task.state, State::Zombie(_))).cloned().collect()
    }
}
