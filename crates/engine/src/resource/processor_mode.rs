//! Modes of the processor that a process can be in and that this build does not rebuild: 32-bit code, segments of its own,
//! I/O ports, tagged addresses, a shadow stack. Refused by name.
use super::{Captured, Description, Kind, Made, Need, Running, Stage, TaskState};
use crate::capture::Capture;
use crate::failure::{About, Result};
use crate::injector::Injector;
use crate::restore::{Bind, Make};
use godwit_image::{Code, Envelope, KindId, Pid, Refusal, Subject, Verdict};
use godwit_linux::proc::status::Status;
use godwit_linux::ptrace;
use std::io::Read;

/// Code segment of 64-bit user code.
const CODE_64: u64 = 0x33;

/// The kind: nothing is ever carried.
#[derive(Debug)]
pub struct ProcessorMode;

impl Kind for ProcessorMode {
    fn id(&self) -> KindId {
        KindId(48)
    }
    fn name(&self) -> &'static str {
        "processor mode"
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
        Err(refuse(Subject::Object(self.name().to_owned()), "it cannot be rebuilt"))
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

fn refuse(subject: Subject, cause: &str) -> Refusal {
    Refusal::new(Code::UNSUPPORTED, subject, cause)
}

/// What the kernel shows of a running process.
fn visible(pid: i32, status: &Status) -> Option<Refusal> {
    let subject = Subject::Process(pid);
    if status.untag_mask.is_some_and(|mask| mask != u64::MAX) {
        return Some(refuse(subject, "it keeps tags in its addresses (linear address masking)"));
    }
    let shadow = status.x86_thread_features.iter().any(|feature| feature == b"shstk");
    shadow.then(|| {
        refuse(subject, "it has a shadow stack, which lies in memory that only the processor may write")
            .choice("start it with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off")
    })
}

/// Whether a thread runs 64-bit code: asked before anything is placed into its process, since what we place is.
pub(crate) fn judge_code(subject: Subject, code_segment: u64) -> Result<()> {
    if code_segment == CODE_64 {
        Ok(())
    } else {
        Err(refuse(subject, "it runs 32-bit code, for which this build has no stub"))
    }
}

/// Whether the program's file is for 64-bit code.
fn is_for_32_bits(pid: i32) -> bool {
    const CLASS_32: u8 = 1;
    let mut header = [0_u8; 5];
    let read = std::fs::File::open(format!("/proc/{pid}/exe")).and_then(|mut file| file.read_exact(&mut header));
    read.is_ok() && header.starts_with(b"\x7fELF") && header[4] == CLASS_32
}

impl TaskState for ProcessorMode {
    fn examine(&self, Running { pid, status }: Running<'_>) -> Vec<(Subject, Verdict)> {
        let code = is_for_32_bits(pid).then(|| judge_code(Subject::Process(pid), 0).err()).flatten();
        let refusals = code.into_iter().chain(visible(pid, status));
        refusals.map(|refusal| (Subject::Process(pid), Verdict::Blocks(refusal))).collect()
    }

    fn capture(&self, injector: &mut Injector<'_>, _: &mut Capture) -> Result<Vec<Captured>> {
        let pid = injector.process().pid;
        let subject = || Subject::Process(pid);
        if injector.answers().1.has_segments {
            return Err(refuse(
                subject(),
                "it has memory segments of its own (modify_ldt), as old 16-bit and Windows code has",
            ));
        }
        for thread in injector.distinct() {
            if ptrace::may_use_ports(thread.tid()).about(|| thread.subject())? {
                return Err(refuse(thread.subject(), "it may use I/O ports (ioperm), which are this host's"));
            }
        }
        visible(pid, injector.process().status()?).map_or(Ok(Vec::new()), Err)
    }

    fn restore(&self, envelope: &Envelope, _: Pid, _: &mut Bind) -> Result<()> {
        Err(refuse(Subject::Object(format!("{} {}", self.name(), envelope.id)), "it cannot be rebuilt"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_shows_is_judged() {
        assert_eq!(visible(1, &Status { untag_mask: Some(u64::MAX), ..Status::default() }), None);
        let tagged = Status { untag_mask: Some(!(0x3f << 57)), ..Status::default() };
        assert!(visible(1, &tagged).is_some_and(|refusal| refusal.cause.contains("tags")));
        let shadowed = Status { x86_thread_features: vec![b"shstk".to_vec()], ..Status::default() };
        assert!(visible(1, &shadowed).is_some_and(|refusal| refusal.cause.contains("shadow stack")));
        assert!(judge_code(Subject::Host, CODE_64).is_ok() && judge_code(Subject::Host, 0x23).is_err());
        assert!(!is_for_32_bits(std::process::id() as i32));
    }
}
