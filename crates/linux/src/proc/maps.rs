//! /proc/PID/maps: the areas of an address space.

use super::cursor::{Line, Lines, unescape};
use super::{Error, Malformed, read_process};

/// One line of maps: a virtual memory area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Area {
    /// First address.
    pub start: u64,
    /// First address behind it; more than `start`, and never more than the next area's `start`.
    pub end: u64,
    /// PROT_READ.
    pub read: bool,
    /// PROT_WRITE.
    pub write: bool,
    /// PROT_EXEC.
    pub execute: bool,
    /// MAP_SHARED (`s`); otherwise private (`p`).
    pub shared: bool,
    /// Where in the file the area starts, bytes; 0 for anonymous memory.
    pub offset: u64,
    /// Device of the file.
    pub device_major: u32,
    /// Device of the file.
    pub device_minor: u32,
    /// Inode of the file; 0 when there is none.
    pub inode: u64,
    /// Path as seen from the reader's root, or a name in brackets, or empty. A newline in it, which the kernel prints
    /// as `\012`, is a newline again (a file that really has these four characters in its name reads the same).
    /// The suffix ` (deleted)` is kept.
    pub name: Vec<u8>,
}

const FILE: &str = "maps";
const PAGE: u64 = 4096;

/// What is wrong with a list of which one part was written before a change, and the next one behind it.
pub(super) const TORN: &str = "areas overlap or go backwards";

/// Has a list read again as long as it is torn: where an area has grown over the end of the last one that was written, the kernel
/// begins the next part with all of it. Of a process that maps all the time this happens once in some thousand readings.
pub(super) fn untorn<T>(mut read: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    const READINGS: usize = 20;
    for _ in 1..READINGS {
        match read() {
            Err(Error::Malformed(malformed)) if malformed.why == TORN => {}
            other => return other,
        }
    }
    read()
}

/// Parses the text of maps. Areas come in ascending order and do not overlap.
pub fn parse(text: &[u8]) -> Result<Vec<Area>, Malformed> {
    let mut areas: Vec<Area> = Vec::with_capacity(text.len() / 80);
    let mut previous = 0;
    for mut line in Lines::new(FILE, text)? {
        let area = parse_line(&mut line)?;
        if area.start < previous {
            return Err(line.malformed(TORN));
        }
        previous = area.end;
        areas.push(area);
    }
    Ok(areas)
}

/// Parses the line that maps and smaps have in common.
pub(super) fn parse_line(line: &mut Line<'_>) -> Result<Area, Malformed> {
    let start: u64 = line.hexadecimal("start address")?;
    line.expect(b"-", "no - behind the start address")?;
    let end: u64 = line.hexadecimal("end address")?;
    line.expect(b" ", "no space behind the addresses")?;
    if start >= end || !start.is_multiple_of(PAGE) || !end.is_multiple_of(PAGE) {
        return Err(line.malformed("addresses are not a range of pages"));
    }
    let read = permission(line, b'r')?;
    let write = permission(line, b'w')?;
    let execute = permission(line, b'x')?;
    let shared = match line.byte("sharing")? {
        b's' => true,
        b'p' => false,
        _ => return Err(line.malformed("neither s nor p")),
    };
    line.expect(b" ", "no space behind the permissions")?;
    let offset = line.hexadecimal("offset")?;
    line.expect(b" ", "no space behind the offset")?;
    let device_major = line.hexadecimal("major device number")?;
    line.expect(b":", "no : in the device")?;
    let device_minor = line.hexadecimal("minor device number")?;
    line.expect(b" ", "no space behind the device")?;
    let inode = line.decimal("inode")?;
    if !line.rest().is_empty() {
        line.expect(b" ", "no space behind the inode")?;
    }
    line.blanks();
    // seq_path escapes the newline and nothing else.
    let name = unescape(line.rest(), |byte| byte == b'\n');
    Ok(Area { start, end, read, write, execute, shared, offset, device_major, device_minor, inode, name })
}

fn permission(line: &mut Line<'_>, letter: u8) -> Result<bool, Malformed> {
    match line.byte("permission")? {
        b'-' => Ok(false),
        byte if byte == letter => Ok(true),
        _ => Err(line.malformed("unknown permission")),
    }
}

