//! How much of what is pushed may be on its way while somebody waits for pages: those have a connection of their own, but one link with
//! what is pushed, and wait behind all that is queued in front of it. What the link carries in two round trips, and in the moment that
//! it takes to look at it again, keeps it busy.
use godwit_linux::tcp::Advance;
use std::time::{Duration, Instant};

/// Bytes that may be on their way in any case.
const LEAST: u64 = 16 << 10;
/// Besides the round trips: a thread that sleeps and is woken takes its time.
const MOMENT: Duration = Duration::from_micros(20);
/// Who has waited for a page may wait for the next one so long after it left, besides the time that both take on the link.
const AFTER: Duration = Duration::from_micros(300);
/// A rate is measured over so long.
const SPAN: Duration = Duration::from_millis(2);
/// On whatever link.
const LONGEST: Duration = Duration::from_millis(50);
/// A pause is no shorter.
const PAUSE_MIN: Duration = Duration::from_micros(50);
/// And no longer, whatever was measured.
const PAUSE_MAX: Duration = Duration::from_millis(5);

/// What was measured of the connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Restraint {
    /// When so many bytes had been acknowledged.
    seen: Option<(Instant, u64)>,
    /// Bytes per second; 0: not known.
    rate: u64,
}

/// What may be pushed now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Room {
    /// So many bytes.
    Bytes(u64),
    /// None before that time has passed.
    After(Duration),
}

impl Restraint {
    /// Begins with what the kernel has measured so far: on a link with room for a burst it is too much, for as long as it takes to fall.
    pub(super) fn of(advance: &Advance) -> Restraint {
        Restraint { seen: None, rate: advance.rate }
    }

    /// Whether somebody may be waiting for the next page, so long after one has left. It shares the link with so many bytes that are under
    /// way: were they not counted, they would come to stay.
    pub(super) fn is_needed(&self, since_answer: Duration, under_way: u64) -> bool {
        let bytes = u128::from(LEAST) * 4 + u128::from(under_way) * 2;
        let on_link = bytes * 1_000_000_000 / u128::from(self.rate.max(1));
        let on_link = Duration::from_nanos(u64::try_from(on_link).unwrap_or(u64::MAX)).min(LONGEST);
        since_answer < AFTER + on_link
    }

    /// Takes in how the connection stands: bytes that have left, and what the kernel tells of it.
    pub(super) fn room(&mut self, now: Instant, sent: u64, advance: &Advance) -> Room {
        let Advance { acknowledged, round_trip, .. } = *advance;
        match self.seen {
            Some((since, before)) if now - since >= SPAN => {
                let rate = u128::from(acknowledged.saturating_sub(before)) * 1_000_000_000 / (now - since).as_nanos();
                // It falls slowly: a moment in which little was to be sent says nothing of the link.
                self.rate = u64::try_from(rate).unwrap_or(u64::MAX).max(self.rate - self.rate / 8);
                self.seen = Some((now, acknowledged));
            }
            Some(_) => {}
            None => self.seen = Some((now, acknowledged)),
        }
        let meanwhile = u128::from(self.rate) * (round_trip * 2 + MOMENT).as_nanos() / 1_000_000_000;
        let limit = u64::try_from(meanwhile).unwrap_or(u64::MAX).max(LEAST);
        let under_way = sent.saturating_sub(acknowledged);
        if under_way < limit {
            return Room::Bytes(limit - under_way);
        }
        let over = u128::from(under_way - limit) * 1_000_000_000 / u128::from(self.rate.max(1));
        let pause = Duration::from_nanos(u64::try_from(over).unwrap_or(u64::MAX));
        Room::After(pause.clamp(PAUSE_MIN, PAUSE_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link of a rate (bytes per second) and a round trip, on which is pushed what may be by what is known of it at first; bytes per
    /// second, and the most that was queued.
    fn push(rate: u64, round_trip: Duration, known: u64) -> (u64, u64) {
        let (begin, step) = (Instant::now(), Duration::from_micros(20));
        let advance = |acknowledged| Advance { acknowledged, round_trip, rate: known };
        let (mut restraint, mut sent, mut carried, mut most) = (Restraint::of(&advance(0)), 0, 0.0_f64, 0);
        let mut history = std::collections::VecDeque::from([0_u64]);
        let (mut now, mut next) = (begin, begin);
        while now - begin < Duration::from_secs(1) {
            now += step;
            carried = (carried + rate as f64 * step.as_secs_f64()).min(sent as f64);
            history.push_back(carried as u64);
            // What the link has carried is acknowledged a round trip later.
            while history.len() as u128 > round_trip.as_nanos() / step.as_nanos() + 1 {
                history.pop_front();
            }
            if now < next {
                continue;
            }
            match restraint.room(now, sent, &advance(history[0])) {
                Room::Bytes(bytes) => sent += bytes.min(128 << 10),
                Room::After(pause) => next = now + pause,
            }
            most = most.max(sent - carried as u64);
        }
        (carried as u64, most)
    }

    #[test]
    fn the_link_stays_busy_and_little_waits_in_it() {
        for (rate, round_trip) in [
            (1_250_000, 40),
            (12_500_000, 200),
            (125_000_000, 24),
            (125_000_000, 1_000),
            (1_250_000_000, 100),
            (12_500_000, 50_000),
        ] {
            let round_trip = Duration::from_micros(round_trip);
            for known in [0, rate / 2, rate] {
                let (carried, most) = push(rate, round_trip, known);
                let once = (rate as f64 * (round_trip + MOMENT).as_secs_f64()) as u64;
                assert!(carried > rate / 2, "{rate} {round_trip:?} {known}: {carried}");
                assert!(most <= LEAST + 3 * once + (128 << 10), "{rate} {round_trip:?} {known}: {most}");
            }
        }
    }
}
