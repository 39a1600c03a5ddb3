//! userfaultfd(2): another address space's pages are placed whole (without faults and without zeroing them first), waited for, or
//! tracked as they are written.
//!
//! The descriptor belongs to the address space of whoever makes it, so a process has to be brought to make it, by the call or from
//! the device, which lets a process that has no privileges have one that also serves faults in kernel mode.
//! When the last descriptor is closed all registrations go: what was write-protected is written as ever, what was missing is zero.
//!
//! # References
//! <https://man7.org/linux/man-pages/man2/ioctl_userfaultfd.2.html>, Documentation/admin-guide/mm/userfaultfd.rst
#![allow(unsafe_code)]

use crate::errno::{Errno, Result, check, check_int};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// userfaultfd(2) flags of a descriptor for filling: O_CLOEXEC, O_NONBLOCK, UFFD_USER_MODE_ONLY. The last needs no
/// privilege, and makes a stray access by the kernel fail instead of waiting for us.
pub const FLAGS: u64 = 0o2_004_001;
/// Flags of a descriptor for everything: also faults in kernel mode. For the privileged, or through [`DEVICE`].
pub const FULL_FLAGS: u64 = 0o2_004_000;
/// System call number.
pub const SYS_USERFAULTFD: i64 = 323;
/// The device that makes descriptors, too, for whoever has it open.
pub const DEVICE: &str = "/dev/userfaultfd";
/// ioctl(2) of the device: its argument are [`FULL_FLAGS`], its result is the descriptor.
pub const NEW: u64 = 0xaa00;

/// What a descriptor can be asked for at its beginning.
pub mod feature {
    /// Each child of a fork has a descriptor, too, which comes as an event.
    pub const EVENT_FORK: u64 = 1 << 1;
    /// Moved memory is an event.
    pub const EVENT_REMAP: u64 = 1 << 2;
    /// Given back memory is an event.
    pub const EVENT_REMOVE: u64 = 1 << 3;
    /// Unmapped memory is an event.
    pub const EVENT_UNMAP: u64 = 1 << 6;
    /// Faults tell their thread.
    pub const THREAD_ID: u64 = 1 << 8;
    /// Pages that were never there can be write-protected, too.
    pub const WRITE_PROTECT_UNPOPULATED: u64 = 1 << 13;
    /// Accesses to a range can be made to fail.
    pub const POISON: u64 = 1 << 14;
    /// A write is let through and remembered; nobody waits.
    pub const WRITE_PROTECT_ASYNCHRONOUS: u64 = 1 << 15;
}

/// What a range is registered for.
pub mod mode {
    /// Pages that are not there.
    pub const MISSING: u64 = 1;
    /// Pages that are write-protected.
    pub const WRITE_PROTECT: u64 = 2;
}

/// How pages are placed.
pub mod placing {
    /// Whoever waits for them is not woken.
    pub const QUIETLY: u64 = 1;
    /// They are write-protected from the beginning.
    pub const WRITE_PROTECTED: u64 = 2;
}

const UFFD_API: u64 = 0xaa;
const UFFDIO_API: libc::Ioctl = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::Ioctl = 0xc020_aa00;
const UFFDIO_UNREGISTER: libc::Ioctl = 0x8010_aa01u32 as libc::Ioctl;
const UFFDIO_WAKE: libc::Ioctl = 0x8010_aa02u32 as libc::Ioctl;
const UFFDIO_COPY: libc::Ioctl = 0xc028_aa03;
const UFFDIO_ZEROPAGE: libc::Ioctl = 0xc020_aa04;
const UFFDIO_WRITEPROTECT: libc::Ioctl = 0xc018_aa06;
const UFFDIO_POISON: libc::Ioctl = 0xc020_aa08;
/// Bit of the calls that a registered range takes.
const HAS_COPY: u64 = 1 << 3;

#[repr(C)]
struct Copy {
    destination: u64,
    source: u64,
    length: u64,
    mode: u64,
    copied: i64,
}
const _: () = assert!(size_of::<Copy>() == 40);

