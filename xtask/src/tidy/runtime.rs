//! Rule: an asynchronous runtime lives in `cluster` and above, nowhere below.

use super::repository::Repository;
use super::{Finding, Verdict};

/// The rooms that may have one.
const ALLOWED: [&str; 2] = ["godwit-cluster", "godwit"];

/// What counts as one.
const RUNTIMES: [&str; 4] = ["tokio", "async-std", "smol", "futures"];

/// Looks for a runtime among the dependencies of every other room.
pub(crate) fn check(repository: &Repository) -> Verdict {
    let mut findings = Vec::new();
    for package in repository.packages.iter().filter(|package| !ALLOWED.contains(&package.name.as_str())) {
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            if RUNTIMES.iter().any(|runtime| name == *runtime || name.starts_with(&format!("{runtime}-"))) {
                let manifest = format!("{}/Cargo.toml", package.folder);
                let message = format!(
                    "`{}` must not depend on `{name}`: use threads and blocking calls, or move this into `cluster`",
                    package.name
                );
                findings.push(Finding::new(manifest, 1, message));
            }
        }
    }
    Verdict::Checked(findings)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{findings, package};
    use super::*;

    #[test]
    fn a_runtime_below_is_found_and_one_above_is_not() {
        let below = package("godwit-migrate", "crates/migrate", &["tokio-util", "tokenizer"]);
        let above = package("godwit-cluster", "crates/cluster", &["tokio"]);
        let repository = Repository { packages: vec![below, above], ..Repository::default() };
        let found = findings(check(&repository));
        assert_eq!(found.len(), 1);
        assert!(found[0].message.contains("tokio-util"));
    }
}
