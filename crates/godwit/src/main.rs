//! The command line: parse, call, render.

use std::process::ExitCode;

fn main() -> ExitCode {
    eprintln!("godwit: there is no command yet");
    ExitCode::from(2)
}
