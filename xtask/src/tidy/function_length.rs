//! Rule: a function fits on a page; how many of a file do not is in the ratchet and may only shrink.

use std::collections::BTreeMap;

use super::repository::Repository;
use super::source::{Source, item_length};
use super::token::Kind;
use super::{Verdict, ratchet};

/// What an entry of the ratchet begins with.
pub(crate) const SUBJECT: &str = "long-functions";

/// A function may have as many lines, from `fn` to its last brace.
const LIMIT: usize = 70;

/// The files with longer functions, and how many of them.
pub(crate) fn measure(repository: &Repository) -> BTreeMap<String, usize> {
    let counts = repository.sources.iter().map(|source| (source.path.clone(), long_functions(source).len()));
    counts.filter(|(_, count)| *count > 0).collect()
}

/// Compares the counts with the ratchet; a finding names the functions and stands at the first.
pub(crate) fn check(repository: &Repository) -> Verdict {
    let advice = format!("split functions of more than {LIMIT} lines into named steps");
    let mut findings = ratchet::compare(repository, SUBJECT, &measure(repository), &advice);
    for finding in &mut findings {
        let Some(source) = repository.source(&finding.path) else { continue };
        let long = long_functions(source);
        if let Some((_, line, _)) = long.first() {
            finding.line = *line;
            let names: Vec<_> =
                long.iter().map(|(name, line, lines)| format!("{name} at line {line} has {lines} lines")).collect();
            finding.message = format!("{} ({})", finding.message, names.join(", "));
        }
    }
    Verdict::Checked(findings)
}

/// The functions that are too long: name, first line, number of lines.
fn long_functions(source: &Source) -> Vec<(String, usize, usize)> {
    let tokens = source.tokens();
    let mut found = Vec::new();
    for (at, pair) in tokens.windows(2).enumerate() {
        // A pointer type, `fn(…)`, has no name.
        if !pair[0].is("fn") || pair[1].kind != Kind::Word {
            continue;
        }
        let length = item_length(&tokens[at..]);
        let end = tokens[at + length - 1].line;
        let lines = end - pair[0].line + 1;
        if lines > LIMIT {
            found.push((pair[1].text.to_owned(), pair[0].line, lines));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{findings, sources};
    use super::*;

    fn function(name: &str, lines: usize) -> String {
        format!("fn {name}(a: [u8; 4]) -> [u8; 2] {{\n{}}}\n", "x;\n".repeat(lines - 2))
    }

    #[test]
    fn lengths_are_counted_from_fn_to_the_last_brace() {
        let text = format!("{}{}trait T {{ fn c(&self); fn d(&self) {{}} }}\n", function("a", 70), function("b", 71));
        assert_eq!(long_functions(&Source::new("a.rs", text)), [("b".to_owned(), 71, 71)]);
    }

    #[test]
    fn a_long_function_without_an_entry_is_found_where_it_begins() {
        let text = format!("\n{}", function("b", 71));
        let mut repository = sources(&[("a.rs", &text)]);
        let found = findings(check(&repository));
        assert_eq!(found[0].line, 2);
        assert!(found[0].message.contains("b at line 2 has 71 lines"), "{}", found[0].message);
        repository.texts.insert(ratchet::PATH.to_owned(), "long-functions a.rs 1".to_owned());
        assert!(findings(check(&repository)).is_empty());
    }
}
