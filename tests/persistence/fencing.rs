//! What may a store still do when a later one has taken its place?

use std::time::Duration;

use ractor_persistence::adapters::memory::MemoryAdapter;
use ractor_persistence::base::durability::Durability;
use ractor_persistence::base::error::{Error, Place};
use ractor_persistence::persistence::{Health, LoadFailure, PersistenceOutcome, StorageAdapter};
use ractor_persistence::testkit::{Fault, FaultAdapter, Operation};
use tokio::time::{advance, sleep};

use crate::world::*;

#[tokio::test(start_paused = true)]
async fn ps_24_a_fenced_store_cannot_overwrite_its_successors_data() {
    let memory = MemoryAdapter::default();
    let (adapter, failures) = (FaultAdapter::new(memory.clone()), Failures::default());
    let faults = adapter.faults();
    let older = builder(adapter).on_error(failures.note()).start().await.unwrap();
    let old = older.define_bucket(items("items")).await.unwrap();
    insert(&old, 1, "older").await.unwrap();
    older.flush().await.unwrap();

    let newer = start(memory.clone()).await;
    let new = newer.define_bucket(items("items")).await.unwrap();
    assert_eq!(held(&new).await, expect([(1, "older")]));
    update(&new, 1, "newer").await.unwrap();
    newer.flush().await.unwrap();

    let mut events = older.subscribe("persistence.items.*").unwrap();
    update(&old, 1, "too late").await.unwrap();
    old.clear().await.unwrap();
    insert(&old, 2, "too late").await.unwrap();
    let durable = old.with_durability(Durability::Fsync);
    let awaited = tokio::spawn({
        let durable = durable.clone();
        async move { insert(&durable, 3, "too late").await }
    });
    let outcome = soon(awaited).await.unwrap();
    let Err(Error::NotSaved { source, .. }) = &outcome else { panic!("{outcome:?}") };
    assert!(matches!(**source, Error::Fenced { .. }), "{source:?}");
    assert!(matches!(older.health(), Health::Fenced));

    // From now on it is said before anything is changed.
    let before = old.stats().await.unwrap().revision;
    for level in [Durability::Wal, Durability::Fsync] {
        assert!(matches!(insert(&old.with_durability(level), 4, "refused").await, Err(Error::Fenced { .. })));
    }
    assert_eq!(old.stats().await.unwrap().revision, before);
    insert(&old, 5, "in memory").await.unwrap();
    assert!(matches!(soon(older.flush()).await, Err(Error::Fenced { .. })));
    assert!(matches!(soon(old.flush()).await, Err(Error::Fenced { .. })));
    assert!(matches!(soon(older.drop_bucket("items")).await, Err(Error::Fenced { .. })));
    assert!(matches!(soon(older.detach_bucket("items")).await, Err(Error::Fenced { .. })));
    assert_eq!(held(&old).await.len(), 3, "it serves on from memory");

    // And saving has stopped for good.
    let commits = faults.commits().len();
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(faults.commits().len(), commits);
    assert_eq!(stored(&memory, "items").await, Some(expect([(1, "newer")])));
    assert!(failures.all().iter().any(|failure| matches!(failure.error, Error::Fenced { .. })));
    let saved =
        outcomes(&mut events).into_iter().any(|event| matches!(event.outcome, PersistenceOutcome::Saved { .. }));
    assert!(!saved);

    let report = older.stop().await.unwrap();
    assert_eq!(report.unsaved, [subject("items")]);
    assert!(matches!(report.error, Some(Error::Fenced { .. })));
    insert(&new, 9, "newer").await.unwrap();
    assert!(newer.stop().await.unwrap().unsaved.is_empty());
    assert_eq!(stored(&memory, "items").await, Some(expect([(1, "newer"), (9, "newer")])));
}

#[tokio::test(start_paused = true)]
async fn a_fenced_store_moves_nothing_of_its_successors_into_quarantine() {
    let memory = MemoryAdapter::default();
    let adapter = FaultAdapter::new(memory.clone());
    let faults = adapter.faults();
    let options = options().with_load_failure(LoadFailure::StartEmpty);
    let older = builder(adapter).persistence(options).start().await.unwrap();
    let newer = start(memory.clone()).await;
    let new = newer.define_bucket(items("items")).await.unwrap();
    insert(&new, 1, "newer").await.unwrap();
    newer.flush().await.unwrap();
    faults.fail_loads(Error::corrupt(Place::new("a file"), "read while it was written"));
    let refused = older.define_bucket(items("items")).await;
    assert!(matches!(refused, Err(Error::Fenced { .. })), "{refused:?}");
    assert!(memory.quarantined().is_empty());
    assert_eq!(stored(&memory, "items").await, Some(expect([(1, "newer")])));
    older.stop().await.unwrap();
    newer.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_drop_that_waits_while_its_store_is_fenced_is_told() {
    let (adapter, faults) = faulty();
    let memory = adapter.inner().clone();
    let store = start(adapter).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    faults.inject(Fault::hang().on(Operation::Commit));
    insert(&bucket, 1, "unsaved").await.unwrap();
    advance(WINDOW * 2).await;
    let dropping = tokio::spawn({
        let store = store.clone();
        async move { store.drop_bucket("items").await }
    });
    advance(WINDOW).await;
    memory.claim(&key("items").store).await.unwrap();
    faults.heal();
    assert!(matches!(soon(dropping).await.unwrap(), Err(Error::Fenced { .. })));
    assert_eq!(held(&bucket).await, expect([(1, "unsaved")]));
    soon(store.stop()).await.unwrap();
}

#[tokio::test]
async fn a_store_that_was_replaced_does_not_close_the_file_of_its_successor() {
    for disk in disks() {
        let adapter = disk.open().await;
        let start = || {
            ractor_persistence::store::Store::builder("shop")
                .shared_adapter(adapter.clone())
                .persistence(options())
                .start()
        };
        // One that notices, and one that does not.
        for notices in [true, false] {
            let older = start().await.unwrap();
            let old = older.define_bucket(items("items")).await.unwrap();
            let newer = start().await.unwrap();
            let new = newer.define_bucket(items("items")).await.unwrap();
            if notices {
                insert(&old, 100, "too late").await.unwrap();
                assert!(matches!(older.flush().await, Err(Error::Fenced { .. })));
            }
            older.stop().await.unwrap();
            insert(&new, i64::from(notices), "newer").await.unwrap();
            let report = newer.stop().await.unwrap();
            assert!(report.unsaved.is_empty(), "noticed: {notices}: {report:?}");
        }
        drop(adapter);
        assert_eq!(disk.stored("items").await, Some(expect([(0, "newer"), (1, "newer")])));
    }
}
