//! Is a value changed as a whole or not at all?

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Barrier, mpsc};
use std::time::Duration;

use ractor_persistence::durable::DurableOptions;
use ractor_persistence::{Durable, Error, Store, Value, record};
use serde::{Deserialize, Serialize};

use crate::world::*;

async fn store() -> Store {
    Store::builder("shop").start().await.unwrap()
}

#[tokio::test]
async fn a_change_that_panics_or_fails_is_none_and_the_next_one_goes_through() {
    let store = store().await;
    let counter: Durable<Counter> = open(&store, "c").await.unwrap();
    counter.update(|counter| counter.count = 1).unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        counter.update(|counter| {
            counter.count = 2;
            counter.by.push("half".to_owned());
            panic!("a mistake of the user's");
        })
    }));
    assert!(panicked.is_err());
    let failed = counter.try_update(|counter| {
        counter.count = 3;
        Err::<(), _>(Error::invalid_argument("not this way"))
    });
    assert!(matches!(failed, Err(Error::InvalidArgument { .. })));
    assert_eq!(counter.get(), Counter { count: 1, by: vec![] });
    assert_eq!(counter.update(|counter| std::mem::replace(&mut counter.count, 4)).unwrap(), 1);
    assert_eq!(open::<Counter>(&store, "c").await.unwrap().get().count, 4);
}

/// Deeper than anything that can be stored.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Nested(Vec<Nested>);

#[derive(Clone, Default, Serialize, Deserialize)]
struct Odd {
    number: u64,
    ratio: f64,
    by_number: HashMap<u32, u8>,
    by_pair: BTreeMap<(u8, u8), u8>,
    nested: Nested,
    bytes: Vec<u8>,
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused_where_it_is_made_and_changes_nothing() {
    let store = store().await;
    let odd: Durable<Odd> = open(&store, "odd").await.unwrap();
    odd.update(|odd| odd.number = 7).unwrap();
    let refused = |change: fn(&mut Odd)| match odd.update(change) {
        Err(Error::InvalidValue { path, .. }) => path,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(|odd| odd.number = u64::MAX), "number");
    assert_eq!(refused(|odd| odd.ratio = f64::NAN), "ratio");
    refused(|odd| odd.by_pair = BTreeMap::from([((1, 2), 3)]));
    refused(|odd| odd.nested = (0..80).fold(Nested::default(), |inner, _| Nested(vec![inner])));
    refused(|odd| odd.bytes = vec![1; 17 << 20]);
    odd.read(|odd| assert_eq!((odd.number, odd.by_pair.len(), odd.bytes.len()), (7, 0, 0)));
    let again: Durable<Odd> = open(&store, "odd").await.unwrap();
    assert_eq!(again.get().number, 7);

    let unstorable = DurableOptions::starting_with(|| f64::INFINITY);
    assert!(matches!(store.durable("other", unstorable).await, Err(Error::InvalidValue { .. })));
    assert!(matches!(open::<String>(&store, "odd").await, Err(Error::Decode { .. })), "another type");
    again.update(|odd| odd.number += 1).unwrap();
}

#[tokio::test]
async fn a_change_within_a_change_of_the_same_value_is_refused_and_of_another_is_made() {
    let store = store().await;
    let (a, b): (Durable<Counter>, Durable<Counter>) =
        (open(&store, "a").await.unwrap(), open(&store, "b").await.unwrap());
    let inner = a
        .update(|counter| {
            counter.count = 1;
            b.update(|other| other.count = a.get().count + 10).unwrap();
            a.update(|counter| counter.count = 9)
        })
        .unwrap();
    assert!(matches!(inner, Err(Error::InvalidArgument { .. })));
    assert_eq!((a.get().count, b.get().count), (1, 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_within_changes_in_a_circle_never_wait_for_each_other_for_ever() {
    for count in [2, 3] {
        let store = store().await;
        let mut values: Vec<Durable<Counter>> = Vec::new();
        for number in 0..count {
            values.push(open(&store, &number.to_string()).await.unwrap());
        }
        let all_have_one = Arc::new(Barrier::new(count));
        let (done, answers) = mpsc::channel();
        for at in 0..count {
            let (outer, inner) = (values[at].clone(), values[(at + 1) % count].clone());
            let (all_have_one, done) = (Arc::clone(&all_have_one), done.clone());
            // Threads of their own: were they never to end, the test still would.
            std::thread::spawn(move || {
                let answer = outer.update(|counter| {
                    counter.count += 1;
                    all_have_one.wait();
                    inner.update(|other| other.count += 10)
                });
                done.send(answer.unwrap()).unwrap();
            });
        }
        let mut refused = 0_usize;
        for _ in 0..count {
            match answers.recv_timeout(Duration::from_secs(60)).expect("they wait for each other") {
                Ok(()) => {}
                Err(Error::Conflict { bucket, .. }) => {
                    assert!(bucket.to_string().starts_with("durable value "), "{bucket}");
                    refused += 1;
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        assert!((1..=count).contains(&refused), "{refused} of {count}");
        let sum: i64 = values.iter().map(|value| value.get().count).sum();
        assert_eq!(sum, i64::try_from(count + 10 * (count - refused)).unwrap());
        // Nobody is left waiting: all of it can be done one after the other.
        for at in 0..count {
            values[at].update(|_| values[(at + 1) % count].update(|other| other.count = 0)).unwrap().unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_change_of_many_at_once_is_lost() {
    let store = store().await;
    let counter: Durable<Counter> = open(&store, "c").await.unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let counter = counter.clone();
            tokio::spawn(async move {
                for _ in 0..200 {
                    counter.update(|counter| counter.count += 1).unwrap();
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(counter.get().count, 1_600);
}

#[tokio::test]
async fn a_value_that_looks_like_something_else_in_json_comes_back_as_it_is() {
    let place = Place::memory();
    let kept: Vec<Value> = [
        record! { "$bytes": "AQ==" },
        record! { "$object": { "a": 1 } },
        record! { "$mine": [1, { "$bytes": "AQ==" }] },
        record! { "bytes": &b"\x01"[..] },
    ]
    .into_iter()
    .map(Value::from)
    .collect();
    let store = place.open().await;
    let durable: Durable<Vec<Value>> = open(&store, "values").await.unwrap();
    durable.update(|values| values.clone_from(&kept)).unwrap();
    durable.persist().await.unwrap();
    stop(store).await;
    let store = place.open().await;
    assert_eq!(open::<Vec<Value>>(&store, "values").await.unwrap().get(), kept);
}
