//! `godwit bench strategies`: every strategy under the same conditions.
use super::bench::{failed, write};
use crate::arguments::BenchStrategies;
use crate::output::{CommandResult, Output, usage};
use godwit_bench::strategies::{self, Evaluation, Plan};
use godwit_bench::{Error, strategies::page, strategies::run::not_data};
use godwit_image::Refusal;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

pub(crate) fn run(arguments: &BenchStrategies, output: &Output) -> CommandResult {
    let refused = |error: Error| match error {
        Error::UnknownCase { .. } => usage("bench strategies", error.to_string()),
        error => failed("the benches", &error),
    };
    let mut known = arguments.data.as_deref().map_or(Ok(Evaluation::default()), read).map_err(refused)?;
    if !arguments.page_only {
        let plan = Plan {
            cases: arguments.cases.clone(),
            links: arguments.links.clone(),
            strategies: arguments.strategy.clone(),
            repetitions: arguments.repetitions.max(1),
            longest: Duration::from_secs(arguments.longest),
            at_most: arguments.at_most.map(Duration::from_secs),
            godwit: std::env::current_exe().map_err(|error| failed("this program's file", &error))?,
        };
        let mut keep = |known: &Evaluation| arguments.data.as_deref().map_or(Ok(()), |path| keep(path, known));
        strategies::run(&plan, &mut known, &mut keep, &mut |text| output.note(text)).map_err(refused)?;
    }
    let directory = arguments.markdown.as_deref().map(|path| path.with_extension(""));
    let name =
        directory.as_deref().and_then(Path::file_name).map_or_else(String::new, |name| name.to_string_lossy().into());
    let (text, drawings) = page::page(&known, &name);
    if let (Some(path), Some(directory)) = (&arguments.markdown, &directory) {
        std::fs::create_dir_all(directory).map_err(|error| failed(&directory.display().to_string(), &error))?;
        write(path, &text)?;
        drawings
            .iter()
            .try_for_each(|drawing| write(&directory.join(format!("{}.svg", drawing.name)), &drawing.svg))?;
    }
    output.object(&serde_json::to_value(&known).map_err(|error| -> Vec<Refusal> { failed("the data", &error) })?);
    output.line(&text);
    Ok(ExitCode::SUCCESS)
}

/// What an earlier run has left; nothing where there was none.
fn read(path: &Path) -> Result<Evaluation, Error> {
    match std::fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| not_data(&path.display().to_string(), &error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Evaluation::default()),
        Err(cause) => Err(Error::Step { doing: format!("read {}", path.display()), cause }),
    }
}

/// Written aside and renamed: a run that is ended leaves what was there.
fn keep(path: &Path, known: &Evaluation) -> Result<(), Error> {
    let failed = |cause| Error::Step { doing: format!("write {}", path.display()), cause };
    let text = serde_json::to_string(known).map_err(|error| not_data(&path.display().to_string(), &error))?;
    let aside = path.with_extension("new");
    std::fs::write(&aside, text).and_then(|()| std::fs::rename(&aside, path)).map_err(failed)
}
