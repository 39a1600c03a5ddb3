//! Reading a frozen tree into an image: the graph under construction, and the order in which it is walked.
use crate::edges::Edges;
use crate::failure::{About, Result, with_choices};
use crate::freeze::FrozenTree;
use crate::leftover::Leftover;
use crate::look::{Look, Survey};
use crate::resource::edge::Choice;
use crate::resource::epoll_ready::Question;
use crate::resource::landlock::Strangers;
use crate::resource::{Captured, KINDS, record_locks, unopened_memory};
use crate::thread_records::Records;
use godwit_image::page_set::PageSet;
use godwit_image::tree::Tree;
use godwit_image::{Code, Envelope, KindId, ObjectId, Pid, Refusal, Subject};
use godwit_linux::kcmp::{self, Object};
use godwit_linux::pidfd::PidFd;
use godwit_linux::proc::locks;
use serde::Serialize;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsRawFd, OwnedFd};

pub(crate) mod ahead;
pub(crate) mod area_records;
pub(crate) mod bookmark;
mod credentials;
pub(crate) mod early;
mod files;
mod inquiry;
pub(crate) mod job_control;
pub(crate) mod moment;
mod outlet;
mod schedule;
pub(crate) mod space;
mod task;

pub use moment::capture_at_a_good_moment;
use outlet::Outlet;
pub use outlet::{Leaving, OnLeaving};
pub(crate) use task::empty_thread;

/// What the user decided about one descriptor whose other side is outside, and with it about its open description.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// The process that has it; the root when none.
    pub pid: Option<i32>,
    /// Its number.
    pub descriptor: i32,
    /// What to do.
    pub choice: crate::resource::edge::Choice,
}

impl Decision {
    /// The descriptor, as the command line names it.
    pub fn name(&self) -> String {
        self.pid.map_or_else(|| self.descriptor.to_string(), |pid| format!("{pid}:{}", self.descriptor))
    }
}

/// What the user decided about edges of the tree.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Decisions about descriptors.
    pub edges: Vec<Decision>,
}

/// Bulk bytes that an object's content consists of, read from a description while the tree is frozen.
#[derive(Debug)]
pub struct Content {
    /// The object; also the owner of the pages on the wire.
    pub object: ObjectId,
    /// Where the bytes are: read by position, in 4 KiB pages.
    pub file: OwnedFd,
    /// Which ranges of bytes hold data, page-aligned; the rest is zero.
    pub pages: PageSet,
}

/// Private pages of an address space.
#[derive(Debug)]
pub struct SpacePages {
    /// The space; also the owner of the pages on the wire.
    pub space: ObjectId,
    /// A living thread through which the memory is read.
    pub pid: i32,
    /// Pages that only this space has.
    pub pages: PageSet,
    /// Areas of which no other process has a page, as far as that is known.
    pub alone: PageSet,
}

/// A captured tree: the plain data, and where its bulk bytes can be read as long as it is frozen.
#[derive(Debug)]
pub struct Captives {
    /// Everything but the pages.
    pub tree: Tree,
    /// Private pages per space, parents before children.
    pub spaces: Vec<SpacePages>,
    /// Contents of objects.
    pub contents: Vec<Content>,
    /// Objects that have left while the tree was captured.
    gone: BTreeSet<ObjectId>,
    /// What every description was seen by: to close many takes a while.
    looks: Vec<Look>,
}

impl Captives {
    /// Lets go what is not needed once the tree and its bytes have left.
    pub fn forget_looks(&mut self) {
        self.looks = Vec::new();
    }
}

/// A description that is already in the graph: one process and descriptor that holds it.
#[derive(Clone, Copy, Debug)]
struct Known {
    pid: i32,
    descriptor: i32,
    object: ObjectId,
}

