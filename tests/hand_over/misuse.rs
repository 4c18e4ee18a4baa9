//! What is refused, and how?

use ractor_persistence::adapters::json_file::JsonFileAdapter;
use ractor_persistence::adapters::memory::MemoryAdapter;
use ractor_persistence::durable::DurableOptions;
use ractor_persistence::{BucketDefinition, Channel, Durability, Durable, Error, Field, Store, record};

use crate::world::*;

async fn joins(store: &Store, channel: &Channel) -> Result<(), Error> {
    store.transaction(async |tx| tx.join(channel).map(drop)).await
}

async fn takes(store: &Store, value: &Durable<i64>) -> Result<(), Error> {
    store.transaction(async |tx| tx.join(value).map(drop)).await
}

#[tokio::test]
async fn what_belongs_to_another_store_is_refused() {
    let memory = MemoryAdapter::default();
    let (ours, theirs) = (start(memory.clone()).await, Store::builder("other").adapter(memory).start().await.unwrap());
    let (plain, also_plain) = (Store::builder("a").start().await.unwrap(), Store::builder("a").start().await.unwrap());
    for (store, other) in [(&ours, &theirs), (&theirs, &ours), (&ours, &plain), (&plain, &also_plain)] {
        let number: Durable<i64> = other.durable("number", DurableOptions::default()).await.unwrap();
        let orders = other.open_channel("orders", channel_options("us")).await.unwrap();
        assert!(matches!(joins(store, &orders).await, Err(Error::InvalidArgument { .. })));
        assert!(matches!(takes(store, &number).await, Err(Error::InvalidArgument { .. })));
        joins(other, &orders).await.unwrap();
        takes(other, &number).await.unwrap();
    }
}

