//! Rule: a file stays short; what is longer is in the ratchet and may only shrink.

use std::collections::BTreeMap;

use super::repository::Repository;
use super::{Finding, Verdict, ratchet};

/// What an entry of the ratchet begins with.
pub(crate) const SUBJECT: &str = "file-lines";

/// From here on an entry is needed, in lines with comments and tests.
const SOFT: usize = 600;

/// No entry helps beyond this, in lines.
const HARD: usize = 900;

/// The files over the soft limit, with their lines.
pub(crate) fn measure(repository: &Repository) -> BTreeMap<String, usize> {
    let lines = repository.sources.iter().map(|source| (source.path.clone(), source.text.lines().count()));
    lines.filter(|(_, lines)| *lines > SOFT).collect()
}

/// Compares the lengths with the ratchet and with the hard limit.
pub(crate) fn check(repository: &Repository) -> Verdict {
    let measured = measure(repository);
    let advice = "move the data out and keep the flow, or split by subject";
    let mut findings = ratchet::compare(repository, SUBJECT, &measured, advice);
    for (path, lines) in measured.iter().filter(|(_, lines)| **lines > HARD) {
        findings.push(Finding::new(path, HARD + 1, format!("{lines} lines, and {HARD} is the end: {advice}")));
    }
    Verdict::Checked(findings)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{findings, sources};
    use super::*;

    fn check_with(lines: usize, entry: &str) -> Vec<Finding> {
        let mut repository = sources(&[("crates/a/src/a.rs", &"x\n".repeat(lines))]);
        repository.texts.insert(ratchet::PATH.to_owned(), entry.to_owned());
        findings(check(&repository))
    }

    #[test]
    fn a_short_file_and_a_known_long_one_pass() {
        assert!(check_with(600, "").is_empty());
        assert!(check_with(700, "file-lines crates/a/src/a.rs 700").is_empty());
    }

    #[test]
    fn a_long_file_without_an_entry_is_found() {
        assert_eq!(check_with(601, "").len(), 1);
    }

    #[test]
    fn no_entry_helps_beyond_the_hard_limit() {
        assert_eq!(check_with(901, "file-lines crates/a/src/a.rs 901").len(), 1);
    }
}
