//! What a driver tells its caller: progress while it works, the time line and outcome at the end.
use godwit_handoff::{Deed, Message, Opaque, Outcome, Reason, Side, Timeline, Trouble};
use godwit_image::{Code, Refusal, Subject, codec};
use serde::{Deserialize, Serialize};

/// How far a move is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Progress {
    /// The step of the hand-off, or what undoes it.
    pub step: &'static str,
    /// Bytes of pages that have been dealt with.
    pub bytes_done: u64,
    /// Bytes of pages in all; zero until the tree was captured.
    pub bytes_total: u64,
}

/// Takes the progress.
pub type OnProgress<'a> = &'a mut dyn FnMut(&Progress);

/// Called at every step with its name, so that a test can stop the world there. Names are `before DEED`, `after DEED`, `sent MESSAGE`,
/// `received MESSAGE`.
pub type Observer = Box<dyn FnMut(&str)>;

/// A finished move, by the source's clock. Times in milliseconds.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Name of the strategy's row.
    pub strategy: String,
    /// Why it was chosen, where it was not the user who did.
    #[serde(default)]
    pub chosen: String,
    /// `moved` or, for a dry run, `checked`.
    pub outcome: String,
    /// Pages moved while the process ran at the source.
    pub preparation_ms: f64,
    /// The process ran nowhere: from the request to freeze it until the source heard that it runs at the destination, an upper bound.
    pub down_ms: f64,
    /// From then until nothing was left at the source.
    pub post_ms: f64,
    /// From the request until nothing was left at the source.
    pub total_ms: f64,
    /// 4 KiB pages that had to be at the destination.
    pub pages_total: u64,
    /// Pages whose contents went over the link; the others were named as zero.
    pub pages_sent: u64,
    /// Rounds in which pages were sent, that of the down time included.
    #[serde(default)]
    pub rounds: u32,
    /// How long the process was stopped to begin tracking what it writes.
    #[serde(default)]
    pub tracking_ms: f64,
    /// Pages that came after the resumption because a process waited for them, neighbours included.
    #[serde(default)]
    pub pages_demanded: u64,
    /// Pages that came after the resumption without being asked for.
    #[serde(default)]
    pub pages_pushed: u64,
    /// Pages that went into the page store.
    #[serde(default)]
    pub pages_stored: u64,
    /// Bytes of what lay unread in pipes and sockets that came after the resumption.
    #[serde(default)]
    pub communication_bytes: u64,
    /// Pages that were sent packed.
    #[serde(default)]
    pub pages_packed: u64,
    /// Pages of which only what had changed was sent.
    #[serde(default)]
    pub pages_delta: u64,
    /// All bytes that went over the link.
    pub bytes_sent: u64,
    /// Number of the root process at the destination.
    pub destination_pid: i32,
    /// Processes of the tree.
    pub processes: u64,
    /// Threads of the tree.
    pub threads: u64,
    /// Name of the destination host.
    pub destination: String,
    /// What is not quite as it was at the destination: accepted, and told.
    pub changes: Vec<Refusal>,
    /// What could not be cleared away after the move; `godwit recover` tries again.
    pub troubles: Vec<Refusal>,
}

impl Report {
    pub(crate) fn take_times(&mut self, timeline: &Timeline) {
        let milliseconds = |span: Option<godwit_deterministic::Duration>| {
            span.map_or(0.0, godwit_deterministic::Duration::milliseconds)
        };
        self.preparation_ms = milliseconds(timeline.preparation());
        self.down_ms = milliseconds(timeline.down());
        self.post_ms = milliseconds(timeline.post_processing());
        self.total_ms = milliseconds(timeline.total());
    }
}

/// A refusal as the machines carry it.
pub(crate) fn opaque(refusal: &Refusal) -> Opaque {
    Opaque(codec::encode(refusal).unwrap_or_default())
}

