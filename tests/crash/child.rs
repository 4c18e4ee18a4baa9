//! The process that is killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use ractor_persistence::base::durability::Durability;
use ractor_persistence::base::error::{Error, Result};
use ractor_persistence::base::name::{BucketKey, StoreName};
use ractor_persistence::bucket::Bucket;
use ractor_persistence::bus::{Event, Pattern};
use ractor_persistence::persistence::{Capabilities, Commit, Epoch, Save, StorageAdapter};
use ractor_persistence::records::{BucketChange, BucketEvent, BucketSnapshot, Change, Filter, Record};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::Backend;
use crate::data::{BUCKET, GROUPS, WINDOW, define, fields, int, start};
use crate::random::Random;
use crate::told::{Changed, ORDER, Order, Task, Told};
use crate::{pairs, upkeep};

/// Keys per group.
const KEYS: u64 = 24;
/// A child that nobody kills ends by itself.
const LIFETIME: Duration = Duration::from_secs(120);

/// Does what it was ordered to until it is killed. Returns at once where nobody has ordered anything.
pub(crate) async fn run(backend: Backend) {
    let Ok(order) = std::env::var(ORDER) else { return };
    let order: Order = serde_json::from_str(&order).unwrap();
    match order.task {
        Task::Upkeep => return upkeep::child(backend, &order).await,
        Task::Pairs => return pairs::child(backend, &order).await,
        _ => {}
    }
    Told::Opening.tell();
    let inner = (backend.open)(order.directory.clone()).await.unwrap();
    let told = Arc::new(AtomicU64::new(0));
    let store = start(Arc::new(Telling { inner, told: Arc::clone(&told) })).await.unwrap();
    let changes = move |event: &Event| tell_change(event, &told);
    let changes = store.bus().subscribe_sink(Pattern::parse("bucket.*.*").unwrap(), Arc::new(changes));
    let saves = |event: &Event| Told::Saved { revision: event.revision }.tell();
    let saves = store.bus().subscribe_sink(Pattern::parse("persistence.*.saved").unwrap(), Arc::new(saves));
    let bucket = define(&store).await.unwrap();
    Told::Ready { revision: bucket.stats().await.unwrap().revision }.tell();

    let mut tasks = JoinSet::new();
    match order.task {
        Task::Load | Task::RamLoad => {
            for group in 0..GROUPS {
                tasks.spawn(change(bucket.clone(), group, order.clone()));
            }
            tasks.spawn(clear(bucket.clone(), order.clone()));
            tasks.spawn(async {
                loop {
                    sleep(WINDOW).await;
                    Told::Tick.tell();
                }
            });
        }
        Task::Clear { then } => {
            fill_and_clear(&bucket, &order, then).await;
        }
        Task::Hold | Task::Upkeep | Task::Pairs => {}
    }
    tokio::select! {
        Some(ended) = tasks.join_next() => panic!("a task has ended: {ended:?}"),
        () = sleep(LIFETIME) => {}
    }
    drop((changes, saves));
}

fn tell_change(event: &Event, told: &AtomicU64) {
    let BucketEvent { revision, change, .. } = event.payload().unwrap();
    let key = |record: &Record| record.get("id").and_then(|key| key.as_str()).unwrap().to_owned();
    let change = match change {
        Change::Inserted { record } => {
            Changed::Inserted { key: key(record), number: int(record, "number"), place: int(record, "place") }
        }
        Change::Updated { new, .. } => Changed::Updated { key: key(new), number: int(new, "number") },
        Change::Deleted { record, .. } => Changed::Deleted { key: key(record) },
        Change::Cleared { .. } => Changed::Cleared,
        other => panic!("no such change is made: {other:?}"),
    };
    Told::Changed { revision: *revision, change }.tell();
    told.store(*revision, Ordering::SeqCst);
}

fn level(order: &Order, random: &mut Random) -> Durability {
    match (order.task, random.below(8)) {
        (Task::RamLoad, _) | (_, 0..=4) => Durability::Ram,
        (_, 5) => Durability::Wal,
        _ => Durability::Fsync,
    }
}

