//! The port, over an open directory.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::OwnedRwLockReadGuard;

use crate::adapters::json_file::backup::{Backup, is_taken};
use crate::adapters::json_file::error::{BadTarget, NotOpen};
use crate::adapters::json_file::names::Ids;
use crate::adapters::json_file::options::JsonFileOptions;
use crate::adapters::json_file::session::Session;
use crate::adapters::json_file::subject::Env;
use crate::base::blocking;
use crate::base::disk::Disk;
use crate::base::durability::Durability;
use crate::base::error::{Error, Result};
use crate::base::name::{BucketKey, ChannelKey, MessageId, StoreName, Subject};
use crate::persistence::{Atomicity, Capabilities, Commit, Epoch, Repair, Save, StorageAdapter};
use crate::records::{BucketChange, BucketSnapshot};
use crate::sds::{ChannelData, ChannelMeta, HistoryUpdate};

/// Keeps stores in a directory of JSON files that people can read and diff.
///
/// Each bucket and each channel has a checkpoint (`.json`) and a journal of the changes since (`.jsonl`). A commit appends
/// one line per bucket or channel that it touches, so that it costs what it changes; the checkpoint is written anew when the
/// journal has outgrown it.
///
/// The directory is locked from [`open`](Self::open) on until the last claim is released by
/// [`close`](StorageAdapter::close), or the last clone is dropped. Clones share everything.
///
/// # Cancel safety
/// A call whose future is dropped before its turn comes does nothing; from then on it runs to its end on the blocking pool,
/// whether or not anybody waits for it, and later calls for the same store come after it.
///
/// # Examples
/// ```
/// # tokio_test::block_on(async {
/// use std::sync::Arc;
/// use ractor_persistence::adapters::json_file::JsonFileAdapter;
/// use ractor_persistence::base::{durability::Durability, name::{BucketKey, BucketName, StoreName}};
/// use ractor_persistence::persistence::{Commit, Save, StorageAdapter};
/// use ractor_persistence::records::{BucketChange, BucketDelta};
///
/// let directory = tempfile::tempdir().unwrap();
/// let adapter = JsonFileAdapter::open(directory.path()).await?;
/// let (shop, users) = (StoreName::new("shop")?, BucketName::new("users")?);
/// let epoch = adapter.claim(&shop).await?;
/// let change = BucketChange::Delta(BucketDelta::new(1, 0, 1));
/// let save = Save::Bucket(users.clone(), Arc::new(change));
/// adapter.commit(&Commit::new(shop.clone(), epoch, Durability::Fsync, vec![save])).await?;
/// let loaded = adapter.load_bucket(&BucketKey::new(shop.clone(), users)).await?;
/// assert_eq!(loaded.map(|bucket| bucket.revision), Some(1));
/// assert!(directory.path().join("shop/bucket.users.json").exists());
/// adapter.close(&shop).await?;
/// # Ok::<(), ractor_persistence::base::error::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct JsonFileAdapter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    env: Arc<Env>,
    /// None from the release of the last claim until the next. Whoever writes holds it for reading, so that a claim and a
    /// close wait for what is under way, and what is under way has the epoch that it was checked for.
    session: RwLock<Option<Session>>,
    /// The highest epoch that was given out here, per store.
    epochs: Mutex<HashMap<StoreName, u64>>,
    /// Whose turn it is, per store. A turn travels with the blocking work, so that work which nobody waits for any more is
    /// not overtaken by what is asked for later.
    turns: Mutex<HashMap<StoreName, Arc<Turns>>>,
}

type Turns = tokio::sync::RwLock<()>;

