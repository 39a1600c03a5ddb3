//! The `godwit` binary as the testbed calls it: the calls of each path, and how they end.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path as FilePath, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use godwit_linux::pidfd::PidFd;

use crate::error::{Doing, Error};
use crate::host::Host;
use crate::matrix::read_or_empty;
use crate::pair::Pair;
use crate::path::Path;
use crate::program;
use crate::workload::{Run, alive};

/// How long one call may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long a link stays cut.
const CUT: Duration = Duration::from_secs(3);
/// Where a destination listens.
const PORT: u16 = 7077;
/// Where a page store does.
const STORE_PORT: u16 = 7078;
const SIGKILL: i32 = 9;
pub(crate) const SIGCONT: i32 = 18;

/// Where a process is after a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Source,
    Destination,
}

impl Place {
    pub(crate) fn of(self, pair: &Pair) -> &Host {
        match self {
            Self::Source => &pair.source,
            Self::Destination => &pair.destination,
        }
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Self::Source => Self::Destination,
            Self::Destination => Self::Source,
        }
    }
}

/// Where a process is after a path, and its id there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Landing {
    pub(crate) place: Place,
    pub(crate) pid: u32,
}

/// Or a refusal or failure, in words; then the process ought to be at the source, unharmed.
pub(crate) type Moved = Result<Place, String>;

/// The `godwit` binary.
#[derive(Debug)]
pub(crate) struct Godwit {
    pub(crate) program: PathBuf,
    help: String,
}

