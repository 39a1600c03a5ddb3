//! A limit of the rate at which bytes leave: a token bucket, in exact numbers. Time is an argument.
//!
//! So many bytes per second flow in, at most a burst is kept, and what leaves is taken out. What must not wait (messages) may take out
//! more than there is: then nothing else leaves until that is paid.

use core::fmt;
use core::str::FromStr;

use godwit_deterministic::{Duration, Instant};

const SECOND: u128 = 1_000_000_000;
/// The least burst: what is smaller costs more for its frames and calls than it carries.
const BURST_MIN: u64 = 16 << 10;
/// A burst is what flows in during so many milliseconds.
const BURST_MILLISECONDS: u64 = 20;

/// Bytes per second; never zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Rate(u64);

/// A text that is no rate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadRate;

impl fmt::Display for BadRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a rate is bytes per second: a number such as 800000, 800k, 100M or 1G, at least {}", Rate::LEAST)
    }
}

impl core::error::Error for BadRate {}

impl Rate {
    /// With less than this the two sides would take each other for dead: a message waits for the end of the frame before it.
    pub const LEAST: u64 = 64_000;

    /// So many bytes per second. `None`: too few.
    pub const fn new(bytes: u64) -> Option<Rate> {
        if bytes < Rate::LEAST { None } else { Some(Rate(bytes)) }
    }

    /// Bytes per second.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// What leaves at this rate in that time.
    pub const fn during(self, time: Duration) -> u64 {
        let bytes = self.0 as u128 * time.nanoseconds() as u128 / SECOND;
        if bytes > u64::MAX as u128 { u64::MAX } else { bytes as u64 }
    }
}

impl FromStr for Rate {
    type Err = BadRate;

    fn from_str(text: &str) -> Result<Rate, BadRate> {
        let units = [("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)];
        let unit = units.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes)));
        let (digits, unit) = unit.unwrap_or((text, 1));
        // Not what `parse` allows besides: a sign.
        let number = digits.parse::<u64>().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()));
        number.and_then(|number| number.checked_mul(unit)).and_then(Rate::new).ok_or(BadRate)
    }
}

/// The bucket.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    rate: Rate,
    /// Bytes.
    burst: u64,
    /// Bytes times [`SECOND`].
    full: u128,
    level: u128,
    /// The same, where more was taken than there was.
    owed: u128,
    at: Instant,
}

impl Bucket {
    /// A full one.
    pub fn new(rate: Rate, now: Instant) -> Bucket {
        let burst = rate.during(Duration::from_milliseconds(BURST_MILLISECONDS)).max(BURST_MIN);
        let full = u128::from(burst) * SECOND;
        Bucket { rate, burst, full, level: full, owed: 0, at: now }
    }

    /// The rate that it keeps.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Lets in what has flowed in since it was looked at last.
    fn flow(&mut self, now: Instant) {
        let inflow = u128::from(self.rate.0) * u128::from(now.since(self.at).nanoseconds());
        self.at = self.at.max(now);
        let paid = inflow.min(self.owed);
        self.owed -= paid;
        self.level = self.level.saturating_add(inflow - paid).min(self.full);
    }

    /// How many bytes may leave now.
    pub fn allowance(&mut self, now: Instant) -> u64 {
        self.flow(now);
        u64::try_from(self.level / SECOND).unwrap_or(u64::MAX)
    }

    /// So many bytes have left.
    pub fn take(&mut self, bytes: u64, now: Instant) {
        self.flow(now);
        let taken = u128::from(bytes) * SECOND;
        let there = taken.min(self.level);
        self.level -= there;
        self.owed = self.owed.saturating_add(taken - there);
    }

    /// How long until it is worth to send again: half of a burst may leave then.
    pub fn pause(&mut self, now: Instant) -> Duration {
        self.flow(now);
        let missing = (self.full / 2).saturating_sub(self.level).saturating_add(self.owed);
        let nanoseconds = missing.div_ceil(u128::from(self.rate.0));
        Duration::from_nanoseconds(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    /// Most bytes of one frame: messages wait for its end.
    pub fn frame_bytes(&self) -> usize {
        usize::try_from(self.burst).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use godwit_deterministic::Random;

    #[test]
    fn a_rate_is_a_number_with_a_unit() {
        for (text, bytes) in [
            ("64000", Some(64_000)),
            ("64k", Some(64_000)),
            ("100M", Some(100_000_000)),
            ("2G", Some(2_000_000_000)),
            ("63999", None),
            ("0", None),
            ("", None),
            ("M", None),
            ("+1M", None),
            ("-1M", None),
            ("1.5M", None),
            ("1K", None),
            ("1 M", None),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("99999999999999999G", None),
        ] {
            assert_eq!(text.parse::<Rate>().ok().map(Rate::bytes), bytes, "{text}");
        }
        assert!(BadRate.to_string().contains("64000"));
    }

    #[test]
    fn who_takes_what_is_allowed_and_pauses_gets_the_rate_and_never_more() {
        let mut random = Random::new(7);
        for round in 0..200 {
            let rate = Rate::new(Rate::LEAST + random.below(1 << (1 + round % 34))).unwrap();
            let begin = Instant::from_nanoseconds(random.below(u64::MAX / 4));
            let mut bucket = Bucket::new(rate, begin);
            let (mut now, mut gone, mut pauses) = (begin, 0_u64, 0);
            let burst = bucket.allowance(now);
            while pauses < 100 {
                let allowed = bucket.allowance(now);
                assert!(allowed <= burst);
                let part = if random.below(4) == 0 { random.below(allowed + 1) } else { allowed };
                bucket.take(part, now);
                gone += part;
                let most = u128::from(burst) + u128::from(rate.during(now.since(begin))) + 1;
                assert!(u128::from(gone) <= most, "{gone} of {most}");
                if part == allowed {
                    let pause = bucket.pause(now);
                    assert!(pause.nanoseconds() > 0);
                    now += pause;
                    pauses += 1;
                    // Somebody who wakes late loses nothing as long as the bucket has room.
                    assert!(bucket.allowance(now) >= burst / 2);
                }
            }
            // Nothing is lost: at the end of a pause everything that flowed in is gone or here.
            let all = u128::from(burst) + u128::from(rate.during(now.since(begin)));
            let here = u128::from(bucket.allowance(now));
            assert!((u128::from(gone) + here).abs_diff(all) <= 2, "{gone} and {here} of {all}");
        }
    }

    #[test]
    fn what_could_not_wait_is_paid_later() {
        let rate = Rate::new(1_000_000).unwrap();
        let mut bucket = Bucket::new(rate, Instant::ORIGIN);
        let full = bucket.allowance(Instant::ORIGIN);
        bucket.take(full + 500_000, Instant::ORIGIN);
        assert_eq!(bucket.allowance(Instant::from_nanoseconds(500_000_000)), 0);
        assert_eq!(bucket.allowance(Instant::from_nanoseconds(510_000_000)), 10_000);
        // A clock that goes back changes nothing.
        assert_eq!(bucket.allowance(Instant::from_nanoseconds(400_000_000)), 10_000);
        assert_eq!(bucket.allowance(Instant::from_nanoseconds(u64::MAX)), full);
    }
}
