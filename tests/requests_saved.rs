//! A write with a request id that was saved is not applied again in the next life of its store, on any adapter.
//!
//! Were this broken, a caller who repeats a write because it never heard of its outcome would make it twice, after the
//! very restart that kept the answer from it.
#![cfg(all(feature = "json-file", feature = "redb"))]
#![allow(clippy::unwrap_used, reason = "tests say what they expect by unwrapping it")]

use std::sync::Arc;

use ractor_persistence::adapters::json_file::JsonFileAdapter;
use ractor_persistence::adapters::memory::MemoryAdapter;
use ractor_persistence::adapters::redb::RedbAdapter;
use ractor_persistence::records::Patch;
use ractor_persistence::{BucketDefinition, Durability, Error, Field, StorageAdapter, Store, record};

async fn started(adapter: Arc<dyn StorageAdapter>) -> (Store, ractor_persistence::Bucket) {
    let store = Store::builder("shop").shared_adapter(adapter).start().await.unwrap();
    let definition = BucketDefinition::new("stock").key("id").field("id", Field::string()).field("count", Field::int());
    let bucket = store.define_bucket(definition.request_window(3)).await.unwrap();
    (store, bucket)
}

async fn examine(adapter: Arc<dyn StorageAdapter>) {
    let (store, bucket) = started(Arc::clone(&adapter)).await;
    bucket.insert(record! { "id": "nails", "count": 0 }).await.unwrap();
    let add = |by: i64| Patch::new().increment("count", by);
    for number in 1..=4 {
        let write = bucket.with_request_id(format!("delivery {number}")).with_durability(Durability::Fsync);
        write.patch("nails", add(1)).await.unwrap();
    }
    store.stop().await.unwrap();

    for life in 0..2 {
        let (store, bucket) = started(Arc::clone(&adapter)).await;
        for number in 2..=4 {
            let answer = bucket.with_request_id(format!("delivery {number}")).patch("nails", add(1)).await.unwrap();
            assert_eq!(answer.get("count"), Some(&4.into()), "delivery {number} in life {life}");
        }
        let other = bucket.with_request_id("delivery 4").patch("nails", add(2)).await;
        assert!(matches!(other, Err(Error::RequestIdReused { .. })), "{other:?}");
        store.stop().await.unwrap();
    }

    // The first one is beyond the window, and a clear is remembered like any write.
    let (store, bucket) = started(Arc::clone(&adapter)).await;
    let again = bucket.with_request_id("delivery 1").patch("nails", add(1)).await.unwrap();
    assert_eq!(again.get("count"), Some(&5.into()));
    assert_eq!(bucket.with_request_id("clear").clear().await.unwrap(), 1);
    store.stop().await.unwrap();
    let (store, bucket) = started(Arc::clone(&adapter)).await;
    bucket.insert(record! { "id": "screws", "count": 0 }).await.unwrap();
    assert_eq!(bucket.with_request_id("clear").clear().await.unwrap(), 1);
    let gone = bucket.with_request_id("delivery 1").patch("nails", add(1)).await;
    assert!(matches!(gone, Err(Error::AlreadyApplied { .. })), "{gone:?}");
    assert_eq!(bucket.all().await.unwrap().len(), 1);
    store.drop_bucket("stock").await.unwrap();
    store.stop().await.unwrap();
    let (store, bucket) = started(adapter).await;
    bucket.insert(record! { "id": "nails", "count": 0 }).await.unwrap();
    let anew = bucket.with_request_id("delivery 4").patch("nails", add(1)).await.unwrap();
    assert_eq!(anew.get("count"), Some(&1.into()));
    store.stop().await.unwrap();
}

#[tokio::test]
async fn a_saved_request_is_not_applied_again_with_memory() {
    examine(Arc::new(MemoryAdapter::default())).await;
}

#[tokio::test]
async fn a_saved_request_is_not_applied_again_with_json_files() {
    let directory = tempfile::tempdir().unwrap();
    examine(Arc::new(JsonFileAdapter::open(directory.path().join("place")).await.unwrap())).await;
}

#[tokio::test]
async fn a_saved_request_is_not_applied_again_with_redb() {
    let directory = tempfile::tempdir().unwrap();
    examine(Arc::new(RedbAdapter::open(directory.path().join("place.redb")).await.unwrap())).await;
}
