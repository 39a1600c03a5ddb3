//! `godwit residual` and `godwit settle`: who owes memory to whom after a move, and the end of it.
use crate::arguments::Settle;
use crate::output::{CommandResult, Output, bytes, usage};
use godwit_handoff::Side;
use godwit_migrate::residual::{self, Residual};
use godwit_migrate::run_directory;
use serde_json::json;
use std::process::ExitCode;
use std::time::Duration;

/// How long nothing may come.
const PATIENCE: Duration = Duration::from_secs(60);

fn value(one: &Residual) -> serde_json::Value {
    json!({
        "migration": one.migration.to_string(), "side": one.side.to_string(), "pid": one.root, "processes": one.members.len(),
        "peer": one.peer, "bytes": one.bytes, "engine": one.engine,
    })
}

fn sentence(one: &Residual) -> String {
    let left = one.bytes.map_or_else(|| "an unknown amount".to_owned(), bytes);
    let engine = if one.engine.is_some() { "" } else { "; nobody serves it: godwit recover" };
    match one.side {
        Side::Source => format!("{}: owes {left} of process {} to {}{engine}", one.migration, one.root, one.peer),
        Side::Destination => format!("{}: process {} is owed {left} by {}{engine}", one.migration, one.root, one.peer),
    }
}

pub(crate) fn show(output: &Output) -> CommandResult {
    let found = residual::residual(&run_directory());
    output.object(&json!({ "residual": found.iter().map(value).collect::<Vec<_>>() }));
    for one in &found {
        output.line(&sentence(one));
    }
    if found.is_empty() {
        output.line("nobody owes anything");
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn settle(arguments: &Settle, output: &Output) -> CommandResult {
    let directory = run_directory();
    let is_meant = |one: &Residual| match &arguments.which {
        Some(text) => {
            one.migration.to_string() == *text
                || text.parse().is_ok_and(|pid: i32| one.root == pid || one.members.contains(&pid))
        }
        None => one.side == Side::Destination,
    };
    let found: Vec<Residual> = residual::residual(&directory).into_iter().filter(is_meant).collect();
    if let Some(text) = arguments.which.as_ref().filter(|_| found.is_empty()) {
        return Err(usage(text, "no process of this number, and no migration, is owed anything here"));
    }
    for one in &found {
        residual::settle(&directory, one, PATIENCE).map_err(|refusal| vec![refusal])?;
        output.line(&format!("{}: process {} depends on {} no more", one.migration, one.root, one.peer));
    }
    if found.is_empty() {
        output.line("nobody owes anything");
    }
    output.object(&json!({ "outcome": "settled", "migrations": found.iter().map(value).collect::<Vec<_>>() }));
    Ok(ExitCode::SUCCESS)
}
