//! Workloads: programs that set up one kind of state, work, and verify all of it when asked to stop.
//!
//! The directory is the list: every `workloads/*.c` whose first line has a `workload:` tag is one. `workloads/workload.h`
//! says how they report.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::hash::{Hash, Hasher};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use godwit_linux::namespace::User;

use crate::error::{Doing, Error};
use crate::host::Host;
use crate::leftover;

/// Where programs and reports lie: on disk, seen by every host, and reachable by every user.
pub(crate) const DIRECTORY: &str = "/var/tmp/godwit-testbed";

/// The user that is not root.
pub const OTHER_USER: u32 = 1000;

/// One self-verifying program.
#[derive(Debug, Clone)]
pub struct Workload {
    /// The name of its file, without the ending.
    pub name: String,
    /// What its first line says, word by word.
    pub tags: BTreeMap<String, String>,
    source: PathBuf,
}

/// What a workload says about its state in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Everything is as it was.
    Pass,
    /// What differs.
    Fail(Vec<String>),
    /// This machine or user cannot have this kind of state.
    Skip(String),
    /// It ended, or went on, without a verdict.
    Silent(String),
}

/// The directory of the workloads' sources.
#[must_use]
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads")
}

/// All workloads, by name.
///
/// # Errors
/// Where the directory cannot be read, or a file's first line has no or wrong tags.
pub fn all() -> Result<Vec<Workload>, Error> {
    let directory = sources();
    let entries = fs::read_dir(&directory).doing(format!("list {}", directory.display()))?;
    let mut workloads = Vec::new();
    for source in entries.flatten().map(|entry| entry.path()) {
        if source.extension().is_some_and(|ending| ending == "c") {
            workloads.push(Workload::read(source)?);
        }
    }
    workloads.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(workloads)
}

impl Workload {
    fn read(source: PathBuf) -> Result<Self, Error> {
        let text = fs::read_to_string(&source).doing(format!("read {}", source.display()))?;
        let name = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let tags = parse_tags(text.lines().next().unwrap_or_default());
        if tags.get("workload") != Some(&name) || !matches!(tags.get("user").map(String::as_str), Some("any" | "root"))
        {
            let said = format!("the first line has to be /* workload: {name}; user: any|root; about: ... */");
            return Err(Error::Program { program: source.display().to_string(), said });
        }
        Ok(Self { name, tags, source })
    }

    /// The users that it can run as: none stands for root.
    #[must_use]
    pub fn users(&self) -> Vec<Option<User>> {
        let mut users = vec![None];
        if self.tags.get("user").is_some_and(|user| user == "any") {
            users.push(Some(User { user: OTHER_USER, group: OTHER_USER, supplementary: Vec::new() }));
        }
        users
    }

    /// The kind of state that it sets up, in one word.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.tags.get("kind").map_or("other", String::as_str)
    }

    /// Compiles it, unless the same sources have been compiled before. Returns the program.
    ///
    /// # Errors
    /// Where there is no C compiler or it refuses.
    pub fn compile(&self) -> Result<PathBuf, Error> {
        compile(&self.name, &self.source)
    }

    /// Starts it inside a host, as a child of the host's first process, leader of its own session.
    ///
    /// # Errors
    /// As [`Self::compile`] and [`crate::HostCommand::detach`].
    pub fn start(&self, host: &Host, user: Option<User>) -> Result<Run, Error> {
        let program = self.compile()?;
        let directory = ScratchDirectory::new(&self.name)?;
        let report = directory.path.join("report");
        fs::write(&report, "").doing("make a report")?;
        fs::set_permissions(&report, Permissions::from_mode(0o666)).doing("open a report to everybody")?;
        let pid = host.command(program).arg(&report).user(user).detach()?;
        Ok(Run { pid, report, directory })
    }
}

