//! Reading the same members of the kernel's own record of every file that a process has open (struct file), and of what is behind
//! it, in one go, by a program in the kernel: as [`task_iterator`](crate::task_iterator) does of threads and areas.

use crate::errno::{Errno, Result};
use crate::kernel_types::KernelTypes;
use crate::task_iterator::{Code, POINTER_AT, R, RECORD_BYTES_MAX, Source, attach, begin, room};
use std::io::Read;
use std::os::fd::OwnedFd;

/// st_mode & S_IFMT.
const TYPE_MASK: i32 = 0o170_000;
/// What comes before the copies: number, file, table, marks, mode.
const PROLOGUE_BYTES: u32 = 5 * 8;
const WORD_BITS: i32 = 64;

/// What is copied only of files whose inode is of a type (`st_mode & S_IFMT`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// The type.
    pub file_type: u16,
    /// What.
    pub sources: Vec<Source>,
}

/// A descriptor, and what was copied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenFile {
    /// Its number.
    pub descriptor: i32,
    /// FD_CLOEXEC.
    pub close_on_exec: bool,
    /// The kernel's address of the table of descriptors that it is in.
    pub table: u64,
    /// The kernel's address of the open description.
    pub file: u64,
    /// Type of its inode, as the kernel notes it.
    pub file_type: u16,
    /// The copies in the order of the sources, each in its [`room`], where what is behind its bytes means nothing; those of the
    /// part for its type last.
    pub record: Vec<u8>,
}

/// Where the kernel has what is read of every file.
struct Places {
    inode: u32,
    mode: u32,
    files: u32,
    table: u32,
    marks: u32,
}

impl Places {
    fn of(types: &KernelTypes) -> Option<Places> {
        let of = |structure, member| types.members(structure, [member])?[0].map(|place| place.offset);
        Some(Places {
            inode: of("file", "f_inode")?,
            mode: of("inode", "i_mode")?,
            files: of("task_struct", "files")?,
            table: of("files_struct", "fdt")?,
            marks: of("fdtable", "close_on_exec")?,
        })
    }
}

/// Copies sources to the stack, from a place on, and writes it whenever it is full.
fn take_all(code: &mut Code, sources: &[Source], used: u32) {
    let start = POINTER_AT - RECORD_BYTES_MAX as i32;
    let mut used = used;
    for source in sources {
        if used + room(source.bytes) > RECORD_BYTES_MAX {
            code.write(start, used);
            used = 0;
        }
        code.take(R::Task, source, start + used as i32);
        used += room(source.bytes);
    }
    code.write(start, used);
}

/// The program. Its argument: struct bpf_iter__task_file {meta, task, fd, file}.
fn program(places: &Places, head: &[Source], parts: &[Part]) -> Vec<u64> {
    let start = POINTER_AT - RECORD_BYTES_MAX as i32;
    let mut code = Code(Vec::new());
    code.load(R::Task, R::First, 24);
    code.load(R::Holder, R::First, 8);
    // A word of 32 bits.
    code.put(0x61, R::Number, R::First, 16, 0);
    code.load(R::Output, R::First, 0);
    code.load(R::Output, R::Output, 0);
    // Nothing, at the end of the iteration.
    let over = [code.jump(0x15, R::Task, 0), code.jump(0x15, R::Holder, 0)];
    let store = |code: &mut Code, from: R, at: i32| code.put(0x7b, R::Frame, from, (start + at) as i16, 0);
    store(&mut code, R::Number, 0);
    store(&mut code, R::Task, 8);
    // The word of the bit map that has the descriptor's mark.
    code.copy(R::Third, R::Holder);
    code.follow(places.files);
    store(&mut code, R::Third, 16);
    code.follow(places.table);
    code.follow(places.marks);
    code.put(0x77, R::Number, R::Result, 0, WORD_BITS.ilog2() as i32);
    code.put(0x67, R::Number, R::Result, 0, 3);
    code.put(0x0f, R::Third, R::Number, 0, 0);
    code.read(start + 24, 8);
    code.take(R::Task, &Source { pointers: vec![places.inode], offset: places.mode, bytes: 8 }, start + 32);
    code.load(R::Number, R::Frame, start + 32);
    code.put(0x57, R::Number, R::Result, 0, TYPE_MASK);
    take_all(&mut code, head, PROLOGUE_BYTES);
    for part in parts {
        let over = code.jump(0x55, R::Number, i32::from(part.file_type));
        take_all(&mut code, &part.sources, 0);
        code.land(over);
    }
    over.into_iter().for_each(|jump| code.land(jump));
    code.end()
}

fn length(sources: &[Source]) -> usize {
    sources.iter().map(|source| room(source.bytes) as usize).sum()
}

/// A program in the kernel, ready to read the files of one table.
#[derive(Debug)]
pub struct FileIterator {
    link: OwnedFd,
    head_bytes: usize,
    parts: Vec<(u16, usize)>,
}

impl FileIterator {
    /// Prepares to read every descriptor of the table of a thread, by the thread's number as this process sees it.
    ///
    /// # Errors
    /// EPERM: it takes CAP_BPF and CAP_PERFMON. ENOENT: this kernel has no such iteration. E2BIG: a source is too large.
    pub fn of(tid: i32, types: &KernelTypes, head: &[Source], parts: &[Part]) -> Result<FileIterator> {
        let error = |number| Errno { number, call: "bpf" };
        let all = || head.iter().chain(parts.iter().flat_map(|part| &part.sources));
        if all().any(|source| source.bytes == 0 || source.bytes > RECORD_BYTES_MAX - PROLOGUE_BYTES) {
            return Err(error(libc::E2BIG));
        }
        let target = types.function("bpf_iter_task_file").ok_or(error(libc::ENOENT))?;
        let places = Places::of(types).ok_or(error(libc::ENOENT))?;
        let link = attach(target, &program(&places, head, parts), [tid as u32, 0, 0, 0])?;
        let parts = parts.iter().map(|part| (part.file_type, length(&part.sources))).collect();
        Ok(FileIterator { link, head_bytes: length(head), parts })
    }

