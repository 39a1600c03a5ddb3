//! Whether a host can take a tree: what it has and may, read once into a plain value, compared with what the tree demands.
use crate::clock;
use crate::demand::Demand;
use crate::processor;
use crate::resource::Need;
use godwit_image::host::HostFacts;
use godwit_image::{Code, Refusal, Subject, Verdict};
use godwit_linux::features::{self, Feature, Features, TABLE, Weight, capability};
use godwit_linux::proc::{cgroup, directory, limits, stat, sys};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

const RLIMIT_NOFILE: u32 = 7;
const RLIMIT_AS: usize = 9;
const RLIMIT_NICE: usize = 13;
const SETGID: u8 = 6;
const SETUID: u8 = 7;
const SYS_NICE: u8 = 23;
const SYS_RESOURCE: u8 = 24;
/// linux/sched.h: on its way out.
const PF_EXITING: u32 = 4;
/// How long numbers of those who end are waited for: their parents wait for them soon, or never.
const ENDING_PATIENCE: Duration = Duration::from_secs(4);
const ENDING_PAUSE: Duration = Duration::from_millis(2);
/// Descriptors of our own that the restorer needs besides the tree's.
const OWN_DESCRIPTORS: u64 = 64;
/// Address space of our own in every task while it is built.
const OWN_BYTES: u64 = 64 << 20;

/// What this host has, and what this process may do with it.
#[derive(Clone, Debug)]
pub struct Ground {
    /// Facts of the host.
    pub facts: HostFacts,
    /// Kernel features.
    pub features: Features,
    /// Memory that can be had, in bytes.
    pub memory_bytes: u64,
    /// What sets that bound.
    pub memory_bound: String,
    /// Soft and hard limits of this process, which every task starts with.
    pub limits: limits::Limits,
    /// This process's session and process group.
    pub home: (i32, i32),
    /// oom_score_adj of this process.
    pub out_of_memory: i32,
    /// User and groups of this process.
    pub user: u32,
    /// Its groups.
    pub groups: Vec<u32>,
    /// Every processor that threads may be bound to here, as sched_getaffinity(2) tells it.
    pub processors: Vec<u8>,
    /// Its capability bounding set.
    pub bounding: u64,
    /// The highest capability that this kernel knows.
    pub capability_last: u8,
}

impl Ground {
    /// Reads and tries everything that a tree may need; takes some milliseconds.
    pub fn read() -> Ground {
        // What only helps who reads a tree, and takes as long to try as everything else, is not.
        Ground::with(features::probe_those(|feature| feature != Feature::KernelRecords))
    }

    /// The same, but what no tree can be built without is taken for granted (to try it takes as long as a good part of the building),
    /// and of the rest only what [`Ground::lacks`] asks for with this demand and host is tried.
    pub fn read_for(demand: &Demand, host: &HostFacts) -> Ground {
        let needs = demand.needs.iter().filter_map(|(_, need)| match need {
            Need::Feature(name) => Some(name.as_str()),
            Need::Brought(_) | Need::Path { .. } => None,
        });
        let shifted = clock::is_shifted(host).then(|| Feature::TimeNamespaces.name());
        let names: BTreeSet<&str> = needs.chain(shifted).collect();
        let tried = features::probe_those(|feature| names.contains(feature.name()));
        let granted = TABLE.iter().filter(|row| row.weight == Weight::Required && !names.contains(row.name));
        Ground::with(granted.fold(tried, |features, row| features.with(row.feature)))
    }

    fn with(features: Features) -> Ground {
        let own = std::process::id() as i32;
        let status = godwit_linux::proc::status::read(own, own).unwrap_or_default();
        let (memory_bytes, memory_bound) = memory(&features);
        let home = stat::read_process_wide(own).map_or((0, 0), |stat| (stat.session, stat.process_group));
        Ground {
            facts: crate::host::facts(),
            memory_bytes,
            memory_bound,
            limits: limits::read(own).unwrap_or([(u64::MAX, u64::MAX); 16]),
            home,
            out_of_memory: crate::procfs::oom_score_adj(own).unwrap_or(0),
            user: status.uid[1],
            groups: status.groups.iter().chain(&status.gid).copied().collect(),
            processors: godwit_linux::scheduling::every_processor().unwrap_or_default(),
            bounding: status.capabilities_bounding,
            capability_last: sys::read("kernel/cap_last_cap").unwrap_or(40).clamp(0, 63) as u8,
            features,
        }
    }