/// What has happened to memory that is registered.
#[derive(Debug)]
pub enum Happening {
    /// A thread waits for a page.
    Fault {
        /// Where; the page's first byte.
        address: u64,
        /// It wants to write.
        is_write: bool,
        /// What it waits for is the page's write protection, not the page.
        is_protection: bool,
        /// Its number, with [`feature::THREAD_ID`]; otherwise 0.
        thread: i32,
    },
    /// It has a child with the same registrations, which are this descriptor's.
    Fork(UserFault),
    /// Memory lies elsewhere now.
    Remap {
        /// Where it was.
        from: u64,
        /// Where it is.
        to: u64,
        /// Bytes.
        length: u64,
    },
    /// Pages were given back: what is missing here is zero from now on.
    Remove {
        /// First address.
        start: u64,
        /// Address after the last byte.
        end: u64,
    },
    /// Memory is not mapped any more.
    Unmap {
        /// First address.
        start: u64,
        /// Address after the last byte.
        end: u64,
    },
}

/// A userfaultfd of another address space. Closing it takes all registrations away.
#[derive(Debug)]
pub struct UserFault {
    descriptor: OwnedFd,
    features: u64,
}

/// Opens [`DEVICE`].
///
/// # Errors
/// ENOENT: the kernel has none; EACCES: not for this user.
pub fn device() -> Result<OwnedFd> {
    crate::file::open(DEVICE.as_bytes(), libc::O_RDWR as u32 | libc::O_CLOEXEC as u32)
        .map_err(|error| Errno { number: error.number, call: "open /dev/userfaultfd" })
}

impl UserFault {
    /// Begins on a fresh descriptor that the other process made.
    ///
    /// # Errors
    /// EINVAL: begun already, or another interface.
    pub fn begin(descriptor: OwnedFd) -> Result<UserFault> {
        UserFault::begin_with(descriptor, 0)
    }

    /// The same with features that are asked for. With events whoever forks, unmaps, moves or gives back memory waits until its
    /// event is read.
    ///
    /// # Errors
    /// EINVAL: begun already, another interface, or a feature that this kernel lacks; EPERM: EVENT_FORK without CAP_SYS_PTRACE.
    pub fn begin_with(descriptor: OwnedFd, features: u64) -> Result<UserFault> {
        let mut api = [UFFD_API, features, 0];
        // SAFETY: the kernel reads and writes the 24 bytes of the live array.
        check_int("ioctl(UFFDIO_API)", unsafe { libc::ioctl(descriptor.as_raw_fd(), UFFDIO_API, api.as_mut_ptr()) })?;
        Ok(UserFault { descriptor, features })
    }

    /// Takes over a descriptor on which somebody else has begun.
    pub fn adopt(descriptor: OwnedFd, features: u64) -> UserFault {
        UserFault { descriptor, features }
    }

    /// Another descriptor of the same, for whoever holds it when the first is gone.
    ///
    /// # Errors
    /// EMFILE.
    pub fn duplicate(&self) -> Result<UserFault> {
        let descriptor = self.descriptor.try_clone().map_err(|_| Errno::last("dup"))?;
        Ok(UserFault { descriptor, features: self.features })
    }

    fn control<const N: usize>(
        &self,
        call: &'static str,
        number: libc::Ioctl,
        words: [u64; N],
    ) -> (Result<()>, [u64; N]) {
        let mut words = words;
        // SAFETY: a live array of the size that the number tells (each caller's N words of 8 bytes).
        let result = unsafe { libc::ioctl(self.descriptor.as_raw_fd(), number, words.as_mut_ptr()) };
        (check_int(call, result).map(drop), words)
    }

    /// Registers a range whose missing pages are to be placed.
    ///
    /// # Errors
    /// EINVAL: not anonymous memory; EBUSY: registered by somebody else; EOPNOTSUPP: cannot be copied into.
    pub fn register(&self, start: u64, length: u64) -> Result<()> {
        if self.register_for(start, length, mode::MISSING)? & HAS_COPY == 0 {
            return Err(Errno { number: libc::EOPNOTSUPP, call: "ioctl(UFFDIO_REGISTER)" });
        }
        Ok(())
    }

    /// Registers a range, which may have holes, for bits of [`mode`]; returns a bit for each call that can be made on it.
    ///
    /// # Errors
    /// EINVAL: nothing is mapped there, or something that cannot be registered; EBUSY: registered by somebody else.
    pub fn register_for(&self, start: u64, length: u64, mode: u64) -> Result<u64> {
        let (result, words) = self.control("ioctl(UFFDIO_REGISTER)", UFFDIO_REGISTER, [start, length, mode, 0]);
        result.map(|()| words[3])
    }

    /// Takes registrations away.
    ///
    /// # Errors
    /// EINVAL: not registered, or nothing there.
    pub fn unregister(&self, start: u64, length: u64) -> Result<()> {
        self.control("ioctl(UFFDIO_UNREGISTER)", UFFDIO_UNREGISTER, [start, length]).0
    }

