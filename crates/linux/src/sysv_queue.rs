//! System V message queues: msgget(2), msgctl(2), and messages that are read and stay (MSG_COPY).
#![allow(unsafe_code)]

use crate::errand::{self, Caller};
use crate::errno::{Errno, Result, check, check_int};

const NEXT_ID: &str = "/proc/sys/kernel/msg_next_id";
/// Largest message (struct msgbuf has its type in front).
const MESSAGE_MAX: &str = "/proc/sys/kernel/msgmax";
const MSG_COPY: i32 = 0o40_000;

/// A message: its type, and its bytes.
pub type Message = (i64, Vec<u8>);

/// What of a queue can be set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Properties {
    /// Owner and group.
    pub owner: (u32, u32),
    /// Permission bits.
    pub mode: u32,
    /// Most bytes of all messages (msg_qbytes).
    pub bytes_max: u64,
}

fn wish(id: i32) -> Result<()> {
    std::fs::write(NEXT_ID, id.to_string())
        .map_err(|error| Errno { number: error.raw_os_error().unwrap_or(libc::EIO), call: "write msg_next_id" })
}

/// Creates a queue with this identifier, as if this user and group had made it.
///
/// # Errors
/// EEXIST: the identifier or the key is in use; ENOSPC, ENOMEM: limits of the host; EPERM: no CAP_CHECKPOINT_RESTORE.
pub fn create(id: i32, key: i32, mode: u32, creator: (u32, u32)) -> Result<()> {
    wish(id)?;
    let flags = libc::IPC_CREAT | libc::IPC_EXCL | (mode & 0o777) as i32;
    let caller = Caller { pid: None, identity: Some(creator) };
    // SAFETY: one raw call.
    let made =
        unsafe { errand::run("msgget", caller, false, || errand::raw(libc::syscall(libc::SYS_msgget, key, flags))) };
    let made = match made {
        Ok(made) => made as i32,
        Err(error) => {
            // Nobody else shall get the identifier that was meant for us.
            let _ = wish(-1);
            return Err(error);
        }
    };
    if made != id {
        remove(made)?;
        return Err(Errno { number: libc::EEXIST, call: "msgget" });
    }
    Ok(())
}

fn information(id: i32) -> Result<libc::msqid_ds> {
    // SAFETY: the kernel fills the zeroed struct.
    unsafe {
        let mut data: libc::msqid_ds = std::mem::zeroed();
        check_int("msgctl(IPC_STAT)", libc::msgctl(id, libc::IPC_STAT, &raw mut data))?;
        Ok(data)
    }
}

/// Most bytes that all messages of a queue may have.
///
/// # Errors
/// EINVAL, EIDRM: no such queue; EACCES.
pub fn bytes_max(id: i32) -> Result<u64> {
    information(id).map(|data| data.msg_qbytes)
}

/// Sets what can be set.
///
/// # Errors
/// EPERM: not the owner's to set, or more bytes than kernel.msgmnb without CAP_SYS_RESOURCE; EINVAL: no such queue.
pub fn set(id: i32, properties: Properties) -> Result<()> {
    let mut data = information(id)?;
    data.msg_perm.uid = properties.owner.0;
    data.msg_perm.gid = properties.owner.1;
    data.msg_perm.mode = (properties.mode & 0o777) as u16;
    data.msg_qbytes = properties.bytes_max;
    // SAFETY: IPC_SET reads the struct.
    check_int("msgctl(IPC_SET)", unsafe { libc::msgctl(id, libc::IPC_SET, &raw mut data) }).map(drop)
}

/// Removes a queue.
///
/// # Errors
/// EINVAL: no such queue; EPERM.
pub fn remove(id: i32) -> Result<()> {
    // SAFETY: IPC_RMID takes no struct.
    check_int("msgctl(IPC_RMID)", unsafe { libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()) }).map(drop)
}

