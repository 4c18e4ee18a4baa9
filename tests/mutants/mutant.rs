//! An adapter that does one thing otherwise than a sound one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ractor_persistence::adapters::memory::MemoryAdapter;
use ractor_persistence::base::error::{Error, Result};
use ractor_persistence::base::name::{BucketKey, BucketName, ChannelId, ChannelKey, MessageId, StoreName, Subject};
use ractor_persistence::persistence::{Capabilities, Commit, Epoch, Repair, Save, StorageAdapter, Watcher};
use ractor_persistence::records::{BucketChange, BucketSnapshot};
use ractor_persistence::sds::{ChannelData, ChannelMeta, HistoryUpdate};

/// What a broken adapter does beside what a sound one would.
#[derive(Clone, Copy)]
pub(crate) struct Mutation {
    pub(crate) declares: fn(Capabilities) -> Capabilities,
    pub(crate) save: fn(Save) -> Option<Save>,
    pub(crate) saves: fn(&mut Vec<Save>),
    pub(crate) commit: fn(&Mutant, &mut Commit) -> Result<()>,
    pub(crate) one_by_one: bool,
    pub(crate) bucket: fn(BucketSnapshot) -> Option<BucketSnapshot>,
    pub(crate) no_bucket: fn() -> Option<BucketSnapshot>,
    pub(crate) bucket_name: fn(&BucketName) -> BucketName,
    pub(crate) channel: fn(ChannelData) -> ChannelData,
    pub(crate) channel_name: fn(&ChannelId) -> ChannelId,
    pub(crate) store_name: fn(&StoreName) -> StoreName,
    pub(crate) claim: fn(&Mutant, &StoreName, Epoch) -> Epoch,
    pub(crate) close: fn(&Mutant, &StoreName) -> Result<()>,
    pub(crate) quarantines: bool,
    /// A commit that comes while another is under way is lost.
    pub(crate) loses_races: bool,
    /// Loads and commits keep each other out, by a mark that a dropped load leaves.
    pub(crate) locks_by_mark: bool,
    pub(crate) backup: fn(&Mutant, &Path) -> Result<MemoryAdapter>,
    pub(crate) overwrites_backups: bool,
    pub(crate) compacts: fn(&Mutant) -> Result<MemoryAdapter>,
}

pub(crate) const SOUND: Mutation = Mutation {
    declares: |declared| declared,
    save: Some,
    saves: |_| {},
    commit: |_, _| Ok(()),
    one_by_one: false,
    bucket: Some,
    no_bucket: || None,
    bucket_name: BucketName::clone,
    channel: |channel| channel,
    channel_name: ChannelId::clone,
    store_name: StoreName::clone,
    claim: |_, _, epoch| epoch,
    close: |_, _| Ok(()),
    quarantines: true,
    loses_races: false,
    locks_by_mark: false,
    backup: |mutant, _| Ok(mutant.sound.fork()),
    overwrites_backups: false,
    compacts: |mutant| Ok(mutant.sound.clone()),
};

/// A sound adapter with a mutation. Clones share a place.
#[derive(Clone)]
pub(crate) struct Mutant {
    pub(crate) sound: MemoryAdapter,
    pub(crate) mutation: Mutation,
    pub(crate) notes: Arc<Mutex<Notes>>,
}

/// What mutations remember.
#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) epochs: HashMap<StoreName, Epoch>,
    pub(crate) revisions: HashMap<BucketName, u64>,
    pub(crate) closed: Vec<StoreName>,
    pub(crate) claimed_last: Option<StoreName>,
    pub(crate) forgetful: bool,
    pub(crate) under_way: usize,
    pub(crate) marked: bool,
    pub(crate) backups: HashMap<PathBuf, Mutant>,
    pub(crate) before_last: Option<MemoryAdapter>,
    /// What a compaction has put in the place of the sound one.
    pub(crate) compacted: Option<MemoryAdapter>,
}

impl Mutant {
    pub(crate) fn key(&self, key: &BucketKey) -> BucketKey {
        BucketKey::new((self.mutation.store_name)(&key.store), (self.mutation.bucket_name)(&key.bucket))
    }

    pub(crate) fn channel_key(&self, key: &ChannelKey) -> ChannelKey {
        ChannelKey::new((self.mutation.store_name)(&key.store), (self.mutation.channel_name)(&key.channel))
    }

    pub(crate) fn sound(&self) -> MemoryAdapter {
        self.notes.lock().unwrap().compacted.clone().unwrap_or_else(|| self.sound.clone())
    }
}

/// The name of a bucket whose saves every mutant refuses, sound or not.
pub(crate) const POISON: &str = "poison";

#[deny(clippy::missing_trait_methods)]
#[async_trait::async_trait]
impl StorageAdapter for Mutant {
    fn capabilities(&self) -> Capabilities {
        (self.mutation.declares)(self.sound.capabilities())
    }

    async fn save_bucket(&self, bucket: &BucketKey, change: &BucketChange) -> Result<()> {
        self.sound.save_bucket(&self.key(bucket), change).await
    }

