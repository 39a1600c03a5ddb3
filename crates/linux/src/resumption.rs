//! The few instructions through which an interrupted timed wait goes on with the time that is left.
//!
//! A thread that was cut short in such a call makes it once more *here*, with the time that is left in place of its
//! whole time, and then goes on behind its own call with every register as its own call would have left it. It comes
//! with a frame below its stack's red zone, where the kernel would put a signal's frame; nothing stays behind but this
//! code, which is the same for every thread and every call:
//!
//! ```text
//!   0 u64 × 2  the time that is left, seconds and nanoseconds; or a struct pollfd
//!  16 u64 × 6  rdi rsi rdx r10 r8 of the call, where to go on
//!  64 u64      the stack pointer
//!  72 u64 × 3  of a socket: its call's answer when the time is over, number, place
//! ```
//!
//! Whatever the call answers is the answer of the thread's own call, EINTR for a handler among it. A call on a socket
//! has no time of its own: `poll` waits for the socket, then the call is made at its own place, or is over.
//!
//! `jrcxz` and not a comparison: the flags stay.
#![allow(unsafe_code)]

use std::arch::global_asm;

global_asm!(
    r#"
    .pushsection .text.godwit_resumption,"ax",@progbits
    .balign 16
    .globl godwit_resumption_begin, godwit_resumption_poll, godwit_resumption_end
godwit_resumption_begin:
    syscall
60: mov rdi, [rsp + 16]
    mov rsi, [rsp + 24]
    mov rdx, [rsp + 32]
    mov r10, [rsp + 40]
    mov r8, [rsp + 48]
    mov rcx, [rsp + 56]
    mov rsp, [rsp + 64]
    jmp rcx
godwit_resumption_poll:
    syscall
    lea rcx, [rax - 1]
    jrcxz 62f
    mov rcx, rax
    jrcxz 61f
    jmp 60b
61: mov rax, [rsp + 72]
    jmp 60b
62: mov rcx, [rsp + 88]
    mov [rsp + 56], rcx
    mov rax, [rsp + 80]
    jmp 60b
godwit_resumption_end:
    nop
    .popsection
    "#
);

unsafe extern "C" {
    static godwit_resumption_begin: u8;
    static godwit_resumption_poll: u8;
    static godwit_resumption_end: u8;
}

/// The code.
pub fn code() -> &'static [u8] {
    // SAFETY: both symbols delimit one section of this binary's text, which is readable and never changes.
    unsafe {
        let begin = &raw const godwit_resumption_begin;
        let end = &raw const godwit_resumption_end;
        std::slice::from_raw_parts(begin, end as usize - begin as usize)
    }
}

/// Length of a `syscall` instruction.
const SYSCALL_BYTES: u64 = 2;

/// Offset behind the call's instruction.
pub fn behind_call() -> u64 {
    SYSCALL_BYTES
}

/// Offset behind the instruction by which a socket is waited for.
pub fn behind_poll() -> u64 {
    (&raw const godwit_resumption_poll) as u64 - (&raw const godwit_resumption_begin) as u64 + SYSCALL_BYTES
}

/// Bytes at the end of the vDSO that are kept free for the code.
pub const ROOM_BYTES: u64 = 128;
/// Bytes of a frame.
pub const FRAME_BYTES: usize = 96;

/// What a thread goes on with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frame {
    /// The time that is left, in seconds and nanoseconds; or a struct pollfd.
    pub time: [u64; 2],
    /// rdi, rsi, rdx, r10, r8 of the thread's own call.
    pub arguments: [u64; 5],
    /// Behind its instruction.
    pub next: u64,
    /// Its stack pointer.
    pub stack: u64,
    /// Of a call on a socket: what it answers when the time is over.
    pub answer: u64,
    /// Its number.
    pub call: u64,
}

