//! Reading the same members of the kernel's own record of every thread of a process (struct task_struct), or of every area of its
//! memory (struct vm_area_struct), in one go, by a program in the kernel (a BPF iterator: Documentation/bpf/bpf_iterators.rst,
//! kernel/bpf/task_iter.c).
//!
//! The program only copies. Where its kernel does not allow it (no types told, no CAP_BPF and CAP_PERFMON, before Linux 6.1),
//! nothing is read and the threads have to be asked.
#![allow(unsafe_code)]

use crate::errno::{Errno, Result, check_int};
use crate::kernel_types::KernelTypes;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const PROG_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;
const ITER_CREATE: libc::c_int = 33;
const PROG_TYPE_TRACING: u32 = 26;
const TRACE_ITER: u32 = 28;
const PROBE_READ_KERNEL: i32 = 113;
const SEQ_WRITE: i32 = 127;
/// What is gone through: the kernel's function that stands for it, and where the program's argument has the record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Iteration {
    Threads,
    Areas,
}

impl Iteration {
    fn function(self) -> &'static str {
        match self {
            Iteration::Threads => "bpf_iter_task",
            Iteration::Areas => "bpf_iter_task_vma",
        }
    }

    /// struct bpf_iter__task {meta, task}, struct bpf_iter__task_vma {meta, task, vma}.
    fn record_at(self) -> i32 {
        match self {
            Iteration::Threads => 8,
            Iteration::Areas => 16,
        }
    }
}

/// The helpers that it calls are for programs with a licence that the kernel knows.
const LICENSE: &[u8] = b"Dual MIT/GPL\0";
/// A program's stack.
const STACK_BYTES: u32 = 512;
/// Its last word, for pointers on the way.
pub(crate) const POINTER_AT: i32 = -8;
/// Most bytes of a record.
pub const RECORD_BYTES_MAX: u32 = STACK_BYTES - 8;

/// What is copied of each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    /// Offsets of pointers to follow, from the record on.
    pub pointers: Vec<u32>,
    /// Offset in what the last pointer points to.
    pub offset: u32,
    /// How many bytes; nothing is told (zeros) where a pointer on the way is null.
    pub bytes: u32,
}

/// Bytes that a copy takes in a record: the beginning of each is aligned to 8.
pub const fn room(bytes: u32) -> u32 {
    bytes.next_multiple_of(8)
}

/// Registers of a program.
#[derive(Clone, Copy)]
pub(crate) enum R {
    Result = 0,
    First = 1,
    Second = 2,
    Third = 3,
    Task = 6,
    Output = 7,
    Number = 8,
    Holder = 9,
    Frame = 10,
}

/// Instructions as Documentation/bpf/standardization/instruction-set.rst has them.
pub(crate) struct Code(pub(crate) Vec<u64>);

impl Code {
    pub(crate) fn put(&mut self, code: u8, to: R, from: R, offset: i16, value: i32) {
        let registers = to as u8 | (from as u8) << 4;
        let [low, high] = offset.to_le_bytes();
        let value = value.to_le_bytes();
        self.0.push(u64::from_le_bytes([code, registers, low, high, value[0], value[1], value[2], value[3]]));
    }

    pub(crate) fn load(&mut self, to: R, from: R, offset: i32) {
        self.put(0x79, to, from, offset as i16, 0);
    }

    pub(crate) fn copy(&mut self, to: R, from: R) {
        self.put(0xbf, to, from, 0, 0);
    }

    pub(crate) fn set(&mut self, to: R, value: i32) {
        self.put(0xb7, to, R::Result, 0, value);
    }

    pub(crate) fn add(&mut self, to: R, value: i32) {
        self.put(0x07, to, R::Result, 0, value);
    }

    pub(crate) fn call(&mut self, helper: i32) {
        self.put(0x85, R::Result, R::Result, 0, helper);
    }

