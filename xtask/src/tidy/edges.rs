//! Rule: which room may know which other room.

use super::repository::{Package, Repository};
use super::{Finding, Verdict};

/// The edges, once and for all: a room and those of ours that it may depend on. Arrows point down only.
///
/// `migrate` also names `strategy`, `image`, `linux` and `deterministic`: the driver holds rows and trees in its hands, opens sockets and
/// tells the machines the time, without asking `handoff` or `engine` to hand their types on.
const EDGES: &[(&str, &[&str])] = &[
    ("godwit-deterministic", &[]),
    ("godwit-image", &[]),
    ("godwit-linux", &[]),
    ("godwit-strategy", &["godwit-image"]),
    ("godwit-handoff", &["godwit-strategy", "godwit-image", "godwit-deterministic"]),
    ("godwit-engine", &["godwit-linux", "godwit-image"]),
    (
        "godwit-migrate",
        &["godwit-engine", "godwit-handoff", "godwit-strategy", "godwit-image", "godwit-linux", "godwit-deterministic"],
    ),
    (
        "godwit",
        &[
            "godwit-migrate",
            "godwit-engine",
            "godwit-handoff",
            "godwit-strategy",
            "godwit-image",
            "godwit-linux",
            "godwit-deterministic",
            "godwit-testbed",
            "godwit-bench",
        ],
    ),
    ("godwit-testbed", &["godwit-linux", "godwit-deterministic"]),
    (
        "godwit-bench",
        &[
            "godwit-migrate",
            "godwit-engine",
            "godwit-handoff",
            "godwit-strategy",
            "godwit-image",
            "godwit-linux",
            "godwit-deterministic",
            "godwit-testbed",
        ],
    ),
    ("xtask", &[]),
];

/// Seeded numbers and the exhaustive generator are for everybody's tests.
const FOR_ALL_TESTS: &str = "godwit-deterministic";

/// What one room's tests may use besides: the drivers are tried between two hosts.
const FOR_TESTS_OF: (&str, &str) = ("godwit-migrate", "godwit-testbed");

/// Compares every member's dependencies with the table.
pub(crate) fn check(repository: &Repository) -> Verdict {
    Verdict::Checked(repository.packages.iter().flat_map(|package| check_package(package, repository)).collect())
}

fn check_package(package: &Package, repository: &Repository) -> Vec<Finding> {
    let manifest = format!("{}/Cargo.toml", package.folder);
    let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == package.name) else {
        let message = format!(
            "`{}` is a new room: give it a row in EDGES (xtask/src/tidy/edges.rs) that says what it may know",
            package.name
        );
        return vec![Finding::new(manifest, 1, message)];
    };
    let is_ours = |name: &str| name.starts_with("godwit") || name == "xtask";
    let mut findings = Vec::new();
    for dependency in package.dependencies.iter().filter(|dependency| is_ours(&dependency.name)) {
        let for_tests = (dependency.name == FOR_ALL_TESTS && package.name != FOR_ALL_TESTS)
            || (package.name.as_str(), dependency.name.as_str()) == FOR_TESTS_OF;
        let is_test_tool = dependency.is_for_tests && for_tests;
        if allowed.contains(&dependency.name.as_str()) || is_test_tool {
            continue;
        }
        let line = line_of(repository, &manifest, &dependency.name);
        let may = if allowed.is_empty() { "nothing of ours".to_owned() } else { allowed.join(", ") };
        let message = format!(
            "`{}` must not know `{}` (it may know {may}): move what is needed down, or pass it in as data",
            package.name, dependency.name
        );
        findings.push(Finding::new(&manifest, line, message));
    }
    findings
}

/// The line of `manifest` that names `dependency`, or its first.
fn line_of(repository: &Repository, manifest: &str, dependency: &str) -> usize {
    let text = repository.texts.get(manifest).map_or("", String::as_str);
    let names = |line: &str| {
        let key = line.trim_start().trim_matches('"');
        key.strip_prefix(dependency).is_some_and(|rest| rest.starts_with([' ', '.', '=', '"']))
    };
    text.lines().position(names).map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{findings, package};
    use super::super::repository::Dependency;
    use super::*;

    fn check_one(package: Package) -> Vec<Finding> {
        let manifest = "[package]\n[dependencies]\ngodwit-image.workspace = true\ngodwit-linux.workspace = true\n";
        let texts = [("crates/strategy/Cargo.toml".to_owned(), manifest.to_owned())];
        findings(check(&Repository { packages: vec![package], texts: texts.into(), ..Repository::default() }))
    }

    #[test]
    fn an_edge_of_the_table_passes() {
        assert!(check_one(package("godwit-strategy", "crates/strategy", &["godwit-image", "serde"])).is_empty());
    }

    #[test]
    fn an_edge_that_is_not_in_the_table_is_found_where_it_is_written() {
        let found = check_one(package("godwit-strategy", "crates/strategy", &["godwit-image", "godwit-linux"]));
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].path.as_str(), found[0].line), ("crates/strategy/Cargo.toml", 4));
    }

    #[test]
    fn a_new_room_needs_a_row() {
        assert!(check_one(package("godwit-attic", "crates/attic", &[]))[0].message.contains("EDGES"));
    }

    #[test]
    fn tests_may_use_the_seeded_generator_and_nothing_more() {
        let mut one = package("godwit-strategy", "crates/strategy", &[]);
        one.dependencies.push(Dependency { name: "godwit-deterministic".to_owned(), is_for_tests: true });
        assert!(check_one(one.clone()).is_empty());
        one.dependencies.push(Dependency { name: "godwit-engine".to_owned(), is_for_tests: true });
        assert_eq!(check_one(one).len(), 1);
    }

    #[test]
    fn the_table_has_no_circle() {
        // A room may only know rooms whose longest way down is shorter than its own.
        fn depth(name: &str, path: &mut Vec<String>) -> usize {
            assert!(!path.contains(&name.to_owned()), "a circle: {path:?} → {name}");
            path.push(name.to_owned());
            let (_, below) = EDGES.iter().find(|(room, _)| *room == name).expect("every room has a row");
            let deepest = below.iter().map(|room| 1 + depth(room, path)).max().unwrap_or(0);
            path.pop();
            deepest
        }
        for (room, _) in EDGES {
            depth(room, &mut Vec::new());
        }
    }
}
