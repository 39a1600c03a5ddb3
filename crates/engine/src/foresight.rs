//! What the source foresees of its root, its threads and its large memory, before the tree is stopped, so that the destination can
//! make it by then.
use crate::capture::empty_thread;
use crate::pieces::{AREA_BYTES_END, Pieces};
use crate::thread_records::{FEW, Reader};
use godwit_image::Pid;
use godwit_image::memory::{Area, AreaFlags, Backing};
use godwit_image::page_set::{PageSet, Run};
use godwit_image::signal::AlternateStack;
use godwit_image::task::Thread;
use godwit_linux::kernel_types::KernelTypes;
use godwit_linux::pagemap::Pagemap;
use godwit_linux::proc::smaps;
use godwit_linux::process;
use serde::{Deserialize, Serialize};

const READ_WRITE: u32 = 3;
/// Smaller areas are made when they are needed.
const AREA_BYTES_MIN: u64 = AREA_BYTES_END;
/// So are shorter runs of pages.
const RUN_BYTES_MIN: u64 = 1 << 20;
/// Less than that is made when it comes.
const BYTES_MIN: u64 = 32 << 20;
/// What of it is told.
const AREAS_MAX: usize = 256;
const RUNS_MAX: usize = 4096;
const ADDRESS_MAX: u64 = 0x7fff_ffff_f000;
const THREADS_MAX: usize = 32 << 10;
/// TASK_COMM_LEN.
const NAME_BYTES_END: usize = 16;
/// What a thread begins with that was made by a program of ours.
const TIMER_SLACK_NS: u64 = 50_000;
/// struct robust_list_head.
const ROBUST_LIST_BYTES: u64 = 24;

/// The large memory of the root: private, anonymous, its own to write.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Foresight {
    /// The root's number; 0: there is nothing to be foreseen.
    pub root: i32,
    /// Its areas, ascending.
    pub areas: Vec<Area>,
    /// Which of their pages it has: long runs.
    pub present: PageSet,
    /// It wants no huge pages (PR_SET_THP_DISABLE).
    pub small_pages: bool,
    /// Its small areas, where they are many.
    #[serde(default)]
    pub pieces: Pieces,
    /// The numbers of its threads besides the first one, ascending.
    #[serde(default)]
    pub threads: Vec<i32>,
    /// It leads a session, and so it will for ever.
    #[serde(default)]
    pub leads_session: bool,
    /// What each of them has set for itself; empty where the kernel does not let that be read.
    #[serde(default)]
    pub states: Vec<Foreseen>,
}

/// What a thread has set for itself, in the order of the fields that the others are given in: name, address that is cleared at its
/// end, alternate stack, list of robust mutexes, restartable sequences (address, length, signature), blocked signals.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Foreseen(#[serde(with = "serde_bytes")] Vec<u8>, u64, (u64, i32, u64), u64, (u64, u32, u32), Option<u64>);

impl Foreseen {
    /// The thread as it would be if that were all that it has changed since its birth.
    pub(crate) fn thread(&self, tid: Pid) -> Thread {
        let Foreseen(name, clear_child_tid, (address, flags, size), robust_list, sequence, mask) = self;
        Thread {
            tid,
            name: name.clone(),
            clear_child_tid: *clear_child_tid,
            alternate_stack: AlternateStack { address: *address, flags: *flags, size: *size },
            robust_list: (*robust_list, ROBUST_LIST_BYTES),
            restartable_sequence: (sequence.0, sequence.1, sequence.2, 0),
            signal_mask: mask.unwrap_or(0),
            timer_slack_ns: TIMER_SLACK_NS,
            ..empty_thread()
        }
    }

    /// Its blocked signals, where they are those of its own code.
    pub(crate) fn mask(&self) -> Option<u64> {
        self.5
    }
}

impl Foresight {
    /// No large memory: only that there will be a root of this number, its threads and its small areas.
    #[must_use]
    pub fn without_memory(&self) -> Foresight {
        Foresight { areas: Vec::new(), present: PageSet::new(), ..self.clone() }
    }

