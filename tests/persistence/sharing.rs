//! Who shares a commit, in which order do commits come, and what is in them?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ractor_persistence::adapters::memory::MemoryAdapter;
use ractor_persistence::base::durability::Durability;
use ractor_persistence::base::value::Key;
use ractor_persistence::bucket::Bucket;
use ractor_persistence::persistence::{Commit, StorageAdapter};
use ractor_persistence::records::{BucketChange, BucketDelta};
use ractor_persistence::store::Store;
use ractor_persistence::testkit::{Call, Fault, FaultAdapter, Faults, Operation};
use tokio::time::sleep;

use crate::world::*;

/// 64 writers, each of which waits for the disk before it writes again.
async fn write_together(bucket: &Bucket, level: Durability, rounds: i64) {
    let writers: Vec<_> = (0..64_i64)
        .map(|writer| {
            let bucket = bucket.with_durability(level);
            tokio::spawn(async move {
                for round in 0..rounds {
                    soon(insert(&bucket, writer * 1_000 + round, "a")).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn ps_10_sixty_four_concurrent_fsync_writers_share_commits() {
    for adapter in both_granularities() {
        let faults = adapter.faults();
        // The window is no help: nobody could wait for it so often.
        let options = options().with_debounce(Duration::from_secs(3_600));
        let store = builder(adapter.clone()).persistence(options).start().await.unwrap();
        let bucket = store.define_bucket(items("items")).await.unwrap();
        faults.inject(Fault::delay(Duration::from_millis(5)).on(Operation::Commit));
        write_together(&bucket, Durability::Fsync, 50).await;
        let commits = faults.commits();
        assert!(commits.len() <= 64 * 50 / 8, "{} commits for {} writes", commits.len(), 64 * 50);
        assert!(commits.iter().all(|commit| commit.durability == Durability::Fsync));
        assert_eq!(stored(&adapter, "items").await.unwrap().len(), 64 * 50);
        assert_eq!(faults.most_commits_at_once(), 1);
        store.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fsync_writers_share_commits_on_disks_too() {
    for disk in disks() {
        let adapter = FaultAdapter::over(disk.open().await);
        let faults = adapter.faults();
        let store = Store::builder("shop").adapter(adapter).persistence(options()).start().await.unwrap();
        let bucket = store.define_bucket(items("items")).await.unwrap();
        write_together(&bucket, Durability::Fsync, 20).await;
        let commits = faults.commits().len();
        assert!(commits <= 64 * 20 / 8, "{commits} commits for {} writes", 64 * 20);
        assert_eq!(faults.most_commits_at_once(), 1);
        store.stop().await.unwrap();
        assert_eq!(disk.stored("items").await.unwrap().len(), 64 * 20);
    }
}

/// Each bucket's revisions rise from commit to commit that succeeded; a failed one may come again.
fn check_order(faults: &Faults) {
    let mut newest: BTreeMap<String, u64> = BTreeMap::new();
    for logged in faults.calls() {
        let Call::Commit(commit) = &logged.call else { continue };
        let saved = matches!(logged.result, Some(Ok(())));
        for (bucket, change) in changes(commit) {
            let newest = newest.entry(bucket.to_owned()).or_default();
            assert!(change.revision() > *newest, "{bucket}: {} after {newest}", change.revision());
            if saved {
                *newest = change.revision();
            }
        }
    }
}

/// As many threads as there are, an adapter as fast as can be: what one commit saves, the next must not take back.
async fn saves_under_load(adapter: FaultAdapter<dyn StorageAdapter>, seed: u64) {
    let faults = adapter.faults();
    faults.inject(Fault::fail(transient()).on(Operation::Commit).at_random(seed, 0.1));
    faults.inject(Fault::apply_then_fail(unknown()).on(Operation::Commit).at_random(seed + 1, 0.1));
    let store = builder(adapter.clone()).persistence(options().with_debounce(Duration::ZERO)).start().await.unwrap();
    let mut buckets = Vec::new();
    for name in ["a", "b", "c"] {
        buckets.push(store.define_bucket(items(name)).await.unwrap());
    }
    let writers: Vec<_> = (0..9_i64)
        .map(|writer| {
            let bucket = buckets[usize::try_from(writer % 3).unwrap()].clone();
            tokio::spawn(async move {
                for number in 0..400 {
                    let id = writer * 10 + number % 10;
                    match number / 10 % 3 {
                        0 => insert(&bucket, id, "first").await.unwrap(),
                        1 => update(&bucket, id, &number.to_string()).await.unwrap(),
                        _ => assert!(bucket.delete(id).await.unwrap()),
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    faults.heal();
    // A commit that was on its way may still fail, and whoever waits for it is told so.
    while store.flush().await.is_err() {}
    for bucket in &buckets {
        assert_eq!(stored(&adapter, bucket.name().as_str()).await.unwrap(), held(bucket).await, "seed {seed}");
    }
    let stats = store.stats().await.persistence;
    assert!(stats.unsaved.is_empty() && stats.unsaved_bytes == 0, "{stats:?}");
    assert_eq!(faults.most_commits_at_once(), 1);
    check_order(&faults);
    assert!(store.stop().await.unwrap().unsaved.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ps_11_saves_of_one_bucket_never_overlap_nor_overtake() {
    for seed in 0..4 {
        for adapter in both_granularities() {
            saves_under_load(adapter, seed * 10).await;
        }
    }
}

fn delta(commit: &Commit) -> &BucketDelta {
    let [(_, BucketChange::Delta(delta))] = changes(commit)[..] else { panic!("{commit:?}") };
    delta
}

#[tokio::test(start_paused = true)]
async fn ps_25_the_adapter_is_handed_the_changed_records_and_nothing_else() {
    let (adapter, faults) = faulty();
    let store = start(adapter).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    let quiet = store.define_bucket(items("quiet")).await.unwrap();
    insert(&quiet, 1, "never again").await.unwrap();
    for id in 0..1_000 {
        insert(&bucket, id, "first").await.unwrap();
    }
    store.flush().await.unwrap();
    faults.forget_calls();

    // Changed often, once in the commit; changed back and forth, as it is at the end.
    for round in 0..10 {
        update(&bucket, 7, &round.to_string()).await.unwrap();
    }
    bucket.delete(8).await.unwrap();
    bucket.delete(9).await.unwrap();
    insert(&bucket, 9, "again").await.unwrap();
    insert(&bucket, 2_000, "new").await.unwrap();
    insert(&bucket, 2_001, "gone before it is saved").await.unwrap();
    bucket.delete(2_001).await.unwrap();
    assert!(bucket.insert(ractor_persistence::record! { "id": 7, "text": "refused" }).await.is_err());
    sleep(WINDOW * 2).await;
    let commits = faults.commits();
    assert_eq!(commits.len(), 1);
    let change = delta(&commits[0]);
    assert_eq!(texts(&change.upserts), expect([(7, "9"), (9, "again"), (2_000, "new")]));
    let mut deletes = change.deletes.clone();
    deletes.sort();
    assert_eq!(deletes, [Key::from(8), Key::from(2_001)]);
    assert!(!change.cleared);
    assert_eq!(change.revision, bucket.stats().await.unwrap().revision);

    // After a clear, what is new, and no deletes.
    faults.forget_calls();
    bucket.clear().await.unwrap();
    insert(&bucket, 1, "new").await.unwrap();
    insert(&bucket, 2, "gone before it is saved").await.unwrap();
    bucket.delete(2).await.unwrap();
    store.flush().await.unwrap();
    let commits = faults.commits();
    let change = delta(&commits[0]);
    assert!(change.cleared && change.deletes.is_empty());
    assert_eq!(texts(&change.upserts), expect([(1, "new")]));

    // Only a commit that failed comes again, with what is new; what was saved does not.
    faults.forget_calls();
    faults.inject(Fault::fail(transient()).on(Operation::Commit).times(1));
    insert(&bucket, 3, "twice").await.unwrap();
    assert!(store.flush().await.is_err());
    insert(&bucket, 4, "once").await.unwrap();
    store.flush().await.unwrap();
    insert(&bucket, 5, "alone").await.unwrap();
    store.flush().await.unwrap();
    let commits = faults.commits();
    let handed: Vec<_> = commits.iter().map(|commit| texts(&delta(commit).upserts)).collect();
    assert_eq!(handed, [expect([(3, "twice")]), expect([(3, "twice"), (4, "once")]), expect([(5, "alone")])]);
    store.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_written_to_a_disk_does_not_grow_with_the_bucket() {
    for disk in disks() {
        let adapter = FaultAdapter::over(disk.open().await);
        let faults = adapter.faults();
        let store = Store::builder("shop").adapter(adapter).persistence(options()).start().await.unwrap();
        let bucket = store.define_bucket(items("items")).await.unwrap();
        let mut inserts = Vec::new();
        for id in 0..2_000 {
            inserts.push(insert(&bucket, id, "a"));
            if inserts.len() == 500 {
                for insert in inserts.drain(..) {
                    insert.await.unwrap();
                }
            }
        }
        store.flush().await.unwrap();
        faults.forget_calls();
        for id in 0..5 {
            update(&bucket.with_durability(Durability::Fsync), id, "b").await.unwrap();
        }
        let commits = faults.commits();
        let sizes: Vec<usize> = commits.iter().flat_map(changes).map(|(_, change)| change.len()).collect();
        assert_eq!(sizes, [1; 5]);
        store.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_adapter_that_is_not_incremental_is_only_ever_given_whole_buckets() {
    let adapter = FaultAdapter::new(WholeBuckets(MemoryAdapter::default()));
    let faults = adapter.faults();
    let store = start(adapter.clone()).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    let quiet = store.define_bucket(items("quiet")).await.unwrap();
    insert(&quiet, 1, "once").await.unwrap();
    for id in 0..10 {
        insert(&bucket, id, "first").await.unwrap();
    }
    store.flush().await.unwrap();
    faults.inject(Fault::fail(transient()).on(Operation::Commit).times(1));
    update(&bucket, 1, "second").await.unwrap();
    assert!(store.flush().await.is_err());
    bucket.delete(2).await.unwrap();
    store.flush().await.unwrap();
    bucket.clear().await.unwrap();
    insert(&bucket, 3, "third").await.unwrap();
    store.flush().await.unwrap();
    let commits = faults.commits();
    let whole: Vec<usize> = commits
        .iter()
        .flat_map(changes)
        .filter(|(name, _)| *name == "items")
        .map(|(_, change)| match change {
            BucketChange::Full(snapshot) => snapshot.records.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(whole, [10, 10, 9, 1]);
    let others = commits.iter().flat_map(changes).filter(|(name, _)| *name == "quiet").count();
    assert_eq!(others, 1, "a bucket that did not change is not handed over");
    store.stop().await.unwrap();

    // After a restart it knows what there was without being told.
    let store = start(adapter.clone()).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    insert(&bucket, 4, "fourth").await.unwrap();
    store.stop().await.unwrap();
    assert_eq!(stored(&adapter, "items").await, Some(expect([(3, "third"), (4, "fourth")])));
}

#[tokio::test(start_paused = true)]
async fn an_awaited_commit_uses_the_highest_level_among_its_waiters() {
    let (adapter, faults) = faulty();
    let store = start(adapter).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    insert(&bucket.with_durability(Durability::Wal), 1, "a").await.unwrap();
    assert_eq!(faults.commits()[0].durability, Durability::Wal);
    let (wal, fsync) = (bucket.with_durability(Durability::Wal), bucket.with_durability(Durability::Fsync));
    // Both wait for the commit in flight.
    faults.forget_calls();
    faults.inject(Fault::delay(WINDOW).on(Operation::Commit).times(1));
    let (first, second, third) = tokio::join!(
        insert(&fsync, 2, "a"),
        async {
            sleep(WINDOW / 4).await;
            insert(&wal, 3, "a").await
        },
        async {
            sleep(WINDOW / 2).await;
            insert(&fsync, 4, "a").await
        }
    );
    assert!(first.is_ok() && second.is_ok() && third.is_ok());
    let commits = faults.commits();
    assert_eq!(commits.len(), 2);
    assert!(commits.iter().all(|commit| commit.durability == Durability::Fsync));
    store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn two_stores_of_one_adapter_share_nothing_but_the_adapter() {
    let shared: Arc<dyn StorageAdapter> = Arc::new(MemoryAdapter::default());
    let start = |name: &str| Store::builder(name).shared_adapter(Arc::clone(&shared)).persistence(options()).start();
    let (shop, depot) = (start("shop").await.unwrap(), start("depot").await.unwrap());
    let in_shop = shop.define_bucket(items("items")).await.unwrap();
    let in_depot = depot.define_bucket(items("items")).await.unwrap();
    insert(&in_shop, 1, "shop").await.unwrap();
    insert(&in_depot, 1, "depot").await.unwrap();
    depot.drop_bucket("items").await.unwrap();
    depot.stop().await.unwrap();
    update(&in_shop, 1, "still").await.unwrap();
    assert!(shop.stop().await.unwrap().unsaved.is_empty());
    assert_eq!(stored(&*shared, "items").await, Some(expect([(1, "still")])));
}
