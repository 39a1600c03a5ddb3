//! Timed waits that go on with the time that is left: see `linux::resumption` for how.
//!
//! The kernel continues some calls by itself (nanosleep, clock_nanosleep, poll, futex), but only a thread that it has
//! interrupted itself, and then it forgets which call it was. Others (epoll_wait, rt_sigtimedwait, semtimedop, sockets
//! with SO_RCVTIMEO or SO_SNDTIMEO) begin anew with their whole time. Both go on here, at the destination and at a source
//! that is let go.
//!
//! Left as the kernel would have it are threads under a seccomp filter or with syscall user dispatch, which may ask from
//! where a call comes; and those whose process has no room for the code behind its vDSO.
use crate::failure::{About, Result};
use crate::freeze::Stopped;
use crate::interrupted::{self, restart};
use crate::sleep::{self, Sleep};
use crate::stranded;
use godwit_image::Subject;
use godwit_linux::memory::{self, ForeignAddress, ForeignMemory};
use godwit_linux::proc::{maps, status};
use godwit_linux::ptrace::{self, Registers};
use godwit_linux::resumption::{self, FRAME_BYTES, Frame, ROOM_BYTES};
use std::collections::BTreeMap;
use std::time::Instant;

const NANOSECONDS: u64 = 1_000_000_000;
/// What the ABI leaves to a function below its stack pointer.
const RED_ZONE: u64 = 128;
const SYSCALL: [u8; 2] = [0x0f, 0x05];

/// Where a call has its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Time {
    /// Milliseconds in an argument.
    Milliseconds(usize),
    /// An argument is the address of a struct timespec.
    Timespec(usize),
    /// Nowhere: a socket has it. The events to wait for.
    Socket(u64),
}

fn time_of(call: u32) -> Option<Time> {
    const POLLIN: u64 = 1;
    const POLLOUT: u64 = 4;
    match call {
        sleep::NANOSLEEP => Some(Time::Timespec(0)),
        sleep::CLOCK_NANOSLEEP | sleep::RT_SIGTIMEDWAIT => Some(Time::Timespec(2)),
        sleep::FUTEX | sleep::EPOLL_PWAIT2 | sleep::SEMTIMEDOP => Some(Time::Timespec(3)),
        sleep::IO_GETEVENTS => Some(Time::Timespec(4)),
        sleep::POLL => Some(Time::Milliseconds(2)),
        sleep::EPOLL_WAIT | sleep::EPOLL_PWAIT => Some(Time::Milliseconds(3)),
        call if sleep::RECEIVING.contains(&call) => Some(Time::Socket(POLLIN)),
        call if sleep::SENDING.contains(&call) => Some(Time::Socket(POLLOUT)),
        _ => None,
    }
}

/// Whether a call is a timed wait that can go on with the time that is left.
pub(crate) fn knows(call: u32) -> bool {
    time_of(call).is_some()
}

fn arguments(registers: &mut Registers) -> [&mut u64; 5] {
    [&mut registers.rdi, &mut registers.rsi, &mut registers.rdx, &mut registers.r10, &mut registers.r8]
}

/// Where a process has the code, or room for it: the end of its vDSO.
pub(crate) fn place(vdso_end: u64) -> u64 {
    vdso_end - ROOM_BYTES
}

/// Whether the code is at a place.
pub(crate) fn is_laid(memory: &ForeignMemory, place: u64) -> bool {
    let mut found = vec![0; resumption::code().len()];
    memory.read(ForeignAddress(place), &mut found).is_ok() && found == resumption::code()
}

/// Lays the code; false when something else is at its place.
pub(crate) fn lay(memory: &ForeignMemory, place: u64) -> bool {
    let mut found = [0; ROOM_BYTES as usize];
    if memory.read(ForeignAddress(place), &mut found).is_err() {
        return false;
    }
    is_laid(memory, place)
        || found.iter().all(|byte| *byte == 0) && memory.write(ForeignAddress(place), resumption::code()).is_ok()
}

/// What a thread has to be given to go on.
#[derive(Clone, Copy, Debug)]
struct Resumption {
    registers: Registers,
    /// Bytes for its stack.
    stack: Option<(u64, Frame)>,
    /// The time alone, for a frame that is there.
    time: Option<(u64, [u64; 2])>,
}

