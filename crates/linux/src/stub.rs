//! The only code of ours that ever runs in a foreign process: a position-independent loop that executes a *program* (an
//! array of system calls) and then either traps, or waits and heals itself.
//!
//! It touches no stack, no floating-point state and no memory but its slot. The slot starts with a control block:
//!
//! ```text
//!   0 u32 done            set to 1 when the program has ended
//!   4 u32 mode            0 trap (int3) · 1 wait, then heal · 2 wait, then exit the process
//!   8 u64 count           entries of the program
//!  16 u64 × 14            rax rcx rdx rsi rdi rbp r8 … r15 to heal with
//! 128 u64                 rbx to heal with
//! 136 u64 × 5             rip cs rflags rsp ss: a frame for iretq
//! 176 u64                 signal mask to heal with
//! 184 u64                 the empty signal set
//! 192 u64 × 2             how long to wait for the tracer: seconds, nanoseconds
//! 208 u64                 entries left when the program ended; 0 = all executed
//! 256 entries of 128 bytes: number, six arguments, result, flags, child slot
//! ```
//!
//! *Healing.* A tracer that is killed leaves its tracee wherever it was. In mode 1 that is always inside this loop: it
//! waits for its tracer with rt_sigtimedwait on the empty set, which is the one sleeping call that leaves the kernel's
//! restart block alone, then puts back the signal mask and every register and returns with iretq to where the process
//! was. The process goes on as if nothing had happened. No stop on the way is a SIGTRAP: a tracer that dies while its
//! tracee is in such a stop would let the signal through and kill it.
#![allow(unsafe_code)]

use std::arch::global_asm;

global_asm!(
    r#"
    .pushsection .text.godwit_stub,"ax",@progbits
    .balign 16
    .globl godwit_stub_begin, godwit_stub_single, godwit_stub_last, godwit_stub_wait, godwit_stub_woken, godwit_stub_end
godwit_stub_begin:
    lea r12, [rbx + 256]
    mov r14, r12
    mov r13, [rbx + 8]
10: test r13, r13
    jz 19f
    mov r15, [r12 + 64]
    mov rdi, [r12 + 8]
    mov rsi, [r12 + 16]
    mov rdx, [r12 + 24]
    mov r10, [r12 + 32]
    mov r8, [r12 + 40]
    mov r9, [r12 + 48]
    test r15b, 0x3f
    jz 12f
    bt r15, 0
    jnc 30f
    shl rdi, 7
    mov rdi, [r14 + rdi + 56]
30: bt r15, 1
    jnc 31f
    shl rsi, 7
    mov rsi, [r14 + rsi + 56]
31: bt r15, 2
    jnc 32f
    shl rdx, 7
    mov rdx, [r14 + rdx + 56]
32: bt r15, 3
    jnc 33f
    shl r10, 7
    mov r10, [r14 + r10 + 56]
33: bt r15, 4
    jnc 34f
    shl r8, 7
    mov r8, [r14 + r8 + 56]
34: bt r15, 5
    jnc 12f
    shl r9, 7
    mov r9, [r14 + r9 + 56]
12: mov rax, [r12]
    syscall
    bt r15, 9
    jnc 13f
    test rax, rax
    jnz 13f
    mov rbx, [r12 + 72]
    jmp godwit_stub_begin
13: mov [r12 + 56], rax
    bt r15, 8
    jnc 14f
    cmp rax, -4095
    jae 19f
14: add r12, 128
    dec r13
    jmp 10b
19: mov [rbx + 208], r13
    mov dword ptr [rbx], 1
    cmp dword ptr [rbx + 4], 1
    jae godwit_stub_wait
    int3
    jmp godwit_stub_begin
godwit_stub_last:
    syscall
godwit_stub_wait:
    lea rdi, [rbx + 184]
    xor esi, esi
    lea rdx, [rbx + 192]
    mov r10d, 8
    mov eax, 128
    syscall
godwit_stub_woken:
    cmp dword ptr [rbx + 4], 2
    jne 21f
20: mov edi, 125
    mov eax, 231
    syscall
    jmp 20b
godwit_stub_single:
    syscall
21: mov edi, 2
    lea rsi, [rbx + 176]
    xor edx, edx
    mov r10d, 8
    mov eax, 14
    syscall
    mov rax, [rbx + 16]
    mov rcx, [rbx + 24]
    mov rdx, [rbx + 32]
    mov rsi, [rbx + 40]
    mov rdi, [rbx + 48]
    mov rbp, [rbx + 56]
    mov r8, [rbx + 64]
    mov r9, [rbx + 72]
    mov r10, [rbx + 80]
    mov r11, [rbx + 88]
    mov r12, [rbx + 96]
    mov r13, [rbx + 104]
    mov r14, [rbx + 112]
    mov r15, [rbx + 120]
    lea rsp, [rbx + 136]
    mov rbx, [rbx + 128]
    iretq
godwit_stub_end:
    nop
    .popsection
    "#
);

