//! Which live queries the changes of a bucket concern.

use std::sync::{Arc, PoisonError, RwLock};

use hashbrown::HashMap;

use crate::base::name::BucketName;
use crate::bucket::live::watch::Watch;
use crate::bus::{Event, Sink};
use crate::records::BucketEvent;

/// The queries that have read of a bucket, or are about to.
type Watchers = Arc<Vec<Arc<Watch>>>;

/// All live queries of a store by the buckets that they read. It is the sink that their store's bus tells of changes.
#[derive(Debug, Default)]
pub(super) struct Index(RwLock<HashMap<BucketName, Watchers>>);

impl Index {
    fn watchers(&self, bucket: &BucketName) -> Option<Watchers> {
        // Nothing under the lock can panic half way.
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(bucket).cloned()
    }

    pub(super) fn enter(&self, bucket: &BucketName, watch: &Arc<Watch>) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(all.entry(bucket.clone()).or_default()).push(Arc::clone(watch));
    }

    pub(super) fn leave(&self, bucket: &BucketName, watch: &Arc<Watch>) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Some(watchers) = all.get_mut(bucket) else { return };
        Arc::make_mut(watchers).retain(|other| !Arc::ptr_eq(other, watch));
        if watchers.is_empty() {
            all.remove(bucket);
        }
    }

    /// The bucket of a name is another one now, or none.
    pub(super) fn replaced(&self, bucket: &BucketName) {
        for watch in self.watchers(bucket).iter().flat_map(|watchers| watchers.iter()) {
            watch.replaced(bucket);
        }
    }
}

impl Sink for Index {
    fn event(&self, event: &Event) {
        let Some(change) = event.payload::<BucketEvent>() else { return };
        for watch in self.watchers(&change.bucket).iter().flat_map(|watchers| watchers.iter()) {
            watch.hear(event, change);
        }
    }
}
