//! /proc/sys: the kernel's settings, as numbers and lines.

use super::cursor::Lines;
use super::{Error, Malformed, read_host};

const FILE: &str = "sys";

/// Parses the text of a setting that is one number.
pub fn parse(text: &[u8]) -> Result<i64, Malformed> {
    let mut lines = Lines::new(FILE, text)?;
    let Some(mut line) = lines.next() else { return Err(lines.malformed("empty")) };
    let value = line.signed_word("number")?;
    line.end()?;
    if lines.next().is_some() { Err(lines.malformed("more than one line")) } else { Ok(value) }
}

/// Parses the text of a setting that is one line of printable ASCII.
pub fn parse_line(text: &[u8]) -> Result<String, Malformed> {
    match text {
        [line @ .., b'\n'] if line.iter().all(|byte| matches!(byte, b' '..=b'~')) => {
            Ok(line.iter().map(|byte| char::from(*byte)).collect())
        }
        _ => Err(Malformed { file: FILE, line: 1, why: "not one line of ASCII" }),
    }
}

/// The number in /proc/sys/NAME, such as `kernel/pid_max` or `kernel/shm_next_id`. Where a namespace has its own, it is
/// that of the calling thread.
pub fn read(name: &str) -> Result<i64, Error> {
    read_host(format_args!("sys/{name}"), parse)
}

/// The release of the kernel, as of uname -r.
pub fn kernel_release() -> Result<String, Error> {
    read_host("sys/kernel/osrelease", parse_line)
}

/// A random UUID that changes with every boot.
pub fn boot_id() -> Result<String, Error> {
    read_host("sys/kernel/random/boot_id", parse_line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::mutation;

    #[test]
    fn values() {
        assert_eq!(parse(b"4194304\n").unwrap(), 4194304);
        assert_eq!(parse(b"-1\n").unwrap(), -1);
        parse(b"1\t2\n").unwrap_err();
        assert_eq!(parse_line(b"6.18.44-fc-v669\n").unwrap(), "6.18.44-fc-v669");
        parse_line(b"6.18\n\n").unwrap_err();
        mutation::try_all(b"-4194304\n", |text| parse(text).is_ok());
        mutation::try_all(b"6.18.44-fc-v669\n", |text| parse_line(text).is_ok());
    }

    #[test]
    fn settings_of_this_host() {
        assert!(read("kernel/pid_max").unwrap() > 300);
        assert_eq!(read("kernel/shm_next_id").unwrap(), -1);
        assert!(kernel_release().unwrap().contains('.'));
        assert_eq!(boot_id().unwrap().len(), 36);
        assert!(
            matches!(read("kernel/no_such"), Err(Error::Io(error)) if error.to_string().contains("/proc/sys/kernel/no_such"))
        );
    }
}
