//! How fast the link between the hosts is made.

/// One speed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkSpeed {
    /// Its name on the command line and in the data: megabits per second.
    pub name: &'static str,
    /// For people.
    pub about: &'static str,
    /// Bytes per second; none: as fast as the kernel hands them over.
    pub rate: Option<u64>,
}

/// All of them, slow ones first.
pub const LINKS: &[LinkSpeed] = &[
    LinkSpeed { name: "10", about: "10 Mbit/s", rate: Some(1_250_000) },
    LinkSpeed { name: "100", about: "100 Mbit/s", rate: Some(12_500_000) },
    LinkSpeed { name: "1000", about: "1000 Mbit/s", rate: Some(125_000_000) },
    LinkSpeed { name: "unshaped", about: "unshaped", rate: None },
];

impl LinkSpeed {
    /// The link of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static LinkSpeed> {
        LINKS.iter().find(|link| link.name == name)
    }

    /// Bytes per second that it carries, about.
    #[must_use]
    pub fn bytes_per_second(&self) -> f64 {
        self.rate.map_or(3e9, |rate| rate as f64)
    }
}
