//! The tables: for each process, every strategy over every link, time period by time period.
use super::link::LINKS;
use super::record::{Cell, Evaluation, Figures};
use super::workload::{WORKLOADS, Workload};
use godwit_strategy::TABLE;
use std::fmt::Write;

const HEAD: &str = "\
| link | strategy | preparation | down | longest gap seen | post-processing | total | over the link | page transfers | rounds | execution delayed by |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|
";

/// The strategies of the data: those of the table in its order, then others.
#[must_use]
pub fn strategies(evaluation: &Evaluation) -> Vec<String> {
    let known = |name: &str| evaluation.cells.iter().any(|cell| cell.strategy == name);
    let mut names: Vec<String> = TABLE.iter().map(|row| row.name.to_string()).filter(|name| known(name)).collect();
    for cell in &evaluation.cells {
        if !names.contains(&cell.strategy) {
            names.push(cell.strategy.clone());
        }
    }
    names
}

/// The workloads of which anything is known.
pub fn workloads(evaluation: &Evaluation) -> impl Iterator<Item = &'static Workload> + '_ {
    WORKLOADS.iter().filter(|workload| evaluation.cells.iter().any(|cell| cell.workload == workload.name))
}

/// All tables, each under a heading.
#[must_use]
pub fn tables(evaluation: &Evaluation) -> String {
    let mut text = String::new();
    let names = strategies(evaluation);
    for (number, workload) in workloads(evaluation).enumerate() {
        // Writing to a String does not fail.
        let _ = write!(text, "### Table {}: {}\n\n{HEAD}", number + 1, workload.about);
        for link in LINKS {
            for cell in names.iter().filter_map(|name| evaluation.cell(workload.name, link.name, name)) {
                let _ = writeln!(text, "{}", row(cell, link.about));
            }
        }
        for left in evaluation.left_out.iter().filter(|left| left.workload == workload.name) {
            let link = LINKS.iter().find(|link| link.name == left.link).map_or("?", |link| link.about);
            let _ = write!(text, "\nLeft out over {link}: {} ({}).\n", left.strategies.join(", "), left.why);
        }
        text.push('\n');
    }
    text
}

fn row(cell: &Cell, link: &str) -> String {
    let strategy = &cell.strategy;
    if cell.samples.is_empty() {
        let trouble = cell.trouble.as_deref().unwrap_or("nothing was measured").replace('|', "/");
        return format!("| {link} | {strategy} | {trouble} |{}", " |".repeat(8));
    }
    let of = |figure: fn(&Figures) -> f64| cell.median(figure).unwrap_or(0.0);
    let pages = format!("{:.0} of {:.0}", of(|figures| figures.transfers), of(|figures| figures.pages_total));
    let shown = [
        milliseconds(of(|figures| figures.preparation_ms)),
        milliseconds(of(|figures| figures.down_ms)),
        milliseconds(of(|figures| figures.gap_ms)),
        milliseconds(of(|figures| figures.post_ms)),
        milliseconds(of(|figures| figures.total_ms)),
        bytes(of(|figures| figures.bytes)),
        pages,
        format!("{:.0}", of(|figures| figures.rounds)),
        milliseconds(of(|figures| figures.delay_ms)),
    ];
    format!("| {link} | {strategy} | {} |", shown.join(" | "))
}

/// A time, in as many digits as it deserves.
#[must_use]
pub fn milliseconds(time: f64) -> String {
    match time.abs() {
        long if long >= 10_000.0 => format!("{:.1} s", time / 1e3),
        long if long >= 100.0 => format!("{time:.0} ms"),
        long if long >= 10.0 => format!("{time:.1} ms"),
        _ => format!("{time:.2} ms"),
    }
}

/// A number of bytes.
#[must_use]
pub fn bytes(count: f64) -> String {
    match count {
        many if many >= 1e9 => format!("{:.2} GB", count / 1e9),
        many if many >= 1e6 => format!("{:.1} MB", count / 1e6),
        _ => format!("{:.0} kB", count / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategies::record::LeftOut;

    pub(crate) fn evaluation() -> Evaluation {
        let mut evaluation = Evaluation::default();
        for (strategy, down) in [("post-copy", 3.0), ("total-copy", 120.0), ("down=all", 130.0)] {
            let figures = Figures { down_ms: down, total_ms: 200.0, transfers: 65536.0, ..Figures::default() };
            evaluation.cell_to_fill("256-mib", "1000", strategy).samples.push(figures);
        }
        evaluation.cell_to_fill("256-mib", "10", "pre-copy").trouble = Some("refused: a | pipe".to_owned());
        evaluation.left_out.push(LeftOut {
            workload: "256-mib".to_owned(),
            link: "10".to_owned(),
            strategies: vec!["total-copy".to_owned()],
            why: "a move would take 215 s".to_owned(),
        });
        evaluation
    }

    #[test]
    fn every_row_has_every_column() {
        let text = tables(&evaluation());
        let bars: Vec<usize> =
            text.lines().filter(|line| line.starts_with('|')).map(|line| line.matches('|').count()).collect();
        assert_eq!(bars, [12; 6], "{text}");
        assert!(text.contains("refused: a / pipe") && text.contains("Left out over 10 Mbit/s: total-copy"), "{text}");
    }

    #[test]
    fn strategies_are_in_the_order_of_the_table() {
        assert_eq!(strategies(&evaluation()), ["total-copy", "pre-copy", "post-copy", "down=all"]);
    }

    #[test]
    fn figures_are_readable() {
        assert_eq!(milliseconds(2.345), "2.35 ms");
        assert_eq!(milliseconds(21_034.0), "21.0 s");
        assert_eq!((bytes(4_200_000.0), bytes(106_000.0)), ("4.2 MB".to_owned(), "106 kB".to_owned()));
    }
}
