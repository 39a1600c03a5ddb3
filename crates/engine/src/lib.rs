//! This room freezes a stranger's process tree, reads all of its state into an image, and builds a tree from an image:
//! syscall programs, the spine's capture and restore, and one file per kind of resource. It must never know a network,
//! a peer, a strategy, a command line, or where pages go.

mod attach;
pub mod capture;
mod change;
pub mod check;
pub mod claim;
pub mod clock;
pub mod demand;
mod edges;
pub mod failure;
mod file_records;
pub mod foresight;
pub mod freeze;
mod glimpse;
pub mod ground;
pub mod hold;
pub mod host;
mod injection_site;
pub mod injector;
mod interrupted;
pub mod leftover;
pub mod lineage;
pub mod look;
mod namespaces;
pub mod outflow;
pub mod owed;
pub mod pages;
pub mod pieces;
pub mod preparation;
mod processor;
mod procfs;
mod question;
mod ran;
pub mod resource;
pub mod restore;
mod resumption;
pub mod room;
mod sequence;
mod sharing;
mod sleep;
mod surroundings;
mod thread_records;
mod tmpfs_file;
pub mod tracking;
mod turn;
mod vfork;
