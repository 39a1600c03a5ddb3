//! Kernel objects whose state cannot be read or rebuilt: recognised, and refused by name with the reason and the choices.
use super::{Captured, Description, Kind, Made, Need, Stage, TaskState};
use crate::capture::Capture;
use crate::failure::Result;
use crate::look::{Look, Survey};
use crate::restore::{Bind, Make};
use godwit_image::{Code, Envelope, KindId, Refusal, Subject, Verdict};

const S_IFMT_CHARACTER: u32 = 0o020_000;
const S_IFMT_BLOCK: u32 = 0o060_000;

/// By what an object is recognised.
#[derive(Clone, Copy, Debug)]
enum Mark {
    /// The link is `anon_inode:NAME` or `anon_inode:[NAME]`, or begins so.
    Anonymous(&'static str),
    /// The link begins so.
    Link(&'static str),
    /// A character device of this major number, and this minor unless none is given.
    Device(u64, Option<u64>),
    /// A character device.
    AnyDevice,
    /// A block device.
    Block,
}

/// One row: an object that is refused.
#[derive(Debug)]
pub struct Row {
    mark: Mark,
    /// What it is, for people.
    pub name: &'static str,
    /// Why it cannot be carried.
    pub reason: &'static str,
    /// What can be done about it, besides closing it or choosing an edge.
    pub choice: &'static str,
}

const fn row(mark: Mark, name: &'static str, reason: &'static str, choice: &'static str) -> Row {
    Row { mark, name, reason, choice }
}

/// Everything that is refused by name, specific rows before general ones.
pub const TABLE: &[Row] = &[
    row(
        Mark::Anonymous("io_uring"),
        "io_uring",
        "requests in flight live in the kernel only and cannot be read",
        "start the program so that it does not use io_uring (many have an option, or fall back when seccomp answers ENOSYS)",
    ),
    row(
        Mark::Anonymous("perf_event"),
        "performance event",
        "its counters belong to this machine's processors",
        "stop the profiler before the move",
    ),
    row(
        Mark::Anonymous("bpf"),
        "BPF object",
        "programs and maps live in the kernel, which others may use as well",
        "let the program load them again at the destination",
    ),
    row(Mark::Anonymous("btf"), "BPF type information", "it belongs to this kernel", "let the program load it again"),
    row(
        Mark::Anonymous("userfaultfd"),
        "userfaultfd",
        "the program manages memory itself, and which of its pages are missing cannot be read",
        "move before the program begins, or after it ends, to manage its memory (virtual machines: use their own migration)",
    ),
    row(
        Mark::Anonymous("fanotify"),
        "fanotify group",
        "its marks and queued events cannot be read",
        "restart the watcher at the destination",
    ),
    row(
        Mark::Anonymous("landlock-ruleset"),
        "Landlock ruleset",
        "its rules cannot be read",
        "move after the program has entered its sandbox, or before it makes the ruleset",
    ),
    row(
        Mark::Anonymous("seccomp notify"),
        "seccomp notifier",
        "calls that wait for its answer cannot be read",
        "move the supervisor and the supervised separately",
    ),
    row(
        Mark::Anonymous("kvm"),
        "virtual machine (KVM)",
        "its memory and processors are the hypervisor's",
        "use the virtual machine monitor's own live migration",
    ),
    row(Mark::Anonymous("fscontext"), "mount under construction", "it cannot be read", "move when the mount is made"),
    row(Mark::Anonymous("mount"), "detached mount", "mounts are the host's", "move when the mount is attached or gone"),
    row(
        Mark::Anonymous("sync_file"),
        "fence of a graphics driver",
        "it belongs to this host's device",
        "close the device",
    ),
    row(Mark::Anonymous("vfio"), "passed-through device", "its state is in the device", "close the device"),
    row(Mark::Anonymous("iommufd"), "passed-through device", "its state is in the device", "close the device"),
    row(Mark::Anonymous("drm"), "graphics object", "its state is in the device", "close the device"),
    row(
        Mark::Link("/secretmem"),
        "secret memory (memfd_secret)",
        "nobody but the program can read it, which is what it is for",
        "let the program make its secrets again",
    ),
    row(
        Mark::Link("/[aio]"),
        "asynchronous I/O context (io_setup)",
        "requests in flight live in the kernel only and cannot be read",
        "start the program so that it does not use Linux AIO (databases: innodb_use_native_aio=0 and the like)",
    ),
    row(Mark::Link("/dmabuf:"), "buffer of a device", "its memory is the device's", "close the device"),
    row(Mark::Link("net:["), "handle of a network namespace", NAMESPACE, NAMESPACE_CHOICE),
    row(Mark::Link("mnt:["), "handle of a mount namespace", NAMESPACE, NAMESPACE_CHOICE),
    row(Mark::Link("pid:["), "handle of a PID namespace", NAMESPACE, NAMESPACE_CHOICE),
    row(Mark::Link("user:["), "handle of a user namespace", NAMESPACE, NAMESPACE_CHOICE),
    row(Mark::Link("uts:["), "handle of a UTS namespace", NAMESPACE, NAMESPACE_CHOICE),
    row(Mark::Link("ipc:["), "handle of an IPC namespace", NAMESPACE, NAMESPACE_CHOICE),
    row(Mark::Link("cgroup:["), "handle of a cgroup namespace", NAMESPACE, NAMESPACE_CHOICE),
    row(Mark::Link("time:["), "handle of a time namespace", NAMESPACE, NAMESPACE_CHOICE),
    row(
        Mark::Device(10, Some(200)),
        "TUN/TAP device",
        "the network interface behind it is this host's",
        "restart the program at the destination, where it makes its interface again",
    ),
    row(
        Mark::Device(10, Some(229)),
        "FUSE connection",
        "the mount behind it is this host's",
        "unmount the file system, or leave its server here",
    ),
    row(
        Mark::Device(10, Some(232)),
        "virtual machine (KVM)",
        "its memory and processors are the hypervisor's",
        "use the virtual machine monitor's own live migration",
    ),
    row(Mark::Device(10, Some(238)), "vhost-net device", VIRTUAL, VIRTUAL_CHOICE),
    row(Mark::Device(10, Some(241)), "vhost-vsock device", VIRTUAL, VIRTUAL_CHOICE),
    row(Mark::Device(10, Some(196)), "passed-through device (VFIO)", DEVICE, DEVICE_CHOICE),
    row(
        Mark::Device(10, Some(130)),
        "watchdog",
        "this host would restart when it is closed",
        "stop it before the move",
    ),
    row(Mark::Device(10, Some(228)), "HPET timer", DEVICE, DEVICE_CHOICE),
    row(Mark::Device(10, Some(223)), "virtual input device", DEVICE, DEVICE_CHOICE),
    row(Mark::Device(10, Some(236)), "device mapper", DEVICE, DEVICE_CHOICE),
    row(Mark::Device(10, Some(237)), "loop device control", DEVICE, DEVICE_CHOICE),
    row(Mark::Device(1, Some(1)), "physical memory", "it is this host's", "close it"),
    row(Mark::Device(1, Some(4)), "I/O ports", "they are this host's", "close them"),
    row(Mark::Device(1, Some(11)), "kernel log", "the destination's kernel has its own", "close it"),
    row(Mark::Device(13, None), "input device", DEVICE, DEVICE_CHOICE),
    row(Mark::Device(29, None), "frame buffer", DEVICE, DEVICE_CHOICE),
    row(Mark::Device(81, None), "video device", DEVICE, DEVICE_CHOICE),
    row(Mark::Device(116, None), "sound device", DEVICE, DEVICE_CHOICE),
    row(Mark::Device(195, None), "graphics processor (NVIDIA)", DEVICE, "checkpoint it with cuda-checkpoint first"),
    row(Mark::Device(202, None), "model-specific registers", DEVICE, DEVICE_CHOICE),
    row(Mark::Device(226, None), "graphics processor (DRM)", DEVICE, DEVICE_CHOICE),
    row(Mark::Block, "disk", "the disk is this host's; a copy of it would not be the same", DEVICE_CHOICE),
];

const NAMESPACE: &str = "namespaces are this host's, and this build does not carry handles of them";
const NAMESPACE_CHOICE: &str = "leave the program that manages namespaces here";
const VIRTUAL: &str = "the rings that it shares with a virtual machine live in the kernel";
const VIRTUAL_CHOICE: &str = "use the virtual machine monitor's own live migration";
const DEVICE: &str = "its state is in the device of this host";
const DEVICE_CHOICE: &str = "let the program open it again at the destination";

/// Those that no kind and no row knows.
pub const OTHERS: [Row; 2] = [
    row(
        Mark::Anonymous(""),
        "kernel object",
        "this build does not know what it is",
        "report its name, so that it can be carried or explained",
    ),
    row(Mark::AnyDevice, "device", DEVICE, DEVICE_CHOICE),
];

impl Mark {
    fn fits(self, link: &[u8], mode: u32, device_number: u64) -> bool {
        // The kernel's dev_t in user space: minor 8 bits, major 12 bits, the rest of minor above.
        let (major, minor) = (device_number >> 8 & 0xfff, device_number & 0xff | device_number >> 12 & 0xf_ff00);
        match self {
            Mark::Anonymous(name) => link.strip_prefix(b"anon_inode:").is_some_and(|rest| {
                let rest = rest.strip_prefix(b"[").unwrap_or(rest);
                rest.starts_with(name.as_bytes())
            }),
            Mark::Link(start) => link.starts_with(start.as_bytes()),
            Mark::Device(wanted, wanted_minor) => {
                mode & 0o170_000 == S_IFMT_CHARACTER
                    && wanted == major
                    && wanted_minor.is_none_or(|number| number == minor)
            }
            Mark::AnyDevice => mode & 0o170_000 == S_IFMT_CHARACTER,
            Mark::Block => mode & 0o170_000 == S_IFMT_BLOCK,
        }
    }
}

/// The row of an object.
fn find<'a>(table: &'a [Row], link: &[u8], mode: u32, device_number: u64) -> Option<&'a Row> {
    table.iter().find(|row| row.mark.fits(link, mode, device_number))
}

