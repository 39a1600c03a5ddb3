//! ptrace(2) by thread number: attach without stopping (SEIZE), stop, registers, masks, resume, detach, wait.
//!
//! Every request must come from the thread that attached. A request about a dead thread answers ESRCH.
//!
//! # References
//! <https://man7.org/linux/man-pages/man2/ptrace.2.html>
#![allow(unsafe_code)]

use crate::errno::{Errno, Result, check, check_int};

/// General registers in the kernel's order (struct user_regs_struct).
pub type Registers = libc::user_regs_struct;

/// Words of [`Registers`].
pub const REGISTER_WORDS: usize = 27;
const _: () = assert!(size_of::<Registers>() == REGISTER_WORDS * 8);

/// Regset number of the extended state.
const NT_X86_XSTATE: usize = 0x202;
const PTRACE_GET_RSEQ_CONFIGURATION: libc::c_uint = 0x420f;
const SET_USER_DISPATCH: libc::c_uint = 0x4210;
const GET_USER_DISPATCH: libc::c_uint = 0x4211;

/// Options for [`seize`].
pub mod options {
    /// System-call stops are told apart from SIGTRAP, and harmless when the tracer dies in one.
    pub const SYSGOOD: i32 = libc::PTRACE_O_TRACESYSGOOD;
    /// Kill the tracee when the tracer ends: for skeletons only.
    pub const EXIT_KILL: i32 = libc::PTRACE_O_EXITKILL;
    /// Report [`super::EXECUTED`] after a successful execve.
    pub const TRACE_EXEC: i32 = libc::PTRACE_O_TRACEEXEC;
    /// Report [`super::EXITING`] before the end.
    pub const TRACE_EXIT: i32 = libc::PTRACE_O_TRACEEXIT;
    /// Seccomp filters do not apply while traced; needs CAP_SYS_ADMIN.
    pub const SUSPEND_SECCOMP: i32 = 1 << 21;
}

fn request(name: &'static str, request: libc::c_uint, tid: i32, address: usize, data: usize) -> Result<u64> {
    if tid <= 0 {
        return Err(Errno { number: libc::ESRCH, call: name });
    }
    // SAFETY: callers pass requests whose address and data are integers, or pointers to live buffers of the length
    // that the request writes.
    check(name, unsafe { libc::ptrace(request, tid, address, data) })
}

/// Attaches without stopping the thread.
///
/// # Errors
/// EPERM: no rights, or another tracer; ESRCH: dead.
pub fn seize(tid: i32, options: i32) -> Result<()> {
    request("ptrace(SEIZE)", libc::PTRACE_SEIZE, tid, 0, options as usize).map(drop)
}

/// [`Event::Other`] after a successful execve.
pub const EXECUTED: i32 = libc::PTRACE_EVENT_EXEC;
/// [`Event::Other`] before the end of a thread.
pub const EXITING: i32 = libc::PTRACE_EVENT_EXIT;

/// Asks for a stop; [`wait`] tells when it is reached.
///
/// # Errors
/// ESRCH: dead.
pub fn interrupt(tid: i32) -> Result<()> {
    request("ptrace(INTERRUPT)", libc::PTRACE_INTERRUPT, tid, 0, 0).map(drop)
}

/// Changes the options of an attached, stopped thread.
///
/// # Errors
/// ESRCH: dead or not stopped.
pub fn set_options(tid: i32, options: i32) -> Result<()> {
    request("ptrace(SETOPTIONS)", libc::PTRACE_SETOPTIONS, tid, 0, options as usize).map(drop)
}

/// Resumes, delivering `signal` (0 = none).
///
/// # Errors
/// ESRCH: dead or not stopped.
pub fn resume(tid: i32, signal: i32) -> Result<()> {
    request("ptrace(CONT)", libc::PTRACE_CONT, tid, 0, signal as usize).map(drop)
}

