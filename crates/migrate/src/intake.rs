//! The intake: a thread that reads frames from the lane while the main thread fills the pages of the ones before, so that the link
//! and the page faults of the new memory keep two processors busy. It only ever reads; everything else stays on the main thread.
use crate::incoming::{Incoming, PIECE_BYTES};
use crate::stream::{Arrival, Broken};
use godwit_handoff::{Malformed, Packet};
use godwit_image::ObjectId;
use godwit_linux::poll::{self, Readiness};
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::thread::JoinHandle;

/// Pieces that may wait to be filled: enough that neither side waits for the other's hiccups, few enough to stay in the cache.
const WAITING_MAX: usize = 4;

/// What the thread has read.
#[derive(Debug)]
enum Item {
    Packet(Packet),
    State(Vec<u8>),
    Pages(ObjectId, Vec<(u64, usize)>, Vec<u8>, usize),
    Zeros(ObjectId, Vec<(u64, usize)>),
    Held(u32, ObjectId, Vec<(u64, usize)>),
    Owed(ObjectId, Vec<(u64, usize)>),
    Broken(Broken),
}

/// The main thread's end.
#[derive(Debug)]
pub(crate) struct Intake {
    items: Receiver<Item>,
    /// Buffers that go back.
    buffers: Sender<Vec<u8>>,
    /// Becomes readable with every item.
    bell: PipeReader,
    /// A byte tells the thread to stop.
    stop: PipeWriter,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<Incoming>>,
    current: Option<Item>,
}

impl Intake {
    /// Lets a thread go on reading where `incoming` stands.
    ///
    /// # Errors
    /// No thread or descriptor is free.
    pub(crate) fn start(incoming: Incoming, reader: File) -> io::Result<Intake> {
        let (bell, ringer) = io::pipe()?;
        let (ear, stop) = io::pipe()?;
        godwit_linux::file::do_not_wait(bell.as_fd())?;
        godwit_linux::file::do_not_wait(ringer.as_fd())?;
        let (sender, items) = sync_channel(WAITING_MAX);
        let (buffers, returned) = channel();
        let ended = Arc::new(AtomicBool::new(false));
        let worker = Worker { incoming, reader, sender, returned, ringer, ear, ended: ended.clone() };
        let thread = std::thread::Builder::new().name("intake".to_owned()).spawn(move || worker.run())?;
        Ok(Intake { items, buffers, bell, stop, ended, thread: Some(thread), current: None })
    }

    /// What to wait for.
    pub(crate) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// The next thing that has been read, if it is there.
    pub(crate) fn next(&mut self) -> Result<Option<Arrival<'_>>, Broken> {
        if let Some(Item::Pages(_, _, buffer, _)) = self.current.take() {
            // A thread that has ended needs no buffers.
            let _ = self.buffers.send(buffer);
        }
        let item = match self.items.try_recv() {
            Ok(item) => item,
            Err(TryRecvError::Disconnected) => return Err(Broken::Closed),
            Err(TryRecvError::Empty) => {
                // Rings of items that are dealt with are forgotten first, so that none for a later one is lost.
                let mut rings = [0; 64];
                while self.bell.read(&mut rings).is_ok_and(|count| count == rings.len()) {}
                match self.items.try_recv() {
                    Ok(item) => item,
                    Err(TryRecvError::Empty) => return Ok(None),
                    Err(TryRecvError::Disconnected) => return Err(Broken::Closed),
                }
            }
        };
        Ok(Some(match item {
            Item::Broken(error) => return Err(error),
            Item::Packet(packet) => Arrival::Packet(packet),
            other => match self.current.insert(other) {
                Item::State(bytes) => Arrival::State(bytes),
                Item::Pages(owner, ranges, buffer, length) => Arrival::Pages(*owner, ranges, &buffer[..*length]),
                Item::Zeros(owner, ranges) => Arrival::Zeros(*owner, ranges),
                Item::Held(stage, owner, ranges) => Arrival::Held(*stage, *owner, ranges),
                Item::Owed(owner, ranges) => Arrival::Owed(*owner, ranges),
                Item::Packet(_) | Item::Broken(_) => return Ok(None),
            },
        }))
    }
}

