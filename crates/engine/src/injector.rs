//! Running programs inside a frozen source process so that the process survives the death of this one at any moment.
//!
//! The stub goes into the zero bytes behind the vDSO's image (or another executable page's unused tail), written from
//! outside, so that not even the first call is made by foreign code that could go on wrong. The first call (the mapping that
//! programs lie in) stops at system-call stops, which are no signals; programs end by waiting for us. See `linux::stub`.
use crate::failure::{About, Result, malformed};
use crate::freeze::{FrozenProcess, Stopped};
use crate::injection_site::{RECORD_BYTES, Site, find_site, record_offset};
use crate::interrupted::restart;
use crate::passage::{PROGRAM_TIME_MAX, Saved, set_going, take_back, wait_done};
use crate::question::{ProcessAnswers, ThreadAnswers};
pub use crate::ran::Ran;
use crate::resource::processor_mode;
use crate::stranded;
use crate::thread_records::Records;
use godwit_image::{Code, Refusal, Subject};
use godwit_linux::arena::{self, Arena, Slot};
use godwit_linux::memory::{ForeignAddress, ForeignMemory};
use godwit_linux::pidfd::{ForeignDescriptor, PidFd};
use godwit_linux::proc::maps;
use godwit_linux::program::Program;
use godwit_linux::ptrace::{self, Event, Registers, RestartableSequence};
use godwit_linux::stub::{self, CONTROL_BYTES, Ending, Healing};
use std::time::Instant;

const SYS_MMAP: u64 = 9;
const SYS_MUNMAP: u64 = 11;
const SYS_CLOSE: u64 = 3;
const SYS_MEMFD_CREATE: u64 = 319;
const PROT_READ_WRITE: u64 = 3;
const MAP_SHARED: u64 = 1;
const MAP_ANONYMOUS: u64 = 0x20;
const MAP_POPULATE: u64 = 0x8000;
const MFD_CLOEXEC: u64 = 1;
/// Programs that run at the same time: more than processors, and their slots stay small, whatever the number of threads.
const SLOTS_MAX: usize = 64;

/// Programs that run: thread, slot and program of each, and since when.
struct Batch<'p> {
    laid: Vec<(usize, Slot, &'p Program)>,
    begin: Instant,
}

/// A process into which programs can be sent.
#[derive(Debug)]
pub struct Injector<'a> {
    process: &'a mut FrozenProcess,
    memory: ForeignMemory,
    site: u64,
    arena: Option<(Arena, u64)>,
    /// A program that runs in the first thread, and since when.
    running: Option<(Slot, Instant)>,
    /// A thread was not taken back: it goes on by itself, through what lies in the process, which stays.
    stranded: bool,
    /// Since when the arena that was there is being unmapped.
    leaving: Option<(Instant, u64)>,
    saved: Vec<Saved>,
    /// The areas as they were before anything of ours came.
    areas: Vec<maps::Area>,
    /// For each thread the first that is like it: see `thread_records`.
    spokesmen: Vec<usize>,
    answers: (Vec<ThreadAnswers>, ProcessAnswers),
}

fn healing(registers: &Registers, mask: u64) -> Healing {
    let mut next = *registers;
    if (next.orig_rax as i64) >= 0 {
        match next.rax as i64 {
            restart::ERESTARTSYS | restart::ERESTARTNOINTR | restart::ERESTARTNOHAND => {
                next.rax = next.orig_rax;
                next.rip -= 2;
            }
            restart::ERESTART_RESTARTBLOCK => {
                next.rax = restart::SYS_RESTART_SYSCALL;
                next.rip -= 2;
            }
            _ => {}
        }
    }
    Healing { registers: ptrace::words(&next), mask }
}

/// A thread's syscall user dispatch, when it is on. While it sends every call to a handler no program can run.
fn dispatch(thread: &Stopped, memory: &ForeignMemory) -> Result<Option<[u64; 4]>> {
    const BLOCK: u8 = 1;
    // A kernel that cannot tell has none since 6.4, or had no way to carry it before.
    let Ok(configuration) = ptrace::user_dispatch(thread.tid()) else { return Ok(None) };
    let [mode, selector, ..] = configuration;
    if mode == 0 {
        return Ok(None);
    }
    let mut blocks = [0_u8];
    if selector != 0 {
        memory.read(ForeignAddress(selector), &mut blocks).about(|| thread.subject())?;
    }
    if selector == 0 || blocks[0] == BLOCK {
        let cause = "it has its system calls sent to a handler of its own at this moment";
        return Err(Refusal::new(Code::NOT_MIGRATABLE, thread.subject(), cause).choice("try again"));
    }
    Ok(Some(configuration))
}

