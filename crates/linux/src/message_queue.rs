//! POSIX message queues: mq_overview(7). What is in one can only be received, so looking at it means to take everything
//! out and to put it back.
//!
//! That is done by a child that outlives us: whoever of us two is killed meanwhile, the other one puts back what is
//! missing. Both know how far the work is by memory that they share and by what the queue itself tells.
#![allow(unsafe_code)]

use crate::clone::{ARGUMENTS_BYTES, Arguments};
use crate::errand::{self, Caller};
use crate::errno::{Errno, Result, check, check_int};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

/// struct mq_attr.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Attributes {
    /// O_NONBLOCK of the description.
    pub flags: i64,
    /// Most messages.
    pub messages_max: i64,
    /// Most bytes of one message.
    pub bytes_max: i64,
    /// Messages that wait.
    pub messages: i64,
    reserved: [i64; 4],
}

/// One message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Its priority.
    pub priority: u32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What a queue tells when it is read as a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Status {
    /// Bytes of all messages.
    pub bytes: u64,
    /// How somebody is to be notified (SIGEV_*).
    pub notify: i32,
    /// By which signal.
    pub signal: i32,
    /// Who; 0 = nobody.
    pub notified: i32,
}

/// Attributes of an open queue.
///
/// # Errors
/// EBADF: it is no queue.
pub fn attributes(queue: BorrowedFd<'_>) -> Result<Attributes> {
    let mut attributes = Attributes::default();
    let none = std::ptr::null::<Attributes>();
    // SAFETY: the kernel fills the struct.
    let result = unsafe { libc::syscall(libc::SYS_mq_getsetattr, queue.as_raw_fd(), none, &raw mut attributes) };
    check("mq_getattr", result)?;
    Ok(attributes)
}

/// Reads an open queue's status; it must be open for reading.
///
/// # Errors
/// EBADF: it is not open for reading.
pub fn status(queue: BorrowedFd<'_>) -> Result<Status> {
    let file = std::fs::File::from(crate::file::duplicate_above(queue, 0)?);
    let mut text = [0_u8; 128];
    let failed = |error: std::io::Error| Errno { number: error.raw_os_error().unwrap_or(libc::EIO), call: "pread" };
    let length = file.read_at(&mut text, 0).map_err(failed)?;
    parse(&text[..length]).ok_or(Errno { number: libc::EBADMSG, call: "pread" })
}

/// `QSIZE:129 NOTIFY:2 SIGNO:0 NOTIFY_PID:8260`, with blanks.
fn parse(text: &[u8]) -> Option<Status> {
    let text = std::str::from_utf8(text).ok()?;
    let mut words = text.split_ascii_whitespace();
    let mut next = |name: &str| words.next()?.strip_prefix(name)?.parse::<i64>().ok();
    Some(Status {
        bytes: next("QSIZE:")?.try_into().ok()?,
        notify: next("NOTIFY:")? as i32,
        signal: next("SIGNO:")? as i32,
        notified: next("NOTIFY_PID:")? as i32,
    })
}

fn name(name: &[u8]) -> Result<std::ffi::CString> {
    // The library takes the slash away that the kernel does not want.
    let name = name.strip_prefix(b"/").unwrap_or(name);
    std::ffi::CString::new(name).map_err(|_| Errno { number: libc::EINVAL, call: "mq_open" })
}

/// Opens a queue of this IPC namespace by its name, without making one.
///
/// # Errors
/// ENOENT, EACCES.
pub fn open(path: &[u8], flags: u32) -> Result<OwnedFd> {
    let path = name(path)?;
    let flags = flags as i32 | libc::O_CLOEXEC;
    // SAFETY: a terminated string; a fresh descriptor.
    unsafe {
        let raw = libc::syscall(libc::SYS_mq_open, path.as_ptr(), flags, 0, std::ptr::null::<u8>());
        Ok(OwnedFd::from_raw_fd(check("mq_open", raw)? as i32))
    }
}