impl Intake {
    /// Ends the thread; also gives what it had read and nobody has taken. Pages are not among it, if the other side keeps to the protocol.
    pub(crate) fn finish(mut self) -> (Incoming, Vec<Result<Packet, Broken>>) {
        let mut left = Vec::new();
        let incoming = self.end(|item| {
            left.push(match item {
                Item::Packet(packet) => Ok(packet),
                Item::Broken(error) => Err(error),
                _ => Err(Broken::Malformed(Malformed::BadValue("pages after the end"))),
            });
        });
        (incoming.unwrap_or_else(Incoming::new), left)
    }

    /// Ends the thread, which may be waiting for the lane or for room for an item.
    fn end(&mut self, mut left: impl FnMut(Item)) -> Option<Incoming> {
        self.ended.store(true, Ordering::Relaxed);
        // Skeletons have the pipe, too: its end alone would not be seen.
        let _ = self.stop.write(b"s");
        // Nor does it wait for buffers any more.
        self.buffers = channel().0;
        while let Ok(item) = self.items.recv() {
            left(item);
        }
        self.thread.take()?.join().ok()
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.end(|_| {});
        }
    }
}

struct Worker {
    incoming: Incoming,
    reader: File,
    sender: SyncSender<Item>,
    returned: Receiver<Vec<u8>>,
    ringer: PipeWriter,
    ear: PipeReader,
    ended: Arc<AtomicBool>,
}

impl Worker {
    fn run(mut self) -> Incoming {
        let mut buffers = 0;
        loop {
            let item = match self.incoming.next(&mut self.reader) {
                Ok(None) => {
                    let files = [(self.reader.as_fd(), Readiness::READABLE), (self.ear.as_fd(), Readiness::READABLE)];
                    match poll::wait(&files, None) {
                        Ok(ready) if !ready[1].readable => continue,
                        _ => return self.incoming,
                    }
                }
                Ok(Some(Arrival::Packet(packet))) => Item::Packet(packet),
                Ok(Some(Arrival::State(bytes))) => Item::State(bytes.to_vec()),
                Ok(Some(Arrival::Zeros(owner, ranges))) => Item::Zeros(owner, ranges.to_vec()),
                Ok(Some(Arrival::Held(stage, owner, ranges))) => Item::Held(stage, owner, ranges.to_vec()),
                Ok(Some(Arrival::Owed(owner, ranges))) => Item::Owed(owner, ranges.to_vec()),
                // Nothing is left in a lane that a thread reads, and nothing is wanted of a destination.
                Ok(Some(
                    Arrival::Waiting(..) | Arrival::Wanted(..) | Arrival::Push | Arrival::Store(_) | Arrival::Stored,
                )) => Item::Broken(Broken::Malformed(Malformed::BadValue("direction"))),
                Ok(Some(Arrival::Pages(owner, ranges, bytes))) => {
                    let (ranges, length) = (ranges.to_vec(), bytes.len());
                    let fresh = match self.returned.try_recv() {
                        Ok(buffer) => buffer,
                        Err(_) if buffers < WAITING_MAX + 2 => {
                            buffers += 1;
                            vec![0; PIECE_BYTES]
                        }
                        Err(_) => match self.returned.recv() {
                            Ok(buffer) => buffer,
                            Err(_) => return self.incoming,
                        },
                    };
                    Item::Pages(owner, ranges, self.incoming.exchange(fresh), length)
                }
                Err(error) => Item::Broken(error),
            };
            let last = matches!(item, Item::Broken(_));
            let sent = self.sender.send(item).is_ok();
            // A full pipe rings already.
            let _ = self.ringer.write(b"r");
            if last || !sent || self.ended.load(Ordering::Relaxed) {
                return self.incoming;
            }
        }
    }
}
