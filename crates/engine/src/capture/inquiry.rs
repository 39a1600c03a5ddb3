//! Which threads are asked by programs, and what their answers are to the others: see `thread_records`.
use super::schedule::{self, Schedule};
use crate::failure::Result;
use crate::injector::{Injector, Ran};
use crate::question::ThreadQuestion;
use crate::thread_records::{Record, Records};
use godwit_image::signal::AlternateStack;
use godwit_linux::program::{Argument, Program, Step};
use std::collections::BTreeMap;

const SIGALTSTACK: i64 = 131;
const PERSONALITY: i64 = 135;
const PRCTL: i64 = 157;
const PR_GET_PDEATHSIG: u64 = 2;
const PR_GET_NAME: u64 = 16;
const PR_GET_TSC: u64 = 25;
const PR_GET_SECUREBITS: u64 = 27;
const PR_GET_TIMERSLACK: u64 = 30;
const PR_MCE_KILL_GET: u64 = 34;
const PR_GET_TID_ADDRESS: u64 = 40;
const PR_GET_SPECULATION_CTRL: u64 = 52;
/// sigaltstack(2): what of ss_flags is a choice of the thread's.
const STACK_CHOICES: i32 = i32::MIN;

/// What one thread is asked by a program.
pub(super) struct Questions {
    pub(super) program: Program,
    tid_address: usize,
    stack: usize,
    pub(super) death_signal: usize,
    pub(super) timestamp: usize,
    pub(super) slack: Step,
    pub(super) securebits: Step,
    pub(super) machine_check: Step,
    pub(super) speculation: [Step; 3],
    name: usize,
    pub(super) personality: Step,
    pub(super) scheduling: schedule::Question,
    pub(super) rare: ThreadQuestion,
}

impl Questions {
    /// The first thread is asked more about what the others have in common with it.
    pub(super) fn new(stranger: Option<i32>, is_first: bool) -> Questions {
        let mut program = Program::new();
        let mut prctl = |option: u64, argument: Argument| {
            program.try_call("prctl", PRCTL, [option.into(), argument, 0_u64.into(), 0_u64.into(), 0_u64.into()])
        };
        let slack = prctl(PR_GET_TIMERSLACK, 0_u64.into());
        let securebits = prctl(PR_GET_SECUREBITS, 0_u64.into());
        let machine_check = prctl(PR_MCE_KILL_GET, 0_u64.into());
        let speculation = [0_u64, 1, 2].map(|which| prctl(PR_GET_SPECULATION_CTRL, which.into()));
        let personality = program.call("personality", PERSONALITY, [u64::from(u32::MAX).into()]);
        let (space, name) = program.space(16);
        let zero = Argument::Value(0);
        program.call("prctl", PRCTL, [PR_GET_NAME.into(), space, zero, zero, zero]);
        let mut ask = |option: u64| {
            let (space, offset) = program.space(8);
            program.try_call("prctl", PRCTL, [option.into(), space, 0_u64.into(), 0_u64.into(), 0_u64.into()]);
            offset
        };
        let tid_address = ask(PR_GET_TID_ADDRESS);
        let death_signal = ask(PR_GET_PDEATHSIG);
        let timestamp = ask(PR_GET_TSC);
        let (space, stack) = program.space(24);
        program.call("sigaltstack", SIGALTSTACK, [0_u64.into(), space]);
        let scheduling = schedule::Question::ask(&mut program);
        let rare = ThreadQuestion::ask(&mut program, stranger, is_first);
        Questions {
            program,
            scheduling,
            rare,
            tid_address,
            stack,
            death_signal,
            timestamp,
            slack,
            securebits,
            machine_check,
            speculation,
            name,
            personality,
        }
    }
}

/// What the threads of a process have answered.
pub(super) struct Inquiry<'q> {
    of_first: &'q Questions,
    of_others: &'q Questions,
    ran: BTreeMap<usize, Ran>,
    /// Who was asked for each thread.
    spokesmen: Vec<usize>,
    records: Option<&'q Records>,
}

/// What is known of one thread.
pub(super) struct Answers<'i> {
    /// What was asked.
    pub(super) questions: &'i Questions,
    /// What was answered.
    pub(super) ran: &'i Ran,
    /// The index of the thread that was asked.
    pub(super) asked: usize,
    is_own: bool,
    record: Option<&'i Record>,
}

/// What no other thread can answer.
pub(super) struct Own {
    pub(super) name: Vec<u8>,
    pub(super) alternate_stack: AlternateStack,
    pub(super) clear_child_tid: u64,
    pub(super) robust_list: (u64, u64),
    pub(super) has_signals: bool,
}