fn refuse(row: &Row, subject: Subject) -> Refusal {
    let descriptor = if let Subject::Descriptor(pid, number, _) = subject { Some((pid, number)) } else { None };
    let refusal =
        Refusal::new(Code::NOT_MIGRATABLE, subject, format!("{}: {}", row.name, row.reason)).choice(row.choice);
    match descriptor {
        Some((pid, number)) => refusal.choice(format!("choose an edge for it: --edge {pid}:{number}=null")),
        None => refusal,
    }
}

/// Whether a mapping of this name cannot be carried; asked before the file behind it is opened, which some of them do not
/// allow.
pub(crate) fn mapping(pid: i32, start: u64, name: &[u8]) -> Option<Refusal> {
    let row = TABLE.iter().filter(|row| matches!(row.mark, Mark::Anonymous(_) | Mark::Link(_)));
    let row = row.into_iter().find(|row| row.mark.fits(name, 0, 0))?;
    Some(refuse(row, Subject::Mapping(pid, start, String::from_utf8_lossy(name).into_owned())))
}

fn refusal(table: &[Row], look: &Look) -> Refusal {
    match find(table, &look.link, look.mode, look.device_number) {
        Some(row) => refuse(row, look.subject()),
        None => Refusal::new(Code::UNKNOWN_KIND, look.subject(), "it changed while it was looked at"),
    }
}

