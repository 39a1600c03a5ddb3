//! /proc/PID/limits: resource limits, readable of every process (prlimit(2) tells another user's only to CAP_SYS_RESOURCE).

use super::cursor::{Line, Lines};
use super::{Error, Malformed, read_process};

const FILE: &str = "limits";

/// The kernel's names, in the order of the RLIMIT_* numbers and of the file's lines.
pub const NAMES: [&str; 16] = [
    "Max cpu time",
    "Max file size",
    "Max data size",
    "Max stack size",
    "Max core file size",
    "Max resident set",
    "Max processes",
    "Max open files",
    "Max locked memory",
    "Max address space",
    "Max file locks",
    "Max pending signals",
    "Max msgqueue size",
    "Max nice priority",
    "Max realtime priority",
    "Max realtime timeout",
];

/// Soft and hard limit by RLIMIT_* number; `u64::MAX` is RLIM_INFINITY.
pub type Limits = [(u64, u64); NAMES.len()];

/// Parses the text of limits.
pub fn parse(text: &[u8]) -> Result<Limits, Malformed> {
    let mut limits = [(0, 0); NAMES.len()];
    let mut lines = Lines::new(FILE, text)?;
    match lines.next() {
        Some(mut heading) => heading.expect(b"Limit ", "no heading")?,
        None => return Err(lines.malformed("empty")),
    }
    for (limit, name) in limits.iter_mut().zip(NAMES) {
        let Some(mut line) = lines.next() else { return Err(lines.malformed("a limit is missing")) };
        line.expect(name.as_bytes(), "another limit")?;
        *limit = (value(&mut line)?, value(&mut line)?);
    }
    if lines.next().is_some() { Err(lines.malformed("more limits than are known")) } else { Ok(limits) }
}

fn value(line: &mut Line<'_>) -> Result<u64, Malformed> {
    line.blanks();
    if line.take(b"unlimited") {
        return Ok(u64::MAX);
    }
    line.decimal_word("limit")
}

/// The limits of process `pid`.
pub fn read(pid: i32) -> Result<Limits, Error> {
    read_process(pid, FILE, parse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::mutation;

    #[test]
    fn the_file_says_what_the_call_says() {
        let own = std::process::id() as i32;
        let limits = read(own).unwrap();
        for (resource, limit) in limits.iter().enumerate() {
            assert_eq!(crate::limits::get(own, resource as u32).unwrap(), *limit, "{}", NAMES[resource]);
        }
        assert!(matches!(read(i32::MAX), Err(Error::Gone)));
        let text = std::fs::read("/proc/self/limits").unwrap();
        mutation::try_all(&text, |text| parse(text).is_ok());
        parse(&text[..text.len() / 2]).unwrap_err();
        parse(b"").unwrap_err();
    }
}
