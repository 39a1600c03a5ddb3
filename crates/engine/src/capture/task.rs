//! One process and its threads: what /proc and ptrace tell, and what only the threads themselves can ask for.
use super::ahead::{Ahead, areas_meanwhile};
use super::files::Tables;
use super::inquiry::{Answers, Inquiry, Questions};
use super::{Capture, Outlet, SpacePages, credentials, job_control, space};
use crate::clock;
use crate::failure::{About, Result, malformed};
use crate::freeze::{FrozenProcess, FrozenTree};
use crate::injector::{Injector, Ran};
use crate::interrupted;
use crate::lineage::{Lineage, Member};
use crate::look::{Look, Purpose};
use crate::procfs;
use crate::question::{self, ProcessQuestion};
use crate::resource::KINDS;
use crate::sleep::Sleep;
use crate::thread_records::Records;
use godwit_image::credentials::Credentials;
use godwit_image::memory::{AddressSpace, Area, Layout};
use godwit_image::page_set::PageSet;
use godwit_image::signal::{Action, AlternateStack, Queued};
use godwit_image::task::{Scheduling, State, Task, Thread};
use godwit_image::tree::Tree;
use godwit_image::{Envelope, ObjectId, Pid, Subject};
use godwit_linux::kcmp::{self, Object};
use godwit_linux::proc::{maps, smaps};
use godwit_linux::program::{Argument, Program, Step};
use godwit_linux::{limits, ptrace};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Instant;

mod number {
    //! System calls and prctl options that this file uses.
    pub(super) const BRK: i64 = 12;
    pub(super) const RT_SIGACTION: i64 = 13;
    pub(super) const GETITIMER: i64 = 36;
    pub(super) const PRCTL: i64 = 157;
    pub(super) const PRLIMIT64: i64 = 302;
    pub(super) const WAITID: i64 = 247;
    pub(super) const PR_GET_DUMPABLE: u64 = 3;
    pub(super) const PR_GET_CHILD_SUBREAPER: u64 = 37;
    pub(super) const PR_GET_THP_DISABLE: u64 = 42;
    pub(super) const PR_GET_MDWE: u64 = 66;
    pub(super) const PR_GET_MEMORY_MERGE: u64 = 68;
}

/// What the whole process is asked, through its first thread.
struct ProcessQuestions {
    program: Program,
    actions: usize,
    timers: usize,
    limits: usize,
    subreaper: usize,
    brk: Step,
    dumpable: Step,
    huge_pages: Step,
    write_execute: Step,
    merge: Step,
    clocks: clock::Question,
    rare: ProcessQuestion,
}

impl ProcessQuestions {
    fn new(areas: &[maps::Area]) -> ProcessQuestions {
        let mut program = Program::new();
        let brk = program.call("brk", number::BRK, [0_u64.into()]);
        let mut prctl = |option: u64| {
            let zero = Argument::Value(0);
            program.try_call("prctl", number::PRCTL, [option.into(), zero, zero, zero, zero])
        };
        let dumpable = prctl(number::PR_GET_DUMPABLE);
        let huge_pages = prctl(number::PR_GET_THP_DISABLE);
        let write_execute = prctl(number::PR_GET_MDWE);
        let merge = prctl(number::PR_GET_MEMORY_MERGE);
        let (space, subreaper) = program.space(8);
        program.call("prctl", number::PRCTL, [number::PR_GET_CHILD_SUBREAPER.into(), space]);
        let timers = program.bytes().len();
        for which in 0..3_u64 {
            let (space, _) = program.space(32);
            program.call("getitimer", number::GETITIMER, [which.into(), space]);
        }
        // From inside: of another user's process the kernel tells them only to CAP_SYS_RESOURCE.
        let limits = program.bytes().len();
        for resource in 0..limits::COUNT {
            let (space, _) = program.space(16);
            let zero = Argument::Value(0);
            program.call("prlimit64", number::PRLIMIT64, [zero, resource.into(), zero, space]);
        }
        let actions = program.bytes().len();
        for signal in 1..=64_u64 {
            let (space, _) = program.space(32);
            program.call("rt_sigaction", number::RT_SIGACTION, [signal.into(), 0_u64.into(), space, 8_u64.into()]);
        }
        let clocks = clock::Question::ask(&mut program);
        let rare = ProcessQuestion::ask(&mut program, areas);
        ProcessQuestions {
            program,
            rare,
            clocks,
            actions,
            timers,
            limits,
            subreaper,
            brk,
            dumpable,
            huge_pages,
            write_execute,
            merge,
        }
    }

