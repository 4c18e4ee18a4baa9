//! Live queries: what is evaluated when, and what is told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use ractor_persistence::base::error::{Error, Result};
use ractor_persistence::bucket::{LiveQuery, QueryContext, Transaction};
use ractor_persistence::record;
use ractor_persistence::records::Filter;
use ractor_persistence::store::Store;
use tokio::sync::{Notify, Semaphore};

use crate::support::{Counter, admin, define, next_now, store, user};

/// How many admins there are in `users`, and how often that was asked.
async fn admins(store: &Store) -> (LiveQuery<usize>, Counter) {
    let evaluations = Counter::default();
    let counter = evaluations.clone();
    let live = store.live(move |q: QueryContext| {
        counter.add();
        async move { q.bucket("users")?.count(Filter::eq("role", "admin")).await }
    });
    (live.await.unwrap(), evaluations)
}

#[tokio::test]
async fn bk_36_a_change_outside_evaluates_nothing_and_an_equal_result_is_not_told() {
    let (store, _) = store().await;
    let (users, others) = (define(&store, "users").await, define(&store, "others").await);
    let (mut live, evaluations) = admins(&store).await;
    let called = Counter::default();
    let calls = called.clone();
    live.on_change(move |_| {
        calls.add();
    });
    store.settle().await;
    assert_eq!((*live.current(), evaluations.take()), (0, 1));
    // Another bucket, and records that the filter matches neither before nor after.
    others.insert(admin(1)).await.unwrap();
    users.insert(user(1)).await.unwrap();
    users.update(1, record! { "n": 7 }).await.unwrap();
    users.delete(1).await.unwrap();
    store.settle().await;
    assert_eq!(evaluations.get(), 0);
    users.insert(admin(2)).await.unwrap();
    store.settle().await;
    assert_eq!((evaluations.take(), called.take()), (1, 1));
    assert_eq!(*live.next().await.unwrap(), 1);
    // The old and the new record match, and there are as many as before.
    let before = live.current();
    users.update(2, record! { "n": 7 }).await.unwrap();
    store.settle().await;
    assert_eq!((evaluations.take(), called.take()), (1, 0));
    assert!(next_now(&mut live).await.is_none());
    assert!(Arc::ptr_eq(&before, &live.current()));
}

#[tokio::test]
async fn a_record_that_stops_matching_touches_as_one_that_begins_to() {
    let (store, _) = store().await;
    let users = define(&store, "users").await;
    users.insert(admin(1)).await.unwrap();
    let (mut live, _) = admins(&store).await;
    users.update(1, record! { "role": "user" }).await.unwrap();
    assert_eq!(*live.next().await.unwrap(), 0);
    users.update(1, record! { "role": "admin" }).await.unwrap();
    assert_eq!(*live.next().await.unwrap(), 1);
    users.clear().await.unwrap();
    assert_eq!(*live.next().await.unwrap(), 0);
}

#[tokio::test]
async fn bk_37_a_change_during_the_first_evaluation_is_told_without_a_further_one() {
    // Before and after the read: in both places the query is not there yet, and the read set is not known.
    for late in [false, true] {
        let (store, _) = store().await;
        let users = define(&store, "users").await;
        let (begun, go, evaluations) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Counter::default());
        let (at, gate, counter) = (Arc::clone(&begun), Arc::clone(&go), evaluations.clone());
        let live = store.live(move |q: QueryContext| {
            let (at, gate, first) = (Arc::clone(&at), Arc::clone(&gate), counter.add() == 1);
            async move {
                let users = q.bucket("users")?;
                let mut count = 0;
                if late {
                    count = users.count(Filter::all()).await?;
                }
                if first {
                    at.notify_one();
                    gate.notified().await;
                }
                if !late {
                    count = users.count(Filter::all()).await?;
                }
                Ok::<_, Error>(count)
            }
        });
        let writer = async {
            begun.notified().await;
            users.insert(admin(1)).await.unwrap();
            go.notify_one();
        };
        let (live, ()) = tokio::join!(live, writer);
        let live = live.unwrap();
        store.settle().await;
        assert_eq!(*live.current(), 1);
        // A change that was read is no reason to read again.
        assert_eq!(evaluations.get(), if late { 2 } else { 1 });
    }
}

