//! Timers with a descriptor: clock, remaining time, interval, unread ticks. Source: timerfd_create(2), fs/timerfd.c.
//!
//! A relative timer keeps its remaining time: it stands still while the tree is down. An absolute one keeps its point in
//! time, of CLOCK_REALTIME or of the clock as the tree sees it (its time namespace), unless that clock has gone back: then
//! the remaining time counts. What cannot be seen: whether the clock was set under TFD_TIMER_CANCEL_ON_SET and the ECANCELED
//! of that is still to be read.
use super::{Captured, Description, Kind, Made, Need, Stage, TaskState, open};
use crate::capture::Capture;
use crate::failure::{About, Result, malformed};
use crate::look::{Look, Survey};
use crate::restore::{Bind, Make};
use godwit_image::task::State as TaskCondition;
use godwit_image::tree::Tree;
use godwit_image::{Code, Envelope, KindId, Pid, Refusal, Subject, Verdict};
use godwit_linux::features::Feature;
use godwit_linux::proc::{fdinfo, timens_offsets};
use godwit_linux::program::Program;
use godwit_linux::{clock, file, timerfd};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

const O_ASYNC: u32 = 0o20_000;
const NANOSECONDS: i128 = 1_000_000_000;
const CLOCK_MONOTONIC: i32 = 1;
const CLOCK_BOOTTIME: i32 = 7;
const CLOCK_BOOTTIME_ALARM: i32 = 9;
const SYS_CLOCK_GETTIME: i64 = 228;
const SYS_TIMERFD_SETTIME: i64 = 286;
/// How often a reading is repeated because the timer expired meanwhile.
const READINGS_MAX: u32 = 100;

/// State.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// CLOCK_*.
    pub clock: i32,
    /// Open flags.
    pub flags: u32,
    /// TFD_TIMER_* of the last setting.
    pub settime_flags: u32,
    /// Remaining time in seconds and nanoseconds; zero: disarmed.
    pub value: (i64, i64),
    /// Interval in seconds and nanoseconds.
    pub interval: (i64, i64),
    /// Expiries that nobody has read.
    pub ticks: u64,
    /// What the timer's clock showed, as the tree sees it, when `value` was read: nanoseconds.
    pub now: i64,
}

/// The kind.
#[derive(Debug)]
pub struct TimerDescriptor;

fn joined(time: (i64, i64)) -> i128 {
    i128::from(time.0) * NANOSECONDS + i128::from(time.1)
}

fn split(nanoseconds: i128) -> (i64, i64) {
    let nanoseconds = nanoseconds.clamp(0, i128::from(i64::MAX));
    ((nanoseconds / NANOSECONDS) as i64, (nanoseconds % NANOSECONDS) as i64)
}

/// Whether time namespaces shift the clock.
fn is_shifted(clock: i32) -> bool {
    matches!(clock, CLOCK_MONOTONIC | CLOCK_BOOTTIME | CLOCK_BOOTTIME_ALARM)
}

/// What a process sees on a clock now, in nanoseconds.
fn seen_by(pid: i32, id: i32) -> i64 {
    let clock::Reading { monotonic, boottime, realtime, .. } = clock::now();
    let now = match id {
        CLOCK_MONOTONIC => monotonic,
        CLOCK_BOOTTIME | CLOCK_BOOTTIME_ALARM => boottime,
        _ => realtime,
    };
    let offset = |pid: i32| {
        let offsets = timens_offsets::read(pid).ok().flatten().unwrap_or_default();
        let offset = if id == CLOCK_MONOTONIC { offsets.monotonic } else { offsets.boottime };
        joined((offset.seconds, offset.nanoseconds.into()))
    };
    let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/time")).ok();
    let own = std::process::id() as i32;
    let shift = if is_shifted(id) && namespace(pid) != namespace(own) { offset(pid) - offset(own) } else { 0 };
    (i128::from(now) + shift) as i64
}

/// Remaining time, interval and ticks that belong together. Reading the time makes the kernel count the expiries of a
/// periodic timer that it has put off; nobody can tell the difference.
fn read(timer: BorrowedFd<'_>, subject: impl Fn() -> Subject) -> Result<(timerfd::Time, timerfd::Time, u64)> {
    let own = std::process::id() as i32;
    for _ in 0..READINGS_MAX {
        let (before, interval) = timerfd::get(timer).about(&subject)?;
        let info = fdinfo::read(own, timer.as_raw_fd()).about(&subject)?;
        let ticks = info.timer.ok_or_else(|| malformed(subject(), "fdinfo has no timer"))?.ticks;
        let (after, _) = timerfd::get(timer).about(&subject)?;
        if joined(after) <= joined(before) && (joined(after) == 0) == (joined(before) == 0) {
            return Ok((after, interval, ticks));
        }
    }
    Err(Refusal::new(Code::NOT_MIGRATABLE, subject(), "it expires faster than it can be read"))
}

/// A thread in which programs can run.
fn living(tree: &Tree) -> Option<Pid> {
    let tasks = tree.tasks.iter().filter(|task| !matches!(task.state, TaskCondition::Zombie(_)));
    tasks.flat_map(|task| &task.threads).find(|thread| !thread.dead).map(|thread| thread.tid)
}

