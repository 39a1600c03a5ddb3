//! Who has a POSIX message queue open, and who is to be notified when a message comes (mq_notify(3)).
//!
//! The queue tells who is registered and for which signal, but not the value that comes with it. The process itself finds
//! it out, in one program that runs to its end whatever happens to us: it sends a message to the empty queue, takes the
//! message and the signal, and registers again with the value that came with the signal.
use super::{Captured, Description, Kind, Made, Need, Stage, TaskState, open, posix_queue};
use crate::capture::Capture;
use crate::failure::{About, Result, malformed};
use crate::injector::Injector;
use crate::look::{Look, Survey};
use crate::restore::{Bind, Make};
use godwit_image::{Code, Envelope, KindId, ObjectId, Pid, Refusal, Subject, Verdict};
use godwit_linux::proc::fdinfo;
use godwit_linux::program::{Argument, Program};
use godwit_linux::{file, filesystem, message_queue, ptrace};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

const SYS_CLOSE: i64 = 3;
const SYS_RT_SIGTIMEDWAIT: i64 = 128;
const SYS_MQ_TIMEDSEND: i64 = 242;
const SYS_MQ_TIMEDRECEIVE: i64 = 243;
const SYS_MQ_NOTIFY: i64 = 244;
const SYS_OPENAT: i64 = 257;
const SYS_PROCESS_VM_READV: i64 = 310;
const AT_FDCWD: i64 = -100;
const S_IFREG: u32 = 0o100_000;
const O_ACCMODE: u32 = 3;
const O_RDWR: u32 = 2;
const O_NONBLOCK: u32 = 0o4_000;
const O_CLOEXEC: u32 = 0o2_000_000;
const O_ASYNC: u32 = 0o20_000;
/// Flags that opening a queue takes.
const O_KEPT: u32 = O_ACCMODE | O_NONBLOCK;
const SIGEV_SIGNAL: i32 = 0;
const SIGEV_NONE: i32 = 1;
const SIGEVENT_BYTES: usize = 64;
/// Where a signal's value lies in its siginfo.
const SIGNAL_VALUE: usize = 24;
/// Room for the largest message that is received while finding out; larger ones are refused.
const MESSAGE_BYTES_MAX: u64 = 256 << 10;

/// State: of a description, or of a process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum State {
    /// One open description.
    End {
        /// The queue.
        queue: ObjectId,
        /// Access mode and O_NONBLOCK.
        flags: u32,
        /// Position, of those who read the queue's status.
        position: i64,
    },
    /// A process is to be notified.
    Notification {
        /// By which queue.
        queue: ObjectId,
        /// SIGEV_SIGNAL or SIGEV_NONE.
        notify: i32,
        /// sigev_signo.
        signal: i32,
        /// sigev_value.
        value: u64,
    },
}

/// A registration whose value is to be found out.
#[derive(Clone, Debug)]
pub(crate) struct Noted {
    queue: ObjectId,
    /// Who is to be notified, and its descriptor.
    holder: (i32, i32),
    notify: i32,
    signal: i32,
    bytes_max: u64,
    subject: Subject,
}

/// The kind.
#[derive(Debug)]
pub struct PosixQueueEnd;

/// Notes that a process is to be notified by a queue.
///
/// # Errors
/// It cannot be registered again.
pub(super) fn note_notification(
    queue: ObjectId,
    look: &Look,
    open: BorrowedFd<'_>,
    capture: &mut Capture,
) -> Result<()> {
    let subject = || look.subject();
    let told = message_queue::status(open).about(subject)?;
    if told.notified == 0 {
        return Ok(());
    }
    let refuse = |cause: String| Err(Refusal::new(Code::NOT_MIGRATABLE, look.subject(), cause));
    if told.notify != SIGEV_SIGNAL && told.notify != SIGEV_NONE {
        return refuse(format!("process {} is to be notified by it through a thread (SIGEV_THREAD)", told.notified));
    }
    let attributes = message_queue::attributes(open).about(subject)?;
    if told.notify == SIGEV_SIGNAL && (attributes.messages > 0 || attributes.bytes_max as u64 > MESSAGE_BYTES_MAX) {
        let cause = format!(
            "process {} is to be notified by it with a value that cannot be found out while messages wait in it",
            told.notified
        );
        return refuse(cause).map_err(|refusal: Refusal| refusal.choice("try again"));
    }
    let holders = capture.survey.holders(&look.link).iter().filter(|(pid, _)| *pid == told.notified);
    let is_same = |holder: &&(i32, i32)| {
        let path = format!("/proc/{}/fd/{}", holder.0, holder.1);
        std::fs::metadata(path).is_ok_and(|data| (data.dev(), data.ino()) == (look.device, look.inode))
    };
    let access = |holder: &&(i32, i32)| fdinfo::read(holder.0, holder.1).map_or(0, |info| info.flags & O_ACCMODE);
    // One that can send and receive, if there is any.
    let Some(holder) = holders.filter(is_same).max_by_key(|holder| access(holder) == O_RDWR).copied() else {
        return refuse(format!("process {} is to be notified by it and no longer has it open", told.notified));
    };
    let bytes_max = attributes.bytes_max as u64;
    let (notify, signal) = (told.notify, told.signal);
    capture.notifications.push(Noted { queue, holder, notify, signal, bytes_max, subject: look.subject() });
    Ok(())
}

