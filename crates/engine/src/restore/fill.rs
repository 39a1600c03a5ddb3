//! Putting bytes into address spaces and contents that are being built.
use super::Restorer;
use super::joined::{self, Joined};
use super::make::Sink;
use crate::failure::{About, Result};
use godwit_image::memory::{Area, AreaFlags, Backing, PAGE_BYTES};
use godwit_image::page_set::{PageSet, Run};
use godwit_image::{Code, ObjectId, Pid, Refusal, Subject};
use godwit_linux::memory::{self, ForeignAddress, ForeignMemory};
use godwit_linux::memory_file;
use godwit_linux::pidfd::{ForeignDescriptor, PidFd};
use godwit_linux::program::Program;
use godwit_linux::userfaultfd::{self, UserFault};
use godwit_linux::{message, scheduling};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

/// Most ranges of one process_vm_writev(2) call.
const RANGES_MAX: usize = 1024;
/// Least bytes of one write, and of an area, for which placing pages is set up: it costs some 100 µs once.
const PLACED_BYTES_MIN: usize = 256 << 10;
const SYS_CLOSE: i64 = 3;
const EFAULT: i32 = 14;
const EEXIST: i32 = 17;
const EAGAIN: i32 = 11;

/// Writes into one address space.
#[derive(Debug)]
pub(super) struct Filler {
    pid: i32,
    memory: ForeignMemory,
    placement: Placement,
    /// What the process itself may not write.
    protected: PageSet,
}

/// How pages of private anonymous memory come in: placed whole (userfaultfd) where that was set up, since nothing has to
/// be zeroed before and no fault taken; written like by a debugger everywhere else.
#[derive(Debug)]
enum Placement {
    /// Not worth it so far.
    Untried,
    /// These ranges are registered, in order. Neighbours stay apart: pages cannot be placed across the border of two areas.
    Ready(UserFault, Vec<Run>),
    /// The kernel has none for us.
    Unavailable,
}

impl Filler {
    /// `joined`: areas that can all be written for the time being.
    pub(super) fn open(pid: Pid, areas: &[Area], joined: &[Joined]) -> Result<Filler> {
        const WRITE: u32 = 2;
        let memory = ForeignMemory::open(pid.0).about(|| Subject::Process(pid.0))?;
        let protected = areas.iter().filter(|area| area.protection & WRITE == 0 && joined::of(joined, area).is_none());
        let protected = protected.map(|area| Run { start: area.start, end: area.end }).collect();
        Ok(Filler { pid: pid.0, memory, placement: Placement::Untried, protected })
    }

    /// Joined areas have their own protections now.
    pub(super) fn part(&mut self, groups: &[Joined]) {
        for (run, _) in groups.iter().flat_map(|group| &group.parts) {
            self.protected.insert(*run);
        }
    }

    /// Writes ranges one after another.
    pub(super) fn write(&mut self, ranges: &[(u64, usize)], bytes: &[u8]) -> Result<()> {
        let mut left: Vec<(u64, &[u8])> = Vec::with_capacity(ranges.len());
        let mut offset = 0;
        for (start, length) in ranges {
            let (mut at, end) = (*start, start + *length as u64);
            while at < end {
                let part = offset + (at - start) as usize;
                let (stop, placed) = match &self.placement {
                    Placement::Ready(fault, registered) => match next(registered, at, end) {
                        (stop, true) => {
                            let done = self.place(fault, at, &bytes[part..part + (stop - at) as usize])?;
                            (at + done as u64, done > 0)
                        }
                        other => other,
                    },
                    Placement::Untried | Placement::Unavailable => (end, false),
                };
                // A page that exists already is written over.
                let stop = if stop == at { (at + PAGE_BYTES).min(end) } else { stop };
                if !placed {
                    left.push((at, &bytes[part..part + (stop - at) as usize]));
                }
                at = stop;
            }
            offset += length;
        }
        self.write_over(&left)
    }