impl<'a> Injector<'a> {
    /// Prepares a frozen process for programs.
    ///
    /// # Errors
    /// GW1007 when the stub has no place; kernel errors.
    pub fn install(process: &'a mut FrozenProcess) -> Result<Injector<'a>> {
        Injector::install_with(process, None, || None)
    }

    /// The same where the kernel's records of its threads are known, and where somebody else may have read its areas meanwhile.
    pub(crate) fn install_with(
        process: &'a mut FrozenProcess,
        records: Option<&Records>,
        areas: impl FnOnce() -> Option<Vec<maps::Area>>,
    ) -> Result<Injector<'a>> {
        let pid = process.pid;
        let subject = || Subject::Process(pid);
        let mut saved = Vec::with_capacity(process.threads.len());
        for (index, thread) in process.threads.iter_mut().enumerate() {
            let registers = match thread.take_registers() {
                Some(registers) => registers,
                None => ptrace::registers(thread.tid()).about(|| thread.subject())?,
            };
            let mask = match records.and_then(|records| records.of(index)?.mask) {
                Some(mask) => mask,
                None => ptrace::signal_mask(thread.tid()).about(|| thread.subject())?,
            };
            processor_mode::judge_code(thread.subject(), registers.cs)?;
            saved.push(Saved {
                registers,
                mask,
                healing: Healing::default(),
                sequence: RestartableSequence::default(),
                dispatch: None,
            });
        }
        let Some(first) = process.threads.first().map(Stopped::tid) else {
            return Err(Refusal::new(Code::PROCESS_VANISHED, subject(), "it has no threads"));
        };
        // Through a living thread: of a dead leader the kernel shows nothing.
        let memory = ForeignMemory::open(first).about(subject)?;
        let sequences = crate::sequence::begin_anew(
            &process.threads,
            records,
            &memory,
            saved.iter_mut().map(|saved| &mut saved.registers).collect(),
        )?;
        let spokesmen = records.map_or_else(|| (0..saved.len()).collect(), Records::spokesmen);
        for (index, sequence) in sequences.into_iter().enumerate() {
            let thread = &process.threads[index];
            // Who is like one that has it off has it off.
            let other = spokesmen[index];
            let is_off = other != index && saved[other].dispatch.is_none();
            let dispatch = if is_off { None } else { dispatch(thread, &memory)? };
            let saved = &mut saved[index];
            (saved.sequence, saved.dispatch) = (sequence, dispatch);
            saved.healing = healing(&saved.registers, saved.mask);
        }
        let areas = areas().map_or_else(|| maps::read(first).about(subject), Ok)?;
        let Site { start: site, abandoned } = find_site(first, &memory, &areas)?;
        if abandoned.is_some() {
            let code = site + CONTROL_BYTES as u64;
            stranded::let_go_on(&process.threads, saved.iter().map(|saved| &saved.registers), &memory, &areas, code)?;
        }
        let (arena, running, stranded, leaving, answers) = Default::default();
        let mut injector =
            Injector { process, memory, site, arena, running, stranded, leaving, saved, areas, spokesmen, answers };
        injector.memory.write(ForeignAddress(site + CONTROL_BYTES as u64), stub::code()).about(subject)?;
        if let Some((base, length)) = abandoned.and_then(|abandoned| abandoned.arena) {
            injector.single("munmap", SYS_MUNMAP, [base, length, 0, 0, 0, 0])?;
            injector.areas.retain(|area| area.start != base);
        }
        injector.map_arena()?;
        Ok(injector)
    }