    /// Places pages at `address` and wakes nobody. Returns the bytes placed, which are fewer than asked where a page exists already.
    ///
    /// # Errors
    /// EEXIST: the first page exists; ESRCH: dead; ENOENT: not registered.
    pub fn copy(&self, address: u64, bytes: &[u8]) -> Result<usize> {
        self.place(address, bytes, placing::QUIETLY)
    }

    /// Places pages at `address`, with bits of [`placing`]. Returns the bytes placed, which are fewer than asked where a page
    /// exists already.
    ///
    /// # Errors
    /// EEXIST: the first page exists; ESRCH: dead; ENOENT: not registered, or no longer mapped; EAGAIN: what is mapped there is
    /// about to change, and an event tells how.
    pub fn place(&self, address: u64, bytes: &[u8], mode: u64) -> Result<usize> {
        let mut copy =
            Copy { destination: address, source: bytes.as_ptr() as u64, length: bytes.len() as u64, mode, copied: 0 };
        // SAFETY: the source is a live buffer of that length that is only read; the destination is checked by the kernel.
        let result = check_int("ioctl(UFFDIO_COPY)", unsafe {
            libc::ioctl(self.descriptor.as_raw_fd(), UFFDIO_COPY, &raw mut copy)
        });
        match result {
            Ok(_) => Ok(copy.copied.max(0) as usize),
            // Part of it is placed, and then something stood in the way: the next call says what.
            Err(error) if error.number == libc::EAGAIN && copy.copied > 0 => Ok(copy.copied as usize),
            Err(error) => Err(error),
        }
    }

    /// Places zero pages, as [`UserFault::place`] does pages.
    ///
    /// # Errors
    /// The same.
    pub fn place_zeros(&self, address: u64, length: u64, mode: u64) -> Result<usize> {
        let (result, words) = self.control("ioctl(UFFDIO_ZEROPAGE)", UFFDIO_ZEROPAGE, [address, length, mode, 0]);
        let placed = words[3] as i64;
        match result {
            Ok(()) => Ok(placed.max(0) as usize),
            Err(error) if error.number == libc::EAGAIN && placed > 0 => Ok(placed as usize),
            Err(error) => Err(error),
        }
    }

    /// Wakes whoever waits for a page in a range.
    ///
    /// # Errors
    /// EINVAL: not a range of pages.
    pub fn wake(&self, start: u64, length: u64) -> Result<()> {
        self.control("ioctl(UFFDIO_WAKE)", UFFDIO_WAKE, [start, length]).0
    }

    /// Protects pages against writes, or no longer (then whoever waits is woken).
    ///
    /// # Errors
    /// ENOENT: not registered for that.
    pub fn protect(&self, start: u64, length: u64, protected: bool) -> Result<()> {
        let words = [start, length, u64::from(protected)];
        self.control("ioctl(UFFDIO_WRITEPROTECT)", UFFDIO_WRITEPROTECT, words).0
    }

    /// Makes every access to pages that are not there end in SIGBUS. Returns the bytes dealt with, which are fewer where a page
    /// exists.
    ///
    /// # Errors
    /// EEXIST: the first page exists; EINVAL: a kernel before 6.6; the others as [`UserFault::place`].
    pub fn poison(&self, start: u64, length: u64) -> Result<usize> {
        let (result, words) = self.control("ioctl(UFFDIO_POISON)", UFFDIO_POISON, [start, length, 0, 0]);
        let done = words[3] as i64;
        match result {
            Ok(()) => Ok(done.max(0) as usize),
            Err(error) if error.number == libc::EAGAIN && done > 0 => Ok(done as usize),
            Err(error) => Err(error),
        }
    }

