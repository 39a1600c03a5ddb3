//! /proc/PID/fdinfo/FD: position and flags of an open description, and what its kind adds.

use super::cursor::{Line, Lines, bytes_of_hexadecimal};
use super::locks::{self, Lock};
use super::{Error, Malformed, Subject, read_process};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::fs::FileExt;

/// What fdinfo says of one descriptor. Several lines of one kind are collected; what is not known is in `unknown`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct DescriptorInfo {
    /// `pos`: offset, bytes.
    pub position: i64,
    /// `flags`: as for open(2), with O_CLOEXEC of this descriptor.
    pub flags: u32,
    /// `mnt_id`: mount in mountinfo; internal mounts (pipes, sockets, memfd) are not listed there.
    pub mount: i32,
    /// `ino`: inode; absent before Linux 5.14.
    pub inode: Option<u64>,
    /// `lock:` lines of this open description, and of this process on this file.
    pub locks: Vec<Lock>,
    /// The lines of an eventfd.
    pub eventfd: Option<EventCounter>,
    /// `tfd:` lines of an epoll set.
    pub epoll: Vec<EpollTarget>,
    /// `sigmask` of a signalfd: bit n-1 is signal n.
    pub signal_mask: Option<u64>,
    /// The lines of a timerfd.
    pub timer: Option<Timer>,
    /// `inotify` lines.
    pub inotify: Vec<InotifyWatch>,
    /// Whether it is a fanotify group; its lines are in `unknown`.
    pub fanotify: bool,
    /// Whether it is an io_uring; its lines are in `unknown`.
    pub io_uring: bool,
    /// Whether it is a userfaultfd; its lines are in `unknown`.
    pub userfaultfd: bool,
    /// The lines of a pidfd.
    pub pidfd: Option<PidDescriptor>,
    /// `scm_fds`: descriptors in flight in a Unix socket's receive queue (none that wait to be accepted).
    pub descriptors_in_flight: Option<u32>,
    /// `iff`: interface of a tun descriptor.
    pub tun_interface: Option<Vec<u8>>,
    /// `tty-index` of a pseudo-terminal's master.
    pub terminal_index: Option<u32>,
    /// Lines with an unknown key, as printed.
    pub unknown: Vec<Vec<u8>>,
}

/// State of an eventfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct EventCounter {
    /// `eventfd-count`
    pub count: u64,
    /// `eventfd-id`: the same in every descriptor of one eventfd; absent before Linux 5.2.
    pub id: Option<i32>,
    /// `eventfd-semaphore` (EFD_SEMAPHORE); absent before Linux 6.5.
    pub semaphore: Option<bool>,
}

/// A file in an epoll set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpollTarget {
    /// Descriptor under which it was added; may be closed or reused since.
    pub descriptor: i32,
    /// EPOLL* bits; of a fired EPOLLONESHOT only the bits that cannot be masked are left.
    pub events: u32,
    /// The user's data.
    pub data: u64,
    /// Position of the file, bytes.
    pub position: i64,
    /// Inode of the file.
    pub inode: u64,
    /// Device of the file's file system.
    pub device_major: u32,
    /// Device of the file's file system.
    pub device_minor: u32,
}

/// State of a timerfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Timer {
    /// `clockid`: CLOCK_*.
    pub clock: i32,
    /// `ticks`: expirations that were not read.
    pub ticks: u64,
    /// `settime flags`: TFD_TIMER_*.
    pub settime_flags: u32,
    /// `it_value`: time until the next expiration (also for absolute timers); 0 = disarmed.
    pub value: Time,
    /// `it_interval`; 0 = once.
    pub interval: Time,
}

/// Seconds and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Time {
    /// Whole seconds.
    pub seconds: u64,
    /// 0..=999,999,999.
    pub nanoseconds: u32,
}

