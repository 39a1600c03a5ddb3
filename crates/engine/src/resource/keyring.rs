//! Keyrings of a thread, a process or a session that hold keys: keyctl(2). Their keys cannot all be read, so whoever has
//! some is refused; empty ones come back by themselves when they are used.
//!
//! Only a thread itself can tell which keyrings it has. From outside one sees that its user has keys at all.
use super::{Captured, Description, Kind, Made, Need, Running, Stage, TaskState};
use crate::capture::Capture;
use crate::failure::Result;
use crate::injector::{Injector, Ran};
use crate::question::{ThreadAnswers, answered};
use crate::restore::{Bind, Make};
use godwit_image::{Code, Envelope, KindId, Pid, Refusal, Subject, Verdict};
use godwit_linux::proc::status;
use godwit_linux::program::{Argument, Program, Step};
use std::collections::BTreeSet;

const SYS_KEYCTL: i64 = 250;
const KEYCTL_GET_KEYRING_ID: u64 = 0;
const KEYCTL_DESCRIBE: u64 = 6;
const KEYCTL_READ: u64 = 11;
/// KEY_SPEC_THREAD_KEYRING, _PROCESS_KEYRING, _SESSION_KEYRING.
const RINGS: [(i64, &str); 3] = [(-1, "thread"), (-2, "process"), (-3, "session")];
const SESSION: usize = 2;
/// Bytes for a description; names of keyrings are shorter.
const DESCRIPTION_BYTES: usize = 96;
/// Links of a session keyring that are looked at.
const LINKS_MAX: usize = 8;
const NO_SUCH_SYSTEM_CALL: i32 = 38;
const UNSUPPORTED: i32 = 95;
const NO_KEY: i32 = 126;
/// Keys that the kernel makes for every user: its keyring and its default session's.
const OF_EVERY_USER: u64 = 2;

/// One keyring of a thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Keyring {
    /// Its name; empty when it may not be described.
    name: String,
    /// Serial numbers of what is linked into it; none when it may not be read.
    links: Option<Vec<i32>>,
    /// There are more links than that.
    more: bool,
}

/// A keyring that a thread has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ring {
    /// Its serial number; none where the thread may not even name it.
    serial: Option<i32>,
    /// What is in it, where that was asked.
    keyring: Option<Keyring>,
}

/// The keyrings of a thread: its own, its process's, its session's.
pub(crate) type Keyrings = [Option<Ring>; 3];

/// The questions about what is in one keyring.
#[derive(Debug)]
struct ContentQuestion {
    describe: Step,
    description: usize,
    read: Step,
    links: usize,
}

/// The questions to one thread: which keyrings it has, and what is in them where that is asked.
#[derive(Debug)]
pub(crate) struct KeyringQuestion {
    rings: [(Step, Option<ContentQuestion>); 3],
}

fn keyctl(program: &mut Program, operation: u64, key: Argument, buffer: Argument, bytes: usize) -> Step {
    program.try_call("keyctl", SYS_KEYCTL, [operation.into(), key, buffer, bytes.into(), Argument::Value(0)])
}

impl ContentQuestion {
    fn ask(program: &mut Program, key: Argument) -> ContentQuestion {
        let (space, description) = program.space(DESCRIPTION_BYTES);
        let describe = keyctl(program, KEYCTL_DESCRIBE, key, space, DESCRIPTION_BYTES);
        let (space, links) = program.space(LINKS_MAX * 4);
        let read = keyctl(program, KEYCTL_READ, key, space, LINKS_MAX * 4);
        ContentQuestion { describe, description, read, links }
    }

