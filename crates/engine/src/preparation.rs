//! What is done for a freeze while the tree still runs, some time before.
use crate::capture::ahead;
use crate::capture::area_records::AreaRecords;
use crate::capture::bookmark::Bookmarks;
use crate::capture::early::Early;
use crate::freeze::{self, FrozenProcess, Stopped};
use crate::fullness;
use crate::glimpse::Glimpses;
use crate::procfs;
use crate::thread_records::{FEW, Reader, Records};
use godwit_image::page_set::PageSet;
use godwit_linux::kernel_types::KernelTypes;
use godwit_linux::proc::status::{self, Status};
use godwit_linux::ptrace;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is ready.
#[derive(Debug, Default)]
pub struct Preparation {
    pub(crate) glimpses: Glimpses,
    /// Of lists of areas of which nothing of the following is known.
    pub(crate) bookmarks: Bookmarks,
    pub(crate) early: Early,
    /// For processes with many areas or much memory, where the kernel allows it.
    pub(crate) areas: BTreeMap<i32, Arc<AreaRecords>>,
    /// Memory that looked full of contents (addresses, whole pages), by process.
    pub(crate) full: BTreeMap<i32, PageSet>,
    /// Memory that is tracked by us still, by process.
    pub(crate) tracked: BTreeMap<i32, PageSet>,
    /// Who we are.
    pub(crate) own: Option<Status>,
    /// For processes with many threads, where the kernel allows it.
    records: BTreeMap<i32, Reader>,
}

impl Preparation {
    /// Prepares to freeze a tree. What changes afterwards takes longer to look at, and is seen all the same.
    pub fn of(root: i32) -> Preparation {
        Preparation::default().renewed(root)
    }

    /// Prepares again, some time later: what cannot have become untrue is kept.
    #[must_use]
    pub fn renewed(self, root: i32) -> Preparation {
        let pids = freeze::tree(root).unwrap_or_default();
        crate::room::for_looks(pids.iter().copied());
        crate::room::for_threads(pids.iter().map(|pid| procfs::threads(*pid).map_or(1, |threads| threads.len())).sum());
        // A kernel that does not tell its types has its threads asked, and its areas told by /proc.
        let types = OnceCell::new();
        let types = || types.get_or_init(|| KernelTypes::read().ok()).as_ref();
        let areas = area_records(&pids, &self.areas, types);
        let glimpses = Glimpses::of(pids.iter().copied());
        let own = std::process::id() as i32;
        Preparation {
            records: readers(&pids, types),
            early: Early::of(&glimpses, types),
            glimpses,
            bookmarks: Bookmarks::of(pids.iter().copied().filter(|pid| !areas.contains_key(pid))),
            areas,
            full: self.full,
            tracked: BTreeMap::new(),
            own: status::read(own, own).ok(),
        }
    }

    /// Looks at what all of large memory is to be sent, too: a few pages of it tell what is not zero.
    pub fn look_at_contents(&mut self, root: i32) {
        let pids = freeze::tree(root).unwrap_or_default().into_iter().filter(|pid| ahead::has_much(*pid));
        self.full = pids.map(|pid| (pid, fullness::of_running(pid))).collect();
    }

    /// Whether [`Preparation::records`] may have some.
    pub(crate) fn has_records(&self, pid: i32) -> bool {
        self.records.contains_key(&pid)
    }

    /// The kernel's records of the threads of a process, which are all stopped.
    pub(crate) fn records(&self, process: &FrozenProcess) -> Option<Records> {
        let threads: Vec<i32> = process.threads.iter().map(Stopped::tid).collect();
        let records = self.records.get(&process.pid)?.read(&threads)?;
        // What tracers are told is to be the same.
        let is_right = |index: usize| {
            let (record, tid) = (records.of(index)?, threads[index]);
            let mask = ptrace::signal_mask(tid).ok()?;
            let sequence = ptrace::restartable_sequence(tid).ok()?;
            Some(record.mask.is_none_or(|own| own == mask) && record.sequence == sequence)
        };
        records.asked().into_iter().all(|index| is_right(index) == Some(true)).then_some(records)
    }
}

/// For those of some processes of which smaps would tell at some length. `known`: of before.
fn area_records<'t>(
    pids: &[i32],
    known: &BTreeMap<i32, Arc<AreaRecords>>,
    types: impl Fn() -> Option<&'t KernelTypes>,
) -> BTreeMap<i32, Arc<AreaRecords>> {
    let records = |pid: &i32| {
        let of_before = known.get(pid).filter(|records| records.suffice()).cloned();
        let anew = || AreaRecords::of(*pid, types()?, known.get(pid).map(AsRef::as_ref)).map(Arc::new);
        of_before.or_else(anew).map(|records| (*pid, records))
    };
    pids.iter().filter(|pid| ahead::has_much(**pid)).filter_map(records).collect()
}

fn readers<'t>(pids: &[i32], types: impl Fn() -> Option<&'t KernelTypes>) -> BTreeMap<i32, Reader> {
    let has_many = |pid: &&i32| procfs::threads(**pid).is_ok_and(|threads| threads.len() >= FEW);
    let large: Vec<i32> = pids.iter().filter(has_many).copied().collect();
    if large.is_empty() {
        return BTreeMap::new();
    }
    large.into_iter().filter_map(|pid| Some((pid, Reader::of(pid, types()?)?))).collect()
}
