//! What a store holds: requests go to the writer's thread, reading to the blocking pool.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;

use async_trait::async_trait;
use bytes::Bytes;
use redb::ReadTransaction;
use tokio::sync::oneshot;

use crate::adapters::redb::backup;
use crate::adapters::redb::fault::{Fault, guarded};
use crate::adapters::redb::keys::JournalKeys;
use crate::adapters::redb::load;
use crate::adapters::redb::options::RedbOptions;
use crate::adapters::redb::quarantine;
use crate::adapters::redb::writer::{self, Request, Submission};
use crate::base::blocking;
use crate::base::durability::Durability;
use crate::base::error::{Error, Result};
use crate::base::name::{BucketKey, ChannelKey, MessageId, StoreName, Subject};
use crate::persistence::{Atomicity, Capabilities, Commit, Epoch, Quarantined, Save, StorageAdapter, Watcher};
use crate::records::{BucketChange, BucketSnapshot};
use crate::sds::{ChannelData, ChannelMeta, HistoryUpdate};

/// Keeps stores in one redb file.
///
/// Clones share the file. It is closed, its lock free, when the last claim is released with
/// [`close`](StorageAdapter::close); when all clones are dropped without that, it is closed in the background soon after.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use ractor_persistence::adapters::redb::RedbAdapter;
/// use ractor_persistence::base::{durability::Durability, name::{BucketKey, BucketName, StoreName}};
/// use ractor_persistence::persistence::{Commit, Save, StorageAdapter};
/// use ractor_persistence::records::{BucketChange, BucketSnapshot};
///
/// let directory = tempfile::tempdir()?;
/// let adapter = RedbAdapter::open(directory.path().join("shop.redb")).await?;
/// let (shop, users) = (StoreName::new("shop")?, BucketName::new("users")?);
///
/// let epoch = adapter.claim(&shop).await?;
/// let change = BucketChange::Full(BucketSnapshot::new(1, 7, 0, Vec::new()));
/// let saves = vec![Save::Bucket(users.clone(), change.into())];
/// adapter.commit(&Commit::new(shop.clone(), epoch, Durability::Fsync, saves)).await?;
///
/// let loaded = adapter.load_bucket(&BucketKey::new(shop.clone(), users)).await?;
/// assert_eq!(loaded.map(|bucket| bucket.revision), Some(7));
/// adapter.close(&shop).await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct RedbAdapter {
    path: Arc<Path>,
    requests: Sender<Request>,
}

impl fmt::Debug for RedbAdapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbAdapter").field("path", &self.path).finish_non_exhaustive()
    }
}