/// The graph under construction.
#[derive(Debug)]
pub struct Capture {
    /// Who else holds what.
    pub survey: Survey,
    /// Processes outside of any sandbox of the tree.
    pub(crate) strangers: Strangers,
    edges: Edges,
    next: u32,
    objects: Vec<Envelope>,
    interned: BTreeMap<(KindId, Vec<u8>), ObjectId>,
    /// Open descriptions by (device, inode), each list in the kernel's kcmp order.
    known: BTreeMap<(u64, u64), Vec<Known>>,
    /// Those of eventfds by the number that fdinfo tells: two with different ones are two. They share one inode, and to order
    /// many by kcmp takes long.
    counters: BTreeMap<i32, Vec<Known>>,
    /// Those of them that are not yet among the known ones of their inode.
    unordered: Vec<((u64, u64), Known)>,
    /// Objects that were captured before the freeze and hold.
    adopted: BTreeSet<ObjectId>,
    mapped: BTreeMap<(u64, u64, Vec<u8>, bool), ObjectId>,
    /// The same by what a process's list of areas tells: device, inode, name, writable.
    listed: BTreeMap<space::Listed, ObjectId>,
    /// Pipes of our own.
    pub(crate) scratch: crate::resource::pipe_content::Scratch,
    /// Descriptions found in flight, kept open while the capture lasts.
    kept: Vec<OwnedFd>,
    contents: Vec<Content>,
    /// Record locks found with the descriptors, by the process that is to set them.
    record_locks: Vec<(i32, record_locks::Lock)>,
    leftovers: Vec<Leftover>,
    /// Epoll sets whose processes are to be asked what waits in them.
    ready_questions: Vec<Question>,
    /// Processes that message queues are to notify, of which something is still to be found out.
    pub(crate) notifications: Vec<crate::resource::posix_queue_end::Noted>,
    /// System V objects that only the tree can use have been found.
    pub(crate) sysv_claimed: bool,
}

impl Capture {
    fn new(pids: &[i32], edges: Edges) -> Capture {
        Capture {
            // Filled as the tables are read, before any description is.
            survey: Survey::of_pids(pids.iter().copied().collect()),
            strangers: Default::default(),
            edges,
            next: 1,
            objects: Vec::new(),
            interned: BTreeMap::new(),
            known: BTreeMap::new(),
            counters: BTreeMap::new(),
            unordered: Vec::new(),
            adopted: BTreeSet::new(),
            mapped: BTreeMap::new(),
            listed: BTreeMap::new(),
            scratch: Default::default(),
            kept: Vec::new(),
            contents: Vec::new(),
            record_locks: Vec::new(),
            leftovers: Vec::new(),
            ready_questions: Vec::new(),
            notifications: Vec::new(),
            sysv_claimed: false,
        }
    }

    /// A fresh id.
    pub fn fresh(&mut self) -> ObjectId {
        let id = ObjectId(self.next);
        self.next += 1;
        id
    }

    /// Adds an object that several others share, once per `key`: the second caller with the same key gets the first
    /// one's id, and `state` is not called.
    ///
    /// # Errors
    /// Those of `state`.
    pub fn intern<T: Serialize>(
        &mut self,
        kind: &dyn crate::resource::Kind,
        key: &[u8],
        state: impl FnOnce(&mut Capture, ObjectId) -> Result<(Vec<ObjectId>, T)>,
    ) -> Result<ObjectId> {
        if let Some(id) = self.interned.get(&(kind.id(), key.to_vec())) {
            return Ok(*id);
        }
        let id = self.fresh();
        self.interned.insert((kind.id(), key.to_vec()), id);
        let (refs, state) = state(self, id)?;
        self.add(id, kind, Captured::new(refs, &state)?);
        Ok(id)
    }

    /// Whether there is such an object.
    pub(crate) fn has(&self, kind: &dyn crate::resource::Kind, key: &[u8]) -> bool {
        self.interned.contains_key(&(kind.id(), key.to_vec()))
    }

    fn add(&mut self, id: ObjectId, kind: &dyn crate::resource::Kind, captured: Captured) {
        self.objects.push(Envelope {
            id,
            kind: kind.id(),
            version: kind.version(),
            refs: captured.refs,
            payload: captured.payload,
        });
    }

