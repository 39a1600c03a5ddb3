//! What kinds get to work with: the restorer's own table while objects are made, and the whole tree while they are bound.
use super::{Creator, Restorer, missing};
use crate::failure::{About, Result};
use crate::injector::Ran;
use crate::resource::Made;
use godwit_image::tree::Tree;
use godwit_image::{Code, ObjectId, Pid, Refusal, Subject};
use godwit_linux::file;
use godwit_linux::pidfd::{ForeignDescriptor, PidFd};
use godwit_linux::proc::fdinfo;
use godwit_linux::program::{Argument, Program};
use godwit_linux::shared_memory::Attachment;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

const O_CLOEXEC: u32 = 0o2_000_000;

/// What a first stage has made.
#[derive(Debug, Default)]
pub(super) struct Product {
    pub(super) made: BTreeMap<ObjectId, Made>,
    pub(super) sinks: BTreeMap<ObjectId, Sink>,
    pub(super) created: Created,
}

/// First stage: objects are made in the restorer's own table, above every number that the tree uses.
#[derive(Debug)]
pub struct Make<'a> {
    tree: &'a Tree,
    minimum: i32,
    made: BTreeMap<ObjectId, Made>,
    sinks: BTreeMap<ObjectId, Sink>,
    created: Created,
    /// Whose tasks exist, for late objects.
    tasks: Option<&'a mut Restorer>,
    stocks: Vec<Stock>,
    /// Pipes of our own.
    pub(crate) scratch: crate::resource::pipe_content::Scratch,
}

/// Pairs that a task has made ahead.
#[derive(Debug)]
struct Stock {
    creator: Creator,
    sort: u64,
    /// The task.
    process: Option<PidFd>,
    /// The numbers of each pair there, the first in the lower half.
    numbers: Vec<u64>,
    /// How many are made next.
    next: usize,
}

/// Pairs that are made at once at most.
const STOCK_MAX: usize = 64;

impl Stock {
    fn new(creator: &Creator, sort: u64) -> Stock {
        Stock { creator: creator.clone(), sort, process: None, numbers: Vec::new(), next: 1 }
    }
}

