//! A position in one line of a /proc file, with the few steps that all of the parsers are made of.

use super::Malformed;
use std::io::BufRead;

/// The lines of a text that must end with a newline.
pub(super) struct Lines<'a> {
    file: &'static str,
    rest: &'a [u8],
    number: usize,
}

impl<'a> Lines<'a> {
    /// Refuses a text that was cut off in the middle of a line.
    pub(super) fn new(file: &'static str, text: &'a [u8]) -> Result<Lines<'a>, Malformed> {
        match text.last() {
            None | Some(b'\n') => Ok(Lines { file, rest: text, number: 0 }),
            Some(_) => Err(Malformed { file, line: 0, why: "the last line has no end" }),
        }
    }

    /// As [`Lines::new`] for a text whose first `number` lines have been seen before.
    pub(super) fn continued(file: &'static str, text: &'a [u8], number: usize) -> Result<Lines<'a>, Malformed> {
        Ok(Lines { number, ..Lines::new(file, text)? })
    }

    /// What has not been handed out.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Hands out no line of the next so many bytes, which are so many lines.
    pub(super) fn pass_over(&mut self, bytes: usize, lines: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
        self.number += lines;
    }

    /// How many lines were handed out.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// Error about the line that was handed out last.
    pub(super) fn malformed(&self, why: &'static str) -> Malformed {
        Malformed { file: self.file, line: self.number, why }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let whole = self.rest;
        // Many bytes at a time; of a slice it cannot fail.
        let length = self.rest.skip_until(b'\n').unwrap_or(whole.len());
        let line = &whole[..length];
        self.number += 1;
        Some(Line { file: self.file, number: self.number, rest: line.strip_suffix(b"\n").unwrap_or(line) })
    }
}

/// What is left of one line (without its newline).
#[derive(Clone, Copy)]
pub(super) struct Line<'a> {
    file: &'static str,
    number: usize,
    rest: &'a [u8],
}

