//! What is left of buckets and channels that were dropped? Were it something, a store that lives for months would fill up.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ractor::Actor;
use ractor_persistence::ChannelOptions;
use ractor_persistence::adapters::memory::MemoryAdapter;
use ractor_persistence::base::error::Error;
use ractor_persistence::base::name::{ChannelId, ChannelKey, StoreName};
use ractor_persistence::bucket::QueryContext;
use ractor_persistence::persistence::StorageAdapter;
use ractor_persistence::records::Filter;
use ractor_persistence::sds::ChannelData;
use ractor_persistence::store::Store;

use crate::supervision::Application;
use crate::world::*;

/// What there is of a store besides its data: actors, tasks, subscriptions.
#[derive(Debug, PartialEq)]
struct Remains {
    actors: usize,
    subscribers: usize,
    live: usize,
}

/// A hundred rounds of defining, filling and dropping, and whatever else hangs on a bucket or channel meanwhile. Answers
/// once everything is as before the first; `look` is what the adapter keeps, which has to be the same as well.
async fn a_hundred_rounds<Look: PartialEq + std::fmt::Debug>(
    adapter: Arc<dyn StorageAdapter>,
    look: impl AsyncFn() -> Look,
) {
    let (application, _ended) = Actor::spawn(None, Application, ()).await.unwrap();
    let builder = Store::builder("shop").shared_adapter(adapter).persistence(options());
    let store = builder.spawn_linked(application.get_cell()).await.unwrap();
    let [supervisor] = application.get_cell().get_children().try_into().unwrap();
    let other = store.define_bucket(items("other")).await.unwrap();
    insert(&other, 0, "kept").await.unwrap();
    store.flush().await.unwrap();
    let remains = async || Remains {
        actors: supervisor.get_children().len(),
        subscribers: store.bus().subscriber_count(),
        live: store.stats().await.subscriptions,
    };
    let (kept, before) = (look().await, remains().await);
    let mut tasks_before = None;
    for round in 0..100_i64 {
        let bucket = store.define_bucket(items("items").index(["text"])).await.unwrap();
        assert_eq!(held(&bucket).await, Texts::new(), "round {round}");
        let heard = Arc::new(AtomicUsize::new(0));
        let hears = Arc::clone(&heard);
        let handler = store
            .on("bucket.items.*", move |_| {
                hears.fetch_add(1, Ordering::SeqCst);
                async {}
            })
            .unwrap();
        let live = store.live(|q: QueryContext| async move { q.bucket("items")?.count(Filter::all()).await }).await;
        let mut live = live.unwrap();
        let stream = store.subscribe("bucket.items.*").unwrap();
        let channel = store.open_channel("room", ChannelOptions::default().with_participant("us")).await.unwrap();
        let told = channel.subscribe();
        for id in 0..3 {
            insert(&bucket, id, "gone").await.unwrap();
        }
        channel.wrap(format!("message {round}"), "gone").await.unwrap();
        assert_eq!(*live.next().await.unwrap(), 3);
        if round % 3 == 0 {
            store.flush().await.unwrap();
        }
        if round % 10 == 0 {
            kill(&bucket).await;
            assert_eq!(held(&bucket).await.len(), 3);
        }
        store.settle().await;
        assert_eq!(heard.load(Ordering::SeqCst), 3);
        store.drop_bucket("items").await.unwrap();
        store.drop_channel("room").await.unwrap();
        assert!(matches!(bucket.get(0).await, Err(Error::BucketNotDefined { .. })));
        assert!(matches!(channel.history().await, Err(Error::UnknownChannel { .. })));
        drop((handler, live, stream, told, bucket, channel));
        store.settle().await;
        // A killed actor is a child until its supervisor has heard of it.
        for _ in 0..1_000 {
            if remains().await == before {
                break;
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(remains().await, before, "round {round}");
        if round % 20 == 19 {
            store.flush().await.unwrap();
            assert_eq!(look().await, kept, "round {round}");
            // Those that end do so when they have their turn.
            let tasks = tasks_ended(tasks_before.unwrap_or(0)).await;
            assert!(tasks <= *tasks_before.get_or_insert(tasks), "round {round}: {tasks} tasks");
        }
    }
    let stats = store.stats().await;
    assert_eq!((stats.buckets, stats.channels, stats.records), (1, 0, 1));
    assert_eq!(stats.persistence.saved_revisions, [(subject("other"), 1)]);
    assert!(stats.persistence.unsaved.is_empty());
    assert!(store.stop().await.unwrap().unsaved.is_empty());
    application.stop_and_wait(None, None).await.unwrap();
}

/// Files by name, without what is in them.
#[cfg(feature = "json-file")]
fn names_of_files(directory: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        names.push(path.display().to_string());
        if path.is_dir() {
            names.extend(names_of_files(&path));
        }
    }
    names.sort();
    names
}

#[tokio::test(start_paused = true)]
async fn ps_35_dropping_and_defining_a_hundred_times_leaves_no_actor_no_row_and_no_subscription_in_memory() {
    let memory = MemoryAdapter::default();
    let look = async || {
        let room = ChannelKey::new(StoreName::new("shop").unwrap(), ChannelId::new("room").unwrap());
        let data = memory.load_channel(&room).await.unwrap();
        assert_eq!(data, ChannelData::default());
        (stored(&memory, "items").await, stored(&memory, "other").await)
    };
    a_hundred_rounds(Arc::new(memory.clone()), look).await;
    assert_eq!(look().await, (None, Some(expect([(0, "kept")]))));
}

#[cfg(feature = "json-file")]
#[tokio::test]
async fn ps_35_dropping_and_defining_a_hundred_times_leaves_no_actor_no_row_and_no_subscription_in_json_files() {
    let directory = tempfile::tempdir().unwrap();
    let adapter = ractor_persistence::adapters::json_file::JsonFileAdapter::open(directory.path()).await.unwrap();
    a_hundred_rounds(Arc::new(adapter), async || names_of_files(directory.path())).await;
}

#[cfg(feature = "redb")]
#[tokio::test]
async fn ps_35_dropping_and_defining_a_hundred_times_leaves_no_actor_no_row_and_no_subscription_in_redb() {
    use redb::{ReadableDatabase as _, ReadableTableMetadata as _};

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shop.redb");
    let copies = directory.path().join("copies");
    std::fs::create_dir(&copies).unwrap();
    let adapter = ractor_persistence::adapters::redb::RedbAdapter::open(&path).await.unwrap();
    let copy = AtomicUsize::new(0);
    // The file is locked while the store has it. A copy that is made while nothing is written is one of a file that a
    // crash has left, which opens.
    let look = async || {
        let copied = copies.join(copy.fetch_add(1, Ordering::SeqCst).to_string());
        std::fs::copy(&path, &copied).unwrap();
        let database = redb::Database::open(&copied).unwrap();
        let read = database.begin_read().unwrap();
        let tables: BTreeMap<String, u64> = read
            .list_tables()
            .unwrap()
            .map(|table| {
                use redb::TableHandle as _;
                let name = table.name().to_owned();
                (name, read.open_untyped_table(table).unwrap().len().unwrap())
            })
            .collect();
        tables
    };
    a_hundred_rounds(Arc::new(adapter), look).await;
}
