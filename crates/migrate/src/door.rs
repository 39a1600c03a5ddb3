//! The door of a living engine: whoever accepts a newer connection of its migration hands that over, through a Unix socket in the run
//! directory, instead of answering in its place. While a tree is owed pages only the engine that places them can go on.
use crate::stream::Stream;
use crate::transport::Lane;
use godwit_handoff::frame::Frame;
use godwit_handoff::{MigrationId, Packet};
use godwit_image::{Code, Refusal, Subject, codec};
use godwit_linux::poll::{self, Readiness};
use godwit_linux::unix_socket;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes of it.
const WORDS_MAX: usize = 16 << 10;
/// What is said of a connection, or instead of one.
#[derive(Debug, Serialize, Deserialize)]
enum Words {
    /// Who is at its other end, and what was heard on it first, as a frame.
    Connection(String, Vec<u8>),
    /// All that the tree is owed is to come.
    All,
}

/// How long whoever came in may take to hand over what it brings.
const PATIENCE: Duration = Duration::from_secs(1);

/// The engine's end.
#[derive(Debug)]
pub(crate) struct Door {
    listener: UnixListener,
    path: PathBuf,
}

/// Who has come.
#[derive(Debug)]
pub(crate) enum Visit {
    Connection(Visitor),
    /// The user, who wants all that is owed to come.
    All,
}

/// A connection that was handed over.
#[derive(Debug)]
pub(crate) struct Visitor {
    pub(crate) lane: Lane,
    /// What was heard on it.
    pub(crate) first: Packet,
    /// Who brought it stays as long as this is open, where it carries the connection.
    pub(crate) bringer: UnixStream,
}

fn name(migration: MigrationId) -> String {
    format!("{migration}.door")
}

/// A short name of a long one: that of a socket may have a hundred bytes.
fn short(directory: &Path, migration: MigrationId) -> io::Result<(File, PathBuf)> {
    let directory = File::open(directory)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{}", directory.as_raw_fd(), name(migration)));
    Ok((directory, path))
}

impl Door {
    /// Opens it. Only who holds the journal's lock does: what an earlier engine left of its own is removed.
    ///
    /// # Errors
    /// GW1003: it cannot be made there.
    pub(crate) fn open(directory: &Path, migration: MigrationId) -> Result<Door, Refusal> {
        let path = directory.join(name(migration));
        let failed = |error: io::Error| {
            Refusal::new(Code::KERNEL_CALL, Subject::Path(path.display().to_string()), error.to_string())
        };
        // What is not there need not be removed; of what cannot be, the next call tells.
        let _ = fs::remove_file(&path);
        let (_directory, short) = short(directory, migration).map_err(failed)?;
        let listener = UnixListener::bind(short).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Door { listener, path })
    }

    /// Readable when somebody has come.
    pub(crate) fn bell(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Who has come, if it brings what it should.
    pub(crate) fn visitor(&self) -> Option<Visit> {
        let (bringer, _) = self.listener.accept().ok()?;
        let ready = poll::wait(&[(bringer.as_fd(), Readiness::READABLE)], Some(PATIENCE));
        if !ready.is_ok_and(|ready| ready.iter().any(|ready| ready.readable)) {
            return None;
        }
        let received = unix_socket::peek(bringer.as_fd(), WORDS_MAX).ok()??;
        let (peer, frame) = match codec::decode(&received.bytes).ok()? {
            Words::Connection(peer, frame) => (peer, frame),
            Words::All => return Some(Visit::All),
        };
        let Ok(Some((Frame::Packet(first), _))) = Frame::split(&frame) else { return None };
        let mut descriptors = received.descriptors.into_iter();
        let lane = match (descriptors.next(), descriptors.next()) {
            (Some(socket), None) => Lane::socket(socket, peer),
            (Some(reader), Some(writer)) => Lane::new(reader, writer, peer),
            (None, _) => return None,
        };
        Some(Visit::Connection(Visitor { lane: lane.ok()?, first, bringer }))
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // One that stays leads nowhere, and is removed by the next engine.
        let _ = fs::remove_file(&self.path);
    }
}