    /// Shared memory without a name is one call, and never a descriptor in its table; but only the privileged may open it from
    /// outside.
    fn map_arena(&mut self) -> Result<()> {
        let length = arena::length(self.slots(), arena::SLOT_BYTES) as u64;
        if !arena::may_open_mappings() {
            return self.map_arena_by_descriptor();
        }
        let flags = self.sharing() | MAP_ANONYMOUS;
        let base = self.single("mmap", SYS_MMAP, [0, length, PROT_READ_WRITE, flags, u64::MAX, 0])?;
        self.record_arena(base, length)?;
        let mapping = arena::open_mapping(self.process.threads[0].tid(), base..base + length);
        if let Some(arena) = mapping.and_then(|memory| Arena::on(memory, self.slots()).ok()) {
            self.arena = Some((arena, base));
            return Ok(());
        }
        self.single("munmap", SYS_MUNMAP, [base, length, 0, 0, 0, 0])?;
        self.map_arena_by_descriptor()
    }

    fn sharing(&self) -> u64 {
        if self.slots() >= arena::MANY_SLOTS { MAP_SHARED | MAP_POPULATE } else { MAP_SHARED }
    }

    /// For whoever finds the stub of a dead engine.
    fn record_arena(&self, base: u64, length: u64) -> Result<()> {
        let record = [base.to_le_bytes(), length.to_le_bytes()].concat();
        let pid = self.process.pid;
        self.memory.write(ForeignAddress(self.site + record_offset() as u64), &record).about(|| Subject::Process(pid))
    }

    fn map_arena_by_descriptor(&mut self) -> Result<()> {
        let pid = self.process.pid;
        let subject = || Subject::Process(pid);
        // The name lies in the control block's unused tail.
        let name = self.site + 240;
        let raw = self.single("memfd_create", SYS_MEMFD_CREATE, [name, MFD_CLOEXEC, 0, 0, 0, 0])?;
        let duplicate = PidFd::open_thread(self.process.threads[0].tid())
            .and_then(|pidfd| pidfd.duplicate(ForeignDescriptor(raw as i32)));
        let slots = self.slots();
        let length = arena::length(slots, arena::SLOT_BYTES);
        let arena = duplicate.and_then(|descriptor| Arena::on(descriptor, slots));
        let mapped = match &arena {
            Ok(_) => self.single("mmap", SYS_MMAP, [0, length as u64, PROT_READ_WRITE, self.sharing(), raw, 0]),
            Err(_) => Ok(0),
        };
        if let Ok(base) = &mapped {
            self.record_arena(*base, length as u64)?;
        }
        self.single("close", SYS_CLOSE, [raw, 0, 0, 0, 0, 0])?;
        self.arena = Some((arena.about(subject)?, mapped?));
        Ok(())
    }

    fn code(&self) -> u64 {
        self.site + CONTROL_BYTES as u64
    }

    /// Makes one call in the first thread, by system-call stops.
    fn single(&mut self, name: &'static str, number: u64, arguments: [u64; 6]) -> Result<u64> {
        let thread = &mut self.process.threads[0];
        let saved = &self.saved[0];
        let (tid, subject) = (thread.tid(), thread.subject());
        let block = stub::control_block(Ending::Heal, 0, &saved.healing, 0);
        self.memory.write(ForeignAddress(self.site), &block).about(|| subject.clone())?;
        ptrace::set_signal_mask(tid, u64::MAX).about(|| subject.clone())?;
        let mut registers = saved.registers;
        registers.rip = self.site + CONTROL_BYTES as u64 + stub::single_offset();
        registers.rbx = self.site;
        registers.rax = number;
        registers.orig_rax = u64::MAX;
        [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9] = arguments;
        ptrace::set_registers(tid, &registers).about(|| subject.clone())?;
        let result = (|| {
            let mut stops = 0;
            while stops < 2 {
                ptrace::resume_to_syscall(tid).about(|| subject.clone())?;
                match thread.wait_call_stop()? {
                    Event::Syscall => stops += 1,
                    Event::Stop(_) | Event::Signal(_) | Event::Other(_) | Event::Ended(_) => {}
                }
            }
            Ok(ptrace::registers(tid).about(|| subject.clone())?.rax as i64)
        })();
        ptrace::set_registers(tid, &saved.registers).about(|| subject.clone())?;
        ptrace::set_signal_mask(tid, saved.mask).about(|| subject.clone())?;
        godwit_linux::errno::foreign(name, result?).about(|| subject)
    }

