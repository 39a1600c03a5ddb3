//! The hand-off: how a process goes from one host to another so that it always runs in at most one place.
//!
//! Source and destination are state machines without input or output. Whoever drives one tells it what happened
//! (`handle(now, event)`) and asks it what to do (`poll_message`, `poll_action`, `poll_timeout`, `outcome`). The hand-off is a
//! saga: the fixed steps of [`step::TABLE`], each with its undo, then a point of no return. This room holds that table,
//! both machines, their messages with the bytes of their frames, and the journal that survives a crash. It must never know
//! a socket, a clock, a thread, a file, a kernel, or what is inside a page: pages pass beside it, and it hears their number.
//!
//! # How to drive a machine
//! 1. Create it: [`Source::new`], [`Destination::new`], or from a journal with `recover`.
//! 2. Feed one [`Event`] to `handle`. The answers of all `poll_*` and of `outcome` may change with every call of `handle`, and only then.
//! 3. Drain `poll_message` (send in order) and `poll_action` (perform in order, one after the other; each is reported by one
//!    event). An action that takes long may be performed elsewhere while messages go on, but the next action must wait for it, with
//!    one exception: [`Action::StopSending`], [`Action::Discard`] and [`Action::Thaw`] put an end to every unfinished (or not yet
//!    begun) [`Action::Send`], [`Action::Capture`], [`Action::Finish`], [`Action::Receive`], [`Action::Build`], [`Action::Fetch`] and
//!    [`Action::Freeze`]. Whether those are still reported does not matter.
//! 4. Call `handle` with [`Event::Timeout`] when `poll_timeout` has passed, received messages first.
//!
//! Every action must bear to be performed twice, and every undo to be performed for an action that never began: after a crash nobody
//! knows.
#![no_std]

extern crate alloc;

mod action;
pub mod bucket;
mod bytes;
mod capability;
pub mod delta;
mod destination;
pub mod frame;
mod identity;
pub mod journal;
mod link;
pub mod mark;
mod message;
mod outcome;
pub mod packed;
mod patience;
mod reason;
mod source;
pub mod step;
pub mod store;
mod timeline;

pub use action::{Action, Event, Settlement, Totals};
pub use bytes::Malformed;
pub use capability::{Capabilities, Value};
pub use destination::{Destination, DestinationConfig};
pub use identity::{BootId, MigrationId, Side, Versions};
pub use journal::{Record, Stage};
pub use message::{Message, Packet, Verdict};
pub use outcome::{Doubt, Outcome, Peer, Trouble};
pub use patience::Patience;
pub use reason::{Opaque, Reason};
pub use source::{Source, SourceConfig, Unsupported};
pub use step::{Deed, Step};
pub use timeline::Timeline;
