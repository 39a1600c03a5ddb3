//! `godwit bench memory`: what godwit itself needs of memory, on both hosts, while it moves a process that is much larger.
use super::cell::{Attempt, begin, measure_begun};
use super::run::needs;
use super::workload::Workload;
use crate::case::ENGINE_MEMORY_MAX;
use crate::error::{Doing, Error};
use crate::measurement::{PATIENCE, Place};
use crate::memory_peak::{Peaks, Watch};
use crate::program::Programs;
use crate::run::{FIRST_NUMBER, Scratch};
use godwit_strategy::{Row, parse};
use godwit_testbed::{Options, Pair};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// What is moved where nothing else is wanted.
const CASES: [&str; 2] = ["4-gib", "4-gib-1"];
/// How, where nothing else is wanted.
const STRATEGIES: [&str; 4] = ["total-copy", "pre-copy", "post-copy", "assisted-post-copy"];

/// What one move needed.
#[derive(Clone, Debug)]
pub struct Needed {
    /// What was moved.
    pub workload: &'static Workload,
    /// By which strategy.
    pub strategy: String,
    /// What godwit's processes had at most, or why there was no move.
    pub peaks: Result<Peaks, String>,
}

impl Needed {
    /// Whether it stays within what godwit may have, whatever is moved.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        self.peaks.as_ref().is_ok_and(|peaks| peaks.together > 0 && peaks.together <= ENGINE_MEMORY_MAX)
    }
}

/// Moves each of `cases` (the largest where there is none) by each of `strategies`; `note` is told what goes on, for people.
///
/// # Errors
/// This machine cannot have hosts or compile programs; a name that nothing has. A move that fails is in the answer.
pub fn run(
    godwit: &Path,
    cases: &[String],
    strategies: &[String],
    note: &mut dyn FnMut(&str),
) -> Result<Vec<Needed>, Error> {
    let named = |given: &[String], usual: &[&str]| -> Vec<String> {
        if given.is_empty() { usual.iter().map(|name| (*name).to_owned()).collect() } else { given.to_vec() }
    };
    let unknown = |name: &str| {
        let known = super::workload::WORKLOADS.iter().map(|workload| workload.name).collect::<Vec<_>>().join(", ");
        Error::UnknownCase { name: name.to_owned(), known }
    };
    let workloads = named(cases, &CASES);
    let workloads = workloads.iter().map(|name| Workload::named(name).ok_or_else(|| unknown(name)));
    let workloads = workloads.collect::<Result<Vec<_>, _>>()?;
    let rows = named(strategies, &STRATEGIES);
    let rows = rows.iter().map(|name| parse(name).map_err(|error| Error::Refused(error.to_string())));
    let rows = rows.collect::<Result<Vec<Row>, _>>()?;
    let scratch = Scratch(PathBuf::from(format!("/var/tmp/godwit-memory-{}", std::process::id())));
    std::fs::create_dir_all(&scratch.0).doing(format!("make {}", scratch.0.display()))?;
    let programs = Programs::new(&scratch.0)?;
    let pair = Pair::new(&Options {
        executable: Some(godwit.to_owned()),
        shared: vec![scratch.0.clone()],
        // So that a moved process finds its own number free.
        first_ids: Some([FIRST_NUMBER, 2]),
        ..Options::default()
    })?;
    let place = Place { pair: &pair, godwit, programs: &programs, directory: &scratch.0, timelines: None };
    let mut all = Vec::new();
    for workload in workloads {
        for row in &rows {
            let needed = Needed {
                workload,
                strategy: row.name.to_string(),
                peaks: watched(&place, workload, row, all.len() as u16 + 1)?,
            };
            note(&line(&needed));
            all.push(needed);
        }
    }
    Ok(all)
}

fn watched(
    place: &Place<'_>,
    workload: &'static Workload,
    row: &Row,
    number: u16,
) -> Result<Result<Peaks, String>, Error> {
    let [on_demand, needs_store] = needs(row);
    let attempt = Attempt { workload, strategy: &row.name, on_demand, needs_store, number, patience: PATIENCE };
    let (subject, board) = begin(place, workload, number)?;
    let hosts = [place.pair.source.init_pid(), place.pair.destination.init_pid()];
    let watch = Watch::new(hosts, place.godwit);
    let moved = measure_begun(place, &attempt, &subject, &board);
    let peaks = watch.peaks();
    match moved {
        Ok(moved) => Ok(moved.map(|_| peaks).map_err(|reason| format!("refused: {reason}"))),
        Err(error @ Error::Program { .. }) => Ok(Err(error.to_string())),
        Err(error) => Err(error),
    }
}

/// One move in one line.
#[must_use]
pub fn line(needed: &Needed) -> String {
    let mut line = format!("{:28} {:20}", needed.workload.about, needed.strategy);
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    match &needed.peaks {
        Ok(peaks) => {
            let _ = write!(line, " {:6.1} MiB together", mib(peaks.together));
            for (name, peak) in &peaks.processes {
                let _ = write!(line, ", {name} {:.1} MiB", mib(*peak));
            }
            if !needed.is_bounded() {
                let _ = write!(line, ": more than {:.0} MiB", mib(ENGINE_MEMORY_MAX));
            }
        }
        Err(reason) => {
            let _ = write!(line, " {reason}");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_or_unknown_is_not_bounded() {
        let needed = |peaks| Needed { workload: &super::super::workload::WORKLOADS[0], strategy: String::new(), peaks };
        let together = |together| Ok(Peaks { together, ..Peaks::default() });
        assert!(needed(together(20 << 20)).is_bounded());
        assert!(!needed(together(65 << 20)).is_bounded() && line(&needed(together(65 << 20))).contains("more than 64"));
        assert!(!needed(together(0)).is_bounded());
        assert!(!needed(Err("refused".to_owned())).is_bounded());
    }

    #[test]
    fn the_usual_names_are_known() {
        assert!(CASES.iter().all(|name| Workload::named(name).is_some()));
        assert!(STRATEGIES.iter().all(|name| parse(name).is_ok()));
    }
}
