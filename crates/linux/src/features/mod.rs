//! What this kernel can do and what this process may do: every feature that the engine uses, probed once by trying it
//! (never by version) into a plain value that is passed on. A test can pretend an older kernel with [`Features::without`].

mod child;
mod host;
mod memory;
mod namespaces;
mod objects;
mod table;
mod tracing;

pub use host::{Host, HugePages, capability};
pub use table::{Feature, Group, Row, TABLE, Weight};

use crate::errno::Errno;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// The outcome of trying a feature.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Support {
    /// It was tried and works.
    Works,
    /// This kernel does not have it; the error of the trial.
    Missing(Errno),
    /// The kernel has it, and this process may not use it; the error of the trial.
    NotAllowed(Errno),
}

impl Support {
    /// The verdict of a trial.
    fn of<T>(trial: Result<T, Errno>) -> Support {
        match trial {
            Ok(_) => Support::Works,
            // ENOSPC, EUSERS: a limit on namespaces that the administrator has set.
            Err(error) if matches!(error.number, libc::EPERM | libc::EACCES | libc::ENOSPC | libc::EUSERS) => {
                Support::NotAllowed(error)
            }
            Err(error) => Support::Missing(error),
        }
    }

    /// Whether it can be used.
    pub fn works(self) -> bool {
        self == Support::Works
    }
}

/// What can be done here. A plain value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Features {
    support: BTreeMap<Feature, Support>,
    /// UFFD_FEATURE_* bits that the kernel offers; 0 where there is no userfaultfd.
    pub userfaultfd: u64,
    /// Sizes, limits and rights.
    pub host: Host,
}

impl Features {
    /// Whether a feature works. What was not probed does not.
    pub fn has(&self, feature: Feature) -> bool {
        self.support(feature).works()
    }

    /// What trying it gave.
    pub fn support(&self, feature: Feature) -> Support {
        let unknown = Support::Missing(Errno { number: libc::ENOSYS, call: "not probed" });
        self.support.get(&feature).copied().unwrap_or(unknown)
    }

    /// Whether a feature works, by its name in the table, as an image names its needs.
    pub fn has_named(&self, name: &str) -> bool {
        Feature::named(name).is_some_and(|feature| self.has(feature))
    }

    /// The same host, of which something is taken for granted.
    #[must_use]
    pub fn with(mut self, feature: Feature) -> Features {
        self.support.insert(feature, Support::Works);
        self
    }

    /// The same host as if its kernel had not got a feature.
    #[must_use]
    pub fn without(mut self, feature: Feature) -> Features {
        self.support.insert(feature, Support::Missing(Errno { number: libc::ENOSYS, call: "pretended" }));
        self
    }

    /// A host that can do everything, for tests that take something away.
    pub fn all() -> Features {
        Features {
            support: TABLE.iter().map(|row| (row.feature, Support::Works)).collect(),
            userfaultfd: u64::MAX,
            host: Host::default(),
        }
    }

    /// What stands in the way of checkpoint, restore and migration at all.
    pub fn lacking(&self) -> Vec<&'static Row> {
        TABLE.iter().filter(|row| row.weight == Weight::Required && !self.has(row.feature)).collect()
    }
}

/// Tries every feature. Takes some milliseconds; what could disturb this process is tried in a child of its own.
pub fn probe() -> Features {
    probe_those(|_| true)
}

/// Tries the features that are wanted; the others count as missing.
pub fn probe_those(wanted: impl Fn(Feature) -> bool) -> Features {
    let mut trials = Trials { wanted: &wanted, support: BTreeMap::new() };
    tracing::probe(&mut trials);
    namespaces::probe(&mut trials);
    objects::probe(&mut trials);
    let userfaultfd = memory::probe(&mut trials);
    Features { support: trials.support, userfaultfd, host: Host::read() }
}

/// Tries each feature when it is asked for first: most trees need none of those that only some programs need.
#[derive(Debug, Default)]
pub struct OnDemand(RefCell<BTreeMap<Feature, bool>>);

impl OnDemand {
    /// Whether a feature works.
    pub fn has(&self, feature: Feature) -> bool {
        *self.0.borrow_mut().entry(feature).or_insert_with(|| probe_those(|wanted| wanted == feature).has(feature))
    }
}

/// What is to be tried, and what it gave.
struct Trials<'a> {
    wanted: &'a dyn Fn(Feature) -> bool,
    support: BTreeMap<Feature, Support>,
}

impl Trials<'_> {
    fn wants(&self, feature: Feature) -> bool {
        (self.wanted)(feature)
    }

    fn put(&mut self, feature: Feature, trial: impl FnOnce() -> Result<(), Errno>) {
        if self.wants(feature) {
            self.support.insert(feature, Support::of(trial()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_is_probed_and_can_be_taken_away() {
        let features = probe();
        for row in TABLE {
            assert!(features.support.contains_key(&row.feature), "{} is not probed", row.name);
            assert_eq!(Feature::named(row.name), Some(row.feature));
            assert!(!features.clone().without(row.feature).has(row.feature));
            assert!(!Features::all().without(row.feature).has_named(row.name));
            assert!(Features::all().without(row.feature).with(row.feature).has(row.feature));
        }
        assert!(!features.has_named("no such feature"));
    }

    #[test]
    fn only_what_is_wanted_is_tried() {
        let features = probe_those(|feature| feature == Feature::Compare);
        assert!(features.has(Feature::Compare));
        assert!(features.support.keys().all(|feature| *feature == Feature::Compare));
    }

    #[test]
    fn what_is_asked_for_is_tried_and_nothing_else() {
        let features = OnDemand::default();
        assert!(features.has(Feature::Compare) && features.has(Feature::Compare));
        assert_eq!(features.0.into_inner(), BTreeMap::from([(Feature::Compare, true)]));
    }

    #[test]
    fn names_are_unique_and_texts_are_there() {
        for (index, row) in TABLE.iter().enumerate() {
            assert!(TABLE[..index].iter().all(|other| other.name != row.name), "{}", row.name);
            assert!(!row.purpose.is_empty() && !row.without.is_empty() && !row.remedy.is_empty());
        }
    }

    #[test]
    fn what_this_suite_needs_anyway_works() {
        let features = probe();
        for feature in [Feature::Seize, Feature::ProcessFileDescriptor, Feature::Compare, Feature::MemoryFile] {
            assert_eq!(features.support(feature), Support::Works, "{feature:?}");
        }
        assert!(features.host.process_number_max > 300 && features.host.memory_bytes > 0);
        assert_ne!(features.host.extended_state_mask & 1, 0);
    }

    #[test]
    fn refusals_are_told_from_absence() {
        let error = |number| Err::<(), _>(Errno { number, call: "x" });
        assert!(matches!(Support::of(error(libc::EPERM)), Support::NotAllowed(_)));
        assert!(matches!(Support::of(error(libc::ENOSYS)), Support::Missing(_)));
        assert_eq!(Support::of(Ok(())), Support::Works);
    }
}