/// Makes a queue for a user and group, in whose account it then stands, open for both ways, never waiting.
///
/// # Errors
/// EEXIST: the name is in use; EINVAL: above fs.mqueue.msg_max or msgsize_max; EMFILE: above RLIMIT_MSGQUEUE; ENOSPC:
/// above fs.mqueue.queues_max.
pub fn create(path: &[u8], owner: (u32, u32), messages_max: i64, bytes_max: i64) -> Result<OwnedFd> {
    let path = name(path)?;
    let attributes = Attributes { messages_max, bytes_max, ..Attributes::default() };
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_NONBLOCK | libc::O_CLOEXEC;
    // SAFETY: one raw call with a terminated string and a struct; the descriptor appears in the table that we share with
    // the child, and nobody else owns it.
    unsafe {
        let make = || errand::raw(libc::syscall(libc::SYS_mq_open, path.as_ptr(), flags, 0o600, &raw const attributes));
        let raw = errand::run("mq_open", Caller { pid: None, identity: Some(owner) }, true, make)?;
        Ok(OwnedFd::from_raw_fd(raw as i32))
    }
}

/// Takes a queue's name away.
///
/// # Errors
/// ENOENT, EACCES.
pub fn unlink(path: &[u8]) -> Result<()> {
    let path = name(path)?;
    // SAFETY: a terminated string.
    check_int("mq_unlink", unsafe { libc::syscall(libc::SYS_mq_unlink, path.as_ptr()) } as i32).map(drop)
}

/// Sends a message; the queue must be open for writing.
///
/// # Errors
/// EAGAIN: it is full; EMSGSIZE.
pub fn send(queue: BorrowedFd<'_>, message: &Message) -> Result<()> {
    let Message { priority, bytes } = message;
    let none = std::ptr::null::<u8>();
    // SAFETY: the bytes are as long as said.
    let result = unsafe {
        libc::syscall(libc::SYS_mq_timedsend, queue.as_raw_fd(), bytes.as_ptr(), bytes.len(), *priority, none)
    };
    check("mq_send", result).map(drop)
}

/// Memory that the child and we share: a head, then one slot per message.
struct Desk {
    base: *mut u8,
    length: usize,
    slot: usize,
    count: u64,
    bytes_max: usize,
}

/// In front of a message's bytes in its slot: length, priority.
const SLOT_HEAD: usize = 16;
const HEAD: usize = 4096;

impl Desk {
    fn new(attributes: &Attributes) -> Result<Desk> {
        let too_large = Errno { number: libc::EFBIG, call: "mq_receive" };
        let bytes_max = usize::try_from(attributes.bytes_max).map_err(|_| too_large)?;
        let count = u64::try_from(attributes.messages).map_err(|_| too_large)?;
        let slot = SLOT_HEAD + bytes_max.next_multiple_of(8);
        let length = slot.checked_mul(count as usize).and_then(|bytes| bytes.checked_add(HEAD)).ok_or(too_large)?;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe {
            let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
        };
        if base == libc::MAP_FAILED {
            return Err(Errno::last("mmap"));
        }
        Ok(Desk { base: base.cast(), length, slot, count, bytes_max })
    }

    /// How many messages are noted as taken out, as put back.
    fn counter(&self, index: usize) -> &AtomicU64 {
        // SAFETY: the head is zeroed memory of this mapping, aligned, and lives as long as we.
        unsafe { &*self.base.cast::<AtomicU64>().add(index) }
    }

    fn at(&self, index: u64) -> *mut u8 {
        // SAFETY: callers keep the index below the count.
        unsafe { self.base.add(HEAD + self.slot * index as usize) }
    }

    fn length_of(&self, index: u64) -> &AtomicU64 {
        // SAFETY: as above; a slot begins with its length.
        unsafe { &*self.at(index).cast::<AtomicU64>() }
    }

    fn message(&self, index: u64) -> Message {
        let length = (self.length_of(index).load(Ordering::Relaxed) as usize).min(self.bytes_max);
        // SAFETY: inside the slot; nobody else works any more.
        unsafe {
            let priority = self.at(index).add(8).cast::<u32>().read_volatile();
            Message { priority, bytes: std::slice::from_raw_parts(self.at(index).add(SLOT_HEAD), length).to_vec() }
        }
    }

