//! A pair of machines in a small world: virtual time, a link that loses, doubles and breaks, engines and hosts that die.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod dependence;
pub(crate) mod fault;
pub(crate) mod judge;
pub(crate) mod pair;
pub(crate) mod referee;
pub(crate) mod world;
