//! What the adapter keeps, through the port. `disk` is in memory where power cuts or damage are played.

mod content;
mod damage;
mod every_image;
mod maintenance;
mod owners;
mod power_cut;
mod requests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::adapters::json_file::names::Ids;
use crate::adapters::json_file::{JsonFileAdapter, JsonFileOptions, names};
use crate::base::clock::ManualClock;
use crate::base::disk::power_cut::PowerCutDisk;
use crate::base::durability::Durability;
use crate::base::error::Result;
use crate::base::name::{BucketKey, BucketName, ChannelId, ChannelKey, StoreName, Subject};
use crate::base::value::{Key, Object};
use crate::persistence::{Commit, Epoch, Save, StorageAdapter};
use crate::records::{BucketChange, BucketDelta, BucketSnapshot, Metadata, Record, Request, Write};
use crate::sds::{ChannelMeta, HistoryUpdate, SdsMessage};

fn shop() -> StoreName {
    StoreName::new("shop").unwrap()
}

fn bucket(name: &str) -> BucketName {
    BucketName::new(name).unwrap()
}

fn channel(name: &str) -> ChannelId {
    ChannelId::new(name).unwrap()
}

fn bucket_key(name: &str) -> BucketKey {
    BucketKey::new(shop(), bucket(name))
}

fn channel_key(name: &str) -> ChannelKey {
    ChannelKey::new(shop(), channel(name))
}

fn bucket_files(root: &Path, name: &str) -> (PathBuf, PathBuf) {
    let ids = Ids { store: shop(), subject: Subject::Bucket(bucket(name)) };
    (names::checkpoint_file(root, &ids), names::journal_file(root, &ids))
}

fn record(key: impl Into<Key>, place: u64, fields: Object) -> Arc<Record> {
    let metadata = Metadata { version: 1, created_at: 5, updated_at: 6, expires_at: None };
    Arc::new(Record::from_parts(key, place, metadata, fields))
}

fn upsert(revision: u64, records: Vec<Arc<Record>>) -> Arc<BucketChange> {
    let mut delta = BucketDelta::new(revision, 0, 1);
    delta.upserts = records;
    Arc::new(BucketChange::Delta(delta))
}

/// One record under a key, in place of whatever had it.
fn put(revision: u64, key: i64, text: &str) -> Arc<BucketChange> {
    let place = u64::try_from(key).unwrap();
    upsert(revision, vec![record(key, place, crate::record! { "text": text })])
}

fn request(revision: u64) -> Request {
    let request = Request::new(format!("request-{revision}"), &Write::Clear).unwrap();
    Request { keys: vec![Key::from("k"), Key::from(7)], revision, ..request }
}

/// The same, by a request, of which so many are remembered.
fn put_by_request(revision: u64, key: i64, text: &str, window: usize) -> Arc<BucketChange> {
    let BucketChange::Delta(delta) = &*put(revision, key, text) else { unreachable!() };
    let requests = vec![request(revision)];
    Arc::new(BucketChange::Delta(BucketDelta { requests, request_window: window, ..delta.clone() }))
}

fn message(id: &[u8], lamport: i64) -> SdsMessage {
    SdsMessage {
        message_id: id.into(),
        lamport_timestamp: lamport,
        channel_id: Bytes::from_static(b"room"),
        content: Bytes::from_static(b"\xff\x00content"),
        ..SdsMessage::default()
    }
}

fn history(append: Vec<SdsMessage>, evict: &[&[u8]]) -> Arc<HistoryUpdate> {
    Arc::new(HistoryUpdate::new(append, evict.iter().map(|id| (*id).into()).collect()))
}

fn meta(lamport: i64) -> Arc<ChannelMeta> {
    Arc::new(ChannelMeta { lamport_timestamp: lamport, ..ChannelMeta::default() })
}

/// An adapter and its claim of the store.
struct Claimed {
    adapter: JsonFileAdapter,
    epoch: Epoch,
}

impl Claimed {
    async fn on(disk: &PowerCutDisk) -> Result<Self> {
        let options = JsonFileOptions::default().with_disk(Arc::new(disk.clone()));
        Self::with(Path::new("/data"), options).await
    }

    async fn real(path: &Path) -> Result<Self> {
        Self::with(path, JsonFileOptions::default()).await
    }

    async fn with(path: &Path, options: JsonFileOptions) -> Result<Self> {
        let options = options.with_clock(Arc::new(ManualClock::at(1_769_860_800_000)));
        let adapter = JsonFileAdapter::open_with(path, options).await?;
        let epoch = adapter.claim(&shop()).await?;
        Ok(Self { adapter, epoch })
    }

    async fn commit_at(&self, durability: Durability, saves: Vec<Save>) -> Result<()> {
        self.adapter.commit(&Commit::new(shop(), self.epoch, durability, saves)).await
    }

    async fn commit(&self, saves: Vec<Save>) -> Result<()> {
        self.commit_at(Durability::Fsync, saves).await
    }

    async fn load(&self, name: &str) -> Result<Option<BucketSnapshot>> {
        self.adapter.load_bucket(&bucket_key(name)).await
    }

    async fn close(&self) {
        self.adapter.close(&shop()).await.unwrap();
    }
}