/// The refusal that a machine carried.
pub(crate) fn refusal(opaque: &Opaque) -> Refusal {
    codec::decode(&opaque.0).unwrap_or_else(|_| {
        let cause = String::from_utf8_lossy(&opaque.0).into_owned();
        Refusal::new(Code::MALFORMED, Subject::Object("refusal of the other side".to_owned()), cause)
    })
}

pub(crate) fn trouble(trouble: &Trouble) -> Refusal {
    let mut refusal = refusal(&trouble.refusal);
    refusal.cause = format!("could not {}: {}", trouble.deed, refusal.cause);
    refusal
}

/// What a roll-back means for the user.
pub(crate) fn rolled_back(by: Side, reason: &Reason) -> Vec<Refusal> {
    let link = Subject::Object("migration".to_owned());
    let plain = |code: Code| vec![Refusal::new(code, link.clone(), format!("ended by the {by}: {reason}"))];
    match reason {
        Reason::Refused(refusals) => refusals.iter().map(refusal).collect(),
        Reason::Failed { deed, refusal: carried } => {
            let mut found = refusal(carried);
            if !matches!(deed, Deed::Freeze | Deed::Capture) {
                found.cause = format!("the {by} could not {deed}: {}", found.cause);
            }
            vec![found]
        }
        Reason::Cancelled | Reason::TimedOut(_) => plain(Code::CANCELLED),
        Reason::NoCommonVersion { .. } | Reason::UnknownStrategy(_) => plain(Code::VERSION_MISMATCH),
        Reason::LinkLost | Reason::EngineDied => plain(Code::LINK_LOST),
        Reason::OutOfTurn(_) => plain(Code::MALFORMED),
    }
}

/// The refusals behind an outcome that is no success of the source.
pub(crate) fn failure(outcome: &Outcome) -> Vec<Refusal> {
    let subject = Subject::Object("migration".to_owned());
    match outcome {
        Outcome::RolledBack { by, reason } => rolled_back(*by, reason)
            .into_iter()
            .map(|mut refusal| {
                refusal.rolled_back = "everything; the process runs on at the source".to_owned();
                refusal
            })
            .collect(),
        Outcome::InDoubt(doubt) => {
            let cause = match doubt {
                godwit_handoff::Doubt::NoAnswer => "the commit left and the destination does not answer",
                godwit_handoff::Doubt::Unknown => {
                    "the commit left, and the destination has no record of this migration"
                }
                godwit_handoff::Doubt::Lost => "the destination had committed, but its tasks are gone",
            };
            vec![Refusal::new(Code::IN_DOUBT, subject, cause)]
        }
        Outcome::Lost => {
            vec![Refusal::new(Code::PROCESS_VANISHED, subject, "the tasks are gone with their host's boot")]
        }
        Outcome::Held => {
            let cause = "it is committed here and kept stopped: a lock that it is to have is somebody else's";
            vec![Refusal::new(Code::IN_DOUBT, subject, cause)]
        }
        Outcome::Unknown => vec![Refusal::new(Code::IN_DOUBT, subject, "this side has no record of it")],
        Outcome::Moved | Outcome::Checked => Vec::new(),
    }
}

/// The name of a message, for observers.
pub(crate) fn name_of(message: &Message) -> &'static str {
    match message {
        Message::Hello { .. } => "Hello",
        Message::HelloAnswer { .. } => "HelloAnswer",
        Message::Offer { .. } => "Offer",
        Message::Accept { .. } => "Accept",
        Message::Refuse { .. } => "Refuse",
        Message::AllSent(_) => "AllSent",
        Message::Ready { .. } => "Ready",
        Message::Abort(_) => "Abort",
        Message::Commit => "Commit",
        Message::Resumed => "Resumed",
        Message::Owing => "Owing",
        Message::AllHeld => "AllHeld",
        Message::Query => "Query",
        Message::Answer(_) => "Answer",
        Message::Goodbye => "Goodbye",
        Message::Heartbeat => "Heartbeat",
        Message::Lane { .. } => "Lane",
    }
}
