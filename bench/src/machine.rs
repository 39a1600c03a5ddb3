//! On what machine and when: figures mean nothing without it.
use std::time::{SystemTime, UNIX_EPOCH};

/// Where and when a run was made.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Model of the processor.
    pub processor: String,
    /// How many processors this process may use.
    pub processors: usize,
    /// Memory, bytes.
    pub memory: u64,
    /// The kernel's release.
    pub kernel: String,
    /// When, UTC: `2026-08-01 12:00`.
    pub when: String,
    /// How the measured program was built.
    pub build: &'static str,
    /// Processes that wanted a processor in the minute before the run, on average: others slow it down.
    pub load_before: String,
}

/// The kernel's load average of the last minute.
pub fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

impl Machine {
    /// This one, now; `load_before` as [`load`] told when the run began. What cannot be read stays empty.
    pub fn here(load_before: String) -> Machine {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| -> String {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let memory = field(&text("/proc/meminfo"), "MemTotal");
        let kibibytes: u64 = memory.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0);
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
        Machine {
            processor: field(&text("/proc/cpuinfo"), "model name"),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory: kibibytes << 10,
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            when: date(seconds),
            build: if cfg!(debug_assertions) {
                "debug (its figures mean nothing: build with --release)"
            } else {
                "release"
            },
            load_before,
        }
    }
}

impl Machine {
    /// For machines.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "processor": self.processor,
            "processors": self.processors,
            "memory_bytes": self.memory,
            "kernel": self.kernel,
            "when_utc": self.when,
            "build": self.build,
            "load_before": self.load_before,
        })
    }
}

/// Seconds since 1970 as a date and time in the Gregorian calendar.
fn date(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March, so that the leap day is the last of its year; cycles of 400 years.
    let shifted = days + 719_468;
    let (cycle, day) = (shifted / 146_097, shifted % 146_097);
    let year_of_cycle = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month_from_march = (5 * day + 2) / 153;
    let day = day - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = cycle * 400 + year_of_cycle + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", rest / 3600, rest % 3600 / 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(date(0), "1970-01-01 00:00");
        assert_eq!(date(951_782_400), "2000-02-29 00:00");
        assert_eq!(date(1_735_689_599), "2024-12-31 23:59");
    }
}
