//! A frozen process that hands its own pages to us: nobody has to copy them before they leave.
//!
//! One program takes the writing ends of a few pipes of ours, puts pages into them (vmsplice(2): the pages themselves, not copies),
//! and lets go of the pipes again, so that an engine which dies at any moment leaves no descriptor behind: the program runs to its
//! end without us, and never waits, since a pipe has as many slots as it is given pages. The pages stay what they are until they
//! have left, because the process is stopped until then; whoever lets it go before has given the move up.
//! The process gets the pipes from a child of ours that it may look into as its user: into us only root may.
use crate::failure::{About, Result};
use crate::freeze::FrozenProcess;
use crate::fullness;
use crate::injector::Injector;
use godwit_image::memory::{AddressSpace, AreaFlags, Backing};
use godwit_image::page_set::{PageSet, Run};
use godwit_image::{Code, Refusal, Subject};
use godwit_linux::memory::{ForeignAddress, ForeignMemory};
use godwit_linux::pipe;
use godwit_linux::program::Program;
use godwit_linux::stranger::Stranger;
use godwit_linux::vector;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Fewer bytes of a space are not worth the programs.
const BYTES_MIN: u64 = 8 << 20;
/// Shorter runs are gathered by us, many at once.
const RUN_BYTES_MIN: u64 = 256 << 10;
/// What one pipe takes: a page in each slot. More is for the privileged.
pub const PIECE_BYTES: usize = 1 << 20;
/// Pieces of one program.
pub const PIECES_MAX: usize = 8;
const SYS_CLOSE: i64 = 3;
const SYS_PIDFD_OPEN: i64 = 434;
const SYS_PIDFD_GETFD: i64 = 438;
const READ: u32 = 1;
const EXECUTE: u32 = 4;

/// Which of a space's pages its process can hand over: long runs of its own data, as far as it may read it. Empty when there are
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

/// Ranges that go through one pipe together: at most [`PIECE_BYTES`], whole pages.
pub type Piece = Vec<(u64, usize)>;

/// A process that hands its pages over.
#[derive(Debug)]
pub struct Outflow<'a> {
    injector: Injector<'a>,
    stranger: Stranger,
    /// Reading and writing end of each.
    pipes: Vec<(OwnedFd, OwnedFd)>,
    memory: ForeignMemory,
    pid: i32,
    /// What looked full before the freeze.
    full: PageSet,
}

impl<'a> Outflow<'a> {
    /// Prepares a process, of whose memory some looked `full` before (addresses, whole pages). `None`: it must not make calls without us,
    /// since its own filters would judge them, or there are no pipes that are large enough.
    ///
    /// # Errors
    /// It is dead, or there is no room for programs or another child.
    pub fn open(process: &'a mut FrozenProcess, full: PageSet) -> Result<Option<Outflow<'a>>> {
        let pid = process.pid;
        let subject = || Subject::Process(pid);
        let Some(first) = process.threads.first().map(|thread| thread.tid()) else { return Ok(None) };
        let status = process.status()?;
        let (user, group) = (status.uid[0], status.gid[0]);
        if status.seccomp.unwrap_or(0) != 0 {
            return Ok(None);
        }
        // Before the child, which is to have them.
        let Ok(pipes) = (0..PIECES_MAX).map(|_| large_pipe()).collect() else { return Ok(None) };
        let stranger = Stranger::new(user, group).about(subject)?;
        let memory = ForeignMemory::open(first).about(subject)?;
        let injector = Injector::install(process)?;
        if injector.dispatch(0).is_some() {
            injector.remove()?;
            return Ok(None);
        }
        Ok(Some(Outflow { injector, stranger, pipes, memory, pid, full }))
    }

    /// Whether a look at a few pages of a range finds none that is all zero: those are to be named and not sent. Of zero pages
    /// that are not looked at the contents travel like any other's.
    ///
    /// # Errors
    /// The process is dead.
    pub fn looks_full(&self, range: Run) -> Result<bool> {
        Ok(self.full.covers(range.start, range.end) || fullness::looks_full(self.pid, &self.memory, range)?)
    }

    /// Reads what the process has not handed over after all.
    ///
    /// # Errors
    /// The process is dead.
    pub fn read(&self, address: u64, buffer: &mut [u8]) -> Result<()> {
        self.memory.read(ForeignAddress(address), buffer).about(|| Subject::Process(self.pid))
    }

    /// Has the process put pieces into the first pipes, one into each, at most [`PIECES_MAX`]; the pipes must be empty. Returns how
    /// many bytes of each are in its pipe: where that is less than all, the process could not, and its memory is there to be read.
    ///
    /// # Errors
    /// It died.
    pub fn fill(&mut self, pieces: &[Piece]) -> Result<Vec<usize>> {
        let subject = || Subject::Process(self.pid);
        let mut program = Program::new();
        // None of these ends the program: whatever fails, what it has opened it closes.
        let ours = program.try_call("pidfd_open", SYS_PIDFD_OPEN, [self.stranger.pid().into(), 0_u64.into()]);
        let mut ends = Vec::new();
        for (_, (reading, writing)) in pieces.iter().zip(&self.pipes) {
            if pipe::unread(reading.as_fd()).about(subject)? != 0 {
                return Err(Refusal::new(Code::KERNEL_CALL, subject(), "a pipe for its pages is not empty"));
            }
            let end = [ours.into(), writing.as_raw_fd().into(), 0_u64.into()];
            ends.push(program.try_call("pidfd_getfd", SYS_PIDFD_GETFD, end));
        }
        program.try_call("close", SYS_CLOSE, [ours.into()]);
        let mut steps = Vec::new();
        for (piece, end) in pieces.iter().zip(&ends) {
            let ranges = vector::place(&mut program, piece);
            let arguments = [(*end).into(), ranges, piece.len().into(), pipe::DO_NOT_WAIT.into()];
            steps.push(program.try_call("vmsplice", pipe::SYS_VMSPLICE, arguments));
        }
        for end in &ends {
            program.try_call("close", SYS_CLOSE, [(*end).into()]);
        }
        let ran = self.injector.run(&[(0, program)])?;
        let filled = |step| ran.first().and_then(|ran| ran.result("vmsplice", step).ok()).unwrap_or(0) as usize;
        Ok(steps.into_iter().map(filled).collect())
    }

    /// Where the piece of this number is to be taken from.
    pub fn pipe(&self, number: usize) -> Option<BorrowedFd<'_>> {
        self.pipes.get(number).map(|(reading, _)| reading.as_fd())
    }

    /// Takes everything of ours out of the process again.
    ///
    /// # Errors
    /// It is dead.
    pub fn close(self) -> Result<()> {
        self.injector.remove()
    }
}

/// A pipe that takes a piece.
fn large_pipe() -> godwit_linux::errno::Result<(OwnedFd, OwnedFd)> {
    let (reading, writing) = pipe::create(0)?;
    pipe::set_capacity(writing.as_fd(), PIECE_BYTES as u64)?;
    Ok((reading, writing))
}
