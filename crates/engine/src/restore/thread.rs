//! What makes threads what they were: a program of its own for each, all of them at the same time.
use super::{Restorer, credentials, missing, queued_signals};
use crate::failure::{About, Result, malformed};
use godwit_image::credentials::Credentials;
use godwit_image::signal::{Action, AlternateStack};
use godwit_image::task::{State, Task, Thread};
use godwit_image::{Code, ObjectId, Pid, Refusal, Subject};
use godwit_linux::proc::stat;
use godwit_linux::program::{Argument, Program};
use godwit_linux::stub::Ending;
use std::time::{Duration, Instant};

const SYS_RT_SIGACTION: i64 = 13;
const SYS_RT_SIGPROCMASK: i64 = 14;
const SYS_EXIT: i64 = 60;
const SYS_KILL: i64 = 62;
const SYS_SETRESUID: i64 = 117;
const SYS_SETRESGID: i64 = 119;
const SYS_EXIT_GROUP: i64 = 231;
const SYS_PRLIMIT64: i64 = 302;
const SYS_SETITIMER: i64 = 38;
const SYS_SIGALTSTACK: i64 = 131;
const SYS_PERSONALITY: i64 = 135;
const SYS_PRCTL: i64 = 157;
const SYS_SET_TID_ADDRESS: i64 = 218;
const SYS_SET_ROBUST_LIST: i64 = 273;
const SYS_RSEQ: i64 = 334;
const PR_SET_PDEATHSIG: u64 = 1;
const PR_SET_DUMPABLE: u64 = 4;
const PR_SET_NAME: u64 = 15;
const PR_SET_TSC: u64 = 26;
const PR_SET_TIMERSLACK: u64 = 29;
const PR_MCE_KILL: u64 = 33;
const PR_MCE_KILL_DEFAULT: i32 = 2;
const PR_SET_SPECULATION_CTRL: u64 = 53;
const PR_SPEC_PRCTL: i32 = 1;
/// PR_SPEC_DISABLE, _FORCE_DISABLE, _DISABLE_NOEXEC.
const PR_SPEC_RESTRICTED: i32 = 4 | 8 | 16;
const PR_SET_CHILD_SUBREAPER: u64 = 36;
const PR_SET_THP_DISABLE: u64 = 41;
const PR_SET_MDWE: u64 = 65;
const PR_SET_MEMORY_MERGE: u64 = 67;
const RLIMIT_CORE: u64 = 4;
/// Highest number of queued signals: set by the task itself, behind queueing.
pub(super) const RLIMIT_SIGPENDING: usize = 11;
const SIGTRAP: usize = 5;
const SIGCHLD: usize = 17;
const SIG_IGN: u64 = 1;
const SIGNALS: usize = 64;
/// SIGKILL and SIGSTOP have no disposition.
const UNCATCHABLE: [usize; 2] = [9, 19];
/// sigaltstack(2): ss_flags that may be set.
const SS_DISABLE: i32 = 2;
const SS_AUTODISARM: i32 = i32::MIN;
/// PR_GET_TSC's default.
const PR_TSC_ENABLE: i32 = 1;

fn set_action(program: &mut Program, signal: usize, action: &Action) {
    let mut raw = Vec::with_capacity(32);
    for word in [action.handler, action.flags, action.restorer, action.mask] {
        raw.extend_from_slice(&word.to_le_bytes());
    }
    let new = program.data(&raw);
    program.call("rt_sigaction", SYS_RT_SIGACTION, [signal.into(), new, 0_u64.into(), 8_u64.into()]);
}

/// Also where it is none: a leader comes with the one that our own runtime had, at an address that is no longer.
fn set_alternate_stack(program: &mut Program, stack: &AlternateStack) {
    let flags = if stack.flags & SS_DISABLE == 0 { stack.flags & SS_AUTODISARM } else { SS_DISABLE };
    let mut raw = Vec::with_capacity(24);
    raw.extend_from_slice(&stack.address.to_le_bytes());
    raw.extend_from_slice(&u64::from(flags as u32).to_le_bytes());
    raw.extend_from_slice(&stack.size.to_le_bytes());
    let new = program.data(&raw);
    program.call("sigaltstack", SYS_SIGALTSTACK, [new, 0_u64.into()]);
}

fn prctl(program: &mut Program, option: u64, value: Argument) {
    let zero: u64 = 0;
    program.call("prctl", SYS_PRCTL, [option.into(), value, zero.into(), zero.into(), zero.into()]);
}

