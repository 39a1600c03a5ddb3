//! Where a tree cannot live beside the host's own processes: the shepherd once more, inside namespaces made for the job.
//!
//! That a process number is taken is found when the offer is examined. Then a new PID namespace is made with a mount namespace and a
//! /proc of its own; its first process (`init`) collects orphans and lives as long as anything in there; a second shepherd is
//! started inside, at a number that the tree does not have. It gets the connection and the messages that were heard so far, hears them
//! once more, and goes on where this one stopped. This one stays to hand on what the other tells.
use crate::destination::{self, Options, Received, Setting};
use crate::journal::{self, locate};
use crate::report::{Observer, OnProgress, Progress};
use crate::shepherd::{Notice, read, tell};
use crate::stream::Stream;
use crate::transport::Lane;
use godwit_handoff::frame::Frame;
use godwit_handoff::{Packet, Patience};
use godwit_image::{Code, Refusal, Subject};
use godwit_linux::descriptor::{keep_over_exec, take_inherited};
use godwit_linux::mount::{self, Restriction};
use godwit_linux::namespace::{self, ClockOffsets, Namespaces};
use godwit_linux::{memory_file, process};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// First argument that makes the binary the first process of a job's PID namespace.
pub(crate) const INIT: &str = "__godwit-job-init";
/// First argument that makes the binary a shepherd inside.
pub(crate) const INSIDE: &str = "__godwit-shepherd-inside";
/// Descriptors that are handed on: the lane's two, the notices, the messages heard so far, the host's /proc.
const HANDED_ON: usize = 5;
/// Our own processes inside get numbers from this far above the highest of the tree's.
const DISTANCE: i32 = 50;
/// As many numbers are left for them.
const ROOM: i32 = 300;

fn failed(error: impl std::fmt::Display) -> Vec<Refusal> {
    vec![Refusal::new(Code::RESTORE_FAILED, Subject::Object("namespaces of the job".to_owned()), error.to_string())]
}

/// A number below which no number of the tree follows closely.
fn last_number(numbers: &BTreeSet<i32>) -> i32 {
    let limit = std::fs::read_to_string("/proc/sys/kernel/pid_max").ok().and_then(|text| text.trim().parse().ok());
    let limit: i32 = limit.unwrap_or(32_768);
    let ends = std::iter::once(1).chain(numbers.iter().rev().copied());
    let fits = |start: &i32| *start + ROOM < limit && numbers.range(*start..*start + ROOM).next().is_none();
    ends.map(|end| end + DISTANCE).find(fits).unwrap_or(1)
}

