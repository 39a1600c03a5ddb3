//! /proc/uptime: how long this host has been up, in the reader's time namespace.

use std::time::Duration;

use super::cursor::Lines;
use super::{Error, Malformed, read_host};

const FILE: &str = "uptime";

/// Parses the text of uptime: time since boot (CLOCK_BOOTTIME), to 10 ms.
pub fn parse(text: &[u8]) -> Result<Duration, Malformed> {
    let mut lines = Lines::new(FILE, text)?;
    let Some(mut line) = lines.next() else { return Err(lines.malformed("empty")) };
    let seconds = line.decimal("seconds")?;
    line.expect(b".", "no point behind the seconds")?;
    let hundredths: u32 = line.decimal_word("hundredths")?;
    if hundredths > 99 {
        return Err(line.malformed("more hundredths than a second has"));
    }
    Ok(Duration::new(seconds, hundredths * 10_000_000))
}

/// Time since boot.
pub fn read() -> Result<Duration, Error> {
    read_host(FILE, parse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::mutation;

    #[test]
    fn times() {
        assert_eq!(parse(b"2430.07 4539.56\n").unwrap(), Duration::from_millis(2_430_070));
        parse(b"2430 4539\n").unwrap_err();
        parse(b"2430.100 4539.56\n").unwrap_err();
        mutation::try_all(b"2430.07 4539.56\n", |text| parse(text).is_ok());
        let first = read().unwrap();
        assert!(first > Duration::ZERO && read().unwrap() >= first);
    }
}
