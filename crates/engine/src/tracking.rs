//! Which pages the processes of a running tree write, without stopping them but once.
//!
//! Each address space gets a userfaultfd that lets writes through and remembers them (Linux 6.7). A descriptor belongs to the address
//! space of who makes it: the process is stopped for as long as a program takes to make one, and keeps nothing of it. Should we die,
//! our descriptor goes with us and the process writes as ever.
//!
//! A look tells what was written since the look before and begins anew. Only private pages that have contents of their own are
//! watched; what comes in the place of others (new memory, a page of a file or the zero page written for the first time) counts as
//! written by itself, and so does whatever is mapped anew, moved, or forked: the kernel watches nothing there, which is seen, and it is
//! watched from then on. Shared memory is not watched: others may write it unseen. Nor is a process that reads past the page cache: a
//! page counts as written when the device is given it, and has its contents when it was looked at long since.
//!
//! An older kernel may have bits in its page tables instead: see `soft_dirty`.
mod soft_dirty;

use crate::failure::{About, Result};
use crate::freeze::{self, FrozenProcess, Stopped};
use crate::injector::Injector;
use crate::preparation::Preparation;
use godwit_image::page_set::{PageSet, Run};
use godwit_image::{Code, Refusal, Subject};
use godwit_linux::Errno;
use godwit_linux::features::{Feature, OnDemand};
use godwit_linux::pagemap::Pagemap;
use godwit_linux::pidfd::{ForeignDescriptor, PidFd};
use godwit_linux::proc::{directory, fdinfo, maps, stat, status};
use godwit_linux::program::Program;
use godwit_linux::userfaultfd::{self, UserFault, feature, mode};
use soft_dirty::SoftDirty;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const SYS_CLOSE: i64 = 3;
const EPERM: i32 = 1;
/// asm-generic/fcntl.h, as octal digits in /proc/PID/fdinfo.
const O_DIRECT: u32 = 0o40000;

/// What a look has found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Written {
    /// Memory of which it is known what was written.
    pub looked_at: PageSet,
    /// The pages there that were written since the look before, with contents of their own; all of them at the first.
    pub pages: PageSet,
}

/// A way of finding what a running process writes.
pub trait Tracking: std::fmt::Debug {
    /// What was written since the last look.
    ///
    /// # Errors
    /// The process is dead, its address space is another one now, or it is written by devices: nothing is known of it any more.
    fn look(&mut self) -> Result<Written>;

    /// Memory that is registered with our descriptor, as far as it is still where it was registered.
    fn registered(&self) -> &PageSet;

    /// Bytes of what the next look would find, of memory that the last one could look at.
    ///
    /// # Errors
    /// As [`Tracking::look`].
    fn bytes_written(&self) -> Result<u64>;
}

/// A tree's processes, as far as they can be tracked, and for how long they were stopped for that.
#[derive(Debug, Default)]
pub struct Begun {
    /// By number.
    pub processes: Vec<(i32, Box<dyn Tracking>)>,
    /// Why others cannot be.
    pub left_out: Vec<Refusal>,
    /// They did not run for so long.
    pub stopped: Duration,
}

/// What a tracker can be made of here; the better one first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Means {
    WriteProtection,
    SoftDirty,
}

fn means(has: impl Fn(Feature) -> bool) -> Option<Means> {
    match (has(Feature::WriteTracking), has(Feature::SoftDirty)) {
        (true, _) => Some(Means::WriteProtection),
        (false, true) => Some(Means::SoftDirty),
        (false, false) => None,
    }
}

/// Whether processes can be tracked here.
pub fn is_possible() -> bool {
    let features = OnDemand::default();
    means(|feature| features.has(feature)).is_some()
}

/// Begins to track the processes of a running tree, but those of `known`.
///
/// # Errors
/// The tree cannot be stopped.
pub fn begin(root: i32, known: &BTreeSet<i32>) -> Result<Begun> {
    let features = OnDemand::default();
    let means = means(|feature| features.has(feature));
    let mut frozen = freeze::freeze(root, Preparation::default())?;
    let clock = Instant::now();
    let mut begun = Begun::default();
    for process in frozen.processes.iter_mut().filter(|process| !process.is_zombie() && !known.contains(&process.pid)) {
        let tracker = match means {
            Some(Means::SoftDirty) => Ok(Box::new(SoftDirty::of(process.pid)) as Box<dyn Tracking>),
            // Where there is none making it says so.
            Some(Means::WriteProtection) | None => Tracker::of(process).map(|tracker| Box::new(tracker) as _),
        };
        match tracker {
            Ok(tracker) => begun.processes.push((process.pid, tracker)),
            Err(refusal) if refusal.code == Code::PROCESS_VANISHED => {}
            Err(refusal) => begun.left_out.push(refusal),
        }
    }
    let before = Duration::from_nanos(frozen.freeze_ns);
    frozen.release();
    begun.stopped = before + clock.elapsed();
    Ok(begun)
}

