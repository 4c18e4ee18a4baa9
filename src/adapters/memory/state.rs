//! What is kept, and how it changes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;

use crate::base::error::{Error, Result};
use crate::base::name::{BucketName, ChannelId, MessageId, StoreName, Subject};
use crate::base::value::Key;
use crate::persistence::{Commit, Epoch, Save};
use crate::records::{BucketChange, BucketSnapshot, Record, Request};
use crate::sds::{ChannelData, ChannelMeta, HistoryUpdate, SdsMessage};

/// Something that was moved out of the way.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Quarantined {
    /// Where it is: the answer of [`quarantine`](crate::persistence::StorageAdapter::quarantine).
    pub name: String,
    /// The store that it was of.
    pub store: StoreName,
    /// What it was.
    pub subject: Subject,
    /// What was stored of it.
    pub data: QuarantinedData,
}

/// What was stored of a subject when it was moved out of the way; empty if nothing was.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum QuarantinedData {
    /// Of a bucket.
    Bucket(BucketSnapshot),
    /// Of a channel.
    Channel(Box<ChannelData>),
}

#[derive(Clone, Debug, Default)]
pub(super) struct State {
    stores: HashMap<StoreName, StoreState>,
    pub(super) quarantined: Vec<Quarantined>,
}

impl State {
    pub(super) fn store(&self, store: &StoreName) -> Option<&StoreState> {
        self.stores.get(store)
    }

    pub(super) fn store_mut(&mut self, store: &StoreName) -> &mut StoreState {
        self.stores.entry_ref(store).or_default()
    }

    /// All of a commit, or the error that kept it out. Only its epoch can be wrong: whatever a save says can be kept.
    pub(super) fn commit(&mut self, commit: &Commit) -> Result<()> {
        let current = self.store(&commit.store).map_or(0, |store| store.epoch);
        if commit.epoch != Epoch(current) {
            return Err(Error::Fenced { epoch: commit.epoch.0, current });
        }
        let store = self.store_mut(&commit.store);
        for save in &commit.saves {
            match save {
                Save::Bucket(name, change) => store.save_bucket(name, change),
                Save::ChannelMeta(id, meta) => store.save_meta(id, Arc::clone(meta)),
                Save::History(id, update) => store.update_history(id, update),
                Save::Hint(id, message, hint) => store.set_hint(id, message, hint),
                Save::DropBucket(name) => store.drop_bucket(name),
                Save::DropChannel(id) => store.drop_channel(id),
            }
        }
        Ok(())
    }

