//! One stopped thread of a skeleton: ours to lose until the tree is held.
use crate::failure::{About, Result};
use crate::freeze::{Stopped, await_end, libc_signal};
use crate::injector::Ran;
use godwit_image::{Code, Pid, Refusal, Subject};
use godwit_linux::arena::{Arena, Slot};
use godwit_linux::program::Program;
use godwit_linux::ptrace::{self, Event, Registers, options};
use godwit_linux::stub::Ending;
use std::cell::Cell;
use std::time::{Duration, Instant};

/// A thread of a skeleton, attached and stopped.
#[derive(Debug)]
pub(super) struct Puppet {
    stopped: Option<Stopped>,
    pid: i32,
    tid: i32,
    /// The registers of a newborn; those that it has when they are asked for where there are none.
    template: Option<Registers>,
    /// Its blocked signals, as far as they were set by us.
    mask: Cell<Option<u64>>,
    /// In a group stop for good: it needs no other means to stay stopped.
    group_stopped: bool,
}

/// All signals but SIGTRAP, by which programs end.
const MASK: u64 = !(1 << (libc_signal::TRAP - 1));
/// Looks at a running program before the processor is given away for longer, and for how long.
const SPINS_MAX: u32 = 64 * 200;
const PROGRAM_PAUSE: Duration = Duration::from_micros(20);
/// How long a program may take before it counts as lost.
const PROGRAM_TIME_MAX: Duration = Duration::from_secs(10);

impl Puppet {
    /// Attaches to a newborn that waits in the stub or in pause(2).
    pub(super) fn attach(pid: Pid, tid: Pid) -> Result<Puppet> {
        Puppet::begin(pid, tid)?.arrive()
    }

    /// Begins to attach to a newborn: [`Puppet::arrive_from_stub`] is next.
    pub(super) fn begin(pid: Pid, tid: Pid) -> Result<Puppet> {
        let subject = || Subject::Thread(pid.0, tid.0);
        let wanted = options::SYSGOOD | options::EXIT_KILL | options::SUSPEND_SECCOMP;
        ptrace::seize(tid.0, wanted)
            .or_else(|_| ptrace::seize(tid.0, options::SYSGOOD | options::EXIT_KILL))
            .about(subject)?;
        let stopped = Stopped::new(pid.0, tid.0, 0);
        ptrace::interrupt(tid.0).about(subject)?;
        let (template, mask) = (None, Cell::new(None));
        Ok(Puppet { stopped: Some(stopped), pid: pid.0, tid: tid.0, template, mask, group_stopped: false })
    }

    /// Waits until a newborn that a program has made has stopped. It has its maker's mask.
    pub(super) fn arrive_from_stub(&mut self) -> Result<()> {
        self.await_stop()
    }

    /// Keeps the registers that it has for its programs.
    pub(super) fn remember_registers(&mut self) -> Result<()> {
        self.template = Some(ptrace::registers(self.tid).about(|| self.subject())?);
        Ok(())
    }

    /// The registers that programs begin with.
    fn template(&self) -> Result<Registers> {
        match self.template {
            Some(template) => Ok(template),
            None => ptrace::registers(self.tid).about(|| self.subject()),
        }
    }

    /// Sets its blocked signals. No program of ours changes them and goes on.
    pub(super) fn set_mask(&self, mask: u64) -> godwit_linux::errno::Result<()> {
        if self.mask.get() != Some(mask) {
            ptrace::set_signal_mask(self.tid, mask)?;
            self.mask.set(Some(mask));
        }
        Ok(())
    }

    fn arrive(mut self) -> Result<Puppet> {
        self.await_stop()?;
        self.set_mask(MASK).about(|| self.subject())?;
        self.remember_registers()?;
        Ok(self)
    }

    pub(super) fn subject(&self) -> Subject {
        Subject::Thread(self.pid, self.tid)
    }

    pub(super) fn is_dead(&self) -> bool {
        self.stopped.is_none()
    }

    fn living(&mut self) -> Result<&mut Stopped> {
        let subject = self.subject();
        self.stopped.as_mut().ok_or_else(|| Refusal::new(Code::PROCESS_VANISHED, subject, "it has ended"))
    }

