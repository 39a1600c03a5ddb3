//! Which edges of an epoll set wait to be told: kept with the process that was asked.
//!
//! Nothing shows that from outside, and asking uses the answer up. So the process itself is asked, by programs that run to
//! their end whatever happens to us: the first takes the events and at once makes every edge wait again that may have, so
//! that at worst an edge is told once too often; the second takes again and puts back exactly what was there.
use super::epoll::Member;
use super::{Captured, Kind, Made, Need, Stage, TaskState, open};
use crate::capture::Capture;
use crate::failure::Result;
use crate::injector::{Injector, Ran};
use crate::restore::{Bind, Make};
use godwit_image::tree::Tree;
use godwit_image::{Envelope, KindId, ObjectId, Pid, Subject};
use godwit_linux::epoll::{self, EVENT_BYTES};
use godwit_linux::program::{Argument, Program, Step};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

const SYS_POLL: i64 = 7;
const SYS_EPOLL_WAIT: i64 = 232;
const SYS_EPOLL_CTL: i64 = 233;
const POLLIN: u64 = 1;
/// Edges and one-shots that fit into one program.
pub(super) const MEMBERS_MAX: usize = 3000;

/// State.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// The set.
    pub set: ObjectId,
    /// Members that wait, by their index in the set.
    pub waiting: Vec<u32>,
}

/// The kind.
#[derive(Debug)]
pub struct EpollReady;

/// A set whose process is to be asked.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// A thread that has the set.
    pub(crate) thread: i32,
    /// The set's number there.
    pub(crate) set: i32,
    /// Device and inode of the set's description.
    pub(crate) inode: (u64, u64),
    /// Its members; every one that an event uses up has its number in that thread.
    pub(crate) members: Vec<Member>,
}

/// What was found out about a set: `None` when it could not be asked.
///
/// # Errors
/// A payload is malformed.
pub(super) fn of(tree: &Tree, set: ObjectId) -> Result<Option<BTreeSet<u32>>> {
    for envelope in tree.objects.iter().filter(|envelope| envelope.kind == EpollReady.id()) {
        let state: State = open(envelope)?;
        if state.set == set {
            return Ok(Some(state.waiting.into_iter().collect()));
        }
    }
    Ok(None)
}

fn call_wait(program: &mut Program, question: &Question) -> (Step, usize) {
    let (events, offset) = program.space(question.members.len() * EVENT_BYTES);
    let count = question.members.len();
    let wait =
        program.try_call("epoll_wait", SYS_EPOLL_WAIT, [question.set.into(), events, count.into(), 0_u64.into()]);
    (wait, offset)
}

/// Makes a member wait, if it is ready.
fn call_again(program: &mut Program, question: &Question, member: &Member) {
    let event = program.data(&epoll::event_bytes(member.events, member.data));
    let mut control = |operation: i32, event: Argument| {
        program.try_call(
            "epoll_ctl",
            SYS_EPOLL_CTL,
            [question.set.into(), operation.into(), member.number.into(), event],
        );
    };
    if member.events & epoll::EXCLUSIVE != 0 {
        control(epoll::DELETE, event);
        control(epoll::ADD, event);
    } else {
        control(epoll::MODIFY, event);
    }
}

fn run(injector: &mut Injector<'_>, thread: usize, program: Program) -> Result<Ran> {
    let ran = injector.run(&[(thread, program)])?;
    ran.into_iter()
        .next()
        .ok_or_else(|| crate::failure::malformed(Subject::Process(injector.process().pid), "no answer"))
}

/// The members among those told: by their data.
fn told(question: &Question, ran: &Ran, (wait, offset): (Step, usize)) -> Vec<u32> {
    let count = ran.result("epoll_wait", wait).unwrap_or(0) as usize;
    let data: BTreeSet<u64> = (0..count).map(|index| ran.word(offset + index * EVENT_BYTES + 4)).collect();
    let members = question.members.iter().enumerate();
    members.filter(|(_, member)| data.contains(&member.data)).map(|(index, _)| index as u32).collect()
}

