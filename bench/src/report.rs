//! What a run has measured, and whether it keeps its budgets; as JSON.
use crate::case::{Budget, Case, ENGINE_MEMORY_MAX, Way};
use crate::limit::Limits;
use crate::machine::Machine;
use crate::measurement::Sample;
use crate::memory_peak::Peaks;
use crate::summary::Summary;
use serde_json::{Value, json};

/// A whole run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Where and when.
    pub machine: Machine,
    /// Of each case.
    pub repetitions: usize,
    /// What nothing can be faster than.
    pub limits: Limits,
    /// In the order of the cases.
    pub measured: Vec<Measured>,
}

/// One case with its repetitions.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Which.
    pub case: &'static Case,
    /// Every counted repetition.
    pub samples: Vec<Sample>,
    /// The engine's memory, by command.
    pub peaks: Peaks,
    /// Why there are no more samples.
    pub trouble: Option<String>,
}

/// A budget beside what was measured.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Judged {
    /// What may be.
    pub budget: Budget,
    /// What is, in the budget's unit: ms, or a part.
    pub value: f64,
    /// Whether it is kept.
    pub kept: bool,
}

impl Measured {
    /// The down time as the process saw it, ms.
    #[must_use]
    pub fn gap(&self) -> Option<Summary> {
        Summary::of(self.samples.iter().map(|sample| sample.gap_ms))
    }

    /// The command from start to end, ms.
    #[must_use]
    pub fn command(&self) -> Option<Summary> {
        Summary::of(self.samples.iter().map(|sample| sample.command_ms))
    }

    /// A number that every repetition reported.
    #[must_use]
    pub fn reported(&self, name: &str) -> Option<Summary> {
        Summary::of(self.samples.iter().filter_map(|sample| sample.reported(name)))
    }

    /// What the engine had at most, bytes: none where it was not watched.
    #[must_use]
    pub fn peak(&self) -> Option<u64> {
        self.peaks.largest().map(|largest| largest.max(self.peaks.together))
    }

    /// The budget beside the figure.
    #[must_use]
    pub fn judged(&self, limits: &Limits) -> Option<Judged> {
        let budget = self.case.budget?;
        let (value, kept) = match budget {
            Budget::Down(most) => {
                let value = self.gap()?.median;
                (value, value <= most)
            }
            Budget::Total(most) => {
                let value = self.reported("total_ms")?.median;
                (value, value <= most)
            }
            Budget::PartOfStream(least) => {
                let stream = Summary::of(limits.stream.iter().copied())?.median;
                let value = self.case.memory as f64 / (self.gap()?.median / 1e3) / stream;
                (value, value >= least)
            }
        };
        Some(Judged { budget, value, kept })
    }

    /// One line for people while the run goes on.
    #[must_use]
    pub fn in_short(&self) -> String {
        match (&self.trouble, self.gap(), self.reported("total_ms")) {
            (Some(trouble), ..) => trouble.clone(),
            (None, Some(gap), Some(total)) => format!(
                "down {:.1} ms as it saw it ({:.1} to {:.1}), total {:.1} ms",
                gap.median, gap.min, gap.max, total.median
            ),
            _ => "nothing was measured".to_owned(),
        }
    }

    fn to_json(&self, limits: &Limits) -> Value {
        let samples: Vec<Value> = self
            .samples
            .iter()
            .map(|sample| json!({ "gap_ms": sample.gap_ms, "command_ms": sample.command_ms, "reported": sample.reported }))
            .collect();
        let judged = self.judged(limits).map(|judged| {
            let (what, bound) = match judged.budget {
                Budget::Down(most) => ("down_ms_max", most),
                Budget::Total(most) => ("total_ms_max", most),
                Budget::PartOfStream(least) => ("part_of_stream_min", least),
            };
            json!({ "budget": what, "bound": bound, "value": judged.value, "kept": judged.kept })
        });
        let least = self.reported("bytes_sent").and_then(|bytes| limits.least(bytes.median as u64));
        json!({
            "case": self.case.name,
            "about": self.case.about,
            "way": match self.case.way { Way::Migrate => "migrate", Way::Storage => "checkpoint and restore" },
            "down_seen_ms": summary(self.gap()),
            "down_reported_ms": summary(self.reported("down_ms")),
            "preparation_ms": summary(self.reported("preparation_ms")),
            "total_ms": summary(self.reported("total_ms")),
            "command_ms": summary(self.command()),
            "bytes_sent": summary(self.reported("bytes_sent")),
            "pages_total": summary(self.reported("pages_total")),
            "pages_sent": summary(self.reported("pages_sent")),
            "least_ms_for_these_bytes": least.map(|seconds| seconds * 1e3),
            "engine_memory_bytes": self.peaks.together,
            "engine_process_bytes": self.peaks.processes,
            "engine_memory_bytes_max": ENGINE_MEMORY_MAX,
            "judged": judged,
            "trouble": self.trouble,
            "samples": samples,
        })
    }
}

impl Report {
    /// Everything, for machines.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let of = |values: &[f64]| summary(Summary::of(values.iter().copied()));
        json!({
            "machine": self.machine.to_json(),
            "repetitions": self.repetitions,
            "limits": {
                "stream_bytes_per_second": of(&self.limits.stream),
                "carry_bytes_per_second": of(&self.limits.carry),
                "request_s": of(&self.limits.request),
                "copy_bytes_per_second": of(&self.limits.copy),
                "injected_call_s": of(&self.limits.call),
            },
            "cases": self.measured.iter().map(|measured| measured.to_json(&self.limits)).collect::<Vec<_>>(),
        })
    }

    /// Whether every case was measured and every budget kept.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.measured.iter().all(|measured| {
            measured.trouble.is_none()
                && measured.judged(&self.limits).is_none_or(|judged| judged.kept)
                && measured.peak().is_none_or(|peak| peak < ENGINE_MEMORY_MAX)
        })
    }
}

fn summary(summary: Option<Summary>) -> Value {
    summary.map_or(
        Value::Null,
        |summary| json!({ "median": summary.median, "min": summary.min, "max": summary.max, "count": summary.count }),
    )
}
