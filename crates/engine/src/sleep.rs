//! How much time the timed waits of a tree still have, found before it is frozen.
//!
//! The kernel keeps the deadline of a wait where nobody can read it, but tells root when its timers expire
//! (/proc/timer_list) without telling whose they are. A wait is matched with a timer that can be its own: not later than
//! its whole time from now, as imprecise as its kind is, and nearest to where the thread's last turn on a processor
//! (se.exec_start) plus its whole time lies. What is written is exact; the match matters only among alike waits.
//!
//! Without the list (not root) the thread's last turn tells when its wait began: woken for nothing meanwhile, it waits
//! longer than it would have, by its whole time at most.
use godwit_linux::memory::{self, ForeignAddress};
use godwit_linux::proc::syscall::{self, Activity};
use godwit_linux::proc::timer_list::{self, TimerList};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

pub(crate) const NANOSLEEP: u32 = 35;
pub(crate) const CLOCK_NANOSLEEP: u32 = 230;
pub(crate) const POLL: u32 = 7;
pub(crate) const FUTEX: u32 = 202;
/// Timed waits that the kernel continues with the time that is left: the destination makes them and cuts them short.
pub(crate) const REBUILT: [u32; 4] = [NANOSLEEP, CLOCK_NANOSLEEP, POLL, FUTEX];
const RESTART_SYSCALL: u32 = 219;
const EPOLL_WAIT: u32 = 232;
const EPOLL_PWAIT: u32 = 281;
const EPOLL_PWAIT2: u32 = 441;
const RT_SIGTIMEDWAIT: u32 = 128;
const SEMTIMEDOP: u32 = 220;
const IO_GETEVENTS: u32 = 208;
const TIMER_ABSTIME: u64 = 1;
/// FUTEX_PRIVATE_FLAG and FUTEX_CLOCK_REALTIME lie above the command.
const FUTEX_COMMAND: u64 = 0x7f;
const NANOSECONDS: u64 = 1_000_000_000;
/// The kernel lets waits on descriptors be late by a thousandth of their time, at most this.
const LATENESS_MAX: u64 = 100_000_000;
/// Clocks read one after another differ by this at most.
const MARGIN: u64 = 5_000_000;

/// A timed wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sleep {
    /// The system call.
    pub(crate) call: u32,
    /// Its first argument.
    pub(crate) argument: u64,
    /// Its end, if it is known and not part of the call itself.
    pub(crate) until: Option<Instant>,
}

impl Sleep {
    /// Whether it is the wait that a thread was stopped in: of this call, with this first argument.
    pub(crate) fn is_of(&self, call: u64, argument: u64) -> bool {
        (call == u64::from(self.call) || call == u64::from(RESTART_SYSCALL)) && argument == self.argument
    }

    /// What is left at a moment.
    pub(crate) fn remaining_ns(&self, now: Instant) -> Option<u64> {
        self.until.map(|until| until.saturating_duration_since(now).as_nanos() as u64)
    }
}

/// A wait whose end is not known yet.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    pid: i32,
    tid: i32,
    call: u32,
    argument: u64,
    /// Its whole time in ns, if it is known.
    whole: Option<u64>,
}

fn timespec(tid: i32, address: u64) -> Option<u64> {
    let mut raw = [0_u8; 16];
    (memory::read(tid, ForeignAddress(address), &mut raw).ok()? == raw.len()).then_some(())?;
    let seconds = u64::from_le_bytes(*raw.first_chunk()?);
    let nanoseconds = u64::from_le_bytes(*raw.last_chunk()?);
    seconds.checked_mul(NANOSECONDS)?.checked_add(nanoseconds)
}

fn milliseconds(argument: u64) -> Option<u64> {
    u64::try_from(argument as u32 as i32).ok().map(|value| value * 1_000_000)
}

/// The call that restart_syscall(2) continues, by where the thread sleeps in the kernel.
fn continued(pid: i32, tid: i32, arguments: &[u64; 6]) -> Option<u32> {
    let place = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/wchan")).ok()?;
    if place.contains("nanosleep") {
        // The first argument is a small number or a pointer.
        Some(if (arguments[0] as i64) < 4096 { CLOCK_NANOSLEEP } else { NANOSLEEP })
    } else if place.contains("poll") {
        Some(POLL)
    } else if place.contains("futex") {
        Some(FUTEX)
    } else {
        None
    }
}

/// The whole time of a timed relative wait; `None` when the call is none.
fn whole(tid: i32, call: u32, arguments: &[u64; 6]) -> Option<Option<u64>> {
    let [a0, a1, a2, a3, a4, _] = *arguments;
    let at = |address: u64| if address == 0 { None } else { timespec(tid, address) };
    match call {
        NANOSLEEP => Some(at(a0)),
        CLOCK_NANOSLEEP if a1 & TIMER_ABSTIME == 0 => Some(at(a2)),
        POLL => milliseconds(a2).map(Some),
        FUTEX if a1 & FUTEX_COMMAND == 0 && a3 != 0 => Some(at(a3)),
        EPOLL_WAIT | EPOLL_PWAIT => milliseconds(a3).map(Some),
        EPOLL_PWAIT2 | SEMTIMEDOP if a3 != 0 => Some(at(a3)),
        RT_SIGTIMEDWAIT if a2 != 0 => Some(at(a2)),
        IO_GETEVENTS if a4 != 0 => Some(at(a4)),
        _ => None,
    }
}

