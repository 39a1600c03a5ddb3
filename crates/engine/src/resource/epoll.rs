//! Epoll sets: every member by the number under which it was added, also when that is closed or means something else by
//! now. Sources: epoll(7), fs/eventpoll.c of Linux 6.18.
//!
//! The kernel computes level-triggered readiness by itself when a member is added. Three things it does not:
//! * A one-shot member that has fired is silent until it is changed, even for errors. It is made to fire again here, and the
//!   event is dropped; where the file cannot be made ready for a moment the set is refused.
//! * An edge that the program was told already must not be told again, and one that waits must be. Which of them wait is
//!   asked inside the frozen process ([`epoll_ready`](super::epoll_ready)); what does not wait is taken out here after adding.
//!   Where it cannot be asked (a member's number is closed, so that nothing could be put back; thousands of edges) the edge is told again if
//!   the file is ready: the program sees one event too many, as epoll(7) allows, and none too few.
//! * A signalfd listens to the process that added it: such members are added by a task, the first one that holds the set.
//!
//! Members in other sets keep order among themselves; the order in which ready members are told may change.
use super::epoll_ready::{self, Question};
use super::{Captured, Description, Kind, Made, Need, Stage, TaskState, edge, open};
use crate::capture::Capture;
use crate::failure::{About, Result, malformed};
use crate::look::{Look, Survey};
use crate::restore::{Bind, Make};
use godwit_image::{Code, Envelope, KindId, ObjectId, Pid, Refusal, Subject, Verdict};
use godwit_linux::pidfd::{ForeignDescriptor, PidFd};
use godwit_linux::program::Program;
use godwit_linux::{epoll, eventfd, file, kcmp, pipe, readiness, timerfd};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

const O_ACCMODE: u32 = 3;
const O_WRONLY: u32 = 1;
const O_NONBLOCK: u32 = 0o4_000;
const O_ASYNC: u32 = 0o20_000;
const SYS_EPOLL_CTL: i64 = 233;
const SET: &[u8] = b"anon_inode:[eventpoll]";
const SIGNALS: &[u8] = b"anon_inode:[signalfd]";
const TIMER: &[u8] = b"anon_inode:[timerfd]";

/// State.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// Open flags.
    pub flags: u32,
    /// In the kernel's order.
    pub members: Vec<Member>,
}

/// One file in the set.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    /// The description.
    pub object: ObjectId,
    /// The number under which it was added.
    pub number: i32,
    /// EPOLL* bits; of a one-shot member that has fired only the private ones.
    pub events: u32,
    /// The program's data.
    pub data: u64,
    /// Where it is added: in the restorer, or (signalfds) in a task that has the set under this number.
    pub task: Option<(Pid, i32)>,
}

impl Member {
    /// One-shot and fired: silent.
    pub(super) fn is_silent(&self) -> bool {
        self.events & epoll::ONE_SHOT != 0 && self.events & !epoll::PRIVATE == 0
    }

    /// An event uses it up: it can be told, and then it is not told again by itself.
    pub(super) fn is_used_up(&self) -> bool {
        self.events & (epoll::EDGE_TRIGGERED | epoll::ONE_SHOT) != 0 && !self.is_silent()
    }
}

/// The kind.
#[derive(Debug)]
pub struct EpollSet;

/// A member as it was found in the tree.
struct Found {
    events: u32,
    data: u64,
    number: i32,
    /// A process (thread) and descriptor that have the file; the first is the set's holder when the number still means it.
    holder: (i32, i32),
    link: Vec<u8>,
}

fn link_of(pid: i32, descriptor: i32) -> Vec<u8> {
    use std::os::unix::ffi::OsStringExt;
    let link = std::fs::read_link(format!("/proc/{pid}/fd/{descriptor}"));
    link.map(|link| link.into_os_string().into_vec()).unwrap_or_default()
}

fn duplicate((pid, descriptor): (i32, i32)) -> godwit_linux::errno::Result<OwnedFd> {
    PidFd::open_thread(pid)?.duplicate(ForeignDescriptor(descriptor))
}

