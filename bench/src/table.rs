//! A run as a page of Markdown: docs/bench.md is one.
use crate::case::{Budget, ENGINE_MEMORY_MAX};
use crate::report::{Judged, Measured, Report};
use crate::summary::Summary;
use std::fmt::Write;

const HEAD: &str = "\
# What a move costs

Written by `godwit bench --markdown docs/bench.md`. Figures of one run on one machine, each beside what was measured as its
limit in the same run: read the ratios, not the milliseconds.
";

const COLUMNS: &str = "\
| what is moved | down, ms | reported, ms | total, ms | command, ms | over the link | pages | least for these bytes, ms | down ÷ least | engine's memory | budget | kept |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|---|
";

const LEGEND: &str = "
* *down*: the largest step of CLOCK_REALTIME that the process saw in its own loop: median (least to most).
* *reported*: the down time that `godwit` itself reports. *total*: its total migration time, from the request to nothing left at
  the source. *command*: from the start of the command in its host to its end.
* *budget* of memory: its bytes by the down time as the process saw it, as a part of what the raw stream carries. What is copied by
  a total copy is copied while the process is down; in the total there is besides what comes before (the examination, and making
  memory at the destination, while the process runs) and after (ending the source, while it runs already at the destination).
* *over the link*: bytes sent. *pages*: sent of all.
* *least for these bytes*: the raw TCP stream's time for them, and one request with its answer.
* *engine's memory*: the most that all processes of `godwit` at both sides had resident at one moment, what they share counted once
  (or the largest process, VmHWM, where that is more).
* Every repetition counts only when the program has found all of its state as it was: contents of memory, offsets, unread bytes,
  counts, its threads and children going on.
";

/// The whole page.
#[must_use]
pub fn markdown(report: &Report) -> String {
    let mut page = HEAD.to_owned();
    let machine = &report.machine;
    // Writing to a String does not fail.
    let _ = writeln!(
        page,
        "\n{} UTC, {}, {} processors, {}, Linux {}; two hosts made of namespaces, a veth link; {} build; {} repetitions; \
         load average of the minute before: {}.\n",
        machine.when,
        machine.processor,
        machine.processors,
        bytes(machine.memory as f64),
        machine.kernel,
        machine.build,
        report.repetitions,
        machine.load_before,
    );
    page.push_str(&limits(report));
    page.push('\n');
    page.push_str(COLUMNS);
    for measured in &report.measured {
        let _ = writeln!(page, "{}", row(measured, report));
    }
    page.push_str(LEGEND);
    page
}

fn limits(report: &Report) -> String {
    let limits = &report.limits;
    let mut text = String::from("| limit | median | least to most |\n|---|---:|---:|\n");
    let mut line = |name: &str, values: &[f64], show: &dyn Fn(f64) -> String| {
        if let Some(summary) = Summary::of(values.iter().copied()) {
            let range = format!("{} to {}", show(summary.min), show(summary.max));
            let _ = writeln!(text, "| {name} | {} | {range} |", show(summary.median));
        }
    };
    let rate = |value: f64| format!("{}/s", bytes(value));
    let microseconds = |value: f64| format!("{:.1} µs", value * 1e6);
    line("raw TCP stream (cubic, one connection, buffers of 1 MiB) over the same link", &limits.stream, &rate);
    line(
        "the same out of 1 GiB of memory into 1 GiB of memory made beforehand, none of it in a cache",
        &limits.carry,
        &rate,
    );
    line("request of 4 KiB and answer of 4 KiB over the same link", &limits.request, &microseconds);
    line("copy in memory (256 MiB, one thread)", &limits.copy, &rate);
    line("one system call injected into a stopped process", &limits.call, &microseconds);
    text
}

