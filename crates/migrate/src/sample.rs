//! A short look at a running tree before it is known how its memory is to move: how much there is of what, what it writes in a tenth of
//! a second, how much less its pages become when they are packed, and how little of one that is written again has changed.
use crate::forecast::Watch;
use godwit_engine::freeze;
use godwit_engine::pages::{self, Reader};
use godwit_engine::tracking::{self, Tracking};
use godwit_handoff::delta::Memory;
use godwit_handoff::frame::{Run as FrameRun, Runs, STAGE_FIRST};
use godwit_handoff::packed;
use godwit_image::Refusal;
use godwit_image::memory::PAGE_BYTES;
use godwit_image::page_set::{PageSet, Run};
use godwit_linux::features::{Feature, OnDemand};
use godwit_linux::proc::{directory, maps, status};
use godwit_strategy::Profile;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long the tree is watched in all, and when it is looked at in between.
const SAMPLE: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(100)];
/// So many pages of each process are read, each time.
const READ: u64 = 32;

/// What a look at the tree has shown.
pub(crate) struct Sampled {
    pub(crate) profile: Profile,
    /// Why what it writes is not known, if so.
    pub(crate) untracked: Option<String>,
    /// Whether it could be tracked, as far as is known.
    pub(crate) tracks: bool,
}

/// What the tree has, and what it writes in a short time.
pub(crate) fn sample(pid: i32, watch: Watch) -> Result<Sampled, Refusal> {
    let mut profile = count(&freeze::tree(pid)?);
    if !OnDemand::default().has(Feature::WriteTracking) {
        let why = "this kernel does not tell what a process writes".to_owned();
        return Ok(Sampled { profile, untracked: Some(why), tracks: false });
    }
    if watch == Watch::Nothing {
        let why = "it was not watched (check --watch), and is taken to write nothing".to_owned();
        return Ok(Sampled { profile, untracked: Some(why), tracks: true });
    }
    let begun = tracking::begin(pid, &BTreeSet::new())?;
    if begun.processes.is_empty() {
        let why = begun.left_out.first().map_or_else(|| "nothing to track".to_owned(), |refusal| refusal.cause.clone());
        return Ok(Sampled { profile, untracked: Some(why), tracks: false });
    }
    let stages = (STAGE_FIRST..).zip(begun.processes);
    let mut watched: Vec<Watched> = stages.map(|(stage, (pid, tracking))| Watched::new(pid, stage, tracking)).collect();
    let mut contents = Contents::default();
    let mut pages = 0;
    watched.retain_mut(|one| {
        let Some(found) = one.look() else { return false };
        pages += found.bytes() / PAGE_BYTES;
        profile.never_owed_pages += of_files(one.pid, &found);
        contents.read(one, &some_of(&found));
        true
    });
    // What could not be tracked is sent when it is down.
    profile.untracked_pages += profile.pages.saturating_sub(pages);
    profile.pages = pages;
    let begin = Instant::now();
    for at in SAMPLE {
        std::thread::sleep(at.saturating_sub(begin.elapsed()));
        let mut written = 0;
        watched.retain_mut(|one| {
            let Some(found) = one.look() else { return false };
            one.written.extend(&found);
            written += one.written.bytes();
            contents.remember(one, &found);
            true
        });
        profile.written.push((begin.elapsed().as_secs_f64() * 1e3, written / PAGE_BYTES));
    }
    profile.packed_part = part(contents.packed);
    let between = SAMPLE[1].saturating_sub(SAMPLE[0]).as_secs_f64() * 1e3;
    profile.changed = part(contents.changed).map(|part| (between, part));
    Ok(Sampled { profile, untracked: None, tracks: true })
}

/// What /proc tells of the processes.
fn count(pids: &[i32]) -> Profile {
    let mut profile = Profile::default();
    for pid in pids {
        let status = status::read(*pid, *pid).ok();
        if let Some(memory) = status.and_then(|status| status.memory) {
            profile.pages += memory.resident_anonymous / PAGE_BYTES;
            profile.untracked_pages += memory.resident_shared / PAGE_BYTES;
        }
        let threads = directory::tasks(*pid).map_or(1, |tasks| tasks.len() as u64);
        profile.threads += threads;
        // The kernel writes into the pages where a thread's own data begins.
        profile.never_owed_pages += threads;
        profile.descriptors += directory::descriptors(*pid).map_or(0, |descriptors| descriptors.len() as u64);
        profile.mappings += maps::read(*pid).map_or(0, |areas| areas.len() as u64);
    }
    profile
}

