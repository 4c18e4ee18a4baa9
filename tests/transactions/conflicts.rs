//! Does a transaction notice everything that would make it differ from one that runs alone?

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ractor_persistence::base::error::{Error, Outcome};
use ractor_persistence::base::value::Key;
use ractor_persistence::bucket::{Bucket, Retry, Transaction, TransactionBucket};
use ractor_persistence::record;
use ractor_persistence::records::{Filter, Page, Patch, Query};

use crate::world::*;

fn is_conflict<T: std::fmt::Debug>(outcome: &Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::Conflict { .. }))
}

#[tokio::test]
async fn bk_40_a_record_that_was_read_and_changed_outside_is_a_conflict_and_the_outside_value_stands() {
    let (store, a, _) = bank().await;
    for late in [false, true] {
        let outside = a.clone();
        let outcome = store
            .transaction(|tx| {
                let outside = outside.clone();
                async move {
                    let a = tx.bucket("a")?;
                    let read = amount_of(&a.get("x").await?.unwrap());
                    if late {
                        a.update("x", record! { "amount": read + 1 }).await?;
                    }
                    outside.update("x", record! { "amount": 500 }).await?;
                    if !late {
                        a.update("x", record! { "amount": read + 1 }).await?;
                    }
                    Ok::<_, Error>(())
                }
            })
            .await;
        let Err(Error::Conflict { bucket, key }) = outcome else { panic!("{outcome:?}") };
        assert_eq!((bucket.as_str(), key), ("a", Some(Key::from("x"))));
        assert_eq!(amount(&a, "x").await, 500);
    }
    assert_eq!(a.get("x").await.unwrap().unwrap().version(), 3);
}

#[tokio::test]
async fn bk_41_of_two_transactions_that_read_two_records_and_write_one_each_one_commits() {
    let (store, a, b) = bank().await;
    // Both have read both before either commits.
    let both = Arc::new(tokio::sync::Barrier::new(2));
    let run = |mine: &'static str| {
        let (store, both) = (store.clone(), both.clone());
        tokio::spawn(async move {
            let function = |tx: Transaction| {
                let both = both.clone();
                async move {
                    let (a, b) = (tx.bucket("a")?, tx.bucket("b")?);
                    let sum = amount_of(&a.get("x").await?.unwrap()) + amount_of(&b.get("x").await?.unwrap());
                    both.wait().await;
                    tx.bucket(mine)?.update("x", record! { "amount": sum - 300 }).await?;
                    Ok::<_, Error>(())
                }
            };
            store.transaction(function).await
        })
    };
    let outcomes = [run("a"), run("b")];
    let [first, second] = outcomes;
    let outcomes = [first.await.unwrap(), second.await.unwrap()];
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|outcome| is_conflict(outcome)).count(), 1);
    let mut left = [amount(&a, "x").await, amount(&b, "x").await];
    left.sort_unstable();
    assert_eq!(left, [-100, 100]);
}

/// Reads in a transaction, changes something outside, writes an unrelated record; answers the outcome.
async fn after<Read>(read: Read, change: impl AsyncFn(&Bucket)) -> Result<(), Error>
where
    Read: AsyncFn(&TransactionBucket) -> Result<(), Error>,
{
    let (store, a, _) = bank().await;
    // What runs is one task, so that the borrowing stays simple: the function is given what it needs by channels.
    let (begun, mut has_begun) = tokio::sync::mpsc::channel::<TransactionBucket>(1);
    let (go, wait) = tokio::sync::oneshot::channel::<()>();
    let wait = Mutex::new(Some(wait));
    let transaction = store.transaction(|tx| {
        let begun = begun.clone();
        let wait = wait.lock().unwrap().take();
        async move {
            begun.send(tx.bucket("a")?).await.unwrap();
            wait.unwrap().await.unwrap();
            tx.bucket("b")?.update("x", record! { "amount": 1 }).await?;
            Ok::<_, Error>(())
        }
    });
    let outside = async {
        let bucket = has_begun.recv().await.unwrap();
        read(&bucket).await.unwrap();
        change(&a).await;
        go.send(()).unwrap();
    };
    tokio::join!(transaction, outside).0
}

