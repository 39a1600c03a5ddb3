//! Objects that need tasks to exist: made by the restorer, fetched by the tasks; and the last binding, when all else is in
//! place.
//!
//! A task fetches by pidfd_getfd(2) from the restorer, whose pidfd it inherited: it still has the restorer's privileges
//! then, and the call's result is the number in its own table, so no message has to be read.
use super::make::{Bind, Make};
use super::{Restorer, make, missing};
use crate::communication;
use crate::failure::{About, Result};
use crate::resource::{self, Stage};
use godwit_image::{Envelope, ObjectId, Pid, Subject};
use godwit_linux::pidfd::PidFd;
use godwit_linux::program::Program;
use std::collections::BTreeSet;
use std::os::fd::AsRawFd;

const SYS_CLOSE: i64 = 3;
const SYS_FCNTL: i64 = 72;
const SYS_PIDFD_GETFD: i64 = 438;
const F_DUPFD: u64 = 0;
/// Objects per program: three calls each.
const FETCHED_MAX: usize = 1000;

/// A pidfd of this process at or above a number.
pub(super) fn own_process(minimum: i32) -> Result<PidFd> {
    PidFd::open(std::process::id() as i32).and_then(|own| own.above(minimum)).about(|| Subject::Host)
}

impl Restorer {
    /// Makes every object that needs tasks, and lets the tasks whose tables refer to them fetch them.
    pub(super) fn make_late(&mut self) -> Result<()> {
        let late: BTreeSet<ObjectId> =
            self.of_stages(&[Stage::Late])?.into_iter().map(|envelope| envelope.id).collect();
        if late.is_empty() {
            return Ok(());
        }
        let tree = std::mem::take(&mut self.tree);
        let result = self.make_all(&tree, &late);
        self.tree = tree;
        let (made, created) = result?;
        self.made = made;
        self.created.extend(created);
        let mut users: Vec<(ObjectId, Pid)> = self.first_users().0.into_iter().collect();
        users.sort_unstable_by_key(|(_, tid)| *tid);
        for (table, tid) in users {
            self.fetch(table, tid, &late)?;
        }
        Ok(())
    }

    fn make_all(
        &mut self,
        tree: &godwit_image::tree::Tree,
        late: &BTreeSet<ObjectId>,
    ) -> Result<(std::collections::BTreeMap<ObjectId, resource::Made>, make::Created)> {
        let order: Vec<ObjectId> = self.order.iter().copied().filter(|id| late.contains(id)).collect();
        let mut make = Make::again(tree, self);
        for id in &order {
            let envelope = tree.object(*id).ok_or_else(|| missing(*id))?;
            let made = resource::kind_of(envelope)?.make(envelope, &mut make)?;
            make.keep(*id, made)?;
        }
        let make::Product { made, created, .. } = make.finish();
        Ok((made, created))
    }

    /// Fetches what a table, or the working directory of its user, refers to.
    fn fetch(&mut self, table: ObjectId, tid: Pid, late: &BTreeSet<ObjectId>) -> Result<()> {
        let slots = self.tree.tables.iter().filter(|other| other.id == table).flat_map(|table| &table.slots);
        let mut wanted: BTreeSet<ObjectId> = slots.map(|slot| slot.description).collect();
        for thread in self.tree.tasks.iter().flat_map(|task| &task.threads).filter(|thread| thread.files == Some(table))
        {
            let contexts = self.tree.filesystems.iter().filter(|context| Some(context.id) == thread.filesystem);
            wanted
                .extend(contexts.flat_map(|context| context.root.iter().chain([&context.working_directory])).copied());
        }
        let wanted: Vec<ObjectId> = wanted.intersection(late).copied().collect();
        for part in wanted.chunks(FETCHED_MAX) {
            let mut program = Program::new();
            let mut steps = Vec::with_capacity(part.len());
            for id in part {
                let Some(number) = self.inherited_number(*id) else { continue };
                let low = program.call(
                    "pidfd_getfd",
                    SYS_PIDFD_GETFD,
                    [self.own.as_raw_fd().into(), number.into(), 0_u64.into()],
                );
                // Above every number that is still to be placed.
                let high = program.call("fcntl", SYS_FCNTL, [low.into(), F_DUPFD.into(), self.minimum.into()]);
                program.call("close", SYS_CLOSE, [low.into()]);
                steps.push((*id, high));
            }
            let ran = self.run(tid, &program)?;
            for (id, step) in steps {
                let number = ran.result("fcntl", step).about(|| Subject::Process(tid.0))?;
                self.fetched.insert((table, id), number as i32);
            }
        }
        Ok(())
    }

    /// Under which number a thread has an object before its descriptors are placed.
    pub(super) fn number_in(&self, tid: Pid, id: ObjectId) -> Option<i32> {
        let threads = || self.tree.tasks.iter().flat_map(|task| &task.threads);
        let table = threads().find(|thread| thread.tid == tid).and_then(|thread| thread.files);
        let fetched = table.filter(|_| !self.fetched.is_empty()).and_then(|table| self.fetched.get(&(table, id)));
        fetched.copied().or_else(|| self.inherited_number(id))
    }

    /// All objects of some stages, referred-to ones first.
    fn of_stages(&self, stages: &[Stage]) -> Result<Vec<Envelope>> {
        let mut found = Vec::new();
        for id in &self.order {
            let envelope = self.tree.object(*id).ok_or_else(|| missing(*id))?;
            if stages.contains(&resource::kind_of(envelope)?.stage()) {
                found.push(envelope.clone());
            }
        }
        Ok(found)
    }

    /// Binds the objects of some stages, referred-to ones first; not those of which something follows.
    pub(super) fn bind_objects(&mut self, stages: &[Stage]) -> Result<()> {
        for envelope in self.of_stages(stages)? {
            if self.tree.later.as_ref().is_some_and(|later| later.objects.contains(&envelope.id)) {
                continue;
            }
            let kind = resource::kind_of(&envelope)?;
            kind.bind(&envelope, &mut Bind { restorer: self, object: envelope.id })?;
        }
        Ok(())
    }

    /// Lets go of everything that only the restorer still holds (a pipe's end without a holder is gone from now on), and
    /// binds what would notice that.
    pub(super) fn settle(&mut self) -> Result<()> {
        let last = self.of_stages(&[Stage::Final])?;
        let kept: BTreeSet<ObjectId> =
            last.iter().flat_map(|envelope| envelope.refs.iter().copied().chain([envelope.id])).collect();
        let later = self.tree.later.iter().flat_map(|later| later.objects.iter().chain(&later.needs));
        let later = communication::closure(&self.tree, later.copied());
        self.made.retain(|id, _| kept.contains(id) || later.contains(id));
        self.sinks.clear();
        self.bind_objects(&[Stage::Final])?;
        self.made.retain(|id, _| later.contains(id));
        Ok(())
    }
}
