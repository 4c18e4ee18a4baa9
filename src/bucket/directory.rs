//! Where a name leads: handles outlive a bucket that is dropped, and find the next one of its name.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;

use crate::base::error::{Error, Result};
use crate::base::name::BucketName;
use crate::bucket::handle::{Bucket, BucketSlot};
use crate::persistence::Persister;
use crate::records::Schema;

/// A bucket that is defined.
#[derive(Debug)]
pub(crate) struct Address {
    pub(crate) name: BucketName,
    pub(crate) slot: BucketSlot,
    pub(crate) schema: Arc<Schema>,
    /// None where the bucket is not saved.
    pub(crate) persister: Option<Persister>,
}

/// All buckets of a store by name; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Directory(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    all: Mutex<HashMap<BucketName, Arc<Address>>>,
    turns: Mutex<()>,
}

impl Directory {
    fn all(&self) -> MutexGuard<'_, HashMap<BucketName, Arc<Address>>> {
        // Nothing foreign runs under the lock.
        self.0.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held while a transaction queues up for the turns of its buckets: so that any two transactions queue up in the same
    /// order everywhere, and never wait for each other. For moments only.
    pub(crate) fn queueing(&self) -> MutexGuard<'_, ()> {
        self.0.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn enter(&self, address: Arc<Address>) {
        self.all().insert(address.name.clone(), address);
    }

    /// Removes this bucket, but not another one that has taken its name.
    pub(crate) fn remove(&self, address: &Arc<Address>) {
        let mut all = self.all();
        if all.get(&address.name).is_some_and(|current| Arc::ptr_eq(current, address)) {
            all.remove(&address.name);
        }
    }

    /// The bucket of a name.
    ///
    /// # Errors
    /// `BucketNotDefined`.
    pub(crate) fn get(&self, name: &BucketName) -> Result<Arc<Address>> {
        self.all().get(name).cloned().ok_or_else(|| Error::BucketNotDefined { bucket: name.clone() })
    }

    /// A handle on the bucket of a name.
    ///
    /// # Errors
    /// `InvalidName`, `BucketNotDefined`.
    pub(crate) fn bucket(&self, name: &str) -> Result<Bucket> {
        Ok(Bucket::new(self.get(&BucketName::new(name)?)?, self.clone()))
    }

    /// Every bucket, by name.
    pub(crate) fn list(&self) -> Vec<Arc<Address>> {
        let mut all: Vec<_> = self.all().values().cloned().collect();
        all.sort_unstable_by(|left, right| left.name.cmp(&right.name));
        all
    }
}
