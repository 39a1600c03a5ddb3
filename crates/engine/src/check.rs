//! What a move would do to every object of a running tree, found without freezing anything.
use crate::capture::{Options, job_control, moment};
use crate::demand::Demand;
use crate::edges::Edges;
use crate::failure::{About, Result, unread, with_choices};
use crate::foresight::Foresight;
use crate::freeze;
use crate::lineage::{Lineage, Member};
use crate::look::{Look, Purpose, Survey};
use crate::procfs;
use crate::resource::file_content::FileContent;
use crate::resource::unopened_memory::{self, Makers};
use crate::resource::{Description, KINDS, Kind, Running, edge, flock, owner};
use godwit_image::{Code, Pid, Refusal, Subject, Verdict};
use godwit_linux::features::Feature;
use godwit_linux::kcmp::{self, Object};
use godwit_linux::pidfd::PidFd;
use godwit_linux::proc::stat::Stat;
use godwit_linux::proc::status::Status;
use godwit_linux::proc::{Error as ProcError, smaps, stat, status};
use godwit_linux::scheduling;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

/// Seccomp in /proc/PID/status.
const SECCOMP_FILTERS: u32 = 2;
/// PF_KTHREAD.
const KERNEL_THREAD: u32 = 0x0020_0000;
const O_PATH: u32 = 0o10_000_000;
const O_DIRECTORY: u32 = 0o200_000;
/// How often a tree whose processes come and go is read anew before its shape is left undecided.
const READINGS_MAX: usize = 20;

/// The verdict about one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub subject: Subject,
    /// The kind's name.
    pub kind: String,
    /// What a move would do.
    pub verdict: Verdict,
}

impl Finding {
    fn new(subject: Subject, kind: &str, verdict: Verdict) -> Finding {
        Finding { subject, kind: kind.to_owned(), verdict }
    }

    /// Whether it stops a move.
    pub fn blocks(&self) -> bool {
        matches!(self.verdict, Verdict::Blocks(_))
    }
}

/// A tree as `check` sees it.
#[derive(Clone, Debug, Default)]
pub struct Examination {
    /// When it was begun; none: it was not.
    pub began: Option<SystemTime>,
    /// Process numbers, root first.
    pub pids: Vec<i32>,
    /// What the tree demands of its destination.
    pub demand: Demand,
    /// One entry per object.
    pub findings: Vec<Finding>,
}

impl Examination {
    /// The findings that stop a move.
    pub fn refusals(&self) -> Vec<Refusal> {
        self.findings
            .iter()
            .filter_map(|finding| match &finding.verdict {
                Verdict::Blocks(refusal) => Some(refusal.clone()),
                _ => None,
            })
            .collect()
    }
}

/// How often in a row an outsider has to be seen: a child that the tree has just made, and another one the next time, looks the same.
const CONFIRMATIONS: usize = 3;

/// Examines a running tree. Objects that appear or vanish meanwhile are not an error: the capture looks again. What blocks has
/// to block twice: who is born meanwhile seems to be an outsider. `has`: what this host can do; asked only for what something in
/// the tree needs.
///
/// # Errors
/// GW1001, GW1002: the tree cannot be looked at at all. GW1501: a choice is about a descriptor that does not exist.
pub fn examine(root: i32, options: &Options, has: &dyn Fn(Feature) -> bool) -> Result<Examination> {
    let mut seen = examine_once(root, options, has);
    let mut confirmed = 0;
    for pause in moment::PAUSES_MS {
        if seen.as_ref().is_ok_and(|examination| !examination.findings.iter().any(Finding::blocks)) {
            break;
        }
        let before = seen.map(|examination| examination.refusals());
        // Of a process that is about to end nothing can be had, for as long as that takes.
        let has_to_pass = match &before {
            Ok(refusals) => refusals.iter().all(moment::passes),
            Err(refusal) => refusal.code == Code::PROCESS_VANISHED,
        };
        let is_about_others =
            before.as_ref().is_ok_and(|refusals| refusals.iter().any(|refusal| refusal.code == Code::EDGE));
        if has_to_pass || is_about_others {
            std::thread::sleep(Duration::from_millis(pause));
        }
        seen = examine_once(root, options, has);
        let same = !has_to_pass && seen.as_ref().map(Examination::refusals).map_err(Clone::clone) == before;
        confirmed = if same { confirmed + 1 } else { 0 };
        if confirmed >= if is_about_others { CONFIRMATIONS } else { 1 } {
            break;
        }
    }
    seen
}

