//! What a store tells of itself.

use std::time::Duration;

use crate::base::error::Error;
use crate::base::name::{StoreName, Subject};
use crate::persistence::PersistenceStats;

/// What a stopped store leaves.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct StopReport {
    /// Buckets and channels with changes that are not known to be saved. They are lost with the process, unless the commit
    /// that was given up at the end of the time was written all the same: where [`error`](Self::error) is `Unknown`, they
    /// may be there.
    pub unsaved: Vec<Subject>,
    /// Why they could not be saved, or why the adapter did not close; [`report`](Error::report) tells what stands behind it.
    pub error: Option<Error>,
}

/// A store's numbers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoreStats {
    /// The store's name.
    pub store: StoreName,
    /// Buckets that are defined.
    pub buckets: usize,
    /// Channels that are open.
    pub channels: usize,
    /// Records in all buckets.
    pub records: usize,
    /// Named queries that are defined.
    pub queries: usize,
    /// Live queries that are subscribed.
    pub subscriptions: usize,
    /// How often what has expired is removed; zero where that is turned off.
    pub ttl_check_interval: Duration,
    /// Subscribers of the bus, the store's own included.
    pub subscribers: usize,
    /// What saving has done; `enabled: false` without an adapter.
    pub persistence: PersistenceStats,
}
