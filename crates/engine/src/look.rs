//! What can be seen of an open description from outside, on a running or a frozen tree, changing nothing.
use crate::failure::{About, Result, unread};
use crate::resource::unix_fact;
use crate::restore::Creator;
use godwit_image::{Code, Refusal, Subject};
use godwit_linux::kcmp::{self, Object};
use godwit_linux::pidfd::{ForeignDescriptor, PidFd};
use godwit_linux::proc::{Error as ProcError, fdinfo, maps, stat};
use godwit_linux::socket_diagnosis::UnixSocket;
use std::cell::OnceCell;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

/// Why an open description is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// A descriptor of a process.
    Descriptor(i32),
    /// A mapping from this address; `writable`: a shared mapping that may be written.
    Mapping {
        /// First address.
        start: u64,
        /// The mapping is shared and may be made writable.
        writable: bool,
    },
    /// The program file.
    Executable,
    /// Working or root directory.
    Directory,
    /// A name that nobody has open.
    Name,
}

/// One open description, seen from outside.
#[derive(Debug)]
pub struct Look {
    /// A process that has it.
    pub pid: i32,
    /// As what.
    pub purpose: Purpose,
    /// The name that /proc shows: a path, `pipe:[N]`, `anon_inode:[eventfd]`, `… (deleted)`.
    pub link: Vec<u8>,
    /// The same open description, in our own table (for mappings and directories: a fresh one of the same file).
    pub file: OwnedFd,
    /// Position, flags (O_*; without O_CLOEXEC) and the kind's own lines.
    pub information: fdinfo::DescriptorInfo,
    /// st_dev.
    pub device: u64,
    /// st_ino.
    pub inode: u64,
    /// st_mode.
    pub mode: u32,
    /// st_rdev.
    pub device_number: u64,
    /// st_size in bytes.
    pub bytes: u64,
    /// st_nlink.
    pub links: u64,
    /// st_uid, st_gid.
    pub owner: (u32, u32),
    filesystem: OnceCell<Option<u64>>,
    family: OnceCell<Option<i32>>,
    /// Of a Unix socket.
    pub(crate) unix: unix_fact::Cells,
}

const O_CLOEXEC: u32 = 0o2_000_000;

impl Look {
    fn of(
        pid: i32,
        purpose: Purpose,
        link: Vec<u8>,
        file: OwnedFd,
        information: fdinfo::DescriptorInfo,
    ) -> Result<Look> {
        let file = File::from(file);
        let metadata = file.metadata().about(|| Subject::Process(pid))?;
        Ok(Look {
            pid,
            purpose,
            link,
            file: file.into(),
            information,
            device: metadata.dev(),
            inode: metadata.ino(),
            mode: metadata.mode(),
            device_number: metadata.rdev(),
            bytes: metadata.size(),
            links: metadata.nlink(),
            owner: (metadata.uid(), metadata.gid()),
            filesystem: OnceCell::new(),
            family: OnceCell::new(),
            unix: Default::default(),
        })
    }

    /// Looks at a descriptor. `None` when it was closed meanwhile.
    ///
    /// # Errors
    /// No ptrace rights; malformed /proc text.
    pub fn descriptor(process: &PidFd, descriptor: i32) -> Result<Option<Look>> {
        let pid = process.pid();
        let subject = || Subject::Descriptor(pid, descriptor, String::new());
        let link = match std::fs::read_link(format!("/proc/{pid}/fd/{descriptor}")) {
            Ok(link) => link.as_os_str().as_bytes().to_vec(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).about(subject),
        };
        let information = match fdinfo::read(pid, descriptor) {
            Ok(information) => information,
            Err(ProcError::Gone) => return Ok(None),
            // Closed since its name was read.
            Err(ProcError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unread(subject(), &error)),
        };
        Look::with(process, descriptor, link, information)
    }

    /// Looks at a descriptor of which the name and what fdinfo says are known. `None` when it is not open.
    ///
    /// # Errors
    /// No ptrace rights.
    pub(crate) fn with(
        process: &PidFd,
        descriptor: i32,
        link: Vec<u8>,
        information: fdinfo::DescriptorInfo,
    ) -> Result<Option<Look>> {
        let pid = process.pid();
        let subject = || Subject::Descriptor(pid, descriptor, String::new());
        let file = match process.duplicate(ForeignDescriptor(descriptor)) {
            Ok(file) => file,
            Err(error) if error.number == 9 => return Ok(None),
            Err(error) => return Err(error).about(subject),
        };
        Look::of(pid, Purpose::Descriptor(descriptor), link, file, information).map(Some)
    }

