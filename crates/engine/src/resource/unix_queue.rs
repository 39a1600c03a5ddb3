//! What lies unread in a Unix socket: seen with its boundaries, senders and descriptors, and sent again.
use super::unix_name::{self, Name, Named};
use super::unix_socket::{self, UnixSocket};
use crate::capture::Capture;
use crate::failure::{About, Result};
use crate::look::Look;
use crate::restore::Bind;
use godwit_image::{Code, ObjectId, Refusal, Subject};
use godwit_linux::pidfd::PidFd;
use godwit_linux::unix_socket::{self as door, Identity, Received};
use godwit_linux::{readiness, socket};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

const SO_PEEK_OFF: i32 = 42;
pub(super) const SO_SNDBUF: i32 = 7;
const SO_SNDBUFFORCE: i32 = 32;
pub(super) const SO_BUF_LOCK: i32 = 72;
/// Room for what is sent again, in bytes: the boundaries of kernel memory may lie elsewhere than at the source.
const ROOM: i32 = 1 << 29;
/// A message that every send buffer has room for, when it is empty; in bytes.
const SMALL_BYTES: usize = 1024;
/// The longest message that is looked at, in bytes.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// Who sent a message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Sender {
    /// The other end.
    Peer,
    /// A socket of the tree.
    Socket(ObjectId),
    /// One that is gone; its name.
    Gone(Vec<u8>),
}

/// One message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Message {
    /// Its bytes; of a stream: a run of bytes that came from one sender.
    pub bytes: Vec<u8>,
    /// Who sent it.
    pub sender: Sender,
    /// Process, user, group: only where the receiver asked for them.
    pub identity: Option<(i32, u32, u32)>,
    /// Descriptors in flight. Not among the envelope's refs: a socket may lie in its own queue.
    pub descriptors: Vec<ObjectId>,
}

/// What is said of descriptors in flight in a running tree.
pub(super) const UNSEEN: &str =
    "what the descriptors in flight in it are shows only when it is frozen; then a move may be refused";

/// Whether descriptors are in flight in a socket.
pub(super) fn carries_descriptors(look: &Look) -> bool {
    look.information.descriptors_in_flight.unwrap_or(0) > 0
}

/// What a walk saw, before its descriptors are captured.
struct Walk<'a> {
    look: &'a Look,
    stream: bool,
    found: Vec<Received>,
}

impl Walk<'_> {
    fn peek(&self, bytes_max: usize) -> Result<Option<Received>> {
        let seen = door::peek(self.look.borrow(), bytes_max).about(|| self.look.subject())?;
        match seen {
            Some(seen) if seen.cut => Err(Refusal::new(
                Code::UNSUPPORTED,
                self.look.subject(),
                format!("an unread message has more than {bytes_max} bytes, or more descriptors than can be looked at"),
            )),
            other => Ok(other),
        }
    }

    fn seek(&self, offset: usize) -> Result<()> {
        let offset = i32::try_from(offset).unwrap_or(i32::MAX);
        socket::set_option(self.look.borrow(), SO_PEEK_OFF, offset).about(|| self.look.subject())
    }

    fn all(&mut self, shut: bool) -> Result<()> {
        let total = door::unread(self.look.borrow()).about(|| self.look.subject())?;
        self.seek(0)?;
        let mut seen_bytes = 0;
        loop {
            if self.stream && seen_bytes >= total {
                return Ok(());
            }
            let most = if self.stream { total - seen_bytes + 1 } else { MESSAGE_BYTES_MAX };
            let Some(mut seen) = self.peek(most)? else { return Ok(()) };
            let length = seen.bytes.len();
            // The end of a connection looks like an empty message.
            if length == 0 && (self.stream || (shut && seen_bytes >= total)) {
                return Ok(());
            }
            if self.stream && !seen.descriptors.is_empty() {
                let start = self.start_of_descriptors(seen_bytes, length)?;
                if start > 0 {
                    let rest = seen.bytes.split_off(start);
                    let plain = std::mem::replace(&mut seen.bytes, rest);
                    let name = seen.name.clone();
                    let before =
                        Received { bytes: plain, name, descriptors: Vec::new(), identity: seen.identity, cut: false };
                    self.found.push(before);
                }
                self.seek(seen_bytes + length)?;
            }
            self.found.push(seen);
            seen_bytes += length;
        }
    }

    /// Where in a run of bytes that one peek gave the message begins that has its descriptors, which is the last: where
    /// the last piece begins that does not fit when one byte is missing.
    fn start_of_descriptors(&self, offset: usize, length: usize) -> Result<usize> {
        self.seek(offset)?;
        door::whole_pieces(self.look.borrow(), length - 1).about(|| self.look.subject())
    }
}

