//! /proc/PID/smaps_rollup: the memory of a process, each page divided by the number of those who map it.

use super::cursor::Lines;
use super::{Error, Malformed, read_process};

const FILE: &str = "smaps_rollup";

/// Proportional sizes in bytes: their sums over all processes count every page once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Proportional {
    /// `Pss_Anon`
    pub anonymous: u64,
    /// `Anonymous`: the same undivided.
    pub anonymous_whole: u64,
    /// `Pss_Shmem`
    pub shared: u64,
    /// `SwapPss`
    pub swap: u64,
}

/// Parses the text of smaps_rollup; a process without memory has an empty one.
pub fn parse(text: &[u8]) -> Result<Proportional, Malformed> {
    let mut sizes = Proportional::default();
    let mut lines = Lines::new(FILE, text)?;
    // The range of addresses.
    if lines.next().is_none() {
        return Ok(sizes);
    }
    for mut line in lines {
        match line.before(b':') {
            Some(b"Pss_Anon") => sizes.anonymous = line.kibibytes()?,
            Some(b"Anonymous") => sizes.anonymous_whole = line.kibibytes()?,
            Some(b"Pss_Shmem") => sizes.shared = line.kibibytes()?,
            Some(b"SwapPss") => sizes.swap = line.kibibytes()?,
            Some(_) => {}
            None => return Err(line.malformed("no : behind the name")),
        }
    }
    Ok(sizes)
}

/// The memory of process `pid`.
pub fn read(pid: i32) -> Result<Proportional, Error> {
    read_process(pid, FILE, parse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::mutation;

    const GOLDEN: &[u8] = b"55d0-7fff ---p 00000000 00:00 0                          [rollup]\nRss:  1124 kB\nPss_Anon:  88 kB\nPss_Shmem:  4 kB\nAnonymous: 96 kB\nSwapPss: 12 kB\nLocked: 0 kB\n";

    #[test]
    fn sizes() {
        let sizes = parse(GOLDEN).unwrap();
        assert_eq!((sizes.anonymous, sizes.shared, sizes.swap), (88 << 10, 4 << 10, 12 << 10));
        assert_eq!(sizes.anonymous_whole, 96 << 10);
        assert_eq!(parse(b"").unwrap(), Proportional::default());
        mutation::try_all(GOLDEN, |text| parse(text).is_ok());
        assert!(read(std::process::id() as i32).unwrap().anonymous > 0);
        assert!(matches!(read(i32::MAX), Err(Error::Gone)));
    }
}
