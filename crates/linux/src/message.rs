//! Arguments of sendmsg(2) and recvmsg(2) in a program: a struct msghdr whose parts lie in the process itself.

use crate::program::{Argument, Program};

/// Most parts of one message (UIO_MAXIOV).
pub const PARTS_MAX: usize = 1024;
/// sendmsg(2).
pub const SYS_SENDMSG: i64 = libc::SYS_sendmsg;
/// recvmsg(2).
pub const SYS_RECVMSG: i64 = libc::SYS_recvmsg;
/// MSG_NOSIGNAL: whose peer is gone is told so by an error alone.
pub const NO_SIGNAL: u64 = libc::MSG_NOSIGNAL as u64;
/// MSG_WAITALL: comes back with less only when the connection ends, a signal comes or the time is over.
pub const ALL: u64 = libc::MSG_WAITALL as u64;

/// A part of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part<'a> {
    /// Bytes that come with the program.
    Bytes(&'a [u8]),
    /// Memory of the process that runs it: address and length.
    Memory(u64, usize),
}

impl Part<'_> {
    /// Its length.
    pub fn bytes(&self) -> usize {
        match self {
            Part::Bytes(bytes) => bytes.len(),
            Part::Memory(_, length) => *length,
        }
    }
}

/// Places a struct msghdr without a name and without control data, of at most [`PARTS_MAX`] parts.
pub fn header(program: &mut Program, parts: &[Part<'_>]) -> Argument {
    const MESSAGE_BYTES: usize = size_of::<libc::msghdr>();
    const VECTOR_AT: usize = std::mem::offset_of!(libc::msghdr, msg_iov);
    const COUNT_AT: usize = std::mem::offset_of!(libc::msghdr, msg_iovlen);
    let parts = &parts[..parts.len().min(PARTS_MAX)];
    let owned: Vec<Option<Argument>> = parts
        .iter()
        .map(|part| match part {
            Part::Bytes(bytes) => Some(program.data(bytes)),
            Part::Memory(..) => None,
        })
        .collect();
    let mut raw = Vec::with_capacity(size_of_val(parts) + MESSAGE_BYTES);
    for part in parts {
        let address = if let Part::Memory(address, _) = part { *address } else { 0 };
        raw.extend(address.to_le_bytes());
        raw.extend((part.bytes() as u64).to_le_bytes());
    }
    let vector = program.data(&raw);
    if let Argument::Data(start) = vector {
        for (index, place) in owned.into_iter().enumerate() {
            if let Some(place) = place {
                program.point(start + index * size_of::<libc::iovec>(), place);
            }
        }
    }
    let mut message = [0; MESSAGE_BYTES];
    message[COUNT_AT..COUNT_AT + 8].copy_from_slice(&(parts.len() as u64).to_le_bytes());
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
    fn a_header_points_to_its_parts() {
        let mut program = Program::new();
        let message = header(&mut program, &[Part::Bytes(b"head"), Part::Memory(0x7000, 99)]);
        let bytes = program.resolved(0x1_0000);
        let word = |at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().unwrap());
        let Argument::Data(message) = message else { panic!("{message:?}") };
        // msg_iov, msg_iovlen of struct msghdr; then the two struct iovec.
        let (vector, count) = (word(message + 16) as usize - 0x1_0000, word(message + 24));
        assert_eq!(count, 2);
        let head = word(vector) as usize - 0x1_0000;
        assert_eq!((&bytes[head..head + 4], word(vector + 8)), (&b"head"[..], 4));
        assert_eq!((word(vector + 16), word(vector + 24)), (0x7000, 99));
    }
}
