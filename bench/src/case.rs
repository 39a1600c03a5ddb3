//! The cases: which process is moved, by which way, and what it may cost. One row each.

const MIB: u64 = 1 << 20;

/// How a process is moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// `godwit migrate` to a `godwit receive`, over the link.
    Migrate,
    /// `godwit checkpoint`, then `godwit restore --detach`, on one host.
    Storage,
}

/// What a case may cost.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Budget {
    /// Down time, as the process saw it, at most, ms.
    Down(f64),
    /// Total time of both commands together at most, ms.
    Total(f64),
    /// Bytes of memory per down time as the process saw it, at least this part of what a raw TCP stream carries: all of a total copy
    /// is copied while the process is down. What is made before that and ended after it takes its time in the total, too, but the
    /// process runs then.
    PartOfStream(f64),
}

/// One case.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name on the command line.
    pub name: &'static str,
    /// What is moved, for people.
    pub about: &'static str,
    /// Which of `bench/programs`.
    pub program: &'static str,
    /// The program's arguments behind the board. [`DIRECTORY`] stands for a directory of its own.
    pub arguments: &'static [&'static str],
    /// How.
    pub way: Way,
    /// Further words of `godwit migrate`.
    pub words: &'static [&'static str],
    /// Bytes of memory that the case is about; 0 where it is not about memory.
    pub memory: u64,
    /// What it may cost, if there is a budget.
    pub budget: Option<Budget>,
}

/// Argument that is replaced by a directory on storage that both hosts see.
pub const DIRECTORY: &str = "{directory}";

/// The engine's own memory, of all of its processes together, at most this many bytes whatever is moved.
pub const ENGINE_MEMORY_MAX: u64 = 64 * MIB;

const LIGHT: Case = Case {
    name: "",
    about: "",
    program: "getpid",
    arguments: &[],
    way: Way::Migrate,
    words: &[],
    memory: 0,
    budget: None,
};

/// All cases, light ones first.
pub const CASES: &[Case] = &[
    Case { name: "getpid", about: "a loop of getpid", budget: Some(Budget::Down(3.0)), ..LIGHT },
    Case {
        name: "100-kb",
        about: "100 KB of memory",
        program: "memory",
        arguments: &["102400"],
        memory: 102_400,
        ..LIGHT
    },
    Case {
        name: "4-mib",
        about: "4 MiB of memory",
        program: "memory",
        arguments: &["4194304"],
        memory: 4 * MIB,
        ..LIGHT
    },
    Case {
        name: "256-mib",
        about: "256 MiB of memory",
        program: "memory",
        arguments: &["268435456"],
        memory: 256 * MIB,
        ..LIGHT
    },
    Case {
        name: "1-gib",
        about: "1 GiB of memory",
        program: "memory",
        arguments: &["1073741824"],
        memory: 1024 * MIB,
        budget: Some(Budget::PartOfStream(0.70)),
        ..LIGHT
    },
    Case {
        name: "gib-checked",
        about: "the same with `--page-checksums`",
        program: "memory",
        arguments: &["1073741824"],
        words: &["--page-checksums"],
        memory: 1024 * MIB,
        ..LIGHT
    },
    Case {
        name: "64-threads",
        about: "64 threads",
        program: "threads",
        arguments: &["64"],
        budget: Some(Budget::Down(10.0)),
        ..LIGHT
    },
    Case {
        name: "1000-threads",
        about: "1,000 threads",
        program: "threads",
        arguments: &["1000"],
        budget: Some(Budget::Down(60.0)),
        ..LIGHT
    },
    Case {
        name: "9-processes",
        about: "9 processes sharing 1 MiB",
        program: "sharing",
        arguments: &["9", "1048576"],
        memory: MIB,
        ..LIGHT
    },
    Case {
        name: "1000-descriptors",
        about: "1,000 descriptors: files, pipes, eventfds, sockets, each with state",
        program: "descriptors",
        arguments: &[DIRECTORY, "1000", "file", "pipe", "eventfd", "socket"],
        budget: Some(Budget::Down(25.0)),
        ..LIGHT
    },
    Case {
        name: "10000-mappings",
        about: "10,000 mappings, each with contents (39 MiB)",
        program: "mappings",
        arguments: &["10000"],
        memory: 10_000 * 4096,
        budget: Some(Budget::Down(80.0)),
        ..LIGHT
    },
    Case {
        name: "checkpoint-restore",
        about: "a loop of getpid, to storage and back",
        way: Way::Storage,
        budget: Some(Budget::Total(12.0)),
        ..LIGHT
    },
];
