//! What is left of a bucket that was cleared, dropped, detached, or whose actor was killed?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ractor_persistence::adapters::memory::MemoryAdapter;
use ractor_persistence::base::durability::Durability;
use ractor_persistence::base::error::{Error, Outcome};
use ractor_persistence::bucket::{Bucket, QueryContext};
#[cfg(feature = "testkit")]
use ractor_persistence::bucket::{BucketMessage, WriteRequest};
use ractor_persistence::record;
use ractor_persistence::records::Filter;
#[cfg(feature = "testkit")]
use ractor_persistence::records::Write;

use crate::world::*;

#[tokio::test]
async fn bk_31_a_clear_is_one_event_keeps_the_counter_and_what_was_saved_of_it_stays_empty_after_a_kill() {
    let adapter = MemoryAdapter::default();
    let (store, _) = start_on(adapter.clone()).await;
    let definition = || numbered("numbers").index(["text"]).max_size(1_000).ordered().ttl("1h");
    let bucket = store.define_bucket(definition()).await.unwrap();
    bucket.insert_many(vec![record! { "text": "x" }; 100]).await.unwrap();
    store.flush().await.unwrap();
    let mut events = store.subscribe("bucket.*").unwrap();
    let counting = |q: QueryContext| async move { q.bucket("numbers")?.count(Filter::all()).await };
    let mut live = store.live(counting).await.unwrap();
    assert_eq!(*live.current(), 100);
    assert_eq!(bucket.clear().await.unwrap(), 100);
    assert_eq!(*live.next().await.unwrap(), 0, "live queries run");
    let heard = heard(&mut events);
    assert_eq!(heard.iter().map(short).collect::<Vec<_>>(), ["cleared 100"]);
    assert_eq!((heard[0].revision, heard[0].count), (2, 1));
    let stats = bucket.stats().await.unwrap();
    assert_eq!((stats.records, stats.expired, stats.counter, stats.revision), (0, 0, 100, 2));
    assert_eq!(bucket.find(Filter::eq("text", "x")).await.unwrap(), []);
    assert!(bucket.all().await.unwrap().is_empty() && bucket.get(1).await.unwrap().is_none());
    // Unsaved, it survives its actor.
    kill(&bucket).await;
    assert_eq!(bucket.count(Filter::all()).await.unwrap(), 0);
    assert_eq!(bucket.stats().await.unwrap().counter, 100);
    bucket.with_durability(Durability::Fsync).insert(record! { "text": "y" }).await.unwrap();
    bucket.with_durability(Durability::Fsync).clear().await.unwrap();
    // The store is left where it stands, as by a kill of its process: only what was saved is there for the next one.
    drop((bucket, store));
    let (store, _) = start_on(adapter.clone()).await;
    let bucket = store.define_bucket(definition()).await.unwrap();
    let stats = bucket.stats().await.unwrap();
    assert_eq!((stats.records, stats.counter, stats.revision), (0, 101, 4));
    assert_eq!(bucket.insert(record! {}).await.unwrap().key(), &102.into());
    store.stop().await.unwrap();
}

#[cfg(feature = "testkit")]
#[tokio::test]
async fn bk_53_a_dropped_bucket_is_empty_when_defined_again_a_detached_one_is_back_and_a_failed_drop_changes_nothing() {
    use ractor_persistence::testkit::FaultAdapter;
    let adapter = FaultAdapter::new(MemoryAdapter::default());
    let faults = adapter.faults();
    let (store, _) = start_on(adapter).await;
    let bucket = store.define_bucket(numbered("numbers")).await.unwrap();
    for round in 0..100 {
        bucket.insert_many(vec![record! {}; 3]).await.unwrap();
        if round % 3 == 0 {
            store.flush().await.unwrap();
        }
        // Some are still on their way when the drop begins.
        let actor = bucket.actor().await.unwrap();
        for _ in 0..20 {
            actor.cast(BucketMessage::Post(WriteRequest::new(Write::Insert(record! {})))).unwrap();
        }
        store.drop_bucket("numbers").await.unwrap();
        assert!(matches!(bucket.get(1).await, Err(Error::BucketNotDefined { .. })));
        if round % 4 == 0 {
            // Time for what is not to come any more.
            tokio::time::sleep(Duration::from_millis(8)).await;
        }
        store.define_bucket(numbered("numbers")).await.unwrap();
        let stats = bucket.stats().await.unwrap();
        assert_eq!((stats.records, stats.counter, stats.revision), (0, 0, 0), "round {round}");
    }
    for round in 1..=10 {
        bucket.insert(record! { "text": "kept" }).await.unwrap();
        store.detach_bucket("numbers").await.unwrap();
        assert!(matches!(bucket.insert(record! {}).await, Err(Error::BucketNotDefined { .. })));
        store.define_bucket(numbered("numbers")).await.unwrap();
        assert_eq!(bucket.count(Filter::eq("text", "kept")).await.unwrap(), round);
    }
    let before = bucket.all().await.unwrap();
    let broken = || Error::permanent("drop", std::io::Error::other("on purpose"));
    faults.fail_drops(broken());
    for _ in 0..3 {
        assert!(matches!(store.drop_bucket("numbers").await, Err(Error::Permanent { .. })));
        assert_eq!(bucket.all().await.unwrap(), before);
        assert!(matches!(store.define_bucket(numbered("numbers")).await, Err(Error::BucketAlreadyExists { .. })));
    }
    bucket.with_durability(Durability::Fsync).insert(record! { "text": "kept" }).await.unwrap();
    faults.heal();
    store.detach_bucket("numbers").await.unwrap();
    store.define_bucket(numbered("numbers")).await.unwrap();
    assert_eq!(bucket.count(Filter::eq("text", "kept")).await.unwrap(), 11);
    store.stop().await.unwrap();
}