fn unmakable(envelope: &Envelope) -> Refusal {
    let subject = Subject::Object(format!("object {}", envelope.id));
    Refusal::new(Code::NOT_MIGRATABLE, subject, "this build has no way to rebuild it")
}

/// Objects that are refused by a row of [`TABLE`]. Before the kinds of files: some of them look like files.
#[derive(Debug)]
pub struct Refused;

impl Kind for Refused {
    fn id(&self) -> KindId {
        KindId(40)
    }
    fn name(&self) -> &'static str {
        "object without a way to carry it"
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
    fn make(&self, envelope: &Envelope, _: &mut Make) -> Result<Made> {
        Err(unmakable(envelope))
    }
    fn bind(&self, _: &Envelope, _: &mut Bind) -> Result<()> {
        Ok(())
    }
    fn description(&self) -> Option<&dyn Description> {
        Some(self)
    }
    fn task_state(&self) -> Option<&dyn TaskState> {
        None
    }
}

impl Description for Refused {
    fn recognise(&self, look: &Look) -> bool {
        find(TABLE, &look.link, look.mode, look.device_number).is_some()
    }
    fn examine(&self, look: &Look, _: &Survey) -> Verdict {
        Verdict::Blocks(refusal(TABLE, look))
    }
    fn foresee(&self, _: &Look, _: &Survey) -> Vec<Need> {
        Vec::new()
    }
    fn capture(&self, look: &Look, _: &mut Capture) -> Result<Captured> {
        Err(refusal(TABLE, look))
    }
}

