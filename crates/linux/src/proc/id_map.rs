//! /proc/PID/uid_map and gid_map: which ids of a user namespace are which of the reader's.

use super::cursor::Lines;
use super::{Error, Malformed, read_process};

/// A range of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First id inside the process's user namespace.
    pub inside: u32,
    /// First id in the reader's user namespace (in the parent's, when the reader is in the process's own);
    /// 4294967295 when it has no name there.
    pub outside: u32,
    /// How many, at least 1.
    pub count: u32,
}

const FILE: &str = "id_map";

/// Parses the text of uid_map or gid_map; empty when no map was written.
pub fn parse(text: &[u8]) -> Result<Vec<Range>, Malformed> {
    let mut ranges = Vec::new();
    for mut line in Lines::new(FILE, text)? {
        let inside: u32 = line.decimal_word("id inside")?;
        let outside = line.decimal_word("id outside")?;
        let count: u32 = line.decimal_word("count")?;
        line.end()?;
        if count == 0 || inside.checked_add(count).is_none() {
            return Err(line.malformed("the range is empty or too long"));
        }
        ranges.push(Range { inside, outside, count });
    }
    Ok(ranges)
}

/// /proc/PID/uid_map
pub fn read_users(pid: i32) -> Result<Vec<Range>, Error> {
    read_process(pid, "uid_map", parse)
}

/// /proc/PID/gid_map
pub fn read_groups(pid: i32) -> Result<Vec<Range>, Error> {
    read_process(pid, "gid_map", parse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::mutation;

    const GOLDEN: &[u8] = b"         0     100000       1000\n      1000          0          1\n";

    #[test]
    fn ranges() {
        assert_eq!(
            parse(GOLDEN).unwrap(),
            [Range { inside: 0, outside: 100_000, count: 1000 }, Range { inside: 1000, outside: 0, count: 1 }]
        );
        assert_eq!(parse(b"         0          0 4294967295\n").unwrap()[0].count, u32::MAX);
        parse(b"1 0 4294967295\n").unwrap_err();
        parse(b"1 0 0\n").unwrap_err();
        mutation::try_all(GOLDEN, |text| parse(text).is_ok());
        assert!(!read_users(std::process::id() as i32).unwrap().is_empty());
        assert!(!read_groups(std::process::id() as i32).unwrap().is_empty());
        assert!(matches!(read_users(i32::MAX), Err(Error::Gone)));
    }
}
