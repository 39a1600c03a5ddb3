//! How a kernel error becomes a refusal that a person can read.
use godwit_image::{Code, Refusal, Subject};
use godwit_linux::Errno;
use godwit_linux::proc::Error as ProcError;

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
    with_remedy(Refusal::new(code, subject, errno.to_string()), Some(errno.number))
}

/// Some errors of the kernel are about ourselves, and not about the subject.
fn with_remedy(refusal: Refusal, number: Option<i32>) -> Refusal {
    const EMFILE: i32 = 24;
    if number != Some(EMFILE) {
        return refusal;
    }
    let cause = format!("godwit has as many files open as it may: {}", refusal.cause);
    Refusal::new(Code::ENVIRONMENT, refusal.subject, cause)
        .choice("let it have more: ulimit -n NUMBER, before it is started")
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
            with_remedy(Refusal::new(code, subject(), error.to_string()), error.raw_os_error())
        })
    }
}

impl<T> About<T> for std::result::Result<T, ProcError> {
    fn about(self, subject: impl FnOnce() -> Subject) -> Result<T> {
        self.map_err(|error| unread(subject(), &error))
    }
}

/// The refusal for a file of /proc that could not be read.
pub(crate) fn unread(subject: Subject, error: &ProcError) -> Refusal {
    let code = match error {
        ProcError::Gone => Code::PROCESS_VANISHED,
        ProcError::Io(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Code::NOT_PERMITTED,
        ProcError::Io(_) => Code::KERNEL_CALL,
        ProcError::Malformed(_) => Code::MALFORMED,
    };
    Refusal::new(code, subject, error.to_string())
}

/// Gives a refusal of an object the choices that there always are, where its kind knows of none of its own.
pub(crate) fn with_choices(refusal: Refusal) -> Refusal {
    let about_object = [Code::UNKNOWN_KIND, Code::EDGE, Code::NOT_MIGRATABLE, Code::UNSUPPORTED];
    if !refusal.choices.is_empty() || !about_object.contains(&refusal.code) {
        return refusal;
    }
    match refusal.subject {
        Subject::Descriptor(pid, number, _) => refusal
            .choice("close it in the program")
            .choice(format!("choose an edge for it: --edge {pid}:{number}=file:PATH, =null or =close")),
        Subject::Mapping(..) => refusal.choice("unmap it in the program"),
        Subject::Path(_) => refusal.choice("let the program use another file or directory"),
        Subject::Process(_) | Subject::Thread(..) => {
            refusal.choice("move without this process, or let it give that up")
        }
        Subject::Host | Subject::Object(_) => refusal.choice("let the program give it up"),
    }
}

/// A refusal about malformed input.
pub fn malformed(subject: Subject, cause: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::MALFORMED, subject, cause.to_string())
}
