//! Packing of pages on their way, and of what has changed of those that are sent again, where the link is slower than that takes: what
//! was measured, and the buffers that it needs.
use godwit_deterministic::Duration;
use godwit_handoff::bucket::Rate;
use godwit_handoff::delta::{Delta, Memory};
use godwit_handoff::frame::Runs;
use godwit_handoff::packed::{self, Advisor, PackedState};
use std::str::FromStr;
use std::time::Instant;

/// What a destination says that it can do.
pub(crate) const CAPABILITY: &str = "packed-pages";
/// What one says that also remembers versions of pages.
pub(crate) const DELTA_CAPABILITY: &str = "delta-pages";
/// What one says that takes packed state.
pub(crate) const STATE_CAPABILITY: &str = "packed-state";
/// State of fewer bytes is sent as it is.
const STATE_MIN: usize = 512;
/// So many bytes that leave without a wait are more than sockets keep: the link was not full.
const FLOWING_BYTES: u64 = 16 << 20;

/// Whether pages are packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Compression {
    /// Where the link is slower.
    #[default]
    Auto,
    /// Wherever the destination can take it.
    Always,
    /// Nowhere.
    Never,
}

impl FromStr for Compression {
    type Err = String;

    fn from_str(text: &str) -> Result<Compression, String> {
        match text {
            "auto" => Ok(Compression::Auto),
            "always" => Ok(Compression::Always),
            "never" => Ok(Compression::Never),
            _ => Err("it is auto, always or never".to_owned()),
        }
    }
}

/// Packs, or not.
#[derive(Debug, Default)]
pub(crate) struct Packing {
    wish: Compression,
    /// The destination takes packed pages.
    allowed: bool,
    /// It takes packed state.
    state_allowed: bool,
    advisor: Advisor,
    /// When there was no room in the link, and how many bytes had left then.
    full: Option<(Instant, u64)>,
    buffer: Vec<u8>,
    /// Pages that were sent packed.
    pub(crate) pages: u64,
    /// The destination takes deltas.
    deltas_allowed: bool,
    /// The stage of the pages that come next, if they were sent before.
    again: Option<u32>,
    memory: Memory,
    /// Whether deltas are worth their time: they become less than other pages.
    delta_advisor: Advisor,
    /// Pages of which only changes were sent.
    pub(crate) delta_pages: u64,
}

impl Packing {
    /// `limit`: the link is not to carry more.
    pub(crate) fn new(wish: Compression, limit: Option<Rate>) -> Packing {
        let mut packing = Packing { wish, ..Packing::default() };
        if let Some(rate) = limit {
            packing.advisor.limit(rate.bytes());
            packing.delta_advisor.limit(rate.bytes());
        }
        packing
    }

    /// What is known of the other side. Nothing was sent for a while.
    pub(crate) fn begin(&mut self, allowed: bool, deltas_allowed: bool) {
        (self.allowed, self.deltas_allowed) = (allowed, deltas_allowed);
        self.full = None;
    }

    /// Whether the other side takes packed state.
    pub(crate) fn allow_state(&mut self, allowed: bool) {
        self.state_allowed = allowed;
    }

    /// Packs a piece of the state. It is said in words, and becomes a third to a tenth in the time that it takes to send it over 10
    /// Gbit/s: whatever is known of the link, that is worth it.
    pub(crate) fn pack_state<'a>(&'a mut self, piece: &'a [u8]) -> Option<PackedState<'a>> {
        if !self.state_allowed || self.wish == Compression::Never || piece.len() < STATE_MIN {
            return None;
        }
        packed::pack(piece, &mut self.buffer)?;
        Some(PackedState { length: piece.len() as u32, block: &self.buffer })
    }

    /// Over another link nothing is remembered.
    pub(crate) fn forget(&mut self) {
        self.memory = Memory::default();
    }

    /// The pages that come next are some of this stage that were sent before; `None`: they were not.
    pub(crate) fn send_again(&mut self, stage: Option<u32>) {
        self.again = stage;
    }

    /// Every piece is to be packed.
    pub(crate) fn is_certain(&self) -> bool {
        self.allowed && self.wish == Compression::Always
    }

    /// Whether the next piece is to be.
    pub(crate) fn wants(&mut self) -> bool {
        self.allowed
            && match self.wish {
                Compression::Auto => self.advisor.wants(),
                Compression::Always => true,
                Compression::Never => false,
            }
    }

    /// So many bytes left in that time, and had to wait.
    pub(crate) fn carried(&mut self, bytes: u64, time: std::time::Duration) {
        self.advisor.carried(bytes, nanoseconds(time));
        self.delta_advisor.carried(bytes, nanoseconds(time));
    }

