//! System V semaphores: semget(2), semctl(2), semop(2).
#![allow(unsafe_code)]

use crate::errand::{self, Caller};
use crate::errno::{Errno, Result, check_int};

const NEXT_ID: &str = "/proc/sys/kernel/sem_next_id";
/// Greatest value of a semaphore (SEMVMX).
pub const VALUE_MAX: i32 = 32767;
/// Bytes of a struct sembuf.
pub const OPERATION_BYTES: usize = 6;
/// Do not wait.
pub const NO_WAIT: i16 = libc::IPC_NOWAIT as i16;
/// Undo at the end of the process.
pub const UNDO: i16 = 0x1000;

/// One operation, as struct sembuf has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operation {
    /// Number of the semaphore in its set.
    pub semaphore: u16,
    /// What is added; 0 waits for zero.
    pub change: i16,
    /// [`NO_WAIT`], [`UNDO`].
    pub flags: i16,
}

impl Operation {
    /// As the kernel reads it.
    pub fn bytes(self) -> [u8; OPERATION_BYTES] {
        let [a, b] = self.semaphore.to_le_bytes();
        let [c, d] = self.change.to_le_bytes();
        let [e, f] = self.flags.to_le_bytes();
        [a, b, c, d, e, f]
    }
}

/// What of a set can be set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Properties {
    /// Owner and group.
    pub owner: (u32, u32),
    /// Permission bits.
    pub mode: u32,
}

fn wish(id: i32) -> Result<()> {
    std::fs::write(NEXT_ID, id.to_string())
        .map_err(|error| Errno { number: error.raw_os_error().unwrap_or(libc::EIO), call: "write sem_next_id" })
}

/// Creates a set with this identifier, as if this user and group had made it.
///
/// # Errors
/// EEXIST: the identifier or the key is in use; EINVAL, ENOSPC, ENOMEM: limits of the host; EPERM: no
/// CAP_CHECKPOINT_RESTORE.
pub fn create(id: i32, key: i32, count: u32, mode: u32, creator: (u32, u32)) -> Result<()> {
    wish(id)?;
    let flags = libc::IPC_CREAT | libc::IPC_EXCL | (mode & 0o777) as i32;
    let caller = Caller { pid: None, identity: Some(creator) };
    let make = || {
        // SAFETY: no pointers.
        errand::raw(unsafe { libc::syscall(libc::SYS_semget, key, count, flags) })
    };
    // SAFETY: one raw call.
    let made = match unsafe { errand::run("semget", caller, false, make) } {
        Ok(made) => made as i32,
        Err(error) => {
            // Nobody else shall get the identifier that was meant for us.
            let _ = wish(-1);
            return Err(error);
        }
    };
    if made != id {
        remove(made)?;
        return Err(Errno { number: libc::EEXIST, call: "semget" });
    }
    Ok(())
}

/// Sets what can be set.
///
/// # Errors
/// EPERM; EINVAL: no such set.
pub fn set(id: i32, properties: Properties) -> Result<()> {
    // SAFETY: IPC_STAT fills the zeroed struct, IPC_SET reads it.
    unsafe {
        let mut data: libc::semid_ds = std::mem::zeroed();
        check_int("semctl(IPC_STAT)", libc::semctl(id, 0, libc::IPC_STAT, &raw mut data))?;
        data.sem_perm.uid = properties.owner.0;
        data.sem_perm.gid = properties.owner.1;
        data.sem_perm.mode = (properties.mode & 0o777) as u16;
        check_int("semctl(IPC_SET)", libc::semctl(id, 0, libc::IPC_SET, &raw mut data)).map(drop)
    }
}

/// Removes a set.
///
/// # Errors
/// EINVAL: no such set; EPERM.
pub fn remove(id: i32) -> Result<()> {
    // SAFETY: IPC_RMID takes no argument.
    check_int("semctl(IPC_RMID)", unsafe { libc::semctl(id, 0, libc::IPC_RMID) }).map(drop)
}

