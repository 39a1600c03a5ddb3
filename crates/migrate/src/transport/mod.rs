//! Transports: how the two sides reach each other. One file each behind [`Transport`]; all give a [`Lane`].
use godwit_image::{Code, Refusal, Subject};
use godwit_linux::file::do_not_wait;
use godwit_linux::socket;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// How long one call that waits for bytes does so, on a link on which nothing moves. It is also how late whoever makes it notices
/// that it must stop.
const RECEIVE_TIME: Duration = Duration::from_millis(300);

pub mod ssh;
pub mod tcp;

/// Bytes both ways between the two sides. Reads and writes do not wait: [`crate::stream::Stream`] does.
#[derive(Debug)]
pub struct Lane {
    /// What comes from the other side.
    pub(crate) reader: File,
    /// What goes there; the same socket, or the other pipe.
    pub(crate) writer: File,
    /// The program that carries the bytes, if there is one.
    carrier: Option<Child>,
    /// For messages.
    pub(crate) peer: String,
    /// Reader and writer are one socket, on which a call that waits for bytes does so for a limited time.
    pub(crate) is_socket: bool,
}

impl Lane {
    /// A lane of two descriptors.
    ///
    /// # Errors
    /// The descriptors cannot be duplicated or made not to wait.
    pub fn new(reader: OwnedFd, writer: OwnedFd, peer: String) -> io::Result<Lane> {
        do_not_wait(reader.as_fd())?;
        do_not_wait(writer.as_fd())?;
        Ok(Lane { reader: reader.into(), writer: writer.into(), carrier: None, peer, is_socket: false })
    }

    /// A lane that consists of one socket.
    ///
    /// # Errors
    /// As [`Lane::new`].
    pub fn socket(socket: OwnedFd, peer: String) -> io::Result<Lane> {
        socket::set_time(socket.as_fd(), socket::RECEIVE_TIME, RECEIVE_TIME)?;
        let mut lane = Lane::new(socket.try_clone()?, socket, peer)?;
        lane.is_socket = true;
        Ok(lane)
    }

    /// Who is at the other end, for messages.
    pub fn peer(&self) -> &str {
        &self.peer
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let Some(carrier) = &mut self.carrier else { return };
        // The carrier ends when its input does, once it has delivered what it holds; but nobody waits for it for ever.
        if let Ok(null) = File::open("/dev/null") {
            self.writer = null;
        }
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(2) {
            if !matches!(carrier.try_wait(), Ok(None::<ExitStatus>)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = carrier.kill();
        let _ = carrier.wait();
    }
}

/// A way to the other side, which can be gone more than once: after a broken link a new lane is asked for.
pub trait Transport: std::fmt::Debug {
    /// Makes a lane.
    ///
    /// # Errors
    /// The other side cannot be reached.
    fn connect(&self, patience: Duration) -> io::Result<Lane>;

    /// The destination as the user (and the journal) writes it.
    fn name(&self) -> String;
}

/// Whom nobody needs to reach any more.
#[derive(Debug)]
pub(crate) struct Nobody(pub(crate) String);

impl Transport for Nobody {
    fn connect(&self, _: Duration) -> io::Result<Lane> {
        Err(io::ErrorKind::NotConnected.into())
    }

    fn name(&self) -> String {
        self.0.clone()
    }
}

/// Reads a destination: `tcp://HOST:PORT` or `ssh://[USER@]HOST[:PORT]`.
///
/// # Errors
/// GW1501: neither of them.
pub fn parse(destination: &str, remote_program: Option<PathBuf>) -> Result<Box<dyn Transport>, Refusal> {
    if let Some(address) = destination.strip_prefix("tcp://")
        && address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    {
        return Ok(Box::new(tcp::Tcp::new(address)));
    }
    if let Some(host) = destination.strip_prefix("ssh://")
        && !host.is_empty()
        && !host.starts_with('-')
    {
        return Ok(Box::new(ssh::Ssh::new(host, remote_program)));
    }
    let subject = Subject::Object(format!("destination {destination:?}"));
    Err(Refusal::new(Code::USAGE, subject, "a destination is tcp://HOST:PORT or ssh://[USER@]HOST[:PORT]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_told_apart_and_nonsense_is_refused() {
        for (text, name) in [("tcp://10.0.0.2:7000", true), ("tcp://[::1]:7000", true), ("ssh://me@there", true)] {
            assert_eq!(parse(text, None).map(|transport| transport.name()).ok(), name.then(|| text.to_owned()));
        }
        for text in
            ["tcp://here", "tcp://:7", "tcp://a:b", "ssh://", "ssh://-oProxyCommand=x", "udp://a:1", "", "host:1"]
        {
            assert_eq!(parse(text, None).map(|_| ()).unwrap_err().code, Code::USAGE, "{text}");
        }
    }
}