    /// Places pages that do not exist yet; returns how many bytes from the start were.
    fn place(&self, fault: &UserFault, address: u64, bytes: &[u8]) -> Result<usize> {
        let mut done = 0;
        while done < bytes.len() {
            match fault.copy(address + done as u64, &bytes[done..]) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.number == EEXIST => break,
                Err(error) if error.number == EAGAIN => {}
                Err(error) => {
                    let subject = || Subject::Mapping(self.pid, address + done as u64, "page contents".to_owned());
                    return Err(error).about(subject);
                }
            }
        }
        Ok(done)
    }

    /// Writes as a debugger does: many parts at once where the process itself may write, one by one through /proc/PID/mem,
    /// which asks for no permission, everywhere else.
    fn write_over(&self, parts: &[(u64, &[u8])]) -> Result<()> {
        let mut writable: Vec<(u64, &[u8])> = Vec::with_capacity(parts.len());
        for (start, bytes) in parts {
            let (mut at, end) = (*start, start + bytes.len() as u64);
            while at < end {
                let (stop, protected) = next(self.protected.runs(), at, end);
                let part = &bytes[(at - start) as usize..(stop - start) as usize];
                if protected {
                    self.write_anyway(at, part)?;
                } else {
                    writable.push((at, part));
                }
                at = stop;
            }
        }
        for chunk in writable.chunks(RANGES_MAX) {
            let mut written = match memory::scatter(self.pid, chunk) {
                Ok(written) => written,
                Err(error) if error.number == EFAULT => 0,
                Err(error) => return Err(error).about(|| Subject::Process(self.pid)),
            };
            // What process_vm_writev left out.
            for (start, bytes) in chunk {
                let skip = written.min(bytes.len());
                written -= skip;
                if skip < bytes.len() {
                    self.write_anyway(start + skip as u64, &bytes[skip..])?;
                }
            }
        }
        Ok(())
    }

    fn write_anyway(&self, start: u64, bytes: &[u8]) -> Result<()> {
        let subject = || Subject::Mapping(self.pid, start, String::from("page contents"));
        self.memory.write(ForeignAddress(start), bytes).about(subject)
    }
}

/// Up to where from `at` on (at most `end`) the pages are all in one run, or in none; and which of it.
fn next(runs: &[Run], at: u64, end: u64) -> (u64, bool) {
    match runs.get(runs.partition_point(|run| run.end <= at)) {
        Some(run) if run.start <= at => (run.end.min(end), true),
        Some(run) => (run.start.min(end), false),
        None => (end, false),
    }
}

impl Restorer {
    /// Has the task that is to receive pages of a space keep off a processor, on which somebody may be sending, until all is complete.
    pub fn keep_off(&mut self, owner: ObjectId, processor: u32) {
        if self.kept_off.replace(processor) != Some(processor)
            && let Ok(pid) = self.owner_of(owner)
        {
            // It only saves time.
            let _ = scheduling::keep_off(pid.0, processor);
        }
    }

    /// Has the task of a space read bytes from a socket straight into ranges of its memory, which it may write itself. `socket` is
    /// the number that it has in our table, and calls on it wait. Returns the bytes that came, which are fewer when the socket's
    /// time is over, or what the socket says.
    ///
    /// # Errors
    /// The space is unknown, or its task died.
    pub fn receive(
        &mut self,
        owner: ObjectId,
        ranges: &[(u64, usize)],
        socket: i32,
    ) -> Result<std::result::Result<usize, godwit_linux::Errno>> {
        self.ready_to_write(owner)?;
        let filled = self.filled.entry(owner).or_default();
        for (start, length) in ranges {
            // A page whose first part has come comes whole.
            let end = start.saturating_add(*length as u64).next_multiple_of(PAGE_BYTES);
            filled.insert(Run { start: start / PAGE_BYTES * PAGE_BYTES, end });
        }
        let mut program = Program::new();
        let message = message::header(&mut program, ranges);
        let arguments = [socket.into(), message, message::ALL.into()];
        let step = program.try_call("recvmsg", message::SYS_RECVMSG, arguments);
        let pid = self.owner_of(owner)?;
        let ran = self.run(pid, &program)?;
        Ok(ran.result("recvmsg", step).map(|count| count as usize))
    }

    /// Before the first large write into a space: sets up the placing of pages in it, once.
    pub(super) fn prepare_filler(&mut self, id: ObjectId, bytes: usize) -> Result<()> {
        let untried = self.fillers.get(&id).is_some_and(|filler| matches!(filler.placement, Placement::Untried));
        if bytes < PLACED_BYTES_MIN || !untried {
            return Ok(());
        }
        let placement = self.placement(id)?.unwrap_or(Placement::Unavailable);
        if let Some(filler) = self.fillers.get_mut(&id) {
            filler.placement = placement;
        }
        Ok(())
    }

