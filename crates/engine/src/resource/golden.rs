//! Golden payloads: what earlier builds wrote of every kind is read by this one and means the same.
//!
//! Every sample state of the kinds' tests has a file in tests/golden, named after its type and a hash of its text. A new sample, or
//! one that was changed, is written by `GODWIT_BLESS=1 cargo test -p godwit-engine`; files are never removed: what they
//! hold has to be readable for as long as the kind's version is.
use super::{
    assert_round_trip, character_device, directory, edge, open, pty, terminal, unix_name, unix_queue, unix_socket,
};
use godwit_image::{Envelope, ObjectId, Pid};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::{Path, PathBuf};

fn directory_of_files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// FNV-1a, which will be the same in every build.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// `module-Type`, without the parameters of generic ones.
fn stem<T>() -> String {
    let name = std::any::type_name::<T>()
        .rsplit("resource::")
        .next()
        .unwrap_or_default()
        .trim_start_matches("godwit_engine::");
    name.split('<').next().unwrap_or_default().replace("::", "-")
}

/// Asserts that the golden payload of a state reads as this state, and all others of its type at all.
pub(super) fn assert_read<T: Serialize + DeserializeOwned + PartialEq + Debug>(state: &T, envelope: &Envelope) {
    let (directory, stem) = (directory_of_files(), stem::<T>());
    let path = directory.join(format!("{stem}-{:016x}.cbor", hash(&format!("{state:?}"))));
    if std::env::var_os("GODWIT_BLESS").is_some() && !path.exists() {
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(&path, &envelope.payload).unwrap();
    }
    let read = |path: &Path| {
        let payload = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        open::<T>(&Envelope { payload, ..envelope.clone() })
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    assert_eq!(&read(&path), state, "{}", path.display());
    for entry in std::fs::read_dir(&directory).unwrap().flatten() {
        if entry.file_name().to_string_lossy().rsplit_once('-').is_some_and(|(of, _)| of == stem) {
            read(&entry.path());
        }
    }
}

/// Those of kinds whose own tests have no sample.
#[test]
fn states_without_another_sample() {
    let path = || "/dev/null".to_owned();
    assert_round_trip(&character_device::State { path: path(), device_number: 0x103, flags: 0o100_002 });
    assert_round_trip(&directory::State { path: "/var/tmp".to_owned(), flags: 0o200_000, position: 7 });
    for choice in
        [edge::Choice::File("/log".to_owned()), edge::Choice::Null, edge::Choice::Inherit, edge::Choice::Close]
    {
        assert_round_trip(&edge::State { choice, number: 1, flags: 1, was: "pipe:[7]".to_owned() });
    }
    for slave in [pty::Slave::Open, pty::Slave::Closed, pty::Slave::Unopened] {
        assert_round_trip(&pty::Pair {
            number: 3,
            attributes: vec![1, 2, 3],
            size: vec![0, 24, 0, 80],
            packet: true,
            locked: false,
            slave,
            session: Some(Pid(7)),
            foreground: None,
            input: b"typed".to_vec(),
            output: b"shown".to_vec(),
            owner: (1000, 5, 0o620),
        });
    }
    assert_round_trip(&terminal::State { pair: ObjectId(9), master: true, flags: 0o100_002 });
    let name = unix_name::NameFile { path: "/run/socket".to_owned(), mode: 0o755, owner: (0, 5) };
    let sender = |sender| unix_queue::Message {
        bytes: vec![1],
        sender,
        identity: Some((1, 2, 3)),
        descriptors: vec![ObjectId(4)],
    };
    assert_round_trip(&unix_socket::UnixSocket {
        sort: 2,
        connection: Some((ObjectId(2), 1)),
        name: unix_name::Name { raw: vec![1, 0, b'x'], file: Some(name) },
        listener: None,
        receiver: Some(ObjectId(5)),
        queue: vec![
            sender(unix_queue::Sender::Peer),
            sender(unix_queue::Sender::Socket(ObjectId(6))),
            sender(unix_queue::Sender::Gone(vec![1, 0])),
        ],
        shutdown: 1,
        reset: false,
        flags: 2,
        owner: (1, 2),
        buffers: (3, 4),
        locked: Some(0),
        options: vec![(16, vec![1])],
    });
}

/// Every file of a kind that has a payload is here; the others have none, or that of another one.
#[test]
fn every_kind_has_a_golden_payload() {
    const NONE_OF_THEIR_OWN: [&str; 19] = [
        // Refused: never in an image.
        "inet_socket",
        "keyring",
        "landlock",
        "refused",
        // Parts of others.
        "fifo",
        "memory_file",
        "pipe_end",
        "processor_mode",
        "sysv_queue",
        "sysv_semaphores",
        "sysv_undo",
        "sysv_users",
        "timer_overrun",
        "unix_name",
        "unix_option",
        "unix_queue",
        "unlinked_file",
        "unread",
        "golden",
    ];
    let files: BTreeSet<String> = std::fs::read_dir(directory_of_files())
        .unwrap()
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.split('-').next()?.to_owned()))
        .collect();
    let source = include_str!("mod.rs");
    let modules =
        source.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'));
    for module in modules.filter(|module| !NONE_OF_THEIR_OWN.contains(module)) {
        assert!(files.contains(module), "{module} has no golden payload: give it a sample state in its tests");
    }
}
