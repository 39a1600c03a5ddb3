//! Terminals, as descriptors refer to them: masters and slaves of pseudo-terminals in the tree; all others are edges.
use super::pty;
use super::{Captured, Description, Kind, Made, Need, Stage, TaskState, edge, open};
use crate::capture::Capture;
use crate::failure::{About, Result};
use crate::look::{Look, Survey};
use crate::restore::{Bind, Make};
use godwit_image::{Code, Envelope, KindId, ObjectId, Refusal, Subject, Verdict};
use godwit_linux::kcmp::{self, Object};
use godwit_linux::pidfd::PidFd;
use godwit_linux::{file, terminal};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

const S_IFCHR: u32 = 0o020_000;
const O_PATH: u32 = 0o10_000_000;
const O_NOCTTY: u32 = 0o400;
const O_ASYNC: u32 = 0o20_000;
const MASTERS: [&[u8]; 2] = [b"/dev/ptmx", b"/dev/pts/ptmx"];

/// State of one description.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// The pair.
    pub pair: ObjectId,
    /// It is the master; a pair has one description of it.
    pub master: bool,
    /// Open flags.
    pub flags: u32,
}

/// The kind.
#[derive(Debug)]
pub struct Terminal;

/// What a descriptor of a terminal is.
enum Sort {
    Master,
    /// N of /dev/pts/N.
    Slave(u32),
    /// /dev/tty, a console, a serial line.
    Other,
}

fn sort(look: &Look) -> Option<Sort> {
    if look.file_type() != S_IFCHR || look.flags() & O_PATH != 0 {
        return None;
    }
    let (major, minor) = (look.device_number >> 8 & 0xfff, look.device_number & 0xff);
    match (major, minor) {
        (5, 2) => Some(Sort::Master),
        (136..=143, _) => Some(Sort::Slave(((major - 136) << 8 | minor) as u32)),
        (4, _) | (5, 0 | 1) | (204, _) => Some(Sort::Other),
        _ => None,
    }
}

fn unsupported(look: &Look, cause: &str) -> Refusal {
    let refusal = Refusal::new(Code::UNSUPPORTED, look.subject(), cause).choice("close it in the program");
    match look.number() {
        Some(number) => refusal.choice(format!(
            "choose: --edge {}:{number}=inherit (restore only), =file:PATH, =null or =close",
            look.pid
        )),
        None => refusal,
    }
}

/// The master of a slave, if the tree has it.
fn master(look: &Look, survey: &Survey, number: u32) -> Result<Option<Look>> {
    for (pid, descriptor) in MASTERS.iter().flat_map(|name| survey.holders(name)) {
        let process = PidFd::open_thread(*pid).about(|| Subject::Process(*pid))?;
        let Some(found) = Look::descriptor(&process, *descriptor)? else { continue };
        if found.information.terminal_index == Some(number)
            && std::fs::metadata(format!("/proc/{}/root/dev/pts/{number}", look.pid))
                .is_ok_and(|node| (node.dev(), node.ino()) == (look.device, look.inode))
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Finds the master, in the tree, of a terminal of the tree.
fn inspect(look: &Look, survey: &Survey) -> Result<Option<Look>> {
    match sort(look) {
        Some(Sort::Master) => {
            for name in MASTERS {
                for (pid, descriptor) in survey.outside(name) {
                    let same = look.number().is_some_and(|own| {
                        kcmp::kcmp(look.pid, *pid, Object::File(own, *descriptor))
                            .is_ok_and(|order| order == Ordering::Equal)
                    });
                    if same {
                        return Err(edge::cut(look, edge::held_outside(&[(*pid, *descriptor)])));
                    }
                }
            }
            Ok(None)
        }
        Some(Sort::Slave(number)) => {
            let same = |(pid, descriptor): &&(i32, i32)| {
                std::fs::metadata(format!("/proc/{pid}/fd/{descriptor}"))
                    .is_ok_and(|node| (node.dev(), node.ino()) == (look.device, look.inode))
            };
            let Some(found) = master(look, survey, number)? else {
                return Err(edge::cut(look, "it is a terminal that belongs to somebody outside the tree"));
            };
            let holders: Vec<(i32, i32)> = survey.outside(&look.link).iter().filter(same).copied().collect();
            if !holders.is_empty() {
                return Err(edge::cut(look, edge::held_outside(&holders)));
            }
            Ok(Some(found))
        }
        _ => Err(unsupported(
            look,
            "a console, a serial line or /dev/tty: it belongs to this machine or another terminal",
        )),
    }
}

impl Kind for Terminal {
    fn id(&self) -> KindId {
        KindId(23)
    }
    fn name(&self) -> &'static str {
        "terminal"
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
    fn make(&self, envelope: &Envelope, make: &mut Make) -> Result<Made> {
        let state: State = open(envelope)?;
        let subject = || Subject::Object(format!("terminal {}", envelope.id));
        let master = make.made(state.pair, 0)?;
        Ok(vec![if state.master {
            master.try_clone_to_owned().about(subject)?
        } else {
            terminal::open_slave(master, state.flags & !O_ASYNC | O_NOCTTY).about(subject)?
        }])
    }
    fn bind(&self, envelope: &Envelope, bind: &mut Bind) -> Result<()> {
        let state: State = open(envelope)?;
        let subject = || Subject::Object(format!("terminal {}", envelope.id));
        file::set_status_flags(bind.own()?.as_fd(), state.flags & !O_ASYNC).about(subject)
    }
    fn description(&self) -> Option<&dyn Description> {
        Some(self)
    }
    fn task_state(&self) -> Option<&dyn TaskState> {
        None
    }
}

impl Description for Terminal {
    fn recognise(&self, look: &Look) -> bool {
        sort(look).is_some()
    }
    fn examine(&self, look: &Look, survey: &Survey) -> Verdict {
        inspect(look, survey).map_or_else(Verdict::Blocks, |_| Verdict::Carried)
    }
    fn foresee(&self, _: &Look, _: &Survey) -> Vec<Need> {
        Vec::new()
    }
    fn capture(&self, look: &Look, capture: &mut Capture) -> Result<Captured> {
        let master = inspect(look, &capture.survey)?;
        let pair = pty::capture(master.as_ref().unwrap_or(look), capture)?;
        Captured::new(vec![pair], &State { pair, master: master.is_none(), flags: look.flags() })
    }
}
