//! Memory that we share with foreign processes: the stub's code, slots for programs, and a place for bulk programs.
#![allow(unsafe_code)]

use crate::errno::{Errno, Result, check, check_int};
use crate::program::{Outcome, Program};
use crate::stub::{self, CONTROL_BYTES, ENTRY_BYTES, Ending, Healing};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Bytes of the code page.
pub const CODE_BYTES: usize = 4096;
/// Bytes of one thread's slot.
pub const SLOT_BYTES: usize = 8192;
/// The same where there are many: room for what nearly all programs of one thread need, and half the pages to be made.
pub const SMALL_SLOT_BYTES: usize = 4096;
/// How long the stub waits for its tracer. A newborn is attached at once. One whose maker died just before must not keep its
/// number, and what it inherited, for long: the other side of a link sees its end only when nobody has it open any more.
pub const WAIT_SECONDS: u64 = 2;
/// The same for who ends with its tracer: a thread of a process that is traced so, a newborn one among them. It keeps nothing, and on a
/// busy machine a thousand of them take their time.
pub const TRACED_WAIT_SECONDS: u64 = 60;
/// Bytes of the slot for large programs.
pub const BULK_BYTES: usize = 1 << 20;

/// A shared memory object mapped here: `CODE_BYTES` of code, one bulk slot, then `slots` small slots.
#[derive(Debug)]
pub struct Arena {
    descriptor: OwnedFd,
    base: *mut u8,
    length: usize,
    slots: usize,
    slot_bytes: usize,
}

// SAFETY: the mapping is plain memory; concurrent access goes through the caller's discipline of one writer per slot,
// and the done words are atomics.
unsafe impl Send for Arena {}

/// A place where one thread's program lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot {
    /// Offset in the arena.
    pub offset: usize,
    /// Length in bytes.
    pub length: usize,
}

impl Slot {
    /// Whether a program fits.
    pub fn holds(self, program: &Program) -> bool {
        CONTROL_BYTES + program.calls().len() * ENTRY_BYTES + program.bytes().len() <= self.length
    }
}

/// From so many slots on it pays to have all their pages made at once.
pub const MANY_SLOTS: usize = 32;

/// Length of an arena with so many small slots of so many bytes, page-aligned.
pub fn length(slots: usize, slot_bytes: usize) -> usize {
    (CODE_BYTES + BULK_BYTES + slots * slot_bytes).next_multiple_of(4096)
}

/// Bytes of a slot for a tree that is built, where every thread has one.
pub fn slot_bytes(slots: usize) -> usize {
    if slots >= MANY_SLOTS { SMALL_SLOT_BYTES } else { SLOT_BYTES }
}

/// Whether we may open what others have mapped (CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN of the host's), as far as is known: it was
/// not refused yet.
pub fn may_open_mappings() -> bool {
    MAY_OPEN.load(Ordering::Relaxed)
}

static MAY_OPEN: AtomicBool = AtomicBool::new(true);

/// Opens the shared memory that a process has mapped in exactly this range of addresses; none where that is not allowed.
///
/// # References
/// proc_map_files(5)
pub fn open_mapping(pid: i32, range: std::ops::Range<u64>) -> Option<OwnedFd> {
    let path = format!("/proc/{pid}/map_files/{:x}-{:x}", range.start, range.end);
    let opened = std::fs::File::options().read(true).write(true).open(path);
    if opened.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied) {
        MAY_OPEN.store(false, Ordering::Relaxed);
    }
    opened.ok().map(OwnedFd::from)
}

impl Arena {
    /// A new shared memory object, mapped anywhere (`address` 0) or exactly there.
    ///
    /// # Errors
    /// ENOMEM, EMFILE; EEXIST: the address is taken.
    pub fn new(slots: usize, address: u64) -> Result<Arena> {
        // SAFETY: the name is a NUL-terminated literal.
        let raw = check_int("memfd_create", unsafe { libc::memfd_create(c"godwit".as_ptr(), libc::MFD_CLOEXEC) })?;
        // SAFETY: fresh descriptor, owned by nobody else.
        let descriptor = unsafe { OwnedFd::from_raw_fd(raw) };
        Arena::map(descriptor, slots, slot_bytes(slots), address, true)
    }

    /// Maps shared memory that the foreign process made (it must be ours to fill), with slots of [`SLOT_BYTES`].
    ///
    /// # Errors
    /// As [`Arena::new`].
    pub fn on(descriptor: OwnedFd, slots: usize) -> Result<Arena> {
        Arena::map(descriptor, slots, SLOT_BYTES, 0, false)
    }

    fn map(descriptor: OwnedFd, slots: usize, slot_bytes: usize, address: u64, executable: bool) -> Result<Arena> {
        let length = length(slots, slot_bytes);
        // SAFETY: no pointers.
        check_int("ftruncate", unsafe { libc::ftruncate(descriptor.as_raw_fd(), length as i64) })?;
        let mut flags = libc::MAP_SHARED;
        if address != 0 {
            flags |= libc::MAP_FIXED_NOREPLACE;
        }
        // SAFETY: a new shared mapping that replaces nothing.
        let base = unsafe {
            libc::mmap(address as *mut _, length, libc::PROT_READ | libc::PROT_WRITE, flags, descriptor.as_raw_fd(), 0)
        };
        if base == libc::MAP_FAILED {
            return Err(Errno::last("mmap"));
        }
        let arena = Arena { descriptor, base: base.cast(), length, slots, slot_bytes };
        if slots >= MANY_SLOTS {
            // SAFETY: our own fresh mapping. Where this fails, pages come one by one.
            unsafe {
                libc::madvise(
                    arena.base.add(CODE_BYTES + BULK_BYTES).cast(),
                    length - CODE_BYTES - BULK_BYTES,
                    libc::MADV_POPULATE_WRITE,
                )
            };
        }
        arena.write(0, stub::code());
        if executable {
            // SAFETY: our own mapping's first page, which holds only the stub.
            check_int("mprotect", unsafe { libc::mprotect(base, CODE_BYTES, libc::PROT_READ | libc::PROT_EXEC) })?;
        }
        Ok(arena)
    }