    fn actions(&self, ran: &Ran) -> Vec<Action> {
        (0..64)
            .map(|index| {
                let word = |n: usize| ran.word(self.actions + index * 32 + n * 8);
                Action { handler: word(0), flags: word(1), restorer: word(2), mask: word(3) }
            })
            .collect()
    }

    fn limits(&self, ran: &Ran) -> Vec<(u64, u64)> {
        (0..limits::COUNT as usize)
            .map(|resource| (ran.word(self.limits + resource * 16), ran.word(self.limits + resource * 16 + 8)))
            .collect()
    }

    /// Value and interval in µs; the kernel's struct itimerval has the interval first.
    fn timers(&self, ran: &Ran) -> [(u64, u64); 3] {
        [0, 1, 2].map(|index| {
            let word = |n: usize| ran.word(self.timers + index * 32 + n * 8);
            (word(2).saturating_mul(1_000_000) + word(3), word(0).saturating_mul(1_000_000) + word(1))
        })
    }
}

fn zombie(process: &FrozenProcess) -> Result<Task> {
    let stat = &process.stat;
    let status = process.status()?;
    let leader = Thread {
        tid: Pid(process.pid),
        name: stat.comm.clone(),
        dead: true,
        exit_status: stat.exit_code,
        credentials: Credentials { user: status.uid, group: status.gid, ..Credentials::default() },
        ..empty_thread()
    };
    Ok(Task {
        pid: Pid(process.pid),
        parent: Pid(stat.parent),
        parent_thread: Some(Pid(process.parent_thread)).filter(|thread| thread.0 != 0),
        group: Pid(stat.process_group),
        session: Pid(stat.session),
        exit_signal: stat.exit_signal,
        state: State::Zombie(stat.exit_code),
        untold: 0,
        shares_actions: false,
        space: None,
        actions: Vec::new(),
        pending: Vec::new(),
        limits: Vec::new(),
        out_of_memory_adjustment: 0,
        child_subreaper: false,
        interval_timers: [(0, 0); 3],
        threads: vec![leader],
        objects: Vec::new(),
    })
}

/// What concerns several processes: who forks whom, and what parents have not been told yet.
#[derive(Debug)]
pub(super) struct Shape {
    lineage: Lineage,
    /// Living processes by parent.
    children: BTreeMap<i32, Vec<i32>>,
    untold: BTreeMap<i32, i32>,
    /// Timed waits, and when they were cut short.
    sleeps: BTreeMap<i32, Sleep>,
    frozen_at: Instant,
    /// What this host says of the extended state of its processors.
    extended_state_bytes: u32,
    /// Memory that we track.
    tracked: PageSet,
}

impl Shape {
    /// Makes the plan of births.
    ///
    /// # Errors
    /// GW1104: it cannot be rebuilt.
    pub(super) fn new(frozen: &FrozenTree) -> Result<Shape> {
        let members: Vec<Member> = frozen
            .processes
            .iter()
            .map(|process| Member {
                pid: Pid(process.pid),
                parent: Pid(process.stat.parent),
                session: Pid(process.stat.session),
                zombie: process.is_zombie(),
            })
            .collect();
        let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for process in frozen.processes.iter().filter(|process| !process.is_zombie()) {
            children.entry(process.stat.parent).or_default().push(process.pid);
        }
        Ok(Shape {
            lineage: Lineage::plan(&members)?,
            children,
            untold: BTreeMap::new(),
            sleeps: frozen.sleeps.clone(),
            frozen_at: frozen.frozen_at,
            extended_state_bytes: frozen.surroundings.host.extended_state_bytes,
            tracked: frozen.preparation.tracked.values().fold(PageSet::new(), |all, of_one| all.union(of_one)),
        })
    }