impl<'a> Make<'a> {
    pub(super) fn new(tree: &'a Tree, minimum: i32) -> Make<'a> {
        let (made, sinks, created) = (BTreeMap::new(), BTreeMap::new(), Created::default());
        Make { tree, minimum, made, sinks, created, tasks: None, stocks: Vec::new(), scratch: Default::default() }
    }

    /// Goes on with what was made before, above the numbers that the tree is now known to use.
    pub(super) fn resume(tree: &'a Tree, minimum: i32, product: Product) -> Result<Make<'a>> {
        let Product { made, sinks, created } = product;
        let mut make = Make { made, sinks, created, ..Make::new(tree, minimum) };
        let is_low = |made: &Made| made.iter().any(|file| file.as_raw_fd() < minimum);
        let low: Vec<ObjectId> = make.made.iter().filter(|(_, made)| is_low(made)).map(|(id, _)| *id).collect();
        for id in low {
            let made = make.made.remove(&id).unwrap_or_default();
            make.keep(id, made)?;
        }
        Ok(make)
    }

    /// Whether an object is made.
    pub(super) fn has(&self, id: ObjectId) -> bool {
        self.made.contains_key(&id)
    }

    /// Goes on with what was made before, now that tasks exist.
    pub(super) fn again(tree: &'a Tree, tasks: &'a mut Restorer) -> Make<'a> {
        let (made, minimum) = (std::mem::take(&mut tasks.made), tasks.minimum);
        Make { made, tasks: Some(tasks), ..Make::new(tree, minimum) }
    }

    /// Has a task make two descriptors by one call that writes their numbers into its data (socketpair), under the
    /// identity of a creator, and takes them out. Calls of the same `sort` are alike: as more are wanted, more are made at
    /// once. Only for late objects.
    ///
    /// # Errors
    /// No task exists yet; the call fails.
    pub fn pair_by(
        &mut self,
        creator: &Creator,
        sort: u64,
        call: impl Fn(&mut Program, Argument),
    ) -> Result<(OwnedFd, OwnedFd)> {
        let tasks = self.tasks.as_mut().ok_or_else(early)?;
        let stock = match self.stocks.iter().position(|stock| stock.sort == sort && stock.creator == *creator) {
            Some(index) => &mut self.stocks[index],
            None => {
                self.stocks.push(Stock::new(creator, sort));
                let last = self.stocks.len() - 1;
                &mut self.stocks[last]
            }
        };
        if stock.numbers.is_empty() {
            let mut places = Vec::with_capacity(stock.next);
            let (pid, ran) = tasks.run_as(creator, &[], |program, _| {
                for _ in 0..stock.next {
                    let (space, offset) = program.space(8);
                    places.push(offset);
                    call(program, space);
                }
            })?;
            stock.numbers.extend(places.into_iter().map(|place| ran.word(place)));
            stock.next = (stock.next * 2).min(STOCK_MAX);
            stock.process = Some(PidFd::open_thread(pid.0).about(|| Subject::Process(pid.0))?);
        }
        let (Some(numbers), Some(process)) = (stock.numbers.pop(), &stock.process) else { return Err(early()) };
        // What they are in the task stays until its table is filled: everything else is closed there then.
        let take = |number: i32| {
            process
                .duplicate(ForeignDescriptor(number))
                .about(|| Subject::Descriptor(process.pid(), number, String::new()))
        };
        Ok((take(numbers as u32 as i32)?, take((numbers >> 32) as i32)?))
    }

    /// Has a task make calls under the identity of a creator; `body` gets the numbers of the copies of `files`. Only for
    /// late objects.
    ///
    /// # Errors
    /// No task exists yet; a call fails.
    pub fn run_as(
        &mut self,
        creator: &Creator,
        files: &[BorrowedFd<'_>],
        body: impl FnOnce(&mut Program, &[godwit_linux::program::Step]),
    ) -> Result<()> {
        self.tasks.as_mut().ok_or_else(early)?.run_as(creator, files, body).map(drop)
    }

    /// The image.
    pub fn tree(&self) -> &'a Tree {
        self.tree
    }

    /// A made object that this one refers to: its n-th descriptor.
    ///
    /// # Errors
    /// The object was not made before (it is not among the envelope's refs).
    pub fn made(&self, id: ObjectId, index: usize) -> Result<BorrowedFd<'_>> {
        self.made.get(&id).and_then(|made| made.get(index)).map(|file| file.as_fd()).ok_or_else(|| missing(id))
    }

    /// Registers where the bulk bytes of an object go: written by position.
    ///
    /// # Errors
    /// EMFILE.
    pub fn sink(&mut self, id: ObjectId, file: BorrowedFd<'_>) -> Result<()> {
        let copy = file::duplicate_above(file, self.minimum).about(|| Subject::Object(format!("object {id}")))?;
        self.sinks.insert(id, Sink::File(copy));
        Ok(())
    }

    /// The same for a file of huge pages of this size in bytes.
    ///
    /// # Errors
    /// EMFILE.
    pub fn sink_huge(&mut self, id: ObjectId, file: BorrowedFd<'_>, page_bytes: u64) -> Result<()> {
        let copy = file::duplicate_above(file, self.minimum).about(|| Subject::Object(format!("object {id}")))?;
        self.sinks.insert(id, Sink::Huge(copy, page_bytes));
        Ok(())
    }

    /// The destination has the object's bytes: what arrives is dropped, and the object is not to be changed.
    pub fn sink_nothing(&mut self, id: ObjectId) {
        self.sinks.insert(id, Sink::Nothing);
    }

    /// The destination has a file that must hold the object's bytes: what arrives is compared.
    ///
    /// # Errors
    /// EMFILE.
    pub fn sink_same(&mut self, id: ObjectId, file: BorrowedFd<'_>, path: &str) -> Result<()> {
        let copy = file::duplicate_above(file, self.minimum).about(|| Subject::Object(format!("object {id}")))?;
        self.sinks.insert(id, Sink::Same(copy, path.to_owned()));
        Ok(())
    }

