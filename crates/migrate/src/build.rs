//! A tree that comes in: state first, then pages, then all is completed and compared with what the source says it has sent.
use crate::pump::STATE_HEADER;
use godwit_engine::foresight::Foresight;
use godwit_engine::restore::{Reserve, Restorer};
use godwit_handoff::Totals;
use godwit_image::memory::PAGE_BYTES;
use godwit_image::page_set::PageSet;
use godwit_image::tree::Tree;
use godwit_image::{Code, ObjectId, Refusal, Subject, codec};
use godwit_linux::scheduling;
use std::time::Duration;

/// How long the source may wait for memory that is made for it, before it stops its tree.
const PREPARATION: Duration = Duration::from_secs(4);

/// Bytes of state from which on it takes longer to read than to go to another processor.
const MUCH_STATE: u64 = 40 << 10;

/// Zeros to write where pages are named as zero.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// The receiving side of the page pump, and what it fills.
#[derive(Debug)]
pub(crate) struct Build {
    state: Vec<u8>,
    /// The root's memory, made before anything came.
    reserve: Option<Reserve>,
    restorer: Option<Restorer>,
    /// Much memory is expected.
    pub(crate) is_large: bool,
    /// Bytes of pages that are in place.
    pub(crate) bytes_done: u64,
    /// Bytes of pages that will come.
    pub(crate) bytes_total: u64,
    /// Pages may come that only their task sees.
    unseen: bool,
}

fn malformed(cause: &str) -> Refusal {
    Refusal::new(Code::MALFORMED, Subject::Object("state".to_owned()), cause)
}

fn number(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

impl Build {
    pub(crate) fn new() -> Build {
        let (bytes_done, bytes_total) = (0, 0);
        let (reserve, restorer) = (None, None);
        Build { state: Vec::new(), reserve, restorer, is_large: false, bytes_done, bytes_total, unseen: false }
    }

    /// Makes the root that is foreseen. Its memory only where pages come that nobody sees on their way (`unseen`): those that we see
    /// take so long to check that new memory is no hindrance. What does not come out well is made when it comes.
    pub(crate) fn prepare(&mut self, foresight: Foresight, unseen: bool) {
        let foresight = if unseen { foresight } else { foresight.without_memory() };
        if foresight.root != 0 {
            self.reserve = Reserve::make(&foresight, PREPARATION).unwrap_or_default();
            self.unseen = self.reserve.is_some() && !foresight.present.is_empty();
        }
    }

    /// Whether a task of the tree may be asked to read pages itself.
    pub(crate) fn takes_unseen(&self) -> bool {
        self.unseen
    }

    /// Which pages it may be asked for, as soon as the state is complete: once.
    pub(crate) fn unseen(&mut self) -> Option<Option<(ObjectId, PageSet)>> {
        let restorer = self.restorer.as_ref().filter(|_| self.unseen)?;
        self.unseen = false;
        Some(restorer.prepared().cloned())
    }

    /// Has the tree's own task read pages from a socket whose calls wait; returns how many bytes came, or what the socket says.
    ///
    /// # Errors
    /// The task died.
    pub(crate) fn receive(
        &mut self,
        owner: ObjectId,
        ranges: &[(u64, usize)],
        socket: i32,
    ) -> Result<Result<usize, godwit_linux::Errno>, Refusal> {
        let received = self.restorer()?.receive(owner, ranges, socket)?;
        self.bytes_done += received.map_or(0, |count| count as u64);
        Ok(received)
    }

    /// Takes in a piece of the state; the last one begins the tree.
    ///
    /// # Errors
    /// GW1004: it is malformed; everything that an object can refuse.
    pub(crate) fn state(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        if self.restorer.is_some() {
            return Err(malformed("there is more of it than was said"));
        }
        let begins = self.state.is_empty();
        self.state.extend_from_slice(bytes);
        let (Some(length), Some(total)) = (number(&self.state, 0), number(&self.state, 8)) else { return Ok(()) };
        if begins && length > MUCH_STATE {
            // Whoever sends it may be on this host, too, and goes on sending where it woke us. Of what only costs time nothing is said.
            let _ = scheduling::go_elsewhere();
        }
        if length > codec::PAYLOAD_BYTES_MAX as u64 || self.state.len() as u64 > STATE_HEADER as u64 + length {
            return Err(malformed("its length is wrong"));
        }
        if self.state.len() as u64 == STATE_HEADER as u64 + length {
            let state = std::mem::take(&mut self.state);
            let tree: Tree = codec::decode(&state[STATE_HEADER..]).map_err(|error| malformed(&error.to_string()))?;
            // It may be large, and is not needed again.
            drop(state);
            self.bytes_total = total;
            self.restorer = Some(Restorer::begin_with(tree, self.reserve.take())?);
        }
        Ok(())
    }

    /// The tree that is being built.
    ///
    /// # Errors
    /// GW1004: its state has not come.
    pub(crate) fn restorer(&mut self) -> Result<&mut Restorer, Refusal> {
        self.restorer.as_mut().ok_or_else(|| malformed("it has not come"))
    }

    /// Fills pages.
    ///
    /// # Errors
    /// Their owner is unknown, or the kernel refuses.
    pub(crate) fn pages(&mut self, owner: ObjectId, ranges: &[(u64, usize)], bytes: &[u8]) -> Result<(), Refusal> {
        self.bytes_done += bytes.len() as u64;
        self.restorer()?.write(owner, ranges, bytes)
    }

    /// Fills pages with zeros; returns how many.
    ///
    /// # Errors
    /// As [`Build::pages`].
    pub(crate) fn zeros(&mut self, owner: ObjectId, ranges: &[(u64, usize)]) -> Result<u64, Refusal> {
        let mut total = 0;
        for (start, length) in ranges {
            let mut done = 0;
            while done < *length {
                let part = (*length - done).min(ZEROS.len());
                // A hole of a file mapping or an inherited page would show otherwise, so they are written, not assumed.
                self.restorer()?.write(owner, &[(start + done as u64, part)], &ZEROS[..part])?;
                done += part;
            }
            total += *length as u64;
        }
        self.bytes_done += total;
        Ok(total / PAGE_BYTES)
    }

    /// Compares what came with what was sent, and completes the tree.
    ///
    /// # Errors
    /// GW1004: they differ; everything that a restore can refuse.
    pub(crate) fn complete(&mut self, sent: Totals, received: Totals) -> Result<(), Refusal> {
        if sent != received {
            return Err(malformed(&format!("{received:?} came, {sent:?} was sent")));
        }
        self.restorer()?.complete()
    }

    /// The tree, to be resumed.
    pub(crate) fn take(&mut self) -> Option<Restorer> {
        self.restorer.take()
    }

    /// Removes everything; false if nothing was begun here.
    pub(crate) fn discard(&mut self) -> bool {
        self.state = Vec::new();
        self.reserve = None;
        self.restorer.take().is_some()
    }
}
