//! docs/resources.md against the code: every kind and every refused object has its row, and every workload and held object that it
//! names exists.
use godwit_engine::resource::{KINDS, refused};
use std::collections::BTreeSet;
use std::path::Path;

fn text(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The rows of the tables below a heading, by cells.
fn rows<'a>(document: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let part = document
        .split("\n## ")
        .find(|part| part.starts_with(heading))
        .unwrap_or_else(|| panic!("no heading {heading}"));
    let lines = part.lines().filter(|line| line.starts_with("| ")).skip(1);
    lines.map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn every_kind_has_its_row() {
    let document = text("docs/resources.md");
    let listed: Vec<String> = rows(&document, "Kinds of resources").iter().map(|row| row[0].to_owned()).collect();
    let known: Vec<String> = KINDS.iter().map(|kind| kind.name().to_owned()).collect();
    let (of_document, of_code): (BTreeSet<_>, BTreeSet<_>) = (listed.iter().collect(), known.iter().collect());
    assert_eq!(of_document, of_code, "docs/resources.md and KINDS differ");
    assert_eq!(listed.len(), known.len(), "a row comes twice");
    let named: Vec<String> = rows(&document, "Refused by name").iter().map(|row| row[0].to_owned()).collect();
    let table: Vec<&str> = refused::TABLE.iter().map(|row| row.name).collect();
    assert_eq!(
        named.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        table.iter().copied().collect(),
        "docs/resources.md and the table of refused objects differ"
    );
    for row in rows(&document, "Refused by name") {
        assert!(
            refused::TABLE.iter().any(|of_code| of_code.name == row[0] && of_code.reason == row[1]),
            "{}: another reason",
            row[0]
        );
    }
}

#[test]
fn what_shows_it_exists() {
    let document = text("docs/resources.md");
    let holders = text("testbed/holders/objects.h");
    let workloads = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testbed/workloads");
    let mut shown = 0;
    for heading in ["Tasks and memory", "Kinds of resources", "Refused by name"] {
        for row in rows(&document, heading) {
            let last = row.last().copied().unwrap_or_default();
            for name in quoted(last) {
                shown += 1;
                let held = holders.contains(&format!("{{\"{name}\", hold_"));
                assert!(held || workloads.join(format!("{name}.c")).exists(), "{}: nothing is called {name}", row[0]);
            }
            assert!(quoted(last).next().is_some() || last == "–", "{}: shown by nothing", row[0]);
        }
    }
    assert!(shown > 100, "{shown}");
}

/// Renewed by `cargo xtask man`.
#[test]
fn manual_pages_are_current() {
    let fresh = std::env::temp_dir().join(format!("godwit-man-{}", godwit_testbed::leftover::process_name()));
    let status = std::process::Command::new(crate::scene::GODWIT).arg("man").arg(&fresh).status().expect("godwit runs");
    assert!(status.success());
    let names = |directory: &Path| -> BTreeSet<String> {
        let entries = std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/man");
    let pages = names(&fresh);
    assert!(pages.contains("godwit.1") && pages.contains("godwit-migrate.1"), "{pages:?}");
    assert_eq!(names(&kept), pages, "run cargo xtask man");
    for page in pages {
        let (now, then) = (std::fs::read_to_string(fresh.join(&page)), std::fs::read_to_string(kept.join(&page)));
        assert_eq!(now.expect("a page"), then.expect("a page"), "{page}: run cargo xtask man");
    }
    std::fs::remove_dir_all(&fresh).expect("removed");
}
