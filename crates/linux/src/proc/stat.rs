//! /proc/PID/task/TID/stat: identity, times and layout of one task, in one line of numbers.

use super::cursor::Line;
use super::{Error, Malformed, read_process, read_task};

/// The fields of proc_pid_stat(5), with their numbers there. Addresses and the exit code read as 0 without
/// PTRACE_MODE_READ access; counts of faults and scheduler fields that a migration does not carry are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// 1: the thread's id (or the process's, by where it was read).
    pub pid: i32,
    /// 2: the command name, at most 15 bytes (more for kernel threads), any bytes.
    pub comm: Vec<u8>,
    /// 3: R, S, D, T (stopped), t (tracing stop), Z, X, I…
    pub state: u8,
    /// 4: parent's process id; 0 when it is outside of the reader's PID namespace.
    pub parent: i32,
    /// 5: process group.
    pub process_group: i32,
    /// 6: session.
    pub session: i32,
    /// 7: device number of the controlling terminal (minor in bits 31..20 and 7..0, major in 15..8); 0 = none.
    pub terminal: i32,
    /// 8: foreground process group of the terminal; -1 = none.
    pub terminal_foreground: i32,
    /// 9: PF_* of linux/sched.h.
    pub flags: u32,
    /// 14: user time, clock ticks.
    pub user_time: u64,
    /// 15: system time, clock ticks.
    pub system_time: u64,
    /// 16: user time of waited-for children, clock ticks.
    pub children_user_time: u64,
    /// 17: system time of waited-for children, clock ticks.
    pub children_system_time: u64,
    /// 18: priority as the kernel prints it: 0..39, negative for real-time.
    pub priority: i32,
    /// 19: nice, -20..=19.
    pub nice: i32,
    /// 20: number of threads in the process; 0 once it is being reaped.
    pub threads: i32,
    /// 22: when it started, clock ticks after boot (shifted by a time namespace's boottime offset).
    pub start_time: u64,
    /// 23: size of the address space, bytes.
    pub virtual_size: u64,
    /// 24: resident pages.
    pub resident: i64,
    /// 26
    pub start_code: u64,
    /// 27
    pub end_code: u64,
    /// 28
    pub start_stack: u64,
    /// 38: signal to the parent at exit; -1 for a thread that is no leader.
    pub exit_signal: i32,
    /// 39: processor that it last ran on.
    pub processor: i32,
    /// 40: real-time priority, 0 = none.
    pub real_time_priority: u32,
    /// 41: SCHED_*.
    pub policy: u32,
    /// 45
    pub start_data: u64,
    /// 46
    pub end_data: u64,
    /// 47
    pub start_brk: u64,
    /// 48
    pub arg_start: u64,
    /// 49
    pub arg_end: u64,
    /// 50
    pub env_start: u64,
    /// 51
    pub env_end: u64,
    /// 52: in the format of waitpid(2)'s status.
    pub exit_code: i32,
}

const FILE: &str = "stat";

/// Parses the text of stat.
pub fn parse(text: &[u8]) -> Result<Stat, Malformed> {
    let mut line = Line::whole(FILE, text);
    let text = match text {
        [text @ .., b'\n'] => text,
        _ => return Err(line.malformed("the last line has no end")),
    };
    // The name may hold anything, also ") R 1" and newlines; everything behind it is numbers and one letter.
    let close = text.iter().rposition(|byte| *byte == b')').ok_or_else(|| line.malformed("no ) behind the name"))?;
    let (before, after) = text.split_at(close);
    line = Line::whole(FILE, before);
    let pid = line.decimal("pid")?;
    line.expect(b" (", "no ( before the name")?;
    let comm = line.rest().to_vec();

    let mut line = Line::whole(FILE, after.get(1..).unwrap_or_default());
    line.expect(b" ", "no space behind the name")?;
    let state = line.byte("state")?;
    if !state.is_ascii_alphabetic() {
        return Err(line.malformed("the state is no letter"));
    }
    line.expect(b" ", "no space behind the state")?;
    let parent = line.decimal_word("4 ppid")?;
    let process_group = line.signed_word("5 pgrp")?;
    let session = line.signed_word("6 session")?;
    let terminal = line.signed_word("7 tty_nr")?;
    let terminal_foreground = line.signed_word("8 tpgid")?;
    let flags = line.decimal_word("9 flags")?;
    skip(&mut line, 4)?;
    let user_time = line.decimal_word("14 utime")?;
    let system_time = line.decimal_word("15 stime")?;
    let children_user_time = line.decimal_word("16 cutime")?;
    let children_system_time = line.decimal_word("17 cstime")?;
    let priority = line.signed_word("18 priority")?;
    let nice = line.signed_word("19 nice")?;
    let threads = line.decimal_word("20 num_threads")?;
    skip(&mut line, 1)?;
    let start_time = line.decimal_word("22 starttime")?;
    let virtual_size = line.decimal_word("23 vsize")?;
    let resident = line.signed_word("24 rss")?;
    skip(&mut line, 1)?;
    let start_code = line.decimal_word("26 startcode")?;
    let end_code = line.decimal_word("27 endcode")?;
    let start_stack = line.decimal_word("28 startstack")?;
    skip(&mut line, 9)?;
    let exit_signal = line.signed_word("38 exit_signal")?;
    let processor = line.signed_word("39 processor")?;
    let real_time_priority = line.decimal_word("40 rt_priority")?;
    let policy = line.decimal_word("41 policy")?;
    skip(&mut line, 3)?;
    let start_data = line.decimal_word("45 start_data")?;
    let end_data = line.decimal_word("46 end_data")?;
    let start_brk = line.decimal_word("47 start_brk")?;
    let arg_start = line.decimal_word("48 arg_start")?;
    let arg_end = line.decimal_word("49 arg_end")?;
    let env_start = line.decimal_word("50 env_start")?;
    let env_end = line.decimal_word("51 env_end")?;
    let exit_code = line.signed_word("52 exit_code")?;
    Ok(Stat {
        pid,
        comm,
        state,
        parent,
        process_group,
        session,
        terminal,
        terminal_foreground,
        flags,
        user_time,
        system_time,
        children_user_time,
        children_system_time,
        priority,
        nice,
        threads,
        start_time,
        virtual_size,
        resident,
        start_code,
        end_code,
        start_stack,
        exit_signal,
        processor,
        real_time_priority,
        policy,
        start_data,
        end_data,
        start_brk,
        arg_start,
        arg_end,
        env_start,
        env_end,
        exit_code,
    })
}

