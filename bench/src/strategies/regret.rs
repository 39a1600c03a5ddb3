//! How much worse than the best strategy of each cell the one is that auto would have taken.
use super::record::{Cell, Evaluation, Figures};
use godwit_strategy::{OBJECTIVES, Objective, parse};
use std::collections::BTreeMap;

/// What came of one objective.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Regret {
    /// Cells in which there was something to choose from.
    pub cells: usize,
    /// Of those, the ones in which the best was taken, or one that is no more than a tenth worse.
    pub good: usize,
    /// Sum of what the choices cost, ms.
    pub chosen_ms: f64,
    /// Sum of what the best would have cost, ms.
    pub best_ms: f64,
    /// The worst choice, in words.
    pub worst: String,
    /// What each strategy would have cost if it were always taken, ms; none where it cannot be everywhere.
    pub always: BTreeMap<String, f64>,
}

impl Regret {
    /// The part by which the choices cost more than the best.
    #[must_use]
    pub fn part(&self) -> f64 {
        if self.best_ms > 0.0 { self.chosen_ms / self.best_ms - 1.0 } else { 0.0 }
    }
}

/// Whether memory stays behind for ever.
fn is_endless(strategy: &str) -> bool {
    parse(strategy).is_ok_and(|row| row.leaves_pages_behind() && !row.pushes_what_is_left())
}

/// What a measured cell costs for an objective.
fn cost(cell: &Cell, objective: Objective) -> Option<f64> {
    let median = |figure: fn(&Figures) -> f64| cell.median(figure);
    match objective {
        Objective::DownTime => median(|figures| figures.gap_ms),
        // What a process is late by less than it can be told from nothing.
        Objective::SlowDown => median(|figures| figures.delay_ms).map(|delay| delay.max(1.0)),
        _ if is_endless(&cell.strategy) => None,
        Objective::Total => median(|figures| figures.total_ms),
        Objective::Independence => median(|figures| figures.down_ms + figures.post_ms),
    }
}

/// By objective, in the order of the objectives.
#[must_use]
pub fn regrets(evaluation: &Evaluation) -> Vec<(&'static str, Regret)> {
    OBJECTIVES.iter().map(|(name, objective)| (*name, regret(evaluation, name, *objective))).collect()
}

fn regret(evaluation: &Evaluation, name: &str, objective: Objective) -> Regret {
    let (mut regret, mut worst) = (Regret::default(), 0.0);
    let mut always: BTreeMap<String, (usize, f64)> = BTreeMap::new();
    for foreseen in &evaluation.foreseen {
        let of_place =
            evaluation.cells.iter().filter(|cell| cell.workload == foreseen.workload && cell.link == foreseen.link);
        // What auto cannot take, since it would need a page store, it is not held against.
        let priced = of_place.filter(|cell| foreseen.prices.contains_key(&cell.strategy));
        let costs: BTreeMap<&str, f64> =
            priced.filter_map(|cell| Some((cell.strategy.as_str(), cost(cell, objective)?))).collect();
        let best = costs.iter().min_by(|one, other| one.1.total_cmp(other.1));
        let chosen = foreseen.chosen.get(name).and_then(|strategy| Some((strategy, costs.get(strategy.as_str())?)));
        let (Some((best_name, best)), Some((chosen_name, chosen)), true) = (best, chosen, costs.len() > 1) else {
            continue;
        };
        regret.cells += 1;
        regret.good += usize::from(*chosen <= best * 1.1);
        regret.chosen_ms += chosen;
        regret.best_ms += best;
        for (strategy, cost) in &costs {
            let sum = always.entry((*strategy).to_owned()).or_default();
            *sum = (sum.0 + 1, sum.1 + cost);
        }
        if chosen - best > worst {
            worst = chosen - best;
            regret.worst = format!(
                "{} over {}: {chosen_name} {chosen:.1} ms, {best_name} {best:.1} ms",
                foreseen.workload, foreseen.link
            );
        }
    }
    let cells = regret.cells;
    regret.always =
        always.into_iter().filter(|(_, sum)| sum.0 == cells).map(|(strategy, sum)| (strategy, sum.1)).collect();
    regret
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategies::record::Foreseen;

    #[test]
    fn a_choice_is_held_against_the_best_of_its_cell() {
        let mut evaluation = Evaluation::default();
        for (workload, strategy, gap_ms) in [
            ("a", "total-copy", 100.0),
            ("a", "post-copy", 4.0),
            ("b", "total-copy", 5.0),
            ("b", "post-copy", 8.0),
            ("b", "flushing", 1.0),
        ] {
            let figures = Figures { gap_ms, total_ms: 50.0, ..Figures::default() };
            evaluation.cell_to_fill(workload, "10", strategy).samples.push(figures);
        }
        for workload in ["a", "b", "never measured"] {
            let chosen = OBJECTIVES.map(|(name, _)| (name.to_owned(), "post-copy".to_owned())).into_iter().collect();
            evaluation.foreseen.push(Foreseen {
                workload: workload.to_owned(),
                link: "10".to_owned(),
                chosen,
                prices: ["total-copy", "post-copy"].map(|name| (name.to_owned(), [0.0; 3])).into_iter().collect(),
                ..Foreseen::default()
            });
        }
        let regrets = regrets(&evaluation);
        let (name, down) = &regrets[0];
        assert_eq!((*name, down.cells, down.good), ("downtime", 2, 1));
        assert!((down.part() - (12.0 / 9.0 - 1.0)).abs() < 1e-9, "{down:?}");
        assert!(down.worst.starts_with("b over 10: post-copy 8.0 ms, total-copy 5.0"), "{down:?}");
        assert_eq!((down.always["total-copy"], down.always["post-copy"]), (105.0, 12.0));
        assert!(regrets[1].1.part().abs() < 1e-9);
    }
}
