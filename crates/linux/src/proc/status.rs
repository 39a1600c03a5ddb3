//! /proc/PID/task/TID/status: credentials, signal sets, capabilities and more of one task, as named lines.

use super::cursor::{Line, Lines};
use super::{Error, Malformed, read_task};

/// The lines of status. A line that only some kernels print is an `Option`; unknown lines are passed over.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Status {
    /// `Name`, unescaped.
    pub name: Vec<u8>,
    /// `Umask`; absent when the task has left its fs struct (zombie).
    pub umask: Option<u32>,
    /// `State`, its letter.
    pub state: u8,
    /// `Tgid`: process id.
    pub tgid: i32,
    /// `Pid`: thread id.
    pub pid: i32,
    /// `PPid`: parent's process id; 0 when outside of the reader's PID namespace.
    pub parent: i32,
    /// `TracerPid`; 0 when not traced, or by a tracer outside of the reader's PID namespace.
    pub tracer: i32,
    /// `Uid`: real, effective, saved, file system; as seen from the reader's user namespace.
    pub uid: [u32; 4],
    /// `Gid`: real, effective, saved, file system.
    pub gid: [u32; 4],
    /// `FDSize`: slots of the descriptor table; 0 when it has none.
    pub descriptor_slots: u64,
    /// `Groups`: supplementary groups.
    pub groups: Vec<u32>,
    /// `NStgid`: process id in each PID namespace, from the reader's inwards.
    pub namespace_tgid: Vec<i32>,
    /// `NSpid`: thread id in each PID namespace.
    pub namespace_pid: Vec<i32>,
    /// `NSpgid`: process group in each PID namespace.
    pub namespace_process_group: Vec<i32>,
    /// `NSsid`: session in each PID namespace.
    pub namespace_session: Vec<i32>,
    /// `Kthread`.
    pub kernel_thread: Option<bool>,
    /// The Vm lines; absent when the task has no address space (zombie, kernel thread).
    pub memory: Option<Memory>,
    /// `CoreDumping`.
    pub core_dumping: Option<bool>,
    /// `THP_enabled`: false after PR_SET_THP_DISABLE.
    pub thp_enabled: Option<bool>,
    /// `untag_mask`.
    pub untag_mask: Option<u64>,
    /// `Threads` of the process; 0 once it is being reaped.
    pub threads: u32,
    /// `SigQ`: queued signals of the real user.
    pub queued_signals: u64,
    /// `SigQ`: RLIMIT_SIGPENDING.
    pub queued_signals_limit: u64,
    /// `SigPnd`: pending for the thread; bit n-1 is signal n, here and below.
    pub pending: u64,
    /// `ShdPnd`: pending for the process.
    pub shared_pending: u64,
    /// `SigBlk`: blocked by the thread.
    pub blocked: u64,
    /// `SigIgn`: ignored.
    pub ignored: u64,
    /// `SigCgt`: with a handler.
    pub caught: u64,
    /// `CapInh`
    pub capabilities_inheritable: u64,
    /// `CapPrm`
    pub capabilities_permitted: u64,
    /// `CapEff`
    pub capabilities_effective: u64,
    /// `CapBnd`
    pub capabilities_bounding: u64,
    /// `CapAmb`
    pub capabilities_ambient: u64,
    /// `NoNewPrivs`
    pub no_new_privileges: bool,
    /// `Seccomp`: 0 off, 1 strict, 2 filter.
    pub seccomp: Option<u32>,
    /// `Seccomp_filters`: how many.
    pub seccomp_filters: Option<u32>,
    /// `Speculation_Store_Bypass`, as printed.
    pub speculation_store_bypass: Option<Vec<u8>>,
    /// `SpeculationIndirectBranch`, as printed.
    pub speculation_indirect_branch: Option<Vec<u8>>,
    /// `Cpus_allowed`: low word first.
    pub cpus_allowed: Vec<u64>,
    /// `Mems_allowed`: low word first.
    pub mems_allowed: Vec<u64>,
    /// `voluntary_ctxt_switches`: how often the thread has gone to sleep.
    pub voluntary_switches: Option<u64>,
    /// `x86_Thread_features`: words such as `shstk`.
    pub x86_thread_features: Vec<Vec<u8>>,
    /// `x86_Thread_features_locked`
    pub x86_thread_features_locked: Vec<Vec<u8>>,
}

