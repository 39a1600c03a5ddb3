//! What lies unread in pipes, FIFOs and Unix sockets, apart from the rest of a tree: it may follow when the tree runs already
//! (`restore::attended` keeps everybody from these objects until then). After R. H. Campbell and S.-M. Tan's Choices, whose processes run on
//! while the state of their communication is still on its way.
//!
//! It shares nothing with what has to be bound last, when all else is in its place: epoll sets would tell of edges that were none, owners be
//! sent signals. What such an object is about goes with the state as ever.
use crate::failure::{Result, malformed};
use crate::resource::{self, Stage, unread};
use godwit_image::memory::PAGE_BYTES;
use godwit_image::tree::{Later, Tree};
use godwit_image::{Envelope, ObjectId, Subject, codec};
use std::collections::{BTreeMap, BTreeSet};

/// More goes with the state.
const BYTES_MAX: usize = 32 << 20;

/// What follows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Communication {
    /// Under which id it is asked for.
    pub owner: ObjectId,
    /// Whole envelopes, in whole pages.
    pub bytes: Vec<u8>,
}

/// Everything that some objects refer to, with themselves.
pub(crate) fn closure(tree: &Tree, of: impl IntoIterator<Item = ObjectId>) -> BTreeSet<ObjectId> {
    let mut found = BTreeSet::new();
    let mut open: Vec<ObjectId> = of.into_iter().collect();
    while let Some(id) = open.pop() {
        if found.insert(id) {
            open.extend(tree.object(id).into_iter().flat_map(|envelope| &envelope.refs));
        }
    }
    found
}

/// Takes what lies unread out of a captured tree, and notes in it what that was about; `None`: there is nothing.
///
/// # Errors
/// GW1004: an envelope is malformed.
pub fn set_apart(tree: &mut Tree) -> Result<Option<Communication>> {
    let mut last = Vec::new();
    for envelope in &tree.objects {
        if resource::kind_of(envelope)?.stage() == Stage::Final {
            last.push(envelope.id);
        }
    }
    let is_watched = !last.is_empty();
    let bound_last = closure(tree, last);
    let (mut whole, mut needs, mut bytes) = (Vec::<Envelope>::new(), BTreeSet::new(), 0);
    let mut bare = BTreeMap::new();
    for envelope in &tree.objects {
        let Some(kind) = unread::kind_of(envelope) else { continue };
        bytes += envelope.payload.len();
        if bytes > BYTES_MAX {
            break;
        }
        let Some(without) = kind.without_unread(envelope)? else { continue };
        let concerned = closure(tree, without.needs.iter().copied().chain([envelope.id]));
        if !concerned.is_disjoint(&bound_last) || (without.is_watchable && is_watched) {
            continue;
        }
        needs.extend(without.needs);
        whole.push(envelope.clone());
        bare.insert(envelope.id, without.envelope);
    }
    if whole.is_empty() {
        return Ok(None);
    }
    let mut bytes = codec::encode(&whole).map_err(|error| malformed(Subject::Host, error))?;
    for envelope in &mut tree.objects {
        if let Some(bare) = bare.remove(&envelope.id) {
            *envelope = bare;
        }
    }
    let owner = unused(tree);
    let objects = whole.iter().map(|envelope| envelope.id).collect();
    tree.later = Some(Later { owner, bytes: bytes.len() as u64, objects, needs: needs.into_iter().collect() });
    bytes.resize(bytes.len().next_multiple_of(PAGE_BYTES as usize), 0);
    Ok(Some(Communication { owner, bytes }))
}

/// Whether what is to follow for a tree can be received.
///
/// # Errors
/// GW1004: it is more than anybody sends.
pub(crate) fn examine(tree: &Tree) -> Result<()> {
    match &tree.later {
        Some(later) if later.bytes > codec::PAYLOAD_BYTES_MAX as u64 => {
            Err(malformed(Subject::Object("state".to_owned()), "more is to follow than can be"))
        }
        _ => Ok(()),
    }
}