/// Resumes until the next entry to or exit from a system call.
///
/// # Errors
/// ESRCH: dead or not stopped.
pub fn resume_to_syscall(tid: i32) -> Result<()> {
    request("ptrace(SYSCALL)", libc::PTRACE_SYSCALL, tid, 0, 0).map(drop)
}

/// Lets go of a stopped thread, delivering `signal` (0 = none).
///
/// # Errors
/// ESRCH: dead or not stopped.
pub fn detach(tid: i32, signal: i32) -> Result<()> {
    request("ptrace(DETACH)", libc::PTRACE_DETACH, tid, 0, signal as usize).map(drop)
}

/// Reads the general registers of a stopped thread.
///
/// # Errors
/// ESRCH: dead or not stopped.
pub fn registers(tid: i32) -> Result<Registers> {
    // SAFETY: all-zero is a valid value of this plain struct.
    let mut registers: Registers = unsafe { std::mem::zeroed() };
    request("ptrace(GETREGS)", libc::PTRACE_GETREGS, tid, 0, (&raw mut registers) as usize)?;
    Ok(registers)
}

/// Writes the general registers of a stopped thread.
///
/// # Errors
/// ESRCH: dead or not stopped; EIO: a value that user mode may not have.
pub fn set_registers(tid: i32, registers: &Registers) -> Result<()> {
    request("ptrace(SETREGS)", libc::PTRACE_SETREGS, tid, 0, std::ptr::from_ref(registers) as usize).map(drop)
}

/// Registers as the 27 words of the kernel's order.
pub fn words(registers: &Registers) -> [u64; REGISTER_WORDS] {
    // SAFETY: both are 27 u64 without padding (asserted above).
    unsafe { std::mem::transmute_copy(registers) }
}

/// The inverse of [`words`].
pub fn from_words(words: &[u64; REGISTER_WORDS]) -> Registers {
    // SAFETY: both are 27 u64 without padding (asserted above).
    unsafe { std::mem::transmute_copy(words) }
}

/// Largest extended state that any x86-64 kernel has, in bytes (AMX included).
pub const EXTENDED_STATE_BYTES_MAX: usize = 16384;

/// Reads the extended state (FPU, SSE, AVX, …) as the raw regset.
///
/// # Errors
/// ESRCH: dead or not stopped.
pub fn extended_state(tid: i32) -> Result<Vec<u8>> {
    let mut buffer = [0_u8; EXTENDED_STATE_BYTES_MAX];
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    request("ptrace(GETREGSET)", libc::PTRACE_GETREGSET, tid, NT_X86_XSTATE, (&raw mut vector) as usize)?;
    // No more than it is: a tree keeps one for each of its threads.
    Ok(buffer[..vector.iov_len].to_vec())
}

/// Writes the extended state, of which `bytes` are: zeros follow what is given.
///
/// # Errors
/// EFAULT: another length than this kernel's; EINVAL: components that this processor lacks.
pub fn set_extended_state(tid: i32, state: &[u8], bytes: usize) -> Result<()> {
    let mut buffer = [0_u8; EXTENDED_STATE_BYTES_MAX];
    let whole = if state.len() < bytes {
        let too_long = crate::Errno { number: libc::EFAULT, call: "ptrace(SETREGSET)" };
        let whole = buffer.get_mut(..bytes).ok_or(too_long)?;
        whole[..state.len()].copy_from_slice(state);
        &*whole
    } else {
        state
    };
    let mut vector = libc::iovec { iov_base: whole.as_ptr().cast_mut().cast(), iov_len: whole.len() };
    request("ptrace(SETREGSET)", libc::PTRACE_SETREGSET, tid, NT_X86_XSTATE, (&raw mut vector) as usize).map(drop)
}

/// The mask of blocked signals, bit n-1 for signal n.
///
/// # Errors
/// ESRCH: dead or not stopped.
pub fn signal_mask(tid: i32) -> Result<u64> {
    let mut mask = 0_u64;
    request("ptrace(GETSIGMASK)", libc::PTRACE_GETSIGMASK, tid, 8, (&raw mut mask) as usize)?;
    Ok(mask)
}

