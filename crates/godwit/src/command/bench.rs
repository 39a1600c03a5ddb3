//! `godwit bench`: what moves cost on this machine, each beside the limit that was measured in the same run.
use crate::arguments::{Bench, BenchCommand};
use crate::output::{CommandResult, Output, usage};
use godwit_bench::{Error, Plan, table};
use godwit_image::{Code, Refusal, Subject};
use std::path::Path;
use std::process::ExitCode;

pub(crate) fn run(arguments: &Bench, output: &Output) -> CommandResult {
    match &arguments.command {
        Some(BenchCommand::Strategies(arguments)) => return super::bench_strategies::run(arguments, output),
        Some(BenchCommand::Memory(arguments)) => return super::bench_memory::run(arguments, output),
        None => {}
    }
    let godwit = std::env::current_exe().map_err(|error| failed("this program's file", &error))?;
    let (only, timelines) = (arguments.only.clone(), arguments.timelines.clone());
    let plan = Plan { only, repetitions: arguments.repetitions.max(1), godwit, timelines };
    let report = godwit_bench::run(&plan, &mut |text| output.note(text)).map_err(|error| match error {
        Error::UnknownCase { .. } => usage("--only", error.to_string()),
        error => failed("the benches", &error),
    })?;
    let page = table::markdown(&report);
    let value = report.to_json();
    if let Some(path) = &arguments.markdown {
        write(path, &page)?;
    }
    if let Some(path) = &arguments.report {
        write(path, &format!("{value:#}\n"))?;
    }
    output.object(&value);
    output.line(&page);
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn failed(what: &str, cause: &impl std::fmt::Display) -> Vec<Refusal> {
    vec![Refusal::new(Code::ENVIRONMENT, Subject::Object(what.to_owned()), cause.to_string())]
}

pub(crate) fn write(path: &Path, text: &str) -> Result<(), Vec<Refusal>> {
    std::fs::write(path, text).map_err(|error| {
        vec![Refusal::new(Code::STORAGE, Subject::Path(path.display().to_string()), error.to_string())]
    })
}
