//! The command line: parse, call, render. No logic that a library user would miss.
mod arguments;
mod command;
mod output;

use arguments::{Arguments, Command, ImageCommand};
use std::process::ExitCode;

fn main() -> ExitCode {
    // Hosts made of namespaces enter themselves through this same binary.
    godwit_testbed::entry();
    // So do shepherds and guardians, each a process of its own.
    godwit_migrate::entry(command::shepherd_observer);
    let words: Vec<_> = std::env::args_os().collect();
    let arguments = match Arguments::understand(&words) {
        Ok(arguments) => arguments,
        Err(error) => return output::misunderstood(&error),
    };
    let output = output::Output::new(arguments.json, arguments.quiet);
    if !matches!(arguments.command, Command::Recover(_)) {
        command::recover::remind(&output);
    }
    let result = match arguments.command {
        Command::Check(check) => command::check::run(&check, &output),
        Command::Migrate(migrate) => command::migrate::run(&migrate, &output),
        Command::Receive(receive) => command::receive::run(&receive, &output),
        Command::Pages(pages) => command::pages::run(&pages, &output),
        Command::Recover(recover) => command::recover::run(&recover, &output),
        Command::Residual => command::residual::show(&output),
        Command::Settle(settle) => command::residual::settle(&settle, &output),
        Command::Checkpoint(checkpoint) => command::checkpoint::run(&checkpoint, &output),
        Command::Restore(restore) => command::restore::run(&restore, &output),
        Command::Image { command: ImageCommand::Show { directory, map } } => {
            command::image::show(&directory, map, &output)
        }
        Command::Image { command: ImageCommand::Verify { directory } } => command::image::verify(&directory, &output),
        Command::Demo(demo) => command::demo::run(&demo, &output),
        Command::Bench(bench) => command::bench::run(&bench, &output),
        Command::Man { directory } => command::man::run(&directory),
        Command::Doctor => command::doctor::run(&output),
        Command::Strategies => command::strategies::run(&output),
        Command::Explain { code } => command::explain::run(code.as_deref(), &output),
    };
    match result {
        Ok(code) => code,
        Err(refusals) => output.refusals(&refusals),
    }
}