    /// The next thing that has happened; `None` when nothing has since.
    ///
    /// # Errors
    /// EMFILE: a child's descriptor had no place.
    pub fn next(&self) -> Result<Option<Happening>> {
        const FAULT: u8 = 0x12;
        const FORK: u8 = 0x13;
        const REMAP: u8 = 0x14;
        const REMOVE: u8 = 0x15;
        const UNMAP: u8 = 0x16;
        const FLAG_WRITE: u64 = 1;
        const FLAG_PROTECTION: u64 = 2;
        loop {
            // One byte that says what it is, seven unused ones, and what belongs to it.
            let mut message = [0_u64; 4];
            // SAFETY: the kernel writes at most 32 bytes into the live array.
            let read = check("read userfaultfd", unsafe {
                libc::read(self.descriptor.as_raw_fd(), message.as_mut_ptr().cast(), 32) as i64
            });
            match read {
                Err(error) if error.number == libc::EAGAIN => return Ok(None),
                Err(error) if error.number == libc::EINTR => continue,
                Err(error) => return Err(error),
                Ok(_) => {}
            }
            let [kind, one, two, three] = message;
            return Ok(Some(match kind as u8 {
                FAULT => Happening::Fault {
                    address: two & !0xfff,
                    is_write: one & FLAG_WRITE != 0,
                    is_protection: one & FLAG_PROTECTION != 0,
                    thread: three as u32 as i32,
                },
                FORK => {
                    // SAFETY: the kernel has just put this descriptor into our table, nobody else owns it.
                    let descriptor = unsafe { OwnedFd::from_raw_fd(one as u32 as i32) };
                    Happening::Fork(UserFault { descriptor, features: self.features })
                }
                REMAP => Happening::Remap { from: one, to: two, length: three },
                REMOVE => Happening::Remove { start: one, end: two },
                UNMAP => Happening::Unmap { start: one, end: two },
                // Of what was not asked for nothing comes.
                _ => continue,
            }));
        }
    }
}

impl AsFd for UserFault {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pagemap::Pagemap;

