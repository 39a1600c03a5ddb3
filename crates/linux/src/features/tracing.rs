//! Trials of what stops and reads a foreign process, on a child that sleeps.
#![allow(unsafe_code)]

use super::child::Sleeper;
use super::{Feature, Trials};
use crate::errno::{Errno, Result, check, check_int};
use crate::kcmp::{Object, kcmp};
use crate::kernel_types::KernelTypes;
use crate::memory::{self, ForeignAddress, ForeignMemory};
use crate::pidfd::{ForeignDescriptor, PidFd};
use crate::proc::maps;
use crate::ptrace::{self, Event, options};
use crate::task_iterator::{Source, TaskIterator};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const PTRACE_SECCOMP_GET_FILTER: libc::c_uint = 0x420c;
const PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG: libc::c_uint = 0x4211;

/// Something to read and write in a child: a page that both have.
static WORD: u64 = 0x6764_7769_7400_0001;

pub(super) fn probe(trials: &mut Trials<'_>) {
    traced(trials);
    let own = std::process::id() as i32;
    trials.put(Feature::Compare, || kcmp(own, own, Object::Memory).map(drop));
    trials.put(Feature::ProcessFileDescriptor, || descriptor(own));
    trials.put(Feature::ThreadDescriptor, || thread_descriptor(own));
    trials.put(Feature::MappedFiles, || mapped_file(own));
    trials.put(Feature::HandlePaths, file_handle);
    trials.put(Feature::KernelRecords, || kernel_records(own));
}

/// Reads the names of all threads of this process from the kernel's records.
fn kernel_records(own: i32) -> Result<()> {
    const CALL: &str = "bpf";
    let failure = |error: std::io::Error| Errno { number: error.raw_os_error().unwrap_or(libc::ENODATA), call: CALL };
    let types = KernelTypes::read().map_err(failure)?;
    let place = types.members("task_struct", ["comm"]).and_then(|[place]| place);
    let place = place.ok_or(Errno { number: libc::ENODATA, call: CALL })?;
    let name = Source { pointers: Vec::new(), offset: place.offset, bytes: place.bytes };
    TaskIterator::of(own, &types, &[name])?.read().map(drop).map_err(failure)
}

/// Everything that needs a child: when it cannot be made or attached to, all of it is missing for that reason.
fn traced(trials: &mut Trials<'_>) {
    let all = [
        Feature::Seize,
        Feature::RestartableSequence,
        Feature::ProcessMemory,
        Feature::MemoryWrite,
        Feature::SuspendSeccomp,
        Feature::SeccompFilters,
        Feature::UserDispatch,
    ];
    if !all.iter().any(|feature| trials.wants(*feature)) {
        return;
    }
    let sleeper = match Sleeper::new(&[]).and_then(|sleeper| attach(&sleeper).map(|()| sleeper)) {
        Ok(sleeper) => sleeper,
        Err(error) => return all.into_iter().for_each(|feature| trials.put(feature, || Err(error))),
    };
    let pid = sleeper.pid;
    trials.put(Feature::Seize, || ptrace::registers(pid).map(drop));
    trials.put(Feature::RestartableSequence, || ptrace::restartable_sequence(pid).map(drop));
    let address = ForeignAddress((&raw const WORD) as u64);
    let mut word = [0_u8; 8];
    let read = memory::read(pid, address, &mut word).and_then(|_| expect(word, "process_vm_readv"));
    trials.put(Feature::ProcessMemory, || read);
    // Read-only data on purpose: what has to be written in a frozen process is code.
    trials.put(Feature::MemoryWrite, || ForeignMemory::open(pid).and_then(|memory| memory.write(address, &word)));
    trials.put(Feature::SuspendSeccomp, || ptrace::set_options(pid, options::SUSPEND_SECCOMP));
    trials.put(Feature::SeccompFilters, || seccomp_filters(pid));
    trials.put(Feature::UserDispatch, || user_dispatch(pid));
}

fn expect(word: [u8; 8], call: &'static str) -> Result<()> {
    if u64::from_ne_bytes(word) == WORD { Ok(()) } else { Err(Errno { number: libc::EIO, call }) }
}

fn attach(sleeper: &Sleeper) -> Result<()> {
    ptrace::seize(sleeper.pid, 0)?;
    ptrace::interrupt(sleeper.pid)?;
    match ptrace::wait(sleeper.pid)? {
        Event::Ended(_) => Err(Errno { number: libc::ESRCH, call: "ptrace(INTERRUPT)" }),
        _ => Ok(()),
    }
}

