//! POSIX timers: timer_create(2). They belong to a process and keep their ids.
//!
//! A periodic timer whose signal waits to be taken does not run in the kernel; it is set to expire where it last did, so
//! that it sends its own signal and counts what it misses. What it has missed the kernel tells only with the signal: the
//! process takes it, and has the timer send it again; see [`timer_overrun`](super::timer_overrun).
use super::{Captured, Description, Kind, Made, Need, Running, Stage, TaskState, open, timer_overrun};
use crate::capture::Capture;
use crate::failure::{About, Result, malformed};
use crate::injector::{Injector, Ran};
use crate::restore::{Bind, Make};
use godwit_image::task::Task;
use godwit_image::tree::Tree;
use godwit_image::{Code, Envelope, KindId, Pid, Refusal, Subject, Verdict};
use godwit_linux::features::Feature;
use godwit_linux::proc::timers::{self, Notify, PosixTimer};
use godwit_linux::program::{Argument, Program};
use godwit_linux::{Errno, ptrace};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

const SYS_PRCTL: i64 = 157;
const SYS_TIMER_CREATE: i64 = 222;
const SYS_TIMER_SETTIME: i64 = 223;
const SYS_TIMER_GETTIME: i64 = 224;
const SYS_TIMER_GETOVERRUN: i64 = 225;
const SYS_TIMER_DELETE: i64 = 226;
pub(super) const SYS_CLOCK_GETTIME: i64 = 228;
const PR_TIMER_CREATE_RESTORE_IDS: u64 = 77;
pub(super) const TIMER_ABSTIME: u64 = 1;
const SIGEV_SIGNAL: i32 = 0;
pub(super) const SIGEV_NONE: i32 = 1;
const SIGEV_THREAD: i32 = 2;
pub(super) const SIGEV_THREAD_ID: i32 = 4;
const SIGEVENT_BYTES: usize = 64;
/// siginfo's si_code of a timer's signal.
const SI_TIMER: i32 = -2;
/// Up to this id timers are made and deleted until the wanted id comes: the next new timer then has the next id.
const COUNTED_MAX: i32 = 4096;
/// Ids counted by one program.
const COUNTED_PER_PROGRAM: i32 = 1000;
const NANOSECONDS: u64 = 1_000_000_000;

/// One timer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Timer {
    /// timer_t.
    pub id: i32,
    /// CLOCK_*, or the processor time of a process or thread.
    pub clock: i32,
    /// sigev_notify.
    pub notify: i32,
    /// sigev_signo.
    pub signal: i32,
    /// sigev_value.
    pub value: u64,
    /// The thread that is told, or whose time is measured.
    pub thread: Option<Pid>,
    /// ns to the next expiration; 0 = not armed.
    pub remaining_ns: u64,
    /// ns; 0 = once.
    pub interval_ns: u64,
    /// Its signal waits to be taken.
    pub expired: bool,
    /// Expirations that it has missed since that signal was sent.
    #[serde(default)]
    pub missed: u64,
    /// What timer_getoverrun(2) tells of the last signal that was taken.
    #[serde(default)]
    pub told: u32,
}

/// State.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// The timers of one process, ids ascending.
    pub timers: Vec<Timer>,
}

/// The kind.
#[derive(Debug)]
pub struct PosixTimers;

impl Kind for PosixTimers {
    fn id(&self) -> KindId {
        KindId(25)
    }
    fn name(&self) -> &'static str {
        "POSIX timers"
    }
    fn version(&self) -> u16 {
        2
    }
    fn stage(&self) -> Stage {
        Stage::Early
    }
    fn needs(&self, _: &Envelope) -> Result<Vec<Need>> {
        Ok(vec![Need::feature(Feature::TimerNumbers)])
    }
    fn make(&self, _: &Envelope, _: &mut Make) -> Result<Made> {
        Ok(Vec::new())
    }
    fn bind(&self, _: &Envelope, _: &mut Bind) -> Result<()> {
        Ok(())
    }
    fn description(&self) -> Option<&dyn Description> {
        None
    }
    fn task_state(&self) -> Option<&dyn TaskState> {
        Some(self)
    }
}

pub(super) fn subject(pid: i32, id: i32) -> Subject {
    Subject::Object(format!("POSIX timer {id} of process {pid}"))
}

