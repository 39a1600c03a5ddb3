//! From what a command reported and what the process saw to the figures of one repetition.
use super::record::Figures;
use serde_json::Value;

/// What the process did: rounds of its loop and how long they took, before the move and during it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Rounds, and seconds, while nobody disturbed it.
    pub before: (u64, f64),
    /// Rounds, and seconds, from the request to the end of the window.
    pub during: (u64, f64),
}

impl Pace {
    /// By how much it is behind, in seconds: the time minus what the work that it did would have needed.
    #[must_use]
    pub fn delay(&self) -> f64 {
        let per_round = self.before.1 / self.before.0.max(1) as f64;
        self.during.1 - self.during.0 as f64 * per_round
    }
}

/// The figures of a command's report; times that the process saw are added by who asked it.
#[must_use]
pub fn of_report(reported: &Value) -> Figures {
    let number = |name: &str| reported.get(name).and_then(Value::as_f64).unwrap_or(0.0);
    Figures {
        preparation_ms: number("preparation_ms"),
        down_ms: number("down_ms"),
        post_ms: number("post_ms"),
        total_ms: number("total_ms"),
        bytes: number("bytes_sent"),
        pages_total: number("pages_total"),
        transfers: number("pages_sent"),
        demanded: number("pages_demanded"),
        rounds: number("rounds"),
        ..Figures::default()
    }
}

/// How often, how long in the middle, and the longest but one of a hundred, µs; of classes (ns, how often).
#[must_use]
pub fn waits(classes: &[(f64, u64)], shortest_ns: f64) -> (u64, f64, f64) {
    let classes: Vec<_> = classes.iter().filter(|(time, _)| *time >= shortest_ns).collect();
    let all: u64 = classes.iter().map(|(_, count)| count).sum();
    let at = |part: f64| {
        let wanted = (all as f64 * part).ceil().max(1.0) as u64;
        let mut seen = 0;
        let found = classes.iter().find(|(_, count)| {
            seen += count;
            seen >= wanted
        });
        found.map_or(0.0, |(time, _)| time / 1e3)
    };
    (all, at(0.5), at(0.99))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_did_half_the_work_is_late_by_half_the_time() {
        let pace = Pace { before: (1000, 0.1), during: (5000, 1.0) };
        assert!((pace.delay() - 0.5).abs() < 1e-9);
    }

    #[test]
    fn waits_are_in_order() {
        let classes = [(500.0, 1000), (20_000.0, 60), (40_000.0, 39), (9e6, 1)];
        assert_eq!(waits(&classes, 4000.0), (100, 20.0, 40.0));
        assert_eq!(waits(&[], 0.0), (0, 0.0, 0.0));
    }

    #[test]
    fn figures_are_those_of_the_report() {
        let report = serde_json::json!({ "pages_sent": 12, "pages_demanded": 4, "down_ms": 1.5 });
        let figures = of_report(&report);
        assert_eq!((figures.transfers, figures.demanded, figures.down_ms), (12.0, 4.0, 1.5));
    }
}
