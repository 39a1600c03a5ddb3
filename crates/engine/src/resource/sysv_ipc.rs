//! System V message queues and semaphore sets of a tree, and what its processes are to give back at their end (SEM_UNDO).
//!
//! Times of the last use, and identity of processes that have ended, are those of the restore.
use super::sysv_undo::{self, Place};
use super::sysv_users::{self, Tables, Waits};
use super::{Captured, Description, Kind, Made, Need, Running, Stage, TaskState, open, sysv_queue, sysv_semaphores};
use crate::capture::Capture;
use crate::failure::{About, Result, malformed};
use crate::injector::Injector;
use crate::leftover::Leftover;
use crate::restore::{Bind, Make};
use godwit_image::{Code, Envelope, KindId, ObjectId, Pid, Refusal, Subject, Verdict};
use godwit_linux::kcmp::{self, Object};
use godwit_linux::proc::{status, sysvipc};
use godwit_linux::sysv_semaphores::operate_as;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeSet;

/// More semaphores than this of sets that show no use by the tree are not asked about.
const PLACES_MAX: usize = 32768;

/// State.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum State {
    /// A message queue.
    Queue(sysv_queue::State),
    /// A set of semaphores.
    Semaphores(sysv_semaphores::State),
    /// What a process gives back.
    Undo(Vec<Undo>),
}

/// What one process gives back to one semaphore.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Undo {
    /// The set.
    pub set: ObjectId,
    /// Number of the semaphore.
    pub semaphore: u16,
    /// What is added at the end.
    pub value: i32,
}

/// The kind.
#[derive(Debug)]
pub struct SysvIpc;

impl Kind for SysvIpc {
    fn id(&self) -> KindId {
        KindId(65)
    }
    fn name(&self) -> &'static str {
        "System V queues and semaphores"
    }
    fn version(&self) -> u16 {
        1
    }
    fn stage(&self) -> Stage {
        Stage::Early
    }
    fn needs(&self, _: &Envelope) -> Result<Vec<Need>> {
        Ok(Vec::new())
    }
    fn make(&self, envelope: &Envelope, make: &mut Make) -> Result<Made> {
        match open(envelope)? {
            State::Queue(queue) => sysv_queue::make(&queue, make)?,
            State::Semaphores(set) => sysv_semaphores::make(&set, make)?,
            State::Undo(_) => {}
        }
        Ok(Vec::new())
    }
    fn bind(&self, _: &Envelope, _: &mut Bind) -> Result<()> {
        Ok(())
    }
    fn description(&self) -> Option<&dyn Description> {
        None
    }
    fn task_state(&self) -> Option<&dyn TaskState> {
        Some(self)
    }
}

/// What a move does to an object that a process uses.
fn verdict(pid: i32, users: &BTreeSet<i32>) -> Verdict {
    let related = |other: i32| ancestors(other).contains(&pid) || ancestors(pid).contains(&other);
    match sysv_users::stranger(users, related) {
        Some(other) => Verdict::Undecided(format!(
            "process {other} has used it as well: unless it is of the tree, a move is refused"
        )),
        None => Verdict::Recreated(
            "with its identifier and key; times of its last use and processes that have ended are those of the restore"
                .to_owned(),
        ),
    }
}

/// A process, its parent, and so on, without the first of its namespace.
fn ancestors(pid: i32) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    let mut next = pid;
    while next > 1 && found.insert(next) {
        next = status::read(next, next).map_or(0, |status| status.parent);
    }
    found
}

/// What is said of an object of a process's user of which nothing tells who uses it.
fn unclaimed(pid: i32, owner: u32, users: &BTreeSet<i32>) -> Option<Verdict> {
    let own = status::read(pid, pid).ok()?.uid[0] == owner;
    let told = "it belongs to the same user, and nothing tells whether the tree uses it: it moves only if nobody else is in the IPC namespace";
    (own && sysv_users::stranger(users, |_| false).is_none()).then(|| Verdict::Undecided(told.to_owned()))
}

/// The refusal of an object that a process outside of the tree uses, too.
fn refuse_shared(subject: Subject, users: &BTreeSet<i32>, capture: &Capture) -> Result<()> {
    match sysv_users::stranger(users, |pid| capture.survey.pids.contains(&pid)) {
        Some(pid) => {
            let cause = format!("process {pid}, which is outside the tree, has used it last");
            Err(Refusal::new(Code::EDGE, subject, cause).choice("move that process as well, or end it"))
        }
        None => Ok(()),
    }
}

fn capture_queue(queue: &sysvipc::Queue, capture: &mut Capture) -> Result<ObjectId> {
    refuse_shared(sysv_queue::subject(queue.id), &sysv_users::of_queue(queue), capture)?;
    capture.intern(&SysvIpc, format!("queue {}", queue.id).as_bytes(), |capture, _| {
        capture.leaves_with_the_tree(Leftover::MessageQueue(queue.id, queue.times));
        Ok((Vec::new(), State::Queue(sysv_queue::capture(queue)?)))
    })
}

