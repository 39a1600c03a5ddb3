//! Inotify instances: their watches with number, mask and path. Sources: inotify(7), fs/notify/inotify of Linux 6.18.
//!
//! A watch is on an inode; its path is found by the handle that fdinfo shows, or else among the paths that the tree itself
//! uses. Events that nobody has read yet can neither be read without taking them away nor be put in again: an instance that
//! has some is refused until the program has read them. It is bound last, so that nothing of the rebuilding is an event.
use super::{Captured, Description, Kind, Made, Need, Stage, TaskState, open};
use crate::capture::Capture;
use crate::failure::{About, Result};
use crate::look::{Look, Survey};
use crate::restore::{Bind, Make};
use godwit_image::{Code, Envelope, KindId, Refusal, Subject, Verdict};
use godwit_linux::features::Feature;
use godwit_linux::proc::{fdinfo::InotifyWatch, mountinfo};
use godwit_linux::{file, file_handle, inotify, pipe};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const S_IFMT: u32 = 0o170_000;
const O_PATH: u32 = 0o10_000_000;
const O_ASYNC: u32 = 0o20_000;
/// Entries of directories that are compared with a watch whose handle leads nowhere.
const ENTRIES_MAX: usize = 100_000;

/// State.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// Open flags.
    pub flags: u32,
    /// The watches, by number.
    pub watches: Vec<Watch>,
}

impl State {
    fn needs(self) -> Vec<Need> {
        let numbers = (!self.watches.is_empty()).then(|| Need::feature(Feature::WatchNumbers));
        let paths = self.watches.into_iter().map(|watch| Need::path(watch.path, watch.file_type));
        numbers.into_iter().chain(paths).collect()
    }
}

/// One watch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Watch {
    /// The watch descriptor.
    pub number: i32,
    /// IN_* bits.
    pub mask: u32,
    /// Absolute path of what is watched.
    pub path: String,
    /// st_mode & S_IFMT of it.
    pub file_type: u32,
}

/// The kind.
#[derive(Debug)]
pub struct InotifyInstance;

/// Where the watched files of one instance are looked for.
struct Places<'a> {
    mounts: Vec<mountinfo::Mount>,
    survey: &'a Survey,
    nearby: Option<BTreeSet<PathBuf>>,
}

fn device(watch: &InotifyWatch) -> u64 {
    file::device(watch.device_major, watch.device_minor)
}

impl Places<'_> {
    fn of<'a>(look: &Look, survey: &'a Survey) -> Result<Places<'a>> {
        let mounts = mountinfo::read(look.pid).about(|| look.subject())?;
        Ok(Places { mounts, survey, nearby: None })
    }

    /// By the handle: through a mount of the file system that shows all of it.
    fn by_handle(&self, watch: &InotifyWatch) -> Option<PathBuf> {
        let handle = watch.handle.as_ref()?;
        let here = |mount: &&mountinfo::Mount| {
            (mount.device_major, mount.device_minor) == (watch.device_major, watch.device_minor)
        };
        let mut mounts: Vec<_> = self.mounts.iter().filter(here).collect();
        mounts.sort_by_key(|mount| mount.root != b"/");
        for mount in mounts {
            // Opened for reading only if it must be: that would be an event for whoever watches the mount's root.
            let open = |flags| file::open(&mount.point, flags).ok();
            let found = [O_PATH, 0]
                .into_iter()
                .find_map(|flags| file_handle::open(open(flags)?.as_fd(), handle.kind, &handle.bytes).ok());
            if let Some(path) = found.and_then(|found| name_of(&found)) {
                return Some(path);
            }
        }
        None
    }

    /// Paths that the tree uses, and all their parents; mount points.
    fn nearby(&mut self) -> &BTreeSet<PathBuf> {
        let (survey, mounts) = (self.survey, &self.mounts);
        self.nearby.get_or_insert_with(|| {
            let mut paths = BTreeSet::new();
            let mut add = |path: &Path| {
                paths.extend(path.ancestors().filter(|path| path.is_absolute()).map(Path::to_path_buf));
            };
            for link in survey.inside.keys() {
                add(Path::new(std::ffi::OsStr::from_bytes(link)));
            }
            for pid in &survey.pids {
                for name in ["cwd", "root", "exe"] {
                    if let Ok(path) = std::fs::read_link(format!("/proc/{pid}/{name}")) {
                        add(&path);
                    }
                }
            }
            for mount in mounts {
                add(Path::new(std::ffi::OsStr::from_bytes(&mount.point)));
            }
            paths
        })
    }

    /// By comparing inodes nearby: paths themselves, then what lies in those that are directories. Last, since reading a
    /// directory is an event for whoever watches it.
    fn by_inode(&mut self, watch: &InotifyWatch) -> Option<PathBuf> {
        let is_it = |path: &Path| {
            std::fs::symlink_metadata(path).is_ok_and(|data| (data.dev(), data.ino()) == (device(watch), watch.inode))
        };
        let nearby = self.nearby();
        if let Some(path) = nearby.iter().find(|path| is_it(path)) {
            return Some(path.clone());
        }
        let entries = nearby.iter().filter_map(|path| std::fs::read_dir(path).ok()).flatten().flatten();
        entries.take(ENTRIES_MAX).map(|entry| entry.path()).find(|path| is_it(path))
    }

    fn find(&mut self, watch: &InotifyWatch) -> Option<PathBuf> {
        self.by_handle(watch).or_else(|| self.by_inode(watch))
    }
}

