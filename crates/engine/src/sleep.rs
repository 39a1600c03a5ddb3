//! How much time the timed waits of a tree still have, found before it is frozen.
//!
//! The kernel keeps the deadline of a wait where nobody can read it, but tells root when its timers expire
//! (/proc/timer_list) without telling whose they are. A wait is matched with a timer that can be its own: not later than
//! its whole time from now, as imprecise as its kind is, and nearest to where the thread's last turn on a processor
//! plus its whole time lies. What is written is exact; the match matters only among alike waits.
//!
//! Without the list (not root), and at sockets, the thread's last turn tells when its wait began: woken for nothing meanwhile, it waits
//! longer than it would have, by its whole time at most.
use crate::turn::Turns;
use godwit_linux::memory::{self, ForeignAddress};
use godwit_linux::proc::syscall::{self, Activity};
use godwit_linux::proc::timer_list::{self, TimerList, Wakeup};
use godwit_linux::{
    pidfd::{ForeignDescriptor, PidFd},
    socket,
};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

pub(crate) const NANOSLEEP: u32 = 35;
pub(crate) const CLOCK_NANOSLEEP: u32 = 230;
pub(crate) const POLL: u32 = 7;
pub(crate) const FUTEX: u32 = 202;
/// Timed waits that the kernel itself continues with the time that is left.
pub(crate) const REBUILT: [u32; 4] = [NANOSLEEP, CLOCK_NANOSLEEP, POLL, FUTEX];
const RESTART_SYSCALL: u32 = 219;
pub(crate) const EPOLL_WAIT: u32 = 232;
pub(crate) const EPOLL_PWAIT: u32 = 281;
pub(crate) const EPOLL_PWAIT2: u32 = 441;
pub(crate) const RT_SIGTIMEDWAIT: u32 = 128;
pub(crate) const SEMTIMEDOP: u32 = 220;
pub(crate) const IO_GETEVENTS: u32 = 208;
/// read, readv, preadv2, recvfrom, recvmsg, recvmmsg, accept, accept4: on a socket with SO_RCVTIMEO.
pub(crate) const RECEIVING: [u32; 8] = [0, 19, 327, 45, 47, 299, 43, 288];
/// write, writev, pwritev2, sendto, sendmsg, sendmmsg: on a socket with SO_SNDTIMEO.
pub(crate) const SENDING: [u32; 6] = [1, 20, 328, 44, 46, 307];
const TIMER_ABSTIME: u64 = 1;
/// CLOCK_REALTIME, MONOTONIC, BOOTTIME, REALTIME_ALARM, BOOTTIME_ALARM, TAI; others count a processor's time.
const CLOCKS: [u64; 6] = [0, 1, 7, 8, 9, 11];
/// FUTEX_PRIVATE_FLAG and FUTEX_CLOCK_REALTIME lie above the command.
const FUTEX_COMMAND: u64 = 0x7f;
const NANOSECONDS: u64 = 1_000_000_000;
/// The kernel lets waits on descriptors be late by a thousandth of their time, at most this.
const LATENESS_MAX: u64 = 100_000_000;
/// Clocks read one after another differ by this at most.
const MARGIN: u64 = 5_000_000;
/// How often the list of timers is read when one is missing.
const LISTS_MAX: usize = 4;

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

impl Waiting {
    /// The list has no timers of sockets.
    fn is_listed(&self) -> bool {
        !RECEIVING.contains(&self.call) && !SENDING.contains(&self.call)
    }
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
    let file = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/{name}"));
    // The stack is for root alone.
    let place = file("stack").or_else(|_| file("wchan")).ok()?;
    call_at(&place, arguments)
}

