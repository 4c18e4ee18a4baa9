//! What was committed is loaded, or an error says where the damage is; nothing else is ever loaded.

mod claims;
mod copies;
mod cut_and_on;
mod damage;
mod every_byte;
mod failures;
pub(crate) mod faults;
mod journal;
pub(crate) mod medium;
mod power_cut;
mod requests;
mod round_trips;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::adapters::redb::{RedbAdapter, RedbOptions};
use crate::base::durability::Durability;
use crate::base::error::Result;
use crate::base::name::{BucketKey, BucketName, ChannelId, ChannelKey, StoreName};
use crate::base::value::Key;
use crate::persistence::{Commit, Epoch, Save, StorageAdapter};
use crate::records::{BucketChange, BucketDelta, BucketSnapshot, Metadata, Record};

/// A directory with one file in it.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    /// One in which nothing was saved.
    async fn new_born() -> Self {
        let place = Self::new();
        close(place.open().await).await;
        place
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("store.redb")
    }

    async fn open(&self) -> RedbAdapter {
        RedbAdapter::open(self.path()).await.unwrap()
    }

    async fn open_with(&self, faults: &faults::Faults) -> RedbAdapter {
        // A cache of the least size, so that reads reach the disk.
        let mut options = RedbOptions::default().with_cache_bytes(1 << 20);
        options.faults = Some(faults.clone());
        RedbAdapter::open_with(self.path(), options).await.unwrap()
    }

    /// The names of the files in the directory.
    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn store(name: &str) -> StoreName {
    StoreName::new(name).unwrap()
}

fn bucket(name: &str) -> BucketKey {
    BucketKey::new(store("shop"), BucketName::new(name).unwrap())
}

fn channel(name: &str) -> ChannelKey {
    ChannelKey::new(store("shop"), ChannelId::new(name).unwrap())
}

fn with_text(key: impl Into<Key>, place: u64, text: &str) -> Arc<Record> {
    let metadata = Metadata { version: 1, created_at: 5, updated_at: 6, expires_at: Some(7) };
    Arc::new(Record::from_parts(key, place, metadata, record! { "text": text }))
}

fn full(records: Vec<Arc<Record>>) -> BucketChange {
    BucketChange::Full(BucketSnapshot::new(1, 1, 0, records))
}

fn delta(revision: u64) -> BucketDelta {
    BucketDelta::new(revision, 0, 1)
}

fn save(bucket: &BucketKey, change: BucketChange) -> Save {
    Save::Bucket(bucket.bucket.clone(), Arc::new(change))
}

async fn commit(adapter: &RedbAdapter, store: &StoreName, epoch: Epoch, saves: Vec<Save>) -> Result<()> {
    adapter.commit(&Commit::new(store.clone(), epoch, Durability::Fsync, saves)).await
}

/// Closes the file whichever stores are claimed, and waits until it is closed.
async fn close(adapter: RedbAdapter) {
    adapter.close(&store("shop")).await.unwrap();
}

/// Keys, places and texts of a bucket, by place.
async fn contents(adapter: &RedbAdapter, bucket: &BucketKey) -> Result<Option<Vec<(Key, u64, String)>>> {
    let loaded = adapter.load_bucket(bucket).await?;
    Ok(loaded.map(|snapshot| {
        let mut records: Vec<_> = snapshot
            .records
            .iter()
            .map(|record| {
                let text = record.get("text").and_then(|text| text.as_str()).unwrap();
                (record.key().clone(), record.place(), text.to_owned())
            })
            .collect();
        records.sort_by_key(|(_, place, _)| *place);
        records
    }))
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}
