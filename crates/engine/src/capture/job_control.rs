//! Job control that is on its way when a tree is frozen: whether a process stops or goes on shows when the tree does.
use crate::failure::{About, Result};
use crate::freeze::{FrozenProcess, Stopped, libc_signal};
use godwit_image::task::Task;
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

const CONTINUE_BIT: u64 = 1 << (libc_signal::CONTINUE - 1);

/// That no SIGCONT waits: a tree is kept still by SIGSTOP, both here and where it is built, and the kernel drops one when the
/// other comes (signal(7), kernel/signal.c prepare_signal).
///
/// # Errors
/// GW1105: it is about to be taken. GW1104: it is blocked, and stays for as long as the program likes.
pub(super) fn no_continuation(task: &Task) -> Result<()> {
    let of_threads = task.threads.iter().flat_map(|thread| &thread.pending);
    let waits = task
        .pending
        .iter()
        .chain(of_threads)
        .any(|queued| queued.information.first_chunk() == Some(&libc_signal::CONTINUE.to_le_bytes()));
    if !waits {
        return Ok(());
    }
    let mut living = task.threads.iter().filter(|thread| !thread.dead);
    if living.all(|thread| thread.signal_mask & CONTINUE_BIT != 0) {
        return Err(blocked_continuation(task.pid.0));
    }
    Err(Refusal::new(Code::PASSING_MOMENT, Subject::Process(task.pid.0), "it is about to take SIGCONT"))
}

/// The refusal for a blocked SIGCONT.
pub(crate) fn blocked_continuation(pid: i32) -> Refusal {
    let cause = "SIGCONT waits and is blocked; keeping the tree still would drop it";
    Refusal::new(Code::UNSUPPORTED, Subject::Process(pid), cause)
        .choice("let the program take it (sigwait, or unblock it)")
}

/// Whether a SIGCONT waits that is blocked, by what /proc/PID/status tells: sets of signals, bit n-1 is signal n.
pub(crate) fn has_blocked_continuation(pending: u64, blocked: u64) -> bool {
    pending & blocked & CONTINUE_BIT != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_blocked_continuation_stays() {
        assert!(has_blocked_continuation(1 << 17, 1 << 17));
        assert!(!has_blocked_continuation(1 << 17, 1 << 16));
        assert!(!has_blocked_continuation(1 << 16, u64::MAX));
    }
}
