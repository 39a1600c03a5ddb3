//! A tree that runs while what lies unread in some of its pipes and sockets is still on its way: whoever touches one of these waits.
//!
//! Its threads stay traced until then, and stop before every system call. Those go on that have to do with nothing of it (`crate::touch`); whoever
//! makes another one, is sent a signal or meets anything else that is told to a tracer stays where it is. So nobody is born, ends by
//! itself, runs another program or changes its descriptors meanwhile. If this process ends, the tree does: what is missing would be lost without a word.
use super::make::Bind;
use super::{Restorer, missing};
use crate::communication;
use crate::failure::{About, Result};
use crate::resource::{self, unread};
use crate::touch::{self, Reach};
use godwit_image::{ObjectId, Pid, Subject};
use godwit_linux::errno;
use godwit_linux::proc::stat;
use godwit_linux::ptrace::{self, CallStop, Event};
use godwit_linux::signal;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

const SIGCHLD: i32 = 17;
/// Bytes of the instruction that makes a system call.
const CALL_BYTES: u64 = 2;

/// What can be done with each descriptor of a table; those that are not in it are closed.
type Reaches = BTreeMap<i32, Reach>;

#[derive(Debug)]
struct Thread {
    reaches: Rc<Reaches>,
    stand: Stand,
}

/// How a thread stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stand {
    /// It runs, or waits in a call that may be made.
    Runs,
    /// It has stopped and stays so; the signal that it is about to get, or none.
    Stays(i32),
    /// All is there: it is asked to stop, to be let go.
    Leaves,
}

/// Such a tree.
#[derive(Debug)]
pub struct Attended {
    restorer: Restorer,
    /// Those that have not been let go.
    threads: BTreeMap<i32, Thread>,
    /// Readable when a thread has stopped.
    bell: OwnedFd,
    /// What follows is there.
    is_complete: bool,
}

impl Restorer {
    /// Lets a tree run of which something follows. Returns the root's number, and what has to be attended to until that is there.
    ///
    /// # Errors
    /// A thread is dead; the tree is ended.
    pub fn resume_attended(mut self) -> Result<(i32, Attended)> {
        self.swallow_stops()?;
        let bell = signal::listen(signal::bit(SIGCHLD)).about(|| Subject::Host)?;
        let reaches = reaches(&self)?;
        let root = self.tree.root().map_or(0, |task| task.pid.0);
        let tables: BTreeMap<Pid, Option<ObjectId>> =
            self.tree.tasks.iter().flat_map(|task| &task.threads).map(|thread| (thread.tid, thread.files)).collect();
        let mut threads = BTreeMap::new();
        for tid in self.order_of_release() {
            let Some(puppet) = self.puppets.get_mut(&tid).filter(|puppet| !puppet.is_dead()) else { continue };
            let stand = if puppet.let_run_to_call()? { Stand::Runs } else { Stand::Stays(0) };
            let table = tables.get(&tid).copied().flatten().and_then(|table| reaches.get(&table));
            threads.insert(tid.0, Thread { reaches: table.cloned().unwrap_or_default(), stand });
        }
        Ok((root, Attended { restorer: self, threads, bell, is_complete: false }))
    }
}