/// Replaces the mask of blocked signals.
///
/// # Errors
/// ESRCH: dead or not stopped.
pub fn set_signal_mask(tid: i32, mask: u64) -> Result<()> {
    request("ptrace(SETSIGMASK)", libc::PTRACE_SETSIGMASK, tid, 8, (&raw const mask) as usize).map(drop)
}

/// Restartable-sequence registration of a thread.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestartableSequence {
    /// Address of struct rseq, 0 = not registered.
    pub address: u64,
    /// Its registered length in bytes.
    pub length: u32,
    /// Abort signature.
    pub signature: u32,
    /// Flags, 0 today.
    pub flags: u32,
    pad: u32,
}

impl RestartableSequence {
    /// A registration without flags.
    pub fn new(address: u64, length: u32, signature: u32) -> RestartableSequence {
        RestartableSequence { address, length, signature, flags: 0, pad: 0 }
    }
}

/// Reads the rseq registration (Linux 5.13).
///
/// # Errors
/// EIO: kernel without the request; ESRCH: dead or not stopped.
pub fn restartable_sequence(tid: i32) -> Result<RestartableSequence> {
    let mut configuration = RestartableSequence::default();
    request(
        "ptrace(GET_RSEQ_CONFIGURATION)",
        PTRACE_GET_RSEQ_CONFIGURATION,
        tid,
        size_of::<RestartableSequence>(),
        (&raw mut configuration) as usize,
    )?;
    Ok(configuration)
}

/// Syscall user dispatch of a thread: mode (0 off, 1 on), address of the selector byte, first address and length of the
/// code whose calls are never dispatched.
///
/// # Errors
/// EIO: kernel without the request (before 6.4); ESRCH: dead or not stopped.
pub fn user_dispatch(tid: i32) -> Result<[u64; 4]> {
    // struct ptrace_sud_config: mode, selector, offset, len.
    let mut configuration = [0_u64; 4];
    let place = (&raw mut configuration) as usize;
    request("ptrace(GET_SYSCALL_USER_DISPATCH_CONFIG)", GET_USER_DISPATCH, tid, size_of::<[u64; 4]>(), place)?;
    let [mode, selector, offset, length] = configuration;
    Ok([mode, selector, offset, length])
}

/// Sets what [`user_dispatch`] reads.
///
/// # Errors
/// As there; EFAULT: the selector is not in user memory.
pub fn set_user_dispatch(tid: i32, configuration: &[u64; 4]) -> Result<()> {
    let place = std::ptr::from_ref(configuration) as usize;
    request("ptrace(SET_SYSCALL_USER_DISPATCH_CONFIG)", SET_USER_DISPATCH, tid, size_of::<[u64; 4]>(), place).map(drop)
}