    /// Notes the record locks that a file table, seen through one of its threads, holds by a descriptor.
    fn note_record_locks(&mut self, look: &Look, pid: i32, tid: i32, descriptor: i32) {
        let locks = look.information.locks.iter();
        for lock in locks.filter(|lock| !lock.waits && lock.kind == locks::Kind::Posix) {
            // The process that set it sets it again, if it still has the table.
            let set_by = lock.pid;
            // A dead one has no table any more.
            let has_table = set_by != pid
                && self.survey.pids.contains(&set_by)
                && kcmp::kcmp(tid, set_by, Object::Files).is_ok_and(|order| order == Ordering::Equal);
            let (owner, thread) = if has_table { (set_by, set_by) } else { (pid, tid) };
            let (start, end) = (lock.start, lock.end);
            let exclusive = lock.access == locks::Access::Write;
            self.record_locks
                .push((owner, record_locks::Lock { thread: Pid(thread), descriptor, exclusive, start, end }));
        }
    }

    /// The record locks that a process is to set again.
    pub fn record_locks_of(&self, pid: i32) -> Vec<record_locks::Lock> {
        self.record_locks.iter().filter(|(owner, _)| *owner == pid).map(|(_, lock)| lock.clone()).collect()
    }

    /// Notes an object with a name of its own that is to go when the tree ends here.
    pub fn leaves_with_the_tree(&mut self, leftover: Leftover) {
        self.leftovers.push(leftover);
    }

    /// Registers the bulk bytes of an object.
    pub fn content(&mut self, object: ObjectId, file: OwnedFd, pages: PageSet) {
        self.contents.push(Content { object, file, pages });
    }

    /// Compares a description (pid, descriptor) with the known ones of the same inode; `Ok` its index, `Err` where it
    /// belongs.
    fn search(&self, key: (u64, u64), pid: i32, descriptor: i32) -> Result<std::result::Result<usize, usize>> {
        let Some(list) = self.known.get(&key) else { return Ok(Err(0)) };
        let (mut low, mut high) = (0, list.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            let other = list[middle];
            let order = if (other.pid, other.descriptor) == (pid, descriptor) {
                Ordering::Equal
            } else {
                kcmp::kcmp(other.pid, pid, Object::File(other.descriptor, descriptor))
                    .about(|| Subject::Descriptor(pid, descriptor, String::new()))?
            };
            match order {
                Ordering::Equal => return Ok(Ok(middle)),
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
            }
        }
        Ok(Err(low))
    }

    /// The object of a description, new or known; `true` when it is new and still to be captured.
    fn reserve(&mut self, look: &Look, pid: i32, descriptor: i32) -> Result<(ObjectId, bool)> {
        let key = (look.device, look.inode);
        if let Some(counter) = look.information.eventfd.and_then(|counter| counter.id) {
            return self.reserve_counter(key, counter, pid, descriptor);
        }
        match self.search(key, pid, descriptor)? {
            Ok(index) => Ok((self.known[&key][index].object, false)),
            Err(index) => {
                let object = self.fresh();
                self.known.entry(key).or_default().insert(index, Known { pid, descriptor, object });
                Ok((object, true))
            }
        }
    }

    /// The same for an eventfd.
    fn reserve_counter(
        &mut self,
        key: (u64, u64),
        counter: i32,
        pid: i32,
        descriptor: i32,
    ) -> Result<(ObjectId, bool)> {
        for known in self.counters.get(&counter).into_iter().flatten() {
            let files = Object::File(known.descriptor, descriptor);
            let subject = || Subject::Descriptor(pid, descriptor, String::new());
            if kcmp::kcmp(known.pid, pid, files).about(subject)? == Ordering::Equal {
                return Ok((known.object, false));
            }
        }
        let known = Known { pid, descriptor, object: self.fresh() };
        self.counters.entry(counter).or_default().push(known);
        self.unordered.push((key, known));
        Ok((known.object, true))
    }

