//! The page pump of the sending side: state and pieces of pages become frames, counted as the other side will count them.
//!
//! The state is one part or several: each is 8 bytes length, 8 bytes of pages to come (both little-endian, in bytes; 0 but in the last
//! part), a byte for its sort and 7 zeros, then some of the tree as CBOR. They are cut into frames at any place.
use crate::packing::Packing;
use godwit_handoff::Totals;
use godwit_handoff::frame::{Frame, Header, RUN_LIMIT, Run, Runs};
use godwit_handoff::packed::Packed;
use godwit_image::memory::PAGE_BYTES;
use godwit_image::page_set::PageSet;
use godwit_image::tree::Part;
use godwit_image::{Code, ObjectId, Refusal, Subject, codec};
use std::ops::Range;

const PAGE: usize = PAGE_BYTES as usize;
const PAGE_SHIFT: u8 = 12;
/// Bytes of a part of the state before the tree.
pub(crate) const PART_HEADER: usize = 24;
/// Bytes of state in one frame.
pub(crate) const STATE_PIECE: usize = 256 << 10;
/// Fewer zero pages than this are sent as they are: a frame of their own would cost more.
const ZEROS_MIN: usize = 4;

static ZERO_PAGE: [u8; PAGE] = [0; PAGE];

/// What a part of the state is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PartSort {
    /// More follow.
    Early = 1,
    /// It is empty, and no part before it counts.
    Anew = 2,
    /// The tree is complete.
    Last = 3,
}

impl PartSort {
    pub(crate) fn of(byte: u8) -> Option<PartSort> {
        [PartSort::Early, PartSort::Anew, PartSort::Last].into_iter().find(|sort| *sort as u8 == byte)
    }
}

/// One frame that is ready to be sent.
#[derive(Debug)]
pub(crate) struct Ready {
    /// Header and payload.
    pub(crate) head: Vec<u8>,
    /// The pages that follow, in the piece.
    body: Range<usize>,
    /// What follows in their place.
    packed: Option<Vec<u8>>,
    /// How many pages it stands for.
    pub(crate) pages: u64,
}

impl Ready {
    /// What follows the head, of a piece with these bytes.
    pub(crate) fn body<'a>(&'a self, piece: &'a [u8]) -> &'a [u8] {
        self.packed.as_deref().unwrap_or(&piece[self.body.clone()])
    }
}

/// Counts what leaves.
#[derive(Debug)]
pub(crate) struct Pump {
    checksums: bool,
    pub(crate) packing: Packing,
    /// Bytes of parts of the state that count.
    state_bytes: usize,
    /// Bytes of pages dealt with.
    pub(crate) done: u64,
    /// Bytes of pages in all.
    pub(crate) total: u64,
    /// Pages whose contents were sent.
    pub(crate) pages_sent: u64,
    /// As the other side counts.
    pub(crate) totals: Totals,
}

fn refused(error: godwit_handoff::Malformed) -> Refusal {
    Refusal::new(Code::UNSUPPORTED, Subject::Object("frame".to_owned()), error.to_string())
}

impl Pump {
    pub(crate) fn new(checksums: bool) -> Pump {
        Pump {
            checksums,
            packing: Packing::default(),
            state_bytes: 0,
            done: 0,
            total: 0,
            pages_sent: 0,
            totals: Totals::default(),
        }
    }

    /// The same, which packs.
    pub(crate) fn with(self, packing: Packing) -> Pump {
        Pump { packing, ..self }
    }

    fn count(&mut self, header: &Header, pages: u64, bytes: usize, checksum: Option<u32>) {
        self.totals.count(header, pages, bytes as u64, checksum.unwrap_or(0));
    }

    /// A part of the state, whose pieces become frames: one after another, since a tree of many threads has much of it.
    ///
    /// # Errors
    /// GW1104: it is larger than the other side would take.
    pub(crate) fn part(&mut self, sort: PartSort, part: Option<&Part<'_>>) -> Result<Vec<u8>, Refusal> {
        let subject = || Subject::Object("state".to_owned());
        let mut state = vec![0; PART_HEADER];
        if let Some(part) = part {
            codec::encode_to(part, &mut state)
                .map_err(|error| Refusal::new(Code::MALFORMED, subject(), error.to_string()))?;
        }
        let length = state.len() - PART_HEADER;
        self.state_bytes = if sort == PartSort::Anew { 0 } else { self.state_bytes + length };
        if self.state_bytes > codec::PAYLOAD_BYTES_MAX {
            return Err(Refusal::new(Code::UNSUPPORTED, subject(), "the tree without its pages is above 64 MiB"));
        }
        let total = if sort == PartSort::Last { self.total } else { 0 };
        state[..8].copy_from_slice(&(length as u64).to_le_bytes());
        state[8..16].copy_from_slice(&total.to_le_bytes());
        state[16] = sort as u8;
        Ok(state)
    }

