//! System V shared memory segments: identifier, key, owner, creator, content. Who has one attached is
//! [`sysv_attachment`](super::sysv_attachment); one that nobody has attached belongs to the process that made it.
use super::{Captured, Description, Kind, Made, Need, Running, Stage, TaskState, file_content, open};
use crate::capture::Capture;
use crate::failure::{About, Result, malformed};
use crate::injector::Injector;
use crate::look::Look;
use crate::restore::{Bind, Make};
use godwit_image::{Code, Envelope, KindId, ObjectId, Pid, Refusal, Subject, Verdict};
use godwit_linux::proc::{link, sysvipc};
use godwit_linux::shared_memory::{self, Attachment, Creator, LOCKED, REMOVED};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, OwnedFd};

/// State.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// Identifier.
    pub id: i32,
    /// Key with which it was made; of a removed segment the one that it had.
    pub key: i32,
    /// Size in bytes.
    pub bytes: u64,
    /// Permission bits, SHM_DEST and SHM_LOCKED.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Process, user and group that made it.
    pub creator: (i32, u32, u32),
    /// Time of the last change at the source, seconds since 1970.
    pub changed: u64,
}

/// The kind.
#[derive(Debug)]
pub struct SysvShm;

/// The segments of the IPC namespace that we and a process have in common.
///
/// # Errors
/// The process has another one.
pub(super) fn segments(pid: i32, subject: impl Fn() -> Subject) -> Result<Vec<sysvipc::Segment>> {
    let own = std::process::id() as i32;
    let namespace = |pid| link::namespace(pid, pid, "ipc").about(&subject);
    if namespace(pid)? != namespace(own)? {
        let refusal = Refusal::new(Code::UNSUPPORTED, subject(), "it is in an IPC namespace other than godwit's");
        return Err(refusal.choice("run godwit inside that namespace: nsenter -i"));
    }
    sysvipc::read().about(&subject)
}

/// The object of a segment, captured once.
///
/// # Errors
/// It cannot be read.
pub(super) fn capture(
    segment: &sysvipc::Segment,
    key: i32,
    file: impl FnOnce() -> Result<OwnedFd>,
    capture: &mut Capture,
    subject: impl Fn() -> Subject,
) -> Result<ObjectId> {
    capture.intern(&SysvShm, &segment.id.to_le_bytes(), |capture, id| {
        let file = file()?;
        let pages = file_content::data_pages(file.as_fd(), &subject)?;
        capture.content(id, file, pages);
        let state = State {
            id: segment.id,
            key,
            bytes: segment.size,
            mode: segment.mode,
            owner: (segment.user, segment.group),
            creator: (segment.creator, segment.creator_user, segment.creator_group),
            changed: segment.change_time,
        };
        capture.leaves_with_the_tree(crate::leftover::Leftover::Segment(state.id, state.changed));
        Ok((Vec::new(), state))
    })
}

/// The file behind a segment, taken from a mapping of it.
pub(super) fn file_of(look: &Look) -> Result<OwnedFd> {
    file_content::reopen(look.borrow(), 0, || look.subject())
}

fn detached(pid: i32) -> Vec<sysvipc::Segment> {
    let segments = segments(pid, || Subject::Process(pid)).unwrap_or_default();
    segments.into_iter().filter(|segment| segment.attached == 0 && segment.creator == pid).collect()
}

impl Kind for SysvShm {
    fn id(&self) -> KindId {
        KindId(17)
    }
    fn name(&self) -> &'static str {
        "System V shared memory"
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
        let creator = Creator { pid: state.creator.0, user: state.creator.1, group: state.creator.2 };
        let existing = sysvipc::read().about(subject)?;
        match existing.iter().find(|other| other.id == state.id) {
            None => {
                shared_memory::create(state.id, state.key, state.bytes, state.mode, creator).map_err(|error| {
                    let cause = format!("it cannot be made with its identifier and key {:#x}: {error}", state.key);
                    Refusal::new(Code::DESTINATION_LACKS, subject(), cause)
                        .choice("ipcs -m shows what is in use; sysctl kernel.shmmax and kernel.shmmni are the limits")
                })?;
                make.created_segment(state.id);
            }
            // The very segment, on the host where the process was: nobody has used it since.
            Some(other)
                if other.change_time == state.changed
                    && (other.key, other.size, other.creator) == (state.key, state.bytes, state.creator.0)
                    && other.attached == 0 => {}
            Some(other) => {
                let cause = format!(
                    "the identifier belongs to another segment here (key {:#x}, {} bytes)",
                    other.key, other.size
                );
                return Err(Refusal::new(Code::DESTINATION_LACKS, subject(), cause)
                    .choice(format!("remove it, if nobody needs it: ipcrm -m {}", state.id)));
            }
        }
        shared_memory::set_owner(state.id, state.owner.0, state.owner.1, state.mode).about(subject)?;
        if state.mode & LOCKED != 0 {
            shared_memory::lock(state.id).about(subject)?;
        }
        let attachment = Attachment::new(state.id, state.bytes).about(subject)?;
        let file = attachment.file().about(subject)?;
        make.sink(envelope.id, file.as_fd())?;
        if state.mode & REMOVED != 0 {
            // Its key is free again; it lives by our attachment until the tasks have theirs.
            shared_memory::remove(state.id).about(subject)?;
            make.keep_attached(attachment);
        }
        Ok(vec![file])
    }
    fn bind(&self, _: &Envelope, bind: &mut Bind) -> Result<()> {
        bind.detach_segments();
        Ok(())
    }
    fn description(&self) -> Option<&dyn Description> {
        None
    }
    fn task_state(&self) -> Option<&dyn TaskState> {
        Some(self)
    }
}

impl TaskState for SysvShm {
    fn examine(&self, Running { pid, .. }: Running<'_>) -> Vec<(Subject, Verdict)> {
        let note = "nobody has it attached; it goes with the process that made it";
        let verdict = || Verdict::Recreated(note.to_owned());
        let subject = |id| Subject::Object(format!("shared memory segment {id}"));
        detached(pid).iter().map(|segment| (subject(segment.id), verdict())).collect()
    }
    fn capture(&self, injector: &mut Injector<'_>, capture: &mut Capture) -> Result<Vec<Captured>> {
        for segment in detached(injector.process().pid) {
            let subject = || Subject::Object(format!("shared memory segment {}", segment.id));
            let file = || Attachment::new(segment.id, segment.size).and_then(|own| own.file()).about(subject);
            self::capture(&segment, segment.key, file, capture, subject)?;
        }
        Ok(Vec::new())
    }
    fn restore(&self, envelope: &Envelope, _: Pid, _: &mut Bind) -> Result<()> {
        Err(malformed(Subject::Object(format!("object {}", envelope.id)), "a segment is not a task's own"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_comes_back_from_its_payload() {
        super::super::assert_round_trip(&State {
            id: 1 << 30,
            key: -1,
            bytes: 5,
            mode: 0o3777,
            owner: (1, 2),
            creator: (3, 4, u32::MAX - 1),
            changed: 1 << 40,
        });
    }
}
