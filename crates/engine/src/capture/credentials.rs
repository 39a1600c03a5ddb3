//! Credentials of a thread, from /proc and, for seccomp filters, ptrace.
use crate::failure::{About, Result};
use godwit_image::credentials::{Credentials, SeccompFilter};
use godwit_image::{Code, Refusal, Subject};
use godwit_linux::proc::status::Status;
use godwit_linux::seccomp;

const ENOENT: i32 = 2;
const SECCOMP_MODE_FILTER: u8 = 2;

/// Reads the credentials; `securebits` come from a program.
pub(super) fn capture(tid: i32, status: &Status, securebits: u32) -> Result<Credentials> {
    let mut filters = Vec::new();
    let mode = status.seccomp.unwrap_or(0) as u8;
    if mode == SECCOMP_MODE_FILTER {
        for index in 0.. {
            match seccomp::filter(tid, index) {
                Ok(program) => {
                    let flags = seccomp::flags(tid, index).about(|| Subject::Process(tid))?;
                    if asks_supervisor(&program) {
                        let cause = "another process answers some of its calls (SECCOMP_RET_USER_NOTIF), and would not after a move";
                        let refusal = Refusal::new(Code::NOT_MIGRATABLE, Subject::Process(tid), cause);
                        return Err(refusal.choice("start the program without its supervisor"));
                    }
                    filters.push(SeccompFilter { program, flags });
                }
                Err(error) if error.number == ENOENT => break,
                Err(error) => return Err(error).about(|| Subject::Process(tid)),
            }
        }
        filters.reverse();
    }
    Ok(Credentials {
        user: status.uid,
        group: status.gid,
        groups: status.groups.clone(),
        inheritable: status.capabilities_inheritable,
        permitted: status.capabilities_permitted,
        effective: status.capabilities_effective,
        bounding: status.capabilities_bounding,
        ambient: status.capabilities_ambient,
        securebits,
        no_new_privileges: status.no_new_privileges,
        seccomp_mode: mode,
        seccomp_filters: filters,
    })
}

/// Whether a filter has calls answered by a listener: one of its constant results says so.
fn asks_supervisor(program: &[u8]) -> bool {
    const RETURN_CONSTANT: u16 = 0x06;
    const ACTION: u32 = 0xffff_0000;
    const USER_NOTIFICATION: u32 = 0x7fc0_0000;
    program.as_chunks::<8>().0.iter().any(|[code, more, _, _, constant @ ..]| {
        u16::from_le_bytes([*code, *more]) == RETURN_CONSTANT
            && u32::from_le_bytes(*constant) & ACTION == USER_NOTIFICATION
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_supervised_filter_is_recognised() {
        let allow = [0x06, 0, 0, 0, 0, 0, 0xff, 0x7f];
        let load = [0x20, 0, 0, 0, 0, 0, 0xc0, 0x7f];
        let notify = [0x06, 0, 0, 0, 7, 0, 0xc0, 0x7f];
        assert!(!asks_supervisor(&[load, allow].concat()));
        assert!(asks_supervisor(&[load, notify, allow].concat()));
    }
}