/// Reads what lies in a socket, and captures what is in flight there. The socket's peek offset is put back.
///
/// # Errors
/// A message cannot be seen whole; something in flight cannot be carried.
pub(super) fn capture(
    look: &Look,
    capture: &mut Capture,
    (sort, ready): (i32, u32),
    shut: bool,
) -> Result<Vec<Message>> {
    let subject = || look.subject();
    if ready & readiness::IN == 0 {
        return Ok(Vec::new());
    }
    let before = socket::number(look.borrow(), SO_PEEK_OFF).about(subject)?;
    let mut walk = Walk { look, stream: sort == unix_socket::SOCK_STREAM, found: Vec::new() };
    let walked = walk.all(shut);
    socket::set_option(look.borrow(), SO_PEEK_OFF, before).about(subject)?;
    walked?;
    let mut messages = Vec::with_capacity(walk.found.len());
    for seen in walk.found {
        let mut descriptors = Vec::with_capacity(seen.descriptors.len());
        for file in &seen.descriptors {
            let own = PidFd::open(std::process::id() as i32).about(subject)?;
            let inner = Look::descriptor(&own, file.as_raw_fd())?;
            let inner = inner.ok_or_else(|| Refusal::new(Code::KERNEL_CALL, subject(), "a descriptor vanished"))?;
            let text = inner.text();
            let object = capture.in_flight(inner).map_err(|mut refusal| {
                refusal.cause = format!("in flight in it lies {text}: {}", refusal.cause);
                refusal.subject = subject();
                refusal
            })?;
            descriptors.push(object);
        }
        let sender = match sort {
            unix_socket::SOCK_DGRAM => unix_socket::sender(look, capture, &seen.name)?,
            _ => Sender::Peer,
        };
        let identity = match seen.identity {
            Some(who) if who.pid != 0 && !capture.survey.pids.contains(&who.pid) => {
                let cause =
                    format!("an unread message shows that process {} sent it, which is not in the tree", who.pid);
                return Err(Refusal::new(Code::NOT_MIGRATABLE, subject(), cause).choice("read the message first"));
            }
            other => other.filter(|who| who.pid != 0).map(|who| (who.pid, who.user, who.group)),
        };
        messages.push(Message { bytes: seen.bytes, sender, identity, descriptors });
    }
    Ok(messages)
}

/// Has a sender more room while something is sent again.
fn with_room<T>(
    sender: BorrowedFd<'_>,
    work: impl FnOnce() -> godwit_linux::errno::Result<T>,
) -> godwit_linux::errno::Result<T> {
    let size = socket::number(sender, SO_SNDBUF)?;
    let lock = socket::number(sender, SO_BUF_LOCK);
    socket::set_option(sender, SO_SNDBUFFORCE, ROOM)?;
    let result = work();
    socket::set_option(sender, SO_SNDBUFFORCE, size / 2)?;
    if let Ok(lock) = lock {
        socket::set_option(sender, SO_BUF_LOCK, lock)?;
    }
    result
}

fn send(bind: &Bind, from: BorrowedFd<'_>, to: Option<&[u8]>, message: &Message, stream: bool) -> Result<()> {
    let subject = || Subject::Object("unread message".to_owned());
    let mut descriptors = Vec::with_capacity(message.descriptors.len());
    for id in &message.descriptors {
        descriptors.push(bind.made(*id)?);
    }
    let identity = message.identity.map(|(pid, user, group)| Identity { pid, user, group });
    let work = || {
        let mut done = door::send(from, &message.bytes, to, &descriptors, identity)?;
        while stream && done < message.bytes.len() {
            done += door::send(from, &message.bytes[done..], to, &[], identity)?;
        }
        Ok(())
    };
    // A small one is sent whole, or not at all where it has no room.
    if message.bytes.len() <= SMALL_BYTES && work().is_ok() {
        return Ok(());
    }
    with_room(from, work).about(subject)
}

/// Sends again what lay in a socket. `peer` is the other end, if it has one.
///
/// # Errors
/// A sender cannot be rebuilt, or the kernel refuses.
pub(super) fn refill(state: &UnixSocket, bind: &Bind, peer: Option<BorrowedFd<'_>>) -> Result<()> {
    let subject = || Subject::Object(format!("Unix socket {}", unix_name::shown(&state.name.raw)));
    let missing = || Refusal::new(Code::MALFORMED, subject(), "a message has no sender");
    let to = unix_socket::reachable(&state.name);
    for message in &state.queue {
        match &message.sender {
            Sender::Peer => {
                let stream = state.sort == unix_socket::SOCK_STREAM;
                send(bind, peer.ok_or_else(missing)?, None, message, stream)?;
            }
            Sender::Socket(id) => {
                let to = to.as_deref().ok_or_else(missing)?;
                send(bind, bind.made(*id)?, Some(to), message, false)?;
            }
            Sender::Gone(raw) => {
                let to = to.as_deref().ok_or_else(missing)?;
                let gone = door::create(state.sort).about(subject)?;
                let name = Name { raw: raw.clone(), file: None };
                let named = unix_name::is_named(raw).then(|| Named::bind(gone.as_fd(), &name, subject)).transpose()?;
                send(bind, gone.as_fd(), Some(to), message, false)?;
                drop(named);
            }
        }
    }
    Ok(())
}