/// What can be done with every descriptor as long as something has not come.
fn reaches(restorer: &Restorer) -> Result<BTreeMap<ObjectId, Rc<Reaches>>> {
    let tree = &restorer.tree;
    let later: BTreeSet<ObjectId> = tree.later.iter().flat_map(|later| later.objects.iter().copied()).collect();
    let of_sockets =
        tree.objects.iter().any(|envelope| later.contains(&envelope.id) && resource::is_unix_socket(envelope));
    let mut known: BTreeMap<ObjectId, Reach> = BTreeMap::new();
    let mut reach = |id: ObjectId| -> Result<Reach> {
        if let Some(reach) = known.get(&id) {
            return Ok(*reach);
        }
        let envelope = tree.object(id).ok_or_else(|| missing(id))?;
        // One socket may have sent what lies unread in another.
        let waits = (of_sockets && resource::is_unix_socket(envelope))
            || !communication::closure(tree, [id]).is_disjoint(&later);
        let reach = match (waits, resource::never_waits(envelope)) {
            (true, _) => Reach::Nothing,
            (false, true) => Reach::All,
            (false, false) => Reach::Reading,
        };
        known.insert(id, reach);
        Ok(reach)
    };
    let mut found = BTreeMap::new();
    for table in &tree.tables {
        let of_slot = |slot: &godwit_image::descriptor::Slot| Ok((slot.descriptor, reach(slot.description)?));
        let reaches = table.slots.iter().map(of_slot).collect::<Result<Reaches>>()?;
        found.insert(table.id, Rc::new(reaches));
    }
    Ok(found)
}

impl Attended {
    /// Readable when there is something to attend to.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Everybody has been let go: nothing is left to be attended to.
    pub fn is_over(&self) -> bool {
        self.is_complete && self.threads.is_empty()
    }

    /// Sees who has stopped, and lets those go on that may.
    ///
    /// # Errors
    /// The kernel refuses what it never should.
    pub fn attend(&mut self) -> Result<()> {
        // The bell rings for many at once.
        while signal::next(self.bell.as_fd()).is_some() {}
        while let Some((tid, event)) = ptrace::next_stop().about(|| Subject::Host)? {
            self.take_in(tid, event)?;
        }
        if self.is_complete { self.forget_the_dead() } else { Ok(()) }
    }

    fn take_in(&mut self, tid: i32, event: Event) -> Result<()> {
        let Some(thread) = self.threads.get_mut(&tid) else { return Ok(()) };
        match alive(thread.stopped(tid, event)).about(|| Subject::Process(tid))? {
            Some(Answer::Stays) => Ok(()),
            Some(Answer::Leaves(signal)) => self.let_go(tid, signal),
            // Its end is told to nobody but us.
            None => {
                self.forget(tid);
                Ok(())
            }
        }
    }

    /// What follows is there: puts it where it belongs, and begins to let everybody go.
    ///
    /// # Errors
    /// GW1004: it is malformed; why it cannot be put back exactly. The tree cannot go on then.
    pub fn complete(&mut self, bytes: &[u8]) -> Result<()> {
        let restorer = &mut self.restorer;
        let whole = communication::opened(&restorer.tree, bytes)?;
        let ids: Vec<ObjectId> = whole.iter().map(|envelope| envelope.id).collect();
        for envelope in whole {
            let id = envelope.id;
            let bare = restorer.tree.objects.iter_mut().find(|bare| bare.id == id);
            *bare.ok_or_else(|| missing(id))? = envelope;
        }
        let ids: Vec<ObjectId> = restorer.order.iter().copied().filter(|id| ids.contains(id)).collect();
        for id in ids {
            let envelope = restorer.tree.object(id).cloned().ok_or_else(|| missing(id))?;
            let kind = unread::kind_of(&envelope).ok_or_else(|| missing(id))?;
            kind.put_back(&envelope, &mut Bind { restorer, object: id })?;
        }
        restorer.made.clear();
        self.is_complete = true;
        let all: Vec<(i32, Stand)> = self.threads.iter().map(|(tid, thread)| (*tid, thread.stand)).collect();
        for (tid, stand) in all {
            match stand {
                Stand::Stays(signal) => self.let_go(tid, signal)?,
                Stand::Runs => {
                    if alive(ptrace::interrupt(tid)).about(|| Subject::Process(tid))?.is_some()
                        && let Some(thread) = self.threads.get_mut(&tid)
                    {
                        thread.stand = Stand::Leaves;
                    }
                }
                Stand::Leaves => {}
            }
        }
        self.attend()
    }