fn row(measured: &Measured, report: &Report) -> String {
    let dash = || "–".to_owned();
    let about = measured.case.about;
    if let Some(trouble) = &measured.trouble {
        return format!("| {about} | not measured: {} |", trouble.replace('|', "/"));
    }
    let with_range = |summary: Option<Summary>| {
        summary.map_or_else(dash, |s| format!("{:.1} ({:.1} to {:.1})", s.median, s.min, s.max))
    };
    let alone = |summary: Option<Summary>| summary.map_or_else(dash, |s| format!("{:.1}", s.median));
    let sent = measured.reported("bytes_sent");
    let pages = match (measured.reported("pages_sent"), measured.reported("pages_total")) {
        (Some(sent), Some(total)) => format!("{} of {}", sent.median, total.median),
        _ => dash(),
    };
    let least = sent.and_then(|sent| report.limits.least(sent.median as u64)).map(|seconds| seconds * 1e3);
    let times = match (measured.gap(), least) {
        (Some(gap), Some(least)) => format!("{:.1}", gap.median / least),
        _ => dash(),
    };
    let memory = measured.peak().map_or_else(dash, |peak| {
        let mark = if peak < ENGINE_MEMORY_MAX { "" } else { " (**too much**)" };
        format!("{}{mark}", bytes(peak as f64))
    });
    let (budget, kept) = measured.judged(&report.limits).map_or_else(|| (dash(), dash()), judged);
    format!(
        "| {about} | {} | {} | {} | {} | {} | {pages} | {} | {times} | {memory} | {budget} | {kept} |",
        with_range(measured.gap()),
        alone(measured.reported("down_ms")),
        with_range(measured.reported("total_ms")),
        alone(measured.command()),
        sent.map_or_else(dash, |sent| bytes(sent.median)),
        least.map_or_else(dash, |least| format!("{least:.2}")),
    )
}

fn judged(judged: Judged) -> (String, String) {
    let budget = match judged.budget {
        Budget::Down(most) => format!("down ≤ {most} ms"),
        Budget::Total(most) => format!("total ≤ {most} ms"),
        Budget::PartOfStream(least) => {
            format!("≥ {:.0} % of the raw stream: {:.0} %", least * 100.0, judged.value * 100.0)
        }
    };
    (budget, if judged.kept { "yes" } else { "**no**" }.to_owned())
}

fn bytes(count: f64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{value:.0} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::CASES;
    use crate::limit::Limits;
    use crate::machine::Machine;
    use crate::measurement::Sample;
    use serde_json::json;

    fn report(down_ms: f64) -> Report {
        let case = CASES.iter().find(|case| case.name == "1-gib").expect("it is in the table");
        let reported = json!({ "total_ms": 2.0 * down_ms, "bytes_sent": 1 << 30, "pages_sent": 10, "pages_total": 20 });
        let sample = Sample { gap_ms: down_ms, command_ms: 2.0 * down_ms, reported, peaks: Default::default() };
        let limits = Limits { stream: vec![f64::from(1 << 30)], request: vec![0.0], ..Limits::default() };
        let measured = Measured { case, samples: vec![sample], peaks: Default::default(), trouble: None };
        Report { machine: Machine::default(), repetitions: 1, limits, measured: vec![measured] }
    }

    #[test]
    fn a_budget_stands_beside_its_figure() {
        let page = markdown(&report(1250.0));
        assert!(page.contains("≥ 70 % of the raw stream: 80 % | yes |"), "{page}");
        assert!(page.contains("| 1000.00 | 1.2 |"), "{page}");
        assert!(report(1250.0).is_kept());
    }

    #[test]
    fn a_broken_budget_is_said() {
        assert!(markdown(&report(2000.0)).contains("raw stream: 50 % | **no** |"));
        assert!(!report(2000.0).is_kept());
    }

    #[test]
    fn what_was_not_measured_says_why() {
        let mut report = report(1.0);
        report.measured[0].trouble = Some("refused: it is a | pipe".to_owned());
        assert!(markdown(&report).contains("not measured: refused: it is a / pipe"));
        assert!(!report.is_kept());
    }

    #[test]
    fn every_row_has_every_column() {
        let page = markdown(&report(1.0));
        let rows: Vec<_> =
            page.lines().filter(|line| line.starts_with("| 1 GiB") || line.starts_with("| what")).collect();
        let bars = |line: &&str| line.matches('|').count();
        assert_eq!(rows.iter().map(bars).collect::<Vec<_>>(), [13, 13]);
    }
}
