//! What semaphores are to get back when a process ends (SEM_UNDO). The kernel shows it nowhere.
//!
//! But an operation whose undo value would leave its range fails with another error than one that would wait. So the
//! process tries operations that cannot succeed in any case, and of which the error tells whether the undo value is above
//! or below a number: nothing changes, and the kernel undoes what it had begun under its own lock.
use crate::failure::{About, Result};
use crate::injector::Injector;
use crate::question::answered;
use crate::restore::Bind;
use godwit_image::{Code, Pid, Refusal, Subject};
use godwit_linux::program::{Program, Step};
use godwit_linux::sysv_semaphores::{NO_WAIT, Operation, UNDO, VALUE_MAX};

const SYS_SEMOP: i64 = 65;
const ERANGE: i32 = 34;
const EAGAIN: i32 = 11;
const EACCES: i32 = 13;
/// Tries per program: they and their lists fit the large slot.
const TRIES_MAX: usize = 4000;

/// One semaphore of a process: set, number, its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) set: i32,
    pub(super) semaphore: u16,
    pub(super) value: u16,
}

/// Undo values that a process has.
pub(super) type Values = Vec<(Place, i32)>;

/// What is asked of an undo value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Test {
    /// It is above 0..=32766.
    Above(i32),
    /// It is below 0..=-32767.
    Below(i32),
}

/// Operations that never succeed: EAGAIN where the test is false, ERANGE where it is true.
fn operations(place: Place, test: Test) -> Vec<Operation> {
    let mut list = Vec::new();
    let mut operation = |change: i32, flags: i16| {
        // A change of nothing would wait for zero.
        if change != 0 {
            list.push(Operation { semaphore: place.semaphore, change: change as i16, flags: flags | NO_WAIT });
        }
    };
    let value = i32::from(place.value);
    let last = match test {
        Test::Above(limit) => {
            operation(VALUE_MAX - value, 0);
            operation(limit - VALUE_MAX, UNDO);
            limit
        }
        Test::Below(0) => {
            operation(-value, 0);
            operation(1, UNDO);
            operation(-1, 0);
            operation(VALUE_MAX, UNDO);
            VALUE_MAX
        }
        Test::Below(limit) => {
            operation(-value, 0);
            operation(VALUE_MAX + 1 + limit, UNDO);
            VALUE_MAX + 1 + limit
        }
    };
    // What would wait: for zero where it is not, for more where there is none.
    let change = if last == 0 { -1 } else { 0 };
    list.push(Operation { semaphore: place.semaphore, change, flags: NO_WAIT });
    list
}

fn call(program: &mut Program, set: i32, operations: &[Operation]) -> Step {
    let raw: Vec<u8> = operations.iter().flat_map(|operation| operation.bytes()).collect();
    let list = program.data(&raw);
    program.try_call("semop", SYS_SEMOP, [set.into(), list, operations.len().into()])
}

/// The answers to tests; `None` where the process may not use the set.
fn ask(injector: &mut Injector<'_>, thread: usize, tests: &[(Place, Test)]) -> Result<Vec<Option<bool>>> {
    let mut answers = Vec::with_capacity(tests.len());
    for chunk in tests.chunks(TRIES_MAX) {
        let mut program = Program::new();
        let steps: Vec<Step> =
            chunk.iter().map(|(place, test)| call(&mut program, place.set, &operations(*place, *test))).collect();
        let ran = injector.run(&[(thread, program)])?;
        let Some(ran) = ran.first() else { continue };
        for (step, (place, _)) in steps.into_iter().zip(chunk) {
            answers.push(match answered(ran, step) {
                Err(ERANGE) => Some(true),
                Err(EAGAIN) => Some(false),
                Err(EACCES) => None,
                other => {
                    let subject = Subject::Object(format!("semaphore set {}", place.set));
                    let cause = format!("what it is to get back cannot be found out (semop answers {other:?})");
                    return Err(Refusal::new(Code::NOT_MIGRATABLE, subject, cause));
                }
            });
        }
    }
    Ok(answers)
}

/// The undo values that a thread's process has for some semaphores; those that are 0, or of sets that it may not use,
/// are left out. The second list has the latter.
///
/// # Errors
/// The process is dead; the kernel answers something unknown.
pub(super) fn read(injector: &mut Injector<'_>, thread: usize, places: &[Place]) -> Result<(Values, Vec<Place>)> {
    let tests: Vec<_> = places.iter().flat_map(|place| [(*place, Test::Above(0)), (*place, Test::Below(0))]).collect();
    let answers = ask(injector, thread, &tests)?;
    let (mut searched, mut forbidden) = (Vec::new(), Vec::new());
    for (place, answer) in places.iter().zip(answers.chunks(2)) {
        match answer {
            [Some(true), _] => searched.push((*place, 1, VALUE_MAX)),
            [_, Some(true)] => searched.push((*place, -VALUE_MAX - 1, -1)),
            [Some(_), Some(_)] => {}
            _ => forbidden.push(*place),
        }
    }
    while searched.iter().any(|(_, low, high)| low < high) {
        let open = searched.iter_mut().filter(|(_, low, high)| low < high);
        let mut open: Vec<_> = open.collect();
        let middle = |low: i32, high: i32| low + (high - low) / 2;
        let tests: Vec<_> = open
            .iter()
            .map(|(place, low, high)| {
                let middle = middle(*low, *high);
                (*place, if *low > 0 { Test::Above(middle) } else { Test::Below(middle + 1) })
            })
            .collect();
        let answers = ask(injector, thread, &tests)?;
        for ((_, low, high), answer) in open.iter_mut().zip(answers) {
            let middle = middle(*low, *high);
            // Above: it is more than the middle. Below: it is the middle or less.
            match (*low > 0, answer == Some(true)) {
                (true, true) | (false, false) => *low = middle + 1,
                (true, false) | (false, true) => *high = middle,
            }
        }
    }
    Ok((searched.into_iter().map(|(place, low, _)| (place, low)).collect(), forbidden))
}

