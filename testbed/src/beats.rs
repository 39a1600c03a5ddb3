//! Numbered heartbeats: what the lines of the workload `heartbeat` tell about where it ran, and whether once.

use std::collections::BTreeMap;
use std::time::Duration;

/// What a file of heartbeats tells.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Record {
    /// The last number of each process.
    pub(crate) last: BTreeMap<String, u64>,
    /// Where the last beat was made.
    pub(crate) host: String,
    /// The longest time between two beats of one process.
    pub(crate) gap: Duration,
}

impl Record {
    /// Whether every process has gone on since.
    pub(crate) fn all_less(&self, later: &Record) -> bool {
        !self.last.is_empty() && self.last.iter().all(|(who, number)| later.last.get(who).is_some_and(|it| it > number))
    }
}

/// Reads lines `WHO NUMBER HOST TIME`.
///
/// # Errors
/// What is wrong: a number that comes twice or is left out, or a process that went back to a host that it had left.
pub(crate) fn read(text: &str) -> Result<Record, String> {
    let mut record = Record::default();
    let mut seen: BTreeMap<String, (Vec<String>, f64)> = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [who, number, host, time] = words[..] else { return Err(format!("an odd heartbeat: {line:?}")) };
        let (Ok(number), Ok(time)) = (number.parse::<u64>(), time.parse::<f64>()) else {
            return Err(format!("an odd heartbeat: {line:?}"));
        };
        let last = record.last.entry(who.to_owned()).or_default();
        if number != *last + 1 {
            let what = if number <= *last { "it runs twice" } else { "it has lost beats" };
            return Err(format!("{what}: process {who} beats {number} in {host} after {last} in {}", record.host));
        }
        *last = number;
        let (hosts, before) = seen.entry(who.to_owned()).or_insert((Vec::new(), time));
        if hosts.last().is_none_or(|last| last != host) {
            if hosts.iter().any(|earlier| earlier == host) {
                return Err(format!("process {who} beats in {host} again, after {hosts:?}"));
            }
            hosts.push(host.to_owned());
        }
        record.gap = record.gap.max(Duration::try_from_secs_f64(time - *before).unwrap_or_default());
        *before = time;
        host.clone_into(&mut record.host);
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_is_a_change_of_host_in_an_unbroken_row() {
        let record = read("a 1 source 0.5\nb 1 source 0.6\na 2 source 0.7\na 3 destination 1.7\nb 2 destination 1.8\n");
        let record = record.unwrap();
        assert_eq!((record.last["a"], record.last["b"], record.host.as_str()), (3, 2, "destination"));
        assert_eq!(record.gap.as_millis(), 1200);
        assert!(!record.all_less(&record));
        assert!(Record { last: [("a".to_owned(), 2), ("b".to_owned(), 1)].into(), ..record.clone() }.all_less(&record));
    }

    #[test]
    fn doubled_lost_and_returning_beats_are_found() {
        assert!(read("a 1 source 0\na 2 source 0\na 2 destination 0\n").unwrap_err().contains("runs twice"));
        assert!(read("a 1 source 0\na 3 source 0\n").unwrap_err().contains("lost beats"));
        assert!(read("a 1 s 0\na 2 d 0\na 3 s 0\n").unwrap_err().contains("again"));
        assert!(read("a 1 s\n").unwrap_err().contains("odd"));
    }
}
