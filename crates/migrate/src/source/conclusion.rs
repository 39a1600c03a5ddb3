//! What the source tells when it is over.
use super::Driver;
use crate::host;
use crate::report::{self, Report};
use godwit_handoff::Outcome;
use godwit_image::{Code, Refusal};

impl Driver<'_> {
    pub(super) fn conclude(mut self) -> Result<Report, Vec<Refusal>> {
        let began = self.journal.as_ref().is_some_and(|journal| journal.last().is_some());
        if let Some(guardian) = self.guardian.take_if(|_| !began) {
            guardian.dismiss();
        }
        let mut troubles: Vec<Refusal> = self.machine.troubles().iter().map(report::trouble).collect();
        let moved = matches!(self.machine.outcome(), Some(Outcome::Moved | Outcome::InDoubt(_)));
        // It costs room there, and nothing else.
        troubles.extend(self.flushing.end(moved && !self.details.owed.is_empty()).err());
        let outcome = self.machine.outcome().cloned().unwrap_or(Outcome::Unknown);
        let word = match &outcome {
            Outcome::Moved => "moved",
            Outcome::Checked => "checked",
            failed => {
                let mut refusals = report::failure(failed);
                if let Some(broken) = self.broken
                    && let Some(refusal) = refusals.iter_mut().find(|refusal| refusal.code == Code::LINK_LOST)
                {
                    refusal.cause = format!("{} ({broken})", refusal.cause);
                }
                refusals.extend(troubles);
                return Err(refusals);
            }
        };
        self.report.outcome = word.to_owned();
        if let Some(root) = self.machine.destination_root() {
            self.report.destination_pid = root.cast_signed();
        }
        self.report.take_times(self.machine.timeline());
        self.report.pages_packed = self.pump.packing.pages;
        self.report.pages_delta = self.pump.packing.delta_pages;
        self.report.rounds = self.machine.rounds();
        self.report.bytes_sent = self.sent_before + self.stream.as_ref().map_or(0, |stream| stream.sent());
        self.report.troubles = troubles;
        self.report.changes = self.machine.changes().iter().map(report::refusal).collect();
        if let Some(facts) = self.machine.peer().and_then(|peer| host::facts(&peer.capabilities)) {
            self.report.destination = facts.name;
        }
        Ok(self.report)
    }
}
