//! Locks that the source still had while the tree was built, on a file that both hosts see: taken at the last moment, when
//! the source has let go and nothing of the tree runs yet.
use super::{Restorer, missing};
use crate::failure::{About, Result};
use godwit_image::{Code, ObjectId, Pid, Refusal, Subject};
use godwit_linux::lock::{self, F_SETLK, Range};
use godwit_linux::memory::{ForeignAddress, ForeignMemory};
use godwit_linux::{Errno, filesystem};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

const SYS_FCNTL: u64 = 72;
/// How long a lock may still be somebody else's after the source has let go. The source's tasks end in milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_micros(200);
/// Below the red zone of the stack: 128 bytes that belong to the function, then ours.
const BELOW_STACK: u64 = 512;
const RSP: usize = 19;
/// File systems that several machines share: NFS, SMB, CIFS, 9P, FUSE, Ceph, GFS2, OCFS2.
const SHARED: [u64; 8] =
    [0x6969, 0xfe53_4d42, 0xff53_4d42, 0x0102_1997, 0x6573_5546, 0x00c3_6400, 0x0116_1970, 0x7461_636f];

/// A lock that somebody else had when it was to be set.
#[derive(Clone, Debug)]
pub enum DeferredLock {
    /// flock (`whole`) or F_OFD_SETLK of a description.
    OfDescription {
        /// The description.
        object: ObjectId,
        /// flock(2).
        whole: bool,
        /// Range and sharing; of flock only the sharing counts.
        range: Range,
    },
    /// F_SETLK of a process.
    OfProcess {
        /// A thread with the file table.
        thread: Pid,
        /// Its descriptor.
        descriptor: i32,
        /// Range and sharing.
        range: Range,
    },
}

impl Restorer {
    /// Keeps a lock for later, if it may be the source that has it now.
    pub(super) fn defer(&mut self, error: Errno, lock: DeferredLock) -> Result<()> {
        let object = match &lock {
            DeferredLock::OfDescription { object, .. } => Some(*object),
            DeferredLock::OfProcess { thread, descriptor, .. } => self.description_of(*thread, *descriptor),
        };
        let file = object.and_then(|object| self.own(object));
        let shared = file.and_then(|file| filesystem::kind(file).ok()).is_some_and(|kind| SHARED.contains(&kind));
        // Before the boot was noted an image could not tell.
        let elsewhere = !self.tree.host.boot_id.is_empty() && !crate::host::is_this_boot(&self.tree.host);
        if !shared && elsewhere {
            let cause = format!("somebody else has the lock here that it has: {error}");
            return Err(Refusal::new(Code::FILE_DIFFERS, subject(&lock), cause));
        }
        let kept = match &lock {
            DeferredLock::OfDescription { .. } => {
                let file = file.ok_or_else(|| missing(ObjectId(0)))?;
                Some(file.try_clone_to_owned().about(|| subject(&lock))?)
            }
            DeferredLock::OfProcess { .. } => None,
        };
        self.deferred.push((lock, kept));
        Ok(())
    }

    fn description_of(&self, thread: Pid, descriptor: i32) -> Option<ObjectId> {
        let mut threads = self.tree.tasks.iter().flat_map(|task| &task.threads);
        let table = threads.find(|other| other.tid == thread)?.files?;
        let table = self.tree.tables.iter().find(|other| other.id == table)?;
        table.slots.iter().find(|slot| slot.descriptor == descriptor).map(|slot| slot.description)
    }

    /// Whether [`Restorer::resume`] waits for the source's tasks to end: they have locks that these are to have.
    pub fn awaits_source(&self) -> bool {
        !self.deferred.is_empty()
    }

    /// Takes the locks that were deferred.
    pub(super) fn take_deferred_locks(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        for (lock, file) in std::mem::take(&mut self.deferred) {
            loop {
                match self.take(&lock, file.as_ref())? {
                    Ok(()) => break,
                    Err(error) if lock::is_conflict(error) && Instant::now() < deadline => std::thread::sleep(PAUSE),
                    Err(error) => {
                        let cause = format!("somebody else has the lock that it had: {error}");
                        return Err(Refusal::new(Code::RESTORE_FAILED, subject(&lock), cause));
                    }
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, lock: &DeferredLock, file: Option<&OwnedFd>) -> Result<std::result::Result<(), Errno>> {
        match lock {
            DeferredLock::OfDescription { object, whole, range } => {
                let file = file.ok_or_else(|| missing(*object))?.as_fd();
                Ok(if *whole { lock::lock_whole(file, range.exclusive) } else { lock::lock_range(file, *range) })
            }
            DeferredLock::OfProcess { thread, descriptor, range } => self.take_in_task(*thread, *descriptor, *range),
        }
    }

    /// By a single call of a thread that has nothing of ours any more: the range lies below its stack for a moment.
    fn take_in_task(&mut self, tid: Pid, descriptor: i32, range: Range) -> Result<std::result::Result<(), Errno>> {
        let has = |task: &&godwit_image::task::Task| task.threads.iter().any(|thread| thread.tid == tid);
        let task = self.tree.tasks.iter().find(has).cloned().ok_or_else(|| missing(ObjectId(0)))?;
        let thread = task.threads.iter().find(|thread| thread.tid == tid).ok_or_else(|| missing(ObjectId(0)))?;
        let subject = || Subject::Thread(task.pid.0, tid.0);
        let at = self.syscall_instruction(&task, task.space.ok_or_else(|| missing(ObjectId(0)))?)?;
        let bytes = range.bytes().ok_or_else(|| missing(ObjectId(0)))?;
        let stack = thread.registers.get(RSP).copied().unwrap_or(0);
        let place = ForeignAddress((stack & !15).wrapping_sub(BELOW_STACK));
        let memory = ForeignMemory::open(tid.0).about(subject)?;
        let mut before = [0_u8; 32];
        memory.read(place, &mut before).about(subject)?;
        memory.write(place, &bytes).about(subject)?;
        let puppet = self.puppets.get_mut(&tid).ok_or_else(|| missing(ObjectId(0)))?;
        let result = puppet.call(at, SYS_FCNTL, [descriptor as u64, F_SETLK, place.0, 0, 0, 0]);
        memory.write(place, &before).about(subject)?;
        let result = godwit_linux::errno::foreign("fcntl(F_SETLK)", result?);
        self.set_processor_state(&task, thread)?;
        if self.held {
            // The stop that was pending went by at the call.
            self.puppets.get_mut(&tid).ok_or_else(|| missing(ObjectId(0)))?.hold()?;
        }
        Ok(result.map(drop))
    }
}

fn subject(lock: &DeferredLock) -> Subject {
    match lock {
        DeferredLock::OfDescription { object, .. } => Subject::Object(format!("object {object}")),
        DeferredLock::OfProcess { thread, descriptor, .. } => {
            Subject::Descriptor(thread.0, *descriptor, "record lock".to_owned())
        }
    }
}