    /// The object of a description that the tree has, by a process (thread) and descriptor that hold it.
    ///
    /// # Errors
    /// kcmp fails.
    pub(crate) fn object_at(&mut self, device: u64, inode: u64, holder: (i32, i32)) -> Result<Option<ObjectId>> {
        for (key, known) in std::mem::take(&mut self.unordered) {
            if let Err(index) = self.search(key, known.pid, known.descriptor)? {
                self.known.entry(key).or_default().insert(index, known);
            }
        }
        let found = self.search((device, inode), holder.0, holder.1)?;
        Ok(found.ok().map(|index| self.known[&(device, inode)][index].object))
    }

    /// Our own (process, descriptor) of every description that was found in flight so far.
    pub(crate) fn in_flight_holders(&self) -> Vec<(i32, i32)> {
        let own = std::process::id() as i32;
        self.kept.iter().map(|file| (own, file.as_raw_fd())).collect()
    }

    /// Has the process asked which members of an epoll set wait, as soon as programs can run in it.
    pub(crate) fn ask_ready(&mut self, question: Question) {
        self.ready_questions.push(question);
    }

    /// Takes the questions to some threads.
    pub(crate) fn ready_questions(&mut self, threads: &[i32]) -> Vec<Question> {
        self.ready_questions.extract_if(.., |question| threads.contains(&question.thread)).collect()
    }

    /// The object of a description in flight (received with MSG_PEEK into our own table): known, or captured now.
    ///
    /// # Errors
    /// As capture of any description.
    pub fn in_flight(&mut self, look: Look) -> Result<ObjectId> {
        let own = std::process::id() as i32;
        let raw = look.file.as_raw_fd();
        let (object, new) = self.reserve(&look, own, raw)?;
        if new {
            self.describe(object, &look)?;
            self.kept.push(look.file);
        }
        Ok(object)
    }

    /// Whether an epoll set can watch a member still: not what is closed, or becomes /dev/null, by the user's choice.
    ///
    /// # Errors
    /// The member is gone.
    pub(crate) fn can_watch(&self, (pid, descriptor): (i32, i32)) -> Result<bool> {
        if self.edges.is_empty() {
            return Ok(true);
        }
        let process = PidFd::open_thread(pid).about(|| Subject::Process(pid))?;
        let look = Look::descriptor(&process, descriptor)?;
        let choice = look.map(|look| Ok(self.edges.choice(&look)?.cloned())).transpose()?.flatten();
        Ok(!matches!(choice, Some(Choice::Null | Choice::Close)))
    }

    /// Captures one description by the first kind that recognises it.
    fn describe(&mut self, object: ObjectId, look: &Look) -> Result<()> {
        if let Some(choice) = self.edges.choice(look)? {
            let number = self.edges.number(look)?;
            let (kind, captured) = crate::resource::edge::chosen(look, choice, number)?;
            self.add(object, kind, captured);
            return Ok(());
        }
        for kind in KINDS {
            if let Some(description) = kind.description().filter(|description| description.recognise(look)) {
                let captured = description.capture(look, self)?;
                self.add(object, *kind, captured);
                crate::resource::owner::capture(object, look, self)?;
                return crate::resource::flock::capture(object, look, self);
            }
        }
        Err(crate::resource::unknown(look))
    }

    /// The object of a file behind a mapping, the program file, or a directory. Equal files opened alike are one object.
    fn file(&mut self, look: &Look, writable: bool) -> Result<ObjectId> {
        let key = (look.device, look.inode, look.link.clone(), writable);
        if let Some(object) = self.mapped.get(&key) {
            return Ok(*object);
        }
        let object = self.fresh();
        self.mapped.insert(key, object);
        self.describe(object, look)?;
        Ok(object)
    }
}

/// Reads a frozen tree. Nothing of it changes; what is borrowed (registers, masks, a mapping) is given back.
///
/// # Errors
/// The first object that cannot be carried exactly.
pub fn capture(frozen: &mut FrozenTree, options: &Options) -> Result<Captives> {
    capture_all(frozen, options, Outlet::new(None)).map_err(with_choices)
}