    /// Has a parent look at what it has not been told of its children, without taking it.
    fn ask_about_children(&mut self, injector: &mut Injector<'_>) -> Result<()> {
        /// Children per program: their answers fit the large slot.
        const CHILDREN: usize = 2000;
        const P_PID: u64 = 1;
        /// WSTOPPED | WCONTINUED | WNOHANG | WNOWAIT | __WALL.
        const OPTIONS: u64 = 2 | 8 | 1 | 0x0100_0000 | 0x4000_0000;
        const CLD_STOPPED: u32 = 5;
        const CLD_CONTINUED: u32 = 6;
        let Some(children) = self.children.get(&injector.process().pid) else { return Ok(()) };
        for chunk in children.chunks(CHILDREN) {
            let mut program = Program::new();
            let mut places = Vec::with_capacity(chunk.len());
            for child in chunk {
                let (space, place) = program.space(ptrace::SIGNAL_INFORMATION_BYTES);
                let zero = Argument::Value(0);
                program.try_call(
                    "waitid",
                    number::WAITID,
                    [P_PID.into(), (*child).into(), space, OPTIONS.into(), zero],
                );
                places.push(place);
            }
            for ran in injector.run(&[(0, program)])? {
                for (child, place) in chunk.iter().zip(&places) {
                    // si_code and si_pid; si_uid and si_status.
                    let (code, status) = (ran.word(place + 8) as u32, (ran.word(place + 16) >> 32) as i32);
                    match code {
                        CLD_STOPPED => self.untold.insert(*child, status << 8 | 0x7f),
                        CLD_CONTINUED => self.untold.insert(*child, 0xffff),
                        _ => None,
                    };
                }
            }
        }
        Ok(())
    }

    fn untold(&self, pid: i32) -> i32 {
        self.untold.get(&pid).copied().unwrap_or(0)
    }
}

/// A thread of which nothing is known.
pub(crate) fn empty_thread() -> Thread {
    Thread {
        tid: Pid(0),
        name: Vec::new(),
        registers: Vec::new(),
        extended_state: Vec::new(),
        signal_mask: 0,
        pending: Vec::new(),
        alternate_stack: AlternateStack::default(),
        clear_child_tid: 0,
        robust_list: (0, 0),
        restartable_sequence: (0, 0, 0, 0),
        credentials: Default::default(),
        files: None,
        filesystem: None,
        parent_death_signal: 0,
        timer_slack_ns: 0,
        personality: 0,
        scheduling: Scheduling::default(),
        affinity: Vec::new(),
        io_priority: 0,
        timestamp_counter_mode: 0,
        dead: false,
        machine_check: None,
        speculation: [0; 3],
        user_dispatch: None,
        exit_status: 0,
        wait: None,
        note: String::new(),
    }
}

