//! What do callers notice of an adapter that fails, hangs or panics, and what is lost by it?

use std::time::Duration;

use async_trait::async_trait;
use ractor_persistence::adapters::memory::MemoryAdapter;
use ractor_persistence::base::durability::Durability;
use ractor_persistence::base::error::{Error, Place, Result};
use ractor_persistence::base::name::{BucketKey, StoreName};
use ractor_persistence::persistence::{
    Capabilities, Commit, Epoch, Health, PersistenceOutcome, Reason, StorageAdapter,
};
use ractor_persistence::records::{BucketChange, BucketSnapshot};
use ractor_persistence::testkit::{Fault, FaultAdapter, Operation};
use tokio::time::{Instant, sleep};

use crate::world::*;

/// Changes while a failing commit holds older ones of the same keys, and then none until it has succeeded.
async fn failed_and_retried(adapter: FaultAdapter<dyn StorageAdapter>, error: Error, times: u64, applied: bool) {
    let faults = adapter.faults();
    let store = start(adapter.clone()).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    for id in 0..5 {
        insert(&bucket, id, "saved").await.unwrap();
    }
    store.flush().await.unwrap();
    let fault = if applied { Fault::apply_then_fail(error) } else { Fault::fail(error) };
    faults.inject(Fault::hang().on(Operation::Commit).times(1));
    faults.inject(fault.on(Operation::Commit).times(times));

    insert(&bucket, 10, "inserted, then deleted").await.unwrap();
    insert(&bucket, 11, "inserted, then updated").await.unwrap();
    insert(&bucket, 12, "inserted").await.unwrap();
    update(&bucket, 0, "updated, then updated").await.unwrap();
    update(&bucket, 1, "updated, then deleted").await.unwrap();
    bucket.delete(2).await.unwrap();
    bucket.delete(3).await.unwrap();
    let ended = faults.commits().len();
    faults.until(|log| log.last().is_some_and(|last| last.result.is_none())).await;
    // What is captured is changed again.
    bucket.delete(10).await.unwrap();
    update(&bucket, 11, "at last").await.unwrap();
    update(&bucket, 0, "at last").await.unwrap();
    bucket.delete(1).await.unwrap();
    insert(&bucket, 2, "deleted, then inserted").await.unwrap();
    let all = held(&bucket).await;
    let revision = bucket.stats().await.unwrap().revision;
    faults.release();

    // No further changes, and nobody asks.
    faults.until_commits_ended(ended + usize::try_from(times).unwrap() + 1).await;
    sleep(WINDOW * 3).await;
    assert_eq!(stored(&adapter, "items").await, Some(all.clone()));
    let snapshot = adapter.load_bucket(&key("items")).await.unwrap().unwrap();
    assert_eq!(snapshot.revision, revision);
    assert!(store.health().is_healthy());
    assert!(store.stats().await.persistence.unsaved.is_empty());
    store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn ps_07_a_failed_save_is_retried_without_further_changes_until_it_succeeds_and_nothing_is_lost() {
    for (error, applied) in [(transient(), false), (permanent(), false), (unknown(), false), (unknown(), true)] {
        for times in [1, 7] {
            for adapter in both_granularities() {
                failed_and_retried(adapter, error.clone(), times, applied).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_clear_that_failed_to_be_saved_is_saved_later() {
    for adapter in both_granularities() {
        let faults = adapter.faults();
        let store = start(adapter.clone()).await;
        let bucket = store.define_bucket(items("items")).await.unwrap();
        for id in 0..5 {
            insert(&bucket, id, "saved").await.unwrap();
        }
        store.flush().await.unwrap();
        faults.inject(Fault::fail(transient()).on(Operation::Commit).times(3));
        insert(&bucket, 9, "gone").await.unwrap();
        bucket.clear().await.unwrap();
        insert(&bucket, 1, "after the clear").await.unwrap();
        assert!(store.flush().await.is_err());
        insert(&bucket, 2, "after the failure").await.unwrap();
        bucket.delete(1).await.unwrap();
        sleep(Duration::from_secs(10)).await;
        assert_eq!(stored(&adapter, "items").await, Some(expect([(2, "after the failure")])));
        store.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn ps_08_a_failed_save_never_fails_or_delays_an_insert_at_ram() {
    for fault in [Fault::hang(), Fault::fail(transient()), Fault::fail(permanent()), Fault::fail(unknown())] {
        for adapter in both_granularities() {
            let faults = adapter.faults();
            // Far more is unsaved than should be, too.
            let store = builder(adapter).persistence(options().with_max_unsaved(1)).start().await.unwrap();
            let bucket = store.define_bucket(items("items")).await.unwrap();
            faults.inject(fault.clone().on(Operation::Commit));
            for id in 0..500 {
                let begun = Instant::now();
                insert(&bucket, id, "accepted").await.unwrap();
                update(&bucket, id, "accepted again").await.unwrap();
                assert_eq!(begun.elapsed(), Duration::ZERO);
                if id % 50 == 0 {
                    sleep(Duration::from_secs(1)).await;
                }
            }
            assert_eq!(held(&bucket).await.len(), 500);
            faults.heal();
            assert!(store.stop().await.unwrap().unsaved.is_empty());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn ps_09_fsync_answers_only_after_the_commit_and_with_the_adapters_error_if_it_failed() {
    let (adapter, faults) = faulty();
    let store = start(adapter.clone()).await;
    let bucket = store.define_bucket(items("items")).await.unwrap().with_durability(Durability::Fsync);
    faults.inject(Fault::hang().on(Operation::Commit));
    let writing = tokio::spawn({
        let bucket = bucket.clone();
        async move { insert(&bucket, 1, "awaited").await }
    });
    faults.until(|log| log.last().is_some_and(|last| last.result.is_none())).await;
    sleep(Duration::from_secs(10)).await;
    assert!(!writing.is_finished());
    assert_eq!(held(&bucket).await.len(), 1, "it is in memory meanwhile");
    faults.heal();
    writing.await.unwrap().unwrap();
    assert_eq!(stored(&adapter, "items").await, Some(expect([(1, "awaited")])));

    for (id, error) in (2..).zip([transient(), permanent(), unknown(), Error::corrupt(Place::new("page"), "torn")]) {
        faults.inject(Fault::fail(error.clone()).on(Operation::Commit).times(1));
        let outcome = insert(&bucket, id, "kept").await;
        let Err(Error::NotSaved { revision, source }) = outcome else { panic!("{outcome:?}") };
        assert_eq!(source.to_string(), error.to_string());
        assert_eq!(revision, bucket.stats().await.unwrap().revision);
        assert!(held(&bucket).await.contains_key(&id), "it is in memory all the same");
        sleep(Duration::from_secs(2)).await;
        assert!(stored(&adapter, "items").await.unwrap().contains_key(&id), "and is saved later");
    }
    // Every kind of write waits.
    for commits in 1..=3 {
        faults.forget_calls();
        match commits {
            1 => update(&bucket, 1, "awaited").await.unwrap(),
            2 => assert!(bucket.delete(1).await.unwrap()),
            _ => assert_eq!(bucket.clear().await.unwrap(), 4),
        }
        assert_eq!(faults.commits().len(), 1);
        assert_eq!(stored(&adapter, "items").await.unwrap(), held(&bucket).await);
    }
    // One that changes nothing has nothing to wait for.
    faults.inject(Fault::hang().on(Operation::Commit));
    assert!(!soon(bucket.delete(1)).await.unwrap());
    assert_eq!(soon(bucket.clear()).await.unwrap(), 0);
    faults.heal();
    store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn ps_12_a_bucket_whose_values_the_adapter_refuses_does_not_stop_the_saves_of_another() {
    for error in [permanent(), Error::corrupt(Place::new("rows").at("key 1"), "no page")] {
        let (adapter, faults) = faulty();
        let failures = Failures::default();
        let store = builder(adapter.clone()).on_error(failures.note()).start().await.unwrap();
        let mut buckets = Vec::new();
        for name in ["a", "b", "poisoned", "z"] {
            buckets.push(store.define_bucket(items(name)).await.unwrap());
        }
        let [a, b, poisoned, z] = buckets.try_into().unwrap();
        faults.fail_subject(subject("poisoned"), error.clone());
        for round in 0..20_i64 {
            for bucket in [&a, &b, &poisoned, &z] {
                insert(bucket, round, "a").await.unwrap();
            }
            let durable = [&a, &poisoned, &z].map(|bucket| bucket.with_durability(Durability::Fsync));
            let [one, two, three] = &durable;
            let (one, two, three, all) = tokio::join!(
                insert(one, 1_000 + round, "a"),
                insert(two, 1_000 + round, "a"),
                insert(three, 1_000 + round, "a"),
                store.flush()
            );
            // Each is told its own outcome.
            one.unwrap();
            three.unwrap();
            let Err(Error::NotSaved { source, .. }) = two else { panic!("{two:?}") };
            assert_eq!(source.to_string(), error.to_string());
            assert!(all.is_err());
            a.flush().await.unwrap();
            sleep(WINDOW * 2).await;
            for name in ["a", "b", "z"] {
                assert!(stored(&adapter, name).await.unwrap().contains_key(&round), "{name}, round {round}");
            }
        }
        assert_eq!(stored(&adapter, "poisoned").await, None);
        let Health::Degraded(degraded) = store.health() else { panic!("{:?}", store.health()) };
        assert_eq!((degraded.unsaved_subjects, degraded.reason), (vec![subject("poisoned")], Reason::SaveFailing));
        assert!(failures.all().iter().all(|failure| failure.subject == Some(subject("poisoned"))));
        // Healed, it is saved without a call.
        faults.heal();
        sleep(Duration::from_secs(5)).await;
        assert_eq!(stored(&adapter, "poisoned").await, Some(held(&poisoned).await));
        assert!(store.health().is_healthy());
        store.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_saves_the_healthy_ones_and_names_the_poisoned_one() {
    let (adapter, faults) = faulty();
    let store = start(adapter.clone()).await;
    let healthy = store.define_bucket(items("healthy")).await.unwrap();
    let poisoned = store.define_bucket(items("poisoned")).await.unwrap();
    faults.fail_subject(subject("poisoned"), permanent());
    insert(&healthy, 1, "a").await.unwrap();
    insert(&poisoned, 1, "a").await.unwrap();
    let report = store.stop().await.unwrap();
    assert_eq!(report.unsaved, [subject("poisoned")]);
    assert!(matches!(report.error, Some(Error::Permanent { .. })));
    assert_eq!(stored(&adapter, "healthy").await, Some(expect([(1, "a")])));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_poisoned_bucket_makes_the_store_healthy() {
    let (adapter, faults) = faulty();
    let store = start(adapter).await;
    let poisoned = store.define_bucket(items("poisoned")).await.unwrap();
    faults.inject(Fault::fail(permanent()).on(Operation::Commit).times(3));
    insert(&poisoned, 1, "a").await.unwrap();
    assert!(store.flush().await.is_err());
    assert!(!store.health().is_healthy());
    faults.heal();
    store.drop_bucket("poisoned").await.unwrap();
    assert!(store.health().is_healthy(), "{:?}", store.health());
    store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_flush_tells_what_the_commit_said_and_everything_is_kept() {
    let (adapter, faults) = faulty();
    let store = start(adapter.clone()).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    insert(&bucket, 1, "kept").await.unwrap();
    for error in [transient(), permanent(), unknown()] {
        faults.inject(Fault::fail(error.clone()).on(Operation::Commit).times(2));
        assert_eq!(store.flush().await.unwrap_err().to_string(), error.to_string());
        assert_eq!(bucket.flush().await.unwrap_err().to_string(), error.to_string());
    }
    store.flush().await.unwrap();
    assert_eq!(stored(&adapter, "items").await, Some(expect([(1, "kept")])));
    let commits = faults.commits().len();
    store.flush().await.unwrap();
    bucket.flush().await.unwrap();
    assert_eq!(faults.commits().len(), commits, "with nothing unsaved there is nothing to do");
    store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_takes_too_long_is_told_as_unknown_and_the_next_one_waits_for_its_end() {
    let (adapter, faults) = faulty();
    let failures = Failures::default();
    let options = options().with_commit_timeout(Duration::from_secs(3));
    let store = builder(adapter.clone()).persistence(options).on_error(failures.note()).start().await.unwrap();
    let bucket = store.define_bucket(items("items")).await.unwrap();
    let durable = bucket.with_durability(Durability::Fsync);
    let mut events = store.subscribe("persistence.items.*").unwrap();
    faults.inject(Fault::hang().on(Operation::Commit).times(1));
    let begun = Instant::now();
    let outcome = insert(&durable, 1, "slow").await;
    let Err(Error::NotSaved { source, .. }) = &outcome else { panic!("{outcome:?}") };
    assert!(matches!(**source, Error::Unknown { .. }), "{source:?}");
    assert_eq!(begun.elapsed(), Duration::from_secs(3));
    let Health::Degraded(degraded) = store.health() else { panic!("{:?}", store.health()) };
    assert_eq!(degraded.unsaved_subjects, [subject("items")]);
    assert!(degraded.next_retry.is_none(), "the attempt still runs");
    assert!(
        matches!(outcomes(&mut events)[..], [ref event] if matches!(event.outcome, PersistenceOutcome::Failed { .. }))
    );
    assert_eq!(failures.all().len(), 1);

    // Whoever comes now waits for a commit that cannot begin, and is told in time, too.
    let begun = Instant::now();
    let late = soon(insert(&durable, 2, "late")).await;
    assert!(matches!(late, Err(Error::NotSaved { .. })), "{late:?}");
    assert!(begun.elapsed() <= Duration::from_secs(6));
    assert!(soon(store.flush()).await.is_err());
    let drop = soon(store.drop_bucket("items")).await;
    assert!(matches!(drop, Err(Error::Transient { .. })), "{drop:?}");
    insert(&bucket, 3, "in memory").await.unwrap();
    assert_eq!(failures.all().len(), 1, "it is reported once");
    assert_eq!((faults.commits().len(), faults.most_commits_at_once()), (1, 1));
    faults.release();
    sleep(WINDOW * 2).await;
    assert_eq!(stored(&adapter, "items").await, Some(held(&bucket).await));
    assert!(store.health().is_healthy());
    assert_eq!(faults.most_commits_at_once(), 1);
    store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_awaited_write_tries_at_once_however_long_the_adapter_has_been_failing() {
    let (adapter, faults) = faulty();
    let store = start(adapter.clone()).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    for error in [transient(), permanent()] {
        faults.fail_commits(error);
        insert(&bucket, 1, "kept").await.unwrap();
        sleep(Duration::from_secs(600)).await;
        faults.heal();
        let begun = Instant::now();
        insert(&bucket.with_durability(Durability::Fsync), 2, "awaited").await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert_eq!(stored(&adapter, "items").await, Some(expect([(1, "kept"), (2, "awaited")])));
        bucket.clear().await.unwrap();
    }
    store.stop().await.unwrap();
}

/// Panics in every n-th commit.
struct Panicking {
    memory: MemoryAdapter,
    commits: std::sync::atomic::AtomicU64,
}

#[async_trait]
impl StorageAdapter for Panicking {
    fn capabilities(&self) -> Capabilities {
        self.memory.capabilities()
    }

    async fn save_bucket(&self, bucket: &BucketKey, change: &BucketChange) -> Result<()> {
        self.memory.save_bucket(bucket, change).await
    }

    async fn load_bucket(&self, bucket: &BucketKey) -> Result<Option<BucketSnapshot>> {
        if bucket.bucket.as_str() == "panics" {
            panic!("on purpose");
        }
        self.memory.load_bucket(bucket).await
    }

    async fn drop_bucket(&self, bucket: &BucketKey) -> Result<()> {
        self.memory.drop_bucket(bucket).await
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        if self.commits.fetch_add(1, std::sync::atomic::Ordering::SeqCst).is_multiple_of(2) {
            panic!("on purpose");
        }
        self.memory.commit(commit).await
    }

    async fn claim(&self, store: &StoreName) -> Result<Epoch> {
        self.memory.claim(store).await
    }
}

#[tokio::test(start_paused = true)]
async fn an_adapter_that_panics_is_one_of_which_nobody_knows_what_it_did() {
    let memory = MemoryAdapter::default();
    let failures = Failures::default();
    let adapter = Panicking { memory: memory.clone(), commits: Default::default() };
    let store = builder(adapter).on_error(failures.note()).start().await.unwrap();
    let loaded = store.define_bucket(items("panics")).await;
    assert!(matches!(loaded, Err(Error::Unknown { .. })), "{loaded:?}");
    let bucket = store.define_bucket(items("items")).await.unwrap();
    let durable = bucket.with_durability(Durability::Fsync);
    let outcome = insert(&durable, 1, "kept").await;
    let Err(Error::NotSaved { source, .. }) = &outcome else { panic!("{outcome:?}") };
    assert!(matches!(**source, Error::Unknown { .. }), "{source:?}");
    insert(&bucket, 2, "kept").await.unwrap();
    sleep(Duration::from_secs(2)).await;
    assert_eq!(stored(&memory, "items").await, Some(expect([(1, "kept"), (2, "kept")])));
    assert!(store.health().is_healthy());
    assert_eq!(failures.all().len(), 1);
    store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_callback_is_told_subject_operation_and_attempt_and_its_panic_stays_with_it() {
    let (adapter, faults) = faulty();
    let failures = Failures::default();
    let note = failures.note();
    let store = builder(adapter.clone())
        .on_error(move |failure| {
            note(failure);
            panic!("on purpose");
        })
        .start()
        .await
        .unwrap();
    let bucket = store.define_bucket(items("items")).await.unwrap();
    faults.inject(Fault::fail(transient()).on(Operation::Commit).times(3));
    insert(&bucket, 1, "kept").await.unwrap();
    sleep(Duration::from_secs(5)).await;
    let told: Vec<_> =
        failures.all().into_iter().map(|failure| (failure.subject, failure.operation, failure.attempt)).collect();
    assert_eq!(told, [1, 2, 3].map(|attempt| (Some(subject("items")), "save", attempt)));
    assert_eq!(stored(&adapter, "items").await, Some(expect([(1, "kept")])));
    faults.fail_drops(permanent());
    assert!(store.drop_bucket("items").await.is_err());
    let last = failures.all().pop().unwrap();
    assert_eq!((last.subject, last.operation), (Some(subject("items")), "drop"));
    insert(&bucket, 2, "serves on").await.unwrap();
    faults.heal();
    store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_fails_is_a_start_that_fails() {
    let (adapter, faults) = faulty();
    let before = tasks();
    let locked = Error::Locked { path: "shop.redb".into(), holder: Some("pid 1".into()) };
    faults.inject(Fault::fail(locked).on(Operation::Claim).times(1));
    assert!(matches!(builder(adapter.clone()).start().await, Err(Error::Locked { .. })));
    assert_eq!(tasks_ended(before).await, before);
    let store = start(adapter).await;
    store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_hangs_is_a_start_that_fails_in_time_and_can_be_repeated() {
    let (adapter, faults) = faulty();
    let before = tasks();
    faults.inject(Fault::hang().on(Operation::Claim));
    let begun = Instant::now();
    let limited = builder(adapter.clone()).persistence(options().with_load_timeout(Duration::from_secs(7)));
    let started = limited.start().await;
    assert!(matches!(started, Err(Error::Transient { .. })), "{started:?}");
    assert_eq!(begun.elapsed(), Duration::from_secs(7));
    assert_eq!(tasks_ended(before).await, before);
    faults.heal();
    start(adapter).await.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn whoever_stops_waiting_for_a_save_takes_nothing_along() {
    let (adapter, faults) = faulty();
    let store = start(adapter.clone()).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    faults.inject(Fault::delay(Duration::from_secs(1)).on(Operation::Commit));
    for id in 0..20 {
        let durable = bucket.with_durability(Durability::Fsync);
        let impatient = tokio::time::timeout(Duration::from_millis(id * 70), async move {
            insert(&durable, i64::try_from(id).unwrap(), "kept").await
        });
        let _gone = impatient.await;
        let _gone = tokio::time::timeout(Duration::from_millis(5), store.flush()).await;
    }
    sleep(Duration::from_secs(3)).await;
    assert_eq!(stored(&adapter, "items").await, Some(held(&bucket).await));
    assert!(held(&bucket).await.len() >= 19);
    assert_eq!(faults.most_commits_at_once(), 1);
    store.stop().await.unwrap();
}
