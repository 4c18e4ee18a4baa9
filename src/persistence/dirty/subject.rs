//! What is known of one subject.

use std::time::Duration;

use crate::base::durability::Durability;
use crate::persistence::dirty::retry::Retry;

#[derive(Debug, Default)]
pub(super) struct Entry {
    /// When the first change came that is not captured yet.
    pub(super) dirty_since: Option<Duration>,
    /// When the oldest change came that is not saved, captured or not.
    pub(super) unsaved_since: Option<Duration>,
    /// Estimated bytes of changes that are not captured yet.
    pub(super) waiting_bytes: usize,
    /// Estimated bytes of changes that are captured or handed over.
    pub(super) captured_bytes: usize,
    /// The newest revision known of.
    pub(super) newest: u64,
    /// The revision in flight.
    pub(super) captured: Option<u64>,
    /// The revision that was handed over, at whatever level.
    pub(super) handed: u64,
    /// The revision that was saved at the top level.
    pub(super) saved: u64,
    /// Set while its commits fail for a reason of its own: it is committed alone then.
    pub(super) isolated: Option<Retry>,
    /// Whether a failure of it was reported since it was last saved.
    pub(super) failing: bool,
    /// Whether its stored form is to be replaced, which no revision tells, since it was last captured.
    pub(super) rewritten: bool,
    /// Subjects of one group have changes that belong together: they are committed together or not at all.
    pub(super) group: Option<u64>,
}

impl Entry {
    pub(super) fn reached(&self, level: Durability, top: Durability) -> u64 {
        if level >= top { self.saved } else { self.handed }
    }

    pub(super) fn unsaved_bytes(&self) -> usize {
        self.waiting_bytes + self.captured_bytes
    }

    pub(super) fn is_unsaved(&self) -> bool {
        self.dirty_since.is_some() || self.captured.is_some() || self.handed > self.saved
    }
}
