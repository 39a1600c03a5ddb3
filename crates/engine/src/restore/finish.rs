//! From a tree of skeletons with memory to a tree that only has to be let go.
use super::thread::RLIMIT_SIGPENDING;
use super::{Restorer, missing};
use crate::failure::{About, Result, malformed};
use crate::interrupted;
use crate::resource::{self, Stage};
use crate::restore::Bind;
use crate::usual_schedule::UsualSchedule;
use crate::{resumption, sleep};
use godwit_image::credentials::Credentials;
use godwit_image::task::{State, Task, Thread, Wait};
use godwit_image::{Code, ObjectId, Pid, Refusal, Subject};
use godwit_linux::memory::{ForeignAddress, ForeignMemory};
use godwit_linux::ptrace::Registers;
use godwit_linux::{limits, ptrace, scheduling, stub};

const SYS_MUNMAP: u64 = 11;
const NANOSECONDS: u64 = 1_000_000_000;
const EINVAL: i32 = 22;
const RLIMIT_COUNT: usize = 16;
/// sched_setattr(2) does not set its nice value.
const SCHED_IDLE: u32 = 5;

impl Restorer {
    pub(super) fn finish(&mut self) -> Result<()> {
        let tasks = self.living();
        for task in &tasks {
            if !self.threads_can_wait(task) {
                self.create_threads(task)?;
            }
        }
        self.enter_groups()?;
        self.make_late()?;
        self.bind_objects(&[Stage::AsItComes, Stage::Early, Stage::Late])?;
        self.place_descriptors()?;
        for space in self.built.clone() {
            self.finish_space(space)?;
        }
        self.restore_task_state(&tasks)?;
        self.end_zombies()?;
        self.settle()?;
        self.check_parents()?;
        self.end_dead_leaders(&tasks)?;
        self.continue_processes(&tasks)?;
        let own = self.own_credentials.take().map_or_else(own_credentials, Ok)?;
        // Stopped processes one by one, children before parents; see `stop`.
        let (stopped, running): (Vec<Task>, Vec<Task>) =
            tasks.into_iter().partition(|task| matches!(task.state, State::Stopped(_)));
        for task in stopped.iter().rev() {
            self.complete_tasks(std::slice::from_ref(task), &own)?;
            if let State::Stopped(signal) = task.state {
                self.stop_process(task, signal)?;
            }
            self.set_processor_states(task)?;
        }
        self.complete_tasks(&running, &own)?;
        for task in &running {
            self.set_processor_states(task)?;
        }
        Ok(())
    }

    /// Everything of tasks that is done from inside: afterwards nothing of ours is left in them.
    fn complete_tasks(&mut self, tasks: &[Task], own: &Credentials) -> Result<()> {
        let (mut programs, mut scheduled) = (Vec::new(), Vec::with_capacity(tasks.len()));
        for task in tasks {
            let program = self.process_program(task);
            let first = first_thread(task)?;
            self.run(first.tid, &program)?;
            if is_handed_on(first) {
                set_scheduling(task.pid.0, first, &self.schedule)?;
            }
            let done = self.bear_threads(task, own)?;
            for thread in task.threads.iter().filter(|thread| !thread.dead && !done.contains_key(&thread.tid)) {
                programs.push((thread.tid, self.thread_program(task, thread, own)));
            }
            // What is scheduled as its maker is so from its birth.
            let is_so = |thread: &Thread| {
                if let Some(crew) = self.crew.as_ref().filter(|crew| crew.threads.contains(&thread.tid)) {
                    return crew.is_scheduled(thread, &self.schedule);
                }
                let alike = (thread.scheduling, thread.io_priority) == (first.scheduling, first.io_priority);
                alike && thread.affinity == first.affinity && done.contains_key(&thread.tid) && is_handed_on(first)
            };
            let others = task.threads.iter().filter(|thread| !thread.dead && !is_so(thread));
            scheduled.push(others.collect::<Vec<&Thread>>());
        }
        // From outside, before privileges go down inside.
        for (task, threads) in tasks.iter().zip(scheduled) {
            self.set_from_outside(task)?;
            for thread in threads {
                set_scheduling(task.pid.0, thread, &self.schedule)?;
            }
        }
        for task in tasks {
            for thread in task.threads.iter().filter(|thread| !thread.dead) {
                self.queue_many(task, thread)?;
            }
        }
        // A thread that nobody has to wait for does the last things, too.
        if let ([task], [(_, program)]) = (tasks, programs.as_mut_slice())
            && task.threads.iter().filter(|thread| !thread.dead).count() == 1
        {
            program.append(&self.last_program(task));
            self.run_all(&programs)?;
        } else {
            self.run_all(&programs)?;
            let mut last = Vec::new();
            for task in tasks {
                let program = self.last_program(task);
                if !program.is_empty() {
                    last.push((first_thread(task)?.tid, program));
                }
            }
            self.run_all(&last)?;
        }
        for task in tasks {
            for thread in task.threads.iter().filter(|thread| !thread.dead) {
                self.begin_wait(task, thread)?;
            }
        }
        for task in tasks {
            self.incomplete.remove(&task.pid);
            self.remove_stub(task)?;
        }
        Ok(())
    }

