//! The code behind a vDSO through which interrupted waits have gone on: a handler that runs may return to it.
use super::{Captured, Description, Kind, Made, Need, Running, Stage, TaskState, open};
use crate::capture::Capture;
use crate::failure::{About, Result};
use crate::injector::Injector;
use crate::restore::{Bind, Make};
use crate::resumption;
use godwit_image::{Code, Envelope, KindId, Pid, Refusal, Subject, Verdict};
use godwit_linux::memory::ForeignMemory;
use serde::{Deserialize, Serialize};

/// State.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// Its address.
    pub place: u64,
}

/// The kind.
#[derive(Debug)]
pub struct ResumptionCode;

impl Kind for ResumptionCode {
    fn id(&self) -> KindId {
        KindId(70)
    }
    fn name(&self) -> &'static str {
        "code of resumed waits"
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

impl TaskState for ResumptionCode {
    fn examine(&self, _: Running<'_>) -> Vec<(Subject, Verdict)> {
        // Ours, and always carried.
        Vec::new()
    }

    fn capture(&self, injector: &mut Injector<'_>, _: &mut Capture) -> Result<Vec<Captured>> {
        let Some(end) = injector.areas().iter().find(|area| area.name == b"[vdso]").map(|area| area.end) else {
            return Ok(Vec::new());
        };
        let (memory, place) = (injector.memory(), resumption::place(end));
        if !resumption::is_laid(memory, place) {
            return Ok(Vec::new());
        }
        Ok(vec![Captured::new(Vec::new(), &State { place })?])
    }

    fn restore(&self, envelope: &Envelope, task: Pid, _: &mut Bind) -> Result<()> {
        let State { place } = open(envelope)?;
        let subject = || Subject::Process(task.0);
        let memory = ForeignMemory::open(task.0).about(subject)?;
        if resumption::lay(&memory, place) {
            Ok(())
        } else {
            let cause = format!("this kernel's vDSO has no room at {place:#x} for the code of a resumed wait");
            Err(Refusal::new(Code::DESTINATION_LACKS, subject(), cause)
                .choice("move it to a host with the source's kernel"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        super::super::assert_round_trip(&State { place: 0x7fff_0000_1f80 });
    }
}
