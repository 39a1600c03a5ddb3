//! /proc/PID/smaps: the flags of each area of an address space, which maps does not show.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};

use super::cursor::Lines;
use super::repetition::Repetitions;
use super::{BUFFER, Error, FIRST_PIECE, KEPT, Malformed, Subject, maps};

/// What smaps says of one area beyond maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AreaFlags {
    /// The area's first line, as in [`maps`].
    pub area: maps::Area,
    /// `VmFlags`
    pub flags: Flags,
    /// Codes in `VmFlags` that are not known here: an area with one cannot be said to be carried whole.
    pub unknown: Vec<[u8; 2]>,
    /// `ProtectionKey`; absent on processors without them.
    pub protection_key: Option<u32>,
    /// `KernelPageSize`, bytes: 4096 but for hugetlb.
    pub kernel_page_size: u64,
    /// `Shared_Clean` and `Shared_Dirty`, bytes: pages that other address spaces have, too.
    pub shared_bytes: u64,
}

/// A set of VmFlags codes.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(u64);

macro_rules! codes {
    ($($index:literal $code:literal $name:ident $doc:literal;)*) => {
        impl Flags {
            $(#[doc = concat!("`", $code, "`: ", $doc)] pub const $name: Flags = Flags(1 << $index);)*
        }

        /// Every code that is known, with its flag.
        const CODES: &[(&str, Flags)] = &[$(($code, Flags::$name)),*];

        fn flag_of(code: &[u8]) -> Option<Flags> {
            let code = <[u8; 2]>::try_from(code).ok()?;
            $(if code == *$code.as_bytes() { return Some(Flags::$name); })*
            None
        }
    };
}

// show_smap_vma_flags in fs/proc/task_mmu.c, of Linux 6.18.44; `mt`, `bt` and `ar` are of arm64.
codes! {
    0 "rd" READ "readable";
    1 "wr" WRITE "writable";
    2 "ex" EXECUTE "executable";
    3 "sh" SHARED "shared";
    4 "mr" MAY_READ "mprotect may add PROT_READ";
    5 "mw" MAY_WRITE "mprotect may add PROT_WRITE";
    6 "me" MAY_EXECUTE "mprotect may add PROT_EXEC";
    7 "ms" MAY_SHARE "may be shared";
    8 "gd" GROWS_DOWN "grows down (MAP_GROWSDOWN, stack)";
    9 "pf" PAGE_FRAMES "page frames without struct page (vvar, devices)";
    10 "lo" LOCKED "mlock";
    11 "io" DEVICE_MEMORY "memory of a device";
    12 "sr" SEQUENTIAL "MADV_SEQUENTIAL";
    13 "rr" RANDOM "MADV_RANDOM";
    14 "dc" DO_NOT_COPY "MADV_DONTFORK";
    15 "de" DO_NOT_EXPAND "mremap may not expand it";
    16 "lf" LOCK_ON_FAULT "MLOCK_ONFAULT";
    17 "ac" ACCOUNTED "counts against the commit limit";
    18 "nr" NO_RESERVE "MAP_NORESERVE";
    19 "ht" HUGETLB "hugetlb pages";
    20 "sf" SYNCHRONOUS_FAULT "MAP_SYNC";
    21 "ar" ARCHITECTURE "of the architecture";
    22 "wf" WIPE_ON_FORK "MADV_WIPEONFORK";
    23 "dd" DO_NOT_DUMP "MADV_DONTDUMP";
    24 "sd" SOFT_DIRTY "soft-dirty since clear_refs";
    25 "mm" MIXED "page frames and pages";
    26 "hg" HUGE_PAGE "MADV_HUGEPAGE";
    27 "nh" NO_HUGE_PAGE "MADV_NOHUGEPAGE";
    28 "mg" MERGEABLE "MADV_MERGEABLE (KSM)";
    29 "um" USERFAULT_MISSING "registered with a userfaultfd: missing";
    30 "uw" USERFAULT_WRITE_PROTECT "registered with a userfaultfd: write-protect";
    31 "ui" USERFAULT_MINOR "registered with a userfaultfd: minor";
    32 "ss" SHADOW_STACK "shadow stack";
    33 "sl" SEALED "mseal";
    34 "dp" DROPPABLE "MAP_DROPPABLE";
    35 "gu" MAYBE_GUARD "has or had guard pages";
    36 "mt" MEMORY_TAGS "PROT_MTE";
    37 "bt" BRANCH_TARGETS "PROT_BTI";
}

impl Flags {
    /// Whether all of `other` are in this set.
    pub fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Those that are not in `other`.
    #[must_use]
    pub fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }

    /// The codes of the set, as the kernel prints them.
    pub fn codes(self) -> impl Iterator<Item = &'static str> {
        CODES.iter().filter(move |(_, flag)| self.contains(*flag)).map(|(code, _)| *code)
    }
}

