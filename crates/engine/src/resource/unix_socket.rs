//! Unix sockets, as descriptors refer to them: ends of connections, listeners, datagram sockets, and those not connected.
use super::unix_connection::{Connection, UnixConnection};
use super::unix_fact::{self, AF_UNIX, Facts, Settings};
use super::unix_name::{self, Name, Named};
use super::unix_queue::{self, Message, SO_BUF_LOCK, SO_SNDBUF, Sender};
use super::unread::{Bare, Unread};
use super::{Captured, Description, Kind, Made, Need, Stage, TaskState, edge, inet_socket, open};
use crate::capture::Capture;
use crate::failure::{About, Result, malformed};
use crate::look::{Look, Survey};
use crate::restore::{Bind, Creator, Make};
use godwit_image::{Code, Envelope, KindId, ObjectId, Pid, Refusal, Subject, Verdict};
use godwit_linux::pidfd::{ForeignDescriptor, PidFd};
use godwit_linux::socket_diagnosis::{self, UnixSocket as Diagnosed};
use godwit_linux::{file, readiness, socket, unix_socket};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub(super) const SOCK_STREAM: i32 = 1;
pub(super) const SOCK_DGRAM: i32 = 2;
const SYS_CONNECT: i64 = 42;
const SYS_LISTEN: i64 = 50;
const O_ASYNC: u32 = 0o20_000;
const S_IFDIR: u32 = 0o040_000;
const SOL_SOCKET: i32 = 1;
const SO_RCVBUF: i32 = 8;
const SO_SNDBUFFORCE: i32 = 32;
const SO_RCVBUFFORCE: i32 = 33;
const URGENT: u32 = 0x2;
const RECEIVE_SHUT: u8 = 1;
const SEND_SHUT: u8 = 2;

/// State of a socket.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UnixSocket {
    /// SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET.
    pub sort: i32,
    /// Which end of which connection it is.
    pub connection: Option<(ObjectId, usize)>,
    /// Its name.
    pub name: Name,
    /// A listener: how many may wait, who listens, and who waits.
    pub listener: Option<Listener>,
    /// A datagram socket's default receiver, where that is not its pair. Not among the refs: it may be a circle.
    pub receiver: Option<ObjectId>,
    /// What waits to be read.
    pub queue: Vec<Message>,
    /// 1: it reads no more; 2: it writes no more.
    pub shutdown: u8,
    /// ECONNRESET is pending.
    pub reset: bool,
    /// Open flags.
    pub flags: u32,
    /// User and group of its inode.
    pub owner: (u32, u32),
    /// SO_SNDBUF, SO_RCVBUF in bytes.
    pub buffers: (i32, i32),
    /// SO_BUF_LOCK, where the kernel has it.
    pub locked: Option<i32>,
    /// Options that are not what a new socket has, as they were read.
    pub options: Vec<(i32, Vec<u8>)>,
}

/// What only listeners have.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Listener {
    /// Connections that may wait.
    pub backlog: u32,
    /// Who listens.
    pub creator: Creator,
    /// Connections that nobody has accepted: their other ends, and who made them. Nothing was sent yet.
    pub waiting: Vec<(ObjectId, Creator)>,
}

/// The kind.
#[derive(Debug)]
pub struct UnixSocketKind;

/// What there is at the other side.
enum Peer {
    None,
    /// Closed.
    Gone,
    /// Of the tree, connected back.
    Pair(u32),
    /// A datagram socket of the tree that is not connected back.
    Receiver(u32),
    /// A listener of the tree has not accepted it yet.
    Waiting,
}

fn link(inode: u32) -> Vec<u8> {
    format!("socket:[{inode}]").into_bytes()
}

/// A look at a socket of the tree by its inode; `None` when it is only in flight.
fn holder(survey: &Survey, inode: u32) -> Result<Option<Look>> {
    for (pid, descriptor) in survey.holders(&link(inode)) {
        let process = PidFd::open_thread(*pid).about(|| Subject::Process(*pid))?;
        if let Some(look) = Look::descriptor(&process, *descriptor)? {
            return Ok(Some(look));
        }
    }
    Ok(None)
}

/// The address under which a bound datagram socket or listener can be reached at the destination.
pub(super) fn reachable(name: &Name) -> Option<Vec<u8>> {
    match &name.file {
        Some(file) => Some(unix_name::address(Path::new(&file.path))),
        None => (unix_name::is_named(&name.raw) && !unix_name::is_path(&name.raw)).then(|| name.raw.clone()),
    }
}