    fn may(&self, capability: u8) -> bool {
        self.features.host.may(capability)
    }

    /// What of a tree's demands cannot be met here, but for its numbers; `host` is where it comes from.
    pub fn lacks(&self, demand: &Demand, host: &HostFacts) -> Vec<Refusal> {
        let mut found = Vec::new();
        // What only reading a tree needs does not matter here.
        for row in self.features.lacking().into_iter().filter(|row| row.feature != Feature::MappedFiles) {
            found.push(lack(Subject::Host, format!("kernel feature {}: {}", row.name, row.without)).choice(row.remedy));
        }
        self.processor(demand, host, &mut found);
        if let Verdict::Blocks(refusal) = clock::examine(host, &self.features) {
            found.push(refusal);
        }
        self.memory(demand, &mut found);
        self.limits(demand, &mut found);
        self.privileges(demand, &mut found);
        self.places(demand, &mut found);
        for (subject, need) in &demand.needs {
            found.extend(self.need(subject, need));
        }
        found
    }

    fn processor(&self, demand: &Demand, host: &HostFacts, found: &mut Vec<Refusal>) {
        let here = &self.facts;
        let subject = || Subject::Object("processor".to_owned());
        if host.machine != here.machine {
            found.push(lack(subject(), format!("it is {} here and {} at the source", here.machine, host.machine)));
            return;
        }
        let missing = host.extended_state_mask & !here.extended_state_mask;
        if missing != 0 {
            found.push(lack(subject(), format!("it lacks the extended state components {missing:#x}")));
        } else if host.extended_state_mask == here.extended_state_mask
            && host.extended_state_bytes != here.extended_state_bytes
        {
            let cause = format!(
                "its extended state is laid out otherwise: {} bytes here, {} at the source",
                here.extended_state_bytes, host.extended_state_bytes
            );
            found.push(lack(subject(), cause));
        }
        let mut flags = processor::missing(&host.processor_flags, &here.processor_flags);
        flags.retain(|flag| !demand.unused_processor_flags.contains(*flag));
        if !flags.is_empty() {
            let cause = format!("it lacks instructions that the tree may have chosen its code by: {}", flags.join(" "));
            found.push(
                lack(subject(), cause)
                    .choice("start the program at the source without them: GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX2,…")
                    .choice(format!("if the tree does not use them: --unused-processor-flags {}", flags.join(","))),
            );
        }
    }

    fn memory(&self, demand: &Demand, found: &mut Vec<Refusal>) {
        let needed = demand.memory_bytes;
        if needed > self.memory_bytes {
            let cause =
                format!("{} are needed, {} are free: {}", mib(needed), mib(self.memory_bytes), self.memory_bound);
            found.push(lack(Subject::Object("memory".to_owned()), cause));
        }
        for (size, bytes) in &demand.huge_pages {
            let pool = self.features.host.huge_pages.iter().find(|pool| pool.bytes == *size);
            let free = pool.map_or(0, |pool| pool.free);
            if bytes.div_ceil(*size) > free {
                let cause = format!("{} huge pages of {} are needed, {free} are free", bytes / size, mib(*size));
                let path = format!("/sys/kernel/mm/hugepages/hugepages-{}kB/nr_hugepages", size >> 10);
                found.push(lack(Subject::Object("huge pages".to_owned()), cause).choice(format!("raise {path}")));
            }
        }
        let (bytes, pid) = demand.space_bytes;
        let limit = self.limits[RLIMIT_AS].0;
        if bytes.saturating_add(OWN_BYTES) > limit {
            let cause = format!(
                "its address space needs {}, and the limit of godwit there (\"{}\") is {}",
                mib(bytes.saturating_add(OWN_BYTES)),
                limits::NAMES[RLIMIT_AS],
                mib(limit)
            );
            found.push(lack(Subject::Process(pid), cause).choice("start godwit there with ulimit -v unlimited"));
        }
    }

