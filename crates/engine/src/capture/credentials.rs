//! Credentials of a thread, from /proc and, for seccomp filters, ptrace.
use crate::failure::{About, Result};
use godwit_image::Subject;
use godwit_image::credentials::{Credentials, SeccompFilter};
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