    fn answer(&self, ran: &Ran) -> Keyring {
        let described = answered(ran, self.describe).is_ok();
        let name = if described { name(ran.data(self.description, DESCRIPTION_BYTES)) } else { String::new() };
        let bytes = answered(ran, self.read).ok().map(|bytes| bytes as usize);
        let links = bytes.map(|bytes| {
            let raw = ran.data(self.links, bytes.min(LINKS_MAX * 4));
            raw.chunks_exact(4).filter_map(|raw| raw.first_chunk()).map(|raw| i32::from_le_bytes(*raw)).collect()
        });
        Keyring { name, links, more: bytes.is_some_and(|bytes| bytes > LINKS_MAX * 4) }
    }
}

impl KeyringQuestion {
    /// Adds the questions to a program.
    pub(crate) fn ask(program: &mut Program, with_contents: bool) -> KeyringQuestion {
        let rings = RINGS.map(|(ring, _)| {
            let serial = keyctl(program, KEYCTL_GET_KEYRING_ID, ring.into(), Argument::Value(0), 0);
            (serial, with_contents.then(|| ContentQuestion::ask(program, serial.into())))
        });
        KeyringQuestion { rings }
    }

    /// Reads the answers.
    pub(crate) fn answer(&self, ran: &Ran) -> Keyrings {
        [0, 1, SESSION].map(|index| {
            let (serial, content) = &self.rings[index];
            match answered(ran, *serial) {
                Ok(serial) => {
                    let keyring = content.as_ref().map(|content| content.answer(ran));
                    Some(Ring { serial: Some(serial as i32), keyring })
                }
                // No such keyring, or none in this kernel.
                Err(NO_KEY | NO_SUCH_SYSTEM_CALL | UNSUPPORTED) => None,
                // It has one, and may not even name it.
                Err(_) => Some(Ring { serial: None, keyring: Some(Keyring::default()) }),
            }
        })
    }
}

/// The name in a description: `keyring;UID;GID;PERMISSIONS;NAME`. Other keys than keyrings get an empty one.
fn name(description: &[u8]) -> String {
    let text = description.split(|byte| *byte == 0).next().unwrap_or_default();
    let mut parts = text.splitn(5, |byte| *byte == b';');
    if parts.next() != Some(b"keyring") {
        return String::new();
    }
    parts.nth(3).map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default()
}

/// Keyrings that every process of a user has by default; what is in them is the user's.
fn of_user(name: &str) -> bool {
    name.starts_with("_uid.") || name.starts_with("_uid_ses.")
}

/// What a keyring is to a move.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Sort {
    Default,
    Keys(String),
    /// It depends on what these are.
    Links(Vec<i32>),
}

fn sort(index: usize, ring: &Keyring) -> Sort {
    let (_, whose) = RINGS[index];
    if index == SESSION && of_user(&ring.name) {
        return Sort::Default;
    }
    if index == SESSION && ring.name != "_ses" {
        let name = if ring.name.is_empty() { "of an unknown name" } else { &ring.name };
        return Sort::Keys(format!("it has joined a session keyring {name} (keyctl)"));
    }
    match &ring.links {
        Some(links) if links.is_empty() => Sort::Default,
        Some(links) if index == SESSION && !ring.more => Sort::Links(links.clone()),
        Some(_) => Sort::Keys(format!("it has keys in a {whose} keyring of its own (keyctl)")),
        None => Sort::Keys(format!("it has a {whose} keyring of its own (keyctl) that it may not read")),
    }
}

