//! What a tree demands of the host that it is to live on: of a running tree as far as it shows from outside, of an image
//! all of it. Compared with what a host has in `ground`, before anything is frozen or built.
use crate::failure::{Result, malformed};
use crate::foresight::Foresight;
use crate::procfs;
use crate::resource::{self, Need};
use godwit_image::host::HostFacts;
use godwit_image::memory::AreaFlags;
use godwit_image::task::State;
use godwit_image::tree::Tree;
use godwit_image::{Pid, Subject};
use godwit_linux::features::Feature;
use godwit_linux::proc::{limits, smaps_rollup, stat::Stat, status::Status};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The demands. Of everything that only has to suffice for the greediest, that one's number stands beside it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Demand {
    /// Number of the root.
    pub root: i32,
    /// The root's session and process group.
    pub home: (i32, i32),
    /// Every number that a process or thread has.
    pub numbers: BTreeSet<i32>,
    /// Numbers of leaders of sessions and groups that are not in the tree, with a member: each is taken for a moment.
    pub leaders: BTreeMap<i32, i32>,
    /// Memory that must find room, in bytes.
    pub memory_bytes: u64,
    /// The largest address space in bytes, and whose.
    pub space_bytes: (u64, i32),
    /// Bytes of huge pages, by the size of one; of an image it is not told.
    pub huge_pages: BTreeMap<u64, u64>,
    /// The highest descriptor, and whose.
    pub descriptor: (i32, i32),
    /// By RLIMIT_* number the highest hard limit, and whose.
    pub limits: BTreeMap<u32, (u64, i32)>,
    /// The lowest oom_score_adj, and whose.
    pub out_of_memory: (i32, i32),
    /// The lowest nice value, and whose.
    pub nice: (i32, i32),
    /// Real-time tasks: one of them.
    pub real_time: Option<i32>,
    /// Masks of processors that threads are bound to, as sched_getaffinity(2) tells them, each with such a thread.
    pub processors: BTreeMap<Vec<u8>, i32>,
    /// User ids, each with a process that has it.
    pub users: BTreeMap<u32, i32>,
    /// Group ids, likewise.
    pub groups: BTreeMap<u32, i32>,
    /// Capabilities of the permitted and bounding sets of all, by bit, each with a process that has it.
    pub capabilities: BTreeMap<u8, i32>,
    /// The root's large memory, which may be made before the tree is stopped.
    pub foresight: Foresight,
    /// What objects need.
    pub needs: Vec<(Subject, Need)>,
    /// Processor features that the source has and the user says the tree does not use.
    pub unused_processor_flags: BTreeSet<String>,
}

fn at_most<T: PartialOrd>(kept: &mut (T, i32), value: T, pid: i32) {
    if value > kept.0 {
        *kept = (value, pid);
    }
}

fn at_least(kept: &mut (i32, i32), value: i32, pid: i32) {
    if value < kept.0 {
        *kept = (value, pid);
    }
}

impl Demand {
    /// Adds an object's needs.
    pub(crate) fn need(&mut self, subject: &Subject, needs: Vec<Need>) {
        self.needs.extend(needs.into_iter().map(|need| (subject.clone(), need)));
    }

    /// Adds a descriptor number.
    pub(crate) fn descriptor(&mut self, number: i32, pid: i32) {
        at_most(&mut self.descriptor, number, pid);
    }

    /// Adds what /proc tells of a running process.
    pub(crate) fn process(&mut self, stat: &Stat, status: &Status) {
        let pid = stat.pid;
        if self.root == 0 {
            (self.root, self.home) = (pid, (stat.session, stat.process_group));
        }
        for leader in [stat.session, stat.process_group] {
            self.leaders.entry(leader).or_insert(pid);
        }
        if let Some(memory) = &status.memory {
            at_most(&mut self.space_bytes, memory.size, pid);
            // Where it cannot be told proportionally, shared pages count for each.
            self.memory_bytes += smaps_rollup::read(pid)
                .map(|sizes| sizes.anonymous + sizes.shared + sizes.swap)
                .unwrap_or(memory.resident_anonymous + memory.resident_shared + memory.swap);
        }
        // Gone meanwhile: then it demands nothing.
        for (resource, (_, hard)) in limits::read(pid).unwrap_or([(0, 0); 16]).iter().enumerate() {
            self.limit(resource as u32, *hard, pid);
        }
        at_least(&mut self.out_of_memory, procfs::oom_score_adj(pid).unwrap_or(0), pid);
        self.priority(stat.policy, stat.nice, pid);
        self.identity(status.uid, status.gid, &status.groups, pid);
        self.may(status.capabilities_permitted | status.capabilities_bounding, pid);
        if status.seccomp.unwrap_or(0) == 2 {
            self.need(&Subject::Process(pid), vec![Need::feature(Feature::SuspendSeccomp)]);
        }
    }

    fn limit(&mut self, resource: u32, hard: u64, pid: i32) {
        at_most(self.limits.entry(resource).or_default(), hard, pid);
    }

    fn priority(&mut self, policy: u32, nice: i32, pid: i32) {
        at_least(&mut self.nice, nice, pid);
        // SCHED_FIFO, SCHED_RR, SCHED_DEADLINE.
        if matches!(policy, 1 | 2 | 6) {
            self.real_time.get_or_insert(pid);
        }
    }

    /// Adds a thread's mask of processors, empty when it may run on all.
    pub(crate) fn bound_to(&mut self, mask: Vec<u8>, tid: i32) {
        if !mask.is_empty() {
            self.processors.entry(mask).or_insert(tid);
        }
    }

