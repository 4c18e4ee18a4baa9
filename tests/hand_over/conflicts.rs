//! What if the participants change, end or are taken over while a hand-over is under way?

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::mpsc;

use ractor_persistence::adapters::memory::MemoryAdapter;
use ractor_persistence::bucket::Transaction;
use ractor_persistence::durable::DurableOptions;
use ractor_persistence::{Channel, Durability, Durable, Error, Result, Retry};

use crate::world::*;

#[tokio::test]
async fn a_participant_that_changes_in_between_is_a_conflict_and_the_next_attempt_sees_it() {
    let store = start(MemoryAdapter::default()).await;
    let hands = Hands::open(&store).await;
    for (attempts, other) in [(1, "channel"), (2, "channel"), (1, "value"), (2, "value")] {
        let before = hands.stand().await;
        let tried = AtomicU32::new(0);
        let outcome = store
            .transaction(async |tx| {
                let first = tried.fetch_add(1, Ordering::SeqCst) == 0;
                let message = hands.work(&tx).await?;
                if first && other == "channel" {
                    hands.orders.wrap_new("in between").await?;
                } else if first {
                    hands.number.update(|number| *number += 0)?;
                }
                Ok::<_, Error>(message)
            })
            .retry(Retry::default().with_attempts(attempts))
            .await;
        assert_eq!(tried.into_inner(), attempts, "{other}");
        match outcome {
            Ok(message) => assert!(attempts == 2 && message.bytes().is_some()),
            Err(error) => {
                assert!(attempts == 1 && matches!(error, Error::Conflict { .. }), "{error:?}");
                let shown = error.to_string();
                assert!(shown.contains("orders") || shown.contains("number"), "{shown}");
            }
        }
        assert_eq!(hands.stand().await, before + i64::from(attempts == 2));
    }
}

#[tokio::test]
async fn a_function_that_fails_on_what_is_stale_is_tried_again() {
    let store = start(MemoryAdapter::default()).await;
    let hands = Hands::open(&store).await;
    let tried = AtomicU32::new(0);
    let outcome = store
        .transaction(async |tx| {
            let first = tried.fetch_add(1, Ordering::SeqCst) == 0;
            let seen = tx.join(&hands.number)?.get()?;
            if first {
                hands.number.update(|number| *number = 7)?;
            }
            if seen == 0 { Err(Error::invalid_argument("nothing to hand over")) } else { Ok(seen) }
        })
        .retry(Retry::default())
        .await;
    assert_eq!((outcome.unwrap(), tried.into_inner()), (7, 2));
}

#[tokio::test]
async fn a_value_that_is_taken_over_or_being_changed_refuses_the_hand_over() {
    let store = start(MemoryAdapter::default()).await;
    let hands = Hands::open(&store).await;
    let heir = Kept::none();
    let outcome = store
        .transaction(async |tx| {
            let message = hands.work(&tx).await?;
            heir.put(store.durable::<i64>("number", DurableOptions::default()).await?);
            Ok::<_, Error>(message)
        })
        .await;
    assert!(matches!(outcome, Err(Error::Superseded { .. })), "{outcome:?}");
    let hands = Hands { number: heir.take(), ..hands };
    assert_eq!(hands.stand().await, 0);

    // Somebody takes his time to change the value, on another thread.
    let ((inside, entered), (leave, wait)) = (mpsc::channel(), mpsc::channel::<()>());
    let number = hands.number.clone();
    let slow = std::thread::spawn(move || {
        number.update(|number| {
            inside.send(()).unwrap();
            wait.recv().unwrap();
            *number += 0;
        })
    });
    entered.recv().unwrap();
    let outcome = store.transaction(async |tx| hands.work(&tx).await).await;
    assert!(matches!(outcome, Err(Error::Conflict { .. })), "{outcome:?}");
    leave.send(()).unwrap();
    slow.join().unwrap().unwrap();
    hands.hand_over(Durability::Ram).await.unwrap();
    assert_eq!(hands.stand().await, 1);
}

#[tokio::test]
async fn a_channel_that_is_closed_in_between_refuses_the_hand_over() {
    let store = start(MemoryAdapter::default()).await;
    let hands = Hands::open(&store).await;
    let outcome = store
        .transaction(async |tx| {
            let message = hands.work(&tx).await?;
            store.close_channel("orders").await?;
            Ok::<_, Error>(message)
        })
        .await;
    assert!(matches!(outcome, Err(Error::UnknownChannel { .. })), "{outcome:?}");
    let orders = store.open_channel("orders", channel_options("us")).await.unwrap();
    let hands = Hands { orders, ..hands };
    assert_eq!(hands.stand().await, 0);
}