/// Refuses a process of which a thread has a keyring that would be lost.
///
/// # Errors
/// GW1104: it has.
pub(crate) fn judge(injector: &mut Injector<'_>, threads: &[ThreadAnswers]) -> Result<()> {
    let mut known_links: Vec<Vec<i32>> = Vec::new();
    // Keyrings that are known to hold nothing that would be lost, by number and place.
    let mut harmless: BTreeSet<(usize, i32)> = BTreeSet::new();
    for (thread, answers) in threads.iter().enumerate() {
        for (index, ring) in answers.keyrings.iter().enumerate() {
            let Some(ring) = ring else { continue };
            if ring.serial.is_some_and(|serial| harmless.contains(&(index, serial))) {
                continue;
            }
            let keyring = match &ring.keyring {
                Some(keyring) => keyring.clone(),
                None => look_into(injector, thread, ring.serial)?,
            };
            let refuse = |injector: &Injector<'_>, cause: String| {
                let subject = injector.process().threads[thread].subject();
                let refusal = Refusal::new(Code::UNSUPPORTED, subject, cause);
                Err(refusal
                    .choice("let the program take its keys out (keyctl unlink, keyctl clear), or end its session"))
            };
            match sort(index, &keyring) {
                Sort::Default => {}
                Sort::Keys(cause) => return refuse(injector, cause),
                Sort::Links(links) if known_links.contains(&links) => {}
                Sort::Links(links) => {
                    if !only_of_user(injector, thread, &links)? {
                        return refuse(injector, "it has keys in a session keyring of its own (keyctl)".to_owned());
                    }
                    known_links.push(links);
                }
            }
            harmless.extend(ring.serial.map(|serial| (index, serial)));
        }
    }
    Ok(())
}

/// What is in a keyring of a thread that has another one than the first.
fn look_into(injector: &mut Injector<'_>, thread: usize, serial: Option<i32>) -> Result<Keyring> {
    // One that cannot be looked into counts as one with keys.
    let Some(serial) = serial else { return Ok(Keyring::default()) };
    let mut program = Program::new();
    let question = ContentQuestion::ask(&mut program, serial.into());
    let ran = injector.run(&[(thread, program)])?;
    Ok(ran.first().map(|ran| question.answer(ran)).unwrap_or_default())
}

/// Whether links of a session keyring lead to nothing but the user's own keyrings, as a login makes it.
fn only_of_user(injector: &mut Injector<'_>, thread: usize, links: &[i32]) -> Result<bool> {
    let mut program = Program::new();
    let mut places = Vec::with_capacity(links.len());
    for link in links {
        let (space, place) = program.space(DESCRIPTION_BYTES);
        places.push((keyctl(&mut program, KEYCTL_DESCRIBE, (*link).into(), space, DESCRIPTION_BYTES), place));
    }
    let ran = injector.run(&[(thread, program)])?;
    let Some(ran) = ran.first() else { return Ok(false) };
    let of_user = |(step, place): (Step, usize)| {
        answered(ran, step).is_ok() && of_user(&name(ran.data(place, DESCRIPTION_BYTES)))
    };
    Ok(places.into_iter().all(of_user))
}

/// Whether a user has keys beside those that the kernel makes for everybody. `keys` is /proc/keys, which shows us our
/// own; `users` is /proc/key-users.
fn has_keys(user: u32, own: u32, keys: &str, users: &str) -> bool {
    if user == own {
        return keys.lines().any(|line| {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let [_, flags, _, _, _, owner, _, kind, rest @ ..] = words.as_slice() else { return false };
            let name = rest.first().copied().unwrap_or_default();
            let ordinary =
                *kind == "keyring" && (name.starts_with("_uid") || name.starts_with("_ses") || name.starts_with('.'));
            owner.parse() == Ok(user) && flags.contains('Q') && !ordinary
        });
    }
    let line = users.lines().find_map(|line| line.trim().strip_prefix(&format!("{user}:")));
    // Usage, keys of all sorts, keys that count.
    let counted = line.and_then(|line| line.split_ascii_whitespace().nth(2)).and_then(|count| count.split('/').next());
    counted.and_then(|count| count.parse::<u64>().ok()).is_some_and(|count| count > OF_EVERY_USER)
}

/// The kind.
#[derive(Debug)]
pub struct KeyringKind;