    /// The number of living threads; programs are addressed by index.
    pub fn threads(&self) -> usize {
        self.process.threads.len()
    }

    /// One of each kind of threads that are alike in everything but what each has to itself.
    pub(crate) fn distinct(&self) -> impl Iterator<Item = &Stopped> {
        let alone = self.spokesmen.iter().enumerate().filter(|(index, other)| index == *other);
        alone.filter_map(|(index, _)| self.process.threads.get(index))
    }

    /// The registers that a thread was stopped with.
    pub fn registers(&self, index: usize) -> Option<&Registers> {
        self.saved.get(index).map(|saved| &saved.registers)
    }

    /// The signal mask that a thread was stopped with.
    pub fn mask(&self, index: usize) -> u64 {
        self.saved.get(index).map_or(0, |saved| saved.mask)
    }

    /// A thread's registration of restartable sequences.
    pub fn sequence(&self, index: usize) -> RestartableSequence {
        self.saved.get(index).map_or_else(RestartableSequence::default, |saved| saved.sequence)
    }

    /// A thread's syscall user dispatch, when it is on.
    pub fn dispatch(&self, index: usize) -> Option<[u64; 4]> {
        self.saved.get(index).and_then(|saved| saved.dispatch)
    }

    /// The process's memory.
    pub(crate) fn memory(&self) -> &ForeignMemory {
        &self.memory
    }

    /// The process's areas.
    pub(crate) fn areas(&self) -> &[maps::Area] {
        &self.areas
    }

    /// What its threads, in the order of the process's, and the process as a whole have answered about rare state.
    pub(crate) fn answers(&self) -> (&[ThreadAnswers], &ProcessAnswers) {
        (&self.answers.0, &self.answers.1)
    }

    /// Keeps the answers for the kinds that need them.
    pub(crate) fn keep_answers(&mut self, threads: Vec<ThreadAnswers>, whole: ProcessAnswers) {
        self.answers = (threads, whole);
    }

    /// The extended state that was read of a thread when it had been stopped, once.
    pub(crate) fn take_extended_state(&mut self, index: usize) -> Option<Vec<u8>> {
        self.process.threads.get_mut(index)?.take_extended_state()
    }

    /// The frozen process.
    pub fn process(&self) -> &FrozenProcess {
        self.process
    }

    /// Runs one program in each of the threads given by index, all at the same time. The results' data lies in the
    /// program's slot: [`Ran::data`].
    ///
    /// # Errors
    /// A thread died, or did not come back in time (it then goes on by itself: the freeze is over).
    pub fn run(&mut self, programs: &[(usize, Program)]) -> Result<Vec<Ran>> {
        let programs: Vec<(usize, &Program)> = programs.iter().map(|(index, program)| (*index, program)).collect();
        self.run_those(&programs)
    }

    /// The same for programs that several threads have in common.
    ///
    /// # Errors
    /// As [`Injector::run`].
    pub fn run_those(&mut self, programs: &[(usize, &Program)]) -> Result<Vec<Ran>> {
        let mut ran = Vec::with_capacity(programs.len());
        let mut running: Option<Batch<'_>> = None;
        // While some run the next ones are started, and those that ran before are looked after: two processors are busy then.
        for (turn, some) in programs.chunks(self.batch()).enumerate() {
            let started = self.start_some(some, turn % 2 * self.batch(), programs.len() == 1)?;
            if let Some(batch) = running.replace(started) {
                let collected = self.collect_all(&batch, &mut ran);
                if let (Err(refusal), Some(batch)) = (collected, &running) {
                    // What comes of these does not matter any more.
                    let _ = self.collect_all(batch, &mut ran);
                    return Err(refusal);
                }
            }
        }
        running.map_or(Ok(()), |batch| self.collect_all(&batch, &mut ran))?;
        Ok(ran)
    }

    /// Has the first thread begin to run a program, while other things are looked at from outside; nothing else can run in it until
    /// [`Injector::finish`], which is to follow within [`crate::passage::WAIT_MIN`].
    ///
    /// # Errors
    /// The thread died.
    pub(crate) fn begin(&mut self, program: &Program) -> Result<()> {
        let (slot, begin) = (self.lay(0, 0, program, true)?, Instant::now());
        self.launch(0, slot)?;
        self.running = Some((slot, begin));
        Ok(())
    }

