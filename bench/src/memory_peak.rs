//! The most memory that the engine ever had: of each process VmHWM, and at one moment all of its processes together (Pss:
//! what they share counts once), looked at again and again while they run.
//!
//! It costs time, so it has a repetition of its own whose times do not count. Processes are ours as long as they execute
//! our program file and have something of our memory: a restored process stops being one when all of that is unmapped (then
//! /proc tells no name), and what it has from then on, also before its program file comes, is the moved process's own.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Time between two looks.
const PERIOD: Duration = Duration::from_micros(500);

/// Peaks in bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Peaks {
    /// Of the largest process by the command's name (`migrate`, `receive`).
    pub processes: BTreeMap<String, u64>,
    /// Of all processes, of both hosts, at one moment.
    pub together: u64,
}

impl Peaks {
    /// The largest process.
    #[must_use]
    pub fn largest(&self) -> Option<u64> {
        self.processes.values().copied().max()
    }
}

/// A thread that looks.
#[derive(Debug)]
pub struct Watch {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Peaks>>,
}

impl Watch {
    /// Begins to watch the hosts with these first processes for processes that execute `program`.
    pub fn new(first_processes: [u32; 2], program: &Path) -> Watch {
        let over = Arc::new(AtomicBool::new(false));
        let (told, program) = (Arc::clone(&over), program.to_owned());
        let thread = std::thread::spawn(move || {
            let mut peaks = Peaks::default();
            while !told.load(Ordering::Relaxed) {
                let together = first_processes.map(|first| look(first, &program, &mut peaks.processes)).iter().sum();
                peaks.together = peaks.together.max(together);
                std::thread::sleep(PERIOD);
            }
            peaks
        });
        Watch { over, thread: Some(thread) }
    }

    /// Ends the watch.
    pub fn peaks(mut self) -> Peaks {
        self.over.store(true, Ordering::Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Looks at the engine's processes of a host; returns what they have together.
fn look(first: u32, program: &Path, peaks: &mut BTreeMap<String, u64>) -> u64 {
    let mut together = 0;
    let root = PathBuf::from(format!("/proc/{first}/root/proc"));
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let is_process = entry.file_name().to_string_lossy().parse::<u32>().is_ok_and(|pid| pid > 1);
        if !is_process || std::fs::read_link(entry.path().join("exe")).ok().as_deref() != Some(program) {
            continue;
        }
        // It may end between two looks: then there is nothing to read, and nothing to count.
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let name = command.split(|byte| *byte == 0).nth(1).map(|name| String::from_utf8_lossy(name).into_owned());
        // The hosts' own first processes are of the same program, and not of the engine.
        let name = name.filter(|name| name != "bench" && !name.contains("host-init"));
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        if let (Some(name), Some(peak)) = (name, kibibytes(&status, "VmHWM:")) {
            let known = peaks.entry(name).or_default();
            *known = peak.max(*known);
            let shares = std::fs::read_to_string(entry.path().join("smaps_rollup")).unwrap_or_default();
            together += kibibytes(&shares, "Pss:").unwrap_or_default();
        }
    }
    together
}

/// A line of so many KiB in bytes.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok().map(|kibibytes| kibibytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_line() {
        assert_eq!(kibibytes("Name:\tx\nVmHWM:\t    5120 kB\n", "VmHWM:"), Some(5120 << 10));
        assert_eq!(kibibytes("Pss_Dirty:   8 kB\nPss:      12 kB\n", "Pss:"), Some(12 << 10));
        assert_eq!(kibibytes("Name:\tx\n", "VmHWM:"), None);
    }

    #[test]
    fn sees_nothing_where_nothing_is() {
        let mut peaks = BTreeMap::new();
        assert_eq!(look(std::process::id(), Path::new("/no/such/program"), &mut peaks), 0);
        assert!(peaks.is_empty());
    }
}
