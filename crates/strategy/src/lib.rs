//! The table of strategies: how memory moves, as data.
//!
//! Every published way of moving a process's memory is a row of one table, and one session reads the row. A row says in
//! steps what is sent while the process still runs at the source, what in the down time, and what afterwards. This room
//! must never know pages themselves, a link, a clock or a kernel; it counts and decides.
#![no_std]

extern crate alloc;

mod costs;
mod decide;
mod ledger;
mod notation;
mod predict;
mod row;
mod table;
mod validate;

pub use costs::Costs;
pub use decide::{Decision, Left, Progress, decide_round};
pub use ledger::{Division, Ledger};
pub use notation::{BadRow, Knobs, notation, parse};
pub use predict::{DEMAND_WINDOW_MS, LinkProfile, OBJECTIVES, Objective, Prediction, Profile, choose, predict};
pub use row::{Enough, Order, Origin, Phase, Row, Set, Step, Until};
pub use table::TABLE;
pub use validate::{Flaw, needs_tracking, validate};