impl Kind for KeyringKind {
    fn id(&self) -> KindId {
        KindId(62)
    }
    fn name(&self) -> &'static str {
        "keyrings"
    }
    fn version(&self) -> u16 {
        1
    }
    fn stage(&self) -> Stage {
        Stage::Early
    }
    fn needs(&self, _: &Envelope) -> Result<Vec<Need>> {
        Ok(Vec::new())
    }
    fn make(&self, _: &Envelope, _: &mut Make) -> Result<Made> {
        Err(Refusal::new(Code::NOT_MIGRATABLE, Subject::Object(self.name().to_owned()), "it cannot be rebuilt"))
    }
    fn bind(&self, _: &Envelope, _: &mut Bind) -> Result<()> {
        Ok(())
    }
    fn description(&self) -> Option<&dyn Description> {
        None
    }
    fn task_state(&self) -> Option<&dyn TaskState> {
        Some(self)
    }
}

impl TaskState for KeyringKind {
    fn examine(&self, Running { pid, status }: Running<'_>) -> Vec<(Subject, Verdict)> {
        let own = std::process::id() as i32;
        let Ok(ours) = status::read(own, own) else { return Vec::new() };
        // Not there: a kernel without keys.
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let user = status.uid[0];
        if !has_keys(user, ours.uid[0], &text("/proc/keys"), &text("/proc/key-users")) {
            return Vec::new();
        }
        let told = format!(
            "user {user} has keys (/proc/key-users): whether some are in a keyring of its thread, process or session shows only when it is frozen; then a move is refused"
        );
        vec![(Subject::Process(pid), Verdict::Undecided(told))]
    }

    fn capture(&self, _: &mut Injector<'_>, _: &mut Capture) -> Result<Vec<Captured>> {
        // Refused already by `judge`, with the answers to all other questions.
        Ok(Vec::new())
    }

    fn restore(&self, envelope: &Envelope, _: Pid, _: &mut Bind) -> Result<()> {
        let subject = Subject::Object(format!("{} {}", self.name(), envelope.id));
        Err(Refusal::new(Code::NOT_MIGRATABLE, subject, "it cannot be rebuilt"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_keyrings_are_nobodys_loss() {
        let ring = |name: &str, links: Option<&[i32]>| Keyring {
            name: name.to_owned(),
            links: links.map(<[i32]>::to_vec),
            more: false,
        };
        assert_eq!(sort(SESSION, &ring("_uid_ses.0", Some(&[7]))), Sort::Default);
        assert_eq!(sort(SESSION, &ring("_ses", Some(&[]))), Sort::Default);
        assert_eq!(sort(SESSION, &ring("_ses", Some(&[7]))), Sort::Links(vec![7]));
        assert!(matches!(sort(SESSION, &ring("mine", Some(&[]))), Sort::Keys(_)));
        assert_eq!(sort(1, &ring("_pid", Some(&[]))), Sort::Default);
        assert!(matches!(sort(1, &ring("_pid", Some(&[7]))), Sort::Keys(_)));
        assert!(matches!(sort(0, &Keyring::default()), Sort::Keys(_)));
    }

    #[test]
    fn texts_of_the_kernel() {
        assert_eq!(name(b"keyring;1000;1000;3f030000;_ses\0junk"), "_ses");
        assert_eq!(name(b"user;0;0;3f010000;_uid.0"), "");
        let keys = "1f8862c4 I--Q---     2 perm 1f3f0000     0 65534 keyring   _uid.0: empty\n";
        let more = "2f8862c4 I--Q---     2 perm 3f010000     0     0 user      name: 5\n";
        assert!(!has_keys(0, 0, keys, ""));
        assert!(has_keys(0, 0, &format!("{keys}{more}"), ""));
        let users = "    0:     9 8/8 3/1000000 64/25000000\n 1000:     2 2/2 2/200 28/20000\n 1001: 3 3/3 3/200 1/2\n";
        assert!(!has_keys(1000, 0, keys, users));
        assert!(has_keys(1001, 0, keys, users));
        assert!(!has_keys(1002, 0, keys, users));
    }
}
