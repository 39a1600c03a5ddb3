//! The link between two hosts: a veth pair that can be slowed down, cut and healed.

use std::time::Duration;

use godwit_linux::netlink::{RouteSocket, VethEnd};

use crate::error::{Doing, Error};
use crate::host::Host;

/// Name of the device at both ends.
pub(crate) const DEVICE: &str = "link0";
/// Length of the subnet's prefix.
const PREFIX: u8 = 24;

/// A link between a source and a destination host. It goes with its hosts.
#[derive(Debug)]
pub struct Link {
    source: RouteSocket,
    destination: RouteSocket,
}

impl Link {
    pub(crate) fn new(source: &Host, destination: &Host) -> Result<Self, Error> {
        let open = |host: &Host| {
            RouteSocket::open_in(host.network()).doing(format!("speak to the network of host {}", host.name()))
        };
        let mut link = Self { source: open(source)?, destination: open(destination)? };
        let near = VethEnd { device: DEVICE, network: source.network() };
        let far = VethEnd { device: DEVICE, network: destination.network() };
        link.source.add_veth(near, far).doing("make a veth pair")?;
        for (socket, host) in [(&mut link.source, source), (&mut link.destination, destination)] {
            socket.add_address(DEVICE, host.address(), PREFIX).doing("give a host its address")?;
            socket.set_up(DEVICE, true).doing("set a host's device up")?;
        }
        Ok(link)
    }

    /// Takes the carrier from both hosts: what they send is lost, as with a pulled cable.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn cut(&mut self) -> Result<(), Error> {
        self.destination.set_up(DEVICE, false).doing("cut the link")
    }

    /// Ends a cut.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn heal(&mut self) -> Result<(), Error> {
        self.destination.set_up(DEVICE, true).doing("heal the link")
    }

    /// Limits both directions to a rate in bytes per second; a packet that would wait longer than `patience` is dropped.
    /// (A delay of propagation would need netem, which not every kernel has.)
    ///
    /// # Errors
    /// Refused where `tc` is missing; else its own words.
    pub fn shape(&self, hosts: [&Host; 2], rate: u64, patience: Duration) -> Result<(), Error> {
        // A bucket of 10 ms, and no smaller than the largest packet that segmentation offload hands down.
        let bucket = (rate / 100).max(64 * 1024);
        let rate = format!("{}bit", rate.saturating_mul(8));
        let (bucket, patience) = (bucket.to_string(), format!("{}ms", patience.as_millis()));
        let limit = ["tbf", "rate", &rate, "burst", &bucket, "latency", &patience];
        hosts
            .into_iter()
            .try_for_each(|host| traffic_control(host, &["qdisc", "replace", "dev", DEVICE, "root"], &limit))
    }

    /// Ends the limits of [`Self::shape`].
    ///
    /// # Errors
    /// As [`Self::shape`].
    pub fn unshape(&self, hosts: [&Host; 2]) -> Result<(), Error> {
        hosts.into_iter().try_for_each(|host| traffic_control(host, &["qdisc", "del", "dev", DEVICE, "root"], &[]))
    }
}

fn traffic_control(host: &Host, words: &[&str], more: &[&str]) -> Result<(), Error> {
    let program =
        ["/usr/sbin/tc", "/sbin/tc", "/usr/bin/tc"].into_iter().find(|path| std::path::Path::new(path).exists());
    let Some(program) = program else {
        return Err(Error::Refused("a shaped link needs the program tc: install the package iproute2".to_owned()));
    };
    let output = host.command(program).args(words).args(more).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Program { program: "tc".to_owned(), said })
}