/// Tracks by asynchronous write protection.
#[derive(Debug)]
struct Tracker {
    pid: i32,
    fault: UserFault,
    looked_at: PageSet,
    registered: PageSet,
    /// Constants of files: where they were first seen none of their pages was the process's own.
    plain: PageSet,
}

impl Tracker {
    /// Begins for a process that is stopped.
    fn of(process: &mut FrozenProcess) -> Result<Tracker> {
        let pid = process.pid;
        let subject = || Subject::Process(pid);
        let first = process.threads.first().map(Stopped::tid).unwrap_or(pid);
        if status::read(pid, first).about(subject)?.seccomp.unwrap_or(0) != 0 {
            // Were we to die now, they would judge what is left of our program.
            return Err(Refusal::new(Code::UNSUPPORTED, subject(), "it has seccomp filters"));
        }
        let mut injector = Injector::install(process)?;
        let made = make_inside(&mut injector, first);
        injector.remove()?;
        let fault = UserFault::begin_with(made?, feature::WRITE_PROTECT_ASYNCHRONOUS).about(subject)?;
        Ok(Tracker { pid, fault, looked_at: PageSet::new(), registered: PageSet::new(), plain: PageSet::new() })
    }

    /// Areas that lie side by side and were all looked at before, in one go: each call of the kernel costs more than most of them have
    /// pages. False: at least one of them is something else by now.
    fn look_at_group(&self, pagemap: &Pagemap, group: &[&maps::Area], written: &mut PageSet) -> Result<bool> {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { return Ok(true) };
        let subject = || Subject::Process(self.pid);
        // Nothing is armed by this, and so nothing is lost where it fails.
        match pagemap.written_pages(first.start, last.end, first.inode == 0, false, |_, _| {}) {
            Ok(()) => {}
            Err(error) if error.number == EPERM => return Ok(false),
            Err(error) => return Err(error).about(subject),
        }
        let mut found = |start: u64, end: u64| written.insert(Run { start, end });
        match pagemap.written_pages(first.start, last.end, first.inode == 0, true, &mut found) {
            Ok(()) => Ok(true),
            Err(error) if error.number == EPERM => {
                // Changed just now: what was armed again before that the kernel does not tell.
                pagemap.private_pages(first.start, last.end, |start, end, _| found(start, end)).about(subject)?;
                Ok(false)
            }
            Err(error) => Err(error).about(subject),
        }
    }

    /// Whether constants of a file are what the file has, or were when this was first asked. What a linker has filled in before it made
    /// them constant is not: it would be sent in the down time.
    fn is_plain(&mut self, pagemap: &Pagemap, area: &maps::Area) -> Result<bool> {
        if self.plain.covers(area.start, area.end) {
            return Ok(true);
        }
        let mut is_plain = !self.registered.covers(area.start, area.end);
        if is_plain {
            let found = pagemap.private_pages(area.start, area.end, |_, _, _| is_plain = false);
            found.about(|| Subject::Process(self.pid))?;
        }
        if is_plain {
            self.plain.insert(Run { start: area.start, end: area.end });
        }
        Ok(is_plain)
    }

    /// Whether an area can be looked at together with the one below it.
    fn goes_with(&self, below: &maps::Area, area: &maps::Area) -> bool {
        below.end == area.start && (below.inode, area.inode) == (0, 0) && self.registered.covers(below.start, area.end)
    }

    /// One area; true if it could be looked at.
    fn look_at(&mut self, pagemap: &Pagemap, area: &maps::Area, written: &mut PageSet) -> Result<bool> {
        let pid = self.pid;
        let subject = || Subject::Process(pid);
        let mut found = |start: u64, end: u64| written.insert(Run { start, end });
        match pagemap.written_pages(area.start, area.end, area.inode == 0, true, &mut found) {
            Ok(()) => return Ok(true),
            Err(error) if error.number == EPERM => {}
            Err(error) => return Err(error).about(subject),
        }
        // New, or moved here, or not the space any more that the descriptor belongs to.
        let whole: PageSet = [Run { start: area.start, end: area.end }].into_iter().collect();
        if self.fault.register_for(area.start, area.end - area.start, mode::WRITE_PROTECT).is_err() {
            self.registered = self.registered.difference(&whole);
            return Ok(false);
        }
        self.registered.extend(&whole);
        let armed = match pagemap.written_pages(area.start, area.end, area.inode == 0, true, &mut found) {
            Ok(()) => true,
            Err(error) if error.number == EPERM => false,
            Err(error) => return Err(error).about(subject),
        };
        // Part of it may have been watched before, when it lay elsewhere or was another area's.
        pagemap.private_pages(area.start, area.end, |start, end, _| found(start, end)).about(subject)?;
        Ok(armed)
    }
}

impl Tracking for Tracker {
    fn registered(&self) -> &PageSet {
        &self.registered
    }

