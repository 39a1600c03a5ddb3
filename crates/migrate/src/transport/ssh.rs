//! `ssh://[USER@]HOST[:PORT]`: the user's own ssh runs `godwit receive --stdio` at the destination; no daemon is needed there.
use super::{Lane, Transport};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A destination's name for ssh, and the program there.
#[derive(Clone, Debug)]
pub struct Ssh {
    host: String,
    program: PathBuf,
}

impl Ssh {
    /// `[USER@]HOST[:PORT]`; the remote program is `godwit` in the remote PATH if none is given.
    pub fn new(host: &str, program: Option<PathBuf>) -> Ssh {
        Ssh { host: host.to_owned(), program: program.unwrap_or_else(|| PathBuf::from("godwit")) }
    }

    fn command(&self, patience: Duration) -> Command {
        let mut command = Command::new("ssh");
        // A lost link must be noticed; compression would only cost time on a link that is fast enough to migrate over.
        command.args(["-T", "-oServerAliveInterval=2", "-oServerAliveCountMax=4", "-oCompression=no"]);
        command.arg(format!("-oConnectTimeout={}", patience.as_secs().max(1)));
        let host = match self.host.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() && !host.ends_with(':') => {
                command.args(["-p", port]);
                host
            }
            _ => &self.host,
        };
        command.arg("--").arg(host).arg(quoted(&self.program.to_string_lossy())).args(["receive", "--stdio"]);
        command
    }
}

/// The remote shell reads the command once more.
fn quoted(text: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "/._-+~".contains(character);
    if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

impl Transport for Ssh {
    fn connect(&self, patience: Duration) -> io::Result<Lane> {
        let mut child = self.command(patience).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        match (child.stdout.take(), child.stdin.take()) {
            (Some(output), Some(input)) => {
                let mut lane = Lane::new(OwnedFd::from(output), OwnedFd::from(input), self.name())?;
                lane.carrier = Some(child);
                Ok(lane)
            }
            _ => Err(io::Error::other("ssh has no pipes")),
        }
    }

    fn name(&self) -> String {
        format!("ssh://{}", self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remote_program_reaches_the_remote_shell_whole() {
        let ssh = Ssh::new("me@there:2222", Some(PathBuf::from("/opt/it's here/godwit")));
        let command = ssh.command(Duration::from_secs(5));
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect();
        let tail = ["-p", "2222", "--", "me@there", r"'/opt/it'\''s here/godwit'", "receive", "--stdio"];
        assert!(arguments.ends_with(&tail.map(str::to_owned)), "{arguments:?}");
    }
}
