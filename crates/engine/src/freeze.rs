//! Stopping every thread of a tree, and letting them go again as if nothing had happened.
//!
//! Threads are attached with SEIZE and stopped with INTERRUPT, again and again, until a pass over the tree finds no new
//! thread or child. When this process dies, the kernel lets them run on: that is the roll-back.
use crate::failure::{About, Result};
use crate::leftover::Leftover;
use crate::preparation::Preparation;
use crate::procfs;
use crate::surroundings::Surroundings;
use godwit_image::page_set::PageSet;
use godwit_image::{Code, Refusal, Subject};
use godwit_linux::proc::status::Status;
use godwit_linux::proc::{Error as ProcError, stat};
use godwit_linux::ptrace::{self, Event, Registers};
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use stopping::Freezing;

mod stopping;

/// A thread that is attached and stopped. Not `Clone`: letting go consumes it.
#[derive(Debug)]
pub struct Stopped {
    pid: i32,
    tid: i32,
    /// The job-control signal when the thread was found in a group stop, else 0.
    group_stop: i32,
    /// A stop signal that arrived while we worked, to be delivered at the end.
    deferred_stop: i32,
    /// Its registers, as long as it has not run since they were read.
    registers: Option<Registers>,
    /// Its extended state, likewise.
    extended_state: Option<Vec<u8>>,
    held: bool,
}

impl Stopped {
    pub(crate) fn new(pid: i32, tid: i32, group_stop: i32) -> Stopped {
        Stopped { pid, tid, group_stop, deferred_stop: 0, registers: None, extended_state: None, held: true }
    }

    /// Keeps registers that have just been read or set for whoever asks next.
    pub(crate) fn keep_registers(&mut self, registers: Registers) {
        self.registers = Some(registers);
    }

    /// The registers that were kept, once: whoever takes them may let it run.
    pub(crate) fn take_registers(&mut self) -> Option<Registers> {
        self.registers.take()
    }

    /// The same of its extended state, which programs of ours do not touch.
    pub(crate) fn take_extended_state(&mut self) -> Option<Vec<u8>> {
        self.extended_state.take()
    }

    /// It goes on in code of its own: nothing of what was read of it counts any more.
    pub(crate) fn goes_on(&mut self) {
        (self.registers, self.extended_state) = (None, None);
    }

    /// Thread-group number.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Thread number.
    pub fn tid(&self) -> i32 {
        self.tid
    }

    /// Subject for messages.
    pub fn subject(&self) -> Subject {
        Subject::Thread(self.pid, self.tid)
    }

    /// Waits for a stop by INTERRUPT, at birth, or at the end of a group stop; signals that come first are delivered
    /// (`deliver`) or kept for the end.
    pub(crate) fn wait_stop(&mut self, deliver: bool) -> Result<Event> {
        match self.wait_stop_for(deliver, None)? {
            Some(event) => Ok(event),
            None => Err(Refusal::new(Code::KERNEL_CALL, self.subject(), "no stop was reported")),
        }
    }

    /// Waits for the next stop of a thread that goes on from call to call; signals are kept for the end.
    pub(crate) fn wait_call_stop(&mut self) -> Result<Event> {
        match self.wait_report(false, None, ptrace::resume_to_syscall)? {
            Some(event) => Ok(event),
            None => Err(Refusal::new(Code::KERNEL_CALL, self.subject(), "no stop was reported")),
        }
    }

    /// As [`Stopped::wait_stop`] for so long at most; `None` when it has not stopped by then.
    pub(crate) fn wait_stop_for(&mut self, deliver: bool, patience: Option<Duration>) -> Result<Option<Event>> {
        self.wait_report(deliver, patience, |tid| ptrace::resume(tid, 0))
    }