impl<'q> Inquiry<'q> {
    /// Asks as few threads as will do.
    ///
    /// # Errors
    /// As [`Injector::run`].
    pub(super) fn make(
        injector: &mut Injector<'_>,
        (of_first, of_others): (&'q Questions, &'q Questions),
        records: Option<&'q Records>,
    ) -> Result<Inquiry<'q>> {
        if let Some(records) = records {
            let (spokesmen, asked) = (records.spokesmen(), records.asked());
            let ran = ask(injector, (of_first, of_others), &asked)?;
            let inquiry = Inquiry { of_first, of_others, ran, spokesmen, records: Some(records) };
            let pointer = |index: usize| injector.registers(index).map_or(0, |registers| registers.rsp);
            if asked.into_iter().all(|index| inquiry.of(index).is_some_and(|answers| answers.agree(pointer(index)))) {
                return Ok(inquiry);
            }
        }
        let everybody: Vec<usize> = (0..injector.threads()).collect();
        let ran = ask(injector, (of_first, of_others), &everybody)?;
        Ok(Inquiry { of_first, of_others, ran, spokesmen: everybody, records: None })
    }

    /// What the only thread of a process has answered.
    pub(super) fn of_one(questions: &'q Questions, ran: Ran) -> Inquiry<'q> {
        let ran = BTreeMap::from([(0, ran)]);
        Inquiry { of_first: questions, of_others: questions, ran, spokesmen: vec![0], records: None }
    }

    fn of(&self, index: usize) -> Option<Answers<'_>> {
        let asked = *self.spokesmen.get(index)?;
        let questions = if asked == 0 { self.of_first } else { self.of_others };
        let record = self.records.and_then(|records| records.of(index));
        Some(Answers { questions, ran: self.ran.get(&asked)?, asked, is_own: asked == index, record })
    }

    /// Thread by thread.
    pub(super) fn of_all(&self) -> impl Iterator<Item = Answers<'_>> {
        (0..self.spokesmen.len()).filter_map(|index| self.of(index))
    }
}

fn ask(
    injector: &mut Injector<'_>,
    (of_first, of_others): (&Questions, &Questions),
    threads: &[usize],
) -> Result<BTreeMap<usize, Ran>> {
    let program = |index: usize| if index == 0 { &of_first.program } else { &of_others.program };
    let programs: Vec<(usize, &Program)> = threads.iter().map(|index| (*index, program(*index))).collect();
    Ok(threads.iter().copied().zip(injector.run_those(&programs)?).collect())
}

impl Answers<'_> {
    fn told_stack(&self) -> AlternateStack {
        let (questions, ran) = (self.questions, self.ran);
        AlternateStack {
            address: ran.word(questions.stack),
            flags: ran.word(questions.stack + 8) as i32,
            size: ran.word(questions.stack + 16),
        }
    }

    fn told_name(&self) -> Vec<u8> {
        let raw = self.ran.data(self.questions.name, 16);
        raw.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
    }

    /// Whether the thread has said of itself what its record says. `pointer`: its stack pointer.
    fn agree(&self, pointer: u64) -> bool {
        let Some(record) = self.record else { return false };
        let (told, read) = (self.told_stack(), record.alternate_stack(pointer));
        let stacks = (told.address, told.size, told.flags & STACK_CHOICES)
            == (read.address, read.size, read.flags & STACK_CHOICES);
        let robust = self.questions.scheduling.robust_list(self.ran);
        stacks
            && self.told_name() == record.name
            && self.ran.word(self.questions.tid_address) == record.clear_child_tid
            && robust.is_some_and(|(head, _)| head == record.robust_list)
    }

    /// What the thread has to itself. `pointer`: its stack pointer.
    pub(super) fn own(&self, schedule: &Schedule, pointer: u64) -> Own {
        let has_signals = self.record.is_none_or(|record| record.has_signals);
        match self.record.filter(|_| !self.is_own) {
            Some(record) => Own {
                name: record.name.clone(),
                alternate_stack: record.alternate_stack(pointer),
                clear_child_tid: record.clear_child_tid,
                robust_list: (record.robust_list, schedule.robust_list.1),
                has_signals,
            },
            None => Own {
                name: self.told_name(),
                alternate_stack: self.told_stack(),
                clear_child_tid: self.ran.word(self.questions.tid_address),
                robust_list: schedule.robust_list,
                has_signals,
            },
        }
    }
}
