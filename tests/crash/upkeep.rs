//! What nobody asked for in so many words: records that expire and are purged, records that are evicted, and numbers that
//! are counted. Once a `saved` event has told of it, a kill takes none of it back.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ractor_persistence::base::name::{BucketKey, BucketName, StoreName};
use ractor_persistence::bucket::Bucket;
use ractor_persistence::bus::{Event, Pattern};
use ractor_persistence::persistence::PersistenceOptions;
use ractor_persistence::record;
use ractor_persistence::records::{BucketDefinition, BucketEvent, BucketSnapshot, Change, Field, Generated};
use ractor_persistence::store::Store;
use tokio::sync::watch;

use crate::data::{State, WINDOW};
use crate::told::{Order, Task, Told};
use crate::victim::Victim;
use crate::{Backend, Ground};

const SHORT: &str = "short";
const FULL: &str = "full";
/// How many records the full bucket holds, and how many are put into it in a round.
const MOST: usize = 5;
const ROUND: i64 = 12;

fn definition(name: &str) -> BucketDefinition {
    let number = Field::int().generated(Generated::Autoincrement);
    BucketDefinition::new(name).key("id").field("id", number).field("round", Field::int())
}

async fn define(store: &Store) -> [Bucket; 2] {
    let short = definition(SHORT).ttl(Duration::from_millis(200));
    let full = definition(FULL).max_size(MOST);
    [store.define_bucket(short).await.unwrap(), store.define_bucket(full).await.unwrap()]
}

/// Fills both buckets, waits until what expires is purged and the `saved` events have told of all of it, says so, and
/// waits for the end.
pub(crate) async fn child(backend: Backend, order: &Order) {
    let adapter = (backend.open)(order.directory.clone()).await.unwrap();
    let store = Store::builder("crash")
        .shared_adapter(adapter)
        .persistence(PersistenceOptions::default().with_debounce(WINDOW))
        .ttl_check_interval(Duration::from_millis(20))
        .start()
        .await
        .unwrap();
    let (short_saved, full_saved) = (watch::Sender::new(0), watch::Sender::new(0));
    let saves = store.bus().subscribe_sink(
        Pattern::parse("persistence.*.saved").unwrap(),
        Arc::new({
            let (short, full) = (short_saved.clone(), full_saved.clone());
            move |event: &Event| {
                let of = if event.topic.segments().any(|segment| segment == SHORT) { &short } else { &full };
                of.send_modify(|revision| *revision = event.revision.max(*revision));
            }
        }),
    );
    let gone = watch::Sender::new(0);
    let deletes = store.bus().subscribe_sink(
        Pattern::parse("bucket.short.*").unwrap(),
        Arc::new({
            let gone = gone.clone();
            move |event: &Event| {
                let BucketEvent { change, .. } = event.payload().unwrap();
                gone.send_modify(|gone| *gone += i64::from(matches!(change, Change::Deleted { .. })));
            }
        }),
    );
    let [short, full] = define(&store).await;
    for _ in 0..ROUND {
        short.insert(record! { "round": order.round }).await.unwrap();
        full.insert(record! { "round": order.round }).await.unwrap();
    }
    // Saved once before anything expires, so that the purge is a change of what is on disk.
    store.flush().await.unwrap();
    // Expired records are counted no more, but they are there until they are purged, which is an event each.
    gone.subscribe().wait_for(|gone| *gone == ROUND).await.unwrap();
    let mut revisions = Vec::new();
    for bucket in [&short, &full] {
        revisions.push(bucket.stats().await.unwrap().revision);
    }
    for (saved, revision) in [short_saved, full_saved].iter().zip(revisions) {
        saved.subscribe().wait_for(|saved| *saved >= revision).await.unwrap();
    }
    Told::Done.tell();
    tokio::time::sleep(Duration::from_secs(120)).await;
    drop((saves, deletes));
}

async fn on_disk(backend: Backend, directory: PathBuf, name: &str) -> BucketSnapshot {
    let adapter = (backend.open)(directory).await.unwrap();
    let store = StoreName::new("crash").unwrap();
    adapter.claim(&store).await.unwrap();
    let key = BucketKey::new(store.clone(), BucketName::new(name).unwrap());
    let loaded = adapter.load_bucket(&key).await.unwrap().unwrap();
    adapter.close(&store).await.unwrap();
    loaded
}

/// PS-17.
pub(crate) async fn survives(backend: Backend) {
    let directory = Ground::of(backend);
    for round in 1..=3_u32 {
        let order = Order { directory: directory.path().to_owned(), task: Task::Upkeep, seed: 0, round };
        let mut victim = Victim::start(backend, &order, State::default());
        victim.until(|account| account.done).await;
        victim.kill().await;
        check(backend, directory.path(), round).await;
    }
    // And whoever opens it goes on from there.
    let store = crate::data::open(backend, directory.path()).await.unwrap();
    let [short, full] = define(&store).await;
    for bucket in [short, full] {
        let next = bucket.insert(record! { "round": 9 }).await.unwrap();
        assert_eq!(next.key(), &(3 * ROUND + 1).into(), "numbers go on behind those of all records, gone or not");
    }
    assert!(store.stop().await.unwrap().unsaved.is_empty());
}

async fn check(backend: Backend, directory: &Path, round: u32) {
    let counted = i64::from(round) * ROUND;
    // As it is stored: nothing is purged by a load here.
    let short = on_disk(backend, directory.to_owned(), SHORT).await;
    assert_eq!((short.records.len(), short.counter), (0, counted), "round {round}: purged, and counted on");
    let full = on_disk(backend, directory.to_owned(), FULL).await;
    let mut keys: Vec<i64> = full.records.iter().filter_map(|record| record.key().as_value().as_i64()).collect();
    keys.sort_unstable();
    let most = i64::try_from(MOST).unwrap();
    assert_eq!(keys, (counted - most + 1..=counted).collect::<Vec<_>>(), "round {round}: the oldest are evicted");
    assert_eq!(full.counter, counted);
}
