//! What is left when a bucket's actor is killed, whatever the adapter is doing at that moment?

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ractor_persistence::base::clock::Clock;
use ractor_persistence::base::durability::Durability;
use ractor_persistence::base::error::{Error, Outcome};
use ractor_persistence::bucket::BucketMessage;
use ractor_persistence::persistence::StorageAdapter;
use ractor_persistence::record;
use ractor_persistence::records::Write;
use ractor_persistence::testkit::{Fault, FaultAdapter, Operation};
use tokio::time::{advance, sleep};

use crate::world::*;

/// Kills a bucket whose changes are saved, in flight and waiting; some keys are in all three.
async fn killed_between_everything(adapter: FaultAdapter<dyn StorageAdapter>, cleared: bool) {
    let faults = adapter.faults();
    let store = start(adapter.clone()).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    for id in 0..10 {
        insert(&bucket, id, "saved").await.unwrap();
    }
    store.flush().await.unwrap();

    faults.inject(Fault::hang().on(Operation::Commit));
    for id in 10..20 {
        insert(&bucket, id, "in flight").await.unwrap();
    }
    update(&bucket, 0, "in flight").await.unwrap();
    bucket.delete(1).await.unwrap();
    bucket.delete(2).await.unwrap();
    if cleared {
        bucket.clear().await.unwrap();
        insert(&bucket, 3, "in flight").await.unwrap();
        insert(&bucket, 10, "in flight").await.unwrap();
    }
    faults.until(|log| log.last().is_some_and(|last| last.result.is_none())).await;
    insert(&bucket, 2, "waiting").await.unwrap();
    update(&bucket, 10, "waiting").await.unwrap();
    bucket.delete(3).await.unwrap();
    insert(&bucket, 20, "waiting").await.unwrap();

    let (before, stats) = (held(&bucket).await, bucket.stats().await.unwrap());
    let places: Vec<u64> = bucket.all().await.unwrap().iter().map(|record| record.place()).collect();
    kill(&bucket).await;
    assert_eq!(held(&bucket).await, before);
    assert_eq!(bucket.stats().await.unwrap(), stats, "revision and counter, too");
    let now: Vec<u64> = bucket.all().await.unwrap().iter().map(|record| record.place()).collect();
    assert_eq!(now, places, "and the order");

    // Once more, before anything has been saved, and once more with the commit failing.
    kill(&bucket).await;
    update(&bucket, 20, "later").await.unwrap();
    faults.heal();
    faults.inject(Fault::fail(transient()).on(Operation::Commit).times(3));
    kill(&bucket).await;
    let mut before = before;
    before.insert(20, "later".to_owned());
    assert_eq!(held(&bucket).await, before);
    while store.flush().await.is_err() {}
    assert_eq!(stored(&adapter, "items").await, Some(before));
    assert!(store.health().is_healthy());
    store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn ps_34_a_killed_bucket_is_back_with_every_acknowledged_change_and_its_handles_work() {
    for cleared in [false, true] {
        for adapter in both_granularities() {
            killed_between_everything(adapter, cleared).await;
        }
    }
}

/// A clock that fails when told to, as any code of a user's may.
#[derive(Debug, Default)]
struct Panicking(AtomicBool);

impl Clock for Panicking {
    fn now_ms(&self) -> i64 {
        assert!(!self.0.swap(false, Ordering::SeqCst), "on purpose");
        1
    }
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_panics_is_back_too() {
    for adapter in both_granularities() {
        let clock = Arc::new(Panicking::default());
        let store = builder(adapter.clone()).clock(Arc::clone(&clock) as Arc<dyn Clock>).start().await.unwrap();
        let bucket = store.define_bucket(items("items")).await.unwrap();
        let mut all = Texts::new();
        for id in 0..4 {
            insert(&bucket, id, "kept").await.unwrap();
            all.insert(id, "kept".to_owned());
            if id == 1 {
                store.flush().await.unwrap();
            }
            clock.0.store(true, Ordering::SeqCst);
            let died = insert(&bucket, 100 + id, "never").await;
            assert!(matches!(died, Err(Error::ActorLost { outcome: Outcome::Unknown })), "{died:?}");
            assert_eq!(held(&bucket).await, all);
        }
        assert!(store.stop().await.unwrap().unsaved.is_empty());
        assert_eq!(stored(&adapter, "items").await, Some(all));
    }
}

/// Writers that never stop, an adapter that fails now and then, and a bucket that dies again and again.
async fn killed_under_load(adapter: FaultAdapter<dyn StorageAdapter>, seed: u64) {
    let faults = adapter.faults();
    faults.inject(Fault::fail(transient()).on(Operation::Commit).at_random(seed, 0.2));
    faults.inject(Fault::apply_then_fail(unknown()).on(Operation::Commit).at_random(seed + 1, 0.2));
    faults.inject(Fault::fail(transient()).on(Operation::Load).at_random(seed + 2, 0.3));
    let mut quick = options();
    quick.debounce = Duration::from_millis(1);
    let store = builder(adapter.clone()).persistence(quick).start().await.unwrap();
    let bucket = loop {
        // Loads fail, too.
        if let Ok(bucket) = store.define_bucket(items("items")).await {
            break bucket;
        }
    };

    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..8_i64)
        .map(|writer| {
            let (bucket, stop) = (bucket.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let (mut sure, mut unsure) = (Texts::new(), BTreeSet::new());
                for number in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let id = writer * 1_000_000 + number;
                    let level = if number % 4 == 0 { Durability::Fsync } else { Durability::Ram };
                    match insert(&bucket.with_durability(level), id, "a").await {
                        // In memory it is, and saving goes on.
                        Ok(()) | Err(Error::NotSaved { .. }) => {
                            sure.insert(id, "a".to_owned());
                        }
                        Err(Error::ActorLost { outcome: Outcome::Unknown }) => {
                            unsure.insert(id);
                        }
                        Err(error) => panic!("{error:?}"),
                    }
                    let old = id - 3;
                    if number % 5 == 4 && sure.contains_key(&old) {
                        match bucket.delete(old).await {
                            Ok(there) => {
                                assert!(there, "{old} was acknowledged and is gone");
                                sure.remove(&old);
                            }
                            Err(Error::ActorLost { outcome: Outcome::Unknown }) => {
                                sure.remove(&old);
                                unsure.insert(old);
                            }
                            Err(error) => panic!("{error:?}"),
                        }
                    }
                }
                (sure, unsure)
            })
        })
        .collect();
    for _ in 0..5 {
        sleep(Duration::from_millis(10)).await;
        bucket.actor().await.unwrap().kill();
        // A handle that works again is the sign of the restart.
        bucket.stats().await.unwrap();
    }
    sleep(Duration::from_millis(10)).await;
    stop.store(true, Ordering::SeqCst);
    let (mut sure, mut unsure) = (Texts::new(), BTreeSet::new());
    for writer in writers {
        let (more, perhaps) = writer.await.unwrap();
        sure.extend(more);
        unsure.extend(perhaps);
    }
    assert!(sure.len() > 8, "too little happened: {}", sure.len());
    let held = held(&bucket).await;
    faults.heal();
    let report = store.stop().await.unwrap();
    assert!(report.unsaved.is_empty(), "{report:?}");
    let mut stored = stored(&adapter, "items").await.unwrap();
    assert_eq!(stored, held);
    stored.retain(|id, _| !unsure.contains(id));
    sure.retain(|id, _| !unsure.contains(id));
    assert_eq!(stored, sure, "exactly what was acknowledged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_kills_under_load_lose_nothing_that_was_acknowledged() {
    for seed in 0..3 {
        for adapter in both_granularities() {
            killed_under_load(adapter, seed).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn five_restarts_within_thirty_seconds_are_the_last_ones() {
    let (adapter, faults) = faulty();
    let failures = Failures::default();
    let store = builder(adapter.clone()).on_error(failures.note()).start().await.unwrap();
    let bucket = store.define_bucket(items("items")).await.unwrap();
    for _ in 0..3 {
        // Slowly, it goes on for ever.
        kill(&bucket).await;
        assert_eq!(bucket.stats().await.unwrap().records, 0);
        advance(Duration::from_secs(31)).await;
    }
    faults.fail_commits(transient());
    for id in 0..5 {
        insert(&bucket, id, "unsaved").await.unwrap();
        kill(&bucket).await;
        assert_eq!(held(&bucket).await.len(), usize::try_from(id).unwrap() + 1);
    }
    kill(&bucket).await;
    let given_up = |error: &Error| matches!(error, Error::GivenUp { subject: found, restarts: 5, .. } if *found == subject("items"));
    assert!(given_up(&soon(bucket.get(1)).await.unwrap_err()));
    assert!(given_up(&insert(&bucket, 9, "refused").await.unwrap_err()));
    assert!(given_up(&bucket.actor().await.unwrap_err()));
    assert!(failures.all().iter().any(|failure| failure.operation == "restart" && given_up(&failure.error)));
    // What it had accepted is saved all the same, and the others are as before.
    let other = store.define_bucket(items("other")).await.unwrap();
    insert(&other, 1, "fine").await.unwrap();
    faults.heal();
    let report = store.stop().await.unwrap();
    assert!(report.unsaved.is_empty(), "{report:?}");
    assert_eq!(stored(&adapter, "items").await.unwrap().len(), 5);
    assert_eq!(stored(&adapter, "other").await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_was_given_up_can_be_detached_and_defined_again() {
    let store = start(faulty().0).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    for id in 0..5 {
        insert(&bucket, id, "kept").await.unwrap();
        kill(&bucket).await;
        bucket.stats().await.unwrap();
    }
    kill(&bucket).await;
    assert!(matches!(bucket.stats().await, Err(Error::GivenUp { .. })));
    store.detach_bucket("items").await.unwrap();
    let bucket = store.define_bucket(items("items")).await.unwrap();
    assert_eq!(held(&bucket).await.len(), 5);
    store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_bucket_comes_back_once_its_adapter_does() {
    for adapter in both_granularities() {
        let faults = adapter.faults();
        let store = start(adapter).await;
        let bucket = store.define_bucket(items("items")).await.unwrap();
        insert(&bucket, 1, "saved").await.unwrap();
        store.flush().await.unwrap();
        insert(&bucket, 2, "unsaved").await.unwrap();
        for fault in [Fault::fail(transient()), Fault::hang()] {
            faults.inject(fault);
            kill(&bucket).await;
            let waiting = bucket.get(1).await;
            assert!(matches!(waiting, Err(Error::Timeout { outcome: Outcome::NotApplied })), "{waiting:?}");
            faults.heal();
            let patient = bucket.with_timeout(Duration::from_secs(60));
            assert_eq!(held(&patient).await, expect([(1, "saved"), (2, "unsaved")]));
        }
        store.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_cannot_be_read_any_more_says_so_and_its_unsaved_changes_are_kept() {
    let (adapter, faults) = faulty();
    let store = start(adapter.clone()).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    insert(&bucket, 1, "unsaved").await.unwrap();
    faults.fail_loads(permanent());
    kill(&bucket).await;
    assert!(matches!(soon(bucket.get(1)).await, Err(Error::Permanent { .. })));
    faults.heal();
    store.stop().await.unwrap();
    assert_eq!(stored(&adapter, "items").await, Some(expect([(1, "unsaved")])));
}

#[tokio::test(start_paused = true)]
async fn an_opted_out_bucket_restarts_empty_and_its_revisions_go_on() {
    let store = start(faulty().0).await;
    let bucket = store.define_bucket(items("items").persistent(false)).await.unwrap();
    insert(&bucket, 1, "gone").await.unwrap();
    kill(&bucket).await;
    assert_eq!(bucket.count(record! {}).await.unwrap(), 0);
    insert(&bucket, 1, "new").await.unwrap();
    assert_eq!(bucket.stats().await.unwrap().revision, 2);
    store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_write_that_dies_with_its_actor_says_that_nobody_knows() {
    let store = start(faulty().0).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    let actor = bucket.actor().await.unwrap();
    let writing = tokio::spawn({
        let bucket = bucket.clone();
        async move { insert(&bucket, 1, "perhaps").await }
    });
    // The message is in the mailbox, and the kill overtakes it.
    while !writing.is_finished() && bucket.name().as_str() == "items" {
        actor.kill();
        tokio::task::yield_now().await;
    }
    match writing.await.unwrap() {
        Ok(()) => assert_eq!(held(&bucket).await, expect([(1, "perhaps")])),
        Err(Error::ActorLost { outcome: Outcome::Unknown }) => {}
        Err(error) => panic!("{error:?}"),
    }
    insert(&bucket, 2, "later").await.unwrap();
    store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_drop_while_the_bucket_is_being_restarted_is_final() {
    let (adapter, faults) = faulty();
    let store = start(adapter.clone()).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    insert(&bucket, 1, "saved").await.unwrap();
    store.flush().await.unwrap();
    faults.inject(Fault::hang().on(Operation::Load));
    kill(&bucket).await;
    faults.until(|log| log.last().is_some_and(|last| last.result.is_none())).await;
    soon(store.drop_bucket("items")).await.unwrap();
    assert!(matches!(bucket.get(1).await, Err(Error::BucketNotDefined { .. })));
    assert_eq!(stored(adapter.inner().as_ref(), "items").await, None);
    let defining = tokio::spawn({
        let store = store.clone();
        async move { store.define_bucket(items("items")).await }
    });
    tokio::task::yield_now().await;
    faults.heal();
    let again = soon(defining).await.unwrap().unwrap();
    assert_eq!(held(&again).await, Texts::new());
    insert(&again, 2, "new").await.unwrap();
    // The second life is watched over as the first was.
    kill(&again).await;
    assert_eq!(held(&again).await, expect([(2, "new")]));
    store.stop().await.unwrap();
    assert_eq!(stored(adapter.inner().as_ref(), "items").await, Some(expect([(2, "new")])));
}

#[tokio::test(start_paused = true)]
async fn what_was_posted_before_a_detachment_is_saved_with_the_rest() {
    let (adapter, _) = faulty();
    let store = start(adapter.clone()).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    let actor = bucket.actor().await.unwrap();
    for id in 0..10_000 {
        actor.cast(BucketMessage::Post(Write::Insert(record! { "id": id, "text": "posted" }).into())).unwrap();
    }
    store.detach_bucket("items").await.unwrap();
    assert_eq!(stored(&adapter, "items").await.unwrap().len(), 10_000);
    store.stop().await.unwrap();
}