    pub(super) fn quarantine(&mut self, store: &StoreName, subject: &Subject) -> String {
        let kept = self.store_mut(store);
        let data = match subject {
            Subject::Bucket(name) => {
                let bucket = kept.buckets.remove(name);
                QuarantinedData::Bucket(bucket.map(|bucket| bucket.snapshot()).unwrap_or_default())
            }
            Subject::Channel(id) => {
                let channel = kept.channels.remove(id);
                QuarantinedData::Channel(Box::new(channel.map(|channel| channel.data()).unwrap_or_default()))
            }
        };
        let name = format!("{}.quarantine-{}", subject.shown_name(), self.quarantined.len() + 1);
        let quarantined = Quarantined { name: name.clone(), store: store.clone(), subject: subject.clone(), data };
        self.quarantined.push(quarantined);
        name
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct StoreState {
    /// 0 until the first claim.
    epoch: u64,
    buckets: HashMap<BucketName, Bucket>,
    channels: HashMap<ChannelId, Channel>,
}

impl StoreState {
    pub(super) fn claim(&mut self) -> Epoch {
        self.epoch += 1;
        Epoch(self.epoch)
    }

    pub(super) fn save_bucket(&mut self, name: &BucketName, change: &BucketChange) {
        self.buckets.entry_ref(name).or_default().apply(change);
    }

    pub(super) fn load_bucket(&self, name: &BucketName) -> Option<BucketSnapshot> {
        self.buckets.get(name).map(Bucket::snapshot)
    }

    pub(super) fn drop_bucket(&mut self, name: &BucketName) {
        self.buckets.remove(name);
    }

    pub(super) fn save_meta(&mut self, id: &ChannelId, meta: Arc<ChannelMeta>) {
        self.channels.entry_ref(id).or_default().meta = meta;
    }

    pub(super) fn update_history(&mut self, id: &ChannelId, update: &HistoryUpdate) {
        let channel = self.channels.entry_ref(id).or_default();
        for message in &update.append {
            channel.append(message);
        }
        for message in &update.evict {
            channel.evict(message);
        }
    }

    pub(super) fn set_hint(&mut self, id: &ChannelId, message: &MessageId, hint: &[u8]) {
        let channel = self.channels.entry_ref(id).or_default();
        if hint.is_empty() {
            channel.hints.remove(message);
        } else {
            channel.hints.insert(message.clone(), Bytes::copy_from_slice(hint));
        }
    }

    pub(super) fn load_channel(&self, id: &ChannelId) -> Option<ChannelData> {
        self.channels.get(id).map(Channel::data)
    }

    pub(super) fn drop_channel(&mut self, id: &ChannelId) {
        self.channels.remove(id);
    }
}

#[derive(Clone, Debug, Default)]
struct Bucket {
    schema_version: u32,
    revision: u64,
    counter: i64,
    records: HashMap<Key, Arc<Record>>,
    requests: VecDeque<Request>,
}

impl Bucket {
    fn apply(&mut self, change: &BucketChange) {
        let upserts = match change {
            BucketChange::Full(full) => {
                (self.schema_version, self.revision, self.counter) = (full.schema_version, full.revision, full.counter);
                self.records = HashMap::with_capacity(full.records.len());
                self.requests = full.requests.iter().cloned().collect();
                &full.records
            }
            BucketChange::Delta(delta) => {
                (self.schema_version, self.revision, self.counter) =
                    (delta.schema_version, delta.revision, delta.counter);
                if delta.cleared {
                    // A new map, so that a bucket that was once large does not keep its room.
                    self.records = HashMap::new();
                }
                for key in &delta.deletes {
                    self.records.remove(key);
                }
                delta.remember_in(&mut self.requests);
                &delta.upserts
            }
        };
        for record in upserts {
            self.records.insert(record.key().clone(), Arc::clone(record));
        }
    }

    fn snapshot(&self) -> BucketSnapshot {
        let records = self.records.values().cloned().collect();
        let mut snapshot = BucketSnapshot::new(self.schema_version, self.revision, self.counter, records);
        snapshot.requests = self.requests.iter().cloned().collect();
        snapshot
    }
}

#[derive(Clone, Debug, Default)]
struct Channel {
    meta: Arc<ChannelMeta>,
    /// In the order in which a history is loaded.
    history: BTreeMap<(i64, MessageId), SdsMessage>,
    /// Where in `history` each message is: a message that comes again may have another timestamp.
    timestamps: HashMap<MessageId, i64>,
    hints: BTreeMap<MessageId, Bytes>,
}

impl Channel {
    fn append(&mut self, message: &SdsMessage) {
        let id = &message.message_id;
        if let Some(old) = self.timestamps.insert(id.clone(), message.lamport_timestamp) {
            self.history.remove(&(old, id.clone()));
        }
        self.history.insert((message.lamport_timestamp, id.clone()), message.clone());
    }

    fn evict(&mut self, id: &MessageId) {
        if let Some(timestamp) = self.timestamps.remove(id) {
            self.history.remove(&(timestamp, id.clone()));
        }
        self.hints.remove(id);
    }

    fn data(&self) -> ChannelData {
        let history = self.history.values().cloned().collect();
        let hints = self.hints.iter().map(|(id, hint)| (id.clone(), hint.clone())).collect();
        ChannelData::new(ChannelMeta::clone(&self.meta), history, hints)
    }
}
