//! Rule: the pure rooms' clippy.toml files forbid the same things.
//!
//! Each is read alone (a crate's own clippy.toml replaces the root's, they are not merged), so they are copies, and
//! this rule is what keeps them equal.

use super::purity::PURE_ROOMS;
use super::repository::Repository;
use super::{Finding, Verdict};

/// What must be forbidden at the least.
const FORBIDDEN: [&str; 6] = [
    "std::collections::HashMap",
    "std::collections::HashSet",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::time::Instant::now",
    "std::thread::spawn",
];

/// Compares the four with the first, and the first with what must be there.
pub(crate) fn check(repository: &Repository) -> Verdict {
    let paths = PURE_ROOMS.map(|room| format!("{room}/clippy.toml"));
    let mut findings = Vec::new();
    let text = |path: &String| repository.texts.get(path).map_or("", String::as_str);
    let first = text(&paths[0]);
    for entry in FORBIDDEN {
        if !first.contains(&format!("path = \"{entry}\"")) {
            findings.push(Finding::new(&paths[0], 1, format!("`{entry}` must be forbidden here, with its reason")));
        }
    }
    for (index, line) in first.lines().enumerate() {
        if line.contains("path = ") && !line.contains("reason = ") {
            findings.push(Finding::new(
                &paths[0],
                index + 1,
                "give the reason on the same line: it is what one reads when one trips",
            ));
        }
    }
    for path in &paths[1..] {
        if text(path) == first {
            continue;
        }
        let line = text(path).lines().zip(first.lines()).take_while(|(one, other)| one == other).count() + 1;
        findings.push(Finding::new(path, line, format!("differs from {}: copy that one", paths[0])));
    }
    Verdict::Checked(findings)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{findings, texts};
    use super::*;

    fn good() -> String {
        FORBIDDEN.map(|entry| format!("{{ path = \"{entry}\", reason = \"pure\" }},\n")).concat()
    }

    fn check_with(texts_of: [&str; 4]) -> Vec<Finding> {
        let paths = PURE_ROOMS.map(|room| format!("{room}/clippy.toml"));
        let files: Vec<_> = paths.iter().map(String::as_str).zip(texts_of).collect();
        findings(check(&texts(&files)))
    }

    #[test]
    fn four_equal_tables_pass() {
        assert!(check_with([&good(); 4]).is_empty());
    }

    #[test]
    fn one_that_differs_is_found_at_its_line() {
        let other = good().replace("HashSet", "BTreeSet");
        let found = check_with([&good(), &good(), &other, &good()]);
        assert_eq!((found[0].path.as_str(), found[0].line), ("crates/strategy/clippy.toml", 2));
    }

    #[test]
    fn a_missing_entry_and_a_missing_reason_are_found() {
        assert!(check_with([&good().replace("std::thread::spawn", "x"); 4])[0].message.contains("std::thread::spawn"));
        assert!(check_with([&good().replace(", reason = \"pure\"", ""); 4])[0].message.contains("reason"));
    }
}
