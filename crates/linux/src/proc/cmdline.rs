//! /proc/PID/cmdline: the memory between arg_start and arg_end, in which the process may have written anything.

use super::{Error, read_process};

const FILE: &str = "cmdline";

/// The strings in memory that holds one after the other, each ended by a zero byte; a last one without an end counts.
pub fn parse(memory: &[u8]) -> Vec<&[u8]> {
    if memory.is_empty() {
        return Vec::new();
    }
    memory.strip_suffix(b"\0").unwrap_or(memory).split(|byte| *byte == 0).collect()
}

/// The bytes as they are in the memory of process `pid`; empty for a zombie or kernel thread.
pub fn read(pid: i32) -> Result<Vec<u8>, Error> {
    read_process(pid, FILE, |text| Ok(text.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings() {
        assert_eq!(parse(b"sleep\x00\x0060\0"), [&b"sleep"[..], b"", b"60"]);
        assert_eq!(parse(b"redis-server *:6379"), [b"redis-server *:6379"]);
        assert_eq!(parse(b"\0"), [b""]);
        assert!(parse(b"").is_empty());
    }

    #[test]
    fn own_arguments_are_read() {
        let text = read(std::process::id() as i32).unwrap();
        let arguments: Vec<Vec<u8>> = std::env::args().map(String::into_bytes).collect();
        assert_eq!(parse(&text), arguments);
        assert!(matches!(read(i32::MAX), Err(Error::Gone)));
    }
}
