//! Packed pages: LZ4 blocks that say how long they are before and after, and when packing is worth its time.
//!
//! Who unpacks trusts nothing: both lengths are limited before anything is allocated, what comes out must have exactly the length of
//! its pages, and its checksum.

use alloc::vec::Vec;

use godwit_deterministic::Duration;

use crate::bytes::{Malformed, Reader};
use crate::frame::{PACKED_PAGES, Runs};

/// The method: one LZ4 block.
const LZ4: u8 = 1;
/// Most bytes that are packed together, before and after.
pub const PACKED_LIMIT: usize = 1 << 20;

/// The payload of a [`PACKED_PAGES`] frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packed {
    /// Bytes that follow behind the payload; fewer than the pages have.
    pub length: u32,
    /// CRC-32 (IEEE) of the pages.
    pub checksum: u32,
    /// Which pages, all of one owner.
    pub runs: Runs,
}

impl Packed {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend([LZ4, 0, 0, 0]);
        out.extend(self.length.to_le_bytes());
        out.extend(self.checksum.to_le_bytes());
        self.runs.encode(out);
    }

    pub(crate) fn decode(flags: u8, payload: &[u8]) -> Result<Packed, Malformed> {
        let (head, runs) = payload.split_first_chunk::<12>().ok_or(Malformed::TooShort)?;
        let mut reader = Reader::new(head);
        if reader.array::<4>()? != [LZ4, 0, 0, 0] {
            return Err(Malformed::BadValue("method of packing"));
        }
        let (length, checksum) = (reader.u32()?, reader.u32()?);
        let runs = Runs::decode(PACKED_PAGES, flags, runs)?;
        let bytes = runs.body_length();
        if bytes > PACKED_LIMIT as u64 {
            return Err(Malformed::TooLong { length: bytes, limit: PACKED_LIMIT as u64 });
        }
        if length == 0 || u64::from(length) >= bytes {
            return Err(Malformed::BadValue("packed length"));
        }
        if runs.runs.iter().any(|run| run.owner != runs.runs[0].owner) {
            return Err(Malformed::BadValue("owner"));
        }
        Ok(Packed { length, checksum, runs })
    }

    /// Puts the pages into `pages`, which has their length.
    ///
    /// # Errors
    /// [`Malformed`]: the bytes do not become these pages.
    pub fn unpack(&self, body: &[u8], pages: &mut [u8]) -> Result<(), Malformed> {
        let bad = Malformed::BadValue("packed pages");
        if body.len() as u64 != u64::from(self.length) || pages.len() as u64 != self.runs.body_length() {
            return Err(bad);
        }
        if lz4_flex::block::decompress_into(body, pages).ok() != Some(pages.len()) {
            return Err(bad);
        }
        if crc32fast::hash(pages) == self.checksum { Ok(()) } else { Err(Malformed::BadChecksum) }
    }
}

/// The payload of a [`crate::frame::PACKED_STATE`] frame: a piece of the state. Its checksum is the frame's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PackedState<'a> {
    /// Bytes that it becomes; more than the block has.
    pub length: u32,
    /// One LZ4 block.
    pub block: &'a [u8],
}

impl<'a> PackedState<'a> {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend([LZ4, 0, 0, 0]);
        out.extend(self.length.to_le_bytes());
        out.extend_from_slice(self.block);
    }

    pub(crate) fn decode(payload: &'a [u8]) -> Result<PackedState<'a>, Malformed> {
        let (head, block) = payload.split_first_chunk::<8>().ok_or(Malformed::TooShort)?;
        let mut reader = Reader::new(head);
        if reader.array::<4>()? != [LZ4, 0, 0, 0] {
            return Err(Malformed::BadValue("method of packing"));
        }
        let length = reader.u32()?;
        if length as usize > PACKED_LIMIT {
            return Err(Malformed::TooLong { length: length.into(), limit: PACKED_LIMIT as u64 });
        }
        if block.is_empty() || block.len() >= length as usize {
            return Err(Malformed::BadValue("packed length"));
        }
        Ok(PackedState { length, block })
    }

    /// Puts the state into `out`, whose contents go.
    ///
    /// # Errors
    /// [`Malformed`]: the block does not become exactly so many bytes.
    pub fn unpack(&self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        out.clear();
        out.resize(self.length as usize, 0);
        match lz4_flex::block::decompress_into(self.block, out) {
            Ok(length) if length == out.len() => Ok(()),
            _ => Err(Malformed::BadValue("packed state")),
        }
    }
}