    fn look(&mut self) -> Result<Written> {
        let pid = self.pid;
        let subject = || Subject::Process(pid);
        // Who is stopped reads nothing.
        let stopped = is_stopped(pid);
        let reads = || !stopped && reads_directly(pid);
        let read = reads();
        // Opened anew each time, it is of the space that the process has now.
        let pagemap = Pagemap::open(self.pid).about(subject)?;
        let areas = maps::read(self.pid).about(subject)?;
        let mut written = Written::default();
        let mut watched = Vec::new();
        for area in &areas {
            if is_watched(area) || (is_constant(area) && !self.is_plain(&pagemap, area)?) {
                watched.push(area);
            }
        }
        let groups: Vec<Vec<&maps::Area>> =
            watched.chunk_by(|below, area| self.goes_with(below, area)).map(<[&maps::Area]>::to_vec).collect();
        for group in groups {
            let (mut pages, mut looked_at) = (PageSet::new(), PageSet::new());
            let is_one = group.len() > 1 && self.look_at_group(&pagemap, &group, &mut pages)?;
            for area in group {
                if is_one || self.look_at(&pagemap, area, &mut pages)? {
                    looked_at.insert(Run { start: area.start, end: area.end });
                }
            }
            written.pages.extend(&pages.intersection(&looked_at));
            written.looked_at.extend(&looked_at);
        }
        if read || reads() {
            return Err(reads_past_the_cache(pid));
        }
        self.looked_at.clone_from(&written.looked_at);
        Ok(written)
    }

    fn bytes_written(&self) -> Result<u64> {
        let pagemap = Pagemap::open(self.pid).about(|| Subject::Process(self.pid))?;
        let mut bytes = 0;
        for run in self.looked_at.runs() {
            // What was mapped anew meanwhile is found by the next look.
            let counted = pagemap.written_pages(run.start, run.end, false, false, |start, end| bytes += end - start);
            if let Err(error) = counted.or_else(|error| if error.number == EPERM { Ok(()) } else { Err(error) }) {
                return Err(error).about(|| Subject::Process(self.pid));
            }
        }
        Ok(bytes)
    }
}

/// Whether somebody traces and has stopped a process: us, since nobody else can.
fn is_stopped(pid: i32) -> bool {
    stat::read_process_wide(pid).is_ok_and(|stat| stat.state == b't')
}

fn reads_past_the_cache(pid: i32) -> Refusal {
    Refusal::new(Code::UNSUPPORTED, Subject::Process(pid), "it reads files past the page cache (O_DIRECT)")
}

/// Whether a process has a file open past the page cache.
fn reads_directly(pid: i32) -> bool {
    let is_direct = |descriptor: &i32| fdinfo::read(pid, *descriptor).is_ok_and(|file| file.flags & O_DIRECT != 0);
    directory::descriptors(pid).unwrap_or_default().iter().any(is_direct)
}

/// Whether an area may have pages that are worth watching: private ones, but for code of files, and for constants that are plain.
fn is_watched(area: &maps::Area) -> bool {
    let is_kernels = area.name.starts_with(b"[v");
    !area.shared && !is_kernels && (area.write || area.inode == 0)
}

/// Whether an area is private, of a file, and neither to be written nor executed.
fn is_constant(area: &maps::Area) -> bool {
    !area.shared && !area.write && !area.execute && area.inode != 0 && area.read
}

/// Has the process make a descriptor, which it does not keep.
fn make_inside(injector: &mut Injector<'_>, tid: i32) -> Result<std::os::fd::OwnedFd> {
    let subject = || Subject::Process(tid);
    let mut program = Program::new();
    let step = program.try_call("userfaultfd", userfaultfd::SYS_USERFAULTFD, [userfaultfd::FLAGS.into()]);
    let ran = injector.run(&[(0, program)])?;
    let made = ran.first().map(|ran| ran.result("userfaultfd", step));
    let number = made.unwrap_or(Err(Errno { number: EPERM, call: "userfaultfd" })).about(subject)?;
    let fetched = PidFd::open_thread(tid).and_then(|process| process.duplicate(ForeignDescriptor(number as i32)));
    let mut program = Program::new();
    program.try_call("close", SYS_CLOSE, [number.into()]);
    injector.run(&[(0, program)])?;
    fetched.about(subject)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::OpenOptionsExt;

    #[test]
    fn the_better_means_is_taken() {
        let of = |there: &[Feature]| means(|feature| there.contains(&feature));
        assert_eq!(of(&[Feature::SoftDirty, Feature::WriteTracking]), Some(Means::WriteProtection));
        assert_eq!(of(&[Feature::SoftDirty]), Some(Means::SoftDirty));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn who_reads_past_the_page_cache_is_known() {
        let own = std::process::id() as i32;
        assert!(!reads_directly(own));
        let path = std::path::PathBuf::from(format!("/var/tmp/godwit-direct-{own}"));
        let mut options = std::fs::OpenOptions::new();
        let file = options.create(true).truncate(true).write(true).custom_flags(O_DIRECT as i32).open(&path);
        std::fs::remove_file(&path).unwrap();
        let file = file.unwrap();
        assert!(reads_directly(own));
        drop(file);
        assert!(!reads_directly(own));
    }
}