/// A watch of an inotify instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InotifyWatch {
    /// Watch descriptor.
    pub descriptor: i32,
    /// Inode watched.
    pub inode: u64,
    /// Device of its file system.
    pub device_major: u32,
    /// Device of its file system.
    pub device_minor: u32,
    /// IN_* bits.
    pub mask: u32,
    /// `ignored_mask`
    pub ignored_mask: u32,
    /// For open_by_handle_at(2); absent when the file system has none.
    pub handle: Option<FileHandle>,
}

/// A file handle as name_to_handle_at(2) gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileHandle {
    /// `handle_type`
    pub kind: i32,
    /// At most 128 bytes (MAX_HANDLE_SZ).
    pub bytes: Vec<u8>,
}

/// What a pidfd refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PidDescriptor {
    /// `Pid` in the reader's PID namespace; 0 when not visible there, -1 when reaped.
    pub pid: i32,
    /// `NSpid`: in each PID namespace, from the reader's inwards.
    pub namespace_pid: Vec<i32>,
}

const FILE: &str = "fdinfo";
const MAX_HANDLE: usize = 128;

/// Parses the text of one fdinfo file.
pub fn parse(text: &[u8]) -> Result<DescriptorInfo, Malformed> {
    let mut info = DescriptorInfo::default();
    let mut seen = [false; 3];
    let mut lines = Lines::new(FILE, text)?;
    for mut line in lines.by_ref() {
        let whole = line.rest();
        // The kinds whose key ends with a space.
        if line.take(b"inotify ") {
            info.inotify.push(inotify_watch(&mut line)?);
            continue;
        }
        if line.take(b"fanotify ") {
            info.fanotify = true;
            info.unknown.push(whole.to_vec());
            continue;
        }
        let Some(key) = line.before(b':') else {
            info.unknown.push(whole.to_vec());
            continue;
        };
        line.blanks();
        let common = match key {
            b"pos" => Some(0),
            b"flags" => Some(1),
            b"mnt_id" => Some(2),
            _ => None,
        };
        if let Some(seen) = common.and_then(|index: usize| seen.get_mut(index)) {
            if *seen {
                return Err(line.malformed("the line is there twice"));
            }
            *seen = true;
        }
        match key {
            b"pos" => info.position = line.signed_word("pos")?,
            b"flags" => info.flags = line.octal_word("flags")?,
            b"mnt_id" => info.mount = line.signed_word("mnt_id")?,
            b"ino" => info.inode = Some(line.decimal_word("ino")?),
            b"lock" => info.locks.push(locks::parse_line(&mut line)?),
            b"tfd" => info.epoll.push(epoll_target(&mut line)?),
            b"sigmask" => info.signal_mask = Some(line.hexadecimal_word("signal set")?),
            b"eventfd-count" => info.eventfd.get_or_insert_default().count = line.hexadecimal_word("count")?,
            b"eventfd-id" => info.eventfd.get_or_insert_default().id = Some(line.signed_word("id")?),
            b"eventfd-semaphore" => {
                let semaphore: u8 = line.decimal_word("0 or 1")?;
                info.eventfd.get_or_insert_default().semaphore = Some(semaphore != 0);
            }
            b"clockid" => info.timer.get_or_insert_default().clock = line.signed_word("clock")?,
            b"ticks" => info.timer.get_or_insert_default().ticks = line.decimal_word("ticks")?,
            b"settime flags" => {
                info.timer.get_or_insert_default().settime_flags = line.octal_word("flags of settime")?
            }
            b"it_value" => info.timer.get_or_insert_default().value = time(&mut line)?,
            b"it_interval" => info.timer.get_or_insert_default().interval = time(&mut line)?,
            b"Pid" => {
                let pid = line.signed_word("pid")?;
                match &mut info.pidfd {
                    Some(pidfd) => pidfd.pid = pid,
                    none => *none = Some(PidDescriptor { pid, namespace_pid: Vec::new() }),
                }
            }
            b"NSpid" => {
                let mut pids = Vec::new();
                while !line.at_end() {
                    pids.push(line.signed_word("pid")?);
                }
                match &mut info.pidfd {
                    Some(pidfd) => pidfd.namespace_pid = pids,
                    None => return Err(line.malformed("NSpid without Pid")),
                }
            }
            b"scm_fds" => info.descriptors_in_flight = Some(line.decimal_word("count")?),
            b"iff" => info.tun_interface = Some(line.rest().to_vec()),
            b"tty-index" => info.terminal_index = Some(line.decimal_word("index")?),
            _ => {
                info.io_uring |= key == b"SqMask";
                info.userfaultfd |= key == b"API";
                info.unknown.push(whole.to_vec());
            }
        }
    }
    if seen.contains(&false) {
        return Err(lines.malformed("pos, flags or mnt_id is missing"));
    }
    Ok(info)
}

