//! How long each side waits for what.

use godwit_deterministic::Duration;

use crate::step::Step;

/// Time-outs. Those of prepare and transfer count from the last report that something moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// For the first answer (source), the offer (destination).
    pub greet: Duration,
    /// For the answer to the offer.
    pub agree: Duration,
    /// For the own journal, before anything is frozen and before the commit.
    pub journal: Duration,
    /// Without anything moving, before the freeze.
    pub prepare: Duration,
    /// For the freeze.
    pub freeze: Duration,
    /// Without anything moving, in the down time.
    pub transfer: Duration,
    /// For the destination's Ready after everything was sent.
    pub ready: Duration,
    /// For making the stop outlive the engine.
    pub hold: Duration,
    /// Destination: for the commit after Ready. More than the source's hold and journal, or many moves fail for nothing.
    pub commit: Duration,
    /// Source: for the answer to the commit or to a query before it is asked (again).
    pub answer: Duration,
    /// Source: how long it is in doubt before it says so. It goes on asking after that.
    pub doubt: Duration,
    /// Source: the first pause before a new link is tried; each next one is twice as long.
    pub reconnect_first: Duration,
    /// Source: the longest such pause.
    pub reconnect_most: Duration,
    /// Destination: for the source's Goodbye after the process was resumed. The journal answers later questions.
    pub linger: Duration,
    /// Destination: how long there may be no link while pages are owed. After that the tasks, which cannot go on, are ended.
    pub owed: Duration,
    /// A side that has said nothing for this long says that it is alive.
    pub heartbeat: Duration,
    /// A link on which nothing was heard for this long is lost.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        let seconds = Duration::from_seconds;
        Patience {
            greet: seconds(10),
            agree: seconds(30),
            journal: seconds(10),
            prepare: seconds(20),
            freeze: seconds(10),
            transfer: seconds(20),
            ready: seconds(60),
            hold: seconds(10),
            commit: seconds(30),
            answer: seconds(5),
            doubt: seconds(60),
            reconnect_first: Duration::from_milliseconds(100),
            reconnect_most: seconds(5),
            linger: seconds(10),
            owed: seconds(60),
            heartbeat: seconds(2),
            silence: seconds(10),
        }
    }
}

impl Patience {
    /// The source's limit for `step`.
    pub(crate) fn of_source(&self, step: Step) -> Duration {
        match step {
            Step::Greet => self.greet,
            Step::Agree => self.agree,
            Step::Note | Step::Seal => self.journal,
            Step::Prepare => self.prepare,
            Step::Freeze => self.freeze,
            Step::Transfer => self.transfer,
            Step::Build | Step::Ready => self.ready,
            Step::Hold => self.hold,
            Step::Commit | Step::Resume | Step::PostProcess | Step::Release => Duration::MAX,
        }
    }

    /// The destination's limit for `step`, its waiting for what begins the next one included.
    pub(crate) fn of_destination(&self, step: Step) -> Duration {
        match step {
            Step::Greet => self.greet,
            Step::Agree => self.agree + self.journal,
            Step::Note | Step::Prepare | Step::Freeze => self.prepare + self.freeze + self.journal,
            Step::Transfer => self.transfer + self.freeze + self.journal,
            Step::Build => self.ready,
            Step::Ready | Step::Hold | Step::Seal => self.commit,
            Step::Commit | Step::Resume | Step::PostProcess => Duration::MAX,
            Step::Release => self.linger,
        }
    }
}
