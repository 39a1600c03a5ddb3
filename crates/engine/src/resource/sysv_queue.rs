//! System V message queues: identifier, key, owner, messages. The kernel lets them be read and stay.
use super::Make;
use crate::failure::{About, Result};
use godwit_image::{Code, Refusal, Subject};
use godwit_linux::proc::sysvipc;
use godwit_linux::sysv_queue::{self, Properties};
use serde::{Deserialize, Serialize};

/// State.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// Identifier.
    pub id: i32,
    /// Key.
    pub key: i32,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// User and group that made it.
    pub creator: (u32, u32),
    /// Most bytes of all messages.
    pub bytes_max: u64,
    /// Process that sent last, that received last; 0 = nobody.
    pub users: (i32, i32),
    /// Last msgsnd, msgrcv, change at the source.
    pub times: [u64; 3],
    /// First to last.
    pub messages: Vec<Message>,
}

/// A message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Message {
    /// Its type.
    pub kind: i64,
    /// Its bytes.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

pub(super) fn subject(id: i32) -> Subject {
    Subject::Object(format!("System V message queue {id}"))
}

/// Reads a queue; nobody notices.
///
/// # Errors
/// It is gone, or the kernel was built without a way to read it.
pub(super) fn capture(queue: &sysvipc::Queue) -> Result<State> {
    let subject = || subject(queue.id);
    let messages = sysv_queue::peek(queue.id).about(subject)?;
    Ok(State {
        id: queue.id,
        key: queue.key,
        mode: queue.mode,
        owner: queue.owner,
        creator: queue.creator,
        bytes_max: sysv_queue::bytes_max(queue.id).about(subject)?,
        users: (queue.sender, queue.receiver),
        times: queue.times,
        messages: messages.into_iter().map(|(kind, bytes)| Message { kind, bytes }).collect(),
    })
}

/// An object of that identifier or key that stands in the way.
pub(super) fn in_use(subject: Subject, what: &str, option: &str, id: i32) -> Refusal {
    Refusal::new(Code::DESTINATION_LACKS, subject, format!("{what} here"))
        .choice(format!("remove it, if nobody needs it: ipcrm {option} {id}"))
}

/// Makes the queue with its messages.
///
/// # Errors
/// GW1201: identifier or key are in use, or the limits of this host are lower.
pub(super) fn make(state: &State, make: &mut Make) -> Result<()> {
    let id = state.id;
    let subject = || subject(id);
    let existing = sysvipc::queues().about(subject)?;
    if let Some(other) = existing.iter().find(|other| other.id == id) {
        // The very queue, on the host where the process was: nobody has used it since.
        if (other.key, other.times, other.messages) == (state.key, state.times, state.messages.len() as u64) {
            return Ok(());
        }
        let what = format!("the identifier belongs to another queue (key {:#x})", other.key);
        return Err(in_use(subject(), &what, "-q", id));
    }
    if let Some(other) = existing.iter().find(|other| state.key != 0 && other.key == state.key) {
        let what = format!("its key {:#x} belongs to another queue", state.key);
        return Err(in_use(subject(), &what, "-q", other.id));
    }
    let refuse = |error: godwit_linux::Errno| {
        let cause = format!("it cannot be made with its identifier, key {:#x} and messages: {error}", state.key);
        Refusal::new(Code::DESTINATION_LACKS, subject(), cause)
            .choice("sysctl kernel.msgmni, kernel.msgmnb and kernel.msgmax are the limits")
    };
    sysv_queue::create(id, state.key, state.mode, state.creator).map_err(refuse)?;
    make.created_message_queue(id);
    let properties = Properties { owner: state.owner, mode: state.mode, bytes_max: state.bytes_max };
    sysv_queue::set(id, properties).map_err(refuse)?;
    let (sender, receiver) = state.users;
    let known = |pid: i32| Some(pid).filter(|pid| *pid > 0);
    if receiver != 0 {
        let something = (1, Vec::new());
        sysv_queue::send_as(known(sender), id, &[something]).map_err(refuse)?;
        sysv_queue::receive_as(known(receiver), id).map_err(refuse)?;
    }
    let messages: Vec<_> = state.messages.iter().map(|message| (message.kind, message.bytes.clone())).collect();
    if messages.is_empty() { Ok(()) } else { sysv_queue::send_as(known(sender), id, &messages).map_err(refuse) }
}