/// The path of a file opened by handle, if it leads to that file.
fn name_of(found: &OwnedFd) -> Option<PathBuf> {
    let path = std::fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())).ok()?;
    let here = File::from(found.try_clone().ok()?).metadata().ok()?;
    let there = std::fs::symlink_metadata(&path).ok()?;
    ((here.dev(), here.ino()) == (there.dev(), there.ino())).then_some(path)
}

fn unread(look: &Look) -> Result<()> {
    match pipe::unread(look.borrow()).about(|| look.subject())? {
        0 => Ok(()),
        bytes => {
            let cause = format!("{bytes} bytes of events are unread: they cannot be read without taking them away");
            Err(Refusal::new(Code::PASSING_MOMENT, look.subject(), cause)
                .choice("try again: a program that waits for events reads them soon"))
        }
    }
}

fn watches(look: &Look, survey: &Survey) -> Result<Vec<Watch>> {
    unread(look)?;
    let mut places = Places::of(look, survey)?;
    let mut watches = Vec::with_capacity(look.information.inotify.len());
    for watch in &look.information.inotify {
        let refuse = |cause: &str| {
            let cause = format!(
                "its watch {} is on inode {} of device {}:{}, {cause}",
                watch.descriptor, watch.inode, watch.device_major, watch.device_minor
            );
            Refusal::new(Code::UNSUPPORTED, look.subject(), cause).choice("remove the watch in the program")
        };
        let Some(path) = places.find(watch) else {
            return Err(refuse("which has no path, or one that was not found"));
        };
        let metadata = std::fs::symlink_metadata(&path).about(|| look.subject())?;
        let path =
            String::from_utf8(path.into_os_string().into_vec()).map_err(|_| refuse("whose path is not UTF-8"))?;
        watches.push(Watch { number: watch.descriptor, mask: watch.mask, path, file_type: metadata.mode() & S_IFMT });
    }
    watches.sort_by_key(|watch| watch.number);
    Ok(watches)
}

impl Kind for InotifyInstance {
    fn id(&self) -> KindId {
        KindId(12)
    }
    fn name(&self) -> &'static str {
        "inotify instance"
    }
    fn version(&self) -> u16 {
        1
    }
    fn stage(&self) -> Stage {
        Stage::Final
    }
    fn needs(&self, envelope: &Envelope) -> Result<Vec<Need>> {
        let state: State = open(envelope)?;
        Ok(state.needs())
    }
    fn make(&self, envelope: &Envelope, _: &mut Make) -> Result<Made> {
        let state: State = open(envelope)?;
        let subject = || Subject::Object(format!("inotify instance {}", envelope.id));
        let instance = inotify::create().about(subject)?;
        file::set_status_flags(instance.as_fd(), state.flags & !O_ASYNC).about(subject)?;
        Ok(vec![instance])
    }
    fn bind(&self, envelope: &Envelope, bind: &mut Bind) -> Result<()> {
        let state: State = open(envelope)?;
        for watch in &state.watches {
            let subject = || Subject::Path(watch.path.clone());
            inotify::watch(bind.own()?, watch.number, watch.path.as_bytes(), watch.mask).about(subject)?;
        }
        Ok(())
    }
    fn description(&self) -> Option<&dyn Description> {
        Some(self)
    }
    fn task_state(&self) -> Option<&dyn TaskState> {
        None
    }
}

impl Description for InotifyInstance {
    fn recognise(&self, look: &Look) -> bool {
        look.link == b"anon_inode:inotify"
    }
    fn examine(&self, look: &Look, survey: &Survey) -> Verdict {
        watches(look, survey).map_or_else(Verdict::Blocks, |_| Verdict::Carried)
    }
    fn foresee(&self, look: &Look, survey: &Survey) -> Vec<Need> {
        let watches = watches(look, survey).unwrap_or_default();
        State { flags: 0, watches }.needs()
    }
    fn capture(&self, look: &Look, capture: &mut Capture) -> Result<Captured> {
        let watches = watches(look, &capture.survey)?;
        Captured::new(Vec::new(), &State { flags: look.flags(), watches })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_linux::pidfd::PidFd;

    #[test]
    fn states_come_back() {
        let watch = Watch { number: 2, mask: 0x8000_0002, path: "/tmp".to_owned(), file_type: 0o040_000 };
        super::super::assert_round_trip(&State { flags: 0o4000, watches: vec![watch] });
    }

    #[test]
    fn paths_of_watches_are_found_and_unread_events_refused() {
        let own = std::process::id() as i32;
        let directory = std::env::temp_dir().join(format!("godwit-inotify-{own}"));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.canonicalize().unwrap();
        let instance = inotify::create().unwrap();
        inotify::watch(instance.as_fd(), 5, path.as_os_str().as_bytes(), 0x100).unwrap();
        inotify::watch(instance.as_fd(), 3, b"/proc/self", 0x20).unwrap();
        let look = || Look::descriptor(&PidFd::open(own).unwrap(), instance.as_raw_fd()).unwrap().unwrap();
        assert!(InotifyInstance.recognise(&look()));
        let survey = Survey::new(&[own]);
        let mut places = Places::of(&look(), &survey).unwrap();
        let on_directory = look().information.inotify.into_iter().find(|watch| watch.descriptor == 5).unwrap();
        assert_eq!(places.find(&on_directory).unwrap(), path);
        assert!(!places.nearby().contains(&path));
        places.nearby.as_mut().unwrap().insert(path.clone());
        assert_eq!(places.by_inode(&on_directory).unwrap(), path);
        std::fs::write(directory.join("new"), b"").unwrap();
        assert_eq!(watches(&look(), &survey).unwrap_err().code, Code::PASSING_MOMENT);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
