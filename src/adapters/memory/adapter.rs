//! The port, over the shared state.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::adapters::memory::state::{Quarantined, State};
use crate::base::durability::Durability;
use crate::base::error::Result;
use crate::base::name::{BucketKey, ChannelKey, MessageId, StoreName, Subject};
use crate::persistence::{Atomicity, Capabilities, Commit, Epoch, StorageAdapter};
use crate::records::{BucketChange, BucketSnapshot};
use crate::sds::{ChannelData, ChannelMeta, HistoryUpdate};

/// Keeps stores in memory. Clones share what they keep, so that a store can be stopped and started again on it; it is
/// gone when the last clone is dropped.
///
/// It has everything to offer but [`survives_restart`](Capabilities::survives_restart), and declares
/// [`Durability::Fsync`], because there is nothing that it could lose in between. Closing a store keeps its data.
///
/// ```
/// # tokio_test::block_on(async {
/// use ractor_persistence::adapters::memory::MemoryAdapter;
/// use ractor_persistence::base::durability::Durability;
/// use ractor_persistence::base::name::{BucketKey, BucketName, StoreName};
/// use ractor_persistence::persistence::{Commit, Save, StorageAdapter};
/// use ractor_persistence::records::{BucketChange, BucketSnapshot};
///
/// let (store, users) = (StoreName::new("shop")?, BucketName::new("users")?);
/// let adapter = MemoryAdapter::default();
/// let epoch = adapter.claim(&store).await?;
/// let change = BucketChange::Full(BucketSnapshot::new(1, 7, 0, vec![]));
/// let saves = vec![Save::Bucket(users.clone(), change.into())];
/// adapter.commit(&Commit::new(store.clone(), epoch, Durability::Fsync, saves)).await?;
/// adapter.close(&store).await?;
///
/// let loaded = adapter.clone().load_bucket(&BucketKey::new(store, users)).await?;
/// assert_eq!(loaded.map(|bucket| bucket.revision), Some(7));
/// # Ok::<(), ractor_persistence::base::error::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemoryAdapter {
    state: Arc<Mutex<State>>,
}

impl MemoryAdapter {
    /// Everything that was moved out of the way by [`quarantine`](StorageAdapter::quarantine), in that order.
    pub fn quarantined(&self) -> Vec<Quarantined> {
        self.state().quarantined.clone()
    }

    /// A copy of what is kept now, which shares nothing with this one from here on: a place to go back to in tests.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self { state: Arc::new(Mutex::new(self.state().clone())) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under the lock panics but for want of memory, and what is kept is whole between two lines
        // of it; so the state behind a poisoned lock is as good as any.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nothing here awaits: a future that is dropped was either never polled or is done.
#[async_trait]
impl StorageAdapter for MemoryAdapter {
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
            .with_incremental(true)
            .with_atomicity(Atomicity::Whole)
            .with_fencing(true)
            .with_durability(Durability::Fsync)
            .with_channels(true)
            .with_survives_restart(false)
    }

    async fn save_bucket(&self, bucket: &BucketKey, change: &BucketChange) -> Result<()> {
        self.state().store_mut(&bucket.store).save_bucket(&bucket.bucket, change);
        Ok(())
    }

    async fn load_bucket(&self, bucket: &BucketKey) -> Result<Option<BucketSnapshot>> {
        Ok(self.state().store(&bucket.store).and_then(|store| store.load_bucket(&bucket.bucket)))
    }

    async fn drop_bucket(&self, bucket: &BucketKey) -> Result<()> {
        self.state().store_mut(&bucket.store).drop_bucket(&bucket.bucket);
        Ok(())
    }

    async fn save_channel_meta(&self, channel: &ChannelKey, meta: &ChannelMeta) -> Result<()> {
        self.state().store_mut(&channel.store).save_meta(&channel.channel, Arc::new(meta.clone()));
        Ok(())
    }

    async fn update_history(&self, channel: &ChannelKey, update: &HistoryUpdate) -> Result<()> {
        self.state().store_mut(&channel.store).update_history(&channel.channel, update);
        Ok(())
    }