impl std::ops::BitOr for Flags {
    type Output = Flags;

    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.codes()).finish()
    }
}

const FILE: &str = "smaps";

/// An area whose lines are not all read.
struct Partial {
    area: maps::Area,
    unknown: Vec<[u8; 2]>,
    told: Told,
}

/// What the lines behind the first one have told.
#[derive(Clone, Copy, Default)]
struct Told {
    flags: Option<Flags>,
    protection_key: Option<u32>,
    kernel_page_size: Option<u64>,
    shared_bytes: u64,
}

/// Takes the text in pieces, because smaps has about 1 KB per area: 60 MB for as many as a process may have.
#[derive(Default)]
struct Parser {
    areas: Vec<AreaFlags>,
    current: Option<Partial>,
    lines: usize,
    repetitions: Repetitions<Told>,
}

impl Parser {
    /// Takes some whole lines.
    fn feed(&mut self, text: &[u8]) -> Result<(), Malformed> {
        let mut lines = Lines::continued(FILE, text, self.lines)?;
        // Where the lines of the current area begin, if they are all here and were not known.
        let mut begin = None;
        loop {
            let here = text.len() - lines.rest().len();
            let Some(mut line) = lines.next() else { break };
            // Addresses are printed in lower case, every key begins in upper case.
            if let [b'0'..=b'9' | b'a'..=b'f', ..] = line.rest() {
                if let (Some(begin), Some(current)) = (begin.take(), &self.current)
                    && current.unknown.is_empty()
                {
                    self.repetitions.keep(&text[begin..here], current.told);
                }
                self.close(|why| line.malformed(why))?;
                let area = maps::parse_line(&mut line)?;
                if self.areas.last().is_some_and(|previous| area.start < previous.area.end) {
                    return Err(line.malformed(maps::TORN));
                }
                let told = match self.repetitions.told(lines.rest()) {
                    Some((told, length, count)) => {
                        lines.pass_over(length, count);
                        told
                    }
                    None => {
                        begin = Some(text.len() - lines.rest().len());
                        Told::default()
                    }
                };
                self.current = Some(Partial { area, unknown: Vec::new(), told });
                continue;
            }
            let Some(current) = &mut self.current else { return Err(line.malformed("no area before this line")) };
            match line.before(b':') {
                Some(b"VmFlags") => {
                    if current.told.flags.is_some() {
                        return Err(line.malformed("the line is there twice"));
                    }
                    let mut flags = Flags::default();
                    while !line.at_end() {
                        let code = line.word();
                        match (flag_of(code), <[u8; 2]>::try_from(code)) {
                            (Some(flag), _) => flags = flags | flag,
                            (None, Ok(code)) => current.unknown.push(code),
                            (None, Err(_)) => return Err(line.malformed("a code has not two letters")),
                        }
                    }
                    current.told.flags = Some(flags);
                }
                Some(b"ProtectionKey") => current.told.protection_key = Some(line.decimal_word("protection key")?),
                Some(b"KernelPageSize") => {
                    let size = line.kibibytes()?;
                    if !size.is_power_of_two() {
                        return Err(line.malformed("the page size is no power of two"));
                    }
                    current.told.kernel_page_size = Some(size);
                }
                Some(b"Shared_Clean" | b"Shared_Dirty") => {
                    current.told.shared_bytes = current.told.shared_bytes.saturating_add(line.kibibytes()?);
                }
                Some(_) => {}
                None => return Err(line.malformed("no : behind the name")),
            }
        }
        self.lines = lines.number();
        Ok(())
    }