    /// What the program tells that was begun.
    ///
    /// # Errors
    /// As [`Injector::run`].
    pub(crate) fn finish(&mut self, program: &Program) -> Result<Ran> {
        let Some((slot, begin)) = self.running.take() else {
            return Err(Refusal::new(Code::KERNEL_CALL, Subject::Process(self.process.pid), "no program runs"));
        };
        let mut ran = Vec::with_capacity(1);
        self.collect_all(&Batch { laid: vec![(0, slot, program)], begin }, &mut ran)?;
        ran.pop().ok_or_else(|| malformed(Subject::Process(self.process.pid), "no answer"))
    }

    /// Takes the first thread back from a program whose answers nobody wants.
    fn end_program(&mut self) -> Result<()> {
        let (Some((slot, begin)), Some((arena, _))) = (self.running.take(), &self.arena) else { return Ok(()) };
        let thread = &mut self.process.threads[0];
        wait_done(|| arena.done(slot), thread, begin + PROGRAM_TIME_MAX)?;
        ptrace::interrupt(thread.tid()).about(|| thread.subject())?;
        take_back(thread, self.site + CONTROL_BYTES as u64, &self.saved[0], begin)
    }

    /// For how many programs there is room: for no more than are asked at once.
    fn slots(&self) -> usize {
        self.distinct().count().clamp(1, SLOTS_MAX)
    }

    /// How many programs are started before the first is waited for: half of those that there are slots for.
    fn batch(&self) -> usize {
        self.slots().div_ceil(2)
    }