impl RedbAdapter {
    /// Opens the file at `path`, or makes it if nothing is there; its directory must be there.
    ///
    /// # Errors
    /// `Locked` if this or another process has the file open; `Corrupt` if it is damaged, empty or no file of ours;
    /// `UnknownFormat` if a later release wrote it; `Permanent` or `Transient` with what the file system says.
    ///
    /// # Cancel safety
    /// If the future is dropped, the file is closed again in the background; a file that was just made stays.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self> {
        Self::open_with(path, RedbOptions::default()).await
    }

    /// Opens the file with options of your own.
    ///
    /// # Errors
    /// As [`open`](Self::open), and `InvalidOptions`.
    ///
    /// # Cancel safety
    /// As [`open`](Self::open).
    pub async fn open_with(path: impl Into<PathBuf>, options: RedbOptions) -> Result<Self> {
        options.check()?;
        let path = path.into();
        let requests = writer::start(path.clone(), options).await?;
        Ok(Self { path: path.into(), requests })
    }

    /// Everything that [`quarantine`](StorageAdapter::quarantine) has moved away, of all stores, read into memory.
    ///
    /// # Errors
    /// As loading a bucket; damaged rows are no error, they are given as they are. `Permanent` once the last claim has been
    /// released, as a store does when it stops: the file is closed then.
    pub async fn quarantined(&self) -> Result<Vec<Quarantined>> {
        self.read("reading the quarantine", None, quarantine::list).await
    }

    /// Sends a request to the writer's thread and waits for its answer.
    pub(super) async fn ask<T>(
        &self,
        operation: &'static str,
        request: impl FnOnce(oneshot::Sender<Result<T>>) -> Request,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).map_err(|_| Error::permanent(operation, WriterGone))?;
        answer.await.map_err(|_| Error::unknown(operation, WriterGone))?
    }

    /// Reads from a snapshot on the blocking pool, in which everything of `whole` has been folded. If the file fails, it is
    /// opened again and read once more.
    async fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        whole: Option<JournalKeys>,
        work: impl Fn(&ReadTransaction) -> Result<T, Fault> + Send + Sync + 'static,
    ) -> Result<T> {
        let work = Arc::new(work);
        let mut failed = None;
        loop {
            let whole = whole.clone();
            let (txn, opening) = self.ask(operation, |reply| Request::Read { operation, whole, failed, reply }).await?;
            let run = Arc::clone(&work);
            let path = Arc::clone(&self.path);
            let last = failed.is_some();
            let outcome = blocking::run(operation, move || match guarded(|| run(&txn)) {
                Ok(Ok(value)) => Ok(Some(value)),
                Ok(Err(Fault::Broken(_))) if !last => Ok(None),
                Ok(Err(fault)) => Err(fault.into_read_error(operation, &path)),
                Err(panic) => Err(Fault::Damaged(panic.to_string()).into_read_error(operation, &path)),
            });
            match outcome.await? {
                Some(value) => return Ok(value),
                None => failed = Some(opening),
            }
        }
    }

    async fn submit(&self, store: &StoreName, epoch: Option<Epoch>, saves: Vec<Save>) -> Result<()> {
        let submission = Submission { store: store.clone(), epoch, saves };
        self.ask("commit", |reply| Request::Commit(submission, reply)).await
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the thread that owns the database has ended")]
struct WriterGone;

/// What is done is synced when it is answered, whatever durability was asked for: redb has no level in between.
///
/// # Cancel safety
/// A request is in the writer's queue from the first poll on and is served to its end even if the future is dropped.
#[async_trait]
impl StorageAdapter for RedbAdapter {
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
            .with_incremental(true)
            .with_atomicity(Atomicity::Whole)
            .with_fencing(true)
            .with_durability(Durability::Fsync)
            .with_channels(true)
            .with_survives_restart(true)
    }

    async fn save_bucket(&self, bucket: &BucketKey, change: &BucketChange) -> Result<()> {
        let save = Save::Bucket(bucket.bucket.clone(), Arc::new(change.clone()));
        self.submit(&bucket.store, None, vec![save]).await
    }

    async fn load_bucket(&self, bucket: &BucketKey) -> Result<Option<BucketSnapshot>> {
        let (bucket, whole) = (bucket.clone(), JournalKeys::of_bucket(bucket));
        self.read("loading a bucket", Some(whole), move |txn| load::bucket(txn, &bucket)).await
    }

    async fn drop_bucket(&self, bucket: &BucketKey) -> Result<()> {
        self.submit(&bucket.store, None, vec![Save::DropBucket(bucket.bucket.clone())]).await
    }

    async fn save_channel_meta(&self, channel: &ChannelKey, meta: &ChannelMeta) -> Result<()> {
        let save = Save::ChannelMeta(channel.channel.clone(), Arc::new(meta.clone()));
        self.submit(&channel.store, None, vec![save]).await
    }

    async fn update_history(&self, channel: &ChannelKey, update: &HistoryUpdate) -> Result<()> {
        let save = Save::History(channel.channel.clone(), Arc::new(update.clone()));
        self.submit(&channel.store, None, vec![save]).await
    }

    async fn load_channel(&self, channel: &ChannelKey) -> Result<ChannelData> {
        let (channel, whole) = (channel.clone(), JournalKeys::of_channel(channel));
        self.read("loading a channel", Some(whole), move |txn| load::channel(txn, &channel)).await
    }

    async fn drop_channel(&self, channel: &ChannelKey) -> Result<()> {
        self.submit(&channel.store, None, vec![Save::DropChannel(channel.channel.clone())]).await
    }

    async fn set_retrieval_hint(&self, channel: &ChannelKey, message: &MessageId, hint: &[u8]) -> Result<()> {
        let save = Save::Hint(channel.channel.clone(), message.clone(), Bytes::copy_from_slice(hint));
        self.submit(&channel.store, None, vec![save]).await
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        self.submit(&commit.store, Some(commit.epoch), commit.saves.clone()).await
    }

    async fn claim(&self, store: &StoreName) -> Result<Epoch> {
        self.ask("claiming the store", |reply| Request::Claim(store.clone(), reply)).await
    }

    async fn close(&self, store: &StoreName) -> Result<()> {
        self.ask("closing the store", |reply| Request::Close(store.clone(), reply)).await
    }

    async fn quarantine(&self, store: &StoreName, subject: &Subject) -> Result<String> {
        let (store, subject) = (store.clone(), subject.clone());
        self.ask("moving data into quarantine", |reply| Request::Quarantine(store, subject, reply)).await
    }

    /// Tells of what cannot be folded.
    fn watch(&self, store: &StoreName, watcher: Watcher) {
        // Where the thread has ended, everything else says so.
        self.requests.send(Request::Watch(store.clone(), watcher)).ok();
    }

    /// The copy is a file of its own, with an id of its own. It is made beside `target` and gets that name once it is
    /// complete and synced.
    ///
    /// # Cancel safety
    /// Once its snapshot has been taken, it is made to its end even if the future is dropped.
    async fn backup(&self, target: &Path) -> Result<u64> {
        let target = target.to_owned();
        self.read("copying the database", None, move |txn| backup::copy(txn, &target)).await
    }

    /// Folds the journal, then moves pages to the front of the file and cuts off what is left behind them. Nothing is
    /// saved or loaded meanwhile, and every page may be moved, so do this when nobody waits.
    ///
    /// # Errors
    /// `Transient` while a load or a backup is running; what the file system says.
    ///
    /// # Cancel safety
    /// Once asked for, it is done even if the future is dropped.
    async fn compact(&self) -> Result<u64> {
        self.ask("compacting", Request::Compact).await
    }
}
