//! Why there is no figure.

/// Why the benches could not be run at all, or one of them could not.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Two hosts could not be made, or a program not be run in one.
    #[error(transparent)]
    Host(#[from] godwit_testbed::Error),
    /// A step failed with an error of the operating system.
    #[error("cannot {doing}: {cause}")]
    Step {
        /// What was tried.
        doing: String,
        /// The system's answer.
        cause: std::io::Error,
    },
    /// A program said something else than it should have.
    #[error("{program}: {said}")]
    Program {
        /// Which.
        program: String,
        /// Its words, or what was wrong with it.
        said: String,
    },
    /// The engine refused.
    #[error("{0}")]
    Refused(String),
    /// No case has this name.
    #[error("there is no case {name}; there are: {known}")]
    UnknownCase {
        /// The name.
        name: String,
        /// All names.
        known: String,
    },
}

/// Says what was being done when the system answered with an error.
pub(crate) trait Doing<T> {
    /// Turns the error into one that says what was tried.
    fn doing(self, what: impl Into<String>) -> Result<T, Error>;
}

impl<T> Doing<T> for std::io::Result<T> {
    fn doing(self, what: impl Into<String>) -> Result<T, Error> {
        self.map_err(|cause| Error::Step { doing: what.into(), cause })
    }
}

/// A program that did not do what it should.
pub(crate) fn program(program: impl Into<String>, said: impl Into<String>) -> Error {
    Error::Program { program: program.into(), said: said.into() }
}
