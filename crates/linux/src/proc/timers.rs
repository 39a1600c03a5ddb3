//! /proc/PID/timers: the POSIX timers of a process.

use super::cursor::{Line, Lines};
use super::{Error, Malformed, read_process};

/// One timer of timer_create(2). Remaining time and overruns are not shown here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PosixTimer {
    /// `ID`: the kernel's timer_t.
    pub id: i32,
    /// `signal`: sigev_signo.
    pub signal: i32,
    /// `signal`: sigev_value.sival_ptr.
    pub value: u64,
    /// `notify`: the kind in sigev_notify.
    pub notify: Notify,
    /// `notify`: whether to one thread (SIGEV_THREAD_ID, `tid`) instead of the process (`pid`).
    pub to_thread: bool,
    /// `notify`: the process or thread, in the PID namespace of /proc; 0 when it is gone.
    pub target: i32,
    /// `ClockID`: CLOCK_*; negative for the processor time of a task or a device.
    pub clock: i32,
}

/// How a timer tells of its expiration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notify {
    /// SIGEV_SIGNAL
    Signal,
    /// SIGEV_NONE
    None,
    /// SIGEV_THREAD
    Thread,
}

const FILE: &str = "timers";

/// Parses the text of timers, in the kernel's order.
pub fn parse(text: &[u8]) -> Result<Vec<PosixTimer>, Malformed> {
    let mut timers = Vec::new();
    let mut lines = Lines::new(FILE, text)?;
    while let Some(mut line) = lines.next() {
        line.expect(b"ID:", "no ID")?;
        let id = line.decimal_word("ID")?;
        line.end()?;

        let mut line = following(&mut lines, b"signal: ")?;
        let signal = line.signed("signal")?;
        line.expect(b"/", "no / behind the signal")?;
        let value = line.hexadecimal_word("value")?;
        line.end()?;

        let mut line = following(&mut lines, b"notify: ")?;
        let notify = match line.before(b'/') {
            Some(b"signal") => Notify::Signal,
            Some(b"none") => Notify::None,
            Some(b"thread") => Notify::Thread,
            _ => return Err(line.malformed("unknown kind of notification")),
        };
        let to_thread = match line.before(b'.') {
            Some(b"pid") => false,
            Some(b"tid") => true,
            _ => return Err(line.malformed("neither pid nor tid")),
        };
        let target = line.decimal_word("pid")?;
        line.end()?;

        let mut line = following(&mut lines, b"ClockID:")?;
        let clock = line.signed_word("clock")?;
        line.end()?;
        timers.push(PosixTimer { id, signal, value, notify, to_thread, target, clock });
    }
    Ok(timers)
}

fn following<'a>(lines: &mut Lines<'a>, key: &[u8]) -> Result<Line<'a>, Malformed> {
    let Some(mut line) = lines.next() else { return Err(lines.malformed("a line is missing")) };
    line.expect(key, "another line than expected")?;
    Ok(line)
}

/// The timers of process `pid`.
pub fn read(pid: i32) -> Result<Vec<PosixTimer>, Error> {
    read_process(pid, FILE, parse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::mutation;

    const GOLDEN: &[u8] = b"ID: 3\nsignal: 10/0000000000000077\nnotify: signal/pid.1\nClockID: -6\nID: 2\nsignal: 12/000000deadbeef01\nnotify: signal/tid.1\nClockID: 1\nID: 1\nsignal: 10/000000deadbeef01\nnotify: none/pid.1\nClockID: 1\nID: 0\nsignal: 34/000000deadbeef00\nnotify: signal/pid.1\nClockID: 0\n";

    #[test]
    fn timers_of_a_process() {
        let timers = parse(GOLDEN).unwrap();
        assert_eq!(timers.iter().map(|timer| timer.id).collect::<Vec<_>>(), [3, 2, 1, 0]);
        assert_eq!((timers[0].clock, timers[0].signal), (-6, 10));
        assert_eq!(
            timers[1],
            PosixTimer {
                id: 2,
                signal: 12,
                value: 0xdeadbeef01,
                notify: Notify::Signal,
                to_thread: true,
                target: 1,
                clock: 1
            }
        );
        assert_eq!((timers[2].notify, timers[2].to_thread), (Notify::None, false));
        assert_eq!(parse(b"").unwrap(), []);
        parse(b"ID: 3\nsignal: 10/0000000000000077\nnotify: signal/pid.1\n").unwrap_err();
    }

    #[test]
    fn no_mutation_panics() {
        mutation::try_all(GOLDEN, |text| parse(text).is_ok());
    }

    #[test]
    fn own_timers_are_read() {
        read(std::process::id() as i32).unwrap();
        assert!(matches!(read(i32::MAX), Err(Error::Gone)));
    }
}
