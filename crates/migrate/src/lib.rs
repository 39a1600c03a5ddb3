//! This room drives the hand-off: threads, transports and the page pump; the machines' actions become engine calls, and
//! results go back as events. It must never know a kind of resource, or decide what `handoff` or `strategy` decides.

pub mod checkpoint;
