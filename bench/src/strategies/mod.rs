//! `godwit bench strategies`: every strategy under the same conditions, and the page that tells what came of it.
//!
//! What was measured is plain data ([`record::Evaluation`]) that can be read again: a run goes on where an earlier one ended, and the
//! page and its drawings come from the data alone.

pub mod budget;
pub mod cell;
pub mod drawing;
pub mod figures;
pub mod findings;
pub mod foreseen;
pub mod link;
pub mod own_memory;
pub mod page;
pub mod record;
pub mod regret;
pub mod run;
pub mod table;
pub mod tracked;
pub mod workload;

pub use record::Evaluation;
pub use run::{Plan, run};
