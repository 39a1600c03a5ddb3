//! Trees that are to have locks which the source's tasks still hold: the source is told of the decision as soon as the journal has it, and
//! ends its tasks; the locks are taken then; only then a thread runs. Whoever has one meanwhile is waited for.
use super::Driver;
use crate::hold;
use crate::journal::{self, Journal, locate};
use crate::reception::Options;
use crate::report;
use crate::stream::Stream;
use godwit_engine::claim;
use godwit_engine::restore::Restorer;
use godwit_handoff::{Deed, Event, Message, Packet, Side, Stage, Verdict};
use godwit_image::{Code, Refusal, Subject};
use std::time::{Duration, Instant};

/// Where nobody who could let go is on the line: how long a lock may be somebody else's before `recover` is left to try again.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(1);
/// The same when it takes longer.
const LONG_PAUSE: Duration = Duration::from_millis(20);

impl Driver<'_> {
    pub(super) fn resume(&mut self) {
        let mut restorer = self.build.take();
        if let Err(refusal) = self.take_claims(restorer.as_mut()) {
            restorer.into_iter().for_each(Restorer::leave);
            return self.feed(Event::ResumeFailed { refusal: report::opaque(&refusal), may_have_run: false });
        }
        let result = match restorer {
            Some(restorer) if restorer.tree().later.is_some() => restorer.resume_attended().map(|(root, attended)| {
                self.fetch.attended = Some(attended);
                root
            }),
            Some(restorer) => restorer.resume(),
            // Built and held by an earlier shepherd.
            None => hold::wake(&self.details).map(|()| self.details.root),
        };
        match result {
            Ok(root) => {
                self.root = root;
                self.feed(Event::Done(Deed::Resume));
                (self.resumed)(root);
            }
            Err(refusal) => {
                self.feed(Event::ResumeFailed { refusal: report::opaque(&refusal), may_have_run: true });
            }
        }
    }

    /// Takes the tree's locks: by who built it, or from the journal.
    ///
    /// # Errors
    /// They cannot be had now; nothing of the tree has run.
    pub(super) fn take_claims(&mut self, mut restorer: Option<&mut Restorer>) -> Result<(), Refusal> {
        if self.details.claims.is_empty() {
            return Ok(());
        }
        let subject = || Subject::Object("locks".to_owned());
        let begin = Instant::now();
        loop {
            let taken = match &mut restorer {
                Some(restorer) => restorer.take_claims()?,
                None => {
                    let root = locate(self.details.root, self.details.namespace);
                    let (Some(root), Some(claims)) = (root, self.details.claims_here()) else {
                        return Err(Refusal::new(Code::PROCESS_VANISHED, subject(), "who is to have them is gone"));
                    };
                    claim::take(root, &claims)?
                }
            };
            if taken {
                return Ok(());
            }
            if self.signalled || (restorer.is_none() && self.stream.is_none() && begin.elapsed() > PATIENCE) {
                let cause = "somebody else has one; until it can be had the tree is kept stopped";
                return Err(Refusal::new(Code::RESTORE_FAILED, subject(), cause).choice("godwit recover"));
            }
            self.turn(Some(if begin.elapsed() < LONG_PAUSE * 5 { PAUSE } else { LONG_PAUSE }));
        }
    }
}

/// A question that the journal answers whoever acts on it now: such a decision is final as soon as it is there.
pub(super) fn answer(first: &Packet, options: &Options, stream: &mut Stream) -> bool {
    if !matches!(first.message, Message::Query | Message::Commit) {
        return false;
    }
    let Some((record, details)) = journal::peek(&options.run_directory, first.migration, Side::Destination) else {
        return false;
    };
    if record.stage != Stage::Committed || details.claims.is_empty() {
        return false;
    }
    let packet = Packet { migration: first.migration, message: Message::Answer(Verdict::Committed) };
    // If it does not leave, the source asks again.
    let _ = stream.say(packet).and_then(|()| stream.flush());
    // Where nobody acts on it, we go on with it.
    let journal = Journal::open(&options.run_directory, first.migration, Side::Destination, Duration::ZERO);
    !matches!(journal, Ok(Some(_)))
}
