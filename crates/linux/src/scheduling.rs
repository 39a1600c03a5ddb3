//! Scheduling attributes of any thread: sched_getattr(2), sched_getaffinity(2), ioprio_get(2).
#![allow(unsafe_code)]

use crate::errno::{Result, check, check_int};

/// struct sched_attr, version 1 (56 bytes).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    size: u32,
    /// SCHED_*.
    pub policy: u32,
    /// SCHED_FLAG_*.
    pub flags: u64,
    /// Nice value.
    pub nice: i32,
    /// Real-time priority.
    pub priority: u32,
    /// ns.
    pub runtime: u64,
    /// ns.
    pub deadline: u64,
    /// ns.
    pub period: u64,
    /// Utilisation clamps.
    pub utilisation: [u32; 2],
}
const _: () = assert!(size_of::<Attributes>() == 56);

impl Attributes {
    /// As sched_getattr(2) has written them; what is missing is zero.
    pub fn from_bytes(bytes: &[u8]) -> Attributes {
        let word = |at: usize| {
            bytes.get(at..at + 4).and_then(|raw| raw.first_chunk()).map_or(0, |raw| u32::from_le_bytes(*raw))
        };
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        Attributes {
            size: word(0),
            policy: word(4),
            flags: long(8),
            nice: word(16) as i32,
            priority: word(20),
            runtime: long(24),
            deadline: long(32),
            period: long(40),
            utilisation: [word(48), word(52)],
        }
    }
}

/// Reads the attributes.
///
/// # Errors
/// ESRCH.
pub fn get(tid: i32) -> Result<Attributes> {
    let mut attributes = Attributes::default();
    // SAFETY: the kernel writes at most 56 bytes into the live struct.
    check("sched_getattr", unsafe { libc::syscall(libc::SYS_sched_getattr, tid, &raw mut attributes, 56, 0) })?;
    Ok(attributes)
}

/// Sets the attributes.
///
/// # Errors
/// EPERM, EINVAL, ESRCH.
pub fn set(tid: i32, attributes: &Attributes) -> Result<()> {
    let attributes = Attributes { size: 48, ..*attributes };
    // SAFETY: the kernel reads 48 bytes from the live struct.
    check("sched_setattr", unsafe { libc::syscall(libc::SYS_sched_setattr, tid, &raw const attributes, 0) }).map(drop)
}

/// How long a turn is that somebody has who has not asked for another length (ns): 0 where the kernel does not say (before Linux 6.12).
/// The calling thread has its own back.
///
/// # Errors
/// EPERM: not for this thread.
pub fn usual_turn() -> Result<u64> {
    let own = get(0)?;
    if own.policy != libc::SCHED_OTHER as u32 || own.runtime == 0 {
        return Ok(0);
    }
    set(0, &Attributes { runtime: 0, ..own })?;
    let usual = get(0)?.runtime;
    if usual != own.runtime {
        set(0, &own)?;
    }
    Ok(usual)
}

/// Nice value, whatever the policy (sched_getattr(2) hides that of SCHED_IDLE).
///
/// # Errors
/// ESRCH.
pub fn nice(tid: i32) -> Result<i32> {
    // The raw call returns 20 - nice, which is never negative.
    // SAFETY: no pointers.
    let raw = check("getpriority", unsafe { libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, tid) })?;
    Ok(20 - raw as i32)
}

/// Sets the nice value.
///
/// # Errors
/// EACCES: lower without CAP_SYS_NICE; ESRCH.
pub fn set_nice(tid: i32, nice: i32) -> Result<()> {
    // SAFETY: no pointers.
    check("setpriority", unsafe { libc::syscall(libc::SYS_setpriority, libc::PRIO_PROCESS, tid, nice) }).map(drop)
}

