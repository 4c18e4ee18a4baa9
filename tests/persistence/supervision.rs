//! What happens to a store under an application's own supervisor, and to the actors inside of it?

use std::time::Duration;

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};
use ractor_persistence::base::durability::Durability;
use ractor_persistence::base::error::{Error, Result};
use ractor_persistence::bucket::{Bucket, BucketMessage};
use ractor_persistence::store::Store;
use ractor_persistence::testkit::{Call, Fault, FaultAdapter, Operation};
use tokio::time::{advance, sleep};

use crate::world::*;

/// An application's supervisor, which lets its children die.
pub(crate) struct Application;

#[derive(Debug)]
pub(crate) struct Nothing;

#[cfg(feature = "cluster")]
impl ractor::Message for Nothing {}

#[cfg_attr(feature = "async-trait", ractor::async_trait)]
impl Actor for Application {
    type Msg = Nothing;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _myself: ActorRef<Nothing>, (): ()) -> std::result::Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Nothing>,
        _event: SupervisionEvent,
        _state: &mut (),
    ) -> std::result::Result<(), ActorProcessingErr> {
        Ok(())
    }
}

struct Supervised {
    application: ActorCell,
    store: Store,
    bucket: Bucket,
}

async fn supervised(adapter: FaultAdapter<impl ractor_persistence::persistence::StorageAdapter>) -> Supervised {
    let (application, _ended) = Actor::spawn(None, Application, ()).await.unwrap();
    let application = application.get_cell();
    let store = builder(adapter).spawn_linked(application.clone()).await.unwrap();
    let bucket = store.define_bucket(items("items")).await.unwrap();
    Supervised { application, store, bucket }
}

#[tokio::test]
async fn a_supervisor_can_tell_the_store_among_its_children() {
    let supervised = supervised(faulty().0).await;
    assert!(supervised.store.is_actor(supervised.supervisor().get_id()));
    assert!(!supervised.store.is_actor(supervised.application.get_id()));
    supervised.store.stop().await.unwrap();
}

impl Supervised {
    /// The store's supervisor.
    fn supervisor(&self) -> ActorCell {
        let [only] = self.application.get_children().try_into().unwrap();
        only
    }

    /// The actor that drives the persister: the child that is no bucket.
    fn persister(&self) -> Option<ActorCell> {
        let children = self.supervisor().get_children();
        children.into_iter().find(|child| child.is_message_type_of::<BucketMessage>() != Some(true))
    }
}

#[tokio::test(start_paused = true)]
async fn stop_children_and_wait_of_the_supervisor_above_saves_everything() {
    let before = tasks();
    let (adapter, faults) = faulty();
    let Supervised { application, store, bucket } = supervised(adapter.clone()).await;
    faults.inject(Fault::delay(Duration::from_secs(2)).on(Operation::Commit));
    insert(&bucket, 1, "saved").await.unwrap();
    application.stop_children_and_wait(None, None).await;
    assert_eq!(stored(&adapter, "items").await, Some(expect([(1, "saved")])));
    assert!(faults.calls().iter().any(|logged| matches!(logged.call, Call::Close(_))));
    assert!(matches!(insert(&bucket, 2, "late").await, Err(Error::Stopping)));
    let report = soon(store.stop()).await.unwrap();
    assert!(report.unsaved.is_empty() && report.error.is_none(), "{report:?}");
    application.stop_and_wait(None, None).await.unwrap();
    drop((application, store, bucket));
    assert_eq!(tasks_ended(before).await, before);
}

