//! /proc/timer_list: when the kernel's high-resolution timers expire, among them those of every timed wait. It does not
//! tell whose they are. Only root may read it.

use super::cursor::Lines;
use super::{Error, Malformed};

/// When a sleeping thread will be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wakeup {
    /// Not before: ns of the host's CLOCK_MONOTONIC, as `now_ns` counts.
    pub earliest_ns: u64,
    /// Not after.
    pub latest_ns: u64,
}

/// The list at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimerList {
    /// The moment.
    pub now_ns: u64,
    /// Timers that wake a sleeping thread.
    pub wakeups: Vec<Wakeup>,
}

const FILE: &str = "timer_list";

fn number_behind(text: &[u8], word: &[u8]) -> Option<(u64, usize)> {
    let at = text.windows(word.len()).position(|window| window == word)? + word.len();
    let rest = text.get(at..)?;
    let blanks = rest.iter().take_while(|byte| **byte == b' ').count();
    let digits = rest.get(blanks..)?.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let digits = rest.get(blanks..blanks + digits)?;
    let value = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((value, at + blanks + digits.len()))
}

/// Parses the text of timer_list. Lines of other kinds are left out: what is printed differs between kernels.
pub fn parse(text: &[u8]) -> Result<TimerList, Malformed> {
    let mut list = TimerList::default();
    let (mut offset, mut wakes) = (0_u64, false);
    for line in Lines::new(FILE, text)? {
        let line = line.rest();
        if let Some((now, _)) = number_behind(line, b"now at ").filter(|_| line.starts_with(b"now at ")) {
            list.now_ns = now;
        } else if let Some((value, _)) = number_behind(line, b".offset:") {
            offset = value;
        } else if line.starts_with(b" #") && line.windows(17).any(|window| window == b", hrtimer_wakeup,") {
            wakes = true;
        } else if let Some((earliest, end)) = number_behind(line, b"expires at ") {
            let latest = number_behind(&line[end..], b"-").map_or(earliest, |(latest, _)| latest);
            if std::mem::take(&mut wakes) && earliest >= offset {
                list.wakeups.push(Wakeup { earliest_ns: earliest - offset, latest_ns: latest.saturating_sub(offset) });
            }
        } else {
            wakes = false;
        }
    }
    Ok(list)
}

/// Reads the list; takes some ten microseconds a processor.
///
/// # Errors
/// EACCES: not root; ENOENT: a kernel without it.
pub fn read() -> Result<TimerList, Error> {
    let text = std::fs::read("/proc/timer_list").map_err(Error::Io)?;
    parse(&text).map_err(Error::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::mutation;

    const GOLDEN: &[u8] = b"Timer List Version: v0.10\nHRTIMER_MAX_CLOCK_BASES: 8\nnow at 4177702866670 nsecs\n\ncpu: 0\n clock 0:\n  .base:       000000003fb815fe\n  .index:      0\n  .resolution: 1 nsecs\n  .offset:     0 nsecs\nactive timers:\n #0: <00000000e527e8f0>, tick_nohz_handler, S:01\n # expires at 4177704000000-4177704000000 nsecs [in 1133330 to 1133330 nsecs]\n #1: <00000000443d0dbb>, hrtimer_wakeup, S:01\n # expires at 4177881263924-4177881460923 nsecs [in 178397254 to 178594253 nsecs]\n clock 1:\n  .offset:     1000 nsecs\nactive timers:\n #0: <00000000443d0dbb>, hrtimer_wakeup, S:01\n # expires at 5000-6000 nsecs [in -1 to -1 nsecs]\n";

    #[test]
    fn only_wakeups_count_and_in_one_clock() {
        let list = parse(GOLDEN).unwrap();
        assert_eq!(list.now_ns, 4_177_702_866_670);
        let first = Wakeup { earliest_ns: 4_177_881_263_924, latest_ns: 4_177_881_460_923 };
        assert_eq!(list.wakeups, [first, Wakeup { earliest_ns: 4000, latest_ns: 5000 }]);
        mutation::try_all(GOLDEN, |text| parse(text).is_ok());
    }

    #[test]
    fn the_own_sleep_is_in_the_list() {
        let Ok(before) = read() else { return };
        let sleeper = std::thread::spawn(|| std::thread::sleep(std::time::Duration::from_millis(1500)));
        std::thread::sleep(std::time::Duration::from_millis(100));
        let during = read().unwrap();
        sleeper.join().unwrap();
        let expected = before.now_ns + 1_500_000_000;
        let close = |wakeup: &&Wakeup| wakeup.earliest_ns.abs_diff(expected) < 90_000_000;
        assert!(during.wakeups.iter().any(|wakeup| close(&wakeup)));
    }
}
