//! Building a tree from an image: objects are opened once in the restorer's own table, tasks are forked from it and from
//! each other with their own numbers, and programs make each of them what it was. Nothing of it runs before
//! [`Restorer::resume`]; until [`Restorer::hold`] all of it dies with this process.
use crate::claim::Claim;
use crate::communication;
use crate::failure::Result;
use crate::lineage::{self, Lineage};
use crate::resource::{self, Made, Stage};
use crate::usual_schedule::UsualSchedule;
use godwit_image::credentials::Credentials;
use godwit_image::memory::{Backing, PAGE_BYTES};
use godwit_image::page_set::{PageSet, Run};
use godwit_image::task::State;
use godwit_image::tree::Tree;
use godwit_image::{Code, ObjectId, Pid, Refusal, Subject};
use godwit_linux::arena::{self, Arena};
use godwit_linux::pidfd::PidFd;
use godwit_linux::ptrace::Registers;
use godwit_linux::scheduling::Urgency;
use godwit_linux::userfaultfd::UserFault;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

mod attach;
mod attended;
mod beginning;
mod births;
mod creator;
mod credentials;
mod crew;
mod descriptors;
mod fill;
mod finish;
mod hold;
mod joined;
mod late;
mod locks;
mod make;
mod newborn;
mod owed;
mod piecework;
mod puppet;
mod queued_signals;
mod reserve;
mod session;
mod skeleton;
mod space;
mod staging;
mod stop;
mod thread;

pub use attended::Attended;
pub use beginning::Beginning;
pub use creator::Creator;
pub use locks::DeferredLock;
pub use make::{Bind, Make};
use puppet::Puppet;
pub use reserve::Reserve;
pub use staging::Staging;

/// A tree under construction.
#[derive(Debug)]
pub struct Restorer {
    tree: Tree,
    arena: Rc<Arena>,
    /// Slot of every thread that runs programs, by number.
    slots: BTreeMap<Pid, usize>,
    made: BTreeMap<ObjectId, Made>,
    /// All objects, referred-to ones first.
    order: Vec<ObjectId>,
    /// The lowest number in our table that no descriptor of the tree has.
    minimum: i32,
    /// This process itself, by a descriptor that every task inherits.
    own: PidFd,
    /// What tasks fetched: its number by file table and object.
    fetched: BTreeMap<(ObjectId, ObjectId), i32>,
    sinks: BTreeMap<ObjectId, make::Sink>,
    created: make::Created,
    /// Locks to be taken last, each with our own descriptor of the file.
    claims: Vec<(Claim, OwnedFd)>,
    /// Leaders and threads that exist, stopped.
    puppets: BTreeMap<Pid, Puppet>,
    fillers: BTreeMap<ObjectId, fill::Filler>,
    built: BTreeSet<ObjectId>,
    /// What was written into each space, for the children that inherit from it.
    filled: BTreeMap<ObjectId, PageSet>,
    /// Areas of built spaces that are one as long as bytes come.
    joined: BTreeMap<ObjectId, Vec<joined::Joined>>,
    cleaned: BTreeSet<ObjectId>,
    /// How each task is born.
    lineage: Lineage,
    /// Tasks that were forked from their parent when its space was built: they begin as copies of it.
    copies: BTreeSet<Pid>,
    /// Processes that hold numbers of dead leaders.
    stand_ins: Vec<session::StandIn>,
    /// Living tasks in which programs are still to run.
    incomplete: BTreeSet<Pid>,
    /// Threads in which the kernel knows how to continue their timed wait.
    waits: BTreeSet<Pid>,
    /// Threads whose timed wait goes on by code of ours, and the registers for that.
    resumed: BTreeMap<Pid, Registers>,
    /// How threads are scheduled here that asked for nothing.
    schedule: UsualSchedule,
    /// Who this process is.
    identity: Option<Creator>,
    /// Who is to become the root, with memory that is there already, and what the tree has of that.
    reserve: Option<Reserve>,
    reserved: Option<reserve::Reserved>,
    /// Threads of the root that were there before.
    crew: Option<crew::Crew>,
    /// The processor that the root keeps off while it receives pages. As it is to be scheduled it is afterwards.
    kept_off: Option<u32>,
    /// What this process may do, where that was read before.
    own_credentials: Option<Credentials>,
    /// What tells of missing pages in spaces that are owed some.
    faults: BTreeMap<ObjectId, UserFault>,
    /// Pages that came before the tree.
    staging: Staging,
    /// Areas of a space into which its own task may be asked to write.
    promised: Option<(ObjectId, PageSet)>,
    held: bool,
    /// As long as this is built its tree stands still.
    urgency: Option<Urgency>,
}

/// Addresses that user space may have.
const ADDRESS_MAX: u64 = 0x7fff_ffff_f000;

/// A range of `length` bytes that is free in every address space of the tree.
fn hole(tree: &Tree, length: u64, after: u64) -> Option<u64> {
    const STEP: u64 = 1 << 30;
    let mut start = after;
    while start + length + MARGIN < ADDRESS_MAX {
        if is_free(tree, start, length) {
            return Some(start);
        }
        start += STEP;
    }
    None
}

