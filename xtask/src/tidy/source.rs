//! One Rust file: its text, and which of its tokens are not tests.

use super::token::{Kind, Token, tokens};

/// A Rust file of the repository.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Where it is, from the root of the repository, with `/`.
    pub(crate) path: String,
    /// What is in it.
    pub(crate) text: String,
    /// The whole file is compiled for tests only.
    pub(crate) is_test: bool,
}

impl Source {
    /// Is this file in a folder of tests, or named so?
    pub(crate) fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        let path = path.into();
        let is_test = path.split('/').any(|part| part == "tests" || part == "tests.rs");
        Self { path, text: text.into(), is_test }
    }

    /// All tokens.
    pub(crate) fn tokens(&self) -> Vec<Token<'_>> {
        tokens(&self.text)
    }

    /// The tokens that are compiled into the product: nothing of a test file, and no item under `#[cfg(test)]`.
    pub(crate) fn tokens_outside_tests(&self) -> Vec<Token<'_>> {
        if self.is_test {
            return Vec::new();
        }
        let all = self.tokens();
        let mut kept = Vec::with_capacity(all.len());
        let mut at = 0;
        while at < all.len() {
            if let Some(length) = test_attribute(&all[at..]) {
                at += length;
                at += item_length(&all[at..]);
            } else {
                kept.push(all[at]);
                at += 1;
            }
        }
        kept
    }

    /// The modules that this file declares as `#[cfg(test)] mod name;`: their files are tests.
    pub(crate) fn test_modules(&self) -> Vec<&str> {
        let all = self.tokens();
        let mut found = Vec::new();
        for at in 0..all.len() {
            if let Some(length) = test_attribute(&all[at..]) {
                let item = &all[at + length..];
                let item = &item[..item_length(item)];
                if let [.., module, name, end] = item
                    && module.is("mod")
                    && end.is(";")
                {
                    found.push(name.text);
                }
            }
        }
        found
    }

    /// The first lines, as far as they are `//!`, joined by spaces.
    pub(crate) fn header(&self) -> String {
        let lines = self.text.lines().map_while(|line| line.strip_prefix("//!"));
        lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
    }
}

/// The length of `#[cfg(test)]` or `#[test]`, if `tokens` opens with it.
fn test_attribute(tokens: &[Token<'_>]) -> Option<usize> {
    let opens = |pattern: &[&str]| {
        tokens.len() >= pattern.len() && pattern.iter().zip(tokens).all(|(text, token)| token.is(text))
    };
    [&["#", "[", "cfg", "(", "test", ")", "]"][..], &["#", "[", "test", "]"][..]]
        .into_iter()
        .find(|pattern| opens(pattern))
        .map(<[_]>::len)
}

/// The length of the item (its attributes included) that `tokens` opens with: to its `;`, or to the end of its block.
pub(crate) fn item_length(tokens: &[Token<'_>]) -> usize {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate() {
        if token.kind != Kind::Sign {
            continue;
        }
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => {
                depth = depth.saturating_sub(1);
                if depth == 0 && token.text == "}" {
                    return at + 1;
                }
            }
            ";" if depth == 0 => return at + 1,
            _ => {}
        }
    }
    tokens.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outside(text: &str) -> Vec<String> {
        let source = Source::new("crates/a/src/a.rs", text);
        source.tokens_outside_tests().iter().map(|token| token.text.to_owned()).collect()
    }

    #[test]
    fn test_items_are_left_out() {
        let text = "a #[cfg(test)] #[allow(x)] mod tests { fn f() { b } } c #[cfg(test)] use std::x; d";
        assert_eq!(outside(text), ["a", "c", "d"]);
    }

    #[test]
    fn other_attributes_stay() {
        assert_eq!(outside("#[cfg(unix)] x;").join(""), "#[cfg(unix)]x;");
    }

    #[test]
    fn a_folder_of_tests_holds_tests() {
        assert!(Source::new("crates/a/tests/all.rs", "").is_test);
        assert!(Source::new("crates/a/src/x/tests.rs", "").is_test);
        assert!(!Source::new("crates/a/src/testing.rs", "").is_test);
    }

    #[test]
    fn test_modules_are_named() {
        let source = Source::new("a.rs", "mod a; #[cfg(test)] pub(crate) mod pair; #[cfg(test)] mod tests { mod q; }");
        assert_eq!(source.test_modules(), ["pair"]);
    }

    #[test]
    fn the_header_is_joined_and_ends_at_the_first_other_line() {
        let source = Source::new("a.rs", "//! It must\n//! never know.\nuse x;\n//! not this\n");
        assert_eq!(source.header(), "It must never know.");
    }
}
