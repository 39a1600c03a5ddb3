//! /proc/locks, and the `lock:` lines of fdinfo, which have the same form: file locks of every family.

use super::cursor::{Line, Lines};
use super::{Error, Malformed, read_host};

/// One lock, or one request that waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Number in the listing; a waiting request has the number of the lock that it waits for.
    pub id: u64,
    /// Whether this is a request that waits (`->`).
    pub waits: bool,
    /// Family.
    pub kind: Kind,
    /// `MANDATORY`: only kernels before 5.15 know it.
    pub mandatory: bool,
    /// State of a lease; `None` for other kinds.
    pub lease: Option<Lease>,
    /// What is locked.
    pub access: Access,
    /// Process that set the lock, in the PID namespace of /proc; -1 for OFD locks, 0 when not in the namespace.
    pub pid: i32,
    /// Device of the file's file system.
    pub device_major: u32,
    /// Device of the file's file system.
    pub device_minor: u32,
    /// Inode of the file.
    pub inode: u64,
    /// First byte locked.
    pub start: u64,
    /// Last byte locked; `None` up to the end of the file (`EOF`), however far it grows.
    pub end: Option<u64>,
}

/// The families of locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// flock(2): belongs to the open description.
    Flock,
    /// fcntl(F_SETLK): belongs to the process.
    Posix,
    /// fcntl(F_OFD_SETLK): belongs to the open description.
    OpenDescription,
    /// fcntl(F_SETLEASE).
    Lease,
    /// A delegation that the kernel's NFS server gave out.
    Delegation,
}

/// The state of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// Held.
    Active,
    /// Somebody opened the file: it must be given up.
    Breaking,
    /// The one who waits for the break.
    Breaker,
}

/// What a lock grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Shared.
    Read,
    /// Exclusive.
    Write,
    /// Being given up (leases).
    Unlock,
}

const FILE: &str = "locks";

/// Parses the text of /proc/locks.
pub fn parse(text: &[u8]) -> Result<Vec<Lock>, Malformed> {
    Lines::new(FILE, text)?.map(|mut line| parse_line(&mut line)).collect()
}

/// Parses one line, without fdinfo's `lock:`.
pub(super) fn parse_line(line: &mut Line<'_>) -> Result<Lock, Malformed> {
    line.blanks();
    let id = line.decimal("number of the lock")?;
    line.expect(b":", "no : behind the number")?;
    line.blanks();
    let waits = line.take(b"->");
    let kind = match line.word() {
        b"FLOCK" => Kind::Flock,
        b"POSIX" => Kind::Posix,
        b"OFDLCK" => Kind::OpenDescription,
        b"LEASE" => Kind::Lease,
        b"DELEG" => Kind::Delegation,
        _ => return Err(line.malformed("unknown family of locks")),
    };
    let is_lease = matches!(kind, Kind::Lease | Kind::Delegation);
    let (mandatory, lease) = match (line.word(), is_lease) {
        (b"ADVISORY" | b"MSNFS", false) => (false, None),
        (b"MANDATORY", false) => (true, None),
        (b"ACTIVE", true) => (false, Some(Lease::Active)),
        (b"BREAKING", true) => (false, Some(Lease::Breaking)),
        (b"BREAKER", true) => (false, Some(Lease::Breaker)),
        _ => return Err(line.malformed("neither ADVISORY nor MANDATORY nor the state of a lease")),
    };
    let access = match line.word() {
        b"READ" => Access::Read,
        b"WRITE" => Access::Write,
        b"UNLCK" => Access::Unlock,
        _ => return Err(line.malformed("neither READ nor WRITE nor UNLCK")),
    };
    let pid = line.signed_word("pid")?;
    line.blanks();
    let device_major = line.hexadecimal("major device number")?;
    line.expect(b":", "no : in the device")?;
    let device_minor = line.hexadecimal("minor device number")?;
    line.expect(b":", "no : behind the device")?;
    let inode = line.decimal_word("inode")?;
    let start = line.decimal_word("first byte")?;
    line.blanks();
    let end = if line.take(b"EOF") { None } else { Some(line.decimal("last byte")?) };
    line.end()?;
    if end.is_some_and(|end| end < start) {
        return Err(line.malformed("ends before it starts"));
    }
    Ok(Lock { id, waits, kind, mandatory, lease, access, pid, device_major, device_minor, inode, start, end })
}

/// All of the locks whose owners this PID namespace can see.
pub fn read() -> Result<Vec<Lock>, Error> {
    read_host(FILE, parse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::mutation;

    const GOLDEN: &[u8] = b"1: LEASE  ACTIVE    READ 1 fe:00:10035229 0 EOF\n\
        2: OFDLCK ADVISORY  WRITE -1 fe:00:10035228 0 EOF\n\
        3: POSIX  ADVISORY  READ 1 fe:00:10035227 100 EOF\n\
        4: POSIX  ADVISORY  WRITE 1 fe:00:10035227 5 14\n\
        5: FLOCK  ADVISORY  WRITE 1 fe:00:10035226 0 EOF\n\
        5: -> FLOCK  ADVISORY  WRITE 43 fe:00:10035226 0 EOF\n";

    #[test]
    fn every_family_is_understood() {
        let locks = parse(GOLDEN).unwrap();
        let kinds: Vec<_> = locks.iter().map(|lock| lock.kind).collect();
        assert_eq!(kinds, [Kind::Lease, Kind::OpenDescription, Kind::Posix, Kind::Posix, Kind::Flock, Kind::Flock]);
        assert_eq!(locks[0].lease, Some(Lease::Active));
        assert_eq!(locks[1].pid, -1);
        assert_eq!((locks[2].access, locks[2].start, locks[2].end), (Access::Read, 100, None));
        assert_eq!((locks[3].access, locks[3].start, locks[3].end), (Access::Write, 5, Some(14)));
        assert_eq!((locks[4].device_major, locks[4].device_minor, locks[4].inode), (0xfe, 0, 10035226));
        assert_eq!((locks[4].waits, locks[5].waits, locks[5].id, locks[5].pid), (false, true, 5, 43));
    }

    #[test]
    fn wrong_lines_are_refused() {
        for line in [
            &b"1: FLOCK  ACTIVE  WRITE 1 fe:00:1 0 EOF\n"[..],
            b"1: LEASE  ADVISORY  WRITE 1 fe:00:1 0 EOF\n",
            b"1: POSIX  ADVISORY  WRITE 1 fe:00:1 9 8\n",
            b"1: POSIX  ADVISORY  WRITE 1 fe:00:1 0 EOF x\n",
            b"1: POSIX  ADVISORY  WRITE 99999999999 fe:00:1 0 EOF\n",
        ] {
            parse(line).unwrap_err();
        }
    }

    #[test]
    fn no_mutation_panics() {
        mutation::try_all(GOLDEN, |text| parse(text).is_ok());
    }

    #[test]
    fn this_host_is_read() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let inode = std::os::unix::fs::MetadataExt::ino(&file.metadata().unwrap());
        file.lock_shared().unwrap();
        let locks = read().unwrap();
        assert!(
            locks.iter().any(|lock| lock.kind == Kind::Flock && lock.inode == inode && lock.access == Access::Read)
        );
    }
}
