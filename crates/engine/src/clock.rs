//! Clocks of a moved tree: CLOCK_MONOTONIC and CLOCK_BOOTTIME must not jump back on a host with a shorter uptime, nor far
//! ahead on one with a longer.
//!
//! A move is to the tree what a suspension is to a machine: CLOCK_MONOTONIC stands still meanwhile and goes on from the
//! value that the tree last saw, CLOCK_BOOTTIME has counted the time that passed. So whatever waits for a monotonic time
//! (a timer, an absolute sleep, a futex) waits for as long as it still had to.
//!
//! Where the restorer's own clocks are within what a program that was stopped for a while would see (nothing before its
//! last value, nothing more than the time that really passed), they are taken as they are: a checkpoint that comes back on
//! the same boot needs no time namespace. Everywhere else the tree gets a time namespace of its own.
//!
//! CLOCK_MONOTONIC_RAW and CLOCK_MONOTONIC_COARSE can only be set together with CLOCK_MONOTONIC. The former drifts away from it over an
//! uptime, the latter is what it was at the last tick, which here may be longer ago: where one would go back, all are set ahead by the
//! difference. CLOCK_REALTIME is the destination's: there is no namespace for it.
use crate::failure::{Result, malformed, refusal};
use crate::injector::Ran;
use godwit_image::host::HostFacts;
use godwit_image::{Code, Refusal, Subject, Verdict};
use godwit_linux::clock::{self, Reading};
use godwit_linux::features::{Feature, Features};
use godwit_linux::program::Program;
use godwit_linux::time_namespace::{self, Offsets};

const SYS_CLOCK_GETTIME: i64 = 228;
/// CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_BOOTTIME, CLOCK_MONOTONIC_COARSE.
const CLOCKS: [u64; 5] = [0, 1, 4, 7, 6];
/// How much further than the time that passed a clock may be, ns: readings of two clocks are not of one moment.
const TOLERANCE_NS: u64 = 5_000_000;

/// The question to a frozen task what its clocks show.
#[derive(Debug)]
pub(crate) struct Question {
    data: usize,
}

impl Question {
    /// Adds it to a program.
    pub(crate) fn ask(program: &mut Program) -> Question {
        let mut first = None;
        for clock in CLOCKS {
            let (space, offset) = program.space(16);
            first.get_or_insert(offset);
            program.call("clock_gettime", SYS_CLOCK_GETTIME, [clock.into(), space]);
        }
        Question { data: first.unwrap_or(0) }
    }

    /// Writes the answer into the facts that travel with the image.
    pub(crate) fn answer(&self, ran: &Ran, facts: &mut HostFacts) {
        let read = |index: usize| {
            let word = |n: usize| ran.word(self.data + index * 16 + n * 8);
            word(0).saturating_mul(1_000_000_000).saturating_add(word(1))
        };
        facts.realtime_ns = read(0);
        facts.monotonic_ns = read(1);
        facts.monotonic_raw_ns = read(2);
        facts.boottime_ns = read(3);
        facts.monotonic_coarse_ns = read(4);
    }
}

fn difference(tree: u64, here: u64) -> i64 {
    (tree as i64).wrapping_sub(here as i64)
}

/// How far behind the tree's each of our clocks is that is set with CLOCK_MONOTONIC, ns; as if they were alike where a tree does not tell.
fn behind(tree: &HostFacts, here: &Reading) -> [i64; 3] {
    let monotonic = difference(tree.monotonic_ns, here.monotonic);
    let known = |tree: u64, here: u64| if tree == 0 { monotonic } else { difference(tree, here) };
    let raw = known(tree.monotonic_raw_ns, here.monotonic_raw);
    [monotonic, raw, known(tree.monotonic_coarse_ns, here.monotonic_coarse)]
}