    /// Looks at a file by one of the links of /proc/PID (`exe`, `cwd`, `root`, `map_files/…`), opened with `options`.
    ///
    /// # Errors
    /// No rights; the link is gone.
    pub fn link(pid: i32, name: &str, purpose: Purpose, flags: u32) -> Result<Look> {
        let path = format!("/proc/{pid}/{name}");
        let subject = || Subject::Path(path.clone());
        let link = std::fs::read_link(&path).about(subject)?.as_os_str().as_bytes().to_vec();
        let file = godwit_linux::file::open(path.as_bytes(), flags | O_CLOEXEC).about(subject)?;
        let information = fdinfo::DescriptorInfo { flags, ..fdinfo::DescriptorInfo::default() };
        Look::of(pid, purpose, link, file, information)
    }

    /// Looks at a file by its name, opened for reading.
    ///
    /// # Errors
    /// It cannot be described.
    pub(crate) fn named(path: &str, file: OwnedFd) -> Result<Look> {
        let own = std::process::id() as i32;
        Look::of(own, Purpose::Name, path.as_bytes().to_vec(), file, fdinfo::DescriptorInfo::default())
    }

    /// The open flags, O_CLOEXEC taken out (that belongs to the descriptor).
    pub fn flags(&self) -> u32 {
        self.information.flags & !O_CLOEXEC
    }

    /// st_mode & S_IFMT.
    pub fn file_type(&self) -> u32 {
        self.mode & 0o170_000
    }

    /// Type of its file system (f_type), asked for once: several kinds want to know.
    pub(crate) fn filesystem(&self) -> Option<u64> {
        *self.filesystem.get_or_init(|| godwit_linux::filesystem::kind(self.borrow()).ok())
    }

    /// The address family of a socket, asked for once.
    pub(crate) fn family(&self) -> Option<i32> {
        const SO_DOMAIN: i32 = 39;
        *self.family.get_or_init(|| godwit_linux::socket::number(self.borrow(), SO_DOMAIN).ok())
    }

    /// The descriptor number, if it is one.
    pub fn number(&self) -> Option<i32> {
        match self.purpose {
            Purpose::Descriptor(number) => Some(number),
            _ => None,
        }
    }

