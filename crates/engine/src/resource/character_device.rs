//! Character devices without state of their own: null, zero, full, random, urandom.
use super::{Captured, Description, Kind, Made, Need, Stage, TaskState, open};
use crate::capture::Capture;
use crate::failure::{About, Result};
use crate::look::{Look, Survey};
use crate::restore::{Bind, Make};
use godwit_image::{Envelope, KindId, Subject, Verdict};
use serde::{Deserialize, Serialize};

const S_IFCHR: u32 = 0o020_000;
/// Minor numbers of the memory devices (major 1) that have no state: null, zero, full, random, urandom.
const STATELESS: [u64; 5] = [3, 5, 7, 8, 9];

/// State.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// Path of the device node.
    pub path: String,
    /// st_rdev; the destination's node must have the same.
    pub device_number: u64,
    /// Open flags.
    pub flags: u32,
}

/// The kind.
#[derive(Debug)]
pub struct CharacterDevice;

impl Kind for CharacterDevice {
    fn id(&self) -> KindId {
        KindId(2)
    }
    fn name(&self) -> &'static str {
        "character device"
    }
    fn version(&self) -> u16 {
        1
    }
    fn stage(&self) -> Stage {
        Stage::AsItComes
    }
    fn needs(&self, envelope: &Envelope) -> Result<Vec<Need>> {
        let state: State = open(envelope)?;
        Ok(vec![Need::path(state.path, S_IFCHR)])
    }
    fn make(&self, envelope: &Envelope, _: &mut Make) -> Result<Made> {
        let state: State = open(envelope)?;
        Ok(vec![
            godwit_linux::file::open(state.path.as_bytes(), state.flags).about(|| Subject::Path(state.path.clone()))?,
        ])
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

impl Description for CharacterDevice {
    fn recognise(&self, look: &Look) -> bool {
        let (major, minor) = (look.device_number >> 8 & 0xfff, look.device_number & 0xff);
        look.file_type() == S_IFCHR && major == 1 && STATELESS.contains(&minor) && !look.link.ends_with(b" (deleted)")
    }
    fn examine(&self, _: &Look, _: &Survey) -> Verdict {
        Verdict::Carried
    }
    fn foresee(&self, look: &Look, _: &Survey) -> Vec<Need> {
        vec![Need::path(look.text(), look.file_type())]
    }
    fn capture(&self, look: &Look, _: &mut Capture) -> Result<Captured> {
        Captured::new(Vec::new(), &State { path: look.text(), device_number: look.device_number, flags: look.flags() })
    }
}