/// The whole envelopes, as they came for a tree.
///
/// # Errors
/// GW1004: they are not those that were left out of it.
pub(crate) fn opened(tree: &Tree, bytes: &[u8]) -> Result<Vec<Envelope>> {
    let wrong = |cause: &str| malformed(Subject::Object("what lies unread".to_owned()), cause.to_owned());
    let later = tree.later.as_ref().ok_or_else(|| wrong("nothing was to follow"))?;
    let bytes = usize::try_from(later.bytes).ok().and_then(|length| bytes.get(..length));
    let whole: Vec<Envelope> = codec::decode(bytes.ok_or_else(|| wrong("its length is wrong"))?)
        .map_err(|error| malformed(Subject::Object("what lies unread".to_owned()), error))?;
    let ids: Vec<ObjectId> = whole.iter().map(|envelope| envelope.id).collect();
    let is_like = |envelope: &Envelope| {
        let bare = tree.object(envelope.id);
        bare.is_some_and(|bare| {
            (bare.kind, bare.version, &bare.refs) == (envelope.kind, envelope.version, &envelope.refs)
        })
    };
    let is_sound =
        ids == later.objects && whole.iter().all(|envelope| is_like(envelope) && unread::kind_of(envelope).is_some());
    if is_sound { Ok(whole) } else { Err(wrong("it is about other objects")) }
}

/// An id that nothing in the tree has.
fn unused(tree: &Tree) -> ObjectId {
    let spine = tree.spaces.iter().map(|space| space.id).chain(tree.tables.iter().map(|table| table.id));
    let spine = spine.chain(tree.filesystems.iter().map(|context| context.id));
    let highest = spine.chain(tree.objects.iter().map(|envelope| envelope.id)).max();
    ObjectId(highest.map_or(1, |id| id.0.saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::pipe_content::{Buffer, PipeContent, Sort, State};
    use crate::resource::{Captured, Kind, epoll};

    fn pipe(id: u32, text: &[u8], fifo: Option<bool>) -> Envelope {
        let sort = match fifo {
            Some(writers) => Sort::Fifo { path: "/tmp/fifo".to_owned(), writers, file: (1, 2) },
            None => Sort::Pipe { mode: 0o600, owner: (0, 0), times: [(1, 2), (3, 4)] },
        };
        let buffers = text.chunks(4).map(|bytes| Buffer { bytes: bytes.to_vec(), packet: false }).collect();
        let state = State { capacity: 65536, buffers, sort, later: false };
        let payload = Captured::new(Vec::new(), &state).unwrap().payload;
        Envelope { id: ObjectId(id), kind: PipeContent.id(), version: 1, refs: Vec::new(), payload }
    }

    #[test]
    fn what_lies_unread_is_apart_and_comes_back_whole() {
        // Full, empty, watched by an epoll set, a FIFO without writers, and one with some, whose closing nobody may see.
        let mut objects = vec![pipe(3, b"unread words", None), pipe(4, b"", None), pipe(5, b"watched", None)];
        objects.extend([pipe(6, b"no writers", Some(false)), pipe(7, b"a writer", Some(true))]);
        let set = Envelope {
            id: ObjectId(8),
            kind: epoll::EpollSet.id(),
            version: 1,
            refs: vec![ObjectId(5)],
            payload: Vec::new(),
        };
        let mut tree = Tree { objects: objects.clone(), ..Tree::default() };
        assert_eq!(set_apart(&mut tree.clone()).unwrap().map(|apart| apart.owner), Some(ObjectId(8)));
        let mut unwatched = tree.clone();
        set_apart(&mut unwatched).unwrap();
        assert_eq!(unwatched.later.unwrap().objects, [ObjectId(3), ObjectId(5), ObjectId(7)]);
        tree.objects.push(set);
        let before = tree.clone();
        let apart = set_apart(&mut tree).unwrap().unwrap();
        let later = tree.later.clone().unwrap();
        assert_eq!((later.owner, &later.objects[..], apart.owner), (ObjectId(9), &[ObjectId(3)][..], ObjectId(9)));
        assert_eq!((apart.bytes.len() % 4096, before.objects[1..] == tree.objects[1..]), (0, true));
        assert_ne!(before.objects[0], tree.objects[0]);
        assert_eq!(opened(&tree, &apart.bytes).unwrap(), before.objects[..1]);
        // Nothing else is taken for it.
        let other = |objects: &[Envelope]| {
            let bytes = codec::encode(&objects.to_vec()).unwrap();
            let mut tree = tree.clone();
            tree.later.as_mut().unwrap().bytes = bytes.len() as u64;
            opened(&tree, &bytes).is_ok()
        };
        assert!(other(&before.objects[..1]));
        assert!(!other(&[]) && !other(&before.objects[1..2]) && !other(&before.objects[..2]));
        assert!(!other(&[Envelope { refs: vec![ObjectId(4)], ..before.objects[0].clone() }]));
        assert!(opened(&before, &apart.bytes).is_err() && opened(&tree, &[]).is_err());
        assert_eq!(set_apart(&mut Tree { objects: vec![pipe(3, b"", None)], ..Tree::default() }), Ok(None));
    }
}
