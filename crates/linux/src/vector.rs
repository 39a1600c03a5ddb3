//! Arrays of struct iovec in a program: ranges of the memory of the process that runs it.

use crate::program::{Argument, Program};

/// Most ranges of one call (UIO_MAXIOV).
pub const RANGES_MAX: usize = 1024;

/// Places the array of ranges: address and length.
pub fn place(program: &mut Program, ranges: &[(u64, usize)]) -> Argument {
    let mut raw = Vec::with_capacity(size_of_val(ranges));
    for (address, length) in ranges {
        raw.extend(address.to_le_bytes());
        raw.extend((*length as u64).to_le_bytes());
    }
    program.data(&raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_is_what_the_kernel_reads() {
        let mut program = Program::new();
        place(&mut program, &[(0x5000, 4), (0x7000, 99)]);
        let bytes = program.bytes();
        assert_eq!(bytes.len(), 2 * size_of::<libc::iovec>());
        assert_eq!((bytes[1], bytes[8], bytes[17], bytes[24]), (0x50, 4, 0x70, 99));
    }
}
