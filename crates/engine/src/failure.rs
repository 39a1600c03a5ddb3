//! How a kernel error becomes a refusal that a person can read.
use godwit_image::{Code, Refusal, Subject};
use godwit_linux::Errno;

/// Result of everything in this room.
pub type Result<T> = std::result::Result<T, Refusal>;

/// Gives a kernel error its subject.
pub trait About<T> {
    /// Turns the error into a refusal about a subject.
    ///
    /// # Errors
    /// The error, as a refusal.
    fn about(self, subject: impl FnOnce() -> Subject) -> Result<T>;
}

/// The refusal for a kernel error.
pub fn refusal(errno: Errno, subject: Subject) -> Refusal {
    let code = match errno.number {
        1 | 13 => Code::NOT_PERMITTED,
        3 => Code::PROCESS_VANISHED,
        _ => Code::KERNEL_CALL,
    };
    Refusal::new(code, subject, errno.to_string())
}

impl<T> About<T> for std::result::Result<T, Errno> {
    fn about(self, subject: impl FnOnce() -> Subject) -> Result<T> {
        self.map_err(|errno| refusal(errno, subject()))
    }
}

impl<T> About<T> for std::io::Result<T> {
    fn about(self, subject: impl FnOnce() -> Subject) -> Result<T> {
        self.map_err(|error| {
            let code = match error.raw_os_error() {
                Some(1 | 13) => Code::NOT_PERMITTED,
                Some(3) => Code::PROCESS_VANISHED,
                _ => Code::KERNEL_CALL,
            };
            Refusal::new(code, subject(), error.to_string())
        })
    }
}

/// A refusal about malformed input.
pub fn malformed(subject: Subject, cause: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::MALFORMED, subject, cause.to_string())
}