/// Who sent a datagram.
pub(super) fn sender(look: &Look, capture: &mut Capture, raw: &[u8]) -> Result<Sender> {
    let subject = || look.subject();
    let own = look.inode as u32;
    let all = capture.survey.unix_sockets(look.borrow())?;
    let of_name = |socket: &Diagnosed| {
        socket.sort == SOCK_DGRAM as u8 && raw.get(2..).is_some_and(|name| same_name(&socket.name, name))
    };
    let named = unix_name::is_named(raw).then(|| all.iter().find(|(_, socket)| of_name(socket))).flatten();
    let pair = all
        .get(&own)
        .and_then(|socket| socket.peer)
        .filter(|peer| *peer == 0 || all.get(peer).is_some_and(|other| other.peer == Some(own)));
    match (named.map(|(inode, _)| *inode), pair) {
        (Some(inode), Some(peer)) if inode == peer => Ok(Sender::Peer),
        (None, Some(_)) => Ok(Sender::Peer),
        (Some(inode), _) => match holder(&capture.survey, inode)? {
            Some(look) => Ok(Sender::Socket(capture.in_flight(look)?)),
            None => {
                let cause = format!("an unread message came from {}, which is outside the tree", unix_name::shown(raw));
                Err(Refusal::new(Code::EDGE, subject(), cause).choice("move the sender as well"))
            }
        },
        (None, None) => Ok(Sender::Gone(raw.to_vec())),
    }
}

/// Names as sock_diag tells them may lack the final zero.
fn same_name(one: &[u8], two: &[u8]) -> bool {
    let bare = |name: &[u8]| match name.first() {
        Some(0) | None => name.to_vec(),
        Some(_) => name.split(|byte| *byte == 0).next().unwrap_or_default().to_vec(),
    };
    bare(one) == bare(two)
}

/// The creator of a socket of the tree by its inode; `None` when it shows none, or is only in flight.
fn creator_of(survey: &Survey, inode: u32) -> Result<Option<Creator>> {
    if let Some(creator) = survey.creator_of(inode) {
        return Ok(creator.clone());
    }
    let Some((pid, descriptor)) = survey.holders(&link(inode)).first().copied() else { return Ok(None) };
    let subject = || Subject::Descriptor(pid, descriptor, String::new());
    let process = PidFd::open_thread(pid).about(subject)?;
    let file = process.duplicate(ForeignDescriptor(descriptor)).about(subject)?;
    unix_fact::creator(file.as_fd()).about(subject)
}

/// What can be told of a socket without reading its queue.
struct Seen {
    sort: i32,
    diagnosed: Diagnosed,
    /// What poll(2) says.
    ready: u32,
    peer: Peer,
    creator: Option<Creator>,
    /// What is not exact, in words.
    degraded: Option<String>,
}

fn unsupported(look: &Look, cause: impl Into<String>) -> Refusal {
    Refusal::new(Code::UNSUPPORTED, look.subject(), cause).choice("close it in the program")
}

/// The refusal when a socket of the other side is not in the tree.
fn outside(look: &Look, survey: &Survey, inode: u32, what: &str) -> Option<Refusal> {
    if inode == 0 || !survey.holders(&link(inode)).is_empty() {
        return None;
    }
    let holders = survey.outside(&link(inode));
    if !holders.is_empty() {
        return Some(edge::cut(look, format!("{what}; {}", edge::held_outside(holders))));
    }
    if survey.descriptors_in_flight() {
        return None;
    }
    Some(edge::cut(look, format!("{what}, held outside the tree by a process that cannot be seen from here")))
}

