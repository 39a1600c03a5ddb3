//! The budgets that this run can tell something about, each with its limit and what was measured.
use super::record::{Cell, Evaluation, Figures};
use super::regret::regrets;
use crate::summary::Summary;
use std::fmt::Write;

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// What may cost so much.
    pub what: String,
    /// How much it may, in words.
    pub limit: String,
    /// What was measured; none: nothing was.
    pub measured: Option<(String, bool)>,
}

/// The fastest link.
const UNSHAPED: &str = "unshaped";

fn figure(cell: Option<&Cell>, figure: impl Fn(&Figures) -> f64) -> Option<f64> {
    cell.and_then(|cell| cell.median(figure))
}

/// All of them.
#[must_use]
pub fn lines(evaluation: &Evaluation) -> Vec<Line> {
    let mut lines: Vec<Line> = DOWN.iter().map(|limit| least_down(evaluation, *limit)).collect();
    lines.extend(["post-copy", "assisted-post-copy"].map(|strategy| flat(evaluation, strategy)));
    lines.push(assisted(evaluation));
    lines.extend(streams(evaluation));
    lines.extend(faults(evaluation));
    lines.extend(tracking(evaluation));
    lines.extend(["queued-pre-copy", "assisted-post-copy"].map(|strategy| once(evaluation, strategy)));
    for (name, regret) in regrets(evaluation) {
        lines.push(Line {
            what: format!("auto for {name}: what its choices cost more than the best of each cell, summed"),
            limit: "≤ 10 %".to_owned(),
            measured: (regret.cells > 0).then(|| {
                let words =
                    format!("{:.1} % ({} of {} cells well chosen)", regret.part() * 100.0, regret.good, regret.cells);
                (words, regret.part() <= 0.1)
            }),
        });
    }
    lines
}

/// What may be down for so long, ms, moved by the strategy that suits it best: workload, words.
const DOWN: [(&str, &str, f64); 4] = [
    ("getpid", "a loop of getpid", 1.5),
    ("1000-threads", "1,000 threads", 25.0),
    ("1000-descriptors", "1,000 descriptors", 5.0),
    ("10000-mappings", "10,000 mappings", 10.0),
];

fn least_down(evaluation: &Evaluation, (workload, words, limit): (&str, &str, f64)) -> Line {
    let gaps = evaluation.cells.iter().filter(|cell| cell.workload == workload && cell.link == UNSHAPED);
    let best = gaps
        .filter_map(|cell| Some((figure(Some(cell), |figures| figures.gap_ms)?, cell.strategy.as_str())))
        .min_by(|one, other| one.0.total_cmp(&other.0));
    Line {
        what: format!("down time of {words}, unshaped link, as the process saw it, by the best strategy"),
        limit: format!("≤ {limit} ms"),
        measured: best.map(|(gap, strategy)| (format!("{gap:.2} ms ({strategy})"), gap <= limit)),
    }
}

fn flat(evaluation: &Evaluation, strategy: &str) -> Line {
    let gap = |workload: &str| figure(evaluation.cell(workload, UNSHAPED, strategy), |figures| figures.down_ms);
    let measured = gap("4-mib").zip(gap("4-gib")).map(|(small, large)| {
        let times = large / small;
        (format!("{times:.2} ({small:.1} ms, {large:.1} ms)"), times <= 1.5)
    });
    Line {
        what: format!("{strategy}: down time of 4 GiB by that of 4 MiB, unshaped link"),
        limit: "≤ 1.5".to_owned(),
        measured,
    }
}

fn assisted(evaluation: &Evaluation) -> Line {
    let gap = figure(evaluation.cell("1-gib-1", UNSHAPED, "assisted-post-copy"), |figures| figures.gap_ms);
    Line {
        what: "assisted-post-copy: longest gap of 1 GiB, 1 page/ms written, unshaped link".to_owned(),
        limit: "≤ 4 ms".to_owned(),
        measured: gap.map(|gap| (format!("{gap:.1} ms"), gap <= 4.0)),
    }
}

/// What 1 GiB takes beside the raw stream over the same link.
fn streams(evaluation: &Evaluation) -> [Line; 2] {
    let limits = evaluation.links.iter().find(|limits| limits.link == UNSHAPED);
    let stream = limits.and_then(|limits| Summary::of(limits.stream.iter().copied())).map(|summary| summary.median);
    let part = |strategy: &str, time: fn(&Figures) -> f64, least: f64| {
        let cell = evaluation.cell("1-gib-1", UNSHAPED, strategy);
        let (bytes, time) = (figure(cell, |figures| figures.bytes)?, figure(cell, time)?);
        let part = bytes / (time / 1e3) / stream?;
        Some((format!("{:.0} % of {:.1} GB/s", part * 100.0, stream? / 1e9), part >= least))
    };
    [
        Line {
            what:
                "total-copy of 1 GiB, unshaped link: bytes by the gap that the process saw, of a raw TCP stream (cubic)"
                    .to_owned(),
            limit: "≥ 80 %".to_owned(),
            measured: part("total-copy", |figures| figures.gap_ms, 0.8),
        },
        Line {
            what: "post-copy of 1 GiB, unshaped link: bytes by post-processing time, of a raw TCP stream (cubic)"
                .to_owned(),
            limit: "≥ 60 %".to_owned(),
            measured: part("post-copy", |figures| figures.post_ms, 0.6),
        },
    ]
}