    /// Notes a file or an empty directory that was made by its path: gone again if the restore fails.
    pub fn created(&mut self, path: &str) {
        self.created.paths.push((path.into(), None));
    }

    /// The same, where what lay there before was moved to `aside`: it comes back then.
    pub fn created_instead(&mut self, path: PathBuf, aside: Option<PathBuf>) {
        self.created.paths.push((path, aside));
    }

    /// Notes a System V shared memory segment that was made: gone again if the restore fails.
    pub fn created_segment(&mut self, id: i32) {
        self.created.segments.push(id);
    }

    /// Notes a POSIX message queue that was made: gone again if the restore fails.
    pub fn created_queue(&mut self, name: String) {
        self.created.queues.push(name);
    }

    /// Notes a System V message queue that was made: gone again if the restore fails.
    pub fn created_message_queue(&mut self, id: i32) {
        self.created.message_queues.push(id);
    }

    /// Notes a set of semaphores that was made: gone again if the restore fails.
    pub fn created_semaphores(&mut self, id: i32) {
        self.created.semaphores.push(id);
    }

    /// Keeps a segment alive until the tasks have it.
    pub fn keep_attached(&mut self, attachment: Attachment) {
        self.created.attached.push(attachment);
    }

    /// A copy of one of the restorer's own descriptors, for edges that are inherited.
    ///
    /// # Errors
    /// GW1102 when the restorer has no such descriptor.
    pub fn inherited(&self, number: i32) -> Result<OwnedFd> {
        let refuse = |cause: String| {
            Refusal::new(Code::EDGE, Subject::Object(format!("descriptor {number}")), cause)
                .choice(format!("give it to godwit restore: {number}<FILE or {number}>FILE in the shell"))
        };
        let own = std::process::id() as i32;
        // What closes on exec was opened by us, and is nobody's to inherit.
        if !fdinfo::read(own, number).is_ok_and(|information| information.flags & O_CLOEXEC == 0) {
            return Err(refuse("it is to be inherited, and godwit restore was not given it".to_owned()));
        }
        godwit_linux::pidfd::PidFd::open(own)
            .and_then(|own| own.duplicate(godwit_linux::pidfd::ForeignDescriptor(number)))
            .map_err(|error| refuse(format!("it cannot be inherited: {error}")))
    }

    pub(super) fn keep(&mut self, id: ObjectId, made: Made) -> Result<()> {
        let mut moved = Vec::with_capacity(made.len());
        for file in made {
            let above = if file.as_raw_fd() >= self.minimum {
                file
            } else {
                file::duplicate_above(file.as_fd(), self.minimum).about(|| Subject::Object(format!("object {id}")))?
            };
            moved.push(above);
        }
        self.made.insert(id, moved);
        Ok(())
    }

    pub(super) fn finish(self) -> Product {
        Product { made: self.made, sinks: self.sinks, created: self.created }
    }
}

fn early() -> Refusal {
    Refusal::new(Code::MALFORMED, Subject::Object("image".to_owned()), "an object needs tasks before there are any")
}

/// Where the bytes of a content go.
#[derive(Debug)]
pub(super) enum Sink {
    /// Written by position.
    File(OwnedFd),
    /// Written by position into huge pages of this size in bytes.
    Huge(OwnedFd, u64),
    /// Compared with what is in the file of this path.
    Same(OwnedFd, String),
    /// Nowhere.
    Nothing,
}

impl Sink {
    /// Whether a file is open for writing as long as bytes come.
    pub(super) fn is_written(&self) -> bool {
        matches!(self, Sink::File(_) | Sink::Huge(..))
    }
}

/// What this restore made under names; removed on drop, the last one first.
#[derive(Debug, Default)]
pub(super) struct Created {
    segments: Vec<i32>,
    queues: Vec<String>,
    message_queues: Vec<i32>,
    semaphores: Vec<i32>,
    /// Segments that were removed at the source live by these until tasks are attached.
    attached: Vec<Attachment>,
    /// What was made, and where that lies for which it stands in.
    paths: Vec<(PathBuf, Option<PathBuf>)>,
}

