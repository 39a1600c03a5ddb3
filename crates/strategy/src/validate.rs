//! Is a row sound? Whatever a process writes and whenever it writes it, every page must arrive or be owed.
//!
//! A page can differ from another, as far as any [`Set`] can tell, only in a few yes-or-no questions. So the check is a
//! proof by cases: one abstract page for every combination of answers is carried through the row's steps.

use core::fmt;

use crate::row::{Order, Origin, Phase, Row, Set, Step, Until};

/// Why a row cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flaw {
    /// A page could be neither sent nor owed when the row has ended.
    PageForgotten,
    /// The row's steps are not in the order of time; the step with this index comes too late.
    OutOfOrder(usize),
    /// The step with this index waits for faults while no process runs at the destination.
    FaultsBeforeResume(usize),
    /// The step with this index never ends although the process must go on.
    NeverEnds(usize),
    /// The step with this index has an empty round limit.
    NoRounds(usize),
    /// The step with this index is about communication, which can only come by itself, from the source, beside pages that come later, too.
    CommunicationMisplaced(usize),
    /// The row must know which pages are written, and this source host cannot tell.
    TrackingMissing,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Flaw::PageForgotten => write!(f, "a page could be neither sent nor owed at the end"),
            Flaw::OutOfOrder(step) => write!(f, "step {step} belongs to an earlier phase than the one before it"),
            Flaw::FaultsBeforeResume(step) => {
                write!(f, "step {step} serves faults before the process runs at the destination")
            }
            Flaw::NeverEnds(step) => write!(f, "step {step} never ends, so the process would never be handed over"),
            Flaw::NoRounds(step) => write!(f, "step {step} allows no round at all"),
            Flaw::CommunicationMisplaced(step) => {
                write!(
                    f,
                    "step {step}: what lies unread can only come after the resumption, from the source, beside pages"
                )
            }
            Flaw::TrackingMissing => {
                write!(f, "it needs to know which pages are written, and the source host cannot tell")
            }
        }
    }
}

impl core::error::Error for Flaw {}

/// An abstract page: what the sets can ask about it.
#[derive(Clone, Copy)]
struct Page {
    modified: bool,
    working: bool,
    /// The process writes it again after each round.
    restless: bool,
    held: bool,
    fresh: bool,
}

fn contains(set: Set, page: Page) -> bool {
    match set {
        Set::All => true,
        Set::DirtySinceRound | Set::Rest => !page.fresh,
        Set::Quiet(rounds) => !page.fresh && (rounds == 0 || !page.restless),
        Set::Modified => page.modified,
        Set::Working => page.working,
        Set::Stale => page.held && !page.fresh,
        Set::Communication => false,
    }
}

/// True if the page has arrived or stays owed after all `steps`.
fn is_accounted_for(steps: &[Step], mut page: Page) -> bool {
    let mut owed = false;
    for step in steps {
        if !contains(step.set, page) {
            continue;
        }
        if step.phase == Phase::PostProcessing {
            owed = true;
        } else {
            page.held = true;
            page.fresh = step.phase == Phase::Down || !page.restless;
        }
    }
    page.fresh || owed
}

/// True if the row's preparation must know which pages the process writes meanwhile.
pub fn needs_tracking(row: &Row) -> bool {
    row.steps.iter().any(|step| step.phase == Phase::Preparation)
}

