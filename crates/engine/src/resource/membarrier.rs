//! Expedited memory barriers that a process has registered for: membarrier(2). Without them its fast paths would fail.
use super::{Captured, Description, Kind, Made, Need, Stage, TaskState, open};
use crate::capture::Capture;
use crate::failure::Result;
use crate::injector::Injector;
use crate::restore::{Bind, Make};
use godwit_image::{Envelope, KindId, Pid};
use godwit_linux::program::Program;
use serde::{Deserialize, Serialize};

const SYS_MEMBARRIER: i64 = 324;

/// State.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// MEMBARRIER_CMD_REGISTER_* bits, as MEMBARRIER_CMD_GET_REGISTRATIONS tells them.
    pub registrations: u64,
}

/// The kind.
#[derive(Debug)]
pub struct Membarrier;

impl Kind for Membarrier {
    fn id(&self) -> KindId {
        KindId(41)
    }
    fn name(&self) -> &'static str {
        "memory barrier registrations"
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

/// The commands whose bits are set.
fn commands(registrations: u64) -> impl Iterator<Item = u64> {
    (0..64).map(|bit| 1_u64 << bit).filter(move |command| registrations & command != 0)
}

impl TaskState for Membarrier {
    // Nothing is said of it before: only the process itself can tell; whatever it is, it is carried.
    fn capture(&self, injector: &mut Injector<'_>, _: &mut Capture) -> Result<Vec<Captured>> {
        match injector.answers().1.barriers {
            0 => Ok(Vec::new()),
            registrations => Ok(vec![Captured::new(Vec::new(), &State { registrations })?]),
        }
    }

    fn restore(&self, envelope: &Envelope, task: Pid, bind: &mut Bind) -> Result<()> {
        let state: State = open(envelope)?;
        let mut program = Program::new();
        for command in commands(state.registrations) {
            program.call("membarrier", SYS_MEMBARRIER, [command.into(), 0_u64.into(), 0_u64.into()]);
        }
        bind.run(task, &program).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        super::super::assert_round_trip(&State { registrations: 1 << 4 | 1 << 6 });
        assert_eq!(commands(1 << 4 | 1 << 6).collect::<Vec<_>>(), [16, 64]);
    }
}