/// Packs pages into `out`, whose contents go. `None`: they are too many, or would not become much less.
pub fn pack(pages: &[u8], out: &mut Vec<u8>) -> Option<u32> {
    if pages.len() > PACKED_LIMIT {
        return None;
    }
    out.resize(lz4_flex::block::get_maximum_output_size(pages.len()), 0);
    let length = lz4_flex::block::compress_into(pages, out).ok()?;
    out.truncate(length);
    let is_less = length > 0 && length < pages.len() - pages.len() / 16;
    is_less.then(|| u32::try_from(length).ok()).flatten()
}

/// Decides whether to pack, from what was measured: the link carries so many bytes per second, the packer takes in so many and leaves
/// such a part of them.
#[derive(Clone, Copy, Debug)]
pub struct Advisor {
    /// Bytes per second that the link carries, once it was seen to be full.
    link: Option<u64>,
    /// Bytes per second that it is allowed to carry.
    most: Option<u64>,
    /// Bytes per second that the packer takes in.
    packer: u64,
    /// Bytes left of 1024.
    left: u64,
    /// Pieces that were not packed although the link is slow, since what was packed last did not become less.
    refused: u32,
}

impl Default for Advisor {
    /// The packer is as fast as one is known to be at least, and pages halve, until it is known better.
    fn default() -> Advisor {
        Advisor { link: None, most: None, packer: 400_000_000, left: 512, refused: 0 }
    }
}

impl Advisor {
    /// After so many pieces of what does not become less one is tried again.
    pub const TRY_EVERY: u32 = 16;

    fn rate(bytes: u64, time: Duration) -> Option<u64> {
        let nanoseconds = u128::from(time.nanoseconds());
        let rate = (u128::from(bytes) * 1_000_000_000).checked_div(nanoseconds)?;
        Some(u64::try_from(rate).unwrap_or(u64::MAX))
    }

    /// So many bytes left while there was no room for more.
    pub fn carried(&mut self, bytes: u64, time: Duration) {
        let Some(rate) = Advisor::rate(bytes, time) else { return };
        // Half of what was known stays: a hiccup decides nothing.
        self.link = Some(self.link.map_or(rate, |known| known / 2 + rate / 2));
    }

    /// The link is not to carry more than so many bytes per second.
    pub fn limit(&mut self, rate: u64) {
        self.most = Some(rate);
    }

    /// Much left without a wait: whatever was known of the link, it carries more than comes.
    pub fn flowed(&mut self) {
        self.link = None;
    }

    /// So many bytes became so many.
    pub fn packed(&mut self, from: u64, to: u64, time: Duration) {
        if let Some(rate) = Advisor::rate(from, time) {
            self.packer = (self.packer / 2 + rate / 2).max(1);
        }
        let left = to.saturating_mul(1024) / from.max(1);
        self.left = (self.left + left.min(1024) * 3) / 4;
        self.refused = 0;
    }

