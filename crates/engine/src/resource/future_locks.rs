//! Memory that a process has locked in advance: mlockall(MCL_FUTURE), with or without MCL_ONFAULT.
//!
//! No file of /proc shows it. The process maps a page and tries to throw it away, which the kernel refuses when the page
//! is locked; whether the page was there from the start tells a lock on fault from another.
use super::{Captured, Description, Kind, Made, Need, Running, Stage, TaskState, open};
use crate::capture::Capture;
use crate::failure::Result;
use crate::injector::Injector;
use crate::restore::{Bind, Make};
use godwit_image::{Code, Envelope, KindId, Pid, Refusal, Subject, Verdict};
use godwit_linux::program::Program;
use serde::{Deserialize, Serialize};

const SYS_MLOCKALL: i64 = 151;
const MCL_FUTURE: u64 = 2;
const MCL_ONFAULT: u64 = 4;

/// What a process has asked for memory that it maps later.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Future {
    /// Nothing.
    #[default]
    Free,
    /// It is locked and brought in.
    Locked,
    /// Its pages are locked as they come.
    LockedOnFault,
    /// It maps no more: it may not lock as much.
    Full,
}

/// State.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// MCL_ONFAULT.
    pub on_fault: bool,
}

/// The kind.
#[derive(Debug)]
pub struct FutureLocks;

impl Kind for FutureLocks {
    fn id(&self) -> KindId {
        KindId(61)
    }
    fn name(&self) -> &'static str {
        "memory locked in advance"
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

impl TaskState for FutureLocks {
    fn examine(&self, _: Running<'_>) -> Vec<(Subject, Verdict)> {
        // Only the process itself can tell; it is carried.
        Vec::new()
    }

    fn capture(&self, injector: &mut Injector<'_>, _: &mut Capture) -> Result<Vec<Captured>> {
        let on_fault = match injector.answers().1.future {
            Future::Free => return Ok(Vec::new()),
            Future::Locked => false,
            Future::LockedOnFault => true,
            Future::Full => {
                let cause = "it locks all memory that it maps, and may not lock one page more";
                let refusal = Refusal::new(Code::UNSUPPORTED, Subject::Process(injector.process().pid), cause);
                return Err(refusal.choice("raise its limit: prlimit --memlock"));
            }
        };
        Ok(vec![Captured::new(Vec::new(), &State { on_fault })?])
    }

    /// Behind everything that maps memory in the task, which would be locked with the rest.
    fn restore(&self, envelope: &Envelope, task: Pid, bind: &mut Bind) -> Result<()> {
        let state: State = open(envelope)?;
        let flags = if state.on_fault { MCL_FUTURE | MCL_ONFAULT } else { MCL_FUTURE };
        let mut program = Program::new();
        program.call("mlockall", SYS_MLOCKALL, [flags.into()]);
        bind.run(task, &program).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        super::super::assert_round_trip(&State { on_fault: true });
    }
}
