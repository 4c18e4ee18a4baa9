//! What does a stop save, refuse, report and leave behind?

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use ractor::Actor;
use ractor_persistence::adapters::memory::MemoryAdapter;
use ractor_persistence::base::clock::Clock;
use ractor_persistence::base::durability::Durability;
use ractor_persistence::base::error::Error;
use ractor_persistence::bucket::BucketMessage;
use ractor_persistence::persistence::{Health, StorageAdapter};
use ractor_persistence::record;
use ractor_persistence::records::{BucketDefinition, Write};
use ractor_persistence::store::Store;
use ractor_persistence::testkit::{Call, Fault, FaultAdapter, Operation};
use tokio::time::{Instant, advance};

use crate::supervision::Application;
use crate::world::*;

async fn change_everything(store: &Store) {
    let (one, two) =
        (store.define_bucket(items("one")).await.unwrap(), store.define_bucket(items("two")).await.unwrap());
    for id in 0..10 {
        insert(&one, id, "first").await.unwrap();
    }
    store.flush().await.unwrap();
    update(&one, 1, "second").await.unwrap();
    one.delete(2).await.unwrap();
    two.clear().await.unwrap();
    insert(&two, 1, "first").await.unwrap();
}

fn everything() -> (Texts, Texts) {
    let mut one: Texts = (0..10).map(|id| (id, "first".to_owned())).collect();
    one.insert(1, "second".to_owned());
    one.remove(&2);
    (one, expect([(1, "first")]))
}

#[tokio::test]
async fn ps_20_stop_flushes_what_was_changed_a_moment_before_it() {
    for adapter in both_granularities() {
        let store = start(adapter.clone()).await;
        change_everything(&store).await;
        let report = store.stop().await.unwrap();
        assert!(report.unsaved.is_empty() && report.error.is_none(), "{report:?}");
        let (one, two) = everything();
        assert_eq!(stored(&adapter, "one").await, Some(one));
        assert_eq!(stored(&adapter, "two").await, Some(two));
    }
    for disk in disks() {
        let store = disk.start(options()).await;
        change_everything(&store).await;
        let report = store.stop().await.unwrap();
        assert!(report.unsaved.is_empty() && report.error.is_none(), "{report:?}");
        let (one, two) = everything();
        assert_eq!(disk.stored("one").await, Some(one));
        assert_eq!(disk.stored("two").await, Some(two));
    }
}

