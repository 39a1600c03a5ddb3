//! What to do next: the only place in the repository that branches on a strategy.

use crate::row::{Enough, Phase, Row, Set, Until};

/// What a round has left to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Left {
    /// Pages that the destination does not hold in their true version now.
    pub pages: u64,
    /// Of so many.
    pub of: u64,
    /// How long they would take; 0: not known.
    pub nanoseconds: u64,
}

impl From<u64> for Left {
    fn from(pages: u64) -> Left {
        Left { pages, ..Left::default() }
    }
}

impl Left {
    fn is(&self, enough: &Enough) -> bool {
        let in_time = self.nanoseconds > 0 && self.nanoseconds <= enough.nanoseconds;
        let few = self.pages.saturating_mul(100) <= self.of.saturating_mul(enough.percent.into());
        self.pages <= enough.pages || in_time || (self.of > 0 && few)
    }
}

/// How far a session has come in its row. The session owns it; [`decide_round`] only reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Where the process is.
    pub phase: Phase,
    /// Index of the row's step that is being done.
    pub step: usize,
    /// Rounds of that step that are done.
    pub rounds: u32,
    /// What was left after the last round; without meaning before the first.
    pub left: Left,
    /// Rounds of that step, one after another, that have moved nothing.
    pub idle: u32,
}

impl Progress {
    /// Before anything was done: the process runs at the source.
    pub const START: Progress = Progress {
        phase: Phase::Preparation,
        step: 0,
        rounds: 0,
        left: Left { pages: 0, of: 0, nanoseconds: 0 },
        idle: 0,
    };

    /// The progress after the round of `step` that [`decide_round`] asked for, and whether it has moved anything.
    #[must_use]
    pub fn after_round(self, step: usize, left: impl Into<Left>, moved: bool) -> Progress {
        let (rounds, idle) = if step == self.step { (self.rounds, self.idle) } else { (0, 0) };
        let idle = if moved { 0 } else { idle.saturating_add(1) };
        Progress { step, rounds: rounds.saturating_add(1), left: left.into(), idle, ..self }
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
            Until::Limit { enough, rounds: most } => {
                progress.left.is(&enough) || rounds >= most || waits_in_vain(step.set, progress.idle)
            }
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

/// Whether that rounds move nothing is how it stays: pages that wait are not quiet before some rounds have passed.
fn waits_in_vain(set: Set, idle: u32) -> bool {
    matches!(set, Set::Quiet(rounds) if idle > rounds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notation::parse;
    use crate::row::{Order, Origin, Set, Step};
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
                    progress.after_round(step, left(round), true)
                }
                Decision::Freeze => progress.entering(Phase::Down),
                Decision::HandOver => progress.entering(Phase::PostProcessing),
                Decision::Finished => return made,
            };
        }
    }

    #[test]
    fn total_copy_sends_everything_in_the_down_time() {
        let row = &parse("total-copy").unwrap();
        let expected = [Decision::Freeze, Decision::Round(0), Decision::HandOver, Decision::Finished];
        assert_eq!(run(row, |_| 0), expected);
    }

    #[test]
    fn rounds_end_at_the_limit_or_after_the_most() {
        let step = |phase, set, until| Step { phase, set, until, order: Order::Push, from: Origin::Source };
        let steps = [
            step(Phase::Preparation, Set::All, Until::Sent),
            step(Phase::Preparation, Set::DirtySinceRound, Until::Limit { enough: Enough::pages(10), rounds: 4 }),
            step(Phase::Down, Set::Rest, Until::Sent),
        ];
        let row =
            Row { name: "pre-copy".into(), steps: Cow::Owned(steps.to_vec()), seen_in: "".into(), about: "".into() };
        let rounds = |made: Vec<Decision>| made.iter().filter(|&&decision| decision == Decision::Round(1)).count();
        assert_eq!(rounds(run(&row, |round| 100 >> round)), 3, "rounds 2, 3 and 4 leave 25, 12 and 6 pages");
        assert_eq!(rounds(run(&row, |_| 100)), 4);
        assert_eq!(run(&row, |_| 0).last(), Some(&Decision::Finished));
    }

    #[test]
    fn a_step_of_rounds_ends_when_little_is_left_in_any_sense_or_nothing_moves() {
        let until = |enough| Until::Limit { enough, rounds: 9 };
        let row = |set, enough| Row {
            name: "".into(),
            steps: Cow::Owned([Step::push(Phase::Preparation, set, until(enough))].to_vec()),
            seen_in: "".into(),
            about: "".into(),
        };
        let over = |row: &Row, left: Left, idle: u32| {
            let progress = Progress { rounds: 1, left, idle, ..Progress::START };
            decide_round(row, &progress) == Decision::Freeze
        };
        let few = row(Set::DirtySinceRound, Enough { pages: 3, percent: 10, nanoseconds: 500 });
        assert!(over(&few, 3.into(), 0) && !over(&few, 4.into(), 0));
        let left = |pages, nanoseconds| Left { pages, of: 100, nanoseconds };
        assert!(over(&few, left(10, 0), 0) && !over(&few, left(11, 0), 0));
        assert!(over(&few, left(90, 500), 0) && !over(&few, left(90, 501), 0));
        assert!(!over(&few, left(90, 501), 9));
        let quiet = row(Set::Quiet(2), Enough::default());
        assert!(!over(&quiet, left(90, 0), 2) && over(&quiet, left(90, 0), 3) && over(&quiet, left(0, 0), 0));
    }
}
