//! The port that back-ends implement.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::base::durability::Durability;
use crate::base::error::{Error, Result};
use crate::base::name::{BucketKey, BucketName, ChannelId, ChannelKey, MessageId, StoreName, Subject};
use crate::persistence::event::Repair;
use crate::records::{BucketChange, BucketSnapshot};
use crate::sds::{ChannelData, ChannelMeta, HistoryUpdate};

/// Durable storage behind a store. Object-safe; shared by every bucket and channel of it.
///
/// # Contract
/// - What [`commit`](Self::commit) answered `Ok` for is what the loads answer from then on, after
///   [`close`](Self::close) and a new [`claim`](Self::claim) too, and where
///   [`survives_restart`](Capabilities::survives_restart) is declared, in the next process.
/// - Stores, buckets and channels of different names share nothing, whatever their names look like.
/// - A commit at the adapter's highest level of [`durability`](Capabilities::durability) makes everything that was
///   committed before it, at whatever level, as durable as itself, even if it has no saves of its own.
/// - A commit is applied in the order of its saves; all or nothing as [`atomicity`](Capabilities::atomicity) declares.
/// - Errors say what the caller may do: `Transient` (try again), `Permanent`, `Fenced`, `Corrupt` with its place,
///   `Unknown` (it may or may not have been written; the same commit will come again and must not count twice).
/// - A dropped future may leave a commit done or not done, never half done beyond what `atomicity` allows.
/// - Blocking work belongs on a thread of its own, or on [`base::blocking`](crate::base::blocking).
///
/// A store only ever calls `claim`, `watch`, the loads, `repairs`, `commit`, `close`, `quarantine`, `backup` and `compact`; the
/// single methods are what the default body of `commit` and simple adapters are made of. The smallest useful adapter is
/// `examples/custom_adapter.rs`. Prove yours with the conformance kit (feature `testkit`).
#[async_trait]
pub trait StorageAdapter: Send + Sync + 'static {
    /// What this adapter can do. Asked once, when a store starts; what it does not declare is never asked of it.
    fn capabilities(&self) -> Capabilities;

    /// Stores a change of a bucket.
    async fn save_bucket(&self, bucket: &BucketKey, change: &BucketChange) -> Result<()>;

    /// What is stored of a bucket, or none if nothing ever was.
    async fn load_bucket(&self, bucket: &BucketKey) -> Result<Option<BucketSnapshot>>;

    /// Deletes everything that is stored of a bucket; nothing being stored is fine.
    async fn drop_bucket(&self, bucket: &BucketKey) -> Result<()>;

    /// Stores a channel's whole state but its history.
    async fn save_channel_meta(&self, _channel: &ChannelKey, _meta: &ChannelMeta) -> Result<()> {
        Err(Error::unsupported("keeping channels"))
    }

    /// Stores a change of a channel's history: appends, then evictions.
    async fn update_history(&self, _channel: &ChannelKey, _update: &HistoryUpdate) -> Result<()> {
        Err(Error::unsupported("keeping channels"))
    }

    /// What is stored of a channel; the default if nothing ever was.
    async fn load_channel(&self, _channel: &ChannelKey) -> Result<ChannelData> {
        Err(Error::unsupported("keeping channels"))
    }

    /// Deletes everything that is stored of a channel; nothing being stored is fine.
    async fn drop_channel(&self, _channel: &ChannelKey) -> Result<()> {
        Err(Error::unsupported("keeping channels"))
    }

    /// Stores the retrieval hint of a message; an empty one deletes it. It goes when its message is
    /// evicted, whether the message itself was stored or not.
    async fn set_retrieval_hint(&self, _channel: &ChannelKey, _message: &MessageId, _hint: &[u8]) -> Result<()> {
        Err(Error::unsupported("keeping channels"))
    }

    /// One flush: all saves of `commit`, in order; all or nothing where [`Atomicity::Whole`] is declared. An adapter
    /// that declares [`fencing`](Capabilities::fencing) refuses an epoch that is not the newest claim's.
    ///
    /// The default body applies the saves one by one through the methods above and stops at the first failure.
    async fn commit(&self, commit: &Commit) -> Result<()> {
        for save in &commit.saves {
            apply_save(self, &commit.store, save).await?;
        }
        Ok(())
    }

    /// Takes a store over: the answer is higher than any before it, and older epochs may not commit any more.
    async fn claim(&self, _store: &StoreName) -> Result<Epoch> {
        Ok(Epoch(1))
    }

    /// Releases a store's claim. When it was the last one, files are closed and locks free before this returns; a later
    /// `claim` opens them again. Closing twice is fine.
    async fn close(&self, _store: &StoreName) -> Result<()> {
        Ok(())
    }

    /// Moves everything that is stored of a bucket or channel, readable or not, out of the way, to where it can be
    /// looked at later, and answers where that is. Only called before starting empty on data that could not be read.
    async fn quarantine(&self, _store: &StoreName, _subject: &Subject) -> Result<String> {
        Err(Error::unsupported("moving unreadable data into quarantine"))
    }

    /// What the last load of a bucket or channel has repaired, as the format allows without losing anything that was
    /// acknowledged at a level that survives what happened. Asked once, right after a load that succeeded; what was told
    /// is not told again.
    async fn repairs(&self, _store: &StoreName, _subject: &Subject) -> Vec<Repair> {
        Vec::new()
    }

    /// Asks to be told what the adapter finds out about a store's data in work that nobody has asked for, as when it moves
    /// what is stored from one form into another: of damage as soon as it is found, what was found earlier included, and
    /// of its end. Called once, right after [`claim`](Self::claim), and over with [`close`](Self::close). The watcher does
    /// not block. An adapter without such work has nothing to tell, as in the default body.
    ///
    /// Where nothing could be loaded of a subject any more, whatever is saved to it would be lost with the rest: its
    /// commits are refused with the same error from then on, until it is quarantined, dropped or saved in full.
    fn watch(&self, _store: &StoreName, _watcher: Watcher) {}

    /// Copies everything that the back-end holds, of all its stores, to `target`, while it serves on: the state after
    /// some commit, every commit that was answered before the call included. An adapter opened on the copy finds that
    /// state. Answers how many bytes it wrote.
    ///
    /// # Errors
    /// `Unsupported` where the back-end has means of its own; `InvalidArgument` if something is at `target` already;
    /// otherwise the adapter's own: then nothing is left at `target`, except that after `Unknown` a copy that is whole may be.
    async fn backup(&self, _target: &Path) -> Result<u64> {
        Err(Error::unsupported("copying what is stored"))
    }

    /// Gives back the space that the back-end does not need any more; commits wait meanwhile. Answers by how many
    /// bytes it shrank.
    ///
    /// # Errors
    /// `Unsupported` where there is nothing of that kind to do; otherwise the adapter's own: then all data is as before.
    async fn compact(&self) -> Result<u64> {
        Err(Error::unsupported("compacting what is stored"))
    }
}

