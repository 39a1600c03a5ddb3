//! /proc/PID/oom_score_adj: how much a process is preferred when memory runs out.

use super::cursor::Lines;
use super::{Error, Malformed, read_process};

const FILE: &str = "oom_score_adj";

/// Parses the text of oom_score_adj: -1000..=1000.
pub fn parse(text: &[u8]) -> Result<i16, Malformed> {
    let mut lines = Lines::new(FILE, text)?;
    let Some(mut line) = lines.next() else { return Err(lines.malformed("empty")) };
    let value = line.signed_word("number")?;
    line.end()?;
    if !(-1000..=1000).contains(&value) {
        return Err(line.malformed("not in -1000..=1000"));
    }
    if lines.next().is_some() { Err(lines.malformed("more than one line")) } else { Ok(value) }
}

/// The value of process `pid`.
pub fn read(pid: i32) -> Result<i16, Error> {
    read_process(pid, FILE, parse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::mutation;

    #[test]
    fn values() {
        assert_eq!(parse(b"0\n").unwrap(), 0);
        assert_eq!(parse(b"-1000\n").unwrap(), -1000);
        parse(b"1001\n").unwrap_err();
        parse(b"0\n0\n").unwrap_err();
        mutation::try_all(b"-500\n", |text| parse(text).is_ok());
        read(std::process::id() as i32).unwrap();
        assert!(matches!(read(i32::MAX), Err(Error::Gone)));
    }
}
