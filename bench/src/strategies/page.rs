//! The page that tells what came of it, and its drawings.
use super::budget;
use super::drawing::{Axes, Bar, Group, Series, lines, stacked_bars};
use super::findings;
use super::link::LINKS;
use super::record::{Cell, Evaluation};
use super::table::{self, bytes, milliseconds};
use super::workload::Writes;
use crate::summary::Summary;
use godwit_strategy::parse;
use serde_json::Value;
use std::fmt::Write;

const HEAD: &str = "\
# Strategies compared

Written by `godwit bench strategies`: one run on one machine; read the ratios, not the milliseconds.
";

const LEGEND: &str = "\
* *preparation*, *down*, *post-processing*, *total*: as `godwit` reports them. *longest gap seen*: the largest step of CLOCK_REALTIME
  between two rounds of the process's own loop.
* *page transfers*: pages of 4 KiB that went over the link, each time counted, of the pages that the process had.
* *execution delayed by*: the time from the request until 100 ms after the command's end (1 s where memory comes only on demand),
  minus the time that the rounds which the process made meanwhile took it before. Both hosts share this machine's processors, so it
  holds what the engine takes from the process, too.
* A process that does not ask for all of its memory within 10 s gets the rest then (`godwit settle`), and the command ends.
* flushing and freeze-free have a page store that is a directory which both hosts see: it is not behind the shaped link.
* Before each move as much memory as it needs is touched and given back: a virtual machine gets it from its host only then, which is slower than
  all that is measured here.
* Medians. Every repetition counts only when the process has found all of its memory as it left it.
* Shaped links: tc's token bucket filter on both ends, a bucket of 10 ms (64 KiB at least), a queue of 50 ms. A delay of propagation
  is not added: this needs netem, which not every kernel has.
";

/// A file beside the page.
#[derive(Clone, Debug)]
pub struct Drawing {
    /// Its name.
    pub name: String,
    /// Its contents.
    pub svg: String,
}

/// The page, and the drawings that it shows from `directory` (as seen from the page).
#[must_use]
pub fn page(evaluation: &Evaluation, directory: &str) -> (String, Vec<Drawing>) {
    let mut text = HEAD.to_owned();
    // Writing to a String does not fail.
    let _ = write!(text, "\n{}\n\n{}\n", machine(&evaluation.machine), links(evaluation));
    let _ = write!(text, "## Budgets\n\n{}\n", budget::table(&budget::lines(evaluation)));
    let _ = write!(text, "## What it shows\n\n{}\n", findings::text(evaluation));
    let drawings = drawings(evaluation);
    let _ = write!(text, "## Tables\n\n{}{LEGEND}\n## Drawings\n", table::tables(evaluation));
    for drawing in &drawings {
        let _ = write!(text, "\n![{0}]({directory}/{0}.svg)\n", drawing.name);
    }
    (text, drawings)
}

fn machine(machine: &Value) -> String {
    let word = |name: &str| machine.get(name).and_then(Value::as_str).unwrap_or("?");
    let number = |name: &str| machine.get(name).and_then(Value::as_f64).unwrap_or(0.0);
    format!(
        "{} UTC, {}, {} processors, {}, Linux {}; two hosts made of namespaces, a veth link; {} build; load average of the minute \
         before: {}.",
        word("when_utc"),
        word("processor"),
        number("processors"),
        bytes(number("memory_bytes")),
        word("kernel"),
        word("build"),
        word("load_before"),
    )
}

fn links(evaluation: &Evaluation) -> String {
    let mut text =
        "| link | raw TCP stream | request and answer of 4 KiB: median | 99 of 100 |\n|---|---:|---:|---:|\n"
            .to_owned();
    for link in LINKS {
        let Some(limits) = evaluation.links.iter().find(|limits| limits.link == link.name) else { continue };
        let median = |values: Vec<f64>| Summary::of(values).map_or(0.0, |summary| summary.median);
        let of_requests = |at: usize| median(limits.request_us.iter().map(|times| times[at]).collect());
        let _ = writeln!(
            text,
            "| {} | {}/s | {:.0} µs | {:.0} µs |",
            link.about,
            bytes(median(limits.stream.clone())),
            of_requests(0),
            of_requests(1)
        );
    }
    text
}

