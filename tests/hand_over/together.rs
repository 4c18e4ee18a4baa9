//! What does a hand-over do, and what does one that fails leave?

use ractor_persistence::adapters::memory::MemoryAdapter;
use ractor_persistence::bucket::Transaction;
use ractor_persistence::channel::{ChannelDelivery, ReceivedInside};
use ractor_persistence::durable::DurableOptions;
use ractor_persistence::sds::{ChannelEvent, ReceiveStatus};
use ractor_persistence::testkit::{Fault, FaultAdapter, Operation};
use ractor_persistence::{Durability, Durable, Error, Result, Retry, Store};

use crate::world::*;

/// A channel's stats, history and events so far, to be compared.
async fn traces(hands: &Hands) -> String {
    format!("{:?} {:?}", hands.orders.stats().await.unwrap(), hands.orders.history().await.unwrap())
}

#[tokio::test]
async fn a_hand_over_changes_all_of_its_participants_and_releases_its_bytes_after_the_commit() {
    let adapter = MemoryAdapter::default();
    let store = start(adapter.clone()).await;
    let hands = Hands::open(&store).await;
    let inside = Kept::none();
    for number in 1..=3 {
        let message = store
            .transaction(async |tx| {
                let message = hands.work(&tx).await?;
                assert!(message.bytes().is_none(), "nothing leaves before the commit");
                assert_eq!(hands.number.get(), number - 1, "nothing is seen before the commit");
                assert_eq!(tx.join(&hands.number)?.get()?, number, "but within");
                assert_eq!(tx.join(&hands.orders)?.history()?.len(), usize::try_from(number).unwrap());
                inside.put(message.clone());
                Ok::<_, Error>(message)
            })
            .await
            .unwrap();
        let bytes = message.bytes().unwrap();
        assert_eq!(inside.take().bytes(), Some(bytes.clone()));
        assert_eq!(message.id().as_str(), Some(&*format!("m{number}")));
        // A peer takes the bytes for what they are.
        let other = Store::builder("peer").start().await.unwrap();
        let peer = other.open_channel("orders", channel_options("them")).await.unwrap();
        assert_eq!(peer.receive(&bytes).await.unwrap().content, number.to_string());
    }
    assert_eq!(hands.stand().await, 3);
    assert_eq!(hands.orders.stats().await.unwrap().unacknowledged, 3);
    assert!(store.stop().await.unwrap().unsaved.is_empty());
    let store = start(adapter).await;
    assert_eq!(Hands::open(&store).await.stand().await, 3);
}

#[tokio::test]
async fn what_is_received_is_delivered_within_and_told_after_the_commit() {
    let store = start(MemoryAdapter::default()).await;
    let hands = Hands::open(&store).await;
    let other = Store::builder("peer").start().await.unwrap();
    let peer = other.open_channel("orders", channel_options("them")).await.unwrap();
    let first = peer.wrap("p1", "one").await.unwrap();
    let second = peer.wrap("p2", "two").await.unwrap();
    let mut events = hands.orders.subscribe();
    let receive = async |bytes: &bytes::Bytes| -> Result<ReceivedInside> {
        store
            .transaction(async |tx| {
                let received = tx.join(&hands.orders)?.receive(bytes)?;
                for message in &received.ready {
                    let length = i64::try_from(message.content.len()).unwrap();
                    tx.join(&hands.number)?.update(|number| *number += length)?;
                }
                Ok(received)
            })
            .await
    };
    // The second waits for the first, and both are counted when that has come.
    let parked = receive(&second).await.unwrap();
    assert_eq!((parked.received.status, parked.ready.len()), (ReceiveStatus::Parked, 0));
    assert_eq!(hands.number.get(), 0);
    let delivered = receive(&first).await.unwrap();
    let ids: Vec<_> = delivered.ready.iter().map(|message| message.message_id.as_str().unwrap()).collect();
    assert_eq!((delivered.received.status, ids), (ReceiveStatus::Delivered, vec!["p1", "p2"]));
    assert_eq!(hands.number.get(), 6);
    // A repeated packet is nothing new, and changes nothing twice.
    assert_eq!(receive(&first).await.unwrap().received.status, ReceiveStatus::Duplicate);
    assert_eq!(hands.number.get(), 6);
    let mut told = Vec::new();
    while let Some(ChannelDelivery::Event(event)) = events.try_recv() {
        told.push((event.kind(), event.message_id().as_str().unwrap().to_owned()));
    }
    let told: Vec<_> = told.iter().map(|(kind, id)| (*kind, &**id)).collect();
    assert_eq!(told, [("missing", "p2"), ("ready", "p1"), ("ready", "p2")]);
}

