//! What the kernel has written down of each area of a frozen process, read in one go, so that most of them need not be told by smaps,
//! which costs ten times as much.
//!
//! A record's flags are not interpreted: smaps tells them of a few areas, and areas whose flags are the same number have the same ones.
//! Whether the records are understood is found out each time: they have to be of just the areas that there are, with the protections
//! that these have.
use godwit_linux::kernel_types::KernelTypes;
use godwit_linux::proc::{maps, smaps, smaps_rollup};
use godwit_linux::task_iterator::{Source, TaskIterator};
use std::collections::BTreeMap;

/// The kernel's record of one area.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Record {
    pub(super) start: u64,
    pub(super) end: u64,
    flags: u64,
}

/// Reads those of one process.
#[derive(Debug)]
pub(super) struct Reader(TaskIterator);

impl Reader {
    /// `None`: the kernel does not allow it, or its records are not those that are known here.
    pub(super) fn of(tid: i32, types: &KernelTypes) -> Option<Reader> {
        const WORD: u32 = 8;
        let [start, end, flags] = types.members("vm_area_struct", ["vm_start", "vm_end", "vm_flags"])?;
        let places = [start?, end?, flags?];
        if places.iter().any(|place| place.bytes != WORD || place.bits.is_some()) {
            return None;
        }
        let source = places.map(|place| Source { pointers: Vec::new(), offset: place.offset, bytes: WORD });
        TaskIterator::of_areas(tid, types, &source).ok().map(Reader)
    }

    pub(super) fn read(&self) -> Option<Vec<Record>> {
        let raw = self.0.read().ok()?;
        let word = |record: &[u8], index: usize| Some(u64::from_le_bytes(*record.get(index * 8..)?.first_chunk()?));
        let record = |record| Some(Record { start: word(record, 0)?, end: word(record, 1)?, flags: word(record, 2)? });
        raw.chunks_exact(self.0.record_bytes()).map(record).collect()
    }
}

/// Of how many areas from the first one on, and from which one on to the last, smaps has to tell so that all flags occur; as few as
/// possible.
pub(super) fn samples(records: &[Record]) -> (usize, usize) {
    let mut places: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
    for (index, record) in records.iter().enumerate() {
        places.entry(record.flags).or_insert((index, index)).1 = index;
    }
    let mut places: Vec<(usize, usize)> = places.into_values().collect();
    places.sort_unstable_by_key(|(_, last)| *last);
    // Those that occur last are told at the end, the others at the beginning.
    let choices = (0..=places.len()).map(|count| {
        let (early, late) = places.split_at(count);
        let first = early.iter().map(|(first, _)| first + 1).max().unwrap_or(0);
        (first, late.first().map_or(records.len(), |(_, last)| *last))
    });
    choices.min_by_key(|(first, last)| first + records.len() - last).unwrap_or((0, 0))
}

/// What there is to be known of all areas.
#[derive(Debug)]
pub(super) struct Records {
    all: Vec<Record>,
    /// No other process has a page of anonymous memory of this one.
    alone: bool,
}

impl Records {
    /// Reads them of a frozen process.
    pub(super) fn read(tid: i32, reader: &Reader) -> Option<Records> {
        let all = reader.read()?;
        // What is divided among nobody else is as much as before.
        let alone = smaps_rollup::read(tid).is_ok_and(|sizes| sizes.anonymous == sizes.anonymous_whole);
        Some(Records { all, alone })
    }