    /// `onward` lets it go on when a signal was kept.
    fn wait_report(
        &mut self,
        deliver: bool,
        patience: Option<Duration>,
        onward: impl Fn(i32) -> godwit_linux::errno::Result<()>,
    ) -> Result<Option<Event>> {
        let begin = Instant::now();
        let mut polls = 0_u32;
        loop {
            let event = match patience {
                None => ptrace::wait_in_process(self.pid, self.tid).about(|| self.subject())?,
                Some(patience) => match ptrace::poll(self.tid).about(|| self.subject())? {
                    Some(event) => event,
                    None if begin.elapsed() > patience => return Ok(None),
                    None => {
                        polls += 1;
                        if polls > POLLS_MAX {
                            // It may need this very processor to get to its stop.
                            std::thread::sleep(STOP_PAUSE);
                        }
                        continue;
                    }
                },
            };
            match event {
                Event::Signal(signal) if deliver => ptrace::resume(self.tid, signal).about(|| self.subject())?,
                Event::Signal(signal) if signal == libc_signal::TRAP => return Ok(Some(Event::Signal(signal))),
                Event::Signal(signal) => {
                    self.deferred_stop = signal;
                    onward(self.tid).about(|| self.subject())?;
                }
                Event::Ended(_) => {
                    self.held = false;
                    return Err(Refusal::new(
                        Code::PROCESS_VANISHED,
                        self.subject(),
                        "it ended while it was being stopped",
                    ));
                }
                event => return Ok(Some(event)),
            }
        }
    }

    /// Keeps a stop signal that it has stopped with for the end.
    pub(crate) fn defer(&mut self, signal: i32) {
        self.deferred_stop = signal;
    }

    /// Whether a stop signal came while we worked, which takes effect when the thread is let go.
    pub(crate) fn is_about_to_stop(&self) -> bool {
        self.deferred_stop != 0
    }

    /// Lets the thread go on.
    ///
    /// # Errors
    /// The thread is dead.
    pub fn release(mut self) -> Result<()> {
        self.held = false;
        ptrace::detach(self.tid, self.deferred_stop).about(|| Subject::Thread(self.pid, self.tid))
    }

    /// Whether it only waits for a processor.
    fn is_runnable(&self) -> bool {
        stat::read(self.pid, self.tid).is_ok_and(|stat| stat.state == b'R')
    }

    /// Takes back a stop signal that was kept for the end: it was ours.
    pub(crate) fn forget_stop(&mut self) {
        if self.deferred_stop == libc_signal::STOP {
            self.deferred_stop = 0;
        }
    }

    /// Gives up a thread that is known to be dead or that the kernel has let go.
    pub(crate) fn forget(mut self) {
        self.held = false;
    }
}

pub(crate) mod libc_signal {
    //! Signal numbers of x86-64 that this crate names.
    pub(crate) const TRAP: i32 = 5;
    pub(crate) const KILL: i32 = 9;
    pub(crate) const CONTINUE: i32 = 18;
    pub(crate) const STOP: i32 = 19;
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if self.held {
            // Nothing can be done about a failure here: the thread is dead, or the kernel lets it go when we end.
            let _ = ptrace::detach(self.tid, self.deferred_stop);
        }
    }
}

/// One process of a frozen tree.
#[derive(Debug)]
pub struct FrozenProcess {
    /// Number.
    pub pid: i32,
    /// The thread of its parent whose child it is; 0 for the root.
    pub parent_thread: i32,
    /// /proc/PID/stat as it was when the process was found; the layout is that of a living thread.
    pub stat: stat::Stat,
    /// Living threads, the leader first unless it is dead; empty for a zombie.
    pub threads: Vec<Stopped>,
    /// The leader has ended, other threads go on.
    pub leader_dead: bool,
    /// /proc/PID/status of the first living thread, when it has been asked for.
    pub(crate) status: OnceLock<Status>,
}

impl FrozenProcess {
    /// Dead and not waited for.
    pub fn is_zombie(&self) -> bool {
        self.threads.is_empty()
    }

    /// The job-control signal that the process is stopped by, or 0.
    pub fn group_stop(&self) -> i32 {
        self.threads.first().map_or(0, |thread| thread.group_stop)
    }

    /// /proc/PID/status of the first living thread, read once: while it stands still no identity, filter or mask of it changes.
    ///
    /// # Errors
    /// It is dead.
    pub(crate) fn status(&self) -> Result<&Status> {
        if let Some(status) = self.status.get() {
            return Ok(status);
        }
        let first = self.threads.first().map_or(self.pid, Stopped::tid);
        let status = godwit_linux::proc::status::read(self.pid, first).about(|| Subject::Process(self.pid))?;
        Ok(self.status.get_or_init(|| status))
    }
}

