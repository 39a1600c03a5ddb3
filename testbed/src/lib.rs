//! This room makes what the tests and the demo stand on: hosts out of namespaces with links between them, and programs
//! that verify their own state after a move. It must never know how a process is moved: it calls the `godwit` binary.

mod beats;
pub mod entry;
pub mod error;
mod godwit;
pub mod holder;
pub mod host;
pub mod journey;
pub mod kill;
pub mod leftover;
pub mod link;
pub mod matrix;
mod owing;
pub mod pair;
pub mod path;
pub mod phase_faults;
pub mod pool;
pub mod program;
mod storing;
pub mod workload;

pub use entry::entry;
pub use error::Error;
pub use host::{Host, HostCommand};
pub use link::Link;
pub use pair::{Options, Pair};
