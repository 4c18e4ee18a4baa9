//! What the tests share.

use std::sync::Arc;
use std::time::Duration;

use ractor_persistence::base::clock::ManualClock;
use ractor_persistence::bucket::Bucket;
use ractor_persistence::bus::{Delivery, Subscription};
use ractor_persistence::persistence::{PersistenceOptions, StorageAdapter};
use ractor_persistence::records::{BucketDefinition, BucketEvent, Cause, Change, Field, Generated, Record};
use ractor_persistence::store::{Store, StoreBuilder};

/// When the tests begin, in milliseconds since the Unix epoch.
pub(crate) const START: i64 = 1_000_000;

/// Records with generated numbers.
pub(crate) fn numbered(name: &str) -> BucketDefinition {
    let id = Field::int().generated(Generated::Autoincrement);
    BucketDefinition::new(name).key("id").field("id", id).field("text", Field::string())
}

/// Records by a text that is given.
pub(crate) fn texts(name: &str) -> BucketDefinition {
    BucketDefinition::new(name).key("id").field("id", Field::string()).field("text", Field::string())
}

pub(crate) fn options() -> PersistenceOptions {
    PersistenceOptions::default().with_debounce(Duration::from_millis(5))
}

pub(crate) fn builder() -> (StoreBuilder, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(START));
    let builder = Store::builder("shop").clock(clock.clone()).ttl_check_interval(Duration::ZERO);
    (builder.persistence(options()), clock)
}

/// A store in memory, whose clock stands.
pub(crate) async fn start() -> (Store, Arc<ManualClock>) {
    let (builder, clock) = builder();
    (builder.start().await.unwrap(), clock)
}

/// A store on an adapter, whose clock stands.
pub(crate) async fn start_on(adapter: impl StorageAdapter) -> (Store, Arc<ManualClock>) {
    let (builder, clock) = builder();
    (builder.adapter(adapter).start().await.unwrap(), clock)
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

/// An event in short: `inserted 1`, `deleted a (Evicted)`, `cleared 3`.
pub(crate) fn short(event: &BucketEvent) -> String {
    match &event.change {
        Change::Inserted { record } => format!("inserted {}", id(record)),
        Change::Updated { new, .. } => format!("updated {}", id(new)),
        Change::Deleted { record, cause: Cause::Requested } => format!("deleted {}", id(record)),
        Change::Deleted { record, cause } => format!("deleted {} ({cause:?})", id(record)),
        Change::Cleared { records } => format!("cleared {records}"),
        other => panic!("no such change: {other:?}"),
    }
}

pub(crate) fn told(events: &mut Subscription) -> Vec<String> {
    heard(events).iter().map(short).collect()
}

pub(crate) fn id(record: &Record) -> String {
    record.key().to_string()
}

pub(crate) async fn ids(bucket: &Bucket) -> Vec<String> {
    bucket.all().await.unwrap().iter().map(|record| id(record)).collect()
}

pub(crate) async fn revision(bucket: &Bucket) -> u64 {
    bucket.stats().await.unwrap().revision
}

/// Kills a bucket's actor and waits until it is dead.
pub(crate) async fn kill(bucket: &Bucket) {
    let actor = bucket.actor().await.unwrap();
    actor.get_cell().kill_and_wait(None).await.unwrap();
}

/// A seed for this run, printed; another one by the variable `RACTOR_PERSISTENCE_SEED`.
pub(crate) fn seed() -> u64 {
    let seed = std::env::var("RACTOR_PERSISTENCE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed);
    println!("RACTOR_PERSISTENCE_SEED={seed}");
    seed
}

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
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

type Opened = std::pin::Pin<Box<dyn Future<Output = Arc<dyn StorageAdapter>> + Send>>;

/// A place that outlives its stores.
pub(crate) struct Home {
    pub(crate) name: &'static str,
    open: Box<dyn Fn() -> Opened>,
    _directory: Option<tempfile::TempDir>,
}

impl Home {
    pub(crate) async fn start(&self) -> (Store, Arc<ManualClock>) {
        let (builder, clock) = builder();
        (builder.shared_adapter((self.open)().await).start().await.unwrap(), clock)
    }
}

/// The memory adapter's.
pub(crate) fn memory() -> Home {
    let adapter = Arc::new(ractor_persistence::adapters::memory::MemoryAdapter::default());
    let open = move || -> Opened {
        let adapter = adapter.clone();
        Box::pin(async move { adapter as Arc<dyn StorageAdapter> })
    };
    Home { name: "memory", open: Box::new(open), _directory: None }
}

/// One of every adapter; another one is one more line here.
pub(crate) fn homes() -> Vec<Home> {
    vec![
        memory(),
        #[cfg(feature = "json-file")]
        json_file(),
        #[cfg(feature = "redb")]
        redb(),
    ]
}

#[cfg(feature = "json-file")]
fn json_file() -> Home {
    use ractor_persistence::adapters::json_file::JsonFileAdapter;
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("place");
    let open = move || -> Opened {
        let place = place.clone();
        Box::pin(async move { Arc::new(JsonFileAdapter::open(place).await.unwrap()) as Arc<dyn StorageAdapter> })
    };
    Home { name: "json_file", open: Box::new(open), _directory: Some(directory) }
}

#[cfg(feature = "redb")]
fn redb() -> Home {
    use ractor_persistence::adapters::redb::RedbAdapter;
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("place");
    let open = move || -> Opened {
        let place = place.clone();
        Box::pin(async move { Arc::new(RedbAdapter::open(place).await.unwrap()) as Arc<dyn StorageAdapter> })
    };
    Home { name: "redb", open: Box::new(open), _directory: Some(directory) }
}