/// Captures one process; adds its address space when it is a new one.
pub(super) fn capture(
    process: &mut FrozenProcess,
    (tables, records): (&Tables, Option<&Records>),
    capture: &mut Capture,
    tree: &mut Tree,
    spaces: &mut Vec<SpacePages>,
    shape: &mut Shape,
    (ahead, outlet): (&mut Ahead, &mut Outlet<'_, '_>),
) -> Result<Task> {
    if process.is_zombie() {
        return zombie(process);
    }
    let pid = process.pid;
    let subject = || Subject::Process(pid);
    let first = process.threads[0].tid();
    let group_stop = process.group_stop();
    let leader_dead = process.leader_dead;
    let stat = process.stat.clone();
    let parent_thread = Some(Pid(process.parent_thread)).filter(|thread| thread.0 != 0);
    let map = ahead.map(first);
    // While the second thread reads the areas nothing can be mapped here: what takes no mapping comes first.
    let early = match map.clone().filter(|map| space::is_large(map)) {
        Some(map) => space::pages(first, ObjectId(0), &map).map(|pages| Some((map, pages)))?,
        None => None,
    };
    let mut injector = Injector::install_with(process, records, || map)?;
    let stranger = capture.strangers.for_thread(injector.process().status()?)?;
    let (of_first, of_others) = (Questions::new(stranger, true), Questions::new(stranger, false));
    let whole = ProcessQuestions::new(injector.areas());
    let shared = shared_space(first, spaces)?;
    let is_alone = injector.threads() == 1 && records.is_none() && !ahead.reads();
    let (inquiry, answer, seen) = if is_alone {
        let mut questions = of_first.program.clone();
        let of_whole = questions.append(&whole.program);
        injector.begin(&questions)?;
        // While it answers.
        let seen = match shared {
            Some(_) => None,
            None => areas_meanwhile(first, injector.areas())
                .map(|listed| Seen::of(first, listed, shape, capture))
                .transpose()?,
        };
        let ran = injector.finish(&questions)?;
        outlet.pass_all(tree, &capture.objects)?;
        let answer = ran.part(&of_whole);
        (Inquiry::of_one(&of_first, ran), answer, seen)
    } else {
        let inquiry = Inquiry::make(&mut injector, (&of_first, &of_others), records)?;
        let answer = injector.run(&[(0, whole.program.clone())])?.pop();
        (inquiry, answer.ok_or_else(|| malformed(subject(), "no answer"))?, None)
    };
    let answer = &answer;
    job_control::settled(injector.process())?;
    let rare = inquiry.of_all().map(|answers| answers.questions.rare.answer(answers.ran)).collect();
    question::keep(&mut injector, rare, whole.rare.answer(answer))?;
    shape.ask_about_children(&mut injector)?;
    let mut objects = Vec::new();
    for kind in KINDS {
        let Some(state) = kind.task_state() else { continue };
        for captured in state.capture(&mut injector, capture)? {
            let id = capture.fresh();
            capture.objects.push(Envelope {
                id,
                kind: kind.id(),
                version: kind.version(),
                refs: captured.refs,
                payload: captured.payload,
            });
            objects.push(id);
        }
    }
    let mut threads = Vec::with_capacity(injector.threads() + 1);
    if leader_dead {
        let (name, exit_status) = (stat.comm.clone(), stat.exit_code);
        threads.push(Thread { tid: Pid(pid), name, dead: true, exit_status, ..empty_thread() });
    }
    let mut credentials = BTreeMap::new();
    for (index, answers) in inquiry.of_all().enumerate() {
        threads.push(thread(&mut injector, index, &answers, tables, shape, (&mut *ahead, &mut credentials))?);
    }
    if tree.tasks.is_empty() {
        whole.clocks.answer(answer, &mut tree.host);
    }
    let actions = whole.actions(answer);
    let interval_timers = whole.timers(answer);
    let child_subreaper = answer.word(whole.subreaper) as u32 != 0;
    let brk = answer.result("brk", whole.brk).about(subject)?;
    let flag = |step| answer.result("prctl", step).unwrap_or(0);
    let (dumpable, huge_pages) = (flag(whole.dumpable), flag(whole.huge_pages));
    let (write_execute, merge) = (flag(whole.write_execute), flag(whole.merge));
    // Of a small process all that is left is looked at sooner than its thread stops again. One whose pages take long to look at would
    // think that we are dead.
    let before = injector.begin_removal()?;
    let mut leaving = Some(injector);
    if ahead.reads() {
        leaving.take().map_or(Ok(()), Injector::remove)?;
    }
    let mut layout = Layout { auxiliary_vector: procfs::auxiliary_vector(first).about(subject)?, ..Layout::default() };
    layout.addresses = [
        stat.start_code,
        stat.end_code,
        stat.start_data,
        stat.end_data,
        stat.start_brk,
        brk,
        stat.start_stack,
        stat.arg_start,
        stat.arg_end,
        stat.env_start,
        stat.env_end,
    ];
    let space = match shared {
        Some(space) => space,
        None => {
            let id = capture.fresh();
            // The flags of many areas take longer to read than all the rest.
            let (mut pages, huge) = match early {
                Some((of, (pages, huge))) if of == before => (SpacePages { space: id, ..pages }, huge),
                _ => space::pages(first, id, &before)?,
            };
            let Seen { areas, alone, executable } = match seen {
                Some(seen) => seen,
                None => Seen::of(first, ahead.areas(first, &before).about(subject)?, shape, capture)?,
            };
            pages.alone = alone;
            let parent = parent_space(&stat, tree).filter(|_| shape.lineage.is_fork(Pid(pid)));
            let inherited = match parent
                .and_then(|parent| Some((spaces.iter().find(|s| s.space == parent)?, tree.space(parent)?)))
            {
                Some((of_parent, space)) => space::inherited(&mut pages, of_parent, &space.inherited)?,
                None => PageSet::new(),
            };
            let huge = huge.intersection(&pages.pages);
            let guards = space::guards(first, &areas)?;
            spaces.push(pages);
            tree.spaces.push(AddressSpace {
                id,
                layout,
                executable,
                areas,
                parent: if inherited.is_empty() { None } else { parent },
                inherited,
                guards,
                huge,
                owed: PageSet::new(),
                core_filter: procfs::core_filter(first).about(subject)?,
                dumpable: dumpable as u8,
                huge_pages_disabled: huge_pages != 0,
                deny_write_execute: write_execute as u32,
                memory_merge: merge != 0,
            });
            id
        }
    };
    leaving.take().map_or(Ok(()), Injector::remove)?;
    Ok(Task {
        pid: Pid(pid),
        parent: Pid(stat.parent),
        parent_thread,
        group: Pid(stat.process_group),
        session: Pid(stat.session),
        exit_signal: stat.exit_signal,
        state: if group_stop != 0 { State::Stopped(group_stop) } else { State::Running },
        space: Some(space),
        actions,
        untold: shape.untold(pid),
        shares_actions: match shared.and_then(|space| spaces.iter().find(|pages| pages.space == space)) {
            Some(other) => kcmp::kcmp(other.pid, first, Object::Handlers).about(subject)? == Ordering::Equal,
            None => false,
        },
        pending: pending(first, true)?,
        limits: whole.limits(answer),
        out_of_memory_adjustment: procfs::oom_score_adj(pid).about(subject)?,
        child_subreaper,
        interval_timers,
        threads,
        objects,
    })
}