fn bytes(time: (i64, i64)) -> Vec<u8> {
    [time.0.to_le_bytes(), time.1.to_le_bytes()].concat()
}

/// Arms an absolute timer of a clock that time namespaces shift: by a task, which is where it should be.
fn arm_inside(state: &State, bind: &mut Bind, subject: impl Fn() -> Subject) -> Result<()> {
    let task = living(bind.tree()).ok_or_else(|| malformed(subject(), "the tree has no living thread"))?;
    let number = bind.own()?.as_raw_fd();
    let mut program = Program::new();
    let (space, offset) = program.space(16);
    program.call("clock_gettime", SYS_CLOCK_GETTIME, [state.clock.into(), space]);
    let ran = bind.run(task, &program)?;
    let now = joined((ran.word(offset) as i64, ran.word(offset + 8) as i64));
    let moment = now.min(i128::from(state.now)) + joined(state.value);
    let mut program = Program::new();
    // struct itimerspec has the interval first.
    let setting = program.data(&[bytes(state.interval), bytes(split(moment))].concat());
    program.call(
        "timerfd_settime",
        SYS_TIMERFD_SETTIME,
        [number.into(), state.settime_flags.into(), setting, 0_u64.into()],
    );
    bind.run(task, &program).map(drop)
}

impl Kind for TimerDescriptor {
    fn id(&self) -> KindId {
        KindId(10)
    }
    fn name(&self) -> &'static str {
        "timerfd"
    }
    fn version(&self) -> u16 {
        1
    }
    fn stage(&self) -> Stage {
        Stage::Early
    }
    fn needs(&self, envelope: &Envelope) -> Result<Vec<Need>> {
        let state: State = open(envelope)?;
        Ok((state.ticks != 0).then(|| Need::feature(Feature::TimerTicks)).into_iter().collect())
    }
    fn make(&self, envelope: &Envelope, _: &mut Make) -> Result<Made> {
        let state: State = open(envelope)?;
        let subject = || Subject::Object(format!("timerfd {}", envelope.id));
        let timer = timerfd::create(state.clock).about(subject)?;
        file::set_status_flags(timer.as_fd(), state.flags & !O_ASYNC).about(subject)?;
        Ok(vec![timer])
    }
    fn bind(&self, envelope: &Envelope, bind: &mut Bind) -> Result<()> {
        let state: State = open(envelope)?;
        let subject = || Subject::Object(format!("timerfd {}", envelope.id));
        let armed = joined(state.value) != 0;
        let absolute = state.settime_flags & timerfd::ABSOLUTE != 0;
        if armed && absolute && is_shifted(state.clock) {
            arm_inside(&state, bind, subject)?;
        } else if armed || state.settime_flags != 0 || joined(state.interval) != 0 {
            let moment = joined(state.value) + i128::from(state.now);
            let value = if armed && absolute { split(moment) } else { state.value };
            timerfd::set(bind.own()?, state.settime_flags, value, state.interval).about(subject)?;
        }
        if state.ticks > 0 {
            timerfd::set_ticks(bind.own()?, state.ticks).about(subject)?;
        }
        Ok(())
    }
    fn description(&self) -> Option<&dyn Description> {
        Some(self)
    }
    fn task_state(&self) -> Option<&dyn TaskState> {
        None
    }
}

impl Description for TimerDescriptor {
    fn recognise(&self, look: &Look) -> bool {
        look.link == b"anon_inode:[timerfd]" && look.information.timer.is_some()
    }
    fn examine(&self, _: &Look, _: &Survey) -> Verdict {
        Verdict::Carried
    }
    fn foresee(&self, look: &Look, _: &Survey) -> Vec<Need> {
        let ticks = look.information.timer.as_ref().is_some_and(|timer| timer.ticks != 0);
        ticks.then(|| Need::feature(Feature::TimerTicks)).into_iter().collect()
    }
    fn capture(&self, look: &Look, _: &mut Capture) -> Result<Captured> {
        let told = look.information.timer.ok_or_else(|| malformed(look.subject(), "fdinfo has no timer"))?;
        let (value, interval, ticks) = read(look.borrow(), || look.subject())?;
        let state = State {
            clock: told.clock,
            flags: look.flags(),
            settime_flags: told.settime_flags,
            value,
            interval,
            ticks,
            now: seen_by(look.pid, told.clock),
        };
        Captured::new(Vec::new(), &state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_come_back() {
        let state = State {
            clock: 7,
            flags: 0o4002,
            settime_flags: 3,
            value: (1, 999_999_999),
            interval: (i64::MAX, 0),
            ticks: 9,
            now: -5,
        };
        super::super::assert_round_trip(&state);
    }

    #[test]
    fn a_periodic_timer_that_nobody_reads_is_counted() {
        let timer = timerfd::create(CLOCK_MONOTONIC).unwrap();
        timerfd::set(timer.as_fd(), 0, (0, 1), (0, 20_000_000)).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(70));
        let (value, interval, ticks) = read(timer.as_fd(), || Subject::Host).unwrap();
        assert!(ticks >= 4, "{ticks} ticks after 70 ms of 20 ms each");
        assert_eq!(interval, (0, 20_000_000));
        assert!(joined(value) > 0 && joined(value) <= 20_000_000);
    }
}