fn capture_all(frozen: &mut FrozenTree, options: &Options, mut outlet: Outlet<'_, '_>) -> Result<Captives> {
    let pids: Vec<i32> = frozen.processes.iter().map(|process| process.pid).collect();
    let root = pids.first().copied().unwrap_or(0);
    let mut capture = Capture::new(&pids, Edges::find(&pids, &options.edges)?);
    // Choices of the user's are about what is looked at.
    let known = match options.edges.is_empty() {
        true => frozen.preparation.early.confirm_and_look(&frozen.preparation.glimpses),
        false => Default::default(),
    };
    capture.next = frozen.preparation.early.next();
    capture.strangers = Strangers::beside(frozen.preparation.own.take());
    let mut tree = Tree { host: crate::host::at_this_moment(&frozen.surroundings.host), ..Tree::default() };
    let mut spaces = Vec::new();
    let mut ahead = if frozen.is_large { ahead::Ahead::start(frozen) } else { ahead::Ahead::none() };
    let records: BTreeMap<i32, Records> = frozen
        .processes
        .iter()
        .filter_map(|process| Some((process.pid, frozen.preparation.records(process)?)))
        .collect();
    let mut shape = task::Shape::new(frozen)?;
    let (tables, looks) = files::tables(frozen, &records, known, &mut capture, &mut tree, &mut outlet)?;
    for process in &mut frozen.processes {
        crate::namespaces::judge(process.pid, root, &frozen.surroundings.home)?;
        let known = (&tables, records.get(&process.pid));
        let beside = (&mut ahead, &mut outlet);
        let mut captured = task::capture(process, known, &mut capture, &mut tree, &mut spaces, &mut shape, beside)?;
        job_control::no_continuation(&captured)?;
        captured.threads.iter_mut().for_each(|thread| frozen.surroundings.schedule.leave_out(thread));
        tree.tasks.push(captured);
    }
    let mut makers = unopened_memory::Makers::default();
    for process in frozen.processes.iter().filter(|process| !process.is_zombie()) {
        makers.note(process.status()?.uid[3], process.stat.start_time);
    }
    unopened_memory::capture(&makers, &mut capture)?;
    frozen.leftovers = capture.leftovers;
    let gone = outlet.gone(&capture.objects);
    tree.objects = capture.objects;
    tree.objects.sort_by_key(|envelope| envelope.id);
    tree.validate().map_err(|cause| Refusal::new(Code::MALFORMED, Subject::Process(root), cause))?;
    Ok(Captives { tree, spaces, contents: capture.contents, gone, looks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_of_one_description_are_one_object_and_eventfds_are_told_apart() {
        let own = std::process::id() as i32;
        let process = PidFd::open(own).unwrap();
        let look = |file: &OwnedFd| Look::descriptor(&process, file.as_raw_fd()).unwrap().unwrap();
        let counters: Vec<OwnedFd> = (0..5).map(|_| godwit_linux::eventfd::create(false).unwrap()).collect();
        let again = counters[3].try_clone().unwrap();
        let (reader, _writer) = godwit_linux::pipe::create(0).unwrap();
        let mut capture = Capture::new(&[own], Edges::default());
        let mut objects = Vec::new();
        for file in counters.iter().chain([&reader]) {
            let (object, new) = capture.reserve(&look(file), own, file.as_raw_fd()).unwrap();
            assert!(new && !objects.contains(&object));
            objects.push(object);
        }
        assert_eq!(capture.reserve(&look(&again), own, again.as_raw_fd()).unwrap(), (objects[3], false));
        let late = godwit_linux::eventfd::create(true).unwrap();
        for _ in 0..2 {
            for (file, object) in counters.iter().chain([&reader]).zip(&objects) {
                let (device, inode) = (look(file).device, look(file).inode);
                assert_eq!(capture.object_at(device, inode, (own, file.as_raw_fd())).unwrap(), Some(*object));
            }
            let (device, inode) = (look(&late).device, look(&late).inode);
            assert_eq!(capture.object_at(device, inode, (own, late.as_raw_fd())).unwrap(), None);
        }
        assert_eq!(capture.reserve(&look(&again), own, again.as_raw_fd()).unwrap(), (objects[3], false));
    }
}