/// How far a tree's clocks have to be from those of a process here: (monotonic, boottime), ns; none when ours will do.
fn shift(tree: &HostFacts, here: &Reading) -> Option<(i64, i64)> {
    if tree.monotonic_ns == 0 {
        return None;
    }
    // A destination whose wall clock is behind the source's: then nothing is known to have passed.
    let passed = here.realtime.saturating_sub(tree.realtime_ns);
    let fits = |here: u64, tree: u64| here >= tree && here - tree <= passed.saturating_add(TOLERANCE_NS);
    if fits(here.monotonic, tree.monotonic_ns) && fits(here.boottime, tree.boottime_ns) && !goes_back(tree, here) {
        return None;
    }
    let monotonic = behind(tree, here).into_iter().max().unwrap_or(0);
    Some((monotonic, difference(tree.boottime_ns.saturating_add(passed), here.boottime)))
}

/// Whether a clock of the tree would go back without a namespace.
fn goes_back(tree: &HostFacts, here: &Reading) -> bool {
    here.boottime < tree.boottime_ns || behind(tree, here).iter().any(|behind| *behind > 0)
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

fn would_go_back(tree: &HostFacts, here: &Reading, cause: &str) -> Refusal {
    let cause = format!(
        "CLOCK_MONOTONIC would go back from {:.3} s to {:.3} s, and a time namespace cannot be made here: {cause}",
        seconds(tree.monotonic_ns),
        seconds(here.monotonic)
    );
    Refusal::new(Code::DESTINATION_LACKS, Subject::Object("clocks".to_owned()), cause)
        .choice("run godwit as root (CAP_SYS_ADMIN) at the destination")
        .choice("choose a destination that has been up for longer")
}

/// Whether the clocks of a tree cannot simply be this host's.
pub(crate) fn is_shifted(tree: &HostFacts) -> bool {
    shift(tree, &clock::now()).is_some()
}

/// What becomes of the clocks of a tree from another host that would be restored here.
pub fn examine(tree: &HostFacts, features: &Features) -> Verdict {
    let here = clock::now();
    if shift(tree, &here).is_none() || features.has(Feature::TimeNamespaces) {
        return Verdict::Carried;
    }
    if goes_back(tree, &here) {
        return Verdict::Blocks(would_go_back(tree, &here, "not allowed, or not in this kernel"));
    }
    let ahead = seconds(here.monotonic - tree.monotonic_ns);
    Verdict::Degraded(format!("CLOCK_MONOTONIC jumps ahead by {ahead:.3} s: no time namespace can be made here"))
}

/// Prepares this thread so that the root that it forks next, and all that come from it, continue the tree's clocks.
///
/// # Errors
/// GW1203: a clock would go back, and a time namespace is not permitted here.
pub(crate) fn continue_in_children(tree: &HostFacts) -> Result<()> {
    let here = clock::now();
    let shift = shift(tree, &here);
    if shift.is_none() && !time_namespace::children_have_other() {
        return Ok(());
    }
    let own = time_namespace::own().map_err(|error| malformed(Subject::Host, error))?;
    let (monotonic, boottime) = shift.unwrap_or((0, 0));
    let wanted =
        Offsets { monotonic: own.monotonic.saturating_add(monotonic), boottime: own.boottime.saturating_add(boottime) };
    match time_namespace::set_for_children(wanted) {
        Ok(()) => Ok(()),
        Err(error) if (monotonic, boottime) == (0, 0) => Err(refusal(error, Subject::Object("clocks".to_owned()))),
        Err(error) if goes_back(tree, &here) => Err(would_go_back(tree, &here, &error.to_string())),
        // A jump ahead is what every program sees that was stopped for long; `examine` has said so.
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn facts(monotonic: u64, boottime: u64, realtime: u64) -> HostFacts {
        HostFacts {
            monotonic_ns: monotonic * SECOND,
            monotonic_raw_ns: monotonic * SECOND,
            monotonic_coarse_ns: monotonic * SECOND,
            boottime_ns: boottime * SECOND,
            realtime_ns: realtime * SECOND,
            ..HostFacts::default()
        }
    }

    fn here(monotonic: u64, boottime: u64, realtime: u64) -> Reading {
        Reading {
            monotonic: monotonic * SECOND,
            monotonic_raw: monotonic * SECOND,
            monotonic_coarse: monotonic * SECOND,
            boottime: boottime * SECOND,
            realtime: realtime * SECOND,
        }
    }

    #[test]
    fn the_same_boot_needs_nothing() {
        assert_eq!(shift(&facts(100, 100, 5000), &here(100, 100, 5000)), None);
        assert_eq!(shift(&facts(100, 100, 5000), &here(4100, 4100, 9000)), None);
        assert_eq!(shift(&HostFacts::default(), &here(1, 1, 1)), None, "an image that does not tell");
    }

    #[test]
    fn a_shorter_uptime_continues_from_the_last_value() {
        let (monotonic, boottime) = shift(&facts(1000, 1200, 5000), &here(10, 10, 5003)).unwrap();
        assert_eq!((monotonic, boottime), (990 * SECOND as i64, 1193 * SECOND as i64));
    }

    #[test]
    fn a_longer_uptime_does_not_jump_ahead() {
        let (monotonic, boottime) = shift(&facts(1000, 1000, 5000), &here(90_000, 90_000, 5001)).unwrap();
        assert_eq!((monotonic, boottime), (-89_000 * SECOND as i64, -88_999 * SECOND as i64));
    }

    #[test]
    fn a_destination_behind_in_wall_time_still_never_goes_back() {
        let (monotonic, boottime) = shift(&facts(1000, 1000, 5000), &here(1100, 1100, 4000)).unwrap();
        assert_eq!((monotonic, boottime), (-100 * SECOND as i64, -100 * SECOND as i64));
    }

    #[test]
    fn the_raw_clock_never_goes_back_either() {
        let mut slow = here(1000, 1000, 5000);
        slow.monotonic_raw -= SECOND / 2;
        let (monotonic, _) = shift(&facts(1000, 1000, 5000), &slow).unwrap();
        assert_eq!(monotonic, SECOND as i64 / 2);
    }

    #[test]
    fn the_coarse_clock_never_goes_back_where_the_last_tick_is_longer_ago() {
        let mut other = here(10, 10, 5000);
        other.monotonic_coarse -= 3_000_000;
        let (monotonic, _) = shift(&facts(1000, 1000, 5000), &other).unwrap();
        assert_eq!(monotonic, 990 * SECOND as i64 + 3_000_000);
        let unknown = HostFacts { monotonic_coarse_ns: 0, monotonic_raw_ns: 0, ..facts(1000, 1000, 5000) };
        assert_eq!(shift(&unknown, &other).unwrap().0, 990 * SECOND as i64);
        // The same host a moment later, and one whose clocks are near enough but for the last tick.
        assert_eq!(shift(&facts(1000, 1000, 5000), &here(1000, 1000, 5000)), None);
        let mut near = here(1000, 1000, 5000);
        near.monotonic_coarse -= 1;
        assert_eq!(shift(&facts(1000, 1000, 5000), &near).unwrap().0, 1);
    }

    #[test]
    fn without_time_namespaces_back_is_refused_and_ahead_is_said() {
        let without = Features::all().without(Feature::TimeNamespaces);
        let now = clock::now();
        let tree = |offset: i64| HostFacts {
            monotonic_ns: now.monotonic.saturating_add_signed(offset),
            boottime_ns: now.boottime.saturating_add_signed(offset),
            realtime_ns: now.realtime,
            ..HostFacts::default()
        };
        assert!(matches!(examine(&tree(1 << 40), &without), Verdict::Blocks(_)));
        assert!(matches!(examine(&tree(-1_000_000_000), &without), Verdict::Degraded(_)));
        assert_eq!(examine(&tree(1 << 40), &Features::all()), Verdict::Carried);
    }
}
