//! Who gets the signals of an open description: F_SETOWN, F_SETSIG, O_ASYNC, of a description of any kind. Source:
//! fcntl(2), fs/fcntl.c.
//!
//! Bound when everything else is in place, so that nothing of the rebuilding causes a signal; by a task that has the
//! description, since the kernel notes under which number (si_fd) and by which user it was asked for. The number is noted
//! where nobody can read it: it is taken to be the lowest one of the process that owns the description.
use super::{Kind, Made, Need, Stage, TaskState, open};
use crate::capture::Capture;
use crate::failure::{About, Result, malformed};
use crate::look::{Look, Survey};
use crate::restore::{Bind, Make};
use godwit_image::{Code, Envelope, KindId, ObjectId, Pid, Refusal, Subject};
use godwit_linux::program::Program;
use godwit_linux::{file, proc::stat};
use serde::{Deserialize, Serialize};
use std::path::Path;

const O_ASYNC: u32 = 0o20_000;
const O_PATH: u32 = 0o10_000_000;
const S_IFDIR: u32 = 0o040_000;
const F_SETFL: u64 = 4;
const F_SETSIG: u64 = 10;
const F_SETOWN_EX: u64 = 15;
const SYS_FCNTL: i64 = 72;
const SYS_SETRESUID: i64 = 117;
const THREAD: i32 = 0;
const PROCESS: i32 = 1;

/// State.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// The description.
    pub description: ObjectId,
    /// Sort of the owner: 0 thread, 1 process, 2 process group.
    pub sort: i32,
    /// Its number; 0: none, or one that has ended.
    pub number: i32,
    /// F_SETSIG; 0: SIGIO.
    pub signal: i32,
    /// Real and effective user that asked for it: signals are sent with their rights.
    pub users: (u32, u32),
    /// Open flags; O_ASYNC among them when it is switched on.
    pub flags: u32,
}

/// The kind.
#[derive(Debug)]
pub struct Owner;

/// The state, unless it is as every fresh description has it.
fn read(look: &Look) -> Result<Option<State>> {
    if look.number().is_none() || look.flags() & O_PATH != 0 {
        return Ok(None);
    }
    let (signal, sort, number) = file::owner(look.borrow()).about(|| look.subject())?;
    if signal == 0 && number == 0 && look.flags() & O_ASYNC == 0 {
        return Ok(None);
    }
    let users = file::owner_users(look.borrow()).about(|| look.subject())?;
    Ok(Some(State { description: ObjectId(0), sort, number, signal, users, flags: look.flags() }))
}

fn is_inside(state: &State, survey: &Survey) -> bool {
    let mut pids = survey.pids.iter();
    match state.sort {
        _ if state.number == 0 => true,
        THREAD => pids.any(|pid| Path::new(&format!("/proc/{pid}/task/{}", state.number)).exists()),
        PROCESS => survey.pids.contains(&state.number),
        _ => pids.any(|pid| stat::read_process_wide(*pid).is_ok_and(|stat| stat.process_group == state.number)),
    }
}

fn judge(state: &State, look: &Look, survey: &Survey) -> Option<Refusal> {
    if look.file_type() == S_IFDIR {
        // Directories signal nothing else, and what was asked for cannot be read.
        let cause = "it may notify of changes by signals (F_NOTIFY), and of which cannot be read";
        let refusal = Refusal::new(Code::NOT_MIGRATABLE, look.subject(), cause);
        return Some(refusal.choice("close it in the program, which may use inotify instead"));
    }
    if is_inside(state, survey) {
        return None;
    }
    let sort = ["thread", "process", "process group"].get(state.sort as usize).unwrap_or(&"owner");
    let cause = format!("its signals (F_SETOWN) go to {sort} {}, which is outside the tree", state.number);
    Some(Refusal::new(Code::EDGE, look.subject(), cause).choice("take the owner away in the program: F_SETOWN 0"))
}

/// Why the owner of a description cannot be carried, if so. Changes nothing.
pub fn refuse(look: &Look, survey: &Survey) -> Option<Refusal> {
    match read(look) {
        Ok(state) => judge(&state?, look, survey),
        Err(refusal) => Some(refusal),
    }
}

