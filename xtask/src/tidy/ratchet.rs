//! The ratchet: what is larger than it should be, written down, and free only to shrink.

use std::collections::BTreeMap;

use super::Finding;
use super::repository::Repository;

/// Where the entries are.
pub(crate) const PATH: &str = "xtask/ratchet.txt";

/// One line of the ratchet, `subject path value`, as (`subject path`, value). Comments and blank lines are nothing.
pub(crate) fn parse_line(line: &str) -> Option<(String, usize)> {
    let mut words = line.split_whitespace();
    let (subject, path, value) = (words.next()?, words.next()?, words.next()?);
    if subject.starts_with('#') || words.next().is_some() {
        return None;
    }
    Some((format!("{subject} {path}"), value.parse().ok()?))
}

/// Compares what is too large (`measured`, by path) with the entries for `subject`.
///
/// `advice` says how to make one smaller.
pub(crate) fn compare(
    repository: &Repository,
    subject: &str,
    measured: &BTreeMap<String, usize>,
    advice: &str,
) -> Vec<Finding> {
    let text = repository.texts.get(PATH).map_or("", String::as_str);
    let mut entries = BTreeMap::new();
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let Some((entry, value)) = parse_line(line) else {
            if !line.trim().is_empty() && !line.starts_with('#') {
                findings.push(Finding::new(PATH, index + 1, "not an entry: write `subject path value`"));
            }
            continue;
        };
        if let Some(path) = entry.strip_prefix(subject).and_then(|rest| rest.strip_prefix(' ')) {
            entries.insert(path.to_owned(), (value, index + 1));
            let least =
                repository.ratchet_history.iter().filter(|(past, _)| *past == entry).map(|(_, past)| *past).min();
            if let Some(least) = least.filter(|least| value > *least) {
                let message =
                    format!("`{entry}` was {least} before and may only shrink, not grow to {value}: {advice}");
                findings.push(Finding::new(PATH, index + 1, message));
            }
        }
    }
    for (path, value) in measured {
        match entries.get(path) {
            Some((entry, _)) if value <= entry => {}
            Some((entry, _)) => {
                let message = format!("{subject}: {value}, more than its ratchet of {entry}: {advice}");
                findings.push(Finding::new(path, 1, message));
            }
            None => {
                let message = format!(
                    "{subject}: {value}, and no entry in {PATH}: {advice}, or add `{subject} {path} {value}` there"
                );
                findings.push(Finding::new(path, 1, message));
            }
        }
    }
    for (path, (entry, line)) in entries {
        match measured.get(&path) {
            Some(value) if *value < entry => {
                let message = format!(
                    "`{subject} {path}` has shrunk to {value}: run `cargo xtask tidy --bless` to keep it there"
                );
                findings.push(Finding::new(PATH, line, message));
            }
            None => {
                let message =
                    format!("`{subject} {path}` is no longer too large: run `cargo xtask tidy --bless` to drop it");
                findings.push(Finding::new(PATH, line, message));
            }
            Some(_) => {}
        }
    }
    findings
}

/// The text of the ratchet with every entry lowered to what was measured now, and the ones that are no longer needed
/// dropped. Never raises or adds one: that is a decision for a person.
pub(crate) fn lowered(text: &str, measured: &BTreeMap<String, usize>) -> String {
    let mut lowered = String::new();
    for line in text.lines() {
        let kept = match parse_line(line) {
            None => line.to_owned(),
            Some((entry, value)) => match measured.get(&entry) {
                None => continue,
                Some(now) => format!("{entry} {}", value.min(*now)),
            },
        };
        lowered.push_str(&kept);
        lowered.push('\n');
    }
    lowered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str, history: &[(&str, usize)], measured: &[(&str, usize)]) -> Vec<String> {
        let repository = Repository {
            texts: BTreeMap::from([(PATH.to_owned(), text.to_owned())]),
            ratchet_history: history.iter().map(|(entry, value)| ((*entry).to_owned(), *value)).collect(),
            ..Repository::default()
        };
        let measured = measured.iter().map(|(path, value)| ((*path).to_owned(), *value)).collect();
        compare(&repository, "lines", &measured, "split it").into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn an_exact_entry_passes() {
        assert!(findings("# why\nlines a.rs 700\nother a.rs 3\n", &[("lines a.rs", 710)], &[("a.rs", 700)]).is_empty());
    }

    #[test]
    fn what_is_too_large_needs_an_entry() {
        assert!(findings("", &[], &[("a.rs", 700)])[0].contains("no entry"));
    }

    #[test]
    fn what_has_grown_is_found() {
        assert!(findings("lines a.rs 700", &[], &[("a.rs", 701)])[0].contains("more than its ratchet of 700"));
    }

    #[test]
    fn what_has_shrunk_must_be_kept() {
        assert!(findings("lines a.rs 700", &[], &[("a.rs", 650)])[0].contains("shrunk to 650"));
        assert!(findings("lines a.rs 700", &[], &[])[0].contains("no longer"));
    }

    #[test]
    fn raising_an_entry_by_hand_is_found() {
        let found = findings("lines a.rs 710", &[("lines a.rs", 720), ("lines a.rs", 700)], &[("a.rs", 710)]);
        assert!(found[0].contains("was 700 before"), "{found:?}");
    }

    #[test]
    fn nonsense_is_found() {
        assert!(findings("lines a.rs\n", &[], &[])[0].contains("not an entry"));
    }

    #[test]
    fn blessing_lowers_and_drops_but_never_raises() {
        let measured = [("lines a.rs", 650), ("lines b.rs", 800)].map(|(entry, value)| (entry.to_owned(), value));
        let text = "# why\nlines a.rs 700\nlines b.rs 700\nlines c.rs 700\n";
        assert_eq!(lowered(text, &BTreeMap::from(measured)), "# why\nlines a.rs 650\nlines b.rs 700\n");
    }
}
