//! Tasks: processes and their threads.
use crate::credentials::Credentials;
use crate::id::{ObjectId, Pid};
use crate::signal::{Action, AlternateStack, Queued};
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// One process (thread group).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Task {
    /// Number in its own PID namespace.
    pub pid: Pid,
    /// Parent's number; of the root it may lie outside the tree.
    pub parent: Pid,
    /// The thread of the parent that made it: a parent-death signal comes at the end of that thread.
    #[serde(default)]
    pub parent_thread: Option<Pid>,
    /// Process group.
    pub group: Pid,
    /// Session.
    pub session: Pid,
    /// Signal that the parent gets at its end.
    pub exit_signal: i32,
    /// Running, stopped, zombie.
    pub state: State,
    /// A stop or continuation of which the parent has not been told by waitpid(2) yet, as a wait status; 0 = none.
    #[serde(default)]
    pub untold: i32,
    /// Its dispositions are its parent's own (CLONE_SIGHAND).
    #[serde(default)]
    pub shares_actions: bool,
    /// Address space; none for a zombie.
    pub space: Option<ObjectId>,
    /// All 64 dispositions, signal 1 first.
    pub actions: Vec<Action>,
    /// Signals queued for the whole process.
    pub pending: Vec<Queued>,
    /// Soft and hard limit by RLIMIT_* number.
    pub limits: Vec<(u64, u64)>,
    /// /proc/PID/oom_score_adj.
    pub out_of_memory_adjustment: i32,
    /// PR_GET_CHILD_SUBREAPER.
    pub child_subreaper: bool,
    /// ITIMER_REAL, _VIRTUAL, _PROF: (value µs, interval µs).
    pub interval_timers: [(u64, u64); 3],
    /// Threads, the leader first.
    #[serde(with = "crate::threads")]
    pub threads: Vec<Thread>,
    /// Objects of scope task (POSIX timers, record locks, …), as envelopes.
    pub objects: Vec<ObjectId>,
}

/// Run state of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum State {
    /// Runs or sleeps.
    Running,
    /// Stopped by job control; the signal.
    Stopped(i32),
    /// Dead and not waited for; the wait status.
    Zombie(i32),
}

/// One thread.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Thread {
    /// Number in its own PID namespace.
    pub tid: Pid,
    /// /proc/…/comm, up to 15 bytes.
    #[serde(with = "serde_bytes")]
    pub name: Vec<u8>,
    /// struct user_regs_struct, 27 words, already adjusted so that resuming continues an interrupted call.
    pub registers: Vec<u64>,
    /// NT_X86_XSTATE regset; zeros at the end, up to the length that the host told, may be missing.
    #[serde(with = "serde_bytes")]
    pub extended_state: Vec<u8>,
    /// Blocked signals.
    pub signal_mask: u64,
    /// Signals queued for this thread.
    pub pending: Vec<Queued>,
    /// sigaltstack(2).
    pub alternate_stack: AlternateStack,
    /// clear_child_tid.
    pub clear_child_tid: u64,
    /// get_robust_list(2): head address, length in bytes.
    pub robust_list: (u64, u64),
    /// Restartable sequences: address, length, signature, flags; address 0 = not registered.
    pub restartable_sequence: (u64, u32, u32, u32),
    /// Credentials.
    pub credentials: Credentials,
    /// File table; None for a dead thread-group leader.
    pub files: Option<ObjectId>,
    /// Working directory and umask.
    pub filesystem: Option<ObjectId>,
    /// PR_GET_PDEATHSIG.
    pub parent_death_signal: i32,
    /// PR_GET_TIMERSLACK, ns.
    pub timer_slack_ns: u64,
    /// personality(2).
    pub personality: u32,
    /// Scheduling.
    pub scheduling: Scheduling,
    /// sched_getaffinity mask, little-endian bytes; empty when it may run on every processor.
    #[serde(with = "serde_bytes")]
    pub affinity: Vec<u8>,
    /// ioprio_get(2).
    pub io_priority: i32,
    /// PR_GET_TSC.
    pub timestamp_counter_mode: i32,
    /// prctl(PR_MCE_KILL_GET): 0 late, 1 early, 2 default.
    #[serde(default)]
    pub machine_check: Option<i32>,
    /// prctl(PR_GET_SPECULATION_CTRL) of store bypass, indirect branch, L1D flush.
    #[serde(default)]
    pub speculation: [i32; 3],
    /// prctl(PR_SET_SYSCALL_USER_DISPATCH): mode, selector, offset, length.
    #[serde(default)]
    pub user_dispatch: Option<[u64; 4]>,
    /// The leader ended while other threads go on.
    pub dead: bool,
    /// Of a dead leader: how it ended, as a wait status.
    #[serde(default)]
    pub exit_status: i32,
    /// The timed wait that the freeze cut short, when it has to go on with the time that was left.
    #[serde(default)]
    pub wait: Option<Wait>,
    /// Free text about state that needs a word (`waiting in nanosleep`), for people.
    pub note: String,
}

/// A timed wait that was cut short: made again at the destination with `remaining_ns`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Wait {
    /// The system call; its arguments are in the registers.
    pub call: u32,
    /// ns from the freeze to its end.
    pub remaining_ns: u64,
}

/// sched_getattr(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Scheduling {
    /// SCHED_*.
    pub policy: u32,
    /// SCHED_FLAG_*.
    pub flags: u64,
    /// Nice value.
    pub nice: i32,
    /// Real-time priority.
    pub priority: u32,
    /// Deadline parameters in ns.
    pub runtime: u64,
    /// ns.
    pub deadline: u64,
    /// ns.
    pub period: u64,
}
