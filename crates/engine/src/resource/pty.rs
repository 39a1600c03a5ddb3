//! Pseudo-terminals with both sides in the tree: number, settings, size, modes, controlled session, foreground group, and
//! what was written at either side and not read.
use super::{Description, Kind, Made, Need, Stage, TaskState, open};
use crate::capture::Capture;
use crate::failure::{About, Result, malformed};
use crate::look::{Look, Survey};
use crate::restore::{Bind, Make};
use godwit_image::{Code, Envelope, KindId, ObjectId, Pid, Refusal, Subject};
use godwit_linux::proc::stat;
use godwit_linux::program::Program;
use godwit_linux::terminal::{self, ATTRIBUTES_BYTES, SIZE_BYTES};
use godwit_linux::{file, readiness};
use serde::{Deserialize, Serialize};
use std::fs::{File, Permissions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

pub(super) const O_RDWR: u32 = 2;
const O_NOCTTY: u32 = 0o400;
const O_CLOEXEC: u32 = 0o2_000_000;
const SYS_IOCTL: i64 = 16;
const TIOCSPGRP: u64 = 0x5410;
/// Numbers that are tried before the wanted one comes.
const TRIES_MAX: u32 = 4096;
/// Offsets in struct termios2: input flags, output flags, local flags, control characters.
const INPUT_FLAGS: usize = 0;
const OUTPUT_FLAGS: usize = 4;
const LOCAL_FLAGS: usize = 12;
const CHARACTERS: usize = 17;
const CHARACTERS_COUNT: usize = 19;
const ICANON: u8 = 0x2;

/// State of a pair.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Pair {
    /// N of /dev/pts/N.
    pub number: u32,
    /// struct termios2.
    pub attributes: Vec<u8>,
    /// struct winsize.
    pub size: Vec<u8>,
    /// TIOCPKT.
    pub packet: bool,
    /// The slave cannot be opened by its path.
    pub locked: bool,
    /// The slave is open, or was and is not (the master sees a hangup), or never was.
    pub slave: Slave,
    /// The session whose controlling terminal it is.
    pub session: Option<Pid>,
    /// The foreground group.
    pub foreground: Option<Pid>,
    /// Typed and not read by the slave.
    pub input: Vec<u8>,
    /// Written by the slave and not read by the master.
    pub output: Vec<u8>,
    /// User, group and permission bits of /dev/pts/N.
    pub owner: (u32, u32, u32),
}

/// What became of a slave.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Slave {
    /// Somebody has it open.
    Open,
    /// It was open.
    Closed,
    /// It was never open.
    Unopened,
}

/// The kind.
#[derive(Debug)]
pub struct PtyPair;

fn raw<const N: usize>(bytes: &[u8], subject: impl FnOnce() -> Subject) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| malformed(subject(), "settings of a wrong length"))
}

/// Settings under which nothing that is typed or written is changed, echoed or acted upon; lines stay lines.
fn plain(attributes: &[u8; ATTRIBUTES_BYTES], lines: bool) -> [u8; ATTRIBUTES_BYTES] {
    let mut plain = *attributes;
    plain[INPUT_FLAGS..INPUT_FLAGS + 4].fill(0);
    plain[OUTPUT_FLAGS..OUTPUT_FLAGS + 4].fill(0);
    plain[LOCAL_FLAGS..LOCAL_FLAGS + 4].fill(0);
    if lines {
        plain[LOCAL_FLAGS] = attributes[LOCAL_FLAGS] & ICANON;
    }
    plain[CHARACTERS..CHARACTERS + CHARACTERS_COUNT].fill(0);
    plain
}

fn read(from: BorrowedFd<'_>) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut file = File::from(from.try_clone_to_owned()?);
    loop {
        // Asking also waits for bytes that are still on their way.
        readiness::ready(from, readiness::IN)?;
        let waiting = terminal::unread(from)?;
        if waiting == 0 {
            return Ok(all);
        }
        let mut part = vec![0_u8; waiting];
        let got = file.read(&mut part)?;
        all.extend_from_slice(&part[..got]);
        if got == 0 {
            return Ok(all);
        }
    }
}

/// Puts bytes where they were before they were read: as if typed, as if written.
fn put(
    master: BorrowedFd<'_>,
    slave: BorrowedFd<'_>,
    attributes: &[u8; ATTRIBUTES_BYTES],
    input: &[u8],
    output: &[u8],
) -> std::io::Result<()> {
    if !input.is_empty() || !output.is_empty() {
        terminal::set_attributes(slave, &plain(attributes, true))?;
        File::from(master.try_clone_to_owned()?).write_all(input)?;
        File::from(slave.try_clone_to_owned()?).write_all(output)?;
        for side in [master, slave] {
            readiness::ready(side, readiness::IN)?;
        }
    }
    Ok(terminal::set_attributes(slave, attributes)?)
}

