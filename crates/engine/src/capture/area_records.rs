//! What the kernel has written down of each area of a frozen process, read in one go, so that nothing of them need be told by smaps: that
//! looks at every page, and costs 20 ms where there is a gigabyte.
//!
//! A record's flags are not interpreted: smaps tells their meaning before the freeze, of areas that are not changed meanwhile, and areas whose
//! flags are the same number have the same ones. Whether the records are understood is found out each time: they have to be of just the
//! areas that there are, with the protections that these have. A number that has no meaning yet leaves all to smaps.
use godwit_linux::kernel_types::{KernelTypes, Place};
use godwit_linux::proc::{maps, smaps};
use godwit_linux::task_iterator::{Source, TaskIterator, room};
use std::collections::BTreeMap;

/// The kernel's record of one area.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Record {
    start: u64,
    end: u64,
    flags: u64,
    /// Another one each time something of the area is changed: the kernel's own mark for those who look at it without locking the
    /// whole space.
    version: u32,
    /// How many groups of areas may have pages of this one, since forks, itself counted; 0: it has none.
    families: u32,
}

/// Reads those of one process.
#[derive(Debug)]
struct Reader(TaskIterator);

impl Reader {
    /// `None`: the kernel does not allow it, or its records are not those that are known here.
    fn of(tid: i32, types: &KernelTypes) -> Option<Reader> {
        const WORD: u32 = 8;
        const HALF: u32 = 4;
        let places = types.members("vm_area_struct", ["vm_start", "vm_end", "vm_flags", "anon_vma", "vm_lock_seq"])?;
        let [start, end, flags, family, version] = places;
        let [root, count] = types.members("anon_vma", ["root", "refcount"])?;
        let has = |place: Option<Place>, bytes| place.filter(|place| place.bytes == bytes && place.bits.is_none());
        let copy = |place: Place| Source { pointers: Vec::new(), offset: place.offset, bytes: place.bytes };
        let pointers = vec![has(family, WORD)?.offset, has(root, WORD)?.offset];
        let source = [
            copy(has(start, WORD)?),
            copy(has(end, WORD)?),
            copy(has(flags, WORD)?),
            copy(has(version, HALF)?),
            Source { pointers, offset: has(count, HALF)?.offset, bytes: HALF },
        ];
        TaskIterator::of_areas(tid, types, &source).ok().map(Reader)
    }

    fn read(&self) -> Option<Vec<Record>> {
        const WORD: usize = 8;
        const _: () = assert!(room(4) as usize == WORD);
        let raw = self.0.read().ok()?;
        let word = |record: &[u8], index: usize| Some(u64::from_le_bytes(*record.get(index * WORD..)?.first_chunk()?));
        let record = |record| {
            let (version, families) = (word(record, 3)? as u32, word(record, 4)? as u32);
            Some(Record { start: word(record, 0)?, end: word(record, 1)?, flags: word(record, 2)?, version, families })
        };
        raw.chunks_exact(self.0.record_bytes()).map(record).collect()
    }
}

/// What flags of a record mean, by their number: an area of which smaps has told it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Meanings {
    known: BTreeMap<u64, smaps::AreaFlags>,
    /// It is no area of one space alone, and has no record.
    vsyscall: Option<smaps::AreaFlags>,
}

impl Meanings {
    /// What smaps has told between two looks at the records, as far as nothing of the area was changed meanwhile. `None`: it has told two
    /// things of one number.
    fn learn(before: &[Record], told: &[smaps::AreaFlags], after: &[Record]) -> Option<Meanings> {
        let mut meanings = Meanings::default();
        for area in told {
            if area.area.name == b"[vsyscall]" {
                meanings.vsyscall = Some(area.clone());
                continue;
            }
            let find = |records: &[Record]| {
                let at = records.binary_search_by_key(&area.area.start, |record| record.start).ok()?;
                records.get(at).filter(|record| record.end == area.area.end).copied()
            };
            let (Some(first), Some(last)) = (find(before), find(after)) else { continue };
            if (first.flags, first.version) != (last.flags, last.version) {
                continue;
            }
            let known = meanings.known.entry(first.flags).or_insert_with(|| area.clone());
            if (known.flags, &known.unknown, known.protection_key) != (area.flags, &area.unknown, area.protection_key) {
                return None;
            }
        }
        Some(meanings)
    }

