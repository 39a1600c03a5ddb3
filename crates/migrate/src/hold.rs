//! Held processes after the death of their engine: each is stopped by a SIGSTOP, found again by number and start time.
use crate::journal::{Details, Member, PROCESSES};
use godwit_image::{Code, Refusal, Subject};
use godwit_linux::pidfd::PidFd;
use godwit_linux::proc::stat;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const SIGKILL: i32 = 9;
const SIGCONT: i32 = 18;

/// Opens a member only if it is still the same process.
fn open(member: &Member) -> Option<PidFd> {
    let handle = PidFd::open(member.pid).ok()?;
    member.exists().then_some(handle)
}

/// Ends the stop of all that job control had not stopped before. A process that died meanwhile is no failure.
///
/// # Errors
/// GW1002: the kernel does not let us.
pub(crate) fn wake(details: &Details) -> Result<(), Refusal> {
    for member in details.members_here().iter().filter(|member| !member.stopped) {
        if let Some(handle) = open(member) {
            signal(&handle, member, SIGCONT)?;
        }
    }
    Ok(())
}

/// Ends all, and waits until none can run any more.
///
/// # Errors
/// GW1002: the kernel does not let us; GW1003: one does not end.
pub(crate) fn kill(details: &Details) -> Result<(), Refusal> {
    let members = details.members_here();
    for member in &members {
        if let Some(handle) = open(member) {
            signal(&handle, member, SIGKILL)?;
        }
    }
    let begin = Instant::now();
    while let Some(member) = members.iter().find(|member| member.exists() && !is_dead(member.pid)) {
        if begin.elapsed() > Duration::from_secs(10) {
            return Err(Refusal::new(Code::KERNEL_CALL, Subject::Process(member.pid), "it does not end"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// The same for a tree that has run since: whoever it has made is ended, too.
///
/// # Errors
/// As [`kill`].
pub(crate) fn kill_family(details: &Details) -> Result<(), Refusal> {
    let mut family = details.clone();
    loop {
        let known: BTreeSet<i32> = family.members_here().iter().map(|member| member.pid).collect();
        let is_new = |pid: &i32| {
            let parent = stat::read_process_wide(*pid).map(|stat| stat.parent);
            !known.contains(pid) && *pid > 1 && parent.is_ok_and(|parent| known.contains(&parent))
        };
        let all = std::fs::read_dir(PROCESSES).into_iter().flatten().flatten();
        let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let children: Vec<i32> = numbers.filter(is_new).filter(|pid| !is_dead(*pid)).collect();
        if children.is_empty() {
            return kill(&family);
        }
        // Their numbers count here.
        let own = Details::own("", 0, Vec::new()).namespace;
        let members = family.members_here().into_iter().chain(children.into_iter().map(|pid| Member::now(pid, false)));
        family = Details { members: members.collect(), namespace: own, ..family.clone() };
    }
}

/// A zombie runs nothing; its parent takes it away.
fn is_dead(pid: i32) -> bool {
    stat::read_process_wide(pid).map_or(true, |stat| matches!(stat.state, b'Z' | b'X'))
}

fn signal(handle: &PidFd, member: &Member, number: i32) -> Result<(), Refusal> {
    match handle.send_signal(number) {
        Err(error) if !error.is_gone() => {
            Err(Refusal::new(Code::NOT_PERMITTED, Subject::Process(member.pid), error.to_string()))
        }
        _ => Ok(()),
    }
}