/// What of a space is seen from outside, but for its pages.
struct Seen {
    areas: Vec<Area>,
    /// Memory of which no page is in another process, too.
    alone: PageSet,
    executable: ObjectId,
}

impl Seen {
    fn of(tid: i32, mut listed: Vec<smaps::AreaFlags>, shape: &Shape, capture: &mut Capture) -> Result<Seen> {
        space::leave_out_tracking(&mut listed, &shape.tracked);
        let areas = space::areas(tid, &listed, capture)?;
        let executable = Look::link(tid, "exe", Purpose::Executable, 0)?;
        let executable = capture.file(&executable, false)?;
        Ok(Seen { areas, alone: space::alone(&listed), executable })
    }
}

/// The address space of the parent process, if the parent is in the tree.
fn parent_space(stat: &godwit_linux::proc::stat::Stat, tree: &Tree) -> Option<ObjectId> {
    tree.tasks.iter().find(|task| task.pid == Pid(stat.parent)).and_then(|task| task.space)
}

fn shared_space(tid: i32, spaces: &[SpacePages]) -> Result<Option<ObjectId>> {
    for other in spaces {
        if kcmp::kcmp(other.pid, tid, Object::Memory).about(|| Subject::Process(tid))? == Ordering::Equal {
            return Ok(Some(other.space));
        }
    }
    Ok(None)
}

