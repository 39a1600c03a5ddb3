//! This room measures moves: programs of one kind each, moved between two hosts on this machine, and beside every figure
//! the limit that was measured in the same run. It must never know how a process is moved (it calls the `godwit` binary;
//! of the engine it uses the injector alone, to time one call), and nothing in it is a test: a slow machine is no failure.

pub mod board;
pub mod case;
pub mod error;
pub mod limit;
pub mod machine;
pub mod measurement;
pub mod memory_peak;
pub mod program;
pub mod report;
pub mod run;
pub mod strategies;
pub mod summary;
pub mod table;

pub use error::Error;
pub use report::Report;
pub use run::{Plan, run};
