//! Locks that belong to an open description: flock(2) and fcntl(F_OFD_SETLK). One object beside the description that has
//! any. Leases are refused here by name.
use super::{Description, Kind, Made, Need, Stage, TaskState, open};
use crate::capture::Capture;
use crate::failure::{About, Result, malformed};
use crate::look::Look;
use crate::restore::{Bind, DeferredLock, Make};
use godwit_image::{Code, Envelope, KindId, ObjectId, Pid, Refusal, Subject};
use godwit_linux::lock::{self, LOCK_EX, LOCK_NB, LOCK_SH, Range};
use godwit_linux::proc::locks::{self, Access};
use godwit_linux::program::Program;
use serde::{Deserialize, Serialize};
use std::os::fd::AsRawFd;

const SYS_FCNTL: i64 = 72;
const SYS_FLOCK: i64 = 73;

/// One lock.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lock {
    /// flock(2); otherwise F_OFD_SETLK.
    pub whole: bool,
    /// Exclusive.
    pub exclusive: bool,
    /// First byte.
    pub start: u64,
    /// Last byte; none up to the end.
    pub end: Option<u64>,
    /// Who set it, as /proc/locks shows; -1 for F_OFD_SETLK.
    pub pid: i32,
}

/// State.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// The description.
    pub description: ObjectId,
    /// Its locks.
    pub locks: Vec<Lock>,
}

/// The kind.
#[derive(Debug)]
pub struct Flock;

/// Why the locks of a description forbid to move it.
pub(crate) fn refuse(look: &Look) -> Option<Refusal> {
    look.information.locks.iter().find_map(|lock| {
        let cause = match lock.kind {
            locks::Kind::Lease => "it has a lease (F_SETLEASE), which cannot be given to it anew",
            locks::Kind::Delegation => "the NFS server of the kernel has given out a delegation of it",
            _ if lock.mandatory => "it has a mandatory lock",
            _ => return None,
        };
        let refusal = Refusal::new(Code::NOT_MIGRATABLE, look.subject(), cause);
        Some(refusal.choice("give up the lease in the program: fcntl(F_SETLEASE, F_UNLCK)"))
    })
}

/// Captures the locks of a description that was just captured as `description`.
///
/// # Errors
/// A lease.
pub(crate) fn capture(description: ObjectId, look: &Look, capture: &mut Capture) -> Result<()> {
    if let Some(refusal) = refuse(look) {
        return Err(refusal);
    }
    let of_description = look
        .information
        .locks
        .iter()
        .filter(|lock| !lock.waits && matches!(lock.kind, locks::Kind::Flock | locks::Kind::OpenDescription));
    let locks: Vec<Lock> = of_description
        .map(|lock| Lock {
            whole: lock.kind == locks::Kind::Flock,
            exclusive: lock.access == Access::Write,
            start: lock.start,
            end: lock.end,
            pid: lock.pid,
        })
        .collect();
    if !locks.is_empty() {
        let key = description.0.to_le_bytes();
        capture.intern(&Flock, &key, |_, _| Ok((vec![description], State { description, locks })))?;
    }
    Ok(())
}

impl Kind for Flock {
    fn id(&self) -> KindId {
        KindId(27)
    }
    fn name(&self) -> &'static str {
        "lock of a description"
    }
    fn version(&self) -> u16 {
        1
    }
    fn stage(&self) -> Stage {
        Stage::Early
    }
    fn needs(&self, _: &Envelope) -> Result<Vec<Need>> {
        Ok(Vec::new())
    }
    fn make(&self, _: &Envelope, _: &mut Make) -> Result<Made> {
        Ok(Vec::new())
    }
    fn bind(&self, envelope: &Envelope, bind: &mut Bind) -> Result<()> {
        let state: State = open(envelope)?;
        let subject = || Subject::Object(format!("lock {}", envelope.id));
        let number = bind.made(state.description)?.as_raw_fd();
        for of_description in &state.locks {
            let Lock { whole, exclusive, start, end, pid } = *of_description;
            let range = Range { exclusive, start, end };
            let mut program = Program::new();
            let step = if whole {
                let operation = if exclusive { LOCK_EX } else { LOCK_SH } | LOCK_NB;
                program.try_call("flock", SYS_FLOCK, [number.into(), operation.into()])
            } else {
                let bytes = range.bytes().ok_or_else(|| malformed(subject(), "its range is not one"))?;
                let bytes = program.data(&bytes);
                program.try_call("fcntl", SYS_FCNTL, [number.into(), lock::F_OFD_SETLK.into(), bytes])
            };
            // In the task that set it, so that /proc/locks names it; descriptors still have the restorer's numbers.
            let result = match bind.living(Pid(pid)) {
                Some(thread) => bind.run(thread, &program)?.result("lock", step).map(drop),
                None if whole => lock::lock_whole(bind.made(state.description)?, exclusive),
                None => lock::lock_range(bind.made(state.description)?, range),
            };
            match result {
                Err(error) if lock::is_conflict(error) => {
                    bind.defer(error, DeferredLock::OfDescription { object: state.description, whole, range })?;
                }
                other => other.about(subject)?,
            }
        }
        Ok(())
    }
    fn description(&self) -> Option<&dyn Description> {
        None
    }
    fn task_state(&self) -> Option<&dyn TaskState> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_comes_back_from_its_payload() {
        let lock = Lock { whole: true, exclusive: false, start: 0, end: None, pid: 7 };
        let range = Lock { whole: false, exclusive: true, start: 5, end: Some(u64::MAX >> 1), pid: -1 };
        super::super::assert_round_trip(&State { description: ObjectId(3), locks: vec![lock, range] });
    }
}