/// The child has none: EINVAL is the answer of a kernel that would show them.
fn seccomp_filters(pid: i32) -> Result<()> {
    // SAFETY: with a null address nothing is written.
    let asked = check("ptrace(SECCOMP_GET_FILTER)", unsafe {
        libc::ptrace(PTRACE_SECCOMP_GET_FILTER, pid, 0_usize, std::ptr::null_mut::<u8>())
    });
    match asked {
        Err(error) if matches!(error.number, libc::EINVAL | libc::ENOENT) => Ok(()),
        other => other.map(drop),
    }
}

fn user_dispatch(pid: i32) -> Result<()> {
    let mut configuration = [0_u64; 4];
    // SAFETY: the kernel writes the 32 bytes whose length is given.
    check("ptrace(GET_SYSCALL_USER_DISPATCH_CONFIG)", unsafe {
        libc::ptrace(PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, pid, 32_usize, configuration.as_mut_ptr())
    })
    .map(drop)
}

fn descriptor(own: i32) -> Result<()> {
    // SAFETY: a NUL-terminated name.
    let raw = check_int("memfd_create", unsafe { libc::memfd_create(c"godwit-probe".as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: fresh descriptor, owned by nobody else.
    let file = unsafe { OwnedFd::from_raw_fd(raw) };
    PidFd::open(own)?.duplicate(ForeignDescriptor(file.as_raw_fd())).map(drop)
}

fn thread_descriptor(own: i32) -> Result<()> {
    // SAFETY: no pointers. PIDFD_THREAD = O_EXCL.
    let raw = check("pidfd_open(PIDFD_THREAD)", unsafe { libc::syscall(libc::SYS_pidfd_open, own, libc::O_EXCL) })?;
    // SAFETY: fresh descriptor, owned by nobody else.
    drop(unsafe { OwnedFd::from_raw_fd(raw as i32) });
    Ok(())
}

fn mapped_file(own: i32) -> Result<()> {
    let missing = Errno { number: libc::ENOENT, call: "open /proc/PID/map_files" };
    let areas = maps::read(own).map_err(|_| missing)?;
    // One that another thread has unmapped meanwhile says nothing; the program's own stay.
    let mut outcome = Err(missing);
    for area in areas.iter().filter(|area| area.inode != 0) {
        let path = format!("/proc/{own}/map_files/{:x}-{:x}", area.start, area.end);
        outcome = crate::file::open(path.as_bytes(), libc::O_RDONLY as u32 | libc::O_CLOEXEC as u32)
            .map(drop)
            .map_err(|error| Errno { number: error.number, ..missing });
        if !outcome.is_err_and(|error| error.number == libc::ENOENT) {
            break;
        }
    }
    outcome
}

/// A handle of the program's own file, opened again. File systems without handles say nothing about the kernel.
fn file_handle() -> Result<()> {
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        content: [u8; 128],
    }
    let mut handle = Handle { bytes: 128, kind: 0, content: [0; 128] };
    let mut mount = 0_i32;
    for path in [c"/proc/self/exe", c"/tmp", c"/"] {
        handle.bytes = 128;
        // SAFETY: a NUL-terminated path, a live handle with room for 128 bytes, a live int.
        let named = check("name_to_handle_at", unsafe {
            libc::syscall(
                libc::SYS_name_to_handle_at,
                libc::AT_FDCWD,
                path.as_ptr(),
                &raw mut handle,
                &raw mut mount,
                libc::AT_SYMLINK_FOLLOW,
            )
        });
        if named.is_err() {
            continue;
        }
        let directory = crate::file::open(path.to_bytes(), libc::O_RDONLY as u32 | libc::O_CLOEXEC as u32)?;
        // SAFETY: a live handle that the kernel filled; an open descriptor on the same file system.
        let raw = check("open_by_handle_at", unsafe {
            libc::syscall(
                libc::SYS_open_by_handle_at,
                directory.as_raw_fd(),
                &raw const handle,
                libc::O_PATH | libc::O_CLOEXEC,
            )
        })?;
        // SAFETY: fresh descriptor, owned by nobody else.
        drop(unsafe { OwnedFd::from_raw_fd(raw as i32) });
        return Ok(());
    }
    Err(Errno::last("name_to_handle_at"))
}