    async fn load_channel(&self, channel: &ChannelKey) -> Result<ChannelData> {
        let state = self.state();
        Ok(state.store(&channel.store).and_then(|store| store.load_channel(&channel.channel)).unwrap_or_default())
    }

    async fn drop_channel(&self, channel: &ChannelKey) -> Result<()> {
        self.state().store_mut(&channel.store).drop_channel(&channel.channel);
        Ok(())
    }

    async fn set_retrieval_hint(&self, channel: &ChannelKey, message: &MessageId, hint: &[u8]) -> Result<()> {
        self.state().store_mut(&channel.store).set_hint(&channel.channel, message, hint);
        Ok(())
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        self.state().commit(commit)
    }

    async fn claim(&self, store: &StoreName) -> Result<Epoch> {
        Ok(self.state().store_mut(store).claim())
    }

    /// Keeps data and epoch: the next claim is still higher.
    async fn close(&self, _store: &StoreName) -> Result<()> {
        Ok(())
    }

    async fn quarantine(&self, store: &StoreName, subject: &Subject) -> Result<String> {
        Ok(self.state().quarantine(store, subject))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::memory::QuarantinedData;
    use crate::base::name::{BucketName, ChannelId};
    use crate::persistence::Save;
    use crate::records::{Metadata, Record};

    #[tokio::test]
    async fn a_fork_has_what_was_there_and_hears_of_nothing_later() {
        let (store, users) = (StoreName::new("shop").unwrap(), BucketName::new("users").unwrap());
        let adapter = MemoryAdapter::default();
        let epoch = adapter.claim(&store).await.unwrap();
        let commit = |revision| {
            let change = BucketChange::Full(BucketSnapshot::new(1, revision, 0, vec![]));
            Commit::new(store.clone(), epoch, Durability::Fsync, vec![Save::Bucket(users.clone(), change.into())])
        };
        adapter.commit(&commit(1)).await.unwrap();
        let fork = adapter.fork();
        adapter.commit(&commit(2)).await.unwrap();
        let key = BucketKey::new(store.clone(), users.clone());
        let revision = |found: Option<BucketSnapshot>| found.map(|bucket| bucket.revision);
        assert_eq!(revision(fork.load_bucket(&key).await.unwrap()), Some(1));
        assert_eq!(revision(adapter.load_bucket(&key).await.unwrap()), Some(2));
        fork.commit(&commit(3)).await.unwrap();
        assert_eq!(revision(adapter.load_bucket(&key).await.unwrap()), Some(2));
    }

    #[tokio::test]
    async fn what_is_in_quarantine_can_be_read() {
        let (store, users) = (StoreName::new("shop").unwrap(), BucketName::new("users").unwrap());
        let adapter = MemoryAdapter::default();
        let epoch = adapter.claim(&store).await.unwrap();
        let metadata = Metadata { version: 1, created_at: 0, updated_at: 0, expires_at: None };
        let ada = Record::from_parts("ada", 1, metadata, record! { "born": 1815 });
        let saved = BucketSnapshot::new(1, 2, 3, vec![ada.into()]);
        let saves = vec![Save::Bucket(users.clone(), BucketChange::Full(saved.clone()).into())];
        adapter.commit(&Commit::new(store.clone(), epoch, Durability::Fsync, saves)).await.unwrap();

        let subjects = [Subject::Bucket(users.clone()), Subject::Channel(ChannelId::new("never saved").unwrap())];
        let mut names = Vec::new();
        for subject in &subjects {
            names.push(adapter.quarantine(&store, subject).await.unwrap());
        }
        assert_eq!(adapter.load_bucket(&BucketKey::new(store.clone(), users)).await.unwrap(), None);
        let quarantined = adapter.clone().quarantined();
        let found: Vec<_> = quarantined.iter().map(|one| (one.name.clone(), one.subject.clone())).collect();
        assert_eq!(found, names.into_iter().zip(subjects).collect::<Vec<_>>());
        assert!(matches!(&quarantined[0].data, QuarantinedData::Bucket(bucket) if *bucket == saved));
        assert!(
            matches!(&quarantined[1].data, QuarantinedData::Channel(channel) if **channel == ChannelData::default())
        );
    }
}
