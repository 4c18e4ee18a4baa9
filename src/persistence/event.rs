//! What the persister tells on `persistence.<name>.*`.

use std::time::Duration;

use crate::base::error::Error;
use crate::base::name::Subject;

/// One outcome of saving or loading, the payload of `persistence.<name>.*` events.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PersistenceEvent {
    /// The bucket or channel.
    pub subject: Subject,
    /// What happened.
    pub outcome: PersistenceOutcome,
}

/// What happened to a bucket or channel.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PersistenceOutcome {
    /// Everything up to this revision is saved.
    Saved {
        /// The revision.
        revision: u64,
    },
    /// A save failed; what is unsaved is kept, and it is tried again.
    Failed {
        /// What the adapter said.
        error: Error,
        /// How often it has failed in a row, from 1.
        attempt: u32,
    },
    /// It was loaded.
    Recovered {
        /// How many records or messages.
        count: usize,
        /// How long it took.
        took: Duration,
    },
}

impl PersistenceOutcome {
    /// The last segment of the event's topic.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Saved { .. } => "saved",
            Self::Failed { .. } => "failed",
            Self::Recovered { .. } => "recovered",
        }
    }
}
