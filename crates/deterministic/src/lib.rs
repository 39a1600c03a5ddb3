//! What makes pure code pure: time as a number, seeded random numbers, an exhaustive generator, coverage marks.
//!
//! This room replaces the four things that make a program's run unrepeatable (the clock, the dice, the choice of cases,
//! the question "was this branch ever taken?") by values that the caller passes in. It must never know a real clock, a
//! socket, a thread, a file, or any other room of this project.
#![no_std]

extern crate alloc;

pub mod exhaustive;
pub mod mark;
pub mod random;
pub mod time;

pub use exhaustive::Exhaustive;
pub use mark::Mark;
pub use random::Random;
pub use time::{Duration, Instant};