#[tokio::test]
async fn a_back_end_that_does_not_commit_as_a_whole_lets_nothing_join() {
    let directory = tempfile::tempdir().unwrap();
    let store = start(JsonFileAdapter::open(directory.path()).await.unwrap()).await;
    let hands = Hands::open(&store).await;
    let refused = hands.hand_over(Durability::Ram).await;
    assert!(matches!(refused, Err(Error::Unsupported { .. })), "{refused:?}");
    assert!(matches!(joins(&store, &hands.orders).await, Err(Error::Unsupported { .. })));
    assert!(matches!(takes(&store, &hands.number).await, Err(Error::Unsupported { .. })));
    assert_eq!(hands.stand().await, 0);
    // Several buckets are a transaction all the same.
    let definition = BucketDefinition::new("second").key("id").field("id", Field::int());
    store.define_bucket(definition).await.unwrap();
    store
        .transaction(async |tx| {
            tx.bucket("ledger")?.insert(record! { "id": "x", "number": 1 }).await?;
            tx.bucket("second")?.insert(record! { "id": 1 }).await.map(drop)
        })
        .durability(Durability::Fsync)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_channel_that_is_not_saved_though_its_store_is_cannot_join() {
    let store = start(MemoryAdapter::default()).await;
    let aside = store.open_channel("aside", channel_options("us").with_persistent(false)).await.unwrap();
    assert!(matches!(joins(&store, &aside).await, Err(Error::Unsupported { .. })));
    // Where nothing is saved at all, nothing is torn apart either.
    let plain = Store::builder("plain").start().await.unwrap();
    let hands = Hands::open(&plain).await;
    assert!(hands.hand_over(Durability::Ram).await.unwrap().bytes().is_some());
    assert_eq!(hands.stand().await, 1);
    let refused = hands.hand_over(Durability::Fsync).await;
    assert!(matches!(refused, Err(Error::Unsupported { has: Some(Durability::Ram), .. })), "{refused:?}");
    assert_eq!(hands.stand().await, 1);
}

#[tokio::test]
async fn nothing_joins_a_transaction_that_has_ended() {
    let store = start(MemoryAdapter::default()).await;
    let hands = Hands::open(&store).await;
    let kept = Kept::none();
    store
        .transaction(async |tx| {
            kept.put((tx.clone(), tx.join(&hands.orders)?, tx.join(&hands.number)?));
            Ok::<_, Error>(())
        })
        .await
        .unwrap();
    let (tx, channel, number) = kept.take();
    assert!(matches!(tx.join(&hands.orders), Err(Error::TransactionClosed)));
    assert!(matches!(tx.join(&hands.number), Err(Error::TransactionClosed)));
    assert!(matches!(channel.receive(b"x"), Err(Error::TransactionClosed)));
    assert!(matches!(channel.missing(), Err(Error::TransactionClosed)));
    assert!(matches!(channel.mark_dependencies_met(["x"]), Err(Error::TransactionClosed)));
    assert!(matches!(number.read(|_| ()), Err(Error::TransactionClosed)));
}

#[tokio::test]
async fn what_is_refused_within_changes_nothing_and_the_rest_goes_on() {
    let store = start(MemoryAdapter::default()).await;
    let hands = Hands::open(&store).await;
    let ratio = store.durable("ratio", DurableOptions::starting_with(|| 0.5)).await.unwrap();
    store
        .transaction(async |tx| {
            let (orders, number) = (tx.join(&hands.orders)?, tx.join(&ratio)?);
            assert!(matches!(orders.send(""), Err(Error::EmptyContent)));
            assert!(matches!(orders.receive(b"\xff\xff"), Err(Error::MalformedMessage { .. })));
            orders.wrap("same", "x")?;
            assert!(matches!(orders.wrap("same", "x"), Err(Error::DuplicateId { .. })));
            assert!(matches!(number.update(|ratio| *ratio = f64::NAN), Err(Error::InvalidValue { .. })));
            let within = number.update(|ratio| {
                *ratio = 0.7;
                number.update(|ratio| *ratio = 0.1)
            });
            assert!(matches!(within, Err(Error::Conflict { .. })), "one of the two would be lost");
            number.update(|ratio| *ratio += 0.25).map(drop)
        })
        .await
        .unwrap();
    assert!((ratio.get() - 0.35).abs() < 1e-9);
    assert_eq!(hands.orders.stats().await.unwrap().unacknowledged, 1);
}

#[tokio::test]
async fn handles_of_what_is_gone_or_superseded_do_not_join() {
    let store = start(MemoryAdapter::default()).await;
    let hands = Hands::open(&store).await;
    let heir: Durable<i64> = store.durable("number", DurableOptions::default()).await.unwrap();
    assert!(matches!(takes(&store, &hands.number).await, Err(Error::Superseded { .. })));
    takes(&store, &heir).await.unwrap();
    heir.delete().await.unwrap();
    assert!(matches!(takes(&store, &heir).await, Err(Error::NotFound { .. })));
    store.close_channel("orders").await.unwrap();
    assert!(matches!(joins(&store, &hands.orders).await, Err(Error::UnknownChannel { .. })));
    let again = store.open_channel("orders", channel_options("us")).await.unwrap();
    joins(&store, &again).await.unwrap();
    store.stop().await.unwrap();
    assert!(matches!(joins(&store, &again).await, Err(Error::Stopping)));
}

#[tokio::test]
async fn nothing_gets_into_a_transaction_while_it_is_being_committed() {
    let store = start(MemoryAdapter::default()).await;
    let hands = Hands::open(&store).await;
    let late = Kept::none();
    store
        .transaction(async |tx| {
            hands.work(&tx).await?;
            let (channel, number) = (tx.join(&hands.orders)?, tx.join(&hands.number)?);
            // It has its turn while the commit waits for the bucket's.
            late.put(tokio::spawn(async move { (channel.send("late"), number.update(|number| *number += 10)) }));
            Ok::<_, Error>(())
        })
        .await
        .unwrap();
    let (sent, changed) = late.take().await.unwrap();
    assert!(matches!(sent, Err(Error::TransactionClosed)), "{sent:?}");
    assert!(matches!(changed, Err(Error::TransactionClosed)), "{changed:?}");
    assert_eq!(hands.stand().await, 1);
    assert_eq!(hands.orders.history().await.unwrap().len(), 1);
}