    /// Fresh memory of so many pages, and a descriptor for all of it; none where the kernel gives none to this user.
    fn begin(pages: usize, features: u64) -> Option<(UserFault, u64)> {
        // SAFETY: a fresh descriptor, and a fresh mapping that nothing else refers to.
        unsafe {
            let raw = libc::syscall(SYS_USERFAULTFD, FLAGS);
            if raw == -1 {
                println!("skipped: userfaultfd is not allowed here");
                return None;
            }
            let descriptor = OwnedFd::from_raw_fd(raw as i32);
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let map = libc::mmap(std::ptr::null_mut(), pages * 4096, protection, flags, -1, 0);
            assert_ne!(map, libc::MAP_FAILED);
            match UserFault::begin_with(descriptor, features) {
                Ok(fault) => Some((fault, map as u64)),
                // An older kernel.
                Err(error) if features != 0 && error.number == libc::EINVAL => {
                    println!("skipped: this kernel lacks some of the features {features:#x}");
                    None
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn memory<'a>(address: u64, pages: usize) -> &'a mut [u8] {
        // SAFETY: the pages exist, and only one slice of them is used at a time.
        unsafe { std::slice::from_raw_parts_mut(address as *mut u8, pages * 4096) }
    }

    #[test]
    fn pages_are_placed_once() {
        let Some((fault, address)) = begin(5, 0) else { return };
        fault.register(address, 5 * 4096).unwrap();
        let bytes: Vec<u8> = (0..2 * 4096).map(|index| (index % 251) as u8).collect();
        assert_eq!(fault.copy(address + 4096, &bytes).unwrap(), 2 * 4096);
        assert_eq!(fault.copy(address + 4096, &bytes).unwrap_err().number, libc::EEXIST);
        // The first page is placed, the second exists.
        assert_eq!(fault.copy(address, &bytes).unwrap(), 4096);
        assert_eq!(fault.place_zeros(address + 3 * 4096, 2 * 4096, 0).unwrap(), 2 * 4096);
        fault.wake(address, 5 * 4096).unwrap();
        drop(fault);
        let placed = memory(address, 5);
        assert_eq!(&placed[4096..3 * 4096], bytes);
        assert_eq!(&placed[..4096], &bytes[..4096]);
        assert!(placed[3 * 4096..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn who_waits_for_a_page_is_told_and_served() {
        let Some((fault, address)) = begin(3, feature::EVENT_REMOVE | feature::EVENT_UNMAP) else { return };
        fault.register(address, 3 * 4096).unwrap();
        let reader = std::thread::spawn(move || {
            let seen = memory(address, 2)[4096 + 7];
            // SAFETY: the mapping is this test's own.
            unsafe {
                libc::madvise(address as *mut libc::c_void, 4096, libc::MADV_DONTNEED);
                libc::munmap((address + 2 * 4096) as *mut libc::c_void, 4096);
            }
            seen
        });
        let next = || loop {
            crate::poll::wait(&[(fault.as_fd(), crate::poll::Readiness::READABLE)], None).unwrap();
            if let Some(happening) = fault.next().unwrap() {
                return happening;
            }
        };
        let Happening::Fault { address: at, is_write: false, is_protection: false, .. } = next() else {
            panic!("a read of a missing page")
        };
        assert_eq!(at, address + 4096);
        assert_eq!(fault.place(at, &[9; 4096], 0).unwrap(), 4096);
        assert!(matches!(next(), Happening::Remove { start, end } if start == address && end == address + 4096));
        let (first, last) = (address + 2 * 4096, address + 3 * 4096);
        assert!(matches!(next(), Happening::Unmap { start, end } if start == first && end == last));
        assert_eq!(reader.join().unwrap(), 9);
        assert!(fault.next().unwrap().is_none());
    }

    #[test]
    fn writes_are_remembered_and_armed_again_and_a_closed_descriptor_leaves_nothing() {
        let Some((fault, address)) = begin(8, feature::WRITE_PROTECT_ASYNCHRONOUS) else { return };
        let pagemap = Pagemap::open(std::process::id() as i32).unwrap();
        let written = |arm: bool| {
            let mut seen: Vec<(u64, u64)> = Vec::new();
            let page = |at: u64| (at - address) / 4096;
            pagemap
                .written_pages(address, address + 8 * 4096, false, arm, |start, end| {
                    seen.push((page(start), page(end)))
                })
                .map(|()| seen)
        };
        memory(address, 4).fill(1);
        assert_eq!(written(true).unwrap_err().number, libc::EPERM);
        fault.register_for(address, 8 * 4096, mode::WRITE_PROTECT).unwrap();
        // What is there counts as written at first.
        assert_eq!(written(false).unwrap(), [(0, 4)]);
        assert_eq!(written(true).unwrap(), [(0, 4)]);
        assert_eq!(written(true).unwrap(), []);
        memory(address, 8)[2 * 4096] = 2;
        memory(address, 8)[6 * 4096] = 2;
        // The zero page is nobody's own.
        assert_eq!(memory(address, 8)[7 * 4096], 0);
        assert_eq!(written(true).unwrap(), [(2, 3), (6, 7)]);
        // The kernel's own writes count as well, whatever the descriptor may otherwise serve.
        let (mut ear, mut mouth) = std::io::pipe().unwrap();
        std::io::Write::write_all(&mut mouth, &[5]).unwrap();
        std::io::Read::read_exact(&mut ear, &mut memory(address, 8)[4096..4097]).unwrap();
        // SAFETY: the page is this test's own.
        unsafe { libc::madvise(address as *mut libc::c_void, 4096, libc::MADV_DONTNEED) };
        assert_eq!(written(true).unwrap(), [(1, 2)]);
        memory(address, 8)[0] = 1;
        assert_eq!(written(true).unwrap(), [(0, 1)]);
        drop(fault);
        assert_eq!(written(true).unwrap_err().number, libc::EPERM);
        memory(address, 8)[2 * 4096] = 3;
        assert_eq!(memory(address, 8)[2 * 4096], 3);
    }

    #[test]
    fn much_memory_is_looked_at_where_it_was_written() {
        const PAGES: u64 = 3000;
        let Some((fault, address)) = begin(PAGES as usize, feature::WRITE_PROTECT_ASYNCHRONOUS) else { return };
        let pagemap = Pagemap::open(std::process::id() as i32).unwrap();
        fault.register_for(address, PAGES * 4096, mode::WRITE_PROTECT).unwrap();
        for anonymous in [false, true] {
            let written = |arm: bool| {
                let mut seen: Vec<(u64, u64)> = Vec::new();
                let page = |at: u64| (at - address) / 4096;
                let found = |start, end| seen.push((page(start), page(end)));
                pagemap.written_pages(address, address + PAGES * 4096, anonymous, arm, found).unwrap();
                seen
            };
            written(true);
            let bytes = memory(address, PAGES as usize);
            // The last third is not there; the zero page is nobody's own.
            bytes[..2000 * 4096].fill(1);
            assert_eq!(bytes[2500 * 4096], 0);
            assert_eq!(written(true), [(0, 2000)]);
            assert_eq!(written(true), []);
            // More places than are told at once; some near each other.
            let places: Vec<u64> = (0..1800).step_by(3).chain([1900, 1990]).collect();
            places.iter().for_each(|page| bytes[*page as usize * 4096] = 2);
            let wanted: Vec<(u64, u64)> = places.iter().map(|page| (*page, page + 1)).collect();
            assert_eq!(written(false), wanted);
            assert_eq!(written(true), wanted);
            assert_eq!(written(true), []);
        }
    }
}
