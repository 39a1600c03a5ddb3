//! A host on this machine: its own network, PIDs, mounts, host name, IPC, cgroup root and clocks, with a reaper as pid 1.
//!
//! Shared with the machine: kernel, disk (but not /tmp, /run, /dev/shm), processors, CLOCK_REALTIME.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, PipeWriter, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use godwit_linux::namespace::{self, ClockOffsets, Namespaces, Placement, User};
use godwit_linux::pidfd::PidFd;
use godwit_linux::poll::{self, Readiness};

use crate::entry;
use crate::error::{Doing, Error};

const SIGKILL: i32 = 9;
/// How long a host that has failed may take until nothing of it is left.
const GONE_PATIENCE: Duration = Duration::from_secs(60);

/// What a host is made from.
#[derive(Debug, Clone)]
pub(crate) struct Plan<'a> {
    pub(crate) name: &'a str,
    pub(crate) address: Ipv4Addr,
    /// The executable whose `main` calls [`crate::entry`].
    pub(crate) executable: &'a Path,
    /// Directories that stay visible although they lie in one that the host has to itself.
    pub(crate) shared: &'a [PathBuf],
    /// Seconds that the host's clocks are ahead of the machine's; none: no time namespace.
    pub(crate) clocks: Option<i64>,
}

/// A host. Dropping it ends every process in it.
#[derive(Debug)]
pub struct Host {
    name: String,
    address: Ipv4Addr,
    executable: PathBuf,
    init: Child,
    handle: PidFd,
    network: OwnedFd,
    /// While this end is open, the host's first process knows that its maker lives.
    lifeline: PipeWriter,
    kinds: Namespaces,
    kept: bool,
}

impl Host {
    pub(crate) fn new(plan: &Plan<'_>) -> Result<Self, Error> {
        let (ear, lifeline) = io::pipe().doing("make a pipe")?;
        let mut command = Command::new(plan.executable);
        command.arg(entry::INIT).arg(plan.name).args(plan.shared);
        command.stdin(ear).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let kinds = if plan.clocks.is_some() { namespace::HOST } else { namespace::HOST.without(Namespaces::TIME) };
        let offset = plan.clocks.unwrap_or_default();
        let offsets = ClockOffsets { monotonic: offset, boottime: offset };
        let mut init = namespace::spawn_in_new(command, kinds, offsets).map_err(|cause| no_namespaces(plan, cause))?;
        match Self::await_ready(&mut init).and_then(|()| Ok((Self::handles(&init)?, init.id()))) {
            Ok(((handle, network), _)) => Ok(Self {
                name: plan.name.to_owned(),
                address: plan.address,
                executable: plan.executable.to_owned(),
                init,
                handle,
                network,
                lifeline,
                kinds,
                kept: false,
            }),
            Err(error) => {
                drop(lifeline);
                let _ = init.kill();
                let _ = init.wait();
                Err(error)
            }
        }
    }

    fn await_ready(init: &mut Child) -> Result<(), Error> {
        let mut said = String::new();
        if let Some(stdout) = init.stdout.take() {
            BufReader::new(stdout).read_line(&mut said).doing("hear from a host's first process")?;
        }
        match said.trim() {
            entry::READY => Ok(()),
            "" => Err(Error::Refused(
                "a host's first process ended at once: does main() of this program call godwit_testbed::entry()?"
                    .to_owned(),
            )),
            reason => Err(Error::Program { program: "a host's first process".to_owned(), said: reason.to_owned() }),
        }
    }

    fn handles(init: &Child) -> Result<(PidFd, OwnedFd), Error> {
        let handle = PidFd::open(init.id().cast_signed())
            .map_err(io::Error::from)
            .doing("open a handle of a host's first process")?;
        let network = namespace::network_of(init.id()).doing("open a host's network namespace")?;
        Ok((handle, network))
    }

    /// The host's name, also inside it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host's address on the link.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The id, on this machine, of the host's first process: `nsenter -a -t ID` looks around in the host.
    #[must_use]
    pub fn init_pid(&self) -> u32 {
        self.init.id()
    }

