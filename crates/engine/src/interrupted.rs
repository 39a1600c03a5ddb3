//! System calls that the freeze interrupts, and how each goes on as if it had not been.
//!
//! The kernel ends an interrupted call with a code of its own, and decides when the thread is let go what becomes of it:
//!
//! ```text
//!   -512 -513 -514   made again, or EINTR when a handler runs: the kernel does it, here and at the destination
//!   -516             continued with the time that is left, which the kernel keeps in the thread: at the destination the
//!                    call is made once with that time and cut short, so that the kernel there knows it too
//!   -4 (EINTR)       epoll_wait and a few others give up: they are made again, unless a signal waits that would have
//!                    ended them anyway; a time-out of theirs starts over, since the kernel has forgotten it and what the
//!                    program sees of its arguments must not change
//! ```
//!
//! select, pselect and ppoll write the time that is left where their time-out was given, as they do at any interruption.
use crate::freeze::Stopped;
use godwit_linux::proc::status;
use godwit_linux::ptrace::{self, Registers};

/// How the kernel would restart an interrupted call; see arch/x86/kernel/signal.c.
pub(crate) mod restart {
    /// Interrupted, and not restarted by the kernel.
    pub(crate) const EINTR: i64 = -4;
    /// Restart unless a handler runs without SA_RESTART.
    pub(crate) const ERESTARTSYS: i64 = -512;
    /// Always restart.
    pub(crate) const ERESTARTNOINTR: i64 = -513;
    /// Restart only when no handler runs.
    pub(crate) const ERESTARTNOHAND: i64 = -514;
    /// Restart through restart_syscall(2) with the remaining time.
    pub(crate) const ERESTART_RESTARTBLOCK: i64 = -516;
    /// restart_syscall(2).
    pub(crate) const SYS_RESTART_SYSCALL: u64 = 219;
}

/// Calls that end with EINTR when a thread is stopped in them although no handler runs (signal(7)), and that have done
/// nothing then: epoll_wait, epoll_pwait, epoll_pwait2, rt_sigtimedwait, semop, semtimedop, io_getevents, io_uring_enter;
/// on sockets with SO_RCVTIMEO or SO_SNDTIMEO read, write, readv, writev, recvfrom, recvmsg, recvmmsg, sendto, sendmsg,
/// sendmmsg, accept, accept4.
const GIVE_UP: [u64; 20] = [232, 281, 441, 128, 65, 220, 208, 426, 0, 1, 19, 20, 45, 47, 299, 44, 46, 307, 43, 288];

/// Whether a call gave up because of the stop alone. `deliverable`: a signal waits that the thread would take.
pub(crate) fn gave_up(registers: &Registers, deliverable: impl FnOnce() -> bool) -> bool {
    registers.rax as i64 == restart::EINTR && GIVE_UP.contains(&registers.orig_rax) && !deliverable()
}

/// Has the call made again from its start.
pub(crate) fn again(registers: &mut Registers) {
    registers.rax = registers.orig_rax;
    registers.rip = registers.rip.wrapping_sub(2);
    registers.orig_rax = u64::MAX;
}

/// A signal waits that a thread with this mask takes when it goes on.
pub(crate) fn deliverable(status: &status::Status, mask: u64) -> bool {
    (status.pending | status.shared_pending) & !mask & !status.ignored != 0
}

/// Before a thread of a source is let go: a call that gave up because of the freeze is made again.
pub(crate) fn mend(thread: &Stopped) {
    let (pid, tid) = (thread.pid(), thread.tid());
    let Ok(mut registers) = ptrace::registers(tid) else { return };
    let waits = || match (status::read(pid, tid), ptrace::signal_mask(tid)) {
        (Ok(status), Ok(mask)) => deliverable(&status, mask),
        _ => true,
    };
    if gave_up(&registers, waits) {
        again(&mut registers);
        // A failure means that the thread is dead.
        let _ = ptrace::set_registers(tid, &registers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stopped_in(call: u64, result: i64) -> Registers {
        let mut registers = ptrace::from_words(&[0; ptrace::REGISTER_WORDS]);
        registers.orig_rax = call;
        registers.rax = result as u64;
        registers.rip = 0x1002;
        registers
    }

    #[test]
    fn a_wait_that_gave_up_is_made_again() {
        let mut registers = stopped_in(232, restart::EINTR);
        assert!(gave_up(&registers, || false));
        assert!(!gave_up(&registers, || true));
        again(&mut registers);
        assert_eq!((registers.rax, registers.rip, registers.orig_rax), (232, 0x1000, u64::MAX));
    }

    #[test]
    fn what_has_an_effect_is_not_made_again() {
        // close(2) has closed the descriptor; a call that returned something did its work.
        assert!(!gave_up(&stopped_in(3, restart::EINTR), || false));
        assert!(!gave_up(&stopped_in(232, 1), || false));
        assert!(!gave_up(&stopped_in(u64::MAX, restart::EINTR), || false));
    }
}
