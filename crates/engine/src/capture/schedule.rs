//! How a thread is scheduled, and its list of robust mutexes: asked inside with everything else, which costs a fraction of
//! what the same calls cost from outside. What a filter of the thread's forbids it to ask is asked from outside.
use crate::injector::Ran;
use crate::question::answered;
use crate::usual_schedule::told;
use godwit_image::task::Scheduling;
use godwit_linux::errno::Result;
use godwit_linux::program::{Argument, Program, Step};
use godwit_linux::scheduling;

const SYS_SCHED_GETAFFINITY: i64 = 204;
const SYS_IOPRIO_GET: i64 = 252;
const SYS_GET_ROBUST_LIST: i64 = 274;
const SYS_SCHED_GETATTR: i64 = 315;
const IOPRIO_WHO_PROCESS: u64 = 1;
/// sched_getattr(2) does not tell its nice value.
const SCHED_IDLE: u32 = 5;
/// struct sched_attr, version 1.
const ATTRIBUTES_BYTES: usize = 56;
/// Processors that a mask has room for; where there are more it is asked for from outside.
const AFFINITY_BYTES: usize = 128;

/// The questions to one thread.
#[derive(Debug)]
pub(super) struct Question {
    attributes: (Step, usize),
    affinity: (Step, usize),
    io_priority: Step,
    robust_list: (Step, usize),
}

/// The answers.
#[derive(Debug)]
pub(super) struct Schedule {
    pub(super) scheduling: Scheduling,
    pub(super) affinity: Vec<u8>,
    pub(super) io_priority: i32,
    pub(super) robust_list: (u64, u64),
}

impl Question {
    /// Adds the questions to a program.
    pub(super) fn ask(program: &mut Program) -> Question {
        let own = Argument::Value(0);
        let (space, attributes) = program.space(ATTRIBUTES_BYTES);
        let arguments = [own, space, ATTRIBUTES_BYTES.into(), Argument::Value(0)];
        let attributes = (program.try_call("sched_getattr", SYS_SCHED_GETATTR, arguments), attributes);
        let (space, affinity) = program.space(AFFINITY_BYTES);
        let arguments = [own, AFFINITY_BYTES.into(), space];
        let affinity = (program.try_call("sched_getaffinity", SYS_SCHED_GETAFFINITY, arguments), affinity);
        let io_priority = program.try_call("ioprio_get", SYS_IOPRIO_GET, [IOPRIO_WHO_PROCESS.into(), own]);
        let (head, robust_list) = program.space(8);
        let (length, _) = program.space(8);
        let robust_list = (program.try_call("get_robust_list", SYS_GET_ROBUST_LIST, [own, head, length]), robust_list);
        Question { attributes, affinity, io_priority, robust_list }
    }

    /// The list of robust mutexes, where it may be asked for inside.
    pub(super) fn robust_list(&self, ran: &Ran) -> Option<(u64, u64)> {
        let place = self.robust_list.1;
        answered(ran, self.robust_list.0).ok().map(|_| (ran.word(place), ran.word(place + 8)))
    }

    /// Reads the answers.
    pub(super) fn answer(&self, ran: &Ran, tid: i32) -> Result<Schedule> {
        let attributes = match answered(ran, self.attributes.0) {
            Ok(_) => scheduling::Attributes::from_bytes(ran.data(self.attributes.1, ATTRIBUTES_BYTES)),
            Err(_) => scheduling::get(tid)?,
        };
        let affinity = match answered(ran, self.affinity.0) {
            Ok(bytes) => ran.data(self.affinity.1, bytes as usize).to_vec(),
            Err(_) => scheduling::affinity(tid)?,
        };
        let io_priority = match answered(ran, self.io_priority) {
            Ok(priority) => priority as i32,
            Err(_) => scheduling::io_priority(tid)?,
        };
        let robust_list = self.robust_list(ran).map_or_else(|| scheduling::robust_list(tid), Ok)?;
        let mut scheduling = told(&attributes);
        if scheduling.policy == SCHED_IDLE {
            scheduling.nice = scheduling::nice(tid)?;
        }
        Ok(Schedule { scheduling, affinity, io_priority, robust_list })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_linux::program::Outcome;

    #[test]
    fn what_may_not_be_asked_inside_is_asked_from_outside() {
        let mut program = Program::new();
        let question = Question::ask(&mut program);
        let forbidden = Ran::new(Outcome { results: vec![-1; program.calls().len()] }, program.bytes().to_vec());
        let own = question.answer(&forbidden, 0).unwrap();
        assert_eq!(own.affinity, scheduling::affinity(0).unwrap());
        assert_eq!(own.scheduling.policy, scheduling::get(0).unwrap().policy);
        assert_eq!(own.robust_list, scheduling::robust_list(0).unwrap());
        assert!(own.robust_list.1 > 0);
    }
}
