//! Damaged texts for the tests of the parsers: the same ones in every run.

/// Xorshift: enough to choose places in a text.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

/// Bytes that mean something to one parser or another.
const TELLING: &[u8] = b"0179af-+xX \t\n\0\\:,;.()/>=\xff\x80";

/// Gives `parse` every prefix of `golden` and some thousand damaged copies of it. `parse` says whether it accepted the
/// text; the untouched one must be accepted and some of the damaged ones must not, or nothing was tried.
pub(super) fn try_all(golden: &[u8], parse: impl Fn(&[u8]) -> bool) {
    assert!(parse(golden), "the untouched text is refused");
    let mut refused = 0;
    for end in 0..golden.len() {
        refused += usize::from(!parse(&golden[..end]));
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ golden.len() as u64);
    for _ in 0..4000 {
        let mut text = golden.to_vec();
        for _ in 0..=random.below(4) {
            damage(&mut text, &mut random);
        }
        refused += usize::from(!parse(&text));
    }
    assert!(refused > 0, "no damage was noticed");
}

fn damage(text: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(text.len());
    if text.is_empty() {
        text.push(b'\n');
        return;
    }
    match random.below(7) {
        0 => text[at] ^= 1 << random.below(8),
        1 => text[at] = TELLING[random.below(TELLING.len())],
        2 => text.truncate(at),
        3 => {
            text.remove(at);
        }
        4 => text.insert(at, TELLING[random.below(TELLING.len())]),
        // A line twice, or a part of one.
        5 => {
            let start = text[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
            let end = text[at..].iter().position(|byte| *byte == b'\n').map_or(text.len(), |newline| at + newline + 1);
            let line = text[start..end].to_vec();
            let _: Vec<u8> = text.splice(end..end, line).collect();
        }
        // A number that is too large.
        _ => {
            let _: Vec<u8> = text.splice(at..at, *b"99999999999999999999").collect();
        }
    }
}