    /// The host's network namespace.
    #[must_use]
    pub fn network(&self) -> BorrowedFd<'_> {
        self.network.as_fd()
    }

    /// A program to be run inside the host.
    pub fn command(&self, program: impl AsRef<OsStr>) -> HostCommand<'_> {
        HostCommand {
            host: self,
            command: Command::new(&program),
            program: program.as_ref().to_owned(),
            directory: None,
            user: None,
        }
    }

    /// Ends every process in it, as a machine does whose power fails: none gets a word out if its link was cut before.
    pub(crate) fn fail(&self) -> Result<(), Error> {
        self.handle.send_signal(SIGKILL).map_err(io::Error::from).doing(format!("end host {}", self.name))
    }

    /// Waits until nothing of a host is left that has failed: its first process ends when everybody else has. Who was started from outside
    /// of it has to be waited for before.
    pub(crate) fn await_gone(&self) -> Result<(), Error> {
        let ended = poll::wait(&[(self.handle.as_fd(), Readiness::READABLE)], Some(GONE_PATIENCE));
        let is_gone = ended.map(|ended| ended.iter().any(|ready| ready.readable)).map_err(io::Error::from);
        let is_gone = is_gone.and_then(|gone| if gone { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) });
        is_gone.doing(format!("wait for the end of host {}", self.name))
    }

    /// Lets the host stand when this program has ended. It ends with its first process.
    pub(crate) fn keep(&mut self) -> io::Result<()> {
        self.lifeline.write_all(&[entry::KEEP])?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // Its death ends every process of the PID namespace; the wait ends when they are gone.
        let _ = self.init.kill();
        let _ = self.init.wait();
    }
}

/// EPERM and EINVAL of the first call say that this machine cannot have hosts, which its owner can change.
fn no_namespaces(plan: &Plan<'_>, cause: io::Error) -> Error {
    match cause.kind() {
        io::ErrorKind::PermissionDenied => {
            Error::Refused("hosts on this machine need root (CAP_SYS_ADMIN): run it with sudo".to_owned())
        }
        io::ErrorKind::InvalidInput => Error::Refused(
            "this kernel lacks a kind of namespace that a host needs (network, PID, mount, UTS, IPC, cgroup, time)"
                .to_owned(),
        ),
        io::ErrorKind::StorageFull => {
            Error::Refused("no more namespaces may be made: raise /proc/sys/user/max_*_namespaces".to_owned())
        }
        _ => Error::Step { doing: format!("start host {}", plan.name), cause },
    }
}

/// A program to be run inside a host: like [`std::process::Command`], with a user, and with a detached way to run.
#[derive(Debug)]
pub struct HostCommand<'a> {
    host: &'a Host,
    command: Command,
    program: OsString,
    directory: Option<PathBuf>,
    user: Option<User>,
}

impl HostCommand<'_> {
    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// The working directory, as seen inside the host; the root otherwise.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// The user to run as; root otherwise.
    #[must_use]
    pub fn user(mut self, user: Option<User>) -> Self {
        self.user = user;
        self
    }

    /// The standard input; inherited otherwise.
    #[must_use]
    pub fn stdin(mut self, stream: impl Into<Stdio>) -> Self {
        self.command.stdin(stream);
        self
    }

    /// The standard output; inherited otherwise.
    #[must_use]
    pub fn stdout(mut self, stream: impl Into<Stdio>) -> Self {
        self.command.stdout(stream);
        self
    }

    /// The standard error; inherited otherwise.
    #[must_use]
    pub fn stderr(mut self, stream: impl Into<Stdio>) -> Self {
        self.command.stderr(stream);
        self
    }

    /// Starts the program as a child of this process: its id is that on this machine, it can be killed and waited for as
    /// any child; inside the host it has no parent.
    ///
    /// # Errors
    /// Where a namespace cannot be entered or the program cannot be run.
    pub fn spawn(self) -> Result<Child, Error> {
        let doing = format!("run {} in host {}", self.program.to_string_lossy(), self.host.name);
        let placement = Placement {
            enter: Some((self.host.handle.as_fd(), Some(self.host.kinds))),
            new_session: false,
            directory: self.directory.as_deref(),
            user: self.user.as_ref(),
        };
        namespace::spawn_placed(self.command, &placement).doing(doing)
    }

    /// Runs the program to its end.
    ///
    /// # Errors
    /// As [`Self::spawn`].
    pub fn status(self) -> Result<ExitStatus, Error> {
        self.spawn()?.wait().doing("wait for a program")
    }

    /// Runs the program to its end without input and returns what it wrote.
    ///
    /// # Errors
    /// As [`Self::spawn`].
    pub fn output(self) -> Result<Output, Error> {
        let child = self.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        child.wait_with_output().doing("wait for a program")
    }

    /// Starts the program in a session of its own with nothing on its standard streams, as a child of the host's first
    /// process; returns its id inside the host.
    ///
    /// # Errors
    /// Where a namespace cannot be entered or the program cannot be run.
    pub fn detach(self) -> Result<u32, Error> {
        let mut starter = self.host.command(&self.host.executable);
        starter = starter.arg(entry::DETACH).arg(entry::user_argument(self.user.as_ref())).arg(&self.program);
        starter = starter.args(self.command.get_args());
        for (name, value) in self.command.get_envs() {
            starter = match value {
                Some(value) => starter.env(name, value),
                None => starter,
            };
        }
        starter.directory = self.directory;
        let output = starter.output()?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        said.parse().map_err(|_| Error::Program { program: self.program.to_string_lossy().into_owned(), said })
    }
}
