//! /proc/PID/task/TID/comm: the name of a thread.

use super::{Error, Malformed, read_task};

const FILE: &str = "comm";

/// Parses the text of comm: any bytes, newlines too, and one newline behind them.
pub fn parse(text: &[u8]) -> Result<Vec<u8>, Malformed> {
    match text {
        [name @ .., b'\n'] => Ok(name.to_vec()),
        _ => Err(Malformed { file: FILE, line: 0, why: "the last line has no end" }),
    }
}

/// The name of one thread: at most 15 bytes, more for a kernel thread.
pub fn read(pid: i32, tid: i32) -> Result<Vec<u8>, Error> {
    read_task(pid, tid, FILE, parse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(parse(b"a) R\n(\\b\n").unwrap(), b"a) R\n(\\b");
        assert_eq!(parse(b"\n").unwrap(), b"");
        parse(b"sleep").unwrap_err();
        parse(b"").unwrap_err();
    }

    #[test]
    fn a_named_thread_is_read() {
        let pid = std::process::id() as i32;
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("named ) here".into()).spawn(move || receiver.recv()).unwrap();
        let found = (0..1000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(1));
            let tids = crate::proc::directory::tasks(pid).unwrap();
            tids.iter().any(|tid| read(pid, *tid).is_ok_and(|name| name == b"named ) here"))
        });
        drop(sender);
        thread.join().unwrap().unwrap_err();
        assert!(found);
    }
}