/// Whether a clock measures the time of one thread (CPUCLOCK_PERTHREAD of the kernel), of whichever: the list says 0.
fn of_some_thread(clock: i32) -> bool {
    const PER_THREAD: i32 = 4;
    clock < 0 && clock & PER_THREAD != 0 && !clock >> 3 == 0
}

/// What cannot be carried of a timer.
fn refusal(pid: i32, threads: usize, timer: &PosixTimer) -> Option<Refusal> {
    if of_some_thread(timer.clock) && threads > 1 && !timer.to_thread {
        let cause = "it measures the time of one of several threads, and the kernel does not tell of which";
        return Some(Refusal::new(Code::NOT_MIGRATABLE, subject(pid, timer.id), cause));
    }
    const CLOCK_AUX: i32 = 16;
    if timer.clock >= CLOCK_AUX || (timer.clock < 0 && timer.clock & 3 == 3) {
        let cause = format!("its clock {} belongs to a device", timer.clock);
        return Some(Refusal::new(Code::NOT_MIGRATABLE, subject(pid, timer.id), cause));
    }
    None
}

/// The ids of timers whose signals are among the queued ones.
fn waiting(queues: &[Vec<[u8; ptrace::SIGNAL_INFORMATION_BYTES]>]) -> BTreeSet<i32> {
    queues.iter().flatten().filter_map(|information| timer_of(information)).collect()
}

/// The timer that sent a signal, by its siginfo.
pub(super) fn timer_of(information: &[u8]) -> Option<i32> {
    let word = |offset: usize| information.get(offset..offset + 4)?.first_chunk().map(|raw| i32::from_le_bytes(*raw));
    (word(8)? == SI_TIMER).then(|| word(16)).flatten()
}

/// Whether a queued signal was sent by a timer that will send it again when it is restored.
pub(crate) fn sends_again(tree: &Tree, task: &Task, information: &[u8]) -> bool {
    let Some(id) = timer_of(information) else { return false };
    let objects = task.objects.iter().filter_map(|object| tree.object(*object));
    let mut states = objects.filter(|envelope| envelope.kind == PosixTimers.id()).filter_map(|e| open::<State>(e).ok());
    states.any(|state| state.timers.iter().any(|timer| timer.id == id && timer.expired && timer.interval_ns != 0))
}

pub(super) fn nanoseconds(ran: &Ran, place: usize) -> u64 {
    ran.word(place).saturating_mul(NANOSECONDS).saturating_add(ran.word(place + 8))
}

impl TaskState for PosixTimers {
    fn examine(&self, Running { pid, .. }: Running<'_>) -> Vec<(Subject, Verdict)> {
        let Ok(found) = timers::read(pid) else { return Vec::new() };
        let threads = crate::procfs::threads(pid).map_or(1, |threads| threads.len());
        let verdict = |timer: &PosixTimer| refusal(pid, threads, timer).map_or(Verdict::Carried, Verdict::Blocks);
        found.iter().map(|timer| (subject(pid, timer.id), verdict(timer))).collect()
    }

    fn foresee(&self, pid: i32) -> Vec<Need> {
        let any = timers::read(pid).is_ok_and(|timers| !timers.is_empty());
        any.then(|| Need::feature(Feature::TimerNumbers)).into_iter().collect()
    }

