//! Handlers of events, and streams that are too slow.

use std::sync::{Arc, Mutex};

use ractor_persistence::base::error::Error;
use ractor_persistence::base::value::Value;
use ractor_persistence::bus::{Delivery, Event};
use ractor_persistence::records::BucketEvent;
use tokio::sync::Semaphore;

use crate::support::{Counter, define, store, user};

fn key(event: &Event) -> i64 {
    let event = event.payload::<BucketEvent>().unwrap();
    let key = Value::from(event.change.key().unwrap().clone());
    key.as_i64().unwrap()
}

#[tokio::test]
async fn bk_34_a_panicking_handler_harms_nobody_and_a_slow_stream_is_told_what_it_missed() {
    let (store, failures) = store().await;
    let users = define(&store, "users").await;
    let mut slow = store.subscribe("bucket.users.*").unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (bad, good) = (Arc::clone(&heard), Counter::default());
    let panicking = store
        .on("bucket.users.inserted", move |event| {
            bad.lock().unwrap().push(key(&event));
            assert!(key(&event) % 2 == 0, "before its first await");
            async move { assert!(key(&event) % 4 == 0, "after it") }
        })
        .unwrap();
    let counter = good.clone();
    let _other = store.on("bucket.*.*", move |_| {
        counter.add();
        async {}
    });
    for id in 0..1_100 {
        users.insert(user(id)).await.unwrap();
        if id % 100 == 0 {
            store.settle().await;
        }
    }
    store.settle().await;
    assert_eq!(*heard.lock().unwrap(), (0..1_100).collect::<Vec<_>>());
    assert_eq!((panicking.panics(), good.get()), (825, 1_100));
    let reported = std::mem::take(&mut *failures.lock().unwrap());
    assert_eq!(reported.len(), 825);
    assert!(reported.iter().all(|failure| matches!(failure.error, Error::UserCode { .. })));
    for id in 0..1_024 {
        assert!(matches!(slow.recv().await, Some(Delivery::Event(event)) if key(&event) == id));
    }
    assert!(matches!(slow.recv().await, Some(Delivery::Lagged(76))));
    assert!(slow.try_recv().is_none());
}

#[tokio::test]
async fn a_handler_that_falls_behind_misses_events_which_are_counted_and_reported() {
    let (store, failures) = store().await;
    let users = define(&store, "users").await;
    let (gate, heard) = (Arc::new(Semaphore::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (pass, keys) = (Arc::clone(&gate), Arc::clone(&heard));
    let listener = store
        .on("bucket.users.*", move |event| {
            let (pass, keys) = (Arc::clone(&pass), Arc::clone(&keys));
            async move {
                drop(pass.acquire().await.unwrap());
                keys.lock().unwrap().push(key(&event));
            }
        })
        .unwrap();
    users.insert(user(0)).await.unwrap();
    // One is being handled, 1,024 fit, 5 do not.
    tokio::task::yield_now().await;
    for id in 1..=1_029 {
        users.insert(user(id)).await.unwrap();
    }
    assert_eq!(heard.lock().unwrap().len(), 0);
    gate.add_permits(1);
    store.settle().await;
    users.insert(user(2_000)).await.unwrap();
    store.settle().await;
    assert_eq!(*heard.lock().unwrap(), (0..=1_024).chain([2_000]).collect::<Vec<_>>());
    assert_eq!((listener.missed(), listener.panics()), (5, 0));
    let reported = failures.lock().unwrap();
    assert!(matches!(&reported[..], [failure] if matches!(failure.error, Error::Lagged { missed: 5 })));
}

#[tokio::test]
async fn what_a_handler_writes_is_settled_too_and_nothing_comes_after_its_end() {
    let (store, _) = store().await;
    let (users, copies) = (define(&store, "users").await, define(&store, "copies").await);
    let target = copies.clone();
    let listener = store
        .on("bucket.users.inserted", move |event| {
            let target = target.clone();
            async move { drop(target.insert(user(key(&event))).await.unwrap()) }
        })
        .unwrap();
    let live = store.live(|q| async move { q.bucket("copies")?.count(ractor_persistence::Filter::all()).await });
    let live = live.await.unwrap();
    users.insert_many((0..50).map(user)).await.unwrap();
    store.settle().await;
    assert_eq!(*live.current(), 50);
    users.insert(user(50)).await.unwrap();
    drop(listener);
    users.insert(user(51)).await.unwrap();
    store.settle().await;
    assert!(copies.get(51).await.unwrap().is_none());
    assert!(matches!(store.on("bucket..x", |_| async {}), Err(Error::InvalidArgument { .. })));
}

#[tokio::test]
async fn a_handler_gets_what_is_queued_when_its_store_stops() {
    let (store, _) = store().await;
    let users = define(&store, "users").await;
    let handled = Arc::new(Semaphore::new(0));
    let done = Arc::clone(&handled);
    let _listener = store.on("bucket.*.*", move |_| {
        done.add_permits(1);
        async {}
    });
    users.insert_many((0..100).map(user)).await.unwrap();
    store.stop().await.unwrap();
    assert!(handled.acquire_many(100).await.is_ok());
    store.settle().await;
}
