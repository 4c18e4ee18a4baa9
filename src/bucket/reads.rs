//! What a query function has read, bucket by bucket, with the oldest revision that answered it.

use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;

use crate::base::name::BucketName;
use crate::records::ReadSet;

/// What was read of one bucket.
#[derive(Clone, Debug, Default)]
pub(crate) struct BucketReads {
    /// Keys, predicates, or everything.
    pub(crate) set: ReadSet,
    /// The oldest revision that a read was answered from; the highest there is where nothing was read.
    pub(crate) since: u64,
}

/// Collects reads; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reads(Arc<Mutex<HashMap<BucketName, BucketReads>>>);

impl Reads {
    /// Notes a read that a revision of a bucket answered.
    pub(crate) fn note(&self, bucket: &BucketName, revision: u64, note: impl FnOnce(&mut ReadSet)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || BucketReads { set: ReadSet::default(), since: revision };
        let reads = all.entry(bucket.clone()).or_insert_with(fresh);
        reads.since = reads.since.min(revision);
        note(&mut reads.set);
    }

    /// Notes that a bucket was asked for.
    pub(crate) fn ask(&self, bucket: &BucketName) {
        self.note(bucket, u64::MAX, |_| {});
    }

    /// Everything noted so far; what is noted later is for nobody.
    pub(crate) fn take(&self) -> HashMap<BucketName, BucketReads> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
