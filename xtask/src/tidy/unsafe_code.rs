//! Rule: unsafe code is in `crates/linux` alone.

use super::repository::Repository;
use super::{Finding, Verdict};

/// The room of the kernel's doors.
const ALLOWED: &str = "crates/linux/";

/// Looks for the word `unsafe` in code, not in comments or strings.
pub(crate) fn check(repository: &Repository) -> Verdict {
    let mut findings = Vec::new();
    for source in repository.sources.iter().filter(|source| !source.path.starts_with(ALLOWED)) {
        for token in source.tokens().into_iter().filter(|token| token.is("unsafe")) {
            let message = "`unsafe` outside crates/linux: make a small safe door for it there and call that";
            findings.push(Finding::new(&source.path, token.line, message));
        }
    }
    Verdict::Checked(findings)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{findings, sources};
    use super::*;

    #[test]
    fn unsafe_code_is_found_also_in_tests_and_attributes() {
        let text = "//! One.\nfn f() { unsafe { g() } }\n#[unsafe(no_mangle)]\nfn h() {}\n#[cfg(test)]\nmod tests { unsafe fn x() {} }\n";
        let found = findings(check(&sources(&[("crates/engine/src/lib.rs", text)])));
        assert_eq!(found.iter().map(|finding| finding.line).collect::<Vec<_>>(), [2, 3, 6]);
    }

    #[test]
    fn the_word_in_a_comment_a_string_or_a_longer_word_is_not() {
        let text = "// unsafe\n#![forbid(unsafe_code)]\nconst A: &str = \"unsafe\";\n";
        assert!(findings(check(&sources(&[("crates/engine/src/lib.rs", text)]))).is_empty());
    }

    #[test]
    fn the_kernels_doors_may() {
        assert!(findings(check(&sources(&[("crates/linux/src/kcmp.rs", "unsafe {}")]))).is_empty());
    }
}