    /// Has a timed wait go on with the time that is left. Behind every program, since a program may make the kernel forget
    /// it.
    fn begin_wait(&mut self, task: &Task, thread: &Thread) -> Result<()> {
        let Some(wait) = thread.wait else { return Ok(()) };
        if !resumption::knows(wait.call) {
            let cause = format!("call {} is no timed wait", wait.call);
            return Err(malformed(Subject::Thread(task.pid.0, thread.tid.0), cause));
        }
        let areas = task.space.and_then(|id| self.tree.space(id)).map(|space| space.areas.iter());
        if let Some(vdso) = areas.and_then(|mut areas| areas.find(|area| area.name == "[vdso]")) {
            let registers = thread_registers(task.pid, thread)?;
            let place = resumption::place(vdso.end);
            let waits = (wait.call, wait.remaining_ns);
            if let Some(registers) = resumption::prepare(thread.tid.0, &registers, waits, place)? {
                self.resumed.insert(thread.tid, registers);
                return Ok(());
            }
        }
        if sleep::REBUILT.contains(&wait.call) { self.cut_wait_short(task, thread, wait) } else { Ok(()) }
    }

    /// Makes a timed wait again and cuts it short, so that the kernel continues it with the time that is left.
    fn cut_wait_short(&mut self, task: &Task, thread: &Thread, wait: Wait) -> Result<()> {
        /// Where the time lies in the thread's slot: behind the control block.
        const TIME: usize = 512;
        let slot = self.slot(thread.tid)?;
        let mut raw = Vec::with_capacity(16);
        for part in [wait.remaining_ns / NANOSECONDS, wait.remaining_ns % NANOSECONDS] {
            raw.extend_from_slice(&part.to_le_bytes());
        }
        self.arena.write(slot.offset + TIME, &raw);
        let block = self.arena.base() + slot.offset as u64;
        let time = block + TIME as u64;
        let r = thread_registers(task.pid, thread)?;
        let arguments = match wait.call {
            sleep::NANOSLEEP => [time, r.rsi, 0, 0, 0, 0],
            sleep::CLOCK_NANOSLEEP => [r.rdi, r.rsi, time, r.r10, 0, 0],
            sleep::POLL => [r.rdi, r.rsi, wait.remaining_ns.div_ceil(1_000_000).min(i32::MAX as u64), 0, 0, 0],
            sleep::FUTEX => [r.rdi, r.rsi, r.rdx, time, r.r8, r.r9],
            _ => return Ok(()),
        };
        let code = self.arena.base() + stub::single_offset();
        let puppet = self.puppet_mut(thread.tid)?;
        if puppet.cut_short(code, block, u64::from(wait.call), arguments)? {
            self.waits.insert(thread.tid);
        }
        Ok(())
    }

    fn set_processor_states(&self, task: &Task) -> Result<()> {
        for thread in task.threads.iter().filter(|thread| !thread.dead) {
            self.set_processor_state(task, thread)?;
        }
        Ok(())
    }