/// The affinity mask as bytes, CPU 0 in the lowest bit of the first.
///
/// # Errors
/// ESRCH.
pub fn affinity(tid: i32) -> Result<Vec<u8>> {
    let mut mask = [0_u8; 1024];
    // SAFETY: the kernel writes at most 1024 bytes into the live buffer.
    let bytes = check("sched_getaffinity", unsafe {
        libc::syscall(libc::SYS_sched_getaffinity, tid, mask.len(), mask.as_mut_ptr())
    })?;
    // No more than it is: a tree keeps one for each of its threads.
    Ok(mask[..bytes as usize].to_vec())
}

/// Sets the affinity mask; CPUs that do not exist are ignored by the kernel.
///
/// # Errors
/// EINVAL: no CPU of the mask exists here; ESRCH; EPERM.
pub fn set_affinity(tid: i32, mask: &[u8]) -> Result<()> {
    // SAFETY: the kernel reads mask.len() bytes from the live buffer.
    check("sched_setaffinity", unsafe { libc::syscall(libc::SYS_sched_setaffinity, tid, mask.len(), mask.as_ptr()) })
        .map(drop)
}

/// Every processor that this thread may be bound to: those that exist, within its cpuset. A mask like [`affinity`]'s.
///
/// # Errors
/// None of sched_setaffinity(2) applies to a thread's own mask and all processors.
pub fn every_processor() -> Result<Vec<u8>> {
    let own = affinity(0)?;
    set_affinity(0, &[0xff; 1024])?;
    let all = affinity(0);
    set_affinity(0, &own)?;
    all
}

/// Leaves a processor to somebody else, if this thread is on it and may run on another one: a kernel that takes the halted processors
/// of a virtual machine for busy ones wakes on the waker's processor, though another one has nothing to do.
///
/// # Errors
/// EINVAL: the processors that it may run on changed meanwhile.
pub fn leave_processor(processor: u32) -> Result<()> {
    // SAFETY: no pointers. It cannot fail.
    if u32::try_from(unsafe { libc::sched_getcpu() }) != Ok(processor) {
        return Ok(());
    }
    let own = affinity(0)?;
    let mut others = own.clone();
    if let Some(byte) = others.get_mut(processor as usize / 8) {
        *byte &= !(1 << (processor % 8));
    }
    if others.iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    set_affinity(0, &others)?;
    set_affinity(0, &own)
}

/// Has a thread run on any processor that this one may run on but one, if there is another: whoever waits for what is received on that
/// one would be woken there and take it from whoever sends.
///
/// # Errors
/// ESRCH; EPERM; EINVAL: the processors that it may run on changed meanwhile.
pub fn keep_off(tid: i32, processor: u32) -> Result<()> {
    let mut others = affinity(0)?;
    if let Some(byte) = others.get_mut(processor as usize / 8) {
        *byte &= !(1 << (processor % 8));
    }
    if others.iter().all(|byte| *byte == 0) { Ok(()) } else { set_affinity(tid, &others) }
}

/// Has a thread run on the processor that this one is on, until its mask is set anew: two that only take turns wake each other there in
/// a few µs, on a halted processor in some tens.
///
/// # Errors
/// ESRCH; EPERM; EINVAL: the processors that it may run on changed meanwhile.
pub fn bring_here(tid: i32) -> Result<()> {
    // SAFETY: no pointers. It cannot fail.
    let Ok(processor) = usize::try_from(unsafe { libc::sched_getcpu() }) else { return Ok(()) };
    let mut only = vec![0; processor / 8 + 1];
    only[processor / 8] = 1 << (processor % 8);
    set_affinity(tid, &only)
}

/// Goes to a processor, if this thread may run on it: to wake somebody on one's own processor, and to be woken there, takes a few µs, on
/// another one that is halted some tens.
///
/// # Errors
/// EINVAL: the processors that it may run on changed meanwhile.
pub fn go_to_processor(processor: u32) -> Result<()> {
    // SAFETY: no pointers. It cannot fail.
    if u32::try_from(unsafe { libc::sched_getcpu() }) == Ok(processor) {
        return Ok(());
    }
    let own = affinity(0)?;
    let mut only = vec![0; own.len()];
    match (own.get(processor as usize / 8), only.get_mut(processor as usize / 8)) {
        (Some(byte), Some(only)) if byte & 1 << (processor % 8) != 0 => *only = 1 << (processor % 8),
        _ => return Ok(()),
    }
    set_affinity(0, &only)?;
    set_affinity(0, &own)
}

