//! The directories of /proc whose names are numbers: tasks, descriptors, processes.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use super::{BUFFER, Error, FIRST_PIECE, Malformed, Subject};

/// Threads of process `pid`, ascending.
pub fn tasks(pid: i32) -> Result<Vec<i32>, Error> {
    read(Subject::Process(pid), "task", "task")
}

/// Descriptors of process `pid`, ascending. Empty for a zombie.
pub fn descriptors(pid: i32) -> Result<Vec<i32>, Error> {
    read(Subject::Process(pid), "fd", "fd")
}

/// Descriptors of one thread, which may have a table of its own.
pub fn descriptors_of_task(pid: i32, tid: i32) -> Result<Vec<i32>, Error> {
    read(Subject::Task(pid, tid), "fd", "fd")
}

/// Processes that this /proc shows, ascending.
pub fn processes() -> Result<Vec<i32>, Error> {
    read(Subject::Host, "", "proc")
}

/// Offsets in struct linux_dirent64 of linux/dirent.h.
const LENGTH_AT: usize = 16;
const NAME_AT: usize = 19;

/// Appends the names that are numbers, out of what getdents64(2) returned; `file` is named in the error. Other names
/// are passed over.
pub fn parse(file: &'static str, entries: &[u8], numbers: &mut Vec<i32>) -> Result<(), Malformed> {
    let malformed = |why| Malformed { file, line: 0, why };
    let mut rest = entries;
    while !rest.is_empty() {
        let length = rest
            .get(LENGTH_AT..LENGTH_AT + 2)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u16::from_ne_bytes)
            .ok_or_else(|| malformed("a directory entry is cut off"))?;
        let entry = rest.get(..usize::from(length)).ok_or_else(|| malformed("a directory entry is cut off"))?;
        let name = entry.get(NAME_AT..).ok_or_else(|| malformed("a directory entry is too short"))?;
        let end = name.iter().position(|byte| *byte == 0).ok_or_else(|| malformed("a name has no end"))?;
        numbers.extend(number(name.get(..end).unwrap_or_default()));
        rest = rest.get(usize::from(length)..).unwrap_or_default();
    }
    Ok(())
}

/// A canonical decimal number.
fn number(name: &[u8]) -> Option<i32> {
    if name.is_empty() || (name.len() > 1 && name.starts_with(b"0")) {
        return None;
    }
    name.iter().try_fold(0i32, |value, byte| match byte {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(i32::from(byte - b'0')),
        _ => None,
    })
}

fn read(subject: Subject, name: &str, file: &'static str) -> Result<Vec<i32>, Error> {
    let path = subject.path(name);
    let directory = subject.open(&path)?;
    let mut buffer = BUFFER.take();
    if buffer.len() < 2 * FIRST_PIECE {
        buffer.resize(2 * FIRST_PIECE, 0);
    }
    let mut numbers = Vec::new();
    let result = loop {
        match getdents(&directory, &mut buffer) {
            Ok(0) => break Ok(()),
            Ok(length) => {
                if let Err(malformed) = parse(file, buffer.get(..length).unwrap_or_default(), &mut numbers) {
                    break Err(Error::Malformed(malformed));
                }
            }
            Err(error) => break Err(subject.error(&path, error)),
        }
    };
    BUFFER.set(buffer);
    result?;
    // The kernel lists tasks by age, which after a wrap of the ids is another order.
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

fn getdents(directory: &File, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `len` bytes to the buffer, which is borrowed mutably for the call.
    let result =
        unsafe { libc::syscall(libc::SYS_getdents64, directory.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::mutation;

    fn entry(name: &[u8]) -> Vec<u8> {
        let length = (NAME_AT + name.len() + 1).next_multiple_of(8);
        let mut entry = vec![0; length];
        entry[LENGTH_AT..LENGTH_AT + 2].copy_from_slice(&(length as u16).to_ne_bytes());
        entry[NAME_AT..NAME_AT + name.len()].copy_from_slice(name);
        entry
    }

    #[test]
    fn only_numbers_are_taken() {
        let names: [&[u8]; 9] = [b".", b"..", b"17", b"self", b"0", b"2147483647", b"2147483648", b"1x", b"007"];
        let entries: Vec<u8> = names.iter().flat_map(|name| entry(name)).collect();
        let mut numbers = Vec::new();
        parse("task", &entries, &mut numbers).unwrap();
        assert_eq!(numbers, [17, 0, i32::MAX]);
        parse("task", &entries[..entries.len() - 1], &mut numbers).unwrap_err();
        mutation::try_all(&entries, |text| parse("task", text, &mut Vec::new()).is_ok());
    }

    #[test]
    fn own_descriptors_and_tasks_are_listed() {
        let pid = std::process::id() as i32;
        let files: Vec<File> = (0..300).map(|_| File::open("/dev/null").unwrap()).collect();
        let descriptors = descriptors(pid).unwrap();
        assert!(descriptors.is_sorted());
        assert!(files.iter().all(|file| descriptors.binary_search(&file.as_raw_fd()).is_ok()));
        assert!(tasks(pid).unwrap().contains(&pid));
        assert!(descriptors_of_task(pid, pid).unwrap().len() >= 300);
        assert!(processes().unwrap().contains(&pid));
        assert!(matches!(tasks(i32::MAX), Err(Error::Gone)));
    }
}
