//! Our own heap, made before it is needed: to fetch a page from the kernel takes longer than to fill it.
//!
//! # References
//! <https://man7.org/linux/man-pages/man3/mallopt.3.html>
#![allow(unsafe_code)]
use std::mem::MaybeUninit;

/// What the allocator takes for small enough for its heap, however it is set.
const PIECE_BYTES: usize = 64 << 10;
const PAGE_BYTES: usize = 4096;
/// Blocks of this size and larger have mappings of their own, as ever: buffers for pieces of memory among them, of which often only
/// the beginning is used. A mapping is zero without being cleared; a part of the heap that had been used would be cleared whole.
const MAPPED_BYTES: libc::c_int = 1 << 20;

/// Has the heap of this process's first thread hold so many bytes more than now, with their pages, and keep them when they are freed.
/// Whatever fails costs only time, later.
pub fn prepare(bytes: usize) {
    let keeps = libc::c_int::try_from(bytes.saturating_mul(2)).unwrap_or(libc::c_int::MAX);
    // SAFETY: mallopt only sets numbers of the allocator, which it locks for that.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, keeps);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES);
    }
    let piece = || {
        let mut piece: Vec<u8> = Vec::with_capacity(PIECE_BYTES);
        populate(piece.spare_capacity_mut());
        piece
    };
    // All are there at the same time, so that each is another one.
    let pieces: Vec<Vec<u8>> = (0..bytes.div_ceil(PIECE_BYTES)).map(|_| piece()).collect();
    drop(std::hint::black_box(pieces));
}

/// So many zeros, whose pages are there.
pub fn zeros(bytes: usize) -> Vec<u8> {
    let mut zeros: Vec<u8> = Vec::with_capacity(bytes);
    populate(zeros.spare_capacity_mut());
    zeros.resize(bytes, 0);
    zeros
}

/// Has the kernel fetch the pages of a part of our memory, in one call where it can.
fn populate(part: &mut [MaybeUninit<u8>]) {
    let start = part.as_mut_ptr() as usize & !(PAGE_BYTES - 1);
    let length = part.as_mut_ptr_range().end as usize - start;
    // SAFETY: MADV_POPULATE_WRITE faults pages in as writes would and changes no contents; the page in which the part begins, and the
    // one in which it ends, are this process's heap as well. Kernels before 5.14 answer EINVAL.
    if unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_POPULATE_WRITE) } != 0 {
        for page in part.iter_mut().step_by(PAGE_BYTES) {
            page.write(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pagemap::Pagemap;

    /// Bytes of a part of our memory that have pages: what the process has in all changes with every test that runs beside this one.
    fn present(part: &[MaybeUninit<u8>]) -> u64 {
        let range = part.as_ptr_range();
        let (start, end) = (range.start as u64 & !(PAGE_BYTES as u64 - 1), range.end as u64 & !(PAGE_BYTES as u64 - 1));
        let mut bytes = 0;
        let pagemap = Pagemap::open(std::process::id() as i32).unwrap();
        pagemap.anonymous_pages(start, end, |start, end, _| bytes += end - start).unwrap();
        bytes
    }

    #[test]
    fn what_was_freed_stays() {
        const BYTES: usize = 16 << 20;
        // Alone in a process: tests beside it have parts of the same heap.
        if std::env::var_os("GODWIT_ALONE").is_none() {
            let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
            alone.args(["--exact", "heap::tests::what_was_freed_stays", "--nocapture"]).env("GODWIT_ALONE", "1");
            assert!(alone.stdout(std::process::Stdio::null()).status().unwrap().success());
            return;
        }
        let mut fresh: Vec<u8> = Vec::with_capacity(BYTES);
        assert!(present(fresh.spare_capacity_mut()) < BYTES as u64 / 4, "pages that nobody has touched");
        prepare(BYTES);
        let mut pieces: Vec<Vec<u8>> = (0..BYTES / PIECE_BYTES / 2).map(|_| Vec::with_capacity(PIECE_BYTES)).collect();
        let bytes: u64 = pieces.iter_mut().map(|piece| present(piece.spare_capacity_mut())).sum();
        assert!(bytes >= BYTES as u64 / 4, "{bytes} bytes have pages");
    }

    #[test]
    fn zeros_are_there() {
        const BYTES: usize = 8 << 20;
        let mut part: Vec<u8> = Vec::with_capacity(BYTES);
        populate(part.spare_capacity_mut());
        let bytes = present(part.spare_capacity_mut());
        assert!(bytes >= BYTES as u64 - PAGE_BYTES as u64, "{bytes} bytes have pages");
        let zeros = zeros(BYTES);
        assert!(zeros.len() == BYTES && zeros.iter().all(|byte| *byte == 0));
    }
}
