//! The tree runs, and pages of it are still at the source: whoever waits for one is told to the source, and what comes is placed.
use super::Driver;
use crate::report;
use godwit_engine::owed::{Pager, Wanted};
use godwit_handoff::{Deed, Event};
use godwit_image::{ObjectId, Refusal};
use std::os::fd::AsFd;
use std::time::Duration;

/// Until another look at who waits for what is just changing.
const MOMENT: Duration = Duration::from_millis(1);

/// How the fetching stands.
#[derive(Debug, Default)]
pub(super) struct Fetch {
    /// Who has the pages come that the tree is owed.
    pub(super) pager: Option<Pager>,
    /// The tree runs, and they are awaited.
    pub(super) active: bool,
    /// How often somebody has waited.
    pub(super) faults: u64,
}

impl Driver<'_> {
    /// Before anything is decided: what tells of missing pages is kept by the guardian, too, so that nobody reads zeros when we die.
    pub(super) fn entrust(&mut self) -> Result<(), Refusal> {
        if self.fetch.pager.is_some() {
            self.keep()?;
            self.feed(Event::Owes);
        }
        Ok(())
    }

    fn keep(&mut self) -> Result<(), Refusal> {
        if let (Some(pager), Some(guardian)) = (&mut self.fetch.pager, &mut self.guardian) {
            let files = pager.duplicates()?;
            guardian.keep(&files.iter().map(AsFd::as_fd).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    pub(super) fn fetching_limit(&self) -> Option<Duration> {
        self.fetch.pager.as_ref().filter(|pager| self.fetch.active && pager.is_restless()).map(|_| MOMENT)
    }

    /// Takes in who waits, and sees whether all is here.
    pub(super) fn fetch_some(&mut self) {
        if !self.fetch.active {
            return;
        }
        let Some(pager) = &mut self.fetch.pager else { return self.end_fetching() };
        // Children have theirs.
        match pager.listen().and_then(|wanted| self.keep().map(|()| wanted)) {
            Ok(wanted) => self.want(&wanted),
            Err(refusal) => return self.cannot_fetch(&refusal),
        }
        if let Err(refusal) = self.take_from_store() {
            return self.cannot_fetch(&refusal);
        }
        if self.fetch.pager.as_ref().is_some_and(|pager| pager.is_finished()) {
            self.end_fetching();
        }
    }

    fn end_fetching(&mut self) {
        self.fetch.active = false;
        if let Some(pager) = self.fetch.pager.take() {
            self.pages += pager.pages;
            self.fetch.faults = pager.faults;
        }
        self.remove_store();
        // What is missing now is zero.
        if let Some(guardian) = &mut self.guardian {
            guardian.release();
        }
        self.feed(Event::Done(Deed::Fetch));
    }

    pub(super) fn cannot_fetch(&mut self, refusal: &Refusal) {
        self.fetch.active = false;
        self.feed(Event::Failed { deed: Deed::Fetch, refusal: report::opaque(refusal) });
    }

    /// Asks the source. Without a link what is waited for is asked for over the next one.
    fn want(&mut self, wanted: &[Wanted]) {
        if self.storing.is_active() {
            return self.want_from_store(wanted);
        }
        for one in wanted {
            let Some(stream) = &mut self.stream else { return };
            if let Err(error) = stream.want(one.owner, one.start, one.length) {
                return self.lose_link(&error);
            }
        }
        if let Some(stream) = &mut self.stream
            && !wanted.is_empty()
            && let Err(error) = stream.flush()
        {
            self.lose_link(&error);
        }
    }

    /// Places pages that came after the resumption (`bytes`; none: they are zero). Returns pages and bytes.
    pub(super) fn place_owed(
        &mut self,
        owner: ObjectId,
        ranges: &[(u64, usize)],
        bytes: Option<&[u8]>,
    ) -> Result<(), Refusal> {
        let Some(pager) = &mut self.fetch.pager else { return Ok(()) };
        let wanted = match bytes {
            Some(bytes) => pager.fill(owner, ranges, bytes)?,
            None => pager.fill_zeros(owner, ranges)?,
        };
        self.want(&wanted);
        Ok(())
    }
}