fn inspect(look: &Look, survey: &Survey) -> Result<Seen> {
    let subject = || look.subject();
    let own = look.inode as u32;
    let holders = survey.outside(&look.link);
    if !holders.is_empty() {
        return Err(edge::cut(look, edge::held_outside(holders)));
    }
    let Facts { sort, has_filter, creator } = unix_fact::facts(look).about(subject)?.clone();
    let all = survey.unix_sockets(look.borrow())?;
    let Some(diagnosed) = all.get(&own).cloned() else {
        return Err(unsupported(look, "it lives in another network namespace than the rest of the tree"));
    };
    if diagnosed.name.first().is_some_and(|byte| *byte != 0) {
        // Whether its file can be named shows here, and not only when the tree is frozen.
        Name::of(look.borrow(), subject)?;
    }
    let ready = readiness::ready(look.borrow(), readiness::ALL).about(subject)?;
    if ready & URGENT != 0 {
        return Err(unsupported(look, "out-of-band data waits in it"));
    }
    if has_filter {
        return Err(unsupported(look, "a packet filter is attached to it"));
    }
    let waits = |peer: &&Diagnosed| peer.waiting.contains(&own);
    let peer = match diagnosed.peer {
        None => Peer::None,
        Some(0) if sort == SOCK_DGRAM && creator.is_none() => {
            return Err(unsupported(look, "its default receiver is closed"));
        }
        Some(0) => match all.iter().find(|(_, other)| waits(other)) {
            None => Peer::Gone,
            Some((listener, _)) => {
                if let Some(refusal) = outside(look, survey, *listener, "it waits to be accepted by a listener") {
                    return Err(refusal);
                }
                waiting(look)?;
                Peer::Waiting
            }
        },
        Some(peer) => {
            if let Some(refusal) = outside(look, survey, peer, "its peer is another socket") {
                return Err(refusal);
            }
            match all.get(&peer) {
                Some(other) if other.peer == Some(own) && (sort != SOCK_DGRAM || creator.is_some()) => Peer::Pair(peer),
                Some(other) if sort == SOCK_DGRAM && !other.name.is_empty() => Peer::Receiver(peer),
                _ => return Err(unsupported(look, "its default receiver has no name and is not connected back")),
            }
        }
    };
    if sort == SOCK_DGRAM {
        if diagnosed.shutdown & SEND_SHUT != 0 {
            return Err(unsupported(look, "a datagram socket that has shut down sending"));
        }
        let others = all.iter().filter(|(inode, other)| other.peer == Some(own) && Some(**inode) != diagnosed.peer);
        for (inode, _) in others {
            if let Some(refusal) = outside(look, survey, *inode, "another socket sends to it") {
                return Err(refusal);
            }
        }
        if ready & readiness::ERROR != 0 {
            return Err(unsupported(look, "an error is pending for a datagram socket"));
        }
    }
    if diagnosed.state == socket_diagnosis::LISTENING {
        for inode in &diagnosed.waiting {
            if *inode == 0 {
                let cause =
                    "a connection that nobody has accepted was closed again by its maker; what was sent cannot be read";
                return Err(
                    Refusal::new(Code::PASSING_MOMENT, subject(), cause).choice("let the program accept it first")
                );
            }
            if let Some(refusal) = outside(look, survey, *inode, "a connection waits to be accepted") {
                return Err(refusal);
            }
            if let Some(client) = holder(survey, *inode)? {
                waiting(&client)?;
            }
        }
    }
    let shows_creator =
        !matches!(peer, Peer::None | Peer::Receiver(_)) || diagnosed.state == socket_diagnosis::LISTENING;
    let stranger = creator.as_ref().filter(|creator| shows_creator && !survey.pids.contains(&creator.pid.0));
    let degraded = stranger.map(|creator| {
        format!("SO_PEERCRED shows process {}, which is not in the tree; it will show one of the tree", creator.pid)
    });
    Ok(Seen { sort, diagnosed, ready, peer, creator, degraded })
}

/// Whether a connection that nobody has accepted can be made again: what was sent into it nobody can read.
fn waiting(client: &Look) -> Result<()> {
    let sent = unix_socket::unsent(client.borrow()).about(|| client.subject())?;
    // One byte is the kernel's own count.
    if sent > 1 {
        let cause = "nobody has accepted this connection yet, and what was sent into it cannot be read from outside";
        let refusal = Refusal::new(Code::PASSING_MOMENT, client.subject(), cause);
        return Err(refusal.choice("let the program accept it first, then try again"));
    }
    Ok(())
}

