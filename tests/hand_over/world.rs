//! What the tests share: a store that hands numbers on, from a durable value to a bucket and a channel.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use ractor_persistence::base::error::Error;
use ractor_persistence::bucket::{Retry, Transaction};
use ractor_persistence::channel::Outgoing;
use ractor_persistence::durable::DurableOptions;
use ractor_persistence::persistence::{Backoff, PersistenceOptions, StorageAdapter};
use ractor_persistence::{
    Bucket, BucketDefinition, Channel, ChannelOptions, Durability, Durable, Field, Result, Store, record,
};

pub(crate) fn options(debounce: Duration) -> PersistenceOptions {
    let retry = Backoff::new(Duration::from_millis(1), Duration::from_millis(5));
    PersistenceOptions::default().with_debounce(debounce).with_retry(retry)
}

pub(crate) async fn start(adapter: impl StorageAdapter) -> Store {
    Store::builder("shop").adapter(adapter).persistence(options(Duration::from_millis(5))).start().await.unwrap()
}

pub(crate) fn channel_options(participant: &str) -> ChannelOptions {
    // A small filter, so that many messages are no burden.
    ChannelOptions::default().with_participant(participant).with_bloom_capacity(100)
}

/// The three that hand over. Each hand-over raises the number of all of them.
#[derive(Clone, Debug)]
pub(crate) struct Hands {
    pub(crate) store: Store,
    pub(crate) ledger: Bucket,
    pub(crate) number: Durable<i64>,
    pub(crate) orders: Channel,
}

impl Hands {
    pub(crate) async fn open(store: &Store) -> Self {
        Self::open_as(store, "").await
    }

    pub(crate) async fn open_as(store: &Store, suffix: &str) -> Self {
        let definition = BucketDefinition::new(format!("ledger{suffix}"))
            .key("id")
            .field("id", Field::string())
            .field("number", Field::int());
        let ledger = store.define_bucket(definition).await.unwrap();
        let number = store.durable(&format!("number{suffix}"), DurableOptions::default()).await.unwrap();
        let orders = store.open_channel(&format!("orders{suffix}"), channel_options("us")).await.unwrap();
        Self { store: store.clone(), ledger, number, orders }
    }

    /// One hand-over's function.
    pub(crate) async fn work(&self, tx: &Transaction) -> Result<Outgoing> {
        let number = tx.join(&self.number)?.update(|number| {
            *number += 1;
            *number
        })?;
        let ledger = tx.bucket(self.ledger.name().as_str())?;
        ledger.upsert(record! { "id": "last", "number": number }).await?;
        tx.join(&self.orders)?.wrap(format!("m{number}"), number.to_string())
    }

    pub(crate) async fn hand_over(&self, durability: Durability) -> Result<Outgoing> {
        let work = |tx: Transaction| async move { self.work(&tx).await };
        self.store.transaction(work).retry(Retry::default().with_attempts(20)).durability(durability).await
    }

    /// The number at which all three stand.
    pub(crate) async fn stand(&self) -> i64 {
        let number = self.number.get();
        let record = self.ledger.get("last").await.unwrap();
        let in_ledger = record.map_or(0, |record| record.get("number").and_then(|number| number.as_i64()).unwrap());
        let history = self.orders.history().await.unwrap();
        let sent: BTreeSet<i64> =
            history.iter().filter_map(|message| message.message_id.as_str()?.strip_prefix('m')?.parse().ok()).collect();
        assert_eq!((in_ledger, sent.last().copied().unwrap_or(0)), (number, number), "durable value, bucket, channel");
        assert_eq!(i64::try_from(sent.len()).unwrap(), number.min(1_000), "no message is missing");
        number
    }
}

/// Takes something out of a transaction's function, which only borrows what is around it.
pub(crate) struct Kept<T>(Mutex<Option<T>>);

impl<T> Kept<T> {
    pub(crate) fn none() -> Self {
        Self(Mutex::new(None))
    }

    pub(crate) fn put(&self, kept: T) {
        *self.0.lock().unwrap() = Some(kept);
    }

    pub(crate) fn take(&self) -> T {
        self.0.lock().unwrap().take().unwrap()
    }
}

pub(crate) fn transient() -> Error {
    Error::transient("commit", std::io::Error::other("on purpose"))
}

pub(crate) fn permanent() -> Error {
    Error::permanent("commit", std::io::Error::other("on purpose"))
}

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
