//! A whole run: hosts, limits, cases, limits again.
use crate::case::{CASES, Case};
use crate::error::{Doing, Error, program};
use crate::limit::Limits;
use crate::machine::Machine;
use crate::measurement::{self, Outcome, Place, Sample};
use crate::program::Programs;
use crate::report::{Measured, Report};
use godwit_testbed::{Options, Pair};
use std::path::PathBuf;

/// Where a host's numbers begin, so that a moved process finds its own free at the destination.
pub(crate) const FIRST_NUMBER: u32 = 20_000;
/// Repetitions in which nothing is measured, so that caches and pages are warm.
const WARM_UP: usize = 1;

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Cases whose name contains one of these; all where there is none.
    pub only: Vec<String>,
    /// Repetitions of each.
    pub repetitions: usize,
    /// The `godwit` binary, whose `main` calls the testbed's entry.
    pub godwit: PathBuf,
    /// Where each side of a migration writes when it took each step, if it is to. A directory that both hosts see.
    pub timelines: Option<PathBuf>,
}

impl Plan {
    fn cases(&self) -> Result<Vec<&'static Case>, Error> {
        let known = || CASES.iter().map(|case| case.name).collect::<Vec<_>>().join(", ");
        let unknown = self.only.iter().find(|name| !CASES.iter().any(|case| case.name.contains(*name)));
        if let Some(name) = unknown {
            return Err(Error::UnknownCase { name: name.clone(), known: known() });
        }
        let is_wanted = |case: &&Case| self.only.is_empty() || self.only.iter().any(|name| case.name.contains(name));
        Ok(CASES.iter().filter(is_wanted).collect())
    }
}

/// A directory that goes with the run, on storage that both hosts see.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // Only our own directory; what cannot be removed stays in /var/tmp.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Measures. `note` is told what goes on, for people.
///
/// # Errors
/// This machine cannot have hosts or compile programs; a name that no case has. A case that fails is in the report.
pub fn run(plan: &Plan, note: &mut dyn FnMut(&str)) -> Result<Report, Error> {
    let cases = plan.cases()?;
    let load_before = crate::machine::load();
    let scratch = Scratch(PathBuf::from(format!("/var/tmp/godwit-bench-{}", std::process::id())));
    std::fs::create_dir_all(&scratch.0).doing(format!("make {}", scratch.0.display()))?;
    let programs = Programs::new(&scratch.0)?;
    let options =
        Options { executable: Some(plan.godwit.clone()), shared: vec![scratch.0.clone()], ..Options::default() };
    let pair = Pair::new(&options)?;
    let begin_high = format!("echo {FIRST_NUMBER} > /proc/sys/kernel/ns_last_pid");
    let began = pair.source.command("/bin/sh").args(["-c", &begin_high]).output()?;
    if !began.status.success() {
        return Err(program("sh", String::from_utf8_lossy(&began.stderr)));
    }
    let mut limits = Limits::default();
    note("limits: raw TCP stream, request and answer, copy in memory, injected call");
    limits.measure(&pair, &programs, 19_000, plan.repetitions)?;
    let place = Place {
        pair: &pair,
        godwit: &plan.godwit,
        programs: &programs,
        directory: &scratch.0,
        timelines: plan.timelines.as_deref(),
    };
    let mut measured = Vec::with_capacity(cases.len());
    let mut number = 0;
    for case in cases {
        let figures = repeat(&place, case, plan.repetitions, &mut number);
        note(&format!("{}: {}", case.name, figures.in_short()));
        measured.push(figures);
    }
    note("the limits once more");
    limits.measure(&pair, &programs, 19_000, plan.repetitions)?;
    Ok(Report { machine: Machine::here(load_before), repetitions: plan.repetitions, limits, measured })
}

/// Repeats a case: warm-up, the counted repetitions, and one in which the engine's memory is watched.
fn repeat(place: &Place<'_>, case: &'static Case, repetitions: usize, number: &mut u16) -> Measured {
    let mut measured = Measured { case, samples: Vec::new(), peaks: Default::default(), trouble: None };
    for repetition in 0..WARM_UP + repetitions + 1 {
        let watch = repetition == WARM_UP + repetitions;
        *number += 1;
        let sample: Sample = match measurement::measure(place, case, *number, watch) {
            Ok(Outcome::Moved(sample)) => *sample,
            Ok(Outcome::Refused(reason)) => {
                measured.trouble = Some(format!("refused: {reason}"));
                return measured;
            }
            Err(error) => {
                measured.trouble = Some(error.to_string());
                return measured;
            }
        };
        if watch {
            measured.peaks = sample.peaks;
        } else if repetition >= WARM_UP {
            measured.samples.push(sample);
        }
    }
    measured
}
