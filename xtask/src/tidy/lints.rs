//! Rule: every room has the workspace's lints, and `crates/linux`, which cannot inherit them, its own of equal rank.

use super::repository::Repository;
use super::{Finding, Verdict};

/// What the root must say, so that inheriting means something.
const ROOT: [(&str, &str); 1] = [("[workspace.lints.rust]", "unsafe_code = \"forbid\"")];

/// What `crates/linux` must say: `forbid` cannot be relaxed by an inner `allow`, so it writes its own table.
const LINUX: [(&str, &str); 2] = [
    ("[lints.rust]", "unsafe_op_in_unsafe_fn = \"deny\""),
    ("[lints.clippy]", "undocumented_unsafe_blocks = \"deny\""),
];

/// Looks into the root's manifest and into that of every member.
pub(crate) fn check(repository: &Repository) -> Verdict {
    let mut findings = Vec::new();
    let mut demand = |path: &str, wanted: &[(&str, &str)]| {
        let text = repository.texts.get(path).map_or("", String::as_str);
        for (table, line) in wanted {
            if !has_line(text, table, line) {
                findings.push(Finding::new(path, 1, format!("`{line}` is missing under `{table}`: add it")));
            }
        }
    };
    demand("Cargo.toml", &ROOT);
    for package in &repository.packages {
        let manifest = format!("{}/Cargo.toml", package.folder);
        if package.folder == "crates/linux" {
            demand(&manifest, &LINUX);
        } else {
            demand(&manifest, &[("[lints]", "workspace = true")]);
        }
    }
    Verdict::Checked(findings)
}

/// Does `line` stand in `table` of the manifest `text`?
fn has_line(text: &str, table: &str, line: &str) -> bool {
    let body = text.lines().skip_while(|found| found.trim() != table).skip(1);
    body.take_while(|found| !found.starts_with('[')).any(|found| found.trim() == line)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{findings, package, texts};
    use super::*;

    fn check_with(root: &str, engine: &str, linux: &str) -> Vec<Finding> {
        let manifests =
            [("Cargo.toml", root), ("crates/engine/Cargo.toml", engine), ("crates/linux/Cargo.toml", linux)];
        let mut repository = texts(&manifests);
        repository.packages =
            vec![package("godwit-engine", "crates/engine", &[]), package("godwit-linux", "crates/linux", &[])];
        findings(check(&repository))
    }

    const GOOD_ROOT: &str = "[workspace.lints.rust]\nunsafe_code = \"forbid\"\n";
    const GOOD: &str = "[package]\n[lints]\nworkspace = true\n[dependencies]\n";
    const GOOD_LINUX: &str =
        "[lints.rust]\nunsafe_op_in_unsafe_fn = \"deny\"\n[lints.clippy]\nundocumented_unsafe_blocks = \"deny\"\n";

    #[test]
    fn the_lints_in_their_places_pass() {
        assert!(check_with(GOOD_ROOT, GOOD, GOOD_LINUX).is_empty());
    }

    #[test]
    fn a_weaker_root_is_found() {
        assert_eq!(
            check_with("[workspace.lints.rust]\nunsafe_code = \"deny\"\n", GOOD, GOOD_LINUX)[0].path,
            "Cargo.toml"
        );
    }

    #[test]
    fn a_room_without_the_lints_is_found() {
        let found = check_with(GOOD_ROOT, "[lints]\n[dependencies]\nworkspace = true\n", GOOD_LINUX);
        assert_eq!(found[0].path, "crates/engine/Cargo.toml");
    }

    #[test]
    fn undocumented_unsafe_blocks_must_be_denied() {
        let found = check_with(GOOD_ROOT, GOOD, "[lints.rust]\nunsafe_op_in_unsafe_fn = \"deny\"\n");
        assert!(found[0].message.contains("undocumented_unsafe_blocks"));
    }
}
