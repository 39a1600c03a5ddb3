//! Arguments of recvmsg(2) in a program: a struct msghdr whose parts lie in the process itself.

use crate::program::{Argument, Program};
use crate::vector;

/// recvmsg(2).
pub const SYS_RECVMSG: i64 = libc::SYS_recvmsg;
/// MSG_WAITALL: comes back with less only when the connection ends, a signal comes or the time is over.
pub const ALL: u64 = libc::MSG_WAITALL as u64;

/// Places a struct msghdr without a name and without control data, of at most [`vector::RANGES_MAX`] ranges of the process's memory.
pub fn header(program: &mut Program, ranges: &[(u64, usize)]) -> Argument {
    const MESSAGE_BYTES: usize = size_of::<libc::msghdr>();
    const VECTOR_AT: usize = std::mem::offset_of!(libc::msghdr, msg_iov);
    const COUNT_AT: usize = std::mem::offset_of!(libc::msghdr, msg_iovlen);
    let ranges = &ranges[..ranges.len().min(vector::RANGES_MAX)];
    let vector = vector::place(program, ranges);
    let mut message = [0; MESSAGE_BYTES];
    message[COUNT_AT..COUNT_AT + 8].copy_from_slice(&(ranges.len() as u64).to_le_bytes());
    let message = program.data(&message);
    if let Argument::Data(start) = message {
        program.point(start + VECTOR_AT, vector);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_points_to_its_ranges() {
        let mut program = Program::new();
        let message = header(&mut program, &[(0x5000, 4), (0x7000, 99)]);
        let bytes = program.resolved(0x1_0000);
        let word = |at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().unwrap());
        let Argument::Data(message) = message else { panic!("{message:?}") };
        // msg_iov, msg_iovlen of struct msghdr; then the two struct iovec.
        let (vector, count) = (word(message + 16) as usize - 0x1_0000, word(message + 24));
        assert_eq!(count, 2);
        let found = [0, 8, 16, 24].map(|at| word(vector + at));
        assert_eq!(found, [0x5000, 4, 0x7000, 99]);
    }
}