/// Checks `row` for a source host that can (or cannot) track written pages.
///
/// # Errors
/// The first [`Flaw`] found.
pub fn validate(row: &Row, tracking: bool) -> Result<(), Flaw> {
    let mut phase = Phase::Preparation;
    for (index, step) in row.steps.iter().enumerate() {
        if step.phase < phase {
            return Err(Flaw::OutOfOrder(index));
        }
        phase = step.phase;
        if phase != Phase::PostProcessing && step.order != Order::Push {
            return Err(Flaw::FaultsBeforeResume(index));
        }
        if phase != Phase::PostProcessing && step.until == Until::Never {
            return Err(Flaw::NeverEnds(index));
        }
        if matches!(step.until, Until::Limit { rounds: 0, .. }) {
            return Err(Flaw::NoRounds(index));
        }
        let comes_later = phase == Phase::PostProcessing && step.until == Until::Sent && step.from == Origin::Source;
        let source_stays = row.leaves_pages_behind() && !row.stores_before_handing_over();
        if step.set == Set::Communication && !(comes_later && source_stays) {
            return Err(Flaw::CommunicationMisplaced(index));
        }
    }
    for case in 0..8_u8 {
        let page = Page {
            modified: case & 1 != 0,
            working: case & 2 != 0,
            restless: case & 4 != 0,
            held: false,
            fresh: false,
        };
        if !is_accounted_for(&row.steps, page) {
            return Err(Flaw::PageForgotten);
        }
    }
    if needs_tracking(row) && !tracking {
        return Err(Flaw::TrackingMissing);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Enough;
    use alloc::vec;
    use alloc::vec::Vec;

    const fn prepare(set: Set, until: Until) -> Step {
        Step { phase: Phase::Preparation, set, until, order: Order::Push, from: Origin::Source }
    }
    const fn down(set: Set, from: Origin) -> Step {
        Step { phase: Phase::Down, set, until: Until::Sent, order: Order::Push, from }
    }
    const fn after(set: Set, until: Until, order: Order, from: Origin) -> Step {
        Step { phase: Phase::PostProcessing, set, until, order, from }
    }
    const ROUNDS: Until = Until::Limit { enough: Enough::pages(64), rounds: 8 };

    fn check(steps: Vec<Step>) -> Result<(), Flaw> {
        validate(&Row { name: "a user's".into(), steps: steps.into(), seen_in: "".into(), about: "".into() }, true)
    }

    /// The nine published strategies must be expressible; freeze-free is the one that asks most of the shape.
    #[test]
    fn every_published_strategy_is_a_sound_row() {
        use {Order::*, Origin::*, Set::*, Until::*};
        for (name, steps) in [
            (
                "freeze-free",
                vec![
                    down(Working, Source),
                    after(Rest, Sent, FaultsFirst, Store),
                    after(Rest, Never, FaultsOnly, Store),
                ],
            ),
            ("total-copy", vec![down(All, Source)]),
            ("pre-copy", vec![prepare(All, Sent), prepare(DirtySinceRound, ROUNDS), down(Rest, Source)]),
            ("queued-pre-copy", vec![prepare(All, Sent), prepare(Quiet(1), ROUNDS), down(Rest, Source)]),
            ("post-copy", vec![after(All, Sent, FaultsFirst, Source)]),
            ("assisted-post-copy", vec![prepare(All, Sent), after(Stale, Sent, FaultsFirst, Source)]),
            ("copy-on-reference", vec![after(All, Never, FaultsOnly, Source)]),
            ("eager-dirty", vec![down(Modified, Source), after(Rest, Never, FaultsOnly, Source)]),
            ("flushing", vec![down(Modified, Store), after(All, Never, FaultsOnly, Store)]),
        ] {
            assert_eq!(check(steps), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_row_that_forgets_a_page_is_found() {
        use {Order::*, Origin::*, Set::*, Until::*};
        for steps in [
            vec![],
            vec![prepare(All, Sent)],
            vec![down(Modified, Source)],
            vec![down(Stale, Source)],
            vec![prepare(All, Sent), prepare(Quiet(1), ROUNDS)],
            vec![prepare(Quiet(1), ROUNDS), down(Stale, Source)],
            vec![prepare(Modified, Sent), after(Stale, Sent, FaultsFirst, Source)],
            vec![down(Working, Source), after(Modified, Never, FaultsOnly, Source)],
        ] {
            assert_eq!(check(steps.clone()), Err(Flaw::PageForgotten), "{steps:?}");
        }
    }

    #[test]
    fn a_row_in_a_wrong_shape_is_found() {
        use {Order::*, Origin::*, Set::*, Until::*};
        assert_eq!(check(vec![down(All, Source), prepare(All, Sent)]), Err(Flaw::OutOfOrder(1)));
        assert_eq!(check(vec![Step { order: FaultsOnly, ..down(All, Source) }]), Err(Flaw::FaultsBeforeResume(0)));
        assert_eq!(check(vec![Step { until: Never, ..down(All, Source) }]), Err(Flaw::NeverEnds(0)));
        assert_eq!(
            check(vec![prepare(All, Limit { enough: Enough::default(), rounds: 0 }), down(Rest, Source)]),
            Err(Flaw::NoRounds(0))
        );
        let row = Row {
            name: "".into(),
            steps: vec![prepare(All, Sent), down(Rest, Source)].into(),
            seen_in: "".into(),
            about: "".into(),
        };
        assert_eq!(validate(&row, false), Err(Flaw::TrackingMissing));
    }
}