#[tokio::test]
async fn a_hand_over_that_fails_leaves_no_trace() {
    let store = start(MemoryAdapter::default()).await;
    let hands = Hands::open(&store).await;
    hands.hand_over(Durability::Fsync).await.unwrap();
    let before = traces(&hands).await;
    let mut events = store.subscribe("*.*.*").unwrap();
    let kept = Kept::none();
    let failed = store
        .transaction(async |tx| {
            kept.put((hands.work(&tx).await?, tx.join(&hands.orders)?, tx.join(&hands.number)?));
            Err::<(), _>(Error::invalid_argument("not this way"))
        })
        .await;
    assert!(matches!(failed, Err(Error::InvalidArgument { .. })));
    let (message, channel, number) = kept.take();
    assert!(message.bytes().is_none());
    assert!(matches!(channel.send("x"), Err(Error::TransactionClosed)));
    assert!(matches!(channel.history(), Err(Error::TransactionClosed)));
    assert!(matches!(number.update(|number| *number = 9), Err(Error::TransactionClosed)));
    assert!(matches!(number.get(), Err(Error::TransactionClosed)));

    // A panic, and a future that is dropped half-way.
    let panicking = tokio::spawn({
        let hands = hands.clone();
        async move {
            let store = hands.store.clone();
            let work = |tx: Transaction| {
                let hands = hands.clone();
                async move {
                    hands.work(&tx).await?;
                    if hands.number.get() > 0 {
                        panic!("a mistake of the user's");
                    }
                    Ok::<_, Error>(())
                }
            };
            store.transaction(work).await
        }
    });
    assert!(panicking.await.unwrap_err().is_panic());
    let half = store.transaction(async |tx| {
        hands.work(&tx).await?;
        std::future::pending::<Result<()>>().await
    });
    assert!(tokio::time::timeout(std::time::Duration::from_millis(20), half.into_future()).await.is_err());

    // A bucket that refuses, after the others have been asked.
    let refused = store
        .transaction(async |tx| {
            hands.work(&tx).await?;
            tx.bucket("ledger")?.insert(ractor_persistence::record! { "id": "last" }).await.map(drop)
        })
        .await;
    assert!(matches!(refused, Err(Error::DuplicateKey { .. })), "{refused:?}");

    assert_eq!(traces(&hands).await, before);
    assert_eq!(hands.stand().await, 1);
    assert!(events.try_recv().is_none());
    // And nothing is in the way of the next one.
    hands.hand_over(Durability::Ram).await.unwrap();
    assert_eq!(hands.stand().await, 2);
}

#[tokio::test]
async fn participants_join_without_a_bucket_and_alone_and_several_values_at_once() {
    let adapter = FaultAdapter::new(MemoryAdapter::default());
    let faults = adapter.faults();
    let store = start(adapter).await;
    let a: Durable<u32> = store.durable("a", DurableOptions::default()).await.unwrap();
    let b: Durable<u32> = store.durable("b", DurableOptions::starting_with(|| 10)).await.unwrap();
    let orders = store.open_channel("orders", channel_options("us")).await.unwrap();
    let moved = store
        .transaction(async |tx| {
            tx.join(&b)?.update(|number| *number -= 3)?;
            tx.join(&a)?.update(|number| *number += 3)?;
            // Once more, on the same part.
            tx.join(&a)?.try_update(|number| {
                *number += 1;
                Ok::<_, Error>(*number)
            })
        })
        .durability(Durability::Fsync)
        .await;
    assert_eq!((moved.unwrap(), a.get(), b.get()), (4, 4, 7));
    a.persist().await.unwrap();
    let message =
        store.transaction(async |tx| tx.join(&orders)?.send("x")).durability(Durability::Fsync).await.unwrap();
    assert!(message.bytes().is_some());
    let read = store.transaction(async |tx| tx.join(&a)?.read(|number| *number)).await.unwrap();
    assert_eq!(read, 4);
    a.update(|number| *number += 1).unwrap();
    assert_eq!(a.get(), 5, "and the value goes on by itself");
    orders.wrap("next", "y").await.unwrap();
    store.flush().await.unwrap();
    // What was only read is not written again.
    let commits = faults.commits().len();
    store.transaction(async |tx| tx.join(&a)?.read(|number| *number)).durability(Durability::Fsync).await.unwrap();
    assert_eq!(faults.commits().len(), commits);
}

#[tokio::test]
async fn above_ram_no_bytes_are_released_before_they_are_saved() {
    let adapter = FaultAdapter::new(MemoryAdapter::default());
    let faults = adapter.faults();
    let store = start(adapter).await;
    let number: Durable<u32> = store.durable("number", DurableOptions::default()).await.unwrap();
    let options = channel_options("us").with_durability(Durability::Fsync);
    let orders = store.open_channel("orders", options).await.unwrap();
    store.flush().await.unwrap();
    let mut events = store.subscribe_channel("orders").unwrap();
    let kept = Kept::none();
    faults.inject(Fault::fail(transient()).on(Operation::Commit).times(1));
    let outcome = store
        .transaction(async |tx| {
            tx.join(&number)?.update(|number| *number += 1)?;
            kept.put(tx.join(&orders)?.send("x")?);
            Ok::<_, Error>(())
        })
        .await;
    assert!(matches!(outcome, Err(Error::NotSaved { .. })), "the channel's own level counts: {outcome:?}");
    assert!(kept.take().bytes().is_none());
    assert_eq!((number.get(), orders.stats().await.unwrap().unacknowledged), (1, 1), "in memory, kept and retried");
    faults.inject(Fault::hang().on(Operation::Commit));
    let (second, bucketless) = (orders.clone(), store.clone());
    let waiting = tokio::spawn(async move {
        bucketless.transaction(async |tx| tx.join(&second)?.wrap("m2", "y")).retry(Retry::default()).await
    });
    faults.until(|calls| calls.iter().any(|call| call.result.is_none())).await;
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    faults.heal();
    assert!(waiting.await.unwrap().unwrap().bytes().is_some());
    assert!(events.try_recv().is_none_or(|event| matches!(event, ChannelDelivery::Event(ChannelEvent::Ready { .. }))));
}