/// The first part of [`Restorer::thread_program`]: what a thread sets for itself, whatever its process is like.
fn own_settings(thread: &Thread, with_sequences: bool) -> Program {
    let mut program = Program::new();
    let zero: u64 = 0;
    let mut name = thread.name.clone();
    name.truncate(15);
    let name = program.text(&name);
    prctl(&mut program, PR_SET_NAME, name);
    prctl(&mut program, PR_SET_TIMERSLACK, thread.timer_slack_ns.into());
    if thread.timestamp_counter_mode > PR_TSC_ENABLE {
        prctl(&mut program, PR_SET_TSC, thread.timestamp_counter_mode.into());
    }
    if let Some(policy) = thread.machine_check.filter(|policy| *policy != PR_MCE_KILL_DEFAULT) {
        let arguments = [PR_MCE_KILL.into(), 1_u64.into(), policy.into(), zero.into(), zero.into()];
        program.call("prctl(PR_MCE_KILL)", SYS_PRCTL, arguments);
    }
    for (which, value) in thread.speculation.into_iter().enumerate() {
        // What is not restricted is what a new task has; a processor without the flaw has nothing to restrict.
        if value & PR_SPEC_PRCTL != 0 && value & PR_SPEC_RESTRICTED != 0 {
            let value = (value & !PR_SPEC_PRCTL) as u64;
            let arguments = [PR_SET_SPECULATION_CTRL.into(), which.into(), value.into(), zero.into(), zero.into()];
            program.try_call("prctl(PR_SET_SPECULATION_CTRL)", SYS_PRCTL, arguments);
        }
    }
    let (address, length, signature, flags) = thread.restartable_sequence;
    if address != 0 && with_sequences {
        program.call("rseq", SYS_RSEQ, [address.into(), length.into(), flags.into(), signature.into()]);
    }
    let (head, bytes) = thread.robust_list;
    program.call("set_robust_list", SYS_SET_ROBUST_LIST, [head.into(), bytes.max(24).into()]);
    program.call("set_tid_address", SYS_SET_TID_ADDRESS, [thread.clear_child_tid.into()]);
    set_alternate_stack(&mut program, &thread.alternate_stack);
    program.call("personality", SYS_PERSONALITY, [thread.personality.into()]);
    program
}

/// What [`Restorer::thread_program`] is for a thread that is like its maker in everything else and has nothing queued.
pub(super) fn plain_program(thread: &Thread) -> Program {
    let mut program = own_settings(thread, true);
    end_plainly(&mut program, thread);
    program
}

fn end_plainly(program: &mut Program, thread: &Thread) {
    prctl(program, PR_SET_PDEATHSIG, thread.parent_death_signal.into());
}

/// Has every signal do what it does by default: a restorer may have inherited ignored ones, and its children reaped by
/// the kernel.
pub(super) fn default_actions(program: &mut Program) {
    for signal in (1..=SIGNALS).filter(|signal| !UNCATCHABLE.contains(signal)) {
        set_action(program, signal, &Action::default());
    }
}

impl Restorer {
    /// Runs one program in each of several threads at the same time; none of them ends by a trap, and no signal comes
    /// through to the end.
    pub(super) fn run_all(&mut self, programs: &[(Pid, Program)]) -> Result<()> {
        let (small, large): (Vec<_>, Vec<_>) =
            programs.iter().partition(|(tid, program)| self.slot(*tid).is_ok_and(|slot| slot.holds(program)));
        for (tid, program) in large {
            let slot = self.arena.bulk();
            self.puppet(*tid)?.start(&self.arena, slot, program, Ending::Exit)?;
            self.puppet(*tid)?.await_done(&self.arena, slot)?;
            self.puppets.get_mut(tid).ok_or_else(|| missing(ObjectId(0)))?.stopped(&self.arena, slot, program)?;
        }
        for (tid, program) in &small {
            self.puppet(*tid)?.start(&self.arena, self.slot(*tid)?, program, Ending::Exit)?;
        }
        for (tid, _) in &small {
            self.puppet(*tid)?.await_done(&self.arena, self.slot(*tid)?)?;
        }
        for (tid, program) in &small {
            let slot = self.slot(*tid)?;
            self.puppets.get_mut(tid).ok_or_else(|| missing(ObjectId(0)))?.stopped(&self.arena, slot, program)?;
        }
        Ok(())
    }