/// Reads what waits at both sides and puts it back.
fn look_into(
    master: BorrowedFd<'_>,
    slave: BorrowedFd<'_>,
    attributes: &[u8; ATTRIBUTES_BYTES],
) -> std::io::Result<(Vec<u8>, Vec<u8>)> {
    readiness::ready(slave, readiness::IN)?;
    let output = read(master)?;
    // An unfinished line shows only when lines are off; with nothing there that changes nothing.
    terminal::set_attributes(slave, &plain(attributes, false))?;
    let input = read(slave);
    let input = match input {
        Ok(input) => input,
        Err(error) => {
            terminal::set_attributes(slave, attributes)?;
            return Err(error);
        }
    };
    put(master, slave, attributes, &input, &output)?;
    Ok((input, output))
}

/// The session that a pair controls, and the foreground group.
fn controlled(master: &Look, survey: &Survey) -> Result<(Option<i32>, i32)> {
    let subject = || master.subject();
    let session = terminal::session(master.borrow()).about(subject)?;
    let foreground = terminal::foreground(master.borrow()).about(subject)?;
    if let Some(session) = session {
        let refuse = |code: Code, cause: &str| Err(Refusal::new(code, subject(), cause));
        if !survey.pids.contains(&session) {
            return refuse(Code::UNSUPPORTED, "it controls a session whose leader is not in the tree");
        }
        let stats = survey.pids.iter().filter_map(|pid| stat::read_process_wide(*pid).ok());
        let stats: Vec<_> = stats.filter(|stat| stat.session == session).collect();
        if stats.iter().any(|stat| stat.terminal == 0 && stat.state != b'Z') {
            return refuse(Code::UNSUPPORTED, "a process of the session that it controls has let go of it");
        }
        // A shell takes it back right after it has waited for its job.
        if foreground > 0 && !stats.iter().any(|stat| stat.process_group == foreground) {
            return refuse(Code::PASSING_MOMENT, "its foreground group has ended, and the next one is not chosen yet");
        }
    }
    Ok((session, foreground))
}

/// Captures the pair of a master.
///
/// # Errors
/// It has a state that cannot be carried.
pub(super) fn capture(master: &Look, capture: &mut Capture) -> Result<ObjectId> {
    let subject = || master.subject();
    let at = master.borrow();
    let number = terminal::index(at).about(subject)?;
    capture.intern(&PtyPair, &number.to_le_bytes(), |capture, _| {
        let attributes = terminal::attributes(at).about(subject)?;
        let refuse = |cause: &str| Err(Refusal::new(Code::UNSUPPORTED, subject(), cause));
        let passing = |cause: &str| Err(Refusal::new(Code::PASSING_MOMENT, subject(), cause));
        let path = format!("/dev/pts/{number}");
        let packet = terminal::is_packet(at).about(subject)?;
        let ready = readiness::ready(at, readiness::ALL).about(subject)?;
        if packet && ready & 2 != 0 {
            return passing("it is in packet mode, and a status waits to be read");
        }
        if terminal::is_exclusive(at).about(subject)? {
            return refuse("it is in exclusive mode");
        }
        let slave = match (capture.survey.holders(path.as_bytes()).is_empty(), ready & readiness::HANG_UP != 0) {
            (false, _) => Slave::Open,
            (true, true) => Slave::Closed,
            (true, false) => Slave::Unopened,
        };
        if slave == Slave::Closed && terminal::unread(at).about(subject)? > 0 {
            return passing("its slave is closed, and what was written there is not read yet");
        }
        let (mut input, mut output) = (Vec::new(), Vec::new());
        if slave == Slave::Open {
            let locked = terminal::is_locked(at).about(subject)?;
            terminal::set_locked(at, false).about(subject)?;
            let other = terminal::open_slave(at, O_RDWR | O_NOCTTY | O_CLOEXEC).about(subject);
            terminal::set_locked(at, locked).about(subject)?;
            let other = other?;
            if packet {
                terminal::set_packet(at, false).about(subject)?;
            }
            let seen = look_into(at, other.as_fd(), &attributes);
            if packet {
                terminal::set_packet(at, true).about(subject)?;
            }
            (input, output) = seen.about(subject)?;
        }
        let (session, foreground) = controlled(master, &capture.survey)?;
        let metadata = std::fs::metadata(&path).about(|| Subject::Path(path.clone()))?;
        let state = Pair {
            number,
            attributes: attributes.to_vec(),
            size: terminal::size(at).about(subject)?.to_vec(),
            packet,
            locked: terminal::is_locked(at).about(subject)?,
            slave,
            session: session.map(Pid),
            foreground: session.map(|_| Pid(foreground)).filter(|group| group.0 > 0),
            input,
            output,
            owner: (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777),
        };
        Ok((Vec::new(), state))
    })
}