    fn limits(&self, demand: &Demand, found: &mut Vec<Refusal>) {
        if self.may(SYS_RESOURCE) {
            return;
        }
        let raised = |cause: String, pid: i32, choice: &str| {
            lack(Subject::Process(pid), format!("{cause}, which needs CAP_SYS_RESOURCE there")).choice(choice)
        };
        for (resource, (hard, pid)) in &demand.limits {
            let Some((_, here)) = self.limits.get(*resource as usize) else { continue };
            if hard > here {
                let name = limits::NAMES[*resource as usize];
                let cause =
                    format!("its limit \"{name}\" ({}) is above the one of godwit here ({})", text(*hard), text(*here));
                let choice = "lower it before the move: prlimit --pid PID, or raise it for godwit receive";
                found.push(raised(cause, *pid, choice));
            }
        }
        let (descriptor, pid) = demand.descriptor;
        let hard = self.limits[RLIMIT_NOFILE as usize].1;
        if descriptor as u64 + OWN_DESCRIPTORS > hard {
            let cause = format!("its descriptor {descriptor} is too near to or above the limit of {hard} here");
            found.push(raised(cause, pid, "raise the limit for godwit receive: ulimit -Hn"));
        }
        let (adjustment, pid) = demand.out_of_memory;
        if adjustment < self.out_of_memory {
            let cause = format!("its oom_score_adj {adjustment} is below the {} of godwit here", self.out_of_memory);
            found.push(raised(cause, pid, "raise it before the move: choom -p PID -n 0"));
        }
    }

    fn privileges(&self, demand: &Demand, found: &mut Vec<Refusal>) {
        let refuse = |pid: i32, cause: String| lack(Subject::Process(pid), cause).choice("run godwit there as root");
        let foreign = demand.users.iter().find(|(user, _)| **user != self.user);
        if let Some((user, pid)) = foreign.filter(|_| !self.may(SETUID)) {
            found.push(refuse(
                *pid,
                format!("it runs as user {user}, godwit there as {}, without CAP_SETUID", self.user),
            ));
        }
        let foreign = demand.groups.iter().find(|(group, _)| !self.groups.contains(group));
        if let Some((group, pid)) = foreign.filter(|_| !self.may(SETGID)) {
            found.push(refuse(*pid, format!("it is in group {group}, and godwit there has no CAP_SETGID")));
        }
        let known = |bit: &u8| *bit <= self.capability_last;
        let missing: BTreeMap<u8, i32> = demand
            .capabilities
            .iter()
            .filter(|(bit, _)| known(bit) && self.bounding >> **bit & 1 == 0)
            .map(|(bit, pid)| (*bit, *pid))
            .collect();
        if let Some(pid) = missing.values().next() {
            let name = |bit: &u8| {
                let row = capability::TABLE.iter().find(|row| row.number == *bit);
                row.map_or_else(|| format!("capability {bit}"), |row| format!("CAP_{}", row.name))
            };
            let names: Vec<String> = missing.keys().map(name).collect();
            found.push(refuse(
                *pid,
                format!(
                    "it may have {}, and nobody there may: the bounding set of godwit there lacks it",
                    names.join(", ")
                ),
            ));
        }
        if self.may(SYS_NICE) {
            return;
        }
        if let Some(pid) = demand.real_time {
            found.push(refuse(pid, "it is a real-time task, and godwit there has no CAP_SYS_NICE".to_owned()));
        }
        let (nice, pid) = demand.nice;
        let own = self.limits[RLIMIT_NICE].0.min(40) as i32;
        if nice < 0 && 20 - nice > own {
            found.push(refuse(pid, format!("its nice value is {nice}, and godwit there has no CAP_SYS_NICE")));
        }
    }

    /// Numbers that nobody can have here.
    fn places(&self, demand: &Demand, found: &mut Vec<Refusal>) {
        let limit = self.features.host.process_number_max;
        if let Some(highest) = demand.numbers.last().filter(|highest| **highest as u64 >= limit && limit > 0) {
            found.push(
                lack(Subject::Process(*highest), format!("its number is above kernel.pid_max = {limit} there"))
                    .choice("raise kernel.pid_max at the destination"),
            );
        }
        if let Some(pid) = demand.leaders.get(&0) {
            let (session, group) = demand.home;
            if (session == 0 && self.home.0 != 0) || (group == 0 && self.home.1 != 0) || session != 0 && group != 0 {
                let cause = "the leader of its session or process group is outside of its PID namespace";
                found.push(
                    Refusal::new(Code::UNSUPPORTED, Subject::Process(*pid), cause)
                        .choice("start the program with setsid"),
                );
            }
        }
    }

