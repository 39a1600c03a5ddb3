//! System calls that the freeze interrupts, and how each goes on as if it had not been.
//!
//! The kernel ends an interrupted call with a code of its own, and decides when the thread is let go what becomes of it:
//!
//! ```text
//!   -512 -513 -514   made again, or EINTR when a handler runs: the kernel does it, here and at the destination
//!   -516             continued with the time that is left, which the kernel keeps in the thread: at the destination the
//!                    call is made once with that time and cut short, so that the kernel there knows it too
//!   -4 (EINTR)       epoll_wait and a few others give up. The moment that such a thread has stopped, its result becomes
//!                    -514: made again, or EINTR when a handler runs, also when this process dies meanwhile
//! ```
//!
//! A call that is made again waits for the time that is left, not for its whole time: see `resumption`.
//!
//! select, pselect and ppoll write the time that is left where their time-out was given, as they do at any interruption.
use crate::freeze::Stopped;
use crate::resumption;
use crate::sleep::Sleep;
use godwit_image::task::Wait;
use godwit_linux::ptrace::{self, Registers};
use std::time::Instant;

/// How the kernel would restart an interrupted call; see arch/x86/kernel/signal.c.
pub(crate) mod restart {
    /// Interrupted, and not restarted by the kernel.
    pub(crate) const EINTR: i64 = -4;
    /// Restart unless a handler runs without SA_RESTART.
    pub(crate) const ERESTARTSYS: i64 = -512;
    /// Always restart.
    pub(crate) const ERESTARTNOINTR: i64 = -513;
    /// What a call on a socket answers when its time is over.
    pub(crate) const EAGAIN: i64 = -11;
    /// Restart only when no handler runs.
    pub(crate) const ERESTARTNOHAND: i64 = -514;
    /// Restart through restart_syscall(2) with the remaining time.
    pub(crate) const ERESTART_RESTARTBLOCK: i64 = -516;
    /// restart_syscall(2).
    pub(crate) const SYS_RESTART_SYSCALL: u64 = 219;
}

/// Calls that end with EINTR when a thread is stopped in them although no handler runs (signal(7)), and that have done
/// nothing then: epoll_wait, epoll_pwait, epoll_pwait2, rt_sigtimedwait, semop, semtimedop, io_getevents, io_uring_enter;
/// on sockets with SO_RCVTIMEO or SO_SNDTIMEO read, write, readv, writev, preadv2, pwritev2, sendfile, splice, connect,
/// recvfrom, recvmsg, recvmmsg, sendto, sendmsg, sendmmsg, accept, accept4; with a time-out in memory that cannot be
/// written select, pselect6, ppoll.
const GIVE_UP: [u64; 28] = [
    232, 281, 441, 128, 65, 220, 208, 426, 0, 1, 19, 20, 327, 328, 40, 275, 42, 45, 47, 299, 44, 46, 307, 43, 288, 23,
    270, 271,
];

/// Has the kernel make a call again when the thread goes on, unless a handler runs then: that ends it with EINTR.
pub(crate) fn again(registers: &mut Registers, call: u64) {
    registers.orig_rax = call;
    registers.rax = restart::ERESTARTNOHAND as u64;
}

/// Turns the result of a call that gave up because of the stop alone into one that the kernel makes again.
fn mend_registers(registers: &mut Registers) -> bool {
    let gave_up = registers.rax as i64 == restart::EINTR && GIVE_UP.contains(&registers.orig_rax);
    if gave_up {
        again(registers, registers.orig_rax);
    }
    gave_up
}

/// Mends a thread that has just stopped.
pub(crate) fn mend(thread: &mut Stopped) {
    // A failure means that the thread is dead, which whoever needs it finds out.
    let Ok(mut registers) = ptrace::registers(thread.tid()) else { return };
    if !mend_registers(&mut registers) || ptrace::set_registers(thread.tid(), &registers).is_ok() {
        thread.keep_registers(registers);
    }
}

/// Whether a thread was stopped in a call that the kernel continues, and `sleep`, what it was in when it was looked at, does not tell
/// which call that was: a new task could only give it up. Who had no processor at the look was in none.
pub(crate) fn is_unknown(registers: &Registers, sleep: Option<&Sleep>) -> bool {
    let is_continued =
        (registers.orig_rax, registers.rax as i64) == (restart::SYS_RESTART_SYSCALL, restart::ERESTART_RESTARTBLOCK);
    is_continued && !sleep.is_some_and(|sleep| sleep.is_of(registers.orig_rax, registers.rdi))
}

