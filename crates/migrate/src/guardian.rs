//! The guardian: a second small process that finishes what a killed engine leaves.
//!
//! It holds one end of a connection of which only the engine has the other. `d` means that the engine has finished and the guardian is
//! not needed; `k` brings descriptors to be kept (userfaultfds: as long as one is open, tasks wait for their missing pages instead of
//! reading zeros), `r` gives them up; the end of the connection without a `d` means that the engine died. Then the guardian waits until the kernel
//! has let go of everything that the engine traced, takes the journal's lock and does what `godwit recover` would do.
use crate::journal::Journal;
use crate::recovery;
use crate::shepherd::told;
use godwit_handoff::{MigrationId, Side};
use godwit_image::{Code, Refusal, Subject};
use godwit_linux::namespace::{self, Placement};
use godwit_linux::offspring;
use godwit_linux::pidfd::PidFd;
use godwit_linux::poll::{self, Readiness};
use godwit_linux::unix_socket;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

/// First argument that makes the binary a guardian.
pub(crate) const GUARDIAN: &str = "__godwit-guardian";

const KEEP: &[u8] = b"k";
const RELEASE: &[u8] = b"r";

/// How long it may take to start.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// A guardian that stands by.
#[derive(Debug)]
pub(crate) struct Guardian {
    lifeline: UnixStream,
    state: State,
}

#[derive(Debug)]
enum State {
    /// A thread starts it.
    Starting(JoinHandle<std::io::Result<Child>>),
    /// It has started, and tells once that it stands by.
    Started(Child, Option<ChildStdout>),
    /// It is a copy of this process, and stands by from its first instruction on.
    Copied,
    /// It could not be started.
    Failed,
}

fn failed(error: std::io::Error) -> Refusal {
    Refusal::new(Code::KERNEL_CALL, Subject::Object("guardian".to_owned()), error.to_string())
}

impl Guardian {
    /// Begins to start a guardian of this process for its side of a migration. Whoever needs it waits for it: [`Self::await_ready`].
    ///
    /// # Errors
    /// GW1003: it cannot be started.
    pub(crate) fn start(directory: &Path, migration: MigrationId, side: Side) -> Result<Guardian, Refusal> {
        let (ear, lifeline) = UnixStream::pair().map_err(failed)?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("godwit-guardian").arg(GUARDIAN).arg(std::process::id().to_string());
        command.arg(directory).arg(migration.to_string()).arg(side.to_string());
        command.stdin(OwnedFd::from(ear)).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let start = move || {
            // A session of its own: what the terminal sends to us is not for it.
            let placement = Placement { new_session: true, ..Placement::default() };
            namespace::spawn_placed(command, &placement)
        };
        let thread = std::thread::Builder::new().name("guardian".to_owned()).spawn(start).map_err(failed)?;
        Ok(Guardian { lifeline, state: State::Starting(thread) })
    }

    /// As [`Self::start`], but as a copy of this process where it has one thread only: that is there at once, and the time that a program
    /// takes to start is not taken from the move.
    ///
    /// # Errors
    /// GW1003: it cannot be started.
    pub(crate) fn copy(directory: &Path, migration: MigrationId, side: Side) -> Result<Guardian, Refusal> {
        let (ear, lifeline) = UnixStream::pair().map_err(failed)?;
        let door = |error: godwit_linux::errno::Errno| failed(error.into());
        // As long as the pipe is open, this number is ours.
        let engine = PidFd::open(std::process::id() as i32).map_err(door)?;
        let guard = |engine: OwnedFd| told(watch(Some(engine.as_fd()), directory, migration, side));
        match offspring::fork(ear.as_fd(), engine.as_fd(), c"godwit-guardian", guard).map_err(door)? {
            Some(_) => Ok(Guardian { lifeline, state: State::Copied }),
            None => Guardian::start(directory, migration, side),
        }
    }

    /// Waits until it exists.
    fn settle(&mut self) -> Result<(), Refusal> {
        if !matches!(self.state, State::Starting(_)) {
            return Ok(());
        }
        let State::Starting(thread) = std::mem::replace(&mut self.state, State::Failed) else { return Ok(()) };
        let started = thread.join().unwrap_or_else(|_| Err(std::io::Error::other("its thread died")));
        let mut child = started.map_err(failed)?;
        let announcement = child.stdout.take();
        self.state = State::Started(child, announcement);
        Ok(())
    }

