//! Where in a process the stub lies: bytes of executable memory that nobody uses, and what an engine that died left there.
use crate::failure::Result;
use crate::resumption;
use godwit_image::{Code, Refusal, Subject};
use godwit_linux::memory::{ForeignAddress, ForeignMemory};
use godwit_linux::proc::maps;
use godwit_linux::stub::{self, CONTROL_BYTES};

/// What /proc/PID/maps calls shared memory without a name.
const ANONYMOUS: &[u8] = b"/dev/zero (deleted)";

/// Where the stub goes.
pub(crate) struct Site {
    /// Its control block; the code follows, then the record.
    pub(crate) start: u64,
    /// What a dead engine left.
    pub(crate) abandoned: Option<Abandoned>,
}

/// A dead engine's stub.
pub(crate) struct Abandoned {
    /// Its arena, with its length.
    pub(crate) arena: Option<(u64, u64)>,
}

/// Bytes of the record behind the code: address and length of the arena, for whoever finds the stub of a dead engine.
pub(crate) const RECORD_BYTES: usize = 16;

pub(crate) fn record_offset() -> usize {
    (CONTROL_BYTES + stub::code().len()).next_multiple_of(8)
}

/// The stub of an engine that died, or unused zero bytes at the end of an executable mapping, 16-aligned.
pub(crate) fn find_site(pid: i32, memory: &ForeignMemory, areas: &[maps::Area]) -> Result<Site> {
    let needed = record_offset() + RECORD_BYTES + 16;
    let mut candidates: Vec<_> =
        areas.iter().filter(|area| area.execute && !area.shared && area.name != b"[vsyscall]").collect();
    candidates.sort_by_key(|area| area.name != b"[vdso]");
    for area in candidates {
        // Behind the vDSO is room that is spoken for.
        let end = if area.name == b"[vdso]" { resumption::place(area.end) } else { area.end };
        let length = 4096_u64.min(end - area.start);
        let mut tail = vec![0_u8; length as usize];
        if memory.read(ForeignAddress(end - length), &mut tail).is_err() {
            continue;
        }
        let code = stub::code();
        if let Some(found) =
            tail.windows(code.len()).position(|window| window == code).filter(|at| *at >= CONTROL_BYTES)
        {
            let start = found - CONTROL_BYTES;
            let word =
                |at: usize| tail.get(at..at + 8).and_then(|raw| raw.first_chunk()).map(|raw| u64::from_le_bytes(*raw));
            let record = (word(start + record_offset()), word(start + record_offset() + 8));
            // The record is only believed when such a mapping is there, with what begins every arena: the process may have unmapped ours
            // when its engine had died, and have mapped something of its own since.
            let arena = if let (Some(base), Some(length)) = record { Some((base, length)) } else { None };
            let is_ours = |name: &[u8]| name == ANONYMOUS || name.starts_with(b"/memfd:");
            let arena = arena.filter(|(base, length)| {
                let last = base.saturating_add(*length);
                let mut first = vec![0_u8; code.len()];
                areas.iter().any(|a| a.start == *base && a.end == last && a.shared && is_ours(&a.name))
                    && memory.read(ForeignAddress(*base), &mut first).is_ok()
                    && first == code
            });
            return Ok(Site { start: end - length + start as u64, abandoned: Some(Abandoned { arena }) });
        }
        let used = tail.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        // An empty last page may be a page that the program means to fill: only slack behind real contents counts.
        if used > 0 && tail.len() - used >= needed {
            let start = (end - length + used as u64 + 16).next_multiple_of(16);
            if end - start >= needed as u64 - 16 {
                return Ok(Site { start, abandoned: None });
            }
        }
    }
    Err(Refusal::new(
        Code::NO_INJECTION_SITE,
        Subject::Process(pid),
        format!("no {needed} free bytes in executable memory"),
    ))
}
