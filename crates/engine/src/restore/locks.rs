//! Locks that the source still has while the tree is built, on a file that both hosts see: they become claims, see [`crate::claim`].
use super::puppet::Puppet;
use super::{Restorer, missing};
use crate::claim::{self, Claim, Owner};
use crate::failure::{About, Result};
use crate::freeze::{FrozenProcess, Stopped};
use godwit_image::{Code, ObjectId, Pid, Refusal, Subject};
use godwit_linux::lock::Range;
use godwit_linux::proc::stat;
use godwit_linux::{Errno, filesystem};
use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::sync::OnceLock;

/// File systems that several machines share: NFS, SMB, CIFS, 9P, FUSE, Ceph, GFS2, OCFS2.
const SHARED: [u64; 8] =
    [0x6969, 0xfe53_4d42, 0xff53_4d42, 0x0102_1997, 0x6573_5546, 0x00c3_6400, 0x0116_1970, 0x7461_636f];

/// A lock that somebody else had when it was to be set.
#[derive(Clone, Debug)]
pub enum DeferredLock {
    /// flock (`whole`) or F_OFD_SETLK of a description.
    OfDescription {
        /// The description.
        object: ObjectId,
        /// flock(2).
        whole: bool,
        /// Range and sharing; of flock only the sharing counts.
        range: Range,
    },
    /// F_SETLK of a process.
    OfProcess {
        /// A thread with the file table.
        thread: Pid,
        /// Its descriptor.
        descriptor: i32,
        /// Range and sharing.
        range: Range,
    },
}

impl Restorer {
    /// Keeps a lock for later, if it may be the source that has it now.
    pub(super) fn defer(&mut self, error: Errno, lock: DeferredLock) -> Result<()> {
        let (object, thread, descriptor, owner, range) = match lock {
            DeferredLock::OfDescription { object, whole, range } => {
                let owner = if whole { Owner::Whole } else { Owner::Description };
                // One that is only in flight is nobody's who could be asked for it later.
                let (thread, descriptor) = self.holder_of(object).unwrap_or((Pid(0), -1));
                (Some(object), thread, descriptor, owner, range)
            }
            DeferredLock::OfProcess { thread, descriptor, range } => {
                (self.description_of(thread, descriptor), thread, descriptor, Owner::Process, range)
            }
        };
        let pid = self.process_of(thread).unwrap_or(Pid(0));
        let Range { exclusive, start, end } = range;
        let claim = Claim { pid: pid.0, thread: thread.0, descriptor, owner, exclusive, start, end };
        let file = object.and_then(|object| self.own(object)).ok_or_else(|| missing(object.unwrap_or(ObjectId(0))))?;
        let shared = filesystem::kind(file).is_ok_and(|kind| SHARED.contains(&kind));
        // Before the boot was noted an image could not tell.
        let elsewhere = !self.tree.host.boot_id.is_empty() && !crate::host::is_this_boot(&self.tree.host);
        if !shared && elsewhere {
            let cause = format!("somebody else has the lock here that it has: {error}");
            return Err(Refusal::new(Code::FILE_DIFFERS, claim.subject(), cause));
        }
        let file = file.try_clone_to_owned().about(|| claim.subject())?;
        self.claims.push((claim, file));
        Ok(())
    }

    fn description_of(&self, thread: Pid, descriptor: i32) -> Option<ObjectId> {
        let mut threads = self.tree.tasks.iter().flat_map(|task| &task.threads);
        let table = threads.find(|other| other.tid == thread)?.files?;
        let table = self.tree.tables.iter().find(|other| other.id == table)?;
        table.slots.iter().find(|slot| slot.descriptor == descriptor).map(|slot| slot.description)
    }

    /// A living thread with a descriptor of a description.
    fn holder_of(&self, object: ObjectId) -> Option<(Pid, i32)> {
        let threads = self.tree.tasks.iter().flat_map(|task| &task.threads).filter(|thread| !thread.dead);
        threads.into_iter().find_map(|thread| {
            let table = self.tree.tables.iter().find(|table| Some(table.id) == thread.files)?;
            let slot = table.slots.iter().find(|slot| slot.description == object)?;
            Some((thread.tid, slot.descriptor))
        })
    }

    fn process_of(&self, thread: Pid) -> Option<Pid> {
        let has = |task: &&godwit_image::task::Task| task.threads.iter().any(|other| other.tid == thread);
        self.tree.tasks.iter().find(has).map(|task| task.pid)
    }

    /// The locks that are to be taken when the source's tasks have ended: [`Restorer::take_claims`]. For whoever must do it in our place.
    pub fn claims(&self) -> Vec<Claim> {
        self.claims.iter().map(|(claim, _)| claim.clone()).collect()
    }

    /// Takes them; to be called when the tree is complete, and when the journal has made it ours where there is one. False: somebody
    /// else still has one, the tree is stopped as before.
    ///
    /// # Errors
    /// A process is dead, or a lock cannot be had at all.
    pub fn take_claims(&mut self) -> Result<bool> {
        for (claim, file) in &self.claims {
            if !claim.take(file.as_fd())? {
                return Ok(false);
            }
        }
        let of_processes: Vec<Claim> =
            self.claims().into_iter().filter(|claim| claim.owner == Owner::Process).collect();
        let pids: BTreeSet<i32> = of_processes.iter().map(|claim| claim.pid).collect();
        for pid in pids {
            let own: Vec<&Claim> = of_processes.iter().filter(|claim| claim.pid == pid).collect();
            if !self.take_inside(Pid(pid), &own)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Where the tree is held, only this process is not for that moment; if we die then, it runs, as the journal says that it may.
    fn take_inside(&mut self, pid: Pid, claims: &[&Claim]) -> Result<bool> {
        let subject = || Subject::Process(pid.0);
        let stat = stat::read_process_wide(pid.0)
            .map_err(|error| Refusal::new(Code::PROCESS_VANISHED, subject(), error.to_string()))?;
        let threads = || |puppet: &&mut Puppet| puppet.is_of(pid);
        if self.held {
            self.unhold_process(pid)?;
        }
        let lend = |puppet: &mut Puppet| Some((puppet.tid(), puppet.lend()?));
        let mut lent: Vec<(Pid, Stopped)> = self.puppets.values_mut().filter(threads()).filter_map(lend).collect();
        // The leader first, unless it is dead.
        lent.sort_by_key(|(tid, _)| (*tid != pid, *tid));
        let leader_dead = lent.first().is_some_and(|(tid, _)| *tid != pid);
        let (tids, threads): (Vec<Pid>, Vec<Stopped>) = lent.into_iter().unzip();
        let mut process =
            FrozenProcess { pid: pid.0, parent_thread: 0, stat, threads, leader_dead, status: OnceLock::new() };
        let taken = claim::take_inside(&mut process, claims);
        for (tid, stopped) in tids.into_iter().zip(process.threads) {
            if let Some(puppet) = self.puppets.get_mut(&tid) {
                puppet.take_back(stopped);
            }
        }
        if self.held {
            self.hold_process(pid)?;
        }
        taken
    }
}