/// Whether a wait's timer may be as late as one of the list.
fn as_late(waiting: &Waiting, lateness: u64) -> bool {
    match (waiting.call, waiting.whole) {
        (POLL | EPOLL_WAIT | EPOLL_PWAIT | EPOLL_PWAIT2, Some(whole)) => {
            // A thousandth, five of them for nice processes; or the thread's timer slack when that is more.
            let thousandth = (whole / 1000).min(LATENESS_MAX);
            let nice = (whole / 200).min(LATENESS_MAX);
            lateness.abs_diff(thousandth) <= 1000 || lateness.abs_diff(nice) <= 1000 || lateness > thousandth
        }
        _ => lateness < LATENESS_MAX,
    }
}

/// When a thread last left a processor, in ns of the scheduler's clock.
fn last_turn(path: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with("se.exec_start"))?;
    let (milliseconds, rest) = line.rsplit(' ').next()?.split_once('.')?;
    let nanoseconds: u64 = rest.parse().ok()?;
    milliseconds.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(nanoseconds)
}

/// Looks at the threads of a running tree.
pub(crate) fn look(threads: impl Iterator<Item = (i32, i32)>) -> BTreeMap<i32, Sleep> {
    let (mut waiting, mut sleeps) = (Vec::new(), BTreeMap::new());
    for (pid, tid) in threads {
        let Ok(Activity::Call { number, arguments, .. }) = syscall::read(pid, tid) else { continue };
        let call = if number == RESTART_SYSCALL { continued(pid, tid, &arguments) } else { Some(number) };
        let Some(call) = call else { continue };
        let argument = arguments[0];
        if let Some(whole) = whole(tid, call, &arguments) {
            waiting.push(Waiting { pid, tid, call, argument, whole });
        } else if number == RESTART_SYSCALL {
            sleeps.insert(tid, Sleep { call, argument, until: None });
        }
    }
    if waiting.is_empty() {
        return sleeps;
    }
    // The scheduler's clock beside the list's: this thread has just had a turn.
    std::thread::yield_now();
    let turned = last_turn("/proc/thread-self/sched");
    let begin = Instant::now();
    let list = timer_list::read().unwrap_or_default();
    let ends: Vec<Option<u64>> = waiting
        .iter()
        .map(|wait| {
            let turn = last_turn(&format!("/proc/{}/task/{}/sched", wait.pid, wait.tid))?;
            let ago = turned?.saturating_sub(turn);
            Some((list.now_ns + wait.whole?).saturating_sub(ago))
        })
        .collect();
    let found: BTreeMap<usize, u64> = matched(&waiting, &ends, &list).into_iter().collect();
    for (index, (wait, end)) in waiting.iter().zip(ends).enumerate() {
        let until = found.get(&index).copied().or(end);
        let until = until.map(|end| begin + Duration::from_nanos(end.saturating_sub(list.now_ns)));
        sleeps.insert(wait.tid, Sleep { call: wait.call, argument: wait.argument, until });
    }
    sleeps
}

/// Gives each wait a timer of its own: pairs with the least distance between expectation and timer first.
fn matched(waiting: &[Waiting], expected: &[Option<u64>], list: &TimerList) -> Vec<(usize, u64)> {
    let mut pairs = Vec::new();
    for (index, wait) in waiting.iter().enumerate() {
        for (timer, wakeup) in list.wakeups.iter().enumerate() {
            let left = wakeup.earliest_ns.saturating_sub(list.now_ns);
            let possible = wait.whole.is_none_or(|whole| left <= whole.saturating_add(MARGIN));
            if possible && as_late(wait, wakeup.latest_ns.saturating_sub(wakeup.earliest_ns)) {
                let distance = expected[index].map_or(u64::MAX, |expected| expected.abs_diff(wakeup.earliest_ns));
                pairs.push((distance, index, timer));
            }
        }
    }
    pairs.sort_unstable();
    let (mut waits, mut timers) = (BTreeSet::new(), BTreeSet::new());
    let mut found = Vec::new();
    for (_, index, timer) in pairs {
        if !waits.contains(&index) && !timers.contains(&timer) {
            waits.insert(index);
            timers.insert(timer);
            found.push((index, list.wakeups[timer].earliest_ns));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_linux::proc::timer_list::Wakeup;

    fn wait(call: u32, whole: u64) -> Waiting {
        Waiting { pid: 1, tid: 1, call, argument: 0, whole: Some(whole) }
    }

    #[test]
    fn a_wait_gets_the_nearest_timer_that_can_be_its_own() {
        let wakeup = |at: u64, late: u64| Wakeup { earliest_ns: at, latest_ns: at + late };
        let list =
            TimerList { now_ns: 1000, wakeups: vec![wakeup(9000, 50), wakeup(5000, 50), wakeup(99_000_000, 50)] };
        let waiting = [wait(NANOSLEEP, 10_000), wait(NANOSLEEP, 10_000)];
        assert_eq!(matched(&waiting, &[Some(8990), Some(5100)], &list), [(0, 9000), (1, 5000)]);
        assert_eq!(matched(&waiting, &[Some(5100), Some(8990)], &list), [(1, 9000), (0, 5000)]);
        // Nothing is given twice, and nothing that ends later than the wait can.
        assert_eq!(matched(&[wait(NANOSLEEP, 10_000); 3], &[None; 3], &list).len(), 2);
    }
}
