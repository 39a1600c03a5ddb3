//! POSIX message queues: name, attributes, owner, messages with their priorities. Who has one open is
//! [`posix_queue_end`](super::posix_queue_end).
//!
//! A queue is made under its own name. One without a name is made under a name, too, which it loses at once.
use super::{Description, Kind, Made, Need, Stage, TaskState, open};
use crate::capture::Capture;
use crate::failure::{About, Result};
use crate::leftover::Leftover;
use crate::look::{Look, Survey, user_of};
use crate::restore::{Bind, Make};
use godwit_image::{Code, Envelope, KindId, ObjectId, Refusal, Subject};
use godwit_linux::{file, message_queue};
use serde::{Deserialize, Serialize};
use std::fs::{File, Permissions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

const O_RDWR: u32 = 2;
const O_NONBLOCK: u32 = 0o4_000;
const EEXIST: i32 = 17;
const EINVAL: i32 = 22;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;
const DELETED: &[u8] = b" (deleted)";
/// Names that are tried for a queue whose own is in use and that needs none.
const NAMES_MAX: u32 = 1000;

/// State.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// Its name, without the slash; the one that it had when it has none any more.
    pub name: String,
    /// Its name was removed.
    pub unlinked: bool,
    /// Most messages.
    pub messages_max: u64,
    /// Most bytes of one message.
    pub bytes_max: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Access and modification time: seconds, nanoseconds.
    pub times: [(i64, i64); 2],
    /// First to last.
    pub messages: Vec<Message>,
}

/// A message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Message {
    /// Its priority.
    pub priority: u32,
    /// Its bytes.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// The kind.
#[derive(Debug)]
pub struct PosixQueue;

/// The queue's name in what /proc shows: the last part of a path.
fn name(link: &[u8], unlinked: bool) -> Option<&str> {
    let link = if unlinked { link.strip_suffix(DELETED)? } else { link };
    let name = link.rsplit(|byte| *byte == b'/').next().filter(|name| !name.is_empty())?;
    std::str::from_utf8(name).ok()
}

/// Why a queue cannot be carried, as far as it shows from outside.
pub(super) fn refusal(look: &Look, survey: &Survey) -> Option<Refusal> {
    let refuse = |code, cause: String| Some(Refusal::new(code, look.subject(), cause));
    let Some(name) = name(&look.link, look.links == 0) else {
        return refuse(Code::NOT_MIGRATABLE, "its name is not UTF-8".to_owned());
    };
    if let [(pid, _), ..] = survey.outside_file(look.device, look.inode)[..] {
        let refusal =
            Refusal::new(Code::EDGE, look.subject(), format!("process {pid}, which is outside the tree, has it open"));
        return Some(refusal.choice("move that process as well, or end it"));
    }
    if look.links != 0 {
        let identity = |queue: OwnedFd| File::from(queue).metadata().map(|data| (data.dev(), data.ino())).ok();
        let here = message_queue::open(name.as_bytes(), 0).ok().and_then(identity);
        if here != Some((look.device, look.inode)) {
            return refuse(Code::NOT_MIGRATABLE, "it belongs to another IPC namespace".to_owned());
        }
    }
    let notified = match holder(look).and_then(|queue| message_queue::status(queue.as_fd()).about(|| look.subject())) {
        Ok(status) => status.notified,
        Err(refusal) => return Some(refusal),
    };
    if notified != 0 && !survey.pids.contains(&notified) {
        return refuse(Code::EDGE, format!("process {notified}, which is outside the tree, is to be notified by it"));
    }
    None
}

/// One more description of the queue, for both ways.
pub(super) fn holder(look: &Look) -> Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", look.file.as_raw_fd());
    file::open(path.as_bytes(), O_RDWR | O_NONBLOCK).about(|| look.subject())
}

/// The object of the queue behind a look, captured once per inode.
///
/// # Errors
/// It has users outside, or its messages cannot be looked at.
pub(super) fn capture(look: &Look, capture: &mut Capture) -> Result<ObjectId> {
    let key = [look.device.to_le_bytes(), look.inode.to_le_bytes()].concat();
    let subject = || look.subject();
    capture.intern(&PosixQueue, &key, |capture, object| {
        if let Some(refusal) = refusal(look, &capture.survey) {
            return Err(refusal);
        }
        let queue = holder(look)?;
        let (attributes, metadata) = (
            message_queue::attributes(queue.as_fd()).about(subject)?,
            File::from(file::duplicate_above(queue.as_fd(), 0).about(subject)?).metadata().about(subject)?,
        );
        let times = [(metadata.atime(), metadata.atime_nsec()), (metadata.mtime(), metadata.mtime_nsec())];
        super::posix_queue_end::note_notification(object, look, queue.as_fd(), capture)?;
        let messages = message_queue::peek(queue.as_fd()).about(subject)?;
        file::set_times(queue.as_fd(), times).about(subject)?;
        let name = name(&look.link, look.links == 0).unwrap_or_default().to_owned();
        if look.links != 0 {
            capture.leaves_with_the_tree(Leftover::Queue(name.clone(), look.inode));
        }
        let plain = |message: message_queue::Message| Message { priority: message.priority, bytes: message.bytes };
        let state = State {
            name,
            unlinked: look.links == 0,
            messages_max: attributes.messages_max as u64,
            bytes_max: attributes.bytes_max as u64,
            mode: metadata.mode() & 0o7777,
            owner: (metadata.uid(), metadata.gid()),
            times,
            messages: messages.into_iter().map(plain).collect(),
        };
        Ok((Vec::new(), state))
    })
}

