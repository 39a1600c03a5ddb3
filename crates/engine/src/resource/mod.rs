//! Kinds of resources: one file each, capture and restore side by side, and one line in [`KINDS`].
//!
//! A kind is a leaf of the object graph. Three scopes exist: *descriptions* (what a descriptor, a mapping, a working
//! directory refers to), *contents* that several descriptions share (a pipe, a memory file), and *task state* (POSIX
//! timers, record locks). Nothing has a default: what a kind does not carry it must refuse by name.
use crate::capture::Capture;
use crate::failure::{Result, malformed};
use crate::look::{Look, Survey};
use crate::restore::{Bind, Make};
use godwit_image::{Envelope, KindId, ObjectId, Pid, Subject, Verdict, codec};
use godwit_linux::features::Feature;
use godwit_linux::proc::status::Status;
use serde::Serialize;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

pub mod affiliation;
pub mod character_device;
pub mod directory;
pub mod edge;
pub mod epoll;
pub mod epoll_ready;
pub mod eventfd;
pub mod fifo;
pub mod file_content;
pub mod flock;
pub mod future_locks;
#[cfg(test)]
mod golden;
pub mod huge_file;
pub mod inet_socket;
pub mod inotify;
pub mod keyring;
pub mod landlock;
pub mod membarrier;
pub mod memory_file;
pub mod memory_policy;
pub mod owner;
pub mod path_handle;
pub mod pidfd;
pub mod pipe_content;
pub mod pipe_end;
pub mod posix_queue;
pub mod posix_queue_end;
pub mod posix_timer;
pub mod proc_file;
pub mod processor_mode;
pub mod pty;
pub mod record_locks;
pub mod refused;
pub mod regular_file;
pub mod resumption_code;
pub mod security_label;
pub mod signalfd;
pub mod sysfs;
pub mod sysv_attachment;
pub mod sysv_ipc;
pub mod sysv_queue;
pub mod sysv_semaphores;
pub mod sysv_shm;
mod sysv_undo;
mod sysv_users;
pub mod terminal;
pub mod thread_marks;
pub mod timer_overrun;
pub mod timerfd;
pub mod unix_connection;
pub(crate) mod unix_fact;
pub mod unix_name;
pub mod unix_option;
pub mod unix_queue;
pub mod unix_socket;
pub mod unlinked_file;
pub(crate) mod unopened_memory;
pub mod unread;

/// Every kind of this build. One line each; the order decides who recognises a description first.
pub const KINDS: &[&dyn Kind] = &[
    &edge::Edge,
    &path_handle::PathHandle,
    &refused::Refused,
    &proc_file::ProcFile,
    &posix_queue::PosixQueue,
    &posix_queue_end::PosixQueueEnd,
    &sysv_attachment::SysvAttachment,
    &sysv_shm::SysvShm,
    &sysv_ipc::SysvIpc,
    &sysfs::SysfsFile,
    &character_device::CharacterDevice,
    &directory::Directory,
    &file_content::FileContent,
    &memory_file::MemoryFile,
    &unlinked_file::UnlinkedFile,
    &flock::Flock,
    &record_locks::RecordLocks,
    &regular_file::RegularFile,
    &pipe_content::PipeContent,
    &pipe_end::PipeEnd,
    &fifo::FifoEnd,
    &posix_timer::PosixTimers,
    &pty::PtyPair,
    &terminal::Terminal,
    &inet_socket::InetSocket,
    &unix_connection::UnixConnection,
    &unix_socket::UnixSocketKind,
    &eventfd::EventCounter,
    &signalfd::SignalDescriptor,
    &timerfd::TimerDescriptor,
    &pidfd::PidDescriptor,
    &inotify::InotifyInstance,
    &epoll::EpollSet,
    &epoll_ready::EpollReady,
    &owner::Owner,
    &processor_mode::ProcessorMode,
    &landlock::Landlock,
    &keyring::KeyringKind,
    &security_label::SecurityLabel,
    &membarrier::Membarrier,
    &memory_policy::MemoryPolicy,
    &future_locks::FutureLocks,
    &thread_marks::ThreadMarks,
    &resumption_code::ResumptionCode,
    &affiliation::Affiliation,
    &refused::Other,
];

/// When an object can be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// As [`Stage::Early`], and from nothing but its envelope and what it refers to: as soon as these have come, while the rest is
    /// still being captured.
    AsItComes,
    /// By the restorer, before any task exists; tasks inherit it.
    Early,
    /// After all tasks exist (`/proc/PID` files, pidfds); tasks fetch it from the restorer.
    Late,
    /// Made as early as the first, but bound last: every task has its descriptors, and of what the restorer holds only
    /// this and what it refers to is left. For what would notice other work: epoll sets, owners of descriptions.
    Final,
}

/// How long a file must be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
pub enum Length {
    /// It does not matter.
    Any,
    /// At least this many bytes.
    AtLeast(u64),
    /// This many bytes.
    Exactly(u64),
}