    /// The frame of a piece of the state of at most [`STATE_PIECE`] bytes.
    ///
    /// # Errors
    /// The other side would not take it.
    pub(crate) fn state_frame(&mut self, piece: &[u8]) -> Result<Vec<u8>, Refusal> {
        let mut frame = Vec::with_capacity(piece.len() + 64);
        let header = match self.packing.pack_state(piece) {
            Some(packed) => Frame::PackedState(packed).encode(&mut frame),
            None => Frame::State(piece).encode(&mut frame),
        };
        let header = header.map_err(refused)?;
        self.count(&header, 0, 0, None);
        Ok(frame)
    }

    /// The head of a frame of pages that we do not see: they are to leave as they are.
    ///
    /// # Errors
    /// The other side would not take it.
    pub(crate) fn head_of(&mut self, owner: ObjectId, ranges: &[(u64, usize)]) -> Result<Vec<u8>, Refusal> {
        let bytes = ranges.iter().map(|(_, length)| length).sum();
        let runs = Runs { page_shift: PAGE_SHIFT, body_checksum: None, runs: runs_of(owner, ranges, &(0..bytes)) };
        let pages = runs.pages();
        let mut head = Vec::new();
        let header = Frame::Pages(runs).encode(&mut head).map_err(refused)?;
        self.count(&header, pages, bytes, None);
        self.pages_sent += pages;
        Ok(head)
    }

    /// The frames that name pages of an owner which the other side has since the preparation, and as what.
    ///
    /// # Errors
    /// The other side would not take them.
    pub(crate) fn held_frames(
        &mut self,
        stage: u32,
        owner: ObjectId,
        pages: &PageSet,
    ) -> Result<Vec<Vec<u8>>, Refusal> {
        let runs = runs_of_set(owner, pages);
        let frame = |runs: &[Run]| {
            let runs = Runs { page_shift: PAGE_SHIFT, body_checksum: None, runs: runs.to_vec() };
            let (pages, mut head) = (runs.pages(), Vec::new());
            let header = Frame::HeldPages(stage, runs).encode(&mut head).map_err(refused)?;
            self.count(&header, pages, 0, None);
            Ok(head)
        };
        runs.chunks(RUN_LIMIT).map(frame).collect()
    }

    /// The frames that name pages of a stage which are not true any more.
    ///
    /// # Errors
    /// The other side would not take them.
    pub(crate) fn stale_frames(&self, stage: ObjectId, pages: &PageSet) -> Result<Vec<Vec<u8>>, Refusal> {
        let frame = |runs: &[Run]| {
            let mut head = Vec::new();
            let runs = Runs { page_shift: PAGE_SHIFT, body_checksum: None, runs: runs.to_vec() };
            Frame::OwedPages(runs).encode(&mut head).map_err(refused)?;
            Ok(head)
        };
        runs_of_set(stage, pages).chunks(RUN_LIMIT).map(frame).collect()
    }

    /// The frames of a piece: ranges of one owner (start, length, page-aligned) and their bytes one after another.
    ///
    /// # Errors
    /// The other side would not take them.
    pub(crate) fn frames(
        &mut self,
        owner: ObjectId,
        ranges: &[(u64, usize)],
        bytes: &[u8],
    ) -> Result<Vec<Ready>, Refusal> {
        let (mut ready, mut zeros) = (Vec::new(), Vec::new());
        for (zero, part) in parts(bytes) {
            let runs = runs_of(owner, ranges, &part);
            if zero {
                zeros.extend(runs);
                continue;
            }
            if let Some(frame) = self.packed(&runs, bytes, &part)? {
                ready.push(frame);
                continue;
            }
            let checksum = self.checksums.then(|| crc32fast::hash(&bytes[part.clone()]));
            let runs = Runs { page_shift: PAGE_SHIFT, body_checksum: checksum, runs };
            let pages = runs.pages();
            let mut head = Vec::new();
            let header = Frame::Pages(runs).encode(&mut head).map_err(refused)?;
            self.count(&header, pages, part.len(), checksum);
            self.pages_sent += pages;
            ready.push(Ready { head, body: part, packed: None, pages });
        }
        if !zeros.is_empty() {
            let runs = Runs { page_shift: PAGE_SHIFT, body_checksum: None, runs: zeros };
            let pages = runs.pages();
            let mut head = Vec::new();
            let header = Frame::ZeroPages(runs).encode(&mut head).map_err(refused)?;
            self.count(&header, pages, 0, None);
            ready.push(Ready { head, body: 0..0, packed: None, pages });
        }
        Ok(ready)
    }

