//! Namespaces: making them, entering them, and starting programs inside them.
//!
//! A multi-threaded program cannot enter a mount or time namespace itself, and no program enters a PID namespace: only its
//! children do. So whoever starts a program elsewhere does it from a thread of its own, and the rest happens in the new
//! process between fork and exec.
//!
//! # References
//! `namespaces(7)`, `setns(2)`, `unshare(2)`, `pid_namespaces(7)`, `time_namespaces(7)`.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs;
use std::io;
use std::ops::BitOr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::thread;

/// A set of kinds of namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Namespaces(libc::c_int);

impl Namespaces {
    /// No namespace.
    pub const NONE: Self = Self(0);
    /// Network devices, addresses, ports.
    pub const NETWORK: Self = Self(libc::CLONE_NEWNET);
    /// Mounts.
    pub const MOUNT: Self = Self(libc::CLONE_NEWNS);
    /// Process ids.
    pub const PID: Self = Self(libc::CLONE_NEWPID);
    /// Host name.
    pub const UTS: Self = Self(libc::CLONE_NEWUTS);
    /// SysV objects and POSIX queues.
    pub const IPC: Self = Self(libc::CLONE_NEWIPC);
    /// The root of the cgroup tree that is seen.
    pub const CGROUP: Self = Self(libc::CLONE_NEWCGROUP);
    /// Offsets of CLOCK_MONOTONIC and CLOCK_BOOTTIME.
    pub const TIME: Self = Self(CLONE_NEWTIME);

    /// Those of this set that are not in the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether every kind of the other set is in this one.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Namespaces {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// `linux/sched.h`; libc has it only for some targets.
const CLONE_NEWTIME: libc::c_int = 0x80;

/// How far the clocks of a new time namespace are from those of the machine, in seconds; they may go back only as far as
/// the machine has been up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClockOffsets {
    /// Of CLOCK_MONOTONIC.
    pub monotonic: i64,
    /// Of CLOCK_BOOTTIME.
    pub boottime: i64,
}

/// The user that a program runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Real, effective and saved user id.
    pub user: u32,
    /// Real, effective and saved group id.
    pub group: u32,
    /// All supplementary groups.
    pub supplementary: Vec<u32>,
}

/// What becomes of a new process between fork and exec.
#[derive(Debug, Default)]
pub struct Placement<'a> {
    /// Enter these namespaces of the process that the handle stands for.
    pub enter: Option<(BorrowedFd<'a>, Option<Namespaces>)>,
    /// Lead a session of its own.
    pub new_session: bool,
    /// The working directory, as seen after entering.
    pub directory: Option<&'a Path>,
    /// The user to become.
    pub user: Option<&'a User>,
}

/// All namespaces that make a host.
pub const HOST: Namespaces = Namespaces(
    libc::CLONE_NEWNET
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWCGROUP
        | CLONE_NEWTIME,
);

/// Moves the calling thread into new namespaces. (PID and time: its future children instead.)
///
/// # Errors
/// As `unshare(2)`.
pub fn unshare(kinds: Namespaces) -> io::Result<()> {
    // SAFETY: unshare() takes no pointers.
    checked(unsafe { libc::unshare(kinds.0) })
}

/// Moves the calling thread into the namespaces of the given kinds that a namespace file or a process handle stands for.
///
/// # Errors
/// As `setns(2)`.
pub fn enter(handle: BorrowedFd<'_>, kinds: Namespaces) -> io::Result<()> {
    // SAFETY: setns() takes no pointers.
    checked(unsafe { libc::setns(handle.as_raw_fd(), kinds.0) })
}

/// Runs a function inside namespaces, on a thread that ends with it; the caller stays where it is.
///
/// # Errors
/// As `setns(2)`; the function's own result is inside.
pub fn inside<T: Send>(
    handle: BorrowedFd<'_>,
    kinds: Namespaces,
    function: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    on_a_thread(|| {
        enter(handle, kinds)?;
        Ok(function())
    })
}

/// Opens the network namespace of a process as a handle that keeps it alive.
///
/// # Errors
/// As opening a file below `/proc`.
pub fn network_of(process: u32) -> io::Result<OwnedFd> {
    Ok(fs::File::open(format!("/proc/{process}/ns/net"))?.into())
}