/// The areas of process `pid`. A zombie or kernel thread has none: empty or [`Error::Gone`], by kernel version.
/// Only of a stopped process are all of the lines from the same moment.
pub fn read(pid: i32) -> Result<Vec<Area>, Error> {
    untorn(|| read_process(pid, FILE, parse))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::mutation;

    const GOLDEN: &[u8] = b"\
55ed2d7bf000-55ed2d7c0000 r--p 00000000 fe:00 18504                      /root/.pyenv/versions/3.11.7/bin/python3.11
55ed2d7c0000-55ed2d7c1000 r-xp 00001000 fe:00 18504                      /root/.pyenv/versions/3.11.7/bin/python3.11
55ed680b9000-55ed682f4000 rw-p 00000000 00:00 0                          [heap]
7f5c18b13000-7f5c18c13000 rw-p 00000000 00:00 0 
7f5c18e71000-7f5c18e73000 rw-s 00000000 00:01 1027                       /dev/zero (deleted)
7f5c19ac2000-7f5c19ac4000 rw-s 1fb90000 fe:00 10035226                   /tmp/tmp0fqnazhe/file with space\\012 (deleted)
7ffd36a79000-7ffd36a9a000 rw-p 00000000 00:00 0                          [stack]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
";

    #[test]
    fn what_is_torn_is_read_again() {
        fn torn<T>(why: &'static str) -> Result<T, Error> {
            Err(Error::Malformed(Malformed { file: FILE, line: 3, why }))
        }
        let mut readings = 0;
        let mut third = || {
            readings += 1;
            if readings < 3 { torn(TORN) } else { Ok(readings) }
        };
        assert_eq!(untorn(&mut third).unwrap(), 3);
        let (mut all, mut other) = (0, 0);
        assert!(
            untorn(|| -> Result<(), Error> {
                all += 1;
                torn(TORN)
            })
            .is_err()
                && all == 20
        );
        assert!(
            untorn(|| -> Result<(), Error> {
                other += 1;
                torn("no inode")
            })
            .is_err()
                && other == 1
        );
    }

    #[test]
    fn areas_that_come_and_go_are_no_error() {
        let over = std::sync::atomic::AtomicBool::new(false);
        let own = std::process::id() as i32;
        let wrong = std::thread::scope(|scope| {
            for bytes in [200_usize << 10, 300 << 10, 1 << 20] {
                let over = &over;
                scope.spawn(move || {
                    while !over.load(std::sync::atomic::Ordering::Relaxed) {
                        drop(std::hint::black_box(vec![1_u8; bytes]));
                    }
                });
            }
            let wrong = (0..500).find_map(|_| crate::proc::smaps::read(own).err().or_else(|| read(own).err()));
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            wrong
        });
        assert_eq!(wrong.map(|error| error.to_string()), None);
    }

    #[test]
    fn areas_of_a_process() {
        let areas = parse(GOLDEN).unwrap();
        assert_eq!(areas.len(), 8);
        assert_eq!(
            areas[1],
            Area {
                start: 0x55ed_2d7c_0000,
                end: 0x55ed_2d7c_1000,
                read: true,
                write: false,
                execute: true,
                shared: false,
                offset: 0x1000,
                device_major: 254,
                device_minor: 0,
                inode: 18504,
                name: b"/root/.pyenv/versions/3.11.7/bin/python3.11".to_vec(),
            }
        );
        assert_eq!(areas[3].name, b"");
        assert_eq!(areas[4].name, b"/dev/zero (deleted)");
        assert_eq!(areas[5].name, b"/tmp/tmp0fqnazhe/file with space\n (deleted)");
        assert!(areas[5].shared && areas[5].offset == 0x1fb9_0000);
        assert_eq!((areas[7].end, areas[7].name.as_slice()), (0xffff_ffff_ff60_1000, &b"[vsyscall]"[..]));
        assert_eq!(parse(b"").unwrap(), []);
    }

    #[test]
    fn wrong_lines_are_refused() {
        for text in [
            &b"2000-1000 r--p 00000000 00:00 0 \n"[..],
            b"1000-1000 r--p 00000000 00:00 0 \n",
            b"1001-2000 r--p 00000000 00:00 0 \n",
            b"1000-2000 r--q 00000000 00:00 0 \n",
            b"1000-2000 rr-p 00000000 00:00 0 \n",
            b"1000-2000 r--p 00000000 00:00 \n",
            b"1000-2000 r--p 00000000 00:00 0",
            b"1000-10000000000000000 r--p 00000000 00:00 0 \n",
            b"1000-3000 r--p 00000000 00:00 0 \n2000-4000 r--p 00000000 00:00 0 \n",
        ] {
            parse(text).unwrap_err();
        }
        let error = parse(b"1000-2000 r--p 00000000 00:00 0 \nx\n").unwrap_err();
        assert_eq!(error.to_string(), "/proc file maps, line 2: start address");
    }

    #[test]
    fn no_mutation_panics() {
        mutation::try_all(GOLDEN, |text| parse(text).is_ok());
    }

    #[test]
    fn own_areas_are_read() {
        let areas = read(std::process::id() as i32).unwrap();
        let here = &raw const areas as u64;
        assert!(areas.iter().any(|area| area.start <= here && here < area.end && area.write));
        assert!(areas.iter().any(|area| area.name == b"[vdso]" && area.execute));
        assert!(matches!(read(i32::MAX), Err(Error::Gone)));
    }

    #[test]
    fn ten_thousand_areas_are_read() {
        let mut text = Vec::new();
        for index in 0..10_000u64 {
            let start = 0x7f5c_0000_0000 + index * 0x2000;
            let end = start + 0x1000;
            text.extend_from_slice(
                format!("{start:x}-{end:x} r-xp 00001000 fe:00 326389                     /usr/lib/x86_64-linux-gnu/libffi.so.8.1.2\n")
                    .as_bytes(),
            );
        }
        let areas = parse(&text).unwrap();
        assert_eq!(areas.len(), 10_000);
        assert_eq!(areas[9_999].start, 0x7f5c_0000_0000 + 9_999 * 0x2000);
        assert!(areas.iter().all(|area| area.end - area.start == 0x1000 && area.execute && !area.write));
    }
}
