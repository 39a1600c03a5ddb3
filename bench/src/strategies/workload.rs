//! What is moved by every strategy: small and large, quiet and restless, and of many parts.
use crate::case::DIRECTORY;
use std::path::Path;

const MIB: u64 = 1 << 20;

/// Pages that a process writes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Writes {
    /// None but its stack and counters.
    None,
    /// So many in each millisecond, at random.
    PerMillisecond(u32),
    /// As many as it can, at random.
    AsManyAsItCan,
}

/// One process.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Workload {
    /// Its name on the command line and in the data.
    pub name: &'static str,
    /// For people.
    pub about: &'static str,
    /// Which of `bench/programs`.
    pub program: &'static str,
    /// Bytes of memory, all of it with contents.
    pub memory: u64,
    /// What it writes meanwhile.
    pub writes: Writes,
}

const fn writer(name: &'static str, about: &'static str, memory: u64, writes: Writes) -> Workload {
    Workload { name, about, program: "writer", memory, writes }
}

const fn of_many(name: &'static str, about: &'static str, program: &'static str, memory: u64) -> Workload {
    Workload { name, about, program, memory, writes: Writes::None }
}

/// All of them, small ones first.
pub const WORKLOADS: &[Workload] = &[
    Workload { name: "getpid", about: "a loop of getpid", program: "getpid", memory: 96 << 10, writes: Writes::None },
    writer("100-kb", "the reference process: 100 KB, quiet", 102_400, Writes::None),
    writer("rma-4-mib", "RMA: 4 MiB, written at random as fast as it can", 4 * MIB, Writes::AsManyAsItCan),
    writer("4-mib", "4 MiB, quiet", 4 * MIB, Writes::None),
    Workload {
        name: "touch-64-mib",
        about: "64 MiB, read at random as fast as it can",
        program: "toucher",
        memory: 64 * MIB,
        writes: Writes::None,
    },
    of_many("1000-threads", "1,000 threads", "threads", 1000 * 2 * 4096),
    of_many("1000-descriptors", "1,000 descriptors: files, pipes, eventfds, sockets", "descriptors", 96 << 10),
    of_many("10000-mappings", "10,000 mappings, each with contents", "mappings", 10_000 * 4096),
    writer("256-mib", "256 MiB, quiet", 256 * MIB, Writes::None),
    writer("256-mib-1", "256 MiB, 1 page/ms written", 256 * MIB, Writes::PerMillisecond(1)),
    writer("256-mib-100", "256 MiB, 100 pages/ms written", 256 * MIB, Writes::PerMillisecond(100)),
    writer("1-gib-1", "1 GiB, 1 page/ms written", 1024 * MIB, Writes::PerMillisecond(1)),
    writer("1-gib-10", "1 GiB, 10 pages/ms written", 1024 * MIB, Writes::PerMillisecond(10)),
    writer("4-gib", "4 GiB, quiet", 4096 * MIB, Writes::None),
    writer("4-gib-1", "4 GiB, 1 page/ms written", 4096 * MIB, Writes::PerMillisecond(1)),
];

impl Workload {
    /// Its words behind the board. `directory`: of its own, seen by both hosts.
    #[must_use]
    pub fn arguments(&self, directory: &Path) -> Vec<String> {
        let rate = match self.writes {
            Writes::None => 0,
            Writes::PerMillisecond(pages) => i64::from(pages) * 1000,
            Writes::AsManyAsItCan => -1,
        };
        let words = |words: &[&str]| -> Vec<String> {
            let given =
                |word: &&str| if *word == DIRECTORY { directory.display().to_string() } else { (*word).to_owned() };
            words.iter().map(given).collect()
        };
        match self.program {
            "getpid" => Vec::new(),
            "threads" => words(&["1000"]),
            "descriptors" => words(&[DIRECTORY, "1000", "file", "pipe", "eventfd", "socket"]),
            "mappings" => words(&["10000"]),
            "toucher" => vec![self.memory.to_string()],
            _ => vec![self.memory.to_string(), rate.to_string()],
        }
    }

    /// The workload of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Workload> {
        WORKLOADS.iter().find(|workload| workload.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_words_for_its_program() {
        let words = |name: &str| Workload::named(name).unwrap().arguments(Path::new("/own")).join(" ");
        assert_eq!(words("getpid"), "");
        assert_eq!(words("touch-64-mib"), "67108864");
        assert_eq!(words("rma-4-mib"), "4194304 -1");
        assert_eq!(words("1-gib-10"), "1073741824 10000");
        assert_eq!(words("1000-descriptors"), "/own 1000 file pipe eventfd socket");
    }
}
