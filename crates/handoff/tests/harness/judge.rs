//! The end of a run: what was left to recover is recovered, and then the truth must agree with what the machines say.

use godwit_handoff::{Outcome, Side, Source, Stage};

use crate::harness::fault::Death;
use crate::harness::pair::{Happening, Pair, index};
use crate::harness::referee::Violation;
use crate::harness::world::DestinationTasks;

impl Pair<'_> {
    /// What a person or a guardian does when all is quiet: runs what was left to recover. False if there is nothing.
    pub(crate) fn heal(&mut self) -> bool {
        let mut healed = false;
        let troubled = [
            self.source.as_ref().is_none_or(|machine| !machine.troubles().is_empty() || machine.is_in_doubt()),
            self.destination.as_ref().is_none_or(|machine| !machine.troubles().is_empty()),
        ];
        // The destination first, so that it can answer.
        for side in [Side::Destination, Side::Source] {
            let open = self.hosts[index(side)].record().is_some_and(|record| record.stage != Stage::Done);
            if troubled[index(side)] && open {
                let _ = self.die(side, Death::Engine);
                self.pending.retain(|(.., happening)| !matches!(happening, Happening::Restart { .. }));
                self.restart(side);
                healed = true;
            }
        }
        healed
    }

    /// What must be true when everything has come to rest.
    pub(crate) fn judge(&mut self) -> Result<(), Violation> {
        let referee = &self.referee;
        let source = self.source.as_ref().and_then(Source::outcome);
        let runs_here = self.world.source.run();
        let runs_there = self.world.destination == DestinationTasks::Running;
        let doubt = matches!(source, Some(Outcome::InDoubt(_)));
        let broken = |text: &str| Err(format!("at the end: {text}; source {source:?}, {:?}, {referee:?}", self.world));
        if let Some(machine) = &self.source
            && machine.outcome().is_none()
        {
            return broken("the source has no outcome");
        }
        if doubt {
            if !self.world.source.alive && !referee.source_host_died && !referee.verdict_not_noted {
                return broken("in doubt about tasks that it has killed");
            }
            let justified =
                referee.forgotten || referee.lost_when_committed || referee.turn_not_noted || referee.owed_lost;
            return if justified { Ok(()) } else { broken("in doubt without need") };
        }
        if runs_there && self.world.source.alive {
            return broken("it runs there and is still here");
        }
        if runs_here && self.world.destination != DestinationTasks::None && !referee.forgotten {
            return broken("it runs here and something is left there");
        }
        if !runs_here && !runs_there {
            let justified =
                if self.world.source.alive { false } else { referee.source_host_died || referee.destination_host_died };
            // Whoever dies while it fetches pages from a store takes the tasks along: there is nobody else who has them.
            let lost_with_store = referee.owed_lost && self.world.stored;
            // Who takes the journal away from tasks that are held there must wake them by hand.
            if !(justified || lost_with_store || referee.forgotten && referee.told) {
                return broken("it runs nowhere");
            }
        }
        // A clean end leaves nothing to recover.
        let clean = self.source.as_ref().is_some_and(|machine| machine.troubles().is_empty());
        if clean && self.host(Side::Source).record().is_some_and(|record| record.stage != Stage::Done) {
            return broken("the source's journal is still open");
        }
        let agrees = match source {
            // Told before it ran, it may have died with the host that owned it.
            Some(Outcome::Moved) => {
                referee.resumed || referee.told && (referee.destination_host_died || referee.forgotten)
            }
            Some(Outcome::RolledBack { .. } | Outcome::Checked) => runs_here || referee.source_host_died,
            Some(Outcome::Lost) => referee.source_host_died,
            Some(_) => false,
            None => true,
        };
        if agrees { Ok(()) } else { broken("the outcome is not the truth") }
    }
}