    /// Looks at a running process.
    pub(crate) fn of(root: i32, listed: &[smaps::AreaFlags], small_pages: bool) -> Foresight {
        let unlike = AreaFlags::SHARED | AreaFlags::GROWS_DOWN | AreaFlags::HUGE_TLB | AreaFlags::DROPPABLE;
        let large = listed.iter().filter(|details| details.area.end - details.area.start >= AREA_BYTES_MIN);
        let plain = large.filter_map(crate::capture::space::anonymous);
        let plain = plain.filter(|area| area.protection == READ_WRITE && !area.has(unlike) && area.protection_key == 0);
        let areas: Vec<Area> = plain.take(AREAS_MAX).collect();
        let mut present = PageSet::new();
        let pieces = Pieces::of(root, listed.iter().filter_map(crate::capture::space::anonymous));
        // It runs: what cannot be read now is not foreseen.
        let threads = threads(root);
        let states = states(root, &threads);
        let leads_session = process::session_of(root).is_ok_and(|session| session == root);
        let bare = Foresight { root, small_pages, pieces, threads, states, leads_session, ..Foresight::default() };
        let Ok(pagemap) = Pagemap::open(root) else { return bare };
        for area in &areas {
            let mut of_area = PageSet::new();
            let looked =
                pagemap.anonymous_pages(area.start, area.end, |start, end, _| of_area.insert(Run { start, end }));
            if looked.is_ok() {
                of_area.runs().iter().filter(|run| run.bytes() >= RUN_BYTES_MIN).for_each(|run| present.insert(*run));
            }
        }
        if present.bytes() < BYTES_MIN || present.runs().len() > RUNS_MAX {
            return bare;
        }
        Foresight { areas, present, ..bare }
    }

    /// Whether what came from another host is what it is to be.
    pub(crate) fn is_sound(&self) -> bool {
        let aligned = |area: &Area| (area.start | area.end).is_multiple_of(4096) && area.start < area.end;
        let within = |area: &Area| area.start >= 0x1_0000 && area.end <= ADDRESS_MAX;
        let plain = |area: &Area| area.protection == READ_WRITE && area.backing == Backing::Anonymous;
        let areas: PageSet = self.areas.iter().map(|area| Run { start: area.start, end: area.end }).collect();
        self.root > 1
            && self.areas.len() <= AREAS_MAX
            && self.present.runs().len() <= RUNS_MAX
            && self.areas.iter().all(|area| aligned(area) && within(area) && plain(area))
            && self.areas.windows(2).all(|pair| pair[0].end <= pair[1].start)
            && self.present.is_sound()
            && self.present.difference(&areas).is_empty()
            && self.threads.len() <= THREADS_MAX
            && self.threads.iter().all(|tid| *tid > 1 && *tid != self.root)
            && self.threads.windows(2).all(|pair| pair[0] < pair[1])
            && (self.states.is_empty() || self.states.len() == self.threads.len())
            && self.states.iter().all(|state| state.0.len() < NAME_BYTES_END)
    }
}

/// Those that a process has now besides its first one.
fn threads(root: i32) -> Vec<i32> {
    let mut threads = crate::procfs::threads(root).unwrap_or_default();
    threads.retain(|tid| *tid != root);
    threads.sort_unstable();
    threads.truncate(THREADS_MAX);
    threads
}

/// What these threads of a process have set for themselves; none where the kernel does not let its records be read, or where they
/// are not all there any more.
fn states(root: i32, threads: &[i32]) -> Vec<Foreseen> {
    if threads.len() < FEW {
        return Vec::new();
    }
    let reader = KernelTypes::read().ok().and_then(|types| Reader::of(root, &types));
    let all: Vec<i32> = std::iter::once(root).chain(threads.iter().copied()).collect();
    let Some(records) = reader.and_then(|reader| reader.read(&all)) else { return Vec::new() };
    let state = |index: usize| {
        let record = records.of(index)?;
        let (stack, sequence) = (record.alternate_stack(0), record.sequence);
        Some(Foreseen(
            record.name.clone(),
            record.clear_child_tid,
            (stack.address, stack.flags, stack.size),
            record.robust_list,
            (sequence.address, sequence.length, sequence.signature),
            record.mask,
        ))
    };
    (1..all.len()).map(state).collect::<Option<_>>().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_large_memory_of_a_process_is_foreseen_as_far_as_it_has_it() {
        const BYTES: usize = 64 << 20;
        let mut memory = vec![0_u8; BYTES];
        // The second half stays untouched.
        memory[..BYTES / 2 + (1 << 20)].fill(1);
        let own = std::process::id() as i32;
        let foresight = Foresight::of(own, &smaps::read(own).unwrap(), false);
        assert!(foresight.is_sound());
        let (first, last) = (memory.as_ptr() as u64, memory.as_ptr() as u64 + BYTES as u64);
        assert_eq!(foresight.leads_session, process::session_of(0).unwrap() == own);
        assert!(foresight.areas.iter().any(|area| area.start <= first && last <= area.end));
        assert!(foresight.present.contains(first + (1 << 20)) && !foresight.present.contains(last - (1 << 20)));
        let mut nonsense = foresight.clone();
        nonsense.areas[0].end = ADDRESS_MAX + 4096;
        assert!(!nonsense.is_sound());
        let mut nonsense = foresight.clone();
        nonsense.areas.clear();
        assert!(!nonsense.is_sound());
        for threads in [vec![own], vec![1], vec![own + 2, own + 1], vec![own + 1, own + 1]] {
            let nonsense = Foresight { threads, ..foresight.clone() };
            assert!(!nonsense.is_sound(), "{:?}", nonsense.threads);
        }
    }
}