/// Leaves the processor that this thread is on for another one, as [`leave_processor`]: where who woke it goes on working.
///
/// # Errors
/// As [`leave_processor`].
pub fn go_elsewhere() -> Result<()> {
    // SAFETY: no pointers. It cannot fail.
    u32::try_from(unsafe { libc::sched_getcpu() }).map_or(Ok(()), leave_processor)
}

/// As long as it lives, nobody whom this thread wakes takes its processor away from it. For a few calls: it is a real-time thread then,
/// and its children would not be.
#[derive(Debug)]
pub struct Precedence {
    before: Attributes,
}

impl Precedence {
    /// Takes it; `None` where this thread may not have it.
    pub fn take() -> Option<Precedence> {
        const LOWEST: u32 = 1;
        let before = get(0).ok()?;
        let fixed = Attributes {
            policy: libc::SCHED_FIFO as u32,
            flags: libc::SCHED_FLAG_RESET_ON_FORK as u64,
            priority: LOWEST,
            ..Attributes::default()
        };
        (before.priority == 0).then(|| set(0, &fixed).ok()).flatten().map(|()| Precedence { before })
    }
}

impl Drop for Precedence {
    fn drop(&mut self) {
        // Back to less than it has: that is always allowed.
        let _ = set(0, &self.before);
    }
}

/// Who is as urgent as the thread that made it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heirs {
    /// Whoever it makes: for one that makes threads alone, each for as long as it is needed.
    All,
    /// Nobody: for one that makes processes of others.
    None,
}

/// As long as it lives, this thread has a processor before everybody of the usual policy: of a host where thirty others compute it would
/// get a thirtieth, and a tree would stand still for so much longer. It also asks for short turns: who is woken gets a processor at
/// once only where its own turn is shorter than that of whoever computes there, however much more it weighs, and else after that
/// one's turn.
///
/// # References
/// kernel/sched/fair.c (PREEMPT_SHORT, RUN_TO_PARITY; Linux 6.12, before which the length is taken and not used)
#[derive(Debug)]
pub struct Urgency {
    before: Attributes,
    now: Attributes,
    may_come_first: bool,
}

const FIRST: i32 = -20;

impl Urgency {
    /// Begins. `None` where somebody wanted this thread to be more or less than others. Who may not come first (CAP_SYS_NICE) still has
    /// short turns.
    pub fn begin(heirs: Heirs) -> Option<Urgency> {
        let before = get(0).ok()?;
        if (before.policy, before.nice, before.flags) != (libc::SCHED_OTHER as u32, 0, 0) {
            return None;
        }
        let flags = if heirs == Heirs::None { libc::SCHED_FLAG_RESET_ON_FORK as u64 } else { 0 };
        let short = Attributes { runtime: SHORTEST_TURN, flags, ..before };
        let first = Attributes { nice: FIRST, ..short };
        let may_come_first = set(0, &first).is_ok();
        if !may_come_first {
            set(0, &short).ok()?;
        }
        Some(Urgency { before, now: if may_come_first { first } else { short }, may_come_first })
    }

    /// Whether it comes before others, or has no more than its share, by short turns still: for who works for a tree that runs, and
    /// would leave it nothing. A system call where that changes.
    pub fn come_first(&mut self, first: bool) {
        let wanted = Attributes { nice: if first { FIRST } else { self.before.nice }, ..self.now };
        if self.may_come_first && wanted.nice != self.now.nice && set(0, &wanted).is_ok() {
            self.now = wanted;
        }
    }
}

