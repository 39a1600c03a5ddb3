//! Record locks: fcntl(F_SETLK). They belong to a file table; the process that set them sets them anew, through a
//! descriptor of its own.
use super::{Captured, Description, Kind, Made, Need, Running, Stage, TaskState, open};
use crate::capture::Capture;
use crate::failure::{About, Result, malformed};
use crate::injector::Injector;
use crate::restore::{Bind, DeferredLock, Make};
use godwit_image::{Envelope, KindId, Pid, Subject, Verdict};
use godwit_linux::lock::{self, F_SETLK, Range};
use godwit_linux::program::Program;
use serde::{Deserialize, Serialize};

const SYS_FCNTL: i64 = 72;

/// One lock.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lock {
    /// The thread that sets it: one that has the file table.
    pub thread: Pid,
    /// Its descriptor of the file.
    pub descriptor: i32,
    /// Exclusive.
    pub exclusive: bool,
    /// First byte.
    pub start: u64,
    /// Last byte; none up to the end.
    pub end: Option<u64>,
}

/// State.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// The locks of one process.
    pub locks: Vec<Lock>,
}

/// The kind.
#[derive(Debug)]
pub struct RecordLocks;

impl Kind for RecordLocks {
    fn id(&self) -> KindId {
        KindId(26)
    }
    fn name(&self) -> &'static str {
        "record locks"
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
    fn bind(&self, _: &Envelope, _: &mut Bind) -> Result<()> {
        Ok(())
    }
    fn description(&self) -> Option<&dyn Description> {
        None
    }
    fn task_state(&self) -> Option<&dyn TaskState> {
        Some(self)
    }
}

impl TaskState for RecordLocks {
    fn examine(&self, _: Running<'_>) -> Vec<(Subject, Verdict)> {
        // Carried with the descriptors through which they were set.
        Vec::new()
    }
    fn foresee(&self, _: i32) -> Vec<Need> {
        Vec::new()
    }
    fn capture(&self, injector: &mut Injector<'_>, capture: &mut Capture) -> Result<Vec<Captured>> {
        let locks = capture.record_locks_of(injector.process().pid);
        if locks.is_empty() { Ok(Vec::new()) } else { Ok(vec![Captured::new(Vec::new(), &State { locks })?]) }
    }
    fn restore(&self, envelope: &Envelope, task: Pid, bind: &mut Bind) -> Result<()> {
        let state: State = open(envelope)?;
        let subject = || Subject::Process(task.0);
        for lock in &state.locks {
            let range = Range { exclusive: lock.exclusive, start: lock.start, end: lock.end };
            let thread = bind.living(lock.thread).unwrap_or(task);
            let bytes = range.bytes().ok_or_else(|| malformed(subject(), "the range of a lock is not one"))?;
            let mut program = Program::new();
            let bytes = program.data(&bytes);
            let step = program.try_call("fcntl(F_SETLK)", SYS_FCNTL, [lock.descriptor.into(), F_SETLK.into(), bytes]);
            match bind.run(thread, &program)?.result("fcntl(F_SETLK)", step) {
                Err(error) if lock::is_conflict(error) => {
                    let deferred = DeferredLock::OfProcess { thread, descriptor: lock.descriptor, range };
                    bind.defer(error, deferred)?;
                }
                other => other.map(drop).about(subject)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_comes_back_from_its_payload() {
        let lock = Lock { thread: Pid(7), descriptor: 3, exclusive: true, start: 1, end: None };
        super::super::assert_round_trip(&State { locks: vec![lock.clone(), Lock { end: Some(9), ..lock }] });
    }
}
