//! What goes wrong between a bucket's turn and those who do not wait for it, and other suspicions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ractor_persistence::base::clock::ManualClock;
use ractor_persistence::bucket::{BucketMessage, WriteRequest};
use ractor_persistence::records::{Direction, Generated, Page, Query, Write};
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

/// In a transaction, a record that takes the key of an expired one is counted.
#[tokio::test]
async fn a_record_over_an_expired_one_counts_in_its_transaction() {
    let clock = Arc::new(ManualClock::at(1_000));
    let store = Store::builder("s").clock(clock.clone()).ttl_check_interval(Duration::ZERO).start().await.unwrap();
    let things = store.define_bucket(things("things").ordered().index(["n"])).await.unwrap();
    things.insert(record! { "id": "x", "n": 1, "_expires_at": 1_010 }).await.unwrap();
    things.insert(record! { "id": "y", "n": 1 }).await.unwrap();
    clock.advance(20);
    let counts = store
        .transaction(|tx| async move {
            let things = tx.bucket("things")?;
            things.insert(record! { "id": "x", "n": 2 }).await?;
            let all = things.all().await?.len();
            Ok::<_, Error>((all, things.count(Filter::all()).await?, things.count(Filter::eq("n", 1)).await?))
        })
        .await
        .unwrap();
    assert_eq!(counts, (2, 2, 1));
    assert_eq!(things.count(Filter::all()).await.unwrap(), 2);
}

/// A cursor is text from anywhere.
#[tokio::test]
async fn a_cursor_of_anything_is_refused() {
    let store = Store::builder("s").start().await.unwrap();
    let things = store.define_bucket(things("things")).await.unwrap();
    for n in 0..4 {
        things.insert(record! { "id": format!("{n}"), "n": n }).await.unwrap();
    }
    let query = || Query::all().order_by("n", Direction::Ascending);
    let first = things.paginate(query(), Page::new(2)).await.unwrap();
    let good = URL_SAFE_NO_PAD.decode(first.next_cursor.unwrap().as_str()).unwrap();
    // `[format, fingerprint, [value], place, nil]`: other values in place of the one.
    let at = good.iter().rposition(|byte| *byte == 0x91).unwrap();
    for value in [
        vec![0x91; 1_000],
        vec![0x91; 100_000],
        vec![0xdd, 0xff, 0xff, 0xff, 0xff],
        vec![0xdf, 0xff, 0xff, 0xff, 0xff],
        vec![0xc6, 0xff, 0xff, 0xff, 0xff],
        vec![0xdb, 0xff, 0xff, 0xff, 0xff],
        vec![0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 1],
        vec![0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    ] {
        let mut bytes = good[..=at].to_vec();
        bytes.extend(&value);
        if value.len() >= 1_000 {
            bytes.push(0xc0);
        }
        bytes.extend(&good[at + 2..]);
        let cursor = URL_SAFE_NO_PAD.encode(bytes);
        match things.paginate(query(), Page::new(2).after(cursor)).await {
            Ok(page) => assert!(page.records.len() <= 2),
            Err(error) => assert!(matches!(error, Error::InvalidArgument { .. }), "{error:?}"),
        }
    }
}
