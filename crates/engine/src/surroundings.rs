//! What is looked at around a tree before it is frozen, because it does not change and takes its time.
use crate::failure::{About, Result};
use crate::namespaces::Home;
use godwit_image::Subject;
use godwit_image::host::HostFacts;
use godwit_linux::scheduling::{self, PreciseSleep};

/// Around a tree that is frozen, by this thread.
#[derive(Debug)]
pub(crate) struct Surroundings {
    /// Facts about this host.
    pub(crate) host: HostFacts,
    /// Every processor that threads may be bound to here, as sched_getaffinity(2) tells it.
    pub(crate) processors: Vec<u8>,
    /// The namespaces of this process.
    pub(crate) home: Home,
    /// As long as the tree is frozen, what is waited for comes within microseconds.
    _precise: PreciseSleep,
}

impl Surroundings {
    /// Looks.
    ///
    /// # Errors
    /// None that this thread could have.
    pub(crate) fn look() -> Result<Surroundings> {
        Ok(Surroundings {
            host: crate::host::facts(),
            processors: scheduling::every_processor().about(|| Subject::Host)?,
            home: Home::own(),
            _precise: PreciseSleep::begin(),
        })
    }
}
