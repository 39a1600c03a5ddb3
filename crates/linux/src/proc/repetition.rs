//! Areas of smaps that repeat what an earlier one told. Most areas of a process have the same flags, and the kernel pads its numbers:
//! where the same bytes stand in the same places, lines need not be taken apart again.

/// The lines of an area behind its first one, and what they told.
pub(super) struct Repetition<T> {
    /// Bytes and number of all of them.
    length: usize,
    lines: usize,
    /// Those that tell something, each with its place.
    telling: Vec<(usize, Vec<u8>)>,
    told: T,
}

/// Beginnings of lines that tell something.
const TELLING: [&[u8]; 5] = [b"VmFlags:", b"ProtectionKey:", b"KernelPageSize:", b"Shared_Clean:", b"Shared_Dirty:"];

impl<T> Repetition<T> {
    fn of(text: &[u8], told: T) -> Repetition<T> {
        let mut telling = Vec::with_capacity(TELLING.len());
        let (mut at, mut lines) = (0, 0);
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            if TELLING.iter().any(|key| line.starts_with(key)) {
                telling.push((at, line.to_vec()));
            }
            (at, lines) = (at + line.len(), lines + 1);
        }
        Repetition { length: text.len(), lines, telling, told }
    }

    /// Whether such lines begin here, behind which another area begins or the text ends.
    fn is_here(&self, text: &[u8]) -> bool {
        let is_line = |at: usize| at == 0 || text.get(at - 1) == Some(&b'\n');
        let begins = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        is_line(self.length)
            && self.length <= text.len()
            && text.get(self.length).is_none_or(begins)
            && self.telling.iter().all(|(at, line)| is_line(*at) && text[*at..].starts_with(line))
    }
}

/// The latest of them.
pub(super) struct Repetitions<T>(Vec<Repetition<T>>);

impl<T> Default for Repetitions<T> {
    fn default() -> Repetitions<T> {
        Repetitions(Vec::new())
    }
}

impl<T: Copy> Repetitions<T> {
    /// What lines tell that begin here, if some like them have come before; also how many bytes and lines they are.
    pub(super) fn told(&self, text: &[u8]) -> Option<(T, usize, usize)> {
        let known = self.0.iter().rev().find(|known| known.is_here(text))?;
        Some((known.told, known.length, known.lines))
    }

    /// Keeps what the lines of an area told.
    pub(super) fn keep(&mut self, text: &[u8], told: T) {
        const KEPT: usize = 8;
        if self.0.len() == KEPT {
            self.0.remove(0);
        }
        self.0.push(Repetition::of(text, told));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &[u8] = b"Rss:    4 kB\nShared_Clean:  0 kB\nKernelPageSize: 4 kB\nVmFlags: rd wr \n";

    #[test]
    fn only_what_tells_must_be_the_same() {
        let mut known = Repetitions::default();
        known.keep(LINES, 'a');
        let told = |text: &[u8]| known.told(text);
        assert_eq!(told(LINES), Some(('a', LINES.len(), 4)));
        let changed = |from: &str, to: &str| String::from_utf8_lossy(LINES).replace(from, to).into_bytes();
        assert_eq!(told(&changed("Rss:    4", "Rss:  128")), Some(('a', LINES.len(), 4)));
        assert_eq!(told(&[LINES, b"1000-2000 rw-p\n"].concat()), Some(('a', LINES.len(), 4)));
        for (from, to) in
            [("wr", "ex"), ("n:  0", "n: 12"), ("Size: 4", "Size: 8"), ("Rss:  ", "Rss:\n "), ("rd wr ", "rd ")]
        {
            let text = changed(from, to);
            let is_same = from == "Rss:  ";
            assert_eq!(told(&text).is_some(), is_same, "{}", String::from_utf8_lossy(&text));
        }
        assert_eq!(told(&[LINES, b"VmFlags: ex\n"].concat()), None);
        assert_eq!(told(&LINES[..LINES.len() - 1]), None);
    }
}
