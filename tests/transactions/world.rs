//! What the tests share.

use std::sync::Arc;
use std::time::Duration;

use ractor_persistence::base::clock::ManualClock;
use ractor_persistence::bucket::Bucket;
use ractor_persistence::bus::{Delivery, Subscription};
use ractor_persistence::persistence::PersistenceOptions;
use ractor_persistence::record;
use ractor_persistence::records::{BucketDefinition, BucketEvent, Cause, Change, Field, Generated, Record};
use ractor_persistence::store::{Store, StoreBuilder};

/// When the tests begin, in milliseconds since the Unix epoch.
pub(crate) const START: i64 = 1_000_000;

/// Amounts by name.
pub(crate) fn accounts(name: &str) -> BucketDefinition {
    BucketDefinition::new(name)
        .key("id")
        .field("id", Field::string())
        .field("amount", Field::int())
        .field("email", Field::string().unique())
        .index(["amount"])
}

/// Records with generated numbers.
pub(crate) fn numbered(name: &str) -> BucketDefinition {
    let id = Field::int().generated(Generated::Autoincrement);
    BucketDefinition::new(name).key("id").field("id", id).field("text", Field::string())
}

pub(crate) fn builder() -> (StoreBuilder, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(START));
    let options = PersistenceOptions::default().with_debounce(Duration::from_millis(1));
    let builder = Store::builder("bank").clock(clock.clone()).ttl_check_interval(Duration::ZERO);
    (builder.persistence(options), clock)
}

/// A store in memory with two buckets of accounts, `a` and `b`, of one account each.
pub(crate) async fn bank() -> (Store, Bucket, Bucket) {
    let (builder, _) = builder();
    let store = builder.start().await.unwrap();
    let a = store.define_bucket(accounts("a")).await.unwrap();
    let b = store.define_bucket(accounts("b")).await.unwrap();
    for bucket in [&a, &b] {
        bucket.insert(record! { "id": "x", "amount": 100 }).await.unwrap();
        bucket.insert(record! { "id": "y", "amount": 100 }).await.unwrap();
    }
    (store, a, b)
}

pub(crate) fn amount_of(record: &Record) -> i64 {
    record.get("amount").and_then(|amount| amount.as_i64()).unwrap()
}

pub(crate) async fn amount(bucket: &Bucket, id: &str) -> i64 {
    amount_of(&bucket.get(id).await.unwrap().unwrap())
}

/// The bucket events that are queued.
pub(crate) fn heard(events: &mut Subscription) -> Vec<BucketEvent> {
    let mut found = Vec::new();
    while let Some(delivery) = events.try_recv() {
        let Delivery::Event(event) = delivery else { panic!("lagged") };
        found.push(event.payload::<BucketEvent>().unwrap().clone());
    }
    found
}

/// An event in short: `inserted x 1`, with the version, or `deleted x (Evicted)`.
pub(crate) fn short(event: &BucketEvent) -> String {
    match &event.change {
        Change::Inserted { record } => format!("inserted {} {}", record.key(), record.version()),
        Change::Updated { new, .. } => format!("updated {} {}", new.key(), new.version()),
        Change::Deleted { record, cause: Cause::Requested } => format!("deleted {} {}", record.key(), record.version()),
        Change::Deleted { record, cause } => format!("deleted {} ({cause:?})", record.key()),
        other => panic!("no such change: {other:?}"),
    }
}

pub(crate) fn told(events: &mut Subscription) -> Vec<String> {
    heard(events).iter().map(short).collect()
}

pub(crate) async fn ids(bucket: &Bucket) -> Vec<String> {
    bucket.all().await.unwrap().iter().map(|record| record.key().to_string()).collect()
}

pub(crate) async fn revision(bucket: &Bucket) -> u64 {
    bucket.stats().await.unwrap().revision
}

/// Kills a bucket's actor and waits until it is dead.
pub(crate) async fn kill(bucket: &Bucket) {
    let actor = bucket.actor().await.unwrap();
    actor.get_cell().kill_and_wait(None).await.unwrap();
}

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn int(&mut self, bound: u32) -> i64 {
        i64::try_from(self.below(u64::from(bound))).unwrap()
    }
}
