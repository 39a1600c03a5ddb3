//! `godwit bench memory`: what godwit itself needs of memory while it moves something large.
use super::bench::failed;
use crate::arguments::BenchMemory;
use crate::output::{CommandResult, Output, usage};
use godwit_bench::Error;
use godwit_bench::strategies::own_memory;
use serde_json::json;
use std::process::ExitCode;

pub(crate) fn run(arguments: &BenchMemory, output: &Output) -> CommandResult {
    let godwit = std::env::current_exe().map_err(|error| failed("this program's file", &error))?;
    let all = own_memory::run(&godwit, &arguments.cases, &arguments.strategy, &mut |text| output.note(text));
    let all = all.map_err(|error| match error {
        Error::UnknownCase { .. } => usage("bench memory", error.to_string()),
        error => failed("the benches", &error),
    })?;
    for needed in &all {
        output.line(&own_memory::line(needed));
    }
    let moves = all.iter().map(|needed| {
        json!({
            "workload": needed.workload.name,
            "strategy": needed.strategy,
            "together": needed.peaks.as_ref().ok().map(|peaks| peaks.together),
            "processes": needed.peaks.as_ref().ok().map(|peaks| &peaks.processes),
            "trouble": needed.peaks.as_ref().err(),
            "bounded": needed.is_bounded(),
        })
    });
    output.object(&json!({ "moves": moves.collect::<Vec<_>>() }));
    let bounded = all.iter().filter(|needed| needed.is_bounded()).count();
    output.line(&format!("{bounded} passed, {} failed, 0 skipped", all.len() - bounded));
    Ok(if bounded == all.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