unsafe extern "C" {
    static godwit_stub_begin: u8;
    static godwit_stub_single: u8;
    static godwit_stub_last: u8;
    static godwit_stub_wait: u8;
    static godwit_stub_woken: u8;
    static godwit_stub_end: u8;
}

/// The stub's bytes.
pub fn code() -> &'static [u8] {
    // SAFETY: both symbols delimit one section of this binary's text, which is readable and never changes.
    unsafe {
        let begin = &raw const godwit_stub_begin;
        let end = &raw const godwit_stub_end;
        std::slice::from_raw_parts(begin, end as usize - begin as usize)
    }
}

/// Offset of the instruction that makes a single call and then heals.
pub fn single_offset() -> u64 {
    (&raw const godwit_stub_single) as u64 - (&raw const godwit_stub_begin) as u64
}

/// Offset of the instruction that makes a single call and then waits for its tracer as behind a program.
pub fn last_offset() -> u64 {
    (&raw const godwit_stub_last) as u64 - (&raw const godwit_stub_begin) as u64
}

/// Offset of the place where the stub waits for its tracer.
pub fn wait_offset() -> u64 {
    (&raw const godwit_stub_wait) as u64 - (&raw const godwit_stub_begin) as u64
}

/// Offset of the place where it goes on when its wait is over: a thread that waits is stopped there.
pub fn woken_offset() -> u64 {
    (&raw const godwit_stub_woken) as u64 - (&raw const godwit_stub_begin) as u64
}

/// Bytes of a control block.
pub const CONTROL_BYTES: usize = 256;
/// Bytes of one entry.
pub const ENTRY_BYTES: usize = 128;

/// What the stub does when its program has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// int3: fastest; kills the process when nobody traces it, so only for processes that are ours to lose.
    Trap = 0,
    /// Wait for the tracer, then put everything back and go on: for sources.
    Heal = 1,
    /// Wait for the tracer, then exit: for newborn skeletons that nobody traces yet.
    Exit = 2,
}

/// What a control block heals with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Healing {
    /// Registers to continue with, the interrupted call already set up to be made again.
    pub registers: [u64; 27],
    /// Signal mask.
    pub mask: u64,
}

/// Writes a control block.
pub fn control_block(ending: Ending, count: u64, healing: &Healing, wait_seconds: u64) -> [u8; CONTROL_BYTES] {
    let mut block = [0_u8; CONTROL_BYTES];
    let mut word = |offset: usize, value: u64| block[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
    // struct user_regs_struct: r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss …
    let r = &healing.registers;
    word(0, (ending as u64) << 32);
    word(8, count);
    for (index, register) in [10, 11, 12, 13, 14, 4, 9, 8, 7, 6, 3, 2, 1, 0].into_iter().enumerate() {
        word(16 + index * 8, r[register]);
    }
    word(128, r[5]);
    for (index, register) in [16, 17, 18, 19, 20].into_iter().enumerate() {
        word(136 + index * 8, r[register]);
    }
    word(176, healing.mask);
    word(192, wait_seconds);
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fits_into_the_slack_of_a_vdso() {
        assert!(code().len() + CONTROL_BYTES < 700, "{}", code().len());
        assert!(single_offset() > wait_offset());
    }
}