fn capture_set(set: &sysvipc::Set, semaphores: &[(u16, i32)], capture: &mut Capture) -> Result<ObjectId> {
    refuse_shared(sysv_semaphores::subject(set.id), &sysv_users::of_set(semaphores), capture)?;
    capture.intern(&SysvIpc, format!("set {}", set.id).as_bytes(), |capture, _| {
        capture.leaves_with_the_tree(Leftover::Semaphores(set.id, set.times[1]));
        Ok((Vec::new(), State::Semaphores(sysv_semaphores::capture(set, semaphores))))
    })
}

/// Refuses values that belong not to one process: of a thread with a list of its own, or of several processes.
fn refuse_divided(injector: &mut Injector<'_>, capture: &Capture, asked: &[Place], has_values: bool) -> Result<()> {
    let (pid, first) = (injector.process().pid, injector.process().threads[0].tid());
    let refuse = |tid: i32, whose: &str| {
        let cause = format!("{whose} (SEM_UNDO), which this build does not carry");
        Err(Refusal::new(Code::UNSUPPORTED, Subject::Thread(pid, tid), cause))
    };
    for index in 1..injector.threads() {
        let tid = injector.process().threads[index].tid();
        let order = kcmp::kcmp(first, tid, Object::SemaphoreUndo).about(|| Subject::Thread(pid, tid))?;
        if order != Ordering::Equal && !sysv_undo::read(injector, index, asked)?.0.is_empty() {
            return refuse(tid, "what it gives back to semaphores at its end is its own, not its process's");
        }
    }
    // Equal to another process's: both have one list, since this one has one.
    for other in capture.survey.pids.iter().filter(|other| has_values && **other != pid) {
        // A dead one has none.
        if kcmp::kcmp(first, *other, Object::SemaphoreUndo).is_ok_and(|order| order == Ordering::Equal) {
            return refuse(first, "it gives back to semaphores at its end what it shares with other processes");
        }
    }
    Ok(())
}

/// Whether a process may have anything to give back: whoever has never asked for it, and has no threads, has no list, like
/// a process of ours made for the comparison.
fn may_undo(pid: i32, threads: usize) -> bool {
    if threads > 1 {
        return true;
    }
    let Ok(blank) = godwit_linux::stranger::Stranger::new(0, 0) else { return true };
    !kcmp::kcmp(pid, blank.pid(), Object::SemaphoreUndo).is_ok_and(|order| order == Ordering::Equal)
}

fn capture_undo(
    injector: &mut Injector<'_>,
    tables: &Tables,
    claimed: &BTreeSet<i32>,
    capture: &mut Capture,
) -> Result<Option<Captured>> {
    let pid = injector.process().pid;
    let threads = injector.process().threads.len();
    if tables.sets.is_empty() || !may_undo(injector.process().threads[0].tid(), threads) {
        return Ok(None);
    }
    let places = |set: &sysvipc::Set, semaphores: &[(u16, i32)]| {
        let set = set.id;
        let place =
            move |(number, (value, _)): (usize, &(u16, i32))| Place { set, semaphore: number as u16, value: *value };
        semaphores.iter().enumerate().map(place).collect::<Vec<_>>()
    };
    let of = |wanted: bool| {
        let sets = tables.sets.iter().filter(move |(set, _)| claimed.contains(&set.id) == wanted);
        sets.flat_map(|(set, semaphores)| places(set, semaphores)).collect::<Vec<_>>()
    };
    let (mut asked, mut others) = (of(true), of(false));
    others.truncate(PLACES_MAX);
    asked.append(&mut others);
    let (values, forbidden) = sysv_undo::read(injector, 0, &asked)?;
    // It used a semaphore last that it may not use any more: then nothing can be found out.
    let used = |place: &&Place| {
        let set = tables.sets.iter().find(|(set, _)| set.id == place.set);
        set.and_then(|(_, semaphores)| semaphores.get(usize::from(place.semaphore)))
            .is_some_and(|(_, user)| *user == pid)
    };
    if let Some(place) = forbidden.iter().find(used) {
        let cause = format!("process {pid} may not use it any more, so what it is to give back cannot be found out");
        return Err(Refusal::new(Code::NOT_MIGRATABLE, sysv_semaphores::subject(place.set), cause));
    }
    refuse_divided(injector, capture, &asked, !values.is_empty())?;
    if values.is_empty() {
        return Ok(None);
    }
    let mut undo = Vec::with_capacity(values.len());
    for (place, value) in values {
        let Some((set, semaphores)) = tables.sets.iter().find(|(set, _)| set.id == place.set) else { continue };
        undo.push(Undo { set: capture_set(set, semaphores, capture)?, semaphore: place.semaphore, value });
    }
    let sets: BTreeSet<ObjectId> = undo.iter().map(|undo| undo.set).collect();
    Ok(Some(Captured::new(sets.into_iter().collect(), &State::Undo(undo))?))
}