    /// The link as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.link).into_owned()
    }

    /// The subject of messages about it.
    pub fn subject(&self) -> Subject {
        match self.purpose {
            Purpose::Descriptor(number) => Subject::Descriptor(self.pid, number, self.text()),
            Purpose::Mapping { start, .. } => Subject::Mapping(self.pid, start, self.text()),
            Purpose::Executable | Purpose::Directory | Purpose::Name => Subject::Path(self.text()),
        }
    }

    /// The same open description.
    pub fn borrow(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Unix sockets by inode.
type UnixSockets = BTreeMap<u32, UnixSocket>;

/// Who holds what: (pid, descriptor) by the text of the descriptor's link.
type Holders = BTreeMap<Vec<u8>, Vec<(i32, i32)>>;

/// What the rest of the machine has to do with a tree: who else holds a pipe, a socket, a terminal of it.
#[derive(Debug)]
pub struct Survey {
    /// The tree's numbers.
    pub pids: BTreeSet<i32>,
    /// Every descriptor of the tree: (pid, descriptor) by the link's text, for `pipe:[N]` and `socket:[N]`.
    pub inside: BTreeMap<Vec<u8>, Vec<(i32, i32)>>,
    /// Open flags of noted descriptors.
    flags: BTreeMap<(i32, i32), u32>,
    /// Whom noted Unix sockets show as their peers, by inode.
    creators: BTreeMap<u32, Option<Creator>>,
    outside: OnceCell<Holders>,
    nameless: OnceCell<BTreeMap<(u64, u64), i32>>,
    in_flight: OnceCell<bool>,
    unix_sockets: OnceCell<Result<UnixSockets>>,
}

impl Survey {
    /// Surveys a tree by the links of its descriptors.
    pub fn new(pids: &[i32]) -> Survey {
        let pids: BTreeSet<i32> = pids.iter().copied().collect();
        let mut inside = BTreeMap::new();
        for &pid in &pids {
            // A thread may have a table of its own; of a leader that has ended /proc shows none.
            let mut first = None;
            for tid in crate::procfs::threads(pid).unwrap_or_default() {
                let shared = first.is_some_and(|first| {
                    kcmp::kcmp(first, tid, Object::Files).is_ok_and(|order| order == Ordering::Equal)
                });
                if !shared {
                    collect_links(tid, &mut inside);
                    first.get_or_insert(tid);
                }
            }
        }
        Survey { inside, ..Survey::of_pids(pids) }
    }

    /// A survey in which nothing of the tree is known yet: see [`Survey::note`].
    pub(crate) fn of_pids(pids: BTreeSet<i32>) -> Survey {
        Survey {
            pids,
            inside: BTreeMap::new(),
            flags: BTreeMap::new(),
            creators: BTreeMap::new(),
            outside: OnceCell::new(),
            nameless: OnceCell::new(),
            in_flight: OnceCell::new(),
            unix_sockets: OnceCell::new(),
        }
    }

    /// Notes a descriptor of the frozen tree: a process (thread) that has it, and its number.
    pub(crate) fn note(&mut self, look: &Look, pid: i32, descriptor: i32) {
        match self.inside.get_mut(&look.link) {
            Some(holders) => holders.push((pid, descriptor)),
            None => drop(self.inside.insert(look.link.clone(), vec![(pid, descriptor)])),
        }
        self.flags.insert((pid, descriptor), look.flags());
        if let Some(facts) = look.unix.known() {
            self.creators.insert(look.inode as u32, facts.creator.clone());
        }
    }

    /// Notes a descriptor of which that much is known.
    pub(crate) fn note_known(&mut self, link: &[u8], flags: u32, (pid, descriptor): (i32, i32)) {
        self.inside.entry(link.to_vec()).or_default().push((pid, descriptor));
        self.flags.insert((pid, descriptor), flags);
    }

    /// Whom a noted Unix socket shows as its peer, where that has been read.
    pub(crate) fn creator_of(&self, inode: u32) -> Option<&Option<Creator>> {
        self.creators.get(&inode)
    }

    /// The open flags of a descriptor; none where it is not open.
    pub(crate) fn flags(&self, (pid, descriptor): (i32, i32)) -> Option<u32> {
        let noted = self.flags.get(&(pid, descriptor)).copied();
        noted.or_else(|| fdinfo::read(pid, descriptor).ok().map(|information| information.flags))
    }

    /// Who outside the tree holds something of this name (`pipe:[N]`, `socket:[N]`, a terminal's path). Reads the
    /// descriptors of every process that we may see, once.
    pub fn outside(&self, link: &[u8]) -> &[(i32, i32)] {
        let all = self.outside.get_or_init(|| {
            let mut all = Holders::new();
            let own = std::process::id() as i32;
            for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
                let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
                if pid != own && !self.pids.contains(&pid) {
                    let mut its = BTreeMap::new();
                    collect_links(pid, &mut its);
                    // Born since the tree was listed, it belongs to it all the same.
                    if !its.is_empty() && !self.is_newborn(pid) {
                        its.into_iter().for_each(|(link, holders)| all.entry(link).or_default().extend(holders));
                    }
                }
            }
            all
        });
        all.get(link).map_or(&[], Vec::as_slice)
    }

    /// Whether a process descends from the tree although it is not listed, or has ended by now.
    pub(crate) fn is_newborn(&self, pid: i32) -> bool {
        let mut at = pid;
        while at > 1 {
            match stat::read_process_wide(at) {
                Ok(stat) if self.pids.contains(&stat.parent) => return true,
                Ok(stat) => at = stat.parent,
                Err(_) => return at == pid,
            }
        }
        false
    }

    /// The refusal for a nameless file (in memory or unlinked) that a process outside the tree maps or has open. Reads
    /// the areas and descriptors of every process that we may see, once.
    pub fn shared_outside(&self, look: &Look) -> Option<Refusal> {
        let all = self.nameless.get_or_init(|| {
            let mut all = BTreeMap::new();
            for_each_user(|pid, device, inode, nameless| {
                if nameless && !self.pids.contains(&pid) && !self.is_newborn(pid) {
                    all.insert((device, inode), pid);
                }
                true
            });
            all
        });
        let pid = all.get(&(look.device, look.inode))?;
        let cause = format!("process {pid}, which is outside the tree, shares it");
        let refusal = Refusal::new(Code::EDGE, look.subject(), cause).choice("move that process as well");
        Some(match look.number() {
            Some(number) => refusal
                .choice(format!("choose an edge for it: --edge {}:{number}=file:PATH, =null or =close", look.pid)),
            None => refusal,
        })
    }

    /// Who outside the tree has this file open, under whatever name: (pid, descriptor).
    pub fn outside_file(&self, device: u64, inode: u64) -> Vec<(i32, i32)> {
        let mut found = Vec::new();
        for_each_user(|pid, its_device, its_inode, _| {
            if (its_device, its_inode) == (device, inode) && !self.pids.contains(&pid) {
                found.push(pid);
            }
            true
        });
        found.sort_unstable();
        found.dedup();
        found.retain(|pid| !self.is_newborn(*pid));
        let number = |pid: i32| {
            descriptors_of(pid)
                .find(|(_, path)| std::fs::metadata(path).is_ok_and(|data| (data.dev(), data.ino()) == (device, inode)))
        };
        found.into_iter().map(|pid| (pid, number(pid).map_or(-1, |(number, _)| number))).collect()
    }

    /// Every Unix socket of the network namespace that `any` socket of the tree lives in; asked once, so of a running tree
    /// a newer one may be missing.
    ///
    /// # Errors
    /// The kernel does not tell (GW1003).
    pub fn unix_sockets(&self, any: BorrowedFd<'_>) -> Result<&UnixSockets> {
        let all = self.unix_sockets.get_or_init(|| {
            let network = File::from(godwit_linux::socket::network(any).about(|| Subject::Host)?);
            let own = File::open("/proc/self/ns/net").about(|| Subject::Host)?;
            if own.metadata().about(|| Subject::Host)?.ino() == network.metadata().about(|| Subject::Host)?.ino() {
                return godwit_linux::socket_diagnosis::unix_sockets().about(|| Subject::Host);
            }
            let within = |network: &File| {
                godwit_linux::namespace::inside(
                    network.as_fd(),
                    godwit_linux::namespace::Namespaces::NETWORK,
                    godwit_linux::socket_diagnosis::unix_sockets,
                )
            };
            within(&network).about(|| Subject::Host)?.about(|| Subject::Host)
        });
        all.as_ref().map_err(Clone::clone)
    }

    /// Whether a socket of the tree has descriptors in flight: ends of pipes may be there that no table shows.
    pub fn descriptors_in_flight(&self) -> bool {
        *self.in_flight.get_or_init(|| {
            let sockets = self.inside.iter().filter(|(link, _)| link.starts_with(b"socket:["));
            sockets.flat_map(|(_, holders)| holders.first()).any(|(pid, descriptor)| {
                fdinfo::read(*pid, *descriptor).is_ok_and(|info| info.descriptors_in_flight.unwrap_or(0) > 0)
            })
        })
    }

    /// Who inside the tree holds something of this name.
    pub fn holders(&self, link: &[u8]) -> &[(i32, i32)] {
        self.inside.get(link).map_or(&[], Vec::as_slice)
    }
}

