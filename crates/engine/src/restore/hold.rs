//! The stop of a finished tree: made to outlive this process, and ended.
//!
//! Each process gets one SIGSTOP. When its threads are let go, by us or by our death, whichever of them the kernel lets look
//! for signals first, under the lock that they share, takes it and stops all: before any has run an instruction. A SIGSTOP
//! for each thread would do the same, but to send one the kernel walks all threads of the process.
use super::Restorer;
use super::finish::thread_registers;
use super::puppet::Puppet;
use crate::failure::{About, Result};
use crate::freeze::libc_signal;
use crate::hold::swallow_stops;
use godwit_image::task::Thread;
use godwit_image::{Pid, Subject};
use godwit_linux::proc::stat;
use godwit_linux::scheduling::{self, Precedence};
use godwit_linux::signal;
use std::collections::BTreeSet;

impl Restorer {
    /// Makes the stop outlive this process: from now on its death leaves the tree stopped, not dead.
    ///
    /// # Errors
    /// A thread is dead.
    pub fn hold(&mut self) -> Result<()> {
        let to_hold = self.puppets.values().filter(|puppet| puppet.is_to_be_held());
        let pids: BTreeSet<Pid> = to_hold.map(Puppet::pid).collect();
        for pid in pids {
            signal::send_to_process(pid.0, libc_signal::STOP).about(|| Subject::Process(pid.0))?;
        }
        // Whoever dies with us still takes its whole process along.
        for puppet in self.puppets.values_mut().filter(|puppet| !puppet.is_dead()) {
            puppet.outlive()?;
        }
        self.held = true;
        self.created.keep();
        Ok(())
    }

    /// The same again for one process whose stop [`Restorer::unhold_process`] has taken back.
    pub(super) fn hold_process(&mut self, pid: Pid) -> Result<()> {
        if self.puppets.values().any(|puppet| puppet.is_of(pid) && puppet.is_to_be_held()) {
            signal::send_to_process(pid.0, libc_signal::STOP).about(|| Subject::Process(pid.0))?;
        }
        Ok(())
    }

    /// Takes back the SIGSTOP of one process.
    pub(super) fn unhold_process(&mut self, pid: Pid) -> Result<()> {
        let mut held = self.puppets.values_mut().filter(|puppet| puppet.is_of(pid)).filter_map(Puppet::held_back);
        let first = held.next();
        // What has stopped the others for the end came from nobody else either.
        held.for_each(drop);
        swallow_stops(first.into_iter().collect())
    }

    /// Lets go of a held tree, which stays stopped: somebody else goes on with it.
    pub fn leave(mut self) {
        self.created.keep();
        for puppet in std::mem::take(&mut self.puppets).into_values() {
            // One that died meanwhile stays dead.
            let _ = puppet.release();
        }
    }

    /// Lets the tree run. Returns the root's number.
    ///
    /// # Errors
    /// A thread is dead.
    pub fn resume(mut self) -> Result<i32> {
        self.swallow_stops()?;
        self.release_all()
    }

    /// The same for one who still has something to do then: the tree begins where we are, and we go on elsewhere, instead of waiting
    /// until it leaves us its processor. Where that cannot be had we wait.
    ///
    /// # Errors
    /// As [`Self::resume`].
    pub fn resume_beside(mut self) -> Result<i32> {
        self.swallow_stops()?;
        let precedence = Precedence::take();
        let root = self.release_all();
        if let Ok(root) = root
            && let Ok(stat) = stat::read_process_wide(root)
        {
            // Of what only costs time nothing is said.
            let _ = scheduling::leave_processor(stat.processor as u32);
        }
        drop(precedence);
        root
    }

    pub(super) fn swallow_stops(&mut self) -> Result<()> {
        self.created.keep();
        if !self.held {
            return Ok(());
        }
        let mut seen = BTreeSet::new();
        let held = self.puppets.values_mut().filter_map(|puppet| Some((puppet.pid(), puppet.held_back()?)));
        swallow_stops(held.filter(|(pid, _)| seen.insert(*pid)).map(|(_, stopped)| stopped).collect())
    }

    fn release_all(&mut self) -> Result<i32> {
        let root = self.tree.root().map_or(0, |task| task.pid.0);
        let order = self.order_of_release();
        let mut puppets = std::mem::take(&mut self.puppets);
        order.iter().filter_map(|tid| puppets.remove(tid)).try_for_each(Puppet::release)?;
        Ok(root)
    }

    /// The root's process last: when it runs, its whole tree does. Of its threads those first that were at work: who waits for
    /// something loses nothing.
    pub(super) fn order_of_release(&self) -> Vec<Pid> {
        let root = self.tree.root().map_or(Pid(0), |task| task.pid);
        let waiting = self.waiting_threads(root);
        let mut puppets: Vec<&Puppet> = self.puppets.values().rev().collect();
        puppets.sort_by_key(|puppet| (puppet.is_of(root), waiting.contains(&puppet.tid())));
        puppets.into_iter().map(Puppet::tid).collect()
    }

    /// Threads of a process that go on in a system call.
    fn waiting_threads(&self, pid: Pid) -> BTreeSet<Pid> {
        let threads = self.tree.tasks.iter().filter(|task| task.pid == pid).flat_map(|task| &task.threads);
        let call =
            |thread: &Thread| thread_registers(pid, thread).is_ok_and(|registers| registers.orig_rax as i64 >= 0);
        threads.filter(|thread| call(thread)).map(|thread| thread.tid).collect()
    }
}