    fn close(&mut self, malformed: impl Fn(&'static str) -> Malformed) -> Result<(), Malformed> {
        let Some(Partial { area, unknown, told }) = self.current.take() else { return Ok(()) };
        let Told { flags, protection_key, kernel_page_size, shared_bytes } = told;
        let flags = flags.ok_or_else(|| malformed("an area without VmFlags"))?;
        let kernel_page_size = kernel_page_size.ok_or_else(|| malformed("an area without KernelPageSize"))?;
        self.areas.push(AreaFlags { area, flags, unknown, protection_key, kernel_page_size, shared_bytes });
        Ok(())
    }

    /// Whether an area has come that starts behind an address; forgets all such areas.
    fn ends_at(&mut self, address: u64) -> bool {
        let is_behind = self.current.as_ref().is_some_and(|current| current.area.start >= address);
        if is_behind {
            self.areas.truncate(self.areas.partition_point(|area| area.area.start < address));
        }
        is_behind
    }

    fn finish(mut self) -> Result<Vec<AreaFlags>, Malformed> {
        let line = self.lines;
        self.close(|why| Malformed { file: FILE, line, why })?;
        Ok(self.areas)
    }
}

/// Parses the text of smaps; areas come in ascending order of `start`.
pub fn parse(text: &[u8]) -> Result<Vec<AreaFlags>, Malformed> {
    let mut parser = Parser::default();
    parser.feed(text)?;
    parser.finish()
}

/// The area that begins at `start`.
pub fn find(areas: &[AreaFlags], start: u64) -> Option<&AreaFlags> {
    areas.binary_search_by_key(&start, |found| found.area.start).ok().and_then(|index| areas.get(index))
}

/// The areas of process `pid`: about ten times the cost of [`maps::read`].
pub fn read(pid: i32) -> Result<Vec<AreaFlags>, Error> {
    read_before(pid, u64::MAX)
}

/// Those of its areas that start before an address.
pub fn read_before(pid: i32, end: u64) -> Result<Vec<AreaFlags>, Error> {
    let subject = Subject::Process(pid);
    maps::untorn(|| read_some(pid, &mut subject.open(&subject.path(FILE))?, end))
}

fn read_some(pid: i32, file: &mut File, end: u64) -> Result<Vec<AreaFlags>, Error> {
    let subject = Subject::Process(pid);
    let mut buffer = BUFFER.take();
    let result = read_pieces(file, &mut buffer, end, |error| subject.error(&subject.path(FILE), error));
    if buffer.len() <= KEPT {
        BUFFER.set(buffer);
    }
    result
}

/// The list of a process, opened and read up to some area. The kernel keeps for whoever reads at which address he goes on, and there
/// is no other way to get there: with this one a second reader begins in the middle.
#[derive(Debug)]
pub struct Rest {
    pid: i32,
    file: File,
    start: u64,
}

impl Rest {
    /// Reads the first areas of a process, so many or a few more. `None`: there is none behind them.
    pub fn behind(pid: i32, areas: usize) -> Result<Option<Rest>, Error> {
        /// The kernel keeps no more text than this in advance, and thus none: what comes later is written later.
        const READ_BYTES: usize = 64 << 10;
        let subject = Subject::Process(pid);
        let mut file = subject.open(&subject.path(FILE))?;
        let mut buffer = vec![0; READ_BYTES];
        let mut parser = Parser::default();
        while parser.areas.len() + usize::from(parser.current.is_some()) < areas {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(count) => parser.feed(&buffer[..count])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(subject.error(&subject.path(FILE), error)),
            }
        }
        Ok(parser.finish()?.last().map(|last| Rest { pid, file, start: last.area.end }))
    }

    /// Where the areas that were read end: what lies before is not told.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The areas behind, of the address space that the process had at first, as they are now. On some kernels an area that began
    /// to be between those that were read and the next one is not among them.
    pub fn read(mut self) -> Result<Vec<AreaFlags>, Error> {
        let mut areas = read_some(self.pid, &mut self.file, u64::MAX)?;
        areas.retain(|area| area.area.start >= self.start);
        Ok(areas)
    }
}

/// Bytes that are asked for at once. The kernel writes whole areas into a page until that much is there; one that does not fit into
/// the page any more it writes again for the next read, and to write a large one it looks at every page of it. An area takes 1 KiB.
const READ_BYTES_MAX: usize = 2816;

/// The length of the whole areas at the beginning of a text, or, where there are none, of the whole lines: all is the same to the
/// parser, but what is not cut it knows again.
fn whole_areas(text: &[u8]) -> usize {
    const LAST: &[u8] = b"\nVmFlags:";
    let end = |from: usize| text[from..].iter().position(|byte| *byte == b'\n').map(|newline| from + newline + 1);
    let lasts = (0..text.len().saturating_sub(LAST.len())).rev().filter(|at| text[*at..].starts_with(LAST));
    let areas = lasts.filter_map(|at| end(at + 1)).next();
    areas.unwrap_or_else(|| text.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1))
}

