//! Small areas of a running root, when it has many: the source tells the destination of them before the tree is stopped, so that
//! they are there by then. Each costs a few calls, which are more than what is put into it.
use godwit_image::memory::{Area, AreaFlags, Backing, PAGE_BYTES};
use godwit_image::page_set::{PageSet, Run};
use godwit_linux::pagemap::Pagemap;
use serde::{Deserialize, Serialize};

/// Of fewer it does not pay.
const AREAS_MIN: usize = 64;
/// What of them is told.
const AREAS_MAX: usize = 32 << 10;
const RUNS_MAX: usize = 32 << 10;
const PAGES_BYTES_MAX: u64 = 256 << 20;
/// An area this large is none of them.
pub(crate) const AREA_BYTES_END: u64 = 4 << 20;
const ADDRESS_MAX: u64 = 0x7fff_ffff_f000;

/// How they travel, with many of them in one message: distances instead of addresses, in pages.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Pieces {
    /// Pages from the end of the one before, length in pages, PROT_* bits, [`AreaFlags`] bits.
    areas: Vec<(u64, u64, u32, u32)>,
    /// The pages that they have: distances and lengths of runs.
    present: Vec<(u64, u64)>,
}

/// Adds up distances; none where the sum is no address.
fn ranges(distances: impl Iterator<Item = (u64, u64)>) -> Option<Vec<Run>> {
    let mut end = 0_u64;
    distances
        .map(|(distance, length)| {
            let start = distance.checked_mul(PAGE_BYTES)?.checked_add(end)?;
            end = length.checked_mul(PAGE_BYTES)?.checked_add(start)?;
            (start < end && start >= 0x1_0000 && end <= ADDRESS_MAX).then_some(Run { start, end })
        })
        .collect()
}

/// The reverse of [`ranges`].
fn distances(ranges: impl Iterator<Item = Run>) -> Vec<(u64, u64)> {
    let mut end = 0;
    ranges
        .map(|range| {
            let distance = (range.start - end) / PAGE_BYTES;
            end = range.end;
            (distance, range.bytes() / PAGE_BYTES)
        })
        .collect()
}

/// Flags that an area may have.
fn is_plain(flags: u32) -> bool {
    flags & !AreaFlags::NO_HUGE_PAGE == 0
}

impl Pieces {
    /// Looks at a running process, whose areas of anonymous memory these are, in ascending order.
    pub(crate) fn of(pid: i32, areas: impl Iterator<Item = Area>) -> Pieces {
        let is_one = |area: &Area| {
            let nameless = area.name.is_empty() && area.protection_key == 0;
            nameless && is_plain(area.flags) && area.bytes() < AREA_BYTES_END && area.start >= 0x1_0000
        };
        let areas: Vec<Area> = areas.filter(is_one).take(AREAS_MAX).collect();
        let (Some(first), Some(last), true) = (areas.first(), areas.last(), areas.len() >= AREAS_MIN) else {
            return Pieces::default();
        };
        let mut present = PageSet::new();
        // It runs: what cannot be read now is not told.
        let looked = Pagemap::open(pid).and_then(|pagemap| {
            pagemap.anonymous_pages(first.start, last.end, |start, end, _| present.insert(Run { start, end }))
        });
        let own: PageSet = areas.iter().map(|area| Run { start: area.start, end: area.end }).collect();
        let mut present = present.intersection(&own);
        if looked.is_err() || present.runs().len() > RUNS_MAX || present.bytes() > PAGES_BYTES_MAX {
            present = PageSet::new();
        }
        let places = distances(areas.iter().map(|area| Run { start: area.start, end: area.end }));
        let told = places.iter().zip(&areas);
        Pieces {
            areas: told.map(|((distance, length), area)| (*distance, *length, area.protection, area.flags)).collect(),
            present: distances(present.runs().iter().copied()),
        }
    }

