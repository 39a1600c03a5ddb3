//! /proc/sysvipc: the System V shared memory segments, message queues and semaphore sets of the reader's IPC namespace.

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

/// One message queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Key; 0 = IPC_PRIVATE.
    pub key: i32,
    /// Identifier for msgsnd(2).
    pub id: i32,
    /// Permissions.
    pub mode: u32,
    /// Bytes of all messages.
    pub bytes: u64,
    /// Messages.
    pub messages: u64,
    /// Process that sent last; 0 = nobody.
    pub sender: i32,
    /// Process that received last; 0 = nobody.
    pub receiver: i32,
    /// Owner and its group.
    pub owner: (u32, u32),
    /// Creator and its group.
    pub creator: (u32, u32),
    /// Last msgsnd, last msgrcv, last change: seconds since 1970; 0 = never.
    pub times: [u64; 3],
}

/// One set of semaphores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set {
    /// Key; 0 = IPC_PRIVATE.
    pub key: i32,
    /// Identifier for semop(2).
    pub id: i32,
    /// Permissions.
    pub mode: u32,
    /// Semaphores.
    pub count: u32,
    /// Owner and its group.
    pub owner: (u32, u32),
    /// Creator and its group.
    pub creator: (u32, u32),
    /// Last semop, last change: seconds since 1970; 0 = never.
    pub times: [u64; 2],
}

const FILE: &str = "sysvipc/shm";
const QUEUES: &str = "sysvipc/msg";
const SETS: &str = "sysvipc/sem";

/// The lines behind a heading of these columns.
fn body<'a>(file: &'static str, text: &'a [u8], columns: &[&[u8]]) -> Result<Lines<'a>, Malformed> {
    let mut lines = Lines::new(file, text)?;
    let Some(mut heading) = lines.next() else { return Err(lines.malformed("no heading")) };
    for column in columns {
        if heading.word() != *column {
            return Err(heading.malformed("another column than expected"));
        }
    }
    Ok(lines)
}

/// Parses the text of sysvipc/shm.
pub fn parse(text: &[u8]) -> Result<Vec<Segment>, Malformed> {
    let columns: [&[u8]; 16] = [
        b"key", b"shmid", b"perms", b"size", b"cpid", b"lpid", b"nattch", b"uid", b"gid", b"cuid", b"cgid", b"atime",
        b"dtime", b"ctime", b"rss", b"swap",
    ];
    body(FILE, text, &columns)?.map(parse_line).collect()
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

/// Parses the text of sysvipc/msg.
pub fn parse_queues(text: &[u8]) -> Result<Vec<Queue>, Malformed> {
    let columns: [&[u8]; 14] = [
        b"key", b"msqid", b"perms", b"cbytes", b"qnum", b"lspid", b"lrpid", b"uid", b"gid", b"cuid", b"cgid", b"stime",
        b"rtime", b"ctime",
    ];
    body(QUEUES, text, &columns)?.map(parse_queue).collect()
}

fn parse_queue(mut line: Line<'_>) -> Result<Queue, Malformed> {
    let queue = Queue {
        key: line.signed_word("key")?,
        id: line.signed_word("msqid")?,
        mode: line.octal_word("perms")?,
        bytes: line.decimal_word("cbytes")?,
        messages: line.decimal_word("qnum")?,
        sender: line.decimal_word("lspid")?,
        receiver: line.decimal_word("lrpid")?,
        owner: (line.decimal_word("uid")?, line.decimal_word("gid")?),
        creator: (line.decimal_word("cuid")?, line.decimal_word("cgid")?),
        times: [line.decimal_word("stime")?, line.decimal_word("rtime")?, line.decimal_word("ctime")?],
    };
    line.end()?;
    Ok(queue)
}

/// Parses the text of sysvipc/sem.
pub fn parse_sets(text: &[u8]) -> Result<Vec<Set>, Malformed> {
    let columns: [&[u8]; 10] =
        [b"key", b"semid", b"perms", b"nsems", b"uid", b"gid", b"cuid", b"cgid", b"otime", b"ctime"];
    body(SETS, text, &columns)?.map(parse_set).collect()
}

fn parse_set(mut line: Line<'_>) -> Result<Set, Malformed> {
    let set = Set {
        key: line.signed_word("key")?,
        id: line.signed_word("semid")?,
        mode: line.octal_word("perms")?,
        count: line.decimal_word("nsems")?,
        owner: (line.decimal_word("uid")?, line.decimal_word("gid")?),
        creator: (line.decimal_word("cuid")?, line.decimal_word("cgid")?),
        times: [line.decimal_word("otime")?, line.decimal_word("ctime")?],
    };
    line.end()?;
    Ok(set)
}

/// The message queues of the IPC namespace of the calling thread.
pub fn queues() -> Result<Vec<Queue>, Error> {
    read_host(QUEUES, parse_queues)
}

/// The semaphore sets of the IPC namespace of the calling thread.
pub fn sets() -> Result<Vec<Set>, Error> {
    read_host(SETS, parse_sets)
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

    #[test]
    fn queues_and_sets() {
        const QUEUES: &[u8] = b"       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      ctime\n-559038737      32769   640         100          2    12     0  1000  1001     0     7 1795256416          0 1795256418\n";
        const SETS: &[u8] = b"       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n         1          2   600          3     4     5     6     7          0 1795256418\n";
        let queue = parse_queues(QUEUES).unwrap()[0];
        assert_eq!((queue.key as u32, queue.id, queue.mode, queue.messages), (0xdeadbeef, 32769, 0o640, 2));
        assert_eq!((queue.sender, queue.receiver, queue.owner), (12, 0, (1000, 1001)));
        assert_eq!((queue.creator, queue.times), ((0, 7), [1795256416, 0, 1795256418]));
        let set = parse_sets(SETS).unwrap()[0];
        assert_eq!((set.key, set.id, set.mode, set.count, set.owner), (1, 2, 0o600, 3, (4, 5)));
        assert_eq!((set.creator, set.times), ((6, 7), [0, 1795256418]));
        mutation::try_all(QUEUES, |text| parse_queues(text).is_ok());
        mutation::try_all(SETS, |text| parse_sets(text).is_ok());
        super::queues().unwrap();
        super::sets().unwrap();
    }
}