    /// Reads of all descriptors that there are now, ascending.
    ///
    /// # Errors
    /// The process is gone; no memory; what the kernel told is cut off.
    pub fn read(&self) -> std::io::Result<Vec<OpenFile>> {
        let mut from = begin(&self.link)?;
        // More than the kernel has ready at once: it hands out whole records then.
        let mut piece = vec![0_u8; 128 << 10];
        let mut found: Vec<OpenFile> = Vec::new();
        loop {
            let count = match from.read(&mut piece) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                count => count?,
            };
            let mut rest = &piece[..count];
            if rest.is_empty() {
                return Ok(found);
            }
            while !rest.is_empty() {
                let cut = || std::io::Error::new(std::io::ErrorKind::InvalidData, "half a record");
                let (file, left) = self.parse(rest).ok_or_else(cut)?;
                // Whoever reads on behind the last one may get them again.
                if found.last().is_some_and(|last| last.descriptor >= file.descriptor) {
                    return Ok(found);
                }
                found.push(file);
                rest = left;
            }
        }
    }

    fn parse<'r>(&self, raw: &'r [u8]) -> Option<(OpenFile, &'r [u8])> {
        let word = |at: usize| raw.get(at * 8..)?.first_chunk().map(|raw| u64::from_le_bytes(*raw));
        let [number, file, table, marks, mode] = [word(0)?, word(1)?, word(2)?, word(3)?, word(4)?];
        let file_type = mode as u16 & TYPE_MASK as u16;
        let part = self.parts.iter().find(|(of, _)| *of == file_type).map_or(0, |(_, bytes)| *bytes);
        let end = PROLOGUE_BYTES as usize + self.head_bytes + part;
        let open = OpenFile {
            descriptor: i32::try_from(number).ok()?,
            close_on_exec: marks >> (number % WORD_BITS as u64) & 1 != 0,
            table,
            file,
            file_type,
            record: raw.get(PROLOGUE_BYTES as usize..end)?.to_vec(),
        };
        Some((open, &raw[end..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file;
    use std::os::fd::{AsFd, AsRawFd};

    #[test]
    fn the_kernels_record_of_every_open_file_is_read() {
        let Ok(types) = KernelTypes::read() else { return println!("skipped: the kernel does not tell its types") };
        let [flags, position] = types.members("file", ["f_flags", "f_pos"]).unwrap();
        let source = |pointers, offset, bytes| Source { pointers, offset, bytes };
        let head = [flags, position].map(|place| source(Vec::new(), place.unwrap().offset, place.unwrap().bytes));
        let [private] = types.members("file", ["private_data"]).unwrap();
        let [readers, writers] = types.members("pipe_inode_info", ["readers", "writers"]).unwrap();
        let of_pipe = [readers, writers].map(|place| source(vec![private.unwrap().offset], place.unwrap().offset, 4));
        // More than a program's stack has room for.
        let long = source(Vec::new(), 0, 160);
        let sources = of_pipe.into_iter().chain([long.clone(), long.clone(), long.clone(), long]).collect();
        let parts = [Part { file_type: 0o010_000, sources }];
        let own = match FileIterator::of(std::process::id() as i32, &types, &head, &parts) {
            Err(error) if error.number == libc::EPERM => return println!("skipped: {error}"),
            other => other.unwrap(),
        };
        let above = |of: &OwnedFd, number| file::duplicate_above(of.as_fd(), number).unwrap();
        let (reader, writer) = crate::pipe::create(0o4000).unwrap();
        let (reader, writer) = (above(&reader, 900), above(&writer, 900));
        let again = above(&reader, 970);
        let text = std::fs::File::open("/proc/self/exe").unwrap();
        let text = above(&text.into(), 900);
        file::seek(text.as_fd(), 77).unwrap();
        let found = own.read().unwrap();
        assert!(found.windows(2).all(|pair| pair[0].descriptor < pair[1].descriptor && pair[0].table == pair[1].table));
        let of = |file: &OwnedFd| found.iter().find(|found| found.descriptor == file.as_raw_fd()).unwrap();
        let word = |file: &OpenFile, at: usize| u32::from_le_bytes(*file.record[at..].first_chunk().unwrap());
        assert_eq!((word(of(&reader), 0), word(of(&writer), 0)), (0o4000, 0o4001));
        assert_eq!((word(of(&reader), 16), word(of(&reader), 24), of(&reader).record.len()), (1, 1, 32 + 4 * 160));
        assert_eq!((word(of(&text), 8), of(&text).record.len()), (77, 16));
        assert_eq!(of(&reader).file, of(&again).file);
        assert_ne!(of(&reader).file, of(&writer).file);
        assert!(of(&reader).close_on_exec, "duplicate_above asks for it");
        assert_eq!(of(&reader).file_type, 0o010_000);
        let numbers: Vec<i32> = found.iter().map(|found| found.descriptor).collect();
        assert!([&reader, &writer, &again, &text].into_iter().all(|file| numbers.contains(&file.as_raw_fd())));
    }
}
