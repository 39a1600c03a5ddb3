//! The page store, as far as it is pure: what is said to it, what it makes of that, and how what it keeps is laid out.
//!
//! A page store keeps pages of processes beside both hosts: the source puts them in, the destination takes them out, and it is needed
//! until the process has them all or has ended. Who drives a [`Session`] gives it what was said and does what it answers; pages pass beside
//! it. Drawn byte by byte in docs/store.md.

mod index;
mod record;
mod session;
mod word;

pub use index::{Index, Part, Place};
pub use record::{FILE_HEADER, Head, RECORD_HEADER, Record, file_header, read_file_header};
pub use session::{Fault, Session, Task};
pub use word::{Cause, Role, Word};

/// The version of what is said to a page store.
pub const VERSION: u16 = 1;
/// Most runs of pages that an index holds: what is scattered more is refused.
pub const RUNS_MAX: usize = 1 << 20;
/// Most pages in a record.
pub const RECORD_PAGES_MAX: u32 = 16_384;