/// Pairs of operations that give a process an undo value and leave the semaphore's as it is.
fn giving(semaphore: u16, value: i32, undo: i32) -> Vec<[Operation; 2]> {
    let mut pairs = Vec::new();
    let mut left = undo;
    while left != 0 {
        let (up, down) = (VALUE_MAX - value, value);
        let step = left.abs().min(up.max(down).max(1));
        let change = if left > 0 { -step } else { step };
        let plain = Operation { semaphore, change: -change as i16, flags: NO_WAIT };
        let undone = Operation { semaphore, change: change as i16, flags: NO_WAIT | UNDO };
        // First the one for which there is room.
        let plain_first = if step <= up { change < 0 } else { change > 0 };
        pairs.push(if plain_first { [plain, undone] } else { [undone, plain] });
        left += change;
    }
    pairs
}

/// Gives a task undo values: set, semaphore, its value, what it gets back.
///
/// # Errors
/// A call fails.
pub(super) fn give(bind: &mut Bind, task: Pid, values: &[(Place, i32)]) -> Result<()> {
    for (place, undo) in values {
        for pairs in giving(place.semaphore, i32::from(place.value), *undo).chunks(TRIES_MAX) {
            let mut program = Program::new();
            let steps: Vec<Step> = pairs.iter().map(|pair| call(&mut program, place.set, pair)).collect();
            let ran = bind.run(task, &program)?;
            for step in steps {
                ran.result("semop", step).about(|| Subject::Object(format!("semaphore set {}", place.set)))?;
            }
        }
    }
    Ok(())
}

/// Makes a task the one that used a semaphore last.
///
/// # Errors
/// The call fails.
pub(super) fn touch(bind: &mut Bind, task: Pid, place: Place) -> Result<()> {
    let mut program = Program::new();
    let step = call(&mut program, place.set, &touching(place));
    let ran = bind.run(task, &program)?;
    ran.result("semop", step).about(|| Subject::Object(format!("semaphore set {}", place.set))).map(drop)
}

/// Operations that change nothing.
pub(super) fn touching(place: Place) -> [Operation; 2] {
    let up = if i32::from(place.value) < VALUE_MAX { 1 } else { -1 };
    [up, -up].map(|change| Operation { semaphore: place.semaphore, change, flags: NO_WAIT })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel does with operations on one semaphore with an undo value: the error, or both values.
    fn kernel(operations: &[Operation], mut value: i32, mut undo: i32) -> std::result::Result<(i32, i32), i32> {
        for operation in operations {
            let change = i32::from(operation.change);
            if change == 0 && value != 0 || value + change < 0 {
                return Err(EAGAIN);
            }
            if value + change > VALUE_MAX {
                return Err(ERANGE);
            }
            if operation.flags & UNDO != 0 {
                if !(-VALUE_MAX - 1..=VALUE_MAX).contains(&(undo - change)) {
                    return Err(ERANGE);
                }
                undo -= change;
            }
            value += change;
        }
        Ok((value, undo))
    }

    #[test]
    fn a_try_never_succeeds_and_its_error_tells() {
        let undos = [-32768, -32767, -20000, -2, -1, 0, 1, 2, 300, 32766, 32767];
        for value in [0, 1, 5, 16384, 32766, 32767] {
            let place = Place { set: 0, semaphore: 3, value };
            for limit in [0, 1, 2, 299, 300, 20000, 32766] {
                for undo in undos {
                    let wanted = |holds: bool| Err(if holds { ERANGE } else { EAGAIN });
                    let above = operations(place, Test::Above(limit));
                    assert_eq!(kernel(&above, value.into(), undo), wanted(undo > limit), "{place:?} {undo} {limit}");
                    let below = operations(place, Test::Below(-limit));
                    assert_eq!(kernel(&below, value.into(), undo), wanted(undo < -limit), "{place:?} {undo} -{limit}");
                }
            }
        }
    }

    #[test]
    fn an_undo_value_is_given_without_a_change() {
        for value in [0, 1, 16383, 32766, 32767] {
            for wanted in [-32768, -32767, -3, 0, 1, 500, 32767] {
                let mut undo = 0;
                for pair in giving(9, value, wanted) {
                    let (value_now, undo_now) = kernel(&pair, value, undo).unwrap();
                    assert_eq!(value_now, value);
                    undo = undo_now;
                }
                assert_eq!(undo, wanted, "at a value of {value}");
            }
        }
    }
}