/// Sizes of an address space, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Memory {
    /// `VmPeak`
    pub peak: u64,
    /// `VmSize`
    pub size: u64,
    /// `VmLck`
    pub locked: u64,
    /// `VmPin`
    pub pinned: u64,
    /// `VmHWM`: highest resident size.
    pub resident_peak: u64,
    /// `VmRSS`
    pub resident: u64,
    /// `RssAnon`
    pub resident_anonymous: u64,
    /// `RssFile`
    pub resident_file: u64,
    /// `RssShmem`
    pub resident_shared: u64,
    /// `VmData`
    pub data: u64,
    /// `VmStk`
    pub stack: u64,
    /// `VmExe`
    pub code: u64,
    /// `VmLib`
    pub library: u64,
    /// `VmPTE`: page tables.
    pub page_tables: u64,
    /// `VmSwap`
    pub swap: u64,
    /// `HugetlbPages`
    pub hugetlb: u64,
}

const FILE: &str = "status";

/// The lines without which a task cannot be described: a bit each, so that none is missing and none is there twice.
fn required(key: &[u8]) -> u32 {
    match key {
        b"Name" => 1 << 0,
        b"State" => 1 << 1,
        b"Tgid" => 1 << 2,
        b"Pid" => 1 << 3,
        b"PPid" => 1 << 4,
        b"TracerPid" => 1 << 5,
        b"Uid" => 1 << 6,
        b"Gid" => 1 << 7,
        b"Groups" => 1 << 8,
        b"Threads" => 1 << 9,
        b"SigPnd" => 1 << 10,
        b"ShdPnd" => 1 << 11,
        b"SigBlk" => 1 << 12,
        b"SigIgn" => 1 << 13,
        b"SigCgt" => 1 << 14,
        b"CapInh" => 1 << 15,
        b"CapPrm" => 1 << 16,
        b"CapEff" => 1 << 17,
        b"CapBnd" => 1 << 18,
        b"CapAmb" => 1 << 19,
        b"NoNewPrivs" => 1 << 20,
        b"Cpus_allowed" => 1 << 21,
        _ => 0,
    }
}

/// All bits of [`required`].
const ALL_REQUIRED: u32 = (1 << 22) - 1;

/// Parses the text of status.
pub fn parse(text: &[u8]) -> Result<Status, Malformed> {
    let mut status = Status::default();
    let mut seen: u32 = 0;
    let mut lines = Lines::new(FILE, text)?;
    for mut line in lines.by_ref() {
        let Some(key) = line.before(b':') else { return Err(line.malformed("no : behind the name")) };
        line.blanks();
        parse_value(&mut status, key, &mut line)?;
        let bit = required(key);
        if seen & bit != 0 {
            return Err(line.malformed("the line is there twice"));
        }
        seen |= bit;
    }
    if seen != ALL_REQUIRED {
        return Err(lines.malformed("a line is missing"));
    }
    Ok(status)
}

