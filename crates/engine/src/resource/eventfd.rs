//! Event counters. Source: eventfd(2); fdinfo tells the count and, since Linux 6.5, whether it is a semaphore.
use super::{Captured, Description, Kind, Made, Need, Stage, TaskState, open};
use crate::capture::Capture;
use crate::failure::{About, Result, malformed};
use crate::look::{Look, Survey};
use crate::restore::{Bind, Make};
use godwit_image::{Envelope, KindId, Subject, Verdict};
use godwit_linux::{eventfd, file};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;

const O_ASYNC: u32 = 0o20_000;

/// State.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// The count.
    pub count: u64,
    /// EFD_SEMAPHORE.
    pub semaphore: bool,
    /// Open flags.
    pub flags: u32,
}

/// The kind.
#[derive(Debug)]
pub struct EventCounter;

/// Finds out whether a counter is a semaphore where fdinfo does not tell: by taking and putting back. The tree is frozen,
/// so nobody sees it in between.
fn semaphore_by_trying(file: &mut File, count: u64) -> std::io::Result<bool> {
    let mut value = [0; 8];
    if count < 2 {
        // One or none: two reads alike. With two more the first read tells.
        file.write_all(&2_u64.to_ne_bytes())?;
    }
    file.read_exact(&mut value)?;
    let taken = u64::from_ne_bytes(value);
    let semaphore = taken == 1;
    let left = if semaphore { (if count < 2 { count + 2 } else { count }) - 1 } else { 0 };
    if left > count {
        file.read_exact(&mut value)?;
    }
    let left = left.min(count);
    if left < count {
        file.write_all(&(count - left).to_ne_bytes())?;
    }
    Ok(semaphore)
}

impl Kind for EventCounter {
    fn id(&self) -> KindId {
        KindId(8)
    }
    fn name(&self) -> &'static str {
        "eventfd"
    }
    fn version(&self) -> u16 {
        1
    }
    fn stage(&self) -> Stage {
        Stage::AsItComes
    }
    fn needs(&self, _: &Envelope) -> Result<Vec<Need>> {
        Ok(Vec::new())
    }
    fn make(&self, envelope: &Envelope, _: &mut Make) -> Result<Made> {
        let state: State = open(envelope)?;
        let subject = || Subject::Object(format!("eventfd {}", envelope.id));
        let mut counter = File::from(eventfd::create(state.semaphore).about(subject)?);
        if state.count == u64::MAX {
            return Err(malformed(subject(), "a count that no counter can have"));
        }
        if state.count > 0 {
            counter.write_all(&state.count.to_ne_bytes()).about(subject)?;
        }
        file::set_status_flags(counter.as_fd(), state.flags & !O_ASYNC).about(subject)?;
        Ok(vec![counter.into()])
    }
    fn bind(&self, _: &Envelope, _: &mut Bind) -> Result<()> {
        Ok(())
    }
    fn description(&self) -> Option<&dyn Description> {
        Some(self)
    }
    fn task_state(&self) -> Option<&dyn TaskState> {
        None
    }
}

impl Description for EventCounter {
    fn recognise(&self, look: &Look) -> bool {
        look.link == b"anon_inode:[eventfd]" && look.information.eventfd.is_some()
    }
    fn examine(&self, _: &Look, _: &Survey) -> Verdict {
        Verdict::Carried
    }
    fn foresee(&self, _: &Look, _: &Survey) -> Vec<Need> {
        Vec::new()
    }
    fn capture(&self, look: &Look, _: &mut Capture) -> Result<Captured> {
        let subject = || look.subject();
        let told = look.information.eventfd.ok_or_else(|| malformed(subject(), "fdinfo has no count"))?;
        let semaphore = match told.semaphore {
            Some(semaphore) => semaphore,
            None => {
                let mut file = File::from(look.borrow().try_clone_to_owned().about(subject)?);
                semaphore_by_trying(&mut file, told.count).about(subject)?
            }
        };
        Captured::new(Vec::new(), &State { count: told.count, semaphore, flags: look.flags() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_come_back() {
        super::super::assert_round_trip(&State { count: u64::MAX - 1, semaphore: true, flags: 0o4002 });
    }

    #[test]
    fn trying_tells_semaphores_and_changes_nothing() {
        for semaphore in [false, true] {
            for count in [0_u64, 1, 2, 3, 4711, u64::MAX - 1] {
                let mut counter = File::from(eventfd::create(semaphore).unwrap());
                file::set_status_flags(counter.as_fd(), 0o4000).unwrap();
                if count > 0 {
                    counter.write_all(&count.to_ne_bytes()).unwrap();
                }
                assert_eq!(semaphore_by_trying(&mut counter, count).unwrap(), semaphore, "count {count}");
                let own = std::process::id() as i32;
                let info = godwit_linux::proc::fdinfo::read(own, std::os::fd::AsRawFd::as_raw_fd(&counter)).unwrap();
                assert_eq!(info.eventfd.unwrap().count, count, "semaphore {semaphore}");
            }
        }
    }
}