fn epoll_target(line: &mut Line<'_>) -> Result<EpollTarget, Malformed> {
    let descriptor = line.decimal_word("tfd")?;
    line.blanks();
    line.expect(b"events:", "no events")?;
    let events = line.hexadecimal_word("events")?;
    line.blanks();
    line.expect(b"data:", "no data")?;
    let data = line.hexadecimal_word("data")?;
    line.blanks();
    line.expect(b"pos:", "no pos")?;
    let position = line.signed_word("pos")?;
    line.blanks();
    line.expect(b"ino:", "no ino")?;
    let inode = line.hexadecimal_word("ino")?;
    let (device_major, device_minor) = device(line)?;
    line.end()?;
    Ok(EpollTarget { descriptor, events, data, position, inode, device_major, device_minor })
}

/// `sdev:` in the kernel's own coding: 20 bits of minor number.
fn device(line: &mut Line<'_>) -> Result<(u32, u32), Malformed> {
    line.blanks();
    line.expect(b"sdev:", "no sdev")?;
    let device: u32 = line.hexadecimal_word("sdev")?;
    Ok((device >> 20, device & 0xf_ffff))
}

fn inotify_watch(line: &mut Line<'_>) -> Result<InotifyWatch, Malformed> {
    line.expect(b"wd:", "no wd")?;
    let descriptor = line.hexadecimal_word("wd")?;
    line.blanks();
    line.expect(b"ino:", "no ino")?;
    let inode = line.hexadecimal_word("ino")?;
    let (device_major, device_minor) = device(line)?;
    line.blanks();
    line.expect(b"mask:", "no mask")?;
    let mask = line.hexadecimal_word("mask")?;
    line.blanks();
    line.expect(b"ignored_mask:", "no ignored_mask")?;
    let ignored_mask = line.hexadecimal_word("ignored_mask")?;
    let handle = if line.at_end() { None } else { Some(file_handle(line)?) };
    Ok(InotifyWatch { descriptor, inode, device_major, device_minor, mask, ignored_mask, handle })
}

fn file_handle(line: &mut Line<'_>) -> Result<FileHandle, Malformed> {
    line.expect(b"fhandle-bytes:", "no fhandle-bytes")?;
    let length: usize = line.hexadecimal_word("fhandle-bytes")?;
    line.blanks();
    line.expect(b"fhandle-type:", "no fhandle-type")?;
    let kind = line.hexadecimal_word("fhandle-type")?;
    line.blanks();
    line.expect(b"f_handle:", "no f_handle")?;
    let bytes = bytes_of_hexadecimal(line.word()).ok_or_else(|| line.malformed("f_handle"))?;
    line.end()?;
    if bytes.len() != length || length > MAX_HANDLE {
        return Err(line.malformed("f_handle has another length than fhandle-bytes"));
    }
    Ok(FileHandle { kind, bytes })
}

/// `(seconds, nanoseconds)`
fn time(line: &mut Line<'_>) -> Result<Time, Malformed> {
    line.expect(b"(", "no ( before the seconds")?;
    let seconds = line.decimal("seconds")?;
    line.expect(b", ", "no comma behind the seconds")?;
    let nanoseconds = line.decimal("nanoseconds")?;
    line.expect(b")", "no ) behind the nanoseconds")?;
    line.end()?;
    if nanoseconds > 999_999_999 {
        return Err(line.malformed("more nanoseconds than a second has"));
    }
    Ok(Time { seconds, nanoseconds })
}

