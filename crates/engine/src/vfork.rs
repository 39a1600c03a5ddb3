//! A vfork in flight: the parent sleeps in the kernel, where no tracer can stop it, until its child, which lives in the
//! parent's memory, executes a program or ends. Nearly always that is a matter of microseconds: the child alone is let go
//! until then. A child that takes its time is not waited for, and the freeze is refused.
use crate::failure::{About, Result};
use crate::freeze::{self, Stopped};
use crate::procfs;
use godwit_image::{Code, Refusal};
use godwit_linux::kcmp::{self, Object};
use godwit_linux::proc::stat;
use godwit_linux::ptrace::{self, Event, options};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a vfork may take to be over.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// Whether a process is a vfork child whose parent waits for it at this moment.
pub(crate) fn is_in_flight(pid: i32, parent: i32) -> bool {
    kcmp::kcmp(pid, parent, Object::Memory).is_ok_and(|order| order == Ordering::Equal)
        && procfs::threads(parent)
            .unwrap_or_default()
            .into_iter()
            .any(|tid| stat::read(parent, tid).is_ok_and(|stat| stat.state == b'D'))
}

type Known = BTreeMap<i32, BTreeMap<i32, Stopped>>;

/// Lets the vfork child of a thread that does not stop go on until the parent is free. Does nothing for a thread that does not
/// stop for another reason.
///
/// # Errors
/// GW1104: the child neither executes a program nor ends.
pub(crate) fn finish(parent: &Stopped, known: &mut Known) -> Result<()> {
    let children = procfs::children(parent.pid(), parent.tid()).unwrap_or_default();
    for child in children {
        let shares = kcmp::kcmp(parent.tid(), child, Object::Memory).is_ok_and(|order| order == Ordering::Equal);
        let Some(stopped) = known.get_mut(&child).filter(|_| shares).and_then(|threads| threads.remove(&child)) else {
            continue;
        };
        if let Some(stopped) = run_on(stopped, parent)? {
            known.entry(child).or_default().insert(child, stopped);
        }
    }
    Ok(())
}

/// Runs the child until it has executed a program, and stops it again; `None` when it has ended.
fn run_on(mut child: Stopped, parent: &Stopped) -> Result<Option<Stopped>> {
    let tid = child.tid();
    child.goes_on();
    let set = |further: i32| ptrace::set_options(tid, options::SYSGOOD | further);
    set(options::TRACE_EXEC | options::TRACE_EXIT).about(|| child.subject())?;
    ptrace::resume(tid, 0).about(|| child.subject())?;
    let begin = Instant::now();
    loop {
        match ptrace::poll(tid).about(|| child.subject())? {
            None if begin.elapsed() > PATIENCE => {
                let cause = format!("its vfork child {tid} neither executes a program nor ends");
                return Err(Refusal::new(Code::UNSUPPORTED, parent.subject(), cause).choice("try again later"));
            }
            None => std::thread::yield_now(),
            Some(Event::Other(ptrace::EXECUTED)) => {
                // Not at the event itself: there the kernel still writes a result into a register when it goes on.
                set(0)
                    .and_then(|()| ptrace::interrupt(tid))
                    .and_then(|()| ptrace::resume(tid, 0))
                    .about(|| child.subject())?;
                child.wait_stop(true)?;
                freeze::suspend_filters(tid);
                return Ok(Some(child));
            }
            Some(Event::Ended(_)) => {
                child.forget();
                return Ok(None);
            }
            Some(Event::Signal(signal)) => ptrace::resume(tid, signal).about(|| child.subject())?,
            Some(_) => ptrace::resume(tid, 0).about(|| child.subject())?,
        }
    }
}
