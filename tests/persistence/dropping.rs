//! What is left of a bucket that is dropped or detached, and of one that could not be?

use std::time::Duration;

use ractor_persistence::base::durability::Durability;
use ractor_persistence::base::error::Error;
use ractor_persistence::persistence::StorageAdapter;
use ractor_persistence::records::BucketChange;
use ractor_persistence::testkit::{Fault, Operation};
use tokio::time::advance;

use crate::world::*;

#[tokio::test(start_paused = true)]
async fn ps_15_a_failed_drop_returns_the_error_and_bucket_and_data_are_still_there() {
    for adapter in both_granularities() {
        for error in [transient(), permanent(), unknown()] {
            let faults = adapter.faults();
            let store = start(adapter.clone()).await;
            let bucket = store.define_bucket(items("items")).await.unwrap();
            insert(&bucket, 1, "saved").await.unwrap();
            store.flush().await.unwrap();
            insert(&bucket, 2, "unsaved").await.unwrap();
            faults.fail_drops(error.clone());
            let outcome = store.drop_bucket("items").await;
            assert_eq!(outcome.unwrap_err().to_string(), error.to_string());
            assert_eq!(held(&bucket).await, expect([(1, "saved"), (2, "unsaved")]));
            assert!(stored(&adapter, "items").await.unwrap().contains_key(&1));
            assert!(store.bucket("items").is_ok());
            assert!(matches!(
                store.define_bucket(items("items")).await,
                Err(Error::BucketAlreadyExists { bucket }) if bucket.as_str() == "items"
            ));
            // It serves on, and is saved as ever.
            update(&bucket, 1, "later").await.unwrap();
            insert(&bucket.with_durability(Durability::Fsync), 3, "later").await.unwrap();
            let all = expect([(1, "later"), (2, "unsaved"), (3, "later")]);
            assert_eq!(stored(&adapter, "items").await, Some(all.clone()));
            kill(&bucket).await;
            assert_eq!(held(&bucket).await, all);
            faults.heal();
            store.drop_bucket("items").await.unwrap();
            assert_eq!(stored(&adapter, "items").await, None);
            assert!(matches!(bucket.get(1).await, Err(Error::BucketNotDefined { .. })));
            store.stop().await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_drop_of_which_nobody_knows_the_outcome_is_undone_by_writing_everything_again() {
    for adapter in both_granularities() {
        let faults = adapter.faults();
        let store = start(adapter.clone()).await;
        let bucket = store.define_bucket(items("items")).await.unwrap();
        for id in 0..10 {
            insert(&bucket, id, "saved").await.unwrap();
        }
        store.flush().await.unwrap();
        bucket.delete(0).await.unwrap();
        insert(&bucket, 10, "unsaved").await.unwrap();
        faults.inject(Fault::apply_then_fail(unknown()).on(Operation::Drop));
        assert!(matches!(store.drop_bucket("items").await, Err(Error::Unknown { .. })));
        assert_eq!(stored(&adapter, "items").await, None, "it was carried out");
        let all = held(&bucket).await;
        assert_eq!(all.len(), 10);
        faults.forget_calls();
        tokio::time::sleep(WINDOW * 2).await;
        assert_eq!(stored(&adapter, "items").await, Some(all.clone()), "without any call");
        let commits = faults.commits();
        let change = commits.iter().flat_map(changes).map(|(_, change)| change).next();
        assert!(matches!(change, Some(BucketChange::Full(_))), "{change:?}");
        kill(&bucket).await;
        assert_eq!(held(&bucket).await, all);
        insert(&bucket, 11, "later").await.unwrap();
        store.stop().await.unwrap();
        assert_eq!(stored(&adapter, "items").await.unwrap().len(), 11);
    }
}

#[tokio::test(start_paused = true)]
async fn a_drop_of_which_nobody_knows_the_outcome_is_undone_even_if_everything_was_saved() {
    for adapter in both_granularities() {
        let store = start(adapter.clone()).await;
        let bucket = store.define_bucket(items("items")).await.unwrap();
        insert(&bucket, 1, "saved").await.unwrap();
        store.flush().await.unwrap();
        adapter.faults().inject(Fault::apply_then_fail(unknown()).on(Operation::Drop).times(1));
        assert!(store.drop_bucket("items").await.is_err());
        assert_eq!(store.stats().await.persistence.unsaved, [subject("items")]);
        tokio::time::sleep(WINDOW * 2).await;
        assert_eq!(stored(&adapter, "items").await, Some(expect([(1, "saved")])));
        assert_eq!(bucket.stats().await.unwrap().revision, 1);
        store.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_drop_waits_for_the_commit_that_contains_the_bucket_and_nothing_of_it_comes_back() {
    let (adapter, faults) = faulty();
    let store = start(adapter.clone()).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    let other = store.define_bucket(items("other")).await.unwrap();
    faults.inject(Fault::delay(Duration::from_secs(1)).on(Operation::Commit).times(1));
    insert(&bucket, 1, "in flight").await.unwrap();
    insert(&other, 1, "kept").await.unwrap();
    advance(WINDOW).await;
    faults.until(|log| log.last().is_some_and(|last| last.result.is_none())).await;
    insert(&bucket, 2, "waiting").await.unwrap();
    let durable = bucket.with_durability(Durability::Fsync);
    let writing = tokio::spawn(async move { insert(&durable, 3, "waiting").await });
    advance(Duration::from_millis(1)).await;
    store.drop_bucket("items").await.unwrap();
    let written = soon(writing).await.unwrap();
    assert!(matches!(written, Err(Error::NotSaved { .. })), "{written:?}");
    tokio::time::sleep(WINDOW * 10).await;
    assert_eq!(stored(&adapter, "items").await, None);
    assert_eq!(stored(&adapter, "other").await, Some(expect([(1, "kept")])));
    assert_eq!(faults.most_commits_at_once(), 1);
    assert!(store.health().is_healthy());
    store.stop().await.unwrap();
    assert_eq!(stored(&adapter, "items").await, None);
}

#[tokio::test(start_paused = true)]
async fn a_drop_that_hangs_is_reported_and_the_bucket_lives_or_dies_with_its_outcome() {
    let (adapter, faults) = faulty();
    let failures = Failures::default();
    let options = options().with_commit_timeout(Duration::from_secs(2));
    let store = builder(adapter.clone()).persistence(options).on_error(failures.note()).start().await.unwrap();
    let bucket = store.define_bucket(items("items")).await.unwrap();
    insert(&bucket, 1, "saved").await.unwrap();
    store.flush().await.unwrap();
    faults.inject(Fault::hang().on(Operation::Drop));
    let dropping = tokio::spawn({
        let store = store.clone();
        async move { store.drop_bucket("items").await }
    });
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!store.health().is_healthy());
    let failure = failures.all().pop().unwrap();
    assert_eq!((failure.subject, failure.operation), (Some(subject("items")), "drop"));
    assert!(matches!(failure.error, Error::Unknown { .. }));
    faults.heal();
    soon(dropping).await.unwrap().unwrap();
    assert!(store.health().is_healthy());
    assert_eq!(stored(&adapter, "items").await, None);
    store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_is_defined_again_begins_anew_each_of_a_hundred_times() {
    let (adapter, _) = faulty();
    let store = start(adapter.clone()).await;
    let other = store.define_bucket(items("other")).await.unwrap();
    let (mut before, mut subscribers) = (None, None);
    for round in 0..100_i64 {
        let bucket = store.define_bucket(items("items").index(["text"])).await.unwrap();
        assert_eq!(bucket.stats().await.unwrap().revision, 0);
        assert_eq!(held(&bucket).await, Texts::new());
        insert(&bucket, round, "gone").await.unwrap();
        insert(&other, round, "kept").await.unwrap();
        if round % 3 == 0 {
            store.flush().await.unwrap();
        }
        if round % 5 == 0 {
            kill(&bucket).await;
            assert_eq!(held(&bucket).await.len(), 1);
        }
        store.drop_bucket("items").await.unwrap();
        assert!(matches!(bucket.get(round).await, Err(Error::BucketNotDefined { .. })));
        assert_eq!(stored(&adapter, "items").await, None);
        store.flush().await.unwrap();
        let (tasks, now) = (tasks_ended(before.unwrap_or(0)).await, store.bus().subscriber_count());
        assert_eq!(*before.get_or_insert(tasks), tasks, "round {round}");
        assert_eq!(*subscribers.get_or_insert(now), now, "round {round}");
    }
    let stats = store.stats().await;
    assert_eq!((stats.buckets, stats.records), (1, 100));
    assert_eq!(stats.persistence.saved_revisions, [(subject("other"), 100)]);
    assert!(stats.persistence.unsaved.is_empty());
    store.stop().await.unwrap();
    assert_eq!(stored(&adapter, "other").await.unwrap().len(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_detached_bucket_is_back_when_it_is_defined_again() {
    for adapter in both_granularities() {
        let faults = adapter.faults();
        let store = start(adapter.clone()).await;
        let bucket = store.define_bucket(items("items")).await.unwrap();
        insert(&bucket, 1, "unsaved").await.unwrap();
        let before = bucket.stats().await.unwrap();
        faults.fail_commits(permanent());
        assert!(matches!(store.detach_bucket("items").await, Err(Error::Permanent { .. })));
        insert(&bucket, 2, "serves on").await.unwrap();
        bucket.delete(2).await.unwrap();
        faults.heal();
        store.detach_bucket("items").await.unwrap();
        assert!(matches!(bucket.get(1).await, Err(Error::BucketNotDefined { .. })));
        assert!(matches!(store.bucket("items"), Err(Error::BucketNotDefined { .. })));
        assert!(matches!(store.detach_bucket("items").await, Err(Error::BucketNotDefined { .. })));
        let bucket = store.define_bucket(items("items")).await.unwrap();
        assert_eq!(held(&bucket).await, expect([(1, "unsaved")]));
        assert_eq!(bucket.stats().await.unwrap().revision, before.revision + 2);
        store.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn two_drops_at_once_are_one_drop() {
    let (adapter, faults) = faulty();
    let store = start(adapter).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    insert(&bucket, 1, "gone").await.unwrap();
    faults.inject(Fault::delay(Duration::from_secs(1)).on(Operation::Drop));
    let (one, two) = tokio::join!(store.drop_bucket("items"), store.drop_bucket("items"));
    let outcomes = [one, two];
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|o| matches!(o, Err(Error::BucketNotDefined { .. }))).count(), 1, "{outcomes:?}");
    store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn dropping_an_opted_out_bucket_leaves_what_is_stored_under_its_name() {
    let (adapter, _) = faulty();
    let store = start(adapter.clone()).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    insert(&bucket, 1, "kept").await.unwrap();
    store.detach_bucket("items").await.unwrap();
    let shadow = store.define_bucket(items("items").persistent(false)).await.unwrap();
    insert(&shadow, 2, "never saved").await.unwrap();
    store.drop_bucket("items").await.unwrap();
    store.stop().await.unwrap();
    assert_eq!(stored(&adapter, "items").await, Some(expect([(1, "kept")])));
    assert!(adapter.capabilities().incremental);
}
