//! The symbolic links of /proc: executable, directories, descriptors, namespaces.

use std::os::unix::ffi::OsStringExt;

use super::cursor::Line;
use super::{Error, Malformed, Subject};

/// /proc/PID/exe: the executable's path, ` (deleted)` behind it when it was unlinked. `Io` of `NotFound` for a zombie
/// or kernel thread, here and below.
pub fn executable(pid: i32) -> Result<Vec<u8>, Error> {
    read(Subject::Process(pid), "exe")
}

/// /proc/PID/task/TID/cwd.
pub fn working_directory(pid: i32, tid: i32) -> Result<Vec<u8>, Error> {
    read(Subject::Task(pid, tid), "cwd")
}

/// /proc/PID/task/TID/root: `/` too for a root that the reader cannot name otherwise, such as in another mount namespace.
pub fn root(pid: i32, tid: i32) -> Result<Vec<u8>, Error> {
    read(Subject::Task(pid, tid), "root")
}

/// /proc/PID/fd/N: a path, or such as `pipe:[7]`, `anon_inode:[eventpoll]`.
pub fn descriptor(pid: i32, descriptor: i32) -> Result<Vec<u8>, Error> {
    read(Subject::Process(pid), format_args!("fd/{descriptor}"))
}

/// As [`descriptor`], for a thread that has a table of its own.
pub fn descriptor_of_task(pid: i32, tid: i32, descriptor: i32) -> Result<Vec<u8>, Error> {
    read(Subject::Task(pid, tid), format_args!("fd/{descriptor}"))
}

/// /proc/PID/task/TID/ns/KIND, such as `mnt`, `pid_for_children`: the namespace's inode number.
pub fn namespace(pid: i32, tid: i32, kind: &str) -> Result<u64, Error> {
    let target = read(Subject::Task(pid, tid), format_args!("ns/{kind}"))?;
    match parse(&target) {
        Some((_, inode)) => Ok(inode),
        None => Err(Error::Malformed(Malformed { file: "ns", line: 1, why: "not of the form name:[inode]" })),
    }
}

/// The name and number of `name:[number]`, the form of pipes, sockets and namespaces; `None` for other targets.
pub fn parse(target: &[u8]) -> Option<(&[u8], u64)> {
    let mut line = Line::whole("link", target);
    let name = line.before(b':')?;
    line.expect(b"[", "").ok()?;
    let number = line.decimal("").ok()?;
    (line.rest() == b"]" && !name.contains(&b'/')).then_some((name, number))
}

fn read(subject: Subject, name: impl std::fmt::Display) -> Result<Vec<u8>, Error> {
    let path = subject.path(name);
    match std::fs::read_link(&path) {
        Ok(target) => Ok(target.into_os_string().into_vec()),
        Err(error) => Err(subject.error(&path, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::mutation;

    #[test]
    fn targets_with_a_number() {
        assert_eq!(parse(b"pipe:[77]"), Some((&b"pipe"[..], 77)));
        assert_eq!(parse(b"mnt:[4026531841]"), Some((&b"mnt"[..], 4026531841)));
        for other in [&b"/tmp/pipe:[77]"[..], b"anon_inode:[eventpoll]", b"pipe:[77] (deleted)", b"pipe:77", b""] {
            assert_eq!(parse(other), None);
        }
        mutation::try_all(b"pipe:[77]", |text| parse(text).is_some());
    }

    #[test]
    fn own_links_are_read() {
        let pid = std::process::id() as i32;
        let path = |path: std::path::PathBuf| path.into_os_string().into_vec();
        assert_eq!(executable(pid).unwrap(), path(std::env::current_exe().unwrap()));
        assert_eq!(working_directory(pid, pid).unwrap(), path(std::env::current_dir().unwrap()));
        assert_eq!(root(pid, pid).unwrap(), b"/");
        let (reader, _writer) = std::io::pipe().unwrap();
        let target = descriptor(pid, std::os::fd::AsRawFd::as_raw_fd(&reader)).unwrap();
        assert_eq!(parse(&target).unwrap().0, b"pipe");
        assert!(namespace(pid, pid, "mnt").unwrap() > 0);
        assert!(
            matches!(namespace(pid, pid, "none"), Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::NotFound)
        );
        assert!(matches!(executable(i32::MAX), Err(Error::Gone)));
    }
}
