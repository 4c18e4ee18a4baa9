//! How a store's saving is doing.

use std::time::SystemTime;

use crate::base::error::Error;
use crate::base::name::Subject;

/// How a store's saving is doing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Health {
    /// Everything is saved, or will be within the window.
    Healthy,
    /// Saves fail, and the store serves on from memory, keeps what is unsaved and tries again; or stored data is damaged.
    Degraded(Degraded),
    /// A later claim owns the store's data: nothing is saved any more.
    Fenced,
    /// The store has stopped.
    Stopped,
}

/// Why and how far saving is behind.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Degraded {
    /// What is wrong.
    pub reason: Reason,
    /// Since when.
    pub since: SystemTime,
    /// The newest failure; [`report`](Error::report) tells what stands behind it.
    pub last_error: Error,
    /// Estimated bytes that are not saved.
    pub unsaved_bytes: usize,
    /// What is not saved.
    pub unsaved_subjects: Vec<Subject>,
    /// When saving is tried next; none while an attempt runs.
    pub next_retry: Option<SystemTime>,
}

/// What is wrong with saving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Commits fail.
    SaveFailing,
    /// Commits fail, and more than 4 times `max_unsaved` is unsaved. Writes are still accepted.
    MemoryPressure,
    /// Saves do not fail, but the adapter has found damage in what is stored, which [`last_error`](Degraded::last_error)
    /// places. It was there before it was found; as yet nothing that is in memory is lost by it.
    Damaged,
}

impl Health {
    /// Whether everything is as it should be.
    pub fn is_healthy(&self) -> bool {
        matches!(self, Self::Healthy)
    }
}
