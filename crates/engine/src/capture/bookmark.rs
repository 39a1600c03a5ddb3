//! Where a second reader of a long list of areas is to begin: found while the tree still runs, because the kernel only lets whoever
//! has read the first areas go on behind them. Where the kernel's own records of all areas can be read, there is none.
use crate::procfs;
use godwit_linux::memory::{self, ForeignAddress};
use godwit_linux::proc::{Error, maps, smaps};
use std::collections::BTreeMap;

/// Areas from which on two readers are worth it.
const AREAS_MIN: usize = 300;

/// One in the list of areas of one address space.
#[derive(Debug)]
struct Bookmark {
    rest: smaps::Rest,
    /// Where the first reader ends.
    end: u64,
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
    /// Puts one into each long list. Of what cannot be read, because it has just ended, there is none.
    pub(crate) fn of(pids: impl Iterator<Item = i32>) -> Bookmarks {
        let bookmark = |pid| {
            let areas = maps::read(pid).ok()?.len();
            let birthmark = (areas >= AREAS_MIN).then(|| birthmark(pid)).flatten()?;
            // A little before the middle: whoever begins at the beginning has read other things first.
            let rest = smaps::Rest::behind(pid, areas * 2 / 5).ok()??;
            Some((pid, Bookmark { end: rest.start(), rest, birthmark }))
        };
        Bookmarks(pids.filter_map(bookmark).collect())
    }

    /// Up to where the first reader of a frozen process has to read; forgets the bookmark if the process has another address space since.
    pub(super) fn keep_valid(&mut self, tid: i32) -> Option<u64> {
        let bookmark = self.0.remove(&tid).filter(|bookmark| birthmark(tid) == Some(bookmark.birthmark))?;
        let end = bookmark.end;
        self.0.insert(tid, bookmark);
        Some(end)
    }

    /// All, to go on from each.
    pub(super) fn into_rests(self) -> impl Iterator<Item = (i32, Result<Vec<smaps::AreaFlags>, Error>)> {
        self.0.into_iter().map(|(tid, bookmark)| (tid, bookmark.rest.read()))
    }
}
