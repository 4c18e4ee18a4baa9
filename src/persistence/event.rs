//! What the persister tells on `persistence.<name>.*`.

use std::time::Duration;

use crate::base::error::{Error, Place};
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
    /// A save failed: what is unsaved is kept, and it is tried again. Or what is stored could not be read, and was set
    /// aside, as [`StartEmpty`](crate::persistence::LoadFailure::StartEmpty) asks for: what comes next is `Recovered`,
    /// which tells where it is. Or the adapter has found damage in what is stored.
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
        /// What the back-end has repaired while it read, as its format allows: nothing is lost by it that was acknowledged
        /// at a level that survives what happened.
        repairs: Vec<Repair>,
        /// Where the data is that could not be read, if it started empty for that.
        quarantine: Option<String>,
    },
}

/// Something that a back-end has put right while it read what is stored, such as the torn end of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repair {
    /// Where.
    pub at: Place,
    /// What was wrong there, and what was done.
    pub what: String,
}

impl Repair {
    /// Says what was done where.
    pub fn new(at: Place, what: impl Into<String>) -> Self {
        Self { at, what: what.into() }
    }
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
