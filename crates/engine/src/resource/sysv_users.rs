//! Which System V queues and semaphore sets a tree uses. They belong to no process, so it is told by traces: who used one
//! last, and who waits in a call for it; when nobody else lives in the IPC namespace, all of them are the tree's.
use crate::procfs;
use godwit_linux::proc::syscall::{self, Activity};
use godwit_linux::proc::sysvipc::{self, Queue, Set};
use godwit_linux::proc::{link, status};
use godwit_linux::sysv_semaphores;
use std::collections::BTreeSet;

const SEMOP: u64 = 65;
const SEMTIMEDOP: u64 = 220;
const MSGSND: u64 = 69;
const MSGRCV: u64 = 70;

/// The objects of the IPC namespace that we and a process have in common.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    pub(super) queues: Vec<Queue>,
    /// With value and last user of every semaphore.
    pub(super) sets: Vec<(Set, Vec<(u16, i32)>)>,
}

/// The objects in a process's IPC namespace, if it is ours. What cannot be read is not there (any more).
pub(super) fn tables(pid: i32) -> Tables {
    let namespace = |pid| link::namespace(pid, pid, "ipc").ok();
    if namespace(pid).is_none() || namespace(pid) != namespace(std::process::id() as i32) {
        return Tables::default();
    }
    let read = |set: Set| Some((set, sysv_semaphores::read(set.id, set.count).ok()?));
    Tables {
        queues: sysvipc::queues().unwrap_or_default(),
        sets: sysvipc::sets().unwrap_or_default().into_iter().filter_map(read).collect(),
    }
}

/// What threads wait for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Waits {
    pub(super) queues: BTreeSet<i32>,
    pub(super) sets: BTreeSet<i32>,
}

impl Waits {
    /// Notes a call in which a thread waits, with its first argument.
    pub(super) fn note(&mut self, call: u64, argument: u64) {
        match call {
            SEMOP | SEMTIMEDOP => self.sets.insert(argument as i32),
            MSGSND | MSGRCV => self.queues.insert(argument as i32),
            _ => false,
        };
    }

    /// What the threads of a running process wait for.
    pub(super) fn of_running(pid: i32) -> Waits {
        let mut waits = Waits::default();
        for tid in procfs::threads(pid).unwrap_or_default() {
            if let Ok(Activity::Call { number, arguments, .. }) = syscall::read(pid, tid) {
                waits.note(u64::from(number), arguments[0]);
            }
        }
        waits
    }
}

/// Who used a queue last.
pub(super) fn of_queue(queue: &Queue) -> BTreeSet<i32> {
    [queue.sender, queue.receiver].into_iter().filter(|pid| *pid != 0).collect()
}

/// Who used the semaphores of a set last.
pub(super) fn of_set(semaphores: &[(u16, i32)]) -> BTreeSet<i32> {
    semaphores.iter().map(|(_, pid)| *pid).filter(|pid| *pid != 0).collect()
}

/// One of these users that lives, and not in the tree.
pub(super) fn stranger(users: &BTreeSet<i32>, in_tree: impl Fn(i32) -> bool) -> Option<i32> {
    let own = std::process::id() as i32;
    let lives = |pid: i32| std::path::Path::new(&format!("/proc/{pid}")).exists();
    users.iter().copied().find(|pid| *pid != own && !in_tree(*pid) && lives(*pid))
}

/// Whether nobody but the tree, this program and who started it lives in the tree's IPC namespace.
pub(super) fn is_private(root: i32, in_tree: impl Fn(i32) -> bool) -> bool {
    let Ok(namespace) = link::namespace(root, root, "ipc") else { return false };
    let mut ours = BTreeSet::new();
    let mut next = std::process::id() as i32;
    while next > 0 && ours.insert(next) {
        next = status::read(next, next).map_or(0, |status| status.parent);
    }
    let Ok(entries) = std::fs::read_dir("/proc") else { return false };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| !ours.contains(pid) && !in_tree(*pid))
        .all(|pid| link::namespace(pid, pid, "ipc").map_or(true, |other| other != namespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_wait_name_their_object() {
        let mut waits = Waits::default();
        for (call, argument) in [(SEMOP, 1), (SEMTIMEDOP, 2), (MSGSND, 3), (MSGRCV, 4), (0, 5)] {
            waits.note(call, argument);
        }
        assert_eq!(waits, Waits { queues: [3, 4].into(), sets: [1, 2].into() });
    }

    #[test]
    fn a_stranger_lives_and_is_not_of_the_tree() {
        let parent = std::os::unix::process::parent_id() as i32;
        let users = BTreeSet::from([std::process::id() as i32, parent, 4_000_987]);
        assert_eq!(stranger(&users, |_| false), Some(parent).filter(|pid| *pid != 0));
        assert_eq!(stranger(&users, |pid| pid == parent), None);
    }
}
