//! What is looked at around a tree before it is frozen, because it does not change and takes its time.
use crate::failure::Result;
use crate::namespaces::Home;
use crate::usual_schedule::UsualSchedule;
use godwit_image::host::HostFacts;
use godwit_linux::scheduling::{Heirs, PreciseSleep, Urgency};

/// Around a tree that is frozen, by this thread.
#[derive(Debug)]
pub(crate) struct Surroundings {
    /// Facts about this host.
    pub(crate) host: HostFacts,
    /// How threads are scheduled that asked for nothing.
    pub(crate) schedule: UsualSchedule,
    /// The namespaces of this process.
    pub(crate) home: Home,
    /// As long as the tree is frozen, what is waited for comes within microseconds.
    _precise: PreciseSleep,
    /// And it stands still no longer than it must.
    _urgency: Option<Urgency>,
}

impl Surroundings {
    /// Looks.
    ///
    /// # Errors
    /// None that this thread could have.
    pub(crate) fn look() -> Result<Surroundings> {
        Ok(Surroundings {
            host: crate::host::facts(),
            schedule: UsualSchedule::look()?,
            home: Home::own(),
            _precise: PreciseSleep::begin(),
            _urgency: Urgency::begin(Heirs::All),
        })
    }
}
