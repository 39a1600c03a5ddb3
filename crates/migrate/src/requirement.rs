//! What a tree needs of its destination: said before anything is frozen, examined there against what the host has.
use godwit_engine::check::Examination;
use godwit_image::codec;
use godwit_image::host::HostFacts;
use godwit_image::{Code, Refusal, Subject};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;

/// The needs, as the source's driver sends them in its Offer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Requirements {
    /// The source host.
    pub(crate) host: HostFacts,
    /// Number of the root process.
    pub(crate) root: i32,
    /// Every number that a process or thread of the tree has now.
    pub(crate) numbers: BTreeSet<i32>,
    /// Resident memory that must find room, in bytes.
    pub(crate) memory_bytes: u64,
}

impl Requirements {
    pub(crate) fn of(examination: &Examination, host: HostFacts) -> Requirements {
        Requirements {
            host,
            root: examination.pids.first().copied().unwrap_or(0),
            numbers: examination.numbers.clone(),
            memory_bytes: examination.memory_bytes,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        codec::encode(self).unwrap_or_default()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Requirements, Refusal> {
        codec::decode(bytes).map_err(|error| {
            Refusal::new(Code::MALFORMED, Subject::Object("requirements".to_owned()), error.to_string())
        })
    }

    /// What this host cannot give.
    pub(crate) fn examine(&self) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        let here = godwit_engine::host::facts();
        let lacks = |cause: String| Refusal::new(Code::DESTINATION_LACKS, Subject::Host, cause);
        if self.host.machine != here.machine {
            refusals.push(lacks(format!("it is {}, the source is {}", here.machine, self.host.machine)));
        }
        let missing = self.host.extended_state_mask & !here.extended_state_mask;
        if missing != 0 {
            refusals.push(lacks(format!("its processor lacks the extended state components {missing:#x}")));
        }
        match memory_available() {
            Some(available) if available < self.memory_bytes => refusals.push(lacks(format!(
                "{} MiB of memory are needed, {} MiB are available",
                self.memory_bytes >> 20,
                available >> 20
            ))),
            _ => {}
        }
        if let Some(limit) = number("/proc/sys/kernel/pid_max")
            && let Some(highest) = self.numbers.last().filter(|highest| i64::from(**highest) >= limit as i64)
        {
            refusals.push(
                lacks(format!("process number {highest} is above kernel.pid_max = {limit}"))
                    .choice("raise kernel.pid_max at the destination"),
            );
        }
        refusals
    }

    /// The numbers that belong to somebody else here.
    pub(crate) fn taken(&self) -> Vec<Refusal> {
        let taken = |number: &&i32| Path::new(&format!("/proc/{number}")).exists();
        self.numbers
            .iter()
            .filter(taken)
            .map(|&number| {
                let name = std::fs::read_to_string(format!("/proc/{number}/comm")).unwrap_or_default();
                let cause = format!("at the destination it belongs to {:?}", name.trim());
                Refusal::new(Code::PID_IN_USE, Subject::Process(number), cause)
                    .choice("allow a new PID namespace for the tree at the destination")
            })
            .collect()
    }
}

fn number(path: &str) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// MemAvailable, in bytes.
fn memory_available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Requirements {
        Requirements { host: godwit_engine::host::facts(), root: 1, numbers: BTreeSet::new(), memory_bytes: 1 << 20 }
    }

    #[test]
    fn this_host_can_give_what_it_has_and_nothing_more() {
        assert_eq!(own().examine(), []);
        let codes = |requirements: Requirements| -> Vec<Code> {
            requirements.examine().into_iter().map(|refusal| refusal.code).collect()
        };
        assert_eq!(codes(Requirements { memory_bytes: u64::MAX, ..own() }), [Code::DESTINATION_LACKS]);
        let taken = std::process::id() as i32;
        let found = Requirements { numbers: [taken].into(), ..own() }.taken();
        assert_eq!(found.iter().map(|refusal| refusal.code).collect::<Vec<_>>(), [Code::PID_IN_USE]);
        let mut foreign = own();
        foreign.host.extended_state_mask = u64::MAX;
        foreign.host.machine = "riscv64".to_owned();
        assert_eq!(codes(foreign), [Code::DESTINATION_LACKS, Code::DESTINATION_LACKS]);
    }

    #[test]
    fn needs_come_back_as_they_were_and_nonsense_is_refused() {
        let needs = own();
        assert_eq!(Requirements::decode(&needs.encode()), Ok(needs));
        assert_eq!(Requirements::decode(b"nonsense").unwrap_err().code, Code::MALFORMED);
    }
}