    fn restore_task_state(&mut self, tasks: &[Task]) -> Result<()> {
        for task in tasks {
            for id in &task.objects {
                let envelope = self.tree.object(*id).cloned().ok_or_else(|| missing(*id))?;
                let kind = resource::kind_of(&envelope)?;
                let state = kind
                    .task_state()
                    .ok_or_else(|| malformed(Subject::Object(format!("object {id}")), "it is not a task's state"))?;
                state.restore(&envelope, first_thread(task)?.tid, &mut Bind { restorer: self, object: *id })?;
            }
        }
        Ok(())
    }

    /// Limits and the like: settable on another process.
    fn set_from_outside(&self, task: &Task) -> Result<()> {
        let pid = task.pid.0;
        for (resource, (soft, hard)) in task.limits.iter().take(RLIMIT_COUNT).enumerate() {
            if resource == RLIMIT_SIGPENDING {
                continue;
            }
            let resource = resource as u32;
            let now = limits::get(pid, resource).about(|| Subject::Process(pid))?;
            if now != (*soft, *hard) {
                limits::set(pid, resource, *soft, *hard).map_err(|error| {
                    let cause = format!("limit {resource} was {soft}/{hard} and cannot be set here: {error}");
                    Refusal::new(Code::DESTINATION_LACKS, Subject::Process(pid), cause)
                })?;
            }
        }
        let now = crate::procfs::oom_score_adj(pid).about(|| Subject::Process(pid))?;
        if now != task.out_of_memory_adjustment {
            let path = format!("/proc/{pid}/oom_score_adj");
            std::fs::write(&path, task.out_of_memory_adjustment.to_string()).about(|| Subject::Path(path))?;
        }
        let filter = task.space.and_then(|id| self.tree.space(id)).and_then(|space| space.core_filter);
        if let Some(filter) = filter {
            let path = format!("/proc/{}/coredump_filter", first_thread(task)?.tid);
            std::fs::write(&path, format!("{filter:#x}")).about(|| Subject::Path(path))?;
        }
        Ok(())
    }

    /// Unmaps the arena from a task's space when nobody needs it there any more: the last thing of ours.
    fn remove_stub(&mut self, task: &Task) -> Result<()> {
        let Some(space) = task.space else { return Ok(()) };
        let needed =
            self.tree.tasks.iter().any(|other| other.space == Some(space) && self.incomplete.contains(&other.pid));
        if needed || !self.cleaned.insert(space) {
            return Ok(());
        }
        let first = first_thread(task)?.tid;
        let at = self.syscall_instruction(task, space)?;
        let (base, length) = (self.arena.base(), self.arena.length() as u64);
        let puppet = self.puppets.get_mut(&first).ok_or_else(|| missing(space))?;
        puppet.single(at, "munmap", SYS_MUNMAP, [base, length, 0, 0, 0, 0]).map(drop)
    }

    /// Where the new space itself has a `syscall` instruction: the vDSO first, then any executable area.
    pub(super) fn syscall_instruction(&self, task: &Task, space: ObjectId) -> Result<u64> {
        let pid = task.pid.0;
        let memory = ForeignMemory::open(first_thread(task)?.tid.0).about(|| Subject::Process(pid))?;
        let space = self.tree.space(space).ok_or_else(|| missing(space))?;
        let mut areas: Vec<_> = space.areas.iter().filter(|area| area.protection & 4 != 0).collect();
        areas.sort_by_key(|area| area.name != "[vdso]");
        let mut buffer = vec![0_u8; 64 << 10];
        for area in areas {
            let mut start = area.start;
            while start < area.end {
                let length = (area.end - start).min(buffer.len() as u64) as usize;
                let part = &mut buffer[..length];
                if memory.read(ForeignAddress(start), part).is_err() {
                    break;
                }
                if let Some(index) = part.windows(2).position(|pair| pair == [0x0f, 0x05]) {
                    return Ok(start + index as u64);
                }
                start += length as u64;
            }
        }
        Err(Refusal::new(
            Code::RESTORE_FAILED,
            Subject::Process(pid),
            "its memory holds no system-call instruction to end with",
        ))
    }

