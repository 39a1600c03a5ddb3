//! What POSIX timers have missed: expirations since a signal was sent that nobody has taken yet, and the count that came
//! with the last one that was taken (timer_getoverrun(2)).
//!
//! The kernel counts the first when the signal is taken: from the first expiration that nobody was told of to now. So the
//! process takes the signal, and the timer is set to where it expired first, which sends the signal again with the same
//! count. The first program takes the signal and has it sent again at once, so that it is not lost if we die; what was
//! missed before is right again with the second program.
use super::posix_timer::{
    SIGEV_NONE, SIGEV_THREAD_ID, SYS_CLOCK_GETTIME, TIMER_ABSTIME, Timer, nanoseconds, set, subject, timer_of,
};
use crate::failure::{About, Result};
use crate::injector::Injector;
use crate::restore::Bind;
use godwit_image::Pid;
use godwit_linux::program::{Argument, Program, Step};
use godwit_linux::ptrace;

const SYS_RT_SIGTIMEDWAIT: i64 = 128;
/// Where a timer's siginfo has its count.
const OVERRUNS: usize = 20;

type Information = [u8; ptrace::SIGNAL_INFORMATION_BYTES];

/// Whether the count that came with the last signal must be brought back.
pub(super) fn is_told_of(timer: &Timer) -> bool {
    timer.told > 0 && !timer.expired && timer.interval_ns > 0 && timer.clock >= 0 && timer.notify != SIGEV_NONE
}

/// When a timer expired first, `missed` expirations before the last one, by its clock; none before the clock began.
pub(super) fn first(timer: &Timer, now: u64, missed: u64) -> Option<u64> {
    let back = missed.checked_add(1)?.checked_mul(timer.interval_ns)?;
    (now + timer.remaining_ns).checked_sub(back).filter(|first| *first > 0)
}

fn number(information: &[u8]) -> i32 {
    information.first_chunk().map_or(0, |raw| i32::from_le_bytes(*raw))
}

/// The thread that can take a timer's signal, by index: the queues are those of the threads, then the common one. None
/// when more signals of that number wait, which would change their order.
fn taker(queues: &[Vec<Information>], timer: &Timer) -> Option<usize> {
    let common = queues.len().checked_sub(1)?;
    let has = |queue: &Vec<Information>| queue.iter().any(|information| timer_of(information) == Some(timer.id));
    let place = queues.iter().position(has)?;
    let thread = if place == common { 0 } else { place };
    let alike = [thread, common].map(|queue| &queues[queue]).into_iter().flatten();
    (alike.filter(|information| number(*information) == timer.signal).count() == 1).then_some(thread)
}

fn take(program: &mut Program, signal: i32, patience: [u64; 2]) -> (Step, usize) {
    let mask = program.data(&(1_u64 << (signal - 1)).to_le_bytes());
    let (information, place) = program.space(ptrace::SIGNAL_INFORMATION_BYTES);
    let patience = program.data(&patience.map(u64::to_le_bytes).concat());
    let arguments = [mask, information, patience, 8_u64.into()];
    (program.call("rt_sigtimedwait", SYS_RT_SIGTIMEDWAIT, arguments), place)
}

fn ask_time(program: &mut Program, clock: i32) -> usize {
    let (space, place) = program.space(16);
    program.call("clock_gettime", SYS_CLOCK_GETTIME, [Argument::from(clock), space]);
    place
}

/// Counts what timers have missed whose signals wait. `queues`: as for [`taker`].
///
/// # Errors
/// The process is dead.
pub(super) fn count_missed(
    injector: &mut Injector<'_>,
    queues: &[Vec<Information>],
    timers: &mut [Timer],
) -> Result<()> {
    for timer in timers.iter_mut().filter(|timer| timer.expired && timer.interval_ns > 0 && timer.clock >= 0) {
        let Some(thread) = taker(queues, timer) else { continue };
        let pid = injector.process().pid;
        let mut program = Program::new();
        let place = ask_time(&mut program, timer.clock);
        let ran = injector.run(&[(thread, program)])?;
        let Some(before) = ran.first().map(|ran| nanoseconds(ran, place)) else { continue };
        // Where it expired last, or a little later: what counts is that it is over.
        let Some(last) = first(timer, before, 0) else { continue };
        let mut program = Program::new();
        let place = ask_time(&mut program, timer.clock);
        let (taken, information) = take(&mut program, timer.signal, [0, 0]);
        set(&mut program, timer, last, TIMER_ABSTIME);
        let ran = injector.run(&[(thread, program)])?;
        let Some(ran) = ran.first() else { continue };
        ran.result("rt_sigtimedwait", taken).about(|| subject(pid, timer.id))?;
        let missed = u64::from(ran.word(information + OVERRUNS) as u32);
        let since = nanoseconds(ran, place).saturating_sub(last) / timer.interval_ns;
        // From the last one before the signal was taken; by the time of the freeze it had missed so many less.
        let Some(back) = missed.checked_mul(timer.interval_ns) else { continue };
        let Some(begin) = (last + since * timer.interval_ns).checked_sub(back).filter(|begin| *begin > 0) else {
            continue;
        };
        let mut program = Program::new();
        set(&mut program, timer, begin, TIMER_ABSTIME);
        injector.run(&[(thread, program)])?;
        timer.missed = missed.saturating_sub(since);
    }
    Ok(())
}

/// Arms a timer so that the count of its last signal is what it was: it expires at once, as late as it was then, and the
/// signal is taken. False when that cannot be.
///
/// # Errors
/// The task is dead.
pub(super) fn tell_again(bind: &mut Bind, task: Pid, timer: &Timer, now: u64) -> Result<bool> {
    let Some(first) = first(timer, now, u64::from(timer.told)) else { return Ok(false) };
    let thread = timer.thread.filter(|_| timer.notify == SIGEV_THREAD_ID).unwrap_or(task);
    let mut program = Program::new();
    set(&mut program, timer, first, TIMER_ABSTIME);
    take(&mut program, timer.signal, [1, 0]);
    bind.run(thread, &program).map(|_| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timer(id: i32) -> Timer {
        Timer {
            id,
            clock: 1,
            notify: 0,
            signal: 40,
            value: 0,
            thread: None,
            remaining_ns: 30,
            interval_ns: 100,
            expired: true,
            missed: 0,
            told: 0,
        }
    }

    fn information(signal: i32, code: i32, id: i32) -> Information {
        let mut raw = [0; ptrace::SIGNAL_INFORMATION_BYTES];
        raw[..4].copy_from_slice(&signal.to_le_bytes());
        raw[8..12].copy_from_slice(&code.to_le_bytes());
        raw[16..20].copy_from_slice(&id.to_le_bytes());
        raw
    }

    #[test]
    fn the_first_expiration() {
        assert_eq!(first(&timer(1), 1000, 0), Some(930));
        assert_eq!(first(&timer(1), 1000, 2), Some(730));
        assert_eq!(first(&timer(1), 1000, 11), None);
    }

    #[test]
    fn a_signal_among_others_of_its_number_stays_where_it_is() {
        let (own, other) = (information(40, -2, 7), information(40, 0, 0));
        assert_eq!(taker(&[vec![], vec![], vec![own]], &timer(7)), Some(0));
        assert_eq!(taker(&[vec![], vec![own], vec![information(41, 0, 0)]], &timer(7)), Some(1));
        assert_eq!(taker(&[vec![], vec![own], vec![other]], &timer(7)), None);
        assert_eq!(taker(&[vec![other], vec![own], vec![]], &timer(7)), Some(1));
        assert_eq!(taker(&[vec![], vec![], vec![]], &timer(7)), None);
    }
}
