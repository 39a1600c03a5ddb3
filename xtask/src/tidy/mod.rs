//! The rules of the house, each in a file of its own, and the table that runs them.

pub(crate) mod repository;

mod clippy_tables;
mod dependencies;
mod documents;
mod edges;
mod file_length;
mod file_names;
mod function_length;
mod headers;
mod kinds;
mod lints;
mod purity;
mod ratchet;
mod rooms;
mod runtime;
mod source;
mod token;
mod unsafe_code;
mod words;

use std::collections::BTreeMap;
use std::path::Path;
use std::{fmt, fs};

use repository::Repository;

/// Something that breaks a rule: where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The file, from the root of the repository.
    pub(crate) path: String,
    /// The line, counted from 1.
    pub(crate) line: usize,
    /// What is wrong and what to do.
    pub(crate) message: String,
}

impl Finding {
    fn new(path: impl Into<String>, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.into(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// What a rule says about the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It looked; nothing found means that the rule holds.
    Checked(Vec<Finding>),
    /// What the rule is about does not exist yet.
    NotYet(String),
}

/// One rule.
pub(crate) struct Rule {
    /// Its name: that of its file.
    pub(crate) name: &'static str,
    /// Looks at the repository.
    pub(crate) check: fn(&Repository) -> Verdict,
}

/// All rules.
pub(crate) const RULES: &[Rule] = &[
    Rule { name: "edges", check: edges::check },
    Rule { name: "runtime", check: runtime::check },
    Rule { name: "unsafe_code", check: unsafe_code::check },
    Rule { name: "lints", check: lints::check },
    Rule { name: "purity", check: purity::check },
    Rule { name: "clippy_tables", check: clippy_tables::check },
    Rule { name: "headers", check: headers::check },
    Rule { name: "rooms", check: rooms::check },
    Rule { name: "file_names", check: file_names::check },
    Rule { name: "words", check: words::check },
    Rule { name: "file_length", check: file_length::check },
    Rule { name: "function_length", check: function_length::check },
    Rule { name: "kinds", check: kinds::check },
    Rule { name: "dependencies", check: dependencies::check },
    Rule { name: "documents", check: documents::check },
];

/// Writes what may be written by a machine: the hashes in the documents, and lower entries in the ratchet.
///
/// Returns what was changed.
///
/// # Errors
/// A file that cannot be written.
pub(crate) fn bless(root: &Path, repository: &Repository) -> Result<Vec<String>, String> {
    let mut changes = documents::blessed(repository);
    if let Some(text) = repository.texts.get(ratchet::PATH) {
        let mut measured = BTreeMap::new();
        for (subject, values) in [
            (file_length::SUBJECT, file_length::measure(repository)),
            (function_length::SUBJECT, function_length::measure(repository)),
        ] {
            measured.extend(values.into_iter().map(|(path, value)| (format!("{subject} {path}"), value)));
        }
        let lowered = ratchet::lowered(text, &measured);
        if lowered != *text {
            changes.push((ratchet::PATH.to_owned(), lowered));
        }
    }
    for (path, text) in &changes {
        fs::write(root.join(path), text).map_err(|error| format!("writing {path}: {error}"))?;
    }
    Ok(changes.into_iter().map(|(path, _)| path).collect())
}

/// What the tests of the rules share.
#[cfg(test)]
mod fixture {
    use super::repository::{Dependency, Package, Repository};
    use super::source::Source;
    use super::{Finding, Verdict};

    /// A repository of these Rust files.
    pub(super) fn sources(files: &[(&str, &str)]) -> Repository {
        Repository {
            sources: files.iter().map(|(path, text)| Source::new(*path, *text)).collect(),
            ..Repository::default()
        }
    }

    /// A repository of these other files.
    pub(super) fn texts(files: &[(&str, &str)]) -> Repository {
        let texts = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        Repository { texts, ..Repository::default() }
    }

    /// A member of the workspace that depends on `dependencies`.
    pub(super) fn package(name: &str, folder: &str, dependencies: &[&str]) -> Package {
        let dependency = |name: &&str| Dependency { name: (*name).to_owned(), is_for_tests: false };
        Package {
            name: name.to_owned(),
            folder: folder.to_owned(),
            dependencies: dependencies.iter().map(dependency).collect(),
            ..Package::default()
        }
    }

    /// The findings of a rule that must have looked.
    pub(super) fn findings(verdict: Verdict) -> Vec<Finding> {
        match verdict {
            Verdict::Checked(findings) => findings,
            Verdict::NotYet(why) => panic!("the rule did not look: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The house itself: `cargo test` fails where `cargo xtask tidy` would.
    #[test]
    fn every_rule_holds() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository");
        let repository = Repository::read(root).expect("the repository can be read");
        for rule in RULES {
            if let Verdict::Checked(findings) = (rule.check)(&repository) {
                let lines: Vec<_> = findings.iter().map(Finding::to_string).collect();
                assert!(lines.is_empty(), "{}:\n{}", rule.name, lines.join("\n"));
            }
        }
    }

    #[test]
    fn every_rule_file_is_in_the_table() {
        let text = include_str!("mod.rs");
        let modules = text.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
        let machinery = ["ratchet", "source", "token"];
        let rules: Vec<_> = modules.filter(|module| !machinery.contains(module)).collect();
        assert_eq!(rules.len(), RULES.len(), "{rules:?}");
        for rule in RULES {
            assert!(rules.contains(&rule.name), "{}", rule.name);
        }
    }
}