impl Length {
    /// What is wrong with a file of this length.
    pub fn differs(self, bytes: u64) -> Option<String> {
        let (fits, wanted) = match self {
            Length::Any => return None,
            Length::AtLeast(wanted) => (bytes >= wanted, wanted),
            Length::Exactly(wanted) => (bytes == wanted, wanted),
        };
        (!fits).then(|| format!("it has {bytes} bytes here and {wanted} at the source"))
    }
}

/// What the destination must have for an object.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub enum Need {
    /// A file of this path.
    Path {
        /// Absolute path in the destination's mount namespace.
        path: String,
        /// Length of a regular file.
        length: Length,
        /// st_mode & S_IFMT; 0: it does not matter.
        file_type: u32,
    },
    /// Nothing: this directory comes with the object, and whoever needs it finds it.
    Brought(String),
    /// A kernel feature by its name in the feature probe.
    Feature(String),
}

impl Need {
    /// A file of a type (`st_mode & S_IFMT`), whatever its length.
    pub fn path(path: String, file_type: u32) -> Need {
        Need::Path { path, length: Length::Any, file_type }
    }

    /// A kernel feature.
    pub fn feature(feature: Feature) -> Need {
        Need::Feature(feature.name().to_owned())
    }
}

/// State on its way into an envelope.
#[derive(Debug)]
pub struct Captured {
    /// Objects that must be made first.
    pub refs: Vec<ObjectId>,
    /// Encoded state.
    pub payload: Vec<u8>,
}

impl Captured {
    /// Encodes a kind's state.
    ///
    /// # Errors
    /// The state cannot be encoded.
    pub fn new<T: Serialize>(refs: Vec<ObjectId>, state: &T) -> Result<Captured> {
        let payload = codec::encode(state).map_err(|error| malformed(Subject::Host, error))?;
        Ok(Captured { refs, payload })
    }
}

/// A made object in the restorer's own table: one descriptor for a description, several for a content with several
/// ends (a pipe: reading end, writing end), none for task state.
pub type Made = Vec<OwnedFd>;

/// What every kind has.
pub trait Kind: Sync {
    /// Stable number, never used again.
    fn id(&self) -> KindId;
    /// The field's word for it, as messages show it.
    fn name(&self) -> &'static str;
    /// Version of the payload that this build writes; it reads all versions up to it.
    fn version(&self) -> u16;
    /// When it can be made.
    fn stage(&self) -> Stage;
    /// What the destination must have, before anything is frozen.
    ///
    /// # Errors
    /// The payload is malformed.
    fn needs(&self, envelope: &Envelope) -> Result<Vec<Need>>;
    /// Makes the object in the restorer's table, from nothing but the envelope and the objects it refers to.
    ///
    /// # Errors
    /// Why it cannot be made exactly.
    fn make(&self, envelope: &Envelope, make: &mut Make) -> Result<Made>;
    /// Second stage: every object is made, every task exists, every content is filled, what this one refers to is bound.
    /// For what needs others: members of epoll sets, owners, seals, positions, descriptors in flight.
    ///
    /// # Errors
    /// Why it cannot be bound exactly.
    fn bind(&self, envelope: &Envelope, bind: &mut Bind) -> Result<()>;
    /// The scope, if descriptors can refer to it.
    fn description(&self) -> Option<&dyn Description>;
    /// The scope, if tasks have it without a descriptor.
    fn task_state(&self) -> Option<&dyn TaskState>;
}

/// A kind that descriptors (or mappings, working directories) refer to.
pub trait Description: Kind {
    /// Whether an open description is of this kind.
    fn recognise(&self, look: &Look) -> bool;
    /// What a move would do to it; called on a running tree, changes nothing.
    fn examine(&self, look: &Look, survey: &Survey) -> Verdict;
    /// What the destination must have for it, as far as the running tree shows: what `needs` will say of its envelope.
    fn foresee(&self, look: &Look, survey: &Survey) -> Vec<Need>;
    /// Reads its state out of the frozen tree. The envelope's id is decided by the caller; contents that several
    /// descriptions share are interned through `capture`.
    ///
    /// # Errors
    /// Why it cannot be carried exactly.
    fn capture(&self, look: &Look, capture: &mut Capture) -> Result<Captured>;
}

/// A process that runs and is examined.
#[derive(Clone, Copy, Debug)]
pub struct Running<'a> {
    /// Number.
    pub pid: i32,
    /// /proc/PID/status, read at the beginning of its examination.
    pub status: &'a Status,
}