    /// Waits for a stop that is not about a signal or a call.
    fn await_stop(&mut self) -> Result<()> {
        let tid = self.tid;
        let stopped = self.living()?;
        loop {
            match stopped.wait_stop(false)? {
                Event::Stop(_) => return Ok(()),
                _ => ptrace::resume(tid, 0).about(|| stopped.subject())?,
            }
        }
    }

    fn lay(&self, arena: &Arena, slot: Slot, program: &Program, ending: Ending) -> Result<()> {
        arena.lay_traced(slot, program, arena.base(), ending).about(|| self.subject())?;
        let mut registers = self.template()?;
        registers.rip = arena.base();
        registers.rbx = arena.base() + slot.offset as u64;
        registers.orig_rax = u64::MAX;
        // SIGTRAP must not be blocked when a program ends by it, and nothing must come through when it does not.
        let mask = if ending == Ending::Trap { MASK } else { u64::MAX };
        self.set_mask(mask).and_then(|()| ptrace::set_registers(self.tid, &registers)).about(|| self.subject())
    }

    /// Lays a program and starts it.
    pub(super) fn start(&self, arena: &Arena, slot: Slot, program: &Program, ending: Ending) -> Result<()> {
        self.lay(arena, slot, program, ending)?;
        ptrace::resume(self.tid, 0).about(|| self.subject())
    }

    /// Waits for a program that ends by a trap, and checks it.
    pub(super) fn finish(&mut self, arena: &Arena, slot: Slot, program: &Program) -> Result<Ran> {
        let (subject, tid) = (self.subject(), self.tid);
        let stopped = self.living()?;
        loop {
            match stopped.wait_stop(false)? {
                Event::Signal(libc_signal::TRAP) => break,
                _ => ptrace::resume(tid, 0).about(|| subject.clone())?,
            }
        }
        if !arena.done(slot) {
            return Err(Refusal::new(Code::RESTORE_FAILED, subject, "a program trapped before its end"));
        }
        self.answers(arena, slot, program)
    }

    /// The results of a program that has ended, if all is well with it.
    pub(super) fn answers(&self, arena: &Arena, slot: Slot, program: &Program) -> Result<Ran> {
        let ran = Ran::new(arena.outcome(slot, program), arena.data(slot, program, 0, program.bytes().len()));
        ran.check(program).about(|| self.subject())?;
        Ok(ran)
    }

    /// Waits until a program that ends by waiting has run, and asks the thread to stop: [`Puppet::stopped`] is next.
    pub(super) fn await_done(&self, arena: &Arena, slot: Slot) -> Result<()> {
        let begin = Instant::now();
        let mut spins = 0_u32;
        while !arena.done(slot) {
            spins += 1;
            if spins.is_multiple_of(64) {
                if spins < SPINS_MAX {
                    std::thread::yield_now();
                } else {
                    // It may wait behind others for another processor than ours, and nobody fetches it to one that is never idle.
                    std::thread::sleep(PROGRAM_PAUSE);
                }
                match ptrace::poll(self.tid).about(|| self.subject())? {
                    None => {}
                    Some(Event::Ended(_)) => {
                        return Err(Refusal::new(Code::PROCESS_VANISHED, self.subject(), "it ended in a program"));
                    }
                    // SIGCONT among what it queues for itself is told to its tracer.
                    Some(_) => ptrace::resume(self.tid, 0).about(|| self.subject())?,
                }
                if begin.elapsed() > PROGRAM_TIME_MAX {
                    return Err(Refusal::new(Code::RESTORE_FAILED, self.subject(), "a program did not end in time"));
                }
            }
            std::hint::spin_loop();
        }
        ptrace::interrupt(self.tid).about(|| self.subject())
    }

    /// The stop after [`Puppet::await_done`], and the program's results.
    pub(super) fn stopped(&mut self, arena: &Arena, slot: Slot, program: &Program) -> Result<Ran> {
        self.await_stop()?;
        self.answers(arena, slot, program)
    }

    /// Makes one call at a `syscall` instruction that is not the stub's, by system-call stops; it may not fail.
    pub(super) fn single(&mut self, at: u64, name: &'static str, number: u64, arguments: [u64; 6]) -> Result<u64> {
        let result = self.call(at, number, arguments)?;
        godwit_linux::errno::foreign(name, result).about(|| self.subject())
    }