    /// Starts programs in the slots from one on; one that is alone may be large.
    fn start_some<'p>(&mut self, programs: &[(usize, &'p Program)], from: usize, alone: bool) -> Result<Batch<'p>> {
        let begin = Instant::now();
        let mut laid = Vec::with_capacity(programs.len());
        for (place, (index, program)) in programs.iter().enumerate() {
            let launched = self.lay(*index, from + place, program, alone).and_then(|slot| {
                self.launch(*index, slot)?;
                Ok(slot)
            });
            self.stranded |= launched.is_err();
            laid.push((*index, launched?, *program));
        }
        Ok(Batch { laid, begin })
    }

    /// Waits for programs and takes their threads back, all of them, also when one has failed.
    fn collect_all(&mut self, batch: &Batch<'_>, ran: &mut Vec<Ran>) -> Result<()> {
        let deadline = batch.begin + PROGRAM_TIME_MAX;
        let Some((arena, _)) = &self.arena else { return Ok(()) };
        let mut failed = None;
        let mut done = Vec::with_capacity(batch.laid.len());
        for one in &batch.laid {
            let thread = &mut self.process.threads[one.0];
            let ended = wait_done(|| arena.done(one.1), thread, deadline)
                .and_then(|()| ptrace::interrupt(thread.tid()).about(|| thread.subject()));
            match ended {
                Ok(()) => done.push(one),
                Err(refusal) => {
                    self.stranded = true;
                    failed = failed.or(Some(refusal));
                }
            }
        }
        for (index, slot, program) in done {
            match self.collect(*index, *slot, program, batch.begin) {
                Ok(one) => ran.push(one),
                Err(refusal) => failed = failed.or(Some(refusal)),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Lays a program for a thread into its slot or, when it is `alone`, the large one.
    fn lay(&self, index: usize, place: usize, program: &Program, alone: bool) -> Result<Slot> {
        let subject = || Subject::Process(self.process.pid);
        let Some((arena, foreign)) = &self.arena else {
            return Err(Refusal::new(Code::KERNEL_CALL, subject(), "no arena"));
        };
        let small = arena.slot(place).filter(|slot| slot.holds(program));
        if small.is_none() && !alone {
            return Err(Refusal::new(Code::KERNEL_CALL, subject(), "program too large"));
        }
        let slot = small.unwrap_or_else(|| arena.bulk());
        arena.lay(slot, program, *foreign, Ending::Heal, &self.saved[index].healing).about(subject)?;
        Ok(slot)
    }

    fn launch(&self, index: usize, slot: Slot) -> Result<()> {
        let thread = &self.process.threads[index];
        let mut registers = self.saved[index].registers;
        registers.rip = self.code();
        registers.rbx = self.arena.as_ref().map_or(0, |(_, foreign)| foreign + slot.offset as u64);
        registers.orig_rax = u64::MAX;
        set_going(thread, &registers)
    }

    /// Takes a thread back that was interrupted when its program, which began then, had ended.
    fn collect(&mut self, index: usize, slot: Slot, program: &Program, begin: Instant) -> Result<Ran> {
        let code = self.code();
        let thread = &mut self.process.threads[index];
        let taken = take_back(thread, code, &self.saved[index], begin);
        self.stranded |= taken.is_err();
        taken?;
        let Some((arena, _)) = &self.arena else {
            return Err(Refusal::new(Code::KERNEL_CALL, thread.subject(), "no arena"));
        };
        let done = Ran::new(arena.outcome(slot, program), arena.data(slot, program, 0, program.bytes().len()));
        done.check(program).about(|| thread.subject())?;
        Ok(done)
    }

    /// Has its first thread begin to take everything of ours out of the process again, and wait, while other things are looked at from
    /// outside; nothing else can run in it any more. Returns its areas, which are then what they were before. [`Injector::remove`] is
    /// to follow within [`crate::passage::WAIT_MIN`].
    ///
    /// # Errors
    /// The process is dead.
    pub(crate) fn begin_removal(&mut self) -> Result<Vec<maps::Area>> {
        let Some((arena, base)) = self.arena.take() else { return Ok(std::mem::take(&mut self.areas)) };
        let (thread, saved) = (&self.process.threads[0], &self.saved[0]);
        let block = stub::control_block(Ending::Heal, 0, &saved.healing, arena::WAIT_SECONDS);
        self.memory.write(ForeignAddress(self.site), &block).about(|| thread.subject())?;
        let mut registers = saved.registers;
        registers.rip = self.code() + stub::last_offset();
        registers.rbx = self.site;
        registers.rax = SYS_MUNMAP;
        registers.orig_rax = u64::MAX;
        (registers.rdi, registers.rsi) = (base, arena.length() as u64);
        self.leaving = Some((Instant::now(), base));
        set_going(thread, &registers)?;
        Ok(std::mem::take(&mut self.areas))
    }

    /// Takes the thread back that removes the arena.
    fn end_removal(&mut self) -> Result<()> {
        let Some((begin, base)) = self.leaving.take() else { return Ok(()) };
        let (thread, memory) = (&mut self.process.threads[0], &self.memory);
        wait_done(|| memory.read(ForeignAddress(base), &mut [0]).is_err(), thread, begin + PROGRAM_TIME_MAX)?;
        ptrace::interrupt(thread.tid()).about(|| thread.subject())?;
        take_back(thread, self.site + CONTROL_BYTES as u64, &self.saved[0], begin)
    }

    fn clean(&mut self) -> Result<()> {
        if self.stranded {
            // The next engine finds it.
            return Ok(());
        }
        let cleaned = self.take_out();
        self.stranded |= cleaned.is_err();
        cleaned
    }

    fn take_out(&mut self) -> Result<()> {
        self.end_program()?;
        self.end_removal()?;
        if let Some((arena, foreign)) = self.arena.take() {
            self.single("munmap", SYS_MUNMAP, [foreign, arena.length() as u64, 0, 0, 0, 0])?;
        }
        let zeros = vec![0_u8; record_offset() + RECORD_BYTES];
        let pid = self.process.pid;
        self.memory.write(ForeignAddress(self.site), &zeros).about(|| Subject::Process(pid))
    }

    /// Takes everything of ours out of the process again.
    ///
    /// # Errors
    /// The process is dead.
    pub fn remove(mut self) -> Result<()> {
        self.clean()
    }
}

impl Drop for Injector<'_> {
    fn drop(&mut self) {
        // After a failure the process keeps at most unused zero bytes and a mapping; it runs on all the same.
        if self.arena.is_some() || self.leaving.is_some() {
            let _ = self.clean();
        }
    }
}