impl<'a> Line<'a> {
    /// A whole text as one line, for files that are not made of lines.
    pub(super) fn whole(file: &'static str, text: &'a [u8]) -> Line<'a> {
        Line { file, number: 1, rest: text }
    }

    pub(super) fn malformed(&self, why: &'static str) -> Malformed {
        Malformed { file: self.file, line: self.number, why }
    }

    /// What has not been consumed.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Refuses anything but blanks up to the end.
    pub(super) fn end(&mut self) -> Result<(), Malformed> {
        self.blanks();
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed("more text than expected")) }
    }

    /// Skips spaces and tabs.
    pub(super) fn blanks(&mut self) {
        while let [b' ' | b'\t', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    /// Whether only blanks are left; skips them.
    pub(super) fn at_end(&mut self) -> bool {
        self.blanks();
        self.rest.is_empty()
    }

    /// Consumes `text` if the rest begins with it.
    pub(super) fn take(&mut self, text: &[u8]) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Consumes `text`, which must be next.
    pub(super) fn expect(&mut self, text: &[u8], why: &'static str) -> Result<(), Malformed> {
        if self.take(text) { Ok(()) } else { Err(self.malformed(why)) }
    }

    /// The next byte.
    pub(super) fn byte(&mut self, why: &'static str) -> Result<u8, Malformed> {
        match self.rest {
            [byte, rest @ ..] => {
                self.rest = rest;
                Ok(*byte)
            }
            [] => Err(self.malformed(why)),
        }
    }

    /// Everything before the next `separator`, which is consumed too; `None` if there is none.
    pub(super) fn before(&mut self, separator: u8) -> Option<&'a [u8]> {
        let at = self.rest.iter().position(|byte| *byte == separator)?;
        let (before, rest) = self.rest.split_at(at);
        self.rest = rest.get(1..).unwrap_or_default();
        Some(before)
    }

    /// The next run of bytes that are not blank, after blanks; empty at the end of the line.
    pub(super) fn word(&mut self) -> &'a [u8] {
        self.blanks();
        let end = self.rest.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    /// A decimal number of the type wanted.
    pub(super) fn decimal<T: TryFrom<u64>>(&mut self, why: &'static str) -> Result<T, Malformed> {
        let mut value: u64 = 0;
        let mut digits = 0;
        while let [byte @ b'0'..=b'9', rest @ ..] = self.rest {
            value = value
                .checked_mul(10)
                .and_then(|value| value.checked_add(u64::from(byte - b'0')))
                .ok_or_else(|| self.malformed(why))?;
            digits += 1;
            self.rest = rest;
        }
        if digits == 0 {
            return Err(self.malformed(why));
        }
        T::try_from(value).map_err(|_| self.malformed(why))
    }

    /// A decimal number that may be negative.
    pub(super) fn signed<T: TryFrom<i64>>(&mut self, why: &'static str) -> Result<T, Malformed> {
        let negative = self.take(b"-");
        let magnitude: u64 = self.decimal(why)?;
        let value = if negative { 0i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() };
        value.and_then(|value| T::try_from(value).ok()).ok_or_else(|| self.malformed(why))
    }

    /// A hexadecimal number without `0x`.
    pub(super) fn hexadecimal<T: TryFrom<u64>>(&mut self, why: &'static str) -> Result<T, Malformed> {
        let mut value: u64 = 0;
        let mut digits = 0;
        while let [byte, rest @ ..] = self.rest {
            let Some(digit) = hexadecimal_digit(*byte) else { break };
            if value >> 60 != 0 {
                return Err(self.malformed(why));
            }
            value = value << 4 | u64::from(digit);
            digits += 1;
            self.rest = rest;
        }
        if digits == 0 {
            return Err(self.malformed(why));
        }
        T::try_from(value).map_err(|_| self.malformed(why))
    }

    /// An octal number, with or without leading zero.
    fn octal<T: TryFrom<u64>>(&mut self, why: &'static str) -> Result<T, Malformed> {
        let mut value: u64 = 0;
        let mut digits = 0;
        while let [byte @ b'0'..=b'7', rest @ ..] = self.rest {
            if value >> 61 != 0 {
                return Err(self.malformed(why));
            }
            value = value << 3 | u64::from(byte - b'0');
            digits += 1;
            self.rest = rest;
        }
        if digits == 0 {
            return Err(self.malformed(why));
        }
        T::try_from(value).map_err(|_| self.malformed(why))
    }

    /// Blanks, then a decimal number that must end at a blank or at the end of the line.
    pub(super) fn decimal_word<T: TryFrom<u64>>(&mut self, why: &'static str) -> Result<T, Malformed> {
        self.blanks();
        let value = self.decimal(why)?;
        self.word_end(why)?;
        Ok(value)
    }

    /// Blanks, then a signed decimal number that must end at a blank or at the end of the line.
    pub(super) fn signed_word<T: TryFrom<i64>>(&mut self, why: &'static str) -> Result<T, Malformed> {
        self.blanks();
        let value = self.signed(why)?;
        self.word_end(why)?;
        Ok(value)
    }

    /// Blanks, then a hexadecimal number that must end at a blank or at the end of the line.
    pub(super) fn hexadecimal_word<T: TryFrom<u64>>(&mut self, why: &'static str) -> Result<T, Malformed> {
        self.blanks();
        let value = self.hexadecimal(why)?;
        self.word_end(why)?;
        Ok(value)
    }

    /// Blanks, then an octal number that must end at a blank or at the end of the line.
    pub(super) fn octal_word<T: TryFrom<u64>>(&mut self, why: &'static str) -> Result<T, Malformed> {
        self.blanks();
        let value = self.octal(why)?;
        self.word_end(why)?;
        Ok(value)
    }

    fn word_end(&self, why: &'static str) -> Result<(), Malformed> {
        match self.rest {
            [] | [b' ' | b'\t', ..] => Ok(()),
            _ => Err(self.malformed(why)),
        }
    }
}

fn hexadecimal_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Pairs of hexadecimal digits as bytes; `None` for an odd count or another character.
pub(super) fn bytes_of_hexadecimal(text: &[u8]) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(hexadecimal_digit(*high)? << 4 | hexadecimal_digit(*low)?)).collect()
}

/// Replaces `\NNN` (three octal digits that fit a byte) by the byte, where `wanted` says that the kernel escapes it.
pub(super) fn unescape(text: &[u8], wanted: impl Fn(u8) -> bool) -> Vec<u8> {
    if !text.contains(&b'\\') {
        return text.to_vec();
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        if let [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] = rest {
            let value = (a - b'0') << 6 | (b - b'0') << 3 | (c - b'0');
            if wanted(value) {
                plain.push(value);
                rest = after;
                continue;
            }
        }
        plain.push(*byte);
        rest = after;
    }
    plain
}

impl Line<'_> {
    /// Blanks, a number and ` kB`: in bytes.
    pub(super) fn kibibytes(&mut self) -> Result<u64, Malformed> {
        let count: u64 = self.decimal_word("size")?;
        self.expect(b" kB", "no kB behind the size")?;
        count.checked_mul(1024).ok_or_else(|| self.malformed("size is too large"))
    }
}
