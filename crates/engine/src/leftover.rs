//! Objects with names of their own that outlive a tree: when the tree has moved, what it had is elsewhere, and the old one
//! would only stand in the way of its return.
use crate::look::user_of;
use godwit_linux::message_queue;
use godwit_linux::proc::sysvipc;
use std::fs::File;
use std::os::unix::fs::MetadataExt;

/// One object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Leftover {
    /// A System V shared memory segment: identifier, and time of its last change (seconds since 1970).
    Segment(i32, u64),
    /// A System V message queue: identifier, and times of its last use and change.
    MessageQueue(i32, [u64; 3]),
    /// A set of semaphores: identifier, and time of its last change.
    Semaphores(i32, u64),
    /// A POSIX message queue: name, and inode number.
    Queue(String, u64),
}

impl Leftover {
    /// Removes it, if it is still what it was and nobody uses it. What remains harms nobody.
    pub(crate) fn remove(self) {
        match self {
            Leftover::Segment(id, changed) => {
                let segments = sysvipc::read().unwrap_or_default();
                let same = |segment: &&sysvipc::Segment| {
                    segment.id == id && segment.change_time == changed && segment.attached == 0
                };
                if segments.iter().any(|segment| same(&segment)) {
                    let _ = godwit_linux::shared_memory::remove(id);
                }
            }
            Leftover::MessageQueue(id, times) => {
                let queues = sysvipc::queues().unwrap_or_default();
                if queues.iter().any(|queue| queue.id == id && queue.times == times) {
                    let _ = godwit_linux::sysv_queue::remove(id);
                }
            }
            // Its processes have given back what they had to at their end: that is no use by somebody else.
            Leftover::Semaphores(id, changed) => {
                let sets = sysvipc::sets().unwrap_or_default();
                if sets.iter().any(|set| set.id == id && set.times[1] == changed) {
                    let _ = godwit_linux::sysv_semaphores::remove(id);
                }
            }
            Leftover::Queue(name, inode) => {
                let queue = message_queue::open(name.as_bytes(), 0).map(File::from);
                let found = queue.ok().and_then(|queue| queue.metadata().ok());
                if found.is_some_and(|data| data.ino() == inode && user_of(data.dev(), inode).is_none()) {
                    let _ = message_queue::unlink(name.as_bytes());
                }
            }
        }
    }
}