fn connection(
    look: &Look,
    capture: &mut Capture,
    (seen, name): (&Seen, &Name),
    other: Option<u32>,
) -> Result<(ObjectId, usize)> {
    let subject = || look.subject();
    let own = look.inode as u32;
    let index = usize::from(other.is_some_and(|other| other < own));
    let first = other.map_or(own, |other| own.min(other));
    let key =
        [first.to_le_bytes(), other.unwrap_or(0).max(own).to_le_bytes(), u32::from(other.is_some()).to_le_bytes()];
    let mine = name.raw.clone();
    let theirs = socket::peer_name(look.borrow()).about(subject)?;
    let my_creator = seen.creator.clone().ok_or_else(|| malformed(subject(), "it is connected and shows no peer"))?;
    let id = capture.intern(&UnixConnection, &key.concat(), |capture, _| {
        let their_creator = other.map(|other| creator_of(&capture.survey, other)).transpose()?.flatten();
        let creators = [my_creator.clone(), their_creator.unwrap_or(my_creator)];
        let all = capture.survey.unix_sockets(look.borrow())?;
        let listens = |raw: &[u8]| {
            let name = raw.get(2..).unwrap_or_default();
            all.values().any(|socket| socket.state == socket_diagnosis::LISTENING && same_name(&socket.name, name))
        };
        let mine_accepted = match (unix_name::is_named(&mine), unix_name::is_named(&theirs)) {
            (true, true) => listens(&mine) || (!listens(&theirs) && own > other.unwrap_or(0)),
            (mine, _) => mine,
        };
        let accepted = if mine_accepted { index } else { 1 - index };
        let (mut names, mut creators) = ([mine, theirs], creators);
        if index == 1 {
            names.reverse();
            creators.reverse();
        }
        Ok((Vec::new(), Connection { sort: seen.sort, names, creators, accepted }))
    })?;
    Ok((id, index))
}

fn listener(look: &Look, capture: &mut Capture, seen: &Seen) -> Result<Listener> {
    let creator = seen.creator.clone().ok_or_else(|| malformed(look.subject(), "it listens and shows no creator"))?;
    let mut waiting = Vec::new();
    for inode in &seen.diagnosed.waiting {
        let Some(client) = holder(&capture.survey, *inode)? else {
            return Err(unsupported(look, "a connection that nobody has accepted is in flight at its other end"));
        };
        let pid = client.pid;
        let status = godwit_linux::proc::status::read(pid, pid).about(|| client.subject())?;
        let by = Creator { pid: Pid(pid), user: status.uid[1], group: status.gid[1], groups: status.groups };
        waiting.push((capture.in_flight(client)?, by));
    }
    Ok(Listener { backlog: seen.diagnosed.backlog, creator, waiting })
}

impl UnixSocket {
    fn subject(&self) -> Subject {
        Subject::Object(format!("Unix socket {}", unix_name::shown(&self.name.raw)))
    }

    /// Whether it takes its name before others need it. Listeners come later: the name may first be needed for
    /// connections that were accepted from them, and ends of connections have theirs already.
    fn is_named_early(&self) -> bool {
        unix_name::is_named(&self.name.raw)
            && self.listener.is_none()
            && (self.connection.is_none() || self.sort == SOCK_DGRAM)
    }

    fn listen(&self, listener: &Listener, own: &OwnedFd, bind: &mut Bind) -> Result<()> {
        let subject = || self.subject();
        let named = Named::bind(own.as_fd(), &self.name, subject)?;
        bind.run_as(&listener.creator, &[own.as_fd()], |program, files| {
            program.call("listen", SYS_LISTEN, [files[0].into(), listener.backlog.into()]);
        })?;
        let address = named.reachable();
        for (client, creator) in &listener.waiting {
            let client = bind.made(*client)?.try_clone_to_owned().about(subject)?;
            bind.run_as(creator, &[client.as_fd()], |program, files| {
                let place = program.data(&address);
                program.call("connect", SYS_CONNECT, [files[0].into(), place, address.len().into()]);
            })?;
        }
        if let Some((path, aside)) = named.place(&self.name)? {
            bind.created(path, aside);
        }
        Ok(())
    }

