//! Questions about rare state that only the threads themselves can answer, asked in the same programs as everything else;
//! the kinds of that state read the answers.
use crate::failure::Result;
use crate::injector::{Injector, Ran};
use crate::resource::future_locks::Future;
use crate::resource::keyring::{self, KeyringQuestion, Keyrings};
use godwit_linux::errno::foreign;
use godwit_linux::proc::maps;
use godwit_linux::program::{Argument, Program, Step};

const SYS_MMAP: i64 = 9;
const SYS_MUNMAP: i64 = 11;
const SYS_MINCORE: i64 = 27;
const SYS_MADVISE: i64 = 28;
const SYS_MODIFY_LDT: i64 = 154;
const SYS_PRCTL: i64 = 157;
const SYS_ARCH_PRCTL: i64 = 158;
const SYS_GET_MEMPOLICY: i64 = 239;
const SYS_GET_ROBUST_LIST: i64 = 274;
const SYS_MEMBARRIER: i64 = 324;
const MPOL_F_ADDR: u64 = 2;
const PR_GET_IO_FLUSHER: u64 = 58;
const ARCH_GET_CPUID: u64 = 0x1011;
const MEMBARRIER_GET_REGISTRATIONS: u64 = 1 << 9;
/// Bytes that are enough to see whether there is a local descriptor table.
const LDT_BYTES: usize = 16;
/// Memory nodes that a mask can hold, as many as any kernel is built for.
pub(crate) const NODES_MAX: usize = 1024;
/// More areas than this are asked in programs of their own.
const AREAS_MAX: usize = 3000;

/// What the kernel answers to throwing away locked memory.
const EINVAL: i32 = 22;
/// What it answers to mapping more than may be locked.
const EAGAIN: i32 = 11;
const PAGE_BYTES: u64 = 4096;
const PROT_READ_WRITE: u64 = 3;
const MAP_PRIVATE_ANONYMOUS: u64 = 0x22;
const MADV_DONTNEED: u64 = 4;

/// The answers of one thread. An error is the kernel's error number.
#[derive(Clone, Debug, Default)]
pub(crate) struct ThreadAnswers {
    /// Its thread, process and session keyring.
    pub(crate) keyrings: Keyrings,
    /// Its memory policy: mode with its flags, mask of nodes; none where the kernel knows none.
    pub(crate) policy: Option<(u32, Vec<u8>)>,
    /// Whether it could look at a process that its user may look at.
    pub(crate) sees_stranger: bool,
    /// CPUID is forbidden (arch_prctl(ARCH_SET_CPUID, 0)).
    pub(crate) faults_on_cpuid: bool,
    /// PR_SET_IO_FLUSHER, as far as the thread may tell: who has lost CAP_SYS_RESOURCE since may not.
    pub(crate) flushes_io: bool,
}

/// The answers of a whole process.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProcessAnswers {
    /// MEMBARRIER_CMD_REGISTER_* bits.
    pub(crate) barriers: u64,
    /// It has a local descriptor table.
    pub(crate) has_segments: bool,
    /// Whether memory that it maps later is locked.
    pub(crate) future: Future,
    /// Areas with a memory policy of their own: first address, address after the last byte.
    pub(crate) policy_areas: Vec<(u64, u64)>,
}

/// The questions to one thread.
#[derive(Debug)]
pub(crate) struct ThreadQuestion {
    keyrings: KeyringQuestion,
    policy: Step,
    policy_mode: usize,
    policy_nodes: usize,
    stranger: Option<Step>,
    cpuid: Step,
    flusher: Step,
}

/// The result of a call that may fail, or the kernel's error number.
pub(crate) fn answered(ran: &Ran, step: Step) -> std::result::Result<u64, i32> {
    let result = ran.outcome.results.get(step.0).copied().unwrap_or(i64::from(i32::MIN));
    foreign("", result).map_err(|error| error.number)
}

impl ThreadQuestion {
    /// Adds the questions to a program; `stranger` is a process that every thread of that user may look at. What keyrings hold
    /// is asked of the first thread: the others nearly always have the same.
    pub(crate) fn ask(program: &mut Program, stranger: Option<i32>, is_first: bool) -> ThreadQuestion {
        let zero = Argument::Value(0);
        let keyrings = KeyringQuestion::ask(program, is_first);
        let (mode, policy_mode) = program.space(8);
        let (nodes, policy_nodes) = program.space(NODES_MAX / 8);
        let policy = program.try_call("get_mempolicy", SYS_GET_MEMPOLICY, [mode, nodes, NODES_MAX.into(), zero, zero]);
        let (head, _) = program.space(16);
        let stranger =
            stranger.map(|pid| program.try_call("get_robust_list", SYS_GET_ROBUST_LIST, [pid.into(), head, head]));
        let cpuid = program.try_call("arch_prctl", SYS_ARCH_PRCTL, [ARCH_GET_CPUID.into(), zero]);
        let flusher = program.try_call("prctl", SYS_PRCTL, [PR_GET_IO_FLUSHER.into(), zero, zero, zero, zero]);
        ThreadQuestion { keyrings, policy, policy_mode, policy_nodes, stranger, cpuid, flusher }
    }

