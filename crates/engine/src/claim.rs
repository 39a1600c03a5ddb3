//! Locks that a tree is to have and that its processes at the source still had when it was built, on a file that both hosts see.
//!
//! They are taken when the journal has made the tree ours and before one of its threads runs: by whoever built it, or, when that one was
//! killed, by whoever recovers it from the journal. flock(2) and F_OFD_SETLK belong to the open description, which the engine can
//! have as well; record locks (F_SETLK) belong to the process, which takes them by a program that heals itself.
use crate::failure::{About, Result};
use crate::freeze::{self, FrozenProcess};
use crate::injector::Injector;
use crate::preparation::Preparation;
use godwit_image::{Code, Refusal, Subject};
use godwit_linux::lock::{self, F_SETLK, Range};
use godwit_linux::pidfd::{ForeignDescriptor, PidFd};
use godwit_linux::program::Program;
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, BorrowedFd};

const SYS_FCNTL: i64 = 72;

/// Whose a lock is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Owner {
    /// flock(2): the open description.
    Whole,
    /// F_OFD_SETLK: the open description.
    Description,
    /// F_SETLK: the process.
    Process,
}

/// A lock that is still to be taken.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Claim {
    /// A process with the descriptor.
    pub pid: i32,
    /// One of its threads.
    pub thread: i32,
    /// The descriptor.
    pub descriptor: i32,
    /// Whose it is to be.
    pub owner: Owner,
    /// Exclusive; otherwise shared.
    pub exclusive: bool,
    /// First byte.
    pub start: u64,
    /// Last byte; none up to the end.
    pub end: Option<u64>,
}

impl Claim {
    fn range(&self) -> Range {
        Range { exclusive: self.exclusive, start: self.start, end: self.end }
    }

    /// Which descriptor it is of.
    pub fn subject(&self) -> Subject {
        Subject::Descriptor(self.pid, self.descriptor, "lock".to_owned())
    }

    /// Takes a lock of the description `file`; of a process's only looks whether it could be had. False: somebody else has it.
    pub(crate) fn take(&self, file: BorrowedFd<'_>) -> Result<bool> {
        let taken = match self.owner {
            Owner::Whole => lock::lock_whole(file, self.exclusive),
            Owner::Description => lock::lock_range(file, self.range()),
            Owner::Process => {
                let holder = lock::holder(file, self.range()).about(|| self.subject())?;
                // Ours, when an earlier engine was killed after it had taken it.
                return Ok(holder.is_none_or(|holder| holder == self.pid));
            }
        };
        match taken {
            Ok(()) => Ok(true),
            Err(error) if lock::is_conflict(error) => Ok(false),
            Err(error) => Err(error).about(|| self.subject()),
        }
    }
}

/// Has a stopped process take its own of these. False: somebody else has one.
///
/// # Errors
/// The process is dead, or no lock can be had at all.
pub(crate) fn take_inside(process: &mut FrozenProcess, claims: &[&Claim]) -> Result<bool> {
    let mut injector = Injector::install(process)?;
    let mut taken = true;
    for claim in claims {
        let threads = &injector.process().threads;
        let index = threads.iter().position(|thread| thread.tid() == claim.thread).unwrap_or(0);
        let malformed = || Refusal::new(Code::MALFORMED, claim.subject(), "the range of a lock is not one");
        let bytes = claim.range().bytes().ok_or_else(malformed)?;
        let mut program = Program::new();
        let bytes = program.data(&bytes);
        let step = program.try_call("fcntl(F_SETLK)", SYS_FCNTL, [claim.descriptor.into(), F_SETLK.into(), bytes]);
        let ran = injector.run(&[(index, program)])?;
        match ran[0].result("fcntl(F_SETLK)", step) {
            Ok(_) => {}
            Err(error) if lock::is_conflict(error) => taken = false,
            Err(error) => return Err(error).about(|| claim.subject()),
        }
    }
    injector.remove()?;
    Ok(taken)
}

/// Takes the locks of a tree that its dead builder has left stopped. False: somebody else has one of them.
///
/// # Errors
/// A process is dead, or a lock cannot be had at all.
pub fn take(root: i32, claims: &[Claim]) -> Result<bool> {
    for claim in claims {
        let file = PidFd::open_thread(claim.thread)
            .and_then(|thread| thread.duplicate(ForeignDescriptor(claim.descriptor)))
            .about(|| claim.subject())?;
        if !claim.take(file.as_fd())? {
            return Ok(false);
        }
    }
    if claims.iter().all(|claim| claim.owner != Owner::Process) {
        return Ok(true);
    }
    let mut tree = freeze::freeze(root, Preparation::of(root))?;
    let mut taken = true;
    for process in &mut tree.processes {
        let of_process: Vec<&Claim> =
            claims.iter().filter(|claim| claim.owner == Owner::Process && claim.pid == process.pid).collect();
        if !of_process.is_empty() {
            taken &= take_inside(process, &of_process)?;
        }
    }
    // Stopped by a signal, it stays stopped.
    tree.release();
    Ok(taken)
}
