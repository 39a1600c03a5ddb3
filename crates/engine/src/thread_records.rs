//! What the kernel has written down of each thread of a frozen process, read in one go, so that most threads need not be asked.
//!
//! A program in a thread costs a start and a stop; a copy of the kernel's record of it costs less than a microsecond. What a record
//! says of itself (a name, an alternate stack) is taken from it. Everything else that a program asks for is not interpreted: of
//! threads whose records are the same, byte by byte, in all that the answers depend on, one is asked, and its answers are
//! everybody's. Whether the records are understood is found out each time: those who are asked must have answered what their
//! records say.
use godwit_image::signal::AlternateStack;
use godwit_linux::kernel_types::{KernelTypes, Place};
use godwit_linux::ptrace::RestartableSequence;
use godwit_linux::task_iterator::{Source, TaskIterator, room};
use std::collections::BTreeMap;

/// To read fewer does not pay.
pub(crate) const FEW: usize = 12;
/// Nested PID namespaces whose numbers are read, counted from the first one.
const LEVELS: usize = 4;
/// struct upid: the number and a pointer.
const NUMBER_BYTES: usize = 16;
/// Processors that a record has room for.
const PROCESSORS_MAX: usize = 512;
/// sigaltstack(2): ss_flags.
const SS_ONSTACK: i32 = 1;
const SS_DISABLE: i32 = 2;
const SS_AUTODISARM: u32 = 1 << 31;
const SCHED_DEADLINE: u32 = 6;

/// Members of struct task_struct that differ from thread to thread.
const OWN: [&str; 15] = [
    "comm",
    "clear_child_tid",
    "sas_ss_sp",
    "sas_ss_size",
    "sas_ss_flags",
    "robust_list",
    "rseq",
    "rseq_len",
    "rseq_sig",
    "blocked",
    "pending.signal",
    "restore_sigmask",
    "files",
    "fs",
    "policy",
];

/// Members that the answers to all other questions depend on: flags of the thread and the task (time stamp counter, CPUID,
/// speculation, machine checks, I/O flusher, no_new_privs), credentials with everything in them (numbers, groups, capabilities,
/// securebits, keyrings, labels and sandboxes of security modules), filters, scheduling, memory policy, I/O ports, namespaces.
const COMMON: [&str; 22] = [
    "thread_info.flags",
    "thread_info.syscall_work",
    "flags",
    "atomic_flags",
    "personality",
    "timer_slack_ns",
    "pdeath_signal",
    "static_prio",
    "rt_priority",
    "sched_reset_on_fork",
    "se.slice",
    "se.custom_slice",
    "cred",
    "real_cred",
    "mempolicy",
    "seccomp.mode",
    "seccomp.filter",
    "seccomp.filter_count",
    "nsproxy",
    "syscall_dispatch",
    "thread.io_bitmap",
    "thread.iopl_emul",
];

/// Where a copy lies in a record.
#[derive(Clone, Copy, Debug)]
struct Copied {
    at: usize,
    bytes: usize,
    bits: Option<(u32, u32)>,
}

impl Copied {
    fn of<'r>(&self, record: &'r [u8]) -> &'r [u8] {
        record.get(self.at..self.at + self.bytes).unwrap_or(&[])
    }

    fn word(&self, record: &[u8]) -> u64 {
        let mut raw = [0; 8];
        let found = self.of(record);
        let length = found.len().min(8);
        raw[..length].copy_from_slice(&found[..length]);
        let word = u64::from_le_bytes(raw);
        self.bits.map_or(word, |(shift, width)| word >> shift & ((1_u64 << width.min(63)) - 1))
    }
}

/// What is copied.
#[derive(Debug, Default)]
struct Layout {
    sources: Vec<Source>,
    own: Vec<Copied>,
    numbers: Option<Copied>,
    common: Vec<Copied>,
}

