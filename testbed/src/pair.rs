//! Two hosts and the link between them: what a migration needs.

use std::env;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::error::{Doing, Error};
use crate::host::{Host, Plan};
use crate::leftover::{self, Record};
use crate::link::Link;

/// How a pair of hosts is to be.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The executable whose `main` calls [`crate::entry`]; this program's own where none is given.
    pub executable: Option<PathBuf>,
    /// Directories below /tmp, /run or /dev/shm that both hosts see; that of the executable is always seen.
    pub shared: Vec<PathBuf>,
    /// Seconds that the clocks of source and destination are ahead of the machine's (behind, where negative: no further
    /// than the machine has been up); none: the machine's clocks.
    pub clocks: Option<[i64; 2]>,
    /// From which process ids on source and destination count, so that a tree finds its own free; none: both from 2 on.
    pub first_ids: Option<[u32; 2]>,
}

/// Two hosts with a link between them. Dropping it leaves nothing behind.
#[derive(Debug)]
pub struct Pair {
    /// Where a process begins.
    pub source: Host,
    /// Where it is to go.
    pub destination: Host,
    /// Between them.
    pub link: Link,
    record: RecordGuard,
}

/// Dropped after the hosts (fields drop in order): a record stands as long as one of them may.
#[derive(Debug)]
struct RecordGuard {
    record: Record,
    kept: bool,
}

impl Drop for RecordGuard {
    fn drop(&mut self) {
        if !self.kept {
            self.record.remove();
        }
    }
}

impl Pair {
    /// Makes two hosts and the link between them, after ending what killed runs have left.
    ///
    /// # Errors
    /// Refused, with what to change, where this machine cannot have hosts; else the step that failed.
    pub fn new(options: &Options) -> Result<Self, Error> {
        leftover::sweep()?;
        let executable = match &options.executable {
            Some(path) => path.clone(),
            None => env::current_exe().doing("find this program's file")?,
        };
        let executable = executable.canonicalize().doing("find the program of a host's first process")?;
        let mut shared = options.shared.clone();
        shared.extend(executable.parent().map(PathBuf::from));
        let record = RecordGuard { record: Record::new()?, kept: false };
        let make = |name, number: u8| {
            let plan = Plan {
                name,
                address: Ipv4Addr::new(10, 77, 0, number + 1),
                executable: &executable,
                shared: &shared,
                clocks: options.clocks.and_then(|clocks| clocks.get(usize::from(number)).copied()),
            };
            let host = Host::new(&plan)?;
            record.record.add_host(host.init_pid())?;
            Ok::<_, Error>(host)
        };
        let source = make("source", 0)?;
        let destination = make("destination", 1)?;
        let link = Link::new(&source, &destination)?;
        for (host, first) in [&source, &destination].into_iter().zip(options.first_ids.into_iter().flatten()) {
            let script = format!("echo {} > /proc/sys/kernel/ns_last_pid", first.saturating_sub(1));
            host.command("sh").arg("-c").arg(script).status()?;
        }
        Ok(Self { source, destination, link, record })
    }

    /// Lets both hosts stand when this program has ended; [`leftover::remove_kept`] ends them.
    ///
    /// # Errors
    /// Where a host cannot be told.
    pub fn keep(&mut self) -> Result<(), Error> {
        self.record.record.keep()?;
        self.record.kept = true;
        self.source.keep().doing("keep the source")?;
        self.destination.keep().doing("keep the destination")
    }
}
