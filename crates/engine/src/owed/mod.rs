//! Pages that come after their process runs at the destination: which may stay behind, who gives them at the source, and who places them
//! where the process waits for them.
mod choice;
mod gathering;
mod ledger;
mod pager;
mod server;

pub use choice::{awaits_the_end, leave_behind};
pub use ledger::{Ledger, Place};
pub use pager::{Pager, Wanted};
pub use server::{Owed, Server};
