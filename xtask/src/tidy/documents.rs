//! Rule: a page that describes bytes is locked to the code that writes them.
//!
//! Such a page has a line `source-hash: HASH of PATH PATH …`. The hash is over the tokens of those files outside
//! their tests, so that comments and formatting change nothing. When it differs, somebody reads the page again,
//! corrects it, and runs `cargo xtask tidy --bless`.

use super::repository::Repository;
use super::{Finding, Verdict};

/// The pages that must be locked once they exist.
const LOCKED: [&str; 2] = ["docs/wire.md", "docs/image.md"];

/// What the line begins with, after whatever opens a comment there.
const MARK: &str = "source-hash:";

/// Compares the hash on every locked page with that of its sources.
pub(crate) fn check(repository: &Repository) -> Verdict {
    let mut findings = Vec::new();
    let mut is_any = false;
    for (path, text) in repository.texts.iter().filter(|(path, _)| path.starts_with("docs/")) {
        let locks: Vec<_> =
            text.lines().enumerate().filter_map(|(index, line)| Some((index + 1, lock(line)?))).collect();
        is_any |= !locks.is_empty();
        if locks.is_empty() && LOCKED.contains(&path.as_str()) {
            is_any = true;
            let message = format!(
                "describes bytes and is not locked to the code: add `<!-- {MARK} 0 of crates/… -->` and run `cargo xtask tidy --bless`"
            );
            findings.push(Finding::new(path, 1, message));
        }
        for (line, lock) in locks {
            findings.extend(compare(repository, &lock).map(|message| Finding::new(path, line, message)));
        }
    }
    if is_any {
        Verdict::Checked(findings)
    } else {
        Verdict::NotYet(format!("neither {} exists yet", LOCKED.join(" nor ")))
    }
}

fn compare(repository: &Repository, lock: &Lock<'_>) -> Option<String> {
    match hash(repository, &lock.sources) {
        Err(missing) => Some(missing),
        Ok(hash) if hash == lock.hash => None,
        Ok(hash) => Some(format!(
            "the sources have changed (now {hash}): read {} again, correct this page, then run `cargo xtask tidy --bless`",
            lock.sources.join(" and ")
        )),
    }
}

/// The pages whose hashes have to change, with their new texts.
pub(crate) fn blessed(repository: &Repository) -> Vec<(String, String)> {
    let mut changes = Vec::new();
    for (path, text) in repository.texts.iter().filter(|(path, _)| path.starts_with("docs/")) {
        let mut blessed = String::new();
        for line in text.split_inclusive('\n') {
            match lock(line).map(|lock| (hash(repository, &lock.sources), lock)) {
                Some((Ok(hash), lock)) => blessed.push_str(&line.replacen(lock.hash, &hash, 1)),
                _ => blessed.push_str(line),
            }
        }
        if blessed != *text {
            changes.push((path.clone(), blessed));
        }
    }
    changes
}

/// What a locking line says.
struct Lock<'a> {
    hash: &'a str,
    sources: Vec<&'a str>,
}

fn lock(line: &str) -> Option<Lock<'_>> {
    let line = line.trim().trim_start_matches("<!--").trim_end_matches("-->").trim();
    let mut words = line.strip_prefix(MARK)?.split_whitespace();
    let hash = words.next()?;
    let sources: Vec<_> = words.skip_while(|word| *word == "of").collect();
    (!sources.is_empty()).then_some(Lock { hash, sources })
}

/// FNV-1a, 64 bits, over the tokens: nobody attacks it, it only has to notice a change.
fn hash(repository: &Repository, sources: &[&str]) -> Result<String, String> {
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    let mut mix = |bytes: &[u8]| {
        for byte in bytes {
            state = (state ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    for path in sources {
        let source = repository
            .source(path)
            .ok_or_else(|| format!("there is no {path}: name the file that writes these bytes"))?;
        mix(path.as_bytes());
        for token in source.tokens_outside_tests() {
            mix(&[0]);
            mix(token.text.as_bytes());
        }
    }
    Ok(format!("{state:016x}"))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{findings, sources};
    use super::*;

    const CODE: &str = "const MAGIC: u32 = 7;\n";

    fn repository(code: &str, page: &str) -> Repository {
        let mut repository = sources(&[("crates/image/src/codec.rs", code)]);
        repository.texts.insert("docs/image.md".to_owned(), page.to_owned());
        repository
    }

    fn blessed_page() -> String {
        let page = "# Image\n<!-- source-hash: 0 of crates/image/src/codec.rs -->\ntext\n";
        let changes = blessed(&repository(CODE, page));
        assert_eq!(changes.len(), 1);
        changes[0].1.clone()
    }

    #[test]
    fn no_page_yet_is_said() {
        assert!(matches!(check(&Repository::default()), Verdict::NotYet(_)));
    }

    #[test]
    fn a_page_without_a_lock_is_found() {
        assert_eq!(findings(check(&repository(CODE, "# Image\n"))).len(), 1);
    }

    #[test]
    fn a_blessed_page_passes_until_the_code_changes() {
        let page = blessed_page();
        assert_eq!(findings(check(&repository(CODE, &page))), []);
        let commented = "// why\nconst MAGIC : u32 = 7; #[cfg(test)] mod tests { fn f() {} }";
        assert_eq!(findings(check(&repository(commented, &page))), []);
        let found = findings(check(&repository("const MAGIC: u32 = 8;\n", &page)));
        assert_eq!((found.len(), found[0].line), (1, 2));
        assert!(blessed(&repository(CODE, &page)).is_empty());
    }

    #[test]
    fn a_source_that_is_gone_is_found() {
        let found = findings(check(&repository(CODE, "source-hash: 0 of crates/image/src/gone.rs\n")));
        assert!(found[0].message.contains("there is no"));
    }
}