fn call_at(place: &str, arguments: &[u64; 6]) -> Option<u32> {
    // Functions of the scheduler are left out of wchan: of a continued sleep only their caller is left.
    const CALLERS: [&str; 3] = ["do_syscall_64", "x64_sys_call", "restart_syscall"];
    if place.contains("poll") {
        Some(POLL)
    } else if place.contains("futex") {
        Some(FUTEX)
    } else if place.contains("nanosleep") || CALLERS.iter().any(|caller| place.contains(caller)) {
        // The first argument is a small number or a pointer.
        Some(if (arguments[0] as i64) < 4096 { CLOCK_NANOSLEEP } else { NANOSLEEP })
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
        CLOCK_NANOSLEEP if a1 & TIMER_ABSTIME == 0 && CLOCKS.contains(&a0) => Some(at(a2)),
        POLL => milliseconds(a2).map(Some),
        FUTEX if a1 & FUTEX_COMMAND == 0 && a3 != 0 => Some(at(a3)),
        EPOLL_WAIT | EPOLL_PWAIT => milliseconds(a3).map(Some),
        EPOLL_PWAIT2 | SEMTIMEDOP if a3 != 0 => Some(at(a3)),
        RT_SIGTIMEDWAIT if a2 != 0 => Some(at(a2)),
        IO_GETEVENTS if a4 != 0 => Some(at(a4)),
        _ => None,
    }
}