/// Value of every semaphore of a set of so many, and the process that used it last (0: nobody, or one of another PID namespace; it may have ended).
///
/// # Errors
/// EINVAL, EIDRM: no such set; EACCES.
pub fn read(id: i32, count: u32) -> Result<Vec<(u16, i32)>> {
    // As many as any set can have: the kernel writes as many as there are now.
    let mut values = vec![0_u16; (count as usize).max(usize::from(u16::MAX))];
    // SAFETY: the list has room for the largest set.
    check_int("semctl(GETALL)", unsafe { libc::semctl(id, 0, libc::GETALL, values.as_mut_ptr()) })?;
    let user = |number: u32| {
        // SAFETY: no pointers.
        check_int("semctl(GETPID)", unsafe { libc::semctl(id, number as i32, libc::GETPID) })
    };
    (0..count).zip(values).map(|(number, value)| Ok((value, user(number)?))).collect()
}

/// Has a process of this number, where it is free, set values: (semaphore, value). `used`: with an operation, which sets
/// the time of the last one.
///
/// # Errors
/// ERANGE, EFBIG, EINVAL.
pub fn set_values_as(pid: Option<i32>, id: i32, values: &[(u16, u16)], used: bool) -> Result<()> {
    let set = || {
        for (semaphore, value) in values {
            let up = if i32::from(*value) < VALUE_MAX { 1 } else { -1 };
            let operation = |change| Operation { semaphore: *semaphore, change, flags: NO_WAIT }.bytes();
            let operations = [operation(up), operation(-up)];
            // SAFETY: raw calls; the list holds two operations.
            let result = unsafe {
                let result = libc::syscall(
                    libc::SYS_semctl,
                    id,
                    i32::from(*semaphore),
                    libc::SETVAL,
                    libc::c_long::from(*value),
                );
                if result == 0 && used { libc::syscall(libc::SYS_semop, id, operations.as_ptr(), 2) } else { result }
            };
            if result != 0 {
                return errand::raw(result);
            }
        }
        0
    };
    // SAFETY: raw calls only.
    unsafe { errand::run("semctl(SETVAL)", Caller { pid, identity: None }, false, set) }.map(drop)
}

/// Has a process of this number, where it is free, make operations.
///
/// # Errors
/// EAGAIN, ERANGE.
pub fn operate_as(pid: Option<i32>, id: i32, operations: &[Operation]) -> Result<()> {
    let raw: Vec<[u8; OPERATION_BYTES]> = operations.iter().map(|operation| operation.bytes()).collect();
    // SAFETY: the list is as long as said.
    let operate = || errand::raw(unsafe { libc::syscall(libc::SYS_semop, id, raw.as_ptr(), raw.len()) });
    // SAFETY: one raw call.
    unsafe { errand::run("semop", Caller { pid, identity: None }, false, operate) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::sysvipc;

    /// Removes a set that a failure leaves.
    struct Removed(i32);

    impl Drop for Removed {
        fn drop(&mut self) {
            let _ = remove(self.0);
        }
    }

    #[test]
    fn a_set_is_made_as_wished() {
        let id = 21 + 32768 * 5;
        match create(id, 0, 3, 0o640, (1000, 1001)) {
            Ok(()) => {}
            Err(error) => {
                assert!(matches!(error.number, libc::EPERM | libc::EACCES), "{error}");
                return;
            }
        }
        let _removed = Removed(id);
        assert_eq!(create(id, 0, 3, 0o640, (1000, 1001)).unwrap_err().number, libc::EEXIST);
        let found = || sysvipc::sets().unwrap().into_iter().find(|set| set.id == id).unwrap();
        // In a PID namespace of its own there are 4,194,304, elsewhere what its administrator wants.
        let numbers: i32 = std::fs::read_to_string("/proc/sys/kernel/pid_max").unwrap().trim().parse().unwrap();
        let number = 4_000_127.min(numbers - 1);
        set_values_as(Some(number), id, &[(0, 5), (2, 32767)], false).unwrap();
        assert_eq!(found().times[0], 0);
        assert_eq!(read(id, 3).unwrap(), [(5, number), (0, 0), (32767, number)]);
        set_values_as(None, id, &[(2, 32767)], true).unwrap();
        assert_ne!(found().times[0], 0);
        operate_as(None, id, &[Operation { semaphore: 1, change: 4, flags: NO_WAIT }]).unwrap();
        set(id, Properties { owner: (7, 8), mode: 0o600 }).unwrap();
        assert_eq!((found().owner, found().creator, found().mode), ((7, 8), (1000, 1001), 0o600));
        let values: Vec<u16> = read(id, 3).unwrap().into_iter().map(|(value, _)| value).collect();
        assert_eq!(values, [5, 4, 32767]);
        remove(id).unwrap();
        assert_eq!(read(id, 3).unwrap_err().number, libc::EINVAL);
    }
}
