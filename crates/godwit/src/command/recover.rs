//! `godwit recover`: settles what an engine that was killed left behind.
use crate::arguments::Recover;
use crate::output::{CommandResult, Output, usage};
use godwit_handoff::Settlement;
use godwit_migrate::{parse_migration, pending, recover, run_directory};
use serde_json::json;
use std::process::ExitCode;

pub(crate) fn run(arguments: &Recover, output: &Output) -> CommandResult {
    let directory = run_directory();
    let all = pending(&directory);
    let (wanted, decision) = match (&arguments.resume, &arguments.discard) {
        (Some(text), _) => (Some(text), Some(Settlement::Resume)),
        (None, Some(text)) => (Some(text), Some(Settlement::Kill)),
        (None, None) => (None, None),
    };
    let wanted = match wanted {
        Some(text) => Some(parse_migration(text).ok_or_else(|| usage(text, "not the number of a migration"))?),
        None => None,
    };
    let mut refusals = Vec::new();
    let mut settled = Vec::new();
    for pending in all.iter().filter(|pending| wanted.is_none_or(|wanted| pending.migration == wanted)) {
        let name = format!(
            "migration {} ({} side, process {}, with {})",
            pending.migration, pending.side, pending.root, pending.peer
        );
        match recover(&directory, pending, decision) {
            Ok(outcome) => {
                output.line(&format!("{name}: {outcome:?}"));
                settled.push(json!({ "migration": pending.migration.to_string(), "outcome": format!("{outcome:?}") }));
            }
            Err(mut found) => {
                output.note(&format!("{name}: not settled"));
                refusals.append(&mut found);
            }
        }
    }
    if !refusals.is_empty() {
        return Err(refusals);
    }
    if let Some(wanted) = wanted.filter(|_| settled.is_empty()) {
        return Err(usage(&wanted.to_string(), "no such migration waits to be settled"));
    }
    if settled.is_empty() {
        output.line("nothing to recover");
    }
    output.object(&json!({ "outcome": "settled", "migrations": settled }));
    Ok(ExitCode::SUCCESS)
}

/// Says on standard error that there is something to recover, if there is.
pub(crate) fn remind(output: &Output) {
    let all = pending(&run_directory());
    if !all.is_empty() {
        output.note(&format!("godwit: {} migrations wait to be settled: godwit recover", all.len()));
    }
}
