//! What /proc tells of a frozen tree at some length, read by a second thread while the first one, which alone may trace, works
//! with the processes. Whoever finds nothing here reads it himself.
use super::area_records::AreaRecords;
use super::bookmark::Bookmarks;
use crate::freeze::{FrozenProcess, FrozenTree, Stopped};
use godwit_linux::proc::{Error, maps, smaps, status};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::Duration;

/// Whether a second thread pays for a running tree of these processes, each with how many threads it has: of a small one it takes the processor that the tree's own
/// threads need to answer.
pub(crate) fn pays(processes: &[(i32, usize)]) -> bool {
    const PROCESSES: usize = 4;
    const THREADS: usize = 16;
    let is_large = |(pid, threads): &(i32, usize)| *threads > THREADS || has_much(*pid);
    processes.len() > PROCESSES || processes.iter().any(is_large)
}

/// Whether a process has so many areas, or so much memory in them, that smaps takes long.
pub(crate) fn has_much(pid: i32) -> bool {
    /// Text of some 300 areas.
    const AREAS_BYTES: u64 = 24 << 10;
    /// For the flags of areas the kernel walks through all of their pages: a millisecond of it.
    const PAGES: u64 = 16 << 10;
    let areas = || std::fs::File::open(format!("/proc/{pid}/maps"));
    let length = || areas().and_then(|file| std::io::copy(&mut file.take(AREAS_BYTES), &mut std::io::sink()));
    let sizes = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let resident = sizes.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    resident.is_some_and(|pages| pages >= PAGES) || length().is_ok_and(|length| length >= AREAS_BYTES)
}

/// One thing that was read.
enum Item {
    Status(i32, Box<Result<status::Status, Error>>),
    Areas(i32, Result<Vec<smaps::AreaFlags>, Error>),
    /// Those from where another reader goes on.
    Rest(i32, Result<Vec<smaps::AreaFlags>, Error>),
    /// Areas without what only smaps tells, before anything of ours is there.
    Map(i32, Result<Vec<maps::Area>, Error>),
}

/// The first thread's end. Dropping it ends the second thread at its next item.
#[derive(Debug)]
pub(super) struct Ahead {
    items: Option<Receiver<Item>>,
    /// Threads whose status comes.
    expected: BTreeSet<i32>,
    statuses: BTreeMap<i32, Result<status::Status, Error>>,
    areas: BTreeMap<i32, Result<Vec<smaps::AreaFlags>, Error>>,
    /// Second parts of the areas, of those processes that have some.
    rests: BTreeMap<i32, Option<Result<Vec<smaps::AreaFlags>, Error>>>,
    maps: BTreeMap<i32, Result<Vec<maps::Area>, Error>>,
}

/// A living process, and what a reader of its areas is to read.
struct Subject {
    pid: i32,
    /// Its first living thread.
    first: i32,
    /// Those whose status is to be read.
    threads: Vec<i32>,
    areas_end: u64,
    /// What tells the areas without looking at their pages.
    records: Option<Arc<AreaRecords>>,
}

impl Ahead {
    /// Begins to read, in the order in which the capture asks. Long lists of areas are read from their beginning and from their
    /// bookmark on at the same time.
    pub(super) fn start(frozen: &mut FrozenTree) -> Ahead {
        let mut bookmarks = std::mem::take(&mut frozen.preparation.bookmarks);
        let living = frozen.processes.iter().filter(|process| !process.is_zombie());
        // The first thread's is kept with the process. Where the kernel's records are read few are looked at, and who they are is not
        // known yet.
        let asked = |process: &FrozenProcess| -> Vec<i32> {
            let threads = process.threads.iter().skip(1).filter(|_| !frozen.preparation.has_records(process.pid));
            threads.map(Stopped::tid).collect()
        };
        let subjects: Vec<Subject> = living
            .map(|process| {
                let (first, threads) = (process.threads[0].tid(), asked(process));
                let areas_end = bookmarks.keep_valid(first).unwrap_or(u64::MAX);
                Subject {
                    pid: process.pid,
                    first,
                    threads,
                    areas_end,
                    records: frozen.preparation.areas.get(&first).cloned(),
                }
            })
            .collect();
        let expected = subjects.iter().flat_map(|subject| subject.threads.iter().copied()).collect();
        let rests = subjects.iter().filter(|subject| subject.areas_end < u64::MAX);
        let rests = rests.map(|subject| (subject.first, None)).collect();
        let (sender, items) = channel();
        let name = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let other = sender.clone();
        let started = name("ahead").spawn(move || read(&subjects, &sender));
        let mut ahead = Ahead { items: started.is_ok().then_some(items), expected, rests, ..Ahead::none() };
        if ahead.rests.is_empty() || name("ahead, second").spawn(move || read_rests(bookmarks, &other)).is_err() {
            ahead.rests.values_mut().for_each(|rest| *rest = Some(Err(Error::Gone)));
        }
        ahead
    }

    /// Nobody reads ahead.
    pub(super) fn none() -> Ahead {
        Ahead {
            items: None,
            expected: BTreeSet::new(),
            statuses: BTreeMap::new(),
            areas: BTreeMap::new(),
            rests: BTreeMap::new(),
            maps: BTreeMap::new(),
        }
    }

    /// Whether a second thread reads.
    pub(super) fn reads(&self) -> bool {
        self.items.is_some()
    }

