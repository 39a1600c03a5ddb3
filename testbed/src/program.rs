//! Real programs: what each needs, how it is started, how far it has come, and what it leaves.
//!
//! The directory is the list: every `programs/NAME` with a script `run` is one, and the second line of the script says what
//! it needs. A script does a fixed amount of work in its directory, adds a byte to the file `progress` after each
//! step, and writes nothing that differs from run to run. What it makes before it is moved at all (a compiler's output), its
//! script `prepare` makes once, in `$BUILD`.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use godwit_linux::namespace::User;

use crate::error::{Doing, Error};
use crate::host::Host;
use crate::matrix::read_or_empty;
use crate::workload::{self, DIRECTORY, Run, ScratchDirectory, alive};

/// Where programs are looked for: those of Debian, not what somebody has put before them.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";

/// What a program fills that fills as much as it is told to, in MiB, unless somebody wants another size.
const MEGABYTES: u64 = 64;

/// The shell that is the root of every tree: it waits for the program and notes how it ended.
const ROOT: &str = r#"exec >output 2>errors; sh "$PROGRAM/run"; echo $? >status"#;

/// A real program and its work.
#[derive(Debug, Clone)]
pub struct Program {
    /// The name of its directory.
    pub name: String,
    directory: PathBuf,
    tags: BTreeMap<String, String>,
    /// How much memory those are to fill that fill as much as they are told to, in MiB.
    pub megabytes: u64,
}

/// What a run left: equal for two runs of one program, moved or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit status, as the root of its tree saw it; empty where the root did not come so far.
    pub status: String,
    /// What it wrote to its standard output.
    pub output: String,
    /// What it wrote to its standard error.
    pub errors: String,
    /// How many steps it made.
    pub steps: u64,
}

/// What lies beside the sources that they use: hosts must see it.
pub(crate) fn surroundings() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All programs, by name.
///
/// # Errors
/// Where the directory cannot be read, or a script's second line does not name it.
pub fn all() -> Result<Vec<Program>, Error> {
    let directory = surroundings().join("programs");
    let entries = fs::read_dir(&directory).doing(format!("list {}", directory.display()))?;
    let mut programs = Vec::new();
    for directory in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
        programs.push(Program::read(directory)?);
    }
    programs.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(programs)
}

impl Program {
    fn read(directory: PathBuf) -> Result<Self, Error> {
        let script = directory.join("run");
        let text = fs::read_to_string(&script).doing(format!("read {}", script.display()))?;
        let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let tags = workload::parse_tags(text.lines().nth(1).unwrap_or_default().trim_start_matches('#'));
        if tags.get("program") != Some(&name) || !tags.contains_key("needs") {
            let said = format!("the second line has to be # program: {name}; needs: COMMAND, ...; about: ...");
            return Err(Error::Program { program: script.display().to_string(), said });
        }
        Ok(Self { name, directory, tags, megabytes: MEGABYTES })
    }

    /// The commands that it needs and this machine does not have.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let needs = self.tags.get("needs").map(String::as_str).unwrap_or_default().split(',').map(str::trim);
        let has = |need: &&str| SEARCH_PATH.split(':').any(|folder| Path::new(folder).join(need).exists());
        needs.filter(|need| !has(need)).map(str::to_owned).collect()
    }

    /// Makes what it needs made, unless the same sources were made before. Returns the directory.
    ///
    /// # Errors
    /// Where its script refuses.
    pub fn prepare(&self) -> Result<PathBuf, Error> {
        let build = Path::new(DIRECTORY).join("build");
        workload::make_open_directory(&build)?;
        let lock = File::create(build.join(format!(".lock-{}", self.name))).doing("make the lock of a program")?;
        lock.lock().doing("lock the directory of a program")?;
        let made = build.join(format!("{}-{:016x}", self.name, self.hash()?));
        let script = self.directory.join("prepare");
        if made.exists() {
            return Ok(made);
        }
        // Made aside and renamed: a compiler may be ended half-way.
        let aside = build.join(format!(".{}", self.name));
        let _ = fs::remove_dir_all(&aside);
        workload::make_open_directory(&aside)?;
        if script.exists() {
            let mut command = Command::new("/bin/sh");
            command.arg(&script).current_dir(&aside).stdin(Stdio::null()).env("PATH", SEARCH_PATH);
            let output = command.env("PROGRAM", &self.directory).env("BUILD", &aside).env("HOME", &aside).output();
            let output = output.doing(format!("run {}", script.display()))?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                return Err(Error::Program { program: script.display().to_string(), said });
            }
        }
        fs::rename(&aside, &made).doing("put what a program needs in its place")?;
        Ok(made)
    }

    fn hash(&self) -> Result<u64, Error> {
        let entries = fs::read_dir(&self.directory).doing(format!("list {}", self.directory.display()))?;
        let mut files: Vec<PathBuf> =
            entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
        files.sort();
        let mut hasher = DefaultHasher::new();
        for file in files {
            file.hash(&mut hasher);
            fs::read(&file).doing(format!("read {}", file.display()))?.hash(&mut hasher);
        }
        Ok(hasher.finish())
    }

    /// Starts it inside a host, as a child of a shell that is a child of the host's first process.
    ///
    /// # Errors
    /// As [`Self::prepare`] and [`crate::HostCommand::detach`].
    pub fn start(&self, host: &Host, user: Option<User>) -> Result<Run, Error> {
        let build = self.prepare()?;
        let directory = ScratchDirectory::new(&self.name)?;
        let temporary = directory.path.join("temporary");
        workload::make_open_directory(&temporary)?;
        let command = host.command("/bin/sh").arg("-c").arg(ROOT).directory(&directory.path).user(user);
        let command = command.env("PATH", SEARCH_PATH).env("PROGRAM", &self.directory).env("BUILD", build);
        let command = command.env("HOME", &directory.path).env("TMPDIR", temporary).env("LC_ALL", "C.UTF-8");
        let command = command.env("MEGABYTES", self.megabytes.to_string());
        let pid = command.env("TERM", "xterm").detach()?;
        Ok(Run::of_program(pid, directory))
    }
}

