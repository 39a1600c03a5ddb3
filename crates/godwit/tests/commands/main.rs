//! The commands as a user meets them: real processes in hosts made of namespaces, exit codes, one JSON object on standard
//! output. Without root or namespaces each test says so and does nothing.

mod bad_input;
mod codes;
mod control_groups;
mod documents;
mod edges;
mod line;
mod refusals;
mod scene;
mod strangers;
mod verdicts;
