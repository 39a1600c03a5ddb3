//! The lane of faults: a second connection, over which a page that somebody waits for leaves at once, whatever is being pushed over the
//! first. What is asked for comes over the first, whose other direction is idle. Where it cannot be had, everything goes over one.
use super::{CONNECT, Driver};
use crate::stream::{Arrival, Broken, Stream};
use crate::transport;
use godwit_handoff::{Message, MigrationId, Packet};
use godwit_linux::poll::Readiness;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

/// The number of this lane; the stream of the messages is lane zero.
const NUMBER: u16 = 1;
/// An option of sockets, and what it is to be: ahead of what can wait, in queues that know any difference.
const SO_PRIORITY: i32 = 12;
const INTERACTIVE: i32 = 6;

/// How it stands.
#[derive(Debug, Default)]
pub(super) enum FaultLane {
    /// There is none.
    #[default]
    Closed,
    /// A thread connects; its end is told by a byte in a pipe, so that nobody has to look.
    Connecting(Receiver<Option<Stream>>, std::io::PipeReader),
    /// The other side has to say that it listens.
    Announced(Stream),
    /// It carries pages.
    Open(Stream),
}

impl FaultLane {
    /// Begins to connect.
    pub(super) fn begin(&mut self, destination: String) {
        let (sender, receiver) = sync_channel(1);
        let Ok((bell, ringer)) = std::io::pipe() else { return };
        let connect = move || {
            let transport = transport::parse(&destination, None).ok();
            let lane = transport.and_then(|transport| transport.connect(CONNECT).ok()).filter(|lane| lane.is_socket);
            // Who is not waited for any more is let go.
            let _ = sender.send(lane.map(Stream::new));
            drop(ringer);
        };
        // Without the thread everything goes over one connection.
        if std::thread::Builder::new().name("fault lane".to_owned()).spawn(connect).is_ok() {
            *self = FaultLane::Connecting(receiver, bell);
        }
    }

    pub(super) fn end(&mut self) {
        if let FaultLane::Announced(stream) | FaultLane::Open(stream) = self {
            stream.cut();
        }
        *self = FaultLane::Closed;
    }

    /// It may stand soon.
    pub(super) fn is_coming(&self) -> bool {
        matches!(self, FaultLane::Connecting(..) | FaultLane::Announced(_))
    }

    pub(super) fn interest(&self) -> Option<(BorrowedFd<'_>, Readiness)> {
        match self {
            FaultLane::Closed => None,
            FaultLane::Connecting(_, bell) => Some((bell.as_fd(), Readiness::READABLE)),
            FaultLane::Announced(stream) | FaultLane::Open(stream) => {
                let readiness = Readiness { readable: true, writable: !stream.is_flushed() };
                stream.socket().map(|socket| (socket, readiness))
            }
        }
    }

    /// Goes on with what can go on.
    fn tend(&mut self, migration: MigrationId) -> Result<(), Broken> {
        match std::mem::take(self) {
            FaultLane::Closed => {}
            FaultLane::Connecting(receiver, bell) => match receiver.try_recv() {
                Ok(Some(mut stream)) => {
                    if let Some(socket) = stream.socket() {
                        // Of what only costs time nothing is said.
                        let _ = godwit_linux::socket::set_option(socket, SO_PRIORITY, INTERACTIVE);
                    }
                    stream.say(Packet { migration, message: Message::Lane { number: NUMBER } })?;
                    stream.flush()?;
                    *self = FaultLane::Announced(stream);
                }
                Ok(None) | Err(TryRecvError::Disconnected) => {}
                Err(TryRecvError::Empty) => *self = FaultLane::Connecting(receiver, bell),
            },
            FaultLane::Announced(mut stream) => {
                stream.flush()?;
                let answer = match stream.next() {
                    Ok(Some(Arrival::Packet(packet))) => Some(packet.message == Message::Lane { number: NUMBER }),
                    Ok(None) => None,
                    // The other side has none: nothing has left over it.
                    Ok(Some(_)) | Err(_) => Some(false),
                };
                match answer {
                    Some(true) => *self = FaultLane::Open(stream),
                    Some(false) => stream.cut(),
                    None => *self = FaultLane::Announced(stream),
                }
            }
            FaultLane::Open(mut stream) => {
                stream.flush()?;
                match stream.next() {
                    Ok(None) => *self = FaultLane::Open(stream),
                    Ok(Some(_)) => return Err(Broken::Closed),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

impl Driver<'_> {
    /// Looks at the lane. What was in it when it broke is known by the other side alone, which is asked over a new link.
    pub(super) fn tend_lane(&mut self) {
        if let Err(error) = self.serving.lane.tend(self.machine.migration()) {
            self.lose_link(&error);
        }
    }

    /// Lets everything leave that was asked for, if faults have a lane.
    pub(super) fn serve_lane(&mut self) {
        let mut buffer = Vec::new();
        while matches!(self.serving.lane, FaultLane::Open(_)) && self.stream.is_some() {
            let Some((owner, ranges)) = self.serving.next_asked(true) else { return };
            let Some(server) = &mut self.serving.server else { return };
            if let Err(refusal) = server.read(owner, &ranges, &mut buffer) {
                return self.cannot_serve(&refusal);
            }
            let frames = match self.pump.frames(owner, &ranges, &buffer) {
                Ok(frames) => frames,
                Err(refusal) => return self.cannot_serve(&refusal),
            };
            self.report.pages_demanded += self.count(&ranges);
            self.flushing.given(owner, &ranges);
            let FaultLane::Open(stream) = &mut self.serving.lane else { return };
            for frame in frames {
                stream.put_ready(&frame.head, frame.body(&buffer));
            }
            if let Err(error) = stream.flush() {
                return self.lose_link(&error);
            }
            self.serving.has_answered();
        }
    }
}