    fn capture(&self, injector: &mut Injector<'_>, _: &mut Capture) -> Result<Vec<Captured>> {
        let pid = injector.process().pid;
        let whole = || Subject::Process(pid);
        let mut found = timers::read(pid).about(whole)?;
        if found.is_empty() {
            return Ok(Vec::new());
        }
        found.sort_by_key(|timer| timer.id);
        let tids: Vec<i32> = injector.process().threads.iter().map(|thread| thread.tid()).collect();
        let mut queues = Vec::with_capacity(tids.len() + 1);
        for (tid, shared) in tids.iter().map(|tid| (*tid, false)).chain(tids.first().map(|tid| (*tid, true))) {
            queues.push(ptrace::pending_signals(tid, shared).about(whole)?);
        }
        let waiting = waiting(&queues);
        let mut timers = Vec::with_capacity(found.len());
        for chunk in found.chunks(1000) {
            let mut program = Program::new();
            let mut places = Vec::with_capacity(chunk.len());
            for timer in chunk {
                let (space, place) = program.space(32);
                program.call("timer_gettime", SYS_TIMER_GETTIME, [timer.id.into(), space]);
                let told = program.call("timer_getoverrun", SYS_TIMER_GETOVERRUN, [timer.id.into()]);
                places.push((place, told));
            }
            for ran in injector.run(&[(0, program)])? {
                for (timer, (place, told)) in chunk.iter().zip(&places) {
                    if let Some(refusal) = refusal(pid, tids.len(), timer) {
                        return Err(refusal);
                    }
                    let of_thread = timer.to_thread.then_some(timer.target).filter(|target| *target > 0);
                    let of_thread = of_thread.or_else(|| tids.first().copied().filter(|_| of_some_thread(timer.clock)));
                    timers.push(Timer {
                        id: timer.id,
                        clock: timer.clock,
                        notify: match (timer.notify, timer.to_thread) {
                            (Notify::None, _) => SIGEV_NONE,
                            (Notify::Thread, _) => SIGEV_THREAD,
                            (Notify::Signal, false) => SIGEV_SIGNAL,
                            (Notify::Signal, true) => SIGEV_THREAD_ID,
                        },
                        signal: timer.signal,
                        value: timer.value,
                        thread: of_thread.map(Pid),
                        interval_ns: nanoseconds(&ran, *place),
                        remaining_ns: nanoseconds(&ran, place + 16),
                        expired: waiting.contains(&timer.id),
                        missed: 0,
                        told: ran.result("timer_getoverrun", *told).unwrap_or(0) as u32,
                    });
                }
            }
        }
        timer_overrun::count_missed(injector, &queues, &mut timers)?;
        Ok(vec![Captured::new(Vec::new(), &State { timers })?])
    }

    fn restore(&self, envelope: &Envelope, task: Pid, bind: &mut Bind) -> Result<()> {
        let state: State = open(envelope)?;
        let mut next = 0;
        for timer in &state.timers {
            let maker = timer.thread.filter(|_| of_some_thread(timer.clock)).unwrap_or(task);
            if timer.id < next {
                return Err(malformed(subject(task.0, timer.id), "the ids of timers do not ascend"));
            }
            if timer.id <= COUNTED_MAX {
                count_to(bind, task, next, timer.id)?;
                create(bind, maker, task, timer, false)?;
            } else {
                create(bind, maker, task, timer, true)?;
            }
            next = timer.id.saturating_add(1);
        }
        // First those of which a signal is taken here: no other one may be there.
        for tells in [true, false] {
            for timer in state.timers.iter().filter(|timer| timer_overrun::is_told_of(timer) == tells) {
                arm(bind, task, timer)?;
            }
        }
        Ok(())
    }
}

/// Makes and deletes timers until `wanted` is the next id.
fn count_to(bind: &mut Bind, task: Pid, mut next: i32, wanted: i32) -> Result<()> {
    while next < wanted {
        let end = wanted.min(next + COUNTED_PER_PROGRAM);
        let mut program = Program::new();
        let mut event = [0_u8; SIGEVENT_BYTES];
        event[12..16].copy_from_slice(&SIGEV_NONE.to_le_bytes());
        let event = program.data(&event);
        let (id, _) = program.space(8);
        for id_to_be in next..end {
            program.call("timer_create", SYS_TIMER_CREATE, [1_u64.into(), event, id]);
            program.call("timer_delete", SYS_TIMER_DELETE, [id_to_be.into()]);
        }
        bind.run(task, &program)?;
        next = end;
    }
    Ok(())
}

fn create(bind: &mut Bind, maker: Pid, task: Pid, timer: &Timer, by_id: bool) -> Result<()> {
    let subject = || subject(task.0, timer.id);
    let mut program = Program::new();
    let mut event = [0_u8; SIGEVENT_BYTES];
    event[..8].copy_from_slice(&timer.value.to_le_bytes());
    event[8..12].copy_from_slice(&timer.signal.to_le_bytes());
    event[12..16].copy_from_slice(&timer.notify.to_le_bytes());
    if timer.notify == SIGEV_THREAD_ID {
        event[16..20].copy_from_slice(&timer.thread.unwrap_or(task).0.to_le_bytes());
    }
    let event = program.data(&event);
    let place = program.bytes().len();
    let id = program.data(&i64::from(timer.id).to_le_bytes());
    let zero = || Argument::Value(0);
    if by_id {
        let arguments = [PR_TIMER_CREATE_RESTORE_IDS.into(), 1_u64.into(), zero(), zero(), zero()];
        program.call("prctl(PR_TIMER_CREATE_RESTORE_IDS)", SYS_PRCTL, arguments);
    }
    // The list shows the clock of the processor time of "this process" or "this thread" by what the kernel made of it.
    program.call("timer_create", SYS_TIMER_CREATE, [timer.clock.into(), event, id]);
    if by_id {
        let arguments = [PR_TIMER_CREATE_RESTORE_IDS.into(), zero(), zero(), zero(), zero()];
        program.call("prctl(PR_TIMER_CREATE_RESTORE_IDS)", SYS_PRCTL, arguments);
    }
    let ran = bind.run(maker, &program)?;
    let got = ran.word(place) as u32 as i32;
    if got != timer.id {
        let cause = format!("a new timer got the id {got}");
        return Err(Refusal::new(Code::RESTORE_FAILED, subject(), cause));
    }
    Ok(())
}

