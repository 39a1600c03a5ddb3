//! Job control that is on its way when a tree is frozen: whether a process stops or goes on shows when the tree does.
use crate::failure::{About, Result};
use crate::freeze::{FrozenProcess, Stopped, libc_signal};
use godwit_image::{Code, Refusal, Subject};
use godwit_linux::ptrace;

/// That no stop and no continuation is pending. A program must have run in every thread before: SIGSTOP, which nobody can
/// block, is found when it is about to be taken.
///
/// # Errors
/// GW1105: the moment passes when the tree goes on for a little.
pub(super) fn settled(process: &FrozenProcess) -> Result<()> {
    let passing = |cause: &str| Err(Refusal::new(Code::PASSING_MOMENT, Subject::Process(process.pid), cause));
    if process.threads.iter().any(Stopped::is_about_to_stop) {
        return passing("it is about to be stopped by job control");
    }
    let Some(first) = process.threads.first().filter(|_| process.group_stop() != 0) else { return Ok(()) };
    let waiting = ptrace::pending_signals(first.tid(), true).about(|| first.subject())?;
    if waiting.iter().any(|information| information.first_chunk() == Some(&libc_signal::CONTINUE.to_le_bytes())) {
        return passing("it is about to be continued by job control");
    }
    Ok(())
}