/// What stays free around what we put into address spaces.
const MARGIN: u64 = 16 << 20;

fn is_free(tree: &Tree, start: u64, length: u64) -> bool {
    let mut areas = tree.spaces.iter().flat_map(|space| &space.areas);
    !areas.any(|area| area.start < start + length + MARGIN && start < area.end.saturating_add(MARGIN))
}

/// Whether an arena is where nothing of the tree is.
fn has_room(tree: &Tree, arena: &Arena) -> bool {
    is_free(tree, arena.base(), arena.length() as u64)
}

/// A slot for everybody who runs programs: threads, those who stand in for dead leaders of sessions and groups, and one errand at a time.
fn slots(tree: &Tree) -> BTreeMap<Pid, usize> {
    let threads = tree.tasks.iter().flat_map(|task| &task.threads).map(|thread| thread.tid);
    let leaders = tree.tasks.iter().flat_map(|task| [task.session, task.group]);
    let threads: BTreeSet<Pid> = threads.chain(leaders).chain([session::ERRAND]).collect();
    threads.into_iter().enumerate().map(|(index, tid)| (tid, index)).collect()
}

impl Restorer {
    /// Checks the image and makes every object that needs no task.
    ///
    /// # Errors
    /// The first object that cannot be made exactly; nothing is left behind.
    pub fn begin(tree: Tree) -> Result<Restorer> {
        Beginning::new(None).complete(tree)
    }

    /// The same, where some objects are made already. `arena`: one that is there already, if the tree has room for it.
    fn begin_from(tree: Tree, product: make::Product, arena: Option<Rc<Arena>>) -> Result<Restorer> {
        communication::examine(&tree)?;
        tree.validate().map_err(|cause| Refusal::new(Code::MALFORMED, Subject::Object("image".to_owned()), cause))?;
        let lineage = Lineage::plan(&lineage::members(&tree))?;
        for space in tree.spaces.iter().filter(|space| space.parent.is_some()) {
            let owner = tree.tasks.iter().find(|task| task.space == Some(space.id));
            if owner.is_some_and(|owner| !lineage.is_fork(owner.pid)) {
                let cause = format!("space {} has pages of a parent that it is not forked from", space.id);
                return Err(Refusal::new(Code::MALFORMED, Subject::Object("image".to_owned()), cause));
            }
        }
        let slots = slots(&tree);
        let living = tree.tasks.iter().filter(|task| !matches!(task.state, State::Zombie(_)));
        let incomplete = living.map(|task| task.pid).collect();
        // Every signal but the stub's own stays blocked: what is sent to us must not end a half-built tree halfway.
        let arena = Restorer::arena(&tree, slots.len(), arena)?;
        let minimum = beginning::minimum(&tree);
        let own = late::own_process(minimum)?;
        let mut make = Make::resume(&tree, minimum, product)?;
        let order = make::order(&tree)?;
        for id in &order {
            if make.has(*id) {
                continue;
            }
            let envelope = tree.object(*id).ok_or_else(|| missing(*id))?;
            let kind = resource::kind_of(envelope)?;
            if kind.stage() != Stage::Late {
                let made = kind.make(envelope, &mut make)?;
                make.keep(*id, made)?;
            }
        }
        let make::Product { made, sinks, created } = make.finish();
        Ok(Restorer {
            tree,
            arena,
            slots,
            made,
            order,
            minimum,
            own,
            fetched: BTreeMap::new(),
            sinks,
            created,
            claims: Vec::new(),
            puppets: BTreeMap::new(),
            fillers: BTreeMap::new(),
            built: BTreeSet::new(),
            filled: BTreeMap::new(),
            joined: BTreeMap::new(),
            cleaned: BTreeSet::new(),
            lineage,
            copies: BTreeSet::new(),
            stand_ins: Vec::new(),
            incomplete,
            waits: BTreeSet::new(),
            resumed: BTreeMap::new(),
            schedule: UsualSchedule::look()?,
            identity: None,
            reserve: None,
            reserved: None,
            crew: None,
            kept_off: None,
            own_credentials: None,
            faults: BTreeMap::new(),
            staging: Staging::default(),
            promised: None,
            held: false,
            urgency: None,
        })
    }

    /// The one that is there, or a new one.
    fn arena(tree: &Tree, slots: usize, there: Option<Rc<Arena>>) -> Result<Rc<Arena>> {
        if let Some(arena) = there.filter(|arena| arena.slots() >= slots && has_room(tree, arena)) {
            return Ok(arena);
        }
        let length = arena::length(slots, arena::slot_bytes(slots)) as u64;
        let mut after = 0x10_0000_0000;
        while let Some(address) = hole(tree, length, after) {
            match Arena::new(slots, address) {
                Ok(arena) if arena.base() == address => return Ok(Rc::new(arena)),
                _ => after = address + (1 << 30),
            }
        }
        Err(Refusal::new(
            Code::RESTORE_FAILED,
            Subject::Host,
            format!("no {length} free bytes common to all address spaces"),
        ))
    }