    fn set_options(&self, own: BorrowedFd<'_>) -> Result<()> {
        let failed = |option: i32| {
            move |error: godwit_linux::Errno| {
                let cause = format!("socket option {option} cannot be what it was: {error}");
                Refusal::new(Code::DESTINATION_LACKS, self.subject(), cause)
            }
        };
        for (option, force, wanted) in
            [(SO_SNDBUF, SO_SNDBUFFORCE, self.buffers.0), (SO_RCVBUF, SO_RCVBUFFORCE, self.buffers.1)]
        {
            if socket::number(own, option).map_err(failed(option))? != wanted {
                socket::set_option(own, force, wanted / 2).map_err(failed(option))?;
            }
        }
        if let Some(locked) = self.locked {
            socket::set_option(own, SO_BUF_LOCK, locked).map_err(failed(SO_BUF_LOCK))?;
        }
        for (option, wanted) in &self.options {
            let now = socket::get(own, SOL_SOCKET, *option, wanted.len()).map_err(failed(*option))?;
            if now != *wanted {
                socket::set(own, SOL_SOCKET, *option, wanted).map_err(failed(*option))?;
            }
        }
        Ok(())
    }
}

impl Kind for UnixSocketKind {
    fn id(&self) -> KindId {
        KindId(21)
    }
    fn name(&self) -> &'static str {
        "Unix socket"
    }
    fn version(&self) -> u16 {
        1
    }
    fn stage(&self) -> Stage {
        Stage::Late
    }
    fn needs(&self, envelope: &Envelope) -> Result<Vec<Need>> {
        let state: UnixSocket = open(envelope)?;
        let file = state.name.file.as_ref().filter(|_| state.listener.is_some() || state.is_named_early());
        let parent = file.and_then(|file| Path::new(&file.path).parent()).and_then(Path::to_str);
        let need = |path: &str| Need::path(path.to_owned(), S_IFDIR);
        Ok(parent.map(need).into_iter().collect())
    }
    fn make(&self, envelope: &Envelope, make: &mut Make) -> Result<Made> {
        let state: UnixSocket = open(envelope)?;
        let subject = || state.subject();
        let own = match state.connection {
            Some((id, index)) => make.made(id, index)?.try_clone_to_owned().about(subject)?,
            None if matches!(state.sort, 1 | 2 | 5) => unix_socket::create(state.sort).about(subject)?,
            None => return Err(malformed(subject(), "no such type of socket")),
        };
        if state.is_named_early() {
            let named = Named::bind(own.as_fd(), &state.name, subject)?;
            if let Some((path, aside)) = named.place(&state.name)? {
                make.created_instead(path, aside);
            }
        }
        Ok(vec![own])
    }
    fn bind(&self, envelope: &Envelope, bind: &mut Bind) -> Result<()> {
        let state: UnixSocket = open(envelope)?;
        let subject = || state.subject();
        let own = bind.own()?.try_clone_to_owned().about(subject)?;
        let peer = match state.connection {
            Some((id, index)) => Some(bind.made_part(id, 1 - (index & 1))?.try_clone_to_owned().about(subject)?),
            None => None,
        };
        unix_queue::refill(&state, bind, peer.as_ref().map(AsFd::as_fd))?;
        if state.reset {
            // A byte that its peer has not read when it goes: what ECONNRESET is made of.
            unix_socket::send(own.as_fd(), b"\0", None, &[], None).about(subject)?;
        }
        if let Some(listener) = &state.listener {
            state.listen(listener, &own, bind)?;
        }
        if let Some(id) = state.receiver {
            let receiver = bind.tree().object(id).ok_or_else(|| malformed(subject(), "its receiver is not there"))?;
            let receiver: UnixSocket = open(receiver)?;
            let address = reachable(&receiver.name).ok_or_else(|| malformed(subject(), "its receiver has no name"))?;
            unix_socket::connect(own.as_fd(), &address).about(subject)?;
        }
        // Of a connection only what it reads no more: the other direction is the peer's, once it has been refilled.
        // A pending reset comes with the peer's end, which shuts down both.
        if state.shutdown & RECEIVE_SHUT != 0 && !state.reset {
            unix_socket::shut_down(own.as_fd(), 0).about(subject)?;
        }
        let own = File::from(own);
        // Most are as new ones are, and to look costs less than to set.
        let now = own.metadata().about(subject)?;
        if (now.uid(), now.gid()) != state.owner {
            std::os::unix::fs::fchown(&own, Some(state.owner.0), Some(state.owner.1)).about(subject)?;
        }
        state.set_options(own.as_fd())?;
        file::set_status_flags(own.as_fd(), state.flags & !O_ASYNC).about(subject)
    }
    fn description(&self) -> Option<&dyn Description> {
        Some(self)
    }
    fn task_state(&self) -> Option<&dyn TaskState> {
        None
    }
}

