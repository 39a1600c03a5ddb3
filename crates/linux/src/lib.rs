//! This room holds the kernel's doors: one small safe wrapper per file, the syscall-program stub, the /proc parsers and
//! the feature probe. All `unsafe` of the project lives here. It must never know an image, a strategy or a peer.
#![deny(unsafe_code)]

pub mod arena;
pub mod attributes;
pub mod clock;
pub mod clone;
pub mod descriptor;
pub mod epoll;
pub mod errand;
pub mod errno;
pub mod eventfd;
pub mod features;
pub mod file;
pub mod file_handle;
pub mod filesystem;
pub mod inotify;
pub mod kcmp;
pub mod landlock;
pub mod limits;
pub mod lock;
pub mod memory;
pub mod memory_file;
pub mod message;
pub mod message_queue;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod pagemap;
pub mod pidfd;
pub mod pipe;
pub mod poll;
pub mod proc;
pub mod process;
pub mod program;
pub mod ptrace;
pub mod readiness;
pub mod resumption;
pub mod scheduling;
pub mod seccomp;
pub mod shared_memory;
pub mod signal;
pub mod signalfd;
pub mod socket;
pub mod socket_diagnosis;
pub mod stranger;
pub mod stub;
pub mod sysv_queue;
pub mod sysv_semaphores;
pub mod tcp;
pub mod terminal;
pub mod time_namespace;
pub mod timerfd;
pub mod unix_socket;
pub mod userfault;
pub mod vector;

pub use errno::{Errno, Gone};