impl JsonFileAdapter {
    /// Opens a directory, made if missing, and locks it.
    ///
    /// # Errors
    /// `Locked` with its holder, if another adapter has it, in this process or another; what the disk answers.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, JsonFileOptions::default()).await
    }

    /// Opens a directory on another file system than the operating system's.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_on(disk: Arc<dyn Disk>, path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, JsonFileOptions::default().with_disk(disk)).await
    }

    /// Opens a directory in a way of your own.
    ///
    /// # Errors
    /// `InvalidOptions` with all that is out of bounds; else as [`open`](Self::open).
    pub async fn open_with(path: impl AsRef<Path>, options: JsonFileOptions) -> Result<Self> {
        options.check()?;
        let env = Arc::new(Env { root: path.as_ref().to_path_buf(), options });
        blocking::run("opening a directory of JSON files", move || {
            let session = RwLock::new(Some(Session::open(Arc::clone(&env))?));
            Ok(Self(Arc::new(Inner { env, session, epochs: Mutex::default(), turns: Mutex::default() })))
        })
        .await
    }

    /// The directory.
    pub fn path(&self) -> PathBuf {
        self.0.env.root.clone()
    }

    fn turns(&self, store: &StoreName) -> Arc<Turns> {
        let mut turns = self.0.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(store.clone()).or_default())
    }

    /// Changes something of a store, alone.
    async fn change<T, F>(&self, operation: &'static str, store: &StoreName, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Inner) -> Result<T> + Send + 'static,
    {
        let turn = self.turns(store).write_owned().await;
        let inner = Arc::clone(&self.0);
        blocking::run(operation, move || {
            let answer = work(&inner);
            drop(turn);
            answer
        })
        .await
    }

    /// Reads something of a store, beside others who do. The work is given its turn, to end it when it likes.
    async fn look<T, F>(&self, operation: &'static str, store: &StoreName, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Session, OwnedRwLockReadGuard<()>) -> Result<T> + Send + 'static,
    {
        let turn = self.turns(store).read_owned().await;
        let inner = Arc::clone(&self.0);
        blocking::run(operation, move || inner.with(operation, |session| work(session, turn))).await
    }

    /// One save outside of a commit, of whoever holds the directory.
    async fn save(&self, store: &StoreName, save: Save) -> Result<()> {
        let name = store.clone();
        let save = move |session: &Session| session.commit(&name, Durability::Fsync, &[save]);
        self.change("saving", store, move |inner| inner.with("saving", save)).await
    }
}

impl Inner {
    fn with<T>(&self, operation: &'static str, work: impl FnOnce(&Session) -> Result<T>) -> Result<T> {
        let session = self.session.read().unwrap_or_else(PoisonError::into_inner);
        work(session.as_ref().ok_or_else(|| Error::permanent(operation, NotOpen::Closed))?)
    }

    fn claim(&self, store: &StoreName) -> Result<Epoch> {
        let mut session = self.session.write().unwrap_or_else(PoisonError::into_inner);
        let open = match session.take() {
            Some(open) => open,
            None => Session::open(Arc::clone(&self.env))?,
        };
        let open = session.insert(open);
        let mut epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        let claimed = open.claim(store, epochs.get(store).copied().unwrap_or(0));
        match &claimed {
            Ok(epoch) => {
                epochs.insert(store.clone(), epoch.0);
            }
            // A directory that nobody has a claim in is not kept from others.
            Err(_) if !open.is_claimed() => *session = None,
            Err(_) => {}
        }
        claimed
    }

    fn backup(&self, target: &Path) -> Result<u64> {
        let operation = "copying the directory";
        let (disk, root) = (self.env.disk(), &self.env.root);
        let refused = |why: BadTarget| Error::invalid_argument(why.to_string());
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        let target = absolute(target);
        if target.file_name().is_none() {
            return Err(refused(BadTarget::NoName(target)));
        }
        if target.starts_with(absolute(root)) {
            return Err(refused(BadTarget::Inside(target)));
        }
        if is_taken(disk, &target) {
            return Err(refused(BadTarget::Taken(target)));
        }
        let mut backup = Backup::begin(disk, &target).map_err(|fault| fault.into_error(operation))?;
        {
            // Held for writing, it keeps everybody away who writes, so that what is copied is what whole commits left.
            let session = self.session.write().unwrap_or_else(PoisonError::into_inner);
            if session.is_none() {
                return Err(Error::permanent(operation, NotOpen::Closed));
            }
            backup.copy(root).map_err(|fault| fault.into_error(operation))?;
        }
        backup.finish().map_err(|fault| fault.into_error(operation))
    }

    fn close(&self, store: &StoreName) -> Result<()> {
        let mut session = self.session.write().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = session.as_mut() else { return Ok(()) };
        let released = open.release(store);
        if !open.is_claimed() {
            *session = None;
        }
        released
    }
}

fn bucket_ids(key: &BucketKey) -> Ids {
    Ids { store: key.store.clone(), subject: Subject::Bucket(key.bucket.clone()) }
}

fn channel_ids(key: &ChannelKey) -> Ids {
    Ids { store: key.store.clone(), subject: Subject::Channel(key.channel.clone()) }
}

#[async_trait]
impl StorageAdapter for JsonFileAdapter {
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
            .with_incremental(true)
            .with_atomicity(Atomicity::PerSubject)
            .with_fencing(true)
            .with_durability(Durability::Fsync)
            .with_channels(true)
            .with_survives_restart(true)
    }

    async fn save_bucket(&self, bucket: &BucketKey, change: &BucketChange) -> Result<()> {
        self.save(&bucket.store, Save::Bucket(bucket.bucket.clone(), Arc::new(change.clone()))).await
    }

    async fn load_bucket(&self, bucket: &BucketKey) -> Result<Option<BucketSnapshot>> {
        let ids = bucket_ids(bucket);
        self.look("loading", &bucket.store, move |session, turn| session.load_bucket(&ids, turn)).await
    }

    async fn drop_bucket(&self, bucket: &BucketKey) -> Result<()> {
        self.save(&bucket.store, Save::DropBucket(bucket.bucket.clone())).await
    }

    async fn save_channel_meta(&self, channel: &ChannelKey, meta: &ChannelMeta) -> Result<()> {
        self.save(&channel.store, Save::ChannelMeta(channel.channel.clone(), Arc::new(meta.clone()))).await
    }

    async fn update_history(&self, channel: &ChannelKey, update: &HistoryUpdate) -> Result<()> {
        self.save(&channel.store, Save::History(channel.channel.clone(), Arc::new(update.clone()))).await
    }

    async fn load_channel(&self, channel: &ChannelKey) -> Result<ChannelData> {
        let ids = channel_ids(channel);
        self.look("loading", &channel.store, move |session, turn| session.load_channel(&ids, turn)).await
    }

    async fn drop_channel(&self, channel: &ChannelKey) -> Result<()> {
        self.save(&channel.store, Save::DropChannel(channel.channel.clone())).await
    }

    async fn set_retrieval_hint(&self, channel: &ChannelKey, message: &MessageId, hint: &[u8]) -> Result<()> {
        let save = Save::Hint(channel.channel.clone(), message.clone(), Bytes::copy_from_slice(hint));
        self.save(&channel.store, save).await
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        let owned = commit.clone();
        let save = move |session: &Session| {
            session.check(&owned.store, owned.epoch)?;
            session.commit(&owned.store, owned.durability, &owned.saves)
        };
        self.change("saving", &commit.store, move |inner| inner.with("saving", save)).await
    }

    async fn claim(&self, store: &StoreName) -> Result<Epoch> {
        let name = store.clone();
        self.change("claiming a store", store, move |inner| inner.claim(&name)).await
    }

    async fn close(&self, store: &StoreName) -> Result<()> {
        let name = store.clone();
        self.change("closing a store", store, move |inner| inner.close(&name)).await
    }

    async fn repairs(&self, store: &StoreName, subject: &Subject) -> Vec<Repair> {
        let ids = Ids { store: store.clone(), subject: subject.clone() };
        // A directory that was closed meanwhile has nothing more to tell.
        self.look("looking at repairs", store, move |session, _turn| Ok(session.repairs(&ids)))
            .await
            .unwrap_or_default()
    }

    async fn quarantine(&self, store: &StoreName, subject: &Subject) -> Result<String> {
        let ids = Ids { store: store.clone(), subject: subject.clone() };
        let operation = "moving into quarantine";
        self.change(operation, store, move |inner| inner.with(operation, |session| session.quarantine(&ids))).await
    }

    /// The copy is a directory like this one, without its lock. It is made under another name beside `target`
    /// (`<target>.tmp`, which a process that is killed leaves behind), synced and then renamed. Everything of the
    /// adapter waits while the files are read, not while the copy is synced.
    ///
    /// `InvalidArgument` also for a target inside of this directory.
    async fn backup(&self, target: &Path) -> Result<u64> {
        let (inner, target) = (Arc::clone(&self.0), target.to_path_buf());
        blocking::run("copying the directory", move || inner.backup(&target)).await
    }

    /// Writes a checkpoint for each bucket and channel whose journal has lines, and removes what is left of drops that
    /// were interrupted; of all stores in the directory, claimed or not. A bucket or channel that cannot be read is left
    /// as it is, the rest is done, and its error is the answer.
    async fn compact(&self) -> Result<u64> {
        let inner = Arc::clone(&self.0);
        blocking::run("compacting", move || inner.with("compacting", Session::squeeze)).await
    }
}