/// Plans how a thread that was interrupted in `call` goes on; `None` when it cannot be told.
fn plan(registers: &Registers, call: u32, remaining_ns: u64, place: u64) -> Option<Resumption> {
    let mut planned = Resumption { registers: *registers, stack: None, time: None };
    let milliseconds = remaining_ns.div_ceil(1_000_000).min(i32::MAX as u64);
    let time = [remaining_ns / NANOSECONDS, remaining_ns % NANOSECONDS];
    let here = registers.rip.wrapping_sub(place);
    if (0..ROOM_BYTES).contains(&here) {
        // It was resumed before: only the time is new.
        if here != resumption::behind_call() && here != resumption::behind_poll() {
            return None;
        }
        match time_of(call)? {
            Time::Milliseconds(index) => *arguments(&mut planned.registers)[index] = milliseconds,
            Time::Timespec(_) => planned.time = Some((registers.rsp, time)),
            Time::Socket(_) => return None,
        }
        interrupted::again(&mut planned.registers, u64::from(call));
        return Some(planned);
    }
    let address = registers.rsp.checked_sub(RED_ZONE + FRAME_BYTES as u64)? & !15;
    let mut frame = Frame {
        time,
        arguments: arguments(&mut planned.registers).map(|argument| *argument),
        next: registers.rip,
        stack: registers.rsp,
        answer: restart::EAGAIN as u64,
        call: u64::from(call),
    };
    let (mut entry, mut number) = (resumption::behind_call(), call);
    match time_of(call)? {
        Time::Milliseconds(index) => *arguments(&mut planned.registers)[index] = milliseconds,
        Time::Timespec(index) => *arguments(&mut planned.registers)[index] = address,
        Time::Socket(events) => {
            frame.time = [registers.rdi & u64::from(u32::MAX) | events << 32, 0];
            (entry, number) = (resumption::behind_poll(), sleep::POLL);
            let [descriptors, count, timeout, ..] = arguments(&mut planned.registers);
            (*descriptors, *count, *timeout) = (address, 1, milliseconds);
        }
    }
    interrupted::again(&mut planned.registers, u64::from(number));
    planned.registers.rip = place + entry;
    planned.registers.rsp = address;
    planned.stack = Some((address, frame));
    Some(planned)
}

/// Prepares a stopped thread that was interrupted in `call`, and returns the registers with which it goes on; `None` when
/// it has to be left to the kernel. Nothing that the thread can see has changed then.
pub(crate) fn prepare(
    tid: i32,
    registers: &Registers,
    (call, remaining_ns): (u32, u64),
    place: u64,
) -> Result<Option<Registers>> {
    let subject = || Subject::Thread(tid, tid);
    let Some(planned) = plan(registers, call, remaining_ns, place) else { return Ok(None) };
    let filtered = status::read(tid, tid).map_or(true, |status| status.seccomp.unwrap_or(0) != 0);
    let dispatched = ptrace::user_dispatch(tid).is_ok_and(|[mode, ..]| mode != 0);
    if filtered || dispatched {
        return Ok(None);
    }
    let memory = ForeignMemory::open(tid).about(subject)?;
    // That wait is nobody's: it ends when the thread is let go, or by itself.
    if call == sleep::RT_SIGTIMEDWAIT && stranded::is_in_stub(&memory, registers.rip) {
        return Ok(None);
    }
    let mut instruction = [0; 2];
    let read = memory.read(ForeignAddress(registers.rip.wrapping_sub(2)), &mut instruction);
    if read.is_err() || instruction != SYSCALL || !lay(&memory, place) {
        return Ok(None);
    }
    // Not through /proc/PID/mem: it would write into a guard page, too.
    let write =
        |address: u64, bytes: &[u8]| memory::scatter(tid, &[(address, bytes)]).is_ok_and(|count| count == bytes.len());
    let written = match (&planned.stack, &planned.time) {
        (Some((address, frame)), _) => write(*address, &frame.bytes()),
        (None, Some((address, [seconds, nanoseconds]))) => {
            write(*address, &[seconds.to_le_bytes(), nanoseconds.to_le_bytes()].concat())
        }
        (None, None) => true,
    };
    Ok(written.then_some(planned.registers))
}