/// Whether a stopped thread may use I/O ports (ioperm(2)).
///
/// # Errors
/// ESRCH: dead or not stopped.
pub fn may_use_ports(tid: i32) -> Result<bool> {
    const NT_386_IOPERM: usize = 0x201;
    // A word of the map is enough to see that there is one.
    let mut buffer = [0_u8; 8];
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let place = (&raw mut vector) as usize;
    match request("ptrace(GETREGSET)", libc::PTRACE_GETREGSET, tid, NT_386_IOPERM, place) {
        Ok(_) => Ok(vector.iov_len != 0),
        // ENXIO: it has none; ENODEV, EINVAL: this kernel has none.
        Err(error) if matches!(error.number, libc::ENXIO | libc::ENODEV | libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Bytes of the kernel's siginfo_t.
pub const SIGNAL_INFORMATION_BYTES: usize = 128;

/// Looks at queued signals without taking them.
///
/// # Errors
/// ESRCH: dead or not stopped.
pub fn pending_signals(tid: i32, shared: bool) -> Result<Vec<[u8; SIGNAL_INFORMATION_BYTES]>> {
    #[repr(C)]
    struct Arguments {
        offset: u64,
        flags: u32,
        count: i32,
    }
    let mut found = Vec::new();
    let mut buffer = [[0_u8; SIGNAL_INFORMATION_BYTES]; 32];
    loop {
        let arguments = Arguments { offset: found.len() as u64, flags: u32::from(shared), count: buffer.len() as i32 };
        let count = request(
            "ptrace(PEEKSIGINFO)",
            libc::PTRACE_PEEKSIGINFO,
            tid,
            (&raw const arguments) as usize,
            buffer.as_mut_ptr() as usize,
        )? as usize;
        found.extend_from_slice(&buffer[..count.min(buffer.len())]);
        if count < buffer.len() {
            return Ok(found);
        }
    }
}

/// The siginfo of the signal that a thread stopped with.
///
/// # Errors
/// EINVAL: not stopped by a signal; ESRCH: dead or not stopped.
pub fn signal_information(tid: i32) -> Result<[u8; SIGNAL_INFORMATION_BYTES]> {
    let mut buffer = [0_u8; SIGNAL_INFORMATION_BYTES];
    request("ptrace(GETSIGINFO)", libc::PTRACE_GETSIGINFO, tid, 0, buffer.as_mut_ptr() as usize)?;
    Ok(buffer)
}

/// What a wait reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// Stopped by [`interrupt`], at birth, or in a group stop (then with the stop signal).
    Stop(i32),
    /// At the entry to or exit from a system call.
    Syscall,
    /// About to receive a signal.
    Signal(i32),
    /// Another ptrace event (number, signal).
    Other(i32),
    /// Ended; the raw wait status.
    Ended(i32),
}

fn decode(status: i32) -> Event {
    if !libc::WIFSTOPPED(status) {
        return Event::Ended(status);
    }
    let signal = libc::WSTOPSIG(status);
    match status >> 16 {
        libc::PTRACE_EVENT_STOP => Event::Stop(signal & 0x7f),
        0 if signal == (libc::SIGTRAP | 0x80) => Event::Syscall,
        0 => Event::Signal(signal),
        event => Event::Other(event),
    }
}

/// A system call that a thread is about to make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// Its number, as x86-64 counts.
    pub number: u64,
    /// Its arguments.
    pub arguments: [u64; 6],
}

/// Where a thread stands that has stopped with [`Event::Syscall`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallStop {
    /// Before a call.
    Before(Call),
    /// Before a call of another architecture's (32-bit code).
    BeforeForeign,
    /// Behind a call.
    Behind,
}

/// Tells the two stops of a system call apart (PTRACE_GET_SYSCALL_INFO, Linux 5.3).
///
/// # Errors
/// EIO: kernel without the request; ESRCH: dead or not stopped.
pub fn call_stop(tid: i32) -> Result<CallStop> {
    const PTRACE_GET_SYSCALL_INFO: libc::c_uint = 0x420e;
    const ENTRY: u64 = 1;
    const AUDIT_ARCH_X86_64: u64 = 0xc000_003e;
    // struct ptrace_syscall_info: operation and architecture, instruction and stack pointer, number, arguments.
    let mut words = [0_u64; 11];
    let (length, place) = (size_of_val(&words), words.as_mut_ptr() as usize);
    request("ptrace(GET_SYSCALL_INFO)", PTRACE_GET_SYSCALL_INFO, tid, length, place)?;
    let [head, _, _, number, arguments @ ..] = words;
    Ok(match (head & 0xff, head >> 32) {
        (ENTRY, AUDIT_ARCH_X86_64) => {
            CallStop::Before(Call { number, arguments: arguments.first_chunk().copied().unwrap_or_default() })
        }
        (ENTRY, _) => CallStop::BeforeForeign,
        _ => CallStop::Behind,
    })
}

