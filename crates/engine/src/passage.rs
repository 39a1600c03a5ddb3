//! A thread on its way through the stub: it is set going, awaited awake, and taken back with everything that it had.
use crate::failure::{About, Result};
use crate::freeze::Stopped;
use godwit_image::{Code, Refusal};
use godwit_linux::ptrace::{self, Event, Registers, RestartableSequence};
use godwit_linux::stub::{self, Healing};
use std::time::{Duration, Instant};

/// How long a program may take before it counts as lost. Programs take microseconds.
pub(crate) const PROGRAM_TIME_MAX: Duration = Duration::from_secs(2);

/// Looks at a program that runs, each some 0.5 µs, before the processor is left to others.
const YIELDS_MAX: u32 = 400;
/// How long it is left to them each time.
const PROGRAM_PAUSE: Duration = Duration::from_micros(20);

/// Behind its program a thread waits longer than this before it goes on by itself.
pub(crate) const WAIT_MIN: Duration = Duration::from_secs(1);

/// A thread's state while its program runs.
#[derive(Debug)]
pub(crate) struct Saved {
    pub(crate) registers: Registers,
    pub(crate) mask: u64,
    pub(crate) healing: Healing,
    pub(crate) sequence: RestartableSequence,
    pub(crate) dispatch: Option<[u64; 4]>,
}

/// Lets a thread go on in the stub.
pub(crate) fn set_going(thread: &Stopped, registers: &Registers) -> Result<()> {
    ptrace::set_signal_mask(thread.tid(), u64::MAX)
        .and_then(|()| ptrace::set_registers(thread.tid(), registers))
        .and_then(|()| ptrace::resume(thread.tid(), 0))
        .about(|| thread.subject())
}

/// Takes a thread back that was set going at `begin`, waits in the stub, whose code is at `code`, and was interrupted.
pub(crate) fn take_back(thread: &mut Stopped, code: u64, saved: &Saved, begin: Instant) -> Result<()> {
    thread.wait_stop(false)?;
    let tid = thread.tid();
    // It waits for longer than that, unless a signal wakes it.
    if begin.elapsed() > WAIT_MIN || thread.is_about_to_stop() {
        let at = ptrace::registers(tid).about(|| thread.subject())?;
        if !(code..code + stub::code().len() as u64).contains(&at.rip) {
            let cause = "it went on by itself because its tracer was too slow";
            return Err(Refusal::new(Code::KERNEL_CALL, thread.subject(), cause));
        }
    }
    ptrace::set_registers(tid, &saved.registers)
        .and_then(|()| ptrace::set_signal_mask(tid, saved.mask))
        .about(|| thread.subject())
}

/// Waits, awake at first, until what a thread does in the stub is done; lets it go on where it stops on its way.
pub(crate) fn wait_done(done: impl Fn() -> bool, thread: &mut Stopped, deadline: Instant) -> Result<()> {
    let mut spins = 0_u32;
    while !done() {
        spins += 1;
        if spins < 200 {
            std::hint::spin_loop();
            continue;
        }
        if spins < YIELDS_MAX {
            std::thread::yield_now();
        } else {
            // It may wait behind others for another processor than ours, and nobody fetches it to one that is never idle.
            std::thread::sleep(PROGRAM_PAUSE);
        }
        if spins.is_multiple_of(16) || spins >= YIELDS_MAX {
            attend(thread)?;
        }
        if Instant::now() > deadline {
            return Err(Refusal::new(Code::KERNEL_CALL, thread.subject(), "a program did not end in time"));
        }
    }
    Ok(())
}

/// Lets a thread go on that has stopped on its way through a program.
fn attend(thread: &mut Stopped) -> Result<()> {
    match ptrace::poll(thread.tid()).about(|| thread.subject())? {
        None => Ok(()),
        // A thread in a group stop reports it once more at its first resume, before it runs.
        Some(event @ (Event::Stop(_) | Event::Signal(_) | Event::Syscall | Event::Other(_))) => {
            if let Event::Signal(signal) = event {
                thread.defer(signal);
            }
            ptrace::resume(thread.tid(), 0).about(|| thread.subject())
        }
        Some(Event::Ended(_)) => {
            Err(Refusal::new(Code::PROCESS_VANISHED, thread.subject(), "it ended while it was stopped"))
        }
    }
}