/// Finds every member's file among the tree's descriptors (and `others`, which no table shows).
fn find(look: &Look, survey: &Survey, others: &[(i32, i32)]) -> Result<Vec<Found>> {
    let Some(set) = look.number() else {
        return Err(malformed(look.subject(), "a set without a descriptor"));
    };
    let mut before: BTreeMap<i32, u32> = BTreeMap::new();
    let mut found = Vec::with_capacity(look.information.epoll.len());
    for target in &look.information.epoll {
        let counted = before.entry(target.descriptor).or_default();
        let offset = *counted;
        *counted += 1;
        let is_it = |(pid, descriptor): (i32, i32)| {
            kcmp::is_epoll_target(pid, descriptor, look.pid, set, target.descriptor, offset).unwrap_or(false)
        };
        // Nearly always the number still means the member.
        let near = Some((look.pid, target.descriptor)).filter(|near| is_it(*near));
        let anywhere = || survey.inside.values().flatten().chain(others).copied().find(|holder| is_it(*holder));
        let Some(holder) = near.or_else(anywhere) else {
            let cause = format!(
                "its member {} (inode {} of device {}:{}) is held outside the tree only",
                target.descriptor, target.inode, target.device_major, target.device_minor
            );
            return Err(edge::cut(look, cause));
        };
        found.push(Found {
            events: target.events,
            data: target.data,
            number: target.descriptor,
            holder,
            link: link_of(holder.0, holder.1),
        });
    }
    Ok(found)
}

/// Why a set cannot be carried although all members were found, if so.
fn refuse(look: &Look, found: &[Found]) -> Result<()> {
    for member in found {
        let near = member.holder == (look.pid, member.number);
        let silent = member.events & epoll::ONE_SHOT != 0 && member.events & !epoll::PRIVATE == 0;
        let what = String::from_utf8_lossy(&member.link).into_owned();
        let refusal = |cause: String| Err(Refusal::new(Code::NOT_MIGRATABLE, look.subject(), cause));
        if member.link == SIGNALS && (silent || !near) {
            return refusal(format!(
                "its member {} ({what}) belongs to the process that added it, which cannot be told any more",
                member.number
            ));
        }
        if silent && member.link != SET && member.link != TIMER {
            let file = duplicate(member.holder).about(|| look.subject())?;
            let flags = file::status_flags(file.as_fd()).about(|| look.subject())?;
            let reads_pipe = pipe::capacity(file.as_fd()).is_ok() && flags & O_ACCMODE == 0;
            let now = readiness::ready(file.as_fd(), readiness::ALL).about(|| look.subject())?;
            if !reads_pipe && now == 0 {
                return refusal(format!(
                    "its one-shot member {} ({what}) has fired and cannot be made to fire again",
                    member.number
                ));
            }
        }
    }
    Ok(())
}

/// Makes a file ready for a moment, so that a one-shot member fires.
enum Moment {
    Pipe { reader: File, _writer: File },
    Timer(File),
    Set(OwnedFd, OwnedFd),
    Nothing,
}

impl Moment {
    fn begin(file: BorrowedFd<'_>, link: &[u8]) -> std::io::Result<Moment> {
        if link == SET {
            let counter = eventfd::create(false)?;
            File::from(counter.try_clone()?).write_all(&1_u64.to_ne_bytes())?;
            epoll::control(file, epoll::ADD, counter.as_raw_fd(), readiness::IN, 0)?;
            return Ok(Moment::Set(file.try_clone_to_owned()?, counter));
        }
        if link == TIMER && readiness::ready(file, readiness::ALL)? == 0 {
            timerfd::set_ticks(file, 1)?;
            return Ok(Moment::Timer(file.try_clone_to_owned()?.into()));
        }
        if pipe::capacity(file).is_ok() && readiness::ready(file, readiness::ALL)? == 0 {
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            let mut writer = File::from(file::open(path.as_bytes(), O_WRONLY | O_NONBLOCK)?);
            writer.write_all(b"x")?;
            return Ok(Moment::Pipe { reader: file.try_clone_to_owned()?.into(), _writer: writer });
        }
        Ok(Moment::Nothing)
    }

    fn end(self) -> std::io::Result<()> {
        match self {
            Moment::Pipe { mut reader, .. } => reader.read_exact(&mut [0]),
            Moment::Timer(mut timer) => {
                let mut ticks = [0; 8];
                timer.read_exact(&mut ticks)?;
                // It may have expired by itself meanwhile.
                match u64::from_ne_bytes(ticks) {
                    0 | 1 => Ok(()),
                    more => Ok(timerfd::set_ticks(timer.as_fd(), more - 1)?),
                }
            }
            Moment::Set(set, counter) => Ok(epoll::control(set.as_fd(), epoll::DELETE, counter.as_raw_fd(), 0, 0)?),
            Moment::Nothing => Ok(()),
        }
    }
}

