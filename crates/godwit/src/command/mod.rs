//! One file per command.
pub(crate) mod bench;
mod bench_memory;
mod bench_strategies;
pub(crate) mod check;
pub(crate) mod checkpoint;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod explain;
mod forecast;
pub(crate) mod image;
pub(crate) mod man;
pub(crate) mod migrate;
pub(crate) mod pages;
pub(crate) mod receive;
pub(crate) mod recover;
pub(crate) mod residual;
pub(crate) mod restore;
pub(crate) mod strategies;

use crate::arguments::Edges;
use crate::output::usage;
use godwit_engine::capture::{Decision, Options};
use godwit_image::Refusal;
use godwit_migrate::Observer;
use std::ffi::OsString;

/// The engine's options from the command line's edges.
pub(crate) fn options(edges: &Edges) -> Result<Options, Vec<Refusal>> {
    let mut options = Options::default();
    for text in &edges.edges {
        let wrong = |cause: &str| usage(&format!("--edge {text}"), cause);
        let Some((name, choice)) = text.split_once('=') else { return Err(wrong("expected [PID:]FD=CHOICE")) };
        let number = |text: &str| text.parse::<i32>().ok().filter(|number| *number >= 0);
        let (pid, descriptor) = match name.trim_start_matches("fd:").split_once(':') {
            Some((pid, descriptor)) => {
                let pid = number(pid).filter(|pid| *pid > 0).ok_or_else(|| wrong("PID is not a process number"))?;
                (Some(pid), descriptor)
            }
            None => (None, name.trim_start_matches("fd:")),
        };
        let descriptor = number(descriptor).ok_or_else(|| wrong("FD is not a descriptor number"))?;
        let choice = godwit_engine::resource::edge::parse(choice).map_err(|refusal| vec![refusal])?;
        options.edges.push(Decision { pid, descriptor, choice });
    }
    Ok(options)
}

/// What tests do at a step of a hand-off: `die:STEP` kills this process there, `pause:STEP` stops it there for good, `list:PATH`
/// appends the name of every step to a file, `time:PATH` with the clock's ns before it.
pub(crate) fn observer(text: Option<&str>) -> Option<Observer> {
    use std::io::Write;
    let (deed, wanted) = text?.split_once(':')?;
    let (deed, wanted) = (deed.to_owned(), wanted.to_owned());
    let mut kept = None;
    Some(Box::new(move |step: &str| {
        let own = std::process::id() as i32;
        match deed.as_str() {
            "list" => {
                let file = std::fs::File::options().append(true).create(true).open(&wanted);
                // A list that cannot be written is empty, which its reader notices.
                let _ = file.and_then(|mut file| writeln!(file, "{step}"));
            }
            "time" => {
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                let open = || std::fs::File::options().append(true).create(true).open(&wanted).ok();
                // Opened once: what is timed is not to be slowed down.
                if kept.is_none() {
                    kept = open();
                }
                let _ = kept.as_mut().map(|file| writeln!(file, "{} {step}", now.as_nanos()));
            }
            // A signal to ourselves cannot fail for want of rights; PID 1 is refused, and then nothing happens.
            "die" if step == wanted => drop(godwit_linux::signal::send_to_process(own, 9)),
            "pause" if step == wanted => drop(godwit_linux::signal::send_to_process(own, 19)),
            _ => {}
        }
    }))
}

/// The same from the further arguments of a shepherd.
pub(crate) fn shepherd_observer(arguments: &[OsString]) -> Option<Observer> {
    let position = arguments.iter().position(|argument| argument == "--observe")?;
    observer(arguments.get(position + 1)?.to_str())
}
