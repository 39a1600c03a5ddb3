//! File tables and working directories: which of them are shared, and what every descriptor refers to.
use super::early::{Looks, Valid};
use super::{Capture, Outlet};
use crate::failure::{About, Result};
use crate::freeze::{FrozenProcess, FrozenTree};
use crate::look::{Look, Purpose};
use crate::thread_records::Records;
use godwit_image::descriptor::{FileTable, FilesystemContext, Slot};
use godwit_image::tree::Tree;
use godwit_image::{ObjectId, Subject};
use godwit_linux::kcmp::{self, Object};
use godwit_linux::pidfd::PidFd;
use godwit_linux::proc::status;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

const O_CLOEXEC: u32 = 0o2_000_000;
const O_PATH: u32 = 0o10_000_000;
const O_DIRECTORY: u32 = 0o200_000;

/// Which table and context every thread has.
pub(super) type Tables = BTreeMap<i32, (ObjectId, ObjectId)>;

/// The first of `firsts` whose object equals that of `tid`.
fn same(firsts: &[(i32, ObjectId)], tid: i32, object: Object) -> Result<Option<ObjectId>> {
    for (other, id) in firsts {
        if kcmp::kcmp(*other, tid, object).about(|| Subject::Process(tid))? == Ordering::Equal {
            return Ok(Some(*id));
        }
    }
    Ok(None)
}

/// Captures all tables and contexts of a tree: first every descriptor gets its object, then every object its state, so
/// that objects which refer to others find them whatever the order. Objects may leave as soon as they have it. Returns also
/// what they were seen by.
pub(super) fn tables(
    frozen: &FrozenTree,
    records: &BTreeMap<i32, Records>,
    (confirmed, mut looked): (Valid, Looks),
    capture: &mut Capture,
    tree: &mut Tree,
    outlet: &mut Outlet<'_, '_>,
) -> Result<(Tables, Vec<Look>)> {
    let mut found = Tables::new();
    let mut tables: Vec<(i32, ObjectId)> = Vec::new();
    let mut contexts: Vec<(i32, ObjectId)> = Vec::new();
    let mut pending: Vec<(ObjectId, Look)> = Vec::new();
    for process in &frozen.processes {
        let mut of_process: Option<(i32, ObjectId, ObjectId)> = None;
        let records = records.get(&process.pid);
        let tables_of = |index: usize| records?.of(index).map(|record| record.tables);
        for (index, thread) in process.threads.iter().enumerate() {
            let tid = thread.tid();
            // Nearly always a thread shares with its leader: ask that first.
            if let Some((leader, table, context)) = of_process {
                let shares = match (tables_of(0), tables_of(index)) {
                    (Some(of_first), Some(own)) => of_first == own,
                    _ => {
                        let files = kcmp::kcmp(leader, tid, Object::Files).about(|| thread.subject())?;
                        let filesystem = kcmp::kcmp(leader, tid, Object::Filesystem).about(|| thread.subject())?;
                        files == Ordering::Equal && filesystem == Ordering::Equal
                    }
                };
                if shares {
                    found.insert(tid, (table, context));
                    continue;
                }
            }
            let table = match same(&tables, tid, Object::Files)? {
                Some(table) => table,
                None => {
                    let id = capture.fresh();
                    tables.push((tid, id));
                    tree.tables.push(table(
                        (frozen, &confirmed, &mut looked),
                        process.pid,
                        tid,
                        id,
                        capture,
                        &mut pending,
                    )?);
                    id
                }
            };
            let context = match same(&contexts, tid, Object::Filesystem)? {
                Some(context) => context,
                None => {
                    let id = capture.fresh();
                    contexts.push((tid, id));
                    tree.filesystems.push(context(process, tid, id, capture)?);
                    id
                }
            };
            of_process.get_or_insert((tid, table, context));
            found.insert(tid, (table, context));
        }
    }
    describe_all(&mut pending, capture, tree, outlet)?;
    // Of a small tree all leave together with the files that are mapped: each time costs as much as it takes to look at those.
    if !frozen.is_one_thread() {
        outlet.pass_all(tree, &capture.objects)?;
    }
    Ok((found, pending.into_iter().map(|(_, look)| look).collect()))
}

/// Captures every object that is still to be captured.
fn describe_all(
    pending: &mut [(ObjectId, Look)],
    capture: &mut Capture,
    tree: &Tree,
    outlet: &mut Outlet<'_, '_>,
) -> Result<()> {
    // What was known before is on its way while the rest is looked at.
    outlet.pass(tree, &capture.objects)?;
    // Epoll sets last: their members may be in flight, in sockets that are described before.
    pending.sort_by_key(|(_, look)| look.link == b"anon_inode:[eventpoll]");
    for (object, look) in pending.iter() {
        capture.describe(*object, look)?;
        outlet.pass(tree, &capture.objects)?;
    }
    Ok(())
}

fn table(
    (frozen, confirmed, looked): (&FrozenTree, &Valid, &mut Looks),
    pid: i32,
    tid: i32,
    id: ObjectId,
    capture: &mut Capture,
    pending: &mut Vec<(ObjectId, Look)>,
) -> Result<FileTable> {
    let process = open(tid)?;
    let mut slots = Vec::new();
    let unseen = Default::default();
    let confirmed = confirmed.get(&tid).map_or(&[][..], Vec::as_slice);
    for known in confirmed {
        frozen.preparation.early.adopt(tid, known, capture);
        slots.push(known.slot());
    }
    let known: BTreeSet<i32> = confirmed.iter().map(|confirmed| confirmed.descriptor).collect();
    let looks = frozen.preparation.glimpses.table(tid).unwrap_or(&unseen).look_at_all(
        &process,
        &known,
        looked.remove(&tid).unwrap_or_default(),
    )?;
    for (descriptor, look) in looks {
        let close_on_exec = look.information.flags & O_CLOEXEC != 0;
        capture.survey.note(&look, tid, descriptor);
        capture.note_record_locks(&look, pid, tid, descriptor);
        let (object, new) = capture.reserve(&look, tid, descriptor)?;
        slots.push(Slot { descriptor, close_on_exec, description: object });
        if new {
            pending.push((object, look));
        }
    }
    slots.sort_unstable_by_key(|slot| slot.descriptor);
    Ok(FileTable { id, slots })
}

/// A pidfd of a thread-group leader; of another thread, where the kernel allows it, by PIDFD_THREAD.
fn open(tid: i32) -> Result<PidFd> {
    PidFd::open_thread(tid).about(|| Subject::Process(tid))
}

fn context(process: &FrozenProcess, tid: i32, id: ObjectId, capture: &mut Capture) -> Result<FilesystemContext> {
    let is_first = process.threads.first().is_some_and(|first| first.tid() == tid);
    let umask = match is_first {
        true => process.status()?.umask,
        false => status::read(tid, tid).about(|| Subject::Process(tid))?.umask,
    };
    let directory = Look::link(tid, "cwd", Purpose::Directory, O_PATH | O_DIRECTORY)?;
    let working_directory = capture.file(&directory, false)?;
    let root = Look::link(tid, "root", Purpose::Directory, O_PATH | O_DIRECTORY)?;
    let root = if root.link == b"/" { None } else { Some(capture.file(&root, false)?) };
    Ok(FilesystemContext { id, working_directory, root, umask: umask.unwrap_or(0o022) })
}