/// A tree of which no thread runs. Dropping it lets all go on.
#[derive(Debug)]
pub struct FrozenTree {
    /// Root first, parents before children.
    pub processes: Vec<FrozenProcess>,
    /// Time from the first request to the last stop, ns.
    pub freeze_ns: u64,
    /// When the last thread had stopped.
    pub(crate) frozen_at: std::time::Instant,
    /// Reading it keeps a second thread busy.
    pub(crate) is_large: bool,
    /// What was looked at around it before the freeze.
    pub(crate) surroundings: Surroundings,
    /// Timed waits by thread, as they were shortly before.
    pub(crate) sleeps: std::collections::BTreeMap<i32, crate::sleep::Sleep>,
    /// What was prepared.
    pub(crate) preparation: Preparation,
    /// Sends the stops of a hold that has begun.
    pub(crate) holder: Option<std::thread::JoinHandle<Result<()>>>,
    /// What the tree leaves behind under names when it ends here; found by the capture.
    pub leftovers: Vec<Leftover>,
}

/// The numbers of a running tree, root first, parents before children.
///
/// # Errors
/// GW1001 when the root does not exist.
pub fn tree(root: i32) -> Result<Vec<i32>> {
    Ok(walk(root)?.into_iter().map(|found| found.pid).collect())
}

/// A process of a running tree.
struct Found {
    pid: i32,
    /// The thread of its parent whose child it is; 0 for the root.
    parent_thread: i32,
    /// Its threads; none when it is gone.
    threads: Vec<i32>,
}

/// The processes of a running tree.
fn walk(root: i32) -> Result<Vec<Found>> {
    let mut found = vec![Found { pid: root, parent_thread: 0, threads: Vec::new() }];
    let mut next = 0;
    while let Some(process) = found.get_mut(next) {
        next += 1;
        let pid = process.pid;
        let threads = match procfs::threads(pid) {
            Ok(threads) => threads,
            Err(ProcError::Gone) if pid != root => continue,
            Err(error) => return Err(Refusal::new(Code::NO_SUCH_PROCESS, Subject::Process(pid), error.to_string())),
        };
        process.threads.clone_from(&threads);
        for tid in threads {
            match procfs::children(pid, tid) {
                Ok(children) => {
                    for child in children.into_iter().filter(|child| *child > 1) {
                        // Adopted while we look, it may be seen twice.
                        if !found.iter().any(|known| known.pid == child) {
                            found.push(Found { pid: child, parent_thread: tid, threads: Vec::new() });
                        }
                    }
                }
                Err(ProcError::Gone) => {}
                Err(error) => return Err(Refusal::new(Code::KERNEL_CALL, Subject::Process(pid), error.to_string())),
            }
        }
    }
    Ok(found)
}

/// Seccomp filters do not apply to what a stopped thread will be asked to do. Not before it has stopped: its own calls are
/// not to escape them. Without CAP_SYS_ADMIN filters stay in force; that matters only to tasks that have some.
pub(crate) fn suspend_filters(tid: i32) {
    use ptrace::options::{SUSPEND_SECCOMP, SYSGOOD};
    let _ = ptrace::set_options(tid, SYSGOOD | SUSPEND_SECCOMP);
}

/// Looks before the processor is given away: stops of threads that run elsewhere take 6 to 30 µs.
pub(crate) const POLLS_MAX: u32 = 40;
/// How long it is given away for.
pub(crate) const STOP_PAUSE: Duration = Duration::from_micros(10);

/// How long a tree goes on each time, in milliseconds, when one of its threads could not be stopped, or in no good moment.
const PAUSES_MS: [u64; 3] = [1, 4, 16];

/// Stops a tree for which that was prepared.
///
/// # Errors
/// GW1001, GW1002, GW1006, GW1105; whatever was stopped before goes on.
pub fn freeze(root: i32, preparation: Preparation) -> Result<FrozenTree> {
    let mut pauses = PAUSES_MS.into_iter();
    loop {
        match (freeze_once(root), pauses.next()) {
            (Err(refusal), Some(pause)) if refusal.code == Code::PASSING_MOMENT => {
                std::thread::sleep(Duration::from_millis(pause));
            }
            (frozen, _) => {
                let mut frozen = frozen?;
                frozen.preparation = preparation;
                return Ok(frozen);
            }
        }
    }
}