/// What a process waits for a page, beside a request and its answer over the same link.
fn faults(evaluation: &Evaluation) -> Vec<Line> {
    let mut lines = Vec::new();
    for limits in &evaluation.links {
        let request = Summary::of(limits.request_us.iter().map(|times| times[0])).map(|summary| summary.median);
        for (strategy, pushed) in [("copy-on-reference", ""), ("post-copy", ", while pages are pushed")] {
            let cell = evaluation.cell("touch-64-mib", &limits.link, strategy);
            let times = |of: fn(&Figures) -> f64, most: f64| {
                let times = figure(cell, of)? / request?;
                Some((format!("{times:.1} (of {:.0} µs)", request?), times <= most))
            };
            let link = &limits.link;
            let over = if link == UNSHAPED { "unshaped link".to_owned() } else { format!("{link} Mbit/s") };
            lines.push(Line {
                what: format!("{strategy}, {over}: median wait for a page by an empty request of 4 KiB{pushed}"),
                limit: "≤ 2".to_owned(),
                measured: times(|figures| figures.wait_median_us, 2.0),
            });
            if !pushed.is_empty() {
                lines.push(Line {
                    what: format!("{strategy}, {over}: 99 of 100 waits{pushed}"),
                    limit: "≤ 4".to_owned(),
                    measured: times(|figures| figures.wait_99_us, 4.0),
                });
            }
        }
    }
    lines
}

fn tracking(evaluation: &Evaluation) -> [Line; 2] {
    let tracked = evaluation.tracked.as_ref();
    [
        Line {
            what: "a process of 1 GiB that writes nothing: slower while it is tracked".to_owned(),
            limit: "≤ 1 %".to_owned(),
            measured: tracked.map(|known| (format!("{:.2} %", known.slower * 100.0), known.slower <= 0.01)),
        },
        Line {
            what: "a look at all of its memory".to_owned(),
            limit: "≤ 10 ms".to_owned(),
            measured: tracked.map(|known| {
                (
                    format!("{:.2} ms (the first, which arms all: {:.1} ms)", known.look_ms, known.first_look_ms),
                    known.look_ms <= 10.0,
                )
            }),
        },
    ]
}

/// Pages of a quiet process that went over the link more than once.
fn once(evaluation: &Evaluation, strategy: &str) -> Line {
    // Its loop writes its own stack and nothing else: that one page is not quiet.
    const RESTLESS: f64 = 3.0;
    let links = evaluation.cells.iter().filter(|cell| cell.workload == "256-mib" && cell.strategy == strategy);
    let twice =
        links.filter_map(|cell| figure(Some(cell), |figures| figures.transfers - figures.pages_total)).reduce(f64::max);
    Line {
        what: format!("{strategy}: pages of a quiet 256 MiB that are sent twice, but those of the loop's own stack"),
        limit: "0".to_owned(),
        measured: twice
            .map(|twice| (format!("{:.0} ({twice:.0} in all)", (twice - RESTLESS).max(0.0)), twice <= RESTLESS)),
    }
}

/// The lines as a table.
#[must_use]
pub fn table(lines: &[Line]) -> String {
    let mut text = "| what | limit | measured | kept |\n|---|---|---|---|\n".to_owned();
    for line in lines {
        let (measured, kept) = match &line.measured {
            Some((measured, true)) => (measured.as_str(), "yes"),
            Some((measured, false)) => (measured.as_str(), "**missed**"),
            None => ("not measured", "–"),
        };
        // Writing to a String does not fail.
        let _ = writeln!(text, "| {} | {} | {measured} | {kept} |", line.what, line.limit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategies::record::{LinkLimits, Tracked};

    #[test]
    fn a_missed_budget_is_said_and_so_is_what_was_not_measured() {
        let mut evaluation = Evaluation::default();
        let limits = LinkLimits { link: UNSHAPED.to_owned(), stream: vec![1e9], request_us: vec![[20.0, 40.0]] };
        evaluation.links.push(limits);
        let wait = Figures { wait_median_us: 30.0, wait_99_us: 100.0, ..Figures::default() };
        evaluation.cell_to_fill("touch-64-mib", UNSHAPED, "post-copy").samples.push(wait);
        let total = Figures { bytes: 1e9, gap_ms: 2000.0, ..Figures::default() };
        evaluation.cell_to_fill("1-gib-1", UNSHAPED, "total-copy").samples.push(total);
        evaluation.tracked = Some(Tracked { slower: 0.002, look_ms: 12.0, first_look_ms: 20.0 });
        let text = table(&lines(&evaluation));
        assert!(text.contains("≤ 2 | 1.5 (of 20 µs) | yes |"), "{text}");
        assert!(text.contains("≤ 4 | 5.0 (of 20 µs) | **missed** |"), "{text}");
        assert!(text.contains("≥ 80 % | 50 % of 1.0 GB/s | **missed** |"), "{text}");
        assert!(text.contains("| ≤ 1 % | 0.20 % | yes |") && text.contains("12.00 ms"), "{text}");
        assert!(text.contains("| ≤ 1.5 ms | not measured | – |"), "{text}");
    }
}
