//! This room says what a process tree *is*, as plain data: ids, the spine of the object graph (tasks, threads,
//! address spaces, areas, file tables), envelopes for everything else, page sets, the codec and the checkpoint
//! layout, and the errors that travel with them. It must never know a kind of resource, a kernel handle, a clock,
//! a socket or a file.
#![no_std]

extern crate alloc;

pub mod code;
pub mod codec;
pub mod credentials;
pub mod descriptor;
pub mod envelope;
pub mod host;
pub mod id;
pub mod layout;
pub mod memory;
pub mod page_set;
pub mod refusal;
pub mod signal;
pub mod task;
mod threads;
pub mod tree;

pub use code::Code;
pub use envelope::{Envelope, KindId};
pub use id::{ObjectId, Pid};
pub use refusal::{Refusal, Subject, Verdict};
pub use tree::Tree;