/// Inserts, updates and deletes records of one group. Nobody else does, but for the clears.
async fn change(bucket: Bucket, group: i64, order: Order) {
    let mut random = Random::new(order.seed.wrapping_add(group.unsigned_abs()));
    for number in i64::from(order.round) << 32.. {
        let key = format!("{group}-{}", random.below(KEYS));
        // Half of the groups never wait for the disk, so that something happens while the others do.
        let level = if group % 2 == 0 { Durability::Ram } else { level(&order, &mut random) };
        let handle = bucket.with_durability(level).with_timeout(LIFETIME);
        let there = handle.get(key.as_str()).await.unwrap().is_some();
        let changed = match random.below(6) {
            0 if there => handle.delete(key.as_str()).await.unwrap(),
            _ if there => match handle.update(key.as_str(), fields(group, &key, number)).await {
                Ok(_) => true,
                // It was cleared meanwhile.
                Err(Error::NotFound { .. }) => false,
                Err(error) => panic!("{error:?}"),
            },
            _ => {
                handle.insert(fields(group, &key, number)).await.unwrap();
                true
            }
        };
        if changed && level > Durability::Ram {
            Told::Acknowledged { key: Some(key) }.tell();
        }
        sleep(Duration::from_millis(random.below(3))).await;
    }
}

async fn clear(bucket: Bucket, order: Order) {
    let mut random = Random::new(order.seed.wrapping_sub(1));
    loop {
        sleep(Duration::from_millis(20 + random.below(300))).await;
        let level = level(&order, &mut random);
        let cleared = bucket.with_durability(level).with_timeout(LIFETIME).clear().await.unwrap();
        if cleared > 0 && level > Durability::Ram {
            Told::Acknowledged { key: None }.tell();
        }
    }
}

async fn fill_and_clear(bucket: &Bucket, order: &Order, then: u64) {
    let mut number = i64::from(order.round) << 32;
    let mut insert = async |count| {
        for at in 0..count {
            number += 1;
            let key = format!("{}-{at}", order.round);
            bucket.insert(fields(0, &key, number)).await.unwrap();
        }
    };
    insert(50).await;
    bucket.flush().await.unwrap();
    assert_ne!(bucket.count(Filter::all()).await.unwrap(), 0);
    bucket.clear().await.unwrap();
    insert(then).await;
    Told::Done.tell();
}

/// Tells of commits.
struct Telling {
    inner: Arc<dyn StorageAdapter>,
    /// The newest change that was told.
    told: Arc<AtomicU64>,
}

#[async_trait]
impl StorageAdapter for Telling {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn save_bucket(&self, bucket: &BucketKey, change: &BucketChange) -> Result<()> {
        self.inner.save_bucket(bucket, change).await
    }

    async fn load_bucket(&self, bucket: &BucketKey) -> Result<Option<BucketSnapshot>> {
        self.inner.load_bucket(bucket).await
    }

    async fn drop_bucket(&self, bucket: &BucketKey) -> Result<()> {
        self.inner.drop_bucket(bucket).await
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        let revision = commit.saves.iter().find_map(|save| match save {
            Save::Bucket(name, change) if name.as_str() == BUCKET => Some(change.revision()),
            _ => None,
        });
        // A change can be captured a moment before it is published. It is told first all the same, so that nothing is
        // ever on disk that nobody was told of.
        while revision.is_some_and(|revision| self.told.load(Ordering::SeqCst) < revision) {
            tokio::task::yield_now().await;
        }
        Told::Begun { revision }.tell();
        let outcome = self.inner.commit(commit).await;
        match &outcome {
            Ok(()) => Told::Ended.tell(),
            Err(error) => Told::Failed { error: format!("{error:?}") }.tell(),
        }
        outcome
    }

    async fn claim(&self, store: &StoreName) -> Result<Epoch> {
        self.inner.claim(store).await
    }

    async fn close(&self, store: &StoreName) -> Result<()> {
        self.inner.close(store).await
    }
}