#[tokio::test]
async fn bk_38_a_commit_is_one_evaluation_and_changes_during_it_are_one_more() {
    let (store, _) = store().await;
    let users = define(&store, "users").await;
    let (gate, begun, evaluations) = (Arc::new(Semaphore::new(1)), Arc::new(Notify::new()), Counter::default());
    let (pass, at, counter) = (Arc::clone(&gate), Arc::clone(&begun), evaluations.clone());
    let mut live = store
        .live(move |q: QueryContext| {
            let (pass, at) = (Arc::clone(&pass), Arc::clone(&at));
            counter.add();
            async move {
                let count = q.bucket("users")?.count(Filter::all()).await;
                at.notify_one();
                pass.acquire().await.unwrap().forget();
                count
            }
        })
        .await
        .unwrap();
    begun.notified().await;
    assert_eq!(evaluations.take(), 1);

    gate.add_permits(1);
    users.insert_many((0..100).map(admin)).await.unwrap();
    store.settle().await;
    assert_eq!((*live.next().await.unwrap(), evaluations.take()), (100, 1));
    begun.notified().await;

    users.insert(admin(100)).await.unwrap();
    begun.notified().await;
    // The evaluation has read, and has not answered.
    for id in 101..110 {
        users.insert(admin(id)).await.unwrap();
    }
    assert_eq!(evaluations.get(), 1);
    gate.add_permits(2);
    store.settle().await;
    assert_eq!((*live.current(), evaluations.take()), (110, 2));
    // The newest only: what was overtaken is not told.
    assert_eq!(*live.next().await.unwrap(), 110);
    assert!(next_now(&mut live).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_commit_of_many_records_or_buckets_is_one_evaluation_on_many_threads_too() {
    let (store, _) = store().await;
    let (a, b) = (define(&store, "a").await, define(&store, "b").await);
    let evaluations = Counter::default();
    let counter = evaluations.clone();
    let fails = Arc::new(AtomicBool::new(false));
    let failing = Arc::clone(&fails);
    let live = store
        .live(move |q: QueryContext| {
            counter.add();
            let fails = failing.load(Ordering::SeqCst);
            async move {
                let first = q.bucket("a")?.count(Filter::all()).await?;
                if fails {
                    return Err(Error::invalid_argument("on purpose"));
                }
                Ok((first, q.bucket("b")?.count(Filter::all()).await?))
            }
        })
        .await
        .unwrap();
    evaluations.take();
    for round in 0..100 {
        a.insert_many((0..100).map(|id| user(round * 100 + id))).await.unwrap();
        store.settle().await;
        assert_eq!(evaluations.take(), 1, "records, round {round}");
        // An evaluation that fails half way has to hear of the rest of its commit no more than one that succeeds.
        fails.store(round % 2 == 0, Ordering::SeqCst);
        let done = store.transaction(|tx: Transaction| async move {
            for id in 0..10 {
                let id = 100_000 + round * 10 + id;
                tx.bucket("a")?.insert(user(id)).await?;
                tx.bucket("b")?.insert(user(id)).await?;
            }
            Ok::<_, Error>(())
        });
        done.await.unwrap();
        store.settle().await;
        fails.store(false, Ordering::SeqCst);
        assert_eq!(evaluations.take(), 1, "buckets, round {round}");
    }
    assert_eq!(live.current().1, b.count(Filter::all()).await.unwrap());
}

#[tokio::test]
async fn bk_39_a_failing_evaluation_and_a_panicking_callback_are_reported_and_the_next_change_is_told() {
    let (store, failures) = store().await;
    let users = define(&store, "users").await;
    users.insert(user(1)).await.unwrap();
    let mut live = store
        .live(|q: QueryContext| async move {
            let one = q.bucket("users")?.get(1).await?;
            match one.and_then(|one| one.get("n").and_then(|n| n.as_i64())) {
                Some(13) => Err(Error::invalid_argument("thirteen")),
                Some(14) => panic!("fourteen"),
                n => Ok(n),
            }
        })
        .await
        .unwrap();
    let (changes, errors) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let (told, failed) = (Arc::clone(&changes), Arc::clone(&errors));
    live.on_change(move |n| {
        told.lock().unwrap().push(*n);
        assert_ne!(*n, Some(15), "a callback panics");
    });
    live.on_error(move |error| failed.lock().unwrap().push(error.to_string()));
    let set = async |n: i64| {
        users.update(1, record! { "n": n }).await.unwrap();
        store.settle().await;
    };

    set(13).await;
    assert!(matches!(live.next().await, Err(Error::InvalidArgument { .. })));
    assert_eq!(*live.current(), Some(0));
    set(14).await;
    assert!(matches!(live.next().await, Err(Error::UserCode { .. })));
    assert!(next_now(&mut live).await.is_none());
    set(15).await;
    assert_eq!(*live.next().await.unwrap(), Some(15));
    assert_eq!(live.callback_panics(), 1);
    set(16).await;
    assert_eq!(*live.next().await.unwrap(), Some(16));
    assert_eq!(*changes.lock().unwrap(), [Some(15), Some(16)]);
    assert_eq!(errors.lock().unwrap().len(), 2);
    let reported = failures.lock().unwrap();
    assert!(matches!(&reported[..], [failure] if matches!(failure.error, Error::UserCode { .. })), "{reported:?}");
}

#[tokio::test]
async fn a_failure_adds_to_what_was_read_and_a_success_replaces_it() {
    let (store, _) = store().await;
    let users = define(&store, "users").await;
    users.insert_many((1..=3).map(user)).await.unwrap();
    let evaluations = Counter::default();
    let counter = evaluations.clone();
    // It reads 1, and what that says: 2, or 3 and then an error.
    let live = store
        .live(move |q: QueryContext| {
            counter.add();
            async move {
                let users = q.bucket("users")?;
                let number = async |id: i64| Ok::<_, Error>(users.get(id).await?.unwrap().get("n").cloned().unwrap());
                match number(1).await?.as_i64() {
                    Some(0) => number(2).await,
                    Some(1) => number(3).await.and(Err(Error::invalid_argument("on purpose"))),
                    _ => Ok(7.into()),
                }
            }
        })
        .await
        .unwrap();
    evaluations.take();
    let touches = async |id: i64, n: i64| {
        users.update(id, record! { "n": n }).await.unwrap();
        store.settle().await;
        evaluations.take()
    };
    assert_eq!([touches(2, 5).await, touches(3, 5).await], [1, 0]);
    assert_eq!(touches(1, 1).await, 1);
    assert_eq!([touches(2, 6).await, touches(3, 6).await], [1, 1]);
    assert_eq!(touches(1, 2).await, 1);
    assert_eq!([touches(2, 7).await, touches(3, 7).await], [0, 0]);
    assert_eq!(*live.current(), 7.into());
}

#[tokio::test]
async fn a_query_that_is_overtaken_again_and_again_tells_what_it_has_after_four_repeats() {
    let (store, _) = store().await;
    let users = define(&store, "users").await;
    let (evaluations, writer) = (Counter::default(), users.clone());
    let counter = evaluations.clone();
    // It overtakes itself, as a query should not.
    let mut live = store
        .live(move |q: QueryContext| {
            let (evaluation, writer) = (counter.add(), writer.clone());
            async move {
                let count = q.bucket("users")?.count(Filter::all()).await?;
                if evaluation <= 12 {
                    writer.insert(user(i64::try_from(evaluation).unwrap())).await?;
                }
                Ok::<_, Error>(count)
            }
        })
        .await
        .unwrap();
    assert_eq!((*live.current(), evaluations.get()), (4, 5));
    assert_eq!((*live.next().await.unwrap(), evaluations.get()), (9, 10));
    assert_eq!((*live.next().await.unwrap(), evaluations.get()), (12, 13));
    store.settle().await;
    assert_eq!((*live.current(), evaluations.get()), (12, 13));
}

#[tokio::test]
async fn more_changes_during_an_evaluation_than_are_kept_count_as_one_that_touches() {
    for (changes, evaluated) in [(1_024, 1), (1_025, 2)] {
        let (store, _) = store().await;
        let users = define(&store, "users").await;
        let (begun, go, evaluations) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Counter::default());
        let (at, gate, counter) = (Arc::clone(&begun), Arc::clone(&go), evaluations.clone());
        let live = store.live(move |q: QueryContext| {
            let (at, gate, first) = (Arc::clone(&at), Arc::clone(&gate), counter.add() == 1);
            async move {
                let found = q.bucket("users")?.get(-1).await?;
                if first {
                    at.notify_one();
                    gate.notified().await;
                }
                Ok::<_, Error>(found)
            }
        });
        let writer = async {
            begun.notified().await;
            for id in 0..changes {
                users.insert(user(id)).await.unwrap();
            }
            go.notify_one();
        };
        let (live, ()) = tokio::join!(live, writer);
        store.settle().await;
        assert!(live.unwrap().current().is_none());
        assert_eq!(evaluations.get(), evaluated);
    }
}

#[tokio::test]
async fn a_slow_reader_gets_the_newest_result_only() {
    let (store, _) = store().await;
    let users = define(&store, "users").await;
    let (mut live, _) = admins(&store).await;
    for id in 0..3 {
        users.insert(admin(id)).await.unwrap();
        store.settle().await;
    }
    assert_eq!(*live.next().await.unwrap(), 3);
    assert!(next_now(&mut live).await.is_none());
    // Away and back again: nothing differs from what the reader has.
    for role in ["user", "admin"] {
        users.update(1, record! { "role": role }).await.unwrap();
        store.settle().await;
    }
    assert!(next_now(&mut live).await.is_none());
}

#[tokio::test]
async fn a_callback_hears_what_changed_before_it_was_there() {
    let (store, _) = store().await;
    let users = define(&store, "users").await;
    let (live, _) = admins(&store).await;
    users.insert(admin(1)).await.unwrap();
    store.settle().await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let telling = Arc::clone(&told);
    live.on_change(move |count| telling.lock().unwrap().push(*count));
    store.settle().await;
    assert_eq!(*told.lock().unwrap(), [1]);
}

#[tokio::test]
async fn every_way_of_reading_is_noted() {
    type Read = fn(QueryContext) -> std::pin::Pin<Box<dyn Future<Output = Result<String>> + Send>>;
    macro_rules! read {
        (|$users:ident| $read:expr) => {
            (|q| {
                Box::pin(async move {
                    let $users = q.bucket("users")?;
                    Ok(format!("{:?}", $read.await?))
                })
            }) as Read
        };
    }
    use ractor_persistence::records::{Direction, Page, Query};
    let reads: [Read; 14] = [
        read!(|users| users.get(5)),
        read!(|users| users.get_many([1, 5])),
        read!(|users| users.find(Filter::eq("role", "admin"))),
        read!(|users| users.find(Query::all().order_by("n", Direction::Descending).limit(1))),
        read!(|users| users.find_one(Filter::eq("role", "admin"))),
        read!(|users| users.all()),
        read!(|users| users.count(Filter::gt("n", 5))),
        read!(|users| users.first(1)),
        read!(|users| users.last(1)),
        read!(|users| users.paginate(Query::all(), Page::new(10))),
        read!(|users| users.sum("n", Filter::all())),
        read!(|users| users.avg("n", Filter::all())),
        read!(|users| users.min("n", Filter::gt("n", 5))),
        read!(|users| users.max("n", Filter::all())),
    ];
    for (at, read) in reads.into_iter().enumerate() {
        let (store, _) = store().await;
        let users = define(&store, "users").await;
        let mut live = store.live(read).await.unwrap();
        let before = live.current();
        users.insert(record! { "id": 5, "role": "admin", "n": 9 }).await.unwrap();
        store.settle().await;
        let after = next_now(&mut live).await.unwrap_or_else(|| panic!("read {at} was not noted")).unwrap();
        assert_ne!(before, after);
    }
}
