//! What a program that has run tells.
use godwit_linux::Errno;
use godwit_linux::program::{Outcome, Part, Program};

/// A program that has run.
#[derive(Debug)]
pub struct Ran {
    /// Results of the calls.
    pub outcome: Outcome,
    data: Vec<u8>,
}

impl Ran {
    /// The result of the n-th call.
    ///
    /// # Errors
    /// The call failed, or was not reached.
    pub fn result(&self, name: &'static str, step: godwit_linux::program::Step) -> std::result::Result<u64, Errno> {
        match self.outcome.results.get(step.0) {
            Some(result) => godwit_linux::errno::foreign(name, *result),
            None => Err(Errno { number: 125, call: name }),
        }
    }

    /// Bytes that a call wrote into the program's data.
    pub fn data(&self, offset: usize, length: usize) -> &[u8] {
        self.data.get(offset..offset + length).unwrap_or(&[])
    }

    /// A little-endian word from the program's data.
    pub fn word(&self, offset: usize) -> u64 {
        let mut raw = [0; 8];
        let bytes = self.data(offset, 8);
        raw[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(raw)
    }
}

impl Ran {
    pub(crate) fn new(outcome: Outcome, data: Vec<u8>) -> Ran {
        Ran { outcome, data }
    }

    /// What a program tells that was run as a part of another.
    pub(crate) fn part(&self, part: &Part) -> Ran {
        let all = &self.outcome.results;
        let end = part.calls.end.min(all.len());
        let results = all.get(part.calls.start..end).unwrap_or_default().to_vec();
        Ran { outcome: Outcome { results }, data: self.data.get(part.data.clone()).unwrap_or_default().to_vec() }
    }

    /// The error of the call that ended the program early, if one did.
    pub(crate) fn check(&self, program: &Program) -> std::result::Result<(), Errno> {
        for (call, result) in program.calls().iter().zip(&self.outcome.results) {
            if !call.may_fail {
                godwit_linux::errno::foreign(call.name, *result)?;
            }
        }
        match program.calls().get(self.outcome.results.len()) {
            Some(call) => Err(Errno { number: 125, call: call.name }),
            None => Ok(()),
        }
    }
}
