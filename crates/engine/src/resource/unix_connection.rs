//! Connections between Unix sockets: both ends at once, made by whom the kernel remembers for each (SO_PEERCRED), with the
//! names that both show.
use super::unix_name::{self, Name, Named};
use super::{Description, Kind, Made, Need, Stage, TaskState, open};
use crate::failure::{About, Result};
use crate::restore::{Bind, Creator, Make};
use godwit_image::{Code, Envelope, KindId, Refusal, Subject};
use godwit_linux::unix_socket;
use serde::{Deserialize, Serialize};
use std::os::fd::AsFd;

const SYS_CONNECT: i64 = 42;
const SYS_LISTEN: i64 = 50;
const SYS_SOCKETPAIR: i64 = 53;
const AF_UNIX: u64 = 1;
const SOCK_CLOEXEC: u64 = 0o2_000_000;

/// State of a connection. The ends are in the order of their inodes; one that is closed is the second.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Connection {
    /// SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET.
    pub sort: i32,
    /// What each end calls itself: raw sockaddrs.
    pub names: [Vec<u8>; 2],
    /// Whom each end shows as its peer.
    pub creators: [Creator; 2],
    /// Which end was accepted from a listener, if names make a listener necessary.
    pub accepted: usize,
}

/// The kind.
#[derive(Debug)]
pub struct UnixConnection;

impl Connection {
    fn by_pair(&self, make: &mut Make) -> Result<Made> {
        let sort = self.sort as u64 | SOCK_CLOEXEC;
        let (first, second) = make.pair_by(&self.creators[0], sort, |program, place| {
            program.call("socketpair", SYS_SOCKETPAIR, [AF_UNIX.into(), sort.into(), 0_u64.into(), place]);
        })?;
        Ok(vec![first, second])
    }

    fn by_listener(&self, make: &mut Make, subject: impl Fn() -> Subject) -> Result<Made> {
        let accepted = self.accepted & 1;
        let nameless = |raw: &[u8]| Name { raw: raw.to_vec(), file: None };
        let listener = unix_socket::create(self.sort).about(&subject)?;
        let named = Named::bind(listener.as_fd(), &nameless(&self.names[accepted]), &subject)?;
        let client = unix_socket::create(self.sort).about(&subject)?;
        let own_name = nameless(&self.names[1 - accepted]);
        if unix_name::is_named(&own_name.raw) {
            // Only the name: a connected socket cannot be reached by its file.
            Named::bind(client.as_fd(), &own_name, &subject)?;
        }
        make.run_as(&self.creators[1 - accepted], &[listener.as_fd()], |program, files| {
            program.call("listen", SYS_LISTEN, [files[0].into(), 1_u64.into()]);
        })?;
        let address = named.reachable();
        make.run_as(&self.creators[accepted], &[client.as_fd()], |program, files| {
            let place = program.data(&address);
            program.call("connect", SYS_CONNECT, [files[0].into(), place, address.len().into()]);
        })?;
        let server = unix_socket::accept(listener.as_fd()).about(&subject)?;
        Ok(if accepted == 0 { vec![server, client] } else { vec![client, server] })
    }
}

impl Kind for UnixConnection {
    fn id(&self) -> KindId {
        KindId(22)
    }
    fn name(&self) -> &'static str {
        "Unix connection"
    }
    fn version(&self) -> u16 {
        1
    }
    fn stage(&self) -> Stage {
        Stage::Late
    }
    fn needs(&self, _: &Envelope) -> Result<Vec<Need>> {
        Ok(Vec::new())
    }
    fn make(&self, envelope: &Envelope, make: &mut Make) -> Result<Made> {
        let state: Connection = open(envelope)?;
        let subject = || Subject::Object(format!("Unix connection {}", envelope.id));
        if !matches!(state.sort, 1 | 2 | 5) {
            return Err(Refusal::new(Code::MALFORMED, subject(), "no such type of socket"));
        }
        // Datagram sockets have no listeners: those bind their names themselves.
        if state.sort == 2 || !state.names.iter().any(|name| unix_name::is_named(name)) {
            state.by_pair(make)
        } else {
            state.by_listener(make, subject)
        }
    }
    fn bind(&self, _: &Envelope, _: &mut Bind) -> Result<()> {
        Ok(())
    }
    fn description(&self) -> Option<&dyn Description> {
        None
    }
    fn task_state(&self) -> Option<&dyn TaskState> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_image::Pid;

    #[test]
    fn states_come_back() {
        let creator = Creator { pid: Pid(7), user: 1000, group: 5, groups: vec![5, 6] };
        let names = [vec![1, 0], vec![1, 0, 0, b'x']];
        let creators = [creator.clone(), creator];
        super::super::assert_round_trip(&Connection { sort: 1, names, creators, accepted: 1 });
    }
}
