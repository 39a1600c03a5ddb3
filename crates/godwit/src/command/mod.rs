//! One file per command.
pub(crate) mod bench;
pub(crate) mod check;
pub(crate) mod checkpoint;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod image;
pub(crate) mod migrate;
pub(crate) mod receive;
pub(crate) mod recover;
pub(crate) mod restore;

use crate::arguments::Edges;
use crate::output::usage;
use godwit_engine::capture::Options;
use godwit_image::Refusal;
use godwit_migrate::Observer;
use std::ffi::OsString;

/// The engine's options from the command line's edges.
pub(crate) fn options(edges: &Edges) -> Result<Options, Vec<Refusal>> {
    let mut options = Options::default();
    for text in &edges.edges {
        let Some((number, choice)) = text.split_once('=') else {
            return Err(usage(&format!("--edge {text}"), "expected FD=CHOICE"));
        };
        let number = number
            .trim_start_matches("fd:")
            .parse()
            .map_err(|_| usage(&format!("--edge {text}"), "FD is not a number"))?;
        let choice = godwit_engine::resource::edge::parse(choice).map_err(|refusal| vec![refusal])?;
        options.edges.insert(number, choice);
    }
    Ok(options)
}

/// What tests do at a step of a hand-off: `die:STEP` kills this process there, `pause:STEP` stops it there for good.
pub(crate) fn observer(text: Option<&str>) -> Option<Observer> {
    let (deed, wanted) = text?.split_once(':')?;
    let (deed, wanted) = (deed.to_owned(), wanted.to_owned());
    Some(Box::new(move |step: &str| {
        if step == wanted {
            let own = std::process::id() as i32;
            let signal = if deed == "die" { 9 } else { 19 };
            // A signal to ourselves cannot fail for want of rights; PID 1 is refused, and then nothing happens.
            let _ = godwit_linux::signal::send_to_process(own, signal);
        }
    }))
}

/// The same from the further arguments of a shepherd.
pub(crate) fn shepherd_observer(arguments: &[OsString]) -> Option<Observer> {
    let position = arguments.iter().position(|argument| argument == "--observe")?;
    observer(arguments.get(position + 1)?.to_str())
}
