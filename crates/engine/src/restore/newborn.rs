//! Threads as they are born: a program of their maker makes them with their numbers, and each is attached while the next ones are made.
use super::puppet::Puppet;
use super::skeleton::clone_arguments;
use crate::failure::{About, Result};
use godwit_image::{Code, Pid, Refusal, Subject};
use godwit_linux::arena::{Arena, Slot};
use godwit_linux::clone::{self, Arguments};
use godwit_linux::proc::stat;
use godwit_linux::program::Program;
use godwit_linux::scheduling;
use godwit_linux::stub::Ending;
use std::time::{Duration, Instant};

const SYS_GETPID: i64 = 39;
/// CLONE_VM | FS | FILES | SIGHAND | THREAD | SYSVSEM.
const THREAD_FLAGS: u64 = 0x100 | 0x200 | 0x400 | 0x800 | 0x1_0000 | 0x4_0000;
/// Their entries and data fit the large slot.
pub(super) const THREADS_PER_PROGRAM: usize = 2000;
/// Threads from which on their maker is busy for longer than it takes to go to another processor.
const BUSY: usize = 16;
/// How long a newborn may take to do what it is born for.
const BIRTH_TIME_MAX: Duration = Duration::from_secs(10);
/// Looks at a newborn before the processor is given away for longer.
const YIELDS_MAX: u32 = 200;
/// For how long.
const BIRTH_PAUSE: Duration = Duration::from_micros(20);
/// Looks before it is asked what is the matter.
const LOOKS_MAX: u32 = 1000;

/// A thread to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unborn<'a> {
    pub(super) tid: Pid,
    pub(super) slot: Slot,
    /// What it does at once; none: it only waits.
    pub(super) program: Option<&'a Program>,
}

/// Who makes them: a thread of their process, and where its program is to lie.
#[derive(Debug)]
pub(super) struct Maker<'a> {
    pub(super) puppet: &'a mut Puppet,
    /// Where a program of its own lies, if it is small enough for that.
    pub(super) slot: Slot,
}

/// Gives the processor away: at first to whoever waits for this one, then so that somebody who waits behind others for another
/// one is fetched to it.
fn pause(looks: &mut u32) {
    *looks += 1;
    if *looks < YIELDS_MAX { std::thread::yield_now() } else { std::thread::sleep(BIRTH_PAUSE) }
}

/// Makes threads until all are there, or one cannot be made. Those that have been attached are added to `born`, whatever becomes of
/// the others: they have not arrived yet.
///
/// # Errors
/// GW1202: the number of one is in use.
pub(super) fn make(arena: &Arena, maker: Maker<'_>, threads: &[Unborn<'_>], born: &mut Vec<Puppet>) -> Result<()> {
    let Maker { puppet: maker, slot: small } = maker;
    let pid = maker.pid();
    let mut nothing = Program::new();
    nothing.call("getpid", SYS_GETPID, []);
    let mut making = Program::new();
    for Unborn { tid, slot, program } in threads {
        let program = program.unwrap_or(&nothing);
        arena.lay_traced(*slot, program, arena.base(), Ending::Exit).about(|| Subject::Thread(pid.0, tid.0))?;
        let numbers = making.data(&tid.0.to_le_bytes());
        let arguments = Arguments { flags: THREAD_FLAGS, set_tid_size: 1, ..Arguments::default() };
        let place = clone_arguments(&mut making, &arguments, Some(numbers));
        making.clone_task(place, clone::ARGUMENTS_BYTES, arena.base() + slot.offset as u64);
    }
    let place = if small.holds(&making) { small } else { arena.bulk() };
    maker.start(arena, place, &making, Ending::Trap)?;
    if threads.len() >= BUSY
        && let Ok(stat) = stat::read(pid.0, maker.tid().0)
    {
        // Both of us have enough to do for a processor. Of what only costs time nothing is said.
        let _ = scheduling::leave_processor(stat.processor as u32);
    }
    // Each is attached as soon as it has done what it was born for, while the maker goes on.
    for Unborn { tid, slot, .. } in threads {
        let mut looks = 0;
        while !arena.done(*slot) && !arena.done(place) && looks < LOOKS_MAX {
            pause(&mut looks);
        }
        // The maker has ended, one way or another, or takes its time: both are found out below.
        if !arena.done(*slot) {
            break;
        }
        born.push(Puppet::begin(pid, *tid)?);
    }
    maker.finish(arena, place, &making).map(drop).map_err(|refusal| {
        if refusal.cause.contains("File exists") {
            return Refusal::new(Code::PID_IN_USE, refusal.subject, "the number of one of its threads is in use");
        }
        refusal
    })
}

/// Waits until a newborn has done what it was born for.
///
/// # Errors
/// It has ended, or does not run.
pub(super) fn await_birth(arena: &Arena, pid: Pid, tid: Pid, slot: Slot) -> Result<()> {
    let begin = Instant::now();
    let mut looks = 0;
    while !arena.done(slot) {
        pause(&mut looks);
        if looks.is_multiple_of(LOOKS_MAX) {
            let subject = Subject::Thread(pid.0, tid.0);
            if !stat::read(pid.0, tid.0).is_ok_and(|stat| !matches!(stat.state, b'Z' | b'X')) {
                return Err(Refusal::new(Code::PROCESS_VANISHED, subject, "it ended when it had just been made"));
            }
            if begin.elapsed() > BIRTH_TIME_MAX {
                return Err(Refusal::new(Code::RESTORE_FAILED, subject, "it was made and does not run"));
            }
        }
    }
    Ok(())
}
