//! Small /proc files that the engine reads whole: lists of threads, children, descriptors, and single values.
use godwit_linux::proc::{Error, whole};
use std::os::unix::ffi::OsStrExt;

fn io(error: std::io::Error) -> Error {
    match error.raw_os_error() {
        Some(2 | 3) => Error::Gone,
        _ => Error::Io(error),
    }
}

/// A small file as text; what is not UTF-8 is replaced.
pub(crate) fn text(path: &str) -> std::io::Result<String> {
    whole(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn numbers(path: &str) -> Result<Vec<i32>, Error> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(io)? {
        let entry = entry.map_err(io)?;
        if let Ok(number) = String::from_utf8_lossy(entry.file_name().as_bytes()).parse() {
            found.push(number);
        }
    }
    found.sort_unstable();
    Ok(found)
}

pub(crate) fn threads(pid: i32) -> Result<Vec<i32>, Error> {
    numbers(&format!("/proc/{pid}/task"))
}

pub(crate) fn descriptors(tid: i32) -> Result<Vec<i32>, Error> {
    numbers(&format!("/proc/{tid}/fd"))
}

/// How many descriptors a process has open; none where the kernel does not count them (before Linux 6.2).
pub(crate) fn count_of_descriptors(tid: i32) -> Option<usize> {
    let count = std::fs::metadata(format!("/proc/{tid}/fd")).ok()?.len();
    usize::try_from(count).ok().filter(|count| *count > 0)
}

pub(crate) fn children(pid: i32, tid: i32) -> Result<Vec<i32>, Error> {
    let text = text(&format!("/proc/{pid}/task/{tid}/children")).map_err(io)?;
    Ok(text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect())
}

pub(crate) fn comm(pid: i32, tid: i32) -> Result<Vec<u8>, Error> {
    let mut text = whole(&format!("/proc/{pid}/task/{tid}/comm")).map_err(io)?;
    text.pop();
    Ok(text)
}

pub(crate) fn auxiliary_vector(tid: i32) -> Result<Vec<u8>, Error> {
    whole(&format!("/proc/{tid}/auxv")).map_err(io)
}

pub(crate) fn oom_score_adj(pid: i32) -> Result<i32, Error> {
    let text = text(&format!("/proc/{pid}/oom_score_adj")).map_err(io)?;
    Ok(text.trim().parse().unwrap_or(0))
}

pub(crate) fn core_filter(tid: i32) -> Result<Option<u32>, Error> {
    let text = text(&format!("/proc/{tid}/coredump_filter")).map_err(io)?;
    Ok(u32::from_str_radix(text.trim(), 16).ok())
}

/// How many processes and threads this machine has made since it booted; none where /proc does not tell.
pub(crate) fn forks() -> Option<u64> {
    let text = text("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("processes ")).and_then(|number| number.trim().parse().ok())
}
