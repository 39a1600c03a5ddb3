//! Rule: every dependency on somebody else's code is written once, in the workspace, and explained in ARCHITECTURE.md.

use std::collections::BTreeMap;

use super::repository::Repository;
use super::{Finding, Verdict};

/// The heading of the explanations.
const HEADING: &str = "## Dependencies";

/// Where they are.
const PAGE: &str = "ARCHITECTURE.md";

/// A reason of fewer letters is none.
const LEAST_LETTERS: usize = 20;

/// Compares `[workspace.dependencies]`, the members and the page.
pub(crate) fn check(repository: &Repository) -> Verdict {
    let manifest = repository.texts.get("Cargo.toml").map_or("", String::as_str);
    let declared = declared(manifest);
    let page = repository.texts.get(PAGE).map_or("", String::as_str);
    let explained = explained(page);
    let mut findings = Vec::new();
    for (name, line) in &declared {
        if !explained.contains_key(name) {
            let message = format!(
                "`{name}` is not explained: add \"* `{name}`: why\" under \"{HEADING}\" in {PAGE}, or do without it"
            );
            findings.push(Finding::new("Cargo.toml", *line, message));
        }
    }
    for (name, (line, letters)) in &explained {
        if !declared.contains_key(name) {
            findings.push(Finding::new(PAGE, *line, format!("`{name}` is explained and not used: drop the line")));
        } else if *letters < LEAST_LETTERS {
            findings.push(Finding::new(PAGE, *line, format!("`{name}`: give the reason, not only the name")));
        }
    }
    for package in &repository.packages {
        for dependency in package.dependencies.iter().filter(|dependency| !is_ours(&dependency.name)) {
            if !declared.contains_key(&dependency.name) {
                let message = format!(
                    "`{}` is not in [workspace.dependencies]: write it there and `{}.workspace = true` here",
                    dependency.name, dependency.name
                );
                findings.push(Finding::new(format!("{}/Cargo.toml", package.folder), 1, message));
            }
        }
    }
    Verdict::Checked(findings)
}

fn is_ours(name: &str) -> bool {
    name.starts_with("godwit")
}

/// The foreign names under `[workspace.dependencies]`, with their lines.
fn declared(manifest: &str) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let mut is_inside = false;
    for (index, line) in manifest.lines().enumerate() {
        if let Some(table) = line.strip_prefix('[') {
            is_inside = table.starts_with("workspace.dependencies]");
            if let Some(name) = table.strip_prefix("workspace.dependencies.") {
                found.insert(name.trim_end_matches(']').to_owned(), index + 1);
            }
        } else if is_inside && line.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
            let name = line.split(['=', '.', ' ']).next().unwrap_or(line);
            found.insert(name.to_owned(), index + 1);
        }
    }
    found.retain(|name, _| !is_ours(name));
    found
}

/// The names explained on the page, with their lines and the letters of their reasons. A reason may go on over
/// indented lines.
fn explained(page: &str) -> BTreeMap<String, (usize, usize)> {
    let mut found: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let mut latest = None;
    let lines = page.lines().enumerate().skip_while(|(_, line)| line.trim() != HEADING).skip(1);
    for (index, line) in lines.take_while(|(_, line)| !line.starts_with("## ")) {
        let letters = |text: &str| text.chars().filter(|c| c.is_alphabetic()).count();
        let item = line.strip_prefix("* `").or_else(|| line.strip_prefix("- `")).and_then(|rest| rest.split_once('`'));
        if let Some((name, reason)) = item {
            found.insert(name.to_owned(), (index + 1, letters(reason)));
            latest = Some(name.to_owned());
        } else if line.starts_with(' ')
            && let Some(entry) = latest.as_ref().and_then(|name| found.get_mut(name))
        {
            entry.1 += letters(line);
        } else {
            latest = None;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{findings, package, texts};
    use super::*;

    const MANIFEST: &str = "[workspace.dependencies]\ngodwit-image = { path = \"x\" }\nlibc = \"0.2\"\nserde = { version = \"1\" }\n\n[profile.dev]\ndebug = 1\n";

    fn check_with(page: &str) -> Vec<Finding> {
        findings(check(&texts(&[("Cargo.toml", MANIFEST), (PAGE, page)])))
    }

    #[test]
    fn explained_dependencies_pass() {
        let page = "# A\n## Dependencies\n* `libc`: the kernel's numbers and structures.\n* `serde`:\n  plain data to bytes and back again.\n## Next\n* `other`\n";
        assert_eq!(check_with(page), []);
    }

    #[test]
    fn one_without_a_reason_is_found() {
        let found = check_with("## Dependencies\n* `libc`: the kernel's numbers and structures.\n* `serde`: data\n");
        assert_eq!((found.len(), found[0].line), (1, 3));
        let found = check_with("## Dependencies\n* `libc`: the kernel's numbers and structures.\n");
        assert_eq!((found[0].path.as_str(), found[0].line), ("Cargo.toml", 4));
    }

    #[test]
    fn one_that_is_gone_is_found() {
        let page = "## Dependencies\n* `libc`: the kernel's numbers and structures.\n* `serde`: plain data to bytes and back.\n* `rand`: numbers that nobody needs here.\n";
        assert!(check_with(page)[0].message.contains("rand"));
    }

    #[test]
    fn one_that_a_member_writes_alone_is_found() {
        let page = "## Dependencies\n* `libc`: the kernel's numbers and structures.\n* `serde`: plain data to bytes and back.\n";
        let mut repository = texts(&[("Cargo.toml", MANIFEST), (PAGE, page)]);
        repository.packages = vec![package("godwit-engine", "crates/engine", &["libc", "rand", "godwit-linux"])];
        let found = findings(check(&repository));
        assert_eq!((found.len(), found[0].path.as_str()), (1, "crates/engine/Cargo.toml"));
    }
}
