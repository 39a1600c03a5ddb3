//! Rule: each room says at its door what it is for and what it must never know.

use super::repository::Repository;
use super::{Finding, Verdict};

/// Looks at the header of every `crates/*/src/lib.rs`.
pub(crate) fn check(repository: &Repository) -> Verdict {
    let mut findings = Vec::new();
    for source in &repository.sources {
        let Some(room) = source.path.strip_prefix("crates/").and_then(|path| path.strip_suffix("/src/lib.rs")) else {
            continue;
        };
        let header = source.header().to_lowercase();
        for wanted in ["this room", "must never know"] {
            if !header.contains(wanted) {
                let message = format!(
                    "the room `{room}` opens without \"{wanted}\": one paragraph of `//!` says what this room is for and what it must never know"
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
    fn a_room_says_both() {
        let good = ("crates/a/src/lib.rs", "//! This room is for x. It must never\n//! know a clock.\n");
        let bad = ("crates/b/src/lib.rs", "//! This room is for x.\n// It must never know a clock.\n");
        let other = ("crates/a/src/x.rs", "//! No room.\n");
        let found = findings(check(&sources(&[good, bad, other])));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, "crates/b/src/lib.rs");
    }
}