fn drawings(evaluation: &Evaluation) -> Vec<Drawing> {
    let names = table::strategies(evaluation);
    let mut drawings: Vec<Drawing> = Vec::new();
    for workload in table::workloads(evaluation) {
        let of_link = |link: &super::link::LinkSpeed| {
            let cells = names.iter().filter_map(|name| evaluation.cell(workload.name, link.name, name));
            let bars: Vec<Bar> = cells.filter_map(bar).collect();
            (!bars.is_empty()).then(|| Group { label: link.about.to_owned(), bars })
        };
        let groups: Vec<Group> = LINKS.iter().filter_map(of_link).collect();
        let title = format!("Time periods: {}", workload.about);
        let parts = ["preparation", "down", "post-processing"];
        let svg = stacked_bars(&title, &parts, &groups, milliseconds);
        drawings.push(Drawing { name: format!("periods-{}", workload.name), svg });
    }
    for link in LINKS {
        let series: Vec<Series> = names.iter().map(|name| down_by_memory(evaluation, link.name, name)).collect();
        if series.iter().any(|line| line.points.len() > 1) {
            let axes = Axes { x: "memory", y: "down time", show_x: bytes, show_y: milliseconds };
            let svg = lines(&format!("Down time by memory, quiet or nearly so, {}", link.about), &axes, &series);
            drawings.push(Drawing { name: format!("down-by-memory-{}", link.name), svg });
        }
    }
    let waits: Vec<Group> = LINKS.iter().filter_map(|link| waits(evaluation, link, &names)).collect();
    if !waits.is_empty() {
        let show = |time: f64| format!("{time:.0} µs");
        let svg = stacked_bars(
            "Cost of a page that is waited for: median, and 99 of 100",
            &["median", "up to 99 of 100"],
            &waits,
            show,
        );
        drawings.push(Drawing { name: "cost-of-faults".to_owned(), svg });
    }
    drawings
}

/// What a page costs that is waited for, beside the request that cannot be cheaper.
fn waits(evaluation: &Evaluation, link: &super::link::LinkSpeed, names: &[String]) -> Option<Group> {
    let bar = |label: &str, median: f64, most: f64| Bar { label: label.to_owned(), parts: vec![median, most - median] };
    let of_cell = |name: &String| {
        let cell = evaluation.cell("touch-64-mib", link.name, name)?;
        // Of others the few waits are those of a processor that somebody else has.
        let waits = parse(name).is_ok_and(|row| row.leaves_pages_behind());
        let (median, most) =
            (cell.median(|figures| figures.wait_median_us)?, cell.median(|figures| figures.wait_99_us)?);
        (waits && median > 0.0).then(|| bar(name, median, most))
    };
    let mut bars: Vec<Bar> = names.iter().filter_map(of_cell).collect();
    let limits = evaluation.links.iter().find(|limits| limits.link == link.name)?;
    let of_requests =
        |at: usize| Summary::of(limits.request_us.iter().map(|times| times[at])).map(|known| known.median);
    if bars.is_empty() {
        return None;
    }
    bars.push(bar("empty request of 4 KiB", of_requests(0)?, of_requests(1)?));
    Some(Group { label: link.about.to_owned(), bars })
}

/// The three time periods of a cell.
fn bar(cell: &Cell) -> Option<Bar> {
    let parts = vec![
        cell.median(|figures| figures.preparation_ms)?,
        cell.median(|figures| figures.down_ms)?,
        cell.median(|figures| figures.post_ms)?,
    ];
    Some(Bar { label: cell.strategy.clone(), parts })
}

/// Of processes that write little: the down time that they saw over the memory that they have.
fn down_by_memory(evaluation: &Evaluation, link: &str, strategy: &str) -> Series {
    let quiet = table::workloads(evaluation).filter(|workload| {
        matches!(workload.writes, Writes::None | Writes::PerMillisecond(1)) && workload.program == "writer"
    });
    let point = |workload: &super::workload::Workload| {
        let cell = evaluation.cell(workload.name, link, strategy)?;
        Some((workload.memory as f64, cell.median(|figures| figures.gap_ms)?))
    };
    let mut points: Vec<(f64, f64)> = quiet.filter_map(point).collect();
    points.sort_by(|one, other| one.0.total_cmp(&other.0));
    Series { label: strategy.to_owned(), points }
}
