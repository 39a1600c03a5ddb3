//! Parts of a tree that leave while the rest of it is still being captured: whoever rebuilds it can begin with them.
use super::Captives;
use crate::failure::Result;
use godwit_image::tree::{Part, Tree};
use godwit_image::{Envelope, ObjectId};
use std::collections::BTreeSet;

/// Fewer objects do not leave while others of their tables are looked at: to send them and to wake who takes them costs more than it gains.
const MANY: usize = 96;

/// What leaves.
#[derive(Debug)]
pub enum Leaving<'a> {
    /// Objects that refer to none that is still to come, and, with the first ones, every file table.
    Part(Part<'a>),
    /// The tree has run on since: nothing that has left counts.
    Nothing,
}

/// Takes what leaves. An error ends the capture.
pub type OnLeaving<'l> = &'l mut dyn FnMut(Leaving<'_>) -> Result<()>;

/// Lets captured objects leave, some at a time.
pub(super) struct Outlet<'o, 'l> {
    to: Option<&'o mut OnLeaving<'l>>,
    /// How many have.
    gone: usize,
}

impl<'o, 'l> Outlet<'o, 'l> {
    pub(super) fn new(to: Option<&'o mut OnLeaving<'l>>) -> Outlet<'o, 'l> {
        Outlet { to, gone: 0 }
    }

    /// Lets go the objects that have been captured since the last ones, if they are many. All file tables must be in the tree.
    pub(super) fn pass(&mut self, tree: &Tree, objects: &[Envelope]) -> Result<()> {
        if objects.len().saturating_sub(self.gone) < MANY { Ok(()) } else { self.pass_all(tree, objects) }
    }

    /// The same however few they are, where more of the capture is still to come than it takes to send them.
    pub(super) fn pass_all(&mut self, tree: &Tree, objects: &[Envelope]) -> Result<()> {
        let (Some(to), Some(new)) = (&mut self.to, objects.get(self.gone..)) else { return Ok(()) };
        if new.is_empty() {
            return Ok(());
        }
        let tables = if self.gone == 0 { &tree.tables[..] } else { &[] };
        let objects = new.iter().collect();
        self.gone += new.len();
        let part = Part { host: &tree.host, tasks: &[], spaces: &[], tables, filesystems: &[], objects, later: None };
        to(Leaving::Part(part))
    }

    /// Which ones have left, of all objects in the order in which they were captured.
    pub(super) fn gone(self, objects: &[Envelope]) -> BTreeSet<ObjectId> {
        objects.iter().take(self.gone).map(|envelope| envelope.id).collect()
    }
}

impl Captives {
    /// What of the tree has not left while it was captured.
    pub fn rest(&self) -> Part<'_> {
        let tree = &self.tree;
        Part {
            host: &tree.host,
            tasks: &tree.tasks,
            spaces: &tree.spaces,
            tables: if self.gone.is_empty() { &tree.tables } else { &[] },
            filesystems: &tree.filesystems,
            objects: tree.objects.iter().filter(|envelope| !self.gone.contains(&envelope.id)).collect(),
            later: tree.later.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_image::descriptor::FileTable;
    use godwit_image::{KindId, codec};

    #[test]
    fn what_has_left_and_the_rest_are_the_whole() {
        let envelope =
            |id| Envelope { id: ObjectId(id), kind: KindId(8), version: 1, refs: Vec::new(), payload: vec![7] };
        let objects: Vec<Envelope> = (2..2 + 3 * MANY as u32).map(envelope).collect();
        let mut tree = Tree { tables: vec![FileTable { id: ObjectId(1), slots: Vec::new() }], ..Tree::default() };
        let mut parts = Vec::new();
        let mut take = |leaving: Leaving<'_>| {
            let Leaving::Part(part) = leaving else { panic!("{leaving:?}") };
            parts.push(codec::encode(&part).unwrap());
            Ok(())
        };
        let mut to: OnLeaving<'_> = &mut take;
        let mut outlet = Outlet::new(Some(&mut to));
        for captured in [1, MANY - 1, MANY, MANY + 1, 2 * MANY + 5, 3 * MANY] {
            outlet.pass(&tree, &objects[..captured]).unwrap();
        }
        let gone = outlet.gone(&objects);
        assert_eq!((parts.len(), gone.len()), (2, 2 * MANY + 5));
        tree.objects = objects;
        let captives = Captives { tree, spaces: Vec::new(), contents: Vec::new(), gone, looks: Vec::new() };
        parts.push(codec::encode(&captives.rest()).unwrap());
        let mut whole = Tree::default();
        for part in &parts {
            whole.append(codec::decode(part).unwrap());
        }
        assert_eq!(whole, captives.tree);
        let kept = Captives { gone: BTreeSet::new(), ..captives };
        assert_eq!(codec::encode(&kept.rest()).unwrap(), codec::encode(&kept.tree).unwrap());
    }
}
