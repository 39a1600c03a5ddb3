//! What lies unread in pipes and sockets, where the strategy has it follow: it waits in a file beside the journal, for whoever serves the
//! destination, and is pushed before everything else.
use super::Driver;
use crate::host::LATE_COMMUNICATION;
use godwit_engine::communication;
use godwit_engine::owed::{self, Owed};
use godwit_image::tree::Tree;
use godwit_image::{ObjectId, Refusal};
use godwit_strategy::Row;

impl Driver<'_> {
    /// Whether it is to follow.
    pub(super) fn communicates_later(&self) -> bool {
        let is_known = self.machine.peer().is_some_and(|peer| peer.capabilities.has(LATE_COMMUNICATION));
        self.leaves && is_known && self.row.as_ref().is_some_and(Row::communicates_later)
    }

    /// Takes it out of what has been captured.
    pub(super) fn set_communication_apart(&mut self, tree: &mut Tree) -> Result<(), Refusal> {
        let Some(journal) = self.journal.as_ref().filter(|_| !owed::awaits_the_end(tree)) else { return Ok(()) };
        if let Some(apart) = communication::set_apart(tree)? {
            journal.put_beside(&apart.bytes)?;
            self.details.communication = Some(apart.owner.0);
            self.report.communication_bytes = tree.later.as_ref().map_or(0, |later| later.bytes);
        }
        Ok(())
    }

    /// Who gives it: `bytes` of it, or what the destination says that it does not have.
    pub(super) fn communication_owed(&self, bytes: u64) -> Option<Owed> {
        let path = self.journal.as_ref()?.beside();
        Some(Owed::in_file(ObjectId(self.details.communication?), self.pid, path, bytes))
    }

    /// Whether pages are no memory.
    pub(super) fn is_communication(&self, owner: ObjectId) -> bool {
        self.details.communication == Some(owner.0)
    }
}