    /// Waits until it stands by: what starts while a tree is frozen takes the processor that its freeze needs.
    ///
    /// # Errors
    /// GW1003: it ended, or does not come to anything.
    pub(crate) fn await_ready(&mut self) -> Result<(), Refusal> {
        self.settle()?;
        let announcement = match &mut self.state {
            State::Started(_, announcement) => announcement,
            State::Copied => return Ok(()),
            State::Starting(_) | State::Failed => {
                return Err(failed(std::io::Error::other("it could not be started")));
            }
        };
        let Some(mut announcement) = announcement.take() else { return Ok(()) };
        let ready = poll::wait(&[(announcement.as_fd(), Readiness::READABLE)], Some(START_PATIENCE));
        let is_there = ready.is_ok_and(|ready| ready.iter().any(|ready| ready.readable));
        if is_there && announcement.read_exact(&mut [0]).is_ok() {
            return Ok(());
        }
        let cause = "it did not start";
        Err(Refusal::new(Code::KERNEL_CALL, Subject::Object("guardian".to_owned()), cause))
    }

    /// Keeps descriptors open as long as it stands by, until [`Self::release`].
    ///
    /// # Errors
    /// GW1003: it is gone.
    pub(crate) fn keep(&mut self, files: &[BorrowedFd<'_>]) -> Result<(), Refusal> {
        self.await_ready()?;
        for file in files {
            // One by one: how many go with one message is limited.
            unix_socket::send(self.lifeline.as_fd(), KEEP, None, &[*file], None)
                .map_err(|error| failed(error.into()))?;
        }
        Ok(())
    }

    /// Those may be closed.
    pub(crate) fn release(&mut self) {
        // Who is gone has closed them.
        let _ = self.lifeline.write_all(RELEASE);
    }

    /// It is not needed any more.
    pub(crate) fn dismiss(mut self) {
        let is_early = matches!(self.state, State::Starting(_));
        // One that could not be started needs no telling; nor does one that is gone.
        let _ = self.settle();
        let _ = self.lifeline.write_all(b"d");
        drop(self.lifeline);
        // What was guarded is over: whoever waits for that does not wait for a guardian's end, too.
        if let State::Started(child, _) = &mut self.state
            && is_early
        {
            let _ = child.wait();
        }
    }
}

/// The guardian's life. Arguments: the engine's number, run directory, migration, side.
pub(crate) fn run(arguments: &[OsString]) -> Result<(), Vec<Refusal>> {
    let [engine, directory, migration, side] = arguments else { return Ok(()) };
    // Before anything else: as long as the pipe is open, this number is the engine's.
    let engine = engine.to_str().and_then(|text| text.parse().ok()).and_then(|pid| PidFd::open(pid).ok());
    // Who does not wait for this does not hear it.
    let _ = std::io::stdout().write_all(b"r").and_then(|()| std::io::stdout().flush());
    let Some(migration) = migration.to_str().and_then(recovery::parse_migration) else { return Ok(()) };
    let side = if side == "source" { Side::Source } else { Side::Destination };
    watch(engine.as_ref().map(PidFd::as_fd), Path::new(directory), migration, side)
}

/// Waits for the engine's word or end on standard input, and settles what an engine without a word has left.
fn watch(
    engine: Option<BorrowedFd<'_>>,
    directory: &Path,
    migration: MigrationId,
    side: Side,
) -> Result<(), Vec<Refusal>> {
    // Until everything is settled.
    let mut kept = Vec::new();
    if hear(&mut kept) {
        return Ok(());
    }
    // The pipe closes before the dying engine has let go of what it traced.
    if let Some(engine) = engine {
        let _ = poll::wait(&[(engine, Readiness::READABLE)], Some(Duration::from_secs(60)));
    }
    let one = |refusal: Refusal| vec![refusal];
    let journal = Journal::open(directory, migration, side, Duration::from_secs(60)).map_err(one)?;
    match journal {
        Some(journal) => recovery::settle(journal, None).map(drop),
        None => Ok(()),
    }
}

/// Waits for the engine's last word or its end; true for the former. Keeps what it is given to keep.
fn hear(kept: &mut Vec<OwnedFd>) -> bool {
    // Read byte by byte: what is read ahead would lose its descriptors.
    let Ok(ear) = std::io::stdin().as_fd().try_clone_to_owned() else { return false };
    let mut ear = File::from(ear);
    let mut word = [0];
    loop {
        let ready = poll::wait(&[(ear.as_fd(), Readiness::READABLE)], None);
        if ready.is_err() {
            return false;
        }
        // A look gives copies of the descriptors; what was looked at is then read, and they are closed with it.
        if let Ok(Some(received)) = unix_socket::peek(ear.as_fd(), 1) {
            kept.extend(received.descriptors);
        }
        match ear.read(&mut word) {
            Ok(0) => return false,
            Ok(_) if word == *KEEP => {}
            Ok(_) if word == *RELEASE => kept.clear(),
            Ok(_) => return true,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}