/// The time-out of a socket that a thread waits at; `None` when it is no socket, or has none.
fn socket_time(pid: i32, call: u32, descriptor: u64) -> Option<u64> {
    let option = if RECEIVING.contains(&call) {
        socket::RECEIVE_TIME
    } else if SENDING.contains(&call) {
        socket::SEND_TIME
    } else {
        return None;
    };
    let number = descriptor as i32;
    let link = std::fs::read_link(format!("/proc/{pid}/fd/{number}")).ok()?;
    if !link.as_os_str().as_encoded_bytes().starts_with(b"socket:") {
        return None;
    }
    let socket = PidFd::open(pid).and_then(|process| process.duplicate(ForeignDescriptor(number))).ok()?;
    socket::time(socket.as_fd(), option).ok()?.map(|time| time.as_nanos() as u64)
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

/// Looks at the threads of a running tree.
pub(crate) fn look(threads: impl Iterator<Item = (i32, i32)>) -> BTreeMap<i32, Sleep> {
    let (mut waiting, mut sleeps) = (Vec::new(), BTreeMap::new());
    for (pid, tid) in threads {
        let Ok(Activity::Call { number, arguments, .. }) = syscall::read(pid, tid) else { continue };
        let call = if number == RESTART_SYSCALL { continued(pid, tid, &arguments) } else { Some(number) };
        let Some(call) = call else { continue };
        let argument = arguments[0];
        let socket = || socket_time(pid, call, argument).map(Some);
        if let Some(whole) = whole(tid, call, &arguments).or_else(socket) {
            waiting.push(Waiting { pid, tid, call, argument, whole });
        } else if number == RESTART_SYSCALL {
            sleeps.insert(tid, Sleep { call, argument, until: None });
        }
    }
    if waiting.is_empty() {
        return sleeps;
    }
    let mut turns = Turns::default();
    let began: Vec<Option<Instant>> = waiting.iter().map(|wait| turns.left(wait.pid, wait.tid)).collect();
    drop(turns);
    let (mut list, mut ends, mut now);
    let mut seen = BTreeSet::new();
    let mut attempts = 0;
    loop {
        list = timer_list::read().unwrap_or_default();
        // Behind the list: what is a little wrong is late, not early.
        now = Instant::now();
        // A timer that ends while the list is written lets another one slip out of it.
        seen.extend(list.wakeups.iter().map(|wakeup| (wakeup.earliest_ns, wakeup.latest_ns)));
        ends = expected(&waiting, &began, list.now_ns, now);
        attempts += 1;
        if attempts == LISTS_MAX || all_near(&waiting, &ends, &seen) {
            break;
        }
    }
    list.wakeups = seen.into_iter().map(|(earliest_ns, latest_ns)| Wakeup { earliest_ns, latest_ns }).collect();
    let found: BTreeMap<usize, u64> = matched(&waiting, &ends, &list).into_iter().collect();
    for (index, (wait, end)) in waiting.iter().zip(ends).enumerate() {
        let until = found.get(&index).copied().or(end);
        let until = until.map(|end| now + Duration::from_nanos(end.saturating_sub(list.now_ns)));
        sleeps.insert(wait.tid, Sleep { call: wait.call, argument: wait.argument, until });
    }
    sleeps
}

/// Where the timer of each wait lies, when nothing has woken it since its thread's last turn.
fn expected(waiting: &[Waiting], began: &[Option<Instant>], now_ns: u64, now: Instant) -> Vec<Option<u64>> {
    let end = |(wait, began): (&Waiting, &Option<Instant>)| {
        let ago = now.saturating_duration_since((*began)?).as_nanos() as u64;
        Some((now_ns + wait.whole?).saturating_sub(ago))
    };
    waiting.iter().zip(began).map(end).collect()
}

/// Whether each of these waits has a timer where it is expected.
fn all_near(waiting: &[Waiting], ends: &[Option<u64>], timers: &BTreeSet<(u64, u64)>) -> bool {
    let near = |end: &u64| {
        let mut around = timers.range((end.saturating_sub(MARGIN), 0)..(end + MARGIN, 0));
        around.next().is_some()
    };
    let listed = waiting.iter().zip(ends).filter(|(wait, _)| wait.is_listed());
    listed.filter_map(|(_, end)| end.as_ref()).all(near)
}

/// Gives each wait a timer of its own: pairs with the least distance between expectation and timer first.
fn matched(waiting: &[Waiting], expected: &[Option<u64>], list: &TimerList) -> Vec<(usize, u64)> {
    let mut pairs = Vec::new();
    for (index, wait) in waiting.iter().enumerate() {
        for (timer, wakeup) in list.wakeups.iter().enumerate() {
            let left = wakeup.earliest_ns.saturating_sub(list.now_ns);
            let possible = wait.whole.is_none_or(|whole| left <= whole.saturating_add(MARGIN));
            let possible = possible && expected[index].is_none_or(|end| wakeup.earliest_ns <= end + MARGIN);
            if possible && wait.is_listed() && as_late(wait, wakeup.latest_ns.saturating_sub(wakeup.earliest_ns)) {
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

    fn wait(call: u32, whole: u64) -> Waiting {
        Waiting { pid: 1, tid: 1, call, argument: 0, whole: Some(whole) }
    }

    #[test]
    fn a_timer_that_is_missing_is_looked_for_again() {
        let timers = [(9_000_000, 9_000_050), (90_000_000, 90_000_050)].into_iter().collect();
        let waiting = [wait(NANOSLEEP, 1), wait(NANOSLEEP, 1), wait(RECEIVING[0], 1)];
        assert!(all_near(&waiting, &[Some(9_000_400), Some(88_000_000), Some(40_000_000)], &timers));
        assert!(!all_near(&waiting, &[Some(9_000_400), Some(40_000_000), None], &timers));
    }

    #[test]
    fn the_call_that_is_continued_is_known_by_its_place() {
        let clock = [1, 0, 0x7000_0000, 0, 0, 0];
        let pointer = [0x7000_0000, 0, 0, 0, 0, 0];
        assert_eq!(call_at("hrtimer_nanosleep", &clock), Some(CLOCK_NANOSLEEP));
        assert_eq!(call_at("do_syscall_64", &pointer), Some(NANOSLEEP));
        assert_eq!(call_at("poll_schedule_timeout.constprop.0", &pointer), Some(POLL));
        let stack =
            "[<0>] futex_do_wait+0x46/0x90\n[<0>] futex_wait_restart+0x47/0x80\n[<0>] do_syscall_64+0x71/0x280\n";
        assert_eq!(call_at(stack, &pointer), Some(FUTEX));
        assert_eq!(call_at("0", &pointer), None);
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