fn examine_once(root: i32, options: &Options, has: &dyn Fn(Feature) -> bool) -> Result<Examination> {
    let began = Some(SystemTime::now());
    let (pids, members) = members(root)?;
    movable(root, &pids)?;
    let survey = Survey::new(&pids);
    let edges = Edges::find(&pids, &options.edges)?;
    let mut examiner = Examiner {
        root,
        edges,
        survey,
        has,
        seen_files: BTreeSet::new(),
        makers: Makers::default(),
        processors: scheduling::every_processor().about(|| Subject::Host)?,
        examination: Examination { began, pids: pids.clone(), ..Examination::default() },
    };
    match members {
        Some(members) => examiner.shape(&members)?,
        None => {
            let what = "its processes come and go so fast that its shape shows only when it is frozen";
            examiner.find(Subject::Process(root), "lineage", Verdict::Undecided(what.to_owned()));
        }
    }
    for pid in pids {
        let stat = match stat::read_process_wide(pid) {
            Ok(stat) => stat,
            Err(ProcError::Gone) if pid != root => continue,
            Err(ProcError::Gone) => {
                return Err(Refusal::new(Code::NO_SUCH_PROCESS, Subject::Process(pid), "it has ended"));
            }
            Err(error) => return Err(unread(Subject::Process(pid), &error)),
        };
        examiner.examination.demand.numbers.insert(pid);
        if is_zombie(&stat) {
            examiner.find(Subject::Process(pid), "zombie", Verdict::Carried);
            continue;
        }
        match examiner.process(&stat) {
            // It may end at any moment: then there is nothing to say of it.
            Err(_) if pid != root && !alive(pid) => {}
            other => other?,
        }
    }
    examiner.unopened_memory();
    examiner.examination.demand.settle();
    Ok(examiner.examination)
}

/// Whether a tree can be moved at all, whatever it has: not the kernel's own threads, and not whoever would have to do it.
fn movable(root: i32, pids: &[i32]) -> Result<()> {
    let own = std::process::id() as i32;
    if pids.contains(&own) {
        let what = if root == own { "it is" } else { "in its tree is" };
        let cause = format!("{what} process {own}, the godwit that is to move it");
        return Err(Refusal::new(Code::NOT_MIGRATABLE, Subject::Process(root), cause)
            .choice("run godwit from outside of the tree: from another terminal or login, or as a service")
            .choice("name a smaller tree"));
    }
    match stat::read_process_wide(root) {
        Ok(stat) if stat.flags & KERNEL_THREAD != 0 => {
            Err(Refusal::new(Code::NOT_MIGRATABLE, Subject::Process(root), "it is a thread of the kernel")
                .choice("name the process of a program"))
        }
        _ => Ok(()),
    }
}

/// Not only its first thread has ended.
fn is_zombie(stat: &Stat) -> bool {
    stat.state == b'Z' && procfs::threads(stat.pid).map_or(0, |threads| threads.len()) <= 1
}

fn alive(pid: i32) -> bool {
    stat::read_process_wide(pid).is_ok_and(|stat| stat.state != b'Z')
}

