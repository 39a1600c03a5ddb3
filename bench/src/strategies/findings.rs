//! What the figures say, beside what M. Noack's thesis (Dresden 2003) found for the same algorithms in a kernel. Every sentence with
//! a number is made of the data; none is written where there is no data for it.
use super::link::LINKS;
use super::record::{Evaluation, Figures};
use super::regret::regrets;
use super::table::{bytes, milliseconds};
use super::workload::Workload;
use std::fmt::Write;

/// The ways of the thesis, whose idea this comparison is.
const BEGINNING: &str = "\
The comparison is that of M. Noack's thesis (Dresden 2003), which built total-copy, pre-copy, queued-pre-copy, post-copy and
assisted-post-copy into a Linux kernel and moved a loop of getpid, RMA (4 MiB written at random) and a reference process of 100 KB.
Of its figures only one is at hand here: the light process was down for 0.8 to 2.6 ms. What is set beside it below are the findings
for which the algorithms are known, not its tables.
";

fn of(evaluation: &Evaluation, workload: &str, link: &str, strategy: &str, figure: fn(&Figures) -> f64) -> Option<f64> {
    evaluation.cell(workload, link, strategy).and_then(|cell| cell.median(figure))
}

fn about(workload: &str) -> &'static str {
    Workload::named(workload).map_or("?", |known| known.about)
}

/// The whole section.
#[must_use]
pub fn text(evaluation: &Evaluation) -> String {
    let mut text = BEGINNING.to_owned();
    text.push('\n');
    for sentence in
        [light(evaluation), post_copy(evaluation), pre_copy(evaluation), queue(evaluation), late(evaluation)]
            .into_iter()
            .flatten()
    {
        // Writing to a String does not fail.
        let _ = writeln!(text, "* {sentence}");
    }
    let _ = write!(text, "\n### auto\n\n{}", auto(evaluation));
    text
}

fn light(evaluation: &Evaluation) -> Option<String> {
    let gap = |strategy: &str| of(evaluation, "getpid", "unshaped", strategy, |figures| figures.gap_ms);
    let all: Vec<f64> =
        evaluation.cells.iter().filter_map(|cell| gap(&cell.strategy)).filter(|gap| *gap > 0.0).collect();
    let (least, most) = (all.iter().copied().reduce(f64::min)?, all.iter().copied().reduce(f64::max)?);
    Some(format!(
        "The light process is down for {least:.1} to {most:.1} ms over the unshaped link, by the best and by the worst strategy (the \
         thesis: 0.8 to 2.6 ms in a kernel)."
    ))
}

/// Down time does not follow memory.
fn post_copy(evaluation: &Evaluation) -> Option<String> {
    let link = LINKS
        .iter()
        .find(|link| of(evaluation, "256-mib", link.name, "total-copy", |figures| figures.gap_ms).is_some())?;
    let gap = |strategy: &str| of(evaluation, "256-mib", link.name, strategy, |figures| figures.gap_ms);
    let (total, post) = (gap("total-copy")?, gap("post-copy")?);
    let whole = of(evaluation, "256-mib", link.name, "post-copy", |figures| figures.total_ms)?;
    let whole_of_total = of(evaluation, "256-mib", link.name, "total-copy", |figures| figures.total_ms)?;
    let small = of(evaluation, "4-mib", link.name, "post-copy", |figures| figures.gap_ms);
    let follows = small.filter(|small| *small > 0.0).map_or_else(String::new, |small| {
        format!(" It is down {:.1} times as long as 4 MiB, for 64 times the memory.", post / small)
    });
    Some(format!(
        "The thesis: post-copy's down time does not follow memory. Here {} over {} is down for {} instead of {} by total-copy ({:.1} \
         times), in {} instead of {} in all.{follows}",
        about("256-mib"),
        link.about,
        milliseconds(post),
        milliseconds(total),
        total / post,
        milliseconds(whole),
        milliseconds(whole_of_total)
    ))
}

