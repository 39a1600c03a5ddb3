//! Identities inside an image: objects by number, tasks by the number that they carry in their own PID namespace.
use core::fmt;
use serde::{Deserialize, Serialize};

/// Names one shared object of an image (an open description, an address space, a file table, …). Sharing is sameness
/// of id. Unique within one image, never 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ObjectId(pub u32);

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// A process or thread number as the task itself sees it (innermost PID namespace). Always > 0 in a valid image.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pid(pub i32);

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