    /// The userfaultfd belongs to the address space in which it is made: a program makes it there, and we fetch it.
    fn placement(&mut self, id: ObjectId) -> Result<Option<Placement>> {
        let space = self.tree.space(id).cloned().ok_or_else(|| super::missing(id))?;
        // What the task writes itself must not be waited for by the kernel.
        let mut own =
            self.prepared().filter(|(space, _)| *space == id).map(|(_, areas)| areas.clone()).unwrap_or_default();
        // Pages that are there already are written over.
        own.extend(&self.reserved_areas(id).cloned().unwrap_or_default());
        // Areas that are one for the time being are one range.
        let joined = self.joined.get(&id).map_or(&[][..], Vec::as_slice);
        let groups = joined.iter().map(|group| group.range);
        let areas = space.areas.iter().filter(|area| {
            let unlike = AreaFlags::SHARED | AreaFlags::HUGE_TLB | AreaFlags::DROPPABLE;
            let is_new = !own.contains(area.start) && joined::of(joined, area).is_none();
            area.backing == Backing::Anonymous && !area.has(unlike) && is_new
        });
        let ranges = groups.chain(areas.map(|area| Run { start: area.start, end: area.end }));
        let large = ranges.filter(|range| range.bytes() >= PLACED_BYTES_MIN as u64);
        // What is to be huge is faulted in as such.
        let small = |range: Run| -> Vec<Run> {
            let whole: PageSet = [range].into_iter().collect();
            whole.difference(&space.huge).runs().to_vec()
        };
        let mut wanted: Vec<Run> = large.flat_map(small).collect();
        wanted.sort_by_key(|range| range.start);
        if wanted.is_empty() {
            return Ok(None);
        }
        let pid = self.owner_of(id)?;
        let subject = || Subject::Process(pid.0);
        let mut program = Program::new();
        let step = program.try_call("userfaultfd", userfaultfd::SYS_USERFAULTFD, [userfaultfd::FLAGS.into()]);
        let Ok(number) = self.run(pid, &program)?.result("userfaultfd", step) else { return Ok(None) };
        let fetched = PidFd::open(pid.0).and_then(|process| process.duplicate(ForeignDescriptor(number as i32)));
        let mut program = Program::new();
        program.call("close", SYS_CLOSE, [number.into()]);
        self.run(pid, &program)?;
        let Ok(fault) = UserFault::begin(fetched.about(subject)?) else { return Ok(None) };
        let registered = wanted.into_iter().filter(|run| fault.register(run.start, run.bytes()).is_ok()).collect();
        Ok(Some(Placement::Ready(fault, registered)))
    }
}

/// Writes ranges of a content; what the last page has behind the end of the file is not written.
pub(super) fn write_content(owner: ObjectId, sink: &Sink, ranges: &[(u64, usize)], bytes: &[u8]) -> Result<()> {
    let subject = || Subject::Object(format!("object {owner}"));
    let (mut huge, mut offset) = (None, 0);
    let (descriptor, compared) = match sink {
        Sink::Nothing => return Ok(()),
        Sink::File(file) => (file, None),
        Sink::Huge(file, page_bytes) => {
            huge = Some(*page_bytes);
            (file, None)
        }
        Sink::Same(file, path) => (file, Some(path)),
    };
    let file = File::from(descriptor.try_clone().about(subject)?);
    let end = file.metadata().about(subject)?.len();
    for (start, length) in ranges {
        let inside = (*length as u64).min(end.saturating_sub(*start)) as usize;
        let part = &bytes[offset..offset + inside];
        match compared {
            None => match huge {
                // What is zero need not take pages.
                Some(_) if part.iter().all(|byte| *byte == 0) => {}
                Some(page_bytes) => {
                    memory_file::write_mapped(file.as_fd(), page_bytes, *start, part).about(subject)?;
                }
                None => file.write_all_at(part, *start).about(subject)?,
            },
            Some(path) => {
                let mut there = vec![0; inside];
                file.read_exact_at(&mut there, *start).about(subject)?;
                if there != part {
                    let cause = "another file stands there, with other contents";
                    return Err(Refusal::new(Code::FILE_DIFFERS, Subject::Path(path.clone()), cause)
                        .choice("remove it at the destination, if nobody needs it"));
                }
            }
        }
        offset += length;
    }
    Ok(())
}