#[tokio::test(start_paused = true)]
async fn ps_21_stop_with_a_dead_adapter_returns_in_time_names_what_is_unsaved_and_leaves_no_task() {
    for dead in [Fault::hang(), Fault::fail(transient()), Fault::fail(unknown()), Fault::fail(permanent())] {
        for limit in [Duration::from_millis(1), Duration::from_millis(300), Duration::from_secs(90)] {
            let (adapter, faults) = faulty();
            let options = options().with_stop_timeout(limit);
            let before = tasks();
            let store = builder(adapter).persistence(options).start().await.unwrap();
            let one = store.define_bucket(items("one")).await.unwrap();
            let two = store.define_bucket(items("two")).await.unwrap();
            let three = store.define_bucket(items("three")).await.unwrap();
            insert(&three, 1, "saved").await.unwrap();
            store.flush().await.unwrap();
            faults.inject(dead.clone());
            insert(&one, 1, "unsaved").await.unwrap();
            advance(WINDOW * 3).await;
            insert(&two, 1, "unsaved").await.unwrap();

            let begun = Instant::now();
            let report = store.stop().await.unwrap();
            assert!(begun.elapsed() <= limit, "{:?} for {limit:?}", begun.elapsed());
            assert_eq!(report.unsaved, [subject("one"), subject("two")], "{dead:?}");
            assert!(report.error.is_some());
            assert!(matches!(store.health(), Health::Stopped));
            drop((store, one, two, three));
            assert_eq!(tasks_ended(before).await, before, "{dead:?}, {limit:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_when_a_store_with_a_dead_adapter_stops_is_told() {
    let (adapter, faults) = faulty();
    let before = tasks();
    let store =
        builder(adapter).persistence(options().with_stop_timeout(Duration::from_secs(2))).start().await.unwrap();
    let mut buckets = Vec::new();
    for name in ["written", "flushed", "dropped", "detached", "killed"] {
        buckets.push(store.define_bucket(items(name)).await.unwrap());
    }
    let [written, flushed, dropped, detached, killed] = buckets.try_into().unwrap();
    for bucket in [&flushed, &dropped, &detached, &killed] {
        insert(bucket, 1, "unsaved").await.unwrap();
    }
    faults.inject(Fault::hang());
    kill(&killed).await;
    let waiting = vec![
        tokio::spawn({
            let bucket = written.with_durability(Durability::Fsync);
            async move { insert(&bucket, 1, "unsaved").await }
        }),
        tokio::spawn(async move { flushed.flush().await }),
        tokio::spawn({
            let store = store.clone();
            async move { store.drop_bucket("dropped").await }
        }),
        tokio::spawn({
            let store = store.clone();
            async move { store.detach_bucket("detached").await }
        }),
        tokio::spawn({
            let store = store.clone();
            async move { store.define_bucket(items("defined")).await.map(drop) }
        }),
        tokio::spawn(async move { killed.get(1).await.map(drop) }),
        tokio::spawn({
            let store = store.clone();
            async move { store.flush().await }
        }),
    ];
    advance(WINDOW * 2).await;
    let begun = Instant::now();
    let report = store.stop().await.unwrap();
    assert!(begun.elapsed() <= Duration::from_secs(2));
    for name in ["written", "flushed", "dropped", "detached", "killed"] {
        assert!(report.unsaved.contains(&subject(name)), "{name} is missing: {report:?}");
    }
    assert_eq!(report.unsaved.len(), 5, "{report:?}");
    for (index, waiting) in waiting.into_iter().enumerate() {
        let outcome = soon(waiting).await.unwrap();
        let told = match &outcome {
            Err(Error::NotSaved { source, .. }) => matches!(**source, Error::Stopping | Error::Unknown { .. }),
            Err(Error::Stopping | Error::Unknown { .. }) => true,
            _ => false,
        };
        assert!(told, "{index}: {outcome:?}");
    }
    drop((store, written));
    assert_eq!(tasks_ended(before).await, before);
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_is_loading_again_and_again_does_not_outlive_its_store() {
    let (adapter, faults) = faulty();
    let before = tasks();
    let store = start(adapter).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    faults.fail_loads(transient());
    kill(&bucket).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let calls = faults.calls().len();
    store.stop().await.unwrap();
    drop((store, bucket));
    assert_eq!(tasks_ended(before).await, before);
    advance(Duration::from_secs(100)).await;
    let after = faults.calls();
    assert!(!after[calls..].iter().any(|logged| matches!(logged.call, Call::LoadBucket(_))), "{after:?}");
}

/// Writers race with the stop; answers how many writes were acknowledged and how many refused.
async fn written_while_stopping(adapter: Arc<dyn StorageAdapter>, round: u64) -> (Texts, usize) {
    let store = Store::builder("shop").shared_adapter(adapter).persistence(options()).start().await.unwrap();
    let bucket = store.define_bucket(items("items")).await.unwrap();
    let writers: Vec<_> = (0..16_i64)
        .map(|writer| {
            let level = if writer % 2 == 0 { Durability::Ram } else { Durability::Fsync };
            let bucket = bucket.with_durability(level);
            tokio::spawn(async move {
                let mut done = Texts::new();
                for number in 0.. {
                    let id = writer * 1_000_000 + number;
                    match insert(&bucket, id, "a").await {
                        Ok(()) => {
                            done.insert(id, "a".to_owned());
                        }
                        Err(Error::Stopping) => break,
                        Err(error) => panic!("{level:?}: {error:?}"),
                    }
                }
                done
            })
        })
        .collect();
    let stopper = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(2 + round)).await;
        store.stop().await
    });
    let (mut done, mut refused) = (Texts::new(), 0);
    for writer in writers {
        done.extend(soon(writer).await.unwrap());
        refused += 1;
    }
    let report = soon(stopper).await.unwrap().unwrap();
    assert!(report.unsaved.is_empty() && report.error.is_none(), "{report:?}");
    (done, refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn ps_22_writes_after_stop_began_are_refused_and_never_accepted_and_dropped() {
    for round in 0..20 {
        let adapter = MemoryAdapter::default();
        let (done, refused) = written_while_stopping(Arc::new(adapter.clone()), round).await;
        assert_eq!(refused, 16);
        assert_eq!(stored(&adapter, "items").await.unwrap_or_default(), done);

        let slow = FaultAdapter::new(MemoryAdapter::default());
        slow.faults().inject(Fault::delay(Duration::from_millis(3)).on(Operation::Commit));
        let (done, _) = written_while_stopping(Arc::new(slow.clone()), round).await;
        assert_eq!(stored(&slow, "items").await.unwrap_or_default(), done);
    }
    for disk in disks() {
        let (done, _) = written_while_stopping(disk.open().await, 20).await;
        assert_eq!(disk.stored("items").await.unwrap_or_default(), done);
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_the_last_flush_has_saved_is_told_so_however_late_it_asks() {
    let (adapter, _) = faulty();
    let store = start(adapter.clone()).await;
    let durable = store.define_bucket(items("items")).await.unwrap().with_durability(Durability::Fsync);
    let writing = insert(&durable, 1, "saved");
    tokio::pin!(writing);
    // It is on its way to the bucket, and its caller looks for the answer when all is over.
    let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(writing.as_mut().poll(cx).is_pending())).await;
    assert!(polled);
    let report = store.stop().await.unwrap();
    assert!(report.unsaved.is_empty());
    assert_eq!(stored(&adapter, "items").await, Some(expect([(1, "saved")])));
    writing.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn after_a_stop_everything_is_refused_at_once_and_a_second_stop_repeats_the_report() {
    let (adapter, faults) = faulty();
    let store = start(adapter).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    insert(&bucket, 1, "unsaved").await.unwrap();
    faults.fail_commits(permanent());
    let (first, second) = tokio::join!(store.stop(), store.stop());
    let third = store.stop().await.unwrap();
    for report in [first.unwrap(), second.unwrap(), third] {
        assert_eq!(report.unsaved, [subject("items")]);
        assert!(matches!(report.error, Some(Error::Permanent { .. })));
    }
    let begun = Instant::now();
    let refused = [
        insert(&bucket, 2, "late").await,
        insert(&bucket.with_durability(Durability::Fsync), 2, "late").await,
        bucket.get(1).await.map(drop),
        bucket.flush().await,
        bucket.actor().await.map(drop),
        store.flush().await,
        store.define_bucket(BucketDefinition::new("late").key("id")).await.map(drop),
        store.drop_bucket("items").await,
        store.detach_bucket("items").await,
        store.bucket("items").map(drop),
    ];
    for (index, refused) in refused.into_iter().enumerate() {
        assert!(matches!(refused, Err(Error::Stopping)), "{index}: {refused:?}");
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(faults.calls().iter().filter(|logged| matches!(logged.call, Call::Close(_))).count(), 1);
    assert_eq!(store.stats().await.persistence.unsaved, [subject("items")]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_nobody_waits_for_goes_on() {
    let (adapter, faults) = faulty();
    let store = start(adapter.clone()).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    faults.inject(Fault::delay(Duration::from_secs(3)).on(Operation::Commit));
    insert(&bucket, 1, "saved").await.unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(1), store.stop()).await.is_err());
    advance(Duration::from_secs(5)).await;
    faults.until(|log| log.iter().any(|logged| matches!(logged.call, Call::Close(_)))).await;
    assert_eq!(stored(&adapter, "items").await, Some(expect([(1, "saved")])));
    assert!(store.stop().await.unwrap().unsaved.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_drop_that_was_accepted_is_finished_by_the_stop() {
    let (adapter, faults) = faulty();
    let store = start(adapter.clone()).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    insert(&bucket, 1, "gone").await.unwrap();
    store.flush().await.unwrap();
    faults.inject(Fault::delay(Duration::from_secs(1)).on(Operation::Drop));
    let dropping = tokio::spawn({
        let store = store.clone();
        async move { store.drop_bucket("items").await }
    });
    faults.until(|log| log.last().is_some_and(|last| last.result.is_none())).await;
    let report = store.stop().await.unwrap();
    assert!(report.unsaved.is_empty() && report.error.is_none(), "{report:?}");
    soon(dropping).await.unwrap().unwrap();
    assert_eq!(stored(&adapter, "items").await, None);
    assert_eq!(faults.most_commits_at_once(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stop_goes_on_trying_until_its_time_is_over() {
    let (adapter, faults) = faulty();
    let store = start(adapter.clone()).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    faults.inject(Fault::fail(transient()).on(Operation::Commit).times(5));
    insert(&bucket, 1, "saved at last").await.unwrap();
    let report = store.stop().await.unwrap();
    assert!(report.unsaved.is_empty() && report.error.is_none(), "{report:?}");
    assert_eq!(stored(&adapter, "items").await, Some(expect([(1, "saved at last")])));
}

/// A clock that stands still, and everybody with it who looks at it.
#[derive(Debug)]
struct Stuck(Mutex<bool>, Condvar);

impl Clock for Stuck {
    fn now_ms(&self) -> i64 {
        let stuck = self.0.lock().unwrap();
        drop(self.1.wait_while(stuck, |stuck| *stuck).unwrap());
        1
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stop_gives_up_on_an_actor_that_does_not_come_to_an_end_and_names_its_bucket() {
    let clock = Arc::new(Stuck(Mutex::new(false), Condvar::new()));
    let memory = MemoryAdapter::default();
    let options = options().with_stop_timeout(Duration::from_millis(200));
    let store = builder(memory.clone()).persistence(options).clock(Arc::clone(&clock) as Arc<dyn Clock>);
    let store = store.start().await.unwrap();
    let (stuck, fine) =
        (store.define_bucket(items("stuck")).await.unwrap(), store.define_bucket(items("fine")).await.unwrap());
    insert(&fine, 1, "saved").await.unwrap();
    *clock.0.lock().unwrap() = true;
    let writing = stuck.actor().await.unwrap();
    writing.cast(BucketMessage::Post(Write::Insert(record! { "id": 1, "text": "never" }).into())).unwrap();
    let report = soon(store.stop()).await.unwrap();
    *clock.0.lock().unwrap() = false;
    clock.1.notify_all();
    assert_eq!(report.unsaved, [subject("stuck")], "{report:?}");
    assert!(matches!(report.error, Some(Error::Unknown { .. })), "{report:?}");
    assert_eq!(stored(&memory, "fine").await, Some(expect([(1, "saved")])));
    assert_eq!(stored(&memory, "stuck").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_turn_writes_that_a_kill_of_the_store_has_found_under_way_is_saved_too() {
    for is_stopped in [false, true] {
        let clock = Arc::new(Stuck(Mutex::new(false), Condvar::new()));
        let memory = MemoryAdapter::default();
        let (application, _ended) = Actor::spawn(None, Application, ()).await.unwrap();
        let builder = builder(memory.clone()).clock(Arc::clone(&clock) as Arc<dyn Clock>);
        let store = builder.spawn_linked(application.get_cell()).await.unwrap();
        let bucket = store.define_bucket(items("items")).await.unwrap();
        *clock.0.lock().unwrap() = true;
        let writing = bucket.actor().await.unwrap();
        writing.cast(BucketMessage::Post(Write::Insert(record! { "id": 1, "text": "kept" }).into())).unwrap();
        // It is in its turn soon, or never.
        tokio::time::sleep(Duration::from_millis(50)).await;
        application.get_cell().kill_and_wait(None).await.unwrap();
        let stopping = tokio::spawn({
            let store = store.clone();
            async move { if is_stopped { store.stop().await.unwrap().unsaved } else { Vec::new() } }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        *clock.0.lock().unwrap() = false;
        clock.1.notify_all();
        assert!(soon(stopping).await.unwrap().is_empty());
        let saved = async {
            while stored(&memory, "items").await.is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon(saved).await;
        assert_eq!(stored(&memory, "items").await, Some(expect([(1, "kept")])));
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_that_fails_is_in_the_report() {
    let (adapter, faults) = faulty();
    let failures = Failures::default();
    let store = builder(adapter).on_error(failures.note()).start().await.unwrap();
    faults.inject(Fault::fail(permanent()).on(Operation::Close));
    let report = store.stop().await.unwrap();
    assert!(report.unsaved.is_empty());
    assert!(matches!(report.error, Some(Error::Permanent { .. })));
    assert_eq!(failures.all()[0].operation, "close");
}
