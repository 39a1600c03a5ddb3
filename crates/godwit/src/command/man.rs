//! `godwit man`, hidden: manual pages out of what the command line knows of itself. `cargo xtask man` keeps docs/man current by it.
use crate::arguments::Arguments;
use crate::output::{CommandResult, failure};
use clap::CommandFactory;
use std::path::Path;
use std::process::ExitCode;

pub(crate) fn run(directory: &Path) -> CommandResult {
    // Pages must not differ by the version or the day on which they are made.
    let command = Arguments::command().disable_help_subcommand(true);
    std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(command, directory))
        .map_err(|error| failure(&directory.display().to_string(), &error))?;
    Ok(ExitCode::SUCCESS)
}
