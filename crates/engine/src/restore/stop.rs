//! Job control: processes that were stopped are stopped again, and their parents are told exactly as much as before.
//!
//! A stop is told twice: by a signal, which restored dispositions must not see again, and by waitid(2), whose answer may
//! have been taken already. So a stopped process is brought to its end before its parent gets its own dispositions.
use super::Restorer;
use crate::failure::{About, Result};
use godwit_image::Subject;
use godwit_image::task::Task;
use godwit_linux::program::Program;
use godwit_linux::signal;

const SYS_RT_SIGACTION: i64 = 13;
const SYS_WAIT4: i64 = 61;
const WNOHANG: u64 = 1;
const WUNTRACED: u64 = 2;
/// Wait also for children whose exit signal is not SIGCHLD.
const WALL: u64 = 0x4000_0000;
const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;
/// The wait status of a child that was continued.
pub(super) const CONTINUED: i32 = 0xffff;

impl Restorer {
    fn stop(&mut self, task: &Task, signal: i32) -> Result<()> {
        let living = task.threads.iter().filter(|thread| !thread.dead);
        for (index, thread) in living.enumerate() {
            self.puppet_mut(thread.tid)?.stop_group(signal, index == 0)?;
        }
        Ok(())
    }

    /// Stops a process for good; it is otherwise complete. Its parent is not.
    pub(super) fn stop_process(&mut self, task: &Task, signal: i32) -> Result<()> {
        // A stop that the parent has been told of may be any: only one that it has not been told of shows its signal.
        let signal = if task.untold == 0 { SIGSTOP } else { signal };
        self.stop(task, signal)?;
        if task.untold == 0 { self.take_status(task) } else { Ok(()) }
    }

    /// Has the parent wait for the stop, so that it is not told again.
    fn take_status(&mut self, task: &Task) -> Result<()> {
        if !self.puppets.contains_key(&task.parent) {
            // The root's parent is not of the tree.
            return Ok(());
        }
        let mut program = Program::new();
        let zero = 0_u64.into();
        let options = WNOHANG | WUNTRACED | WALL;
        program.call("wait4", SYS_WAIT4, [task.pid.0.into(), zero, options.into(), zero]);
        self.run(task.parent, &program).map(drop)
    }

    /// Leaves a process as one that was continued and whose parent has not been told.
    pub(super) fn continue_processes(&mut self, tasks: &[Task]) -> Result<()> {
        for task in tasks.iter().filter(|task| task.untold == CONTINUED) {
            self.stop(task, SIGSTOP)?;
            signal::send_to_process(task.pid.0, SIGCONT).about(|| Subject::Process(task.pid.0))?;
            let threads: Vec<_> = task.threads.iter().filter(|thread| !thread.dead).map(|thread| thread.tid).collect();
            for tid in &threads {
                self.puppet_mut(*tid)?.continue_group()?;
            }
            if let Some(first) = threads.first() {
                // Ignoring it takes the signal out of the queue.
                let mut program = Program::new();
                let mut ignore = vec![0_u8; 32];
                ignore[0] = 1;
                let ignore = program.data(&ignore);
                let arguments = [SIGCONT.into(), ignore, 0_u64.into(), 8_u64.into()];
                program.call("rt_sigaction", SYS_RT_SIGACTION, arguments);
                self.run(*first, &program)?;
            }
        }
        Ok(())
    }
}
