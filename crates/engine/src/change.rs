//! What of a tree that a host takes in will not be quite as it was there: accepted, and said beforehand.
use crate::clock;
use crate::demand::Demand;
use crate::ground::Ground;
use godwit_image::host::HostFacts;
use godwit_image::{Code, Refusal, Subject, Verdict};

impl Ground {
    /// What of a tree that is taken in here will not be quite as it was.
    pub fn changes(&self, demand: &Demand, host: &HostFacts) -> Vec<Refusal> {
        let change = |subject, cause| Refusal::new(Code::DIFFERS_THERE, subject, cause);
        let mut found = Vec::new();
        for (mask, tid) in &demand.processors {
            found.extend(unbound(mask, &self.processors).map(|cause| change(Subject::Process(*tid), cause)));
        }
        if let Verdict::Degraded(what) = clock::examine(host, &self.features) {
            found.push(change(Subject::Object("clocks".to_owned()), what));
        }
        found
    }
}

/// What becomes of a thread that is bound to the processors of `mask` where there are those of `here`, if that is something else.
fn unbound(mask: &[u8], here: &[u8]) -> Option<String> {
    let bit = |mask: &[u8], number: usize| mask.get(number / 8).is_some_and(|byte| byte >> (number % 8) & 1 != 0);
    let wanted: Vec<usize> = (0..mask.len() * 8).filter(|number| bit(mask, *number)).collect();
    let kept: Vec<usize> = wanted.iter().copied().filter(|number| bit(here, *number)).collect();
    if kept.len() == wanted.len() {
        return None;
    }
    let bound = format!("it is bound to {}", ranges(&wanted));
    Some(if kept.is_empty() {
        format!("{bound}, and there are none of them here: it may run on any")
    } else {
        format!("{bound}, and of them there are only {} here", ranges(&kept))
    })
}

/// Ascending numbers of processors as a text like that of taskset(1).
fn ranges(numbers: &[usize]) -> String {
    let runs = numbers.chunk_by(|one, next| one + 1 == *next);
    let runs: Vec<String> = runs
        .map(|run| match run {
            [one] => one.to_string(),
            [first, .., last] => format!("{first}-{last}"),
            [] => String::new(),
        })
        .collect();
    format!("the processor{} {}", if numbers.len() == 1 { "" } else { "s" }, runs.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_told_which_processors_they_lose() {
        assert_eq!(unbound(&[0b11], &[0b111]), None);
        assert_eq!(unbound(&[0b11], &[0b11, 0, 1]), None);
        let none = unbound(&[0b1000_0000, 0b11], &[0b11]).unwrap();
        assert_eq!(none, "it is bound to the processors 7-9, and there are none of them here: it may run on any");
        let some = unbound(&[0b1101], &[0b1]).unwrap();
        assert_eq!(some, "it is bound to the processors 0,2-3, and of them there are only the processor 0 here");
    }

    #[test]
    fn a_host_says_what_will_differ() {
        let ground = Ground { processors: vec![0b11], ..Ground::read() };
        let host = ground.facts.clone();
        let demand = Demand { processors: [(vec![0b10], 7), (vec![0b1100], 8)].into(), ..Demand::default() };
        assert!(ground.lacks(&demand, &host).is_empty());
        let found = ground.changes(&demand, &host);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].code, &found[0].subject), (Code::DIFFERS_THERE, &Subject::Process(8)));
        assert!(found[0].cause.contains("processors 2-3"));
    }
}