fn pending(tid: i32, shared: bool) -> Result<Vec<Queued>> {
    let queued = ptrace::pending_signals(tid, shared).about(|| Subject::Process(tid))?;
    Ok(queued.into_iter().map(|information| Queued { information: information.to_vec() }).collect())
}

/// A thread's extended state without the zeros at its end: most of it, for most threads. `bytes`: how long the host says it is.
/// `known`: read before.
fn extended_state(tid: i32, known: Option<Vec<u8>>, bytes: u32) -> godwit_linux::errno::Result<Vec<u8>> {
    let mut state = known.map_or_else(|| ptrace::extended_state(tid), Ok)?;
    if state.len() == bytes as usize {
        let used = state.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        state.truncate(used);
        state.shrink_to_fit();
    }
    Ok(state)
}

/// Captures one thread. `credentials`: those of who was asked, by index.
fn thread(
    injector: &mut Injector<'_>,
    index: usize,
    answers: &Answers<'_>,
    tables: &Tables,
    shape: &Shape,
    (ahead, known): (&mut Ahead, &mut BTreeMap<usize, Credentials>),
) -> Result<Thread> {
    let Answers { questions, ran, asked, .. } = answers;
    let stopped = &injector.process().threads[index];
    let (pid, tid) = (stopped.pid(), stopped.tid());
    let known_state = injector.take_extended_state(index);
    let subject = || Subject::Thread(pid, tid);
    let credentials = match known.get(asked) {
        Some(credentials) => credentials.clone(),
        None => {
            let other = if index == 0 { None } else { Some(ahead.status(pid, tid).about(subject)?) };
            let status = match &other {
                Some(status) => status,
                None => injector.process().status()?,
            };
            let securebits = ran.result("prctl", questions.securebits).about(subject)? as u32;
            let credentials = credentials::capture(tid, status, securebits)?;
            known.entry(*asked).or_insert(credentials).clone()
        }
    };
    let rseq = injector.sequence(index);
    let schedule = questions.scheduling.answer(ran, tid).about(subject)?;
    let mut registers = injector.registers(index).copied().ok_or_else(|| malformed(subject(), "no registers"))?;
    let own = answers.own(&schedule, registers.rsp);
    let sleep = shape.sleeps.get(&tid).map(|sleep| (sleep, shape.frozen_at));
    let (wait, note) = interrupted::resume_point(&mut registers, sleep);
    let (files, filesystem) = match tables.get(&tid) {
        Some((files, filesystem)) => (Some(*files), Some(*filesystem)),
        None => (None, None),
    };
    Ok(Thread {
        tid: Pid(tid),
        name: own.name,
        registers: ptrace::words(&registers).to_vec(),
        extended_state: extended_state(tid, known_state, shape.extended_state_bytes).about(subject)?,
        signal_mask: injector.mask(index),
        pending: if own.has_signals { pending(tid, false)? } else { Vec::new() },
        alternate_stack: own.alternate_stack,
        clear_child_tid: own.clear_child_tid,
        robust_list: own.robust_list,
        restartable_sequence: (rseq.address, rseq.length, rseq.signature, rseq.flags),
        credentials,
        files,
        filesystem,
        parent_death_signal: ran.word(questions.death_signal) as i32,
        timer_slack_ns: ran.result("prctl", questions.slack).about(subject)?,
        personality: ran.result("personality", questions.personality).about(subject)? as u32,
        scheduling: schedule.scheduling,
        affinity: schedule.affinity,
        io_priority: schedule.io_priority,
        timestamp_counter_mode: ran.word(questions.timestamp) as i32,
        dead: false,
        machine_check: ran.result("prctl", questions.machine_check).ok().map(|value| value as i32),
        speculation: questions.speculation.map(|step| ran.result("prctl", step).unwrap_or(0) as i32),
        user_dispatch: injector.dispatch(index),
        exit_status: 0,
        wait,
        note,
    })
}