    /// There is no room in the link, and so many bytes have left in all.
    pub(crate) fn blocked(&mut self, sent: u64) {
        let now = Instant::now();
        if let Some((before, gone)) = self.full.replace((now, sent)) {
            match sent.saturating_sub(gone) {
                0 => self.full = Some((before, gone)),
                bytes if bytes < FLOWING_BYTES => self.carried(bytes, now - before),
                _ => {
                    self.advisor.flowed();
                    self.delta_advisor.flowed();
                }
            }
        }
    }

    /// What has changed of pages since they were sent, if that is worth it; what follows behind the payload.
    pub(crate) fn delta(&mut self, runs: &Runs, pages: &[u8]) -> Option<(Delta, Vec<u8>)> {
        let stage = self.again.filter(|_| self.deltas_allowed)?;
        let wanted = match self.wish {
            Compression::Auto => self.delta_advisor.wants(),
            Compression::Always => true,
            Compression::Never => false,
        };
        if !wanted {
            return None;
        }
        let (begin, known) = (Instant::now(), self.memory.known(stage, runs) as u64);
        let delta = self.memory.pack(stage, runs, pages, &mut self.buffer)?;
        // Of what is seen for the first time nothing can be learned.
        if known * 2 >= runs.pages() {
            let (from, to) = (pages.len() as u64, u64::from(delta.length));
            self.delta_advisor.packed(from, to, nanoseconds(begin.elapsed()));
        }
        self.delta_pages += known;
        Some((delta, self.buffer.clone()))
    }

    /// Packs pages, if that is worth it.
    pub(crate) fn pack(&mut self, pages: &[u8]) -> Option<Vec<u8>> {
        if !self.wants() {
            return None;
        }
        let begin = Instant::now();
        let length = packed::pack(pages, &mut self.buffer);
        let to = length.map_or(pages.len() as u64, u64::from);
        self.advisor.packed(pages.len() as u64, to, nanoseconds(begin.elapsed()));
        length.map(|_| self.buffer.clone())
    }
}

fn nanoseconds(time: std::time::Duration) -> Duration {
    Duration::from_nanoseconds(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_packed_for_who_does_not_take_it_or_does_not_want_it() {
        let pages = vec![7; 64 << 10];
        for (wish, allowed, packs) in [
            ("always", true, true),
            ("always", false, false),
            ("never", true, false),
            // Nothing is known of the link.
            ("auto", true, false),
        ] {
            let mut packing = Packing::new(wish.parse().unwrap(), None);
            packing.begin(allowed, false);
            assert_eq!(packing.pack(&pages).is_some(), packs, "{wish} {allowed}");
        }
        assert!("sometimes".parse::<Compression>().is_err());
    }

    #[test]
    fn a_limit_is_a_slow_link() {
        let mut packing = Packing::new(Compression::Auto, Rate::new(1_000_000));
        packing.begin(true, false);
        assert!(packing.pack(&[7; 64 << 10]).is_some_and(|packed| packed.len() < 1_000));
        packing.begin(false, false);
        assert_eq!(packing.pack(&[7; 64 << 10]), None);
    }

    #[test]
    fn deltas_are_of_what_was_sent_before_to_who_takes_them() {
        const STAGE: u32 = godwit_handoff::frame::STAGE_FIRST;
        let run = godwit_handoff::frame::Run { owner: STAGE, start: 7, count: 4 };
        let runs = Runs { page_shift: 12, body_checksum: None, runs: vec![run] };
        let pages: Vec<u8> = (0..4 * 4096_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let lengths = |wish: &str, allowed: bool, again: Option<u32>| {
            let mut packing = Packing::new(wish.parse().unwrap(), Rate::new(1_000_000));
            packing.begin(true, allowed);
            packing.send_again(again);
            let lengths = [(); 2].map(|()| {
                packing.delta(&runs, &pages).map(|(delta, bytes)| {
                    assert_eq!(delta.length as usize, bytes.len());
                    bytes.len()
                })
            });
            (lengths.map(Option::unwrap_or_default), packing.delta_pages)
        };
        for wish in ["always", "auto"] {
            let ([first, second], known) = lengths(wish, true, Some(STAGE));
            assert!(first >= second * 20 && second > 0 && known == 4, "{wish}: {first} {second} {known}");
            assert_eq!(lengths(wish, false, Some(STAGE)), ([0, 0], 0));
            assert_eq!(lengths(wish, true, None), ([0, 0], 0));
        }
        assert_eq!(lengths("never", true, Some(STAGE)), ([0, 0], 0));
    }
}
