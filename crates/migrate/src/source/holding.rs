//! How a source's tree stays stopped whatever becomes of this process, and how it is let go or ended.
use super::{Driver, nothing_frozen};
use crate::hold;
use crate::host;
use crate::journal::Member;
use godwit_engine::capture::{Captives, SpacePages};
use godwit_engine::freeze::FrozenTree;
use godwit_engine::outflow;
use godwit_handoff::{Record, Side, Stage};
use godwit_image::Refusal;

/// From so many threads on they are held while the other side builds.
const MANY_THREADS: u64 = 32;
/// From so many on already while pages are sent.
const VERY_MANY_THREADS: u64 = 256;

impl Driver<'_> {
    /// As [`Driver::hold_early`], where it takes longest. A process that is to send pages itself still has to run programs.
    pub(super) fn hold_very_early(&mut self, captives: &Captives) {
        let sends = |space: &SpacePages| {
            captives.tree.space(space.space).is_none_or(|of| !outflow::sendable(of, &space.pages).is_empty())
        };
        if self.report.threads >= VERY_MANY_THREADS && !captives.spaces.iter().any(sends) {
            self.hold_early();
        }
    }

    /// Nothing runs in the tree any more, and the other side has much to do: of many threads a hold takes long. Whoever undoes the
    /// freeze undoes this, too; but from here on our death alone is no roll-back any more, so somebody must stand by.
    pub(super) fn hold_early(&mut self) {
        let is_worth_it = self.guardian.is_some() && self.report.threads >= MANY_THREADS;
        if is_worth_it && !self.held && self.machine.outcome().is_none() && self.go_on().is_ok() {
            match self.note_members() {
                Ok(()) => self.frozen.iter_mut().for_each(FrozenTree::begin_hold),
                Err(refusal) => self.early_hold = Some(refusal),
            }
        }
    }

    pub(super) fn hold(&mut self) -> Result<(), Refusal> {
        if let Some(refusal) = self.early_hold.take() {
            return Err(refusal);
        }
        if !self.held {
            self.note_members()?;
        }
        self.frozen.as_mut().ok_or_else(nothing_frozen)?.hold()
    }

    /// Whoever must undo the hold needs to know what was held, before it is.
    fn note_members(&mut self) -> Result<(), Refusal> {
        let frozen = self.frozen.as_mut().ok_or_else(nothing_frozen)?;
        let living = frozen.processes.iter().filter(|process| !process.is_zombie());
        self.details.members = living.map(|process| Member::now(process.pid, process.group_stop() != 0)).collect();
        if let Some(journal) = &mut self.journal {
            let record = Record {
                side: Side::Source,
                stage: Stage::Started,
                migration: self.machine.migration(),
                boot: host::boot_id(),
                details: Vec::new(),
            };
            journal.append(record, &self.details)?;
        }
        self.held = true;
        Ok(())
    }

    pub(super) fn thaw(&mut self) -> Result<(), Refusal> {
        self.captives = None;
        match self.frozen.take() {
            Some(frozen) if self.held => frozen.unhold(),
            Some(frozen) => {
                frozen.release();
                Ok(())
            }
            // Frozen by an earlier engine: what it held goes on.
            None => hold::wake(&self.details),
        }
    }

    pub(super) fn kill(&mut self) -> Result<(), Refusal> {
        self.captives = None;
        match self.frozen.take() {
            Some(frozen) => {
                frozen.kill();
                Ok(())
            }
            None => hold::kill(&self.details),
        }
    }
}