impl State {
    fn subject(&self) -> Subject {
        Subject::Object(format!("message queue /{}", self.name))
    }

    fn create(&self, name: &str) -> std::result::Result<OwnedFd, godwit_linux::Errno> {
        message_queue::create(name.as_bytes(), self.owner, self.messages_max as i64, self.bytes_max as i64)
    }

    /// A new queue, and its name here.
    fn make(&self) -> Result<(OwnedFd, String)> {
        let mut made = self.create(&self.name).map(|queue| (queue, self.name.clone()));
        for number in 0..if self.unlinked { NAMES_MAX } else { 0 } {
            if !made.as_ref().is_err_and(|error| error.number == EEXIST) {
                break;
            }
            let name = format!("godwit-{}-{number}", std::process::id());
            made = self.create(&name).map(|queue| (queue, name));
        }
        made.map_err(|error| {
            let (messages, bytes) = (self.messages_max, self.bytes_max);
            let (cause, choice) = match error.number {
                EEXIST => {
                    let choice =
                        format!("remove it, if nobody needs it: mount -t mqueue none DIR; rm DIR/{}", self.name);
                    ("its name is in use here".to_owned(), choice)
                }
                EINVAL => {
                    let choice = format!("sysctl -w fs.mqueue.msg_max={messages} fs.mqueue.msgsize_max={bytes}");
                    (format!("room for {messages} messages of {bytes} bytes is more than this host allows"), choice)
                }
                EMFILE => {
                    let choice = "run godwit with a higher limit: prlimit --msgqueue";
                    (format!("user {} may not have more bytes in queues here", self.owner.0), choice.to_owned())
                }
                ENOSPC => ("this host has too many queues".to_owned(), "raise fs.mqueue.queues_max".to_owned()),
                _ => (format!("it cannot be made: {error}"), "look at the limits in /proc/sys/fs/mqueue".to_owned()),
            };
            Refusal::new(Code::DESTINATION_LACKS, self.subject(), cause).choice(choice)
        })
    }

    /// The very queue, on a host where the process was: nobody has used it since, and nobody has it open.
    fn found(&self) -> Option<OwnedFd> {
        let queue = message_queue::open(self.name.as_bytes(), O_RDWR | O_NONBLOCK).ok()?;
        let metadata = File::from(file::duplicate_above(queue.as_fd(), 0).ok()?).metadata().ok()?;
        let (attributes, status) =
            (message_queue::attributes(queue.as_fd()).ok()?, message_queue::status(queue.as_fd()).ok()?);
        let alike = (metadata.uid(), metadata.gid()) == self.owner
            && metadata.mode() & 0o7777 == self.mode
            && attributes.messages_max as u64 == self.messages_max
            && attributes.bytes_max as u64 == self.bytes_max
            && attributes.messages as u64 == self.messages.len() as u64
            && status.notified == 0
            && user_of(metadata.dev(), metadata.ino()).is_none();
        let messages = if alike { message_queue::peek(queue.as_fd()).ok()? } else { return None };
        let same = messages.iter().zip(&self.messages).all(|(a, b)| a.priority == b.priority && a.bytes == b.bytes);
        same.then_some(queue)
    }

    fn fill(&self, queue: BorrowedFd<'_>) -> Result<()> {
        for Message { priority, bytes } in &self.messages {
            let message = message_queue::Message { priority: *priority, bytes: bytes.clone() };
            message_queue::send(queue, &message).about(|| self.subject())?;
        }
        Ok(())
    }
}

impl Kind for PosixQueue {
    fn id(&self) -> KindId {
        KindId(63)
    }
    fn name(&self) -> &'static str {
        "POSIX message queue"
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
        let subject = || state.subject();
        if !state.unlinked
            && let Some(queue) = state.found()
        {
            return Ok(vec![queue]);
        }
        let (queue, name) = state.make()?;
        if state.unlinked {
            message_queue::unlink(name.as_bytes()).about(subject)?;
        } else {
            make.created_queue(name);
        }
        state.fill(queue.as_fd())?;
        let file = File::from(file::duplicate_above(queue.as_fd(), 0).about(subject)?);
        file.set_permissions(Permissions::from_mode(state.mode)).about(subject)?;
        file::set_times(queue.as_fd(), state.times).about(subject)?;
        Ok(vec![queue])
    }
    fn bind(&self, _: &Envelope, _: &mut Bind) -> Result<()> {
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
        super::super::assert_round_trip(&State {
            name: "queue".to_owned(),
            unlinked: true,
            messages_max: 10,
            bytes_max: 8192,
            mode: 0o640,
            owner: (1, 2),
            times: [(1, 2), (3, 4)],
            messages: vec![Message { priority: 32767, bytes: vec![1, 2, 3] }],
        });
    }

    #[test]
    fn names_are_the_last_part() {
        assert_eq!(name(b"/queue", false), Some("queue"));
        assert_eq!(name(b"/dev/mqueue/queue", false), Some("queue"));
        assert_eq!(name(b"/queue (deleted)", true), Some("queue"));
        assert_eq!(name(b"/queue (deleted)", false), Some("queue (deleted)"));
        assert_eq!(name(b"/", false), None);
    }
}