impl Layout {
    /// `None`: this kernel's records are not those that are known here.
    fn of(types: &KernelTypes) -> Option<Layout> {
        let mut layout = Layout::default();
        for place in types.members("task_struct", OWN)? {
            let copied = layout.copy(&[], place?);
            layout.own.push(copied);
        }
        for place in types.members("task_struct", COMMON)? {
            let copied = layout.copy(&[], place?);
            layout.common.push(copied);
        }
        // Only where the kernel was built with it: see sched_setattr(2), SCHED_FLAG_UTIL_CLAMP_MIN.
        let [clamps, processors, contexts, number] =
            types.members("task_struct", ["uclamp_req", "cpus_mask", "io_context", "thread_pid"])?;
        if let Some(clamps) = clamps {
            let copied = layout.copy(&[], clamps);
            layout.common.push(copied);
        }
        let mut processors = processors?;
        // Of a mask that has room for more processors than there are, the rest is zero.
        if godwit_linux::scheduling::processors() > PROCESSORS_MAX {
            return None;
        }
        processors.bytes = processors.bytes.min(PROCESSORS_MAX as u32 / 8);
        let copied = layout.copy(&[], processors);
        layout.common.push(copied);
        let [priority] = types.members("io_context", ["ioprio"])?;
        let copied = layout.copy(&[contexts?], priority?);
        layout.common.push(copied);
        let [numbers] = types.members("pid", ["numbers"])?;
        let numbers = Place { bytes: (LEVELS * NUMBER_BYTES) as u32, ..numbers? };
        layout.numbers = Some(layout.copy(&[number?], numbers));
        Some(layout)
    }

    fn copy(&mut self, pointers: &[Place], place: Place) -> Copied {
        let at = self.sources.iter().map(|source| room(source.bytes) as usize).sum();
        let pointers = pointers.iter().map(|pointer| pointer.offset).collect();
        self.sources.push(Source { pointers, offset: place.offset, bytes: place.bytes });
        Copied { at, bytes: place.bytes as usize, bits: place.bits }
    }
}

/// What one thread's record says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    /// Its name, without what is behind it.
    pub(crate) name: Vec<u8>,
    /// Set by set_tid_address(2).
    pub(crate) clear_child_tid: u64,
    /// Address, size and flags (SS_AUTODISARM) of its alternate stack.
    stack: (u64, u64, u32),
    /// Address of its list of robust mutexes.
    pub(crate) robust_list: u64,
    /// Its registration of restartable sequences.
    pub(crate) sequence: RestartableSequence,
    /// Blocked signals; none where a call is about to put back what it has replaced.
    pub(crate) mask: Option<u64>,
    /// Whether a signal waits for it alone.
    pub(crate) has_signals: bool,
    /// The kernel's addresses of its table of descriptors and of its working directory.
    pub(crate) tables: (u64, u64),
    /// What the answers to all other questions depend on.
    likeness: Vec<u8>,
}

impl Record {
    fn read(layout: &Layout, record: &[u8]) -> Option<Record> {
        let [
            name,
            child,
            pointer,
            size,
            flags,
            robust,
            sequence,
            length,
            signature,
            mask,
            pending,
            replaced,
            files,
            fs,
            policy,
        ] = *layout.own.as_slice()
        else {
            return None;
        };
        let word = |copied: Copied| copied.word(record);
        let mut likeness = Vec::new();
        for copied in &layout.common {
            match copied.bits {
                Some(_) => likeness.extend_from_slice(&copied.word(record).to_le_bytes()),
                None => likeness.extend_from_slice(copied.of(record)),
            }
        }
        likeness.extend_from_slice(&word(policy).to_le_bytes());
        // Its parameters are elsewhere, and not the same for long.
        if word(policy) as u32 == SCHED_DEADLINE {
            likeness.extend_from_slice(&word(sequence).to_le_bytes());
            likeness.extend_from_slice(&word(child).to_le_bytes());
        }
        Some(Record {
            name: name.of(record).split(|byte| *byte == 0).next().unwrap_or_default().to_vec(),
            clear_child_tid: word(child),
            stack: (word(pointer), word(size), word(flags) as u32),
            robust_list: word(robust),
            sequence: RestartableSequence::new(word(sequence), word(length) as u32, word(signature) as u32),
            mask: (word(replaced) == 0).then(|| word(mask)),
            has_signals: word(pending) != 0,
            tables: (word(files), word(fs)),
            likeness,
        })
    }

