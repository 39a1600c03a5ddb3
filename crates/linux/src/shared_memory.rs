//! System V shared memory: shmget(2), shmctl(2), shmat(2), and segments with a wanted identifier and creator.
#![allow(unsafe_code)]

use crate::errand::{self, Caller};
use crate::errno::{Errno, Result, check, check_int};
use std::os::fd::OwnedFd;

/// Bit of a segment's mode: removed, and alive as long as it is attached.
pub const REMOVED: u32 = 0o1000;
/// Bit of a segment's mode: locked in memory (SHM_LOCK).
pub const LOCKED: u32 = 0o2000;
const NEXT_ID: &str = "/proc/sys/kernel/shm_next_id";

/// Who creates a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Creator {
    /// Process number, shown as the segment's creator.
    pub pid: i32,
    /// Effective user and group.
    pub user: u32,
    /// Effective group.
    pub group: u32,
}

/// Asks the kernel to give the next new segment of this IPC namespace an identifier.
///
/// # Errors
/// EPERM: no CAP_CHECKPOINT_RESTORE; ENOENT: no such file in this kernel.
fn wish(id: i32) -> Result<()> {
    std::fs::write(NEXT_ID, id.to_string())
        .map_err(|error| Errno { number: error.raw_os_error().unwrap_or(libc::EIO), call: "write shm_next_id" })
}

/// Creates a segment with this identifier, as if this creator had made it; where its process number is taken, this
/// process's own is shown.
///
/// # Errors
/// EEXIST: the identifier or the key is in use; EINVAL, ENOSPC, ENOMEM: limits of the host.
pub fn create(id: i32, key: i32, bytes: u64, mode: u32, creator: Creator) -> Result<()> {
    let size = usize::try_from(bytes).map_err(|_| Errno { number: libc::EINVAL, call: "shmget" })?;
    wish(id)?;
    let made = match create_in_child(key, size, mode, creator) {
        Ok(made) => made,
        Err(error) => {
            // Nobody else shall get the identifier that was meant for us.
            let _ = wish(-1);
            return Err(error);
        }
    };
    if made != id {
        remove(made)?;
        return Err(Errno { number: libc::EEXIST, call: "shmget" });
    }
    Ok(())
}

/// The creator's process number and user are those of whoever calls shmget(2): a child that has them for a moment.
fn create_in_child(key: i32, size: usize, mode: u32, creator: Creator) -> Result<i32> {
    let flags = libc::IPC_CREAT | libc::IPC_EXCL | (mode & 0o777) as i32;
    let caller = Caller { pid: Some(creator.pid), identity: Some((creator.user, creator.group)) };
    // SAFETY: one raw system call without pointers, in the child.
    let made = unsafe {
        errand::run("shmget", caller, false, || {
            let id = libc::syscall(libc::SYS_shmget, i64::from(key), size, i64::from(flags));
            if id == -1 { -i64::from(*libc::__errno_location()) } else { id }
        })
    };
    made.map(|id| id as i32)
}

/// Sets owner and permission bits.
///
/// # Errors
/// EINVAL: no such segment; EPERM.
pub fn set_owner(id: i32, user: u32, group: u32, mode: u32) -> Result<()> {
    // SAFETY: IPC_STAT fills the zeroed struct, IPC_SET reads it.
    unsafe {
        let mut data: libc::shmid_ds = std::mem::zeroed();
        check_int("shmctl(IPC_STAT)", libc::shmctl(id, libc::IPC_STAT, &raw mut data))?;
        data.shm_perm.uid = user;
        data.shm_perm.gid = group;
        data.shm_perm.mode = (mode & 0o777) as u16;
        check_int("shmctl(IPC_SET)", libc::shmctl(id, libc::IPC_SET, &raw mut data)).map(drop)
    }
}

/// Removes a segment, as soon as nobody is attached.
///
/// # Errors
/// EINVAL: no such segment; EPERM.
pub fn remove(id: i32) -> Result<()> {
    control(id, libc::IPC_RMID, "shmctl(IPC_RMID)")
}

/// Locks a segment in memory.
///
/// # Errors
/// EPERM, ENOMEM.
pub fn lock(id: i32) -> Result<()> {
    control(id, libc::SHM_LOCK, "shmctl(SHM_LOCK)")
}

fn control(id: i32, command: i32, call: &'static str) -> Result<()> {
    // SAFETY: these commands take no struct.
    check_int(call, unsafe { libc::shmctl(id, command, std::ptr::null_mut()) }).map(drop)
}

/// A segment attached to this process; detached on drop.
#[derive(Debug)]
pub struct Attachment {
    address: usize,
    bytes: u64,
}

impl Attachment {
    /// Attaches a segment of a size in bytes.
    ///
    /// # Errors
    /// EINVAL, EIDRM: no such segment; EACCES; ENOMEM.
    pub fn new(id: i32, bytes: u64) -> Result<Attachment> {
        // SAFETY: at an address of the kernel's choice; nothing is dereferenced.
        let address = unsafe { libc::shmat(id, std::ptr::null(), 0) } as isize;
        check("shmat", address as i64)?;
        Ok(Attachment { address: address as usize, bytes: bytes.next_multiple_of(4096) })
    }

    /// The file behind it, for reading and writing by position. Needs CAP_CHECKPOINT_RESTORE (/proc/self/map_files).
    ///
    /// # Errors
    /// EPERM; ENOENT: no /proc.
    pub fn file(&self) -> Result<OwnedFd> {
        let end = self.address as u64 + self.bytes;
        crate::file::open(format!("/proc/self/map_files/{:x}-{end:x}", self.address).as_bytes(), libc::O_RDWR as u32)
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // SAFETY: the address that shmat gave us; we hold no reference into it.
        unsafe { libc::shmdt(self.address as *const libc::c_void) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    fn segment(id: i32) -> Option<crate::proc::sysvipc::Segment> {
        crate::proc::sysvipc::read().unwrap().into_iter().find(|segment| segment.id == id)
    }

    #[test]
    fn identifier_and_creator_are_as_wished() {
        // 17 + 32768 * 5: another index and sequence than the kernel would choose.
        let id = 17 + 32768 * 5;
        let creator = Creator { pid: 4_000_123, user: 1000, group: 1001 };
        match create(id, 0, 5000, 0o640, creator) {
            Ok(()) => {}
            Err(error) => {
                assert!(matches!(error.number, libc::EPERM | libc::EACCES), "{error}");
                return;
            }
        }
        let made = segment(id).unwrap();
        assert_eq!((made.creator_user, made.creator_group, made.mode, made.size), (1000, 1001, 0o640, 5000));
        assert_eq!(create(id, 0, 5000, 0o640, creator).unwrap_err().number, libc::EEXIST);
        let attachment = Attachment::new(id, 5000).unwrap();
        let file = std::fs::File::from(attachment.file().unwrap());
        file.write_all_at(b"content", 4000).unwrap();
        set_owner(id, 7, 8, 0o600).unwrap();
        remove(id).unwrap();
        assert_eq!(segment(id).unwrap().mode, 0o600 | REMOVED);
        drop(attachment);
        // What tests beside this one start has it attached, too, for a moment.
        let begin = std::time::Instant::now();
        while segment(id).is_some() && begin.elapsed() < std::time::Duration::from_secs(5) {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert_eq!(segment(id), None);
    }
}