    /// Copies from what the third register points to.
    pub(crate) fn read(&mut self, frame: i32, bytes: u32) {
        self.copy(R::First, R::Frame);
        self.add(R::First, frame);
        self.set(R::Second, bytes as i32);
        self.call(PROBE_READ_KERNEL);
    }

    /// Follows the pointer that lies so far from where the third register points to.
    pub(crate) fn follow(&mut self, offset: u32) {
        self.add(R::Third, offset as i32);
        self.read(POINTER_AT, 8);
        self.load(R::Third, R::Frame, POINTER_AT);
    }

    /// Copies one source, seen from a register, to a place of the stack.
    pub(crate) fn take(&mut self, from: R, source: &Source, frame: i32) {
        self.copy(R::Third, from);
        for pointer in &source.pointers {
            self.follow(*pointer);
        }
        self.add(R::Third, source.offset as i32);
        self.read(frame, room(source.bytes));
    }

    /// Writes the stack from a place on to the sequence.
    pub(crate) fn write(&mut self, frame: i32, bytes: u32) {
        self.copy(R::First, R::Output);
        self.copy(R::Second, R::Frame);
        self.add(R::Second, frame);
        self.set(R::Third, bytes as i32);
        self.call(SEQ_WRITE);
    }

    /// A jump whose end [`Code::land`] decides: where the register has the value (0x15), or has another one (0x55).
    pub(crate) fn jump(&mut self, code: u8, register: R, value: i32) -> usize {
        self.put(code, register, R::Result, 0, value);
        self.0.len() - 1
    }

    /// Where a jump leads to: here.
    pub(crate) fn land(&mut self, jump: usize) {
        let over = (self.0.len() - jump - 1) as i16;
        self.0[jump] |= u64::from(over as u16) << 16;
    }

    /// The end of a program.
    pub(crate) fn end(mut self) -> Vec<u64> {
        self.set(R::Result, 0);
        self.put(0x95, R::Result, R::Result, 0, 0);
        self.0
    }
}

/// The program: its argument comes in the first register, and meta begins with the sequence to write to.
fn program(iteration: Iteration, sources: &[Source], record: u32) -> Vec<u64> {
    let mut code = Code(Vec::new());
    code.load(R::Task, R::First, iteration.record_at());
    code.load(R::Output, R::First, 0);
    code.load(R::Output, R::Output, 0);
    // Nothing, at the end of the iteration.
    let over = code.jump(0x15, R::Task, 0);
    let start = POINTER_AT - record as i32;
    let mut frame = start;
    for source in sources {
        code.take(R::Task, source, frame);
        frame += room(source.bytes) as i32;
    }
    code.write(start, record);
    code.land(over);
    code.end()
}

/// bpf(2) with attributes as an array of words, zeros behind what a command has.
fn bpf(command: libc::c_int, attributes: &[u32; 36]) -> Result<OwnedFd> {
    // SAFETY: the kernel reads 144 bytes of the live array; addresses in it are of buffers that the callers keep.
    let raw = check_int("bpf", unsafe {
        libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(attributes)) as libc::c_int
    })?;
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn put_address<T>(attributes: &mut [u32; 36], at: usize, value: *const T) {
    let address = value as u64;
    (attributes[at], attributes[at + 1]) = (address as u32, (address >> 32) as u32);
}

/// Loads a program for an iteration, and ties it to whom it goes through (union bpf_iter_link_info).
pub(crate) fn attach(target: u32, code: &[u64], information: [u32; 4]) -> Result<OwnedFd> {
    let mut load = [0_u32; 36];
    (load[0], load[1]) = (PROG_TYPE_TRACING, code.len() as u32);
    put_address(&mut load, 2, code.as_ptr());
    put_address(&mut load, 4, LICENSE.as_ptr());
    // expected_attach_type, attach_btf_id of union bpf_attr.
    (load[17], load[27]) = (TRACE_ITER, target);
    let program = bpf(PROG_LOAD, &load)?;
    let mut create = [0_u32; 36];
    (create[0], create[2]) = (program.as_raw_fd() as u32, TRACE_ITER);
    put_address(&mut create, 4, information.as_ptr());
    create[6] = size_of_val(&information) as u32;
    bpf(LINK_CREATE, &create)
}