    pub(super) fn set_processor_state(&self, task: &Task, thread: &Thread) -> Result<()> {
        let subject = || Subject::Thread(task.pid.0, thread.tid.0);
        let tid = thread.tid.0;
        let Some(puppet) = self.puppets.get(&thread.tid) else {
            return Err(Refusal::new(Code::RESTORE_FAILED, subject(), "it was not created"));
        };
        let bytes = self.tree.host.extended_state_bytes as usize;
        ptrace::set_extended_state(tid, &thread.extended_state, bytes).map_err(|error| {
            Refusal::new(
                Code::DESTINATION_LACKS,
                subject(),
                format!("this processor cannot hold its extended state: {error}"),
            )
        })?;
        if let Some(dispatch) = &thread.user_dispatch {
            ptrace::set_user_dispatch(tid, dispatch).about(subject)?;
        }
        let mut registers = thread_registers(task.pid, thread)?;
        if let Some(resumed) = self.resumed.get(&thread.tid) {
            registers = *resumed;
        } else if let Some(wait) = thread.wait.filter(|_| !self.waits.contains(&thread.tid)) {
            // It did not have to wait any more, or has to begin anew.
            interrupted::again(&mut registers, u64::from(wait.call));
        }
        ptrace::set_registers(tid, &registers).about(subject)?;
        puppet.set_mask(thread.signal_mask).about(subject)
    }
}

/// Whether the threads that a thread makes are scheduled as it is itself (sched(7)): not where it says that they are not to be, and
/// a real-time maker would keep us from our work.
fn is_handed_on(thread: &Thread) -> bool {
    const SCHED_OTHER: u32 = 0;
    (thread.scheduling.policy, thread.scheduling.flags) == (SCHED_OTHER, 0)
}

fn set_scheduling(pid: i32, thread: &Thread, usual: &UsualSchedule) -> Result<()> {
    let tid = thread.tid.0;
    let subject = || Subject::Thread(pid, tid);
    let wanted = thread.scheduling;
    for call in usual.calls(&scheduling::get(tid).about(subject)?, wanted) {
        scheduling::set(tid, &call).about(subject)?;
    }
    if wanted.policy == SCHED_IDLE && scheduling::nice(tid).about(subject)? != wanted.nice {
        scheduling::set_nice(tid, wanted.nice).about(subject)?;
    }
    let affinity = scheduling::affinity(tid).about(subject)?;
    let wanted = usual.affinity(thread);
    if affinity != wanted {
        match scheduling::set_affinity(tid, wanted) {
            // None of its processors exists here: it may run on any. Its owner was told beforehand (`Ground::changes`).
            Err(error) if error.number == EINVAL => scheduling::set_affinity(tid, usual.processors()).about(subject)?,
            other => other.about(subject)?,
        }
    }
    if scheduling::io_priority(tid).about(subject)? != thread.io_priority {
        scheduling::set_io_priority(tid, thread.io_priority).about(subject)?;
    }
    Ok(())
}

pub(super) fn thread_registers(pid: Pid, thread: &Thread) -> Result<Registers> {
    let subject = Subject::Thread(pid.0, thread.tid.0);
    let words = thread.registers.as_slice().try_into().map_err(|_| malformed(subject, "it has not 27 registers"))?;
    Ok(ptrace::from_words(words))
}

fn first_thread(task: &Task) -> Result<&Thread> {
    task.threads
        .iter()
        .find(|thread| !thread.dead)
        .ok_or_else(|| malformed(Subject::Process(task.pid.0), "it has no living thread"))
}

/// What every skeleton starts with: what it has of us.
pub(super) fn own_credentials() -> Result<Credentials> {
    let own = std::process::id() as i32;
    let status = godwit_linux::proc::status::read(own, own).about(|| Subject::Host)?;
    Ok(Credentials {
        user: status.uid,
        group: status.gid,
        groups: status.groups,
        inheritable: status.capabilities_inheritable,
        permitted: status.capabilities_permitted,
        effective: status.capabilities_effective,
        bounding: status.capabilities_bounding,
        ambient: status.capabilities_ambient,
        ..Credentials::default()
    })
}