fn freeze_once(root: i32) -> Result<FrozenTree> {
    let forks = procfs::forks();
    let running = walk(root)?;
    let threads = running.iter().flat_map(|found| found.threads.iter().map(|tid| (found.pid, *tid)));
    let (mut sleeps, waiting) = crate::sleep::look(threads);
    let threads: Vec<(i32, usize)> = running.iter().map(|found| (found.pid, found.threads.len())).collect();
    let is_large = crate::capture::ahead::pays(&threads);
    let surroundings = Surroundings::look()?;
    let begin = std::time::Instant::now();
    let mut freezing = Freezing::default();
    let stopped = freezing.stop_all(root, running, &waiting, forks);
    let frozen_at = std::time::Instant::now();
    // Each has gone to sleep once more, in its stop.
    let threads = freezing.known.values().flat_map(BTreeMap::values).map(|thread| (thread.pid, thread.tid));
    crate::sleep::settle(threads, 1, &mut sleeps);
    let order = stopped.inspect_err(|_| {
        freezing.known.values().for_each(|threads| crate::resumption::thaw(threads.values(), &sleeps));
    })?;
    let mut known = freezing.known;
    let mut processes = Vec::new();
    for Found { pid, parent_thread, .. } in order {
        let Some(held) = known.remove(&pid) else { continue };
        let mut stat = match stat::read_process_wide(pid) {
            Ok(stat) => stat,
            Err(ProcError::Gone) if pid != root => continue,
            Err(error) => return Err(Refusal::new(Code::NO_SUCH_PROCESS, Subject::Process(pid), error.to_string())),
        };
        let mut threads: Vec<Stopped> = held.into_values().collect();
        threads.sort_by_key(|thread| (thread.tid != pid, thread.tid));
        let leader_dead = threads.first().is_some_and(|thread| thread.tid != pid);
        if let Some(first) = threads.first().filter(|_| leader_dead) {
            // The kernel shows the layout of the address space only through who has it.
            let living = stat::read(pid, first.tid)
                .map_err(|error| Refusal::new(Code::PROCESS_VANISHED, Subject::Process(pid), error.to_string()))?;
            stat = stat::Stat {
                comm: stat.comm,
                state: stat.state,
                exit_signal: stat.exit_signal,
                exit_code: stat.exit_code,
                ..living
            };
        }
        processes.push(FrozenProcess { pid, parent_thread, stat, threads, leader_dead, status: OnceLock::new() });
    }
    if processes.first().is_none_or(FrozenProcess::is_zombie) {
        return Err(Refusal::new(Code::NO_SUCH_PROCESS, Subject::Process(root), "it has ended"));
    }
    let freeze_ns = frozen_at.duration_since(begin).as_nanos() as u64;
    let (preparation, leftovers) = (Preparation::default(), Vec::new());
    let holder = None;
    let tree =
        FrozenTree { holder, processes, freeze_ns, frozen_at, is_large, surroundings, sleeps, preparation, leftovers };
    tree.unknown_wait().map_or(Ok(()), |subject| {
        let cause = "it was stopped in a wait that it had just gone on with, and which one that is cannot be told";
        Err(Refusal::new(Code::PASSING_MOMENT, subject, cause).choice("try again"))
    })?;
    Ok(tree)
}

impl FrozenTree {
    /// Lets every thread go on, as dropping it does.
    pub fn release(self) {
        drop(self);
    }

    /// A thread whose wait nobody could continue elsewhere.
    fn unknown_wait(&self) -> Option<Subject> {
        let is_unknown = |thread: &&Stopped| {
            let sleep = self.sleeps.get(&thread.tid);
            thread.registers.is_some_and(|registers| crate::interrupted::is_unknown(&registers, sleep))
        };
        self.processes.iter().flat_map(|process| &process.threads).find(is_unknown).map(Stopped::subject)
    }

    /// Whether it is one thread alone, and little of it.
    pub(crate) fn is_one_thread(&self) -> bool {
        matches!(&self.processes[..], [only] if only.threads.len() == 1) && !self.is_large
    }

    /// Memory of a process that is still tracked by us, and by nobody else: what the kernel says of it because of that is not the process's.
    pub fn note_tracked(&mut self, pid: i32, registered: PageSet) {
        self.preparation.tracked.insert(pid, registered);
    }

    /// What of the memory of the process of this index looked full before the freeze, once.
    pub fn take_full(&mut self, index: usize) -> PageSet {
        let pid = self.processes.get(index).map(|process| process.pid);
        pid.and_then(|pid| self.preparation.full.remove(&pid)).unwrap_or_default()
    }

