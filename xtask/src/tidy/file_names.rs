//! Rule: a file is named after the thing in it, not after its being useful.

use super::repository::Repository;
use super::{Finding, Verdict};

/// Names that say nothing, and so attract everything.
const BANNED: [&str; 10] =
    ["utils", "util", "common", "helpers", "helper", "manager", "managers", "misc", "shared", "stuff"];

/// Looks at every part of every Rust file's path.
pub(crate) fn check(repository: &Repository) -> Verdict {
    let mut findings = Vec::new();
    for source in &repository.sources {
        let stems = source.path.split('/').map(|part| part.trim_end_matches(".rs"));
        for stem in stems {
            // `task_manager` is no better than `manager`; `shared_memory` is a thing.
            let last = stem.rsplit(['_', '-']).next().unwrap_or(stem);
            if let Some(word) = BANNED.iter().find(|banned| last == **banned) {
                let message = format!(
                    "`{word}` says nothing about what is inside: name the file after the thing, or put its parts where they belong"
                );
                findings.push(Finding::new(&source.path, 1, message));
            }
        }
    }
    Verdict::Checked(findings)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{findings, sources};
    use super::*;

    #[test]
    fn names_that_say_nothing_are_found() {
        let text = "//! x";
        let files = [
            ("crates/a/src/utils.rs", text),
            ("crates/a/src/common/mod.rs", text),
            ("crates/a/src/task_manager.rs", text),
            ("crates/a/src/shared_memory.rs", text),
            ("crates/a/src/commonwealth.rs", text),
        ];
        let found = findings(check(&sources(&files)));
        let expected = ["crates/a/src/utils.rs", "crates/a/src/common/mod.rs", "crates/a/src/task_manager.rs"];
        assert_eq!(found.iter().map(|finding| finding.path.as_str()).collect::<Vec<_>>(), expected);
    }
}
