//! Moments that cannot be carried and pass by themselves: the tree goes on for a little, and is frozen again.
use super::{Captives, Leaving, OnLeaving, Options, Outlet, capture_all};
use crate::failure::{Result, with_choices};
use crate::freeze::{self, FrozenTree};
use godwit_image::{Code, Refusal, Subject};
use std::time::Duration;

/// How long a tree goes on each time, in milliseconds: on a busy machine a moment of its own takes a while.
pub(crate) const PAUSES_MS: [u64; 10] = [1, 1, 2, 4, 8, 16, 32, 64, 128, 256];

/// Whether the cause is gone when the tree has gone on for a little.
pub(crate) fn passes(refusal: &Refusal) -> bool {
    refusal.code == Code::PASSING_MOMENT
}

/// As [`super::capture`]; where the moment is a bad one the tree is let go on and frozen again. Afterwards it is frozen, unless it could
/// not be frozen again. Objects may leave (`on_leaving`) while others are still being captured.
///
/// # Errors
/// As [`super::capture`] and [`freeze::freeze`]. GW1105: the moment did not pass.
pub fn capture_at_a_good_moment(
    frozen: &mut Option<FrozenTree>,
    options: &Options,
    mut on_leaving: Option<OnLeaving<'_>>,
) -> Result<Captives> {
    let mut pauses = PAUSES_MS.into_iter();
    loop {
        let tree = frozen
            .as_mut()
            .ok_or_else(|| Refusal::new(Code::PROCESS_VANISHED, Subject::Host, "there is no frozen tree"))?;
        let root = tree.processes.first().map_or(0, |process| process.pid);
        let captured = capture_all(tree, options, Outlet::new(on_leaving.as_mut())).map_err(with_choices);
        match (captured, pauses.next()) {
            (Err(refusal), Some(pause)) if passes(&refusal) => {
                if let Some(on_leaving) = &mut on_leaving {
                    on_leaving(Leaving::Nothing)?;
                }
                let mut preparation = std::mem::take(&mut tree.preparation);
                // Nobody is tracked any more.
                preparation.tracked.clear();
                if let Some(tree) = frozen.take() {
                    tree.release();
                }
                std::thread::sleep(Duration::from_millis(pause));
                *frozen = Some(freeze::freeze(root, preparation)?);
            }
            (result, _) => return result,
        }
    }
}
