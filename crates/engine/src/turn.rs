//! When sleeping threads last left a processor: that is when the wait began that they are in, unless they were woken for
//! nothing meanwhile.
//!
//! The kernel tells it by a clock that every processor has for itself (se.exec_start of /proc/PID/task/TID/sched), and
//! that stands still while a hypervisor keeps the processor away. It is read here by a turn of our own on the same one:
//! what is told is the moment, or a later one, and never one after the look: processors' clocks are seconds apart after
//! some hours with such a hypervisor, and a sleeper that the scheduler counts to another one than that of its turn has the
//! wrong one.
use godwit_linux::proc::stat;
use godwit_linux::scheduling;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Between a processor's clock and ours when they are read together; nearer is not worth another attempt.
const NEAR: Duration = Duration::from_micros(200);
const ATTEMPTS: usize = 5;

/// A processor's clock at a moment.
#[derive(Clone, Copy, Debug)]
struct Clock {
    moment: Instant,
    ns: u64,
}

impl Clock {
    /// When this clock showed a time that was over at a look.
    fn moment_of(self, ns: u64, look: Instant) -> Option<Instant> {
        let (ago, since) = (self.ns.saturating_sub(ns), ns.saturating_sub(self.ns));
        let moment = self.moment.checked_sub(Duration::from_nanos(ago))?.checked_add(Duration::from_nanos(since))?;
        Some(moment.min(look))
    }
}

/// A thread's last turn on a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    /// Its end.
    pub(crate) left: Instant,
    /// How often the thread had gone to sleep of its own accord then.
    pub(crate) naps: u64,
}

/// The clocks of the processors that were asked about.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    clocks: BTreeMap<i32, Option<Clock>>,
    /// The processors that this thread may use.
    own: Vec<u8>,
}

impl Turns {
    /// A sleeping thread's last turn; `None` when the kernel does not tell.
    pub(crate) fn last(&mut self, pid: i32, tid: i32) -> Option<Turn> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/sched")).ok()?;
        let look = Instant::now();
        // Behind that: whoever has not been woken since has the processor of that turn.
        let processor = stat::read(pid, tid).ok()?.processor;
        let clock = match self.clocks.get(&processor) {
            Some(clock) => *clock,
            None => {
                let clock = self.read(processor);
                self.clocks.insert(processor, clock);
                clock
            }
        }?;
        Some(Turn { left: clock.moment_of(exec_start(&text)?, look)?, naps: naps(&text)? })
    }

    /// Reads a processor's clock by running there.
    fn read(&mut self, processor: i32) -> Option<Clock> {
        if self.own.is_empty() {
            self.own = scheduling::affinity(0).ok()?;
        }
        let (byte, bit) = (usize::try_from(processor / 8).ok()?, processor % 8);
        let mut only = vec![0; byte + 1];
        only[byte] = 1 << bit;
        scheduling::set_affinity(0, &only).ok()?;
        let mut best: Option<(Duration, Clock)> = None;
        for _ in 0..ATTEMPTS {
            // The turn begins when this wakes us.
            std::thread::sleep(Duration::from_micros(1));
            let begin = Instant::now();
            let ns = exec_start(&std::fs::read_to_string("/proc/thread-self/sched").ok()?)?;
            let moment = Instant::now();
            let taken = moment - begin;
            if best.is_none_or(|(least, _)| taken < least) {
                best = Some((taken, Clock { moment, ns }));
            }
            if taken < NEAR {
                break;
            }
        }
        best.map(|(_, clock)| clock)
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        if !self.own.is_empty() {
            // The same set was allowed a moment ago.
            let _ = scheduling::set_affinity(0, &self.own);
        }
    }
}

/// The last word of the line of a name.
fn word<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find(|line| line.starts_with(name))?.rsplit(' ').next()
}

fn naps(text: &str) -> Option<u64> {
    word(text, "nr_voluntary_switches")?.parse().ok()
}

fn exec_start(text: &str) -> Option<u64> {
    let (milliseconds, rest) = word(text, "se.exec_start")?.split_once('.')?;
    let nanoseconds: u64 = rest.parse().ok().filter(|_| rest.len() == 6)?;
    milliseconds.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicI32, Ordering};

    #[test]
    fn the_time_is_read_in_ns() {
        let text = "cat (1, #threads: 1)\n-----\nse.exec_start                                :       4177702.066670\nnr_voluntary_switches                        :                   17\n";
        assert_eq!((exec_start(text), naps(text)), (Some(4_177_702_066_670), Some(17)));
        assert_eq!(exec_start("se.exec_start : 12\n"), None);
        assert_eq!((exec_start(""), naps("")), (None, None));
    }

    #[test]
    fn a_turn_is_over_when_it_is_looked_at() {
        let moment = Instant::now();
        let clock = Clock { moment, ns: 5_000_000 };
        let (before, behind) = (moment - Duration::from_millis(1), moment + Duration::from_millis(1));
        assert_eq!(clock.moment_of(3_000_000, before), Some(moment - Duration::from_millis(2)));
        // The clock was read before another thread's turn began.
        assert_eq!(clock.moment_of(5_500_000, behind), Some(moment + Duration::from_micros(500)));
        // Another processor's clock, which is a second ahead.
        assert_eq!(clock.moment_of(1_005_000_000, behind), Some(behind));
    }

    #[test]
    fn a_sleeper_has_left_when_it_began_to_sleep() {
        static TID: AtomicI32 = AtomicI32::new(0);
        let own = scheduling::affinity(0).unwrap();
        let begin = Instant::now();
        let sleeper = std::thread::spawn(|| {
            let name = std::fs::read_link("/proc/thread-self").unwrap();
            TID.store(name.file_name().unwrap().to_str().unwrap().parse().unwrap(), Ordering::SeqCst);
            std::thread::park();
        });
        let pid = std::process::id() as i32;
        let asleep = |tid: i32| tid != 0 && stat::read(pid, tid).is_ok_and(|stat| stat.state == b'S');
        while !asleep(TID.load(Ordering::SeqCst)) {
            std::thread::yield_now();
        }
        let slept = Instant::now();
        let turn = Turns::default().last(pid, TID.load(Ordering::SeqCst));
        sleeper.thread().unpark();
        sleeper.join().unwrap();
        // A kernel without the file tells nothing; one with it never a time before the sleep.
        let told = std::path::Path::new("/proc/self/sched").exists();
        assert_eq!(turn.is_some(), told);
        assert!(turn.is_none_or(|turn| turn.left >= begin && turn.left <= slept + Duration::from_secs(1)));
        assert_eq!(scheduling::affinity(0).unwrap(), own);
    }
}