    /// The image.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Writes bulk bytes of a content or a space: ascending page-aligned ranges (start, length) and their bytes one
    /// after another. Contents come first, then spaces in the image's order; a space is built when its first bytes arrive.
    ///
    /// # Errors
    /// The owner is unknown, a range is not part of it, or the kernel refuses.
    pub fn write(&mut self, owner: ObjectId, ranges: &[(u64, usize)], bytes: &[u8]) -> Result<()> {
        let total: usize = ranges.iter().map(|(_, length)| *length).sum();
        let aligned =
            ranges.iter().all(|(start, length)| start % PAGE_BYTES == 0 && (*length as u64).is_multiple_of(PAGE_BYTES));
        if total != bytes.len() || !aligned {
            return Err(Refusal::new(
                Code::MALFORMED,
                Subject::Object(format!("object {owner}")),
                "page ranges do not fit",
            ));
        }
        if let Some(sink) = self.sinks.get(&owner) {
            return fill::write_content(owner, sink, ranges, bytes);
        }
        self.ready_to_write(owner)?;
        self.prepare_filler(owner, bytes.len())?;
        let filled = self.filled.entry(owner).or_default();
        for (start, length) in ranges {
            filled.insert(Run { start: *start, end: start.saturating_add(*length as u64) });
        }
        match self.fillers.get_mut(&owner) {
            Some(filler) => filler.write(ranges, bytes).map_err(ended_early),
            None => Err(missing(owner)),
        }
    }

    /// Builds the first space, unless contents are still to be written: a program file that is open for writing becomes nobody's.
    ///
    /// # Errors
    /// As [`Restorer::write`].
    pub fn build_first(&mut self) -> Result<()> {
        match self.tree.spaces.first().map(|space| space.id) {
            Some(first) if !self.sinks.values().any(make::Sink::is_written) => {
                self.build_space(first).map_err(ended_early)
            }
            _ => Ok(()),
        }
    }

    /// Builds the space that bytes are to come into.
    fn ready_to_write(&mut self, owner: ObjectId) -> Result<()> {
        if self.tree.space(owner).is_none() {
            return Err(Refusal::new(Code::MALFORMED, Subject::Object(format!("object {owner}")), "it owns no pages"));
        }
        self.close_program_sinks();
        self.build_space(owner)
    }

    /// A program file must not be open for writing when it becomes a space's.
    fn close_program_sinks(&mut self) {
        let programs = self.tree.spaces.iter().filter_map(|space| self.tree.object(space.executable));
        for content in programs.flat_map(|envelope| &envelope.refs) {
            if self.sinks.get(content).is_some_and(make::Sink::is_written) {
                self.sinks.remove(content);
            }
        }
    }

    /// All bytes are there: builds what is left, binds, and brings every thread to the point of resumption.
    ///
    /// # Errors
    /// The first thing that cannot be rebuilt exactly; dropping the restorer then removes everything.
    pub fn complete(&mut self) -> Result<()> {
        self.complete_all().map_err(ended_early)
    }

    fn complete_all(&mut self) -> Result<()> {
        self.close_program_sinks();
        let spaces: Vec<ObjectId> = self.tree.spaces.iter().map(|space| space.id).collect();
        for space in &spaces {
            self.build_space(*space)?;
        }
        self.fillers.clear();
        for space in spaces {
            self.part_areas(space)?;
        }
        self.prepare_owed()?;
        self.create_remaining()?;
        self.finish()?;
        self.register_owed()
    }

    /// The object's descriptors in the restorer's own table.
    fn own(&self, id: ObjectId) -> Option<BorrowedFd<'_>> {
        self.made.get(&id).and_then(|made| made.first()).map(|file| file.as_fd())
    }

    /// The number of an object's descriptor in the restorer's own table, which every task inherits.
    fn inherited_number(&self, id: ObjectId) -> Option<i32> {
        self.own(id).map(|file| file.as_raw_fd())
    }

    /// Whether a mapping needs the object's descriptor.
    fn backing_number(&self, backing: &Backing) -> Result<Option<(i32, u64)>> {
        match backing {
            Backing::File { object, offset } => {
                self.inherited_number(*object).map(|number| Some((number, *offset))).ok_or_else(|| missing(*object))
            }
            Backing::Anonymous | Backing::Kernel => Ok(None),
        }
    }
}

impl Drop for Restorer {
    fn drop(&mut self) {
        puppet::bury_all(std::mem::take(&mut self.puppets).into_values());
    }
}

/// A task that is built ends only by somebody else's hand.
fn ended_early(refusal: Refusal) -> Refusal {
    if refusal.code != Code::PROCESS_VANISHED {
        return refusal;
    }
    let cause =
        format!("{}: somebody ended a task that was being built, or the kernel did for want of memory", refusal.cause);
    Refusal::new(Code::RESTORE_FAILED, refusal.subject, cause)
        .choice("see that the memory limits of the destination's control groups suffice")
}

fn missing(id: ObjectId) -> Refusal {
    Refusal::new(Code::MALFORMED, Subject::Object(format!("object {id}")), "it is referred to and was not made")
}
