//! Sets of System V semaphores: identifier, key, owner, values, who used each of them last.
use super::Make;
use super::sysv_queue::in_use;
use crate::failure::{About, Result};
use godwit_image::{Code, Refusal, Subject};
use godwit_linux::proc::sysvipc;
use godwit_linux::sysv_semaphores::{self, Properties};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// State.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// Identifier.
    pub id: i32,
    /// Key.
    pub key: i32,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// User and group that made it.
    pub creator: (u32, u32),
    /// Last semop, last change at the source.
    pub times: [u64; 2],
    /// Value, and the process that used it last (0 = nobody), of every semaphore.
    pub semaphores: Vec<(u16, i32)>,
}

pub(super) fn subject(id: i32) -> Subject {
    Subject::Object(format!("semaphore set {id}"))
}

/// A set that has been read.
pub(super) fn capture(set: &sysvipc::Set, semaphores: &[(u16, i32)]) -> State {
    State {
        id: set.id,
        key: set.key,
        mode: set.mode,
        owner: set.owner,
        creator: set.creator,
        times: set.times,
        semaphores: semaphores.to_vec(),
    }
}

/// Makes the set with its values.
///
/// # Errors
/// GW1201: identifier or key are in use, or the limits of this host are lower.
pub(super) fn make(state: &State, make: &mut Make) -> Result<()> {
    let id = state.id;
    let subject = || subject(id);
    let existing = sysvipc::sets().about(subject)?;
    if let Some(other) = existing.iter().find(|other| other.id == id) {
        let same = (other.key, other.times, other.count) == (state.key, state.times, state.semaphores.len() as u32);
        // The very set, on the host where the process was: nobody has used it since, not even the end of a process.
        if same && sysv_semaphores::read(id, other.count).is_ok_and(|now| now == state.semaphores) {
            return Ok(());
        }
        let what = format!("the identifier belongs to another set (key {:#x})", other.key);
        return Err(in_use(subject(), &what, "-s", id));
    }
    if let Some(other) = existing.iter().find(|other| state.key != 0 && other.key == state.key) {
        let what = format!("its key {:#x} belongs to another set", state.key);
        return Err(in_use(subject(), &what, "-s", other.id));
    }
    let refuse = |error: godwit_linux::Errno| {
        let cause = format!("it cannot be made with its identifier, key {:#x} and values: {error}", state.key);
        Refusal::new(Code::DESTINATION_LACKS, subject(), cause).choice("sysctl kernel.sem has the limits")
    };
    let count = state.semaphores.len() as u32;
    sysv_semaphores::create(id, state.key, count, state.mode, state.creator).map_err(refuse)?;
    make.created_semaphores(id);
    let mut by_user: BTreeMap<i32, Vec<(u16, u16)>> = BTreeMap::new();
    for (number, (value, user)) in state.semaphores.iter().enumerate() {
        if *value != 0 || *user != 0 {
            by_user.entry(*user).or_default().push((number as u16, *value));
        }
    }
    for (user, values) in by_user {
        let user = Some(user).filter(|user| *user > 0);
        sysv_semaphores::set_values_as(user, id, &values, state.times[0] != 0).map_err(refuse)?;
    }
    sysv_semaphores::set(id, Properties { owner: state.owner, mode: state.mode }).map_err(refuse)
}
