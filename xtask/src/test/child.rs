//! A command that one part runs: seen line by line, ended in time, and leaving nothing behind.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{fmt, io, thread};

use super::report::Format;

/// How a command ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// By itself.
    Exited(ExitStatus),
    /// It had to be killed.
    OutOfTime,
    /// It did not begin, or its end could not be seen.
    Broken(io::Error),
}

impl Ending {
    pub(super) fn is_success(&self) -> bool {
        matches!(self, Self::Exited(status) if status.success())
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "{status}"),
            Self::OutOfTime => write!(f, "killed, the time for all parts is used up"),
            Self::Broken(error) => write!(f, "could not be run: {error}"),
        }
    }
}

/// Where commands are looked for: also the folders of the administrator, which a plain user's path leaves out.
pub(super) fn path() -> String {
    let own = std::env::var("PATH").unwrap_or_default();
    let folders = own.split(':').filter(|one| !one.is_empty());
    folders.chain(["/usr/local/sbin", "/usr/sbin", "/sbin"]).collect::<Vec<_>>().join(":")
}

/// A cargo command at `root`, with nothing on its standard input.
pub(super) fn cargo(root: &Path, arguments: &[&str], format: Format) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root).env("PATH", path()).stdin(Stdio::null());
    if format == Format::Ci {
        command.env("CARGO_TERM_COLOR", "never").env("CARGO_TERM_PROGRESS_WHEN", "never");
    }
    command
}

/// `command` as the only business of its own PID, mount, network, IPC and UTS namespaces.
///
/// When it ends, is killed, or this program dies, the kernel kills what it left running and drops what it mounted.
/// The shell is there to be process 1: it starts the loopback device and reaps orphans, and would not if it became
/// the command.
pub(super) fn isolated(command: &Command) -> Command {
    let mut isolated = Command::new("setpriv");
    isolated
        .args(["--pdeathsig", "KILL", "unshare", "--kill-child=KILL", "--mount-proc"])
        .args(["--fork", "--pid", "--mount", "--net", "--ipc", "--uts"])
        .args(["sh", "-c", "ip link set lo up || exit; \"$@\"; exit $?", "sh"])
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null());
    if let Some(folder) = command.get_current_dir() {
        isolated.current_dir(folder);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => isolated.env(name, value),
            None => isolated.env_remove(name),
        };
    }
    isolated
}

/// Runs `command`, passing its standard output on and each line of it to `see`, and kills it at `deadline`.
pub(super) fn run(mut command: Command, deadline: Instant, mut see: impl FnMut(&str)) -> Ending {
    let mut child = match command.stdout(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => return Ending::Broken(error),
    };
    let (sender, lines) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        // Ends with the pipe, which may be later than the child: what it left behind holds it open.
        thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n') {
                if line.is_err() || line.is_ok_and(|line| sender.send(line).is_err()) {
                    break;
                }
            }
        });
    }
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok(line) => {
                let line = String::from_utf8_lossy(&line);
                // A reader that went away must not stop the tests.
                let _ = writeln!(io::stdout(), "{line}");
                see(&line);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => return wait(child, deadline),
            Err(mpsc::RecvTimeoutError::Timeout) => return kill(child),
        }
    }
}

/// The child has closed its output and is about to end.
fn wait(mut child: Child, deadline: Instant) -> Ending {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ending::Exited(status),
            Ok(None) if Instant::now() >= deadline => return kill(child),
            Ok(None) => thread::sleep(Duration::from_millis(10)),
            Err(error) => return Ending::Broken(error),
        }
    }
}

fn kill(mut child: Child) -> Ending {
    match child.kill().and_then(|()| child.wait()) {
        Ok(_) => Ending::OutOfTime,
        Err(error) => Ending::Broken(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null());
        command
    }

    #[test]
    fn lines_are_seen_and_the_status_is_told() {
        let mut seen = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(60);
        let ending = run(shell("echo one; echo two; exit 3"), deadline, |line| seen.push(line.to_owned()));
        assert_eq!(seen, ["one", "two"]);
        assert!(matches!(ending, Ending::Exited(status) if status.code() == Some(3)), "{ending}");
    }

    #[test]
    fn what_takes_too_long_is_killed() {
        let begun = Instant::now();
        let ending = run(shell("exec sleep 600"), begun + Duration::from_millis(100), |_| {});
        assert!(matches!(ending, Ending::OutOfTime), "{ending}");
        let ending = run(shell("exec >&-; exec sleep 600"), Instant::now() + Duration::from_millis(100), |_| {});
        assert!(matches!(ending, Ending::OutOfTime), "{ending}");
    }

    #[test]
    fn what_is_not_there_is_told() {
        let ending = run(Command::new("/nowhere/godwit"), Instant::now(), |_| {});
        assert!(matches!(ending, Ending::Broken(_)), "{ending}");
    }

    #[test]
    fn isolation_keeps_the_command_its_folder_and_its_environment() {
        let mut command = Command::new("cargo");
        command.args(["test", "--offline"]).current_dir("/tmp").env("A", "b").env_remove("C");
        let isolated = isolated(&command);
        let arguments: Vec<_> = isolated.get_args().map(|one| one.to_string_lossy().into_owned()).collect();
        assert!(arguments.ends_with(&["sh", "cargo", "test", "--offline"].map(str::to_owned)), "{arguments:?}");
        assert_eq!(isolated.get_current_dir(), Some(Path::new("/tmp")));
        assert_eq!(isolated.get_envs().count(), 2);
    }
}