    /// Whether the next piece is to be packed: then more of it arrives in the same time, since the packer works while the link
    /// carries what was packed before.
    pub fn wants(&mut self) -> bool {
        let Some(link) = self.link.into_iter().chain(self.most).min() else { return false };
        let packed = u128::from(link) * 1024 / u128::from(self.left.max(1));
        let with = packed.min(u128::from(self.packer));
        // A twentieth is not worth the processors' time.
        let is_worth_it = with > u128::from(link) + u128::from(link) / 20;
        let may_try = u128::from(self.packer) > u128::from(link) * 2;
        if is_worth_it || !may_try {
            return is_worth_it;
        }
        self.refused += 1;
        self.refused.is_multiple_of(Advisor::TRY_EVERY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Run;
    use alloc::vec;
    use godwit_deterministic::Random;

    fn packed(pages: &[u8], length: u32) -> Packed {
        let runs = vec![Run { owner: 3, start: 7, count: (pages.len() / 4096) as u32 }];
        let runs = Runs { page_shift: 12, body_checksum: None, runs };
        Packed { length, checksum: crc32fast::hash(pages), runs }
    }

    /// Pages that pack more or less well.
    fn pages(random: &mut Random, count: usize) -> Vec<u8> {
        let mut pages = vec![0; count * 4096];
        let kinds = 1 << (1 + random.below(9));
        for chunk in pages.chunks_mut(64) {
            if random.below(kinds) != 0 {
                random.fill(chunk);
            }
            let word = random.below(kinds) as u8;
            chunk[..40].fill(word);
        }
        pages
    }

    #[test]
    fn what_is_packed_comes_out_the_same_and_nothing_else_does() {
        let mut random = Random::new(11);
        let (mut out, mut packs) = (Vec::new(), 0);
        for _ in 0..300 {
            let count = 1 + random.below(12) as usize;
            let pages = pages(&mut random, count);
            let Some(length) = pack(&pages, &mut out) else { continue };
            packs += 1;
            let packed = packed(&pages, length);
            let mut room = vec![9; pages.len()];
            packed.unpack(&out, &mut room).unwrap();
            assert_eq!(room, pages);
            // Whatever is changed: refused, or the same pages all the same.
            let mut bad = out.clone();
            let at = random.below(bad.len() as u64) as usize;
            bad[at] ^= 1 << random.below(8);
            if packed.unpack(&bad, &mut room).is_ok() {
                assert_eq!(room, pages);
            }
            let cut = random.below(out.len() as u64) as usize;
            assert!(packed.unpack(&out[..cut], &mut room).is_err());
            // A block that is shorter or longer than its pages.
            let short = Packed { length: cut as u32, ..packed.clone() };
            assert!(short.unpack(&out[..cut], &mut room).is_err());
            assert!(packed.unpack(&out, &mut vec![0; pages.len() + 4096]).is_err());
            assert!(packed.unpack(&out, &mut room[4096..]).is_err());
        }
        assert!(packs > 100, "{packs}");
    }

    #[test]
    fn packed_state_comes_out_the_same_or_not_at_all() {
        let mut random = Random::new(14);
        let (mut out, mut room) = (Vec::new(), vec![1; 3]);
        for _ in 0..300 {
            let count = 1 + random.below(12) as usize;
            let state = pages(&mut random, count);
            let Some(_) = pack(&state, &mut out) else { continue };
            let packed = PackedState { length: state.len() as u32, block: &out };
            packed.unpack(&mut room).unwrap();
            assert_eq!(room, state);
            let cut = random.below(out.len() as u64) as usize;
            assert!(PackedState { block: &out[..cut], ..packed }.unpack(&mut room).is_err());
            for other in [-1, 1] {
                let length = packed.length.saturating_add_signed(other);
                assert!(PackedState { length, ..packed }.unpack(&mut room).is_err());
            }
        }
    }

    #[test]
    fn any_bytes_are_refused_or_are_these_pages() {
        let mut random = Random::new(12);
        for _ in 0..2_000 {
            let mut body = vec![0; 1 + random.below(300) as usize];
            random.fill(&mut body);
            let of = packed(&[0; 8192], body.len() as u32);
            assert!(of.unpack(&body, &mut [0; 8192]).is_err());
        }
    }

    #[test]
    fn what_does_not_become_less_is_not_packed() {
        let mut random = Random::new(13);
        let mut noise = vec![0; 64 << 10];
        random.fill(&mut noise);
        assert_eq!(pack(&noise, &mut Vec::new()), None);
        assert_eq!(pack(&vec![0; PACKED_LIMIT + 4096], &mut Vec::new()), None);
        assert!(pack(&vec![1; PACKED_LIMIT], &mut Vec::new()).is_some_and(|length| length < 10_000));
    }

    #[test]
    fn packing_is_for_links_that_are_slower() {
        let second = Duration::from_seconds(1);
        for (link, packer, left, wanted) in [
            (100_000_000, 500_000_000, 300, true),
            (100_000_000, 500_000_000, 1000, false),
            (5_000_000_000, 500_000_000, 10, false),
            (500_000_000, 500_000_000, 100, false),
            (400_000_000, 500_000_000, 100, true),
            (1_000, 90_000, 900, true),
        ] {
            let mut advisor = Advisor::default();
            assert!(!advisor.wants(), "of the link nothing is known");
            for _ in 0..40 {
                advisor.carried(link, second);
                advisor.packed(packer, packer * left / 1024, second);
            }
            assert_eq!(advisor.wants(), wanted, "{link} {packer} {left}");
        }
        // What was bad becomes good: it is tried again now and then.
        let mut advisor = Advisor::default();
        advisor.carried(10_000_000, second);
        for _ in 0..9 {
            advisor.packed(500_000_000, 500_000_000, second);
        }
        let tried = (0..Advisor::TRY_EVERY * 4).filter(|_| advisor.wants()).count();
        assert_eq!(tried, 4);
        advisor.flowed();
        assert!(!(0..Advisor::TRY_EVERY).any(|_| advisor.wants()));
        advisor.limit(10_000_000);
        assert!((0..Advisor::TRY_EVERY).any(|_| advisor.wants()));
        // A link so fast that there is nothing to be measured changes nothing.
        let mut advisor = Advisor::default();
        advisor.carried(u64::MAX, Duration::ZERO);
        advisor.carried(u64::MAX, Duration::from_nanoseconds(1));
        assert!(!advisor.wants());
    }
}