fn read_pieces(
    file: &mut impl Read,
    buffer: &mut Vec<u8>,
    end: u64,
    explain: impl Fn(io::Error) -> Error,
) -> Result<Vec<AreaFlags>, Error> {
    let mut parser = Parser::default();
    // The length of the unfinished line at the front of the buffer.
    let mut kept = 0;
    loop {
        if kept == buffer.len() {
            buffer.resize((buffer.len() * 2).max(FIRST_PIECE), 0);
        }
        let room = (buffer.len() - kept).min(READ_BYTES_MAX);
        let filled = match file.read(&mut buffer[kept..kept + room]) {
            Ok(0) => break,
            Ok(count) => kept + count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(explain(error)),
        };
        let whole = whole_areas(&buffer[..filled]);
        parser.feed(&buffer[..whole])?;
        if parser.ends_at(end) {
            return Ok(parser.areas);
        }
        buffer.copy_within(whole..filled, 0);
        kept = filled - whole;
    }
    // A line without an end is refused here.
    parser.feed(&buffer[..kept])?;
    let mut areas = parser.finish()?;
    areas.truncate(areas.partition_point(|area| area.area.start < end));
    Ok(areas)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::mutation;

    const GOLDEN: &[u8] = include_bytes!("golden/smaps");

    #[test]
    fn flags_of_a_process() {
        let areas = parse(GOLDEN).unwrap();
        assert_eq!(areas.len(), 30);
        assert!(areas.iter().all(|area| area.unknown.is_empty() && area.kernel_page_size == 4096));
        // Each area of the program that made the sample has one thing of its own (tests of mmap and madvise in order).
        let private = Flags::READ | Flags::WRITE | Flags::MAY_READ | Flags::MAY_WRITE | Flags::MAY_EXECUTE;
        let accounted = private | Flags::ACCOUNTED;
        let expected = [
            (1, accounted | Flags::DO_NOT_COPY),
            (2, accounted | Flags::WIPE_ON_FORK),
            (3, accounted | Flags::DO_NOT_DUMP),
            (4, accounted | Flags::HUGE_PAGE),
            (5, accounted | Flags::NO_HUGE_PAGE),
            (6, accounted | Flags::MERGEABLE),
            (7, accounted | Flags::SEQUENTIAL),
            (8, accounted | Flags::RANDOM),
            (9, accounted | Flags::LOCKED),
            (10, accounted | Flags::LOCKED | Flags::LOCK_ON_FAULT),
            (11, accounted | Flags::GROWS_DOWN),
            (12, private | Flags::NO_RESERVE),
            (14, private | Flags::NO_RESERVE | Flags::WIPE_ON_FORK | Flags::DO_NOT_DUMP | Flags::DROPPABLE),
            (15, accounted | Flags::USERFAULT_MISSING | Flags::USERFAULT_WRITE_PROTECT),
            (18, private | Flags::SHARED | Flags::MAY_SHARE),
            (19, accounted | Flags::MAYBE_GUARD),
        ];
        for (index, flags) in expected {
            let area = find(&areas, 0x1000_0000_0000 + index * 0x100_0000).unwrap();
            assert_eq!(area.flags, flags, "area {index}");
        }
        let sealed = find(&areas, 0x1000_0d00_0000).unwrap();
        assert_eq!(sealed.flags.codes().collect::<Vec<_>>(), ["rd", "mr", "mw", "me", "sl"]);
        let vvar = find(&areas, 0x7f6c_d511_5000).unwrap();
        assert!(vvar.flags.contains(Flags::PAGE_FRAMES | Flags::DEVICE_MEMORY | Flags::DO_NOT_EXPAND));
    }

    #[test]
    fn hugetlb_and_protection_keys() {
        // Written after show_smap and arch_show_smap: the machine of the sample has neither.
        let text =
            b"7f0000000000-7f0000200000 rw-s 00000000 00:0f 45                         /anon_hugepage (deleted)\n\
            Size:               2048 kB\nKernelPageSize:     2048 kB\nMMUPageSize:        2048 kB\n\
            THPeligible:           1\nProtectionKey:         3\nVmFlags: rd wr sh mr mw me ms de ht \n";
        let areas = parse(text).unwrap();
        assert_eq!((areas[0].kernel_page_size, areas[0].protection_key), (2 << 20, Some(3)));
        assert!(areas[0].flags.contains(Flags::HUGETLB | Flags::SHARED));
        assert_eq!(find(&areas, 0x7f00_0000_1000), None);
    }

    #[test]
    fn any_cut_into_pieces_gives_the_same() {
        let whole = parse(GOLDEN).unwrap();
        for size in [1, 7, 100, 1023, 4096] {
            let mut pieces = Pieces { rest: GOLDEN, size };
            assert_eq!(read_pieces(&mut pieces, &mut Vec::new(), u64::MAX, Error::Io).unwrap(), whole);
        }
        let mut cut = Pieces { rest: &GOLDEN[..GOLDEN.len() - 1], size: 100 };
        assert!(matches!(read_pieces(&mut cut, &mut Vec::new(), u64::MAX, Error::Io), Err(Error::Malformed(_))));
    }

    #[test]
    fn an_end_leaves_out_what_starts_behind_it() {
        let whole = parse(GOLDEN).unwrap();
        for size in [7, 1023, 4096] {
            for count in [0, 1, 15, 29, 30] {
                let end = whole.get(count).map_or(u64::MAX, |area| area.area.start);
                let mut pieces = Pieces { rest: GOLDEN, size };
                let some = read_pieces(&mut pieces, &mut Vec::new(), end, Error::Io).unwrap();
                assert_eq!(some, whole[..count]);
            }
        }
    }

    /// Memory of which every second page cannot be written: each is an area.
    #[allow(unsafe_code)]
    fn striped(pages: usize) -> u64 {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping of our own, which stays; only its own pages are protected.
        unsafe {
            let memory = libc::mmap(std::ptr::null_mut(), pages * 4096, protection, flags, -1, 0);
            assert_ne!(memory, libc::MAP_FAILED);
            for page in (1..pages).step_by(2) {
                assert_eq!(libc::mprotect(memory.byte_add(page * 4096), 4096, libc::PROT_READ), 0);
            }
            memory as u64
        }
    }

    #[allow(unsafe_code)]
    fn exclude_from_dumps(start: u64, pages: usize) {
        // SAFETY: it changes what a dump of us has of this memory, and nothing else.
        assert_eq!(unsafe { libc::madvise(start as *mut _, pages * 4096, libc::MADV_DONTDUMP) }, 0);
    }

    #[test]
    fn who_goes_on_from_the_middle_sees_what_is_there_now() {
        const PAGES: usize = 400;
        let start = striped(PAGES);
        let end = start + PAGES as u64 * 4096;
        let pid = std::process::id() as i32;
        let before = read(pid).unwrap().iter().filter(|area| area.area.end <= start).count();
        let rest = Rest::behind(pid, before + PAGES / 2).unwrap().unwrap();
        assert!(start < rest.start() && rest.start() < end);
        exclude_from_dumps(start, PAGES);
        let middle = rest.start();
        let mut seen = read_before(pid, middle).unwrap();
        seen.extend(rest.read().unwrap());
        // Other tests map things meanwhile, but none of them here.
        seen.retain(|area| start < area.area.end && area.area.start < end);
        let areas: Vec<u64> = seen.iter().map(|area| area.area.start).collect();
        assert_eq!(areas, (start..end).step_by(4096).collect::<Vec<_>>());
        assert!(seen.iter().all(|area| area.flags.contains(Flags::DO_NOT_DUMP)));
    }

    struct Pieces<'a> {
        rest: &'a [u8],
        size: usize,
    }

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.size.min(buffer.len());
            self.rest.read(&mut buffer[..count])
        }
    }

    #[test]
    fn an_unknown_code_is_kept() {
        let text = b"1000-2000 r--p 00000000 00:00 0 \nKernelPageSize:        4 kB\nVmFlags: rd zz ?? \n";
        let areas = parse(text).unwrap();
        assert_eq!((areas[0].flags, areas[0].unknown.as_slice()), (Flags::READ, &[*b"zz", *b"??"][..]));
        parse(b"1000-2000 r--p 00000000 00:00 0 \nKernelPageSize:        4 kB\n").unwrap_err();
        parse(b"VmFlags: rd \n").unwrap_err();
    }

    #[test]
    fn no_mutation_panics() {
        mutation::try_all(GOLDEN, |text| parse(text).is_ok());
    }

    #[test]
    fn own_areas_are_read() {
        let pid = std::process::id() as i32;
        let here = Box::new(0u8);
        let here = &raw const *here as u64;
        let areas = read(pid).unwrap();
        let area = areas.iter().find(|found| found.area.start <= here && here < found.area.end).unwrap();
        assert!(area.flags.contains(Flags::READ | Flags::WRITE) && area.unknown.is_empty());
        assert_eq!(find(&areas, area.area.start), Some(area));
        assert!(areas.iter().all(|area| area.unknown.is_empty()), "{areas:?}");
        assert!(matches!(read(i32::MAX), Err(Error::Gone)));
    }
}