    /// A part of a piece, packed, or what has changed of it, if that is worth it.
    fn packed(&mut self, runs: &[Run], bytes: &[u8], part: &Range<usize>) -> Result<Option<Ready>, Refusal> {
        let pages = &bytes[part.clone()];
        let of_these = Runs { page_shift: PAGE_SHIFT, body_checksum: None, runs: runs.to_vec() };
        if let Some((delta, changed)) = self.packing.delta(&of_these, pages) {
            let (checksum, mut head) = (delta.checksum, Vec::new());
            let header = Frame::DeltaPages(delta).encode(&mut head).map_err(refused)?;
            self.count(&header, of_these.pages(), changed.len(), Some(checksum));
            self.pages_sent += of_these.pages();
            return Ok(Some(Ready { head, body: part.clone(), packed: Some(changed), pages: of_these.pages() }));
        }
        let Some(packed) = self.packing.pack(pages) else { return Ok(None) };
        let checksum = crc32fast::hash(pages);
        let count = of_these.pages();
        let mut head = Vec::new();
        let frame = Frame::PackedPages(Packed { length: packed.len() as u32, checksum, runs: of_these });
        let header = frame.encode(&mut head).map_err(refused)?;
        self.count(&header, count, packed.len(), Some(checksum));
        self.pages_sent += count;
        self.packing.pages += count;
        Ok(Some(Ready { head, body: part.clone(), packed: Some(packed), pages: count }))
    }
}

/// Cuts a piece where contents and long runs of zero pages meet.
fn parts(bytes: &[u8]) -> Vec<(bool, Range<usize>)> {
    let mut parts: Vec<(bool, Range<usize>)> = Vec::new();
    let (mut start, mut zeros) = (0, 0);
    let mut close = |start: &mut usize, end: usize, zeros: usize| {
        if zeros < ZEROS_MIN * PAGE {
            return;
        }
        let first = end - zeros;
        if *start < first {
            parts.push((false, *start..first));
        }
        parts.push((true, first..end));
        *start = end;
    };
    for (index, page) in bytes.chunks(PAGE).enumerate() {
        if page == &ZERO_PAGE[..page.len()] {
            zeros += page.len();
        } else {
            close(&mut start, index * PAGE, zeros);
            zeros = 0;
        }
    }
    close(&mut start, bytes.len(), zeros);
    if start < bytes.len() {
        parts.push((false, start..bytes.len()));
    }
    parts
}

/// The runs of all pages of a set.
pub(crate) fn runs_of_set(owner: ObjectId, pages: &PageSet) -> Vec<Run> {
    // No run of a frame has more pages than its count can say.
    const RUN_PAGES: u64 = 1 << 30;
    let page = |address: u64| address >> PAGE_SHIFT;
    let cut = pages.runs().iter().flat_map(|run| {
        let (first, last) = (page(run.start), page(run.end));
        (first..last).step_by(RUN_PAGES as usize).map(move |start| (start, (last - start).min(RUN_PAGES) as u32))
    });
    cut.map(|(start, count)| Run { owner: owner.0, start, count }).collect()
}

/// The runs of the pages in a part of a piece.
fn runs_of(owner: ObjectId, ranges: &[(u64, usize)], part: &Range<usize>) -> Vec<Run> {
    let mut runs = Vec::new();
    let mut offset = 0;
    for (start, length) in ranges {
        let first = part.start.clamp(offset, offset + length) - offset;
        let last = part.end.clamp(offset, offset + length) - offset;
        if first < last {
            let start = (start + first as u64) >> PAGE_SHIFT;
            runs.push(Run { owner: owner.0, start, count: ((last - first) >> PAGE_SHIFT) as u32 });
        }
        offset += length;
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One byte per page: is it zero?
    fn piece(pages: &str) -> Vec<u8> {
        pages.bytes().flat_map(|page| [if page == b'0' { 0 } else { page }; PAGE]).collect()
    }

    #[test]
    fn every_page_is_either_sent_or_named_once() {
        for pages in ["x", "0", "0000", "x000x", "x0000", "0000x", "xx00000x0000y", "00000000", ""] {
            let bytes = piece(pages);
            // Two ranges far apart, cut in the middle of the piece.
            let half = pages.len() / 2 * PAGE;
            let ranges: Vec<(u64, usize)> =
                [(0x10_000, half), (0x90_000, bytes.len() - half)].into_iter().filter(|range| range.1 > 0).collect();
            let mut pump = Pump::new(true);
            let frames = pump.frames(ObjectId(9), &ranges, &bytes).unwrap();
            let mut seen = std::collections::BTreeMap::new();
            for ready in &frames {
                let (frame, length) = Frame::split(&ready.head).unwrap().unwrap();
                assert_eq!(length, ready.head.len());
                let (runs, zero) = match frame {
                    Frame::Pages(runs) => (runs, false),
                    Frame::ZeroPages(runs) => (runs, true),
                    other => panic!("{other:?}"),
                };
                let mut body = ready.body(&bytes).chunks(PAGE);
                for run in &runs.runs {
                    for page in run.start..run.start + u64::from(run.count) {
                        let byte = if zero { 0 } else { body.next().unwrap()[0] };
                        assert_eq!(seen.insert(page << PAGE_SHIFT, byte), None);
                    }
                }
                assert_eq!(body.next(), None);
            }
            let mut expected = std::collections::BTreeMap::new();
            let mut all = bytes.chunks(PAGE);
            for (start, length) in &ranges {
                for page in 0..(length / PAGE) as u64 {
                    expected.insert(start + page * PAGE_BYTES, all.next().unwrap()[0]);
                }
            }
            assert_eq!(seen, expected, "{pages}");
            assert_eq!(pump.totals.pages, pages.len() as u64);
        }
    }
}
