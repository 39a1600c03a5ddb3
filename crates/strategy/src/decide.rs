//! What to do next: the only place in the repository that branches on a strategy.

use crate::row::{Phase, Row, Until};

/// How far a session has come in its row. The session owns it; [`decide_round`] only reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Where the process is.
    pub phase: Phase,
    /// Index of the row's step that is being done.
    pub step: usize,
    /// Rounds of that step that are done.
    pub rounds: u32,
    /// Pages in that step's set after the last round; without meaning before the first.
    pub left: u64,
}

impl Progress {
    /// Before anything was done: the process runs at the source.
    pub const START: Progress = Progress { phase: Phase::Preparation, step: 0, rounds: 0, left: 0 };

    /// The progress after the round of `step` that [`decide_round`] asked for; `left` pages are in the set now.
    #[must_use]
    pub fn after_round(self, step: usize, left: u64) -> Progress {
        let rounds = if step == self.step { self.rounds.saturating_add(1) } else { 1 };
        Progress { step, rounds, left, ..self }
    }

    /// The progress after the process has gone on to `phase`.
    #[must_use]
    pub fn entering(self, phase: Phase) -> Progress {
        Progress { phase, ..self }
    }
}

/// What the session does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Send (or serve) one round of the row's step with this index.
    Round(usize),
    /// The preparation is over: freeze the process.
    Freeze,
    /// The destination has all it needs: hand the process over.
    HandOver,
    /// Nothing is left to do.
    Finished,
}

/// What `row` wants next after `progress`.
pub fn decide_round(row: &Row, progress: &Progress) -> Decision {
    let mut rounds = progress.rounds;
    for (index, step) in row.steps.iter().enumerate().skip(progress.step) {
        if step.phase > progress.phase {
            break;
        }
        let over = match step.until {
            _ if step.phase < progress.phase => true,
            _ if rounds == 0 => false,
            Until::Sent => true,
            Until::Limit { pages, rounds: most } => progress.left <= pages || rounds >= most,
            Until::Never => false,
        };
        if !over {
            return Decision::Round(index);
        }
        rounds = 0;
    }
    match progress.phase {
        Phase::Preparation => Decision::Freeze,
        Phase::Down => Decision::HandOver,
        Phase::PostProcessing => Decision::Finished,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::{Order, Origin, Set, Step};
    use crate::table::parse;
    use alloc::borrow::Cow;
    use alloc::vec::Vec;

    /// Runs `row` against a process of which `left(n)` pages are in the set after round n.
    fn run(row: &Row, left: impl Fn(u32) -> u64) -> Vec<Decision> {
        let (mut progress, mut made, mut round) = (Progress::START, Vec::new(), 0);
        loop {
            let decision = decide_round(row, &progress);
            made.push(decision);
            progress = match decision {
                Decision::Round(step) => {
                    round += 1;
                    progress.after_round(step, left(round))
                }
                Decision::Freeze => progress.entering(Phase::Down),
                Decision::HandOver => progress.entering(Phase::PostProcessing),
                Decision::Finished => return made,
            };
        }
    }

    #[test]
    fn total_copy_sends_everything_in_the_down_time() {
        let row = parse("total-copy").unwrap();
        let expected = [Decision::Freeze, Decision::Round(0), Decision::HandOver, Decision::Finished];
        assert_eq!(run(row, |_| 0), expected);
    }

    #[test]
    fn rounds_end_at_the_limit_or_after_the_most() {
        let step = |phase, set, until| Step { phase, set, until, order: Order::Push, from: Origin::Source };
        let steps = [
            step(Phase::Preparation, Set::All, Until::Sent),
            step(Phase::Preparation, Set::DirtySinceRound, Until::Limit { pages: 10, rounds: 4 }),
            step(Phase::Down, Set::Rest, Until::Sent),
        ];
        let row = Row { name: "pre-copy".into(), steps: Cow::Owned(steps.to_vec()), seen_in: "".into() };
        let rounds = |made: Vec<Decision>| made.iter().filter(|&&decision| decision == Decision::Round(1)).count();
        assert_eq!(rounds(run(&row, |round| 100 >> round)), 3, "rounds 2, 3 and 4 leave 25, 12 and 6 pages");
        assert_eq!(rounds(run(&row, |_| 100)), 4);
        assert_eq!(run(&row, |_| 0).last(), Some(&Decision::Finished));
    }
}