/// The numbers of a tree, and its shape when it holds still for long enough to be read.
fn members(root: i32) -> Result<(Vec<i32>, Option<Vec<Stat>>)> {
    let mut pids = Vec::new();
    for _ in 0..READINGS_MAX {
        pids = freeze::tree(root)?;
        let stats: Option<Vec<Stat>> = pids.iter().map(|pid| stat::read_process_wide(*pid).ok()).collect();
        let known: BTreeSet<i32> = pids.iter().copied().collect();
        let whole = |stats: &Vec<Stat>| stats.iter().skip(1).all(|stat| known.contains(&stat.parent));
        if let Some(stats) = stats.filter(whole) {
            return Ok((pids, Some(stats)));
        }
    }
    Ok((pids, None))
}

struct Examiner<'a> {
    root: i32,
    edges: Edges,
    survey: Survey,
    has: &'a dyn Fn(Feature) -> bool,
    seen_files: BTreeSet<(u64, u64, Vec<u8>, bool)>,
    /// Whose shared memory that nobody has open is the tree's.
    makers: Makers,
    /// Every processor that threads may be bound to here.
    processors: Vec<u8>,
    examination: Examination,
}

impl Examiner<'_> {
    fn find(&mut self, subject: Subject, kind: &str, verdict: Verdict) {
        let verdict = match verdict {
            Verdict::Blocks(refusal) => Verdict::Blocks(with_choices(refusal)),
            other => other,
        };
        self.examination.findings.push(Finding::new(subject, kind, verdict));
    }

    fn refuse(&mut self, kind: &str, refusal: Refusal) {
        self.find(refusal.subject.clone(), kind, Verdict::Blocks(refusal));
    }

    /// Whether births can give the tree its shape.
    fn shape(&mut self, stats: &[Stat]) -> Result<()> {
        let member = |stat: &Stat| Member {
            pid: Pid(stat.pid),
            parent: Pid(stat.parent),
            session: Pid(stat.session),
            zombie: is_zombie(stat),
        };
        let members: Vec<Member> = stats.iter().map(member).collect();
        if let Err(refusal) = Lineage::plan(&members) {
            self.refuse("lineage", refusal);
        }
        let living: Vec<(i32, i32)> =
            stats.iter().filter(|stat| stat.state != b'Z').map(|stat| (stat.pid, stat.parent)).collect();
        for &(pid, _) in living.iter().filter(|(pid, parent)| crate::vfork::is_in_flight(*pid, *parent)) {
            let what = "a vfork is in flight: a move waits for some seconds until the child executes a program or ends, and is refused then";
            self.find(Subject::Process(pid), "vfork", Verdict::Undecided(what.to_owned()));
        }
        for refusal in crate::sharing::judge(&living)? {
            self.refuse("sharing", refusal);
        }
        Ok(())
    }

    fn unopened_memory(&mut self) {
        for unopened in unopened_memory::all(&self.makers, |_, _| false) {
            self.examination.demand.need(&unopened.subject(), unopened.foresee());
            self.find(unopened.subject(), FileContent.name(), unopened.verdict());
        }
    }

    fn process(&mut self, stat: &Stat) -> Result<()> {
        let pid = stat.pid;
        let threads = procfs::threads(pid).about(|| Subject::Process(pid))?;
        let Some(status) = self.task(stat, &threads)? else { return Ok(()) };
        self.makers.note(status.uid[3], stat.start_time);
        // A thread may have a table of its own; of a leader that has ended /proc shows none.
        let mut first = None;
        for tid in threads {
            let same = |object| first.is_some_and(|first| kcmp::kcmp(first, tid, object) == Ok(Ordering::Equal));
            let (files, directories) = (same(Object::Files), same(Object::Filesystem));
            if !files {
                self.descriptors(tid)?;
            }
            if !directories {
                self.place(tid, "cwd", Purpose::Directory, O_PATH | O_DIRECTORY);
                self.place(tid, "root", Purpose::Directory, O_PATH | O_DIRECTORY);
            }
            if first.is_none() && stat::read(pid, tid).is_ok_and(|stat| !matches!(stat.state, b'Z' | b'X')) {
                self.place(tid, "exe", Purpose::Executable, 0);
                self.mappings(tid, &status)?;
                first = Some(tid);
            }
        }
        for kind in KINDS {
            if let Some(state) = kind.task_state() {
                for (subject, verdict) in state.examine(Running { pid, status: &status }) {
                    self.find(subject, kind.name(), verdict);
                }
                self.examination.demand.need(&Subject::Process(pid), state.foresee(pid));
            }
        }
        Ok(())
    }

    /// Judges a task by itself; what /proc says of it, or nothing when it has ended meanwhile.
    fn task(&mut self, stat: &Stat, threads: &[i32]) -> Result<Option<Status>> {
        let pid = stat.pid;
        let subject = Subject::Process(pid);
        self.examination.demand.numbers.extend(threads.iter().copied());
        for tid in threads {
            // Gone meanwhile: then it is bound to nothing.
            let mask = scheduling::affinity(*tid).unwrap_or_default();
            if mask != self.processors {
                self.examination.demand.bound_to(mask, *tid);
            }
        }
        let status = match status::read(pid, pid) {
            Ok(status) => status,
            Err(ProcError::Gone) => return Ok(None),
            Err(error) => return Err(unread(subject, &error)),
        };
        self.examination.demand.process(stat, &status);
        let lacks = |feature: Feature, cause: &str| {
            (!(self.has)(feature)).then(|| {
                Refusal::new(Code::ENVIRONMENT, subject.clone(), format!("{cause}: {} is missing here", feature.name()))
                    .choice("see godwit doctor for what to change")
            })
        };
        let verdict = if status.tracer != 0 {
            let cause = format!("process {} traces it", status.tracer);
            let refusal = Refusal::new(Code::ALREADY_TRACED, subject.clone(), cause);
            Verdict::Blocks(refusal.choice(format!("end process {}, or have it detach", status.tracer)))
        } else if status.namespace_pid.len() > 1 && status.namespace_pid.last() != Some(&pid) {
            let cause = "it lives in a PID namespace below this one";
            Verdict::Blocks(
                Refusal::new(Code::UNSUPPORTED, subject.clone(), cause).choice("run godwit inside that namespace"),
            )
        } else if job_control::has_blocked_continuation(status.pending | status.shared_pending, status.blocked) {
            Verdict::Blocks(job_control::blocked_continuation(pid))
        } else if let Some(refusal) = (status.seccomp.unwrap_or(0) != 0)
            .then(|| lacks(Feature::SuspendSeccomp, "its seccomp filters cannot be suspended"))
            .flatten()
        {
            Verdict::Blocks(refusal)
        } else if let Some(refusal) = (stat.state == b'Z')
            .then(|| {
                lacks(Feature::ThreadDescriptor, "its first thread has ended, and its descriptors cannot be reached")
            })
            .flatten()
        {
            Verdict::Blocks(refusal)
        } else {
            crate::namespaces::judge(pid, self.root, &crate::namespaces::Home::own())
                .map_or_else(Verdict::Blocks, |()| Verdict::Carried)
        };
        let kind =
            if threads.len() > 1 { format!("process of {} threads", threads.len()) } else { "process".to_owned() };
        self.find(subject.clone(), &kind, verdict);
        if status.seccomp.unwrap_or(0) == SECCOMP_FILTERS {
            let what = "whether another process answers calls that its seccomp filters catch shows only when it is frozen; then a move is refused";
            self.find(subject, "seccomp filters", Verdict::Undecided(what.to_owned()));
        }
        Ok(Some(status))
    }

    fn judge(&self, look: &Look) -> (String, Verdict, Option<&'static dyn Description>) {
        for kind in KINDS {
            let kind: &'static dyn Kind = *kind;
            if let Some(description) = kind.description().filter(|description| description.recognise(look)) {
                let verdict = match flock::refuse(look).or_else(|| owner::refuse(look, &self.survey)) {
                    Some(refusal) => Verdict::Blocks(refusal),
                    None => description.examine(look, &self.survey),
                };
                return (kind.name().to_owned(), verdict, Some(description));
            }
        }
        ("unknown".to_owned(), Verdict::Blocks(crate::resource::unknown(look)), None)
    }

    /// Judges an object, and notes what it needs.
    fn object(&mut self, look: &Look, word: &str) {
        let (kind, verdict, description) = self.judge(look);
        if let Some(description) = description.filter(|_| !matches!(verdict, Verdict::Blocks(_))) {
            self.examination.demand.need(&look.subject(), description.foresee(look, &self.survey));
        }
        self.find(look.subject(), &format!("{word}{kind}"), verdict);
    }

    fn descriptors(&mut self, tid: i32) -> Result<()> {
        let numbers = match procfs::descriptors(tid) {
            Ok(numbers) => numbers,
            // Gone, or a leader that has ended: it has none.
            Err(_) if !alive(tid) || stat::read(tid, tid).is_ok_and(|stat| stat.state == b'Z') => return Ok(()),
            Err(error) => return Err(unread(Subject::Process(tid), &error)),
        };
        let process = match PidFd::open_thread(tid) {
            Err(error) if error.is_gone() => return Ok(()),
            other => other.about(|| Subject::Process(tid))?,
        };
        for number in numbers {
            let Some(look) = Look::descriptor(&process, number)? else { continue };
            self.examination.demand.descriptor(number, tid);
            if let Some(choice) = self.edges.choice(&look)? {
                let verdict = Verdict::Recreated(format!("as chosen: {choice}"));
                let needs = edge::needs(choice, look.flags());
                self.examination.demand.need(&look.subject(), needs);
                self.find(look.subject(), "edge", verdict);
                continue;
            }
            self.object(&look, "");
        }
        Ok(())
    }

    /// Program file and directories. One that cannot be looked at is gone, or judged with its process.
    fn place(&mut self, tid: i32, name: &str, purpose: Purpose, flags: u32) {
        let Ok(look) = Look::link(tid, name, purpose, flags) else { return };
        let key = (look.device, look.inode, look.link.clone(), purpose == Purpose::Executable);
        if (name == "root" && look.link == b"/") || !self.seen_files.insert(key) {
            return;
        }
        self.object(&look, if purpose == Purpose::Executable { "program: " } else { "directory of a process: " });
    }

    fn mappings(&mut self, tid: i32, status: &Status) -> Result<()> {
        let areas = match smaps::read(tid) {
            Ok(areas) => areas,
            Err(ProcError::Gone) => return Ok(()),
            Err(error) => return Err(unread(Subject::Process(tid), &error)),
        };
        if tid == self.root {
            self.examination.demand.foresee(Foresight::of(tid, &areas, status.thp_enabled == Some(false)));
        }
        for details in areas {
            let area = &details.area;
            if let Some(refusal) = crate::capture::space::refusal(tid, &details) {
                self.refuse("mapping", refusal);
                continue;
            }
            if details.flags.contains(smaps::Flags::SEALED) {
                let subject = Subject::Mapping(tid, area.start, String::from_utf8_lossy(&area.name).into_owned());
                self.examination.demand.need(&subject, vec![crate::resource::Need::feature(Feature::MemorySeal)]);
            }
            let device = u64::from(area.device_major) << 32 | u64::from(area.device_minor);
            let new = (area.inode == 0 && !area.name.starts_with(b"/"))
                || self.seen_files.insert((device, area.inode, area.name.clone(), true));
            if details.flags.contains(smaps::Flags::HUGETLB) && (new || !area.shared) {
                let pool = self.examination.demand.huge_pages.entry(details.kernel_page_size).or_default();
                *pool += area.end - area.start;
            }
            if !new || (area.inode == 0 && !area.name.starts_with(b"/")) {
                continue;
            }
            let link = format!("map_files/{:x}-{:x}", area.start, area.end);
            let purpose = Purpose::Mapping { start: area.start, writable: area.shared };
            // The mapping may be gone again: the tree runs.
            let Ok(look) = Look::link(tid, &link, purpose, 0) else { continue };
            self.object(&look, "mapped ");
        }
        Ok(())
    }
}
