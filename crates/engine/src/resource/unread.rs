//! Kinds in which something may lie unread that can follow when the tree runs already (`crate::communication`).
use super::Kind;
use super::pipe_content::PipeContent;
use super::unix_socket::UnixSocketKind;
use crate::failure::Result;
use crate::restore::Bind;
use godwit_image::{Envelope, ObjectId};

/// They do not change places: one line each.
const KINDS: [&dyn Unread; 2] = [&PipeContent, &UnixSocketKind];

/// An object without what lies unread in it.
#[derive(Debug)]
pub struct Bare {
    /// With the same id, kind and references.
    pub envelope: Envelope,
    /// Other objects that are needed to put it back.
    pub needs: Vec<ObjectId>,
    /// Closing what is needed for that could be seen by who watches the file.
    pub is_watchable: bool,
}

/// What such a kind has besides.
pub trait Unread: Kind {
    /// The object without what lies unread in it; `None`: nothing does, or it cannot be put back when the tree runs.
    ///
    /// # Errors
    /// The payload is malformed.
    fn without_unread(&self, envelope: &Envelope) -> Result<Option<Bare>>;

    /// Puts back what lies unread, and does what else its binding is, when the tree runs and nobody may touch it.
    ///
    /// # Errors
    /// Why it cannot be put back exactly.
    fn put_back(&self, envelope: &Envelope, bind: &mut Bind) -> Result<()>;
}

/// The kind of an envelope, if it is one of these.
pub(crate) fn kind_of(envelope: &Envelope) -> Option<&'static dyn Unread> {
    KINDS.into_iter().find(|kind| kind.id() == envelope.kind)
}