    fn cover(&self, records: &[Record]) -> bool {
        records.iter().all(|record| self.known.contains_key(&record.flags))
    }

    /// The areas of `listed`, which these are the records of. `None`: smaps has to tell them.
    fn areas(&self, records: &[Record], listed: &[maps::Area]) -> Option<Vec<smaps::AreaFlags>> {
        let mut records = records.iter();
        let area = |area: &maps::Area| {
            if area.name == b"[vsyscall]" {
                return self.vsyscall.clone().filter(|told| told.area == *area);
            }
            let record = records.find(|record| record.start >= area.start)?;
            let like =
                self.known.get(&record.flags).filter(|_| (record.start, record.end) == (area.start, area.end))?;
            let has = |flag: smaps::Flags| like.flags.contains(flag);
            let protections = (has(smaps::Flags::READ), has(smaps::Flags::WRITE), has(smaps::Flags::EXECUTE));
            // Huge pages are of several sizes.
            let is_right = protections == (area.read, area.write, area.execute) && !has(smaps::Flags::HUGETLB);
            // Pages that are merged because they are equal are others', too, without any fork.
            let is_alone = record.families <= 1 && !has(smaps::Flags::MERGEABLE);
            is_right.then(|| smaps::AreaFlags {
                area: area.clone(),
                flags: like.flags,
                unknown: like.unknown.clone(),
                protection_key: like.protection_key,
                kernel_page_size: like.kernel_page_size,
                shared_bytes: if is_alone { 0 } else { u64::MAX },
            })
        };
        listed.iter().map(area).collect()
    }
}

/// Of one process, what it takes to know its areas from records alone.
#[derive(Debug)]
pub(crate) struct AreaRecords {
    reader: Reader,
    meanings: Meanings,
}

impl AreaRecords {
    /// Learns what the flags of a running process's areas mean. `None`: smaps has to tell them when it is frozen.
    /// `before`: what was learnt of it already.
    pub(crate) fn of(pid: i32, types: &KernelTypes, before: Option<&AreaRecords>) -> Option<AreaRecords> {
        let reader = Reader::of(pid, types)?;
        let (first, told, last) = (reader.read()?, smaps::read(pid).ok()?, reader.read()?);
        let mut meanings = Meanings::learn(&first, &told, &last)?;
        for (flags, area) in before.iter().flat_map(|before| &before.meanings.known) {
            meanings.known.entry(*flags).or_insert_with(|| area.clone());
        }
        Some(AreaRecords { reader, meanings })
    }

    /// Whether all of the process's areas could be known now.
    pub(crate) fn suffice(&self) -> bool {
        self.reader.read().is_some_and(|records| self.meanings.cover(&records))
    }

