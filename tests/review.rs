//! Suspicions of a reviewer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ractor_persistence::bucket::{BucketMessage, WriteRequest};
use ractor_persistence::records::{Generated, Write};
use ractor_persistence::store::Store;
use ractor_persistence::{BucketDefinition, Error, Field, Filter, record};

fn things(name: &str) -> BucketDefinition {
    BucketDefinition::new(name).key("id").field("id", Field::string()).field("n", Field::int())
}

/// A filter that names a key in one branch only: what the other branch finds counts, too.
#[tokio::test]
async fn a_transaction_reads_all_branches_of_an_or_that_names_a_key() {
    let store = Store::builder("s").start().await.unwrap();
    let things = store.define_bucket(things("things")).await.unwrap();
    let outcome = store
        .transaction(|tx| {
            let things = things.clone();
            async move {
                let inner = tx.bucket("things")?;
                let found = inner.count(Filter::eq("id", "x").or(Filter::gt("n", 5))).await?;
                things.insert(record! { "id": "y", "n": 7 }).await?;
                inner.insert(record! { "id": "z", "n": i64::try_from(found).unwrap() }).await?;
                Ok::<_, Error>(())
            }
        })
        .await;
    assert!(matches!(outcome, Err(Error::Conflict { .. })), "{outcome:?}");
}

/// A key that a commit deletes and inserts is there at every moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_key_that_is_replaced_in_one_commit_is_never_absent() {
    let store = Store::builder("s").start().await.unwrap();
    let things = store.define_bucket(things("things")).await.unwrap();
    things.insert(record! { "id": "x", "n": 0 }).await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (things, done) = (things.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            let mut absent = 0;
            while !done.load(Ordering::Relaxed) {
                absent += usize::from(things.get("x").await.unwrap().is_none());
            }
            absent
        })
    };
    for n in 0..3_000 {
        store
            .transaction(|tx| async move {
                let things = tx.bucket("things")?;
                things.delete("x").await?;
                for other in 0..10 {
                    things.upsert(record! { "id": format!("o{other}"), "n": n }).await?;
                }
                things.insert(record! { "id": "x", "n": n }).await?;
                Ok::<_, Error>(())
            })
            .await
            .unwrap();
    }
    done.store(true, Ordering::Relaxed);
    assert_eq!(reader.await.unwrap(), 0);
}

/// Numbers of transactions and of plain inserts differ.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn numbers_of_transactions_and_inserts_differ() {
    let store = Store::builder("s").start().await.unwrap();
    let number = Field::int().generated(Generated::Autoincrement);
    let definition = things("things").field("number", number);
    let things = store.define_bucket(definition).await.unwrap();
    let plain = {
        let things = things.clone();
        tokio::spawn(async move {
            for n in 0..20_000 {
                things.insert(record! { "id": format!("p{n}") }).await.unwrap();
            }
        })
    };
    let mut n = 0;
    while !plain.is_finished() {
        n += 1;
        store
            .transaction(|tx| async move {
                tx.bucket("things")?.insert(record! { "id": format!("t{n}") }).await?;
                Ok::<_, Error>(())
            })
            .await
            .unwrap();
    }
    plain.await.unwrap();
    let all = things.all().await.unwrap();
    let mut numbers: Vec<_> = all.iter().map(|record| record.get("number").unwrap().as_i64().unwrap()).collect();
    let count = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), count);
}

/// A timeout without end is one.
#[tokio::test]
async fn a_timeout_may_be_as_long_as_can_be() {
    let store = Store::builder("s").start().await.unwrap();
    let things = store.define_bucket(things("things")).await.unwrap().with_timeout(Duration::MAX);
    things.actor().await.unwrap();
    things.insert(record! { "id": "x" }).await.unwrap();
    store.transaction(|tx| async move { tx.bucket("things")?.get("x").await }).timeout(Duration::MAX).await.unwrap();
    store.drop_bucket("things").await.unwrap();
    assert!(things.get("x").await.is_err());
    assert!(things.insert(record! { "id": "x" }).await.is_err());
}

/// A runtime that began to tick and is gone leaves others their timeouts.
#[test]
fn timeouts_outlive_the_runtime_that_first_waited() {
    let main = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (store, things) = main.block_on(async {
        let store = Store::builder("s").start().await.unwrap();
        let things = store.define_bucket(things("things")).await.unwrap().with_timeout(Duration::from_secs(1));
        (store, things)
    });
    // Hold the bucket's turn, so that calls wait.
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let slow = main.block_on(store.define_bucket(
        BucketDefinition::new("slow").key("id").field("id", Field::int().generated(Generated::Autoincrement)).field(
            "n",
            Field::int().default_with(move || {
                let _ = held.lock().unwrap().recv();
                1
            }),
        ),
    ));
    let slow = slow.unwrap().with_timeout(Duration::from_secs(1));
    let actor = main.block_on(slow.actor()).unwrap();
    actor.cast(BucketMessage::Post(WriteRequest::new(Write::Insert(record! {})))).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    {
        let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let slow = slow.clone();
        // Gives up at once, and its runtime goes.
        other.block_on(async {
            let insert = tokio::time::timeout(Duration::from_millis(50), slow.delete(1));
            assert!(insert.await.is_err());
        });
    }
    let begun = std::time::Instant::now();
    let outcome = main.block_on(async { tokio::time::timeout(Duration::from_secs(6), slow.delete(1)).await });
    release.send(()).unwrap();
    drop(release);
    assert!(matches!(outcome, Ok(Err(Error::Timeout { .. }))), "{outcome:?} after {:?}", begun.elapsed());
    drop(things);
}
