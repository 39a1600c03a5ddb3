//! A frozen process that sends its own pages into a socket of ours: nobody has to copy them before.
//!
//! One program takes the socket, sends, and lets go of it again, so that an engine which dies at any moment leaves no descriptor
//! behind: the program runs to its end without us. How long that takes at most is told by the socket's own time for sending. The
//! process gets the socket from a child of ours that it may look into as its user: into us only root may.
use crate::failure::{About, Result};
use crate::freeze::FrozenProcess;
use crate::injector::{Injector, UnderWay};
use godwit_image::memory::{AddressSpace, AreaFlags, Backing, PAGE_BYTES};
use godwit_image::page_set::{PageSet, Run};
use godwit_image::{Code, Refusal, Subject};
use godwit_linux::memory::{ForeignAddress, ForeignMemory};
use godwit_linux::message::{self, Part};
use godwit_linux::poll::{self, Readiness};
use godwit_linux::proc::{stat, status};
use godwit_linux::program::{Program, Step};
use godwit_linux::stranger::Stranger;
use godwit_linux::{eventfd, file, scheduling};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Fewer bytes of a space are not worth the programs.
const BYTES_MIN: u64 = 8 << 20;
/// Shorter runs are gathered by us, many at once.
const RUN_BYTES_MIN: u64 = 256 << 10;
/// How long a program may take before it counts as lost; its calls wait for [`SEND_TIME`] at most.
const PROGRAM_TIME_MAX: Duration = Duration::from_secs(10);
/// Between two looks at a program, should it not ring: it may stop on its way for other reasons.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long the process waits in one call for a link on which nothing moves. It is also how late it notices that it must stop.
pub const SEND_TIME: Duration = Duration::from_millis(300);
const SYS_WRITE: i64 = 1;
const SYS_SCHED_SETAFFINITY: i64 = 203;
const SYS_CLOSE: i64 = 3;
const SYS_PIDFD_OPEN: i64 = 434;
const SYS_PIDFD_GETFD: i64 = 438;
const READ: u32 = 1;
const EXECUTE: u32 = 4;

/// Which of a space's pages its process can send: long runs of its own data, as far as it may read it. Empty when there are
/// too few.
pub fn sendable(space: &AddressSpace, pages: &PageSet) -> PageSet {
    let unlike = AreaFlags::SHARED | AreaFlags::HUGE_TLB | AreaFlags::DROPPABLE | AreaFlags::GROWS_DOWN;
    let plain = space.areas.iter().filter(|area| {
        // The stub lies in executable memory.
        let readable = area.protection & (READ | EXECUTE) == READ && area.protection_key == 0;
        readable && area.backing == Backing::Anonymous && !area.has(unlike)
    });
    let plain: PageSet = plain.map(|area| Run { start: area.start, end: area.end }).collect();
    let long: PageSet =
        pages.intersection(&plain).runs().iter().copied().filter(|run| run.bytes() >= RUN_BYTES_MIN).collect();
    if long.bytes() < BYTES_MIN { PageSet::new() } else { long }
}

/// The mask of the processor that a thread ran on last, of a thread that may run on all: that is given back to it by a mask of
/// everything, which is what it had. Others stay as they are.
fn its_processor(pid: i32, tid: i32) -> Option<Vec<u8>> {
    let mask = scheduling::affinity(tid).ok()?;
    let allowed = |number: usize| mask.get(number / 8).is_some_and(|byte| byte >> (number % 8) & 1 != 0);
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").ok()?;
    for range in online.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        if !(first.parse().ok()?..=last.parse().ok()?).all(allowed) {
            return None;
        }
    }
    let processor = usize::try_from(stat::read(pid, tid).ok()?.processor).ok().filter(|number| allowed(*number))?;
    let mut one = vec![0; mask.len()];
    *one.get_mut(processor / 8)? = 1 << (processor % 8);
    Some(one)
}

/// What has become of the program before.
#[derive(Debug)]
struct Sending {
    under_way: UnderWay,
    sent: Step,
    began: Instant,
}

/// A process that sends.
#[derive(Debug)]
pub struct Outflow<'a> {
    injector: Injector<'a>,
    stranger: Stranger,
    socket: i32,
    /// What the process writes to when it has sent.
    bell: File,
    memory: ForeignMemory,
    /// The mask of the one processor that it stays on while it sends: packets that come from two overtake each other.
    processor: Option<Vec<u8>>,
    pid: i32,
    sending: Option<Sending>,
}

