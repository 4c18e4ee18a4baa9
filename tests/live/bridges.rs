//! Events for elsewhere: in order, tried again, dropped with account.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use ractor_persistence::base::error::Error;
use ractor_persistence::record;
use ractor_persistence::store::{BridgeOptions, Receiver};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::support::{Counter, define, store, user};

/// Topics and data that a receiver has taken.
type Taken = Arc<Mutex<Vec<(String, Value)>>>;

/// What is to become of an attempt.
#[derive(Clone, Copy)]
enum Fate {
    Take,
    Fail,
    Panic,
}

/// Keeps what it is sent, and does with each attempt what its plan says.
struct Peer {
    plan: fn(&Value, usize) -> Fate,
    attempts: Counter,
    taken: Taken,
    gate: Arc<Semaphore>,
}

impl Peer {
    fn new(plan: fn(&Value, usize) -> Fate) -> (Self, Taken, Arc<Semaphore>) {
        let (taken, gate) = (Arc::default(), Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)));
        let peer = Self { plan, attempts: Counter::default(), taken: Arc::clone(&taken), gate: Arc::clone(&gate) };
        (peer, taken, gate)
    }
}

#[async_trait]
impl Receiver for Peer {
    async fn emit(&self, topic: &str, data: Value) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.gate.acquire().await?.forget();
        let fate = (self.plan)(&data, self.attempts.add());
        match fate {
            Fate::Take => self.taken.lock().unwrap().push((topic.to_owned(), data)),
            Fate::Fail => return Err("on purpose".into()),
            Fate::Panic => panic!("on purpose"),
        }
        Ok(())
    }
}

/// Until the bridge has nothing more to do: paused time goes on when all wait.
async fn rest() {
    tokio::time::sleep(std::time::Duration::from_secs(3_600)).await;
}

#[tokio::test(start_paused = true)]
async fn bk_57_a_receiver_that_fails_panics_or_lags_keeps_the_order_and_slows_nobody() {
    let (store, failures) = store().await;
    let users = define(&store, "users").await;
    // One that fails at first, one that always fails, one that panics, for ever.
    let (peer, taken, gate) = Peer::new(|data, attempt| match data["key"].as_i64().unwrap() {
        3 if attempt % 2 == 0 => Fate::Fail,
        5 => Fate::Fail,
        7 => Fate::Panic,
        _ => Fate::Take,
    });
    gate.forget_permits(Semaphore::MAX_PERMITS);
    let options = BridgeOptions::default().with_queue(NonZeroUsize::new(10).unwrap());
    let bridge = store.bridge(peer, options).unwrap();
    users.insert(user(0)).await.unwrap();
    // It takes that one, and hangs. The bucket goes on, and 10 events wait.
    tokio::task::yield_now().await;
    let begun = tokio::time::Instant::now();
    for id in 1..=14 {
        users.insert(user(id)).await.unwrap();
    }
    assert_eq!(begun.elapsed(), std::time::Duration::ZERO);
    gate.add_permits(1_000);
    rest().await;
    users.insert(user(20)).await.unwrap();
    rest().await;
    let keys: Vec<i64> = taken.lock().unwrap().iter().map(|(_, data)| data["key"].as_i64().unwrap()).collect();
    assert_eq!(keys, [0, 1, 2, 3, 4, 6, 8, 9, 10, 20]);
    let stats = bridge.stats();
    assert_eq!((stats.sent, stats.dropped, stats.failed), (10, 6, 7));
    let reported: Vec<(u32, String)> =
        failures.lock().unwrap().iter().map(|failure| (failure.attempt, failure.error.to_string())).collect();
    let of = |attempt: u32, error: &Error| (attempt, error.to_string());
    let failed = Error::Transient { operation: "emit".to_owned(), source: None };
    let panicked = Error::UserCode { place: "a bridge's receiver" };
    assert_eq!(reported, [of(3, &failed), of(3, &panicked), of(1, &Error::Lagged { missed: 4 })]);
}