fn parse_value(status: &mut Status, key: &[u8], line: &mut Line<'_>) -> Result<(), Malformed> {
    if key.starts_with(b"Vm") || key.starts_with(b"Rss") || key == b"HugetlbPages" {
        return parse_size(status.memory.get_or_insert_default(), key, line);
    }
    match key {
        b"Name" => status.name = unescape_name(line.rest()),
        b"Umask" => status.umask = Some(line.octal_word("umask")?),
        b"State" => status.state = line.byte("state")?,
        b"Tgid" => status.tgid = line.decimal_word("pid")?,
        b"Pid" => status.pid = line.decimal_word("pid")?,
        b"PPid" => status.parent = line.decimal_word("pid")?,
        b"TracerPid" => status.tracer = line.decimal_word("pid")?,
        b"Uid" => status.uid = four(line)?,
        b"Gid" => status.gid = four(line)?,
        b"FDSize" => status.descriptor_slots = line.decimal_word("slots")?,
        b"Groups" => {
            while !line.at_end() {
                status.groups.push(line.decimal_word("group")?);
            }
        }
        b"NStgid" => status.namespace_tgid = pids(line)?,
        b"NSpid" => status.namespace_pid = pids(line)?,
        b"NSpgid" => status.namespace_process_group = pids(line)?,
        b"NSsid" => status.namespace_session = pids(line)?,
        b"Kthread" => status.kernel_thread = Some(truth(line)?),
        b"CoreDumping" => status.core_dumping = Some(truth(line)?),
        b"THP_enabled" => status.thp_enabled = Some(truth(line)?),
        b"untag_mask" => {
            line.expect(b"0x", "no 0x")?;
            status.untag_mask = Some(line.hexadecimal_word("mask")?);
        }
        b"Threads" => status.threads = line.decimal_word("threads")?,
        b"SigQ" => {
            status.queued_signals = line.decimal("queued signals")?;
            line.expect(b"/", "no / between the queued signals and their limit")?;
            status.queued_signals_limit = line.decimal_word("limit of queued signals")?;
        }
        b"SigPnd" => status.pending = line.hexadecimal_word("signal set")?,
        b"ShdPnd" => status.shared_pending = line.hexadecimal_word("signal set")?,
        b"SigBlk" => status.blocked = line.hexadecimal_word("signal set")?,
        b"SigIgn" => status.ignored = line.hexadecimal_word("signal set")?,
        b"SigCgt" => status.caught = line.hexadecimal_word("signal set")?,
        b"CapInh" => status.capabilities_inheritable = line.hexadecimal_word("capabilities")?,
        b"CapPrm" => status.capabilities_permitted = line.hexadecimal_word("capabilities")?,
        b"CapEff" => status.capabilities_effective = line.hexadecimal_word("capabilities")?,
        b"CapBnd" => status.capabilities_bounding = line.hexadecimal_word("capabilities")?,
        b"CapAmb" => status.capabilities_ambient = line.hexadecimal_word("capabilities")?,
        b"NoNewPrivs" => status.no_new_privileges = truth(line)?,
        b"Seccomp" => status.seccomp = Some(line.decimal_word("mode")?),
        b"voluntary_ctxt_switches" => status.voluntary_switches = Some(line.decimal_word("count")?),
        b"Seccomp_filters" => status.seccomp_filters = Some(line.decimal_word("count")?),
        b"Speculation_Store_Bypass" => status.speculation_store_bypass = Some(line.rest().to_vec()),
        b"SpeculationIndirectBranch" => status.speculation_indirect_branch = Some(line.rest().to_vec()),
        b"Cpus_allowed" => status.cpus_allowed = mask(line)?,
        b"Mems_allowed" => status.mems_allowed = mask(line)?,
        b"x86_Thread_features" => status.x86_thread_features = words(line),
        b"x86_Thread_features_locked" => status.x86_thread_features_locked = words(line),
        _ => {}
    }
    Ok(())
}

fn parse_size(memory: &mut Memory, key: &[u8], line: &mut Line<'_>) -> Result<(), Malformed> {
    let field = match key {
        b"VmPeak" => &mut memory.peak,
        b"VmSize" => &mut memory.size,
        b"VmLck" => &mut memory.locked,
        b"VmPin" => &mut memory.pinned,
        b"VmHWM" => &mut memory.resident_peak,
        b"VmRSS" => &mut memory.resident,
        b"RssAnon" => &mut memory.resident_anonymous,
        b"RssFile" => &mut memory.resident_file,
        b"RssShmem" => &mut memory.resident_shared,
        b"VmData" => &mut memory.data,
        b"VmStk" => &mut memory.stack,
        b"VmExe" => &mut memory.code,
        b"VmLib" => &mut memory.library,
        b"VmPTE" => &mut memory.page_tables,
        b"VmSwap" => &mut memory.swap,
        b"HugetlbPages" => &mut memory.hugetlb,
        _ => return Ok(()),
    };
    *field = line.kibibytes()?;
    Ok(())
}

fn four(line: &mut Line<'_>) -> Result<[u32; 4], Malformed> {
    let mut ids = [0; 4];
    for id in &mut ids {
        *id = line.decimal_word("id")?;
    }
    Ok(ids)
}

fn pids(line: &mut Line<'_>) -> Result<Vec<i32>, Malformed> {
    let mut pids = Vec::new();
    while !line.at_end() {
        pids.push(line.decimal_word("pid")?);
    }
    Ok(pids)
}

fn truth(line: &mut Line<'_>) -> Result<bool, Malformed> {
    match line.decimal_word::<u8>("0 or 1")? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(line.malformed("neither 0 nor 1")),
    }
}