    /// What sigaltstack(2) would tell a thread whose stack pointer is this (sas_ss_flags() of include/linux/sched/signal.h).
    pub(crate) fn alternate_stack(&self, pointer: u64) -> AlternateStack {
        let (address, size, flags) = self.stack;
        let disarms = flags & SS_AUTODISARM != 0;
        let is_on_it = !disarms && pointer > address && pointer - address <= size;
        let state = match (size, is_on_it) {
            (0, _) => SS_DISABLE,
            (_, true) => SS_ONSTACK,
            (_, false) => 0,
        };
        AlternateStack { address, flags: state | (flags & SS_AUTODISARM) as i32, size }
    }
}

/// What is kept ready for a running process.
#[derive(Debug)]
pub(crate) struct Reader {
    layout: Layout,
    iterator: TaskIterator,
}

impl Reader {
    /// Makes ready. `None` where its records cannot be read: then its threads are asked.
    pub(crate) fn of(pid: i32, types: &KernelTypes) -> Option<Reader> {
        let layout = Layout::of(types)?;
        let iterator = TaskIterator::of(pid, types, &layout.sources).ok()?;
        Some(Reader { layout, iterator })
    }

    /// Reads the records of a process whose threads are all stopped. `None` when they are not just these.
    pub(crate) fn read(&self, threads: &[i32]) -> Option<Records> {
        let raw = self.iterator.read().ok()?;
        let numbers = self.layout.numbers?;
        let read: Vec<(&[u8], Record)> = raw
            .chunks_exact(self.iterator.record_bytes())
            .map(|record| Some((numbers.of(record), Record::read(&self.layout, record)?)))
            .collect::<Option<_>>()?;
        // A thread has a number in each PID namespace that it is in; which of them is ours shows in that all are.
        (0..LEVELS).find_map(|level| {
            let number =
                |numbers: &[u8]| numbers.get(level * NUMBER_BYTES..)?.first_chunk().map(|raw| i32::from_le_bytes(*raw));
            let records: BTreeMap<i32, Record> =
                read.iter().filter_map(|(numbers, record)| Some((number(numbers)?, record.clone()))).collect();
            let of_all: Option<Vec<Record>> = threads.iter().map(|tid| records.get(tid).cloned()).collect();
            let all = of_all.filter(|_| records.len() == threads.len() && read.len() == threads.len())?;
            Some(Records(all))
        })
    }
}

/// The records of the threads of a frozen process, in their order.
#[derive(Clone, Debug)]
pub(crate) struct Records(Vec<Record>);

impl Records {
    pub(crate) fn of(&self, index: usize) -> Option<&Record> {
        self.0.get(index)
    }

    /// The indices of those who are asked, ascending.
    pub(crate) fn asked(&self) -> Vec<usize> {
        let spokesmen = self.spokesmen();
        (0..spokesmen.len()).filter(|index| spokesmen[*index] == *index).collect()
    }