/// Lets the hand-off go on inside a new PID namespace.
///
/// # Errors
/// The namespaces cannot be made; why no tree came.
pub(crate) fn serve_inside(
    stream: Stream,
    heard: &[Packet],
    numbers: &BTreeSet<i32>,
    options: &Options,
    resumed: &mut dyn FnMut(i32),
    progress: OnProgress<'_>,
) -> Result<Received, Vec<Refusal>> {
    let (mut notices, teller) = io::pipe().map_err(failed)?;
    let mut memory = File::from(memory_file::create(b"godwit-heard", None).map_err(failed)?);
    let mut bytes = Vec::new();
    for packet in heard {
        Frame::Packet(packet.clone()).encode(&mut bytes).map_err(failed)?;
    }
    memory.write_all(&bytes).and_then(|()| memory.rewind()).map_err(failed)?;
    let lane = stream.into_lane();
    let mut command = Command::new("/proc/self/exe");
    command.arg0("godwit-init").arg(INIT).arg(last_number(numbers).to_string());
    let processes = File::open(journal::PROCESSES).map_err(failed)?;
    let files = [lane.reader.as_fd(), lane.writer.as_fd(), teller.as_fd(), memory.as_fd(), processes.as_fd()];
    for file in files {
        keep_over_exec(file).map_err(failed)?;
        command.arg(file.as_raw_fd().to_string());
    }
    command.arg(&options.run_directory);
    command.arg(if options.wait { "wait" } else { "leave" }).arg(if options.guardian { "guarded" } else { "alone" });
    command.args(&options.shepherd_arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
    let kinds = Namespaces::PID | Namespaces::MOUNT;
    let init = namespace::spawn_in_new(command, kinds, ClockOffsets::default()).map_err(failed)?;
    // Only those inside have them now: their end is the end.
    drop((lane, teller, memory));
    let namespace = journal::namespace_of(&init.id().to_string()).unwrap_or(0);
    while let Some(notice) = read(&mut notices) {
        match notice {
            Notice::Progress(bytes_done, bytes_total) => {
                progress(&Progress { step: "transfer", bytes_done, bytes_total });
            }
            Notice::Resumed(root) => resumed(locate(root, namespace).unwrap_or(root)),
            Notice::Ended(result) => {
                return result.map(|mut received| {
                    received.pid = locate(received.pid, namespace).unwrap_or(received.pid);
                    received
                });
            }
        }
    }
    Err(failed("the shepherd inside ended without a word; its guardian finishes what it left"))
}

/// The number of a task of ours for those who look from the host.
pub(crate) fn number_outside(pid: i32, options: &Options) -> Option<u32> {
    let number = match options.setting {
        Setting::Inside => journal::locate_in(&options.processes, pid, journal::namespace_of("self")?)?,
        Setting::WhereItFits | Setting::Beside => pid,
    };
    u32::try_from(number).ok()
}

fn take(arguments: &[OsString]) -> Result<Vec<OwnedFd>, Vec<Refusal>> {
    let number = |text: &OsString| text.to_str().and_then(|text| text.parse().ok()).unwrap_or(-1);
    arguments.iter().map(|text| take_inherited(number(text)).map_err(failed)).collect()
}

/// The first process of a job's PID namespace. Arguments: the last number that is not to be given away, then the shepherd's.
pub(crate) fn init(arguments: &[OsString]) -> Result<(), Vec<Refusal>> {
    let [last, rest @ ..] = arguments else { return Ok(()) };
    mount::make_private(Path::new("/")).map_err(failed)?;
    mount::mount_new("proc", Path::new("/proc"), Restriction::DataOnly, "").map_err(failed)?;
    std::fs::write("/proc/sys/kernel/ns_last_pid", last.as_encoded_bytes()).map_err(failed)?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("godwit-shepherd").arg(INSIDE).args(rest).spawn().map_err(failed)?;
    drop(take(rest.get(..HANDED_ON).unwrap_or_default())?);
    // Everything that ends in here and has no other parent is collected; with the last of it, the namespace ends.
    while process::collect_any().map_err(failed)?.is_some() {}
    Ok(())
}

/// The shepherd inside. Arguments: the descriptors, then as the shepherd's.
pub(crate) fn shepherd(
    arguments: &[OsString],
    observer: impl FnOnce(&[OsString]) -> Option<Observer>,
) -> Result<(), Vec<Refusal>> {
    let [reader, writer, teller, memory, processes, directory, wait, guarded, further @ ..] = arguments else {
        return Ok(());
    };
    let [reader, writer, teller, memory, processes] =
        [reader, writer, teller, memory, processes].map(|text| take(std::slice::from_ref(text)));
    let one = |mut files: Vec<OwnedFd>| files.pop().ok_or_else(|| failed("a descriptor is missing"));
    let mut teller = File::from(one(teller?)?);
    let lane = Lane::new(one(reader?)?, one(writer?)?, "the source".to_owned()).map_err(failed)?;
    let processes = one(processes?)?;
    let mut bytes = Vec::new();
    File::from(one(memory?)?).read_to_end(&mut bytes).map_err(failed)?;
    let options = Options {
        patience: Patience::default(),
        run_directory: PathBuf::from(directory),
        answer_only: false,
        wait: wait == "wait",
        guardian: guarded == "guarded",
        shepherd_arguments: Vec::new(),
        setting: Setting::Inside,
        processes: PathBuf::from(format!("/proc/self/fd/{}", processes.as_raw_fd())),
    };
    let heard = heard(&bytes)?;
    let result = destination::serve_again(lane, heard, &options, observer(further), &mut teller);
    tell(&mut teller, &Notice::Ended(result));
    Ok(())
}

fn heard(mut bytes: &[u8]) -> Result<Vec<Packet>, Vec<Refusal>> {
    let mut packets = Vec::new();
    while let Some((frame, length)) = Frame::split(bytes).map_err(failed)? {
        if let Frame::Packet(packet) = frame {
            packets.push(packet);
        }
        bytes = &bytes[length..];
    }
    Ok(packets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_numbers_keep_away_from_the_trees() {
        let check = |numbers: &[i32]| {
            let numbers: BTreeSet<i32> = numbers.iter().copied().collect();
            let last = last_number(&numbers);
            assert!(last > 1 && numbers.range(last..last + ROOM).next().is_none(), "{numbers:?}: {last}");
        };
        check(&[]);
        check(&[4, 5, 6]);
        check(&[2, 30_000, 32_700]);
        check(&(2..2000).collect::<Vec<_>>());
    }
}
