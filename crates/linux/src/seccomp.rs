//! Reading a thread's seccomp filters through ptrace.
#![allow(unsafe_code)]

use crate::errno::{Result, check};

/// PTRACE_SECCOMP_GET_FILTER.
const GET_FILTER: libc::c_uint = 0x420c;
/// PTRACE_SECCOMP_GET_METADATA.
const GET_METADATA: libc::c_uint = 0x420d;

/// The n-th filter's program (newest first), 8 bytes an instruction; ENOENT behind the last.
///
/// # Errors
/// ENOENT: no such filter; EACCES: no CAP_SYS_ADMIN, or the caller is under seccomp itself; EMEDIUMTYPE: not a classic filter.
pub fn filter(tid: i32, index: u64) -> Result<Vec<u8>> {
    // SAFETY: with a null address the kernel only tells the number of instructions.
    let count = check("ptrace(SECCOMP_GET_FILTER)", unsafe {
        libc::ptrace(GET_FILTER, tid, index as usize, std::ptr::null_mut::<u8>())
    })?;
    let mut program = vec![0_u8; count as usize * 8];
    // SAFETY: the kernel writes `count` instructions of 8 bytes into the live buffer; the tracee is stopped, so the count
    // cannot grow.
    check("ptrace(SECCOMP_GET_FILTER)", unsafe {
        libc::ptrace(GET_FILTER, tid, index as usize, program.as_mut_ptr())
    })?;
    Ok(program)
}

/// The flags of the n-th filter.
///
/// # Errors
/// As [`filter`].
pub fn flags(tid: i32, index: u64) -> Result<u64> {
    let mut metadata = [index, 0_u64];
    // SAFETY: the kernel reads and writes 16 bytes of the live array.
    check("ptrace(SECCOMP_GET_METADATA)", unsafe { libc::ptrace(GET_METADATA, tid, 16_usize, metadata.as_mut_ptr()) })?;
    Ok(metadata[1])
}
