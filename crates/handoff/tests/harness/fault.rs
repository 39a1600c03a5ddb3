//! What can go wrong at an event, and who chooses.

use godwit_deterministic::exhaustive::Replay;
use godwit_deterministic::{Exhaustive, Random};
use godwit_handoff::Side;

/// How something of one side dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Death {
    /// The engine; the kernel and its tasks live on.
    Engine,
    /// The engine, and with it the directory of its journals.
    EngineAndJournal,
    /// The host, with every task on it.
    Host,
}

/// What goes wrong at one event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// Message: it never arrives. Action: it fails and has done nothing.
    Lose,
    /// Message: it arrives and breaks the link. Action: it fails, but has done its work.
    FailAfter,
    /// Message: it arrives twice. Action: it is performed and reported twice.
    Double,
    /// Message: it arrives, and once more much later, from a dead link as well.
    Ghost,
    /// Message: it is lost, and turns up after the sender's patience for an answer has ended, from a dead link as well.
    Late,
    /// Message: before it harmful ones arrive, but about another migration.
    Stray,
    /// Message and action: it takes very long.
    Delay,
    /// The link breaks before, and both notice.
    Cut,
    /// The link goes dead for long, and nobody notices.
    Partition,
    /// Something of this side dies before the event takes effect.
    DieBefore(Side, Death),
    /// Something of this side dies after the event took effect, before anything follows from it.
    DieAfter(Side, Death),
    /// The user of this side cancels just before.
    Cancel(Side),
}

use Death::*;
use Fault::*;
use Side::*;

/// At a message; the first column of sides is the receiver's.
pub(crate) const AT_MESSAGE: [Fault; 21] = [
    Lose,
    FailAfter,
    Double,
    Ghost,
    Late,
    Stray,
    Delay,
    Cut,
    Partition,
    DieBefore(Source, Engine),
    DieBefore(Destination, Engine),
    DieBefore(Source, Host),
    DieBefore(Destination, Host),
    DieBefore(Destination, EngineAndJournal),
    DieAfter(Source, Engine),
    DieAfter(Destination, Engine),
    DieAfter(Source, Host),
    DieAfter(Destination, Host),
    DieAfter(Destination, EngineAndJournal),
    Cancel(Source),
    Cancel(Destination),
];

/// At an action.
pub(crate) const AT_ACTION: [Fault; 18] = [
    Lose,
    FailAfter,
    Double,
    Delay,
    Cut,
    Partition,
    DieBefore(Source, Engine),
    DieBefore(Destination, Engine),
    DieBefore(Source, Host),
    DieBefore(Destination, Host),
    DieBefore(Destination, EngineAndJournal),
    DieAfter(Source, Engine),
    DieAfter(Destination, Engine),
    DieAfter(Source, Host),
    DieAfter(Destination, Host),
    DieAfter(Destination, EngineAndJournal),
    Cancel(Source),
    Cancel(Destination),
];

/// Which faults are enumerated.
#[derive(Clone, Copy)]
pub(crate) enum Menu {
    /// All that are possible at the event.
    Everything,
    /// Dying engines and breaking links: few, so that more of them can be combined.
    Deaths,
}

impl Menu {
    fn allows(self, fault: Fault) -> bool {
        match self {
            Menu::Everything => true,
            Menu::Deaths => matches!(fault, Cut | DieBefore(_, Engine) | DieAfter(_, Engine)),
        }
    }
}

/// Who chooses the faults of a run.
pub(crate) enum Chooser<'a> {
    /// Nothing goes wrong.
    Never,
    /// Every combination of at most so many faults.
    All(&'a mut Exhaustive, Menu, usize),
    /// One of those again.
    Again(Replay, Menu, usize),
    /// At random, each event with one chance in so many.
    Dice(Random, u64),
    /// This one wherever it is possible.
    Each(Fault),
}

impl Chooser<'_> {
    /// The fault at this event, if any. Heartbeats are too many to enumerate, so there only the dice fall.
    pub(crate) fn choose(&mut self, faults: &[Fault], is_heartbeat: bool) -> Option<Fault> {
        let allowed: Vec<Fault>;
        let faults = match self {
            Chooser::All(_, menu, _) | Chooser::Again(_, menu, _) => {
                allowed = faults.iter().copied().filter(|fault| menu.allows(*fault)).collect();
                &allowed
            }
            _ => faults,
        };
        let index = match self {
            Chooser::Never => 0,
            Chooser::Dice(random, rarity) => {
                if !random.chance(1, *rarity) {
                    return None;
                }
                random.below(faults.len() as u64) as usize + 1
            }
            _ if is_heartbeat => 0,
            Chooser::All(_, _, 0) | Chooser::Again(_, _, 0) => 0,
            Chooser::All(generator, _, budget) => {
                let index = generator.below(faults.len() + 1);
                *budget -= usize::from(index > 0);
                index
            }
            Chooser::Again(replay, _, budget) => {
                let index = replay.below(faults.len() + 1);
                *budget -= usize::from(index > 0);
                index
            }
            Chooser::Each(fault) => return faults.contains(fault).then_some(*fault),
        };
        index.checked_sub(1).map(|index| faults[index])
    }

    /// A span of time between the two, in milliseconds: where nothing is random, the first.
    pub(crate) fn milliseconds(&mut self, usual: u64, most: u64) -> u64 {
        match self {
            Chooser::Dice(random, _) => usual + random.below(most - usual),
            _ => usual,
        }
    }
}