    /// The same, with whatever the call answers.
    pub(super) fn call(&mut self, at: u64, number: u64, arguments: [u64; 6]) -> Result<i64> {
        let subject = self.subject();
        let mut registers = self.template()?;
        registers.rip = at;
        registers.rax = number;
        registers.orig_rax = u64::MAX;
        [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9] = arguments;
        self.set_mask(u64::MAX).and_then(|()| ptrace::set_registers(self.tid, &registers)).about(|| subject.clone())?;
        let mut stops = 0;
        while stops < 2 {
            // Whatever it is that it stops for, the next stop has to be at the call: a held thread's pending stop comes
            // first, and let go from there without a word it would run into its own program with our registers.
            ptrace::resume_to_syscall(self.tid).about(|| subject.clone())?;
            match ptrace::wait_in_process(self.pid, self.tid).about(|| subject.clone())? {
                Event::Syscall => stops += 1,
                Event::Ended(_) => {
                    self.bury();
                    return Err(Refusal::new(Code::PROCESS_VANISHED, subject, "it ended in a call"));
                }
                Event::Signal(_) | Event::Stop(_) | Event::Other(_) => {}
            }
        }
        let result = ptrace::registers(self.tid).about(|| subject.clone())?.rax as i64;
        // From here the kernel would go on without a look at interrupted calls: have it stop where it does look.
        ptrace::interrupt(self.tid).and_then(|()| ptrace::resume(self.tid, 0)).about(|| subject.clone())?;
        self.await_stop()?;
        Ok(result)
    }

    /// Makes a call in the stub that waits, and interrupts it, so that the kernel remembers how to continue it. False
    /// when the call did not wait.
    pub(super) fn cut_short(&mut self, code: u64, block: u64, number: u64, arguments: [u64; 6]) -> Result<bool> {
        /// The kernel continues the call through restart_syscall(2).
        const ERESTART_RESTARTBLOCK: i64 = -516;
        let subject = self.subject();
        let mut registers = self.template()?;
        registers.rip = code;
        registers.rbx = block;
        registers.rax = number;
        registers.orig_rax = u64::MAX;
        [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9] = arguments;
        self.set_mask(u64::MAX)
            .and_then(|()| ptrace::set_registers(self.tid, &registers))
            .and_then(|()| ptrace::resume_to_syscall(self.tid))
            .about(|| subject.clone())?;
        while self.living()?.wait_call_stop()? != Event::Syscall {
            ptrace::resume_to_syscall(self.tid).about(|| subject.clone())?;
        }
        // The request is pending when the call begins to wait: it ends at once, without a race.
        ptrace::interrupt(self.tid).and_then(|()| ptrace::resume(self.tid, 0)).about(|| subject.clone())?;
        self.await_stop()?;
        let now = ptrace::registers(self.tid).about(|| subject)?;
        Ok(now.rax as i64 == ERESTART_RESTARTBLOCK)
    }

    /// The thread is gone on purpose (a zombie in the image).
    pub(super) fn bury(&mut self) {
        if let Some(stopped) = self.stopped.take() {
            stopped.forget();
        }
    }

    /// Lets the thread run a program that ends it, untraced: the end of a leader is told to nobody as long as its threads
    /// live, and a traced leader would stay ours for ever.
    pub(super) fn depart(&mut self, arena: &Arena, slot: Slot, program: &Program) -> Result<()> {
        self.lay(arena, slot, program, Ending::Exit)?;
        match self.stopped.take() {
            Some(stopped) => stopped.release(),
            None => Ok(()),
        }
    }