/// Begins an iteration.
pub(crate) fn begin(link: &OwnedFd) -> Result<File> {
    let mut create = [0_u32; 36];
    create[0] = link.as_raw_fd() as u32;
    bpf(ITER_CREATE, &create).map(File::from)
}

/// A program in the kernel, ready to read the threads or the areas of one process.
#[derive(Debug)]
pub struct TaskIterator {
    link: OwnedFd,
    record: u32,
    iteration: Iteration,
}

impl TaskIterator {
    /// Prepares to read of every thread of a process, by its number as this process sees it.
    ///
    /// # Errors
    /// EPERM: it takes CAP_BPF and CAP_PERFMON. ENOENT: this kernel has no such iteration. E2BIG: records are too large.
    pub fn of(pid: i32, types: &KernelTypes, sources: &[Source]) -> Result<TaskIterator> {
        // union bpf_iter_link_info: its task.pid restricts the iteration to the threads of that process.
        TaskIterator::over(Iteration::Threads, [0, pid as u32, 0, 0], types, sources)
    }

    /// Prepares to read of every area of a process's memory, through one of its threads; in ascending order. The first copy has to be
    /// where the area begins.
    ///
    /// # Errors
    /// As [`TaskIterator::of`].
    pub fn of_areas(tid: i32, types: &KernelTypes, sources: &[Source]) -> Result<TaskIterator> {
        // Its task.tid restricts it to one thread: each of several would tell them all again.
        TaskIterator::over(Iteration::Areas, [tid as u32, 0, 0, 0], types, sources)
    }

    fn over(
        iteration: Iteration,
        information: [u32; 4],
        types: &KernelTypes,
        sources: &[Source],
    ) -> Result<TaskIterator> {
        let number = |number, call| Errno { number, call };
        let record: u32 = sources.iter().map(|source| room(source.bytes)).sum();
        if record > RECORD_BYTES_MAX || sources.iter().any(|source| source.bytes == 0) {
            return Err(number(libc::E2BIG, "bpf"));
        }
        let target = types.function(iteration.function()).ok_or(number(libc::ENOENT, "bpf"))?;
        let code = program(iteration, sources, record);
        Ok(TaskIterator { link: attach(target, &code, information)?, record, iteration })
    }

