//! This room drives the hand-off: threads, transports and the page pump; the machines' actions become engine calls, and
//! results go back as events. It must never know a kind of resource, or decide what `handoff` or `strategy` decides.

mod build;
pub mod checkpoint;
pub mod destination;
mod door;
pub mod forecast;
mod guardian;
mod hold;
mod host;
mod incoming;
mod intake;
mod journal;
mod link_probe;
mod packing;
mod private;
mod pulse;
mod pump;
mod reception;
mod recovery;
mod relocation;
mod report;
mod requirement;
pub mod residual;
mod restless;
pub mod reviving;
mod sample;
pub mod saving;
mod shepherd;
pub mod source;
pub mod store;
mod stream;
pub mod transport;
mod wishes;

pub use journal::run_directory;
pub use recovery::{Pending, parse_migration, pending, recover};
pub use report::{Observer, OnProgress, Progress, Report};
pub use shepherd::{entry, receive, receive_over_standard_streams};

use std::os::fd::OwnedFd;

/// A descriptor that becomes readable when the user wants to end it (Ctrl-C, SIGTERM, SIGHUP), for [`source::Options::cancel`]. From
/// now on these signals do nothing else.
///
/// # Errors
/// No descriptor is free.
pub fn cancellation() -> std::io::Result<OwnedFd> {
    use godwit_linux::signal;
    Ok(signal::listen(signal::bit(1) | signal::bit(2) | signal::bit(15))?)
}
