//! One stopped thread of a skeleton: ours to lose until the tree is held.
use crate::failure::{About, Result};
use crate::freeze::{Stopped, await_end, libc_signal, swallow_stop};
use crate::injector::Ran;
use godwit_image::{Code, Pid, Refusal, Subject};
use godwit_linux::arena::{Arena, Slot};
use godwit_linux::program::Program;
use godwit_linux::ptrace::{self, Event, Registers, options};
use godwit_linux::stub::{Ending, Healing};

/// A thread of a skeleton, attached and stopped.
#[derive(Debug)]
pub(super) struct Puppet {
    stopped: Option<Stopped>,
    pid: i32,
    tid: i32,
    template: Registers,
}

/// All signals but SIGTRAP, by which programs end.
const MASK: u64 = !(1 << (libc_signal::TRAP - 1));

impl Puppet {
    /// Attaches to a newborn that waits in the stub or in pause(2).
    pub(super) fn attach(pid: Pid, tid: Pid) -> Result<Puppet> {
        let subject = || Subject::Thread(pid.0, tid.0);
        let wanted = options::SYSGOOD | options::EXIT_KILL | options::SUSPEND_SECCOMP;
        ptrace::seize(tid.0, wanted)
            .or_else(|_| ptrace::seize(tid.0, options::SYSGOOD | options::EXIT_KILL))
            .about(subject)?;
        ptrace::interrupt(tid.0).about(subject)?;
        let mut stopped = Stopped::new(pid.0, tid.0, 0);
        stopped.wait_stop(false)?;
        ptrace::set_signal_mask(tid.0, MASK).about(subject)?;
        let template = ptrace::registers(tid.0).about(subject)?;
        Ok(Puppet { stopped: Some(stopped), pid: pid.0, tid: tid.0, template })
    }

    pub(super) fn subject(&self) -> Subject {
        Subject::Thread(self.pid, self.tid)
    }

    pub(super) fn is_dead(&self) -> bool {
        self.stopped.is_none()
    }

    /// Lays a program and starts it.
    pub(super) fn start(&self, arena: &Arena, slot: Slot, program: &Program) -> Result<()> {
        arena.lay(slot, program, arena.base(), Ending::Trap, &Healing::default()).about(|| self.subject())?;
        let mut registers = self.template;
        registers.rip = arena.base();
        registers.rbx = arena.base() + slot.offset as u64;
        registers.orig_rax = u64::MAX;
        ptrace::set_registers(self.tid, &registers).and_then(|()| ptrace::resume(self.tid, 0)).about(|| self.subject())
    }

    /// Waits for a started program and checks it.
    pub(super) fn finish(&mut self, arena: &Arena, slot: Slot, program: &Program) -> Result<Ran> {
        let subject = self.subject();
        let Some(stopped) = &mut self.stopped else {
            return Err(Refusal::new(Code::PROCESS_VANISHED, subject, "it has ended"));
        };
        loop {
            match stopped.wait_stop(false)? {
                Event::Signal(libc_signal::TRAP) => break,
                _ => ptrace::resume(self.tid, 0).about(|| subject.clone())?,
            }
        }
        if !arena.done(slot) {
            return Err(Refusal::new(Code::RESTORE_FAILED, subject, "a program trapped before its end"));
        }
        let ran = Ran::new(arena.outcome(slot, program), arena.data(slot, program, 0, program.bytes().len()));
        ran.check(program).about(|| subject)?;
        Ok(ran)
    }

    /// Makes one call at a `syscall` instruction that is not the stub's, by system-call stops; it may not fail.
    pub(super) fn single(&mut self, at: u64, name: &'static str, number: u64, arguments: [u64; 6]) -> Result<u64> {
        let result = self.call(at, number, arguments)?;
        godwit_linux::errno::foreign(name, result).about(|| self.subject())
    }

    /// The same, with whatever the call answers.
    pub(super) fn call(&mut self, at: u64, number: u64, arguments: [u64; 6]) -> Result<i64> {
        let subject = self.subject();
        let mut registers = self.template;
        registers.rip = at;
        registers.rax = number;
        registers.orig_rax = u64::MAX;
        [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9] = arguments;
        ptrace::set_registers(self.tid, &registers).about(|| subject.clone())?;
        let mut stops = 0;
        while stops < 2 {
            ptrace::resume_to_syscall(self.tid).about(|| subject.clone())?;
            let Some(stopped) = &mut self.stopped else { break };
            if stopped.wait_stop(false)? == Event::Syscall {
                stops += 1;
            }
        }
        Ok(ptrace::registers(self.tid).about(|| subject)?.rax as i64)
    }

    /// The thread is gone on purpose (a zombie in the image).
    pub(super) fn bury(&mut self) {
        if let Some(stopped) = self.stopped.take() {
            stopped.forget();
        }
    }

    pub(super) fn hold(&mut self) -> Result<()> {
        godwit_linux::signal::send_to_thread(self.pid, self.tid, libc_signal::STOP)
            .and_then(|()| ptrace::set_options(self.tid, options::SYSGOOD | options::SUSPEND_SECCOMP))
            .or_else(|_| ptrace::set_options(self.tid, options::SYSGOOD))
            .about(|| self.subject())
    }

    pub(super) fn release(mut self, held: bool, stay_stopped: bool) -> Result<()> {
        let Some(mut stopped) = self.stopped.take() else { return Ok(()) };
        if held && !stay_stopped {
            swallow_stop(&mut stopped)?;
        } else if stay_stopped && !held {
            godwit_linux::signal::send_to_thread(self.pid, self.tid, libc_signal::STOP).about(|| stopped.subject())?;
        }
        stopped.release()
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        if let Some(stopped) = self.stopped.take() {
            // Not resumed: it must not run. SIGKILL takes the whole process; see `bury_all` for waiting.
            let _ = godwit_linux::signal::send_to_process(self.pid, libc_signal::KILL);
            stopped.forget();
        }
    }
}

/// Ends half-built tasks and waits for them: leaders last, since the kernel tells their end only when all their threads
/// are waited for.
pub(super) fn bury_all(puppets: impl IntoIterator<Item = Puppet>) {
    let mut tids: Vec<(bool, i32)> = Vec::new();
    for puppet in puppets {
        if !puppet.is_dead() {
            tids.push((puppet.pid == puppet.tid, puppet.tid));
        }
        drop(puppet);
    }
    tids.sort_unstable();
    for (_, tid) in tids {
        await_end(tid);
    }
}

impl Puppet {
    /// Waits until the thread has ended on purpose; a signal that ends it is let through.
    pub(super) fn await_end(&mut self, signal: i32) -> Result<()> {
        loop {
            match ptrace::wait(self.tid) {
                Ok(Event::Ended(_)) => return Ok(()),
                Ok(Event::Signal(found)) if found == signal => {
                    ptrace::resume(self.tid, signal).about(|| self.subject())?;
                }
                Ok(_) => ptrace::resume(self.tid, 0).about(|| self.subject())?,
                Err(error) => return Err(error).about(|| self.subject()),
            }
        }
    }
}