    /// Reads the answers.
    pub(crate) fn answer(&self, ran: &Ran) -> ThreadAnswers {
        let policy = answered(ran, self.policy).ok().map(|_| {
            let mask = ran.data(self.policy_nodes, NODES_MAX / 8).to_vec();
            (ran.word(self.policy_mode) as u32, mask)
        });
        ThreadAnswers {
            keyrings: self.keyrings.answer(ran),
            policy,
            sees_stranger: self.stranger.is_none_or(|step| answered(ran, step).is_ok()),
            faults_on_cpuid: answered(ran, self.cpuid) == Ok(0),
            flushes_io: answered(ran, self.flusher) == Ok(1),
        }
    }
}

/// The questions to a whole process, through its first thread.
#[derive(Debug)]
pub(crate) struct ProcessQuestion {
    barriers: Step,
    segments: Step,
    page: Step,
    resident: usize,
    discard: Step,
    areas: Vec<(u64, u64, Step, usize)>,
}

impl ProcessQuestion {
    /// Adds the questions to a program.
    pub(crate) fn ask(program: &mut Program, areas: &[maps::Area]) -> ProcessQuestion {
        let zero = Argument::Value(0);
        let barriers =
            program.try_call("membarrier", SYS_MEMBARRIER, [MEMBARRIER_GET_REGISTRATIONS.into(), zero, zero]);
        let (table, _) = program.space(LDT_BYTES);
        let segments = program.try_call("modify_ldt", SYS_MODIFY_LDT, [zero, table, LDT_BYTES.into()]);
        let (none, protection) = (Argument::from(-1_i64), PROT_READ_WRITE.into());
        let page = [zero, PAGE_BYTES.into(), protection, MAP_PRIVATE_ANONYMOUS.into(), none, zero];
        let page = program.try_call("mmap", SYS_MMAP, page);
        let (space, resident) = program.space(8);
        program.try_call("mincore", SYS_MINCORE, [page.into(), PAGE_BYTES.into(), space]);
        let discard = program.try_call("madvise", SYS_MADVISE, [page.into(), PAGE_BYTES.into(), MADV_DONTNEED.into()]);
        program.try_call("munmap", SYS_MUNMAP, [page.into(), PAGE_BYTES.into()]);
        let areas = ask_areas(program, areas.get(..AREAS_MAX).unwrap_or(areas));
        ProcessQuestion { barriers, segments, page, resident, discard, areas }
    }

    /// Reads the answers.
    pub(crate) fn answer(&self, ran: &Ran) -> ProcessAnswers {
        let with_policy = |(start, end, step, place): &(u64, u64, Step, usize)| {
            (answered(ran, *step).is_ok() && ran.word(*place) as u32 != 0).then_some((*start, *end))
        };
        ProcessAnswers {
            barriers: answered(ran, self.barriers).unwrap_or(0),
            has_segments: answered(ran, self.segments).is_ok_and(|bytes| bytes != 0),
            future: match (answered(ran, self.page), answered(ran, self.discard)) {
                (Err(EAGAIN), _) => Future::Full,
                (_, Err(EINVAL)) if ran.word(self.resident) & 1 == 0 => Future::LockedOnFault,
                (_, Err(EINVAL)) => Future::Locked,
                _ => Future::Free,
            },
            policy_areas: self.areas.iter().filter_map(with_policy).collect(),
        }
    }
}

fn ask_areas(program: &mut Program, areas: &[maps::Area]) -> Vec<(u64, u64, Step, usize)> {
    let zero = Argument::Value(0);
    let areas = areas.iter().filter(|area| !area.name.starts_with(b"[v"));
    areas
        .map(|area| {
            let (mode, place) = program.space(8);
            let arguments = [mode, zero, zero, area.start.into(), MPOL_F_ADDR.into()];
            (area.start, area.end, program.try_call("get_mempolicy", SYS_GET_MEMPOLICY, arguments), place)
        })
        .collect()
}

/// Keeps the answers with the injector, for the kinds; asks about the areas that did not fit with the other questions.
pub(crate) fn keep(injector: &mut Injector<'_>, threads: Vec<ThreadAnswers>, mut whole: ProcessAnswers) -> Result<()> {
    let rest = injector.areas().get(AREAS_MAX..).unwrap_or(&[]).to_vec();
    for chunk in rest.chunks(AREAS_MAX) {
        let mut program = Program::new();
        let question = ProcessQuestion::ask(&mut program, chunk);
        if let Some(ran) = injector.run(&[(0, program)])?.first() {
            whole.policy_areas.append(&mut question.answer(ran).policy_areas);
        }
    }
    keyring::judge(injector, &threads)?;
    injector.keep_answers(threads, whole);
    Ok(())
}
