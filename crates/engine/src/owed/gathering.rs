//! Bytes that come like pages and are no process's memory: they are kept until all are there.
use super::ledger::Ledger;
use godwit_image::ObjectId;
use godwit_image::memory::PAGE_BYTES;
use godwit_image::page_set::{PageSet, Run};

/// What of them has come.
#[derive(Debug)]
pub(super) struct Gathering {
    pub(super) owner: ObjectId,
    pub(super) ledger: Ledger,
    bytes: Vec<u8>,
}

impl Gathering {
    /// So many bytes, in whole pages, under this owner's id from address 0 on.
    pub(super) fn new(owner: ObjectId, bytes: u64) -> Gathering {
        let end = bytes.next_multiple_of(PAGE_BYTES);
        let pages: PageSet = (end > 0).then_some(Run { start: 0, end }).into_iter().collect();
        Gathering { owner, ledger: Ledger::new(&pages), bytes: vec![0; end as usize] }
    }

    /// A range has come (`None`: it is zero). What does not belong here is passed over.
    pub(super) fn take(&mut self, range: Run, bytes: Option<&[u8]>) {
        for place in self.ledger.within(range) {
            let (here, from) = (place.here, (place.here.start - range.start) as usize);
            let part = bytes.and_then(|bytes| bytes.get(from..from + here.bytes() as usize));
            let room = self.bytes.get_mut(here.start as usize..here.end as usize);
            if let (Some(room), Some(part)) = (room, part) {
                room.copy_from_slice(part);
            }
        }
        self.ledger.strike(range);
    }

    /// All of them, once they are there.
    pub(super) fn is_complete(&self) -> bool {
        self.ledger.bytes() == 0
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_complete_when_each_page_has_come_once_whatever_the_order() {
        let mut gathering = Gathering::new(ObjectId(9), 3 * PAGE_BYTES - 7);
        let page = |number: u64| Run { start: number * PAGE_BYTES, end: (number + 1) * PAGE_BYTES };
        gathering.take(page(2), Some(&[3; PAGE_BYTES as usize]));
        gathering.take(page(7), Some(&[9; PAGE_BYTES as usize]));
        gathering.take(Run { start: 0, end: 2 * PAGE_BYTES }, Some(&[1; 2 * PAGE_BYTES as usize]));
        assert!(gathering.is_complete());
        gathering.take(page(1), Some(&[5; PAGE_BYTES as usize]));
        let bytes = gathering.into_bytes();
        assert_eq!(bytes.len() as u64, 3 * PAGE_BYTES);
        assert!(bytes[..2 * PAGE_BYTES as usize].iter().all(|byte| *byte == 1) && bytes.ends_with(&[3; 4096]));
        let mut zeros = Gathering::new(ObjectId(9), 1);
        assert!(!zeros.is_complete());
        zeros.take(page(0), None);
        assert_eq!((zeros.is_complete(), zeros.into_bytes()), (true, vec![0; PAGE_BYTES as usize]));
    }
}
