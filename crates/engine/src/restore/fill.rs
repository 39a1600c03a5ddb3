//! Putting bytes into address spaces and contents that are being built.
use super::make::Sink;
use crate::failure::{About, Result};
use godwit_image::{Code, ObjectId, Pid, Refusal, Subject};
use godwit_linux::memory::{self, ForeignAddress, ForeignMemory};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Most ranges of one process_vm_writev(2) call.
const RANGES_MAX: usize = 1024;

/// Writes into one address space.
#[derive(Debug)]
pub(super) struct Filler {
    pid: i32,
    memory: ForeignMemory,
}

impl Filler {
    pub(super) fn open(pid: Pid) -> Result<Filler> {
        let memory = ForeignMemory::open(pid.0).about(|| Subject::Process(pid.0))?;
        Ok(Filler { pid: pid.0, memory })
    }

    /// Writes ranges one after another; areas that the process itself may not write are written through /proc/PID/mem.
    pub(super) fn write(&mut self, ranges: &[(u64, usize)], bytes: &[u8]) -> Result<()> {
        let mut offset = 0;
        for chunk in ranges.chunks(RANGES_MAX) {
            let total: usize = chunk.iter().map(|(_, length)| *length).sum();
            let part = &bytes[offset..offset + total];
            offset += total;
            let mut written = match memory::scatter(self.pid, chunk, part) {
                Ok(written) => written,
                Err(error) if error.number == 14 => 0,
                Err(error) => return Err(error).about(|| Subject::Process(self.pid)),
            };
            // What process_vm_writev left out.
            let mut position = 0;
            for (start, length) in chunk {
                let skip = written.min(*length);
                written -= skip;
                if skip < *length {
                    let rest = &part[position + skip..position + length];
                    self.memory
                        .write(ForeignAddress(start + skip as u64), rest)
                        .about(|| Subject::Mapping(self.pid, *start, String::from("page contents")))?;
                }
                position += length;
            }
        }
        Ok(())
    }
}

/// Writes ranges of a content; what the last page has behind the end of the file is not written.
pub(super) fn write_content(owner: ObjectId, sink: &Sink, ranges: &[(u64, usize)], bytes: &[u8]) -> Result<()> {
    let subject = || Subject::Object(format!("object {owner}"));
    let (descriptor, compared) = match sink {
        Sink::Nothing => return Ok(()),
        Sink::File(file) => (file, None),
        Sink::Same(file, path) => (file, Some(path)),
    };
    let file = File::from(descriptor.try_clone().about(subject)?);
    let end = file.metadata().about(subject)?.len();
    let mut offset = 0;
    for (start, length) in ranges {
        let inside = (*length as u64).min(end.saturating_sub(*start)) as usize;
        let part = &bytes[offset..offset + inside];
        match compared {
            None => file.write_all_at(part, *start).about(subject)?,
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