fn skip(line: &mut Line<'_>, count: usize) -> Result<(), Malformed> {
    for _ in 0..count {
        line.take(b" ");
        // Signed and unsigned, up to 2^64-1.
        line.take(b"-");
        let _: u64 = line.decimal_word("a field that is no number")?;
    }
    Ok(())
}

/// One thread: times are its own.
pub fn read(pid: i32, tid: i32) -> Result<Stat, Error> {
    read_task(pid, tid, FILE, parse)
}

/// The whole process: times are sums over its threads, the rest is the leader's.
pub fn read_process_wide(pid: i32) -> Result<Stat, Error> {
    read_process(pid, FILE, parse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::mutation;

    const GOLDEN: &[u8] = b"12245 (cat) R 12239 12238 2795 34816 -1 4194304 101 0 0 0 3 4 5 6 20 -5 1 0 202785 3133440 380 18446744073709551615 94895768428544 94895768448425 140725278864608 0 0 0 0 0 0 0 0 0 17 1 99 1 0 0 0 94895768464432 94895768466048 94895927562240 140725278866146 140725278866166 140725278866167 140725278867435 0\n";
    // Renamed by prctl(PR_SET_NAME).
    const NAMED: &[u8] = b"1 (a) R\n(\\b) R 0 0 0 0 -1 4194560 3615 7048 8 0 4 1 3 1 20 0 1 0 243028 19140608 3706 18446744073709551615 94477158711296 94477158711637 140725520536000 0 0 0 0 16781312 2 0 0 0 17 1 0 0 0 0 0 94477158722992 94477158723608 94478141198336 140725520537846 140725520537894 140725520537894 140725520539599 0\n";
    const ZOMBIE: &[u8] = b"42 (python3) Z 1 0 0 0 -1 4227148 219 0 0 0 0 0 0 0 20 0 1 0 243039 0 0 18446744073709551615 0 0 0 0 0 0 0 16781312 2 1 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 768\n";

    #[test]
    fn fields_are_where_the_manual_says() {
        let stat = parse(GOLDEN).unwrap();
        assert_eq!((stat.pid, stat.comm.as_slice(), stat.state), (12245, &b"cat"[..], b'R'));
        assert_eq!((stat.parent, stat.process_group, stat.session, stat.terminal), (12239, 12238, 2795, 34816));
        assert_eq!((stat.terminal_foreground, stat.flags), (-1, 4194304));
        assert_eq!((stat.user_time, stat.system_time), (3, 4));
        assert_eq!((stat.children_user_time, stat.children_system_time), (5, 6));
        assert_eq!((stat.priority, stat.nice, stat.threads, stat.start_time), (20, -5, 1, 202785));
        assert_eq!((stat.virtual_size, stat.resident), (3133440, 380));
        assert_eq!(
            (stat.start_code, stat.end_code, stat.start_stack),
            (94895768428544, 94895768448425, 140725278864608)
        );
        assert_eq!((stat.exit_signal, stat.processor, stat.real_time_priority, stat.policy), (17, 1, 99, 1));
        assert_eq!((stat.start_data, stat.end_data, stat.start_brk), (94895768464432, 94895768466048, 94895927562240));
        assert_eq!((stat.arg_start, stat.arg_end), (140725278866146, 140725278866166));
        assert_eq!((stat.env_start, stat.env_end, stat.exit_code), (140725278866167, 140725278867435, 0));
    }

    #[test]
    fn odd_tasks() {
        let named = parse(NAMED).unwrap();
        assert_eq!((named.comm.as_slice(), named.state, named.start_time), (&b"a) R\n(\\b"[..], b'R', 243028));
        let zombie = parse(ZOMBIE).unwrap();
        assert_eq!((zombie.state, zombie.exit_code, zombie.start_code), (b'Z', 3 << 8, 0));
    }

    #[test]
    fn no_mutation_panics() {
        for golden in [GOLDEN, NAMED, ZOMBIE] {
            mutation::try_all(golden, |text| parse(text).is_ok());
        }
    }

    #[test]
    fn own_stat_is_read() {
        let pid = std::process::id() as i32;
        let stat = read(pid, pid).unwrap();
        assert_eq!(stat.pid, pid);
        assert_eq!(read_process_wide(pid).unwrap().start_time, stat.start_time);
        assert_eq!(stat.parent, std::os::unix::process::parent_id() as i32);
        assert!(matches!(read(pid, i32::MAX), Err(Error::Gone)));
    }
}
