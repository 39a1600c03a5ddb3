//! Descriptors that signals are read from. The signals themselves are the tasks' and travel with them. Source: signalfd(2).
use super::{Captured, Description, Kind, Made, Need, Stage, TaskState, open};
use crate::capture::Capture;
use crate::failure::{About, Result, malformed};
use crate::look::{Look, Survey};
use crate::restore::{Bind, Make};
use godwit_image::{Envelope, KindId, Subject, Verdict};
use godwit_linux::{file, signalfd};
use serde::{Deserialize, Serialize};
use std::os::fd::AsFd;

const O_ASYNC: u32 = 0o20_000;

/// State.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// The signals: bit n-1 is signal n.
    pub mask: u64,
    /// Open flags.
    pub flags: u32,
}

/// The kind.
#[derive(Debug)]
pub struct SignalDescriptor;

impl Kind for SignalDescriptor {
    fn id(&self) -> KindId {
        KindId(9)
    }
    fn name(&self) -> &'static str {
        "signalfd"
    }
    fn version(&self) -> u16 {
        1
    }
    fn stage(&self) -> Stage {
        Stage::AsItComes
    }
    fn needs(&self, _: &Envelope) -> Result<Vec<Need>> {
        Ok(Vec::new())
    }
    fn make(&self, envelope: &Envelope, _: &mut Make) -> Result<Made> {
        let state: State = open(envelope)?;
        let subject = || Subject::Object(format!("signalfd {}", envelope.id));
        let made = signalfd::create(state.mask).about(subject)?;
        file::set_status_flags(made.as_fd(), state.flags & !O_ASYNC).about(subject)?;
        Ok(vec![made])
    }
    fn bind(&self, _: &Envelope, _: &mut Bind) -> Result<()> {
        Ok(())
    }
    fn description(&self) -> Option<&dyn Description> {
        Some(self)
    }
    fn task_state(&self) -> Option<&dyn TaskState> {
        None
    }
}

impl Description for SignalDescriptor {
    fn recognise(&self, look: &Look) -> bool {
        look.link == b"anon_inode:[signalfd]" && look.information.signal_mask.is_some()
    }
    fn examine(&self, _: &Look, _: &Survey) -> Verdict {
        Verdict::Carried
    }
    fn foresee(&self, _: &Look, _: &Survey) -> Vec<Need> {
        Vec::new()
    }
    fn capture(&self, look: &Look, _: &mut Capture) -> Result<Captured> {
        let mask = look.information.signal_mask.ok_or_else(|| malformed(look.subject(), "fdinfo has no mask"))?;
        Captured::new(Vec::new(), &State { mask, flags: look.flags() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_come_back() {
        super::super::assert_round_trip(&State { mask: 1 << 63 | 1, flags: 0o4002 });
    }
}