/// Names the host of the caller's UTS namespace.
///
/// # Errors
/// As `sethostname(2)`.
pub fn set_host_name(name: &str) -> io::Result<()> {
    // SAFETY: the pointer and length describe the string's own bytes.
    checked(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) })
}

/// Lets the kernel collect ended children by itself: what a first process of a PID namespace needs to be a reaper.
///
/// # Errors
/// As `signal(2)`.
pub fn collect_children_silently() -> io::Result<()> {
    // SAFETY: SIG_IGN installs no code.
    if unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Starts a program as the first process of new namespaces; with clock offsets where a time namespace is among them.
///
/// # Errors
/// As `unshare(2)`, writing `/proc/PID/timens_offsets`, and starting the program.
pub fn spawn_in_new(mut command: Command, kinds: Namespaces, offsets: ClockOffsets) -> io::Result<Child> {
    on_a_thread(move || {
        let for_children = Namespaces(kinds.0 & (Namespaces::PID | Namespaces::TIME).0);
        let for_itself = kinds.without(for_children);
        unshare(for_children)?;
        if kinds.contains(Namespaces::TIME) {
            let path = format!("/proc/{}/timens_offsets", thread_id());
            fs::write(path, format!("monotonic {} 0\nboottime {} 0\n", offsets.monotonic, offsets.boottime))?;
        }
        // SAFETY: between fork and exec only the system call unshare runs: it allocates nothing and takes no lock.
        unsafe { command.pre_exec(move || unshare(for_itself)) };
        command.spawn()
    })
}

/// Starts a program as a child of the caller, placed as asked.
///
/// # Errors
/// As `setns(2)`, `setsid(2)`, `chdir(2)`, `setresuid(2)`, and starting the program.
pub fn spawn_placed(mut command: Command, placement: &Placement<'_>) -> io::Result<Child> {
    let directory = placement.directory.map(|path| CString::new(path.as_os_str().as_bytes())).transpose()?;
    let user = placement.user.cloned();
    let new_session = placement.new_session;
    let entered = placement.enter.map(|(handle, kinds)| (handle, kinds.unwrap_or(HOST)));
    on_a_thread(move || {
        let mut rest = None;
        if let Some((handle, kinds)) = entered {
            // Which PID namespace a child is born in is decided by its parent, before the fork.
            if kinds.contains(Namespaces::PID) {
                enter(handle, Namespaces::PID)?;
            }
            rest = Some((handle.as_raw_fd(), kinds.without(Namespaces::PID).0));
        }
        let place = move || {
            if let Some((handle, kinds)) = rest {
                // SAFETY: setns() takes no pointers; the handle is open in the parent, which waits for the exec.
                checked(unsafe { libc::setns(handle, kinds) })?;
            }
            if new_session {
                // SAFETY: setsid() takes no arguments.
                checked(unsafe { libc::setsid() })?;
            }
            if let Some(directory) = &directory {
                // SAFETY: the path is a terminated string owned by this closure.
                checked(unsafe { libc::chdir(directory.as_ptr()) })?;
            }
            user.as_ref().map_or(Ok(()), become_user)
        };
        // SAFETY: between fork and exec the closure makes only system calls: it allocates nothing and takes no lock.
        unsafe { command.pre_exec(place) };
        command.spawn()
    })
}

/// Raw system calls: the C library's wrappers would try to change threads that a forked child does not have.
fn become_user(user: &User) -> io::Result<()> {
    let groups = user.supplementary.as_slice();
    // SAFETY: pointer and length describe the slice; the kernel only reads it.
    checked(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) } as libc::c_int)?;
    let group = user.group;
    // SAFETY: setresgid() takes no pointers.
    checked(unsafe { libc::syscall(libc::SYS_setresgid, group, group, group) } as libc::c_int)?;
    let user = user.user;
    // SAFETY: setresuid() takes no pointers.
    checked(unsafe { libc::syscall(libc::SYS_setresuid, user, user, user) } as libc::c_int)
}

fn thread_id() -> libc::pid_t {
    // SAFETY: gettid() takes no arguments.
    unsafe { libc::gettid() }
}

fn on_a_thread<T: Send>(function: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        thread::Builder::new()
            .spawn_scoped(scope, function)?
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a thread that entered a namespace panicked")))
    })
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
