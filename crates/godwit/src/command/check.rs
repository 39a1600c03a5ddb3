//! `godwit check`: the verdict about every object of a running tree.
use crate::arguments::Check;
use crate::output::{CommandResult, Output, bytes, counted, processes, refusal_value};
use godwit_engine::check::{self, Examination, Finding};
use godwit_image::{Code, Refusal, Verdict};
use godwit_linux::features;
use godwit_migrate::forecast::{self, Watch};
use godwit_migrate::source::{self, Options};
use serde_json::{Value, json};
use std::process::ExitCode;

fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Carried => "carried",
        Verdict::Recreated(_) => "re-created",
        Verdict::Degraded(_) => "degraded",
        Verdict::Blocks(_) => "blocks",
        Verdict::Undecided(_) => "undecided",
    }
}

fn value(finding: &Finding) -> Value {
    let mut value = json!({
        "subject": finding.subject.to_string(),
        "kind": finding.kind,
        "verdict": word(&finding.verdict),
    });
    match &finding.verdict {
        Verdict::Carried => {}
        Verdict::Recreated(reason) | Verdict::Degraded(reason) | Verdict::Undecided(reason) => {
            value["reason"] = json!(reason)
        }
        Verdict::Blocks(refusal) => value["refusal"] = refusal_value(refusal),
    }
    value
}

/// What a destination says beforehand.
#[derive(Default)]
struct Said {
    /// Why it would not take the tree.
    refusals: Vec<Refusal>,
    /// What would not be quite as it was there.
    changes: Vec<Refusal>,
}

/// Asks a destination whether it would take the tree: a hand-off that ends before the freeze. An error when it cannot be asked.
fn ask(arguments: &Check, destination: &str, examination: &Examination) -> Result<Said, Vec<Refusal>> {
    let options = Options {
        capture: super::options(&arguments.edges)?,
        examination: Some(examination.clone()),
        unused_processor_flags: arguments.processor.unused(),
        dry_run: true,
        ..Options::default()
    };
    match source::migrate(arguments.pid, destination, options, &mut |_| {}) {
        Ok(report) => Ok(Said { changes: report.changes, ..Said::default() }),
        Err(refusals) if refusals.iter().any(|refusal| matches!(refusal.code, Code::LINK_LOST | Code::USAGE)) => {
            Err(refusals)
        }
        Err(refusals) => Ok(Said { refusals, ..Said::default() }),
    }
}

/// One finding, for people.
fn show(finding: &Finding, all: bool, output: &Output) {
    match &finding.verdict {
        Verdict::Carried if !all => {}
        Verdict::Carried => output.line(&format!("carried     {} [{}]", finding.subject, finding.kind)),
        Verdict::Recreated(reason) => {
            output.line(&format!("re-created  {} [{}]: {reason}", finding.subject, finding.kind))
        }
        Verdict::Degraded(reason) => {
            output.line(&format!("degraded    {} [{}]: {reason}", finding.subject, finding.kind))
        }
        Verdict::Undecided(reason) => {
            output.line(&format!("undecided   {} [{}]: {reason}", finding.subject, finding.kind))
        }
        Verdict::Blocks(refusal) => {
            output.line(&format!(
                "blocks      {} [{}]: {} ({})",
                finding.subject, finding.kind, refusal.cause, refusal.code
            ));
            for choice in &refusal.choices {
                output.line(&format!("            you can: {choice}"));
            }
        }
    }
}

pub(crate) fn run(arguments: &Check, output: &Output) -> CommandResult {
    let options = super::options(&arguments.edges)?;
    let features = features::OnDemand::default();
    let has = |feature| features.has(feature);
    let examination = check::examine(arguments.pid, &options, &has).map_err(|refusal| vec![refusal])?;
    let Said { refusals: elsewhere, changes } = match (&arguments.to, examination.findings.iter().any(Finding::blocks))
    {
        (Some(destination), false) => ask(arguments, destination, &examination)?,
        _ => Said::default(),
    };
    let blocked = examination.findings.iter().filter(|finding| finding.blocks()).count();
    let watch = if arguments.watch { Watch::Writes } else { Watch::Nothing };
    let foreseen = match &arguments.to {
        Some(destination) if blocked + elsewhere.len() == 0 => {
            Some(forecast::forecast(arguments.pid, destination, &Options::default(), watch))
        }
        _ => None,
    };
    output.object(&json!({
        "pid": arguments.pid,
        "processes": examination.pids,
        "memory_bytes": examination.demand.memory_bytes,
        "findings": examination.findings.iter().map(value).collect::<Vec<_>>(),
        "destination": elsewhere.iter().map(refusal_value).collect::<Vec<_>>(),
        "destination_changes": changes.iter().map(refusal_value).collect::<Vec<_>>(),
        "blocked": blocked + elsewhere.len(),
        "forecast": super::forecast::value(foreseen.as_ref()),
        "outcome": if blocked + elsewhere.len() == 0 { "would go through" } else { "would be refused" },
    }));
    examination.findings.iter().for_each(|finding| show(finding, arguments.all, output));
    for change in &changes {
        output.line(&format!("degraded    at the destination: {}: {}", change.subject, change.cause));
    }
    for refusal in &elsewhere {
        output.line(&format!("blocks      at the destination: {refusal}"));
    }
    if let Some(foreseen) = &foreseen {
        super::forecast::show(foreseen, output);
    }
    let blocked = blocked + elsewhere.len();
    output.line(&format!(
        "{}, {}, at most {} of memory to move: a migration would {}",
        processes(examination.pids.len() as u64),
        counted(examination.findings.len() as u64, "object", "objects"),
        bytes(examination.demand.memory_bytes),
        if blocked == 0 {
            "go through".to_owned()
        } else {
            format!("be refused: {}", counted(blocked as u64, "object blocks it", "objects block it"))
        },
    ));
    Ok(if blocked == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
