//! Stopping a tree: thread by thread, in an order in which who waits costs those who work nothing, and until nobody new is found.
use super::{Found, Stopped, libc_signal, suspend_filters, walk};
use crate::attach::ask_all;
use crate::failure::Result;
use crate::{procfs, vfork};
use godwit_image::{Code, Refusal};
use godwit_linux::ptrace::{self, Event};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long a thread may take to stop before we ask why. Stops take microseconds.
const STOP_PATIENCE: Duration = Duration::from_millis(3);

/// The same for one that waits for a processor, which others have: it gets one in the end.
const PROCESSOR_PATIENCE: Duration = Duration::from_secs(30);

/// Waits for the stop of a thread that was interrupted, and puts it among the known ones. Gives it back when it does not stop in
/// time.
fn keep_stopped(
    mut thread: Stopped,
    patience: Option<Duration>,
    known: &mut BTreeMap<i32, BTreeMap<i32, Stopped>>,
) -> Result<Option<Stopped>> {
    match thread.wait_stop_for(true, patience) {
        Ok(None) => return Ok(Some(thread)),
        Ok(Some(Event::Stop(signal))) => {
            if signal != libc_signal::TRAP {
                thread.group_stop = signal;
            }
            suspend_filters(thread.tid);
            crate::interrupted::mend(&mut thread);
            known.entry(thread.pid).or_default().insert(thread.tid, thread);
        }
        Ok(Some(event)) => {
            return Err(Refusal::new(Code::KERNEL_CALL, thread.subject(), format!("unexpected stop {event:?}")));
        }
        Err(refusal) if refusal.code == Code::PROCESS_VANISHED => thread.forget(),
        Err(refusal) => return Err(refusal),
    }
    Ok(None)
}

/// The threads of a tree that are being stopped.
#[derive(Default)]
pub(super) struct Freezing {
    /// Those that have stopped, by process.
    pub(super) known: BTreeMap<i32, BTreeMap<i32, Stopped>>,
    /// Those that did not in time.
    late: Vec<Stopped>,
    /// How many were asked to.
    begun: usize,
    /// Whether everybody of the last walk was there to be stopped.
    complete: bool,
}

impl Freezing {
    /// Who has not been asked yet. Children first, a process's first thread last: in the order in which they go on again. The time
    /// in which they do not run is the same for all then, and it is the first ones that work most.
    fn fresh(&mut self, order: &[Found]) -> Vec<(i32, i32)> {
        let mut fresh = Vec::new();
        for process in order.iter().rev() {
            self.complete &= !process.threads.is_empty();
            let held = self.known.entry(process.pid).or_default();
            let threads = process.threads.iter().rev().filter(|tid| !held.contains_key(tid));
            fresh.extend(threads.map(|tid| (process.pid, *tid)));
        }
        fresh
    }

    /// Stops some; tells how many were there.
    fn stop(&mut self, threads: &[(i32, i32)], others_work: bool) -> Result<usize> {
        let asked = ask_all(threads)?;
        let count = asked.len();
        self.complete &= count == threads.len();
        self.begun += count;
        for thread in asked {
            let (pid, tid) = (thread.pid, thread.tid);
            if let Some(thread) = keep_stopped(thread, Some(STOP_PATIENCE), &mut self.known)? {
                self.late.push(thread);
            } else if let Some(thread) =
                self.known.get_mut(&pid).and_then(|of| of.get_mut(&tid)).filter(|_| others_work)
            {
                // What can be read while others work costs them nothing.
                thread.extended_state = ptrace::extended_state(tid).ok();
            }
        }
        Ok(count)
    }

    /// One that has not had a processor yet may be the vfork child that another one waits for.
    fn stop_late(&mut self) -> Result<()> {
        for thread in std::mem::take(&mut self.late) {
            vfork::finish(&thread, &mut self.known)?;
            let begin = Instant::now();
            let mut late = keep_stopped(thread, Some(vfork::PATIENCE), &mut self.known)?;
            while let Some(thread) = late.take_if(|late| late.is_runnable() && begin.elapsed() < PROCESSOR_PATIENCE) {
                late = keep_stopped(thread, Some(vfork::PATIENCE), &mut self.known)?;
            }
            if let Some(thread) = late {
                let cause = "it sleeps in the kernel and cannot be stopped";
                return Err(Refusal::new(Code::PASSING_MOMENT, thread.subject(), cause).choice("try again later"));
            }
            self.complete = false;
        }
        Ok(())
    }

    fn has_all(&self) -> bool {
        self.complete && self.known.values().map(BTreeMap::len).sum::<usize>() == self.begun
    }

    /// Stops everybody; tells who is there.
    pub(super) fn stop_all(
        &mut self,
        root: i32,
        mut order: Vec<Found>,
        waiting: &BTreeSet<i32>,
        mut forks: Option<u64>,
    ) -> Result<Vec<Found>> {
        let mut looked_again = false;
        self.complete = forks.is_some();
        loop {
            // Who only waits loses nothing while others work on; who works is asked when nothing else is left to be done.
            let fresh = self.fresh(&order);
            let (waiting, working): (Vec<_>, Vec<_>) = fresh.into_iter().partition(|(_, tid)| waiting.contains(tid));
            let mut asked = self.stop(&waiting, true)?;
            // Somebody was born on this host since the walk: whether in this tree is found out while others work.
            let can_look = !looked_again && !waiting.is_empty() && !working.is_empty() && self.late.is_empty();
            if can_look && procfs::forks() != forks {
                looked_again = true;
                forks = procfs::forks();
                self.complete = forks.is_some();
                order = walk(root)?;
                continue;
            }
            asked += self.stop(&working, false)?;
            if asked == 0 {
                break;
            }
            self.stop_late()?;
            // When everybody has stopped and nothing at all was born since before the last walk, another one, which costs
            // as much as the stops of a thousand threads, finds nothing new.
            if self.has_all() && procfs::forks() == forks {
                break;
            }
            self.complete = false;
            order = walk(root)?;
        }
        Ok(order)
    }
}