/// Reads all messages, first to last, and leaves them there; nobody notices.
///
/// # Errors
/// ENOSYS: the kernel was built without CONFIG_CHECKPOINT_RESTORE; E2BIG: a message is larger than kernel.msgmax by now.
pub fn peek(id: i32) -> Result<Vec<Message>> {
    let text = std::fs::read_to_string(MESSAGE_MAX).unwrap_or_default();
    let room = text.trim().parse::<usize>().unwrap_or(8192).clamp(8192, 1 << 26);
    let mut buffer = vec![0_u8; 8 + room];
    let mut messages = Vec::new();
    loop {
        let (number, flags) = (messages.len(), MSG_COPY | libc::IPC_NOWAIT);
        // SAFETY: the buffer has room for the type and for so many bytes.
        let result = unsafe { libc::syscall(libc::SYS_msgrcv, id, buffer.as_mut_ptr(), room, number, flags) };
        match check("msgrcv(MSG_COPY)", result) {
            Ok(length) => {
                let kind = buffer.first_chunk().map_or(0, |raw| i64::from_le_bytes(*raw));
                messages.push((kind, buffer[8..8 + length as usize].to_vec()));
            }
            Err(error) if error.number == libc::ENOMSG => return Ok(messages),
            Err(error) => return Err(error),
        }
    }
}

/// Has a process of this number, where it is free, send messages. Those that have sent last are shown by it.
///
/// # Errors
/// EAGAIN: there is no room; EINVAL: a message is larger than kernel.msgmax.
pub fn send_as(pid: Option<i32>, id: i32, messages: &[Message]) -> Result<()> {
    let raw: Vec<Vec<u8>> =
        messages.iter().map(|(kind, bytes)| [&kind.to_le_bytes(), bytes.as_slice()].concat()).collect();
    let send = || {
        for message in &raw {
            // SAFETY: the type and the bytes behind it are as long as said.
            let sent =
                unsafe { libc::syscall(libc::SYS_msgsnd, id, message.as_ptr(), message.len() - 8, libc::IPC_NOWAIT) };
            if sent != 0 {
                return errand::raw(sent);
            }
        }
        0
    };
    // SAFETY: raw calls only.
    unsafe { errand::run("msgsnd", Caller { pid, identity: None }, false, send) }.map(drop)
}

/// Has a process of this number, where it is free, receive the first message.
///
/// # Errors
/// ENOMSG: there is none.
pub fn receive_as(pid: Option<i32>, id: i32) -> Result<()> {
    let mut buffer = [0_u8; 64];
    let place = buffer.as_mut_ptr();
    let flags = libc::IPC_NOWAIT | libc::MSG_NOERROR;
    // SAFETY: one raw call into a buffer of the child's own copy.
    let receive = || errand::raw(unsafe { libc::syscall(libc::SYS_msgrcv, id, place, 32, 0, flags) });
    // SAFETY: as above.
    unsafe { errand::run("msgrcv", Caller { pid, identity: None }, false, receive) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::sysvipc;

    #[test]
    fn a_queue_is_made_as_wished_and_looked_at() {
        let id = 19 + 32768 * 5;
        match create(id, 0, 0o640, (1000, 1001)) {
            Ok(()) => {}
            Err(error) => {
                assert!(matches!(error.number, libc::EPERM | libc::EACCES), "{error}");
                return;
            }
        }
        assert_eq!(create(id, 0, 0o640, (1000, 1001)).unwrap_err().number, libc::EEXIST);
        let messages = [(3, b"three".to_vec()), (1, Vec::new()), (3, vec![7; 100])];
        send_as(Some(4_000_124), id, &[(1, Vec::new())]).unwrap();
        receive_as(Some(4_000_125), id).unwrap();
        send_as(Some(4_000_126), id, &messages).unwrap();
        let most = bytes_max(id).unwrap();
        set(id, Properties { owner: (7, 8), mode: 0o600, bytes_max: most - 1 }).unwrap();
        for _ in 0..2 {
            assert_eq!(peek(id).unwrap(), messages);
        }
        let found = sysvipc::queues().unwrap().into_iter().find(|queue| queue.id == id).unwrap();
        assert_eq!((found.owner, found.creator, found.mode, found.messages), ((7, 8), (1000, 1001), 0o600, 3));
        assert_eq!(bytes_max(id).unwrap(), most - 1);
        remove(id).unwrap();
        assert_eq!(peek(id).unwrap_err().number, libc::EINVAL);
    }
}
