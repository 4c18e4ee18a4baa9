//! What becomes of a store whose runtime is shut down under it, while handles on it are still held elsewhere?

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use ractor_persistence::adapters::memory::MemoryAdapter;
use ractor_persistence::adapters::redb::RedbAdapter;
use ractor_persistence::base::error::Error;
use ractor_persistence::bucket::Bucket;
use ractor_persistence::store::Store;
use ractor_persistence::testkit::{Fault, Operation};
use tokio::runtime::Runtime;

use crate::world::*;

/// Works on a runtime of its own, which is shut down when the work is done.
fn elsewhere<T: Send>(work: impl Future<Output = T> + Send) -> T {
    thread::scope(|scope| scope.spawn(|| Runtime::new().unwrap().block_on(work)).join().unwrap())
}

/// A store of one record that nothing saves by itself, on a runtime that is gone.
fn left_behind(adapter: impl ractor_persistence::persistence::StorageAdapter) -> (Store, Bucket) {
    elsewhere(async move {
        let options = options().with_debounce(Duration::from_secs(3_600));
        let store = builder(adapter).persistence(options).start().await.unwrap();
        let bucket = store.define_bucket(items("items")).await.unwrap();
        insert(&bucket, 1, "accepted").await.unwrap();
        (store, bucket)
    })
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("it comes to an end")
}

#[tokio::test]
async fn what_was_accepted_is_saved_by_a_flush_on_another_runtime_and_by_a_stop() {
    let adapter = MemoryAdapter::default();
    let (store, bucket) = left_behind(adapter.clone());
    assert!(matches!(soon(insert(&bucket, 2, "too late")).await, Err(Error::Stopping)));
    soon(store.flush()).await.unwrap();
    assert_eq!(stored(&adapter, "items").await, Some(expect([(1, "accepted")])));
    assert!(soon(store.stop()).await.unwrap().unsaved.is_empty());

    let adapter = MemoryAdapter::default();
    let (store, _bucket) = left_behind(adapter.clone());
    let report = soon(store.stop()).await.unwrap();
    assert!(report.unsaved.is_empty() && report.error.is_none(), "{report:?}");
    assert_eq!(stored(&adapter, "items").await, Some(expect([(1, "accepted")])));
}

#[tokio::test]
async fn no_disk_needs_the_runtime_that_its_store_was_started_on() {
    for disk in disks() {
        let store = elsewhere(async {
            let store = disk.start(options().with_debounce(Duration::from_secs(3_600))).await;
            insert(&store.define_bucket(items("items")).await.unwrap(), 1, "accepted").await.unwrap();
            store
        });
        let report = soon(store.stop()).await.unwrap();
        assert!(report.unsaved.is_empty() && report.error.is_none(), "{report:?}");
        drop(store);
        assert_eq!(disk.stored("items").await, Some(expect([(1, "accepted")])));
    }
}

#[test]
fn without_any_runtime_a_flush_ends_all_the_same() {
    let (store, _bucket) = left_behind(MemoryAdapter::default());
    let mut flush = tokio_test::task::spawn(store.flush());
    assert!(matches!(flush.poll(), std::task::Poll::Ready(Err(Error::Stopping))));
}

#[tokio::test]
async fn a_commit_that_is_cut_off_with_its_runtime_answers_and_is_made_again() {
    let (adapter, faults) = faulty();
    let home = Runtime::new().unwrap();
    let (store, bucket) = home
        .spawn({
            let adapter = adapter.clone();
            async move {
                let store = start(adapter).await;
                let bucket = store.define_bucket(items("items")).await.unwrap();
                (store, bucket)
            }
        })
        .await
        .unwrap();
    faults.inject(Fault::hang().on(Operation::Commit));
    insert(&bucket, 1, "accepted").await.unwrap();
    let flush = store.flush();
    tokio::pin!(flush);
    soon(async {
        while faults.commits().is_empty() {
            assert!(tokio::time::timeout(Duration::from_millis(5), &mut flush).await.is_err());
        }
    })
    .await;
    home.shutdown_background();
    let outcome = soon(flush).await;
    assert!(matches!(outcome, Err(Error::Unknown { .. } | Error::Stopping)), "{outcome:?}");
    faults.heal();
    let report = soon(store.stop()).await.unwrap();
    assert!(report.unsaved.is_empty() && report.error.is_none(), "{report:?}");
    assert_eq!(stored(&adapter, "items").await, Some(expect([(1, "accepted")])));
}

#[tokio::test]
async fn a_runtime_that_is_shut_down_under_load_loses_nothing_that_a_stop_can_save() {
    for round in 0..40_u64 {
        let adapter = MemoryAdapter::default();
        let home = Runtime::new().unwrap();
        let acknowledged = Arc::new(Mutex::new(Texts::new()));
        let options = options().with_debounce(Duration::from_micros(round * 50));
        let builder = builder(adapter.clone()).persistence(options);
        let begun = async {
            let store = builder.start().await.unwrap();
            let bucket = store.define_bucket(items("items")).await.unwrap();
            (store, bucket)
        };
        let (store, bucket) = home.spawn(begun).await.unwrap();
        for writer in 0..4 {
            let (bucket, acknowledged) = (bucket.clone(), Arc::clone(&acknowledged));
            home.spawn(async move {
                for id in (writer..).step_by(4) {
                    if insert(&bucket, id, "accepted").await.is_err() {
                        break;
                    }
                    acknowledged.lock().unwrap().insert(id, "accepted".to_owned());
                }
            });
        }
        tokio::time::sleep(Duration::from_micros(500 + round * 37)).await;
        // Its threads are waited for: none of its tasks runs after this.
        tokio::task::spawn_blocking(move || drop(home)).await.unwrap();
        let report = soon(store.stop()).await.unwrap();
        assert!(report.unsaved.is_empty() && report.error.is_none(), "round {round}: {report:?}");
        let stored = stored(&adapter, "items").await.unwrap_or_default();
        let acknowledged = acknowledged.lock().unwrap();
        let lost: Vec<_> = acknowledged.keys().filter(|id| !stored.contains_key(*id)).collect();
        assert!(lost.is_empty(), "round {round}: {lost:?} of {}", acknowledged.len());
    }
}

#[tokio::test]
async fn a_stop_without_time_gives_the_file_back_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("items.redb");
    let options = options().with_stop_timeout(Duration::from_millis(1)).with_debounce(Duration::from_secs(3_600));
    let adapter = RedbAdapter::open(&place).await.unwrap();
    let store = builder(adapter).persistence(options).start().await.unwrap();
    let bucket = store.define_bucket(items("items")).await.unwrap();
    for id in 0..10 {
        insert(&bucket, id, "perhaps").await.unwrap();
    }
    store.stop().await.unwrap();
    let again = async {
        loop {
            match RedbAdapter::open(&place).await {
                Ok(adapter) => break adapter,
                Err(Error::Locked { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => panic!("{error:?}"),
            }
        }
    };
    drop(soon(again).await);
    assert!(matches!(insert(&bucket, 11, "too late").await, Err(Error::Stopping)));
}

#[test]
fn a_store_is_not_started_where_there_is_no_runtime() {
    let mut start = tokio_test::task::spawn(builder(MemoryAdapter::default()).start());
    assert!(matches!(start.poll(), std::task::Poll::Ready(Err(Error::Permanent { .. }))));
}