impl Pair {
    fn open_master(&self, subject: impl Fn() -> Subject) -> Result<OwnedFd> {
        let mut others = Vec::new();
        while others.len() < TRIES_MAX as usize {
            let master = file::open(b"/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC).about(&subject)?;
            let number = terminal::index(master.as_fd()).about(&subject)?;
            if number == self.number {
                return Ok(master);
            }
            if number > self.number {
                break;
            }
            others.push(master);
        }
        let cause = format!("/dev/pts/{} is in use here, and the program may know it by that name", self.number);
        let refusal = Refusal::new(Code::DESTINATION_LACKS, subject(), cause);
        Err(refusal.choice("restore where a devpts of its own is mounted, or end the other terminal"))
    }
}

impl Kind for PtyPair {
    fn id(&self) -> KindId {
        KindId(24)
    }
    fn name(&self) -> &'static str {
        "pseudo-terminal"
    }
    fn version(&self) -> u16 {
        1
    }
    fn stage(&self) -> Stage {
        Stage::Early
    }
    fn needs(&self, _: &Envelope) -> Result<Vec<Need>> {
        Ok(vec![Need::path("/dev/ptmx".to_owned(), 0o020_000)])
    }
    fn make(&self, envelope: &Envelope, _: &mut Make) -> Result<Made> {
        let state: Pair = open(envelope)?;
        let subject = || Subject::Object(format!("/dev/pts/{}", state.number));
        let master = state.open_master(subject)?;
        terminal::set_locked(master.as_fd(), false).about(subject)?;
        if state.slave == Slave::Unopened {
            return Ok(vec![master]);
        }
        let slave = terminal::open_slave(master.as_fd(), O_RDWR | O_NOCTTY | O_CLOEXEC).about(subject)?;
        Ok(vec![master, slave])
    }
    fn bind(&self, envelope: &Envelope, bind: &mut Bind) -> Result<()> {
        let state: Pair = open(envelope)?;
        let subject = || Subject::Object(format!("/dev/pts/{}", state.number));
        let attributes: [u8; ATTRIBUTES_BYTES] = raw(&state.attributes, subject)?;
        let size: [u8; SIZE_BYTES] = raw(&state.size, subject)?;
        let master = bind.own()?.try_clone_to_owned().about(subject)?;
        let at = master.as_fd();
        terminal::set_size(at, &size).about(subject)?;
        if state.slave == Slave::Unopened {
            terminal::set_attributes(at, &attributes).about(subject)?;
        } else {
            let slave = bind.made_part(envelope.id, 1)?.try_clone_to_owned().about(subject)?;
            put(at, slave.as_fd(), &attributes, &state.input, &state.output).about(subject)?;
            if let (Some(session), Some(group)) = (state.session, state.foreground) {
                let mut program = Program::new();
                let place = program.data(&group.0.to_le_bytes());
                program.call(
                    "ioctl(TIOCSPGRP)",
                    SYS_IOCTL,
                    [slave_number(bind, envelope.id)?.into(), TIOCSPGRP.into(), place],
                );
                bind.run(session, &program)?;
            }
        }
        let (user, group, mode) = state.owner;
        let path = format!("/dev/pts/{}", state.number);
        std::os::unix::fs::chown(&path, Some(user), Some(group)).about(subject)?;
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).about(subject)?;
        terminal::set_locked(at, state.locked).about(subject)?;
        terminal::set_packet(at, state.packet).about(subject)
    }
    fn description(&self) -> Option<&dyn Description> {
        None
    }
    fn task_state(&self) -> Option<&dyn TaskState> {
        None
    }
}

/// The number under which every task has inherited the slave.
fn slave_number(bind: &Bind, id: ObjectId) -> Result<i32> {
    bind.made_part(id, 1).map(|file| file.as_raw_fd())
}

/// The object and the descriptor's place in it that a session leader makes its controlling terminal.
///
/// # Errors
/// Malformed state.
pub(crate) fn controls(envelope: &Envelope, session: Pid) -> Result<bool> {
    if envelope.kind != PtyPair.id() {
        return Ok(false);
    }
    let state: Pair = open(envelope)?;
    Ok(state.session == Some(session) && state.slave != Slave::Unopened)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_at_both_sides_is_seen_and_stays() {
        const O_NONBLOCK: u32 = 0o4_000;
        let flags = O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK;
        let master = file::open(b"/dev/ptmx", flags).unwrap();
        let at = master.as_fd();
        terminal::set_locked(at, false).unwrap();
        let slave = terminal::open_slave(at, flags).unwrap();
        let settings = terminal::attributes(at).unwrap();
        assert_ne!(settings[LOCAL_FLAGS] & ICANON, 0);
        File::from(master.try_clone().unwrap()).write_all(b"line\rpart").unwrap();
        for _ in 0..2 {
            let (input, output) = look_into(at, slave.as_fd(), &settings).unwrap();
            assert_eq!((input.as_slice(), output.as_slice()), (b"line\npart".as_slice(), b"line\r\npart".as_slice()));
            assert_eq!(terminal::attributes(at).unwrap(), settings);
        }
        let mut text = [0; 64];
        let got = File::from(slave).read(&mut text).unwrap();
        assert_eq!(&text[..got], b"line\n", "only whole lines are read");
    }
}