/// How many of these pages lie in mappings of files.
fn of_files(pid: i32, pages: &PageSet) -> u64 {
    let areas = maps::read(pid).unwrap_or_default();
    let of_files = areas.iter().filter(|area| area.inode != 0).map(|area| Run { start: area.start, end: area.end });
    pages.intersection(&of_files.collect()).bytes() / PAGE_BYTES
}

/// Pages that are spread over all of these.
fn some_of(pages: &PageSet) -> PageSet {
    let every = (pages.bytes() / PAGE_BYTES / READ).max(1);
    let numbers = pages.runs().iter().flat_map(|run| (run.start / PAGE_BYTES)..(run.end / PAGE_BYTES));
    let some = numbers.step_by(usize::try_from(every).unwrap_or(usize::MAX)).take(READ as usize);
    some.map(|number| Run { start: number * PAGE_BYTES, end: (number + 1) * PAGE_BYTES }).collect()
}

fn part((all, left): (u64, u64)) -> Option<f64> {
    (all > 0).then(|| left as f64 / all as f64)
}

/// One process that is watched.
struct Watched {
    pid: i32,
    stage: u32,
    tracking: Box<dyn Tracking>,
    written: PageSet,
    /// What is read again when it has been written again.
    remembered: PageSet,
}

impl Watched {
    fn new(pid: i32, stage: u32, tracking: Box<dyn Tracking>) -> Watched {
        Watched { pid, stage, tracking, written: PageSet::new(), remembered: PageSet::new() }
    }

    /// What it has written since the last look; at the first all of its pages.
    fn look(&mut self) -> Option<PageSet> {
        self.tracking.look().ok().map(|written| written.pages)
    }
}

/// What is known of the contents of pages: bytes that were read, and what was left of them.
#[derive(Default)]
struct Contents {
    reader: Reader,
    memory: Memory,
    buffer: Vec<u8>,
    packed: (u64, u64),
    changed: (u64, u64),
}

impl Contents {
    /// Learns how much less these pages become.
    fn read(&mut self, of: &Watched, pages: &PageSet) {
        let (buffer, sum) = (&mut self.buffer, &mut self.packed);
        // Of who has ended there is nothing to be learned.
        let _ = pages::read_running(&mut self.reader, of.pid, pages, |_, bytes| {
            sum.0 += bytes.len() as u64;
            sum.1 += packed::pack(bytes, buffer).map_or(bytes.len() as u64, u64::from);
            Ok(())
        });
    }

    /// Remembers some of what has been written, and learns how little has changed of what is remembered already.
    fn remember(&mut self, of: &mut Watched, written: &PageSet) {
        let again = of.remembered.intersection(written);
        let is_first = of.remembered.is_empty();
        let wanted = if is_first { some_of(written) } else { again };
        let (memory, buffer, sum) = (&mut self.memory, &mut self.buffer, &mut self.changed);
        let _ = pages::read_running(&mut self.reader, of.pid, &wanted, |ranges, bytes| {
            let run = |(start, length): &(u64, usize)| FrameRun {
                owner: of.stage,
                start: start / PAGE_BYTES,
                count: (*length as u64 / PAGE_BYTES) as u32,
            };
            let runs = Runs { page_shift: 12, body_checksum: None, runs: ranges.iter().map(run).collect() };
            let delta = memory.pack(of.stage, &runs, bytes, buffer);
            if !is_first {
                sum.0 += bytes.len() as u64;
                sum.1 += delta.map_or(bytes.len() as u64, |delta| delta.length.into());
            }
            Ok(())
        });
        if is_first {
            of.remembered = wanted;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_taken_from_all_over() {
        let run = |first: u64, last: u64| Run { start: first * PAGE_BYTES, end: last * PAGE_BYTES };
        let few: PageSet = [run(3, 5), run(9, 10)].into_iter().collect();
        assert_eq!(some_of(&few), few);
        let many: PageSet = [run(0, 1000), run(5000, 6000)].into_iter().collect();
        let some = some_of(&many);
        assert_eq!(some.bytes() / PAGE_BYTES, READ);
        assert_eq!(some.difference(&many), PageSet::new());
        assert!(
            some.covers(0, PAGE_BYTES) && some.runs().iter().filter(|run| run.start >= 5000 * PAGE_BYTES).count() > 10
        );
        assert_eq!(some_of(&PageSet::new()), PageSet::new());
    }
}
