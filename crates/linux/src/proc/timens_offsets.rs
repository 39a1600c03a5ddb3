//! /proc/PID/timens_offsets: how the clocks of a time namespace differ from the host's.

use super::cursor::Lines;
use super::{Error, Malformed, read_process};

/// Offsets of the namespace that the children of the process get (time_for_children), which is mostly its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Offsets {
    /// CLOCK_MONOTONIC minus that of the initial namespace.
    pub monotonic: Offset,
    /// CLOCK_BOOTTIME minus that of the initial namespace.
    pub boottime: Offset,
}

/// A difference: seconds, then nanoseconds forwards from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Offset {
    /// Seconds, rounded down.
    pub seconds: i64,
    /// 0..=999,999,999.
    pub nanoseconds: u32,
}

const FILE: &str = "timens_offsets";

/// Parses the text of timens_offsets; `None` for the empty text of a zombie.
pub fn parse(text: &[u8]) -> Result<Option<Offsets>, Malformed> {
    let mut monotonic = None;
    let mut boottime = None;
    let mut lines = Lines::new(FILE, text)?;
    if text.is_empty() {
        return Ok(None);
    }
    for mut line in lines.by_ref() {
        let offset = match line.word() {
            // The numbers are those of the clocks: Linux 5.5 printed them.
            b"monotonic" | b"1" => &mut monotonic,
            b"boottime" | b"7" => &mut boottime,
            _ => return Err(line.malformed("unknown clock")),
        };
        let seconds = line.signed_word("seconds")?;
        let nanoseconds = line.decimal_word("nanoseconds")?;
        line.end()?;
        if nanoseconds > 999_999_999 {
            return Err(line.malformed("more nanoseconds than a second has"));
        }
        if offset.replace(Offset { seconds, nanoseconds }).is_some() {
            return Err(line.malformed("the clock is there twice"));
        }
    }
    match (monotonic, boottime) {
        (Some(monotonic), Some(boottime)) => Ok(Some(Offsets { monotonic, boottime })),
        _ => Err(lines.malformed("a clock is missing")),
    }
}

/// The offsets of process `pid`; `Io` of `NotFound` on a kernel without time namespaces.
pub fn read(pid: i32) -> Result<Option<Offsets>, Error> {
    read_process(pid, FILE, parse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::mutation;

    const GOLDEN: &[u8] = b"monotonic        -100 500000000\nboottime            0         0\n";

    #[test]
    fn offsets() {
        let offsets = parse(GOLDEN).unwrap().unwrap();
        assert_eq!(offsets.monotonic, Offset { seconds: -100, nanoseconds: 500_000_000 });
        assert_eq!(offsets.boottime, Offset::default());
        assert_eq!(parse(b"").unwrap(), None);
        parse(b"monotonic 0 0\n").unwrap_err();
        parse(b"monotonic 0 0\nboottime 0 1000000000\n").unwrap_err();
        parse(b"monotonic 0 0\nmonotonic 0 0\nboottime 0 0\n").unwrap_err();
        mutation::try_all(GOLDEN, |text| parse(text).is_ok());
    }

    #[test]
    fn own_offsets_are_read() {
        assert!(read(std::process::id() as i32).unwrap().is_some());
        assert!(matches!(read(i32::MAX), Err(Error::Gone)));
    }
}
