//! Landlock sandboxes: their rules cannot be read, so a thread in one is found out and refused; restored without its
//! sandbox it would be free.
//!
//! Nothing shows a sandbox, but everybody in one may only look at processes in the same one, whatever its rules are about.
//! So each thread is asked to look at a process outside that its user may look at (get_robust_list(2) reads nothing that
//! matters): this one, or where the kernel's other checks could say no as well, a child made like the thread.
use super::{Captured, Description, Kind, Made, Need, Running, Stage, TaskState};
use crate::capture::Capture;
use crate::failure::{About, Result};
use crate::injector::Injector;
use crate::restore::{Bind, Make};
use godwit_image::{Code, Envelope, KindId, Pid, Refusal, Subject, Verdict};
use godwit_linux::landlock;
use godwit_linux::proc::status::{self, Status};
use godwit_linux::program::{Argument, Program};
use godwit_linux::stranger::Stranger;
use std::collections::BTreeMap;

const SYS_GET_ROBUST_LIST: i64 = 274;

/// Processes outside of any sandbox of the tree, by user and group.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    made: BTreeMap<(u32, u32), Stranger>,
    /// Who we are, once asked for.
    ours: Option<Status>,
}

/// Whether a thread's credentials alone allow it to look at a process of ours.
fn may_see(thread: &Status, own: &Status) -> bool {
    let same = |real: u32, theirs: [u32; 4]| theirs[..3].iter().all(|id| *id == real);
    same(thread.uid[0], own.uid)
        && same(thread.gid[0], own.gid)
        && own.capabilities_permitted & !thread.capabilities_permitted == 0
}

impl Strangers {
    /// `ours`: who we are, where that was asked for before.
    pub(crate) fn beside(ours: Option<Status>) -> Strangers {
        Strangers { ours, ..Strangers::default() }
    }

    /// A process that a thread of these credentials may look at unless a security module forbids it; none where the
    /// kernel has no Landlock.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn for_thread(&mut self, thread: &Status) -> Result<Option<i32>> {
        if landlock::version().is_err() {
            return Ok(None);
        }
        let own = std::process::id() as i32;
        let ours = match &self.ours {
            Some(ours) => ours,
            None => self.ours.insert(status::read(own, own).about(|| Subject::Host)?),
        };
        if may_see(thread, ours) {
            return Ok(Some(own));
        }
        self.like(thread).map(Some)
    }

    /// A child like a thread.
    fn like(&mut self, thread: &Status) -> Result<i32> {
        let key = (thread.uid[0], thread.gid[0]);
        if let Some(stranger) = self.made.get(&key) {
            return Ok(stranger.pid());
        }
        let stranger = Stranger::new(key.0, key.1).about(|| Subject::Object(format!("a process of user {}", key.0)))?;
        let pid = stranger.pid();
        self.made.insert(key, stranger);
        Ok(pid)
    }
}

/// The kind: nothing is ever carried.
#[derive(Debug)]
pub struct Landlock;

impl Kind for Landlock {
    fn id(&self) -> KindId {
        KindId(32)
    }
    fn name(&self) -> &'static str {
        "Landlock sandbox"
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
        Err(Refusal::new(Code::NOT_MIGRATABLE, Subject::Object(self.name().to_owned()), "it cannot be rebuilt"))
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

/// Who is in a sandbox has given up new privileges first, or had the administrator's.
fn undecided(status: &Status) -> Option<Verdict> {
    let possible = status.no_new_privileges && landlock::version().is_ok();
    possible.then(|| {
        Verdict::Undecided(
            "whether a Landlock sandbox confines it shows only when it is frozen; then a move is refused".to_owned(),
        )
    })
}

impl TaskState for Landlock {
    fn examine(&self, Running { pid, status }: Running<'_>) -> Vec<(Subject, Verdict)> {
        undecided(status).map(|verdict| (Subject::Process(pid), verdict)).into_iter().collect()
    }

    fn capture(&self, injector: &mut Injector<'_>, capture: &mut Capture) -> Result<Vec<Captured>> {
        let pid = injector.process().pid;
        let blind: Vec<usize> = injector
            .answers()
            .0
            .iter()
            .enumerate()
            .filter(|(_, answers)| !answers.sees_stranger)
            .map(|(index, _)| index)
            .collect();
        for index in blind {
            let tid = injector.process().threads[index].tid();
            let subject = || Subject::Thread(pid, tid);
            let status = status::read(pid, tid).about(subject)?;
            let stranger = capture.strangers.like(&status)?;
            let mut program = Program::new();
            let (head, _) = program.space(16);
            let asked: [Argument; 3] = [stranger.into(), head, head];
            let step = program.try_call("get_robust_list", SYS_GET_ROBUST_LIST, asked);
            let ran = injector.run(&[(index, program)])?;
            if ran.first().is_some_and(|ran| ran.result("get_robust_list", step).is_err()) {
                let cause = "a Landlock sandbox (or another security module) confines it, whose rules cannot be read; without them it would be free at the destination";
                return Err(Refusal::new(Code::NOT_MIGRATABLE, subject(), cause).choice(
                    "start the program without its sandbox (its own option, or without the wrapper that makes it)",
                ));
            }
        }
        Ok(Vec::new())
    }

    fn restore(&self, envelope: &Envelope, _: Pid, _: &mut Bind) -> Result<()> {
        let subject = Subject::Object(format!("{} {}", self.name(), envelope.id));
        Err(Refusal::new(Code::NOT_MIGRATABLE, subject, "it cannot be rebuilt"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_the_kernel_lets_look_at_whom() {
        let process = |user: u32, permitted: u64| Status {
            uid: [user; 4],
            gid: [user; 4],
            capabilities_permitted: permitted,
            ..Status::default()
        };
        assert!(may_see(&process(0, 7), &process(0, 3)));
        assert!(!may_see(&process(0, 3), &process(0, 7)), "fewer capabilities");
        assert!(!may_see(&process(1000, 0), &process(0, 0)), "another user");
        assert!(may_see(&process(1000, 0), &process(1000, 0)));
    }
}
