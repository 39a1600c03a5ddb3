//! Rule: the pure rooms are `no_std` and never name the standard library outside their tests.

use super::repository::Repository;
use super::{Finding, Verdict};

/// The rooms without clock, socket, thread, file or environment.
pub(crate) const PURE_ROOMS: [&str; 4] = ["crates/deterministic", "crates/image", "crates/strategy", "crates/handoff"];

/// Looks at the opening of each pure room and at every name in it.
pub(crate) fn check(repository: &Repository) -> Verdict {
    let mut findings = Vec::new();
    for room in PURE_ROOMS {
        let path = format!("{room}/src/lib.rs");
        let Some(root) = repository.source(&path) else {
            findings.push(Finding::new(path, 1, "a pure room without its lib.rs: make it"));
            continue;
        };
        let tokens = root.tokens();
        let is_no_std = tokens
            .windows(5)
            .any(|found| ["#", "!", "[", "no_std", "]"].iter().zip(found).all(|(wanted, token)| token.is(wanted)));
        if !is_no_std {
            findings.push(Finding::new(
                path,
                1,
                "a pure room is `#![no_std]` without conditions: say so below the header",
            ));
        }
        let below = format!("{room}/src/");
        for source in repository.sources.iter().filter(|source| source.path.starts_with(&below)) {
            let tokens = source.tokens_outside_tests();
            for found in tokens.windows(3) {
                let reads = |text: [&str; 3]| text.iter().zip(found).all(|(wanted, token)| token.is(wanted));
                let names_std = reads(["std", ":", ":"]) || reads(["extern", "crate", "std"]);
                if names_std {
                    let message = "the standard library in a pure room: use `core` or `alloc`, and let the caller pass time, randomness and bytes in";
                    findings.push(Finding::new(&source.path, found[0].line, message));
                }
            }
        }
    }
    Verdict::Checked(findings)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{findings, sources};
    use super::*;

    fn check_with(image: &str) -> Vec<Finding> {
        let good = "//! Pure.\n#![no_std]\n";
        let files = PURE_ROOMS.map(|room| {
            let text = if room == "crates/image" { image } else { good };
            (format!("{room}/src/lib.rs"), text)
        });
        let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
        findings(check(&sources(&files)))
    }

    #[test]
    fn a_pure_room_passes_also_with_tests_that_use_std() {
        let text = "#![no_std]\n// std::fs\nuse alloc::vec; fn f(std: u8) {}\n#[cfg(test)] extern crate std;\n#[cfg(test)] mod tests { use std::x; }";
        assert!(check_with(text).is_empty());
    }

    #[test]
    fn a_room_with_std_is_found() {
        assert!(check_with("#![cfg_attr(not(test), no_std)]")[0].message.contains("no_std"));
    }

    #[test]
    fn std_in_the_product_is_found() {
        let found = check_with("#![no_std]\nextern crate std;\nuse std::time::Instant;\n");
        assert_eq!(found.iter().map(|finding| finding.line).collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn a_missing_room_is_found() {
        assert_eq!(findings(check(&sources(&[]))).len(), PURE_ROOMS.len());
    }
}