/// What an adapter has found out about stored data without being asked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Finding {
    /// It is damaged.
    Damaged(Error),
    /// What was damaged is whole again, or gone.
    Mended,
}

/// Hears of a bucket or channel, or of none where the whole back-end is concerned. In the order in which it was found out.
pub type Watcher = Arc<dyn Fn(Option<&Subject>, Finding) + Send + Sync>;

/// Applies one save through the adapter's single methods.
///
/// # Errors
/// The adapter's own.
pub async fn apply_save<A: StorageAdapter + ?Sized>(adapter: &A, store: &StoreName, save: &Save) -> Result<()> {
    let bucket = |name: &BucketName| BucketKey::new(store.clone(), name.clone());
    let channel = |id: &ChannelId| ChannelKey::new(store.clone(), id.clone());
    match save {
        Save::Bucket(name, change) => adapter.save_bucket(&bucket(name), change).await,
        Save::ChannelMeta(id, meta) => adapter.save_channel_meta(&channel(id), meta).await,
        Save::History(id, update) => adapter.update_history(&channel(id), update).await,
        Save::Hint(id, message, hint) => adapter.set_retrieval_hint(&channel(id), message, hint).await,
        Save::DropBucket(name) => adapter.drop_bucket(&bucket(name)).await,
        Save::DropChannel(id) => adapter.drop_channel(&channel(id)).await,
    }
}

