//! What do health, stats and events tell of saving?

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ractor_persistence::base::durability::Durability;
use ractor_persistence::base::error::Error;
use ractor_persistence::bus::{Event, Topic};
use ractor_persistence::persistence::{Degraded, Health, PersistenceOutcome, Reason};
use ractor_persistence::store::Store;
use ractor_persistence::testkit::{Fault, FaultAdapter, Operation};
use tokio::time::sleep;

use crate::world::*;

fn degraded(store: &Store) -> Degraded {
    match store.health() {
        Health::Degraded(degraded) => degraded,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn ps_32_health_turns_degraded_on_failure_and_healthy_after_recovery() {
    let (adapter, faults) = faulty();
    let store = start(adapter).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    for error in [transient(), permanent(), unknown()] {
        assert!(store.health().is_healthy());
        faults.fail_commits(error.clone());
        insert(&bucket, 1, "kept").await.unwrap();
        assert!(store.health().is_healthy(), "a change that waits is no trouble");
        let wall = SystemTime::now();
        sleep(WINDOW * 2).await;
        let first = degraded(&store);
        assert_eq!(first.reason, Reason::SaveFailing);
        assert_eq!(first.last_error.to_string(), error.to_string());
        assert_eq!(first.unsaved_subjects, [subject("items")]);
        assert!(first.unsaved_bytes > 0);
        assert!(first.next_retry.is_some_and(|at| at > wall - Duration::from_secs(60)));
        sleep(Duration::from_secs(60)).await;
        let later = degraded(&store);
        let apart = later.since.duration_since(first.since).unwrap_or_else(|error| error.duration());
        // Both are reckoned back from the operating system's clock, which does not stand still.
        assert!(apart > Duration::ZERO && !later.unsaved_subjects.is_empty());
        faults.heal();
        sleep(Duration::from_secs(3)).await;
        assert!(store.health().is_healthy(), "{:?}", store.health());
        bucket.clear().await.unwrap();
        store.flush().await.unwrap();
    }
    store.stop().await.unwrap();
    assert!(matches!(store.health(), Health::Stopped));
}

/// A directory that is not where it was: what a disk does that was unmounted. Only what is open already can be written.
#[cfg(feature = "json-file")]
#[tokio::test]
async fn ps_32_health_follows_a_real_directory_that_is_gone_for_a_while() {
    use ractor_persistence::adapters::json_file::JsonFileAdapter;

    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("place");
    let store = start(JsonFileAdapter::open(&place).await.unwrap()).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    let (there, away) = (place.join("shop"), place.join("elsewhere"));
    std::fs::rename(&there, &away).unwrap();
    insert(&bucket, 1, "kept").await.unwrap();
    let failed = store.flush().await.unwrap_err();
    let told = degraded(&store);
    assert_eq!((told.reason, &told.unsaved_subjects[..]), (Reason::SaveFailing, &[subject("items")][..]));
    assert_eq!(told.last_error.to_string(), failed.to_string());
    assert!(told.unsaved_bytes > 0);
    insert(&bucket, 2, "kept").await.unwrap();
    std::fs::rename(&away, &there).unwrap();
    // Saved without another call, and healthy from then on.
    soon(async {
        while !store.health().is_healthy() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(store.stats().await.persistence.unsaved.is_empty());
    assert!(store.stop().await.unwrap().unsaved.is_empty());
    let adapter = JsonFileAdapter::open(&place).await.unwrap();
    let store = start(adapter).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    assert_eq!(held(&bucket).await, expect([(1, "kept"), (2, "kept")]));
    store.stop().await.unwrap();
}

/// The same over every adapter that keeps things on a disk, which takes no commit for a while.
#[tokio::test]
async fn ps_32_health_follows_every_disk_that_takes_nothing_for_a_while() {
    for disk in disks() {
        let adapter = FaultAdapter::over(disk.open().await);
        let faults = adapter.faults();
        let store = start(adapter).await;
        let bucket = store.define_bucket(items("items")).await.unwrap();
        assert!(store.health().is_healthy());
        faults.fail_commits(transient());
        insert(&bucket, 1, "kept").await.unwrap();
        assert!(store.flush().await.is_err());
        assert_eq!(degraded(&store).unsaved_subjects, [subject("items")]);
        faults.heal();
        soon(async {
            while !store.health().is_healthy() {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        assert!(store.stats().await.persistence.unsaved.is_empty());
        store.stop().await.unwrap();
        assert_eq!(disk.stored("items").await, Some(expect([(1, "kept")])));
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_retry_is_in_the_future_or_under_way() {
    let (adapter, faults) = faulty();
    let store = start(adapter).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    for error in [transient(), permanent()] {
        faults.inject(Fault::fail(error).on(Operation::Commit).times(1));
        insert(&bucket, 1, "kept").await.unwrap();
        assert!(store.flush().await.is_err());
        assert!(degraded(&store).next_retry.is_some());
        faults.inject(Fault::hang().on(Operation::Commit).times(1));
        sleep(Duration::from_secs(2)).await;
        assert!(degraded(&store).next_retry.is_none());
        faults.heal();
        bucket.clear().await.unwrap();
        store.flush().await.unwrap();
    }
    store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_event_that_somebody_made_up_costs_nobody_anything() {
    let (adapter, faults) = faulty();
    let store = start(adapter.clone()).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    insert(&bucket, 1, "a").await.unwrap();
    for (name, revision) in [("items", u64::MAX), ("nobody", 7), ("items", 0)] {
        let topic = Topic::bucket(name, "inserted");
        store.bus().publish(Event::new(topic, Some(subject(name)), revision, 100, true, Arc::new(())));
        soon(store.flush()).await.unwrap();
        soon(bucket.flush()).await.unwrap();
        soon(insert(&bucket.with_durability(Durability::Fsync), i64::from(revision == 7) + 10, "a")).await.ok();
        assert!(store.stats().await.persistence.unsaved.is_empty());
    }
    assert_eq!(stored(&adapter, "items").await, Some(held(&bucket).await));
    update(&bucket, 1, "b").await.unwrap();
    sleep(WINDOW * 2).await;
    assert_eq!(stored(&adapter, "items").await, Some(held(&bucket).await));
    store.define_bucket(items("nobody")).await.unwrap();
    store.stop().await.unwrap();
    assert!(faults.commits().len() < 10);
}

#[tokio::test(start_paused = true)]
async fn too_much_unsaved_while_commits_fail_is_memory_pressure_and_writes_are_still_accepted() {
    let (adapter, faults) = faulty();
    let store = builder(adapter).persistence(options().with_max_unsaved(10_000)).start().await.unwrap();
    let bucket = store.define_bucket(items("items")).await.unwrap();
    faults.fail_commits(transient());
    let text = "x".repeat(1_000);
    for id in 0..30 {
        insert(&bucket, id, &text).await.unwrap();
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(degraded(&store).reason, Reason::SaveFailing);
    for id in 30..60 {
        insert(&bucket, id, &text).await.unwrap();
    }
    let pressed = degraded(&store);
    assert_eq!(pressed.reason, Reason::MemoryPressure);
    assert!(pressed.unsaved_bytes > 40_000);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(degraded(&store).reason, Reason::MemoryPressure, "in flight or not");
    faults.heal();
    sleep(Duration::from_secs(3)).await;
    assert!(store.health().is_healthy());
    assert_eq!(store.stats().await.persistence.unsaved_bytes, 0);
    store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn events_tell_what_was_recovered_saved_and_failed() {
    let (adapter, faults) = faulty();
    let store = start(adapter.clone()).await;
    let mut events = store.subscribe("persistence.*.*").unwrap();
    let bucket = store.define_bucket(items("items")).await.unwrap();
    let told = outcomes(&mut events);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].subject, subject("items"));
    assert!(matches!(told[0].outcome, PersistenceOutcome::Recovered { count: 0, .. }));
    for id in 0..7 {
        insert(&bucket, id, "a").await.unwrap();
    }
    sleep(WINDOW * 2).await;
    let told = outcomes(&mut events);
    assert!(matches!(told[..], [ref event] if matches!(event.outcome, PersistenceOutcome::Saved { revision: 7 })));

    faults.inject(Fault::fail(transient()).on(Operation::Commit).times(2));
    bucket.delete(0).await.unwrap();
    sleep(Duration::from_secs(3)).await;
    let told: Vec<_> = outcomes(&mut events).into_iter().map(|event| event.outcome).collect();
    assert!(
        matches!(
            told[..],
            [
                PersistenceOutcome::Failed { error: Error::Transient { .. }, attempt: 1 },
                PersistenceOutcome::Failed { error: Error::Transient { .. }, attempt: 2 },
                PersistenceOutcome::Saved { revision: 8 }
            ]
        ),
        "{told:?}"
    );
    store.stop().await.unwrap();

    let store = start(adapter).await;
    let mut events = store.subscribe("persistence.items.recovered").unwrap();
    let mut records = store.subscribe("bucket.*.*").unwrap();
    store.define_bucket(items("items")).await.unwrap();
    let told = outcomes(&mut events);
    assert!(matches!(told[..], [ref event] if matches!(event.outcome, PersistenceOutcome::Recovered { count: 6, .. })));
    assert!(records.try_recv().is_none(), "nothing is told of restored records");
    store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_saved_event_comes_only_when_it_is_saved() {
    let (adapter, faults) = faulty();
    let store = start(adapter.clone()).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    let mut events = store.subscribe("persistence.items.saved").unwrap();
    faults.inject(Fault::delay(WINDOW / 3).on(Operation::Commit));
    let mut told = 0;
    for id in 0..200 {
        insert(&bucket, id, "a").await.unwrap();
        if id == 100 {
            bucket.clear().await.unwrap();
        }
        sleep(Duration::from_millis(7)).await;
        for event in outcomes(&mut events) {
            let PersistenceOutcome::Saved { revision } = event.outcome else { panic!("{event:?}") };
            assert!(revision > told);
            told = revision;
            let stored = stored(&adapter, "items").await.unwrap();
            // What was saved then may have been changed since; the newest insert up to it is there, or was cleared.
            let newest = i64::try_from(if revision > 101 { revision - 2 } else { revision - 1 }).unwrap();
            let cleared = newest <= 100 && !stored.contains_key(&0);
            assert!(cleared || stored.contains_key(&newest), "{revision}");
        }
    }
    assert!(told > 100);
    store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn stats_count_commits_bytes_loads_and_what_is_unsaved() {
    let (adapter, faults) = faulty();
    let store = start(adapter).await;
    let one = store.define_bucket(items("one")).await.unwrap();
    let two = store.define_bucket(items("two")).await.unwrap();
    insert(&one, 1, "a").await.unwrap();
    let stats = store.stats().await;
    assert!(stats.persistence.enabled);
    assert_eq!((stats.store.as_str(), stats.buckets, stats.records), ("shop", 2, 1));
    assert_eq!((stats.persistence.commits, stats.persistence.loads, stats.persistence.bytes), (0, 2, 0));
    assert_eq!(stats.persistence.unsaved, [subject("one")]);
    let waiting = stats.persistence.unsaved_bytes;
    assert!(waiting > 0);

    faults.inject(Fault::delay(Duration::from_millis(30)).on(Operation::Commit));
    store.flush().await.unwrap();
    let stats = store.stats().await.persistence;
    assert_eq!((stats.commits, stats.failed_commits, stats.unsaved_bytes), (1, 0, 0));
    assert_eq!(stats.bytes, waiting as u64);
    assert_eq!(stats.last_commit, Duration::from_millis(30));
    assert_eq!(stats.saved_revisions, [(subject("one"), 1), (subject("two"), 0)]);

    faults.inject(Fault::fail(transient()).on(Operation::Commit).times(2));
    let outcome = insert(&two.with_durability(Durability::Fsync), 1, "a").await;
    assert!(outcome.is_err());
    let stats = store.stats().await.persistence;
    assert_eq!((stats.commits, stats.failed_commits), (1, 1));
    assert_eq!(stats.saved_revisions, [(subject("one"), 1), (subject("two"), 0)]);
    sleep(Duration::from_secs(3)).await;
    let stats = store.stats().await.persistence;
    assert_eq!((stats.commits, stats.failed_commits), (2, 2));
    assert_eq!(stats.saved_revisions, [(subject("one"), 1), (subject("two"), 1)]);
    store.stop().await.unwrap();
}
