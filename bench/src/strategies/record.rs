//! What was measured, as data that can be written, read again, and added to.
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Everything that is known.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Evaluation {
    /// Where and when, as [`crate::Report`] says it.
    pub machine: Value,
    /// Of each link, what it carries.
    pub links: Vec<LinkLimits>,
    /// What was measured.
    pub cells: Vec<Cell>,
    /// What was not, and why not.
    pub left_out: Vec<LeftOut>,
    /// What was foreseen before.
    #[serde(default)]
    pub foreseen: Vec<Foreseen>,
    /// What tracking costs.
    #[serde(default)]
    pub tracked: Option<Tracked>,
}

/// What tracking costs a process with 1 GiB that writes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tracked {
    /// By which part it is slower.
    pub slower: f64,
    /// A look at all of its memory, ms.
    pub look_ms: f64,
    /// The first look, which finds all of it, ms.
    pub first_look_ms: f64,
}

/// What `godwit check --to` foresaw of a workload over a link.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Foreseen {
    /// Which workload.
    pub workload: String,
    /// Which link.
    pub link: String,
    /// What the probe found that it carries.
    pub bytes_per_second: f64,
    /// By objective, the strategy that auto would take.
    pub chosen: BTreeMap<String, String>,
    /// By strategy: down time, total time, delay of execution, ms.
    pub prices: BTreeMap<String, [f64; 3]>,
}

/// What a link carries, by the shortest way.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LinkLimits {
    /// Which link.
    pub link: String,
    /// A raw TCP stream, bytes per second.
    pub stream: Vec<f64>,
    /// A request of 4 KiB and its answer of 4 KiB, µs: median and 99th part of a hundred.
    pub request_us: Vec<[f64; 2]>,
}

/// One workload by one strategy over one link.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Cell {
    /// Which workload.
    pub workload: String,
    /// Which link.
    pub link: String,
    /// Which strategy.
    pub strategy: String,
    /// Each repetition.
    pub samples: Vec<Figures>,
    /// Why there are no more.
    pub trouble: Option<String>,
}

/// One repetition. Times in ms but where it is said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Pages moved while the process ran at the source.
    pub preparation_ms: f64,
    /// The process ran nowhere, as godwit reports it.
    pub down_ms: f64,
    /// From then until nothing was left at the source.
    pub post_ms: f64,
    /// From the request until nothing was left at the source.
    pub total_ms: f64,
    /// The longest time in which the process did not run, as it saw it itself.
    pub gap_ms: f64,
    /// By how much it was behind in the end: the time minus what it would have needed for the work that it did.
    pub delay_ms: f64,
    /// In so long, from the command's start on.
    pub window_ms: f64,
    /// Bytes over the link.
    pub bytes: f64,
    /// Pages of the process.
    pub pages_total: f64,
    /// Pages that went over the link, each time counted.
    pub transfers: f64,
    /// Of those, the ones that the process waited for at the destination, neighbours included.
    pub demanded: f64,
    /// Rounds of pages.
    pub rounds: f64,
    /// How often the process waited for a page, as it saw it (of the workload that notes it).
    pub waits: u64,
    /// For how long in the middle, µs.
    pub wait_median_us: f64,
    /// And the longest but one of a hundred, µs.
    pub wait_99_us: f64,
}

/// What was not measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Which workload.
    pub workload: String,
    /// Which link.
    pub link: String,
    /// Which strategies.
    pub strategies: Vec<String>,
    /// Why not.
    pub why: String,
}

impl Evaluation {
    /// The cell of these names, if anything is known of it.
    #[must_use]
    pub fn cell(&self, workload: &str, link: &str, strategy: &str) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.is(workload, link, strategy))
    }

    /// The same, made where there is none.
    pub fn cell_to_fill(&mut self, workload: &str, link: &str, strategy: &str) -> &mut Cell {
        let at = self.cells.iter().position(|cell| cell.is(workload, link, strategy));
        let at = at.unwrap_or_else(|| {
            let [workload, link, strategy] = [workload, link, strategy].map(str::to_owned);
            self.cells.push(Cell { workload, link, strategy, ..Cell::default() });
            self.cells.len() - 1
        });
        &mut self.cells[at]
    }

    /// What a link carries, made where nothing is known.
    pub fn limits_to_fill(&mut self, link: &str) -> &mut LinkLimits {
        let at = self.links.iter().position(|limits| limits.link == link);
        let at = at.unwrap_or_else(|| {
            self.links.push(LinkLimits { link: link.to_owned(), ..LinkLimits::default() });
            self.links.len() - 1
        });
        &mut self.links[at]
    }
}

impl Cell {
    fn is(&self, workload: &str, link: &str, strategy: &str) -> bool {
        (self.workload.as_str(), self.link.as_str(), self.strategy.as_str()) == (workload, link, strategy)
    }

    /// The middle of a figure over all repetitions.
    #[must_use]
    pub fn median(&self, figure: impl Fn(&Figures) -> f64) -> Option<f64> {
        crate::summary::Summary::of(self.samples.iter().map(figure)).map(|summary| summary.median)
    }
}
