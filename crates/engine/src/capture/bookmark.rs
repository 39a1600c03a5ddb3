//! Where a second reader of a long list of areas is to begin: found while the tree still runs, because the kernel only lets whoever
//! has read the first areas go on behind them.
use crate::procfs;
use godwit_linux::memory::{self, ForeignAddress};
use godwit_linux::proc::{maps, smaps};
use std::collections::BTreeMap;

/// Areas from which on two readers are worth it.
const AREAS_MIN: usize = 300;

/// One in the list of areas of one address space.
#[derive(Debug)]
struct Bookmark {
    rest: smaps::Rest,
    birthmark: Birthmark,
}

/// What tells an address space from the next one of the same process: execve(2) leaves random bytes in each.
type Birthmark = [u8; 16];

fn birthmark(tid: i32) -> Option<Birthmark> {
    const AT_RANDOM: u64 = 25;
    let vector = procfs::auxiliary_vector(tid).ok()?;
    let word = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).ok();
    let mut pairs = vector.chunks_exact(16).filter_map(|pair| Some((word(&pair[..8])?, word(&pair[8..])?)));
    let address = pairs.find(|(key, _)| *key == AT_RANDOM)?.1;
    let mut bytes = Birthmark::default();
    let count = memory::read(tid, ForeignAddress(address), &mut bytes).ok()?;
    (count == bytes.len()).then_some(bytes)
}

/// Those of a tree, by process.
#[derive(Debug, Default)]
pub(crate) struct Bookmarks(BTreeMap<i32, Bookmark>);

impl Bookmarks {
    /// Puts one a little before the middle of each long list: whoever begins at its beginning has read other things first. Of what cannot be read, because it has just ended, there is none.
    pub(crate) fn of(pids: impl Iterator<Item = i32>) -> Bookmarks {
        let bookmark = |pid| {
            let areas = maps::read(pid).ok()?.len();
            let birthmark = (areas >= AREAS_MIN).then(|| birthmark(pid)).flatten()?;
            let rest = smaps::Rest::behind(pid, areas * 2 / 5).ok()??;
            Some((pid, Bookmark { rest, birthmark }))
        };
        Bookmarks(pids.filter_map(bookmark).collect())
    }

    /// Where that of a frozen process is; forgets it if the process has another address space since.
    pub(super) fn keep_valid(&mut self, tid: i32) -> Option<u64> {
        let bookmark = self.0.remove(&tid).filter(|bookmark| birthmark(tid) == Some(bookmark.birthmark))?;
        let start = bookmark.rest.start();
        self.0.insert(tid, bookmark);
        Some(start)
    }

    /// All, to go on from each.
    pub(super) fn into_rests(self) -> impl Iterator<Item = (i32, smaps::Rest)> {
        self.0.into_iter().map(|(tid, bookmark)| (tid, bookmark.rest))
    }
}
