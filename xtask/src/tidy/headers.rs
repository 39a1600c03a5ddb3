//! Rule: every file opens with a `//!` line that says its one subject.

use super::repository::Repository;
use super::{Finding, Verdict};

/// A header of fewer letters says nothing.
const LEAST_LETTERS: usize = 12;

/// Looks at the first line of every Rust file.
pub(crate) fn check(repository: &Repository) -> Verdict {
    let mut findings = Vec::new();
    for source in &repository.sources {
        let header = source.header();
        if header.chars().filter(|c| c.is_alphabetic()).count() < LEAST_LETTERS {
            findings.push(Finding::new(
                &source.path,
                1,
                "open the file with `//! …`: one line that says its one subject",
            ));
        } else if header.starts_with("Placeholder") {
            findings.push(Finding::new(&source.path, 1, "a placeholder: say what this file is for"));
        }
    }
    Verdict::Checked(findings)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{findings, sources};
    use super::*;

    #[test]
    fn a_header_passes_and_its_absence_is_found() {
        let files = [
            ("a.rs", "//! Rows of the table of strategies.\nfn f() {}"),
            ("b.rs", "use x;\n//! Too late to be a header."),
            ("c.rs", "//! TBD\n"),
            ("d.rs", "//! Placeholder for later.\n"),
            ("e.rs", ""),
        ];
        let found = findings(check(&sources(&files)));
        assert_eq!(
            found.iter().map(|finding| finding.path.as_str()).collect::<Vec<_>>(),
            ["b.rs", "c.rs", "d.rs", "e.rs"]
        );
    }
}