    /// For every thread the index of the one that is asked for it. The first thread is asked for itself alone, since it is asked
    /// more.
    pub(crate) fn spokesmen(&self) -> Vec<usize> {
        let mut known: BTreeMap<&[u8], usize> = BTreeMap::new();
        let rest = self.0.iter().enumerate().skip(1);
        let rest = rest.map(|(index, record)| *known.entry(record.likeness.as_slice()).or_insert(index));
        std::iter::once(0).chain(rest).take(self.0.len()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_stack_is_told_as_the_call_tells_it() {
        let with = |stack| Record {
            name: Vec::new(),
            clear_child_tid: 0,
            stack,
            robust_list: 0,
            sequence: RestartableSequence::default(),
            mask: None,
            has_signals: false,
            tables: (0, 0),
            likeness: Vec::new(),
        };
        let flags = |stack, pointer| with(stack).alternate_stack(pointer).flags;
        assert_eq!(flags((0, 0, 2), 5), SS_DISABLE);
        assert_eq!(flags((0x1000, 0x1000, 0), 0x1000), 0);
        assert_eq!(flags((0x1000, 0x1000, 0), 0x1001), SS_ONSTACK);
        assert_eq!(flags((0x1000, 0x1000, 0), 0x2000), SS_ONSTACK);
        assert_eq!(flags((0x1000, 0x1000, 0), 0x2001), 0);
        assert_eq!(flags((0x1000, 0x1000, SS_AUTODISARM), 0x1800), i32::MIN);
    }

    #[test]
    fn threads_are_alike_only_in_everything() {
        let types = match KernelTypes::read() {
            Ok(types) => types,
            Err(error) => {
                println!("skipped: the kernel does not tell its types: {error}");
                return;
            }
        };
        let Some(reader) = Reader::of(std::process::id() as i32, &types) else {
            println!("skipped: the kernel's records cannot be read here");
            return;
        };
        // Threads that wait, all alike but for what each does first.
        let slack: fn() = || std::mem::forget(godwit_linux::scheduling::PreciseSleep::begin());
        let nice: fn() = || godwit_linux::scheduling::set_nice(0, 7).unwrap();
        let same: fn() = || {};
        let (said, heard) = mpsc::channel();
        let (ends, threads): (Vec<_>, Vec<_>) = [same, same, slack, nice, same, slack]
            .into_iter()
            .map(|change| {
                let (end, ended) = mpsc::channel::<()>();
                let said = said.clone();
                let waits = move || {
                    change();
                    let own = std::fs::read_link("/proc/thread-self").unwrap();
                    let number = own.file_name().unwrap().to_str().unwrap().parse().unwrap();
                    said.send(number).unwrap();
                    let _ = ended.recv();
                };
                (end, std::thread::Builder::new().name("alike".to_owned()).spawn(waits).unwrap())
            })
            .unzip();
        let numbers: Vec<i32> = threads.iter().map(|_| heard.recv().unwrap()).collect();
        // The order in which they were heard is not the one in which they were made: count the kinds.
        let kinds = |own: &[(i32, Record)]| {
            let alike = |one: &Record| own.iter().filter(|(_, other)| one.likeness == other.likeness).count();
            let mut kinds: Vec<usize> = own.iter().map(|(_, one)| alike(one)).collect();
            kinds.sort_unstable();
            kinds
        };
        // Other tests have threads, too, which come and go; and ours are not alike before each waits.
        const LAST: u32 = 10_000;
        let own: Vec<(i32, Record)> = (0..LAST + 100)
            .find_map(|attempt| {
                let all = crate::procfs::threads(std::process::id() as i32).unwrap();
                let records = reader.read(&all)?;
                let of = |tid| Some((tid, records.0[all.iter().position(|other| *other == tid)?].clone()));
                let own: Vec<(i32, Record)> = numbers.iter().map(|tid| of(*tid)).collect::<Option<_>>()?;
                (kinds(&own)[5] == 3 || attempt > LAST).then_some(own)
            })
            .expect("the threads of this process are read");
        assert!(own.iter().all(|(_, record)| record.name == b"alike"));
        for (tid, record) in &own {
            let told = godwit_linux::scheduling::robust_list(*tid).unwrap();
            assert_eq!(record.robust_list, told.0);
            assert_ne!((record.clear_child_tid, record.sequence.address), (0, 0));
        }
        assert_eq!(kinds(&own), [1, 2, 2, 3, 3, 3]);
        let spokesmen = Records(own.iter().map(|(_, record)| record.clone()).collect()).spokesmen();
        assert_eq!(spokesmen[0], 0);
        assert!(spokesmen.iter().enumerate().all(|(index, other)| index == 0 || (1..=index).contains(other)));
        drop(ends);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