    async fn load_bucket(&self, bucket: &BucketKey) -> Result<Option<BucketSnapshot>> {
        self.notes.lock().unwrap().marked = true;
        if self.mutation.locks_by_mark {
            tokio::task::yield_now().await;
        }
        self.notes.lock().unwrap().marked = false;
        let found = self.sound().load_bucket(&self.key(bucket)).await?;
        Ok(found.map_or_else(self.mutation.no_bucket, self.mutation.bucket))
    }

    async fn drop_bucket(&self, bucket: &BucketKey) -> Result<()> {
        self.sound.drop_bucket(&self.key(bucket)).await
    }

    async fn save_channel_meta(&self, channel: &ChannelKey, meta: &ChannelMeta) -> Result<()> {
        self.sound.save_channel_meta(&self.channel_key(channel), meta).await
    }

    async fn update_history(&self, channel: &ChannelKey, update: &HistoryUpdate) -> Result<()> {
        self.sound.update_history(&self.channel_key(channel), update).await
    }

    async fn load_channel(&self, channel: &ChannelKey) -> Result<ChannelData> {
        Ok((self.mutation.channel)(self.sound().load_channel(&self.channel_key(channel)).await?))
    }

    async fn drop_channel(&self, channel: &ChannelKey) -> Result<()> {
        self.sound.drop_channel(&self.channel_key(channel)).await
    }

    async fn set_retrieval_hint(&self, channel: &ChannelKey, message: &MessageId, hint: &[u8]) -> Result<()> {
        self.sound.set_retrieval_hint(&self.channel_key(channel), message, hint).await
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        let refused =
            commit.saves.iter().position(|save| matches!(save, Save::Bucket(name, _) if name.as_str() == POISON));
        if self.mutation.locks_by_mark && self.notes.lock().unwrap().marked {
            return Err(Error::Stopping);
        }
        if self.mutation.loses_races {
            self.notes.lock().unwrap().under_way += 1;
            tokio::task::yield_now().await;
            let mut notes = self.notes.lock().unwrap();
            notes.under_way -= 1;
            if notes.under_way > 0 {
                return Ok(());
            }
        }
        let before = self.sound().fork();
        self.notes.lock().unwrap().before_last = Some(before);
        let mut changed = commit.clone();
        (self.mutation.commit)(self, &mut changed)?;
        changed.store = (self.mutation.store_name)(&commit.store);
        (self.mutation.saves)(&mut changed.saves);
        let renamed = |save| match save {
            Save::Bucket(name, change) => Save::Bucket((self.mutation.bucket_name)(&name), change),
            Save::DropBucket(name) => Save::DropBucket((self.mutation.bucket_name)(&name)),
            Save::ChannelMeta(id, meta) => Save::ChannelMeta((self.mutation.channel_name)(&id), meta),
            Save::History(id, update) => Save::History((self.mutation.channel_name)(&id), update),
            Save::Hint(id, message, hint) => Save::Hint((self.mutation.channel_name)(&id), message, hint),
            Save::DropChannel(id) => Save::DropChannel((self.mutation.channel_name)(&id)),
            other => other,
        };
        changed.saves = changed.saves.into_iter().filter_map(self.mutation.save).map(renamed).collect();
        let refusal = || Err(Error::unsupported("poison"));
        if !self.mutation.one_by_one {
            return if refused.is_some() { refusal() } else { self.sound().commit(&changed).await };
        }
        for (index, save) in changed.saves.iter().enumerate() {
            if refused == Some(index) {
                return refusal();
            }
            let one = Commit::new(changed.store.clone(), changed.epoch, changed.durability, vec![save.clone()]);
            self.sound().commit(&one).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn claim(&self, store: &StoreName) -> Result<Epoch> {
        let epoch = self.sound().claim(&(self.mutation.store_name)(store)).await?;
        self.notes.lock().unwrap().epochs.insert(store.clone(), epoch);
        Ok((self.mutation.claim)(self, store, epoch))
    }

    async fn close(&self, store: &StoreName) -> Result<()> {
        (self.mutation.close)(self, store)?;
        self.sound().close(store).await
    }

    async fn repairs(&self, store: &StoreName, subject: &Subject) -> Vec<Repair> {
        self.sound.repairs(store, subject).await
    }

    async fn quarantine(&self, store: &StoreName, subject: &Subject) -> Result<String> {
        if self.mutation.quarantines { self.sound().quarantine(store, subject).await } else { Ok("nowhere".to_owned()) }
    }

    fn watch(&self, store: &StoreName, watcher: Watcher) {
        self.sound().watch(&(self.mutation.store_name)(store), watcher);
    }

    async fn backup(&self, target: &Path) -> Result<u64> {
        if !self.mutation.overwrites_backups && self.notes.lock().unwrap().backups.contains_key(target) {
            return Err(Error::invalid_argument("taken"));
        }
        let copy = (self.mutation.backup)(self, target)?;
        let copy = Mutant { sound: copy, mutation: SOUND, notes: Arc::default() };
        self.notes.lock().unwrap().backups.insert(target.to_owned(), copy);
        Ok(1)
    }

    async fn compact(&self) -> Result<u64> {
        let compacted = (self.mutation.compacts)(self)?;
        self.notes.lock().unwrap().compacted = Some(compacted);
        Ok(0)
    }
}