#[tokio::test(start_paused = true)]
async fn a_stop_from_both_sides_at_once_is_one_stop() {
    let (adapter, faults) = faulty();
    let Supervised { application, store, bucket } = supervised(adapter.clone()).await;
    faults.inject(Fault::delay(Duration::from_secs(2)).on(Operation::Commit));
    insert(&bucket, 1, "saved").await.unwrap();
    let ((), report) = soon(async { tokio::join!(application.stop_children_and_wait(None, None), store.stop()) }).await;
    assert!(report.unwrap().unsaved.is_empty());
    assert_eq!(stored(&adapter, "items").await, Some(expect([(1, "saved")])));
    assert_eq!(faults.calls().iter().filter(|logged| matches!(logged.call, Call::Close(_))).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn after_a_kill_of_the_supervisor_above_nobody_hangs_and_a_stop_still_saves() {
    // With changes that the persister has heard of, that it was just told of, and that are in flight.
    for (commit, waits) in [(None, WINDOW / 2), (None, Duration::ZERO), (Some(Fault::hang()), WINDOW * 2)] {
        let before = tasks();
        let (adapter, faults) = faulty();
        let Supervised { application, store, bucket } = supervised(adapter.clone()).await;
        if let Some(fault) = commit {
            faults.inject(fault.on(Operation::Commit));
        }
        insert(&bucket, 1, "kept").await.unwrap();
        let durable = bucket.with_durability(Durability::Fsync);
        let writing = tokio::spawn(async move { insert(&durable, 2, "kept").await });
        advance(waits).await;
        application.kill_and_wait(None).await.unwrap();
        let calls: [Result<()>; 5] = [
            soon(insert(&bucket, 3, "late")).await,
            soon(bucket.get(1)).await.map(drop),
            soon(bucket.actor()).await.map(drop),
            soon(store.define_bucket(items("late"))).await.map(drop),
            soon(store.drop_bucket("items")).await,
        ];
        for (index, call) in calls.into_iter().enumerate() {
            assert!(matches!(call, Err(Error::Stopping)), "{index}: {call:?}");
        }
        faults.heal();
        // Whoever was waiting is served all the same, or was never heard.
        let written = soon(writing).await.unwrap();
        assert!(matches!(written, Ok(()) | Err(Error::Stopping | Error::ActorLost { .. })), "{written:?}");
        let report = soon(store.stop()).await.unwrap();
        assert!(report.unsaved.is_empty() && report.error.is_none(), "{waits:?}: {report:?}");
        let stored = stored(&adapter, "items").await.unwrap_or_default();
        assert!(stored.contains_key(&1), "{waits:?}: {stored:?}");
        assert!(written.is_err() || stored.contains_key(&2), "{waits:?}: {stored:?}");
        drop((application, store, bucket));
        assert_eq!(tasks_ended(before).await, before);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_killed_saves_what_it_had_accepted_without_being_asked_and_leaves_its_successor_alone() {
    let before = tasks();
    let (adapter, faults) = faulty();
    let Supervised { application, store, bucket } = supervised(adapter.clone()).await;
    insert(&bucket, 1, "kept").await.unwrap();
    application.kill_and_wait(None).await.unwrap();
    faults
        .until(|log| log.iter().any(|logged| matches!(logged.call, Call::Commit(_)) && logged.result.is_some()))
        .await;
    assert_eq!(stored(&adapter, "items").await, Some(expect([(1, "kept")])));
    // The claim may be somebody else's by then.
    sleep(Duration::from_secs(60)).await;
    assert!(!faults.calls().iter().any(|logged| matches!(logged.call, Call::Close(_))));
    let next = start(adapter).await;
    assert_eq!(held(&next.define_bucket(items("items")).await.unwrap()).await, expect([(1, "kept")]));
    // Who asks later gets the same report.
    assert!(store.stop().await.unwrap().unsaved.is_empty());
    next.stop().await.unwrap();
    drop((application, store, bucket, next));
    assert_eq!(tasks_ended(before).await, before);
}

#[tokio::test(start_paused = true)]
async fn a_killed_store_that_cannot_save_says_so() {
    let (adapter, faults) = faulty();
    let (told, mut failures) = tokio::sync::mpsc::unbounded_channel();
    let (application, _ended) = Actor::spawn(None, Application, ()).await.unwrap();
    let builder = builder(adapter).on_error(move |failure| drop(told.send((failure.operation, failure.error.clone()))));
    let store = builder.spawn_linked(application.get_cell()).await.unwrap();
    let bucket = store.define_bucket(items("items")).await.unwrap();
    faults.inject(Fault::fail(permanent()).on(Operation::Commit));
    insert(&bucket, 1, "lost").await.unwrap();
    application.get_cell().kill_and_wait(None).await.unwrap();
    let stop = soon(async {
        loop {
            let (operation, error) = failures.recv().await.unwrap();
            if operation == "stop" {
                break error;
            }
        }
    });
    assert!(matches!(stop.await, Error::Permanent { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_kill_in_the_middle_of_a_stop_does_not_keep_it_from_saving() {
    // Of the bucket, of the persister's actor, of the store's supervisor, of the supervisor above.
    for victim in 0..4 {
        let before = tasks();
        let (adapter, faults) = faulty();
        let world = supervised(adapter.clone()).await;
        faults.inject(Fault::delay(Duration::from_secs(2)).on(Operation::Commit));
        insert(&world.bucket, 1, "kept").await.unwrap();
        let bucket = world.bucket.actor().await.unwrap().get_cell();
        let victim_cell = match victim {
            0 => bucket,
            1 => world.persister().unwrap(),
            2 => world.supervisor(),
            _ => world.application.clone(),
        };
        let stopping = tokio::spawn({
            let store = world.store.clone();
            async move { store.stop().await }
        });
        // The last commit is on its way.
        faults.until(|log| log.last().is_some_and(|last| last.result.is_none())).await;
        victim_cell.kill();
        let report = soon(stopping).await.unwrap().unwrap();
        assert!(report.unsaved.is_empty() && report.error.is_none(), "{victim}: {report:?}");
        assert_eq!(stored(&adapter, "items").await, Some(expect([(1, "kept")])), "{victim}");
        assert_eq!(faults.calls().iter().filter(|logged| matches!(logged.call, Call::Close(_))).count(), 1);
        assert!(matches!(soon(insert(&world.bucket, 2, "late")).await, Err(Error::Stopping)), "{victim}");
        let Supervised { application, store, bucket } = world;
        let _dead = application.stop_and_wait(None, None).await;
        drop((application, store, bucket, victim_cell));
        assert_eq!(tasks_ended(before).await, before, "{victim}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_kill_with_a_wake_up_on_its_way_to_the_persister_strands_nobody() {
    let (adapter, _) = faulty();
    let world = supervised(adapter.clone()).await;
    insert(&world.bucket, 1, "kept").await.unwrap();
    tokio::time::sleep(WINDOW * 2).await;
    // Sent, and not looked at yet: this task has not yielded since.
    let actor = world.bucket.actor().await.unwrap();
    let (reply, answer) = tokio::sync::oneshot::channel();
    let record = ractor_persistence::record! { "id": 2, "text": "kept" };
    actor.cast(BucketMessage::Insert(record, reply.into())).unwrap();
    answer.await.unwrap().unwrap();
    let flushing = tokio::spawn({
        let bucket = world.bucket.clone();
        async move { bucket.flush().await }
    });
    world.application.kill();
    soon(flushing).await.unwrap().unwrap();
    let report = soon(world.store.stop()).await.unwrap();
    assert!(report.unsaved.is_empty(), "{report:?}");
    assert_eq!(stored(&adapter, "items").await, Some(expect([(1, "kept"), (2, "kept")])));
}

#[tokio::test(start_paused = true)]
async fn a_killed_persister_is_replaced_and_forgets_nothing() {
    let (adapter, faults) = faulty();
    let world = supervised(adapter.clone()).await;
    let durable = world.bucket.with_durability(Durability::Fsync);
    for id in 0..50 {
        // Before it has heard of the change, while it waits for the window, while a commit is in flight.
        insert(&world.bucket, id, "waits").await.unwrap();
        if id % 3 == 1 {
            advance(WINDOW / 2).await;
            tokio::task::yield_now().await;
        }
        if id % 3 == 2 {
            faults.inject(Fault::delay(WINDOW).on(Operation::Commit).times(1));
            advance(WINDOW).await;
            tokio::task::yield_now().await;
        }
        if let Some(persister) = world.persister() {
            persister.kill();
        }
        if id % 7 == 0 {
            soon(insert(&durable, 1_000 + id, "awaited")).await.unwrap();
            assert!(stored(&adapter, "items").await.unwrap().contains_key(&(1_000 + id)));
        }
    }
    tokio::time::sleep(WINDOW * 4).await;
    assert_eq!(stored(&adapter, "items").await.unwrap(), held(&world.bucket).await, "without any call");
    assert!(world.persister().is_some());
    assert_eq!(faults.most_commits_at_once(), 1);
    world.store.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn writers_of_a_persister_that_is_killed_all_the_time_are_all_answered() {
    let adapter = FaultAdapter::new(ractor_persistence::adapters::memory::MemoryAdapter::default());
    let world = supervised(adapter.clone()).await;
    let writers: Vec<_> = (0..8_i64)
        .map(|writer| {
            let durable = world.bucket.with_durability(Durability::Fsync);
            tokio::spawn(async move {
                for number in 0..100 {
                    soon(insert(&durable, writer * 1_000 + number, "a")).await.unwrap();
                }
            })
        })
        .collect();
    while writers.iter().any(|writer| !writer.is_finished()) {
        if let Some(persister) = world.persister() {
            persister.kill();
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(stored(&adapter, "items").await.unwrap().len(), 800);
    world.store.stop().await.unwrap();
}