/// Objects of [`OTHERS`]. Last in the table of kinds: what a kind carries is not refused.
#[derive(Debug)]
pub struct Other;

impl Kind for Other {
    fn id(&self) -> KindId {
        KindId(46)
    }
    fn name(&self) -> &'static str {
        "object of an unknown kind"
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
    fn make(&self, envelope: &Envelope, _: &mut Make) -> Result<Made> {
        Err(unmakable(envelope))
    }
    fn bind(&self, _: &Envelope, _: &mut Bind) -> Result<()> {
        Ok(())
    }
    fn description(&self) -> Option<&dyn Description> {
        Some(self)
    }
    fn task_state(&self) -> Option<&dyn TaskState> {
        None
    }
}

impl Description for Other {
    fn recognise(&self, look: &Look) -> bool {
        find(&OTHERS, &look.link, look.mode, look.device_number).is_some()
    }
    fn examine(&self, look: &Look, _: &Survey) -> Verdict {
        Verdict::Blocks(refusal(&OTHERS, look))
    }
    fn foresee(&self, _: &Look, _: &Survey) -> Vec<Need> {
        Vec::new()
    }
    fn capture(&self, look: &Look, _: &mut Capture) -> Result<Captured> {
        Err(refusal(&OTHERS, look))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_linux::pidfd::PidFd;
    use std::os::fd::AsRawFd;

    fn name(link: &str, mode: u32, device: u64) -> Option<&'static str> {
        find(TABLE, link.as_bytes(), mode, device).map(|row| row.name)
    }

    #[test]
    fn objects_are_named() {
        assert_eq!(name("anon_inode:[io_uring]", 0, 0), Some("io_uring"));
        assert_eq!(name("anon_inode:bpf-map", 0, 0), Some("BPF object"));
        assert_eq!(name("anon_inode:kvm-vcpu:0", 0, 0), Some("virtual machine (KVM)"));
        assert_eq!(name("anon_inode:[of the future]", 0, 0), None);
        let future = find(&OTHERS, b"anon_inode:[of the future]", 0, 0);
        assert_eq!(future.map(|row| row.name), Some("kernel object"));
        assert!(find(&OTHERS, b"/dev/x", S_IFMT_CHARACTER, 99 << 8).is_some());
        assert!(find(&OTHERS, b"/file", 0o100_644, 0).is_none());
        assert_eq!(name("/[aio] (deleted)", 0, 0), Some("asynchronous I/O context (io_setup)"));
        assert_eq!(name("/secretmem (deleted)", 0, 0), Some("secret memory (memfd_secret)"));
        assert_eq!(name("net:[4026531833]", 0o100_444, 0), Some("handle of a network namespace"));
        assert_eq!(name("/dev/net/tun", S_IFMT_CHARACTER | 0o666, 10 << 8 | 200), Some("TUN/TAP device"));
        assert_eq!(name("/dev/userfaultfd", S_IFMT_CHARACTER, 10 << 8 | 1 << 20 | 1), None);
        assert_eq!(name("/dev/vda", S_IFMT_BLOCK, 254 << 8), Some("disk"));
        assert_eq!(name("/home/file", 0o100_644, 0), None);
        assert!(mapping(1, 0x1000, b"/[aio] (deleted)").is_some());
        assert!(mapping(1, 0x1000, b"/lib/libc.so.6").is_none());
    }

    #[test]
    fn a_real_one_is_refused_with_reason_and_choices() {
        let handle = std::fs::File::open("/proc/self/ns/uts").unwrap();
        let own = PidFd::open(std::process::id() as i32).unwrap();
        let look = Look::descriptor(&own, handle.as_raw_fd()).unwrap().unwrap();
        assert!(Refused.recognise(&look));
        let refused = refusal(TABLE, &look);
        assert_eq!((refused.code, refused.choices.len()), (Code::NOT_MIGRATABLE, 2));
        assert!(refused.cause.contains("handle of a UTS namespace"), "{refused}");
    }
}