/// A call that was started, with what it says going to files: a tree that it leaves behind must not hold a pipe of ours.
///
/// Dropping it ends it and waits for it: a host does not end while anybody has not waited for a process in it.
pub(crate) struct Call {
    name: String,
    child: Option<Child>,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Godwit {
    pub(crate) fn new(program: &FilePath) -> Result<Self, Error> {
        let output = Command::new(program).arg("--help").output().doing(format!("run {}", program.display()))?;
        Ok(Self { program: program.to_owned(), help: String::from_utf8_lossy(&output.stdout).into_owned() })
    }

    /// Whether its help names a command.
    pub(crate) fn has_command(&self, command: &str) -> bool {
        self.help.lines().any(|line| line.split_whitespace().next() == Some(command))
    }

    /// Whether a process of a host runs another program than this binary, as what is to become a tree's root does from its restore on.
    pub(crate) fn is_foreign(&self, host: &Host, pid: u32) -> bool {
        // A first thread that has ended has no program any more; the others have.
        let tasks = fs::read_dir(format!("/proc/{}/root/proc/{pid}/task", host.init_pid()));
        let mut programs = tasks.into_iter().flatten().flatten().map(|task| task.path().join("exe"));
        let running = programs.find_map(|exe| fs::metadata(exe).map(identity).ok());
        let ours = fs::metadata(&self.program).map(identity).ok();
        running.is_some() && ours.is_some() && running != ours
    }

    /// Takes a workload along a path, from the source on.
    pub(crate) fn take(&self, path: Path, pair: &mut Pair, run: &Run) -> Result<Landing, String> {
        if path == Path::NumbersInUse {
            return self.migrate_among_equals(pair, run);
        }
        self.take_with_its_id(path, pair, run).map(|place| Landing { place, pid: run.pid })
    }

    fn take_with_its_id(&self, path: Path, pair: &mut Pair, run: &Run) -> Moved {
        let directory = run.directory().join("checkpoint");
        match path {
            Path::Thaw => self.thaw(pair, run),
            Path::CheckpointLeaveRunning => {
                self.checkpoint(pair, run, &directory, true)?;
                Ok(Place::Source)
            }
            Path::RestoreInPlace => {
                self.checkpoint(pair, run, &directory, false)?;
                self.restore(&pair.source, run, &directory).map(|()| Place::Source)
            }
            Path::RestoreElsewhere => {
                self.checkpoint(pair, run, &directory, false)?;
                self.restore(&pair.destination, run, &directory).map(|()| Place::Destination)
            }
            Path::Migrate | Path::NumbersInUse | Path::PreCopy | Path::QueuedPreCopy | Path::Auto | Path::Packed => {
                self.migrate(path, pair, run, 1)
            }
            Path::PostCopy | Path::AssistedPostCopy | Path::EagerDirty | Path::Flushing | Path::FreezeFree => {
                self.migrate(path, pair, run, 1)
            }
            Path::OnReference => self.migrate_on_reference(path, pair, run),
            Path::ThereAndBack => self.migrate(path, pair, run, 2),
            Path::TenMoves => self.migrate(path, pair, run, 10),
            Path::DestinationKilledAt(moment) => self.kill_at(pair, run, Place::Destination, moment),
            Path::SourceKilledAt(moment) => self.kill_at(pair, run, Place::Source, moment),
            Path::LinkCutAt(moment) => self.cut_at(pair, run, moment, &[]),
            Path::Settled => self.migrate_and_settle(pair, run),
            Path::Interrupted => self.migrate_and_interrupt(pair, run),
            Path::OwingDestinationKilledAt(moment) => self.kill_while_owing(pair, run, Place::Destination, moment),
            Path::OwingSourceKilledAt(moment) => self.kill_while_owing(pair, run, Place::Source, moment),
            Path::OwingLinkCutAt(moment) => self.cut_at(pair, run, moment, &["--strategy", "post-copy"]),
            Path::StoreLost(fault) => self.lose_store(pair, run, fault),
        }
    }

    pub(crate) fn call(
        &self,
        host: &Host,
        run: &Run,
        arguments: &[&str],
        observe: Option<&str>,
    ) -> Result<Call, Error> {
        let name = arguments.first().copied().unwrap_or_default().to_owned();
        let open = |kind: &str| {
            let path = run.directory().join(format!("{name}-{}.{kind}", host.name()));
            let file = File::create(&path).doing(format!("make {}", path.display()))?;
            Ok::<_, Error>((path, file))
        };
        let ((stdout, out), (stderr, err)) = (open("out")?, open("err")?);
        let mut command = host.command(&self.program).args(arguments).stdin(Stdio::null()).stdout(out).stderr(err);
        if let Some(observe) = observe {
            command = command.arg("--observe").arg(observe);
        }
        Ok(Call { name, child: Some(command.spawn()?), stdout, stderr })
    }

    /// A call that has to succeed; returns what it wrote.
    pub(crate) fn done(&self, host: &Host, run: &Run, arguments: &[&str]) -> Result<String, String> {
        let call = self.call(host, run, arguments, None).map_err(|error| error.to_string())?;
        let (status, said) = call.end()?;
        if status.success() { Ok(said) } else { Err(said) }
    }

    /// The disk of the checkpoint is full at once, so godwit has to roll back what it has begun.
    fn thaw(&self, pair: &Pair, run: &Run) -> Moved {
        let full = "/tmp/full";
        let mounted = pair.source.command("sh").arg("-c");
        let script = format!(
            "mkdir -p {full} && mount -t tmpfs -o size=4k tmpfs {full} && cat /dev/zero > {full}/full 2>/dev/null; test -e {full}/full"
        );
        match mounted.arg(script).status() {
            Ok(status) if status.success() => {}
            Ok(status) => return Err(format!("no full disk can be made: {status}")),
            Err(error) => return Err(error.to_string()),
        }
        let pid = run.pid.to_string();
        match self.done(&pair.source, run, &["checkpoint", &pid, &format!("{full}/checkpoint"), "--leave-running"]) {
            Ok(_) => Err("a checkpoint on a full disk succeeded".to_owned()),
            // Refused for the disk, as asked; any other refusal is one.
            Err(said) if said.contains("No space left") => Ok(Place::Source),
            Err(said) => Err(said),
        }
    }

    fn checkpoint(&self, pair: &Pair, run: &Run, directory: &FilePath, leave: bool) -> Result<(), String> {
        let (pid, directory) = (run.pid.to_string(), directory.to_string_lossy());
        let mut arguments = vec!["checkpoint", &pid, &directory];
        if leave {
            arguments.push("--leave-running");
        }
        self.done(&pair.source, run, &arguments)?;
        if alive(&pair.source, run.pid) == leave {
            Ok(())
        } else {
            Err(format!("after checkpoint the process is {}", if leave { "gone" } else { "still there" }))
        }
    }

    fn restore(&self, host: &Host, run: &Run, directory: &FilePath) -> Result<(), String> {
        let said = self.done(host, run, &["restore", &directory.to_string_lossy(), "--detach"])?;
        if said.trim() == run.pid.to_string() {
            Ok(())
        } else {
            Err(format!("restore said {said:?}, not the root's id {}", run.pid))
        }
    }

    fn migrate(&self, path: Path, pair: &Pair, run: &Run, moves: u32) -> Moved {
        let mut place = Place::Source;
        for number in 1..=moves {
            place = self.migrate_once(path, pair, run, place).map_err(|said| format!("move {number}: {said}"))?;
        }
        Ok(place)
    }

    fn migrate_once(&self, path: Path, pair: &Pair, run: &Run, place: Place) -> Moved {
        let (from, to) = (place.of(pair), place.other().of(pair));
        let mut receive = self.receive(to, run, false, None)?;
        let target = self.target(to);
        let pid = run.pid.to_string();
        let mut arguments = vec!["migrate", &pid, &target];
        if place == Place::Destination {
            arguments.push("--page-checksums");
        }
        arguments.extend(path.strategy().map(|name| ["--strategy", name]).into_iter().flatten());
        // It lives at the destination, as long as its host does.
        let store = if path.stores() { Some(self.store(to, run)?) } else { None };
        let address = self.store_target(to);
        arguments.extend(store.iter().flat_map(|_| ["--pages", &address]));
        if path == Path::Packed {
            arguments.extend(["--compression", "always"]);
        }
        let moved = self.done(from, run, &arguments);
        store.into_iter().for_each(Call::forget);
        if let Err(said) = moved {
            let told = format!("{said}; destination: {}", read_or_empty(&receive.stderr));
            receive.kill();
            return Err(told);
        }
        // It may have come to its own end there meanwhile.
        if alive(from, run.pid) || !(alive(to, run.pid) || program::has_ended_well(run)) {
            return Err("the process is not where it was moved to".to_owned());
        }
        receive.forget();
        Ok(place.other())
    }

    /// One move of a path, for a tree that is to work between its moves; `number` counts them.
    pub(crate) fn leave(&self, path: Path, pair: &Pair, run: &Run, place: Place, number: usize) -> Moved {
        if path == Path::OnReference {
            return self.migrate_on_reference(path, pair, run);
        }
        if path.migrates() {
            return self.migrate_once(path, pair, run, place);
        }
        let directory = run.directory().join(format!("checkpoint-{number}"));
        let next = if path == Path::RestoreElsewhere { place.other() } else { place };
        self.checkpoint(pair, run, &directory, false)?;
        self.restore(next.of(pair), run, &directory).map(|()| next)
    }

    /// Whether `check` says that a move would go through; else what it says.
    pub(crate) fn check(&self, host: &Host, run: &Run) -> Result<(), String> {
        self.done(host, run, &["check", &run.pid.to_string()]).map(|_| ())
    }

    /// Another process has the root's id at the destination; the tree has to get another number there, as seen from outside.
    fn migrate_among_equals(&self, pair: &Pair, run: &Run) -> Result<Landing, String> {
        let text = |error: Error| error.to_string();
        let mut receive = self.receive(&pair.destination, run, false, None)?;
        // The starter of the detached program takes a number, its thread one, the program the next.
        let script = format!("echo {} > /proc/sys/kernel/ns_last_pid", run.pid.saturating_sub(3));
        pair.destination.command("sh").arg("-c").arg(script).status().map_err(text)?;
        let equal = pair.destination.command("sleep").arg("600").detach().map_err(text)?;
        if equal != run.pid {
            receive.kill();
            return Err(format!("no process of the number {} could be had, but {equal}", run.pid));
        }
        let target = self.target(&pair.destination);
        let moved = self.done(&pair.source, run, &["migrate", &run.pid.to_string(), &target, "--json"]);
        let said = moved.inspect_err(|_| receive.kill())?;
        let number = said.split_once("\"destination_pid\":").map(|(_, rest)| rest.trim_start());
        let digits = number.and_then(|rest| rest.split(|letter: char| !letter.is_ascii_digit()).next());
        let pid = digits.and_then(|digits| digits.parse().ok()).ok_or(format!("no destination_pid in {said}"))?;
        if pid == equal || alive(&pair.source, run.pid) || !alive(&pair.destination, pid) {
            return Err(format!("the process is not where it was moved to: {said}"));
        }
        receive.forget();
        Ok(Landing { place: Place::Destination, pid })
    }

    /// What `migrate` is told of a destination.
    pub(crate) fn target(&self, destination: &Host) -> String {
        format!("tcp://{}:{PORT}", destination.address())
    }

    /// Starts a destination and waits until it listens.
    pub(crate) fn receive(&self, host: &Host, run: &Run, faults: bool, observe: Option<&str>) -> Result<Call, String> {
        let address = format!("{}:{PORT}", host.address());
        // A side in doubt asks the other: when an engine was killed somebody has to be there to answer.
        let arguments: &[&str] = match faults {
            false => &["receive", "--listen", &address, "--once"],
            true => &["receive", "--listen", &address],
        };
        let call = self.call(host, run, arguments, observe).map_err(|error| error.to_string())?;
        Self::await_listening(host, call, PORT)
    }

    fn await_listening(host: &Host, mut call: Call, port: u16) -> Result<Call, String> {
        let deadline = Instant::now() + PATIENCE;
        while !listens(host, port) {
            let ended = call.ended().ok().flatten();
            if ended.is_some() || Instant::now() > deadline {
                call.kill();
                return Err(format!("nobody listens at port {port}: {}", read_or_empty(&call.stderr)));
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(call)
    }

    /// What `migrate` is told of it.
    pub(crate) fn store_target(&self, host: &Host) -> String {
        format!("tcp://{}:{STORE_PORT}", host.address())
    }

    /// Starts a page store and waits until it listens.
    pub(crate) fn store(&self, host: &Host, run: &Run) -> Result<Call, String> {
        let address = format!("{}:{STORE_PORT}", host.address());
        let directory = run.directory().join("store");
        let arguments = ["pages", "--listen", &address, "--dir", &directory.to_string_lossy()];
        let call = self.call(host, run, &arguments, None).map_err(|error| error.to_string())?;
        Self::await_listening(host, call, STORE_PORT)
    }

    /// One side's engine dies at a moment; then the process has to run in exactly one place.
    fn kill_at(&self, pair: &Pair, run: &Run, side: Place, moment: &str) -> Moved {
        let observe = format!("die:{moment}");
        let die = |place: Place| (place == side).then_some(observe.as_str());
        let mut receive = self.receive(&pair.destination, run, true, die(Place::Destination))?;
        let target = self.target(&pair.destination);
        let pid = run.pid.to_string();
        let migrate = self.call(&pair.source, run, &["migrate", &pid, &target], die(Place::Source));
        let ended = migrate.map_err(|error| error.to_string())?.end();
        if side == Place::Source && matches!(&ended, Ok((status, _)) if status.signal() != Some(SIGKILL)) {
            receive.kill();
            return Err(format!("the source did not come to \"{moment}\": {ended:?}"));
        }
        // Either side's end tells the other; a killed one's guardian finishes what it left.
        let place = self.settle(pair, run);
        receive.kill();
        place.map_err(|said| format!("{said}; migrate: {ended:?}"))
    }

    fn cut_at(&self, pair: &mut Pair, run: &Run, moment: &str, further: &[&str]) -> Moved {
        let mut receive = self.receive(&pair.destination, run, false, None)?;
        let target = self.target(&pair.destination);
        let pause = format!("pause:{moment}");
        let pid = run.pid.to_string();
        let arguments = [&["migrate", &pid, &target], further].concat();
        let migrate = self.call(&pair.source, run, &arguments, Some(&pause));
        let migrate = migrate.map_err(|error| error.to_string())?;
        let stopped = self.await_stopped(&pair.source, moment)?;
        pair.link.cut().map_err(|error| error.to_string())?;
        stopped.send_signal(SIGCONT).map_err(|error| error.to_string())?;
        thread::sleep(CUT);
        pair.link.heal().map_err(|error| error.to_string())?;
        let ended = migrate.end();
        let place = self.settle(pair, run);
        receive.kill();
        place.map_err(|said| format!("{said}; migrate: {ended:?}"))
    }

    /// Waits until the process runs in exactly one place and the other has nothing of it, helped by `godwit recover` on
    /// both sides if need be. One look is no proof that it runs in both: a dying process looks as if it ran.
    pub(crate) fn settle(&self, pair: &Pair, run: &Run) -> Moved {
        let deadline = Instant::now() + PATIENCE;
        let (mut twice, mut recovered) = (0, false);
        loop {
            let states = [&pair.source, &pair.destination].map(|host| state(host, run.pid));
            match states.map(|state| state.is_some_and(|state| !matches!(state, 'T' | 't' | 'Z' | 'X'))) {
                [true, false] if states[1].is_none() => return Ok(Place::Source),
                [false, true] if states[0].is_none() => return Ok(Place::Destination),
                [true, true] => twice += 1,
                _ => twice = 0,
            }
            if twice == 10 {
                return Err("the process runs in both places".to_owned());
            }
            if Instant::now() > deadline {
                return Err(format!("states at source and destination: {states:?}"));
            }
            if !recovered && Instant::now() + PATIENCE / 2 > deadline {
                recovered = true;
                for host in [&pair.source, &pair.destination] {
                    let _ = self.done(host, run, &["recover"]);
                }
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The process of godwit in a host that has stopped itself at a moment.
    pub(crate) fn await_stopped(&self, host: &Host, moment: &str) -> Result<PidFd, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(pid) = stopped_in(host, &self.program) {
                return PidFd::open(pid).map_err(|error| error.to_string());
            }
            if Instant::now() > deadline {
                return Err(format!("nobody stopped at \"{moment}\" in host {}", host.name()));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Call {
    /// Waits for its end; returns its status and what it said: its output, or its errors where it failed.
    pub(crate) fn end(mut self) -> Result<(ExitStatus, String), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.ended() {
                Ok(Some(status)) if status.success() => return Ok((status, read_or_empty(&self.stdout))),
                Ok(Some(status)) => {
                    // What blocks is what `check` was asked for: its output, and no error of its own.
                    let blocks: Vec<String> = read_or_empty(&self.stdout)
                        .lines()
                        .filter(|line| line.starts_with("blocks"))
                        .map(str::to_owned)
                        .collect();
                    let said = [refusals(&read_or_empty(&self.stderr)), blocks.join("; ")].concat();
                    return Ok((status, format!("godwit {}: {said} ({status})", self.name)));
                }
                Ok(None) if Instant::now() > deadline => {
                    self.kill();
                    let said = read_or_empty(&self.stderr);
                    return Err(format!("godwit {} does not end; it said {said:?}", self.name));
                }
                Ok(None) => thread::sleep(Duration::from_millis(2)),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Its status, if it has ended.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.as_mut().map_or(Ok(None), Child::try_wait)
    }

    /// What it has said of failures so far.
    pub(crate) fn complaints(&self) -> String {
        read_or_empty(&self.stderr)
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// A destination may stay as long as what it received. Its host's end is its end.
    pub(crate) fn forget(mut self) {
        if let Some(mut child) = self.child.take() {
            thread::spawn(move || child.wait());
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What was refused: each refusal is a line `godwit: CODE …`, its choices and remedies are indented below it.
fn refusals(said: &str) -> String {
    let lines: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("godwit: ")).collect();
    match lines.as_slice() {
        [] => said.trim().replace('\n', " "),
        [one] => (*one).to_owned(),
        [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
    }
}

/// Whether somebody listens on the port: line by line `sl local_address rem_address st …`, in hexadecimal.
fn listens(host: &Host, port: u16) -> bool {
    let address = host_word(host.address());
    let wanted = format!("{address:08X}:{port:04X}");
    let table = read_or_empty(FilePath::new(&format!("/proc/{}/net/tcp", host.init_pid())));
    table.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.get(1) == Some(&wanted.as_str()) && words.get(3) == Some(&"0A")
    })
}

/// As the kernel prints it: the bytes in network order, read as a number of this machine.
fn host_word(address: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(address.octets())
}

/// The letter of a process's state; none where it is not there or a zombie. Where only its first thread has ended it is another's.
pub(crate) fn state(host: &Host, pid: u32) -> Option<char> {
    if !alive(host, pid) {
        return None;
    }
    let tasks = format!("/proc/{}/root/proc/{pid}/task", host.init_pid());
    let letter = |thread: &str| -> Option<char> {
        let stat = read_or_empty(&FilePath::new(&tasks).join(thread).join("stat"));
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next())
    };
    let others = fs::read_dir(&tasks).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let mut letters = others.filter_map(|thread| letter(thread.to_str()?));
    letter(&pid.to_string()).filter(|letter| *letter != 'Z').or_else(|| letters.find(|letter| *letter != 'Z'))
}

/// The file itself, by whatever name: its device and inode.
fn identity(metadata: fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// The id, on this machine, of a process of a program in a host that is stopped by a signal.
fn stopped_in(host: &Host, program: &FilePath) -> Option<i32> {
    let namespace = |pid: &FilePath| fs::read_link(pid.join("ns/pid"));
    let own = namespace(FilePath::new(&format!("/proc/{}", host.init_pid()))).ok()?;
    let processes = fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path());
    let is_stopped = |path: &PathBuf| -> io::Result<bool> {
        let stat = fs::read_to_string(path.join("stat"))?;
        let stopped = stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'));
        Ok(stopped && namespace(path)? == own && fs::read_link(path.join("exe"))? == program)
    };
    let mut found = processes.filter(|path| is_stopped(path).unwrap_or_default());
    found.next()?.file_name()?.to_str()?.parse().ok()
}
