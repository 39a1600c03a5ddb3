//! /proc/meminfo: how much memory this host has and could still give.

use super::cursor::Lines;
use super::{Error, Malformed, read_host};

/// Sizes in bytes, of the whole machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Memory {
    /// `MemTotal`
    pub total: u64,
    /// `MemFree`
    pub free: u64,
    /// `MemAvailable`: the kernel's estimate of what new work can have without swapping.
    pub available: u64,
    /// `SwapTotal`
    pub swap_total: u64,
    /// `SwapFree`
    pub swap_free: u64,
    /// `HugePages_Total`: pages of the default size.
    pub huge_pages_total: u64,
    /// `HugePages_Free`: pages of the default size.
    pub huge_pages_free: u64,
    /// `HugePages_Rsvd`: free ones that are promised already.
    pub huge_pages_reserved: u64,
    /// `Hugepagesize`, bytes; 0 on a kernel without huge pages.
    pub huge_page_size: u64,
}

const FILE: &str = "meminfo";

/// Parses the text of meminfo.
pub fn parse(text: &[u8]) -> Result<Memory, Malformed> {
    let mut memory = Memory::default();
    let mut seen = [false; 3];
    let [total, free, available] = &mut seen;
    let mut lines = Lines::new(FILE, text)?;
    for mut line in lines.by_ref() {
        let Some(key) = line.before(b':') else { return Err(line.malformed("no : behind the name")) };
        match key {
            b"MemTotal" => (memory.total, *total) = (line.kibibytes()?, true),
            b"MemFree" => (memory.free, *free) = (line.kibibytes()?, true),
            b"MemAvailable" => (memory.available, *available) = (line.kibibytes()?, true),
            b"SwapTotal" => memory.swap_total = line.kibibytes()?,
            b"SwapFree" => memory.swap_free = line.kibibytes()?,
            b"HugePages_Total" => memory.huge_pages_total = line.decimal_word("count")?,
            b"HugePages_Free" => memory.huge_pages_free = line.decimal_word("count")?,
            b"HugePages_Rsvd" => memory.huge_pages_reserved = line.decimal_word("count")?,
            b"Hugepagesize" => memory.huge_page_size = line.kibibytes()?,
            _ => {}
        }
    }
    if seen.contains(&false) { Err(lines.malformed("a line is missing")) } else { Ok(memory) }
}

/// The memory of this host now.
pub fn read() -> Result<Memory, Error> {
    read_host(FILE, parse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::mutation;

    const GOLDEN: &[u8] = b"MemTotal:       24684084 kB\nMemFree:        23508504 kB\nMemAvailable:   24269292 kB\nActive(anon):       1548 kB\nSwapTotal:          8192 kB\nSwapFree:           4096 kB\nHugePages_Total:       5\nHugePages_Free:        4\nHugePages_Rsvd:        1\nHugePages_Surp:        0\nHugepagesize:       2048 kB\nDirectMap1G:    25165824 kB\n";

    #[test]
    fn sizes() {
        let memory = parse(GOLDEN).unwrap();
        assert_eq!((memory.total, memory.free, memory.available), (24684084 << 10, 23508504 << 10, 24269292 << 10));
        assert_eq!((memory.swap_total, memory.swap_free), (8 << 20, 4 << 20));
        assert_eq!((memory.huge_pages_total, memory.huge_pages_free, memory.huge_pages_reserved), (5, 4, 1));
        assert_eq!(memory.huge_page_size, 2 << 20);
        parse(b"MemTotal: 1 kB\nMemFree: 1 kB\n").unwrap_err();
        parse(b"MemTotal: 18446744073709551615 kB\n").unwrap_err();
        mutation::try_all(GOLDEN, |text| parse(text).is_ok());
        let memory = read().unwrap();
        assert!(memory.available <= memory.total && memory.available > 0);
    }
}
