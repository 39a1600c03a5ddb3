//! What a Unix socket tells of itself without any change: much of what a move needs, in some forty calls for each. Of many sockets
//! two threads ask at the same time (`glimpse`), since the tree is down meanwhile.
use super::{inet_socket, unix_option};
use crate::look::Look;
use crate::restore::Creator;
use godwit_image::Pid;
use godwit_linux::errno::Result;
use godwit_linux::socket;
use std::cell::OnceCell;
use std::os::fd::BorrowedFd;

pub(super) const AF_UNIX: i32 = 1;
const SOL_SOCKET: i32 = 1;
const SO_TYPE: i32 = 3;
const SO_SNDBUF: i32 = 7;
const SO_RCVBUF: i32 = 8;
const SO_PEERCRED: i32 = 17;
const SO_GET_FILTER: i32 = 26;
const SO_PEERGROUPS: i32 = 59;
const SO_BUF_LOCK: i32 = 72;
/// Supplementary groups that most processes have at most, and that any may have.
const GROUPS_FEW: usize = 64;
const GROUPS_MAX: usize = 1 << 16;
const ENOPROTOOPT: i32 = 92;

/// What is read while it cannot change: the tree is frozen, or only a verdict depends on it.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET.
    pub(super) sort: i32,
    pub(super) has_filter: bool,
    /// Whom it shows as its peer.
    pub(crate) creator: Option<Creator>,
}

/// What only a capture needs.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// SO_SNDBUF, SO_RCVBUF in bytes.
    pub(super) buffers: (i32, i32),
    pub(super) locked: Option<i32>,
    /// Options that are not what a new socket has.
    pub(super) options: Vec<(i32, Vec<u8>)>,
}

/// Both, once read.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    facts: OnceCell<Facts>,
    settings: OnceCell<Settings>,
}

fn kept<T>(cell: &OnceCell<T>, read: impl FnOnce() -> Result<T>) -> Result<&T> {
    match cell.get() {
        Some(known) => Ok(known),
        None => read().map(|value| cell.get_or_init(|| value)),
    }
}

impl Cells {
    /// What was read of it before, if anything was.
    pub(crate) fn known(&self) -> Option<&Facts> {
        self.facts.get()
    }
}

pub(super) fn facts(look: &Look) -> Result<&Facts> {
    kept(&look.unix.facts, || {
        let file = look.borrow();
        let has_filter = match socket::get(file, SOL_SOCKET, SO_GET_FILTER, 8) {
            Ok(filter) => !filter.is_empty(),
            Err(error) => error.number != ENOPROTOOPT,
        };
        Ok(Facts { sort: socket::number(file, SO_TYPE)?, has_filter, creator: creator(file)? })
    })
}

pub(super) fn settings(look: &Look) -> Result<&Settings> {
    kept(&look.unix.settings, || {
        let file = look.borrow();
        Ok(Settings {
            buffers: (socket::number(file, SO_SNDBUF)?, socket::number(file, SO_RCVBUF)?),
            locked: socket::number(file, SO_BUF_LOCK).ok(),
            options: unix_option::unlike_fresh(file, facts(look)?.sort),
        })
    })
}

/// Reads what will be asked for, if it is such a socket. What cannot be read says so when it is asked for.
pub(crate) fn read_ahead(look: &Look) {
    if inet_socket::is_socket(look) && look.family() == Some(AF_UNIX) {
        let _ = settings(look);
    }
}

/// Whom a socket shows as its peer; `None` when it shows none.
pub(super) fn creator(file: BorrowedFd<'_>) -> Result<Option<Creator>> {
    let raw = socket::get(file, SOL_SOCKET, SO_PEERCRED, 12)?;
    let word = |at: usize| raw.get(at..at + 4).and_then(|raw| raw.try_into().ok()).map_or(0, u32::from_ne_bytes);
    let (pid, user, group) = (word(0) as i32, word(4), word(8));
    if pid == 0 && user == u32::MAX {
        return Ok(None);
    }
    // Most have a few; whoever has more costs a second call.
    let groups = socket::get(file, SOL_SOCKET, SO_PEERGROUPS, 4 * GROUPS_FEW)
        .or_else(|_| socket::get(file, SOL_SOCKET, SO_PEERGROUPS, 4 * GROUPS_MAX))
        .unwrap_or_default();
    let groups = groups.as_chunks::<4>().0.iter().map(|raw| u32::from_ne_bytes(*raw)).collect();
    Ok(Some(Creator { pid: Pid(pid), user, group, groups }))
}