impl Unread for UnixSocketKind {
    fn without_unread(&self, envelope: &Envelope) -> Result<Option<Bare>> {
        let state: UnixSocket = open(envelope)?;
        // Somebody else could send to a name before what lies unread is there.
        let is_open = state.sort == SOCK_DGRAM && unix_name::is_named(&state.name.raw);
        if state.queue.is_empty() || state.reset || state.listener.is_some() || is_open {
            return Ok(None);
        }
        let sender = |message: &Message| match message.sender {
            Sender::Socket(id) => Some(id),
            Sender::Peer | Sender::Gone(_) => None,
        };
        let needs = state.queue.iter().flat_map(|message| message.descriptors.iter().copied().chain(sender(message)));
        let needs = needs.collect();
        let bare = Captured::new(envelope.refs.clone(), &UnixSocket { queue: Vec::new(), ..state })?;
        let envelope = Envelope { payload: bare.payload, ..envelope.clone() };
        Ok(Some(Bare { envelope, needs, is_watchable: false }))
    }

    fn put_back(&self, envelope: &Envelope, bind: &mut Bind) -> Result<()> {
        self.bind(envelope, bind)
    }
}

impl Description for UnixSocketKind {
    fn recognise(&self, look: &Look) -> bool {
        inet_socket::is_socket(look) && look.family() == Some(AF_UNIX)
    }
    fn examine(&self, look: &Look, survey: &Survey) -> Verdict {
        match inspect(look, survey) {
            Err(refusal) => Verdict::Blocks(refusal),
            Ok(Seen { degraded: Some(what), .. }) => Verdict::Degraded(what),
            Ok(_) if unix_queue::carries_descriptors(look) => Verdict::Undecided(unix_queue::UNSEEN.to_owned()),
            Ok(_) => Verdict::Carried,
        }
    }
    fn foresee(&self, _: &Look, _: &Survey) -> Vec<Need> {
        Vec::new()
    }
    fn capture(&self, look: &Look, capture: &mut Capture) -> Result<Captured> {
        let subject = || look.subject();
        let seen = inspect(look, &capture.survey)?;
        let own = look.borrow();
        let listens = seen.diagnosed.state == socket_diagnosis::LISTENING;
        let name = Name::of(own, subject)?;
        let connection = match seen.peer {
            Peer::Pair(other) => Some(connection(look, capture, (&seen, &name), Some(other))?),
            Peer::Gone => Some(connection(look, capture, (&seen, &name), None)?),
            Peer::None | Peer::Receiver(_) | Peer::Waiting => None,
        };
        let receiver = match seen.peer {
            Peer::Receiver(inode) => match holder(&capture.survey, inode)? {
                Some(other) => {
                    let its_name = Name::of(other.borrow(), subject)?;
                    if reachable(&its_name).is_none() {
                        return Err(unsupported(look, "the file of its default receiver is gone"));
                    }
                    Some(capture.in_flight(other)?)
                }
                None => return Err(unsupported(look, "its default receiver is in flight")),
            },
            _ => None,
        };
        let listener = if listens { Some(listener(look, capture, &seen)?) } else { None };
        let shut = seen.diagnosed.shutdown & RECEIVE_SHUT != 0;
        let reset = !listens && seen.ready & readiness::ERROR != 0;
        if reset && !matches!(seen.peer, Peer::Gone) {
            return Err(unsupported(look, "an error is pending"));
        }
        let queue = match (listens, connection.is_some() || seen.sort == SOCK_DGRAM) {
            // Looking for messages between boundaries takes a pending error away.
            (false, true) if reset && seen.sort != SOCK_STREAM => {
                if unix_socket::unread(own).about(subject)? > 0 {
                    return Err(unsupported(look, "messages and a pending error wait in it"));
                }
                Vec::new()
            }
            (false, true) => unix_queue::capture(look, capture, (seen.sort, seen.ready), shut)?,
            _ => Vec::new(),
        };
        let Settings { buffers, locked, options } = unix_fact::settings(look).about(subject)?.clone();
        let state = UnixSocket {
            sort: seen.sort,
            connection,
            name,
            listener,
            receiver,
            queue,
            shutdown: seen.diagnosed.shutdown,
            reset,
            flags: look.flags(),
            owner: look.owner,
            buffers,
            locked,
            options,
        };
        Captured::new(connection.map(|(id, _)| id).into_iter().collect(), &state)
    }
}
