//! What is printed while the parts run, and what comes of it in the end.

use std::process::ExitCode;
use std::time::Instant;

use super::child::Ending;
use super::tally::Tally;
use crate::tidy::Finding;

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// A person at a terminal.
    Plain,
    /// A CI log: parts that fold, findings that are shown at their lines, no colours.
    Ci,
}

/// The run so far.
pub(super) struct Report {
    format: Format,
    deadline: Instant,
    tally: Tally,
    /// What failed and what was skipped, repeated at the end.
    remarks: Vec<String>,
    is_group_open: bool,
}

impl Report {
    pub(super) fn new(format: Format, deadline: Instant) -> Self {
        Self { format, deadline, tally: Tally::default(), remarks: Vec::new(), is_group_open: false }
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// When every part has to have ended.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// A new part begins.
    pub(super) fn heading(&mut self, text: &str) {
        self.close_group();
        match self.format {
            Format::Plain => println!("\n== {text}"),
            Format::Ci => println!("::group::{text}"),
        }
        self.is_group_open = true;
    }

    pub(super) fn passed(&mut self, count: usize) {
        self.tally.passed += count;
    }

    pub(super) fn failed(&mut self, what: &str) {
        self.tally.failed += 1;
        println!("FAILED  {what}");
        self.remarks.push(format!("FAILED  {what}"));
    }

    pub(super) fn skipped(&mut self, what: &str) {
        self.tally.skipped += 1;
        println!("skipped {what}");
        self.remarks.push(format!("skipped {what}"));
    }

    /// One finding of a rule; the rule itself is counted apart.
    pub(super) fn finding(&self, rule: &str, finding: &Finding) {
        match self.format {
            Format::Plain => println!("{finding} [{rule}]"),
            Format::Ci => {
                println!("::error file={},line={},title={rule}::{}", finding.path, finding.line, finding.message);
            }
        }
    }

    /// A part that counts as one has ended; returns whether well.
    pub(super) fn ended(&mut self, name: &str, ending: &Ending) -> bool {
        if ending.is_success() {
            self.passed(1);
        } else {
            self.failed(&format!("{name}: {ending}"));
        }
        ending.is_success()
    }

    /// A part that counted for itself has ended. One that ended badly without saying what failed counts as a failure.
    pub(super) fn counted(&mut self, name: &str, tally: Tally, ending: &Ending) {
        self.tally += tally;
        if tally.failed > 0 {
            self.remarks.push(format!("FAILED  {name}: {} of {}", tally.failed, tally.failed + tally.passed));
        }
        if tally.skipped > 0 {
            self.remarks.push(format!("skipped {name}: {}", tally.skipped));
        }
        let is_explained = tally.failed > 0 && matches!(ending, Ending::Exited(_));
        if !ending.is_success() && !is_explained {
            self.failed(&format!("{name}: {ending}"));
        }
    }

    /// Repeats what went wrong, prints the closing line, and says how this ends.
    pub(super) fn close(&mut self) -> ExitCode {
        self.close_group();
        println!();
        for remark in &self.remarks {
            println!("{remark}");
        }
        println!("{}", self.tally);
        if self.tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
    }

    fn close_group(&mut self) {
        if self.is_group_open && self.format == Format::Ci {
            println!("::endgroup::");
        }
        self.is_group_open = false;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn after(tally: Tally, ending: Ending) -> Tally {
        let mut report = Report::new(Format::Plain, Instant::now());
        report.counted("tests", tally, &ending);
        report.tally
    }

    fn exited(code: i32) -> Ending {
        Ending::Exited(ExitStatus::from_raw(code << 8))
    }

    #[test]
    fn a_bad_end_is_never_counted_as_well() {
        let well = Tally { passed: 5, ..Tally::default() };
        let badly = Tally { passed: 5, failed: 2, skipped: 0 };
        assert_eq!(after(well, exited(0)).failed, 0);
        assert_eq!(after(badly, exited(101)).failed, 2);
        assert_eq!(after(well, exited(101)).failed, 1, "a crash without a failed test");
        assert_eq!(after(badly, Ending::OutOfTime).failed, 3, "the tests that did not run");
    }
}
