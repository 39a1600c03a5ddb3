//! The hold: a stop that outlives this process, and how it is taken back without a trace.
//!
//! A source gives every thread a SIGSTOP of its own. One for a whole process would do (`restore::hold` does so), but where somebody
//! else sends one meanwhile the two would be one, and be taken back together. A process with many threads gets one all the same:
//! to send each one the kernel walks all threads, which takes longer than the rest of the move when there are thousands.
use crate::failure::{About, Result};
use crate::freeze::{FrozenProcess, FrozenTree, POLLS_MAX, STOP_PAUSE, Stopped, libc_signal};
use godwit_image::{Code, Refusal, Subject};
use godwit_linux::ptrace::{self, Event};
use std::time::{Duration, Instant};

/// Threads from which on a process gets one stop.
const MANY: usize = 128;

/// Whom a SIGSTOP is for.
#[derive(Clone, Copy, Debug)]
enum Whom {
    Process(i32),
    Thread(i32, i32),
}

fn send_stops(whom: &[Whom]) -> Result<()> {
    whom.iter().try_for_each(|whom| match *whom {
        Whom::Process(pid) => {
            godwit_linux::signal::send_to_process(pid, libc_signal::STOP).about(|| Subject::Process(pid))
        }
        Whom::Thread(pid, tid) => {
            godwit_linux::signal::send_to_thread(pid, tid, libc_signal::STOP).about(|| Subject::Thread(pid, tid))
        }
    })
}

impl FrozenTree {
    /// What job control has stopped stays so anyway.
    fn to_be_held(&self) -> Vec<Whom> {
        let running = self.processes.iter().filter(|process| process.group_stop() == 0);
        let each = |process: &FrozenProcess| -> Vec<Whom> {
            match process.threads.len() {
                MANY.. => vec![Whom::Process(process.pid)],
                _ => process.threads.iter().map(|thread| Whom::Thread(thread.pid(), thread.tid())).collect(),
            }
        };
        running.flat_map(each).collect()
    }

    /// Makes the stop outlive this process: every thread finds a pending SIGSTOP the moment that nobody traces it, before it runs
    /// one instruction.
    ///
    /// # Errors
    /// A thread is dead.
    pub fn hold(&mut self) -> Result<()> {
        match self.await_holder() {
            Some(held) => held,
            None => send_stops(&self.to_be_held()),
        }
    }

    /// Begins to hold while something else is done. No program may run in its threads from here on. [`FrozenTree::hold`] waits for
    /// the end.
    pub fn begin_hold(&mut self) {
        let threads = self.to_be_held();
        let builder = std::thread::Builder::new().name("hold".to_owned());
        // Where there can be no thread it is done when it is waited for.
        self.holder = builder.spawn(move || send_stops(&threads)).ok();
    }

    /// Waits for a hold that has begun; its numbers must not become those of others meanwhile.
    pub(crate) fn await_holder(&mut self) -> Option<Result<()>> {
        let holder = self.holder.take()?;
        Some(holder.join().unwrap_or_else(|_| send_stops(&self.to_be_held())))
    }

    /// Takes back [`FrozenTree::hold`] and lets every thread go on.
    ///
    /// # Errors
    /// A thread is dead.
    pub fn unhold(mut self) -> Result<()> {
        // Who had died before its stop was sent is found out below.
        drop(self.await_holder());
        let running = self.processes.iter_mut().filter(|process| process.group_stop() == 0);
        let takers = running.flat_map(|process| {
            let takers = if process.threads.len() >= MANY { 1 } else { process.threads.len() };
            process.threads.iter_mut().take(takers)
        });
        swallow_stops(takers.collect())?;
        self.release();
        Ok(())
    }
}

/// Takes the pending SIGSTOP of every one of these stopped threads without letting it act. Each comes to rest where the
/// signal would be delivered, before it runs one instruction; let go from there, it never sees it. A SIGSTOP of a whole
/// process is taken by any one of its threads.
///
/// # Errors
/// A thread is dead.
pub fn swallow_stops(threads: Vec<&mut Stopped>) -> Result<()> {
    // All are on their way before the first is waited for.
    for thread in &threads {
        ptrace::resume(thread.tid(), 0).about(|| thread.subject())?;
    }
    threads.into_iter().try_for_each(await_stop_signal)
}

/// How long a pending SIGSTOP may take to come, on a busy machine, before we look whether it is still there.
const SWALLOW_PATIENCE: Duration = Duration::from_millis(100);

fn await_stop_signal(thread: &mut Stopped) -> Result<()> {
    loop {
        let event = match poll_for(thread, SWALLOW_PATIENCE)? {
            Some(event) => event,
            None => {
                ptrace::interrupt(thread.tid()).about(|| thread.subject())?;
                match ptrace::wait_in_process(thread.pid(), thread.tid()).about(|| thread.subject())? {
                    // Somebody's SIGCONT has taken it away, and the thread ran, as it was to.
                    Event::Stop(_) if !is_to_stop(thread)? => return Ok(()),
                    event => event,
                }
            }
        };
        match event {
            Event::Signal(libc_signal::STOP) => return Ok(()),
            Event::Signal(signal) => ptrace::resume(thread.tid(), signal).about(|| thread.subject())?,
            Event::Ended(_) => {
                return Err(Refusal::new(Code::PROCESS_VANISHED, thread.subject(), "it ended while it was stopped"));
            }
            Event::Stop(_) | Event::Syscall | Event::Other(_) => {
                ptrace::resume(thread.tid(), 0).about(|| thread.subject())?;
            }
        }
    }
}

/// The next report of a thread, if there is one in time.
fn poll_for(thread: &Stopped, patience: Duration) -> Result<Option<Event>> {
    let begin = Instant::now();
    let mut polls = 0_u32;
    loop {
        if let Some(event) = ptrace::poll(thread.tid()).about(|| thread.subject())? {
            return Ok(Some(event));
        }
        polls += 1;
        if polls > POLLS_MAX {
            if begin.elapsed() > patience {
                return Ok(None);
            }
            std::thread::sleep(STOP_PAUSE);
        }
    }
}

/// Whether a SIGSTOP waits for a stopped thread, or for its process.
fn is_to_stop(thread: &Stopped) -> Result<bool> {
    for shared in [false, true] {
        let pending = ptrace::pending_signals(thread.tid(), shared).about(|| thread.subject())?;
        // si_signo comes first.
        if pending
            .iter()
            .any(|signal| signal.first_chunk().is_some_and(|raw| i32::from_le_bytes(*raw) == libc_signal::STOP))
        {
            return Ok(true);
        }
    }
    Ok(false)
}
