//! /proc/sysvipc/shm: the System V shared memory segments of the reader's IPC namespace.

use super::cursor::{Line, Lines};
use super::{Error, Malformed, read_host};

/// One segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Key; 0 = IPC_PRIVATE.
    pub key: i32,
    /// Identifier for shmat(2).
    pub id: i32,
    /// Permissions, with SHM_DEST (0o1000) and SHM_LOCKED (0o2000).
    pub mode: u32,
    /// Size, bytes.
    pub size: u64,
    /// Process that made it; 0 when not visible.
    pub creator: i32,
    /// Process that attached or detached it last.
    pub last: i32,
    /// How many times it is attached.
    pub attached: u64,
    /// Owner.
    pub user: u32,
    /// Owner.
    pub group: u32,
    /// Creator.
    pub creator_user: u32,
    /// Creator.
    pub creator_group: u32,
    /// Last shmat, seconds since 1970; 0 = never.
    pub attach_time: u64,
    /// Last shmdt, seconds since 1970; 0 = never.
    pub detach_time: u64,
    /// Last change, seconds since 1970.
    pub change_time: u64,
    /// Resident, bytes.
    pub resident: u64,
    /// Swapped out, bytes.
    pub swap: u64,
}

const FILE: &str = "sysvipc/shm";

/// Parses the text of sysvipc/shm.
pub fn parse(text: &[u8]) -> Result<Vec<Segment>, Malformed> {
    let mut lines = Lines::new(FILE, text)?;
    let Some(mut heading) = lines.next() else { return Err(lines.malformed("no heading")) };
    let columns: [&[u8]; 16] = [
        b"key", b"shmid", b"perms", b"size", b"cpid", b"lpid", b"nattch", b"uid", b"gid", b"cuid", b"cgid", b"atime",
        b"dtime", b"ctime", b"rss", b"swap",
    ];
    for column in columns {
        if heading.word() != column {
            return Err(heading.malformed("another column than expected"));
        }
    }
    lines.map(parse_line).collect()
}

fn parse_line(mut line: Line<'_>) -> Result<Segment, Malformed> {
    let segment = Segment {
        key: line.signed_word("key")?,
        id: line.signed_word("shmid")?,
        mode: line.octal_word("perms")?,
        size: line.decimal_word("size")?,
        creator: line.decimal_word("cpid")?,
        last: line.decimal_word("lpid")?,
        attached: line.decimal_word("nattch")?,
        user: line.decimal_word("uid")?,
        group: line.decimal_word("gid")?,
        creator_user: line.decimal_word("cuid")?,
        creator_group: line.decimal_word("cgid")?,
        attach_time: line.decimal_word("atime")?,
        detach_time: line.decimal_word("dtime")?,
        change_time: line.decimal_word("ctime")?,
        resident: line.decimal_word("rss")?,
        swap: line.decimal_word("swap")?,
    };
    line.end()?;
    Ok(segment)
}

/// The segments of the IPC namespace of the calling thread.
pub fn read() -> Result<Vec<Segment>, Error> {
    read_host(FILE, parse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::mutation;

    const GOLDEN: &[u8] = b"       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap\n      4660          0   600                  8192     1     0      0     0     0     0     0          0          0 1795256415                     0                     0\n-559038737      32769  1644                  4096    12    13      2  1000  1001     0     7 1795256416 1795256417 1795256418                  4096                     0\n";

    #[test]
    fn segments() {
        let segments = parse(GOLDEN).unwrap();
        assert_eq!((segments[0].key, segments[0].id, segments[0].mode, segments[0].size), (0x1234, 0, 0o600, 8192));
        assert_eq!((segments[1].key as u32, segments[1].id, segments[1].mode), (0xdeadbeef, 32769, 0o1644));
        assert_eq!((segments[1].creator, segments[1].last, segments[1].attached), (12, 13, 2));
        assert_eq!((segments[1].user, segments[1].group), (1000, 1001));
        assert_eq!((segments[1].creator_user, segments[1].creator_group), (0, 7));
        assert_eq!(
            (segments[1].attach_time, segments[1].change_time, segments[1].resident),
            (1795256416, 1795256418, 4096)
        );
        parse(b"").unwrap_err();
        parse(b"key shmid\n").unwrap_err();
        mutation::try_all(GOLDEN, |text| parse(text).is_ok());
        read().unwrap();
    }
}
