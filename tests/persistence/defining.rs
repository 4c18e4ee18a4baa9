//! Who gets a name, and what is refused before anything happens?

use std::time::Duration;

use async_trait::async_trait;
use ractor_persistence::adapters::memory::MemoryAdapter;
use ractor_persistence::base::durability::Durability;
use ractor_persistence::base::error::{Error, Result};
use ractor_persistence::base::name::BucketKey;
use ractor_persistence::persistence::{Capabilities, StorageAdapter};
use ractor_persistence::records::{BucketChange, BucketDefinition, BucketSnapshot};
use ractor_persistence::store::Store;
use ractor_persistence::testkit::{Fault, Operation};
use tokio::time::sleep;

use crate::world::*;

#[tokio::test(start_paused = true)]
async fn of_two_definitions_at_once_one_gets_the_name() {
    let (adapter, faults) = faulty();
    let store = start(adapter).await;
    faults.inject(Fault::delay(Duration::from_secs(1)).on(Operation::Load));
    let (one, two) = tokio::join!(store.define_bucket(items("items")), store.define_bucket(items("items")));
    assert_eq!([one.is_ok(), two.is_ok()].iter().filter(|ok| **ok).count(), 1);
    let refused = one.err().or(two.err()).unwrap();
    assert!(matches!(refused, Error::BucketAlreadyExists { bucket } if bucket.as_str() == "items"));
    insert(&store.bucket("items").unwrap(), 1, "works").await.unwrap();
    assert_eq!(faults.calls().iter().filter(|logged| logged.call.touches(&subject("items"))).count(), 1, "one load");
    assert!(matches!(store.define_bucket(items("items")).await, Err(Error::BucketAlreadyExists { .. })));
    store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_definition_that_fails_leaves_the_name_free_and_nothing_behind() {
    let (adapter, faults) = faulty();
    let store = start(adapter).await;
    let other = store.define_bucket(items("other")).await.unwrap();
    insert(&other, 1, "a").await.unwrap();
    store.flush().await.unwrap();
    let (before, subscribers) = (tasks(), store.bus().subscriber_count());
    for error in [transient(), permanent(), unknown()] {
        faults.inject(Fault::fail(error.clone()).on(Operation::Load).times(1));
        assert_eq!(store.define_bucket(items("items")).await.unwrap_err().to_string(), error.to_string());
        assert!(matches!(store.bucket("items"), Err(Error::BucketNotDefined { .. })));
    }
    let invalid = store.define_bucket(BucketDefinition::new("items").key("absent")).await;
    assert!(matches!(invalid, Err(Error::InvalidDefinition { .. })), "{invalid:?}");
    assert_eq!(tasks_ended(before).await, before);
    assert_eq!(store.bus().subscriber_count(), subscribers);
    assert_eq!(store.stats().await.buckets, 1);
    assert_eq!(store.stats().await.persistence.saved_revisions.len(), 1);
    let bucket = store.define_bucket(items("items")).await.unwrap();
    insert(&bucket, 1, "works").await.unwrap();
    store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn calls_of_a_bucket_that_is_being_defined_wait_and_share_its_fate() {
    let (adapter, faults) = faulty();
    let store = start(adapter).await;
    faults.inject(Fault::delay(Duration::from_secs(1)).on(Operation::Load));
    for error in [None, Some(permanent())] {
        if let Some(error) = &error {
            faults.inject(Fault::fail(error.clone()).on(Operation::Load).times(1));
        }
        let defining = tokio::spawn({
            let store = store.clone();
            async move { store.define_bucket(items("items")).await.map(drop) }
        });
        sleep(Duration::from_millis(500)).await;
        let early = store.bucket("items").unwrap();
        let written = soon(insert(&early, 1, "early")).await;
        assert_eq!(written.is_ok(), error.is_none(), "{written:?}");
        assert_eq!(defining.await.unwrap().is_ok(), error.is_none());
        if error.is_none() {
            store.drop_bucket("items").await.unwrap();
        }
    }
    store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_definition_that_nobody_waits_for_goes_on() {
    let (adapter, faults) = faulty();
    let store = start(adapter).await;
    faults.inject(Fault::delay(Duration::from_secs(1)).on(Operation::Load));
    assert!(tokio::time::timeout(Duration::from_millis(100), store.define_bucket(items("items"))).await.is_err());
    sleep(Duration::from_secs(2)).await;
    insert(&store.bucket("items").unwrap(), 1, "works").await.unwrap();
    store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_opted_out_bucket_refuses_durability_with_the_level_it_has_and_changes_nothing() {
    let store = start(MemoryAdapter::default()).await;
    let bucket = store.define_bucket(items("items").persistent(false)).await.unwrap();
    for level in [Durability::Wal, Durability::Fsync] {
        let durable = bucket.with_durability(level);
        for refused in [
            insert(&durable, 1, "refused").await,
            update(&durable, 1, "refused").await,
            durable.delete(1).await.map(drop),
            durable.clear().await.map(drop),
        ] {
            assert!(matches!(refused, Err(Error::Unsupported { has: Some(Durability::Ram), .. })), "{refused:?}");
        }
    }
    assert_eq!(bucket.stats().await.unwrap().revision, 0);
    store.stop().await.unwrap();
}

/// Reaches no further than it says.
struct Limited(MemoryAdapter, Durability);

#[async_trait]
impl StorageAdapter for Limited {
    fn capabilities(&self) -> Capabilities {
        Capabilities::default().with_incremental(true).with_durability(self.1)
    }

    async fn save_bucket(&self, bucket: &BucketKey, change: &BucketChange) -> Result<()> {
        self.0.save_bucket(bucket, change).await
    }

    async fn load_bucket(&self, bucket: &BucketKey) -> Result<Option<BucketSnapshot>> {
        self.0.load_bucket(bucket).await
    }

    async fn drop_bucket(&self, bucket: &BucketKey) -> Result<()> {
        self.0.drop_bucket(bucket).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_level_above_the_adapters_is_refused_when_asked_for_and_lowered_when_not() {
    for has in [Durability::Ram, Durability::Wal] {
        let memory = MemoryAdapter::default();
        let store = start(Limited(memory.clone(), has)).await;
        let bucket = store.define_bucket(items("items")).await.unwrap();
        let refused = insert(&bucket.with_durability(Durability::Fsync), 1, "refused").await;
        let Err(Error::Unsupported { has: Some(told), .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(told, has);
        assert_eq!(bucket.stats().await.unwrap().revision, 0);
        // Debounced saves make do with what there is, and it counts as saved.
        insert(&bucket, 2, "debounced").await.unwrap();
        sleep(WINDOW * 2).await;
        assert_eq!(stored(&memory, "items").await, Some(expect([(2, "debounced")])));
        assert!(store.stats().await.persistence.unsaved.is_empty());
        insert(&bucket.with_durability(has), 3, "awaited").await.unwrap();
        store.flush().await.unwrap();
        store.drop_bucket("items").await.unwrap();
        assert!(store.stop().await.unwrap().unsaved.is_empty());
        assert_eq!(stored(&memory, "items").await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn names_that_cannot_be_are_refused_everywhere() {
    for name in ["", "a\nb", "\u{1}reserved", &"x".repeat(129)] {
        let started = Store::builder(name).adapter(MemoryAdapter::default()).start().await;
        assert!(matches!(started, Err(Error::InvalidName { .. })), "{name:?}");
    }
    let store = start(MemoryAdapter::default()).await;
    for name in ["", "a\nb", "\u{1}reserved", &"x".repeat(129)] {
        assert!(matches!(store.bucket(name), Err(Error::InvalidName { .. })), "{name:?}");
        assert!(matches!(store.drop_bucket(name).await, Err(Error::InvalidName { .. })), "{name:?}");
        let defined = store.define_bucket(items(name)).await;
        assert!(matches!(defined, Err(Error::InvalidDefinition { .. } | Error::InvalidName { .. })), "{defined:?}");
    }
    for name in ["a.b", "*", "bucket.*.*", "../..", "a/b:c 😀", &"ü".repeat(64)] {
        let bucket = store.define_bucket(items(name)).await.unwrap();
        insert(&bucket, 1, "a").await.unwrap();
        kill(&bucket).await;
        assert_eq!(held(&bucket).await.len(), 1);
    }
    store.flush().await.unwrap();
    assert!(store.stats().await.persistence.saved_revisions.iter().all(|(_, revision)| *revision == 1));
    store.stop().await.unwrap();
}