    /// Takes out what is still there and puts everything back. Raw calls only. `moment` is told of every moment at which
    /// a worker may die.
    ///
    /// # Safety
    /// Nobody else works at the desk.
    unsafe fn work(&self, queue: i32, mut moment: impl FnMut()) -> i64 {
        let (taken, back) = (self.counter(0), self.counter(1));
        let none = std::ptr::null::<u8>();
        let mut failed = 0;
        while back.load(Ordering::Relaxed) == 0 && taken.load(Ordering::Relaxed) < self.count {
            let index = taken.load(Ordering::Relaxed);
            // SAFETY: the slot has room for the largest message.
            let result = unsafe {
                let bytes = self.at(index).add(SLOT_HEAD);
                let priority = self.at(index).add(8);
                libc::syscall(libc::SYS_mq_timedreceive, queue, bytes, self.bytes_max, priority, none)
            };
            match errand::raw(result) {
                length @ 0.. => {
                    moment();
                    self.length_of(index).store(length as u64, Ordering::SeqCst);
                    moment();
                    taken.store(index + 1, Ordering::SeqCst);
                    moment();
                }
                error if error == -i64::from(libc::EINTR) || error == -i64::from(libc::ENOMEM) => {}
                error => {
                    failed = error;
                    break;
                }
            }
        }
        while back.load(Ordering::Relaxed) < taken.load(Ordering::Relaxed) {
            let index = back.load(Ordering::Relaxed);
            // SAFETY: the slot holds a message of this length.
            let result = unsafe {
                let (bytes, priority) = (self.at(index).add(SLOT_HEAD), self.at(index).add(8).cast::<u32>());
                let length = self.length_of(index).load(Ordering::Relaxed);
                libc::syscall(libc::SYS_mq_timedsend, queue, bytes, length, priority.read_volatile(), none)
            };
            match errand::raw(result) {
                0.. => {
                    moment();
                    back.store(index + 1, Ordering::SeqCst);
                    moment();
                }
                error if error == -i64::from(libc::EINTR) || error == -i64::from(libc::ENOMEM) => {}
                error => return error,
            }
        }
        failed
    }

    /// Takes over from a child that was killed: what the queue holds now tells whether its last call has worked.
    fn take_over(&self, queue: BorrowedFd<'_>, before: &Status) -> Result<()> {
        let (taken, back) = (self.counter(0), self.counter(1));
        let messages = attributes(queue)?.messages as u64;
        let noted = taken.load(Ordering::SeqCst);
        if back.load(Ordering::SeqCst) > 0 || (noted == self.count && messages > 0) {
            back.store(messages, Ordering::SeqCst);
        } else if messages + noted < self.count {
            // Taken out and not noted: its length is what is missing of all.
            let known: u64 = (0..noted).map(|index| self.length_of(index).load(Ordering::SeqCst)).sum();
            let missing = before.bytes.saturating_sub(known).saturating_sub(status(queue)?.bytes);
            self.length_of(noted).store(missing, Ordering::SeqCst);
            taken.store(noted + 1, Ordering::SeqCst);
        }
        Ok(())
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        // SAFETY: our own mapping; no reference into it outlives us.
        unsafe { libc::munmap(self.base.cast(), self.length) };
    }
}

/// Reads all messages of a queue, first to last, and leaves them there. Nobody may use the queue meanwhile, and nobody
/// may be registered for a notification: the first message that comes back would notify. The queue must be open for both
/// ways and never wait. Access times of the queue change.
///
/// # Errors
/// EBADF; EAGAIN: somebody else has taken messages meanwhile.
pub fn peek(queue: BorrowedFd<'_>) -> Result<Vec<Message>> {
    peek_with(queue, || ())
}

