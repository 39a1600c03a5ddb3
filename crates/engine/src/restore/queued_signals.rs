//! Signals that wait to be taken: queued anew in their order. A process may have as many as RLIMIT_SIGPENDING lets it.
use super::Restorer;
use crate::failure::Result;
use crate::resource::posix_timer;
use godwit_image::signal::Queued;
use godwit_image::task::{Task, Thread};
use godwit_linux::program::Program;

const SYS_RT_SIGQUEUEINFO: i64 = 129;
const SYS_RT_TGSIGQUEUEINFO: i64 = 297;
/// So many go with the rest of a thread's state; more take programs of their own, of so many each. A large program has room for
/// five times as many.
pub(super) const TOGETHER: usize = 1000;

/// One of them, and whether it is the whole process's.
pub(super) type Waiting = (bool, Queued);

/// Adds the calls that queue these signals to a program of the thread.
pub(super) fn queue(program: &mut Program, task: &Task, thread: &Thread, signals: &[Waiting]) {
    for (shared, queued) in signals {
        let number = queued.information.first_chunk().map_or(0, |raw| i32::from_le_bytes(*raw));
        let information = program.data(&queued.information);
        if *shared {
            program.call("rt_sigqueueinfo", SYS_RT_SIGQUEUEINFO, [task.pid.0.into(), number.into(), information]);
        } else {
            let arguments = [task.pid.0.into(), thread.tid.0.into(), number.into(), information];
            program.call("rt_tgsigqueueinfo", SYS_RT_TGSIGQUEUEINFO, arguments);
        }
    }
}

impl Restorer {
    /// What a thread queues: its own signals and, when it is the first, those of the whole process.
    pub(super) fn queued(&self, task: &Task, thread: &Thread) -> Vec<Waiting> {
        let plain = |queued: &&Queued| !posix_timer::sends_again(&self.tree, task, &queued.information);
        let mut signals: Vec<Waiting> =
            thread.pending.iter().filter(plain).map(|queued| (false, queued.clone())).collect();
        if task.threads.iter().find(|thread| !thread.dead).map(|first| first.tid) == Some(thread.tid) {
            signals.extend(task.pending.iter().filter(plain).map(|queued| (true, queued.clone())));
        }
        signals
    }

    /// Queues what is too much for the program of a thread's own state.
    pub(super) fn queue_many(&mut self, task: &Task, thread: &Thread) -> Result<()> {
        let signals = self.queued(task, thread);
        if signals.len() <= TOGETHER {
            return Ok(());
        }
        for some in signals.chunks(TOGETHER) {
            let mut program = Program::new();
            queue(&mut program, task, thread, some);
            self.run_all(&[(thread.tid, program)])?;
        }
        Ok(())
    }
}