/// A kind of state that belongs to a task, without a descriptor.
pub trait TaskState: Kind {
    /// What a move would do to it; called on a running process, changes nothing. Empty when the process has none.
    fn examine(&self, _: Running<'_>) -> Vec<(Subject, Verdict)> {
        Vec::new()
    }
    /// What the destination must have for it, as far as the running process shows.
    fn foresee(&self, _: i32) -> Vec<Need> {
        Vec::new()
    }
    /// Reads the state of one frozen process by programs; empty when it has none.
    ///
    /// # Errors
    /// Why it cannot be carried exactly.
    fn capture(&self, injector: &mut crate::injector::Injector<'_>, capture: &mut Capture) -> Result<Vec<Captured>>;
    /// Rebuilds it in a task whose memory and descriptors are in place, by programs.
    ///
    /// # Errors
    /// Why it cannot be rebuilt exactly.
    fn restore(&self, envelope: &Envelope, task: Pid, bind: &mut Bind) -> Result<()>;
}

/// The refusal for a description that no kind recognises.
pub(crate) fn unknown(look: &Look) -> godwit_image::Refusal {
    let cause = "no kind of this build recognises it";
    let refusal = godwit_image::Refusal::new(godwit_image::Code::UNKNOWN_KIND, look.subject(), cause)
        .choice("close it in the program");
    match look.number() {
        Some(number) => refusal.choice(format!("choose an edge for it: --edge {}:{number}=null", look.pid)),
        None => refusal,
    }
}

/// Whether the kernel remembers of an object which process made it (System V: shm_cpid, msg_lspid and the like).
pub(crate) fn remembers_its_maker(envelope: &Envelope) -> bool {
    let kinds: [&dyn Kind; 2] = [&sysv_shm::SysvShm, &sysv_ipc::SysvIpc];
    kinds.iter().any(|kind| kind.id() == envelope.kind)
}

/// Whether it is a Unix socket.
pub(crate) fn is_unix_socket(envelope: &Envelope) -> bool {
    envelope.kind == unix_socket::UnixSocketKind.id()
}

/// Whether whoever writes to it never waits for anybody: a file, a counter, a device without memory.
pub(crate) fn never_waits(envelope: &Envelope) -> bool {
    let kinds: [&dyn Kind; 5] = [
        &regular_file::RegularFile,
        &unlinked_file::UnlinkedFile,
        &memory_file::MemoryFile,
        &character_device::CharacterDevice,
        &eventfd::EventCounter,
    ];
    kinds.iter().any(|kind| kind.id() == envelope.kind)
}

/// Whether it is a lock on a file, which at a destination that sees the same file can only be taken when the source's tasks have ended.
pub(crate) fn is_lock(envelope: &Envelope) -> bool {
    let kinds: [&dyn Kind; 2] = [&flock::Flock, &record_locks::RecordLocks];
    kinds.iter().any(|kind| kind.id() == envelope.kind)
}

/// The kind of an envelope.
///
/// # Errors
/// GW1101 for a kind that this build does not know, or a newer version of a known one.
pub fn kind_of(envelope: &Envelope) -> Result<&'static dyn Kind> {
    // Asked several times for each of thousands of objects.
    static INDEX: OnceLock<BTreeMap<KindId, usize>> = OnceLock::new();
    let index = INDEX.get_or_init(|| KINDS.iter().enumerate().map(|(at, kind)| (kind.id(), at)).collect());
    match index.get(&envelope.kind).and_then(|at| KINDS.get(*at)) {
        Some(kind) if envelope.version >= 1 && envelope.version <= kind.version() => Ok(*kind),
        Some(kind) => Err(godwit_image::Refusal::new(
            godwit_image::Code::UNKNOWN_KIND,
            Subject::Object(format!("{} {}", kind.name(), envelope.id)),
            format!("version {} is newer than this build's {}", envelope.version, kind.version()),
        )),
        None => Err(godwit_image::Refusal::new(
            godwit_image::Code::UNKNOWN_KIND,
            Subject::Object(format!("object {}", envelope.id)),
            format!("kind {} is not known to this build", envelope.kind.0),
        )),
    }
}

/// Opens an envelope's payload as a kind's state.
///
/// # Errors
/// GW1004 when the payload is not such a state.
pub fn open<T: serde::de::DeserializeOwned>(envelope: &Envelope) -> Result<T> {
    envelope.open().map_err(|error| malformed(Subject::Object(format!("object {}", envelope.id)), error))
}

/// Asserts that a state comes back from its payload as it went in.
#[cfg(test)]
pub(crate) fn assert_round_trip<T: Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(state: &T) {
    let captured = Captured::new(Vec::new(), state).unwrap();
    let envelope =
        Envelope { id: ObjectId(1), kind: KindId(4), version: 1, refs: Vec::new(), payload: captured.payload };
    assert_eq!(&open::<T>(&envelope).unwrap(), state);
    golden::assert_read(state, &envelope);
    let cut = Envelope { payload: envelope.payload[..envelope.payload.len() - 1].to_vec(), ..envelope };
    assert!(open::<T>(&cut).is_err(), "a cut payload was taken for a whole one");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_kinds_are_distinct() {
        let numbers: std::collections::BTreeSet<KindId> = KINDS.iter().map(|kind| kind.id()).collect();
        assert_eq!(numbers.len(), KINDS.len());
    }
}
