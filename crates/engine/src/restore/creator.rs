//! Calls that must be made as somebody: what a kernel object remembers of the process that made it (SO_PEERCRED) is made by
//! that very process, under the user and group that it had.
use super::Restorer;
use crate::failure::{About, Result, malformed};
use crate::injector::Ran;
use godwit_image::{Pid, Subject};
use godwit_linux::program::{Program, Step};
use std::os::fd::{AsRawFd, BorrowedFd};

const SYS_CLOSE: i64 = 3;
const SYS_SETGROUPS: i64 = 116;
const SYS_SETRESUID: i64 = 117;
const SYS_SETRESGID: i64 = 119;
const SYS_PIDFD_GETFD: i64 = 438;
const UNCHANGED: u32 = u32::MAX;

/// Who made an object.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Creator {
    /// Process number; where the tree has no such process its root stands in.
    pub pid: Pid,
    /// Effective user.
    pub user: u32,
    /// Effective group.
    pub group: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

impl Restorer {
    /// As whom every skeleton begins: read once, since it does not change.
    fn own_identity(&mut self) -> Result<Creator> {
        let own = std::process::id() as i32;
        if self.identity.is_none() {
            let status = godwit_linux::proc::status::read(own, own).about(|| Subject::Host)?;
            let groups = status.groups;
            self.identity = Some(Creator { pid: Pid(own), user: status.uid[1], group: status.gid[1], groups });
        }
        self.identity.clone().ok_or_else(|| malformed(Subject::Host, "it does not tell who we are"))
    }

    /// Runs calls in a task as a user: `body` gets the numbers that copies of our `files` have in the task. Returns the
    /// task as well.
    pub(super) fn run_as(
        &mut self,
        creator: &Creator,
        files: &[BorrowedFd<'_>],
        body: impl FnOnce(&mut Program, &[Step]),
    ) -> Result<(Pid, Ran)> {
        let own = self.own_identity()?;
        let living = |pid: &Pid| self.puppets.get(pid).is_some_and(|puppet| !puppet.is_dead());
        let root = || self.puppets.keys().copied().find(|pid| living(pid));
        let Some(pid) = Some(creator.pid).filter(living).or_else(root) else {
            return Err(malformed(Subject::Process(creator.pid.0), "it does not exist yet"));
        };
        let mut program = Program::new();
        let list = |program: &mut Program, groups: &[u32]| {
            let bytes: Vec<u8> = groups.iter().flat_map(|group| group.to_le_bytes()).collect();
            let place = program.data(&bytes);
            program.call("setgroups", SYS_SETGROUPS, [groups.len().into(), place]);
        };
        let identity = |program: &mut Program, name: &'static str, number: i64, id: u32| {
            program.call(name, number, [UNCHANGED.into(), id.into(), UNCHANGED.into()]);
        };
        // While everything is permitted: reaching into us needs privileges.
        let copies: Vec<Step> = files
            .iter()
            .map(|file| {
                let arguments = [self.own.as_raw_fd().into(), file.as_raw_fd().into(), 0_u64.into()];
                program.call("pidfd_getfd", SYS_PIDFD_GETFD, arguments)
            })
            .collect();
        let (user, group) = (own.user, own.group);
        let groups_differ = creator.groups != own.groups;
        if groups_differ {
            list(&mut program, &creator.groups);
        }
        if creator.group != group {
            identity(&mut program, "setresgid", SYS_SETRESGID, creator.group);
        }
        if creator.user != user {
            identity(&mut program, "setresuid", SYS_SETRESUID, creator.user);
        }
        body(&mut program, &copies);
        if creator.user != user {
            identity(&mut program, "setresuid", SYS_SETRESUID, user);
        }
        if creator.group != group {
            identity(&mut program, "setresgid", SYS_SETRESGID, group);
        }
        if groups_differ {
            list(&mut program, &own.groups);
        }
        for copy in copies {
            program.call("close", SYS_CLOSE, [copy.into()]);
        }
        let ran = self.run(pid, &program)?;
        Ok((pid, ran))
    }
}
