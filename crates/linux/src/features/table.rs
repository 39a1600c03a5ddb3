//! The table of kernel features: one row each, with its name, what it is good for, and what to change where it is missing.

/// What a feature is needed for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Group {
    /// Stopping a tree and reading its state.
    Read,
    /// Rebuilding a tree.
    Rebuild,
    /// Keeping process numbers.
    Numbers,
    /// Keeping clocks and timers.
    Clocks,
    /// Tracking what changes while the tree still runs.
    Track,
    /// Serving memory after the tree runs at the destination.
    PostCopy,
    /// Moving connections.
    Connections,
    /// Confining tasks.
    Confine,
}

impl Group {
    /// Heading.
    pub fn title(self) -> &'static str {
        match self {
            Group::Read => "stop a tree and read its state",
            Group::Rebuild => "rebuild a tree",
            Group::Numbers => "keep process numbers",
            Group::Clocks => "keep clocks and timers",
            Group::Track => "track changes while it runs",
            Group::PostCopy => "bring memory after the move",
            Group::Connections => "see and move sockets",
            Group::Confine => "work without root, confine jobs",
        }
    }
}

/// How much depends on a feature.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Weight {
    /// Nothing works without it.
    Required,
    /// Some programs are refused without it.
    Some,
    /// Everything works without it, only slower or with fewer strategies.
    Better,
}

/// One row.
#[derive(Debug)]
pub struct Row {
    /// The feature.
    pub feature: Feature,
    /// Stable name, also of an image's needs.
    pub name: &'static str,
    /// Heading under which it is shown.
    pub group: Group,
    /// How much depends on it.
    pub weight: Weight,
    /// What it is good for.
    pub purpose: &'static str,
    /// What happens without it.
    pub without: &'static str,
    /// What to change.
    pub remedy: &'static str,
}

macro_rules! features {
    ($($feature:ident = $name:literal, $group:ident, $weight:ident, $purpose:literal, $without:literal, $remedy:literal;)*) => {
        /// A kernel feature that the engine uses.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Feature { $(#[doc = $purpose] $feature,)* }
        /// Every feature, in the order in which it is shown.
        pub const TABLE: &[Row] = &[$(Row {
            feature: Feature::$feature, name: $name, group: Group::$group, weight: Weight::$weight,
            purpose: $purpose, without: $without, remedy: $remedy,
        },)*];
    };
}

impl Feature {
    /// The feature of a name.
    pub fn named(name: &str) -> Option<Feature> {
        TABLE.iter().find(|row| row.name == name).map(|row| row.feature)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        TABLE.iter().find(|row| row.feature == self).map_or("", |row| row.name)
    }
}

