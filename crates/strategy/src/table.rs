//! The table itself: one row per strategy.

use alloc::borrow::Cow;

use crate::row::{Enough, Order, Origin, Phase, Row, Set, Step, Until};

/// Rounds unless the user says otherwise, and pages at which another one is not worth it: a quarter of a MiB.
const ROUNDS: Until = Until::Limit { enough: Enough::pages(64), rounds: 12 };

const fn after(set: Set, until: Until, order: Order) -> Step {
    Step { phase: Phase::PostProcessing, set, until, order, from: Origin::Source }
}

/// Every strategy that can be asked for by name.
pub static TABLE: &[Row] = &[
    Row {
        name: Cow::Borrowed("total-copy"),
        steps: Cow::Borrowed(&[Step::push(Phase::Down, Set::All, Until::Sent)]),
        seen_in: Cow::Borrowed("Charlotte, Amoeba, RHODOS"),
        about: Cow::Borrowed(
            "Sends each page once and least in all, and leaves nothing behind; the process is down for as long as that takes. \
             For small processes, fast links, and whoever does not mind the wait.",
        ),
    },
    Row {
        name: Cow::Borrowed("pre-copy"),
        steps: Cow::Borrowed(&[
            Step::push(Phase::Preparation, Set::DirtySinceRound, ROUNDS),
            Step::push(Phase::Down, Set::Rest, Until::Sent),
        ]),
        seen_in: Cow::Borrowed("V"),
        about: Cow::Borrowed(
            "Sends everything while the process runs, then what it has written meanwhile, in rounds, and the rest while it is down. \
             For large processes that write slower than the link carries; one that writes faster is sent again and again.",
        ),
    },
    Row {
        name: Cow::Borrowed("queued-pre-copy"),
        steps: Cow::Borrowed(&[
            Step::push(Phase::Preparation, Set::All, Until::Sent),
            Step::push(Phase::Preparation, Set::Quiet(1), ROUNDS),
            Step::push(Phase::Down, Set::Rest, Until::Sent),
        ]),
        seen_in: Cow::Borrowed("NomadBIOS; first built for Linux in 2003"),
        about: Cow::Borrowed(
            "As pre-copy, but a page that was written in this round waits until it has been quiet for one: what is written all the \
             time is sent once more only, while the process is down. For processes with a part that never rests.",
        ),
    },
    Row {
        name: Cow::Borrowed("post-copy"),
        steps: Cow::Borrowed(&[after(Set::All, Until::Sent, Order::FaultsFirst)]),
        seen_in: Cow::Borrowed("Noack 2003"),
        about: Cow::Borrowed(
            "Sends the state alone while the process is down; its private memory comes when it runs, what it waits for first. Down for \
             as long whatever its size, each page sent once; it is slow at first, and depends on both hosts until all has come.",
        ),
    },
    Row {
        name: Cow::Borrowed("flushing"),
        steps: Cow::Borrowed(&[
            Step {
                phase: Phase::Down,
                set: Set::Modified,
                until: Until::Sent,
                order: Order::Push,
                from: Origin::Store,
            },
            STORE_FAULTS,
        ]),
        seen_in: Cow::Borrowed("Sprite"),
        about: Cow::Borrowed(
            "Writes the memory to a page store (--pages) while the process is down; at the destination it comes from there, page by page \
             as it is touched. The source is not needed any more from then on, the store is. For hosts that are about to go.",
        ),
    },
    Row {
        name: Cow::Borrowed("freeze-free"),
        steps: Cow::Borrowed(&[
            Step::push(Phase::Down, Set::Working, Until::Sent),
            after(Set::Communication, Until::Sent, Order::FaultsFirst),
            Step {
                phase: Phase::PostProcessing,
                set: Set::Rest,
                until: Until::Sent,
                order: Order::FaultsFirst,
                from: Origin::Store,
            },
            STORE_FAULTS,
        ]),
        seen_in: Cow::Borrowed("Choices"),
        about: Cow::Borrowed(
            "Sends the state and the pages in use at the moment; while the process runs at the destination what lies unread in its pipes and \
             Unix sockets follows (whoever touches one waits for that), the source writes the rest to a page store (--pages) and gives what \
             is asked for. Down as shortly as can be; the source is free soon, the store is needed.",
        ),
    },
    Row {
        name: Cow::Borrowed("assisted-post-copy"),
        steps: Cow::Borrowed(&[
            Step::push(Phase::Preparation, Set::All, Until::Sent),
            after(Set::Rest, Until::Sent, Order::FaultsFirst),
        ]),
        seen_in: Cow::Borrowed("Noack 2003"),
        about: Cow::Borrowed(
            "Sends everything once while the process runs; while it is down only which pages were written since, and those come when it \
             runs. Down for as long as post-copy, and waits for far fewer pages afterwards; no page is sent more than twice.",
        ),
    },
    Row {
        name: Cow::Borrowed("copy-on-reference"),
        steps: Cow::Borrowed(&[after(Set::All, Until::Never, Order::FaultsOnly)]),
        seen_in: Cow::Borrowed("Accent"),
        about: Cow::Borrowed(
            "As post-copy, but only what the process asks for is ever sent: least over the link where it needs little of its memory. It \
             depends on the source for as long as it lives, or until `godwit settle` fetches the rest.",
        ),
    },
    Row {
        name: Cow::Borrowed("eager-dirty"),
        steps: Cow::Borrowed(&[
            Step::push(Phase::Down, Set::Modified, Until::Sent),
            after(Set::Rest, Until::Never, Order::FaultsOnly),
        ]),
        seen_in: Cow::Borrowed("MOSIX"),
        about: Cow::Borrowed(
            "Sends what no file has while the process is down; unmodified pages of files come when they are touched, here out of the \
             destination's own files, so that nothing depends on the source. Down for as long as total-copy.",
        ),
    },
];

/// What a process asks for comes from the page store, as long as it lives.
const STORE_FAULTS: Step = Step {
    phase: Phase::PostProcessing,
    set: Set::Rest,
    until: Until::Never,
    order: Order::FaultsOnly,
    from: Origin::Store,
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{parse, validate};

    #[test]
    fn every_row_is_found_by_its_name_and_is_sound() {
        for row in TABLE {
            assert_eq!(parse(&row.name).as_ref(), Ok(row));
            assert_eq!(validate(row, true), Ok(()), "{}", row.name);
            assert!(!row.about.is_empty() && !row.seen_in.is_empty());
        }
    }
}
