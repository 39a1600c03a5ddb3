//! Edges of the tree: descriptors whose other side is outside, replaced at the destination as the user chose.
use super::{Captured, Description, Kind, Made, Need, Stage, TaskState, open};
use crate::failure::{About, Result};
use crate::look::Look;
use crate::restore::{Bind, Make};
use godwit_image::{Code, Envelope, KindId, Refusal, Subject};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const O_ACCMODE: u32 = 3;
const O_WRONLY: u32 = 1;
const O_NONBLOCK: u32 = 0o4000;

/// What to do with an edge.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Choice {
    /// Open this path at the destination, with the flags that the descriptor has; made there if it is to be written.
    File(String),
    /// /dev/null.
    Null,
    /// The restorer's own descriptor of the same number.
    Inherit,
    /// Not open at the destination.
    Close,
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Choice::File(path) => write!(f, "file:{path}"),
            Choice::Null => f.write_str("null"),
            Choice::Inherit => f.write_str("inherit"),
            Choice::Close => f.write_str("close"),
        }
    }
}

/// State of an edge.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// The user's choice.
    pub choice: Choice,
    /// The descriptor number, for `Inherit`.
    pub number: i32,
    /// Open flags.
    pub flags: u32,
    /// What it was at the source.
    pub was: String,
}

/// The kind.
#[derive(Debug)]
pub struct Edge;

/// Captures a description by the user's choice instead of by its kind.
///
/// # Errors
/// None today; the state is always encodable.
pub(crate) fn chosen(look: &Look, choice: &Choice, number: Option<i32>) -> Result<(&'static dyn Kind, Captured)> {
    let number = number.or(look.number()).unwrap_or(-1);
    let state = State { choice: choice.clone(), number, flags: look.flags(), was: look.text() };
    Ok((&Edge, Captured::new(Vec::new(), &state)?))
}

/// What the destination must have for a choice.
pub(crate) fn needs(choice: &Choice, flags: u32) -> Vec<Need> {
    let Choice::File(path) = choice else { return Vec::new() };
    let path = Path::new(path);
    let needed = if is_written(flags) { path.parent().unwrap_or(path) } else { path };
    vec![Need::path(needed.to_string_lossy().into_owned(), 0)]
}

fn is_written(flags: u32) -> bool {
    flags & O_ACCMODE != 0
}

/// Opens a file as chosen. Who writes gets it made, and goes on behind what it holds: what is there is not overwritten.
fn open_file(path: &str, flags: u32) -> Result<OwnedFd> {
    let subject = || Subject::Path(path.to_owned());
    let access = flags & O_ACCMODE;
    // A FIFO without its other side would keep us waiting for ever; like this it is an error.
    let mut options = File::options();
    options.read(access != O_WRONLY).write(access != 0).create(access != 0).mode(0o666);
    let mut file = options.custom_flags((flags & !O_ACCMODE | O_NONBLOCK) as i32).open(path).about(subject)?;
    if access != 0 && file.metadata().about(subject)?.is_file() {
        file.seek(SeekFrom::End(0)).about(subject)?;
    }
    godwit_linux::file::set_status_flags(file.as_fd(), flags).about(subject)?;
    Ok(file.into())
}

/// The refusal for a descriptor whose other side is outside the tree, with the choices that there are.
pub fn cut(look: &Look, cause: impl Into<String>) -> Refusal {
    let refusal = Refusal::new(Code::EDGE, look.subject(), cause);
    match look.number() {
        Some(number) => refusal
            .choice(format!("choose: --edge {}:{number}=file:PATH, =null, =inherit or =close", look.pid))
            .choice("move the process at the other side as well"),
        None => refusal.choice("move the process at the other side as well"),
    }
}

/// The cause that names outside holders: (pid, descriptor).
pub fn held_outside(holders: &[(i32, i32)]) -> String {
    let named: Vec<String> = holders
        .iter()
        .take(3)
        .map(|(pid, descriptor)| {
            let comm = crate::procfs::comm(*pid, *pid).unwrap_or_default();
            format!("process {pid} ({}) as descriptor {descriptor}", String::from_utf8_lossy(&comm))
        })
        .collect();
    let more = if holders.len() > named.len() { ", and more," } else { "" };
    format!("outside the tree it is held by {}{more}", named.join(", "))
}

/// Parses `file:PATH`, `null`, `inherit`, `close`.
///
/// # Errors
/// GW1501 for anything else.
pub fn parse(text: &str) -> Result<Choice> {
    match text {
        "null" => Ok(Choice::Null),
        "inherit" => Ok(Choice::Inherit),
        "close" => Ok(Choice::Close),
        _ => match text.strip_prefix("file:") {
            Some(path) if path.starts_with('/') => Ok(Choice::File(path.to_owned())),
            _ => Err(Refusal::new(
                Code::USAGE,
                Subject::Object(format!("--edge {text}")),
                "expected file:/ABSOLUTE/PATH, null, inherit or close",
            )),
        },
    }
}

impl Kind for Edge {
    fn id(&self) -> KindId {
        KindId(1)
    }
    fn name(&self) -> &'static str {
        "edge"
    }
    fn version(&self) -> u16 {
        1
    }
    fn stage(&self) -> Stage {
        Stage::Early
    }
    fn needs(&self, envelope: &Envelope) -> Result<Vec<Need>> {
        let state: State = open(envelope)?;
        Ok(needs(&state.choice, state.flags))
    }
    fn make(&self, envelope: &Envelope, make: &mut Make) -> Result<Made> {
        let state: State = open(envelope)?;
        // O_CREAT, O_EXCL, O_TRUNC never belong to an open description's flags.
        let flags = state.flags & !0o1300;
        Ok(match state.choice {
            Choice::File(path) => vec![open_file(&path, flags)?],
            Choice::Null => {
                let access = flags & 3;
                vec![godwit_linux::file::open(b"/dev/null", access).about(|| Subject::Path("/dev/null".to_owned()))?]
            }
            Choice::Inherit => vec![make.inherited(state.number)?],
            Choice::Close => Vec::new(),
        })
    }
    fn bind(&self, _: &Envelope, _: &mut Bind) -> Result<()> {
        Ok(())
    }
    fn description(&self) -> Option<&dyn Description> {
        // Never recognised by itself: only by the user's choice, see `chosen`.
        None
    }
    fn task_state(&self) -> Option<&dyn TaskState> {
        None
    }
}
