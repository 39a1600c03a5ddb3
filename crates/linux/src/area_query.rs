//! One area of another process's address space by an address: ioctl PROCMAP_QUERY (Linux 6.11), where a list of all takes longer.
//!
//! # References
//! include/uapi/linux/fs.h, Documentation/filesystems/proc.rst
#![allow(unsafe_code)]

use crate::errno::{Errno, Result, check_int};
use std::fs::File;
use std::os::fd::AsRawFd;

#[repr(C)]
#[derive(Default)]
struct Query {
    size: u64,
    flags: u64,
    address: u64,
    start: u64,
    end: u64,
    area_flags: u64,
    page_size: u64,
    offset: u64,
    inode: u64,
    device: [u32; 2],
    name_size: u32,
    build_id_size: u32,
    name: u64,
    build_id: u64,
}
const _: () = assert!(size_of::<Query>() == 104);

// _IOWR('f', 17, struct procmap_query)
const PROCMAP_QUERY: libc::Ioctl = 0xc068_6611;
/// Bytes of a name at most, with the NUL behind it.
const NAME_BYTES: usize = 4096;

/// An area.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// As /proc/PID/maps has it.
    pub name: Vec<u8>,
}

/// The areas of a process, one at a time.
#[derive(Debug)]
pub struct Areas(File);

impl Areas {
    /// Those of a process.
    ///
    /// # Errors
    /// ENOENT: dead; EACCES: no rights.
    pub fn of(pid: i32) -> Result<Areas> {
        let open = File::open(format!("/proc/{pid}/maps"));
        let errno = |error: std::io::Error| Errno {
            number: error.raw_os_error().unwrap_or(libc::EIO),
            call: "open /proc/PID/maps",
        };
        open.map(Areas).map_err(errno)
    }

    /// The one that an address is in, if there is one.
    ///
    /// # Errors
    /// ENOTTY: the kernel cannot be asked; ESRCH: dead.
    pub fn at(&self, address: u64) -> Result<Option<Found>> {
        let mut name = [0_u8; NAME_BYTES];
        let mut query = Query {
            size: size_of::<Query>() as u64,
            address,
            name_size: NAME_BYTES as u32,
            name: name.as_mut_ptr() as u64,
            ..Query::default()
        };
        // SAFETY: the kernel writes into the live struct, whose size it is told, and into the live buffer that it describes.
        let asked = check_int("ioctl(PROCMAP_QUERY)", unsafe {
            libc::ioctl(self.0.as_raw_fd(), PROCMAP_QUERY, &raw mut query)
        });
        match asked {
            Ok(_) => {
                let length = (query.name_size as usize).saturating_sub(1).min(NAME_BYTES);
                Ok(Some(Found { start: query.start, end: query.end, name: name[..length].to_vec() }))
            }
            Err(error) if error.number == libc::ENOENT => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_what_the_list_tells() {
        let own = std::process::id() as i32;
        let areas = Areas::of(own).unwrap();
        let vdso = crate::proc::maps::read(own).unwrap().into_iter().find(|area| area.name == b"[vdso]").unwrap();
        let wanted = Found { start: vdso.start, end: vdso.end, name: vdso.name };
        match areas.at(vdso.end - 1) {
            Ok(found) => assert_eq!(found, Some(wanted)),
            // Before Linux 6.11.
            Err(error) => return assert_eq!(error.number, libc::ENOTTY),
        }
        assert_eq!(areas.at(0).unwrap(), None);
        let here = Box::new(0_u8);
        let found = areas.at(&raw const *here as u64).unwrap().unwrap();
        assert!(found.start <= &raw const *here as u64 && (&raw const *here as u64) < found.end);
        assert!(Areas::of(i32::MAX).is_err());
    }
}
