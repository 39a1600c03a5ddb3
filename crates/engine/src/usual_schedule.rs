//! How threads are scheduled here that never asked for anything: who was scheduled as usual at the source is so at the destination,
//! though other things are usual there.
use crate::failure::{About, Result};
use godwit_image::Subject;
use godwit_image::task::{Scheduling, Thread};
use godwit_linux::scheduling::{self, Attributes};

const SCHED_OTHER: u32 = 0;
const SCHED_BATCH: u32 = 3;
const SCHED_IDLE: u32 = 5;

/// What is usual on this host.
#[derive(Clone, Debug)]
pub(crate) struct UsualSchedule {
    /// Every processor that threads may be bound to, as sched_getaffinity(2) tells it.
    processors: Vec<u8>,
    /// How long a turn is, ns (sched_setattr(2), sched_runtime of policies without deadlines; Linux 6.12).
    turn: u64,
}

impl UsualSchedule {
    /// Looks.
    ///
    /// # Errors
    /// None that this thread could have.
    pub(crate) fn look() -> Result<UsualSchedule> {
        let processors = scheduling::every_processor().about(|| Subject::Host)?;
        let turn = scheduling::usual_turn().about(|| Subject::Host)?;
        Ok(UsualSchedule { processors, turn })
    }

    /// What is usual is said by nothing: no mask, and a turn of no length.
    pub(crate) fn leave_out(&self, thread: &mut Thread) {
        if thread.affinity == self.processors {
            thread.affinity = Vec::new();
        }
        thread.scheduling = self.without_turn(thread.scheduling);
    }

    /// The same of attributes alone.
    pub(crate) fn without_turn(&self, scheduling: Scheduling) -> Scheduling {
        let usual = is_fair(scheduling.policy) && scheduling.runtime == self.turn;
        Scheduling { runtime: if usual { 0 } else { scheduling.runtime }, ..scheduling }
    }

    /// The processors that a thread is to run on.
    pub(crate) fn affinity<'t>(&'t self, thread: &'t Thread) -> &'t [u8] {
        if thread.affinity.is_empty() { &self.processors } else { &thread.affinity }
    }

    /// Every processor.
    pub(crate) fn processors(&self) -> &[u8] {
        &self.processors
    }

    /// The calls of sched_setattr(2), in order, after which a thread with these attributes is scheduled as it is to be.
    pub(crate) fn calls(&self, now: &Attributes, wanted: Scheduling) -> Vec<Attributes> {
        let told = self.without_turn(told(now));
        if told == wanted {
            return Vec::new();
        }
        let mut last = *now;
        last.policy = wanted.policy;
        last.flags = wanted.flags;
        last.nice = wanted.nice;
        last.priority = wanted.priority;
        last.runtime = wanted.runtime;
        last.deadline = wanted.deadline;
        last.period = wanted.period;
        // Under this policy nobody can ask for a length; who had asked before keeps it.
        if wanted.policy == SCHED_IDLE && told.runtime != wanted.runtime {
            let mut first = last;
            (first.policy, first.flags) = (SCHED_OTHER, 0);
            return vec![first, last];
        }
        vec![last]
    }
}

/// What sched_getattr(2) has told.
pub(crate) fn told(attributes: &Attributes) -> Scheduling {
    Scheduling {
        policy: attributes.policy,
        flags: attributes.flags,
        nice: attributes.nice,
        priority: attributes.priority,
        runtime: attributes.runtime,
        deadline: attributes.deadline,
        period: attributes.period,
    }
}

fn is_fair(policy: u32) -> bool {
    matches!(policy, SCHED_OTHER | SCHED_BATCH | SCHED_IDLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usual(turn: u64) -> UsualSchedule {
        UsualSchedule { processors: vec![3], turn }
    }

    fn attributes(of: Scheduling) -> Attributes {
        let mut attributes = Attributes::default();
        (attributes.policy, attributes.nice, attributes.runtime) = (of.policy, of.nice, of.runtime);
        attributes
    }

    #[test]
    fn what_was_usual_there_is_usual_here_and_what_was_asked_for_is_asked_for() {
        let (there, here) = (usual(3_000_000), usual(1_500_000));
        let plain = Scheduling { runtime: 3_000_000, ..Scheduling::default() };
        let born = attributes(Scheduling { runtime: 1_500_000, ..Scheduling::default() });
        assert!(here.calls(&born, there.without_turn(plain)).is_empty());
        // The same length, but asked for.
        let asked = Scheduling { runtime: 1_500_000, ..Scheduling::default() };
        assert_eq!(here.calls(&born, there.without_turn(asked))[0].runtime, 1_500_000);
        let idle = Scheduling { policy: SCHED_IDLE, nice: 3, runtime: 700_000, ..Scheduling::default() };
        let calls = here.calls(&born, there.without_turn(idle));
        assert_eq!(calls.iter().map(|call| call.policy).collect::<Vec<u32>>(), [SCHED_OTHER, SCHED_IDLE]);
        assert!(calls.iter().all(|call| (call.runtime, call.nice) == (700_000, 3)));
        // Of a policy with deadlines it is no length of a turn.
        let deadline = Scheduling { policy: 6, runtime: 3_000_000, period: 9_000_000, ..Scheduling::default() };
        assert_eq!(there.without_turn(deadline), deadline);
    }

    /// What this kernel says of a thread that was told the calls.
    #[test]
    fn the_kernel_takes_the_calls() {
        std::thread::spawn(|| {
            let usual = UsualSchedule::look().unwrap();
            let before = scheduling::get(0).unwrap();
            for (policy, turn) in [(SCHED_BATCH, 700_000), (SCHED_IDLE, 5_000_000), (SCHED_IDLE, 0)] {
                let wanted = Scheduling { policy, runtime: turn, ..Scheduling::default() };
                for call in usual.calls(&before, wanted) {
                    scheduling::set(0, &call).unwrap();
                }
                let now = scheduling::get(0).unwrap();
                let expected = if before.runtime == 0 {
                    0
                } else if turn == 0 {
                    usual.turn
                } else {
                    turn
                };
                assert_eq!((now.policy, now.runtime), (policy, expected));
                for call in usual.calls(&now, Scheduling::default()) {
                    scheduling::set(0, &call).unwrap();
                }
                assert_eq!(scheduling::get(0).unwrap().runtime, usual.turn);
            }
        })
        .join()
        .unwrap();
    }
}
