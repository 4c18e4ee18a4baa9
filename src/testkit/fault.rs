//! The adapter that fails on demand.

use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::base::error::Result;
use crate::base::name::{BucketKey, ChannelKey, MessageId, StoreName, Subject};
use crate::persistence::{Capabilities, Commit, Epoch, StorageAdapter};
use crate::records::{BucketChange, BucketSnapshot};
use crate::sds::{ChannelData, ChannelMeta, HistoryUpdate};
use crate::testkit::faults::{Call, Effect, Faults};

/// Wraps any adapter, passes every call on, notes it, and fails, delays or hangs those that its [`Faults`] say.
///
/// ```
/// # tokio_test::block_on(async {
/// use ractor_persistence::adapters::memory::MemoryAdapter;
/// use ractor_persistence::base::{durability::Durability, error::Error, name::StoreName};
/// use ractor_persistence::persistence::{Commit, StorageAdapter};
/// use ractor_persistence::testkit::{Fault, FaultAdapter, Operation};
///
/// let adapter = FaultAdapter::new(MemoryAdapter::default());
/// let faults = adapter.faults();
/// faults.inject(Fault::fail(Error::unsupported("saving on Sundays")).on(Operation::Commit).times(1));
///
/// let store = StoreName::new("shop")?;
/// let commit = Commit::new(store.clone(), adapter.claim(&store).await?, Durability::Fsync, vec![]);
/// assert!(adapter.commit(&commit).await.is_err());
/// assert!(adapter.commit(&commit).await.is_ok());
/// assert_eq!(faults.commits().len(), 2);
/// # Ok::<(), Error>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct FaultAdapter<A: ?Sized> {
    faults: Faults,
    inner: Arc<A>,
}

/// Clones share the wrapped adapter and its faults.
impl<A: ?Sized> Clone for FaultAdapter<A> {
    fn clone(&self) -> Self {
        Self { faults: self.faults.clone(), inner: Arc::clone(&self.inner) }
    }
}

impl<A: StorageAdapter> FaultAdapter<A> {
    /// Wraps an adapter; nothing goes wrong yet.
    pub fn new(inner: A) -> Self {
        Self::over(Arc::new(inner))
    }
}

impl<A: StorageAdapter + ?Sized> FaultAdapter<A> {
    /// Wraps an adapter that others hold, too, or whose type is not known; nothing goes wrong yet.
    pub fn over(inner: Arc<A>) -> Self {
        Self { faults: Faults::default(), inner }
    }

    /// The controls.
    pub fn faults(&self) -> Faults {
        self.faults.clone()
    }

    /// The wrapped adapter.
    pub fn inner(&self) -> &Arc<A> {
        &self.inner
    }

    /// Notes the call and makes it, through whatever is to happen to it. Dropped, the call ends where it stands.
    async fn pass<T>(&self, call: Call, made: impl Future<Output = Result<T>>) -> Result<T> {
        let (running, effects) = self.faults.begin(call);
        let result = async {
            let mut lost = None;
            for effect in effects {
                match effect {
                    Effect::Fail(error) => return Err(error),
                    Effect::ApplyThenFail(error) => lost = lost.or(Some(error)),
                    Effect::Delay(delay) => tokio::time::sleep(delay).await,
                    Effect::Hang => running.hang().await,
                }
            }
            let answer = made.await?;
            lost.map_or(Ok(answer), Err)
        }
        .await;
        running.ended(result.as_ref().map(drop).map_err(Clone::clone));
        result
    }
}

#[deny(clippy::missing_trait_methods, reason = "a default body would go around the wrapped adapter's own")]
#[async_trait]
impl<A: StorageAdapter + ?Sized> StorageAdapter for FaultAdapter<A> {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn save_bucket(&self, bucket: &BucketKey, change: &BucketChange) -> Result<()> {
        self.pass(Call::SaveBucket(bucket.clone(), change.clone()), self.inner.save_bucket(bucket, change)).await
    }

    async fn load_bucket(&self, bucket: &BucketKey) -> Result<Option<BucketSnapshot>> {
        self.pass(Call::LoadBucket(bucket.clone()), self.inner.load_bucket(bucket)).await
    }

    async fn drop_bucket(&self, bucket: &BucketKey) -> Result<()> {
        self.pass(Call::DropBucket(bucket.clone()), self.inner.drop_bucket(bucket)).await
    }

    async fn save_channel_meta(&self, channel: &ChannelKey, meta: &ChannelMeta) -> Result<()> {
        let call = Call::SaveChannelMeta(channel.clone(), meta.clone());
        self.pass(call, self.inner.save_channel_meta(channel, meta)).await
    }

    async fn update_history(&self, channel: &ChannelKey, update: &HistoryUpdate) -> Result<()> {
        let call = Call::UpdateHistory(channel.clone(), update.clone());
        self.pass(call, self.inner.update_history(channel, update)).await
    }

    async fn load_channel(&self, channel: &ChannelKey) -> Result<ChannelData> {
        self.pass(Call::LoadChannel(channel.clone()), self.inner.load_channel(channel)).await
    }

    async fn drop_channel(&self, channel: &ChannelKey) -> Result<()> {
        self.pass(Call::DropChannel(channel.clone()), self.inner.drop_channel(channel)).await
    }

    async fn set_retrieval_hint(&self, channel: &ChannelKey, message: &MessageId, hint: &[u8]) -> Result<()> {
        let call = Call::SetRetrievalHint(channel.clone(), message.clone(), Bytes::copy_from_slice(hint));
        self.pass(call, self.inner.set_retrieval_hint(channel, message, hint)).await
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        self.pass(Call::Commit(commit.clone()), self.inner.commit(commit)).await
    }

    async fn claim(&self, store: &StoreName) -> Result<Epoch> {
        self.pass(Call::Claim(store.clone()), self.inner.claim(store)).await
    }

    async fn close(&self, store: &StoreName) -> Result<()> {
        self.pass(Call::Close(store.clone()), self.inner.close(store)).await
    }

    async fn quarantine(&self, store: &StoreName, subject: &Subject) -> Result<String> {
        self.pass(Call::Quarantine(store.clone(), subject.clone()), self.inner.quarantine(store, subject)).await
    }
}
