//! NUMA memory policies of threads (set_mempolicy(2)) and of single areas (mbind(2)).
//!
//! A home node (set_mempolicy_home_node(2)) cannot be read; it only says where to begin looking for memory.
use super::{Captured, Description, Kind, Made, Need, Running, Stage, TaskState, open};
use crate::capture::Capture;
use crate::failure::{Result, malformed};
use crate::injector::{Injector, Ran};
use crate::question::NODES_MAX;
use crate::restore::{Bind, Make};
use godwit_image::{Code, Envelope, KindId, Pid, Refusal, Subject, Verdict};
use godwit_linux::features::Feature;
use godwit_linux::program::Program;
use serde::{Deserialize, Serialize};

const SYS_MBIND: i64 = 237;
const SYS_SET_MEMPOLICY: i64 = 238;
const SYS_GET_MEMPOLICY: i64 = 239;
const MPOL_F_ADDR: u64 = 2;
/// Pages that are there already go where the policy wants them.
const MPOL_MF_MOVE: u64 = 2;
/// Areas that one program asks about or sets: with a mask each they fit the large slot.
const AREAS_MAX: usize = 2000;

/// A policy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Policy {
    /// MPOL_* with its MPOL_F_* mode flags.
    pub mode: u32,
    /// Mask of nodes, node 0 in the lowest bit of the first byte; zeros at the end are left out.
    #[serde(with = "serde_bytes")]
    pub nodes: Vec<u8>,
}

/// State.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// Threads that have one.
    pub threads: Vec<(Pid, Policy)>,
    /// Areas that have one: first address, address after the last byte.
    pub areas: Vec<(u64, u64, Policy)>,
}

/// The kind.
#[derive(Debug)]
pub struct MemoryPolicy;

impl Kind for MemoryPolicy {
    fn id(&self) -> KindId {
        KindId(31)
    }
    fn name(&self) -> &'static str {
        "memory policy"
    }
    fn version(&self) -> u16 {
        1
    }
    fn stage(&self) -> Stage {
        Stage::Early
    }
    fn needs(&self, _: &Envelope) -> Result<Vec<Need>> {
        Ok(vec![Need::feature(Feature::MemoryPolicy)])
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

impl Policy {
    fn new(mode: u32, mask: &[u8]) -> Policy {
        let length = mask.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        Policy { mode, nodes: mask[..length].to_vec() }
    }

    /// The nodes, for people.
    fn text(&self) -> String {
        let numbers = (0..self.nodes.len() * 8).filter(|node| self.nodes[node / 8] >> (node % 8) & 1 != 0);
        numbers.map(|node| node.to_string()).collect::<Vec<_>>().join(", ")
    }

    /// Mask and length as the kernel takes them: it counts one bit more than it reads.
    fn arguments(&self, program: &mut Program) -> [godwit_linux::program::Argument; 2] {
        if self.nodes.is_empty() {
            return [0_u64.into(), 0_u64.into()];
        }
        let mut mask = self.nodes.clone();
        mask.resize(NODES_MAX / 8, 0);
        [program.data(&mask), (NODES_MAX + 1).into()]
    }
}

/// Asks for the policies of areas that are known to have one.
fn areas(injector: &mut Injector<'_>) -> Result<Vec<(u64, u64, Policy)>> {
    let listed = injector.answers().1.policy_areas.clone();
    let mut found = Vec::with_capacity(listed.len());
    for chunk in listed.chunks(AREAS_MAX) {
        let mut program = Program::new();
        let mut places = Vec::with_capacity(chunk.len());
        for (start, _) in chunk {
            let (mode, mode_place) = program.space(8);
            let (nodes, nodes_place) = program.space(NODES_MAX / 8);
            let arguments = [mode, nodes, NODES_MAX.into(), (*start).into(), MPOL_F_ADDR.into()];
            program.call("get_mempolicy", SYS_GET_MEMPOLICY, arguments);
            places.push((mode_place, nodes_place));
        }
        let ran = injector.run(&[(0, program)])?;
        let pid = injector.process().pid;
        let ran: &Ran = ran.first().ok_or_else(|| malformed(Subject::Process(pid), "no answer"))?;
        for ((start, end), (mode, nodes)) in chunk.iter().zip(places) {
            found.push((*start, *end, Policy::new(ran.word(mode) as u32, ran.data(nodes, NODES_MAX / 8))));
        }
    }
    Ok(found)
}

fn lacking(subject: Subject, policy: &Policy, refusal: Refusal) -> Refusal {
    let cause = format!("its memory policy names the nodes {}: {}", policy.text(), refusal.cause);
    Refusal::new(Code::DESTINATION_LACKS, subject, cause).choice("choose a destination with these memory nodes")
}

impl TaskState for MemoryPolicy {
    fn examine(&self, _: Running<'_>) -> Vec<(Subject, Verdict)> {
        // Whatever it is, it is carried; whether the destination has the nodes shows there.
        Vec::new()
    }

    fn capture(&self, injector: &mut Injector<'_>, _: &mut Capture) -> Result<Vec<Captured>> {
        let mut threads = Vec::new();
        for (answers, thread) in injector.answers().0.iter().zip(&injector.process().threads) {
            if let Some((mode, mask)) = answers.policy.as_ref().filter(|(mode, _)| *mode != 0) {
                threads.push((Pid(thread.tid()), Policy::new(*mode, mask)));
            }
        }
        let areas = areas(injector)?;
        if threads.is_empty() && areas.is_empty() {
            return Ok(Vec::new());
        }
        Ok(vec![Captured::new(Vec::new(), &State { threads, areas })?])
    }

    fn restore(&self, envelope: &Envelope, task: Pid, bind: &mut Bind) -> Result<()> {
        let state: State = open(envelope)?;
        for (start, end, policy) in &state.areas {
            let mut program = Program::new();
            let [mask, length] = policy.arguments(&mut program);
            let bytes = end.saturating_sub(*start);
            let arguments = [(*start).into(), bytes.into(), policy.mode.into(), mask, length, MPOL_MF_MOVE.into()];
            program.call("mbind", SYS_MBIND, arguments);
            let subject = || Subject::Mapping(task.0, *start, String::new());
            bind.run(task, &program).map_err(|refusal| lacking(subject(), policy, refusal))?;
        }
        for (thread, policy) in &state.threads {
            let mut program = Program::new();
            let [mask, length] = policy.arguments(&mut program);
            program.call("set_mempolicy", SYS_SET_MEMPOLICY, [policy.mode.into(), mask, length]);
            let subject = || Subject::Thread(task.0, thread.0);
            bind.run(*thread, &program).map_err(|refusal| lacking(subject(), policy, refusal))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_short_and_readable() {
        let mut mask = vec![0_u8; NODES_MAX / 8];
        mask[0] = 0b101;
        mask[2] = 1;
        let policy = Policy::new(2, &mask);
        assert_eq!((policy.nodes.len(), policy.text().as_str()), (3, "0, 2, 16"));
        assert_eq!(Policy::new(4, &[0; 8]).nodes, Vec::<u8>::new());
        super::super::assert_round_trip(&State {
            threads: vec![(Pid(1), policy.clone())],
            areas: vec![(0, 4096, policy)],
        });
    }
}
