//! A process whose pipes and sockets are full, moved by a row that has what lies unread in them follow: it computes on meanwhile, and whoever
//! touches one of them waits until it is there, whatever becomes of those who bring it.
use super::{CLOSE_ALL, PORT, Rig, Trouble, executable};
use godwit_linux::pipe;
use godwit_migrate::source;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime};

const ROW: &str = "prepare=none down=working post=communication+rest";
const WITH_STORE: &str = "freeze-free";
/// What may leave in a second: all that lies unread takes several.
const RATE: &str = "1000000";
const PIPES: usize = 4;
const PIPE_BYTES: usize = 1 << 20;
const PAUSE: Duration = Duration::from_millis(3);
/// Seconds for which somebody waits who touches a pipe, at least, and for which nobody else does.
const WAITS: f64 = 2.5;
const COMPUTES: f64 = 1.5;

pub(super) const MOVES: [(&str, &str, Option<Trouble>); 5] = [
    ("", ROW, None),
    (", with a page store", WITH_STORE, None),
    (", its source dies", ROW, Some(Trouble::Died)),
    (", the link is cut", ROW, Some(Trouble::Cut)),
    (", its destination dies", ROW, Some(Trouble::OtherDied)),
];

/// `pages`: a directory for those that need a page store.
pub(super) fn options(row: &str, pages: &str) -> source::Options {
    let bandwidth = Some(RATE.parse().unwrap());
    let pages = (row == WITH_STORE).then(|| pages.to_owned());
    source::Options { strategy: row.to_owned(), pages, bandwidth, ..source::Options::default() }
}

/// Bytes that nobody can pack, of which each is told by where it is.
struct Noise(u64);

impl Noise {
    fn fill(&mut self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(8) {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let word = (self.0 ^ (self.0 >> 29)).to_le_bytes();
            part.copy_from_slice(&word[..part.len()]);
        }
    }

    fn bytes(seed: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        Noise(seed).fill(&mut bytes);
        bytes
    }
}

fn note(file: &mut std::fs::File, number: u64) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    file.write_all(format!("{number} {now:.6}\n").as_bytes()).unwrap();
}