/// ns; the shortest that the kernel takes (kernel/sched/syscalls.c, `__setparam_fair`).
const SHORTEST_TURN: u64 = 100_000;

impl Drop for Urgency {
    fn drop(&mut self) {
        // Back to less than it has. A turn of no length is the usual one; who had asked for another has that.
        let usual = set(0, &Attributes { runtime: 0, ..self.before }).and_then(|()| get(0));
        if usual.is_ok_and(|usual| usual.runtime != self.before.runtime) {
            let _ = set(0, &self.before);
        }
    }
}

/// As long as it lives, short sleeps of this thread take as long as they say, and not 50 µs more: prctl(2), PR_SET_TIMERSLACK.
/// Children begin with the slack of the thread that makes them: nobody is to be born meanwhile who should not have it.
#[derive(Debug)]
pub struct PreciseSleep {
    /// The slack before, ns.
    before: libc::c_ulong,
}

impl PreciseSleep {
    /// Begins.
    pub fn begin() -> PreciseSleep {
        // SAFETY: no pointers. It cannot fail.
        let before = unsafe { libc::prctl(libc::PR_GET_TIMERSLACK, 0, 0, 0, 0) };
        set_timer_slack(1);
        PreciseSleep { before: before.max(1) as libc::c_ulong }
    }
}

impl Drop for PreciseSleep {
    fn drop(&mut self) {
        set_timer_slack(self.before);
    }
}

fn set_timer_slack(nanoseconds: libc::c_ulong) {
    // SAFETY: no pointers. It cannot fail for the thread itself.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, nanoseconds, 0, 0, 0) };
}

/// I/O priority (class << 13 | level).
///
/// # Errors
/// ESRCH.
pub fn io_priority(tid: i32) -> Result<i32> {
    // SAFETY: no pointers. IOPRIO_WHO_PROCESS = 1.
    check("ioprio_get", unsafe { libc::syscall(libc::SYS_ioprio_get, 1, tid) }).map(|value| value as i32)
}

/// Sets the I/O priority.
///
/// # Errors
/// EPERM: the real-time class without the capability; ESRCH.
pub fn set_io_priority(tid: i32, priority: i32) -> Result<()> {
    // SAFETY: no pointers.
    check("ioprio_set", unsafe { libc::syscall(libc::SYS_ioprio_set, 1, tid, priority) }).map(drop)
}

/// The core-scheduling cookie of a thread: threads of the same cookie may share a core; 0 = none.
///
/// # Errors
/// EINVAL, ENODEV: this kernel or processor has no core scheduling; ESRCH, EPERM.
pub fn core_cookie(tid: i32) -> Result<u64> {
    const PR_SCHED_CORE: libc::c_int = 62;
    const PR_SCHED_CORE_GET: libc::c_ulong = 0;
    const PIDTYPE_PID: libc::c_ulong = 0;
    let mut cookie = 0_u64;
    // SAFETY: the kernel writes 8 bytes into the live word.
    check("prctl(PR_SCHED_CORE)", unsafe {
        libc::syscall(libc::SYS_prctl, PR_SCHED_CORE, PR_SCHED_CORE_GET, tid, PIDTYPE_PID, &raw mut cookie)
    })?;
    Ok(cookie)
}

/// Address and length of a thread's robust futex list.
///
/// # Errors
/// ESRCH, EPERM.
pub fn robust_list(tid: i32) -> Result<(u64, u64)> {
    let (mut head, mut length) = (0_u64, 0_usize);
    // SAFETY: both out-pointers are live.
    check("get_robust_list", unsafe { libc::syscall(libc::SYS_get_robust_list, tid, &raw mut head, &raw mut length) })?;
    Ok((head, length as u64))
}