fn words(line: &mut Line<'_>) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    while !line.at_end() {
        words.push(line.word().to_vec());
    }
    words
}

/// Groups of 32 bits, highest first, joined by commas.
fn mask(line: &mut Line<'_>) -> Result<Vec<u64>, Malformed> {
    let mut halves: Vec<u32> = Vec::new();
    loop {
        halves.push(line.hexadecimal("32 bits of a mask")?);
        if !line.take(b",") {
            break;
        }
    }
    line.end()?;
    halves.reverse();
    Ok(halves.chunks(2).map(|pair| pair.iter().rev().fold(0, |word, half| word << 32 | u64::from(*half))).collect())
}

/// Undoes string_escape_str for a newline, a backslash and the like.
fn unescape_name(text: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        let (plain, after) = match rest {
            [b'\\', b'n', after @ ..] => (b'\n', after),
            [b'\\', b'\\', after @ ..] => (b'\\', after),
            _ => (*byte, after),
        };
        name.push(plain);
        rest = after;
    }
    name
}

/// One thread.
pub fn read(pid: i32, tid: i32) -> Result<Status, Error> {
    read_task(pid, tid, FILE, parse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::mutation;

    const GOLDEN: &[u8] = b"Name:\ta) R\\n(\\\\b\nUmask:\t0027\nState:\tR (running)\nTgid:\t11\nNgid:\t0\nPid:\t12\nPPid:\t3\nTracerPid:\t4\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t4294967294\nFDSize:\t256\nGroups:\t4 24 1000 \nNStgid:\t11\t2\nNSpid:\t12\t3\nNSpgid:\t11\t1\nNSsid:\t5\t0\nKthread:\t0\nVmPeak:\t   18696 kB\nVmSize:\t   18692 kB\nVmLck:\t       8 kB\nVmPin:\t       0 kB\nVmHWM:\t   14956 kB\nVmRSS:\t   14956 kB\nRssAnon:\t    7984 kB\nRssFile:\t    6972 kB\nRssShmem:\t       0 kB\nVmData:\t    9692 kB\nVmStk:\t     132 kB\nVmExe:\t       4 kB\nVmLib:\t    4852 kB\nVmPTE:\t      80 kB\nVmSwap:\t       0 kB\nHugetlbPages:\t       0 kB\nCoreDumping:\t0\nTHP_enabled:\t1\nuntag_mask:\t0xffffffffffffffff\nThreads:\t2\nSigQ:\t5/96365\nSigPnd:\t0000000000000001\nShdPnd:\t0000000000000002\nSigBlk:\t0000000000000004\nSigIgn:\t0000000001001000\nSigCgt:\t8000000000000002\nCapInh:\t0000000000000000\nCapPrm:\t000001fffeffffff\nCapEff:\t000001fffeffffff\nCapBnd:\t000001fffeffffff\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\nSpeculation_Store_Bypass:\tvulnerable\nSpeculationIndirectBranch:\talways enabled\nCpus_allowed:\t3\nCpus_allowed_list:\t0-1\nMems_allowed:\t00000004,00000002,00000001\nMems_allowed_list:\t0\nvoluntary_ctxt_switches:\t59\nnonvoluntary_ctxt_switches:\t5\nx86_Thread_features:\tshstk wrss \nx86_Thread_features_locked:\t\n";
    const ZOMBIE: &[u8] = b"Name:\tpython3\nState:\tZ (zombie)\nTgid:\t42\nNgid:\t0\nPid:\t42\nPPid:\t1\nTracerPid:\t0\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nFDSize:\t0\nGroups:\t \nNStgid:\t42\nNSpid:\t42\nNSpgid:\t0\nNSsid:\t0\nKthread:\t0\nThreads:\t1\nSigQ:\t1/96365\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\nSigBlk:\t0000000000000000\nSigIgn:\t0000000001001000\nSigCgt:\t0000000000000002\nCapInh:\t0000000000000000\nCapPrm:\t000001fffeffffff\nCapEff:\t000001fffeffffff\nCapBnd:\t000001fffeffffff\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t0\nSeccomp_filters:\t0\nSpeculation_Store_Bypass:\tvulnerable\nSpeculationIndirectBranch:\talways enabled\nCpus_allowed:\t3\nCpus_allowed_list:\t0-1\nMems_allowed:\t00000001\nMems_allowed_list:\t0\nvoluntary_ctxt_switches:\t1\nnonvoluntary_ctxt_switches:\t0\n";

    #[test]
    fn lines_of_a_task() {
        let status = parse(GOLDEN).unwrap();
        assert_eq!((status.name.as_slice(), status.umask, status.state), (&b"a) R\n(\\b"[..], Some(0o27), b'R'));
        assert_eq!((status.tgid, status.pid, status.parent, status.tracer), (11, 12, 3, 4));
        assert_eq!((status.uid, status.gid), ([1, 2, 3, 4], [5, 6, 7, 4294967294]));
        assert_eq!((status.descriptor_slots, status.groups), (256, vec![4, 24, 1000]));
        assert_eq!((status.namespace_tgid, status.namespace_pid), (vec![11, 2], vec![12, 3]));
        assert_eq!((status.namespace_process_group, status.namespace_session), (vec![11, 1], vec![5, 0]));
        assert_eq!(
            (status.kernel_thread, status.thp_enabled, status.core_dumping),
            (Some(false), Some(true), Some(false))
        );
        let memory = status.memory.unwrap();
        assert_eq!((memory.peak, memory.size, memory.locked), (18696 << 10, 18692 << 10, 8 << 10));
        assert_eq!((memory.resident_anonymous, memory.resident_file), (7984 << 10, 6972 << 10));
        assert_eq!((memory.page_tables, memory.hugetlb), (80 << 10, 0));
        assert_eq!(status.untag_mask, Some(u64::MAX));
        assert_eq!((status.threads, status.queued_signals, status.queued_signals_limit), (2, 5, 96365));
        assert_eq!((status.pending, status.shared_pending, status.blocked), (1, 2, 4));
        assert_eq!((status.ignored, status.caught), (0x1001000, 1 << 63 | 2));
        assert_eq!((status.capabilities_inheritable, status.capabilities_effective), (0, 0x1fffeffffff));
        assert_eq!((status.no_new_privileges, status.seccomp, status.seccomp_filters), (true, Some(2), Some(1)));
        assert_eq!(status.voluntary_switches, Some(59));
        assert_eq!(status.speculation_store_bypass.as_deref(), Some(&b"vulnerable"[..]));
        assert_eq!((status.cpus_allowed, status.mems_allowed), (vec![3], vec![2 << 32 | 1, 4]));
        assert_eq!(status.x86_thread_features, [b"shstk".to_vec(), b"wrss".to_vec()]);
        assert!(status.x86_thread_features_locked.is_empty());
    }

    #[test]
    fn a_zombie_has_no_memory() {
        let status = parse(ZOMBIE).unwrap();
        assert_eq!((status.state, status.memory, status.umask), (b'Z', None, None));
        assert!(status.groups.is_empty());
    }

    #[test]
    fn missing_and_doubled_lines_are_refused() {
        let text = std::str::from_utf8(ZOMBIE).unwrap();
        for line in text.lines() {
            let key = line.split(':').next().unwrap();
            let without = text.replace(&format!("\n{line}\n"), "\n");
            let without = without.strip_prefix(&format!("{line}\n")).unwrap_or(&without);
            assert_eq!(parse(without.as_bytes()).is_err(), required(key.as_bytes()) != 0, "{key}");
        }
        parse(text.replace("PPid:\t1\n", "PPid:\t1\nPPid:\t2\n").as_bytes()).unwrap_err();
        parse(text.replace("SigBlk:\t0", "SigBlk:\t00").as_bytes()).unwrap();
        parse(text.replace("SigBlk:\t0", "SigBlk:\t10").as_bytes()).unwrap_err();
    }

    #[test]
    fn no_mutation_panics() {
        for golden in [GOLDEN, ZOMBIE] {
            mutation::try_all(golden, |text| parse(text).is_ok());
        }
    }

    #[test]
    fn own_status_is_read() {
        let pid = std::process::id() as i32;
        let status = read(pid, pid).unwrap();
        assert_eq!((status.pid, status.tgid, status.kernel_thread), (pid, pid, Some(false)));
        assert!(status.memory.unwrap().resident > 0);
        assert!(matches!(read(i32::MAX, i32::MAX), Err(Error::Gone)));
    }
}