/// Asks which members wait; everything is as before when it returns.
fn ask(injector: &mut Injector<'_>, thread: usize, question: &Question) -> Result<Vec<u32>> {
    let mut program = Program::new();
    let descriptor = program.data(&(u64::from(question.set as u32) | POLLIN << 32).to_le_bytes());
    let poll = program.call("poll", SYS_POLL, [descriptor, 1_u64.into(), 0_u64.into()]);
    let ran = run(injector, thread, program)?;
    if ran.result("poll", poll).unwrap_or(1) == 0 {
        return Ok(Vec::new());
    }
    let mut program = Program::new();
    let wait = call_wait(&mut program, question);
    for member in question.members.iter().filter(|member| member.is_used_up()) {
        call_again(&mut program, question, member);
    }
    let ran = run(injector, thread, program)?;
    let waiting = told(question, &ran, wait);
    let mut program = Program::new();
    call_wait(&mut program, question);
    for (index, member) in question.members.iter().enumerate().filter(|(_, member)| member.is_used_up()) {
        // One-shot members are armed as long as they have not been told, and timers go on while the tree stands still.
        if waiting.contains(&(index as u32))
            || member.events & epoll::ONE_SHOT != 0
            || goes_on(injector, question, member)
        {
            call_again(&mut program, question, member);
        }
    }
    run(injector, thread, program)?;
    Ok(waiting)
}

/// Whether a member can become ready while the tree is frozen.
fn goes_on(injector: &Injector<'_>, question: &Question, member: &Member) -> bool {
    let path = format!("/proc/{}/task/{}/fd/{}", injector.process().pid, question.thread, member.number);
    std::fs::read_link(path).is_ok_and(|link| link.as_os_str() == "anon_inode:[timerfd]")
}

/// Sets that have others as members before these: making an inner one's edges wait wakes the outer one.
fn outer_first(questions: &mut [(Question, ObjectId)]) {
    let depth_of = |id: ObjectId, questions: &[(Question, ObjectId)]| {
        // The kernel nests at most five deep.
        let mut level = vec![id];
        let mut depth = 0;
        while depth < 6 && !level.is_empty() {
            let inner = questions.iter().filter(|(_, id)| level.contains(id));
            let members: Vec<ObjectId> =
                inner.flat_map(|(question, _)| question.members.iter().map(|member| member.object)).collect();
            level = questions.iter().map(|(_, id)| *id).filter(|id| members.contains(id)).collect();
            depth += 1;
        }
        depth
    };
    let copy = questions.to_vec();
    questions.sort_by_key(|(_, id)| std::cmp::Reverse(depth_of(*id, &copy)));
}

impl Kind for EpollReady {
    fn id(&self) -> KindId {
        KindId(47)
    }
    fn name(&self) -> &'static str {
        "waiting edges"
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
    fn make(&self, _: &Envelope, _: &mut Make) -> Result<Made> {
        Ok(Vec::new())
    }
    fn bind(&self, _: &Envelope, _: &mut Bind) -> Result<()> {
        Ok(())
    }
    fn description(&self) -> Option<&dyn super::Description> {
        None
    }
    fn task_state(&self) -> Option<&dyn TaskState> {
        Some(self)
    }
}

impl TaskState for EpollReady {
    // Nothing is said of it before: the set says what becomes of it.
    fn capture(&self, injector: &mut Injector<'_>, capture: &mut Capture) -> Result<Vec<Captured>> {
        let threads: Vec<i32> = injector.process().threads.iter().map(|thread| thread.tid()).collect();
        let mut questions = Vec::new();
        for question in capture.ready_questions(&threads) {
            let holder = (question.thread, question.set);
            if let Some(object) = capture.object_at(question.inode.0, question.inode.1, holder)? {
                questions.push((question, object));
            }
        }
        outer_first(&mut questions);
        let mut answers = Vec::with_capacity(questions.len());
        for (question, set) in &questions {
            let Some(thread) = threads.iter().position(|tid| *tid == question.thread) else { continue };
            let waiting = ask(injector, thread, question)?;
            answers.push(Captured::new(vec![*set], &State { set: *set, waiting })?);
        }
        Ok(answers)
    }
    fn restore(&self, _: &Envelope, _: Pid, _: &mut Bind) -> Result<()> {
        // The set itself asks for it, when it is bound.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(members: &[u32]) -> Question {
        let member = |id: &u32| Member { object: ObjectId(*id), number: 1, events: 1, data: 0, task: None };
        Question { thread: 1, set: 1, inode: (0, 0), members: members.iter().map(member).collect() }
    }

    #[test]
    fn states_come_back() {
        super::super::assert_round_trip(&State { set: ObjectId(7), waiting: vec![0, 3] });
    }

    #[test]
    fn outer_sets_are_asked_first() {
        let mut questions = vec![
            (question(&[9]), ObjectId(1)),
            (question(&[1, 9]), ObjectId(2)),
            (question(&[8]), ObjectId(3)),
            (question(&[2]), ObjectId(4)),
        ];
        outer_first(&mut questions);
        let order: Vec<u32> = questions.iter().map(|(_, id)| id.0).collect();
        assert_eq!(order, [4, 2, 1, 3]);
    }
}