    fn need(&self, subject: &Subject, need: &Need) -> Option<Refusal> {
        match need {
            Need::Brought(_) => None,
            Need::Feature(name) if self.features.has_named(name) => None,
            Need::Feature(name) => {
                let row = TABLE.iter().find(|row| row.name == name);
                let without = row.map_or("it is not known to godwit there", |row| row.without);
                let refusal = lack(subject.clone(), format!("kernel feature {name}: {without}"));
                Some(match row {
                    Some(row) => refusal.choice(row.remedy),
                    None => refusal,
                })
            }
            Need::Path { path, length, file_type } => {
                let differs = |cause: String| {
                    let cause = match subject {
                        Subject::Path(of_subject) if of_subject == path => cause,
                        _ => format!("{path}: {cause}"),
                    };
                    let refusal = Refusal::new(Code::FILE_DIFFERS, subject.clone(), cause);
                    Some(refusal.choice("make it available there, by a copy or a shared file system"))
                };
                match std::fs::symlink_metadata(path) {
                    Err(error) => differs(error.to_string()),
                    Ok(metadata) if *file_type != 0 && metadata.mode() & S_IFMT != *file_type => {
                        differs(format!("it is {} here and {} at the source", sort(metadata.mode()), sort(*file_type)))
                    }
                    Ok(metadata) => length.differs(metadata.size()).and_then(differs),
                }
            }
        }
    }

    /// Whether a tree whose numbers are taken can get a PID namespace of its own here.
    pub fn can_make_number_namespaces(&self) -> bool {
        self.features.has(Feature::NumberNamespaces)
    }
}

const S_IFMT: u32 = 0o170_000;

fn sort(mode: u32) -> &'static str {
    match mode & S_IFMT {
        0o040_000 => "a directory",
        0o100_000 => "a regular file",
        0o120_000 => "a symbolic link",
        0o020_000 => "a character device",
        0o060_000 => "a block device",
        0o010_000 => "a FIFO",
        0o140_000 => "a socket",
        _ => "something else",
    }
}