/// Adds or changes a member under its own number.
fn control(bind: &mut Bind, member: &Member, operation: i32, events: u32) -> Result<()> {
    let subject = || Subject::Object(format!("epoll member {}", member.number));
    // Out of the way: a closed member may have had any number, also the one that the set has here.
    let set = file::duplicate_above(bind.own()?, member.number.saturating_add(1)).about(subject)?;
    bind.at_number(member.number, member.object, |_| {
        epoll::control(set.as_fd(), operation, member.number, events, member.data).about(subject)
    })
}

/// Adds a silent member: it fires once, unseen.
fn add_silent(bind: &mut Bind, member: &Member) -> Result<()> {
    let subject = || Subject::Object(format!("epoll member {}", member.number));
    let file = bind.made(member.object)?.try_clone_to_owned().about(subject)?;
    let link = link_of(std::process::id() as i32, file.as_raw_fd());
    let moment = Moment::begin(file.as_fd(), &link).about(subject)?;
    control(bind, member, epoll::ADD, member.events | readiness::ALL)?;
    let told = epoll::take(bind.own()?, 1).about(subject)?;
    moment.end().about(subject)?;
    if told.is_empty() {
        return Err(Refusal::new(Code::RESTORE_FAILED, subject(), "a one-shot member could not be made to fire"));
    }
    Ok(())
}

/// Adds a member by the task that is to hear of it.
fn add_inside(bind: &mut Bind, member: &Member, task: Pid, set: i32) -> Result<()> {
    let mut program = Program::new();
    let event = program.data(&epoll::event_bytes(member.events, member.data));
    program.call("epoll_ctl", SYS_EPOLL_CTL, [set.into(), epoll::ADD.into(), member.number.into(), event]);
    bind.run(task, &program).map(drop)
}

impl Kind for EpollSet {
    fn id(&self) -> KindId {
        KindId(11)
    }
    fn name(&self) -> &'static str {
        "epoll set"
    }
    fn version(&self) -> u16 {
        1
    }
    fn stage(&self) -> Stage {
        Stage::Final
    }
    fn needs(&self, _: &Envelope) -> Result<Vec<Need>> {
        Ok(Vec::new())
    }
    fn make(&self, envelope: &Envelope, _: &mut Make) -> Result<Made> {
        let state: State = open(envelope)?;
        let subject = || Subject::Object(format!("epoll set {}", envelope.id));
        let set = epoll::create().about(subject)?;
        file::set_status_flags(set.as_fd(), state.flags & !O_ASYNC).about(subject)?;
        Ok(vec![set])
    }
    fn bind(&self, envelope: &Envelope, bind: &mut Bind) -> Result<()> {
        let state: State = open(envelope)?;
        // Silent ones first: what they tell is dropped, and nothing else is there yet.
        for member in state.members.iter().filter(|member| member.is_silent()) {
            add_silent(bind, member)?;
        }
        for member in state.members.iter().filter(|member| !member.is_silent()) {
            match member.task {
                Some((task, set)) => add_inside(bind, member, task, set)?,
                None => control(bind, member, epoll::ADD, member.events)?,
            }
        }
        let Some(waiting) = epoll_ready::of(bind.tree(), envelope.id)? else { return Ok(()) };
        let subject = || Subject::Object(format!("epoll set {}", envelope.id));
        // Takes every edge; what waits and what is armed for one shot is put back. Level-triggered members stay.
        epoll::take(bind.own()?, state.members.len()).about(subject)?;
        for (index, member) in state.members.iter().enumerate() {
            let waits = waiting.contains(&(index as u32)) || member.events & epoll::ONE_SHOT != 0;
            if !member.is_used_up() || member.task.is_some() || !waits {
                continue;
            }
            if member.events & epoll::EXCLUSIVE != 0 {
                // Such a member cannot be changed.
                control(bind, member, epoll::DELETE, 0)?;
                control(bind, member, epoll::ADD, member.events)?;
            } else {
                control(bind, member, epoll::MODIFY, member.events)?;
            }
        }
        Ok(())
    }
    fn description(&self) -> Option<&dyn Description> {
        Some(self)
    }
    fn task_state(&self) -> Option<&dyn TaskState> {
        None
    }
}

