//! How much time the timed waits of a tree still have, found before it is frozen.
//!
//! The kernel keeps the deadline of a wait where nobody can read it. The thread's last turn on a processor tells when its
//! wait began, and its arguments for how long: woken for nothing meanwhile, it waits longer than it would have, by its whole
//! time at most, and never shorter. (The kernel's list of timers, /proc/timer_list, does not tell whose they are: a wait
//! that took another's for its own would return early.)
//!
//! Between this look and the freeze a thread may have come back and begun another wait of the same kind. How often it
//! has gone to sleep tells: once more than at the look, namely in its stop.
use crate::turn::Turns;
use godwit_linux::memory::{self, ForeignAddress};
use godwit_linux::proc::status;
use godwit_linux::proc::syscall::{self, Activity};
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

/// A timed wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sleep {
    /// The system call.
    pub(crate) call: u32,
    /// Its first argument.
    pub(crate) argument: u64,
    /// Its end, if it is known and not part of the call itself.
    pub(crate) until: Option<Instant>,
    /// How often the thread had gone to sleep by then.
    pub(crate) naps: u64,
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

fn timespec(tid: i32, address: u64) -> Option<u64> {
    let mut raw = [0_u8; 16];
    (memory::read(tid, ForeignAddress(address), &mut raw).ok()? == raw.len()).then_some(())?;
    let seconds = u64::from_le_bytes(*raw.first_chunk()?);
    let nanoseconds = u64::from_le_bytes(*raw.last_chunk()?);
    // The kernel takes no other for a time: something else lies there by now.
    (nanoseconds < NANOSECONDS && i64::try_from(seconds).is_ok()).then_some(())?;
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

/// How often a thread is looked at that comes back while it is.
const LOOKS_MAX: usize = 3;

/// The timed wait that a thread is in, as far as it can be told; `None` when it waits for no time.
fn look_at(pid: i32, tid: i32, call: u32, activity: Activity, turns: &mut Turns) -> Option<Sleep> {
    let Activity::Call { number, arguments, .. } = activity else { return None };
    let argument = arguments[0];
    let time = || whole(tid, call, &arguments).or_else(|| socket_time(pid, call, argument).map(Some));
    let mut sleep = Sleep { call, argument, until: None, naps: 0 };
    let Some(mut found) = time() else { return (number == RESTART_SYSCALL).then_some(sleep) };
    for _ in 0..LOOKS_MAX {
        let (Some(whole), Some(turn)) = (found, turns.last(pid, tid)) else { break };
        // Of a thread that came back meanwhile the time may be anything: where it lay the thread writes something else. Read once more
        // behind the turn it is the time of that turn's wait, or of one that the count of naps tells from it.
        let again = syscall::read(pid, tid).is_ok_and(|now| now == activity).then(time).flatten();
        if again == Some(found) {
            sleep.until = turn.left.checked_add(Duration::from_nanos(whole));
            sleep.naps = turn.naps;
            break;
        }
        let Some(again) = again else { break };
        found = again;
    }
    Some(sleep)
}

/// Looks at the threads of a running tree: timed waits, and which threads are in a call at all.
pub(crate) fn look(threads: impl Iterator<Item = (i32, i32)>) -> (BTreeMap<i32, Sleep>, BTreeSet<i32>) {
    let (mut sleeps, mut waiting) = (BTreeMap::new(), BTreeSet::new());
    let mut turns = Turns::default();
    for (pid, tid) in threads {
        let Ok(activity @ Activity::Call { number, arguments, .. }) = syscall::read(pid, tid) else { continue };
        waiting.insert(tid);
        let call = if number == RESTART_SYSCALL { continued(pid, tid, &arguments) } else { Some(number) };
        if let Some(sleep) = call.and_then(|call| look_at(pid, tid, call, activity, &mut turns)) {
            sleeps.insert(tid, sleep);
        }
    }
    (sleeps, waiting)
}

/// Forgets the ends of waits that are not those of the look any more: of threads that have gone to sleep more than
/// `stops` times since. Nothing of ours may have run in them.
pub(crate) fn settle(threads: impl Iterator<Item = (i32, i32)>, stops: u64, sleeps: &mut BTreeMap<i32, Sleep>) {
    for (pid, tid) in threads {
        let Some(sleep) = sleeps.get_mut(&tid).filter(|sleep| sleep.until.is_some()) else { continue };
        let naps = status::read(pid, tid).ok().and_then(|status| status.voluntary_switches);
        if naps != Some(sleep.naps + stops) {
            sleep.until = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicI32, Ordering};
    use std::sync::mpsc::channel;

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
    fn a_wait_that_was_begun_anew_has_no_known_end() {
        static TID: AtomicI32 = AtomicI32::new(0);
        let (sender, receiver) = channel();
        let sleeper = std::thread::spawn(move || {
            let name = std::fs::read_link("/proc/thread-self").unwrap();
            TID.store(name.file_name().unwrap().to_str().unwrap().parse().unwrap(), Ordering::SeqCst);
            while receiver.recv_timeout(Duration::from_secs(1000)).is_ok() {}
        });
        let pid = std::process::id() as i32;
        let asleep = || {
            let tid = TID.load(Ordering::SeqCst);
            let waits = |tid| matches!(syscall::read(pid, tid), Ok(Activity::Call { number: FUTEX, .. }));
            std::thread::yield_now();
            (tid != 0 && waits(tid)).then_some(tid)
        };
        let tid = std::iter::repeat_with(asleep).find_map(|tid| tid).unwrap();
        // An absolute wait has no end to look for: this is about the count.
        let naps = || status::read(pid, tid).unwrap().voluntary_switches.unwrap();
        let sleep = Sleep { call: FUTEX, argument: 0, until: Some(Instant::now()), naps: naps() };
        let mut sleeps = BTreeMap::from([(tid, sleep)]);
        settle([(pid, tid)].into_iter(), 0, &mut sleeps);
        assert_eq!(sleeps[&tid].until, sleep.until);
        sender.send(()).unwrap();
        while naps() == sleep.naps {
            std::thread::yield_now();
        }
        settle([(pid, tid)].into_iter(), 0, &mut sleeps);
        assert_eq!(sleeps[&tid].until, None);
        drop(sender);
        sleeper.join().unwrap();
    }
}