impl Created {
    /// Takes over what another stage made.
    pub(super) fn extend(&mut self, mut later: Created) {
        self.paths.append(&mut later.paths);
        self.segments.append(&mut later.segments);
        self.queues.append(&mut later.queues);
        self.message_queues.append(&mut later.message_queues);
        self.semaphores.append(&mut later.semaphores);
        self.attached.append(&mut later.attached);
    }

    /// They belong to the tree now.
    pub(super) fn keep(&mut self) {
        self.segments.clear();
        self.queues.clear();
        self.message_queues.clear();
        self.semaphores.clear();
        for (_, aside) in self.paths.drain(..) {
            // It may be gone: nothing of the tree depends on it.
            let _ = aside.map(std::fs::remove_file);
        }
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        for (path, aside) in self.paths.iter().rev() {
            // A directory in which somebody else has made something by now stays.
            let _ = match aside {
                Some(aside) => std::fs::rename(aside, path),
                None => std::fs::remove_file(path).or_else(|_| std::fs::remove_dir(path)),
            };
        }
        for name in &self.queues {
            let _ = godwit_linux::message_queue::unlink(name.as_bytes());
        }
        for id in &self.message_queues {
            let _ = godwit_linux::sysv_queue::remove(*id);
        }
        for id in &self.semaphores {
            let _ = godwit_linux::sysv_semaphores::remove(*id);
        }
        for id in &self.segments {
            // Removed already, where it was at the source.
            let _ = godwit_linux::shared_memory::remove(*id);
        }
    }
}

/// All objects, referred-to ones first.
pub(super) fn order(tree: &Tree) -> Result<Vec<ObjectId>> {
    let refs: BTreeMap<ObjectId, &[ObjectId]> =
        tree.objects.iter().map(|envelope| (envelope.id, envelope.refs.as_slice())).collect();
    let mut done = BTreeSet::new();
    let mut open = BTreeSet::new();
    let mut order = Vec::with_capacity(tree.objects.len());
    for envelope in &tree.objects {
        // Depth-first with an explicit stack: images are hostile, recursion depth is theirs to choose.
        let mut stack = vec![(envelope.id, 0_usize)];
        while let Some((id, next)) = stack.pop() {
            if next == 0 && (done.contains(&id) || !open.insert(id)) {
                if open.contains(&id) && !done.contains(&id) {
                    return Err(Refusal::new(
                        Code::MALFORMED,
                        Subject::Object(format!("object {id}")),
                        "it refers to itself",
                    ));
                }
                continue;
            }
            let children = refs.get(&id).copied().unwrap_or(&[]);
            match children.get(next) {
                Some(child) => {
                    stack.push((id, next + 1));
                    if !done.contains(child) {
                        stack.push((*child, 0));
                    }
                }
                None => {
                    open.remove(&id);
                    if done.insert(id) {
                        order.push(id);
                    }
                }
            }
        }
    }
    Ok(order)
}

/// Second stage: every object is made, every task exists and is stopped.
#[derive(Debug)]
pub struct Bind<'a> {
    pub(super) restorer: &'a mut Restorer,
    /// The object that is being bound.
    pub(super) object: ObjectId,
}

