//! A tree of which not all has come yet: objects that need nothing else are made as they come, and the rest when that is there.
use super::make::{Make, Product};
use super::{Reserve, Restorer, Staging};
use crate::failure::Result;
use crate::resource::{self, Stage};
use godwit_image::page_set::PageSet;
use godwit_image::tree::Tree;
use godwit_image::{Code, Refusal, Subject};
use godwit_linux::scheduling::{Heirs, Urgency};

/// What has come, and what of it is made. Dropping it leaves nothing behind.
#[derive(Debug, Default)]
pub struct Beginning {
    tree: Tree,
    product: Product,
    reserve: Option<Reserve>,
    staging: Staging,
    /// From the first part on a tree stands still, and waits for us.
    urgency: Option<Urgency>,
}

fn malformed(cause: String) -> Refusal {
    Refusal::new(Code::MALFORMED, Subject::Object("image".to_owned()), cause)
}

/// The lowest number in our table that no descriptor of the tree has, as far as its tables have come.
pub(super) fn minimum(tree: &Tree) -> i32 {
    let highest = tree.tables.iter().flat_map(|table| &table.slots).map(|slot| slot.descriptor).max().unwrap_or(2);
    // What is above cannot be a descriptor; whoever places it says so.
    highest.max(2).saturating_add(1)
}

impl Beginning {
    /// Nothing has come; `reserve` is to be the root, as far as it fits.
    pub fn new(reserve: Option<Reserve>) -> Beginning {
        Beginning { reserve, ..Beginning::default() }
    }

    /// Nothing of what has come counts.
    pub fn anew(&mut self) {
        let (staging, urgency) = (std::mem::take(&mut self.staging), self.urgency.take());
        *self = Beginning { staging, urgency, ..Beginning::new(self.reserve.take()) };
    }

    /// Expects pages of a tree of so many bytes before the tree itself.
    pub fn expect_pages(&mut self, tree_bytes: u64) {
        self.staging = Staging::new(tree_bytes);
    }

    /// Has a root made before, as far as it fits.
    pub fn keep_reserve(&mut self, reserve: Option<Reserve>) {
        self.reserve = reserve;
    }

    /// Takes pages that come while the tree runs at the source; without `bytes` they are zero.
    ///
    /// # Errors
    /// They cannot be pages, or are more than the tree can have; memory is short.
    pub fn take_pages(&mut self, stage: u32, ranges: &[(u64, usize)], bytes: Option<&[u8]>) -> Result<()> {
        self.staging.take(self.reserve.as_mut(), stage, ranges, bytes)
    }

    /// Pages of [`Beginning::take_pages`] that are not true any more: there is no memory for them until they come again.
    ///
    /// # Errors
    /// As there.
    pub fn give_back(&mut self, stage: u32, ranges: &[(u64, usize)]) -> Result<()> {
        self.staging.give_back(self.reserve.as_mut(), stage, ranges)
    }

    /// Takes in a part of the tree, and makes of its objects what can be made now.
    ///
    /// # Errors
    /// GW1004: an object comes twice. What cannot be made, or not yet, is found out when all is there.
    pub fn take_in(&mut self, part: Tree) -> Result<()> {
        self.hurry();
        let first_new = self.tree.objects.len();
        self.tree.append(part);
        self.raise_limit();
        let mut make = Make::resume(&self.tree, minimum(&self.tree), std::mem::take(&mut self.product))?;
        for envelope in self.tree.objects.iter().skip(first_new) {
            if make.has(envelope.id) {
                return Err(malformed(format!("object {} is not unique", envelope.id)));
            }
            let kind = resource::kind_of(envelope)?;
            if kind.stage() == Stage::AsItComes && envelope.refs.iter().all(|id| make.has(*id)) {
                // What it needs may be made by an object that is made later: it has its turn again then.
                if let Ok(made) = kind.make(envelope, &mut make) {
                    make.keep(envelope.id, made)?;
                }
            }
        }
        self.product = make.finish();
        Ok(())
    }

    fn hurry(&mut self) {
        if self.urgency.is_none() {
            self.urgency = Urgency::begin(Heirs::None);
        }
    }

    /// Every object besides the numbers of the tree.
    fn raise_limit(&self) {
        crate::room::raise_limit(self.tree.objects.len() as u64 * 2 + minimum(&self.tree) as u64 + 256);
    }

    /// Takes in the last part, checks the image and makes every other object that needs no task.
    ///
    /// # Errors
    /// The first object that cannot be made exactly; nothing is left behind.
    pub fn complete(mut self, rest: Tree) -> Result<Restorer> {
        self.hurry();
        self.tree.append(rest);
        // Searched by number all the time.
        self.tree.objects.sort_by_key(|envelope| envelope.id);
        // Objects that remember the number of who made them are made under that number: it must be free then.
        let mut reserve = self.reserve.take();
        if self.tree.objects.iter().any(resource::remembers_its_maker)
            && let Some(reserve) = reserve.take()
        {
            self.staging.rescue(&reserve, &PageSet::new())?;
        }
        self.raise_limit();
        let mut restorer = Restorer::begin_from(self.tree, self.product, reserve.as_ref().map(Reserve::arena))?;
        restorer.staging = self.staging;
        restorer.urgency = self.urgency;
        if let Some(reserve) = reserve {
            restorer.take_reserve(reserve)?;
        }
        Ok(restorer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{Captured, Kind, eventfd};
    use godwit_image::descriptor::{FileTable, Slot};
    use godwit_image::{Envelope, ObjectId};
    use std::os::fd::AsRawFd;

    fn counter(id: u32, refs: &[u32]) -> Envelope {
        let kind = eventfd::EventCounter;
        let state = eventfd::State { count: 7, semaphore: false, flags: 2 };
        let refs = refs.iter().copied().map(ObjectId).collect();
        let Captured { refs, payload } = Captured::new(refs, &state).unwrap();
        Envelope { id: ObjectId(id), kind: kind.id(), version: 1, refs, payload }
    }

    fn numbers(beginning: &Beginning) -> Vec<(u32, i32)> {
        beginning.product.made.iter().map(|(id, made)| (id.0, made[0].as_raw_fd())).collect()
    }

    #[test]
    fn what_needs_nothing_else_is_made_as_it_comes() {
        let mut beginning = Beginning::new(None);
        let slots = vec![Slot { descriptor: 600, close_on_exec: false, description: ObjectId(1) }];
        let tables = vec![FileTable { id: ObjectId(9), slots }];
        let objects = vec![counter(1, &[]), counter(2, &[1]), counter(3, &[4])];
        beginning.take_in(Tree { tables, objects, ..Tree::default() }).unwrap();
        let made = numbers(&beginning);
        assert_eq!(
            made.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
            [1, 2],
            "the third one's reference has not come"
        );
        assert!(made.iter().all(|(_, number)| *number > 600), "{made:?}");
        let twice = beginning.take_in(Tree { objects: vec![counter(2, &[])], ..Tree::default() }).unwrap_err();
        assert_eq!(twice.code, Code::MALFORMED);
        beginning.anew();
        assert_eq!(numbers(&beginning), []);
        beginning.take_in(Tree { objects: vec![counter(2, &[])], ..Tree::default() }).unwrap();
        assert_eq!(numbers(&beginning).len(), 1);
        // It has no task.
        assert_eq!(beginning.complete(Tree::default()).unwrap_err().code, Code::MALFORMED);
    }
}