    /// The memory object.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Where it is mapped here (and in every fork of this process).
    pub fn base(&self) -> u64 {
        self.base as u64
    }

    /// Length in bytes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// How many small slots there are.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// The n-th small slot.
    pub fn slot(&self, index: usize) -> Option<Slot> {
        (index < self.slots)
            .then(|| Slot { offset: CODE_BYTES + BULK_BYTES + index * self.slot_bytes, length: self.slot_bytes })
    }

    /// The slot for large programs.
    pub fn bulk(&self) -> Slot {
        Slot { offset: CODE_BYTES, length: BULK_BYTES }
    }

    /// Copies bytes in; what lies beyond the end is cut off.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let count = bytes.len().min(self.length.saturating_sub(offset));
        // SAFETY: offset + count lies inside the mapping.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.add(offset), count) }
    }

    /// Copies bytes out; what lies beyond the end reads as zero.
    pub fn read(&self, offset: usize, length: usize) -> Vec<u8> {
        let mut out = vec![0; length];
        let count = length.min(self.length.saturating_sub(offset));
        // SAFETY: offset + count lies inside the mapping.
        unsafe { std::ptr::copy_nonoverlapping(self.base.add(offset), out.as_mut_ptr(), count) }
        out
    }

    fn word(&self, offset: usize) -> u64 {
        let mut raw = [0; 8];
        let count = raw.len().min(self.length.saturating_sub(offset));
        // SAFETY: offset + count lies inside the mapping.
        unsafe { std::ptr::copy_nonoverlapping(self.base.add(offset), raw.as_mut_ptr(), count) }
        u64::from_le_bytes(raw)
    }

    /// Lays a program into a slot; `foreign_base` is where the foreign process has the arena.
    ///
    /// # Errors
    /// E2BIG: it does not fit.
    pub fn lay(
        &self,
        slot: Slot,
        program: &Program,
        foreign_base: u64,
        ending: Ending,
        healing: &Healing,
    ) -> Result<()> {
        self.lay_block(slot, program, foreign_base, |calls| stub::control_block(ending, calls, healing, WAIT_SECONDS))
    }

    /// The same for a thread of a process that ends with its tracer: what it does at its birth, before it is attached, or later.
    ///
    /// # Errors
    /// As [`Arena::lay`].
    pub fn lay_traced(&self, slot: Slot, program: &Program, foreign_base: u64, ending: Ending) -> Result<()> {
        let block = |calls| stub::control_block(ending, calls, &Healing::default(), TRACED_WAIT_SECONDS);
        self.lay_block(slot, program, foreign_base, block)
    }

    fn lay_block(
        &self,
        slot: Slot,
        program: &Program,
        foreign_base: u64,
        block: impl FnOnce(u64) -> [u8; CONTROL_BYTES],
    ) -> Result<()> {
        if !slot.holds(program) {
            return Err(Errno { number: libc::E2BIG, call: "lay program" });
        }
        let entries = slot.offset + CONTROL_BYTES;
        let data = entries + program.calls().len() * ENTRY_BYTES;
        self.write(data, &program.resolved(foreign_base + data as u64));
        self.write(entries, &program.encode(foreign_base + data as u64));
        self.write(slot.offset, &block(program.calls().len() as u64));
        Ok(())
    }

    /// Whether the program in a slot has ended.
    pub fn done(&self, slot: Slot) -> bool {
        // SAFETY: slots are 8-aligned and inside the mapping; the stub stores the word with one instruction.
        let done = unsafe { &*self.base.add(slot.offset).cast::<AtomicU32>() };
        done.load(Ordering::Acquire) != 0
    }

    /// The results of an ended program.
    pub fn outcome(&self, slot: Slot, program: &Program) -> Outcome {
        let left = self.word(slot.offset + 208) as usize;
        let total = program.calls().len();
        // A call that failed and ended the program counts as left; its result is there all the same.
        let executed = if left == 0 { total } else { total.saturating_sub(left) + 1 };
        let results = (0..executed.min(total))
            .map(|index| self.word(slot.offset + CONTROL_BYTES + index * ENTRY_BYTES + 56) as i64)
            .collect();
        Outcome { results }
    }

    /// Bytes of a laid program's data after the run.
    pub fn data(&self, slot: Slot, program: &Program, offset: usize, length: usize) -> Vec<u8> {
        self.read(slot.offset + CONTROL_BYTES + program.calls().len() * ENTRY_BYTES + offset, length)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: our own mapping, no references into it outlive the arena.
        let _ = check("munmap", unsafe { i64::from(libc::munmap(self.base.cast(), self.length)) });
    }
}
