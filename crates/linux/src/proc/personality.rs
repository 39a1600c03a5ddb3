//! /proc/PID/task/TID/personality: the execution domain of a thread.

use super::cursor::Lines;
use super::{Error, Malformed, read_task};

const FILE: &str = "personality";

/// Parses the text of personality: as personality(2) returns it.
pub fn parse(text: &[u8]) -> Result<u32, Malformed> {
    let mut lines = Lines::new(FILE, text)?;
    let Some(mut line) = lines.next() else { return Err(lines.malformed("empty")) };
    let value = line.hexadecimal_word("number")?;
    line.end()?;
    if lines.next().is_some() { Err(lines.malformed("more than one line")) } else { Ok(value) }
}

/// The value of one thread.
pub fn read(pid: i32, tid: i32) -> Result<u32, Error> {
    read_task(pid, tid, FILE, parse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::mutation;

    #[test]
    fn values() {
        assert_eq!(parse(b"00040000\n").unwrap(), libc::ADDR_NO_RANDOMIZE as u32);
        parse(b"100000000\n").unwrap_err();
        mutation::try_all(b"00040000\n", |text| parse(text).is_ok());
        let pid = std::process::id() as i32;
        read(pid, pid).unwrap();
        assert!(matches!(read(i32::MAX, i32::MAX), Err(Error::Gone)));
    }
}