/// A number that grows with every claim of a store; commits of older ones are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u64);

impl std::fmt::Display for Epoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// One flush of a store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Commit {
    /// The store that it is of.
    pub store: StoreName,
    /// The claim under which it is made.
    pub epoch: Epoch,
    /// How far it must have come before it is answered.
    pub durability: Durability,
    /// What to save, in order.
    pub saves: Vec<Save>,
}

impl Commit {
    /// Puts a commit together.
    pub fn new(store: StoreName, epoch: Epoch, durability: Durability, saves: Vec<Save>) -> Self {
        Self { store, epoch, durability, saves }
    }
}

/// One part of a commit. The parts of a commit are in an order that must be kept.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Save {
    /// A bucket's change.
    Bucket(BucketName, Arc<BucketChange>),
    /// A channel's state.
    ChannelMeta(ChannelId, Arc<ChannelMeta>),
    /// A change of a channel's history.
    History(ChannelId, Arc<HistoryUpdate>),
    /// A message's retrieval hint.
    Hint(ChannelId, MessageId, Bytes),
    /// A bucket goes with all that is stored of it.
    DropBucket(BucketName),
    /// A channel goes with all that is stored of it.
    DropChannel(ChannelId),
}

/// What an adapter can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Takes [`BucketChange::Delta`]; otherwise it is only ever given `Full`. Default: no.
    pub incremental: bool,
    /// What a commit that fails half-way leaves. Default: `None`.
    pub atomicity: Atomicity,
    /// Refuses commits of older epochs. Default: no.
    pub fencing: bool,
    /// The highest level it reaches. Default: `Wal`.
    pub durability: Durability,
    /// Keeps channels. Default: no.
    pub channels: bool,
    /// What is committed is there in the next process. Default: yes.
    pub survives_restart: bool,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            incremental: false,
            atomicity: Atomicity::None,
            fencing: false,
            durability: Durability::Wal,
            channels: false,
            survives_restart: true,
        }
    }
}

impl Capabilities {
    /// Sets [`incremental`](Self::incremental).
    #[must_use]
    pub fn with_incremental(mut self, incremental: bool) -> Self {
        self.incremental = incremental;
        self
    }

    /// Sets [`atomicity`](Self::atomicity).
    #[must_use]
    pub fn with_atomicity(mut self, atomicity: Atomicity) -> Self {
        self.atomicity = atomicity;
        self
    }

    /// Sets [`fencing`](Self::fencing).
    #[must_use]
    pub fn with_fencing(mut self, fencing: bool) -> Self {
        self.fencing = fencing;
        self
    }

    /// Sets [`durability`](Self::durability).
    #[must_use]
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Sets [`channels`](Self::channels).
    #[must_use]
    pub fn with_channels(mut self, channels: bool) -> Self {
        self.channels = channels;
        self
    }

    /// Sets [`survives_restart`](Self::survives_restart).
    #[must_use]
    pub fn with_survives_restart(mut self, survives_restart: bool) -> Self {
        self.survives_restart = survives_restart;
        self
    }
}

/// What a commit that fails half-way leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Atomicity {
    /// Anything: each save may be there or not, and a channel's meta and history may differ in age.
    None,
    /// Each bucket and each channel is as before or as after.
    PerSubject,
    /// Everything is as before or as after.
    Whole,
}
