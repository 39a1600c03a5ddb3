//! Packing of pages on their way, where the link is slower than that takes: what was measured, and the one buffer that it needs.
use godwit_deterministic::Duration;
use godwit_handoff::bucket::Rate;
use godwit_handoff::packed::{self, Advisor};
use std::str::FromStr;
use std::time::Instant;

/// What a destination says that it can do.
pub(crate) const CAPABILITY: &str = "packed-pages";
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
    advisor: Advisor,
    /// When there was no room in the link, and how many bytes had left then.
    full: Option<(Instant, u64)>,
    buffer: Vec<u8>,
    /// Pages that were sent packed.
    pub(crate) pages: u64,
}

impl Packing {
    /// `limit`: the link is not to carry more.
    pub(crate) fn new(wish: Compression, limit: Option<Rate>) -> Packing {
        let mut packing = Packing { wish, ..Packing::default() };
        if let Some(rate) = limit {
            packing.advisor.limit(rate.bytes());
        }
        packing
    }

    /// What is known of the other side. Nothing was sent for a while.
    pub(crate) fn begin(&mut self, allowed: bool) {
        self.allowed = allowed;
        self.full = None;
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
    }

    /// There is no room in the link, and so many bytes have left in all.
    pub(crate) fn blocked(&mut self, sent: u64) {
        let now = Instant::now();
        if let Some((before, gone)) = self.full.replace((now, sent)) {
            match sent.saturating_sub(gone) {
                0 => self.full = Some((before, gone)),
                bytes if bytes < FLOWING_BYTES => self.advisor.carried(bytes, nanoseconds(now - before)),
                _ => self.advisor.flowed(),
            }
        }
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
            packing.begin(allowed);
            assert_eq!(packing.pack(&pages).is_some(), packs, "{wish} {allowed}");
        }
        assert!("sometimes".parse::<Compression>().is_err());
    }

    #[test]
    fn a_limit_is_a_slow_link() {
        let mut packing = Packing::new(Compression::Auto, Rate::new(1_000_000));
        packing.begin(true);
        assert!(packing.pack(&[7; 64 << 10]).is_some_and(|packed| packed.len() < 1_000));
        packing.begin(false);
        assert_eq!(packing.pack(&[7; 64 << 10]), None);
    }
}