    /// Stops the thread by job control: the first one of its process by the signal, the others because of it. It must not
    /// be resumed again.
    pub(super) fn stop_group(&mut self, signal: i32, first: bool) -> Result<()> {
        let (pid, tid, subject) = (self.pid, self.tid, self.subject());
        if first {
            self.set_mask(!(1 << (signal - 1)))
                .and_then(|()| godwit_linux::signal::send_to_thread(pid, tid, signal))
                .about(|| subject.clone())?;
        }
        ptrace::resume(tid, 0).about(|| subject.clone())?;
        let deadline = Instant::now() + PROGRAM_TIME_MAX;
        loop {
            match ptrace::wait_in_process(pid, tid).about(|| subject.clone())? {
                Event::Signal(found) if found == signal => ptrace::resume(tid, signal).about(|| subject.clone())?,
                Event::Stop(found) if found == signal => break,
                Event::Ended(_) => {
                    self.bury();
                    return Err(Refusal::new(Code::PROCESS_VANISHED, subject, "it ended while it was being stopped"));
                }
                _ => ptrace::resume(tid, 0).about(|| subject.clone())?,
            }
            if Instant::now() > deadline {
                return Err(Refusal::new(Code::RESTORE_FAILED, subject, format!("signal {signal} does not stop it")));
            }
        }
        self.group_stopped = true;
        Ok(())
    }

    /// Takes the thread out of a group stop that [`Puppet::stop_group`] made; SIGCONT has been sent.
    pub(super) fn continue_group(&mut self) -> Result<()> {
        ptrace::resume(self.tid, 0).and_then(|()| ptrace::interrupt(self.tid)).about(|| self.subject())?;
        self.await_stop()?;
        self.group_stopped = false;
        Ok(())
    }

    /// From now on it does not die with us. Its process has been sent a SIGSTOP, unless it is in a group stop for good.
    pub(super) fn outlive(&mut self) -> Result<()> {
        ptrace::set_options(self.tid, options::SYSGOOD | options::SUSPEND_SECCOMP)
            .or_else(|_| ptrace::set_options(self.tid, options::SYSGOOD))
            .about(|| self.subject())
    }

    /// Whether the stop of its process has to be made to outlive us.
    pub(super) fn is_to_be_held(&self) -> bool {
        self.stopped.is_some() && !self.group_stopped
    }

    /// The thread, if its process may have a SIGSTOP of ours that has to be taken back.
    pub(super) fn held_back(&mut self) -> Option<&mut Stopped> {
        let stopped = self.stopped.as_mut().filter(|_| !self.group_stopped)?;
        stopped.forget_stop();
        Some(stopped)
    }

    /// Whether it is a thread of this process.
    pub(super) fn is_of(&self, pid: Pid) -> bool {
        self.pid == pid.0
    }

    pub(super) fn tid(&self) -> Pid {
        Pid(self.tid)
    }

    pub(super) fn pid(&self) -> Pid {
        Pid(self.pid)
    }

    /// Gives the thread away for a while.
    pub(super) fn lend(&mut self) -> Option<Stopped> {
        self.stopped.take()
    }

    pub(super) fn take_back(&mut self, stopped: Stopped) {
        self.stopped = Some(stopped);
    }

    /// Lets a held thread run as far as to the next system call; it dies with us again, and what filters its calls applies. False: it
    /// stays as it is, because it is stopped for good or dead.
    pub(super) fn let_run_to_call(&mut self) -> Result<bool> {
        if !self.is_to_be_held() {
            return Ok(false);
        }
        ptrace::set_options(self.tid, options::SYSGOOD | options::EXIT_KILL)
            .and_then(|()| ptrace::resume_to_syscall(self.tid))
            .map(|()| true)
            .about(|| self.subject())
    }

    pub(super) fn release(mut self) -> Result<()> {
        self.stopped.take().map_or(Ok(()), Stopped::release)
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

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_linux::clone;

    /// On a host where thousands wait for a processor it takes seconds to ask a thousand threads for what they have done.
    #[test]
    fn who_has_done_its_part_waits_for_its_tracer() {
        const SYS_GETPID: i64 = 39;
        const SIGCHLD: i32 = 17;
        let arena = Arena::new(1, 0).unwrap();
        let slot = arena.slot(0).unwrap();
        let pid = Pid(clone::fork_sleeper(&[], 0, SIGCHLD).unwrap());
        let mut puppet = Puppet::attach(pid, pid).unwrap();
        let mut program = Program::new();
        program.call("getpid", SYS_GETPID, []);
        puppet.start(&arena, slot, &program, Ending::Exit).unwrap();
        std::thread::sleep(Duration::from_secs(godwit_linux::arena::WAIT_SECONDS) + Duration::from_millis(300));
        puppet.await_done(&arena, slot).unwrap();
        puppet.stopped(&arena, slot, &program).unwrap();
        bury_all([puppet]);
    }
}