/// Before threads of one process are let go at the source: its timed waits go on with the time that is left. What fails here fails for a thread that is
/// dead, or leaves a wait to the kernel.
pub(crate) fn thaw<'t>(threads: impl Iterator<Item = &'t Stopped>, sleeps: &BTreeMap<i32, Sleep>) {
    let waiting = threads.filter_map(|thread| {
        let sleep = sleeps.get(&thread.tid()).filter(|sleep| knows(sleep.call))?;
        let registers = ptrace::registers(thread.tid()).ok()?;
        let cut = [restart::ERESTARTNOHAND, restart::ERESTART_RESTARTBLOCK].contains(&(registers.rax as i64));
        (cut && sleep.is_of(registers.orig_rax, registers.rdi)).then_some((thread.tid(), sleep, registers))
    });
    let mut vdso = None;
    for (tid, sleep, registers) in waiting {
        let end = *vdso.get_or_insert_with(|| {
            maps::read(tid).ok()?.iter().find(|area| area.name == b"[vdso]").map(|area| area.end)
        });
        let (Some(end), Some(remaining_ns)) = (end, sleep.remaining_ns(Instant::now())) else { continue };
        if let Ok(Some(registers)) = prepare(tid, &registers, (sleep.call, remaining_ns), place(end)) {
            let _ = ptrace::set_registers(tid, &registers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: u64 = 0x7000_0000;

    fn stopped_in(call: u32) -> Registers {
        let mut registers = ptrace::from_words(&[0; ptrace::REGISTER_WORDS]);
        (registers.orig_rax, registers.rax) = (u64::from(call), restart::ERESTARTNOHAND as u64);
        (registers.rip, registers.rsp) = (0x1002, 0x8008);
        (registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8) = (5, 6, 7, 8, 9);
        registers
    }

    #[test]
    fn a_wait_gets_the_time_that_is_left_in_its_own_way() {
        let (address, frame) = plan(&stopped_in(232), 232, 1_500_000_001, PLACE).unwrap().stack.unwrap();
        assert_eq!((address, frame.stack, frame.next, frame.arguments), (0x7f20, 0x8008, 0x1002, [5, 6, 7, 8, 9]));
        let milliseconds = plan(&stopped_in(232), 232, 1_500_000_001, PLACE).unwrap().registers;
        assert_eq!((milliseconds.r10, milliseconds.rdx, milliseconds.orig_rax), (1501, 7, 232));
        assert_eq!((milliseconds.rip, milliseconds.rsp), (PLACE + 2, 0x7f20));
        let timespec = plan(&stopped_in(128), 128, 1_500_000_001, PLACE).unwrap();
        assert_eq!((timespec.registers.rdx, timespec.stack.unwrap().1.time), (0x7f20, [1, 500_000_001]));
        let socket = plan(&stopped_in(45), 45, 1_500_000_001, PLACE).unwrap();
        let registers = socket.registers;
        assert_eq!((registers.orig_rax, registers.rdi, registers.rsi, registers.rdx), (7, 0x7f20, 1, 1501));
        assert_eq!(
            (registers.rip, socket.stack.unwrap().1.time),
            (PLACE + resumption::behind_poll(), [1 << 32 | 5, 0])
        );
        // Not a timed wait.
        assert!(plan(&stopped_in(3), 3, 0, PLACE).is_none());
    }

    #[test]
    fn what_was_resumed_before_only_gets_a_new_time() {
        let first = plan(&stopped_in(128), 128, 1_500_000_001, PLACE).unwrap().registers;
        let second = plan(&first, 128, 700, PLACE).unwrap();
        assert_eq!((second.registers.rip, second.registers.rsp), (first.rip, first.rsp));
        assert!(second.stack.is_none());
        assert_eq!(second.time, Some((0x7f20, [0, 700])));
        let first = plan(&stopped_in(45), 45, 1_500_000_001, PLACE).unwrap().registers;
        let second = plan(&first, sleep::POLL, 3_000_000, PLACE).unwrap();
        assert_eq!((second.registers.rdi, second.registers.rdx), (0x7f20, 3));
        // Between two instructions of the code it needs nothing.
        let between = Registers { rip: PLACE + 7, ..first };
        assert!(plan(&between, 45, 700, PLACE).is_none());
    }
}