    /// Areas, ascending and apart, and pages that lie in them; none if what came from another host is not that.
    pub(crate) fn told(&self) -> Option<(Vec<Area>, PageSet)> {
        let places = ranges(self.areas.iter().map(|(distance, length, ..)| (*distance, *length)))?;
        let pages: PageSet = ranges(self.present.iter().copied())?.into_iter().collect();
        let own: PageSet = places.iter().copied().collect();
        let kinds = self.areas.iter().map(|(.., protection, flags)| (*protection, *flags));
        let is_sound = kinds.clone().all(|(protection, flags)| protection < 8 && is_plain(flags))
            && places.iter().all(|place| place.bytes() < AREA_BYTES_END)
            && pages.difference(&own).is_empty()
            && self.areas.len() <= AREAS_MAX
            && self.present.len() <= RUNS_MAX
            && pages.bytes() <= PAGES_BYTES_MAX;
        let area = |(place, (protection, flags)): (Run, (u32, u32))| Area {
            start: place.start,
            end: place.end,
            protection,
            flags,
            protection_key: 0,
            backing: Backing::Anonymous,
            name: String::new(),
        };
        is_sound.then(|| (places.into_iter().zip(kinds).map(area).collect(), pages))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(start: u64, pages: u64, protection: u32, flags: u32) -> Area {
        let (backing, name) = (Backing::Anonymous, String::new());
        Area { start, end: start + pages * PAGE_BYTES, protection, flags, protection_key: 0, backing, name }
    }

    #[test]
    fn what_is_told_is_what_was_seen() {
        let start = 0x7000_0000_0000;
        let small = |index: u64| area(start + index * 0x4000, 1 + index % 3, index as u32 % 8, 0);
        let mut areas: Vec<Area> = (0..100).map(small).collect();
        areas[7].flags = AreaFlags::NO_HUGE_PAGE;
        let own = std::process::id() as i32;
        let pieces = Pieces::of(own, areas.clone().into_iter());
        assert_eq!(pieces.told().unwrap(), (areas.clone(), PageSet::new()));
        // What differs in more than that is left out, and what is large; few are none.
        areas[3].flags = AreaFlags::SEALED;
        areas[4].end = areas[4].start + 0x1000;
        areas.push(area(start + (1 << 40), AREA_BYTES_END / PAGE_BYTES, 3, 0));
        let told = Pieces::of(own, areas.clone().into_iter()).told().unwrap().0;
        assert_eq!(told.len(), 99);
        assert!(told.contains(&areas[4]) && !told.contains(&areas[3]));
        assert_eq!(Pieces::of(own, areas.into_iter().take(AREAS_MIN - 1)), Pieces::default());
    }

    #[test]
    fn nonsense_is_refused() {
        let good = Pieces { areas: vec![(0x1000, 2, 3, 0), (0, 1, 1, 0)], present: vec![(0x1001, 2)] };
        let (areas, pages) = good.told().unwrap();
        assert_eq!((areas[1].start, pages.bytes()), (0x100_2000, 0x2000));
        let bad = |change: &dyn Fn(&mut Pieces)| {
            let mut pieces = good.clone();
            change(&mut pieces);
            assert_eq!(pieces.told(), None, "{pieces:?}");
        };
        bad(&|pieces| pieces.areas[0].1 = 0);
        bad(&|pieces| pieces.areas[0].0 = 0);
        bad(&|pieces| pieces.areas[0].0 = u64::MAX);
        bad(&|pieces| pieces.areas[1].0 = u64::MAX >> 12);
        bad(&|pieces| pieces.areas[1].1 = AREA_BYTES_END / PAGE_BYTES);
        bad(&|pieces| pieces.areas[1].2 = 8);
        bad(&|pieces| pieces.areas[1].3 = AreaFlags::SHARED);
        bad(&|pieces| pieces.present[0].1 = 3);
        bad(&|pieces| pieces.areas = vec![(16, 1, 3, 0); AREAS_MAX + 1]);
    }
}
