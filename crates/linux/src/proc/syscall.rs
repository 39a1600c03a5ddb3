//! /proc/PID/task/TID/syscall: the system call in which a thread waits.

use super::cursor::{Line, Lines};
use super::{Error, Malformed, read_task};

/// What a thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// It runs.
    Running,
    /// It waits in the kernel, but not in a system call (page fault, signal stop, ptrace stop).
    NoCall {
        /// Stack pointer.
        stack: u64,
        /// Program counter.
        program: u64,
    },
    /// It waits in a system call.
    Call {
        /// Number of the call.
        number: u32,
        /// Its arguments.
        arguments: [u64; 6],
        /// Stack pointer.
        stack: u64,
        /// Program counter, behind the call instruction.
        program: u64,
    },
}

const FILE: &str = "syscall";

/// Parses the text of syscall.
pub fn parse(text: &[u8]) -> Result<Activity, Malformed> {
    let mut lines = Lines::new(FILE, text)?;
    let Some(mut line) = lines.next() else { return Err(lines.malformed("empty")) };
    let activity = if line.take(b"running") {
        Activity::Running
    } else if line.take(b"-1 ") {
        Activity::NoCall { stack: address(&mut line)?, program: address(&mut line)? }
    } else {
        let number = line.decimal_word("number of the call")?;
        let mut arguments = [0; 6];
        for argument in &mut arguments {
            *argument = address(&mut line)?;
        }
        Activity::Call { number, arguments, stack: address(&mut line)?, program: address(&mut line)? }
    };
    line.end()?;
    if lines.next().is_some() { Err(lines.malformed("more than one line")) } else { Ok(activity) }
}

fn address(line: &mut Line<'_>) -> Result<u64, Malformed> {
    line.blanks();
    line.expect(b"0x", "no 0x")?;
    line.hexadecimal_word("number")
}

/// What one thread is doing; needs PTRACE_MODE_ATTACH access.
pub fn read(pid: i32, tid: i32) -> Result<Activity, Error> {
    read_task(pid, tid, FILE, parse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::mutation;

    const GOLDEN: &[u8] = b"0 0x1c 0x55ed682d4470 0x2000 0x1fb90 0x0 0x0 0x7ffd36a98ac8 0x7f5c193162ad\n";

    #[test]
    fn activities() {
        assert_eq!(
            parse(GOLDEN).unwrap(),
            Activity::Call {
                number: 0,
                arguments: [0x1c, 0x55ed682d4470, 0x2000, 0x1fb90, 0, 0],
                stack: 0x7ffd36a98ac8,
                program: 0x7f5c193162ad,
            }
        );
        assert_eq!(parse(b"-1 0x10 0x20\n").unwrap(), Activity::NoCall { stack: 16, program: 32 });
        assert_eq!(parse(b"running\n").unwrap(), Activity::Running);
        parse(b"runningx\n").unwrap_err();
        parse(b"0 0x1c 0x0\n").unwrap_err();
        parse(b"-2 0x1c 0x0\n").unwrap_err();
        mutation::try_all(GOLDEN, |text| parse(text).is_ok());
    }

    #[test]
    fn a_sleeper_is_read() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id() as i32;
        let found = (0..1000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(1));
            matches!(read(pid, pid), Ok(Activity::Call { number, .. }) if i64::from(number) == libc::SYS_clock_nanosleep)
        });
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found);
        assert!(matches!(read(pid, pid), Err(Error::Gone)));
    }
}