#[tokio::test(start_paused = true)]
async fn it_sends_what_happened_as_its_functions_say() {
    let (store, failures) = store().await;
    let (dotted, other) = (define(&store, "a.b*").await, define(&store, "other").await);
    let (peer, taken, _) = Peer::new(|_, _| Fate::Take);
    let _plain = store.bridge(peer, BridgeOptions::default()).unwrap();
    let (peer, mapped, _) = Peer::new(|_, _| Fate::Take);
    let options = BridgeOptions::default()
        .with_filter(|event| event.bucket.as_str() == "other")
        .with_map_topic(|event| event.change.kind().to_owned())
        .with_map_data(|event| {
            assert_ne!(event.revision, 2, "a function panics");
            json!(event.revision)
        });
    let bridge = store.bridge(peer, options).unwrap();
    dotted.insert(record! { "id": 1, "n": 5 }).await.unwrap();
    dotted.update(1, record! { "n": 6 }).await.unwrap();
    dotted.delete(1).await.unwrap();
    for id in 0..3 {
        other.insert(user(id)).await.unwrap();
    }
    other.clear().await.unwrap();
    rest().await;

    let taken = taken.lock().unwrap();
    let topics: Vec<&str> = taken.iter().map(|(topic, _)| topic.as_str()).collect();
    assert_eq!(
        topics[..4],
        [r"bucket.a\.b\*.inserted", r"bucket.a\.b\*.updated", r"bucket.a\.b\*.deleted", "bucket.other.inserted"]
    );
    let data = |at: usize| &taken[at].1;
    assert_eq!(
        (&data(0)["bucket"], &data(0)["type"], &data(0)["key"]),
        (&json!("a.b*"), &json!("inserted"), &json!(1))
    );
    assert_eq!((&data(0)["revision"], &data(0)["index"], &data(0)["count"]), (&json!(1), &json!(0), &json!(1)));
    assert_eq!((&data(0)["record"]["n"], &data(0)["record"]["_version"]), (&json!(5), &json!(1)));
    assert_eq!((&data(1)["old"]["n"], &data(1)["new"]["n"]), (&json!(5), &json!(6)));
    assert_eq!((&data(2)["record"]["n"], &data(2)["cause"]), (&json!(6), &json!("requested")));
    assert_eq!((&data(6)["type"], &data(6)["records"]), (&json!("cleared"), &json!(3)));

    let own = |topic: &str, revision: u64| (topic.to_owned(), json!(revision));
    assert_eq!(*mapped.lock().unwrap(), [own("inserted", 1), own("inserted", 3), own("cleared", 4)]);
    assert_eq!(bridge.stats().dropped, 1);
    assert!(matches!(failures.lock().unwrap()[..], [ref failure] if failure.operation == "bridge"));
    let refused = store.bridge(Peer::new(|_, _| Fate::Take).0, BridgeOptions::default().with_attempts(0));
    assert!(matches!(refused, Err(Error::InvalidArgument { .. })));
}

#[tokio::test(start_paused = true)]
async fn stopping_waits_for_the_attempt_under_way_and_for_no_other() {
    let (store, _) = store().await;
    let users = define(&store, "users").await;
    let (peer, taken, gate) = Peer::new(|_, _| Fate::Take);
    gate.forget_permits(Semaphore::MAX_PERMITS);
    let bridge = store.bridge(peer, BridgeOptions::default()).unwrap();
    users.insert_many((0..5).map(user)).await.unwrap();
    rest().await;
    let later = async {
        rest().await;
        assert_eq!(taken.lock().unwrap().len(), 0);
        gate.add_permits(10);
    };
    let (stats, ()) = tokio::join!(bridge.stop(), later);
    assert_eq!((stats.sent, stats.dropped, stats.failed), (1, 4, 0));
    users.insert(user(9)).await.unwrap();
    rest().await;
    assert_eq!(taken.lock().unwrap().len(), 1);

    // A rest between attempts is no attempt.
    let (peer, _, _) = Peer::new(|_, _| Fate::Fail);
    let bridge = store.bridge(peer, BridgeOptions::default().with_attempts(100)).unwrap();
    users.insert(user(10)).await.unwrap();
    tokio::task::yield_now().await;
    let begun = tokio::time::Instant::now();
    let stats = bridge.stop().await;
    assert_eq!((stats.sent, stats.dropped), (0, 1));
    assert!(begun.elapsed().is_zero());
}

#[tokio::test(start_paused = true)]
async fn what_is_queued_when_the_store_stops_is_still_sent() {
    let (store, _) = store().await;
    let users = define(&store, "users").await;
    let (peer, taken, _) = Peer::new(|_, attempt| if attempt == 1 { Fate::Fail } else { Fate::Take });
    let _bridge = store.bridge(peer, BridgeOptions::default()).unwrap();
    users.insert_many((0..5).map(user)).await.unwrap();
    store.stop().await.unwrap();
    rest().await;
    assert_eq!(taken.lock().unwrap().len(), 5);
}
