//! A run: which cells are wanted, which of them can be measured in the time there is, and measuring them.
use super::cell::{Attempt, measure};
use super::link::{LINKS, LinkSpeed};
use super::record::{Evaluation, LeftOut};
use super::workload::{WORKLOADS, Workload};
use crate::error::{Doing, Error, program};
use crate::limit::converse;
use crate::machine::Machine;
use crate::measurement::Place;
use crate::program::Programs;
use crate::run::{FIRST_NUMBER, Scratch};
use godwit_strategy::{Origin, Row, TABLE, parse};
use godwit_testbed::{Options, Pair};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Names of workloads; all where there is none.
    pub cases: Vec<String>,
    /// Names of links; all where there is none.
    pub links: Vec<String>,
    /// Names of strategies, or rows; the whole table where there is none.
    pub strategies: Vec<String>,
    /// Repetitions of each cell.
    pub repetitions: usize,
    /// A move that would take longer, as far as can be foreseen, is left out.
    pub longest: Duration,
    /// No further cell is begun after this time.
    pub at_most: Option<Duration>,
    /// The `godwit` binary, whose `main` calls the testbed's entry.
    pub godwit: PathBuf,
}

/// How long a packet may wait where a link is shaped: as in a switch with a small memory.
const QUEUE: Duration = Duration::from_millis(50);

/// The names that are wanted, in the order of the table.
fn chosen<T: Copy>(names: &[String], all: &'static [T], name: fn(&T) -> &'static str) -> Result<Vec<T>, Error> {
    if let Some(unknown) = names.iter().find(|wanted| !all.iter().any(|one| name(one) == *wanted)) {
        let known = all.iter().map(name).collect::<Vec<_>>().join(", ");
        return Err(Error::UnknownCase { name: unknown.clone(), known });
    }
    Ok(all.iter().filter(|one| names.is_empty() || names.iter().any(|wanted| wanted == name(one))).copied().collect())
}

impl Plan {
    fn workloads(&self) -> Result<Vec<Workload>, Error> {
        chosen(&self.cases, WORKLOADS, |workload| workload.name)
    }

    fn speeds(&self) -> Result<Vec<LinkSpeed>, Error> {
        chosen(&self.links, LINKS, |link| link.name)
    }

    fn rows(&self) -> Result<Vec<Row>, Error> {
        let named = |name: &String| parse(name).map_err(|error| Error::Refused(error.to_string()));
        if self.strategies.is_empty() { Ok(TABLE.to_vec()) } else { self.strategies.iter().map(named).collect() }
    }
}

/// Measures what is wanted and not yet known. `known` is added to, and `keep` is given it whenever something is new; `note` is told
/// what goes on, for people.
///
/// # Errors
/// This machine cannot have hosts, shape links or compile programs; a name that nothing has. A cell that fails is in the data.
pub fn run(
    plan: &Plan,
    known: &mut Evaluation,
    keep: &mut dyn FnMut(&Evaluation) -> Result<(), Error>,
    note: &mut dyn FnMut(&str),
) -> Result<(), Error> {
    let (workloads, speeds, rows) = (plan.workloads()?, plan.speeds()?, plan.rows()?);
    let begin = Instant::now();
    let load_before = crate::machine::load();
    let scratch = Scratch(PathBuf::from(format!("/var/tmp/godwit-strategies-{}", std::process::id())));
    std::fs::create_dir_all(&scratch.0).doing(format!("make {}", scratch.0.display()))?;
    let programs = Programs::new(&scratch.0)?;
    let options = Options {
        executable: Some(plan.godwit.clone()),
        shared: vec![scratch.0.clone()],
        // So that a moved process finds its own number free.
        first_ids: Some([FIRST_NUMBER, 2]),
        ..Options::default()
    };
    let pair = Pair::new(&options)?;
    let place =
        Place { pair: &pair, godwit: &plan.godwit, programs: &programs, directory: &scratch.0, timelines: None };
    known.machine = Machine::here(load_before).to_json();
    if known.tracked.is_none() && plan.cases.is_empty() {
        note("what tracking costs a process that writes nothing");
        known.tracked = Some(super::tracked::measure(&programs, &scratch.0)?);
    }
    let mut session = Session { plan, place, begin, number: 0 };
    for link in speeds {
        session.set_speed(&link)?;
        session.measure_link(&link, known, note)?;
        for workload in &workloads {
            let workload = Workload::named(workload.name).unwrap_or(&WORKLOADS[0]);
            session.foresee(workload, &link, known, note)?;
            session.measure_rows(workload, &link, &rows, known, note)?;
            keep(known)?;
        }
    }
    Ok(())
}

struct Session<'a> {
    plan: &'a Plan,
    place: Place<'a>,
    begin: Instant,
    number: u16,
}

