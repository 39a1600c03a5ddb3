//! Threads that an engine which died left in its stub: they wait there for their tracer, and then go on by themselves.
//!
//! Nothing that their way back needs may be touched before each of them has left: the stub's code, the control blocks, the arena.
//! A thread is on its way back when it is in the stub, and also when it will return there: what was blocked meanwhile is delivered
//! right before the stub's end, and the handler's frame leads back.
use crate::failure::{About, Result};
use crate::freeze::Stopped;
use crate::interrupted::restart;
use crate::sleep;
use godwit_image::{Code, Refusal};
use godwit_linux::memory::{ForeignAddress, ForeignMemory};
use godwit_linux::proc::maps;
use godwit_linux::ptrace::{self, Registers};
use godwit_linux::stub;
use std::ops::Range;

/// How much of a stack is looked through at a time.
const PIECE_BYTES: usize = 64 << 10;
/// How much of it at all, from its end on: who calls so deeply in a handler waits for us in vain.
const STACK_BYTES_MAX: u64 = 64 << 20;

/// Has those that only wait for a tracer that is dead go on when they are let go.
///
/// # Errors
/// GW1105: there are such threads, or threads that return there.
pub(crate) fn let_go_on<'r>(
    threads: &[Stopped],
    registers: impl Iterator<Item = &'r Registers>,
    memory: &ForeignMemory,
    areas: &[maps::Area],
    code: u64,
) -> Result<()> {
    let place = code..code + stub::code().len() as u64;
    let mut stranded = None;
    for (thread, registers) in threads.iter().zip(registers) {
        if place.contains(&registers.rip) {
            if registers.rip == code + stub::woken_offset() && registers.orig_rax == u64::from(sleep::RT_SIGTIMEDWAIT) {
                let awake = Registers { rax: restart::EINTR as u64, orig_rax: u64::MAX, ..*registers };
                ptrace::set_registers(thread.tid(), &awake).about(|| thread.subject())?;
            }
            stranded = Some(thread);
        } else if returns(registers.rsp, memory, areas, &place) {
            stranded = stranded.or(Some(thread));
        }
    }
    stranded.map_or(Ok(()), |thread| {
        let cause = "another engine died while it worked on it, and it is about to go on by itself";
        Err(Refusal::new(Code::PASSING_MOMENT, thread.subject(), cause).choice("try again"))
    })
}

/// Whether a stack that is used down to an address has a word that leads to a place.
fn returns(stack: u64, memory: &ForeignMemory, areas: &[maps::Area], place: &Range<u64>) -> bool {
    let Some(area) = areas.iter().find(|area| (area.start..area.end).contains(&stack)) else { return false };
    let end = area.end.min(stack.saturating_add(STACK_BYTES_MAX));
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = stack & !7;
    while at < end {
        let length = PIECE_BYTES.min((end - at) as usize);
        let Some(piece) = piece.get_mut(..length) else { return false };
        if memory.read(ForeignAddress(at), piece).is_err() {
            return false;
        }
        let mut words = piece.chunks_exact(8).filter_map(|word| word.first_chunk().copied().map(u64::from_le_bytes));
        if words.any(|word| place.contains(&word)) {
            return true;
        }
        at += length as u64;
    }
    false
}

/// Whether a thread that was stopped behind a call waits there in a stub of ours.
pub(crate) fn is_in_stub(memory: &ForeignMemory, behind: u64) -> bool {
    let mut found = vec![0; stub::code().len()];
    memory.read(ForeignAddress(behind.wrapping_sub(stub::woken_offset())), &mut found).is_ok() && found == stub::code()
}
