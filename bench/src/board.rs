//! The page of a file through which a moved program tells how it is: rounds of its loop, the largest gap, its verdict.
//! `bench/programs/board.h` is the other side.
use crate::error::{Doing, Error, program};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes of the file.
const BYTES: u64 = 4096;
/// Offset and length of the program's words about what is wrong.
const TEXT: (u64, usize) = (40, 216);

/// Offset of the stalls, how many words they are, and the logarithm of the shortest that is noted.
const STALLS: (u64, usize) = (512, 224);
const STALLS_BEGIN: u32 = 10;

/// What the program says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// It makes what it is about.
    SettingUp,
    /// It works.
    Ready,
    /// It has found everything as it was, and ends.
    Good,
    /// It has not.
    Bad,
}

/// A word of the board.
#[derive(Clone, Copy, Debug)]
enum Word {
    Rounds = 0,
    Gap = 8,
    GapEnd = 16,
    Phase = 24,
    Command = 32,
}

/// Commands to the program.
const FORGET: u64 = 1;
const VERIFY: u64 = 2;

/// The largest time in which a process did not run, as it saw it itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gap {
    /// How long.
    pub duration: Duration,
    /// CLOCK_REALTIME at its end, ns.
    pub end_ns: u64,
}

/// The board of one program.
#[derive(Debug)]
pub struct Board {
    file: File,
}

/// The middle of a class of stalls, ns: eight classes for each doubling.
fn class(slot: u32) -> f64 {
    f64::from(slot / 8 + STALLS_BEGIN).exp2() * (1.0 + (f64::from(slot % 8) + 0.5) / 8.0)
}

impl Board {
    /// A new board in a file that every host sees.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn new(path: &Path) -> Result<Board, Error> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path);
        let file = file.doing(format!("make {}", path.display()))?;
        file.set_len(BYTES).doing(format!("make {}", path.display()))?;
        Ok(Board { file })
    }

    fn word(&self, word: Word) -> Result<u64, Error> {
        let mut raw = [0; 8];
        self.file.read_exact_at(&mut raw, word as u64).doing("read a board")?;
        Ok(u64::from_le_bytes(raw))
    }

    fn command(&self, command: u64) -> Result<(), Error> {
        self.file.write_all_at(&command.to_le_bytes(), Word::Command as u64).doing("write a board")
    }

    /// Rounds of the program's loop so far.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn rounds(&self) -> Result<u64, Error> {
        self.word(Word::Rounds)
    }

    /// The largest gap since [`Board::forget`].
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn gap(&self) -> Result<Gap, Error> {
        Ok(Gap { duration: Duration::from_nanos(self.word(Word::Gap)?), end_ns: self.word(Word::GapEnd)? })
    }

    /// What the program says of itself.
    ///
    /// # Errors
    /// The file cannot be read, or holds something else.
    pub fn phase(&self) -> Result<Phase, Error> {
        match self.word(Word::Phase)? {
            0 => Ok(Phase::SettingUp),
            1 => Ok(Phase::Ready),
            2 => Ok(Phase::Good),
            3 => Ok(Phase::Bad),
            other => Err(program("a board", format!("phase {other}"))),
        }
    }

    /// How often the program waited how long, since [`Board::forget`]: ns at the middle of each class, and how often.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn stalls(&self) -> Result<Vec<(f64, u64)>, Error> {
        let mut raw = [0; STALLS.1 * 8];
        self.file.read_exact_at(&mut raw, STALLS.0).doing("read a board")?;
        let counts = raw.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
        let classes = counts.enumerate().filter(|(_, count)| *count > 0);
        Ok(classes.map(|(slot, count)| (class(slot as u32), count)).collect())
    }

    fn text(&self) -> String {
        let mut raw = vec![0; TEXT.1];
        let read = self.file.read_at(&mut raw, TEXT.0).unwrap_or(0);
        let end = raw[..read].iter().position(|byte| *byte == 0).unwrap_or(read);
        String::from_utf8_lossy(&raw[..end]).into_owned()
    }

    /// Waits until the program is in a phase.
    ///
    /// # Errors
    /// It says that something is wrong, or says nothing in time.
    pub fn await_phase(&self, wanted: Phase, patience: Duration) -> Result<(), Error> {
        self.await_that(patience, |board| match board.phase()? {
            Phase::Bad => Err(program("the moved program", board.text())),
            phase => Ok(phase == wanted),
        })
    }

    /// Waits until the program's loop has gone on from `rounds`.
    ///
    /// # Errors
    /// It does not go on in time.
    pub fn await_rounds(&self, rounds: u64, patience: Duration) -> Result<(), Error> {
        self.await_that(patience, |board| Ok(board.rounds()? > rounds))
    }

    fn await_that(&self, patience: Duration, is_so: impl Fn(&Board) -> Result<bool, Error>) -> Result<(), Error> {
        let begin = Instant::now();
        while !is_so(self)? {
            if begin.elapsed() > patience {
                let state = format!("after {} rounds it says nothing for {} s", self.rounds()?, patience.as_secs());
                return Err(program("the moved program", state));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Makes the program forget the gaps so far; it runs.
    ///
    /// # Errors
    /// It does not answer.
    pub fn forget(&self, patience: Duration) -> Result<(), Error> {
        self.command(FORGET)?;
        self.await_that(patience, |board| Ok(board.word(Word::Command)? != FORGET))
    }

    /// Makes the program compare all of its state with what it was, and end.
    ///
    /// # Errors
    /// What it found, or that it does not answer.
    pub fn verify(&self, patience: Duration) -> Result<(), Error> {
        self.command(VERIFY)?;
        self.await_phase(Phase::Good, patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_stalls_are_where_the_program_puts_them() {
        // As bench/programs/board.h does.
        let slot = |time: u64| (time.ilog2() - STALLS_BEGIN) * 8 + (time >> (time.ilog2() - 3) & 7) as u32;
        for time in [1024, 1500, 24_000, 61_000, 1_000_000, 30_000_000_000] {
            assert!((class(slot(time)) / time as f64 - 1.0).abs() < 0.07, "{time}: {}", class(slot(time)));
        }
    }
}