impl TaskState for SysvIpc {
    fn examine(&self, Running { pid, .. }: Running<'_>) -> Vec<(Subject, Verdict)> {
        let tables = sysv_users::tables(pid);
        if tables.queues.is_empty() && tables.sets.is_empty() {
            return Vec::new();
        }
        let waits = Waits::of_running(pid);
        let mut found = Vec::new();
        let mut judge = |subject: Subject, owner: u32, users: &BTreeSet<i32>, waited: bool| {
            let claimed = waited || users.contains(&pid);
            let verdict = if claimed { Some(verdict(pid, users)) } else { unclaimed(pid, owner, users) };
            found.extend(verdict.map(|verdict| (subject, verdict)));
        };
        for queue in &tables.queues {
            let (users, waited) = (sysv_users::of_queue(queue), waits.queues.contains(&queue.id));
            judge(sysv_queue::subject(queue.id), queue.owner.0, &users, waited);
        }
        for (set, semaphores) in &tables.sets {
            let (users, waited) = (sysv_users::of_set(semaphores), waits.sets.contains(&set.id));
            judge(sysv_semaphores::subject(set.id), set.owner.0, &users, waited);
        }
        found
    }

    fn capture(&self, injector: &mut Injector<'_>, capture: &mut Capture) -> Result<Vec<Captured>> {
        let pid = injector.process().pid;
        let tables = sysv_users::tables(pid);
        if tables.queues.is_empty() && tables.sets.is_empty() {
            return Ok(Vec::new());
        }
        let mut waits = Waits::default();
        for registers in (0..injector.threads()).filter_map(|index| injector.registers(index)) {
            waits.note(registers.orig_rax, registers.rdi);
        }
        let in_tree = |other: i32| capture.survey.pids.contains(&other);
        let all = !capture.sysv_claimed && sysv_users::is_private(pid, in_tree);
        capture.sysv_claimed = true;
        for queue in &tables.queues {
            if all || waits.queues.contains(&queue.id) || sysv_users::of_queue(queue).contains(&pid) {
                capture_queue(queue, capture)?;
            }
        }
        let mut claimed = BTreeSet::new();
        for (set, semaphores) in &tables.sets {
            let users = sysv_users::of_set(semaphores);
            if all || waits.sets.contains(&set.id) || users.contains(&pid) {
                capture_set(set, semaphores, capture)?;
                claimed.insert(set.id);
            }
        }
        Ok(capture_undo(injector, &tables, &claimed, capture)?.into_iter().collect())
    }

    fn restore(&self, envelope: &Envelope, task: Pid, bind: &mut Bind) -> Result<()> {
        let subject = || Subject::Object(format!("{} {}", self.name(), envelope.id));
        let State::Undo(undo) = open(envelope)? else {
            return Err(malformed(subject(), "it is not a task's state"));
        };
        for Undo { set, semaphore, value } in undo {
            let of_set = bind.tree().object(set).ok_or_else(|| malformed(subject(), "its set is missing"))?;
            let State::Semaphores(state) = open(of_set)? else {
                return Err(malformed(subject(), "it refers to no set of semaphores"));
            };
            let Some((now, user)) = state.semaphores.get(usize::from(semaphore)).copied() else {
                return Err(malformed(subject(), "its set has no such semaphore"));
            };
            let place = Place { set: state.id, semaphore, value: now };
            sysv_undo::give(bind, task, &[(place, value)])?;
            // The one who used it last is that again.
            let of_tree = bind.tree().tasks.iter().find(|of_tree| of_tree.pid.0 == user).map(|of_tree| of_tree.pid);
            match of_tree.and_then(|pid| bind.living(pid)) {
                Some(living) => sysv_undo::touch(bind, living, place)?,
                None if user > 0 => {
                    operate_as(Some(user), state.id, &sysv_undo::touching(place)).about(subject)?;
                }
                None => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_states_come_back_from_their_payloads() {
        let message = sysv_queue::Message { kind: 3, bytes: vec![1, 2] };
        super::super::assert_round_trip(&State::Queue(sysv_queue::State {
            id: 1,
            key: -2,
            mode: 0o600,
            owner: (1, 2),
            creator: (3, 4),
            bytes_max: 16384,
            users: (5, 0),
            times: [1, 2, 3],
            messages: vec![message],
        }));
        super::super::assert_round_trip(&State::Semaphores(sysv_semaphores::State {
            id: 1,
            key: -2,
            mode: 0o600,
            owner: (1, 2),
            creator: (3, 4),
            times: [0, 1],
            semaphores: vec![(32767, 9), (0, 0)],
        }));
        super::super::assert_round_trip(&State::Undo(vec![Undo { set: ObjectId(4), semaphore: 1, value: -3 }]));
    }
}