impl Description for EpollSet {
    fn recognise(&self, look: &Look) -> bool {
        look.link == SET
    }
    fn examine(&self, look: &Look, survey: &Survey) -> Verdict {
        let found = match find(look, survey, &[]) {
            // A member may be in flight in a socket, where only a frozen tree can be searched.
            Err(_) if survey.descriptors_in_flight() => return Verdict::Carried,
            Err(refusal) => return Verdict::Blocks(refusal),
            Ok(found) => found,
        };
        if let Err(refusal) = refuse(look, &found) {
            return Verdict::Blocks(refusal);
        }
        let closed = |member: &&Found| member.holder != (look.pid, member.number);
        let edge = |member: &Found| member.events & epoll::EDGE_TRIGGERED != 0;
        match found.iter().filter(closed).find(|member| edge(member)) {
            Some(member) => Verdict::Degraded(format!(
                "the edge-triggered member {} has lost its number: if it is ready, the program is told so once more",
                member.number
            )),
            None => Verdict::Carried,
        }
    }
    fn foresee(&self, _: &Look, _: &Survey) -> Vec<Need> {
        Vec::new()
    }
    fn capture(&self, look: &Look, capture: &mut Capture) -> Result<Captured> {
        let mut found = find(look, &capture.survey, &capture.in_flight_holders())?;
        refuse(look, &found)?;
        let kept = found.iter().map(|member| capture.can_watch(member.holder));
        let mut kept = kept.collect::<Result<Vec<bool>>>()?.into_iter();
        found.retain(|_| kept.next().unwrap_or(true));
        let set = look.number().unwrap_or(-1);
        let mut members = Vec::with_capacity(found.len());
        for member in &found {
            let subject = || look.subject();
            let metadata = File::from(duplicate(member.holder).about(subject)?).metadata().about(subject)?;
            let object = capture
                .object_at(metadata.dev(), metadata.ino(), member.holder)?
                .ok_or_else(|| malformed(subject(), "a member is in the tree and was not found there"))?;
            members.push(Member {
                object,
                number: member.number,
                events: member.events,
                data: member.data,
                task: (member.link == SIGNALS).then_some((Pid(look.pid), set)),
            });
        }
        let own = look.pid == std::process::id() as i32;
        let reachable =
            |(member, found): (&Member, &Found)| !member.is_used_up() || found.holder == (look.pid, found.number);
        let asked = 1..=epoll_ready::MEMBERS_MAX;
        if !own
            && asked.contains(&members.iter().filter(|member| member.is_used_up()).count())
            && members.iter().zip(&found).all(reachable)
        {
            let question =
                Question { thread: look.pid, set, inode: (look.device, look.inode), members: members.clone() };
            capture.ask_ready(question);
        }
        let mut refs: Vec<ObjectId> = members.iter().map(|member| member.object).collect();
        refs.sort_unstable();
        refs.dedup();
        Captured::new(refs, &State { flags: look.flags(), members })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(events: u32) -> Member {
        Member { object: ObjectId(4), number: 77, events, data: u64::MAX, task: Some((Pid(9), 3)) }
    }

    #[test]
    fn states_come_back() {
        let state = State { flags: 2, members: vec![member(0x8000_0019), member(0x4000_0000)] };
        super::super::assert_round_trip(&state);
    }

    #[test]
    fn bits_tell_what_an_event_does() {
        assert!(member(0x4000_0000).is_silent() && !member(0x4000_0000).is_used_up());
        assert!(member(0xc000_0000).is_silent(), "edge-triggered and fired");
        assert!(member(0x4000_0019).is_used_up() && member(0x8000_0019).is_used_up());
        assert!(!member(0x19).is_used_up() && !member(0x19).is_silent());
    }

    #[test]
    fn files_are_made_ready_for_a_moment_and_are_then_as_before() {
        let (reader, _writer) = pipe::create(0).unwrap();
        let timer = timerfd::create(1).unwrap();
        let set = epoll::create().unwrap();
        for file in [&reader, &timer, &set] {
            let link = link_of(std::process::id() as i32, file.as_raw_fd());
            let moment = Moment::begin(file.as_fd(), &link).unwrap();
            assert_ne!(readiness::ready(file.as_fd(), readiness::IN).unwrap(), 0, "{}", String::from_utf8_lossy(&link));
            moment.end().unwrap();
            assert_eq!(readiness::ready(file.as_fd(), readiness::IN).unwrap(), 0);
        }
    }
}