/// The descriptors of a process: number and path in /proc. None of one that ended, or that is not ours to read.
fn descriptors_of(pid: i32) -> impl Iterator<Item = (i32, std::path::PathBuf)> {
    std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten().filter_map(|entry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        Some((number, entry.path()))
    })
}

fn collect_links(pid: i32, all: &mut Holders) {
    for (number, path) in descriptors_of(pid) {
        if let Ok(link) = std::fs::read_link(path) {
            all.entry(link.as_os_str().as_bytes().to_vec()).or_default().push((pid, number));
        }
    }
}

/// A process that has a file open or mapped.
pub(crate) fn user_of(device: u64, inode: u64) -> Option<i32> {
    let mut user = None;
    for_each_user(|pid, its_device, its_inode, _| {
        if (its_device, its_inode) == (device, inode) {
            user = Some(pid);
        }
        user.is_none()
    });
    user
}

/// Which files (st_dev, st_ino) of those that are asked about any process has open or mapped.
pub(crate) fn used(is_asked: impl Fn(&(u64, u64)) -> bool) -> BTreeSet<(u64, u64)> {
    let mut used = BTreeSet::new();
    for_each_user(|_, device, inode, _| {
        if is_asked(&(device, inode)) {
            used.insert((device, inode));
        }
        true
    });
    used
}

/// Calls `found(pid, st_dev, st_ino, it has no name)` for every file that any other process maps or has open, until it
/// answers false.
fn for_each_user(mut found: impl FnMut(i32, u64, u64, bool) -> bool) {
    const NAMELESS: &[u8] = b" (deleted)";
    let own = std::process::id() as i32;
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if pid == own {
            continue;
        }
        // A process may end, or not be ours to read: then it holds nothing that we could name.
        for area in maps::read(pid).unwrap_or_default().iter().filter(|area| area.inode != 0) {
            let device = godwit_linux::file::device(area.device_major, area.device_minor);
            if !found(pid, device, area.inode, area.name.ends_with(NAMELESS)) {
                return;
            }
        }
        // A root that is made beforehand has our very descriptors until it gets its own.
        if kcmp::kcmp(own, pid, Object::Files).is_ok_and(|order| order == Ordering::Equal) {
            continue;
        }
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let link = std::fs::read_link(entry.path());
            let nameless = link.is_ok_and(|link| link.as_os_str().as_bytes().ends_with(NAMELESS));
            if let Ok(metadata) = std::fs::metadata(entry.path())
                && !found(pid, metadata.dev(), metadata.ino(), nameless)
            {
                return;
            }
        }
    }
}
