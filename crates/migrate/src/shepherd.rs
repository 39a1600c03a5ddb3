//! The shepherd: this binary once more, single-threaded, for one connection. What starts it, and what it becomes.
use crate::destination::{self, Options, Received, Setting};
use crate::report::{Observer, OnProgress, Progress};
use crate::transport::{Lane, tcp};
use crate::{guardian, relocation};
use godwit_handoff::Patience;
use godwit_image::{Code, Refusal, Subject, codec};
use godwit_linux::descriptor::Placed;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// First argument that makes the binary a shepherd.
const SHEPHERD: &str = "__godwit-shepherd";
/// Longest notice.
const NOTICE_BYTES_MAX: u32 = 16 << 20;

/// One notice per so many bytes is enough to draw a bar.
pub(crate) const NOTICE_EVERY: u64 = 16 << 20;

/// What a shepherd tells its daemon, on its standard output.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Notice {
    Progress(u64, u64),
    Resumed(i32),
    Ended(Result<Received, Vec<Refusal>>),
}

/// Has a connection served by a shepherd, and tells what became of it. `resumed` is told the root's number when the tree runs here.
///
/// # Errors
/// Why no tree came.
pub fn receive(
    connection: TcpStream,
    options: &Options,
    resumed: &mut dyn FnMut(i32),
    progress: OnProgress<'_>,
) -> Result<Received, Vec<Refusal>> {
    let subject = || Subject::Object("shepherd".to_owned());
    let failed = |error: io::Error| vec![Refusal::new(Code::KERNEL_CALL, subject(), error.to_string())];
    let mut command = Command::new("/proc/self/exe");
    command.arg0("godwit-shepherd").arg(SHEPHERD).arg(&options.run_directory);
    let stay = if options.answer_only {
        "answer"
    } else if options.wait {
        "wait"
    } else {
        "leave"
    };
    command.arg(stay).arg(if options.guardian { "guarded" } else { "alone" });
    command.arg(if options.setting == Setting::Beside { "beside" } else { "fits" });
    command.args(&options.shepherd_arguments);
    command.stdin(OwnedFd::from(connection)).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn().map_err(failed)?;
    // The command still has the connection, whose end the source must be able to see.
    drop(command);
    let mut ended = None;
    if let Some(mut notices) = child.stdout.take() {
        while let Some(notice) = read(&mut notices) {
            match notice {
                Notice::Progress(bytes_done, bytes_total) => {
                    progress(&Progress { step: "transfer", bytes_done, bytes_total });
                }
                Notice::Resumed(root) => resumed(root),
                Notice::Ended(result) => {
                    ended = Some(result);
                    break;
                }
            }
        }
    }
    let status = child.wait().map_err(failed)?;
    ended.unwrap_or_else(|| {
        let cause = format!("it ended without a word ({status}); its guardian finishes what it left");
        Err(vec![Refusal::new(Code::RESTORE_FAILED, subject(), cause)])
    })
}

/// The next notice; `None` at the end.
pub(crate) fn read(notices: &mut impl Read) -> Option<Notice> {
    let mut length = [0; 4];
    notices.read_exact(&mut length).ok()?;
    let length = u32::from_le_bytes(length);
    if length > NOTICE_BYTES_MAX {
        return None;
    }
    let mut bytes = vec![0; length as usize];
    notices.read_exact(&mut bytes).ok()?;
    codec::decode(&bytes).ok()
}

pub(crate) fn tell(teller: &mut impl Write, notice: &Notice) {
    let Ok(bytes) = codec::encode(notice) else { return };
    let mut framed = (bytes.len() as u32).to_le_bytes().to_vec();
    framed.extend(bytes);
    // A daemon that has died hears nothing; the hand-off does not depend on it.
    let _ = teller.write_all(&framed).and_then(|()| teller.flush());
}

/// Returns at once unless this process was started as a shepherd or guardian; then it never returns. To be called first in the
/// `main` of every binary that migrates or receives. `observer` makes, for tests, an observer out of the shepherd's further arguments.
pub fn entry(observer: impl FnOnce(&[OsString]) -> Option<Observer>) {
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next();
    let rest: Vec<OsString> = arguments.collect();
    let code = match first {
        Some(word) if word == SHEPHERD => shepherd(&rest, observer),
        Some(word) if word == relocation::INSIDE => told(relocation::shepherd(&rest, observer)),
        Some(word) if word == relocation::INIT => told(relocation::init(&rest)),
        Some(word) if word == guardian::GUARDIAN => told(guardian::run(&rest)),
        _ => return,
    };
    std::process::exit(code);
}

/// An exit code, after the refusals were told on standard error.
pub(crate) fn told(result: Result<(), Vec<Refusal>>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(refusals) => {
            refusals.iter().for_each(|refusal| eprintln!("godwit: {refusal}"));
            1
        }
    }
}

fn shepherd(arguments: &[OsString], observer: impl FnOnce(&[OsString]) -> Option<Observer>) -> i32 {
    let [directory, wait, guarded, setting, further @ ..] = arguments else { return 2 };
    let options = Options {
        patience: Patience::default(),
        run_directory: PathBuf::from(directory),
        wait: wait == "wait",
        answer_only: wait == "answer",
        guardian: guarded == "guarded",
        shepherd_arguments: further.to_vec(),
        setting: if setting == "beside" { Setting::Beside } else { Setting::WhereItFits },
        processes: PathBuf::from(crate::journal::PROCESSES),
    };
    let observer = observer(further);
    let result = take_standard_input().and_then(|socket| tcp::lane(TcpStream::from(socket)));
    let result = match result {
        Ok(lane) => serve(lane, &options, observer),
        Err(error) => {
            Err(vec![Refusal::new(Code::LINK_LOST, Subject::Object("connection".to_owned()), error.to_string())])
        }
    };
    let code = i32::from(result.is_err());
    tell(&mut io::stdout(), &Notice::Ended(result));
    code
}

/// The connection, and /dev/null in its place: it must end when the lane does.
fn take_standard_input() -> io::Result<OwnedFd> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let null = File::open("/dev/null")?;
    // For good: nothing is put back.
    std::mem::forget(Placed::at(null.as_fd(), 0)?);
    Ok(socket)
}

fn serve(lane: Lane, options: &Options, observer: Option<Observer>) -> Result<Received, Vec<Refusal>> {
    let mut last = 0;
    let mut progress = |progress: &Progress| {
        if progress.bytes_done >= last + NOTICE_EVERY {
            last = progress.bytes_done;
            tell(&mut io::stdout(), &Notice::Progress(progress.bytes_done, progress.bytes_total));
        }
    };
    destination::serve(
        lane,
        options,
        observer,
        &mut |root| tell(&mut io::stdout(), &Notice::Resumed(root)),
        &mut progress,
    )
}

/// Takes part in one hand-off over this process's own standard input and output, as `ssh` gives them; see [`destination::serve`].
///
/// # Errors
/// Why no tree came.
pub fn receive_over_standard_streams(
    options: &Options,
    observer: Option<Observer>,
    progress: OnProgress<'_>,
) -> Result<Received, Vec<Refusal>> {
    let lane = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .and_then(|reader| Ok((reader, io::stdout().as_fd().try_clone_to_owned()?)))
        .and_then(|(reader, writer)| Lane::new(reader, writer, "standard streams".to_owned()));
    match lane {
        Ok(lane) => destination::serve(lane, options, observer, &mut |_| {}, progress),
        Err(error) => {
            Err(vec![Refusal::new(Code::LINK_LOST, Subject::Object("standard streams".to_owned()), error.to_string())])
        }
    }
}
