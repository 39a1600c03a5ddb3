//! Rule: every kind of resource is in the table of kinds; a file that is not would be silently dead.

use super::repository::Repository;
use super::source::{Source, item_length};
use super::{Finding, Verdict};

/// The folder of kinds.
const FOLDER: &str = "crates/engine/src/resource/";

/// The name of the table in the folder's mod.rs.
const TABLE: &str = "KINDS";

/// Compares the files of the folder with the table.
pub(crate) fn check(repository: &Repository) -> Verdict {
    let kinds: Vec<_> =
        repository.sources.iter().filter(|source| is_kind(source)).filter_map(|source| stem(&source.path)).collect();
    let path = format!("{FOLDER}mod.rs");
    let Some(hub) = repository.source(&path) else {
        if kinds.is_empty() {
            return Verdict::NotYet(format!("there is no {path} yet, and no kind of resource"));
        }
        return Verdict::Checked(vec![Finding::new(
            path,
            1,
            format!("there are kinds ({}) and no table {TABLE}: make it", kinds.join(", ")),
        )]);
    };
    let tokens = hub.tokens_outside_tests();
    let Some(at) = tokens.windows(2).position(|pair| pair[0].is(TABLE) && pair[1].is(":")) else {
        return Verdict::Checked(vec![Finding::new(
            path,
            1,
            format!("there is no `const {TABLE}: …`: make the table of kinds here"),
        )]);
    };
    let table = &tokens[at..];
    let table = &table[..item_length(table)];
    let mut findings = Vec::new();
    for kind in kinds {
        if !table.windows(2).any(|pair| pair[0].is(kind) && pair[1].is(":")) {
            let message = format!("`{kind}` is not in {TABLE} ({path}): add its line, `&{kind}::…,`");
            findings.push(Finding::new(format!("{FOLDER}{kind}.rs"), 1, message));
        }
    }
    Verdict::Checked(findings)
}

/// Whether a file has a kind: what several kinds share (names, queues) lies beside them and has none.
fn is_kind(source: &Source) -> bool {
    source.tokens_outside_tests().windows(2).any(|pair| pair[0].is("Kind") && pair[1].is("for"))
}

/// The name of the kind that lives at `path`; one that is a folder lives in its mod.rs.
fn stem(path: &str) -> Option<&str> {
    let name = path.strip_prefix(FOLDER)?;
    let name = name.strip_suffix("/mod.rs").or_else(|| name.strip_suffix(".rs"))?;
    (name != "mod" && name != "tests" && !name.contains('/')).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{findings, sources};
    use super::*;

    const PIPE: (&str, &str) = ("crates/engine/src/resource/pipe.rs", "//! Pipes.\nimpl Kind for Pipe {}");

    #[test]
    fn no_kinds_yet_is_said() {
        assert!(matches!(check(&sources(&[])), Verdict::NotYet(_)));
    }

    #[test]
    fn kinds_without_a_table_are_found() {
        assert_eq!(findings(check(&sources(&[PIPE]))).len(), 1);
        let hub = ("crates/engine/src/resource/mod.rs", "mod pipe;");
        assert!(findings(check(&sources(&[hub, PIPE])))[0].message.contains("KINDS"));
    }

    #[test]
    fn a_kind_that_is_not_in_the_table_is_found() {
        let text =
            "mod pipe; mod timer;\npub const KINDS: &[&dyn AnyKind; 1] = &[&pipe::Pipe];\nconst X: u8 = timer::X;";
        let hub = ("crates/engine/src/resource/mod.rs", text);
        let timer = ("crates/engine/src/resource/timer.rs", "//! Timers.\nimpl Kind for Timer {}");
        let found = findings(check(&sources(&[hub, PIPE, timer])));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, "crates/engine/src/resource/timer.rs");
    }
}