/// The process: one thread counts, the other looks at its pipes all the time, and reads them when it is told to.
pub(super) fn talk(directory: &Path) -> ExitCode {
    let open = |name: &str| OpenOptions::new().append(true).create(true).open(directory.join(name)).unwrap();
    let mut pipes = Vec::new();
    for number in 0..PIPES {
        let (reader, writer) = pipe::create(0).unwrap();
        pipe::set_capacity(writer.as_fd(), PIPE_BYTES as u64).unwrap();
        std::fs::File::from(writer.try_clone().unwrap()).write_all(&Noise::bytes(number as u64, PIPE_BYTES)).unwrap();
        pipes.push((std::fs::File::from(reader), writer));
    }
    let (mut here, mut there) = UnixStream::pair().unwrap();
    there.set_nonblocking(true).unwrap();
    let mut sent = 0;
    loop {
        match there.write(&Noise::bytes(sent as u64, 1000)) {
            Ok(count) => {
                assert_eq!(count, 1000);
                sent += count;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    let (mut counted, mut touched) = (open("counted"), open("touched"));
    std::thread::spawn(move || {
        for number in 0_u64.. {
            note(&mut counted, number);
            std::thread::sleep(PAUSE);
        }
    });
    while !directory.join("read").exists() {
        let unread: u64 = pipes.iter().map(|(reader, _)| pipe::unread(reader.as_fd()).unwrap()).sum();
        assert_eq!(unread, (PIPES * PIPE_BYTES) as u64);
        note(&mut touched, unread);
        std::thread::sleep(PAUSE);
    }
    // Behind the last wait.
    note(&mut touched, 0);
    for (number, (mut reader, writer)) in pipes.into_iter().enumerate() {
        drop(writer);
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        assert!(bytes == Noise::bytes(number as u64, PIPE_BYTES), "pipe {number}");
    }
    drop(there);
    let mut bytes = Vec::new();
    here.read_to_end(&mut bytes).unwrap();
    let expected: Vec<u8> = (0..sent / 1000).flat_map(|part| Noise::bytes(part as u64 * 1000, 1000)).collect();
    assert!(bytes == expected, "socket");
    std::fs::write(directory.join("verdict"), "good").unwrap();
    loop {
        std::thread::sleep(PAUSE);
    }
}

/// The longest time between two lines.
fn longest_gap(file: &Path) -> f64 {
    let text = std::fs::read_to_string(file).unwrap();
    let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
    let times: Vec<f64> = complete.lines().map(|line| line.split_once(' ').unwrap().1.parse().unwrap()).collect();
    times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max)
}

fn length(file: &Path) -> u64 {
    std::fs::metadata(file).map_or(0, |metadata| metadata.len())
}

fn await_that(what: &str, holds: impl Fn() -> bool) -> Result<(), String> {
    let begin = Instant::now();
    while !holds() {
        if begin.elapsed() > Duration::from_secs(30) {
            return Err(format!("it never was that {what}"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Moves it; a fault comes when the one thread goes on there and the other waits.
pub(super) fn later(row: &str, fault: Option<Trouble>) -> Result<(), String> {
    let mut rig = Rig::new("never", false).map_err(|error| error.to_string())?;
    let shell = rig.pair.source.command("/bin/bash").args(["-c", CLOSE_ALL]).arg(executable());
    let pid = shell.arg("talk").arg(&rig.directory).detach().unwrap().to_string();
    let files = ["counted", "touched", "verdict"].map(|name| rig.directory.join(name));
    let files = [&files[0], &files[1], &files[2]].map(PathBuf::as_path);
    await_that("it looks at its pipes", || length(files[1]) > 500)?;
    let destination = format!("tcp://{}:{PORT}", rig.pair.destination.address());
    let pages = rig.directory.join("pages");
    std::fs::create_dir_all(&pages).unwrap();
    let command = rig.pair.source.command(executable()).args(["migrate-later", &pid, &destination, row]).arg(&pages);
    let mut mover = command.stdout(Stdio::piped()).spawn().unwrap();
    let meanwhile = strike(&mut rig, &mut mover, fault, files);
    if meanwhile.is_err() {
        let _ = mover.kill();
    }
    let said = mover.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&said.stdout).into_owned();
    meanwhile.map_err(|error| format!("{error}; {told}"))?;
    if fault == Some(Trouble::OtherDied) {
        return stays_ended(files, said.status.success(), &told);
    }
    let (computes, waits) = (longest_gap(files[0]), longest_gap(files[1]));
    println!("   one waited for {waits:.1} s, the other for {computes:.2} s; {}", told.trim());
    if fault.is_none() && !told.contains("communication_bytes: 4") {
        return Err("it did not follow".to_owned());
    }
    // A guardian knows of no limit.
    let is_limited = fault != Some(Trouble::Died);
    if (is_limited && waits < WAITS) || (fault.is_none() && computes > COMPUTES) {
        return Err("that is not how it should be".to_owned());
    }
    match super::check_place(&rig, "talk") {
        (false, true) => Ok(()),
        place => Err(format!("(here, there) is {place:?}")),
    }
}

/// Waits for the moment, has the fault happen then, and has the process read everything, or, without an engine, waits for its end.
fn strike(rig: &mut Rig, mover: &mut Child, fault: Option<Trouble>, files: [&Path; 3]) -> Result<(), String> {
    let lengths = || files.map(length);
    // Only there does the one count while the other waits.
    await_that("one counts while the other waits", || {
        let before = lengths();
        std::thread::sleep(Duration::from_millis(400));
        lengths()[0] > before[0] + 500 && lengths()[1] == before[1]
    })?;
    match fault {
        None => {}
        Some(Trouble::Died) => mover.kill().unwrap(),
        Some(Trouble::Cut) => {
            rig.pair.link.cut().map_err(|error| error.to_string())?;
            std::thread::sleep(Duration::from_secs(12));
            let before = lengths()[1];
            std::thread::sleep(Duration::from_secs(1));
            let is_touched = lengths()[1] != before;
            rig.pair.link.heal().map_err(|error| error.to_string())?;
            if is_touched {
                return Err("it touched what had not come".to_owned());
            }
        }
        Some(Trouble::OtherDied) => {
            let script =
                "for p in /proc/[0-9]*; do grep -q '__godwit-[s]hepherd' $p/cmdline && kill -KILL ${p#/proc/}; done";
            let host = &rig.pair.destination;
            host.command("/bin/sh").args(["-c", script]).status().map_err(|error| error.to_string())?;
            return await_that("it has ended", || !super::check_place(rig, "talk").1);
        }
    }
    std::fs::write(rig.directory.join("read"), "now").unwrap();
    await_that("all was read", || length(files[2]) > 0)
}

/// Without what lay unread the process must not go on there, and it must not be said that it does.
fn stays_ended(files: [&Path; 3], is_moved: bool, told: &str) -> Result<(), String> {
    println!("   {}", told.trim());
    let before = files.map(length);
    std::thread::sleep(Duration::from_millis(300));
    match (files.map(length) == before, is_moved) {
        (true, false) => Ok(()),
        (false, _) => Err("it goes on".to_owned()),
        (_, true) => Err("it counts as moved".to_owned()),
    }
}