fn lack(subject: Subject, cause: String) -> Refusal {
    Refusal::new(Code::DESTINATION_LACKS, subject, cause)
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

fn text(limit: u64) -> String {
    if limit == u64::MAX { "unlimited".to_owned() } else { limit.to_string() }
}

/// Memory that new tasks of this process can have, and what sets the bound.
fn memory(features: &Features) -> (u64, String) {
    let mut least = (features.host.memory_available_bytes, "MemAvailable of this host".to_owned());
    let own = std::process::id() as i32;
    for group in cgroup::read(own, own).unwrap_or_default() {
        let path = String::from_utf8_lossy(&group.path).into_owned();
        let (roots, limit, used): (&[&str], _, _) = if group.hierarchy == 0 {
            (&["/sys/fs/cgroup", "/sys/fs/cgroup/unified"], "memory.max", "memory.current")
        } else if group.controllers.iter().any(|controller| controller == b"memory") {
            (&["/sys/fs/cgroup/memory"], "memory.limit_in_bytes", "memory.usage_in_bytes")
        } else {
            continue;
        };
        for root in roots {
            // A limit above bounds what is below.
            for above in Path::new(&path).ancestors() {
                let directory = Path::new(root).join(above.strip_prefix("/").unwrap_or(above));
                let number = |name: &str| -> Option<u64> {
                    std::fs::read_to_string(directory.join(name)).ok()?.trim().parse().ok()
                };
                // "max" is no number: no limit.
                if let (Some(limit), Some(used)) = (number(limit), number(used)) {
                    let room = limit.saturating_sub(used);
                    if room < least.0 {
                        least = (room, format!("the control group {} allows {}", directory.display(), mib(limit)));
                    }
                }
            }
        }
    }
    least
}

/// The numbers that belong to somebody else here: to a process or thread, or still to a session or group of some. Whoever is
/// about to be gone (the very tree that was checkpointed just now, say, until its parent has waited for it) is waited for.
pub fn taken(demand: &Demand) -> Vec<Refusal> {
    let begin = Instant::now();
    loop {
        let (found, passing) = taken_now(demand);
        if !passing || begin.elapsed() > ENDING_PATIENCE {
            return found;
        }
        std::thread::sleep(ENDING_PAUSE);
    }
}

/// The same at this moment, and whether some of them belong to those who have ended and are not gone yet.
fn taken_now(demand: &Demand) -> (Vec<Refusal>, bool) {
    let mut owners: BTreeMap<i32, (String, bool)> = BTreeMap::new();
    let name = |pid: i32| {
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        format!("{:?}", comm.trim())
    };
    for pid in directory::processes().unwrap_or_default() {
        let Ok(stat) = stat::read_process_wide(pid) else { continue };
        let ending = is_ending(&stat);
        for (number, of) in [(stat.session, "the session of "), (stat.process_group, "the process group of ")] {
            let owner = owners.entry(number).or_insert_with(|| (format!("{of}{pid}"), ending));
            // One that lives keeps the number, whoever else ends.
            if owner.1 && !ending {
                *owner = (format!("{of}{pid}"), false);
            }
        }
    }
    let home = {
        let own = stat::read_process_wide(std::process::id() as i32);
        own.map_or((0, 0), |own| (own.session, own.process_group))
    };
    let mut found = Vec::new();
    let mut passing = false;
    let numbers = demand.numbers.iter().map(|number| (*number, None));
    let leaders = demand.leaders.iter().map(|(number, member)| (*number, Some(*member)));
    // A leader outside the tree in whose session and group we are ourselves is no stranger: members are born in them.
    let ours = |number: i32, member: Option<i32>| member.is_some() && (number == home.0 || number == home.1);
    for (number, member) in numbers.chain(leaders).filter(|(number, member)| *number > 0 && !ours(*number, *member)) {
        let (owner, ending) = if Path::new(&format!("/proc/{number}")).exists() {
            (name(number), stat::read(number, number).is_ok_and(|stat| is_ending(&stat)))
        } else {
            match owners.get(&number) {
                Some(owner) => owner.clone(),
                None => continue,
            }
        };
        passing |= ending;
        let whose = match member {
            Some(member) => format!(
                "the session or process group of process {member}, which is led from outside the tree, has this number, and here "
            ),
            None => "here ".to_owned(),
        };
        let cause = format!("{whose}it belongs to {owner}");
        found.push(Refusal::new(Code::PID_IN_USE, Subject::Process(number), cause));
    }
    (found, passing)
}

/// Whether a process or thread has ended, or does so just now, and keeps no more than its number; or is a newborn of a restore
/// that was ended before it took hold of it: that one has the name of its maker still, and ends by itself within two seconds.
fn is_ending(stat: &stat::Stat) -> bool {
    matches!(stat.state, b'Z' | b'X') || stat.flags & PF_EXITING != 0 || stat.comm.starts_with(b"godwit")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Length;

    fn ground() -> Ground {
        let mut ground = Ground::read();
        let mut features = Features::all();
        features.host = ground.features.host;
        ground.features = features;
        ground.memory_bytes = 1 << 30;
        ground.features.host.capabilities = u64::MAX;
        ground.bounding = u64::MAX;
        ground.processors = vec![0b11];
        ground
    }

    fn causes(ground: &Ground, demand: &Demand) -> Vec<String> {
        let found = ground.lacks(demand, &ground.facts.clone());
        found.iter().map(|refusal| format!("{}: {}", refusal.subject, refusal.cause)).collect()
    }

    fn assert_one(ground: &Ground, demand: &Demand, words: &str) {
        let found = causes(ground, demand);
        assert!(found.len() == 1 && found[0].contains(words), "{words}: {found:?}");
    }

    #[test]
    fn what_is_there_is_enough() {
        assert_eq!(causes(&ground(), &Demand::default()), [""; 0]);
    }

    #[test]
    fn memory_and_limits() {
        let mut ground = ground();
        assert_one(
            &ground,
            &Demand { memory_bytes: 2 << 30, ..Demand::default() },
            "2048 MiB are needed, 1024 MiB are free",
        );
        let huge = Demand { huge_pages: [(3 << 20, 6 << 20)].into(), ..Demand::default() };
        assert_one(&ground, &huge, "2 huge pages of 3 MiB are needed, 0 are free");
        ground.limits[RLIMIT_AS] = (1 << 30, u64::MAX);
        assert_one(
            &ground,
            &Demand { space_bytes: (1 << 30, 7), ..Demand::default() },
            "process 7: its address space needs 1088 MiB",
        );
        ground.limits = [(10, 20); 16];
        ground.limits[RLIMIT_AS] = (u64::MAX, u64::MAX);
        let raised = Demand { limits: [(6, (21, 7))].into(), ..Demand::default() };
        assert_eq!(causes(&ground, &raised), [""; 0], "CAP_SYS_RESOURCE may raise limits");
        ground.features.host.capabilities &= !(1 << SYS_RESOURCE);
        ground.limits[RLIMIT_NOFILE as usize] = (1000, 1000);
        assert_one(
            &ground,
            &raised,
            "process 7: its limit \"Max processes\" (21) is above the one of godwit here (20)",
        );
        assert_one(&ground, &Demand { descriptor: (990, 7), ..Demand::default() }, "descriptor 990");
        ground.out_of_memory = 0;
        assert_one(&ground, &Demand { out_of_memory: (-5, 7), ..Demand::default() }, "oom_score_adj -5");
    }

    #[test]
    fn privileges() {
        let mut ground = ground();
        let greedy = Demand {
            users: [(ground.user + 1, 7)].into(),
            groups: [(4_000_000, 7)].into(),
            nice: (-5, 7),
            real_time: Some(8),
            capabilities: [(3, 7), (63, 7)].into(),
            ..Demand::default()
        };
        assert_eq!(causes(&ground, &greedy), [""; 0]);
        ground.features.host.capabilities = 0;
        ground.bounding = 0;
        ground.limits[RLIMIT_NICE] = (0, 0);
        let found = causes(&ground, &greedy);
        for words in
            ["runs as user", "in group 4000000", "nice value is -5", "process 8: it is a real-time", "CAP_FOWNER, and"]
        {
            assert!(found.iter().any(|cause| cause.contains(words)), "{words}: {found:?}");
        }
        assert_eq!(found.len(), 5);
    }

    #[test]
    fn needs_of_objects() {
        let ground = ground();
        let ask =
            |need: Need| causes(&ground, &Demand { needs: vec![(Subject::Process(7), need)], ..Demand::default() });
        let bytes = std::fs::metadata("/proc/self/exe").unwrap().len();
        let exe = std::env::current_exe().unwrap().to_string_lossy().into_owned();
        let file = |length| Need::Path { path: exe.clone(), length, file_type: 0o100_000 };
        assert_eq!(ask(file(Length::Exactly(bytes))), [""; 0]);
        assert_eq!(ask(file(Length::AtLeast(1))), [""; 0]);
        assert!(ask(file(Length::Exactly(bytes + 1)))[0].contains("at the source"));
        assert!(
            ask(Need::path(exe.clone(), 0o040_000))[0].contains("a regular file here and a directory at the source")
        );
        assert!(ask(Need::path("/no/such/file".to_owned(), 0o100_000))[0].contains("No such file"));
        assert_eq!(ask(Need::feature(Feature::MemorySeal)), [""; 0]);
        assert!(ask(Need::Feature("new-feature".to_owned()))[0].contains("new-feature"));
        let old = Ground { features: ground.features.clone().without(Feature::MemorySeal), ..ground.clone() };
        let demand =
            Demand { needs: vec![(Subject::Process(7), Need::feature(Feature::MemorySeal))], ..Demand::default() };
        assert_one(&old, &demand, "sealed mappings are refused");
        assert_one(
            &Ground { features: ground.features.clone().without(Feature::Seize), ..ground.clone() },
            &Demand::default(),
            "ptrace-seize",
        );
    }

    #[test]
    fn processors() {
        let ground = ground();
        let of = |host: &HostFacts, demand: &Demand| ground.lacks(demand, host).len();
        let source =
            HostFacts { processor_flags: format!("{} xop tbm", ground.facts.processor_flags), ..ground.facts.clone() };
        assert_eq!(of(&source, &Demand::default()), 1);
        let unused = ["xop".to_owned(), "tbm".to_owned()].into();
        assert_eq!(of(&source, &Demand { unused_processor_flags: unused, ..Demand::default() }), 0);
        assert_eq!(of(&HostFacts { extended_state_mask: u64::MAX, ..ground.facts.clone() }, &Demand::default()), 1);
        assert_eq!(of(&HostFacts { extended_state_bytes: 1, ..ground.facts.clone() }, &Demand::default()), 1);
        assert_eq!(of(&HostFacts { machine: "riscv64".to_owned(), ..ground.facts.clone() }, &Demand::default()), 1);
        let later = HostFacts { monotonic_ns: u64::MAX >> 1, ..ground.facts.clone() };
        assert_eq!(of(&later, &Demand::default()), 0);
        let without = Ground { features: ground.features.clone().without(Feature::TimeNamespaces), ..ground.clone() };
        assert_eq!(without.lacks(&Demand::default(), &later).len(), 1);
    }

    #[test]
    fn numbers_of_others_are_found() {
        let own = std::process::id() as i32;
        let found = taken(&Demand { numbers: [own, i32::MAX].into(), ..Demand::default() });
        assert_eq!(found.iter().map(|refusal| refusal.code).collect::<Vec<_>>(), [Code::PID_IN_USE]);
        let (session, _) = ground().home;
        let led = Demand { leaders: [(session, 7)].into(), ..Demand::default() };
        assert_eq!(taken(&led), [], "our own session is no stranger's");
    }
}
