//! Attaching to the threads of a tree that runs, without stopping them yet: each is asked to stop, and stops when it comes to that.
use crate::failure::{Result, refusal};
use crate::freeze::Stopped;
use godwit_image::{Code, Refusal, Subject};
use godwit_linux::proc::{Error as ProcError, stat};
use godwit_linux::ptrace::{self, Event};

/// Whether a thread is to stop for us already: who has not stopped cannot be let go, and an attempt before has left it so.
fn is_ours(tid: i32) -> bool {
    let again = |signal| {
        ptrace::detach(tid, signal)
            .and_then(|()| ptrace::seize(tid, ptrace::options::SYSGOOD))
            .and_then(|()| ptrace::interrupt(tid))
    };
    match ptrace::poll(tid) {
        Ok(None) => true,
        // By now it has.
        Ok(Some(Event::Signal(signal))) => again(signal).is_ok(),
        Ok(Some(Event::Stop(_) | Event::Syscall | Event::Other(_))) => again(0).is_ok(),
        Ok(Some(Event::Ended(_))) | Err(_) => false,
    }
}

fn seize(pid: i32, tid: i32) -> Result<bool> {
    let result = ptrace::seize(tid, ptrace::options::SYSGOOD);
    match result {
        Ok(()) => {}
        Err(error) if error.is_gone() => return Ok(false),
        Err(error) => {
            let state = stat::read(pid, tid).map(|stat| stat.state);
            if matches!(state, Ok(b'Z' | b'X') | Err(ProcError::Gone)) {
                return Ok(false);
            }
            let status = godwit_linux::proc::status::read(tid, tid);
            return Err(match status {
                Ok(status) if status.tracer != 0 && is_ours(tid) => return Ok(true),
                Ok(status) if status.tracer != 0 => Refusal::new(
                    Code::ALREADY_TRACED,
                    Subject::Thread(pid, tid),
                    format!("process {} traces it", status.tracer),
                ),
                _ => refusal(error, Subject::Thread(pid, tid)),
            });
        }
    }
    match ptrace::interrupt(tid) {
        Ok(()) => Ok(true),
        Err(error) if error.is_gone() => Ok(false),
        Err(error) => Err(refusal(error, Subject::Thread(pid, tid))),
    }
}

/// Asks threads to stop, each a process and a thread of it; returns those that were there.
pub(crate) fn ask_all(threads: &[(i32, i32)]) -> Result<Vec<Stopped>> {
    let mut asked = Vec::with_capacity(threads.len());
    for (pid, tid) in threads {
        if seize(*pid, *tid)? {
            asked.push(Stopped::new(*pid, *tid, 0));
        }
    }
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_left_attached_by_an_attempt_is_stopped_by_the_next_one() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = child.id() as i32;
        assert!(seize(pid, pid).unwrap());
        while stat::read(pid, pid).unwrap().state != b't' {
            std::thread::yield_now();
        }
        assert!(seize(pid, pid).unwrap());
        let mut again = Stopped::new(pid, pid, 0);
        assert!(matches!(again.wait_stop(true).unwrap(), Event::Stop(_)));
        drop(again);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
