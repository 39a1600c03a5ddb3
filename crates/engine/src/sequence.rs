//! Restartable sequences (rseq(2)): a thread that was stopped inside one begins it anew, as the kernel would have it.
//!
//! The kernel aborts a sequence when it lets a preempted thread back into user mode. A program of ours that runs in
//! the thread first would hide the cut: the kernel sees an instruction pointer outside of the sequence and forgets it.
//! So what the kernel would do at the end of the stop is done at its beginning.
use crate::failure::{About, Result};
use crate::freeze::Stopped;
use crate::thread_records::Records;
use godwit_linux::memory::{self, ForeignAddress, ForeignMemory};
use godwit_linux::ptrace::{self, Registers, RestartableSequence};

/// Where struct rseq holds the address of the running sequence's struct rseq_cs.
const RSEQ_CS_OFFSET: u64 = 8;
/// struct rseq_cs: version, flags, start, length, abort address.
const RSEQ_CS_BYTES: usize = 32;
/// Most ranges of one process_vm_readv(2) call.
const RANGES_MAX: usize = 1024;

fn word(bytes: &[u8], offset: usize) -> u64 {
    let mut raw = [0; 8];
    if let Some(found) = bytes.get(offset..offset + 8) {
        raw.copy_from_slice(found);
    }
    u64::from_le_bytes(raw)
}

/// Where the sequence `descriptor` (a struct rseq_cs) has to go on when it was cut at `instruction`.
fn restart(descriptor: &[u8], instruction: u64) -> Option<u64> {
    let (start, length, abort) = (word(descriptor, 8), word(descriptor, 16), word(descriptor, 24));
    (instruction.wrapping_sub(start) < length).then_some(abort)
}

/// Moves every thread that was stopped inside a sequence to its abort address; `registers` are the threads' own and
/// are changed along. Returns the registrations, thread by thread.
pub(crate) fn begin_anew(
    threads: &[Stopped],
    records: Option<&Records>,
    memory: &ForeignMemory,
    mut registers: Vec<&mut Registers>,
) -> Result<Vec<RestartableSequence>> {
    let mut registrations = Vec::with_capacity(threads.len());
    for (index, thread) in threads.iter().enumerate() {
        registrations.push(match records.and_then(|records| records.of(index)) {
            Some(record) => record.sequence,
            None => ptrace::restartable_sequence(thread.tid()).about(|| thread.subject())?,
        });
    }
    let registered: Vec<(usize, u64)> = registrations
        .iter()
        .enumerate()
        .filter(|(_, registration)| registration.address != 0)
        .map(|(index, registration)| (index, registration.address + RSEQ_CS_OFFSET))
        .collect();
    for chunk in registered.chunks(RANGES_MAX) {
        let ranges: Vec<(u64, usize)> = chunk.iter().map(|(_, address)| (*address, 8)).collect();
        let mut pointers = vec![0_u8; ranges.len() * 8];
        let pid = threads[chunk[0].0].tid();
        // A registration in unmapped memory kills the thread at its next preemption, moved or not.
        let _ = memory::gather(pid, &ranges, &mut pointers);
        for ((index, address), pointer) in chunk.iter().zip(pointers.chunks_exact(8)) {
            let pointer = word(pointer, 0);
            let mut descriptor = [0_u8; RSEQ_CS_BYTES];
            if pointer == 0 || memory.read(ForeignAddress(pointer), &mut descriptor).is_err() {
                continue;
            }
            let (thread, registers) = (&threads[*index], &mut registers[*index]);
            if let Some(abort) = restart(&descriptor, registers.rip) {
                registers.rip = abort;
                // In this order: whenever this process dies, the sequence either is still to be aborted or has been.
                ptrace::set_registers(thread.tid(), registers).about(|| thread.subject())?;
                memory.write(ForeignAddress(*address), &[0; 8]).about(|| thread.subject())?;
            }
        }
    }
    Ok(registrations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_inside_is_cut() {
        let mut descriptor = [0_u8; RSEQ_CS_BYTES];
        descriptor[8..16].copy_from_slice(&0x1000_u64.to_le_bytes());
        descriptor[16..24].copy_from_slice(&0x20_u64.to_le_bytes());
        descriptor[24..32].copy_from_slice(&0x5000_u64.to_le_bytes());
        assert_eq!(restart(&descriptor, 0xfff), None);
        assert_eq!(restart(&descriptor, 0x1000), Some(0x5000));
        assert_eq!(restart(&descriptor, 0x101f), Some(0x5000));
        assert_eq!(restart(&descriptor, 0x1020), None);
    }
}
