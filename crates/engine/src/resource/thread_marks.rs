//! Marks of single threads that the kernel knows by prctl: I/O flusher, CPUID forbidden.
use super::{Captured, Description, Kind, Made, Need, Stage, TaskState, open};
use crate::capture::Capture;
use crate::failure::Result;
use crate::injector::Injector;
use crate::restore::{Bind, Make};
use godwit_image::{Code, Envelope, KindId, Pid, Refusal, Subject};
use godwit_linux::program::Program;
use serde::{Deserialize, Serialize};

const SYS_PRCTL: i64 = 157;
const SYS_ARCH_PRCTL: i64 = 158;
const PR_SET_IO_FLUSHER: u64 = 57;
const ARCH_SET_CPUID: u64 = 0x1012;

/// The marks of one thread.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Marks {
    /// Its number.
    pub thread: Pid,
    /// PR_SET_IO_FLUSHER: it serves a disk, and must never wait for one when it needs memory.
    pub io_flusher: bool,
    /// arch_prctl(ARCH_SET_CPUID, 0): the instruction faults.
    pub faults_on_cpuid: bool,
}

/// State.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// Threads with a mark.
    pub threads: Vec<Marks>,
}

/// The kind.
#[derive(Debug)]
pub struct ThreadMarks;

impl Kind for ThreadMarks {
    fn id(&self) -> KindId {
        KindId(44)
    }
    fn name(&self) -> &'static str {
        "marks of threads"
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
    fn description(&self) -> Option<&dyn Description> {
        None
    }
    fn task_state(&self) -> Option<&dyn TaskState> {
        Some(self)
    }
}

impl TaskState for ThreadMarks {
    // Nothing is said of it before: only the threads themselves can tell; whatever it is, it is carried.
    fn capture(&self, injector: &mut Injector<'_>, _: &mut Capture) -> Result<Vec<Captured>> {
        let answers = injector.answers().0.iter().zip(&injector.process().threads);
        let marks = answers.map(|(answers, thread)| Marks {
            thread: Pid(thread.tid()),
            io_flusher: answers.flushes_io,
            faults_on_cpuid: answers.faults_on_cpuid,
        });
        let threads: Vec<Marks> = marks.filter(|marks| marks.io_flusher || marks.faults_on_cpuid).collect();
        if threads.is_empty() { Ok(Vec::new()) } else { Ok(vec![Captured::new(Vec::new(), &State { threads })?]) }
    }

    fn restore(&self, envelope: &Envelope, task: Pid, bind: &mut Bind) -> Result<()> {
        let state: State = open(envelope)?;
        let zero = 0_u64;
        for marks in &state.threads {
            let mut program = Program::new();
            if marks.io_flusher {
                let arguments = [PR_SET_IO_FLUSHER.into(), 1_u64.into(), zero.into(), zero.into(), zero.into()];
                program.call("prctl(PR_SET_IO_FLUSHER)", SYS_PRCTL, arguments);
            }
            if marks.faults_on_cpuid {
                program.call("arch_prctl(ARCH_SET_CPUID)", SYS_ARCH_PRCTL, [ARCH_SET_CPUID.into(), zero.into()]);
            }
            bind.run(marks.thread, &program).map_err(|refusal| {
                Refusal::new(Code::DESTINATION_LACKS, Subject::Thread(task.0, marks.thread.0), refusal.cause)
                    .choice("give godwit CAP_SYS_RESOURCE at the destination")
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let marks = Marks { thread: Pid(7), io_flusher: true, faults_on_cpuid: false };
        super::super::assert_round_trip(&State { threads: vec![marks] });
    }
}