impl Frame {
    /// The bytes for the stack.
    pub fn bytes(&self) -> [u8; FRAME_BYTES] {
        let mut bytes = [0; FRAME_BYTES];
        let [a0, a1, a2, a3, a4] = self.arguments;
        let [seconds, nanoseconds] = self.time;
        let place = self.next.wrapping_sub(SYSCALL_BYTES);
        let words = [seconds, nanoseconds, a0, a1, a2, a3, a4, self.next, self.stack, self.answer, self.call, place];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::arch::asm;

    #[test]
    fn has_room() {
        assert!(code().len() as u64 <= ROOM_BYTES, "{}", code().len());
        assert_eq!(code()[..2], [0x0f, 0x05]);
        let poll = behind_poll() as usize;
        assert_eq!(code()[poll - 2..poll], [0x0f, 0x05]);
    }

    /// Enters the code as a resumed thread does, with the registers of the call that it makes there.
    fn enter(entry: u64, frame: &mut [u64; 12], call: u64, arguments: [u64; 5]) -> (u64, [u64; 5]) {
        let [mut a0, mut a1, mut a2, mut a3, mut a4] = arguments;
        let mut result = call;
        // SAFETY: the code makes one system call that touches only `frame`, then jumps to label 3 with the stack
        // pointer and rdi, rsi, rdx, r10, r8 from the frame; everything that it changes is declared. The red zone is
        // not used by code with a call-like `asm`.
        unsafe {
            asm!(
                "lea rcx, [rip + 3f]",
                "mov [r9 + 56], rcx",
                "mov [r9 + 64], rsp",
                "sub rcx, 2",
                "mov [r9 + 88], rcx",
                "mov rsp, r9",
                "jmp r12",
                // The thread's own call: label 3 lies behind it.
                "syscall",
                "3:",
                in("r9") frame.as_mut_ptr(),
                in("r12") entry,
                inout("rax") result,
                inout("rdi") a0,
                inout("rsi") a1,
                inout("rdx") a2,
                inout("r10") a3,
                inout("r8") a4,
                out("rcx") _,
                out("r11") _,
            );
        }
        (result, [a0, a1, a2, a3, a4])
    }

    fn frame(arguments: [u64; 5], answer: u64, call: u64) -> [u64; 12] {
        let frame = Frame { arguments, answer, call, ..Frame::default() };
        let mut words = [0; 12];
        for (word, chunk) in words.iter_mut().zip(frame.bytes().chunks_exact(8)) {
            *word = u64::from_le_bytes(*chunk.first_chunk().unwrap());
        }
        words
    }

    #[test]
    fn a_call_answers_and_the_registers_are_those_of_the_own_call() {
        let entry = code().as_ptr() as u64;
        let mut frame = frame([1, 2, 3, 4, 5], 0, 0);
        frame[1] = 1000;
        let time = frame.as_ptr() as u64;
        let (result, registers) = enter(entry, &mut frame, libc::SYS_nanosleep as u64, [time, 0, 0, 0, 0]);
        assert_eq!((result, registers), (0, [1, 2, 3, 4, 5]));
    }

    #[test]
    fn a_socket_is_over_in_time_or_its_call_is_made() {
        let entry = code().as_ptr() as u64 + behind_poll() - 2;
        let (mut ends, no) = ([0; 2], (-libc::EAGAIN) as i64 as u64);
        // SAFETY: two new descriptors are written to `ends`.
        assert_eq!(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, ends.as_mut_ptr()) }, 0);
        let mut byte = 0_u8;
        let own = [ends[0] as u64, &raw mut byte as u64, 1, 0, 0];
        let mut waiting = frame(own, no, libc::SYS_recvfrom as u64);
        waiting[0] = ends[0] as u64 | (libc::POLLIN as u64) << 32;
        let descriptors = waiting.as_ptr() as u64;
        let (result, registers) = enter(entry, &mut waiting, libc::SYS_poll as u64, [descriptors, 1, 1, 0, 0]);
        assert_eq!((result, registers), (no, own));
        // SAFETY: one byte is read from the literal.
        assert_eq!(unsafe { libc::send(ends[1], b"x".as_ptr().cast(), 1, 0) }, 1);
        // recvfrom has a sixth argument: r9 is the frame's address here, which it may not write to for lack of an address.
        let read = [own[0], own[1], own[2], 0, 0];
        let mut waiting = frame(read, no, libc::SYS_read as u64);
        waiting[0] = ends[0] as u64 | (libc::POLLIN as u64) << 32;
        let descriptors = waiting.as_ptr() as u64;
        let (result, registers) = enter(entry, &mut waiting, libc::SYS_poll as u64, [descriptors, 1, 1, 0, 0]);
        assert_eq!((result, registers, byte), (1, read, b'x'));
        for end in ends {
            // SAFETY: closes the descriptors made above.
            unsafe { libc::close(end) };
        }
    }
}