/// Hands a connection, on which `first` was heard, to the engine that has the migration. Gives it back where no engine has a door.
///
/// # Errors
/// The engine went away with it, or never looked.
pub(crate) fn hand_over(directory: &Path, stream: Stream, first: &Packet) -> Result<Option<Stream>, Refusal> {
    let connected = short(directory, first.migration).and_then(|(_directory, short)| UnixStream::connect(short));
    let Ok(mut door) = connected else { return Ok(Some(stream)) };
    let subject = || Subject::Object(format!("migration {}", first.migration));
    let failed = |cause: String| Refusal::new(Code::LINK_LOST, subject(), cause);
    let mut frame = Vec::new();
    Frame::Packet(first.clone()).encode(&mut frame).map_err(|error| failed(error.to_string()))?;
    let lane = stream.into_lane();
    let words =
        codec::encode(&Words::Connection(lane.peer().to_owned(), frame)).map_err(|error| failed(error.to_string()))?;
    let files = [lane.reader.as_fd(), lane.writer.as_fd()];
    let files = if lane.is_socket { &files[1..] } else { &files[..] };
    unix_socket::send(door.as_fd(), &words, None, files, None).map_err(|error| failed(error.to_string()))?;
    if !lane.is_socket {
        // These bytes come through us, or through whoever waits for our end.
        let _ = door.read(&mut [0]);
    }
    Ok(None)
}

/// Tells the engine that has a migration that all is to come which its tree is owed.
///
/// # Errors
/// GW1301: there is none.
pub(crate) fn ask_for_all(directory: &Path, migration: MigrationId) -> Result<(), Refusal> {
    let failed = |error: io::Error| {
        let cause = format!("nobody fetches what it is owed: {error}");
        Refusal::new(Code::LINK_LOST, Subject::Object(format!("migration {migration}")), cause).choice("godwit recover")
    };
    let (_directory, short) = short(directory, migration).map_err(failed)?;
    let door = UnixStream::connect(short).map_err(failed)?;
    let words = codec::encode(&Words::All).map_err(|error| failed(io::Error::other(error.to_string())))?;
    unix_socket::send(door.as_fd(), &words, None, &[], None).map(drop).map_err(|error| failed(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_handoff::Message;
    use std::io::Write;
    use std::os::fd::OwnedFd;

    #[test]
    fn a_connection_and_its_first_word_come_through_the_door_whole() {
        let directory = std::env::temp_dir().join(format!("godwit-door-{}-{}", std::process::id(), "x".repeat(100)));
        fs::create_dir_all(&directory).unwrap();
        let migration = MigrationId([9; 16]);
        let first = Packet { migration, message: Message::Query };
        let link = || {
            let (ours, theirs) = UnixStream::pair().unwrap();
            (Stream::new(Lane::socket(OwnedFd::from(ours), "there".to_owned()).unwrap()), theirs)
        };
        // Nobody is there.
        let (stream, _theirs) = link();
        assert!(hand_over(&directory, stream, &first).unwrap().is_some());
        let door = Door::open(&directory, migration).unwrap();
        assert!(door.visitor().is_none());
        let (stream, mut theirs) = link();
        assert!(hand_over(&directory, stream, &first).unwrap().is_none());
        let Some(Visit::Connection(visitor)) = door.visitor() else { panic!("nobody came") };
        assert_eq!((&visitor.first, visitor.lane.peer()), (&first, "there"));
        theirs.write_all(b"more").unwrap();
        let mut heard = [0; 4];
        poll::wait(&[(visitor.lane.reader.as_fd(), Readiness::READABLE)], Some(PATIENCE)).unwrap();
        (&visitor.lane.reader).read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"more");
        ask_for_all(&directory, migration).unwrap();
        assert!(matches!(door.visitor(), Some(Visit::All)));
        // Who brings nonsense is turned away.
        let (_directory, short) = short(&directory, migration).unwrap();
        UnixStream::connect(short).unwrap().write_all(b"hello").unwrap();
        assert!(door.visitor().is_none());
        // An engine that was killed leaves a door that leads nowhere.
        let path = door.path.clone();
        std::mem::forget(fs::hard_link(&path, directory.join("kept")));
        drop(door);
        assert!(!path.exists());
        fs::rename(directory.join("kept"), &path).unwrap();
        let (stream, _theirs) = link();
        assert!(hand_over(&directory, stream, &first).unwrap().is_some());
        assert_eq!(ask_for_all(&directory, migration).unwrap_err().code, Code::LINK_LOST);
        drop(Door::open(&directory, migration).unwrap());
        fs::remove_dir_all(&directory).unwrap();
    }
}