/// Descriptor `descriptor` of process `pid`. When the process lives but has no such descriptor: `Io` of `NotFound`.
pub fn read(pid: i32, descriptor: i32) -> Result<DescriptorInfo, Error> {
    read_process(pid, format_args!("fdinfo/{descriptor}"), parse)
}

/// As [`read`], for a thread that has a table of its own.
pub fn read_of_task(pid: i32, tid: i32, descriptor: i32) -> Result<DescriptorInfo, Error> {
    super::read_task(pid, tid, format_args!("fdinfo/{descriptor}"), parse)
}

/// Opens the file, to be read again and again: each reading tells of what has that number in that process then.
pub fn open(pid: i32, descriptor: i32) -> Result<File, Error> {
    let subject = Subject::Process(pid);
    subject.open(&subject.path(format_args!("fdinfo/{descriptor}")))
}

/// Reads what [`open`] has opened.
///
/// # Errors
/// `Gone`: the process has ended, or has no such descriptor now.
pub fn read_again(file: &File) -> Result<DescriptorInfo, Error> {
    // The kernel makes the whole text at the first read, and a read that is not filled has met its end.
    let mut text = [0; 2048];
    let length = match file.read_at(&mut text, 0) {
        Ok(length) => length,
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => return Err(Error::Gone),
        Err(error) => return Err(Error::Io(error)),
    };
    match text.get(..length) {
        Some(text) if length < 2048 => Ok(parse(text)?),
        _ => {
            let mut file = file;
            file.rewind().map_err(Error::Io)?;
            let mut text = Vec::new();
            file.read_to_end(&mut text).map_err(Error::Io)?;
            Ok(parse(&text)?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::locks::Kind;
    use crate::proc::mutation;

    const EVENT: &[u8] = b"pos:\t0\nflags:\t02000002\nmnt_id:\t17\nino:\t1038\neventfd-count:                7\neventfd-id: 1\neventfd-semaphore: 1\n";
    const EPOLL: &[u8] = b"pos:\t0\nflags:\t02000002\nmnt_id:\t17\nino:\t1038\ntfd:        5 events: 80000019 data:                5  pos:0 ino:7724 sdev:f\ntfd:        3 events: 40000019 data: ffffffffffffffff  pos:0 ino:40e sdev:fe00001\n";
    const SIGNAL: &[u8] = b"pos:\t0\nflags:\t02\nmnt_id:\t17\nino:\t1038\nsigmask:\t0000000200000200\n";
    const TIMER: &[u8] = b"pos:\t0\nflags:\t02\nmnt_id:\t17\nino:\t1038\nclockid: 1\nticks: 0\nsettime flags: 01\nit_value: (10, 249952640)\nit_interval: (1, 500)\n";
    const INOTIFY: &[u8] = b"pos:\t0\nflags:\t04000\nmnt_id:\t17\nino:\t1038\ninotify wd:2 ino:1 sdev:27 mask:2 ignored_mask:0 fhandle-bytes:c fhandle-type:81 f_handle:010000000000000000000000\ninotify wd:1 ino:992019 sdev:fe00000 mask:fff ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:19209900bdcb6d62\ninotify wd:3 ino:1 sdev:27 mask:2 ignored_mask:0 \n";
    const FANOTIFY: &[u8] = b"pos:\t0\nflags:\t02\nmnt_id:\t17\nino:\t1038\nfanotify flags:0 event-flags:8000\nfanotify ino:3c4a7 sdev:fe00000 mflags:0 mask:2 ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:a7c4030000000000\n";
    const LOCKED: &[u8] = b"pos:\t50\nflags:\t02102002\nmnt_id:\t43\nino:\t10035227\nlock:\t1: POSIX  ADVISORY  WRITE 1 fe:00:10035227 5 14\nlock:\t2: FLOCK  ADVISORY  READ 1 fe:00:10035227 0 EOF\n";
    const PID: &[u8] = b"pos:\t0\nflags:\t02000002\nmnt_id:\t4\nino:\t17569\nPid:\t42\nNSpid:\t42\t7\n";
    const DEAD: &[u8] = b"pos:\t0\nflags:\t02000002\nmnt_id:\t4\nino:\t17569\nPid:\t-1\nNSpid:\t-1\n";
    const UNIX: &[u8] = b"pos:\t0\nflags:\t02000002\nmnt_id:\t10\nino:\t30534\nscm_fds: 2\n";
    const URING: &[u8] = b"pos:\t0\nflags:\t02000002\nmnt_id:\t17\nino:\t30537\nSqMask:\t0x7\nSqHead:\t0\nSqTail:\t0\nCachedSqHead:\t0\nCqMask:\t0xf\nCqHead:\t0\nCqTail:\t0\nCachedCqTail:\t0\nSQEs:\t0\nCQEs:\t0\nSqThread:\t-1\nSqThreadCpu:\t-1\nSqTotalTime:\t0\nSqWorkTime:\t0\nUserFiles:\t0\nUserBufs:\t0\nPollList:\nCqOverflowList:\nNAPI:\tdisabled\n";
    const PTMX: &[u8] = b"pos:\t0\nflags:\t02100002\nmnt_id:\t58\nino:\t91\ntty-index:\t3\n";
    const USERFAULT: &[u8] =
        b"pos:\t0\nflags:\t00\nmnt_id:\t17\nino:\t30541\npending:\t0\ntotal:\t0\nAPI:\taa:0:80000000000001ff\n";
    const PATH: &[u8] = b"pos:\t0\nflags:\t012000000\nmnt_id:\t43\nino:\t246951\n";
    // From drivers/net/tun.c; /dev/net/tun is not there on the machine of the other samples.
    const TUN: &[u8] = b"pos:\t0\nflags:\t0100002\nmnt_id:\t24\nino:\t88\niff:\ttap0\n";

    #[test]
    fn what_all_descriptors_have() {
        let info = parse(PATH).unwrap();
        let wanted = DescriptorInfo {
            flags: libc::O_PATH as u32 | libc::O_CLOEXEC as u32,
            mount: 43,
            inode: Some(246951),
            ..DescriptorInfo::default()
        };
        assert_eq!(info, wanted);
    }

    #[test]
    fn eventfd() {
        let info = parse(EVENT).unwrap();
        assert_eq!(info.eventfd, Some(EventCounter { count: 7, id: Some(1), semaphore: Some(true) }));
        let large = b"pos:\t0\nflags:\t02\nmnt_id:\t17\nino:\t1038\neventfd-count: fffffffffffffffe\n";
        assert_eq!(parse(large).unwrap().eventfd.unwrap().count, u64::MAX - 1);
    }

    #[test]
    fn epoll() {
        let info = parse(EPOLL).unwrap();
        let [first, second] = info.epoll[..] else { panic!("{info:?}") };
        assert_eq!(
            first,
            EpollTarget {
                descriptor: 5,
                events: (libc::EPOLLET | libc::EPOLLIN | libc::EPOLLERR | libc::EPOLLHUP) as u32,
                data: 5,
                position: 0,
                inode: 0x7724,
                device_major: 0,
                device_minor: 15,
            }
        );
        assert_eq!((second.data, second.inode, second.device_major, second.device_minor), (u64::MAX, 0x40e, 254, 1));
    }

    #[test]
    fn signalfd_and_timerfd() {
        assert_eq!(parse(SIGNAL).unwrap().signal_mask, Some(1 << 33 | 1 << 9));
        assert_eq!(
            parse(TIMER).unwrap().timer,
            Some(Timer {
                clock: 1,
                ticks: 0,
                settime_flags: 1,
                value: Time { seconds: 10, nanoseconds: 249952640 },
                interval: Time { seconds: 1, nanoseconds: 500 },
            })
        );
    }

    #[test]
    fn inotify_and_fanotify() {
        let info = parse(INOTIFY).unwrap();
        assert_eq!(info.inotify.len(), 3);
        assert_eq!(
            info.inotify[1],
            InotifyWatch {
                descriptor: 1,
                inode: 0x992019,
                device_major: 254,
                device_minor: 0,
                mask: 0xfff,
                ignored_mask: 0,
                handle: Some(FileHandle { kind: 1, bytes: vec![0x19, 0x20, 0x99, 0, 0xbd, 0xcb, 0x6d, 0x62] }),
            }
        );
        assert_eq!(info.inotify[0].handle.as_ref().unwrap().bytes.len(), 12);
        assert_eq!(info.inotify[2].handle, None);
        let info = parse(FANOTIFY).unwrap();
        assert!(info.fanotify && info.inotify.is_empty());
        assert_eq!(info.unknown.len(), 2);
    }

    #[test]
    fn locks_of_a_file() {
        let info = parse(LOCKED).unwrap();
        assert_eq!((info.position, info.flags), (50, 0o2102002));
        assert_eq!((info.locks[0].kind, info.locks[0].end), (Kind::Posix, Some(14)));
        assert_eq!((info.locks[1].kind, info.locks[1].end), (Kind::Flock, None));
    }

    #[test]
    fn the_other_kinds() {
        assert_eq!(parse(PID).unwrap().pidfd, Some(PidDescriptor { pid: 42, namespace_pid: vec![42, 7] }));
        assert_eq!(parse(DEAD).unwrap().pidfd, Some(PidDescriptor { pid: -1, namespace_pid: vec![-1] }));
        assert_eq!(parse(UNIX).unwrap().descriptors_in_flight, Some(2));
        assert_eq!(parse(PTMX).unwrap().terminal_index, Some(3));
        assert_eq!(parse(TUN).unwrap().tun_interface.as_deref(), Some(&b"tap0"[..]));
        let info = parse(URING).unwrap();
        assert!(info.io_uring && info.unknown.len() == 19);
        assert!(parse(USERFAULT).unwrap().userfaultfd);
    }

    #[test]
    fn wrong_texts_are_refused() {
        for text in [
            &b""[..],
            b"pos:\t0\nflags:\t02\n",
            b"pos:\t0\npos:\t0\nflags:\t02\nmnt_id:\t4\n",
            b"pos:\t0\nflags:\t09\nmnt_id:\t4\n",
            b"pos:\t0\nflags:\t02\nmnt_id:\t4\nit_value: (1, 1000000000)\n",
            b"pos:\t0\nflags:\t02\nmnt_id:\t4\nNSpid:\t4\n",
            b"pos:\t0\nflags:\t02\nmnt_id:\t4\ninotify wd:1 ino:1 sdev:1 mask:1 ignored_mask:0 fhandle-bytes:2 fhandle-type:1 f_handle:00\n",
        ] {
            parse(text).unwrap_err();
        }
    }

    #[test]
    fn no_mutation_panics() {
        for golden in
            [EVENT, EPOLL, SIGNAL, TIMER, INOTIFY, FANOTIFY, LOCKED, PID, DEAD, UNIX, URING, PTMX, USERFAULT, PATH, TUN]
        {
            mutation::try_all(golden, |text| parse(text).is_ok());
        }
    }

    #[test]
    fn own_descriptors_are_read() {
        let pid = std::process::id() as i32;
        let (reader, _writer) = std::io::pipe().unwrap();
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&reader);
        let info = read(pid, descriptor).unwrap();
        assert_eq!(info.flags & libc::O_CLOEXEC as u32, libc::O_CLOEXEC as u32);
        assert!(matches!(read(pid, 999_999), Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::NotFound));
        assert!(matches!(read(i32::MAX, 0), Err(Error::Gone)));
    }
}