/// Sets the registers so that a new task continues an interrupted call. `sleep`: the timed wait that the thread was in,
/// and when it was stopped. Returns the wait whose rest has to be rebuilt, and a word for people.
pub(crate) fn resume_point(registers: &mut Registers, sleep: Option<(&Sleep, Instant)>) -> (Option<Wait>, String) {
    let call = registers.orig_rax;
    if (call as i64) < 0 {
        return (None, String::new());
    }
    let note = format!("in system call {call}");
    let known = sleep.filter(|(sleep, _)| sleep.is_of(call, registers.rdi));
    let continued = registers.rax as i64 == restart::ERESTART_RESTARTBLOCK;
    let left = known.and_then(|(sleep, now)| Some((sleep.call, sleep.remaining_ns(now)?)));
    let cut = continued || registers.rax as i64 == restart::ERESTARTNOHAND;
    if let Some((call, remaining_ns)) = left.filter(|(call, _)| cut && resumption::knows(*call)) {
        return (Some(Wait { call, remaining_ns }), note);
    }
    if continued {
        // A new task knows no remaining time: the call is made again, where it is known which it was.
        let call = known.map_or(call, |(sleep, _)| u64::from(sleep.call));
        if call == restart::SYS_RESTART_SYSCALL {
            registers.rax = restart::EINTR as u64;
        } else {
            again(registers, call);
        }
    }
    (None, note)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sleep;

    fn stopped_in(call: u64, result: i64) -> Registers {
        let mut registers = ptrace::from_words(&[0; ptrace::REGISTER_WORDS]);
        registers.orig_rax = call;
        registers.rax = result as u64;
        registers.rip = 0x1002;
        registers
    }

    #[test]
    fn a_wait_that_gave_up_is_made_again_by_the_kernel() {
        let mut registers = stopped_in(232, restart::EINTR);
        assert!(mend_registers(&mut registers));
        assert_eq!((registers.rax as i64, registers.rip, registers.orig_rax), (restart::ERESTARTNOHAND, 0x1002, 232));
        assert!(!mend_registers(&mut registers));
    }

    #[test]
    fn what_has_an_effect_is_not_made_again() {
        // close(2) has closed the descriptor; a call that returned something did its work.
        assert!(!mend_registers(&mut stopped_in(3, restart::EINTR)));
        assert!(!mend_registers(&mut stopped_in(232, 1)));
        assert!(!mend_registers(&mut stopped_in(u64::MAX, restart::EINTR)));
    }

    #[test]
    fn a_new_task_makes_a_call_again_whose_rest_is_not_known() {
        let mut registers = stopped_in(u64::from(sleep::POLL), restart::ERESTART_RESTARTBLOCK);
        assert_eq!(resume_point(&mut registers, None).0, None);
        assert_eq!((registers.rax as i64, registers.orig_rax), (restart::ERESTARTNOHAND, u64::from(sleep::POLL)));
        // Continued once already: which call it was is known from where it slept, or not at all.
        let mut registers = stopped_in(restart::SYS_RESTART_SYSCALL, restart::ERESTART_RESTARTBLOCK);
        let now = Instant::now();
        let absolute = Sleep { call: sleep::FUTEX, argument: 0, until: None, naps: 0 };
        assert_eq!(resume_point(&mut registers, Some((&absolute, now))).0, None);
        assert_eq!((registers.rax as i64, registers.orig_rax), (restart::ERESTARTNOHAND, u64::from(sleep::FUTEX)));
        let mut registers = stopped_in(restart::SYS_RESTART_SYSCALL, restart::ERESTART_RESTARTBLOCK);
        assert_eq!(resume_point(&mut registers, None).0, None);
        assert_eq!(registers.rax as i64, restart::EINTR);
        let timed = Sleep { until: Some(now), ..absolute };
        let mut registers = stopped_in(restart::SYS_RESTART_SYSCALL, restart::ERESTART_RESTARTBLOCK);
        let wait = Wait { call: sleep::FUTEX, remaining_ns: 0 };
        assert_eq!(resume_point(&mut registers, Some((&timed, now))).0, Some(wait));
        let timed = Sleep { call: 232, ..timed };
        let mut registers = stopped_in(232, restart::ERESTARTNOHAND);
        let wait = Wait { call: 232, remaining_ns: 0 };
        assert_eq!(resume_point(&mut registers, Some((&timed, now))).0, Some(wait));
        assert!(is_unknown(&stopped_in(restart::SYS_RESTART_SYSCALL, restart::ERESTART_RESTARTBLOCK), None));
        let registers = stopped_in(restart::SYS_RESTART_SYSCALL, restart::ERESTART_RESTARTBLOCK);
        assert!(is_unknown(&registers, Some(&Sleep { argument: 1, ..absolute })));
        assert!(!is_unknown(&registers, Some(&absolute)));
        assert!(!is_unknown(&stopped_in(u64::from(sleep::FUTEX), restart::ERESTART_RESTARTBLOCK), None));
        // It has come back with a result: it waits no more.
        assert_eq!(resume_point(&mut stopped_in(232, 0), Some((&timed, now))).0, None);
    }
}