    fn let_go(&mut self, tid: i32, signal: i32) -> Result<()> {
        self.threads.remove(&tid);
        let Some(mut puppet) = self.restorer.puppets.remove(&Pid(tid)) else { return Ok(()) };
        let detached = match signal {
            0 => puppet.release(),
            _ => {
                puppet.bury();
                ptrace::detach(tid, signal).about(|| Subject::Process(tid))
            }
        };
        match detached {
            // Somebody has ended it in its stop.
            Err(refusal) if refusal.code == godwit_image::Code::PROCESS_VANISHED => Ok(()),
            other => other,
        }
    }

    fn forget(&mut self, tid: i32) {
        self.threads.remove(&tid);
        if let Some(mut puppet) = self.restorer.puppets.remove(&Pid(tid)) {
            puppet.bury();
        }
    }

    /// Whoever was killed meanwhile stops no more. All but our own child are waited for by us before their parents can do so.
    fn forget_the_dead(&mut self) -> Result<()> {
        let root = self.restorer.tree.root().map_or(0, |task| task.pid.0);
        let left: Vec<i32> = self.threads.keys().copied().collect();
        for tid in left {
            if tid == root {
                let state = stat::read(root, root).map_or(b'X', |stat| stat.state);
                if matches!(state, b'Z' | b'X') {
                    self.forget(tid);
                }
                continue;
            }
            match ptrace::poll(tid) {
                Ok(None) => {}
                Ok(Some(Event::Ended(_))) | Err(_) => self.forget(tid),
                Ok(Some(event)) => self.take_in(tid, event)?,
            }
        }
        Ok(())
    }
}

/// What becomes of a thread that has stopped.
enum Answer {
    Stays,
    /// It is to be let go, with this signal or none.
    Leaves(i32),
}

impl Thread {
    fn stopped(&mut self, tid: i32, event: Event) -> errno::Result<Answer> {
        match (self.stand, event) {
            (Stand::Runs, Event::Syscall) => match ptrace::call_stop(tid)? {
                CallStop::Before(call) if !touch::may_pass(&call, |descriptor| self.reach(descriptor)) => self.stay(0),
                CallStop::BeforeForeign => self.stay(0),
                CallStop::Before(_) | CallStop::Behind => ptrace::resume_to_syscall(tid)?,
            },
            (Stand::Leaves, Event::Syscall) => {
                if matches!(ptrace::call_stop(tid)?, CallStop::Before(_) | CallStop::BeforeForeign) {
                    take_back_call(tid)?;
                }
                // This stop counts as the one that was asked for (kernel/signal.c, ptrace_stop()). From here the kernel would go on without a
                // look at an interrupted call: have it stop where it does look.
                ptrace::interrupt(tid)?;
                ptrace::resume(tid, 0)?;
            }
            (Stand::Leaves, Event::Signal(signal)) => return Ok(Answer::Leaves(signal)),
            (Stand::Leaves, _) => return Ok(Answer::Leaves(0)),
            (_, Event::Signal(signal)) => self.stay(signal),
            (_, _) => self.stay(0),
        }
        Ok(Answer::Stays)
    }

    fn stay(&mut self, signal: i32) {
        self.stand = Stand::Stays(signal);
    }

    fn reach(&self, descriptor: i32) -> Reach {
        // What is closed stays so: nobody can open anything.
        self.reaches.get(&descriptor).copied().unwrap_or(Reach::Reading)
    }
}

/// Puts a thread that is about to make a call back to the instruction for it: it makes it anew when it runs.
fn take_back_call(tid: i32) -> errno::Result<()> {
    let mut registers = ptrace::registers(tid)?;
    registers.rax = registers.orig_rax;
    registers.orig_rax = u64::MAX;
    registers.rip = registers.rip.wrapping_sub(CALL_BYTES);
    ptrace::set_registers(tid, &registers)
}

/// `None`: the thread is dead.
fn alive<T>(result: errno::Result<T>) -> errno::Result<Option<T>> {
    const ESRCH: i32 = 3;
    match result {
        Err(error) if error.number == ESRCH => Ok(None),
        other => other.map(Some),
    }
}
