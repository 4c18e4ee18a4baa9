//! What a bucket tells its subscribers.

use std::sync::Arc;

use crate::base::name::BucketName;
use crate::base::value::Key;
use crate::records::record::Record;

/// One change of one bucket, the payload of `bucket.<name>.*` events.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BucketEvent {
    /// The bucket.
    pub bucket: BucketName,
    /// The bucket's revision since this change; the events of one commit share it.
    pub revision: u64,
    /// Numbers the commits of a store; a transaction's events share it across buckets.
    pub commit: u64,
    /// When it was made, in milliseconds since the Unix epoch.
    pub at: i64,
    /// Which event of its commit, from 0.
    pub index: usize,
    /// How many events its commit has.
    pub count: usize,
    /// What changed.
    pub change: Change,
}

/// Why a record is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// Somebody asked for it.
    Requested,
    /// Its time was over.
    Expired,
    /// The bucket was full, and the record was among the oldest.
    Evicted,
}

/// What changed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Change {
    /// A record is new.
    Inserted {
        /// The record.
        record: Arc<Record>,
    },
    /// A record has a new version.
    Updated {
        /// As it was.
        old: Arc<Record>,
        /// As it is.
        new: Arc<Record>,
    },
    /// A record is gone.
    Deleted {
        /// As it was.
        record: Arc<Record>,
        /// Why it is gone.
        cause: Cause,
    },
    /// All records are gone.
    Cleared {
        /// How many there were, those included that had expired and were not purged yet.
        records: usize,
    },
}

impl Change {
    /// The key of the record that changed; none where all did.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::Inserted { record } | Self::Deleted { record, .. } => Some(record.key()),
            Self::Updated { new, .. } => Some(new.key()),
            Self::Cleared { .. } => None,
        }
    }

    /// Estimated bytes that saving it takes.
    pub fn estimated_bytes(&self) -> usize {
        match self {
            Self::Inserted { record } | Self::Updated { new: record, .. } => record.estimated_bytes(),
            Self::Deleted { record, .. } => record.key().estimated_bytes(),
            Self::Cleared { .. } => 64,
        }
    }

    /// The last segment of the event's topic.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Inserted { .. } => "inserted",
            Self::Updated { .. } => "updated",
            Self::Deleted { .. } => "deleted",
            Self::Cleared { .. } => "cleared",
        }
    }
}
