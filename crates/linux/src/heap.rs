//! Our own heap, made before it is needed: to fetch a page from the kernel takes longer than to fill it.
//!
//! # References
//! <https://man7.org/linux/man-pages/man3/mallopt.3.html>
#![allow(unsafe_code)]

/// What the allocator takes for small enough for its heap, however it is set.
const PIECE_BYTES: usize = 64 << 10;
const PAGE_BYTES: usize = 4096;
/// Larger blocks have mappings of their own, as ever.
const MAPPED_BYTES: libc::c_int = 2 << 20;

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
        for page in piece.spare_capacity_mut().iter_mut().step_by(PAGE_BYTES) {
            page.write(0);
        }
        piece
    };
    // All are there at the same time, so that each is another one.
    let pieces: Vec<Vec<u8>> = (0..bytes.div_ceil(PIECE_BYTES)).map(|_| piece()).collect();
    drop(std::hint::black_box(pieces));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident() -> u64 {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap();
        text.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn what_was_freed_stays() {
        const BYTES: usize = 16 << 20;
        let before = resident();
        prepare(BYTES);
        let now = resident();
        assert!(now >= before + (BYTES / PAGE_BYTES / 2) as u64, "{before} pages, then {now}");
    }
}