impl Session<'_> {
    fn is_over(&self) -> bool {
        self.plan.at_most.is_some_and(|most| self.begin.elapsed() > most)
    }

    fn set_speed(&self, link: &LinkSpeed) -> Result<(), Error> {
        let pair = self.place.pair;
        let hosts = [&pair.source, &pair.destination];
        match link.rate {
            Some(rate) => Ok(pair.link.shape(hosts, rate, QUEUE)?),
            None => {
                // The kernel refuses to end what was never begun.
                let _ = pair.link.unshape(hosts);
                Ok(())
            }
        }
    }

    /// What the link carries: about a second of a raw stream, and requests.
    fn measure_link(&self, link: &LinkSpeed, known: &mut Evaluation, note: &mut dyn FnMut(&str)) -> Result<(), Error> {
        let limits = known.limits_to_fill(link.name);
        if self.is_over() || limits.stream.len() >= self.plan.repetitions {
            return Ok(());
        }
        let bytes = link.rate.unwrap_or(1 << 30).min(1 << 30);
        let stream = converse(self.place.pair, self.place.programs, 19_000, "send", bytes)?;
        limits.stream.extend(stream.iter().map(|time| bytes as f64 / time * 1e9));
        let mut times = converse(self.place.pair, self.place.programs, 19_001, "ask", 300)?.split_off(30);
        times.sort_by(f64::total_cmp);
        let at = |part: f64| times.get((times.len() as f64 * part) as usize).copied().unwrap_or(0.0) / 1e3;
        limits.request_us.push([at(0.5), at(0.99)]);
        let rate = limits.stream.last().copied().unwrap_or(0.0) / 1e6;
        note(&format!("{}: {rate:.1} MB/s, {:.0} us for a request of 4 KiB with its answer", link.about, at(0.5)));
        Ok(())
    }

    /// What auto would choose, once.
    fn foresee(
        &mut self,
        workload: &'static Workload,
        link: &LinkSpeed,
        known: &mut Evaluation,
        note: &mut dyn FnMut(&str),
    ) -> Result<(), Error> {
        let is_known =
            known.foreseen.iter().any(|one| (one.workload.as_str(), one.link.as_str()) == (workload.name, link.name));
        if self.is_over() || is_known {
            return Ok(());
        }
        self.number += 1;
        match super::foreseen::ask(&self.place, workload, link.name, self.number) {
            Ok(foreseen) => known.foreseen.push(foreseen),
            Err(error @ Error::Program { .. }) => note(&format!("{} over {}: {error}", workload.name, link.about)),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// All strategies in turn, so that what changes on the machine meanwhile meets each of them.
    fn measure_rows(
        &mut self,
        workload: &'static Workload,
        link: &LinkSpeed,
        rows: &[Row],
        known: &mut Evaluation,
        note: &mut dyn FnMut(&str),
    ) -> Result<(), Error> {
        known.left_out.retain(|left| (left.workload.as_str(), left.link.as_str()) != (workload.name, link.name));
        let least = foreseen(workload, link);
        if least > self.plan.longest.as_secs_f64() {
            let why =
                format!("a move would take {least:.0} s at least; the bound is {} s", self.plan.longest.as_secs());
            note(&format!("left out: {} over {}: {why}", workload.name, link.about));
            let strategies: Vec<String> = rows.iter().map(|row| row.name.to_string()).collect();
            let [workload, link] = [workload.name, link.name].map(str::to_owned);
            known.left_out.push(LeftOut { workload, link, strategies, why });
            return Ok(());
        }
        for repetition in 0..self.plan.repetitions {
            for row in rows {
                if self.is_over() {
                    return Ok(());
                }
                let cell = known.cell_to_fill(workload.name, link.name, &row.name);
                if cell.samples.len() > repetition || cell.trouble.is_some() {
                    continue;
                }
                self.number += 1;
                let [on_demand, needs_store] = needs(row);
                let attempt = Attempt {
                    workload,
                    strategy: &row.name,
                    on_demand,
                    needs_store,
                    number: self.number,
                    patience: self.plan.longest * 2 + Duration::from_secs(5),
                };
                match measure(&self.place, &attempt) {
                    Ok(Ok(figures)) => {
                        note(&format!(
                            "{} over {}, {}: down {:.1} ms (seen {:.1}), total {:.0} ms, late by {:.0} ms",
                            workload.name,
                            link.about,
                            row.name,
                            figures.down_ms,
                            figures.gap_ms,
                            figures.total_ms,
                            figures.delay_ms
                        ));
                        cell.samples.push(figures);
                    }
                    Ok(Err(reason)) if reason.contains("GW1305") => {
                        cell.trouble = Some(format!("ended by the bench after {} s", attempt.patience.as_secs()));
                    }
                    Ok(Err(reason)) => cell.trouble = Some(format!("refused: {reason}")),
                    Err(error @ Error::Program { .. }) => cell.trouble = Some(error.to_string()),
                    Err(error) => return Err(error),
                }
                if let Some(trouble) = &cell.trouble {
                    note(&format!("{} over {}, {}: {trouble}", workload.name, link.about, row.name));
                }
            }
        }
        Ok(())
    }
}

/// Whether a process gets what it owes only as it asks for it, and whether it needs a page store.
pub(super) fn needs(row: &Row) -> [bool; 2] {
    let on_demand = row.leaves_pages_behind() && !row.pushes_what_is_left();
    [on_demand, row.steps.iter().any(|step| step.from == Origin::Store)]
}

/// How long a move takes at least, s, in all: what must go over the link, by whatever row. What waits to be asked for is fetched in the
/// end, too.
fn foreseen(workload: &Workload, link: &LinkSpeed) -> f64 {
    workload.memory as f64 / link.bytes_per_second()
}

/// Makes a failure of a program of the benches.
#[must_use]
pub fn not_data(path: &str, cause: &dyn std::fmt::Display) -> Error {
    program(path, format!("it is no data of an evaluation: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(cases: &[&str]) -> Plan {
        Plan {
            cases: cases.iter().map(|name| (*name).to_owned()).collect(),
            links: Vec::new(),
            strategies: Vec::new(),
            repetitions: 1,
            longest: Duration::from_secs(20),
            at_most: None,
            godwit: PathBuf::new(),
        }
    }

    #[test]
    fn names_choose_and_unknown_ones_are_told() {
        assert_eq!(plan(&[]).workloads().unwrap().len(), WORKLOADS.len());
        assert_eq!(plan(&["getpid"]).workloads().unwrap().len(), 1);
        assert!(plan(&["getpit"]).workloads().unwrap_err().to_string().contains("rma-4-mib"));
        assert_eq!(plan(&[]).rows().unwrap().len(), TABLE.len());
    }
}
