//! `godwit migrate`: a running tree to another host.
use crate::arguments::Migrate;
use crate::output::{CommandResult, Output, bytes, counted, processes, refusal_value};
use godwit_image::{Code, Refusal, Subject};
use godwit_migrate::source::{self, Options};
use godwit_migrate::{Progress, Report};
use godwit_strategy::{Enough, Knobs};
use std::process::ExitCode;

pub(crate) fn run(arguments: &Migrate, output: &Output) -> CommandResult {
    let failed = |error: std::io::Error| crate::output::failure("cancellation", &error);
    let options = Options {
        capture: super::options(&arguments.edges)?,
        strategy: arguments.strategy.clone(),
        objective: arguments.objective,
        knobs: Knobs { rounds: arguments.rounds, enough: limit(arguments)? },
        pages: arguments.pages.clone(),
        unused_processor_flags: arguments.processor.unused(),
        remote_program: arguments.remote_program.clone(),
        cancel: Some(godwit_migrate::cancellation().map_err(failed)?),
        bandwidth: arguments.bwlimit,
        compression: arguments.compression,
        page_checksums: arguments.page_checksums,
        observer: super::observer(arguments.observe.as_deref()),
        ..Options::default()
    };
    let mut bar = output.progress("migrate");
    let mut progress = |progress: &Progress| bar.update(progress.bytes_done, progress.bytes_total);
    let moved = source::migrate(arguments.pid, &arguments.destination, options, &mut progress);
    bar.finish();
    let report = moved?;
    let mut value = serde_json::to_value(&report).unwrap_or_default();
    for (name, refusals) in [("changes", &report.changes), ("troubles", &report.troubles)] {
        value[name] = refusals.iter().map(refusal_value).collect();
    }
    output.object(&value);
    show(&report, output);
    Ok(ExitCode::SUCCESS)
}

/// How little may be left, as the user says it.
fn limit(arguments: &Migrate) -> Result<Option<Enough>, Vec<Refusal>> {
    if arguments.max_downtime.is_some_and(|time| time.nanoseconds == 0) {
        let subject = Subject::Object("--max-downtime".to_owned());
        return Err(vec![Refusal::new(Code::USAGE, subject, "it is a time, such as 10ms")]);
    }
    Ok(arguments.max_downtime.or(arguments.limit))
}

fn show(report: &Report, output: &Output) {
    output.line(&format!(
        "moved to {}: process {}, {}, {}, strategy {}",
        report.destination,
        report.destination_pid,
        processes(report.processes),
        counted(report.threads, "thread", "threads"),
        report.strategy
    ));
    if !report.chosen.is_empty() {
        output.line(&format!("  chosen {}", report.chosen));
    }
    let rounds = if report.rounds > 1 { format!(", {} rounds", report.rounds) } else { String::new() };
    output.line(&format!("  preparation time  {:9.3} ms{rounds}", report.preparation_ms));
    output.line(&format!("  down time         {:9.3} ms", report.down_ms));
    output.line(&format!("  post-processing   {:9.3} ms", report.post_ms));
    output.line(&format!("  total             {:9.3} ms", report.total_ms));
    output.line(&format!(
        "  {} pages, {} sent, {} over the link",
        report.pages_total,
        report.pages_sent,
        bytes(report.bytes_sent)
    ));
    for change in &report.changes {
        output.note(&format!("  {change}"));
    }
    for trouble in &report.troubles {
        output.note(&format!("  still to be cleared away (godwit recover): {trouble}"));
    }
}
