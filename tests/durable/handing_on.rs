//! Who may change a value, when several have had it in their hands?

use ractor_persistence::adapters::memory::MemoryAdapter;
use ractor_persistence::durable::DurableOptions;
use ractor_persistence::{BucketDefinition, Durable, Error, Field};

use crate::world::*;

#[tokio::test]
async fn the_newest_handle_changes_the_value_and_those_before_are_told_so() {
    let store = start(MemoryAdapter::default()).await;
    let zombie: Durable<Counter> = open(&store, "c").await.unwrap();
    zombie.update(|counter| counter.count = 1).unwrap();
    let heir: Durable<Counter> = open(&store, "c").await.unwrap();
    assert_eq!(heir.get().count, 1, "saved or not");
    heir.update(|counter| counter.count = 2).unwrap();
    for handle in [&zombie, &zombie.clone()] {
        let mut ran = false;
        let error = handle.update(|_| ran = true).unwrap_err();
        let Error::Superseded { name, activation, current } = &error else { panic!("{error:?}") };
        assert!(name == "c" && activation < current && !ran && !error.is_retryable());
        assert!(matches!(handle.delete().await, Err(Error::Superseded { .. })));
    }
    assert_eq!(zombie.get().count, 1, "it sees what it last saw");
    zombie.persist().await.unwrap();
    assert_eq!(heir.clone().get().count, 2);
    stop(store).await;
}

#[tokio::test]
async fn a_handle_that_is_taken_over_while_it_changes_the_value_changes_nothing() {
    let store = start(MemoryAdapter::default()).await;
    let zombie: Durable<Counter> = open(&store, "c").await.unwrap();
    let runtime = tokio::runtime::Handle::current();
    let (opener, old) = (store.clone(), zombie.clone());
    let (heir, outcome) = tokio::task::spawn_blocking(move || {
        let mut heir = None;
        let outcome = old.update(|counter| {
            counter.count = 1;
            heir = Some(runtime.block_on(open::<Counter>(&opener, "c")).unwrap());
        });
        (heir.unwrap(), outcome)
    })
    .await
    .unwrap();
    assert!(matches!(outcome, Err(Error::Superseded { .. })), "{outcome:?}");
    assert_eq!((zombie.get().count, heir.get().count), (0, 0));
    heir.update(|counter| counter.count = 5).unwrap();
}

#[tokio::test]
async fn a_deleted_value_is_gone_for_its_handles_and_begins_anew() {
    let adapter = MemoryAdapter::default();
    let store = start(adapter.clone()).await;
    let kept: Durable<u32> = open(&store, "kept").await.unwrap();
    kept.update(|number| *number = 1).unwrap();
    let value = store.durable("c", DurableOptions::starting_with(|| 5)).await.unwrap();
    value.update(|number| *number = 6).unwrap();
    value.persist().await.unwrap();
    value.delete().await.unwrap();
    assert!(matches!(value.update(|number| *number += 1), Err(Error::NotFound { .. })));
    assert!(matches!(value.delete().await, Err(Error::NotFound { .. })));
    let anew = store.durable("c", DurableOptions::starting_with(|| 5)).await.unwrap();
    assert_eq!(anew.get(), 5);
    assert!(matches!(value.update(|number| *number += 1), Err(Error::Superseded { .. })));
    anew.delete().await.unwrap();
    stop(store).await;
    let store = start(adapter).await;
    assert_eq!(store.durable("c", DurableOptions::starting_with(|| 8)).await.unwrap().get(), 8);
    assert_eq!(open::<u32>(&store, "kept").await.unwrap().get(), 1);
}

#[tokio::test]
async fn durable_values_are_no_bucket_of_users() {
    let store = start(MemoryAdapter::default()).await;
    let mut buckets = store.subscribe("bucket.*.*").unwrap();
    let mut saves = store.subscribe("persistence.*.saved").unwrap();
    let counter: Durable<Counter> = open(&store, "c").await.unwrap();
    counter.update(|counter| counter.count = 1).unwrap();
    counter.persist().await.unwrap();
    let stats = store.stats().await;
    assert_eq!((stats.buckets, stats.records), (0, 0));
    let (subject, saved) = &stats.persistence.saved_revisions[0];
    assert_eq!((subject.to_string(), *saved), ("durable values".to_owned(), 2));
    for name in [subject.name(), "durable values"] {
        assert!(store.bucket(name).is_err(), "{name:?}");
    }
    let definition = BucketDefinition::new(subject.name()).key("id").field("id", Field::int());
    assert!(matches!(store.define_bucket(definition).await, Err(Error::InvalidDefinition { .. })));
    // A bucket that looks like it is another one.
    let definition = BucketDefinition::new("durable values").key("id").field("id", Field::string());
    let like = store.define_bucket(definition).await.unwrap();
    assert!(like.get("c").await.unwrap().is_none());
    assert!(buckets.try_recv().is_none(), "no bucket has changed");
    assert!(saves.recv().await.is_some());
}