/// A struct sigevent.
fn event(notify: i32, signal: i32, value: u64) -> [u8; SIGEVENT_BYTES] {
    let mut event = [0; SIGEVENT_BYTES];
    event[..8].copy_from_slice(&value.to_le_bytes());
    event[8..12].copy_from_slice(&signal.to_le_bytes());
    event[12..16].copy_from_slice(&notify.to_le_bytes());
    event
}

/// Copies bytes within a process's memory: a program can only call the kernel.
fn copy(program: &mut Program, pid: i32, from: Argument, to: Argument, bytes: usize) {
    let list = |program: &mut Program, target: Argument| {
        let place = program.data(&[[0; 8], (bytes as u64).to_le_bytes()].concat());
        if let Argument::Data(offset) = place {
            program.point(offset, target);
        }
        place
    };
    let (to, from) = (list(program, to), list(program, from));
    let one = Argument::Value(1);
    program.call("process_vm_readv", SYS_PROCESS_VM_READV, [pid.into(), to, one, from, one, 0_u64.into()]);
}

impl Noted {
    fn refuse<T>(&self, cause: &str) -> Result<T> {
        let cause = format!("process {} is to be notified by it, {cause}", self.holder.0);
        Err(Refusal::new(Code::NOT_MIGRATABLE, self.subject.clone(), cause).choice("try again"))
    }

    /// Finds the value out. The signal must not wait already.
    fn value(&self, injector: &mut Injector<'_>) -> Result<u64> {
        if self.notify != SIGEV_SIGNAL || self.signal < 1 {
            return Ok(0);
        }
        let (pid, descriptor) = self.holder;
        let first = injector.process().threads[0].tid();
        let subject = || Subject::Process(pid);
        for shared in [false, true] {
            let waiting = ptrace::pending_signals(first, shared).about(subject)?;
            if waiting.iter().any(|information| information[..4] == self.signal.to_le_bytes()) {
                return self.refuse("and the same signal waits already");
            }
        }
        let access = fdinfo::read(pid, descriptor).about(subject)?.flags & O_ACCMODE;
        self.ask(injector, access != O_RDWR)
    }

    fn open(&self, program: &mut Program) -> godwit_linux::program::Step {
        let path = program.text(format!("/proc/self/fd/{}", self.holder.1).as_bytes());
        let flags = O_RDWR | O_NONBLOCK | O_CLOEXEC;
        program.call("open", SYS_OPENAT, [AT_FDCWD.into(), path, flags.into(), 0_u64.into()])
    }

    /// The program. `opens`: through a descriptor for both ways that it opens for the purpose; where it may not, nothing
    /// has happened yet.
    fn ask(&self, injector: &mut Injector<'_>, opens: bool) -> Result<u64> {
        let (pid, descriptor) = self.holder;
        let mut program = Program::new();
        let zero = Argument::Value(0);
        let queue = if opens { Argument::from(self.open(&mut program)) } else { descriptor.into() };
        let (information, place) = program.space(ptrace::SIGNAL_INFORMATION_BYTES);
        let (message, _) = program.space(self.bytes_max as usize);
        let again = program.data(&event(self.notify, self.signal, 0));
        let mask = program.data(&(1_u64 << (self.signal - 1)).to_le_bytes());
        let now = program.data(&[0; 16]);
        program.call("mq_timedsend", SYS_MQ_TIMEDSEND, [queue, message, zero, zero, zero]);
        let room = Argument::Value(self.bytes_max);
        program.try_call("mq_timedreceive", SYS_MQ_TIMEDRECEIVE, [queue, message, room, zero, zero]);
        if opens {
            program.try_call("close", SYS_CLOSE, [queue]);
        }
        program.try_call("rt_sigtimedwait", SYS_RT_SIGTIMEDWAIT, [mask, information, now, 8_u64.into()]);
        let Argument::Data(offset) = information else { return self.refuse("and could not be asked") };
        copy(&mut program, pid, Argument::Data(offset + SIGNAL_VALUE), again, 8);
        program.call("mq_notify", SYS_MQ_NOTIFY, [descriptor.into(), again]);
        let ran = injector.run(&[(0, program)])?;
        ran.first().map_or_else(|| self.refuse("and could not be asked"), |ran| Ok(ran.word(place + SIGNAL_VALUE)))
    }
}

