//! What a move would do to every object of a running tree, found without freezing anything.
use crate::capture::Options;
use crate::failure::{About, Result, malformed};
use crate::freeze;
use crate::look::{Look, Purpose, Survey};
use crate::procfs;
use crate::resource::{KINDS, flock, owner};
use godwit_image::{Code, Refusal, Subject, Verdict};
use godwit_linux::pidfd::PidFd;
use godwit_linux::proc::{Error as ProcError, smaps, stat, status};
use std::collections::BTreeSet;

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
    /// Process numbers, root first.
    pub pids: Vec<i32>,
    /// Every number that the tree uses: processes and threads.
    pub numbers: BTreeSet<i32>,
    /// Resident private memory in bytes, an upper bound of what has to travel.
    pub memory_bytes: u64,
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

/// Examines a running tree. Objects that appear or vanish meanwhile are not an error: the capture looks again.
///
/// # Errors
/// GW1001, GW1002: the tree cannot be looked at at all.
pub fn examine(root: i32, options: &Options) -> Result<Examination> {
    let pids = freeze::tree(root)?;
    let survey = Survey::new(&pids);
    let mut examination = Examination { pids: pids.clone(), ..Examination::default() };
    let mut seen_files: BTreeSet<(u64, u64, Vec<u8>)> = BTreeSet::new();
    for pid in pids {
        let stat = match stat::read_process_wide(pid) {
            Ok(stat) => stat,
            Err(ProcError::Gone) if pid != root => continue,
            Err(ProcError::Gone) => {
                return Err(Refusal::new(Code::NO_SUCH_PROCESS, Subject::Process(pid), "it has ended"));
            }
            Err(error) => return Err(malformed(Subject::Process(pid), error)),
        };
        examination.numbers.insert(pid);
        if stat.state == b'Z' {
            examination.findings.push(Finding::new(Subject::Process(pid), "zombie", Verdict::Carried));
            continue;
        }
        tasks(pid, root, &mut examination)?;
        descriptors(pid, root, options, &survey, &mut examination)?;
        mappings(pid, &survey, &mut seen_files, &mut examination)?;
        for kind in KINDS {
            if let Some(state) = kind.task_state() {
                for (subject, verdict) in state.examine(pid) {
                    examination.findings.push(Finding::new(subject, kind.name(), verdict));
                }
            }
        }
    }
    Ok(examination)
}

fn tasks(pid: i32, root: i32, examination: &mut Examination) -> Result<()> {
    let threads = procfs::threads(pid).map_err(|error| malformed(Subject::Process(pid), error))?;
    examination.numbers.extend(threads.iter().copied());
    let status = match status::read(pid, pid) {
        Ok(status) => status,
        Err(ProcError::Gone) => return Ok(()),
        Err(error) => return Err(malformed(Subject::Process(pid), error)),
    };
    if let Some(memory) = &status.memory {
        examination.memory_bytes += memory.resident_anonymous + memory.resident_shared;
    }
    let verdict = if status.tracer != 0 {
        let cause = format!("process {} traces it", status.tracer);
        Verdict::Blocks(Refusal::new(Code::ALREADY_TRACED, Subject::Process(pid), cause))
    } else if status.namespace_pid.len() > 1 && status.namespace_pid.last() != Some(&pid) {
        let cause = "it lives in a PID namespace below this one";
        Verdict::Blocks(
            Refusal::new(Code::UNSUPPORTED, Subject::Process(pid), cause).choice("run godwit inside that namespace"),
        )
    } else {
        crate::namespaces::judge(pid, root).map_or_else(Verdict::Blocks, |()| Verdict::Carried)
    };
    let kind = if threads.len() > 1 { format!("process of {} threads", threads.len()) } else { "process".to_owned() };
    examination.findings.push(Finding::new(Subject::Process(pid), &kind, verdict));
    Ok(())
}

fn judge(look: &Look, survey: &Survey) -> (String, Verdict) {
    for kind in KINDS {
        if let Some(description) = kind.description().filter(|description| description.recognise(look)) {
            let verdict = match flock::refuse(look).or_else(|| owner::refuse(look, survey)) {
                Some(refusal) => Verdict::Blocks(refusal),
                None => description.examine(look, survey),
            };
            return (kind.name().to_owned(), verdict);
        }
    }
    let refusal = Refusal::new(Code::UNKNOWN_KIND, look.subject(), "no kind of this build recognises it")
        .choice("close it in the program");
    let refusal = match look.number() {
        Some(number) => refusal.choice(format!("choose an edge for it: --edge {number}=null")),
        None => refusal,
    };
    ("unknown".to_owned(), Verdict::Blocks(refusal))
}

fn descriptors(pid: i32, root: i32, options: &Options, survey: &Survey, examination: &mut Examination) -> Result<()> {
    let process = PidFd::open(pid).about(|| Subject::Process(pid))?;
    for number in procfs::descriptors(pid).map_err(|error| malformed(Subject::Process(pid), error))? {
        let Some(look) = Look::descriptor(&process, number)? else { continue };
        if let Some(choice) = options.edges.get(&number).filter(|_| pid == root) {
            let verdict = Verdict::Recreated(format!("as chosen: {choice:?}"));
            examination.findings.push(Finding::new(look.subject(), "edge", verdict));
            continue;
        }
        let (kind, verdict) = judge(&look, survey);
        examination.findings.push(Finding::new(look.subject(), &kind, verdict));
    }
    Ok(())
}

fn mappings(
    pid: i32,
    survey: &Survey,
    seen: &mut BTreeSet<(u64, u64, Vec<u8>)>,
    examination: &mut Examination,
) -> Result<()> {
    let areas = match smaps::read(pid) {
        Ok(areas) => areas,
        Err(ProcError::Gone) => return Ok(()),
        Err(error) => return Err(malformed(Subject::Process(pid), error)),
    };
    for details in areas {
        let area = &details.area;
        if let Some(refusal) = crate::capture::space::refusal(pid, &details) {
            examination.findings.push(Finding::new(refusal.subject.clone(), "mapping", Verdict::Blocks(refusal)));
            continue;
        }
        if (area.inode == 0 && !area.name.starts_with(b"/"))
            || !seen.insert((
                u64::from(area.device_major) << 32 | u64::from(area.device_minor),
                area.inode,
                area.name.clone(),
            ))
        {
            continue;
        }
        let link = format!("map_files/{:x}-{:x}", area.start, area.end);
        let purpose = Purpose::Mapping { start: area.start, writable: area.shared };
        // The mapping may be gone again: the tree runs.
        let Ok(look) = Look::link(pid, &link, purpose, 0) else { continue };
        let (kind, verdict) = judge(&look, survey);
        examination.findings.push(Finding::new(look.subject(), &format!("mapped {kind}"), verdict));
    }
    Ok(())
}