/// How many steps a run has made.
#[must_use]
pub fn steps(run: &Run) -> u64 {
    fs::metadata(run.directory().join("progress")).map_or(0, |data| data.len())
}

/// Waits until a run has made some steps; false where it ends, or stands still, before.
#[must_use]
pub fn await_steps(run: &Run, host: &Host, wanted: u64, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while steps(run) < wanted {
        if !alive(host, run.pid) || Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
    true
}

/// Whether a run has come to its own end.
#[must_use]
pub fn has_ended_well(run: &Run) -> bool {
    read_or_empty(&run.directory().join("status")) == "0\n"
}

/// Waits for the end of a run; none where it does not come.
#[must_use]
pub fn await_end(run: &Run, host: &Host, patience: Duration) -> Option<Ended> {
    let deadline = Instant::now() + patience;
    while alive(host, run.pid) {
        if Instant::now() > deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
    let read = |name: &str| read_or_empty(&run.directory().join(name));
    Some(Ended { status: read("status"), output: read("output"), errors: read("errors"), steps: steps(run) })
}

impl Ended {
    /// The first difference to an unmoved run, in words, and how many more; none: there is none.
    #[must_use]
    pub fn difference(&self, unmoved: &Self) -> Option<String> {
        if self == unmoved {
            return None;
        }
        let streams = [
            ("its errors", &self.errors, &unmoved.errors),
            ("its status", &self.status, &unmoved.status),
            ("its output", &self.output, &unmoved.output),
        ];
        for (what, own, other) in streams {
            let lines = own.lines().map(Some).chain([None]).zip(other.lines().map(Some).chain([None]));
            let mut differing = lines.filter(|(own, other)| own != other);
            if let Some((own, other)) = differing.next() {
                let more = differing.count();
                let mut said = format!("{what} says {}, unmoved {}", quoted(own), quoted(other));
                if self.status != unmoved.status {
                    said += &format!(" (its last words: {})", last_words(&self.output));
                }
                return Some(if more > 0 { format!("{said}, and {more} more lines differ") } else { said });
            }
        }
        Some(format!("{} steps, unmoved {}", self.steps, unmoved.steps))
    }
}

/// The last lines of what a program has said, which may tell why it ended.
fn last_words(output: &str) -> String {
    const LINES: usize = 6;
    let lines: Vec<&str> = output.lines().rev().take(LINES).collect();
    lines.into_iter().rev().map(|line| quoted(Some(line))).collect::<Vec<String>>().join(" ")
}

fn quoted(line: Option<&str>) -> String {
    line.map_or_else(|| "nothing more".to_owned(), |line| format!("{:?}", line.chars().take(120).collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(status: &str, output: &str, steps: u64) -> Ended {
        Ended { status: status.to_owned(), output: output.to_owned(), errors: String::new(), steps }
    }

    #[test]
    fn every_difference_is_told() {
        let unmoved = ended("0\n", "a\nb\n", 3);
        assert_eq!(unmoved.difference(&unmoved), None);
        for (other, word) in [
            (ended("139\n", "a\nb\n", 3), "status"),
            (ended("1\n", "a\nb\nno more\n", 3), "\"b\" \"no more\""),
            (ended("0\n", "a\nc\n", 3), "\"c\""),
            (ended("0\n", "a\n", 3), "nothing more"),
            (ended("0\n", "c\nc\n", 3), "and 1 more"),
            (ended("0\n", "a\nb\nc\n", 3), "\"c\""),
            (ended("0\n", "a\nb\n", 4), "4 steps"),
            (ended("0\n", "a\nb", 3), "steps"),
        ] {
            let said = other.difference(&unmoved).unwrap_or_default();
            assert!(said.contains(word), "{said:?} lacks {word:?}");
        }
    }

    #[test]
    fn every_directory_is_a_program() {
        assert!(all().unwrap().len() > 1);
    }
}