    /// The areas of a frozen process that are listed.
    pub(super) fn areas(&self, listed: &[maps::Area]) -> Option<Vec<smaps::AreaFlags>> {
        self.meanings.areas(&self.reader.read()?, listed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(index: usize, flags: u64) -> Record {
        let start = (index as u64 + 16) << 12;
        Record { start, end: start + 4096, flags, version: 7, families: 1 }
    }

    fn told(own: &[smaps::AreaFlags], record: &Record, like: usize) -> smaps::AreaFlags {
        let area = maps::Area { start: record.start, end: record.end, ..own[like].area.clone() };
        smaps::AreaFlags { area, ..own[like].clone() }
    }

    #[test]
    fn what_was_changed_meanwhile_tells_nothing() {
        let own = smaps::read(std::process::id() as i32).unwrap();
        let other = own.iter().position(|area| area.flags != own[0].flags).unwrap();
        let records = [record(0, 5), record(1, 6), record(2, 5)];
        let areas: Vec<_> =
            records.iter().map(|record| told(&own, record, if record.flags == 5 { 0 } else { other })).collect();
        let all = Meanings::learn(&records, &areas, &records).unwrap();
        assert_eq!(all.known.keys().collect::<Vec<_>>(), [&5, &6]);
        assert!(all.cover(&records) && !all.cover(&[record(3, 7)]));
        // Changed and changed back: only the version tells.
        let mut after = records;
        after[1].version += 1;
        let some = Meanings::learn(&records, &areas, &after).unwrap();
        assert_eq!(some.known.keys().collect::<Vec<_>>(), [&5]);
        after[1] = Record { end: after[1].end + 4096, ..records[1] };
        assert_eq!(Meanings::learn(&records, &areas, &after), Some(some.clone()));
        after[1] = record(1, 8);
        assert_eq!(Meanings::learn(&records, &areas, &after), Some(some));
        // Two things of one number.
        let mut contrary = areas;
        contrary[2].flags = contrary[1].flags;
        assert_eq!(Meanings::learn(&records, &contrary, &records), None);
    }

    #[test]
    fn own_areas_are_as_smaps_tells_them() {
        let own = std::process::id() as i32;
        let Ok(types) = KernelTypes::read() else { return println!("skipped: the kernel does not tell its types") };
        if Reader::of(own, &types).is_none() {
            return println!("skipped: it takes CAP_BPF and CAP_PERFMON");
        }
        let flags = |areas: &[smaps::AreaFlags]| -> Vec<_> {
            areas
                .iter()
                .map(|area| (area.area.clone(), area.flags, area.protection_key, area.kernel_page_size))
                .collect()
        };
        // Other tests map things meanwhile.
        let compared = (0..200).find_map(|_| {
            let records = AreaRecords::of(own, &types, None)?;
            let (all, listed, whole) = (records.reader.read()?, maps::read(own).ok()?, smaps::read(own).ok()?);
            if all != records.reader.read()? || listed != maps::read(own).ok()? {
                return None;
            }
            let areas = records.meanings.areas(&all, &listed)?;
            Some((areas, whole, records.meanings, all, listed))
        });
        let (areas, whole, meanings, all, listed) = compared.unwrap();
        assert_eq!(flags(&areas), flags(&whole));
        // An area more, flags that nobody has told, another protection: smaps has to tell them all.
        let changed = |change: &dyn Fn(&mut Vec<Record>)| {
            let mut all = all.clone();
            change(&mut all);
            meanings.areas(&all, &listed)
        };
        assert!(changed(&|_| ()).is_some());
        assert_eq!(changed(&|all| _ = all.remove(3)), None);
        assert_eq!(changed(&|all| all[3].flags ^= 1 << 62), None);
        assert_eq!(changed(&|all| all[3].end += 4096), None);
        let mut other = listed.clone();
        other[0].execute = !other[0].execute;
        assert_eq!(meanings.areas(&all, &other), None);
    }

    #[test]
    fn pages_that_a_fork_may_share_are_known() {
        let Ok(types) = KernelTypes::read() else { return println!("skipped: the kernel does not tell its types") };
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id() as i32;
        let is_alone = |pid: i32, name: &[u8]| {
            let found = AreaRecords::of(pid, &types, None)?.areas(&maps::read(pid).ok()?)?;
            found.into_iter().find(|area| area.area.name == name).map(|area| area.shared_bytes == 0)
        };
        // Whoever has executed a program shares nothing.
        let alone = (0..500).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(2));
            let runs = std::fs::read(format!("/proc/{pid}/comm")).is_ok_and(|name| name == b"sleep\n");
            if runs { is_alone(pid, b"[stack]") } else { None }
        });
        child.kill().unwrap();
        child.wait().unwrap();
        let Some(alone) = alone else { return println!("skipped: it takes CAP_BPF and CAP_PERFMON") };
        assert!(alone);
        let script = "x=$(seq 50000); (sleep 5; true) & echo started; wait";
        let mut shell = std::process::Command::new("sh");
        let shell = shell.args(["-c", script]).stdout(std::process::Stdio::piped()).spawn();
        let mut shell = shell.unwrap();
        let mut line = [0; 8];
        std::io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut line).unwrap();
        let forked = is_alone(shell.id() as i32, b"[heap]");
        let children = format!("/proc/{0}/task/{0}/children", shell.id());
        for child in std::fs::read_to_string(children).unwrap_or_default().split_whitespace() {
            std::process::Command::new("kill").args(["-9", child]).status().unwrap();
        }
        shell.kill().unwrap();
        shell.wait().unwrap();
        assert_eq!(forked, Some(false));
    }
}
