//! Errors of the testbed: what was being done, and why it could not be.

use std::io;

/// Why a host, link or workload could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This machine cannot do it at all; the text says what to change.
    #[error("{0}")]
    Refused(String),
    /// A step failed.
    #[error("cannot {doing}: {cause}")]
    Step {
        /// What was being done, to be read after "cannot".
        doing: String,
        /// The system's answer.
        cause: io::Error,
    },
    /// A program that the testbed ran did not do its part.
    #[error("{program}: {said}")]
    Program {
        /// Which program.
        program: String,
        /// What it said or how it ended.
        said: String,
    },
}

/// Says what was being done when the system said no.
pub(crate) trait Doing<T> {
    /// Turns the system's answer into an error that names the step.
    fn doing(self, what: impl Into<String>) -> Result<T, Error>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl Into<String>) -> Result<T, Error> {
        self.map_err(|cause| Error::Step { doing: what.into(), cause })
    }
}
