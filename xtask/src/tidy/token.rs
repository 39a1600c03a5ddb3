//! Rust source as tokens: enough of a lexer to tell code from comments and strings.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An identifier or a keyword; a raw identifier without its `r#`.
    Word,
    /// A lifetime or a label.
    Lifetime,
    /// A number.
    Number,
    /// A string, byte string or character.
    Text,
    /// One character of punctuation.
    Sign,
}

/// One token and the line it begins on, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind,
    pub(crate) text: &'a str,
    pub(crate) line: usize,
}

impl Token<'_> {
    /// Is this the punctuation or the word `text`? A string that reads the same is neither.
    pub(crate) fn is(&self, text: &str) -> bool {
        matches!(self.kind, Kind::Word | Kind::Sign) && self.text == text
    }
}

/// Splits `source` into tokens. Comments and white space are dropped; what does not lex as Rust becomes signs.
pub(crate) fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut reader = Reader { source, at: 0, line: 1 };
    let mut found = Vec::new();
    while let Some(token) = reader.next() {
        found.push(token);
    }
    found
}

struct Reader<'a> {
    source: &'a str,
    at: usize,
    line: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn advance(&mut self, bytes: usize) {
        let end = (self.at + bytes).min(self.source.len());
        self.line += self.source[self.at..end].matches('\n').count();
        self.at = end;
    }

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip_blank();
        let first = self.peek()?;
        let (kind, length, prefix) = self.measure(first);
        let token = Token { kind, text: &self.rest()[prefix..length], line: self.line };
        self.advance(length);
        Some(token)
    }

    /// The kind of the token at hand, its length in bytes, and how many of them are not part of its text.
    fn measure(&self, first: char) -> (Kind, usize, usize) {
        let rest = self.rest();
        if let Some(length) = text_length(rest) {
            return (Kind::Text, length, 0);
        }
        if let Some(raw) = rest.strip_prefix("r#")
            && raw.starts_with(is_word_start)
        {
            return (Kind::Word, 2 + word_length(raw), 2);
        }
        if first == '\'' {
            return (Kind::Lifetime, 1 + word_length(&rest[1..]), 0);
        }
        if is_word_start(first) {
            return (Kind::Word, word_length(rest), 0);
        }
        if first.is_ascii_digit() {
            return (Kind::Number, word_length(rest), 0);
        }
        (Kind::Sign, first.len_utf8(), 0)
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            if rest.starts_with("//") {
                self.advance(rest.find('\n').unwrap_or(rest.len()));
            } else if rest.starts_with("/*") {
                self.advance(block_comment_length(rest));
            } else if let Some(blank) = rest.chars().next().filter(|c| c.is_whitespace()) {
                self.advance(blank.len_utf8());
            } else {
                return;
            }
        }
    }
}

fn is_word_start(c: char) -> bool {
    c == '_' || c.is_alphabetic()
}

fn word_length(text: &str) -> usize {
    text.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(text.len())
}

/// Rust's block comments nest.
fn block_comment_length(text: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0usize);
    let bytes = text.as_bytes();
    while at < bytes.len() {
        match &bytes[at..(at + 2).min(bytes.len())] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth.saturating_sub(1), at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

/// The length of the string or character that `text` opens with, if it opens with one.
fn text_length(text: &str) -> Option<usize> {
    let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|prefix| {
        text.strip_prefix(prefix).is_some_and(|rest| {
            let body = if prefix.ends_with('r') { rest.trim_start_matches('#') } else { rest };
            body.starts_with('"') || (matches!(*prefix, "b" | "") && rest.starts_with('\''))
        })
    })?;
    let rest = &text[prefix.len()..];
    let body_length = if prefix.ends_with('r') {
        let hashes = rest.len() - rest.trim_start_matches('#').len();
        let close = format!("\"{}", &rest[..hashes]);
        let open = hashes + 1;
        rest[open..].find(&close).map_or(rest.len(), |end| open + end + close.len())
    } else if rest.starts_with('"') {
        quoted_length(rest, '"')
    } else {
        character_length(rest)?
    };
    Some(prefix.len() + body_length)
}

/// A quote opens a character if it is closed after one character or an escape; else it opens a lifetime.
fn character_length(text: &str) -> Option<usize> {
    let mut characters = text[1..].chars();
    match characters.next()? {
        '\\' => Some(quoted_length(text, '\'')),
        one => (characters.next() == Some('\'')).then(|| 2 + one.len_utf8()),
    }
}

fn quoted_length(text: &str, close: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == close {
            return at + c.len_utf8();
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<&str> {
        tokens(source).into_iter().filter(|token| token.kind == Kind::Word).map(|token| token.text).collect()
    }

    #[test]
    fn comments_and_strings_hold_no_words() {
        let source = r###"
            // unsafe in a comment
            /* unsafe /* nested unsafe */ unsafe */
            let a = "unsafe \" unsafe"; let b = r#"unsafe " unsafe"#; let c = b"unsafe"; let d = c"unsafe";
            let e = 'u'; let f = '\''; let g = b'\\'; let h = '"'; done
        "###;
        assert_eq!(
            words(source),
            ["let", "a", "let", "b", "let", "c", "let", "d", "let", "e", "let", "f", "let", "g", "let", "h", "done"]
        );
    }

    #[test]
    fn a_lifetime_is_not_an_open_character() {
        assert_eq!(words("fn f<'a>(x: &'a str) -> &'static str { unsafe }"), ["fn", "f", "x", "str", "str", "unsafe"]);
    }

    #[test]
    fn a_raw_identifier_is_the_word_without_its_mark() {
        assert_eq!(words("let r#type = br#fn;"), ["let", "type", "br", "fn"]);
    }

    #[test]
    fn lines_are_counted_through_strings_and_comments() {
        let found = tokens("a\n/* \n */ \"x\ny\" b\n");
        let lines: Vec<_> = found.iter().map(|token| (token.text, token.line)).collect();
        assert_eq!(lines, [("a", 1), ("\"x\ny\"", 3), ("b", 4)]);
    }

    #[test]
    fn what_is_cut_off_does_not_hang_or_panic() {
        for source in ["\"", "'", "'\\", "r#\"", "/*", "b'", "r#", "é'", "'é'", "1.0e", "r##\"x\"#"] {
            tokens(source);
        }
    }
}
