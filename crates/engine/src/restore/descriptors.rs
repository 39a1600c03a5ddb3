//! Placing inherited objects at the numbers that each file table had, and dropping everything else.
use super::{Restorer, missing};
use crate::failure::Result;
use godwit_image::{ObjectId, Pid};
use godwit_linux::program::Program;
use std::collections::{BTreeMap, BTreeSet};

const SYS_CHROOT: i64 = 161;
const SYS_FCHDIR: i64 = 81;
const SYS_UMASK: i64 = 95;
const SYS_DUP3: i64 = 292;
const SYS_CLOSE_RANGE: i64 = 436;
const O_CLOEXEC: u64 = 0o2_000_000;
/// Calls per program.
const CALLS_MAX: usize = 4000;

impl Restorer {
    /// The first thread of every file table and of every working-directory context.
    pub(super) fn first_users(&self) -> (BTreeMap<ObjectId, Pid>, BTreeMap<ObjectId, Pid>) {
        let (mut tables, mut contexts) = (BTreeMap::new(), BTreeMap::new());
        for thread in self.tree.tasks.iter().flat_map(|task| &task.threads) {
            if let Some(table) = thread.files {
                tables.entry(table).or_insert(thread.tid);
            }
            if let Some(context) = thread.filesystem {
                contexts.entry(context).or_insert(thread.tid);
            }
        }
        (tables, contexts)
    }

    /// Fills every file table and context.
    pub(super) fn place_descriptors(&mut self) -> Result<()> {
        let (tables, contexts) = self.first_users();
        let users: BTreeSet<Pid> = tables.values().copied().collect();
        // Who fills a table sets its context in the same program: it is the last to need what lies in there.
        let (last, first): (Vec<_>, Vec<_>) = contexts.into_iter().partition(|(_, tid)| users.contains(tid));
        let mut begun = BTreeMap::new();
        for (id, tid) in first.into_iter().chain(last) {
            let context =
                self.tree.filesystems.iter().find(|context| context.id == id).cloned().ok_or_else(|| missing(id))?;
            let mut program = Program::new();
            if let Some(root) = context.root {
                let number = self.number_in(tid, root).ok_or_else(|| missing(root))?;
                program.call("fchdir", SYS_FCHDIR, [number.into()]);
                let here = program.text(b".");
                program.call("chroot", SYS_CHROOT, [here]);
            }
            let number =
                self.number_in(tid, context.working_directory).ok_or_else(|| missing(context.working_directory))?;
            program.call("fchdir", SYS_FCHDIR, [number.into()]);
            program.call("umask", SYS_UMASK, [context.umask.into()]);
            if users.contains(&tid) {
                begun.insert(tid, program);
            } else {
                self.run(tid, &program)?;
            }
        }
        for (id, tid) in tables {
            self.fill_table(id, tid, begun.remove(&tid).unwrap_or_default())?;
        }
        Ok(())
    }

    /// Behind what a program of the same thread does before.
    fn fill_table(&mut self, id: ObjectId, tid: Pid, mut program: Program) -> Result<()> {
        let table = self.tree.tables.iter().find(|table| table.id == id).cloned().ok_or_else(|| missing(id))?;
        let mut placed = Vec::with_capacity(table.slots.len());
        for slot in &table.slots {
            // An edge that the user chose to close was made into nothing.
            let Some(number) = self.number_in(tid, slot.description) else { continue };
            let flags = if slot.close_on_exec { O_CLOEXEC } else { 0 };
            program.call("dup3", SYS_DUP3, [number.into(), slot.descriptor.into(), flags.into()]);
            placed.push(slot.descriptor);
            if program.calls().len() >= CALLS_MAX {
                self.run(tid, &std::mem::take(&mut program))?;
            }
        }
        let mut next = 0;
        for number in placed {
            if number > next {
                program.call("close_range", SYS_CLOSE_RANGE, [next.into(), (number - 1).into(), 0_u64.into()]);
            }
            next = number + 1;
            if program.calls().len() >= CALLS_MAX {
                self.run(tid, &std::mem::take(&mut program))?;
            }
        }
        program.call("close_range", SYS_CLOSE_RANGE, [next.into(), u64::from(u32::MAX).into(), 0_u64.into()]);
        self.run(tid, &program).map(drop)
    }
}