    fn identity(&mut self, user: [u32; 4], group: [u32; 4], groups: &[u32], pid: i32) {
        for user in user {
            self.users.entry(user).or_insert(pid);
        }
        for group in group.iter().chain(groups) {
            self.groups.entry(*group).or_insert(pid);
        }
    }

    fn may(&mut self, mask: u64, pid: i32) {
        for bit in (0..64).filter(|bit| mask >> bit & 1 != 0) {
            self.capabilities.entry(bit).or_insert(pid);
        }
    }

    /// Notes the large memory of the root.
    pub(crate) fn foresee(&mut self, foresight: Foresight) {
        self.foresight = foresight;
    }

    /// Leaders that are in the tree need no second number; directories that come with a file need not be there.
    pub(crate) fn settle(&mut self) {
        // Of a tree whose memory lies mostly elsewhere everything is made when it comes.
        if self.foresight.present.bytes().saturating_mul(2) < self.memory_bytes {
            self.foresight = self.foresight.without_memory();
        }
        let Demand { numbers, leaders, needs, .. } = self;
        leaders.retain(|leader, _| !numbers.contains(leader));
        let brought: BTreeSet<String> = needs
            .iter()
            .filter_map(|(_, need)| if let Need::Brought(path) = need { Some(path.clone()) } else { None })
            .collect();
        let mut seen = BTreeSet::new();
        needs.retain(|(_, need)| match need {
            Need::Brought(_) => false,
            Need::Path { path, length, file_type } => {
                !brought.contains(path) && seen.insert((path.clone(), Some((*length, *file_type))))
            }
            Need::Feature(name) => seen.insert((name.clone(), None)),
        });
    }

    /// The demands of an image.
    ///
    /// # Errors
    /// GW1101, GW1004: an object is of an unknown kind, or malformed.
    pub fn of_image(tree: &Tree) -> Result<Demand> {
        let mut demand = Demand::default();
        for envelope in &tree.objects {
            let kind = resource::kind_of(envelope)?;
            let subject = Subject::Object(format!("{} {}", kind.name(), envelope.id));
            for need in kind.needs(envelope)? {
                let subject = match &need {
                    Need::Path { path, .. } => Subject::Path(path.clone()),
                    _ => subject.clone(),
                };
                demand.need(&subject, vec![need]);
            }
        }
        for space in &tree.spaces {
            let owner = tree.tasks.iter().find(|task| task.space == Some(space.id)).map_or(0, |task| task.pid.0);
            let mut total = 0_u64;
            for area in &space.areas {
                let bytes = area.end.saturating_sub(area.start);
                total = total.saturating_add(bytes);
                if area.flags & AreaFlags::SEALED != 0 {
                    demand.need(&Subject::Process(owner), vec![Need::feature(Feature::MemorySeal)]);
                }
            }
            at_most(&mut demand.space_bytes, total, owner);
        }
        for table in &tree.tables {
            for slot in &table.slots {
                demand.descriptor(slot.descriptor, 0);
            }
        }
        for task in &tree.tasks {
            let pid = task.pid.0;
            if demand.root == 0 {
                (demand.root, demand.home) = (pid, (task.session.0, task.group.0));
            }
            for Pid(leader) in [task.session, task.group] {
                demand.leaders.entry(leader).or_insert(pid);
            }
            demand.numbers.insert(pid);
            demand.numbers.extend(task.threads.iter().map(|thread| thread.tid.0));
            if matches!(task.state, State::Zombie(_)) {
                continue;
            }
            for (resource, (_, hard)) in task.limits.iter().enumerate() {
                demand.limit(resource as u32, *hard, pid);
            }
            at_least(&mut demand.out_of_memory, task.out_of_memory_adjustment, pid);
            for thread in task.threads.iter().filter(|thread| !thread.dead) {
                demand.bound_to(thread.affinity.clone(), thread.tid.0);
                demand.priority(thread.scheduling.policy, thread.scheduling.nice, pid);
                let of = &thread.credentials;
                demand.identity(of.user, of.group, &of.groups, pid);
                demand.may(of.permitted | of.bounding, pid);
                if !of.seccomp_filters.is_empty() {
                    demand.need(&Subject::Process(pid), vec![Need::feature(Feature::SuspendSeccomp)]);
                }
            }
        }
        demand.settle();
        Ok(demand)
    }
}

/// The facts about this host as a process of a tree sees them: its clocks may be those of another time namespace.
///
/// # Errors
/// GW1004: /proc is not understood.
pub fn host_as_seen_by(pid: i32) -> Result<HostFacts> {
    let mut facts = crate::host::facts();
    let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/time")).ok();
    let own = std::process::id() as i32;
    if namespace(pid) != namespace(own) {
        let there = godwit_linux::proc::timens_offsets::read(pid).ok().flatten().unwrap_or_default();
        let here = godwit_linux::time_namespace::own().map_err(|error| malformed(Subject::Host, error))?;
        let nanoseconds = |seconds: i64, rest: u32| seconds.saturating_mul(1_000_000_000).saturating_add(rest.into());
        let monotonic = nanoseconds(there.monotonic.seconds, there.monotonic.nanoseconds) - here.monotonic;
        let boottime = nanoseconds(there.boottime.seconds, there.boottime.nanoseconds) - here.boottime;
        facts.monotonic_ns = facts.monotonic_ns.saturating_add_signed(monotonic);
        facts.monotonic_raw_ns = facts.monotonic_raw_ns.saturating_add_signed(monotonic);
        facts.monotonic_coarse_ns = facts.monotonic_coarse_ns.saturating_add_signed(monotonic);
        facts.boottime_ns = facts.boottime_ns.saturating_add_signed(boottime);
    }
    Ok(facts)
}