    /// Reads of all threads or areas that there are now, one record after another, threads in no order: the copies in the order of the sources,
    /// each in its [`room`], where what is behind its bytes means nothing.
    ///
    /// # Errors
    /// The process is gone; no memory.
    pub fn read(&self) -> std::io::Result<Vec<u8>> {
        let mut records = Vec::new();
        let mut file = begin(&self.link)?;
        match self.iteration {
            Iteration::Threads => _ = file.read_to_end(&mut records)?,
            Iteration::Areas => self.read_ascending(&mut file, &mut records)?,
        }
        if records.len().is_multiple_of(self.record as usize) {
            Ok(records)
        } else {
            Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "half a record"))
        }
    }

    /// Whoever reads on behind the last area gets the last ones again, and again (kernel/bpf/task_iter.c, of one thread).
    fn read_ascending(&self, file: &mut File, records: &mut Vec<u8>) -> std::io::Result<()> {
        // More than the kernel has ready at once: it hands out whole records then.
        let mut piece = vec![0_u8; 128 << 10];
        let key = |record: &[u8]| record.first_chunk().map(|raw| u64::from_le_bytes(*raw));
        let mut last = None;
        loop {
            let count = match file.read(&mut piece) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                count => count?,
            };
            let first = key(&piece[..count]);
            if count == 0 || first <= last {
                return Ok(());
            }
            records.extend_from_slice(&piece[..count]);
            last = records.len().checked_sub(self.record as usize).and_then(|at| key(&records[at..]));
        }
    }

    /// Bytes of a record.
    pub fn record_bytes(&self) -> usize {
        self.record as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_record_of_every_area_is_read() {
        let Ok(types) = KernelTypes::read() else { return println!("skipped: the kernel does not tell its types") };
        let places = types.members("vm_area_struct", ["vm_start", "vm_end", "vm_flags"]).unwrap();
        let source =
            |place: crate::kernel_types::Place| Source { pointers: Vec::new(), offset: place.offset, bytes: 8 };
        let sources = places.map(|place| source(place.unwrap()));
        let own = match TaskIterator::of_areas(std::process::id() as i32, &types, &sources) {
            Err(error) if error.number == libc::EPERM => return println!("skipped: {error}"),
            other => other.unwrap(),
        };
        let records = own.read().unwrap();
        let word = |record: &[u8], at: usize| u64::from_le_bytes(*record[at * 8..].first_chunk().unwrap());
        let vdso = crate::proc::maps::read(std::process::id() as i32).unwrap();
        let vdso = vdso.into_iter().find(|area| area.name == b"[vdso]").unwrap();
        let found = records.chunks_exact(own.record_bytes()).find(|record| word(record, 0) == vdso.start).unwrap();
        assert_eq!(word(found, 1), vdso.end);
        // VM_READ, VM_EXEC.
        assert_eq!(word(found, 2) & 7, 5);
    }

    #[test]
    fn the_kernels_record_of_every_thread_is_read() {
        let types = match KernelTypes::read() {
            Ok(types) => types,
            Err(error) => {
                println!("skipped: the kernel does not tell its types: {error}");
                return;
            }
        };
        let [name, leader] = types.members("task_struct", ["comm", "group_leader"]).unwrap();
        let [name, leader] = [name.unwrap(), leader.unwrap()];
        let copies = [
            Source { pointers: Vec::new(), offset: name.offset, bytes: name.bytes },
            Source { pointers: vec![leader.offset], offset: name.offset, bytes: name.bytes },
            // Of what is no address nothing is read.
            Source { pointers: vec![name.offset], offset: 0, bytes: 3 },
        ];
        let own = match TaskIterator::of(std::process::id() as i32, &types, &copies) {
            Err(error) if error.number == libc::EPERM => {
                println!("skipped: {error}");
                return;
            }
            other => other.unwrap(),
        };
        let named = std::thread::Builder::new().name("seen by kernel".to_owned());
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let thread = named.spawn(move || receiver.recv()).unwrap();
        let records = loop {
            let records = own.read().unwrap();
            if records.windows(14).any(|bytes| bytes == b"seen by kernel") {
                break records;
            }
            std::thread::yield_now();
        };
        let record = records.chunks_exact(own.record_bytes()).find(|record| record.starts_with(b"seen by kernel\0"));
        let comm = std::fs::read("/proc/self/comm").unwrap();
        assert_eq!(record.unwrap()[16..].iter().position(|byte| *byte == 0), Some(comm.len() - 1));
        assert!(record.unwrap()[16..].starts_with(&comm[..comm.len() - 1]));
        drop(sender);
        let _ = thread.join().unwrap();
        let large = Source { pointers: Vec::new(), offset: 0, bytes: RECORD_BYTES_MAX + 1 };
        assert_eq!(TaskIterator::of(1, &types, &[large]).unwrap_err().number, libc::E2BIG);
        let Err(error) = TaskIterator::of(i32::MAX - 1, &types, &copies[..1]).and_then(|gone| {
            gone.read().map(drop).map_err(|error| Errno { number: error.raw_os_error().unwrap_or(0), call: "read" })
        }) else {
            return;
        };
        assert_ne!(error.number, 0);
    }
}