/// Adds the owner of a captured description to the graph, if it has one.
///
/// # Errors
/// GW1102: the owner is outside the tree; GW1104: the description has no descriptor in the tree.
pub fn capture(object: ObjectId, look: &Look, capture: &mut Capture) -> Result<()> {
    let Some(state) = read(look)? else { return Ok(()) };
    if let Some(refusal) = judge(&state, look, &capture.survey) {
        return Err(refusal);
    }
    if look.pid == std::process::id() as i32 {
        return Err(Refusal::new(Code::UNSUPPORTED, look.subject(), "it has an owner (F_SETOWN) and is in flight"));
    }
    let state = State { description: object, ..state };
    capture.intern(&Owner, &object.0.to_le_bytes(), |_, _| Ok((vec![object], state))).map(drop)
}

/// The holder that asked for the signals, as far as can be told: the owner itself, or else the first one.
fn asker(state: &State, bind: &Bind) -> Option<(Pid, i32)> {
    let holders = bind.holders_of(state.description);
    let owner = bind.tree().tasks.iter().find(|task| match state.sort {
        THREAD => task.threads.iter().any(|thread| thread.tid.0 == state.number),
        PROCESS => task.pid.0 == state.number,
        _ => task.group.0 == state.number,
    });
    let of_owner = owner.and_then(|owner| {
        holders.iter().find(|(tid, _)| owner.threads.iter().any(|thread| thread.tid == *tid)).copied()
    });
    of_owner.or_else(|| holders.first().copied())
}

impl Kind for Owner {
    fn id(&self) -> KindId {
        KindId(45)
    }
    fn name(&self) -> &'static str {
        "owner of a description"
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
    fn make(&self, _: &Envelope, _: &mut Make) -> Result<Made> {
        Ok(Vec::new())
    }
    fn bind(&self, envelope: &Envelope, bind: &mut Bind) -> Result<()> {
        let state: State = open(envelope)?;
        let (task, descriptor) = asker(&state, bind)
            .ok_or_else(|| malformed(Subject::Object(format!("object {}", state.description)), "nobody has it"))?;
        let mut program = Program::new();
        let setresuid = |program: &mut Program, real: u32, effective: u32| {
            program.call("setresuid", SYS_SETRESUID, [real.into(), effective.into(), 0_u64.into()]);
        };
        // The task has the restorer's privileges until later; a saved user of 0 brings them back.
        let other = state.users != (0, 0) && state.number != 0;
        if other {
            setresuid(&mut program, state.users.0, state.users.1);
        }
        let owner = program.data(&[state.sort.to_le_bytes(), state.number.to_le_bytes()].concat());
        program.call("fcntl(F_SETOWN_EX)", SYS_FCNTL, [descriptor.into(), F_SETOWN_EX.into(), owner]);
        program.call("fcntl(F_SETSIG)", SYS_FCNTL, [descriptor.into(), F_SETSIG.into(), state.signal.into()]);
        if state.flags & O_ASYNC != 0 {
            program.call("fcntl(F_SETFL)", SYS_FCNTL, [descriptor.into(), F_SETFL.into(), state.flags.into()]);
        }
        if other {
            setresuid(&mut program, 0, 0);
        }
        bind.run(task, &program).map(drop)
    }
    fn description(&self) -> Option<&dyn super::Description> {
        // Not one itself: `capture` is called for every description.
        None
    }
    fn task_state(&self) -> Option<&dyn TaskState> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_linux::pidfd::PidFd;
    use std::os::fd::{AsFd, AsRawFd};

    #[test]
    fn states_come_back() {
        let state =
            State { description: ObjectId(3), sort: 2, number: 77, signal: 40, users: (1000, 0), flags: 0o24002 };
        super::super::assert_round_trip(&state);
    }

    #[test]
    fn an_owner_is_found_and_refused_outside() {
        let own = std::process::id() as i32;
        let process = PidFd::open(own).unwrap();
        let (reader, _writer) = godwit_linux::pipe::create(0).unwrap();
        let look = || Look::descriptor(&process, reader.as_raw_fd()).unwrap().unwrap();
        assert_eq!(read(&look()).unwrap(), None);
        file::set_owner(reader.as_fd(), 40, PROCESS, own).unwrap();
        let state = read(&look()).unwrap().unwrap();
        assert_eq!((state.sort, state.number, state.signal), (PROCESS, own, 40));
        assert_eq!(refuse(&look(), &Survey::new(&[own])), None);
        assert_eq!(refuse(&look(), &Survey::new(&[])).unwrap().code, Code::EDGE);
    }
}