features! {
    Seize = "ptrace-seize", Read, Required,
        "stop threads and read their registers",
        "no tree can be frozen",
        "allow ptrace: in a container --cap-add SYS_PTRACE or a seccomp profile that lets ptrace pass";
    RestartableSequence = "ptrace-rseq", Read, Required,
        "read where a thread's restartable sequence is registered",
        "a moved thread would crash at its next preemption",
        "use Linux 5.13 or later";
    ProcessMemory = "process-vm", Read, Required,
        "read a process's memory in bulk",
        "no memory can be read",
        "build the kernel with CONFIG_CROSS_MEMORY_ATTACH, or let a seccomp profile pass process_vm_readv";
    MemoryWrite = "proc-mem-write", Read, Required,
        "write a stopped process's memory through /proc/PID/mem",
        "no program can be placed into a process",
        "remove proc_mem.force_override=never from the kernel's command line; mount /proc read-write";
    ProcessFileDescriptor = "pidfd-getfd", Read, Required,
        "get a process's open files as they are",
        "no descriptor can be read",
        "use Linux 5.6 or later, and let a seccomp profile pass pidfd_getfd";
    Compare = "kcmp", Read, Required,
        "tell which tasks share what",
        "sharing would be lost",
        "build the kernel with CONFIG_KCMP, and let a seccomp profile pass kcmp";
    MappedFiles = "map-files", Read, Required,
        "open the file behind a mapping",
        "no program with mapped files can be read, and nearly all have some",
        "run as root, or give CAP_CHECKPOINT_RESTORE (Linux 5.9) to the godwit binary";
    ThreadDescriptor = "pidfd-thread", Read, Some,
        "reach a process whose first thread has ended",
        "processes with a dead leader are refused",
        "use Linux 6.9 or later";
    SuspendSeccomp = "suspend-seccomp", Read, Some,
        "run programs in a task that has seccomp filters",
        "tasks with seccomp filters are refused",
        "run as root (CAP_SYS_ADMIN), and not under seccomp yourself";
    SeccompFilters = "seccomp-filters", Read, Some,
        "read a task's seccomp filters",
        "tasks with seccomp filters are refused",
        "run as root (CAP_SYS_ADMIN), and not under seccomp yourself";
    UserDispatch = "ptrace-user-dispatch", Read, Some,
        "see whether a thread has system-call user dispatch",
        "programs that use it (Wine) are not recognised and may fail when read",
        "use Linux 6.4 or later";
    KernelRecords = "kernel-records", Read, Better,
        "read what the kernel has written down of threads and areas in one go (a BPF iterator)",
        "a tree of many threads or areas is down for longer: each is asked or listed",
        "run as root (CAP_BPF and CAP_PERFMON) on a kernel built with CONFIG_DEBUG_INFO_BTF (Linux 6.1 or later)";
    HandlePaths = "file-handles", Read, Some,
        "find the path of an inotify watch",
        "programs with inotify watches are refused",
        "run as root (CAP_DAC_READ_SEARCH)";
    MemoryFile = "memfd", Rebuild, Required,
        "carry programs and shared memory",
        "nothing can be read or rebuilt",
        "use Linux 3.17 or later";
    MemoryMap = "set-mm-map", Rebuild, Required,
        "give a process its layout and its program file",
        "no process can be rebuilt",
        "run as root, or give CAP_CHECKPOINT_RESTORE to the godwit binary; build the kernel with CONFIG_CHECKPOINT_RESTORE";
    MemorySeal = "mseal", Rebuild, Some,
        "seal mappings",
        "programs with sealed mappings are refused at this destination",
        "use Linux 6.10 or later";
    MemoryPolicy = "memory-policy", Rebuild, Some,
        "set NUMA memory policies",
        "programs with a memory policy are refused at this destination",
        "build the kernel with CONFIG_NUMA";
    Membarrier = "membarrier-registrations", Rebuild, Some,
        "read which expedited memory barriers a process has registered for",
        "programs that use them (Java, .NET, liburcu) may find their registration gone",
        "use Linux 6.3 or later";
    WatchNumbers = "inotify-next-watch", Rebuild, Some,
        "give inotify watches their numbers",
        "programs with inotify watches are refused at this destination",
        "build the kernel with CONFIG_CHECKPOINT_RESTORE";
    ChosenNumbers = "set-tid", Numbers, Required,
        "create tasks with chosen numbers",
        "no process can be rebuilt with its number",
        "run as root, or give CAP_CHECKPOINT_RESTORE (Linux 5.9) to the godwit binary";
    NumberNamespaces = "pid-namespaces", Numbers, Some,
        "restore where a number is in use",
        "a restore is refused when one of the numbers is taken",
        "run as root (CAP_SYS_ADMIN); in a container --privileged";
    TimeNamespaces = "time-namespaces", Clocks, Some,
        "keep CLOCK_MONOTONIC and CLOCK_BOOTTIME from jumping back",
        "a move to a host with a shorter uptime is refused",
        "run as root (CAP_SYS_ADMIN); build the kernel with CONFIG_TIME_NS (Linux 5.6)";
    TimerNumbers = "timer-numbers", Clocks, Some,
        "give POSIX timers their numbers",
        "programs with POSIX timers are refused at this destination",
        "use Linux 6.15 or later with CONFIG_CHECKPOINT_RESTORE";
    TimerTicks = "timerfd-ticks", Clocks, Some,
        "give a timerfd its unread expirations",
        "programs with an expired, unread timerfd are refused at this destination",
        "build the kernel with CONFIG_CHECKPOINT_RESTORE";
    PagemapScan = "pagemap-scan", Track, Better,
        "find a process's pages fast",
        "pages are found more slowly",
        "use Linux 6.7 or later";
    WriteTracking = "userfaultfd-write-tracking", Track, Better,
        "track written pages without stopping the writer",
        "and without soft-dirty, strategies that send memory while the tree runs are refused",
        "use Linux 6.7 or later, as root";
    SoftDirty = "soft-dirty", Track, Better,
        "track written pages on kernels before 6.7",
        "nothing is lost where userfaultfd-write-tracking works",
        "build the kernel with CONFIG_MEM_SOFT_DIRTY";
    FaultService = "userfaultfd", PostCopy, Better,
        "serve pages when the moved tree touches them",
        "strategies that bring memory after the move are refused",
        "run as root (CAP_SYS_PTRACE), or let your user open /dev/userfaultfd, or sysctl vm.unprivileged_userfaultfd=1";
    FaultDevice = "dev-userfaultfd", PostCopy, Better,
        "serve pages of tasks that are not root's",
        "strategies that bring memory after the move work only for root's processes",
        "give your user rights to /dev/userfaultfd (Linux 6.1)";
    UnixSockets = "unix-diag", Connections, Some,
        "see the peers of Unix sockets",
        "programs with Unix sockets are refused",
        "build the kernel with CONFIG_UNIX_DIAG, or modprobe unix_diag";
    InternetSockets = "inet-diag", Connections, Some,
        "see TCP and UDP sockets",
        "programs with TCP connections are refused",
        "build the kernel with CONFIG_INET_DIAG, or modprobe tcp_diag";
    ConnectionRepair = "tcp-repair", Connections, Some,
        "move TCP connections",
        "programs with TCP connections are refused",
        "run as root (CAP_NET_ADMIN)";
    UserNamespaces = "user-namespaces", Confine, Better,
        "restore without root",
        "an ordinary user can restore nothing here",
        "sysctl user.max_user_namespaces=15000 (Debian: kernel.unprivileged_userns_clone=1; Ubuntu: kernel.apparmor_restrict_unprivileged_userns=0)";
    Freezer = "cgroup-freezer", Confine, Better,
        "keep a tree stopped even when every process of godwit is killed",
        "a stop that outlives godwit is done by SIGSTOP",
        "mount cgroup2 on /sys/fs/cgroup and run as root";
    Landlock = "landlock", Confine, Better,
        "recognise programs in a Landlock sandbox",
        "nothing: without Landlock nobody can be in such a sandbox",
        "nothing has to be changed";
}
