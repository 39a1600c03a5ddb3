//! What is done for a freeze while the tree still runs, some time before.
use crate::capture::bookmark::Bookmarks;
use crate::freeze;
use crate::glimpse::Glimpses;

/// What is ready.
#[derive(Debug, Default)]
pub struct Preparation {
    pub(crate) glimpses: Glimpses,
    pub(crate) bookmarks: Bookmarks,
}

impl Preparation {
    /// Prepares to freeze a tree. What changes afterwards takes longer to look at, and is seen all the same.
    pub fn of(root: i32) -> Preparation {
        let pids = freeze::tree(root).unwrap_or_default();
        crate::room::for_looks(pids.iter().copied());
        Preparation { glimpses: Glimpses::of(pids.iter().copied()), bookmarks: Bookmarks::of(pids.into_iter()) }
    }
}