    /// Waits for the next item; false when there will be none.
    fn next(&mut self) -> bool {
        match self.items.as_ref().and_then(receive) {
            Some(Item::Status(tid, status)) => drop(self.statuses.insert(tid, *status)),
            Some(Item::Areas(tid, areas)) => drop(self.areas.insert(tid, areas)),
            Some(Item::Rest(tid, areas)) => drop(self.rests.insert(tid, Some(areas))),
            Some(Item::Map(tid, areas)) => drop(self.maps.insert(tid, areas)),
            None => {
                self.items = None;
                return false;
            }
        }
        true
    }

    /// The areas of the process whose first living thread is `tid`, as they were when it had just been frozen; none where nobody
    /// has read them. To be asked for before anything of ours is there.
    pub(super) fn map(&mut self, tid: i32) -> Option<Vec<maps::Area>> {
        while !self.maps.contains_key(&tid) && self.next() {}
        self.maps.remove(&tid)?.ok()
    }

    /// /proc/PID/task/TID/status.
    ///
    /// # Errors
    /// As [`status::read`].
    pub(super) fn status(&mut self, pid: i32, tid: i32) -> Result<status::Status, Error> {
        loop {
            if let Some(status) = self.statuses.remove(&tid) {
                return status;
            }
            if !self.expected.contains(&tid) || !self.next() {
                return status::read(pid, tid);
            }
        }
    }

    /// The areas of the process whose first living thread is `tid`, which were `before` when nothing of ours was there. What
    /// the second thread saw in between counts only where it is just that.
    ///
    /// # Errors
    /// As [`smaps::read`].
    pub(super) fn areas(&mut self, tid: i32, before: &[maps::Area]) -> Result<Vec<smaps::AreaFlags>, Error> {
        while (!self.areas.contains_key(&tid) || matches!(self.rests.get(&tid), Some(None))) && self.next() {}
        let Some(Ok(mut seen)) = self.areas.remove(&tid) else { return read_without_ours(tid, before) };
        match self.rests.remove(&tid) {
            None => {}
            Some(Some(Ok(mut rest))) => seen.append(&mut rest),
            Some(Some(Err(_)) | None) => return read_without_ours(tid, before),
        }
        let one_more = leave_out_ours(&mut seen, before);
        let is_same = seen.len() == before.len()
            && seen[one_more.min(seen.len())..]
                .iter()
                .zip(&before[one_more..])
                .all(|(area, known)| area.area == *known);
        if is_same { Ok(seen) } else { read_without_ours(tid, before) }
    }
}

/// The areas of a process in which programs of ours run at this moment, if they are just those `before` anything of ours came: besides
/// the mapping that programs lie in there may be a page that one of them needs for a moment.
pub(super) fn areas_meanwhile(tid: i32, before: &[maps::Area]) -> Option<Vec<smaps::AreaFlags>> {
    let mut seen = smaps::read(tid).ok()?;
    let is_known = |area: &maps::Area| {
        let next = before.partition_point(|known| known.end <= area.start);
        before.get(next).is_some_and(|known| known.start < area.end)
    };
    seen.retain(|details| is_known(&details.area));
    let is_same = seen.len() == before.len() && seen.iter().zip(before).all(|(area, known)| area.area == *known);
    is_same.then_some(seen)
}

/// Takes away the mapping that programs lie in, which may be one more than those `before`; returns where the first difference was.
fn leave_out_ours(seen: &mut Vec<smaps::AreaFlags>, before: &[maps::Area]) -> usize {
    let one_more = seen.iter().zip(before).position(|(area, known)| area.area != *known).unwrap_or(before.len());
    if seen.len() == before.len() + 1 {
        seen.remove(one_more);
    }
    one_more
}

fn read_without_ours(tid: i32, before: &[maps::Area]) -> Result<Vec<smaps::AreaFlags>, Error> {
    let mut seen = smaps::read(tid)?;
    leave_out_ours(&mut seen, before);
    Ok(seen)
}

/// Waits for an item awake, at first: who wakes somebody has him on its own processor, where it goes on working (an idle one of a
/// virtual machine counts as busy for it). `None`: none will come.
fn receive(items: &Receiver<Item>) -> Option<Item> {
    const LOOKS: u32 = 20_000;
    const PAUSE: Duration = Duration::from_micros(50);
    let mut looks = 0_u32;
    loop {
        match items.try_recv() {
            Ok(item) => return Some(item),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => {}
        }
        looks = looks.saturating_add(1);
        if looks < LOOKS { std::thread::yield_now() } else { std::thread::sleep(PAUSE) }
    }
}

fn read(subjects: &[Subject], sender: &Sender<Item>) {
    let mut known = BTreeMap::new();
    for Subject { first, records, .. } in subjects {
        let map = maps::read(*first);
        let listed = records.as_ref().and_then(|records| Some((records, map.as_ref().ok()?.clone())));
        if sender.send(Item::Map(*first, map)).is_err() {
            return;
        }
        if let Some((records, listed)) = listed {
            known.insert(*first, records.areas(&listed));
        }
    }
    for Subject { pid, first, threads, areas_end, .. } in subjects {
        for tid in threads {
            if sender.send(Item::Status(*tid, Box::new(status::read(*pid, *tid)))).is_err() {
                return;
            }
        }
        // Through a living thread: of a dead leader the kernel shows nothing.
        let areas = known.remove(first).flatten().map_or_else(|| smaps::read_before(*first, *areas_end), Ok);
        if sender.send(Item::Areas(*first, areas)).is_err() {
            return;
        }
    }
}

fn read_rests(bookmarks: Bookmarks, sender: &Sender<Item>) {
    for (tid, rest) in bookmarks.into_rests() {
        if sender.send(Item::Rest(tid, rest)).is_err() {
            return;
        }
    }
}
