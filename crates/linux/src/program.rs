//! Programs: arrays of system calls that a foreign process executes in one resume. Plain data.

use crate::stub::ENTRY_BYTES;
use std::ops::Range;

/// One argument of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Argument {
    /// A number.
    Value(u64),
    /// The result of an earlier call of the same program.
    Result(Step),
    /// The address of bytes in the program's data.
    Data(usize),
}

/// The n-th call of a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step(pub usize);

impl From<u64> for Argument {
    fn from(value: u64) -> Argument {
        Argument::Value(value)
    }
}
impl From<usize> for Argument {
    fn from(value: usize) -> Argument {
        Argument::Value(value as u64)
    }
}
impl From<i64> for Argument {
    fn from(value: i64) -> Argument {
        Argument::Value(value as u64)
    }
}
impl From<i32> for Argument {
    fn from(value: i32) -> Argument {
        Argument::Value(i64::from(value) as u64)
    }
}
impl From<u32> for Argument {
    fn from(value: u32) -> Argument {
        Argument::Value(u64::from(value))
    }
}
impl From<Step> for Argument {
    fn from(step: Step) -> Argument {
        Argument::Result(step)
    }
}

/// One call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// Name, for messages.
    pub name: &'static str,
    /// Number.
    pub number: i64,
    /// Arguments.
    pub arguments: [Argument; 6],
    /// The program goes on when this call fails.
    pub may_fail: bool,
    /// For clone calls: the foreign address of the control block at which the child goes on.
    pub child_slot: Option<u64>,
}

/// A program under construction.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Program {
    calls: Vec<Call>,
    data: Vec<u8>,
    /// Places in the data that hold the foreign address of other data: (where, of what).
    pointers: Vec<(usize, usize)>,
}

/// The result of running a program: one value per executed call.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Results in order; shorter than the program when a call that may not fail did.
    pub results: Vec<i64>,
}

/// Which calls and which data of a program were another's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// Its calls, by number.
    pub calls: Range<usize>,
    /// Its data, in bytes.
    pub data: Range<usize>,
}

impl Program {
    /// An empty program.
    pub fn new() -> Program {
        Program::default()
    }

    /// Adds a call; its failure ends the program.
    pub fn call<const N: usize>(&mut self, name: &'static str, number: i64, arguments: [Argument; N]) -> Step {
        let mut all = [Argument::Value(0); 6];
        all[..N].copy_from_slice(&arguments);
        self.calls.push(Call { name, number, arguments: all, may_fail: false, child_slot: None });
        Step(self.calls.len() - 1)
    }

    /// Adds a call whose failure is an answer, not the end.
    pub fn try_call<const N: usize>(&mut self, name: &'static str, number: i64, arguments: [Argument; N]) -> Step {
        let step = self.call(name, number, arguments);
        self.calls[step.0].may_fail = true;
        step
    }

    /// Adds everything of another program: one run is cheaper than two. The other's steps and places count from where its part begins.
    pub fn append(&mut self, other: &Program) -> Part {
        let (calls, data) = (self.calls.len(), self.data.len());
        let moved = |argument: Argument| match argument {
            Argument::Value(value) => Argument::Value(value),
            Argument::Result(step) => Argument::Result(Step(step.0 + calls)),
            Argument::Data(offset) => Argument::Data(offset + data),
        };
        let added = other.calls.iter().map(|call| Call { arguments: call.arguments.map(moved), ..call.clone() });
        self.calls.extend(added);
        self.data.extend_from_slice(&other.data);
        self.pointers.extend(other.pointers.iter().map(|(at, target)| (at + data, target + data)));
        Part { calls: calls..self.calls.len(), data: data..self.data.len() }
    }

    /// Adds a clone3 whose child goes on with the program in another slot.
    pub fn clone_task(&mut self, arguments: Argument, bytes: usize, child_slot: u64) -> Step {
        let step = self.call("clone3", libc::SYS_clone3, [arguments, bytes.into()]);
        self.calls[step.0].child_slot = Some(child_slot);
        step
    }

    /// Places bytes into the program's data, aligned to 8.
    pub fn data(&mut self, bytes: &[u8]) -> Argument {
        let offset = self.data.len();
        self.data.extend_from_slice(bytes);
        self.data.resize(self.data.len().next_multiple_of(8), 0);
        Argument::Data(offset)
    }

