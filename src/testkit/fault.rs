//! The adapter that fails on demand.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::base::error::Result;
use crate::base::name::{BucketKey, ChannelKey, MessageId, StoreName, Subject};
use crate::persistence::{Capabilities, Commit, Epoch, Repair, StorageAdapter, Watcher};
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

    async fn repairs(&self, store: &StoreName, subject: &Subject) -> Vec<Repair> {
        self.inner.repairs(store, subject).await
    }

    fn watch(&self, store: &StoreName, watcher: Watcher) {
        self.inner.watch(store, watcher);
    }

    async fn backup(&self, target: &Path) -> Result<u64> {
        self.pass(Call::Backup(target.to_owned()), self.inner.backup(target)).await
    }

    async fn compact(&self) -> Result<u64> {
        self.pass(Call::Compact, self.inner.compact()).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::adapters::memory::MemoryAdapter;
    use crate::base::durability::Durability;
    use crate::base::error::Error;
    use crate::base::name::{BucketName, ChannelId};
    use crate::persistence::Save;
    use crate::testkit::{Fault, Operation};

    fn broken() -> Error {
        Error::transient("testing", std::io::Error::other("on purpose"))
    }

    fn store() -> StoreName {
        StoreName::new("store").unwrap()
    }

    fn bucket(name: &str) -> BucketName {
        BucketName::new(name).unwrap()
    }

    fn save(name: &str) -> Save {
        Save::Bucket(bucket(name), BucketChange::Full(BucketSnapshot::default()).into())
    }

    async fn claimed() -> (FaultAdapter<MemoryAdapter>, Faults, Epoch) {
        let adapter = FaultAdapter::new(MemoryAdapter::default());
        let epoch = adapter.claim(&store()).await.unwrap();
        let faults = adapter.faults();
        faults.forget_calls();
        (adapter, faults, epoch)
    }

    async fn commit(adapter: &FaultAdapter<MemoryAdapter>, epoch: Epoch, saves: Vec<Save>) -> Result<()> {
        adapter.commit(&Commit::new(store(), epoch, Durability::Fsync, saves)).await
    }

    async fn stored(adapter: &FaultAdapter<MemoryAdapter>, name: &str) -> bool {
        adapter.inner().load_bucket(&BucketKey::new(store(), bucket(name))).await.unwrap().is_some()
    }

    #[tokio::test]
    async fn a_call_that_fails_never_reaches_the_wrapped_adapter_and_is_noted_with_its_error() {
        let (adapter, faults, epoch) = claimed().await;
        faults.inject(Fault::fail(broken()).on(Operation::Commit).skip(1).times(1));
        let mut results = Vec::new();
        for name in ["a", "b", "c"] {
            results.push(commit(&adapter, epoch, vec![save(name)]).await.is_ok());
        }
        assert_eq!(results, [true, false, true]);
        assert_eq!([stored(&adapter, "a").await, stored(&adapter, "b").await], [true, false]);
        assert!(matches!(&faults.calls()[1].result, Some(Err(Error::Transient { .. }))));
        assert_eq!(faults.commits().len(), 3);
    }

    #[tokio::test]
    async fn a_lost_answer_leaves_the_commit_done() {
        let (adapter, faults, epoch) = claimed().await;
        faults.inject(Fault::apply_then_fail(broken()).times(1));
        assert!(commit(&adapter, epoch, vec![save("a")]).await.is_err());
        assert!(stored(&adapter, "a").await);
        assert!(commit(&adapter, epoch, vec![save("a")]).await.is_ok());
    }

    #[tokio::test]
    async fn faults_hit_what_they_were_narrowed_down_to_until_healed() {
        let (adapter, faults, epoch) = claimed().await;
        faults.fail_subject(Subject::Bucket(bucket("sick")), broken());
        faults.fail_drops(broken());
        faults.fail_loads(broken());
        assert!(commit(&adapter, epoch, vec![save("well")]).await.is_ok());
        assert!(commit(&adapter, epoch, vec![save("well"), save("sick")]).await.is_err());
        assert!(commit(&adapter, epoch, vec![Save::DropBucket(bucket("well"))]).await.is_err());
        assert!(commit(&adapter, epoch, vec![Save::DropChannel(ChannelId::new("sick").unwrap())]).await.is_err());
        assert!(adapter.load_bucket(&BucketKey::new(store(), bucket("well"))).await.is_err());
        faults.heal();
        assert!(commit(&adapter, epoch, vec![save("sick"), Save::DropBucket(bucket("well"))]).await.is_ok());
        assert_eq!([stored(&adapter, "sick").await, stored(&adapter, "well").await], [true, false]);
    }

    #[tokio::test]
    async fn a_hanging_call_goes_on_when_released_and_one_that_is_dropped_never_ends() {
        let (adapter, faults, epoch) = claimed().await;
        faults.inject(Fault::hang().on(Operation::Commit));
        let hanging = |name: &'static str| {
            let adapter = adapter.clone();
            tokio::spawn(async move { commit(&adapter, epoch, vec![save(name)]).await })
        };
        let (first, second) = (hanging("a"), hanging("b"));
        faults.until(|log| log.len() == 2).await;
        assert_eq!(faults.most_commits_at_once(), 2);
        second.abort();
        assert!(second.await.unwrap_err().is_cancelled());
        faults.release();
        first.await.unwrap().unwrap();
        faults.until_commits_ended(1).await;
        assert_eq!([stored(&adapter, "a").await, stored(&adapter, "b").await], [true, false]);
        let third = hanging("c");
        faults.until(|log| log.len() == 3).await;
        faults.heal();
        third.await.unwrap().unwrap();
        let ended: Vec<bool> = faults.calls().iter().map(|logged| logged.result.is_some()).collect();
        assert_eq!(ended, [true, false, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_is_one_of_the_runtimes_clock() {
        let (adapter, faults, epoch) = claimed().await;
        faults.inject(Fault::delay(Duration::from_secs(3_600)));
        let before = tokio::time::Instant::now();
        commit(&adapter, epoch, vec![]).await.unwrap();
        assert_eq!(before.elapsed().as_secs(), 3_600);
    }

    #[tokio::test]
    async fn the_same_seed_hits_the_same_calls() {
        let mut runs = Vec::new();
        for seed in [7, 7, 8] {
            let (adapter, faults, epoch) = claimed().await;
            faults.inject(Fault::fail(broken()).at_random(seed, 0.5));
            let mut results = Vec::new();
            for _ in 0..64 {
                results.push(commit(&adapter, epoch, vec![]).await.is_ok());
            }
            runs.push(results);
        }
        assert!(runs[0] == runs[1] && runs[0] != runs[2]);
        assert!((16..48).contains(&runs[0].iter().filter(|ok| **ok).count()));
    }

    #[tokio::test]
    async fn an_adapter_of_unknown_type_can_be_wrapped() {
        let inner: Arc<dyn StorageAdapter> = Arc::new(MemoryAdapter::default());
        let adapter = FaultAdapter::over(inner);
        assert_eq!(adapter.claim(&store()).await.unwrap(), Epoch(1));
        assert!(matches!(&*adapter.faults().calls(), [logged] if matches!(logged.call, Call::Claim(_))));
    }
}