/// Compiles a program of one file, unless the same sources have been compiled before.
pub(crate) fn compile(name: &str, source: &Path) -> Result<PathBuf, Error> {
    let build = Path::new(DIRECTORY).join("build");
    make_open_directory(&build)?;
    let mut hasher = DefaultHasher::new();
    hash_with_includes(source, &mut hasher, &mut BTreeSet::new()).doing(format!("read {name}"))?;
    let program = build.join(format!("{name}-{:016x}", hasher.finish()));
    // One at a time, whoever compiles: a program that runs must not be replaced by its equal.
    let lock = File::create(build.join(".lock")).doing("make the lock of the build directory")?;
    lock.lock().doing("lock the build directory")?;
    if program.exists() {
        return Ok(program);
    }
    // Written aside and renamed: a compiler may be ended half-way.
    let aside = build.join(format!(".{name}"));
    let mut command = Command::new("cc");
    command.args(["-O1", "-pthread", "-Wall", "-Wextra", "-o"]).arg(&aside).arg(source);
    let output = command.output().map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound => Error::Refused("workloads need a C compiler: install the package gcc".to_owned()),
        _ => Error::Step { doing: "run cc".to_owned(), cause },
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::Program { program: format!("cc {name}"), said });
    }
    fs::rename(&aside, &program).doing("put a compiled workload in its place")?;
    Ok(program)
}

/// A workload that was started: wherever it runs now, it writes to the same report.
#[derive(Debug)]
pub struct Run {
    /// The id of its first process, inside its host.
    pub pid: u32,
    report: PathBuf,
    directory: ScratchDirectory,
}

impl Run {
    /// A program that is no workload: it has a directory, and nobody reads its report.
    pub(crate) fn of_program(pid: u32, directory: ScratchDirectory) -> Self {
        Self { pid, report: PathBuf::new(), directory }
    }

    /// A directory on disk, seen by every host, that goes with this run.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory.path
    }

    /// The file that the workload calls its scratch of this name.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.report.with_extension(name)
    }

    /// Waits until the state is set up. A verdict comes instead where it cannot be.
    ///
    /// # Errors
    /// The verdict: skipped, failed, or silent.
    pub fn await_ready(&self, host: &Host, patience: Duration) -> Result<(), Verdict> {
        let deadline = Instant::now() + patience;
        loop {
            let alive = alive(host, self.pid);
            let said = self.said();
            if said.starts_with("READY\n") {
                return Ok(());
            }
            let verdict = Verdict::of(&said);
            if !alive || verdict.is_some() || Instant::now() > deadline {
                return Err(match verdict {
                    Some(verdict) => verdict,
                    None if alive => Verdict::Silent(format!("not ready after {} s", patience.as_secs())),
                    None => Verdict::Silent("ended before it was ready".to_owned()),
                });
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Asks it to stop, in the host where it runs now, and waits for its verdict.
    ///
    /// # Errors
    /// Where the host cannot be entered.
    pub fn stop(&self, host: &Host, patience: Duration) -> Result<Verdict, Error> {
        self.stop_as(self.pid, host, patience)
    }

    /// The same for one whose first process has another id by now, as seen in the host where it runs.
    ///
    /// # Errors
    /// Where the host cannot be entered.
    pub fn stop_as(&self, pid: u32, host: &Host, patience: Duration) -> Result<Verdict, Error> {
        if !alive(host, pid) {
            let verdict = Verdict::of(self.said().trim_start_matches("READY\n"));
            return Ok(verdict.unwrap_or_else(|| Verdict::Silent(format!("process {} is not there", pid))));
        }
        let kill = format!("kill -TERM {}", pid);
        host.command("sh").arg("-c").arg(kill).output()?;
        let deadline = Instant::now() + patience;
        while alive(host, pid) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
        let said = self.said();
        let verdict = Verdict::of(said.trim_start_matches("READY\n"));
        Ok(match (verdict, alive(host, pid)) {
            (Some(Verdict::Pass), true) => Verdict::Silent("said PASS, but does not end".to_owned()),
            (Some(verdict), _) => verdict,
            (None, true) => {
                Verdict::Silent(format!("no verdict after {} s: {}", patience.as_secs(), whereabouts(host, pid)))
            }
            (None, false) => Verdict::Silent(format!("ended without a verdict, after {said:?}")),
        })
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.report).unwrap_or_default()
    }
}

/// What a process does that should have ended: its state, signals, tracer, and the call that it is in.
fn whereabouts(host: &Host, pid: u32) -> String {
    let script =
        format!("cd /proc/{pid} && grep -E '^(State|TracerPid|Threads|SigQ|.*Pnd|SigBlk)' status; cat syscall wchan");
    let output = host.command("sh").arg("-c").arg(script).output();
    let said = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Verdict {
    /// The verdict in what was said after READY; none: nothing yet.
    fn of(said: &str) -> Option<Self> {
        let failures: Vec<String> =
            said.lines().filter_map(|line| line.strip_prefix("FAIL: ").map(str::to_owned)).collect();
        if !failures.is_empty() {
            return Some(Self::Fail(failures));
        }
        if let Some(reason) = said.lines().find_map(|line| line.strip_prefix("SKIP: ")) {
            return Some(Self::Skip(reason.to_owned()));
        }
        match said {
            "" => None,
            "PASS\n" => Some(Self::Pass),
            other => Some(Self::Silent(format!("an odd report: {other:?}"))),
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pass => formatter.write_str("pass"),
            Self::Fail(failures) => write!(formatter, "FAIL: {}", failures.join("; ")),
            Self::Skip(reason) => write!(formatter, "skip: {reason}"),
            Self::Silent(reason) => write!(formatter, "FAIL: {reason}"),
        }
    }
}

/// Whether a process runs in a host: asked through the host's own /proc. A zombie does not run.
#[must_use]
pub fn alive(host: &Host, pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/root/proc/{pid}/stat", host.init_pid())).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes().first().copied());
    match state {
        None => false,
        // Its first thread may have ended while others work.
        Some(Some(b'Z' | b'X')) => {
            let tasks = fs::read_dir(format!("/proc/{}/root/proc/{pid}/task", host.init_pid()));
            tasks.map(|tasks| tasks.count() > 1).unwrap_or_default()
        }
        Some(_) => true,
    }
}

/// The words of a first line `/* name: value; name: value */`.
pub(crate) fn parse_tags(line: &str) -> BTreeMap<String, String> {
    let inner = line.trim().trim_start_matches("/*").trim_end_matches("*/");
    let pairs = inner.split(';').filter_map(|tag| tag.split_once(':'));
    pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
}

fn hash_with_includes(path: &Path, hasher: &mut DefaultHasher, seen: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    if !seen.insert(path.to_owned()) {
        return Ok(());
    }
    let text = fs::read_to_string(path)?;
    text.hash(hasher);
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("#include \"").and_then(|rest| rest.strip_suffix('"')) {
            hash_with_includes(&path.with_file_name(name), hasher, seen)?;
        }
    }
    Ok(())
}

pub(crate) fn make_open_directory(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).doing(format!("make {}", path.display()))?;
    fs::set_permissions(path, Permissions::from_mode(0o1777)).doing(format!("open {} to everybody", path.display()))
}

