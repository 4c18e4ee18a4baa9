//! When is a value on disk, and what if that fails?

use async_trait::async_trait;
use ractor_persistence::adapters::memory::MemoryAdapter;
use ractor_persistence::base::error::Place as Somewhere;
use ractor_persistence::base::name::{BucketKey, StoreName, Subject};
use ractor_persistence::durable::DurableOptions;
use ractor_persistence::persistence::{Capabilities, Epoch, LoadFailure, Save};
use ractor_persistence::records::{BucketChange, BucketSnapshot};
use ractor_persistence::testkit::{Fault, FaultAdapter, Operation};
use ractor_persistence::{BucketDefinition, Durability, Durable, Error, Field, Result, StorageAdapter, Store, record};

use crate::world::*;

fn broken() -> Error {
    Error::transient("commit", std::io::Error::other("on purpose"))
}

#[tokio::test]
async fn persisting_waits_for_the_commit_and_tells_of_its_failure() {
    let adapter = FaultAdapter::new(MemoryAdapter::default());
    let faults = adapter.faults();
    let store = start(adapter).await;
    let counter: Durable<Counter> = open(&store, "c").await.unwrap();
    counter.persist().await.unwrap();
    faults.inject(Fault::fail(broken()).on(Operation::Commit).times(1));
    counter.update(|counter| counter.count = 1).unwrap();
    let failed = counter.persist().await;
    assert!(matches!(failed, Err(Error::NotSaved { revision: 2, .. })), "{failed:?}");
    assert_eq!(counter.get().count, 1, "it is kept, and tried again");
    store.flush().await.unwrap();
    let before = faults.commits().len();
    counter.persist().await.unwrap();
    assert_eq!(faults.commits().len(), before, "it is saved already");
    stop(store).await;
}

#[tokio::test]
async fn a_value_is_saved_within_the_window_and_with_everything_else_that_changed() {
    let adapter = FaultAdapter::new(MemoryAdapter::default());
    let faults = adapter.faults();
    let store = start(adapter).await;
    let definition = BucketDefinition::new("users").key("id").field("id", Field::int());
    let users = store.define_bucket(definition).await.unwrap();
    let (a, b): (Durable<u32>, Durable<u32>) = (open(&store, "a").await.unwrap(), open(&store, "b").await.unwrap());
    store.flush().await.unwrap();
    faults.forget_calls();
    a.update(|number| *number = 1).unwrap();
    a.update(|number| *number = 2).unwrap();
    b.update(|number| *number = 3).unwrap();
    users.insert(record! { "id": 1 }).await.unwrap();
    faults.until_commits_ended(1).await;
    let commits = faults.commits();
    let saves = commits[0].saves.iter().map(|save| match save {
        Save::Bucket(name, change) => (name.to_string(), change.len()),
        other => panic!("{other:?}"),
    });
    let mut saves: Vec<_> = saves.collect();
    saves.sort();
    assert_eq!(saves, [("durable values".to_owned(), 2), ("users".to_owned(), 1)]);
    stop(store).await;
}

#[tokio::test]
async fn without_an_adapter_a_value_lives_as_long_as_its_store() {
    let store = Store::builder("shop").start().await.unwrap();
    let counter: Durable<Counter> = open(&store, "c").await.unwrap();
    counter.update(|counter| counter.count = 1).unwrap();
    counter.persist().await.unwrap();
    assert_eq!(open::<Counter>(&store, "c").await.unwrap().get().count, 1);
    let strict = DurableOptions::<u32>::default().durability(Durability::Fsync);
    let refused = store.durable("d", strict).await;
    assert!(matches!(refused, Err(Error::Unsupported { has: Some(Durability::Ram), .. })), "{refused:?}");
}

#[tokio::test]
async fn nothing_is_accepted_that_would_not_be_saved_any_more() {
    let adapter = MemoryAdapter::default();
    let store = start(adapter.clone()).await;
    let counter: Durable<Counter> = open(&store, "c").await.unwrap();
    counter.update(|counter| counter.count = 1).unwrap();
    stop(store.clone()).await;
    assert!(matches!(counter.update(|counter| counter.count = 2), Err(Error::Stopping)));
    assert!(matches!(open::<Counter>(&store, "c").await, Err(Error::Stopping)));
    assert!(matches!(counter.delete().await, Err(Error::Stopping)));
    let store = start(adapter).await;
    assert_eq!(open::<Counter>(&store, "c").await.unwrap().get().count, 1);
}

#[tokio::test]
async fn a_load_that_fails_is_an_error_and_the_next_one_succeeds() {
    let memory = MemoryAdapter::default();
    let store = start(memory.clone()).await;
    open::<u32>(&store, "c").await.unwrap().update(|number| *number = 7).unwrap();
    stop(store).await;
    let adapter = FaultAdapter::new(memory);
    let faults = adapter.faults();
    let store = start(adapter).await;
    faults.fail_loads(broken());
    assert!(matches!(open::<u32>(&store, "c").await, Err(Error::Transient { .. })));
    faults.heal();
    assert_eq!(open::<u32>(&store, "c").await.unwrap().get(), 7);
}

#[tokio::test]
async fn values_that_cannot_be_read_start_empty_only_where_that_was_chosen() {
    let memory = MemoryAdapter::default();
    let store = start(memory.clone()).await;
    open::<u32>(&store, "c").await.unwrap().update(|number| *number = 7).unwrap();
    stop(store).await;
    let adapter = FaultAdapter::new(memory.clone());
    let faults = adapter.faults();
    let options = options().with_load_failure(LoadFailure::StartEmpty);
    let store = Store::builder("shop").adapter(adapter).persistence(options).start().await.unwrap();
    faults.fail_loads(Error::corrupt(Somewhere::new("a file"), "flipped bits"));
    assert_eq!(open::<u32>(&store, "c").await.unwrap().get(), 0);
    let quarantined = memory.quarantined();
    assert!(matches!(&quarantined[0].subject, Subject::Bucket(name) if name.is_reserved()));
    faults.heal();
    stop(store).await;
}

/// Keeps whole buckets only.
struct WholeOnly(MemoryAdapter);

#[async_trait]
impl StorageAdapter for WholeOnly {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities().with_incremental(false)
    }

    async fn save_bucket(&self, bucket: &BucketKey, change: &BucketChange) -> Result<()> {
        assert!(matches!(change, BucketChange::Full(_)));
        self.0.save_bucket(bucket, change).await
    }

    async fn load_bucket(&self, bucket: &BucketKey) -> Result<Option<BucketSnapshot>> {
        self.0.load_bucket(bucket).await
    }

    async fn drop_bucket(&self, bucket: &BucketKey) -> Result<()> {
        self.0.drop_bucket(bucket).await
    }

    async fn claim(&self, store: &StoreName) -> Result<Epoch> {
        self.0.claim(store).await
    }

    async fn close(&self, store: &StoreName) -> Result<()> {
        self.0.close(store).await
    }
}

#[tokio::test]
async fn an_adapter_of_whole_buckets_is_given_all_values_also_those_that_nobody_has_opened() {
    let memory = MemoryAdapter::default();
    for round in 1..=3 {
        let store = start(WholeOnly(memory.clone())).await;
        let value: Durable<u32> = open(&store, &format!("value {round}")).await.unwrap();
        value.update(|number| *number = round).unwrap();
        stop(store).await;
    }
    let store = start(memory).await;
    for round in 1..=3 {
        assert_eq!(open::<u32>(&store, &format!("value {round}")).await.unwrap().get(), round);
    }
}