/// The next stop of any thread that this one traces, if there is one: whose, and what. Ends are not told.
///
/// # Errors
/// None that is known.
pub fn next_stop() -> Result<Option<(i32, Event)>> {
    // SAFETY: the struct is live, and all zeros is a value of it; the fields that are read are those of SIGCHLD.
    let (told, pid, code) = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let what = libc::WSTOPPED | libc::WNOHANG | libc::__WALL;
        let told = check_int("waitid", libc::waitid(libc::P_ALL, 0, &raw mut info, what));
        (told, info.si_pid(), info.si_status())
    };
    match told {
        // The status is what wait4(2) has above its low byte (kernel/exit.c, wait_task_stopped()).
        Ok(_) if pid != 0 => Ok(Some((pid, decode((code << 8) | 0x7f)))),
        Ok(_) => Ok(None),
        Err(error) if matches!(error.number, libc::ECHILD | libc::EINTR) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Looks for a stop, each some 0.3 µs, before we sleep until it comes.
const LOOKS_MAX: u32 = 300;

/// Looks for a report that comes within microseconds: to be woken on a halted processor of a virtual machine takes ten times as long.
fn wait_awake(tid: i32) -> Result<Option<Event>> {
    for _ in 0..LOOKS_MAX {
        if let Some(event) = poll(tid)? {
            return Ok(Some(event));
        }
        // It may need this very processor to get to its stop.
        std::thread::yield_now();
    }
    Ok(None)
}

/// Between two looks at who is dead, while others have something to tell.
const LOOK_PAUSE: std::time::Duration = std::time::Duration::from_micros(100);

/// As [`wait`], for a thread of process `pid` whose other threads may be traced as well. Where somebody kills the process, the end of
/// its first thread is told to nobody before that of all the others has been (kernel/exit.c, delay_group_leader()): such a thread has
/// [`Event::Ended`] here, by SIGKILL, and can still be waited for when the others have been.
///
/// # Errors
/// ECHILD: not ours.
pub fn wait_in_process(pid: i32, tid: i32) -> Result<Event> {
    if pid != tid {
        return wait(tid);
    }
    if let Some(event) = wait_awake(tid)? {
        return Ok(event);
    }
    loop {
        // SAFETY: the struct is live, and all zeros is a value of it. What is told stays to be waited for.
        let told = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let what = libc::WEXITED | libc::WSTOPPED | libc::__WALL | libc::WNOWAIT;
            check_int("waitid", libc::waitid(libc::P_ALL, 0, &raw mut info, what))
        };
        if let Err(error) = told
            && error.number != libc::EINTR
        {
            return Err(error);
        }
        if let Some(event) = poll(tid)? {
            return Ok(event);
        }
        let state = crate::proc::stat::read(pid, pid).map(|stat| stat.state);
        if matches!(state, Ok(b'Z' | b'X') | Err(crate::proc::Error::Gone)) {
            return Ok(Event::Ended(libc::SIGKILL));
        }
        std::thread::sleep(LOOK_PAUSE);
    }
}

/// Waits for the next report of one thread.
///
/// # Errors
/// ECHILD: not ours (for example reaped by another waiter).
pub fn wait(tid: i32) -> Result<Event> {
    if let Some(event) = wait_awake(tid)? {
        return Ok(event);
    }
    loop {
        let mut status = 0;
        if tid <= 0 {
            return Err(Errno { number: libc::ECHILD, call: "waitpid" });
        }
        // SAFETY: status is a live int.
        match check_int("waitpid", unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) }) {
            Ok(_) => return Ok(decode(status)),
            Err(error) if error.number == libc::EINTR => {}
            Err(error) => return Err(error),
        }
    }
}

/// Like [`wait`], but answers `None` at once when there is nothing to report.
///
/// # Errors
/// ECHILD: not ours.
pub fn poll(tid: i32) -> Result<Option<Event>> {
    let mut status = 0;
    if tid <= 0 {
        return Err(Errno { number: libc::ECHILD, call: "waitpid" });
    }
    // SAFETY: status is a live int.
    let pid = check_int("waitpid", unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL | libc::WNOHANG) })?;
    Ok((pid != 0).then(|| decode(status)))
}