/// Writes of one task, each of which was acknowledged or lost: by key, the number last acknowledged and the number last
/// tried.
type Account = BTreeMap<String, (i64, i64)>;

async fn write(bucket: Bucket, task: usize, rounds: i64) -> Account {
    let mut account = Account::new();
    for number in 1..=rounds {
        let key = format!("{task}-{}", number % 7);
        let entry = account.entry(key.clone()).or_default();
        entry.1 = number;
        let data = record! { "id": &*key, "number": number };
        match bucket.upsert(data).await {
            Ok(_) => entry.0 = number,
            Err(Error::ActorLost { outcome: Outcome::Unknown }) => {}
            Err(error) => panic!("{error:?}"),
        }
        if number % 16 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    account
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn bk_54_a_bucket_whose_actor_is_killed_under_load_is_back_under_the_same_handle_with_all_that_was_acknowledged()
{
    for home in homes() {
        let (store, _) = home.start().await;
        let bucket = store.define_bucket(texts("texts")).await.unwrap();
        let cache = store.define_bucket(texts("cache").persistent(false)).await.unwrap();
        cache.insert(record! { "id": "a" }).await.unwrap();
        let tasks: Vec<_> = (0..4).map(|task| tokio::spawn(write(bucket.clone(), task, 400))).collect();
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            kill(&bucket).await;
        }
        let mut account = Account::new();
        for task in tasks {
            account.extend(task.await.unwrap());
        }
        let check = |bucket: Bucket, when: &'static str| {
            let account = account.clone();
            async move {
                for (key, (acknowledged, tried)) in account {
                    let found = bucket.get(&*key).await.unwrap();
                    let number = found.and_then(|record| record.get("number")?.as_i64()).unwrap_or(0);
                    assert!(
                        (acknowledged..=tried).contains(&number),
                        "{when}: {key} is {number}, acknowledged was {acknowledged}, tried {tried}"
                    );
                }
            }
        };
        check(bucket.clone(), home.name).await;
        kill(&bucket).await;
        check(bucket.clone(), "killed once more").await;

        // What opted out starts empty, and its subscribers hear of no revision twice.
        let mut events = store.subscribe("bucket.cache.*").unwrap();
        kill(&cache).await;
        // Until the death is known, reads are answered as before it; this waits for the next actor.
        assert_eq!(cache.stats().await.unwrap().records, 0);
        assert_eq!(cache.all().await.unwrap(), []);
        cache.insert(record! { "id": "a" }).await.unwrap();
        assert_eq!(heard(&mut events)[0].revision, 2);
        store.stop().await.unwrap();
        let (store, _) = home.start().await;
        let bucket = store.define_bucket(texts("texts")).await.unwrap();
        check(bucket, "reopened").await;
        let cache = store.define_bucket(texts("cache").persistent(false)).await.unwrap();
        assert_eq!(cache.all().await.unwrap(), []);
        store.stop().await.unwrap();
    }
}

#[tokio::test]
async fn calls_wait_while_a_bucket_restarts_and_the_same_handle_answers_them() {
    let (store, _) = memory().start().await;
    let bucket = store.define_bucket(texts("texts")).await.unwrap();
    for round in 0..5 {
        bucket.insert(record! { "id": format!("{round}") }).await.unwrap();
        kill(&bucket).await;
        let (read, written) =
            tokio::join!(bucket.get(format!("{round}")), bucket.update(format!("{round}"), record! { "text": "x" }));
        assert!(read.unwrap().is_some());
        assert_eq!(written.unwrap().version(), 2);
    }
    // The sixth death within half a minute is the last.
    kill(&bucket).await;
    let given_up = loop {
        match bucket.get("0").await {
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    assert!(matches!(given_up, Error::GivenUp { .. }), "{given_up:?}");
    store.detach_bucket("texts").await.unwrap();
    store.define_bucket(texts("texts")).await.unwrap();
    assert_eq!(bucket.count(Filter::eq("text", "x")).await.unwrap(), 5);
    drop(Arc::new(bucket));
    store.stop().await.unwrap();
}
