//! What is said when it is over.
use super::{Driver, Received};
use crate::guardian::Guardian;
use crate::{host, reception, report};
use godwit_handoff::Outcome;
use godwit_image::{Code, Refusal};

impl Driver<'_> {
    pub(super) fn conclude(mut self) -> Result<Received, Vec<Refusal>> {
        let mut received = Received {
            pid: self.root,
            processes: self.details.members.len() as u64,
            pages: self.pages,
            faults: self.fetch.faults,
            ..Received::default()
        };
        if let Some(facts) = self.machine.peer().and_then(|peer| host::facts(&peer.capabilities)) {
            received.source = facts.name;
        }
        let moved = matches!(self.machine.outcome(), Some(Outcome::Moved));
        received.acknowledged = moved && self.machine.is_dismissed();
        let held = matches!(self.machine.outcome(), Some(Outcome::Held));
        let settled = !held && self.machine.is_ended() || self.journal.is_none() || moved;
        let guardians = self.guardian.take().into_iter().chain(self.second.take());
        guardians.filter(|_| settled).for_each(Guardian::dismiss);
        received.outcome = match self.machine.outcome() {
            Some(Outcome::Moved) if self.root != 0 => "moved",
            Some(Outcome::Checked) => "checked",
            Some(Outcome::RolledBack { by, reason }) if self.machine.peer().is_some() => {
                let mut refusals = report::rolled_back(*by, reason);
                if let (Some(broken), Some(refusal)) = (&self.broken, refusals.first_mut())
                    && refusal.code == Code::LINK_LOST
                {
                    refusal.cause = format!("{} ({broken})", refusal.cause);
                }
                return Err(refusals);
            }
            Some(Outcome::Lost) if self.fetch.lost > 0 => return Err(vec![self.lost_pages()]),
            Some(outcome @ (Outcome::Lost | Outcome::Held)) => return Err(report::failure(outcome)),
            _ => "answered",
        }
        .to_owned();
        drop(self.stream.take());
        if self.options.wait && self.root != 0 {
            received.status = reception::wait_for_end(self.root);
        }
        Ok(received)
    }
}