    /// Places bytes followed by a pointer to other data of this program (for structs that hold pointers).
    pub fn data_with_pointer(&mut self, bytes: &[u8], target: Argument) -> Argument {
        let offset = self.data.len();
        self.data(bytes);
        if let Argument::Data(target) = target {
            self.pointers.push((self.data.len(), target));
        }
        self.data(&[0; 8]);
        Argument::Data(offset)
    }

    /// Makes 8 bytes of the data hold the foreign address of other data.
    pub fn point(&mut self, at: usize, target: Argument) {
        if let Argument::Data(target) = target {
            self.pointers.push((at, target));
        }
    }

    /// The data as it lies at the foreign address `data`.
    pub fn resolved(&self, data: u64) -> Vec<u8> {
        let mut out = self.data.clone();
        for (at, target) in &self.pointers {
            if let Some(place) = out.get_mut(*at..*at + 8) {
                place.copy_from_slice(&data.wrapping_add(*target as u64).to_le_bytes());
            }
        }
        out
    }

    /// Places a NUL-terminated string.
    pub fn text(&mut self, bytes: &[u8]) -> Argument {
        let mut owned = bytes.to_vec();
        owned.push(0);
        self.data(&owned)
    }

    /// Reserves zeroed bytes for a call to write into; read them with the slot's `data` after the run.
    pub fn space(&mut self, bytes: usize) -> (Argument, usize) {
        let offset = self.data.len();
        self.data.resize((offset + bytes).next_multiple_of(8), 0);
        (Argument::Data(offset), offset)
    }

    /// The calls.
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// The data.
    pub fn bytes(&self) -> &[u8] {
        &self.data
    }

    /// Whether there is nothing to run.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Encodes the entries for a slot whose data will lie at the foreign address `data`.
    pub fn encode(&self, data: u64) -> Vec<u8> {
        let mut out = vec![0_u8; self.calls.len() * ENTRY_BYTES];
        for (call, entry) in self.calls.iter().zip(out.chunks_exact_mut(ENTRY_BYTES)) {
            let mut flags = 0_u64;
            let mut word =
                |index: usize, value: u64| entry[index * 8..index * 8 + 8].copy_from_slice(&value.to_le_bytes());
            word(0, call.number as u64);
            for (index, argument) in call.arguments.iter().enumerate() {
                word(
                    1 + index,
                    match argument {
                        Argument::Value(value) => *value,
                        Argument::Result(step) => {
                            flags |= 1 << index;
                            step.0 as u64
                        }
                        Argument::Data(offset) => data.wrapping_add(*offset as u64),
                    },
                );
            }
            if !call.may_fail {
                flags |= 1 << 8;
            }
            if let Some(slot) = call.child_slot {
                flags |= 1 << 9;
                word(9, slot);
            }
            word(7, i64::MIN as u64);
            word(8, flags);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(program: &mut Program) -> (Step, usize) {
        let (space, place) = program.space(8);
        let first = program.call("first", 1, [space, 5_u64.into()]);
        let target = program.data(b"target");
        let pointing = program.data_with_pointer(b"12345678", target);
        program.try_call("second", 2, [first.into(), pointing]);
        (first, place)
    }

    #[test]
    fn what_is_added_refers_to_its_own_calls_and_data() {
        let (mut all, mut other) = (Program::new(), Program::new());
        asks(&mut all);
        let (first, place) = asks(&mut other);
        let (calls, bytes) = (all.calls().len(), all.bytes().len());
        let part = all.append(&other);
        assert_eq!((part.calls.clone(), part.data.clone()), (calls..2 * calls, bytes..2 * bytes));
        let [second, ..] = all.calls()[part.calls.start + 1].arguments;
        assert_eq!(second, Argument::Result(Step(first.0 + calls)));
        assert_eq!(all.calls()[part.calls.start].arguments[0], Argument::Data(place + bytes));
        assert!(all.calls()[part.calls.start + 1].may_fail && !all.calls()[part.calls.start].may_fail);
        // Its pointers lead to where its own data lies then.
        const AT: u64 = 0x7000;
        assert_eq!(all.resolved(AT)[bytes..], other.resolved(AT + bytes as u64));
        assert_eq!(all.resolved(AT)[..bytes], {
            let mut alone = Program::new();
            asks(&mut alone);
            alone.resolved(AT)
        });
    }
}
