//! What the tests share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ractor_persistence::adapters::postgres::PostgresAdapter;
use ractor_persistence::base::error::{Error, Result};
use ractor_persistence::base::name::{BucketKey, BucketName, StoreName};
use ractor_persistence::persistence::{Commit, Epoch, Save, StorageAdapter};
use ractor_persistence::records::{BucketChange, BucketDefinition, BucketDelta, Field, Metadata, Record};
use ractor_persistence::{Durability, record};
use tokio_postgres::Client;

use crate::server::{Place, poison};

pub(crate) fn shop() -> StoreName {
    StoreName::new("shop").unwrap()
}

pub(crate) fn name(bucket: &str) -> BucketName {
    BucketName::new(bucket).unwrap()
}

/// A bucket of texts by number.
pub(crate) fn items() -> BucketDefinition {
    BucketDefinition::new("items").key("id").field("id", Field::int()).field("text", Field::string())
}

pub(crate) fn item(id: i64, text: &str) -> Arc<Record> {
    let metadata = Metadata { version: 1, created_at: 1, updated_at: 2, expires_at: None };
    let place = u64::try_from(id).unwrap();
    Arc::new(Record::from_parts(id, place, metadata, record! { "text": text }))
}

/// A commit that stores texts in the bucket `items`.
pub(crate) fn storing(epoch: Epoch, revision: u64, texts: &[(i64, &str)]) -> Commit {
    let mut delta = BucketDelta::new(revision, 0, 1);
    delta.upserts = texts.iter().map(|(id, text)| item(*id, text)).collect();
    let save = Save::Bucket(name("items"), BucketChange::Delta(delta).into());
    Commit::new(shop(), epoch, Durability::Fsync, vec![save])
}

/// A commit that the server refuses for what is in it.
pub(crate) fn poisoned(epoch: Epoch) -> Commit {
    let mut commit = storing(epoch, 99, &[(99, "beside poison")]);
    commit.saves.push(poison());
    commit
}

/// The texts in the bucket `items`.
pub(crate) async fn stored(adapter: &PostgresAdapter) -> BTreeMap<i64, String> {
    let found = adapter.load_bucket(&BucketKey::new(shop(), name("items"))).await.unwrap();
    let records = found.map(|found| found.records).unwrap_or_default();
    let text = |record: &Record| record.get("text").and_then(|text| text.as_str()).unwrap_or_default().to_owned();
    records.iter().map(|record| (record.key().as_value().as_i64().unwrap(), text(record))).collect()
}

pub(crate) fn expect<const N: usize>(texts: [(i64, &str); N]) -> BTreeMap<i64, String> {
    texts.into_iter().map(|(id, text)| (id, text.to_owned())).collect()
}

/// An error with all that lies behind it.
pub(crate) fn told(error: &Error) -> String {
    let mut text = format!("{error} | {error:?}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text} | {error} | {error:?}");
        cause = error.source();
    }
    text
}

/// Whether trying again is the right thing to do.
pub(crate) fn may_pass<T>(result: &Result<T>) -> bool {
    matches!(result, Err(Error::Transient { .. } | Error::Unknown { .. }))
}

/// A connection of the test's own that keeps everybody from the records until it commits.
pub(crate) async fn lock_records(place: &Place) -> Client {
    let client = place.client().await;
    let lock = place.sql("BEGIN; LOCK TABLE $schema.records IN ACCESS EXCLUSIVE MODE");
    client.batch_execute(&lock).await.unwrap();
    client
}

/// Waits until so many sessions wait for a lock in a statement on this place that looks so.
pub(crate) async fn waiting(client: &Client, place: &Place, like: &str, count: i64) {
    let sql = "SELECT count(*) FROM pg_stat_activity
               WHERE wait_event_type = 'Lock' AND position($1 in query) > 0 AND query LIKE $2";
    for _ in 0..2_000 {
        // Within a transaction, what was seen once is shown again.
        client.batch_execute("SELECT pg_stat_clear_snapshot()").await.unwrap();
        let found: i64 = client.query_one(sql, &[&place.quoted(), &like]).await.unwrap().get(0);
        if found == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{count} sessions should wait for a lock in {like}");
}
