//! Attachments of System V shared memory: mappings that count, and that shmdt(2) knows.
use super::{Captured, Description, Kind, Made, Need, Stage, TaskState, memory_file, open, sysv_shm};
use crate::capture::Capture;
use crate::failure::{About, Result};
use crate::look::{Look, Purpose, Survey};
use crate::restore::{Bind, Make};
use godwit_image::{Code, Envelope, KindId, ObjectId, Refusal, Subject, Verdict};
use godwit_linux::proc::{directory, maps, sysvipc};
use serde::{Deserialize, Serialize};

const PREFIX: &[u8] = b"/SYSV";
/// Digits of the key behind [`PREFIX`].
const DIGITS: usize = 8;
/// How often attachments are counted before there are too many: the tree may run, and be born and end meanwhile.
const COUNTS_MAX: usize = 8;
/// This kind's number.
pub(crate) const ID: KindId = KindId(60);

/// State.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// The segment.
    pub segment: ObjectId,
    /// Its identifier.
    pub id: i32,
    /// Its size in bytes.
    pub bytes: u64,
    /// SHM_RDONLY.
    pub read_only: bool,
}

/// The kind.
#[derive(Debug)]
pub struct SysvAttachment;

/// The segment behind a mapping and the key in its name.
fn segment(look: &Look, survey: &Survey) -> Result<(sysvipc::Segment, i32)> {
    let refuse = |cause: String| Err(Refusal::new(Code::NOT_MIGRATABLE, look.subject(), cause));
    if memory_file::home() != Some(look.device) {
        return refuse("it is System V shared memory of huge pages".to_owned());
    }
    let digits = look.link.get(PREFIX.len()..PREFIX.len() + DIGITS).and_then(|digits| std::str::from_utf8(digits).ok());
    let Some(key) = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()) else {
        return refuse("its name tells no key".to_owned());
    };
    let mut cause = String::new();
    for _ in 0..COUNTS_MAX {
        // The inode number is the identifier.
        let segments = sysv_shm::segments(look.pid, || look.subject())?;
        let Some(segment) = segments.into_iter().find(|segment| i64::from(segment.id) == look.inode as i64) else {
            return refuse("its segment is not in this IPC namespace".to_owned());
        };
        let inside = attachments(look, survey);
        if segment.attached <= inside {
            return Ok((segment, key as i32));
        }
        let attached = segment.attached;
        cause = format!(
            "it is attached {attached} times, of which only {inside} are inside the tree: another process shares it"
        );
    }
    let refusal = Refusal::new(Code::EDGE, look.subject(), cause);
    Err(refusal.choice("move the other process as well; ipcs -p shows who used it"))
}

/// How often the tree has attached it: those who were born since it was listed, too.
fn attachments(look: &Look, survey: &Survey) -> u64 {
    let of = |pid: i32| {
        // The leader may have ended before the others.
        let threads = crate::procfs::threads(pid).unwrap_or_default();
        let areas = threads.iter().filter_map(|tid| maps::read(*tid).ok()).find(|areas| !areas.is_empty());
        areas.unwrap_or_default().iter().filter(|area| area.inode == look.inode && area.name == look.link).count()
            as u64
    };
    let newborn = directory::processes().unwrap_or_default().into_iter().filter(|pid| !survey.pids.contains(pid));
    let newborn = newborn.filter(|pid| survey.is_newborn(*pid));
    survey.pids.iter().copied().chain(newborn).map(of).sum()
}

impl Kind for SysvAttachment {
    fn id(&self) -> KindId {
        ID
    }
    fn name(&self) -> &'static str {
        "System V attachment"
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
    fn make(&self, envelope: &Envelope, make: &mut Make) -> Result<Made> {
        let state: State = open(envelope)?;
        let subject = || Subject::Object(format!("shared memory segment {}", state.id));
        Ok(vec![make.made(state.segment, 0)?.try_clone_to_owned().about(subject)?])
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

impl Description for SysvAttachment {
    fn recognise(&self, look: &Look) -> bool {
        look.links == 0 && look.link.starts_with(PREFIX) && matches!(look.purpose, Purpose::Mapping { .. })
    }
    fn examine(&self, look: &Look, survey: &Survey) -> Verdict {
        let note = "times of attaching and the process that did it last are those of the restore";
        segment(look, survey).map_or_else(Verdict::Blocks, |_| Verdict::Recreated(note.to_owned()))
    }
    fn foresee(&self, _: &Look, _: &Survey) -> Vec<Need> {
        Vec::new()
    }
    fn capture(&self, look: &Look, capture: &mut Capture) -> Result<Captured> {
        let (segment, key) = segment(look, &capture.survey)?;
        let subject = || look.subject();
        let object = sysv_shm::capture(&segment, key, || sysv_shm::file_of(look), capture, subject)?;
        let read_only = !matches!(look.purpose, Purpose::Mapping { writable: true, .. });
        Captured::new(vec![object], &State { segment: object, id: segment.id, bytes: segment.size, read_only })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_comes_back_from_its_payload() {
        super::super::assert_round_trip(&State { segment: ObjectId(3), id: 5, bytes: 7, read_only: true });
    }
}