/// Hands over until told to stop or refused; answers how often that was done.
async fn keep_handing_over(hands: Hands, done: Arc<AtomicBool>) -> (i64, Option<Error>) {
    let mut handed = 0;
    while !done.load(Ordering::SeqCst) {
        match hands.hand_over(Durability::Ram).await {
            Ok(message) => {
                assert!(message.bytes().is_some());
                handed += 1;
            }
            Err(Error::Conflict { .. }) => {}
            Err(error) => return (handed, Some(error)),
        }
        tokio::task::yield_now().await;
    }
    (handed, None)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_hand_over_of_many_at_once_is_lost_nor_what_others_do_meanwhile() {
    let store = start(MemoryAdapter::default()).await;
    let hands = Hands::open(&store).await;
    let done = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..3).map(|_| tokio::spawn(keep_handing_over(hands.clone(), Arc::clone(&done)))).collect();
    let mut aside = 0;
    for _ in 0..60 {
        hands.orders.wrap_new("aside").await.unwrap();
        aside += 1;
        hands.number.update(|number| *number += 0).unwrap();
        tokio::task::yield_now().await;
    }
    // On a slow machine, until there is something to look at.
    while hands.number.get() < 20 {
        tokio::task::yield_now().await;
    }
    done.store(true, Ordering::SeqCst);
    let mut handed = 0;
    for task in tasks {
        let (count, error) = task.await.unwrap();
        assert!(error.is_none(), "{error:?}");
        handed += count;
    }
    assert_eq!(hands.number.get(), handed);
    let history = hands.orders.history().await.unwrap();
    assert_eq!(i64::try_from(history.len()).unwrap(), (handed + aside).min(1_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_handed_over_while_the_channel_is_closed_or_the_store_stops_is_on_disk() {
    for round in 0..8 {
        let adapter = MemoryAdapter::default();
        let store = start(adapter.clone()).await;
        let hands = Hands::open(&store).await;
        let done = Arc::new(AtomicBool::new(false));
        let tasks: Vec<_> = (0..2).map(|_| tokio::spawn(keep_handing_over(hands.clone(), Arc::clone(&done)))).collect();
        while hands.number.get() < 10 {
            tokio::task::yield_now().await;
        }
        if round % 2 == 0 {
            store.close_channel("orders").await.unwrap();
        } else {
            let report = store.stop().await.unwrap();
            assert!(report.unsaved.is_empty(), "{report:?}");
        }
        let mut handed = 0;
        for task in tasks {
            let (count, error) = task.await.unwrap();
            assert!(
                matches!(error, Some(Error::UnknownChannel { .. } | Error::Stopping | Error::ActorLost { .. })),
                "{error:?}"
            );
            handed += count;
        }
        if round % 2 == 0 {
            assert!(store.stop().await.unwrap().unsaved.is_empty());
        }
        let store = start(adapter).await;
        assert_eq!(Hands::open(&store).await.stand().await, handed, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn transactions_that_join_in_different_orders_never_wait_for_each_other() {
    let store = start(MemoryAdapter::default()).await;
    let (mut values, mut channels): (Vec<Durable<i64>>, Vec<Channel>) = (Vec::new(), Vec::new());
    for at in 0..3 {
        values.push(store.durable(&format!("v{at}"), DurableOptions::default()).await.unwrap());
        channels.push(store.open_channel(&format!("c{at}"), channel_options("us")).await.unwrap());
    }
    let committed = Arc::new(AtomicI64::new(0));
    let (values, channels) = (Arc::new(values), Arc::new(channels));
    let tasks: Vec<_> = (0..4)
        .map(|task| {
            let (store, values, channels) = (store.clone(), Arc::clone(&values), Arc::clone(&channels));
            let committed = Arc::clone(&committed);
            tokio::spawn(async move {
                let mut random = Random(task);
                for _ in 0..200 {
                    let order: Vec<usize> = (0..4).map(|_| usize::try_from(random.below(6)).unwrap()).collect();
                    let outcome = store.transaction(|tx| join_in(tx, &order, &values, &channels)).await;
                    match outcome {
                        Ok(changed) => drop(committed.fetch_add(changed, Ordering::SeqCst)),
                        Err(Error::Conflict { .. }) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let committed = committed.load(Ordering::SeqCst);
    assert!(committed > 0);
    assert_eq!(values.iter().map(|value| value.get()).sum::<i64>(), committed);
}

/// Changes participants in an order; answers how many changes of values that were.
async fn join_in(tx: Transaction, order: &[usize], values: &[Durable<i64>], channels: &[Channel]) -> Result<i64> {
    let mut changed = 0;
    for at in order {
        match values.get(*at) {
            Some(value) => {
                tx.join(value)?.update(|number| *number += 1)?;
                changed += 1;
            }
            None => drop(tx.join(&channels[*at - 3])?.send("x")?),
        }
        tokio::task::yield_now().await;
    }
    Ok(changed)
}