/// The CPUs of this host that are online, as sysconf tells.
pub fn processors() -> usize {
    // SAFETY: no pointers.
    check_int("sysconf", unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) } as i32).unwrap_or(1).max(1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slack_of_timers_comes_back() {
        // SAFETY: no pointers.
        let slack = || unsafe { libc::prctl(libc::PR_GET_TIMERSLACK, 0, 0, 0, 0) };
        let before = slack();
        let precise = PreciseSleep::begin();
        assert_eq!(slack(), 1);
        drop(precise);
        assert_eq!(slack(), before);
    }

    #[test]
    fn who_leaves_a_processor_is_elsewhere_and_bound_as_before() {
        // SAFETY: no pointers.
        let here = || unsafe { libc::sched_getcpu() } as u32;
        let own = affinity(0).unwrap();
        let elsewhere = (0..100).any(|_| {
            let before = here();
            leave_processor(before).unwrap();
            here() != before
        });
        assert_eq!(elsewhere, own.iter().map(|byte| byte.count_ones()).sum::<u32>() > 1);
        let before = here();
        leave_processor(before).unwrap();
        go_to_processor(before).unwrap();
        go_to_processor(u32::MAX).unwrap();
        leave_processor(u32::MAX).unwrap();
        assert_eq!(affinity(0).unwrap(), own);
    }

    #[test]
    fn precedence_is_given_back() {
        let before = get(0).unwrap();
        if let Some(precedence) = Precedence::take() {
            assert_eq!((get(0).unwrap().policy, get(0).unwrap().priority), (libc::SCHED_FIFO as u32, 1));
            drop(precedence);
        }
        assert_eq!(get(0).unwrap(), before);
    }

    #[test]
    fn urgency_is_given_back_and_handed_on_to_whom_it_is_to_be() {
        let look = || get(0).map(|now| (now.nice, now.flags, now.runtime)).unwrap();
        let before = look();
        let children = || {
            let thread = std::thread::spawn(look).join().unwrap();
            assert!(thread.0 < 0 || thread.2 == before.2, "{thread:?}");
            let stat = std::process::Command::new("cat").arg("/proc/self/stat").output().unwrap().stdout;
            let stat = String::from_utf8(stat).unwrap();
            let nice: i32 = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap().parse().unwrap();
            (thread.0, nice)
        };
        for (heirs, expected) in [(Heirs::All, (-20, -20)), (Heirs::None, (0, 0))] {
            let Some(urgency) = Urgency::begin(heirs) else {
                println!("skipped: this thread may not be urgent: {before:?}");
                return;
            };
            assert_eq!((look().0, children()), (-20, expected));
            assert!(before.2 == 0 || look().2 < before.2, "{before:?}");
            assert!(Urgency::begin(heirs).is_none());
            let mut urgency = urgency;
            let (first, flags) = (look(), look().1);
            urgency.come_first(false);
            assert_eq!(look(), (0, flags, first.2));
            assert_eq!(std::thread::spawn(look).join().unwrap().0, 0);
            urgency.come_first(true);
            assert_eq!(look(), first);
            urgency.come_first(false);
            drop(urgency);
            assert_eq!((look(), children()), (before, (0, 0)));
        }
        // Who has asked for another turn has it again.
        std::thread::spawn(move || {
            set(0, &Attributes { runtime: 5_000_000, ..get(0).unwrap() }).unwrap();
            let own = look();
            drop(Urgency::begin(Heirs::All));
            assert_eq!(look(), own);
        })
        .join()
        .unwrap();
        // Who is to come after others stays there.
        std::thread::spawn(|| {
            set_nice(0, 5).unwrap();
            assert!(Urgency::begin(Heirs::All).is_none());
            assert_eq!(get(0).unwrap().nice, 5);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_bound_thread_finds_every_processor_and_stays_bound() {
        let own = affinity(0).unwrap();
        let all = every_processor().unwrap();
        let first = all.iter().position(|byte| *byte != 0).unwrap();
        let mut one = vec![0; all.len()];
        one[first] = 1 << all[first].trailing_zeros();
        set_affinity(0, &one).unwrap();
        assert_eq!((every_processor().unwrap(), affinity(0).unwrap()), (all, one));
        set_affinity(0, &own).unwrap();
    }
}