    /// Ends every process of the tree: it lives elsewhere now, and what it had under names as well.
    pub fn kill(mut self) {
        self.await_holder();
        let processes = std::mem::take(&mut self.processes);
        for process in &processes {
            if !process.is_zombie() {
                // Already dead is what we want.
                let _ = godwit_linux::signal::send_to_process(process.pid, libc_signal::KILL);
            }
        }
        // The kernel tells the end of a leader only when all its threads are waited for: leaders last.
        let threads = processes.into_iter().flat_map(|process| process.threads);
        let (leaders, others): (Vec<_>, Vec<_>) = threads.partition(|thread| thread.tid == thread.pid);
        for thread in others.into_iter().chain(leaders) {
            await_end(thread.tid);
            thread.forget();
        }
        for leftover in std::mem::take(&mut self.leftovers) {
            leftover.remove();
        }
    }
}

impl Drop for FrozenTree {
    fn drop(&mut self) {
        self.await_holder();
        for process in &self.processes {
            crate::resumption::thaw(process.threads.iter(), &self.sleeps);
        }
    }
}

/// Waits until a traced thread that is being killed has ended.
pub(crate) fn await_end(tid: i32) {
    while !matches!(ptrace::wait(tid), Ok(Event::Ended(_)) | Err(_)) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_linux::proc::syscall::{self, Activity};
    use std::process::{Child, Command, Stdio};

    const VICTIM: &str = "GODWIT_VICTIM";

    /// Ended however the test ends.
    struct Victim(Child);

    impl Drop for Victim {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// Waits for a moment that does not come. Does nothing unless it is asked to be the victim.
    #[test]
    fn victim() {
        while std::env::var_os(VICTIM).is_some() {
            std::thread::park_timeout(Duration::from_secs(1000));
        }
    }

    fn start() -> Victim {
        let mut victim = Command::new(std::env::current_exe().unwrap());
        let victim = victim.args(["--exact", "freeze::tests::victim"]).env(VICTIM, "1");
        Victim(victim.stdout(Stdio::null()).spawn().unwrap())
    }

    /// With a wait for the first thread alone this test would not end.
    #[test]
    fn the_end_of_a_killed_process_is_seen_though_its_threads_have_not_been_waited_for() {
        let mut victim = start();
        let pid = victim.0.id() as i32;
        let begin = Instant::now();
        let mut frozen = loop {
            let frozen = freeze_once(pid).unwrap();
            if frozen.processes[0].threads.len() > 1 {
                break frozen;
            }
            frozen.release();
            assert!(begin.elapsed() < Duration::from_secs(20), "the harness has no threads");
        };
        victim.0.kill().unwrap();
        let threads = &mut frozen.processes[0].threads;
        assert_eq!(threads[0].tid(), pid);
        let refusal = threads[0].wait_stop(false).unwrap_err();
        assert_eq!((refusal.code, refusal.subject), (Code::PROCESS_VANISHED, Subject::Thread(pid, pid)));
        let tids: Vec<i32> = threads.iter().map(Stopped::tid).collect();
        drop(frozen);
        tids.into_iter().rev().for_each(await_end);
    }

    #[test]
    fn a_wait_that_the_look_did_not_see_is_not_taken_for_one_that_can_go_on_elsewhere() {
        const RESTART_SYSCALL: u32 = 219;
        let victim = start();
        let pid = victim.0.id() as i32;
        // Whoever was stopped in such a wait goes on with it by this call.
        let continues = || {
            let threads = procfs::threads(pid).unwrap_or_default();
            let is_continued =
                |tid: &i32| matches!(syscall::read(pid, *tid), Ok(Activity::Call { number: RESTART_SYSCALL, .. }));
            threads.into_iter().find(is_continued)
        };
        let begin = Instant::now();
        let tid = loop {
            freeze_once(pid).unwrap().release();
            std::thread::sleep(Duration::from_millis(20));
            if let Some(tid) = continues() {
                break tid;
            }
            assert!(begin.elapsed() < Duration::from_secs(20));
        };
        let mut frozen = freeze(pid, Preparation::default()).unwrap();
        let known = frozen.unknown_wait();
        frozen.sleeps.clear();
        let unknown = frozen.unknown_wait();
        drop(frozen);
        assert_eq!((known, unknown), (None, Some(Subject::Thread(pid, tid))));
    }
}