    /// Runs one small program in each of several threads at the same time, ending by traps: the disposition of SIGTRAP must not be
    /// the final one yet.
    pub(super) fn run_beside(&mut self, programs: &[(Pid, Program)]) -> Result<()> {
        for (tid, program) in programs {
            self.puppet(*tid)?.start(&self.arena, self.slot(*tid)?, program, Ending::Trap)?;
        }
        for (tid, program) in programs {
            let slot = self.slot(*tid)?;
            self.puppets.get_mut(tid).ok_or_else(|| missing(ObjectId(0)))?.finish(&self.arena, slot, program)?;
        }
        Ok(())
    }

    /// Process-wide state that needs no privilege to be gone yet: dispositions, flags of the address space.
    pub(super) fn process_program(&self, task: &Task) -> Program {
        let mut program = Program::new();
        // Ignoring a signal drops what is queued of it: what the building of its children has sent.
        let mut sent: Vec<usize> = vec![SIGCHLD];
        for child in self.tree.tasks.iter().filter(|child| child.parent == task.pid && child.exit_signal > 0) {
            if !sent.contains(&(child.exit_signal as usize)) && child.exit_signal as usize <= SIGNALS {
                sent.push(child.exit_signal as usize);
            }
        }
        let actions = if task.shares_actions { &[] } else { task.actions.as_slice() };
        for (index, action) in actions.iter().enumerate().take(SIGNALS) {
            let signal = index + 1;
            if UNCATCHABLE.contains(&signal) || signal == SIGTRAP {
                continue;
            }
            if sent.contains(&signal) {
                set_action(&mut program, signal, &Action { handler: SIG_IGN, ..Action::default() });
            } else if *action == Action::default() {
                // As it was born (see `default_actions`).
                continue;
            }
            set_action(&mut program, signal, action);
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

    /// One thread's own state, privileges last. Must not end by a trap: SIGTRAP's disposition is part of it. Who was born with its
    /// restartable sequences (see `crew`) cannot register them again.
    pub(super) fn thread_program(&self, task: &Task, thread: &Thread, now: &Credentials) -> Program {
        let is_registered = self.crew.as_ref().is_some_and(|crew| crew.is_registered(thread.tid));
        self.program_of(task, thread, now, !is_registered)
    }

    /// The same, with or without its restartable sequences.
    pub(super) fn program_of(&self, task: &Task, thread: &Thread, now: &Credentials, with_sequences: bool) -> Program {
        let zero: u64 = 0;
        let mut program = own_settings(thread, with_sequences);
        let first = task.threads.iter().find(|thread| !thread.dead).map(|first| first.tid) == Some(thread.tid);
        if let Some(action) = task.actions.get(SIGTRAP - 1).filter(|_| first && !task.shares_actions) {
            set_action(&mut program, SIGTRAP, action);
        }
        let queued = self.queued(task, thread);
        if queued.len() <= queued_signals::TOGETHER {
            queued_signals::queue(&mut program, task, thread, &queued);
        }
        if let Some((soft, hard)) = task.limits.get(RLIMIT_SIGPENDING).filter(|_| first) {
            // Only now: it may be lower than what is queued.
            let mut raw = soft.to_le_bytes().to_vec();
            raw.extend_from_slice(&hard.to_le_bytes());
            let new = program.data(&raw);
            program.call("prlimit64", SYS_PRLIMIT64, [zero.into(), RLIMIT_SIGPENDING.into(), new, zero.into()]);
        }
        credentials::program(&mut program, &thread.credentials, now);
        end_plainly(&mut program, thread);
        program
    }

    /// What has to wait until every thread of a process has its credentials: changing them clears the dumpable flag.
    /// Interval timers are armed as late as possible: from here on they run.
    pub(super) fn last_program(&self, task: &Task) -> Program {
        let mut program = Program::new();
        let zero = 0_u64;
        if let Some(space) = task.space.and_then(|id| self.tree.space(id)) {
            // 2 (only root may read) cannot be set: it is what the kernel chooses by fs.suid_dumpable; checked behind.
            let value = u64::from(space.dumpable);
            if value < 2 {
                let arguments = [PR_SET_DUMPABLE.into(), value.into(), zero.into(), zero.into(), zero.into()];
                program.call("prctl(PR_SET_DUMPABLE)", SYS_PRCTL, arguments);
            }
        }
        Restorer::timers(&mut program, task);
        program
    }

    fn timers(program: &mut Program, task: &Task) {
        for (which, (value, interval)) in task.interval_timers.into_iter().enumerate() {
            if value == 0 && interval == 0 {
                continue;
            }
            // The real timer does not run while its signal waits to be taken: it expires again at once, and waits too.
            let value = value.max(1);
            let mut raw = Vec::with_capacity(32);
            for word in [interval / 1_000_000, interval % 1_000_000, value / 1_000_000, value % 1_000_000] {
                raw.extend_from_slice(&word.to_le_bytes());
            }
            let new = program.data(&raw);
            program.call("setitimer", SYS_SETITIMER, [which.into(), new, 0_u64.into()]);
        }
    }

    /// What a task that is a zombie in the image does to become one.
    pub(super) fn zombie_program(&self, task: &Task, status: i32) -> Result<Program> {
        const CORE: i32 = 0x80;
        let mut program = Program::new();
        let zero = 0_u64;
        if let Some(leader) = task.threads.first() {
            let name = program.text(&leader.name[..leader.name.len().min(15)]);
            let arguments = [PR_SET_NAME.into(), name, zero.into(), zero.into(), zero.into()];
            program.call("prctl(PR_SET_NAME)", SYS_PRCTL, arguments);
            let nothing = program.data(&[0; 16]);
            program.call("prlimit64", SYS_PRLIMIT64, [zero.into(), RLIMIT_CORE.into(), nothing, zero.into()]);
            let [real, effective, saved, _] = leader.credentials.group;
            program.call("setresgid", SYS_SETRESGID, [real.into(), effective.into(), saved.into()]);
            let [real, effective, saved, _] = leader.credentials.user;
            program.call("setresuid", SYS_SETRESUID, [real.into(), effective.into(), saved.into()]);
        }
        match (status & 0x7f, status & CORE) {
            (0, _) => {
                program.call("exit_group", SYS_EXIT_GROUP, [(status >> 8 & 0xff).into()]);
            }
            (signal, 0) => {
                let none = program.data(&[0; 8]);
                let two = 2_u64;
                program.call("rt_sigprocmask", SYS_RT_SIGPROCMASK, [two.into(), none, zero.into(), 8_u64.into()]);
                program.call("kill", SYS_KILL, [task.pid.0.into(), signal.into()]);
            }
            _ => {
                let cause = "it has ended and left a core file, and nobody has waited for it";
                return Err(super::skeleton::unsupported(task.pid, cause.to_owned())
                    .choice("let its parent wait for it before the move"));
            }
        }
        Ok(program)
    }

    /// Ends leaders that have ended while their threads go on.
    pub(super) fn end_dead_leaders(&mut self, tasks: &[Task]) -> Result<()> {
        for task in tasks {
            let Some(leader) = task.threads.first().filter(|leader| leader.dead) else { continue };
            let mut program = Program::new();
            let zero = 0_u64;
            let name = program.text(&leader.name[..leader.name.len().min(15)]);
            let arguments = [PR_SET_NAME.into(), name, zero.into(), zero.into(), zero.into()];
            program.call("prctl(PR_SET_NAME)", SYS_PRCTL, arguments);
            // It was born to die with us, and the kernel asks dead leaders, too, when their parent ends.
            program.call("prctl(PR_SET_PDEATHSIG)", SYS_PRCTL, [PR_SET_PDEATHSIG.into(), zero.into()]);
            program.call("exit", SYS_EXIT, [(leader.exit_status >> 8 & 0xff).into()]);
            let slot = self.slot(task.pid)?;
            let mut puppet = self
                .puppets
                .remove(&task.pid)
                .ok_or_else(|| malformed(Subject::Process(task.pid.0), "it does not exist yet"))?;
            puppet.depart(&self.arena, slot, &program)?;
            let begin = Instant::now();
            loop {
                let now = stat::read(task.pid.0, task.pid.0).about(|| Subject::Process(task.pid.0))?;
                if now.state == b'Z' {
                    break;
                }
                if begin.elapsed() > Duration::from_secs(5) {
                    let cause = "its first thread does not end";
                    return Err(Refusal::new(Code::RESTORE_FAILED, Subject::Process(task.pid.0), cause));
                }
                std::thread::yield_now();
            }
        }
        Ok(())
    }

    /// Living tasks.
    pub(super) fn living(&self) -> Vec<Task> {
        self.tree.tasks.iter().filter(|task| !matches!(task.state, State::Zombie(_))).cloned().collect()
    }
}