/// Pre-copy sends again what is written faster than the link carries.
fn pre_copy(evaluation: &Evaluation) -> Option<String> {
    let link = LINKS
        .iter()
        .find(|link| of(evaluation, "rma-4-mib", link.name, "pre-copy", |figures| figures.gap_ms).is_some())?;
    let figure = |strategy: &str, figure: fn(&Figures) -> f64| of(evaluation, "rma-4-mib", link.name, strategy, figure);
    let (gap, total) = (figure("pre-copy", |figures| figures.gap_ms)?, figure("total-copy", |figures| figures.gap_ms)?);
    let (sent, once) = (figure("pre-copy", |figures| figures.bytes)?, figure("total-copy", |figures| figures.bytes)?);
    Some(format!(
        "The thesis: pre-copy gains nothing where pages are written faster than the link carries them, its reason for algorithms that \
         send no page more than twice. Here RMA over {} is down for {} ({} by total-copy) after {} over the link instead of {}.",
        link.about,
        milliseconds(gap),
        milliseconds(total),
        bytes(sent),
        bytes(once)
    ))
}

/// What waits in the queue is not sent in vain.
fn queue(evaluation: &Evaluation) -> Option<String> {
    let link = LINKS
        .iter()
        .find(|link| of(evaluation, "rma-4-mib", link.name, "queued-pre-copy", |figures| figures.gap_ms).is_some())?;
    let sent = |strategy: &str| of(evaluation, "rma-4-mib", link.name, strategy, |figures| figures.transfers);
    let (queued, plain, pages) = (
        sent("queued-pre-copy")?,
        sent("pre-copy")?,
        of(evaluation, "rma-4-mib", link.name, "queued-pre-copy", |figures| figures.pages_total)?,
    );
    Some(format!(
        "The queue of queued-pre-copy is there to send less in vain: RMA over {} transfers {:.1} pages for each that it has, by plain \
         pre-copy {:.1}.",
        link.about,
        queued / pages,
        plain / pages
    ))
}

/// Down time is not what a process loses.
fn late(evaluation: &Evaluation) -> Option<String> {
    let link = LINKS
        .iter()
        .find(|link| of(evaluation, "rma-4-mib", link.name, "post-copy", |figures| figures.delay_ms).is_some())?;
    let delay = |strategy: &str| of(evaluation, "rma-4-mib", link.name, strategy, |figures| figures.delay_ms);
    let (post, total) = (delay("post-copy")?, delay("total-copy")?);
    let gap = of(evaluation, "rma-4-mib", link.name, "post-copy", |figures| figures.down_ms)?;
    Some(format!(
        "Down time is not all that a process loses: RMA, which needs all of its pages at once, is by post-copy over {} down for {} and \
         late by {} ({} by total-copy).",
        link.about,
        milliseconds(gap),
        milliseconds(post),
        milliseconds(total)
    ))
}

/// What auto would have chosen, and what that would have cost.
fn auto(evaluation: &Evaluation) -> String {
    let mut text = "\
Before each cell was measured, `godwit check --watch` looked at the process for a tenth of a second and at the link, and said what auto would
take. What that strategy cost here is held against the best of the cell; the second sum is what one strategy would have cost that is always
taken. The time of looking itself is not in the sums. What a sample cannot know: which pages a process will read, and how the
processors of both sides are shared.

| objective | cells | well chosen | choices cost | the best cost | regret | the best single strategy | the worst choice |
|---|---:|---:|---:|---:|---:|---|---|
"
    .to_owned();
    for (name, regret) in regrets(evaluation) {
        let single = regret.always.iter().min_by(|one, other| one.1.total_cmp(other.1));
        let single =
            single.map_or_else(|| "–".to_owned(), |(strategy, cost)| format!("{strategy}, {}", milliseconds(*cost)));
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} | {} | {:.1} % | {single} | {} |",
            regret.cells,
            regret.good,
            milliseconds(regret.chosen_ms),
            milliseconds(regret.best_ms),
            regret.part() * 100.0,
            if regret.worst.is_empty() { "–" } else { &regret.worst },
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_said_of_what_was_not_measured() {
        let text = text(&Evaluation::default());
        assert!(!text.contains("\n* ") && text.contains("| downtime | 0 |"), "{text}");
    }

    #[test]
    fn numbers_are_those_of_the_data() {
        let mut evaluation = Evaluation::default();
        for (strategy, gap_ms) in [("total-copy", 2000.0), ("post-copy", 10.0)] {
            let figures = Figures { gap_ms, total_ms: 2100.0, ..Figures::default() };
            evaluation.cell_to_fill("256-mib", "1000", strategy).samples.push(figures);
        }
        let text = text(&evaluation);
        assert!(text.contains("is down for 10.0 ms instead of 2000 ms by total-copy (200.0 times)"), "{text}");
    }
}
