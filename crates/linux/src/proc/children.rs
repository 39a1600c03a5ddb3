//! /proc/PID/task/TID/children: the child processes that one thread made (or inherited).

use super::cursor::Line;
use super::{Error, Malformed, read_task};

const FILE: &str = "children";

/// Parses the text of children: process ids.
pub fn parse(text: &[u8]) -> Result<Vec<i32>, Malformed> {
    let mut line = Line::whole(FILE, text);
    let mut children = Vec::new();
    while !line.at_end() {
        children.push(line.decimal("pid")?);
        // Each is followed by a space: without it the last number may be cut off.
        line.expect(b" ", "no space behind a pid")?;
    }
    Ok(children)
}

/// The children of one thread, zombies too. Only complete while the thread and its children are stopped.
pub fn read(pid: i32, tid: i32) -> Result<Vec<i32>, Error> {
    read_task(pid, tid, FILE, parse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::mutation;

    #[test]
    fn lists() {
        assert_eq!(parse(b"12 345 2147483647 ").unwrap(), [12, 345, i32::MAX]);
        assert_eq!(parse(b"").unwrap(), []);
        parse(b"12 345").unwrap_err();
        parse(b"12 2147483648 ").unwrap_err();
        parse(b"12 -1 ").unwrap_err();
    }

    #[test]
    fn no_mutation_panics() {
        mutation::try_all(b"12 345 2147483647 ", |text| parse(text).is_ok());
    }

    #[test]
    fn an_own_child_is_listed() {
        let pid = std::process::id() as i32;
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        // The test runs in a thread of the process: the child is that thread's.
        let tids = crate::proc::directory::tasks(pid).unwrap();
        let listed = tids.iter().any(|tid| read(pid, *tid).is_ok_and(|list| list.contains(&(child.id() as i32))));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(listed);
        assert!(matches!(read(pid, i32::MAX), Err(Error::Gone)));
    }
}