fn arm(bind: &mut Bind, task: Pid, timer: &Timer) -> Result<()> {
    if timer.remaining_ns == 0 && timer.interval_ns == 0 {
        return Ok(());
    }
    let mut value = timer.remaining_ns.max(1);
    let mut flags = 0;
    if timer.expired && timer.interval_ns != 0 {
        value = 1;
        // Where it expired last: one interval before it will the next time.
        if let Some(now) = now(bind, task, timer)?
            && let Some(first) = timer_overrun::first(timer, now, timer.missed)
        {
            (value, flags) = (first, TIMER_ABSTIME);
        }
    } else if timer_overrun::is_told_of(timer)
        && let Some(now) = now(bind, task, timer)?
        && timer_overrun::tell_again(bind, task, timer, now)?
    {
        return Ok(());
    }
    let mut program = Program::new();
    set(&mut program, timer, value, flags);
    bind.run(task, &program).map(drop)
}

/// Adds the call that arms a timer.
pub(super) fn set(program: &mut Program, timer: &Timer, value: u64, flags: u64) {
    let mut raw = Vec::with_capacity(32);
    for part in [timer.interval_ns, value] {
        raw.extend_from_slice(&(part / NANOSECONDS).to_le_bytes());
        raw.extend_from_slice(&(part % NANOSECONDS).to_le_bytes());
    }
    let new = program.data(&raw);
    program.call("timer_settime", SYS_TIMER_SETTIME, [timer.id.into(), flags.into(), new, 0_u64.into()]);
}

/// The time of the timer's clock as the task sees it, ns; none for processor time, which begins anew.
fn now(bind: &mut Bind, task: Pid, timer: &Timer) -> Result<Option<u64>> {
    if timer.clock < 0 {
        return Ok(None);
    }
    let mut program = Program::new();
    let (space, place) = program.space(16);
    program.call("clock_gettime", SYS_CLOCK_GETTIME, [timer.clock.into(), space]);
    let ran = bind.run(task, &program)?;
    let failed = || Errno { number: 22, call: "clock_gettime" };
    ran.check(&program).map_err(|_| failed()).about(|| subject(task.0, timer.id))?;
    Ok(Some(nanoseconds(&ran, place)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_comes_back_from_its_payload() {
        let timer = Timer {
            id: 3,
            clock: 1,
            notify: SIGEV_THREAD_ID,
            signal: 40,
            value: 7,
            thread: Some(Pid(12)),
            remaining_ns: 5,
            interval_ns: 6,
            expired: true,
            missed: 12,
            told: 3,
        };
        super::super::assert_round_trip(&State { timers: vec![timer] });
    }

    #[test]
    fn signals_of_timers_are_known_by_their_code() {
        let mut information = [0_u8; ptrace::SIGNAL_INFORMATION_BYTES];
        information[16..20].copy_from_slice(&9_i32.to_le_bytes());
        assert_eq!(timer_of(&information), None);
        information[8..12].copy_from_slice(&SI_TIMER.to_le_bytes());
        assert_eq!(timer_of(&information), Some(9));
        assert_eq!(timer_of(&information[..17]), None);
    }

    #[test]
    fn clocks_of_threads() {
        // CLOCK_THREAD_CPUTIME_ID and CLOCK_PROCESS_CPUTIME_ID as the kernel stores them.
        assert!(of_some_thread(-2));
        assert!(!of_some_thread(-6));
        assert!(!of_some_thread(1));
    }
}
