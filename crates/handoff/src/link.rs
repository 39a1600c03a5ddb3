//! Is the other side still there? Heartbeats and silence, for both machines.

use godwit_deterministic::{Duration, Instant};

use crate::patience::Patience;

/// What a look at the link says.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Pulse {
    Fine,
    /// Nothing was said for long: say something.
    Beat,
    /// Nothing was heard for long: the link is dead.
    Silent,
}

#[derive(Clone, Debug)]
pub(crate) struct Link {
    up: bool,
    heard: Instant,
    said: Instant,
    heartbeat: Duration,
    silence: Duration,
}

impl Link {
    pub(crate) fn new(patience: &Patience) -> Link {
        Link {
            up: false,
            heard: Instant::ORIGIN,
            said: Instant::ORIGIN,
            heartbeat: patience.heartbeat,
            silence: patience.silence,
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up
    }

    pub(crate) fn raise(&mut self, now: Instant) {
        *self = Link { up: true, heard: now, said: now, ..*self };
    }

    pub(crate) fn lose(&mut self) {
        self.up = false;
    }

    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    pub(crate) fn said(&mut self, now: Instant) {
        self.said = now;
    }

    pub(crate) fn pulse(&self, now: Instant) -> Pulse {
        if self.up && now >= self.heard + self.silence {
            Pulse::Silent
        } else if self.up && now >= self.said + self.heartbeat {
            Pulse::Beat
        } else {
            Pulse::Fine
        }
    }

    /// When the next look is worth it.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.up.then(|| (self.heard + self.silence).min(self.said + self.heartbeat))
    }
}