impl<'a> Outflow<'a> {
    /// Prepares a process to send into a socket on which calls wait, for [`SEND_TIME`] at most. `None`: it must not make calls
    /// without us, since its own filters would judge them.
    ///
    /// # Errors
    /// It is dead, or there is no room for programs or another child.
    pub fn open(process: &'a mut FrozenProcess, socket: BorrowedFd<'_>) -> Result<Option<Outflow<'a>>> {
        let pid = process.pid;
        let subject = || Subject::Process(pid);
        let Some(first) = process.threads.first().map(|thread| thread.tid()) else { return Ok(None) };
        let status = status::read(pid, first).about(subject)?;
        if status.seccomp.unwrap_or(0) != 0 {
            return Ok(None);
        }
        // Before the child, which is to have it.
        let bell = File::from(eventfd::create(false).about(subject)?);
        file::do_not_wait(bell.as_fd()).about(subject)?;
        let stranger = Stranger::new(status.uid[0], status.gid[0]).about(subject)?;
        let memory = ForeignMemory::open(first).about(subject)?;
        let injector = Injector::install(process)?;
        if injector.dispatch(0).is_some() {
            injector.remove()?;
            return Ok(None);
        }
        let processor = its_processor(pid, first);
        Ok(Some(Outflow {
            injector,
            stranger,
            socket: socket.as_raw_fd(),
            bell,
            memory,
            processor,
            pid,
            sending: None,
        }))
    }

    /// Whether a look at a few pages of a range finds none that is all zero: those are to be named and not sent. Of zero pages
    /// that are not looked at the contents travel like any other's.
    ///
    /// # Errors
    /// The process is dead.
    pub fn looks_full(&self, range: Run) -> Result<bool> {
        const SAMPLE_EVERY: u64 = 32 * PAGE_BYTES;
        let subject = || Subject::Process(self.pid);
        let (mut sample, mut page) = ([0_u8; 64], [0_u8; PAGE_BYTES as usize]);
        let mut at = range.start;
        while at < range.end {
            // Through /proc/PID/mem: what process_vm_readv pins would no longer be shared with a fork.
            self.memory.read(ForeignAddress(at), &mut sample).about(subject)?;
            if sample.iter().all(|byte| *byte == 0) {
                self.memory.read(ForeignAddress(at), &mut page).about(subject)?;
                if page.iter().all(|byte| *byte == 0) {
                    return Ok(false);
                }
            }
            at += SAMPLE_EVERY;
        }
        Ok(true)
    }

    /// Reads what the process has not sent after all.
    ///
    /// # Errors
    /// The process is dead.
    pub fn read(&self, address: u64, buffer: &mut [u8]) -> Result<()> {
        self.memory.read(ForeignAddress(address), buffer).about(|| Subject::Process(self.pid))
    }

    /// Lets the process send parts one after another, at most [`message::PARTS_MAX`]. [`Outflow::has_ended`] is next.
    ///
    /// # Errors
    /// It is dead.
    pub fn start(&mut self, parts: &[Part<'_>]) -> Result<()> {
        let mut program = Program::new();
        let message = message::header(&mut program, parts);
        // None of these ends the program: whatever fails, what it has opened it closes.
        let ours = program.try_call("pidfd_open", SYS_PIDFD_OPEN, [self.stranger.pid().into(), 0_u64.into()]);
        let socket = [ours.into(), self.socket.into(), 0_u64.into()];
        let socket = program.try_call("pidfd_getfd", SYS_PIDFD_GETFD, socket);
        let bell = [ours.into(), self.bell.as_raw_fd().into(), 0_u64.into()];
        let bell = program.try_call("pidfd_getfd", SYS_PIDFD_GETFD, bell);
        program.try_call("close", SYS_CLOSE, [ours.into()]);
        let affinity = |program: &mut Program, mask: &[u8]| {
            let place = program.data(mask);
            let arguments = [0_u64.into(), mask.len().into(), place];
            program.try_call("sched_setaffinity", SYS_SCHED_SETAFFINITY, arguments);
        };
        if let Some(one) = &self.processor {
            affinity(&mut program, one);
        }
        let arguments = [socket.into(), message, message::NO_SIGNAL.into()];
        let sent = program.try_call("sendmsg", message::SYS_SENDMSG, arguments);
        if let Some(one) = &self.processor {
            affinity(&mut program, &vec![u8::MAX; one.len()]);
        }
        program.try_call("close", SYS_CLOSE, [socket.into()]);
        let one = program.data(&1_u64.to_ne_bytes());
        program.try_call("write", SYS_WRITE, [bell.into(), one, 8_u64.into()]);
        program.try_call("close", SYS_CLOSE, [bell.into()]);
        let under_way = self.injector.start(program)?;
        self.sending = Some(Sending { under_way, sent, began: Instant::now() });
        Ok(())
    }

    /// Whether it has sent what it could; does not wait.
    ///
    /// # Errors
    /// It died, or is lost.
    fn has_ended(&mut self) -> Result<bool> {
        let Some(sending) = &self.sending else { return Ok(true) };
        let ended = self.injector.has_ended(&sending.under_way)?;
        if !ended && sending.began.elapsed() > PROGRAM_TIME_MAX {
            let cause = "a program did not end in time";
            return Err(Refusal::new(Code::KERNEL_CALL, Subject::Process(self.pid), cause));
        }
        Ok(ended)
    }

    /// Waits until it has sent what it could, or for a while. We sleep meanwhile: whoever looks again and again takes the processor
    /// from it, and has it moved to another one, where its packets overtake each other.
    ///
    /// # Errors
    /// As [`Outflow::has_ended`].
    pub fn wait(&mut self) -> Result<bool> {
        let ready = poll::wait(&[(self.bell.as_fd(), Readiness::READABLE)], Some(LOOK_EVERY));
        if !ready.is_ok_and(|ready| ready[0].readable) {
            return self.has_ended();
        }
        let mut count = [0; 8];
        // It has been written; the counter begins anew.
        let _ = self.bell.read(&mut count);
        // Only its last two calls are left.
        while !self.has_ended()? {
            std::thread::yield_now();
        }
        Ok(true)
    }

    /// How many bytes have left; an error when it could not send at all.
    ///
    /// # Errors
    /// It died.
    pub fn finish(&mut self) -> Result<std::result::Result<usize, godwit_linux::Errno>> {
        let Some(sending) = self.sending.take() else { return Ok(Ok(0)) };
        let ran = self.injector.finish(sending.under_way)?;
        Ok(ran.result("sendmsg", sending.sent).map(|count| count as usize))
    }

    /// Takes everything of ours out of the process again.
    ///
    /// # Errors
    /// It is dead.
    pub fn close(self) -> Result<()> {
        self.injector.remove().map(drop)
    }
}