/// A directory of one run, removed with it.
#[derive(Debug)]
pub(crate) struct ScratchDirectory {
    pub(crate) path: PathBuf,
}

impl ScratchDirectory {
    pub(crate) fn new(name: &str) -> Result<Self, Error> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(DIRECTORY).join(format!("run-{}-{number}-{name}", leftover::process_name()));
        // Numbers of namespaces come again: one of this name was left by a run that was killed in an earlier one.
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).doing(format!("clear {}", path.display()));
            }
            _ => make_open_directory(&path)?,
        }
        Ok(Self { path })
    }
}

impl Drop for ScratchDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pass_alone_is_a_pass() {
        assert_eq!(Verdict::of("PASS\n"), Some(Verdict::Pass));
        assert_eq!(
            Verdict::of("FAIL: x: 1, was 2\nFAIL: y\n"),
            Some(Verdict::Fail(vec!["x: 1, was 2".into(), "y".into()]))
        );
        assert!(matches!(Verdict::of("PASS\nPASS\n"), Some(Verdict::Silent(_))));
        assert!(matches!(Verdict::of("FAIL: x\nPASS\n"), Some(Verdict::Fail(_))));
        assert_eq!(Verdict::of("SKIP: no AVX\n"), Some(Verdict::Skip("no AVX".into())));
        assert_eq!(Verdict::of(""), None);
    }

    #[test]
    fn tags_are_read() {
        let tags = parse_tags("/* workload: pipe; user: any; about: a pipe */");
        assert_eq!(tags.get("workload").map(String::as_str), Some("pipe"));
        assert_eq!(tags.get("about").map(String::as_str), Some("a pipe"));
    }

    #[test]
    fn every_source_has_its_tags() {
        let workloads = all().unwrap();
        assert!(workloads.len() > 20, "{}", workloads.len());
    }
}