impl Bind<'_> {
    /// The image.
    pub fn tree(&self) -> &Tree {
        &self.restorer.tree
    }

    /// The object's own descriptor (the same open description that the tasks have).
    ///
    /// # Errors
    /// The object has no descriptor.
    pub fn own(&self) -> Result<BorrowedFd<'_>> {
        self.made(self.object)
    }

    /// A lock that somebody else has, which may be the source: taken when it has let go, before anything runs.
    ///
    /// # Errors
    /// GW1201: it cannot be the source, which is another machine, and the file is not on a shared file system.
    pub fn defer(&mut self, error: godwit_linux::Errno, lock: super::DeferredLock) -> Result<()> {
        self.restorer.defer(error, lock)
    }

    /// The thread itself while it lives, else the first living one of its process.
    pub fn living(&self, thread: Pid) -> Option<Pid> {
        let has = |task: &&godwit_image::task::Task| task.threads.iter().any(|other| other.tid == thread);
        let task = self.tree().tasks.iter().find(has)?;
        let mut living = task.threads.iter().filter(|other| !other.dead);
        let first = living.clone().next()?;
        Some(living.find(|other| other.tid == thread).unwrap_or(first).tid)
    }

    /// Whether the object was found at the destination with its contents: then nothing of it is to be changed.
    pub fn is_found(&self) -> bool {
        matches!(self.restorer.sinks.get(&self.object), Some(Sink::Same(..) | Sink::Nothing))
    }

    /// The tasks are attached to their segments: the restorer lets go of them.
    pub fn detach_segments(&mut self) {
        self.restorer.created.attached.clear();
    }

    /// How many descriptors another object was made of.
    pub fn made_count(&self, id: ObjectId) -> usize {
        self.restorer.made.get(&id).map_or(0, Vec::len)
    }

    /// Another object's descriptor.
    ///
    /// # Errors
    /// The object has no descriptor.
    pub fn made(&self, id: ObjectId) -> Result<BorrowedFd<'_>> {
        self.restorer.own(id).ok_or_else(|| missing(id))
    }

    /// Who holds the object: tables' first tasks and descriptor numbers.
    pub fn holders(&self) -> Vec<(Pid, i32)> {
        self.holders_of(self.object)
    }

    /// Who holds another object.
    pub fn holders_of(&self, id: ObjectId) -> Vec<(Pid, i32)> {
        let tree = &self.restorer.tree;
        let mut holders = Vec::new();
        for table in &tree.tables {
            let Some(thread) = tree.tasks.iter().flat_map(|task| &task.threads).find(|t| t.files == Some(table.id))
            else {
                continue;
            };
            let of_table = table.slots.iter().filter(|slot| slot.description == id);
            holders.extend(of_table.map(|slot| (thread.tid, slot.descriptor)));
        }
        holders
    }

    /// Has object `id` under exactly `number` in the restorer's own table while `work` runs; what was there comes back.
    ///
    /// # Errors
    /// EMFILE; those of `work`.
    pub fn at_number<T>(&mut self, number: i32, id: ObjectId, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let subject = || Subject::Object(format!("object {id}"));
        let file = file::duplicate_above(self.made(id)?, number.saturating_add(1)).about(subject)?;
        let placed = godwit_linux::descriptor::Placed::at(file.as_fd(), number).about(subject)?;
        let result = work(self);
        drop(placed);
        result
    }

    /// Another object's n-th descriptor.
    ///
    /// # Errors
    /// The object has no such descriptor.
    pub fn made_part(&self, id: ObjectId, index: usize) -> Result<BorrowedFd<'_>> {
        let made = self.restorer.made.get(&id).and_then(|made| made.get(index));
        made.map(|file| file.as_fd()).ok_or_else(|| missing(id))
    }

    /// Notes a file that was made by its path: gone again if the restore fails, and what was moved out of its way to
    /// `aside` is back.
    pub fn created(&mut self, path: PathBuf, aside: Option<PathBuf>) {
        self.restorer.created.paths.push((path, aside));
    }

    /// Has a task make calls under the identity of a creator; `body` gets the numbers of the copies of `files`.
    ///
    /// # Errors
    /// A call fails.
    pub fn run_as(
        &mut self,
        creator: &Creator,
        files: &[BorrowedFd<'_>],
        body: impl FnOnce(&mut Program, &[godwit_linux::program::Step]),
    ) -> Result<()> {
        self.restorer.run_as(creator, files, body).map(drop)
    }

    /// Runs a program in a task (its leader, or one thread by number).
    ///
    /// # Errors
    /// A call that may not fail did.
    pub fn run(&mut self, thread: Pid, program: &Program) -> Result<Ran> {
        self.restorer.run(thread, program)
    }
}