/// The same, where the child is told of the moments at which it may die.
fn peek_with(queue: BorrowedFd<'_>, moment: impl FnMut()) -> Result<Vec<Message>> {
    let flags = crate::file::status_flags(queue)? as i32;
    if flags & (libc::O_ACCMODE | libc::O_NONBLOCK) != libc::O_RDWR | libc::O_NONBLOCK {
        // What it could not put back must not be taken.
        return Err(Errno { number: libc::EBADF, call: "mq_receive" });
    }
    let (attributes, before) = (attributes(queue)?, status(queue)?);
    if attributes.messages == 0 {
        return Ok(Vec::new());
    }
    let desk = Desk::new(&attributes)?;
    let mask = crate::signal::set_own_mask(u64::MAX);
    let arguments = Arguments { exit_signal: libc::SIGCHLD as u64, ..Arguments::default() };
    // SAFETY: fork semantics; the child makes only raw system calls and never returns.
    let result = unsafe {
        let result = check("clone3", libc::syscall(libc::SYS_clone3, &raw const arguments, ARGUMENTS_BYTES));
        if result == Ok(0) {
            // Out of our session and group: what ends those does not end it.
            libc::syscall(libc::SYS_setsid);
            let failed = desk.work(queue.as_raw_fd(), moment);
            libc::syscall(libc::SYS_exit_group, i32::from(failed != 0));
            loop {
                libc::syscall(libc::SYS_pause);
            }
        }
        result
    };
    let mut ended = 0;
    if let Ok(pid) = result {
        // SAFETY: our own child.
        while unsafe { libc::waitpid(pid as i32, &raw mut ended, libc::__WALL) } == -1 {}
    }
    crate::signal::set_own_mask(mask);
    result?;
    if ended != 0 {
        desk.take_over(queue, &before)?;
        // SAFETY: the child has ended.
        let failed = unsafe { desk.work(queue.as_raw_fd(), || ()) };
        crate::errno::foreign("mq_receive", failed)?;
    }
    Ok((0..desk.count).map(|index| desk.message(index)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn what_is_looked_at_stays_whoever_dies() {
        let path = format!("/godwit-test-{}", std::process::id()).into_bytes();
        let queue = create(&path, (0, 0), 6, 40).unwrap();
        assert_eq!(create(&path, (0, 0), 6, 40).unwrap_err().number, libc::EEXIST);
        let again = open(&path, libc::O_RDONLY as u32).unwrap();
        unlink(&path).unwrap();
        let message = |priority: u32, bytes: &[u8]| Message { priority, bytes: bytes.to_vec() };
        let sent = [message(1, b"one"), message(7, b""), message(1, b"another of one"), message(32767, &[9; 40])];
        for message in &sent {
            send(queue.as_fd(), message).unwrap();
        }
        let wanted = [sent[3].clone(), sent[1].clone(), sent[0].clone(), sent[2].clone()];
        assert_eq!(peek(queue.as_fd()).unwrap(), wanted);
        // Three moments of each message that is taken, two of each that comes back.
        for end in 1..=4 * (3 + 2) {
            let mut left = end;
            let die = move || {
                left -= 1;
                if left == 0 {
                    // SAFETY: a raw call; the process is the forked child itself.
                    unsafe { libc::syscall(libc::SYS_kill, libc::syscall(libc::SYS_getpid), libc::SIGKILL) };
                }
            };
            assert_eq!(peek_with(queue.as_fd(), die).unwrap(), wanted, "killed at moment {end}");
            assert_eq!(attributes(again.as_fd()).unwrap().messages, 4, "killed at moment {end}");
        }
        assert_eq!(status(again.as_fd()).unwrap(), Status { bytes: 57, ..Status::default() });
        assert_eq!(peek(again.as_fd()).unwrap_err().number, libc::EBADF);
        assert_eq!(peek(queue.as_fd()).unwrap(), wanted);
    }

    #[test]
    fn the_status_is_read() {
        let text = b"QSIZE:129        NOTIFY:2     SIGNO:35    NOTIFY_PID:8260  \n";
        assert_eq!(parse(text), Some(Status { bytes: 129, notify: 2, signal: 35, notified: 8260 }));
        assert_eq!(parse(b"QSIZE:-1 NOTIFY:0 SIGNO:0 NOTIFY_PID:0\n"), None);
        assert_eq!(parse(b"QSIZE:1 NOTIFY:0"), None);
    }
}
