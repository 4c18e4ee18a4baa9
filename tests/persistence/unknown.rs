//! A commit whose answer is lost may have been done. It comes again, and leaves one copy of everything that was in it.
//!
//! Were this broken, a lost connection or a failed sync would double messages, count increments twice, or bring records
//! back that were deleted.

use std::sync::Arc;

use ractor_persistence::adapters::memory::MemoryAdapter;
use ractor_persistence::base::durability::Durability;
use ractor_persistence::persistence::StorageAdapter;
use ractor_persistence::record;
use ractor_persistence::records::{BucketDefinition, Field, Patch};
use ractor_persistence::sds::ChannelOptions;
use ractor_persistence::store::Store;
use ractor_persistence::testkit::{Fault, FaultAdapter, Operation};

use crate::world::*;

fn counters() -> BucketDefinition {
    BucketDefinition::new("counters").key("id").field("id", Field::string()).field("count", Field::int())
}

fn room() -> ChannelOptions {
    ChannelOptions::default().with_participant("us").with_bloom_capacity(100).with_durability(Durability::Fsync)
}

/// Waits until everything is saved, however often that fails before.
async fn saved(store: &Store) {
    while store.flush().await.is_err() {
        tokio::task::yield_now().await;
    }
}

/// The lines of a history, and of what was counted.
#[derive(Debug, PartialEq)]
struct Found {
    items: Texts,
    revision: u64,
    count: Option<i64>,
    history: Vec<String>,
}

async fn found(store: &Store, channels: bool) -> Found {
    let items = store.define_bucket(items("items")).await.unwrap();
    let counters = store.define_bucket(counters()).await.unwrap();
    // The same write again: it was done, whatever its answer was.
    let once = counters.with_request_id("five").patch("a", Patch::new().increment("count", 5)).await.unwrap();
    let mut history = Vec::new();
    if channels {
        let channel = store.open_channel("room", room()).await.unwrap();
        for message in channel.history().await.unwrap() {
            history.push(String::from_utf8(message.message_id.as_bytes().to_vec()).unwrap());
        }
    }
    let count = once.get("count").and_then(|count| count.as_i64());
    Found { items: held(&items).await, revision: items.stats().await.unwrap().revision, count, history }
}

/// Runs on one adapter, with so many answers lost in a row, and again on what is left of it.
async fn one_copy(
    first: FaultAdapter<dyn StorageAdapter>,
    again: impl AsyncFn() -> Arc<dyn StorageAdapter>,
    times: u64,
) {
    let faults = first.faults();
    let channels = first.capabilities().channels;
    let store = start(first).await;
    let items = store.define_bucket(items("items")).await.unwrap();
    let counters = store.define_bucket(counters()).await.unwrap();
    for id in 1..=3 {
        insert(&items, id, "before").await.unwrap();
    }
    counters.insert(record! { "id": "a", "count": 1 }).await.unwrap();
    store.flush().await.unwrap();
    faults.forget_calls();

    let lost = || faults.inject(Fault::apply_then_fail(unknown()).on(Operation::Commit).times(times));
    lost();
    let synced = items.with_durability(Durability::Fsync);
    insert(&synced, 4, "lost").await.unwrap_err();
    saved(&store).await;
    lost();
    counters.with_request_id("five").patch("a", Patch::new().increment("count", 5)).await.unwrap();
    items.delete(1).await.unwrap();
    update(&items, 2, "lost, too").await.unwrap();
    assert!(store.flush().await.is_err());
    // What comes meanwhile goes with the repeat.
    insert(&items, 5, "meanwhile").await.unwrap();
    saved(&store).await;
    let mut history = Vec::new();
    if channels {
        let channel = store.open_channel("room", room()).await.unwrap();
        for id in ["m1", "m2", "m3"] {
            lost();
            channel.wrap(id, id.as_bytes().to_vec()).await.unwrap_err();
            saved(&store).await;
            history.push(id.to_owned());
        }
    }
    let ended: Vec<bool> = faults.calls().iter().filter_map(|logged| Some(logged.result.as_ref()?.is_ok())).collect();
    assert!(ended.iter().filter(|ok| !**ok).count() as u64 >= 2 * times, "the answers of commits were lost: {ended:?}");
    let texts = expect([(2, "lost, too"), (3, "before"), (4, "lost"), (5, "meanwhile")]);
    // Three inserts, one of four, a delete, an update, and one of five.
    let expected = Found { items: texts, revision: 7, count: Some(6), history };
    assert!(store.stop().await.unwrap().unsaved.is_empty());

    let store = Store::builder("shop").shared_adapter(again().await).persistence(options()).start().await.unwrap();
    assert_eq!(found(&store, channels).await, expected, "{times} answers lost in a row");
    assert!(store.stop().await.unwrap().unsaved.is_empty());
}

#[tokio::test]
async fn ps_26_a_commit_of_unknown_outcome_is_retried_and_leaves_exactly_one_copy() {
    for times in [1, 3] {
        let memory = MemoryAdapter::default();
        let again = memory.clone();
        one_copy(
            FaultAdapter::over(Arc::new(memory)),
            async || Arc::new(again.clone()) as Arc<dyn StorageAdapter>,
            times,
        )
        .await;
        for disk in disks() {
            one_copy(FaultAdapter::over(disk.open().await), async || disk.open().await, times).await;
        }
    }
}
