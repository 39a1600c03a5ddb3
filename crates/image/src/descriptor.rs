//! File tables: which number refers to which open description.
use crate::id::ObjectId;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// One file table; several tasks or threads may share it (CLONE_FILES).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileTable {
    /// Identity.
    pub id: ObjectId,
    /// Ascending by descriptor.
    pub slots: Vec<Slot>,
}

/// One descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Slot {
    /// The number.
    pub descriptor: i32,
    /// FD_CLOEXEC.
    pub close_on_exec: bool,
    /// The open description (an envelope).
    pub description: ObjectId,
}

/// Working directory, root and umask of tasks that share them (CLONE_FS).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FilesystemContext {
    /// Identity.
    pub id: ObjectId,
    /// Working directory (an envelope of a directory opened O_PATH).
    pub working_directory: ObjectId,
    /// Root directory, when it is not the root of the mount namespace.
    pub root: Option<ObjectId>,
    /// umask(2).
    pub umask: u32,
}
