//! /proc/TID/timerslack_ns: by how much the kernel may delay a thread's timers.

use super::cursor::Lines;
use super::{Error, Malformed, read_process};

const FILE: &str = "timerslack_ns";

/// Parses the text of timerslack_ns: nanoseconds; 0 for a real-time thread.
pub fn parse(text: &[u8]) -> Result<u64, Malformed> {
    let mut lines = Lines::new(FILE, text)?;
    let Some(mut line) = lines.next() else { return Err(lines.malformed("empty")) };
    let value = line.decimal_word("number")?;
    line.end()?;
    if lines.next().is_some() { Err(lines.malformed("more than one line")) } else { Ok(value) }
}

/// The value of one thread. The file is not in /proc/PID/task/TID, but /proc/TID is there for every thread.
pub fn read(tid: i32) -> Result<u64, Error> {
    read_process(tid, FILE, parse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::mutation;

    #[test]
    fn values() {
        assert_eq!(parse(b"50000\n").unwrap(), 50_000);
        parse(b"18446744073709551616\n").unwrap_err();
        mutation::try_all(b"50000\n", |text| parse(text).is_ok());
        let tids = crate::proc::directory::tasks(std::process::id() as i32).unwrap();
        assert!(tids.iter().any(|tid| read(*tid).is_ok()));
        assert!(matches!(read(i32::MAX), Err(Error::Gone)));
    }
}
