//! One file per command.
pub(crate) mod check;
pub(crate) mod checkpoint;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod image;
pub(crate) mod restore;

use crate::arguments::Edges;
use crate::output::usage;
use godwit_engine::capture::Options;
use godwit_image::Refusal;

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
