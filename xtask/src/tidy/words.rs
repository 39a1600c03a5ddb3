//! Rule: words that are not used in code, each with what to use instead.

use super::repository::Repository;
use super::token::{Kind, Token};
use super::{Finding, Verdict};

/// The kernel's own field names (`struct uffdio_copy { dst, src, … }`) are its business.
const KERNEL_NAMES: &str = "crates/linux/";

/// A part of a name and its replacement. Matches whole parts between underscores.
const NAMES: [(&str, &str); 2] = [("src", "source"), ("dst", "destination")];

/// A run of tokens and its replacement.
const PHRASES: [(&[&str], &str); 3] = [
    (&["todo", "!"], "do it now, or refuse with a reason that the user can read"),
    (&["unimplemented", "!"], "refuse with a reason that the user can read"),
    (
        &["#", "[", "ignore"],
        "a test that does not run proves nothing: make it run, or skip with a printed reason, or delete it",
    ),
];

/// Looks at the code of every Rust file, tests too.
pub(crate) fn check(repository: &Repository) -> Verdict {
    let mut findings = Vec::new();
    for source in &repository.sources {
        let tokens = source.tokens();
        for at in 0..tokens.len() {
            let rest = &tokens[at..];
            for (phrase, instead) in PHRASES {
                if opens_with(rest, phrase) {
                    findings.push(Finding::new(
                        &source.path,
                        rest[0].line,
                        format!("`{}`: {instead}", phrase.concat()),
                    ));
                }
            }
            if source.path.starts_with(KERNEL_NAMES) || rest[0].kind != Kind::Word {
                continue;
            }
            for (part, instead) in NAMES {
                if rest[0].text.to_lowercase().split('_').any(|found| found == part) {
                    findings.push(Finding::new(
                        &source.path,
                        rest[0].line,
                        format!("`{}`: write {instead}", rest[0].text),
                    ));
                }
            }
        }
    }
    Verdict::Checked(findings)
}

fn opens_with(tokens: &[Token<'_>], phrase: &[&str]) -> bool {
    tokens.len() >= phrase.len() && phrase.iter().zip(tokens).all(|(text, token)| token.is(text))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{findings, sources};
    use super::*;

    fn messages(path: &str, text: &str) -> Vec<String> {
        findings(check(&sources(&[(path, text)]))).into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn banned_words_are_found_with_their_replacement() {
        let found = messages("crates/a/src/a.rs", "let src_host = DST; todo!(); unimplemented!();\n#[ignore = \"x\"]");
        assert_eq!(found.len(), 5, "{found:?}");
        assert!(found[0].contains("source") && found[1].contains("destination"));
    }

    #[test]
    fn other_words_strings_and_comments_pass() {
        let text = "// src\nlet srcset = \"src\"; let path = \"crates/a/src\"; todo(); #[must_use] fn ignore() {}";
        assert!(messages("crates/a/src/a.rs", text).is_empty());
    }

    #[test]
    fn the_kernels_field_names_pass_in_linux() {
        assert!(messages("crates/linux/src/userfaultfd.rs", "copy.src = 1; copy.dst = 2;").is_empty());
        assert_eq!(messages("crates/linux/src/userfaultfd.rs", "todo!()").len(), 1);
    }
}