impl Kind for PosixQueueEnd {
    fn id(&self) -> KindId {
        KindId(64)
    }
    fn name(&self) -> &'static str {
        "message queue descriptor"
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
        let State::End { queue, flags, position } = open(envelope)? else { return Ok(Vec::new()) };
        let subject = || Subject::Object(format!("{} {}", self.name(), envelope.id));
        let path = format!("/proc/self/fd/{}", make.made(queue, 0)?.as_raw_fd());
        let end = file::open(path.as_bytes(), flags & O_KEPT | O_NONBLOCK).about(subject)?;
        file::set_status_flags(end.as_fd(), flags & !O_ASYNC).about(subject)?;
        if position != 0 {
            file::seek(end.as_fd(), position as u64).about(subject)?;
        }
        Ok(vec![end])
    }
    fn bind(&self, _: &Envelope, _: &mut Bind) -> Result<()> {
        Ok(())
    }
    fn description(&self) -> Option<&dyn Description> {
        Some(self)
    }
    fn task_state(&self) -> Option<&dyn TaskState> {
        Some(self)
    }
}

impl Description for PosixQueueEnd {
    fn recognise(&self, look: &Look) -> bool {
        look.file_type() == S_IFREG && look.filesystem() == Some(filesystem::MQUEUE)
    }
    fn examine(&self, look: &Look, survey: &Survey) -> Verdict {
        match posix_queue::refusal(look, survey) {
            Some(refusal) => Verdict::Blocks(refusal),
            None if look.links == 0 => Verdict::Carried,
            None => Verdict::Recreated(
                "under its name, for the tree alone: who else knows the name does not find it here any more".to_owned(),
            ),
        }
    }
    fn foresee(&self, _: &Look, _: &Survey) -> Vec<Need> {
        Vec::new()
    }

    fn capture(&self, look: &Look, capture: &mut Capture) -> Result<Captured> {
        let queue = posix_queue::capture(look, capture)?;
        let position = look.information.position;
        Captured::new(vec![queue], &State::End { queue, flags: look.flags(), position })
    }
}

impl TaskState for PosixQueueEnd {
    // Nothing is said of it before: the queue tells of it.
    fn capture(&self, injector: &mut Injector<'_>, capture: &mut Capture) -> Result<Vec<Captured>> {
        let pid = injector.process().pid;
        let noted: Vec<Noted> = capture.notifications.extract_if(.., |noted| noted.holder.0 == pid).collect();
        let mut captured = Vec::with_capacity(noted.len());
        for noted in noted {
            let value = noted.value(injector)?;
            let Noted { queue, notify, signal, .. } = noted;
            captured.push(Captured::new(vec![queue], &State::Notification { queue, notify, signal, value })?);
        }
        Ok(captured)
    }

    /// Behind the placing of descriptors: a process that closes any descriptor of a queue is no longer notified.
    fn restore(&self, envelope: &Envelope, task: Pid, bind: &mut Bind) -> Result<()> {
        let subject = || Subject::Object(format!("{} {}", self.name(), envelope.id));
        let State::Notification { queue, notify, signal, value } = open(envelope)? else {
            return Err(malformed(subject(), "it is not a task's state"));
        };
        let ends = bind.tree().objects.iter().filter(|other| other.kind == self.id() && other.refs.contains(&queue));
        let ends: Vec<ObjectId> = ends.map(|other| other.id).collect();
        let of_task =
            |tid: Pid| bind.tree().tasks.iter().position(|of| of.threads.iter().any(|thread| thread.tid == tid));
        let holders = ends.iter().flat_map(|end| bind.holders_of(*end));
        let Some((thread, number)) = holders.into_iter().find(|(holder, _)| of_task(*holder) == of_task(task)) else {
            return Err(malformed(subject(), "the process that is to be notified does not have the queue"));
        };
        let mut program = Program::new();
        let event = program.data(&event(notify, signal, value));
        program.call("mq_notify", SYS_MQ_NOTIFY, [number.into(), event]);
        bind.run(thread, &program).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_states_come_back_from_their_payloads() {
        let queue = ObjectId(3);
        super::super::assert_round_trip(&State::End { queue, flags: O_NONBLOCK, position: 5 });
        super::super::assert_round_trip(&State::Notification { queue, notify: SIGEV_SIGNAL, signal: 40, value: 9 });
    }

    #[test]
    fn an_event_lies_as_the_kernel_reads_it() {
        let event = event(SIGEV_NONE, 40, 1 << 40);
        assert_eq!((event[5], event[8], event[12]), (1, 40, 1));
    }
}