#[tokio::test]
async fn bk_42_a_predicate_that_was_read_conflicts_with_what_matches_before_or_after_and_with_nothing_else() {
    let insert = |amount: i64| {
        async move |bucket: &Bucket| {
            bucket.insert(record! { "id": "new", "amount": amount }).await.unwrap();
        }
    };
    let set = |amount: i64| {
        async move |bucket: &Bucket| {
            bucket.update("x", record! { "amount": amount }).await.unwrap();
        }
    };
    let rich = || Filter::ge("amount", 500);
    let count = async |bucket: &TransactionBucket| bucket.count(rich()).await.map(drop);
    assert!(is_conflict(&after(count, insert(500)).await));
    assert!(after(count, insert(499)).await.is_ok());
    assert!(is_conflict(&after(count, set(500)).await));
    assert!(after(count, set(499)).await.is_ok());
    let poor = async |bucket: &TransactionBucket| bucket.find(Filter::lt("amount", 500)).await.map(drop);
    assert!(is_conflict(&after(poor, set(499)).await), "it matched before and does after");
    assert!(is_conflict(&after(poor, set(500)).await), "it matched before");
    assert!(after(poor, insert(500)).await.is_ok());
    let delete = async |bucket: &Bucket| assert!(bucket.delete("x").await.unwrap());
    assert!(is_conflict(&after(poor, delete).await));
    assert!(after(count, delete).await.is_ok());
    let clear = async |bucket: &Bucket| assert!(bucket.clear().await.unwrap() > 0);
    assert!(is_conflict(&after(count, clear).await), "a clear touches everything that was read");

    // Every kind of read counts.
    let sum = async |bucket: &TransactionBucket| bucket.sum("amount", rich()).await.map(drop);
    let one = async |bucket: &TransactionBucket| bucket.find_one(rich()).await.map(drop);
    let max = async |bucket: &TransactionBucket| bucket.max("amount", rich()).await.map(drop);
    let none = async |bucket: &TransactionBucket| bucket.delete_many(rich()).await.map(drop);
    assert!(is_conflict(&after(sum, insert(500)).await) && after(sum, insert(499)).await.is_ok());
    assert!(is_conflict(&after(one, insert(500)).await) && after(one, insert(499)).await.is_ok());
    assert!(is_conflict(&after(max, insert(500)).await) && after(max, insert(499)).await.is_ok());
    assert!(is_conflict(&after(none, insert(500)).await) && after(none, insert(499)).await.is_ok());
    let all = async |bucket: &TransactionBucket| bucket.all().await.map(drop);
    let first = async |bucket: &TransactionBucket| bucket.first(1).await.map(drop);
    let page = async |bucket: &TransactionBucket| bucket.paginate(Query::new(rich()), Page::new(1)).await.map(drop);
    assert!(is_conflict(&after(all, insert(0)).await) && is_conflict(&after(first, insert(0)).await));
    assert!(is_conflict(&after(page, insert(0)).await), "a page depends on the whole bucket");
    // A key that was absent, and one that is another's business.
    let absent = async |bucket: &TransactionBucket| bucket.get("new").await.map(drop);
    let refused = async |bucket: &TransactionBucket| {
        assert!(bucket.update("new", record! {}).await.is_err());
        Ok(())
    };
    let other = async |bucket: &TransactionBucket| bucket.get_many(["y", "z"]).await.map(drop);
    assert!(is_conflict(&after(absent, insert(0)).await) && after(absent, set(0)).await.is_ok());
    assert!(is_conflict(&after(refused, insert(0)).await));
    assert!(after(other, insert(0)).await.is_ok() && after(other, set(0)).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn bk_45_a_hundred_concurrent_transactions_that_insert_generated_ids_all_commit_with_distinct_ones() {
    let (builder, _) = builder();
    let store = builder.start().await.unwrap();
    let bucket = store.define_bucket(numbered("numbers")).await.unwrap();
    let run = |task: i64| {
        let store = store.clone();
        tokio::spawn(async move {
            let function = |tx: Transaction| async move {
                let numbers = tx.bucket("numbers")?;
                let one = numbers.insert(record! { "task": task }).await?;
                tokio::task::yield_now().await;
                let more = numbers.insert_many([record! { "task": task }, record! { "task": task }]).await?;
                Ok::<_, Error>([one.key().clone(), more[0].key().clone(), more[1].key().clone()])
            };
            store.transaction(function).retry(Retry::default()).await.unwrap()
        })
    };
    let tasks: Vec<_> = (0..100).map(run).collect();
    let mut given = Vec::new();
    for task in tasks {
        given.extend(task.await.unwrap());
    }
    given.sort();
    given.dedup();
    assert_eq!(given.len(), 300);
    let mut found: Vec<Key> = bucket.all().await.unwrap().iter().map(|record| record.key().clone()).collect();
    found.sort();
    assert_eq!(found, given);
    assert_eq!(bucket.insert(record! {}).await.unwrap().key().as_value().as_i64(), Some(301));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn bk_47_who_only_reads_sees_the_same_sum_whatever_others_move_between_two_buckets() {
    let (store, _, _) = bank().await;
    let done = Arc::new(AtomicBool::new(false));
    let movers: Vec<_> = (0..3)
        .map(|task| {
            let (store, done) = (store.clone(), done.clone());
            tokio::spawn(async move {
                let mut random = Random(task);
                let mut moved = 0;
                while !done.load(Ordering::Relaxed) {
                    let (from, to) = if random.below(2) == 0 { ("a", "b") } else { ("b", "a") };
                    let id = if random.below(2) == 0 { "x" } else { "y" };
                    let by = random.int(50);
                    let function = |tx: Transaction| async move {
                        tx.bucket(from)?.patch(id, Patch::new().increment("amount", -by)).await?;
                        tokio::task::yield_now().await;
                        tx.bucket(to)?.patch(id, Patch::new().increment("amount", by)).await?;
                        Ok::<_, Error>(())
                    };
                    moved += u32::from(store.transaction(function).retry(Retry::default()).await.is_ok());
                }
                moved
            })
        })
        .collect();
    let mut sums = 0;
    while sums < 200 {
        let function = |tx: Transaction| async move {
            let first = tx.bucket("a")?.sum("amount", Filter::all()).await?.as_i64().unwrap();
            tokio::task::yield_now().await;
            let second = tx.bucket("b")?.find(Filter::all()).await?;
            Ok::<_, Error>(first + second.iter().map(|record| amount_of(record)).sum::<i64>())
        };
        match store.transaction(function).retry(Retry::default().with_attempts(3)).await {
            Ok(sum) => {
                assert_eq!(sum, 400);
                sums += 1;
            }
            Err(error) => assert!(matches!(error, Error::Conflict { .. }), "{error:?}"),
        }
    }
    done.store(true, Ordering::Relaxed);
    for mover in movers {
        assert!(mover.await.unwrap() > 0);
    }
}

#[derive(Debug)]
enum Mine {
    Reason(u32),
    #[allow(dead_code, reason = "shown where a test fails")]
    Store(Error),
}

impl From<Error> for Mine {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

#[tokio::test]
async fn bk_49_what_fails_or_panics_applies_nothing_and_passes_unchanged_and_an_endless_conflict_ends() {
    let (store, a, b) = bank().await;
    let mut events = store.subscribe("bucket.*").unwrap();
    let write = |tx: Transaction| async move {
        tx.bucket("a")?.update("x", record! { "amount": 1 }).await?;
        tx.bucket("b")?.insert(record! { "id": "z" }).await?;
        Ok::<_, Error>(())
    };
    for attempts in [1, 5] {
        let runs = AtomicU32::new(0);
        let failing = store.transaction(|tx| {
            let run = runs.fetch_add(1, Ordering::Relaxed);
            async move {
                write(tx).await?;
                Err::<(), _>(Mine::Reason(run))
            }
        });
        let outcome = failing.retry(Retry::default().with_attempts(attempts)).await;
        assert!(matches!(outcome, Err(Mine::Reason(0))), "{outcome:?}");
        let panicking = store.transaction(|tx| async move {
            write(tx).await?;
            if true {
                panic!("on purpose");
            }
            Ok::<_, Error>(())
        });
        let retried = panicking.retry(Retry::default().with_attempts(attempts)).into_future();
        let panicked = std::panic::AssertUnwindSafe(retried);
        assert!(tokio::task::LocalSet::new().run_until(caught(panicked)).await);
    }
    assert_eq!((revision(&a).await, revision(&b).await), (2, 2));
    assert!(told(&mut events).is_empty());

    // Somebody else is always faster.
    for attempts in [1, 4, 8] {
        let runs = AtomicU32::new(0);
        let outside = a.clone();
        let endless = store.transaction(|tx| {
            runs.fetch_add(1, Ordering::Relaxed);
            let outside = outside.clone();
            async move {
                tx.bucket("a")?.get("x").await?;
                outside.patch("x", Patch::new().increment("amount", 1)).await?;
                tx.bucket("b")?.update("x", record! { "amount": 1 }).await?;
                Ok::<_, Error>(())
            }
        });
        let outcome =
            if attempts == 1 { endless.await } else { endless.retry(Retry::default().with_attempts(attempts)).await };
        assert!(is_conflict(&outcome), "{outcome:?}");
        assert_eq!(runs.load(Ordering::Relaxed), attempts);
    }
    assert_eq!(revision(&b).await, 2);
    for attempts in [0, 101] {
        let outcome = store.transaction(write).retry(Retry::default().with_attempts(attempts)).await;
        assert!(matches!(outcome, Err(Error::InvalidArgument { .. })));
    }
}

/// Whether a future panics.
async fn caught(future: impl Future) -> bool {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| {
        let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| future.as_mut().poll(cx).is_ready()));
        match polled {
            Ok(false) => std::task::Poll::Pending,
            Ok(true) => std::task::Poll::Ready(false),
            Err(_) => std::task::Poll::Ready(true),
        }
    })
    .await
}

#[tokio::test]
async fn a_function_that_fails_on_reads_that_are_stale_by_then_is_repeated() {
    let (store, a, _) = bank().await;
    let runs = AtomicU32::new(0);
    let outside = a.clone();
    let outcome = store
        .transaction(|tx| {
            let (run, outside) = (runs.fetch_add(1, Ordering::Relaxed), outside.clone());
            async move {
                let a = tx.bucket("a")?;
                let found = amount_of(&a.get("x").await?.unwrap());
                if run == 0 {
                    outside.update("x", record! { "amount": 7 }).await?;
                }
                if found == 7 { Ok(run) } else { Err(Mine::Reason(run)) }
            }
        })
        .retry(Retry::default())
        .await;
    assert!(matches!(outcome, Ok(1)), "{outcome:?}");
}

#[tokio::test]
async fn who_only_reads_conflicts_as_well_and_who_reads_nothing_that_changes_does_not() {
    let (store, a, b) = bank().await;
    for (read, conflicts) in [("x", true), ("y", false)] {
        let outside = a.clone();
        let outcome = store
            .transaction(|tx| {
                let outside = outside.clone();
                async move {
                    tx.bucket("a")?.get(read).await?;
                    outside.patch("x", Patch::new().increment("amount", 1)).await?;
                    Ok::<_, Error>(())
                }
            })
            .await;
        assert_eq!(is_conflict(&outcome), conflicts, "{outcome:?}");
    }
    assert_eq!(revision(&b).await, 2, "reads are no commits");
}

#[tokio::test]
async fn a_read_that_is_repeated_is_the_same_record_and_own_writes_are_seen() {
    let (store, _, _) = bank().await;
    let function = |tx: Transaction| async move {
        let a = tx.bucket("a")?;
        let first = a.get("x").await?.unwrap();
        assert!(Arc::ptr_eq(&first, &a.get("x").await?.unwrap()));
        a.update("x", record! { "amount": 7, "email": "e" }).await?;
        a.insert(record! { "id": "n", "amount": 7 }).await?;
        a.delete("y").await?;
        assert_eq!(a.get("x").await?.unwrap().version(), 2);
        let seven = a.find(Filter::eq("amount", 7)).await?;
        assert_eq!(seven.iter().map(|record| record.key().to_string()).collect::<Vec<_>>(), ["x", "n"]);
        assert_eq!((a.count(Filter::all()).await?, a.count(Filter::eq("amount", 100)).await?), (2, 0));
        assert_eq!(a.find_one(Filter::eq("email", "e")).await?.unwrap().key(), &"x".into());
        assert_eq!(a.get_many(["y", "n", "x"]).await?.iter().flatten().count(), 2);
        assert_eq!(a.sum("amount", Filter::all()).await?, 14.into());
        assert_eq!(a.all().await?.len() + a.first(9).await?.len() + a.last(9).await?.len(), 6);
        assert_eq!(a.paginate(Filter::all(), Page::new(1)).await?.records[0].key(), &"x".into());
        assert!(matches!(a.update("y", record! {}).await, Err(Error::NotFound { .. })));
        assert!(matches!(a.insert(record! { "id": "x" }).await, Err(Error::DuplicateKey { .. })));
        assert!(matches!(a.update_if("x", 1, record! {}).await, Err(Error::VersionMismatch { actual: 2, .. })));
        assert!(matches!(a.insert(record! { "id": 1 }).await, Err(Error::Validation { .. })));
        assert_eq!(a.delete_many(Filter::eq("amount", 7)).await?, 2);
        assert_eq!(a.count(Filter::all()).await?, 0);
        a.insert_many([record! { "id": "n" }, record! { "id": "m" }]).await?;
        assert!(a.insert_many([record! { "id": "q" }, record! { "id": "m" }]).await.is_err());
        assert!(a.get("q").await?.is_none(), "all or none of a list");
        Ok::<_, Error>(())
    };
    store.transaction(function).await.unwrap();
    assert_eq!(ids(&store.bucket("a").unwrap()).await, ["n", "m"]);
}

#[tokio::test]
async fn a_handle_that_outlives_its_transaction_is_closed_however_that_ended() {
    for end in ["commits", "fails", "panics", "is dropped", "conflicts"] {
        let (store, a, _) = bank().await;
        let kept: Arc<Mutex<Option<TransactionBucket>>> = Arc::default();
        let keep = kept.clone();
        let outside = a.clone();
        let transaction = store.transaction(move |tx| {
            let (keep, outside) = (keep.clone(), outside.clone());
            async move {
                let bucket = tx.bucket("a")?;
                bucket.update("x", record! { "amount": 1 }).await?;
                *keep.lock().unwrap() = Some(bucket);
                match end {
                    "fails" => return Err(Error::unsupported("this")),
                    "panics" => panic!("on purpose"),
                    "is dropped" => std::future::pending::<()>().await,
                    "conflicts" => drop(outside.update("x", record! { "amount": 2 }).await?),
                    _ => {}
                }
                Ok::<_, Error>(())
            }
        });
        let mut running = Box::pin(caught(transaction.into_future()));
        let over =
            tokio::time::timeout(Duration::from_millis(if end == "is dropped" { 20 } else { 5_000 }), &mut running);
        assert_eq!(over.await.is_err(), end == "is dropped", "{end}");
        drop(running);
        let bucket = kept.lock().unwrap().take().unwrap();
        assert!(matches!(bucket.get("x").await, Err(Error::TransactionClosed)), "{end}");
        assert!(matches!(bucket.update("x", record! {}).await, Err(Error::TransactionClosed)), "{end}");
        assert!(matches!(bucket.count(Filter::all()).await, Err(Error::TransactionClosed)), "{end}");
        let expected = match end {
            "commits" => 1,
            "conflicts" => 2,
            _ => 100,
        };
        assert_eq!(amount(&a, "x").await, expected, "{end}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_transaction_gives_up_on_a_bucket_that_has_no_turn_for_it_in_time_and_applies_nothing() {
    let (store, a, slow) = bank().await;
    // Sinks run in the bucket's turn: this one keeps it.
    let (free, held) = std::sync::mpsc::channel::<()>();
    let held = Mutex::new(held);
    let keep = move |_: &ractor_persistence::bus::Event| {
        let _freed = held.lock().unwrap().recv();
    };
    let pattern = ractor_persistence::bus::Pattern::parse("bucket.b.inserted").unwrap();
    let _kept = store.bus().subscribe_sink(pattern, Arc::new(keep));
    let (begun, release) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let running = {
        let (store, begun, release) = (store.clone(), begun.clone(), release.clone());
        tokio::spawn(async move {
            let function = |tx: Transaction| {
                let (begun, release) = (begun.clone(), release.clone());
                async move {
                    tx.bucket("a")?.update("x", record! { "amount": 1 }).await?;
                    tx.bucket("b")?.update("x", record! { "amount": 2 }).await?;
                    begun.notify_one();
                    release.notified().await;
                    Ok::<_, Error>(())
                }
            };
            store.transaction(function).timeout(Duration::from_millis(50)).await
        })
    };
    begun.notified().await;
    let inserting = slow.clone();
    let inserting = tokio::spawn(async move { inserting.insert(record! { "id": "busy" }).await });
    while slow.get("busy").await.unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    release.notify_one();
    let outcome = running.await.unwrap();
    assert!(matches!(outcome, Err(Error::Timeout { outcome: Outcome::NotApplied })), "{outcome:?}");
    free.send(()).unwrap();
    inserting.await.unwrap().unwrap();
    // Both go on, and nothing of it is applied later.
    a.update("y", record! { "amount": 3 }).await.unwrap();
    assert_eq!(slow.stats().await.unwrap().records, 3);
    assert_eq!(amount(&a, "x").await, 100);
    assert_eq!(slow.get("x").await.unwrap().unwrap().version(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_future_that_is_dropped_anywhere_leaves_all_or_nothing_and_both_buckets_going() {
    let (store, a, b) = bank().await;
    let mut applied = 0;
    for steps in 0..60 {
        let before = (amount(&a, "x").await, amount(&b, "x").await);
        let transaction = store.transaction(|tx| async move {
            tx.bucket("a")?.patch("x", Patch::new().increment("amount", -1)).await?;
            tx.bucket("b")?.patch("x", Patch::new().increment("amount", 1)).await?;
            Ok::<_, Error>(())
        });
        let mut running = transaction.into_future();
        for _ in 0..steps / 4 {
            let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(running.as_mut().poll(cx).is_ready())).await;
            if polled {
                break;
            }
            tokio::time::sleep(Duration::from_micros(steps * 10)).await;
        }
        drop(running);
        a.update("y", record! { "amount": 0 }).await.unwrap();
        b.update("y", record! { "amount": 0 }).await.unwrap();
        let after = (amount(&a, "x").await, amount(&b, "x").await);
        assert_eq!(after.0 + after.1, 200);
        assert!(after == before || after == (before.0 - 1, before.1 + 1));
        applied += u32::from(after != before);
    }
    assert!(applied > 0 && applied < 60, "{applied}");
}

#[tokio::test]
async fn a_transaction_that_began_before_a_restart_conflicts() {
    let (store, a, _) = bank().await;
    let runs = AtomicU32::new(0);
    let outside = a.clone();
    let function = |tx: Transaction| {
        let (run, outside) = (runs.fetch_add(1, Ordering::Relaxed), outside.clone());
        async move {
            let a = tx.bucket("a")?;
            let there = a.get("x").await?.is_some();
            if run == 0 {
                kill(&outside).await;
            }
            a.upsert(record! { "id": "n", "there": there }).await?;
            Ok::<_, Error>(run)
        }
    };
    assert_eq!(store.transaction(function).retry(Retry::default()).await.unwrap(), 1);
    // It was in memory only, and has lost everything else.
    assert_eq!(a.get("n").await.unwrap().unwrap().get("there"), Some(&false.into()));
}

#[tokio::test]
async fn too_many_changes_to_remember_are_a_conflict_for_what_was_read_before_them() {
    for (changes, conflicts) in [(4_000, false), (4_200, true)] {
        let (store, a, _) = bank().await;
        let outside = a.clone();
        let function = |tx: Transaction| {
            let outside = outside.clone();
            async move {
                tx.bucket("a")?.get("x").await?;
                let many = (0..changes).map(|id| record! { "id": format!("{id}") });
                outside.insert_many(many).await?;
                tx.bucket("a")?.update("x", record! { "amount": 1 }).await?;
                Ok::<_, Error>(())
            }
        };
        assert_eq!(is_conflict(&store.transaction(function).await), conflicts);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "defaults are made under the table's lock: who begins or ends a transaction meanwhile waits for it, and all who read wait for him"]
async fn a_default_that_takes_long_holds_up_neither_reads_nor_transactions() {
    use ractor_persistence::records::{BucketDefinition, Field};
    let (builder, _) = builder();
    let store = builder.start().await.unwrap();
    let (free, held) = std::sync::mpsc::channel::<()>();
    let (held, making) = (Mutex::new(held), Arc::new(AtomicBool::new(false)));
    let begun = making.clone();
    let wait = move || -> i64 {
        begun.store(true, Ordering::SeqCst);
        let _free = held.lock().unwrap().recv();
        1
    };
    let definition = BucketDefinition::new("slow").key("id").field("id", Field::string());
    let slow = store.define_bucket(definition.field("made", Field::int().default_with(wait))).await.unwrap();
    slow.insert(record! { "id": "x", "made": 1 }).await.unwrap();
    let inserting = slow.clone();
    let inserting = tokio::spawn(async move { inserting.insert(record! { "id": "y" }).await });
    while !making.load(Ordering::SeqCst) {
        tokio::task::yield_now().await;
    }
    let transaction = tokio::spawn(async move {
        let outcome = store
            .transaction(|tx| async move {
                tx.bucket("slow")?.get("x").await?;
                Err::<(), _>(Error::unsupported("this"))
            })
            .await;
        assert!(matches!(outcome, Err(Error::Unsupported { .. })));
    });
    let ended = tokio::time::timeout(Duration::from_millis(500), transaction).await;
    let reader = slow.clone();
    let read = tokio::spawn(async move { reader.get("x").await });
    let read = tokio::time::timeout(Duration::from_millis(500), read).await;
    free.send(()).unwrap();
    inserting.await.unwrap().unwrap();
    assert!(ended.is_ok() && read.is_ok());
}

/// Without one order in which transactions queue up for their buckets, two of them would each have some of the buckets and
/// wait for the others', until both are given up. There are many buckets, so that they take long enough to queue up.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn transactions_over_the_same_buckets_never_wait_for_each_other() {
    const NAMES: [&str; 16] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"];
    const TASKS: usize = 8;
    const ROUNDS: usize = 100;
    let store = builder().0.start().await.unwrap();
    for name in NAMES {
        store.define_bucket(accounts(name)).await.unwrap();
    }
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                for round in 0..ROUNDS {
                    let id = format!("{task}-{round}");
                    let everywhere = |tx: Transaction| {
                        let id = id.clone();
                        async move {
                            for name in NAMES {
                                tx.bucket(name)?.insert(record! { "id": &*id, "amount": 1 }).await?;
                            }
                            Ok::<_, Error>(())
                        }
                    };
                    let outcome = store.transaction(everywhere).await;
                    assert!(outcome.is_ok(), "{id}: {outcome:?}");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    for name in NAMES {
        assert_eq!(store.bucket(name).unwrap().count(Filter::all()).await.unwrap(), TASKS * ROUNDS);
    }
}