    /// The areas of `listed`, when smaps has told some of them. `None`: it has to tell them all.
    pub(super) fn areas(&self, told: &[smaps::AreaFlags], listed: &[maps::Area]) -> Option<Vec<smaps::AreaFlags>> {
        let mut known: BTreeMap<u64, &smaps::AreaFlags> = BTreeMap::new();
        let mut records = self.all.iter().peekable();
        for area in told {
            while records.next_if(|record| record.start < area.area.start).is_some() {}
            let Some(record) = records.peek() else { break };
            // Where programs lie came later, or was gone by then; what is like no record tells nothing of any.
            if (record.start, record.end) != (area.area.start, area.area.end) {
                continue;
            }
            let first = *known.entry(record.flags).or_insert(area);
            let is_same =
                (first.flags, &first.unknown, first.protection_key) == (area.flags, &area.unknown, area.protection_key);
            if !is_same {
                return None;
            }
        }
        let mut records = self.all.iter();
        let area = |area: &maps::Area| {
            if area.name == b"[vsyscall]" {
                // It is no area of this space alone, and has no record.
                return told.iter().find(|told| told.area == *area).cloned();
            }
            let record = records.find(|record| record.start >= area.start)?;
            let like = known.get(&record.flags).filter(|_| (record.start, record.end) == (area.start, area.end))?;
            let has = |flag: smaps::Flags| like.flags.contains(flag);
            let protections = (has(smaps::Flags::READ), has(smaps::Flags::WRITE), has(smaps::Flags::EXECUTE));
            // Huge pages are of several sizes.
            let is_right = protections == (area.read, area.write, area.execute) && !has(smaps::Flags::HUGETLB);
            is_right.then(|| smaps::AreaFlags {
                area: area.clone(),
                shared_bytes: if self.alone { 0 } else { u64::MAX },
                ..(*like).clone()
            })
        };
        listed.iter().map(area).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(index: usize, flags: u64) -> Record {
        let start = (index as u64 + 16) << 12;
        Record { start, end: start + 4096, flags }
    }

    fn records(flags: &[u64]) -> Vec<Record> {
        flags.iter().enumerate().map(|(index, flags)| record(index, *flags)).collect()
    }

    #[test]
    fn as_few_as_possible_are_told_by_smaps() {
        assert_eq!(samples(&records(&[1, 2, 3, 3, 3, 3, 2, 1])), (0, 5));
        assert_eq!(samples(&records(&[1, 2, 3, 3, 3, 3, 3, 4])), (2, 6));
        assert_eq!(samples(&records(&[1, 1, 1, 1])), (0, 3));
        assert_eq!(samples(&records(&[1, 1, 2, 1, 1, 1, 1, 3, 1, 1])), (3, 7));
        assert_eq!(samples(&[]), (0, 0));
    }

    #[test]
    fn own_areas_are_as_smaps_tells_them() {
        let own = std::process::id() as i32;
        let Ok(types) = KernelTypes::read() else { return println!("skipped: the kernel does not tell its types") };
        let Some(reader) = Reader::of(own, &types) else {
            return println!("skipped: it takes CAP_BPF and CAP_PERFMON");
        };
        // Their stacks are alike, so that some areas need not be told.
        let gate = std::sync::Mutex::new(());
        std::thread::scope(|scope| {
            let closed = gate.lock();
            (0..8).for_each(|_| drop(scope.spawn(|| drop(gate.lock()))));
            compare(own, &reader);
            drop(closed);
        });
    }

    fn compare(own: i32, reader: &Reader) {
        // Other tests map things meanwhile.
        let flags = |areas: &[smaps::AreaFlags]| -> Vec<_> {
            areas.iter().map(|area| (area.area.clone(), area.flags, area.kernel_page_size)).collect()
        };
        let compared = (0..200).find_map(|_| {
            let (before, listed, whole) = (reader.read()?, maps::read(own).ok()?, smaps::read(own).ok()?);
            let records = Records::read(own, reader)?;
            if before != records.all || listed != maps::read(own).ok()? {
                return None;
            }
            let (first, last) = samples(&records.all);
            let told: Vec<smaps::AreaFlags> = [&whole[..first], &whole[last..]].concat();
            let areas = records.areas(&told, &listed)?;
            Some((flags(&areas), flags(&whole), records, told, listed))
        });
        let (areas, whole, records, told, listed) = compared.unwrap();
        assert_eq!(areas, whole);
        // What is in one of the lists only for a moment makes no difference.
        let mut more = told.clone();
        more.insert(
            1,
            smaps::AreaFlags {
                area: maps::Area { start: told[0].area.end, ..told[0].area.clone() },
                ..told[0].clone()
            },
        );
        more[1].area.end = more[1].area.start + 4096;
        assert_eq!(records.areas(&more, &listed).map(|areas| flags(&areas)), Some(whole));
        // An area more, flags that nobody has told, another protection: smaps has to tell them all.
        let changed = |change: &dyn Fn(&mut Vec<Record>)| {
            let mut all = records.all.clone();
            change(&mut all);
            Records { all, alone: false }.areas(&told, &listed)
        };
        // Of an area that smaps has not told: what it tells of one is true of the record, whatever its flags are.
        let is_untold = |record: &Record| told.iter().all(|area| area.area.start != record.start);
        let is_listed = |record: &Record| listed.iter().any(|area| area.start == record.start);
        let middle = records.all.iter().position(|record| is_untold(record) && is_listed(record)).unwrap();
        assert_eq!(changed(&|all| _ = all.remove(middle)), None);
        assert_eq!(changed(&|all| all[middle].flags ^= 1 << 62), None);
        let mut other = listed.clone();
        other[0].execute = !other[0].execute;
        assert_eq!(records.areas(&told, &other), None);
    }
}
