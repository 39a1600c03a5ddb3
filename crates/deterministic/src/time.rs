//! Points in time and spans of time as plain numbers of nanoseconds; who holds the clock passes them in.

use core::fmt;
use core::ops::{Add, AddAssign, Sub};

/// A point in time: nanoseconds since an origin that the caller chose (usually the start of the program or of the simulation).
///
/// Two instants may be compared only if they come from the same clock. 64 bits last 584 years.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Instant(u64);

/// A span of time in nanoseconds. Arithmetic saturates: a time-out that is too long to be told apart from "never" is "never".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Duration(u64);

impl Instant {
    /// The origin of the caller's clock.
    pub const ORIGIN: Instant = Instant(0);

    /// The instant `nanoseconds` after the origin.
    pub const fn from_nanoseconds(nanoseconds: u64) -> Instant {
        Instant(nanoseconds)
    }

    /// Nanoseconds since the origin.
    pub const fn nanoseconds(self) -> u64 {
        self.0
    }

    /// The span from `earlier` to this instant; zero if `earlier` is in fact later.
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration(self.0.saturating_sub(earlier.0))
    }
}

impl Duration {
    /// No time at all.
    pub const ZERO: Duration = Duration(0);
    /// Longer than any run: used for "no limit".
    pub const MAX: Duration = Duration(u64::MAX);

    /// A span of `nanoseconds`.
    pub const fn from_nanoseconds(nanoseconds: u64) -> Duration {
        Duration(nanoseconds)
    }

    /// A span of `microseconds`, saturating.
    pub const fn from_microseconds(microseconds: u64) -> Duration {
        Duration(microseconds.saturating_mul(1_000))
    }

    /// A span of `milliseconds`, saturating.
    pub const fn from_milliseconds(milliseconds: u64) -> Duration {
        Duration(milliseconds.saturating_mul(1_000_000))
    }

    /// A span of `seconds`, saturating.
    pub const fn from_seconds(seconds: u64) -> Duration {
        Duration(seconds.saturating_mul(1_000_000_000))
    }

    /// The span in nanoseconds.
    pub const fn nanoseconds(self) -> u64 {
        self.0
    }

    /// The span in milliseconds with its fraction, for people and tables.
    pub fn milliseconds(self) -> f64 {
        self.0 as f64 / 1_000_000.0
    }

    /// This span `factor` times, saturating.
    pub const fn times(self, factor: u64) -> Duration {
        Duration(self.0.saturating_mul(factor))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, span: Duration) -> Instant {
        Instant(self.0.saturating_add(span.0))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, span: Duration) {
        *self = *self + span;
    }
}

impl Add for Duration {
    type Output = Duration;
    fn add(self, other: Duration) -> Duration {
        Duration(self.0.saturating_add(other.0))
    }
}

impl Sub for Duration {
    type Output = Duration;
    fn sub(self, other: Duration) -> Duration {
        Duration(self.0.saturating_sub(other.0))
    }
}

impl From<core::time::Duration> for Duration {
    fn from(span: core::time::Duration) -> Duration {
        Duration(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl From<Duration> for core::time::Duration {
    fn from(span: Duration) -> core::time::Duration {
        core::time::Duration::from_nanos(span.0)
    }
}

impl fmt::Display for Duration {
    /// Three digits after the point, in the unit that a person would choose.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0..1_000 => write!(f, "{} ns", self.0),
            1_000..1_000_000 => write!(f, "{:.3} µs", self.0 as f64 / 1e3),
            1_000_000..1_000_000_000 => write!(f, "{:.3} ms", self.0 as f64 / 1e6),
            _ => write!(f, "{:.3} s", self.0 as f64 / 1e9),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn arithmetic_saturates_instead_of_wrapping() {
        assert_eq!(Instant(u64::MAX - 1) + Duration(5), Instant(u64::MAX));
        assert_eq!(Instant(3).since(Instant(5)), Duration::ZERO);
        assert_eq!(Duration::from_seconds(u64::MAX), Duration::MAX);
        assert_eq!(Duration(3) - Duration(5), Duration::ZERO);
    }

    #[test]
    fn spans_print_in_a_fitting_unit() {
        assert_eq!(Duration(999).to_string(), "999 ns");
        assert_eq!(Duration(1_500).to_string(), "1.500 µs");
        assert_eq!(Duration::from_milliseconds(2).to_string(), "2.000 ms");
        assert_eq!(Duration::from_seconds(3).to_string(), "3.000 s");
    }
}
