//! Room for what is to come, made while the tree still runs. For many descriptors in our own table: one that several threads share
//! grows only after every processor has been through its scheduler (the kernel's synchronize_rcu, some ms each time). For many threads
//! in our heap: it grows page by page, which takes longer than what is done with the pages.
use crate::procfs;
use godwit_linux::{eventfd, file, limits};
use std::os::fd::AsFd;

const RLIMIT_NOFILE: u32 = 7;
/// What we have open besides.
const OWN: u64 = 256;
/// Descriptors up to which a tree's objects may take several of ours each.
const SEVERAL_MAX: u64 = 1 << 14;

/// Raises our own limit to hold so many descriptors. Where even the hard limit is too low, whoever needs them says so.
pub(crate) fn raise_limit(wanted: u64) {
    let own = std::process::id() as i32;
    if let Ok((soft, hard)) = limits::get(own, RLIMIT_NOFILE)
        && soft < wanted
    {
        let _ = limits::set(own, RLIMIT_NOFILE, wanted.min(hard), hard)
            .or_else(|_| limits::set(own, RLIMIT_NOFILE, wanted, wanted.max(hard)));
    }
}

/// Has our table grow to hold so many descriptors; it never shrinks. Where that fails it grows later.
fn make(wanted: u64) {
    raise_limit(wanted);
    if let (Ok(highest), Ok(any)) = (i32::try_from(wanted), eventfd::create(false)) {
        drop(file::duplicate_above(any.as_fd(), highest - 1));
    }
}

/// Makes room in memory for the state of a tree of so many threads.
pub fn for_threads(count: usize) {
    /// What one thread takes while it is captured and sent, or comes and is restored.
    const THREAD_BYTES: usize = 6 << 10;
    /// What there is besides.
    const LEAST: usize = 512 << 10;
    const MOST: usize = 12 << 20;
    godwit_linux::heap::prepare((LEAST + count * THREAD_BYTES).min(MOST));
}

/// Makes room at a source for a look at every descriptor of a running tree.
pub(crate) fn for_looks(pids: impl Iterator<Item = i32>) {
    let count: usize = pids.map(|pid| procfs::descriptors(pid).map_or(0, |numbers| numbers.len())).sum();
    // What a glimpse keeps, and what a look does.
    make(2 * count as u64 + OWN);
}

/// Makes room at a destination for the objects of a tree whose highest descriptor is known: they lie above it.
pub fn for_objects(highest: i32) {
    let highest = highest.max(0) as u64;
    make(highest + 2 * highest.min(SEVERAL_MAX) + OWN);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_raised_and_never_lowered() {
        let own = std::process::id() as i32;
        let (before, hard) = limits::get(own, RLIMIT_NOFILE).unwrap();
        raise_limit(before.saturating_sub(1));
        assert_eq!(limits::get(own, RLIMIT_NOFILE).unwrap(), (before, hard));
        limits::set(own, RLIMIT_NOFILE, 300, hard).unwrap();
        for_objects(40);
        for_looks([own].into_iter());
        assert!(limits::get(own, RLIMIT_NOFILE).unwrap().0 >= 376.min(hard));
        limits::set(own, RLIMIT_NOFILE, before, hard).unwrap();
    }
}
