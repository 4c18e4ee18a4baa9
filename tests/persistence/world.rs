//! What the tests share: buckets of numbered texts, adapters, and a look at what they keep.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ractor_persistence::adapters::memory::MemoryAdapter;
use ractor_persistence::base::durability::Durability;
use ractor_persistence::base::error::{Error, Failure, Result};
use ractor_persistence::base::name::{BucketKey, BucketName, StoreName, Subject};
use ractor_persistence::bucket::Bucket;
use ractor_persistence::bus::{Delivery, Subscription};
use ractor_persistence::persistence::{
    Backoff, Capabilities, Commit, PersistenceEvent, PersistenceOptions, Save, StorageAdapter,
};
use ractor_persistence::record;
use ractor_persistence::records::{BucketChange, BucketDefinition, BucketSnapshot, Field, Record};
use ractor_persistence::store::{Store, StoreBuilder};
use ractor_persistence::testkit::{FaultAdapter, Faults};

/// The texts of a bucket by their numbers.
pub(crate) type Texts = BTreeMap<i64, String>;

/// The window of [`options`].
pub(crate) const WINDOW: Duration = Duration::from_millis(100);

/// A bucket of texts by number.
pub(crate) fn items(name: &str) -> BucketDefinition {
    BucketDefinition::new(name).key("id").field("id", Field::int()).field("text", Field::string())
}

pub(crate) fn subject(name: &str) -> Subject {
    Subject::Bucket(BucketName::new(name).unwrap())
}

/// Retries come within a second.
pub(crate) fn options() -> PersistenceOptions {
    PersistenceOptions::default()
        .with_debounce(WINDOW)
        .with_retry(Backoff::new(Duration::from_millis(10), Duration::from_secs(1)))
}

pub(crate) fn builder(adapter: impl StorageAdapter) -> StoreBuilder {
    Store::builder("shop").adapter(adapter).persistence(options())
}

pub(crate) async fn start(adapter: impl StorageAdapter) -> Store {
    builder(adapter).start().await.unwrap()
}

/// A memory adapter that fails when told to.
pub(crate) fn faulty() -> (FaultAdapter<MemoryAdapter>, Faults) {
    let adapter = FaultAdapter::new(MemoryAdapter::default());
    let faults = adapter.faults();
    (adapter, faults)
}

pub(crate) fn transient() -> Error {
    Error::transient("commit", io::Error::from(io::ErrorKind::StorageFull))
}

pub(crate) fn permanent() -> Error {
    Error::permanent("commit", io::Error::from(io::ErrorKind::InvalidData))
}

pub(crate) fn unknown() -> Error {
    Error::unknown("commit", io::Error::from(io::ErrorKind::ConnectionReset))
}

pub(crate) async fn insert(bucket: &Bucket, id: i64, text: &str) -> Result<()> {
    bucket.insert(record! { "id": id, "text": text }).await.map(drop)
}

pub(crate) async fn update(bucket: &Bucket, id: i64, text: &str) -> Result<()> {
    bucket.update(id, record! { "text": text }).await.map(drop)
}

pub(crate) fn texts<'a>(records: impl IntoIterator<Item = &'a Arc<Record>>) -> Texts {
    let entry = |record: &'a Arc<Record>| {
        let id = record.key().as_value().as_i64().unwrap();
        (id, record.get("text").and_then(|text| text.as_str()).unwrap_or_default().to_owned())
    };
    records.into_iter().map(entry).collect()
}

/// What a bucket answers.
pub(crate) async fn held(bucket: &Bucket) -> Texts {
    texts(&bucket.all().await.unwrap())
}

pub(crate) fn key(bucket: &str) -> BucketKey {
    BucketKey::new(StoreName::new("shop").unwrap(), BucketName::new(bucket).unwrap())
}

/// What an adapter keeps of a bucket; none where it keeps nothing.
pub(crate) async fn stored<A: StorageAdapter + ?Sized>(adapter: &A, bucket: &str) -> Option<Texts> {
    adapter.load_bucket(&key(bucket)).await.unwrap().map(|snapshot| texts(&snapshot.records))
}

pub(crate) fn expect<const N: usize>(texts: [(i64, &str); N]) -> Texts {
    texts.into_iter().map(|(id, text)| (id, text.to_owned())).collect()
}

/// The bucket changes of a commit by bucket.
pub(crate) fn changes(commit: &Commit) -> Vec<(&str, &BucketChange)> {
    let change = |save: &'_ Save| match save {
        Save::Bucket(..) => true,
        other => panic!("not expected here: {other:?}"),
    };
    let saves = commit.saves.iter().filter(|save| change(save));
    saves
        .filter_map(|save| match save {
            Save::Bucket(name, change) => Some((name.as_str(), &**change)),
            _ => None,
        })
        .collect()
}

/// Keeps whole buckets, as the simplest custom adapters do, and refuses anything else.
#[derive(Clone, Debug, Default)]
pub(crate) struct WholeBuckets(pub(crate) MemoryAdapter);

#[async_trait]
impl StorageAdapter for WholeBuckets {
    fn capabilities(&self) -> Capabilities {
        Capabilities::default().with_durability(Durability::Fsync).with_survives_restart(false)
    }

    async fn save_bucket(&self, bucket: &BucketKey, change: &BucketChange) -> Result<()> {
        assert!(matches!(change, BucketChange::Full(_)), "an adapter that is not incremental was given {change:?}");
        self.0.save_bucket(bucket, change).await
    }

    async fn load_bucket(&self, bucket: &BucketKey) -> Result<Option<BucketSnapshot>> {
        self.0.load_bucket(bucket).await
    }

    async fn drop_bucket(&self, bucket: &BucketKey) -> Result<()> {
        self.0.drop_bucket(bucket).await
    }
}

/// A faulty adapter that takes changes, and one that takes whole buckets.
pub(crate) fn both_granularities() -> [FaultAdapter<dyn StorageAdapter>; 2] {
    [FaultAdapter::over(Arc::new(MemoryAdapter::default())), FaultAdapter::over(Arc::new(WholeBuckets::default()))]
}

type Opened = Pin<Box<dyn Future<Output = Result<Arc<dyn StorageAdapter>>> + Send>>;
type Blobs = Pin<Box<dyn Future<Output = Vec<Vec<u8>>> + Send>>;

/// The bytes that a place consists of, in pieces with a name each.
trait Pieces: Send + Sync {
    fn all(&self, place: &Path) -> Vec<(String, Vec<u8>)>;
    fn put(&self, name: &str, bytes: &[u8]);
}

struct Files;

impl Pieces for Files {
    fn all(&self, place: &Path) -> Vec<(String, Vec<u8>)> {
        let files = files_in(place.parent().unwrap()).into_iter();
        files.map(|(path, bytes)| (path.to_str().unwrap().to_owned(), bytes)).collect()
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        std::fs::write(name, bytes).unwrap();
    }
}

/// Somewhere on a disk, for one of the adapters that keep things there.
pub(crate) struct Disk {
    directory: tempfile::TempDir,
    open: Box<dyn Fn(PathBuf) -> Opened + Send + Sync>,
    /// What is in quarantine, given that nobody has the place open.
    quarantined: Box<dyn Fn(PathBuf) -> Blobs + Send + Sync>,
    pieces: Box<dyn Pieces>,
}

impl Disk {
    fn new(
        open: impl Fn(PathBuf) -> Opened + Send + Sync + 'static,
        quarantined: impl Fn(PathBuf) -> Blobs + Send + Sync + 'static,
        pieces: impl Pieces + 'static,
    ) -> Self {
        let (open, quarantined, pieces) = (Box::new(open), Box::new(quarantined), Box::new(pieces));
        Self { directory: tempfile::tempdir().unwrap(), open, quarantined, pieces }
    }

    fn place(&self) -> PathBuf {
        self.directory.path().join("place")
    }

    pub(crate) async fn open(&self) -> Arc<dyn StorageAdapter> {
        (self.open)(self.place()).await.unwrap()
    }

    pub(crate) async fn start(&self, options: PersistenceOptions) -> Store {
        Store::builder("shop").shared_adapter(self.open().await).persistence(options).start().await.unwrap()
    }

    /// What is stored, given that nobody has the place open.
    pub(crate) async fn stored(&self, bucket: &str) -> Option<Texts> {
        let adapter = self.open().await;
        let shop = StoreName::new("shop").unwrap();
        adapter.claim(&shop).await.unwrap();
        let stored = stored(&*adapter, bucket).await;
        adapter.close(&shop).await.unwrap();
        stored
    }

    pub(crate) async fn quarantined(&self) -> Vec<Vec<u8>> {
        (self.quarantined)(self.place()).await
    }

    /// How often some bytes are on it.
    pub(crate) fn count(&self, bytes: &[u8]) -> usize {
        let pieces = self.pieces.all(&self.place());
        pieces.iter().map(|(_, piece)| piece.windows(bytes.len()).filter(|found| *found == bytes).count()).sum()
    }

    /// Puts other bytes of the same length in the place of some, wherever they are; answers how often they were there.
    pub(crate) fn replace(&self, old: &[u8], new: &[u8]) -> usize {
        assert_eq!(old.len(), new.len());
        let mut found = 0;
        for (name, mut bytes) in self.pieces.all(&self.place()) {
            let places: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(old)).collect();
            for at in &places {
                bytes[*at..at + new.len()].copy_from_slice(new);
            }
            if !places.is_empty() {
                self.pieces.put(&name, &bytes);
            }
            found += places.len();
        }
        found
    }
}

fn files_in(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut files, mut left) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                files.push((path.clone(), std::fs::read(path).unwrap()));
            }
        }
    }
    files
}

/// Every adapter that keeps things on a disk; another one is one more line here.
pub(crate) fn disks() -> Vec<Disk> {
    vec![
        #[cfg(feature = "json-file")]
        json_file::disk(),
        #[cfg(feature = "redb")]
        redb::disk(),
        #[cfg(feature = "postgres")]
        postgres::disk(),
    ]
}

#[cfg(feature = "json-file")]
mod json_file {
    use super::*;
    use ractor_persistence::adapters::json_file::JsonFileAdapter;

    pub(super) fn disk() -> Disk {
        Disk::new(
            |place| {
                Box::pin(async move { Ok(Arc::new(JsonFileAdapter::open(place).await?) as Arc<dyn StorageAdapter>) })
            },
            |place| {
                let files = files_in(&place).into_iter();
                let kept = files.filter(|(path, _)| path.to_string_lossy().contains(".quarantine-"));
                let kept = kept.map(|(_, bytes)| bytes).collect();
                Box::pin(std::future::ready(kept))
            },
            Files,
        )
    }
}

#[cfg(feature = "redb")]
mod redb {
    use super::*;
    use ractor_persistence::adapters::redb::RedbAdapter;

    pub(super) fn disk() -> Disk {
        Disk::new(
            |place| Box::pin(async move { Ok(Arc::new(RedbAdapter::open(place).await?) as Arc<dyn StorageAdapter>) }),
            |place| {
                Box::pin(async move {
                    let adapter = RedbAdapter::open(place).await.unwrap();
                    let all = adapter.quarantined().await.unwrap();
                    // Without a claim the file stays open until the last handle is dropped.
                    let shop = StoreName::new("shop").unwrap();
                    adapter.claim(&shop).await.unwrap();
                    adapter.close(&shop).await.unwrap();
                    all.into_iter().flat_map(|kept| kept.rows).map(|row| row.value.to_vec()).collect()
                })
            },
            Files,
        )
    }
}

#[cfg(feature = "postgres")]
#[path = "../postgres/server.rs"]
mod server;

#[cfg(feature = "postgres")]
mod postgres {
    use super::server::{Place, apart};
    use super::*;

    /// The tables whose bytes are what is stored; the other columns are copies.
    const TABLES: [(&str, &str); 3] = [("buckets", "data"), ("records", "data"), ("quarantine_rows", "value")];

    struct Rows(Arc<Place>);

    impl Pieces for Rows {
        fn all(&self, _: &Path) -> Vec<(String, Vec<u8>)> {
            apart(async {
                let client = self.0.client().await;
                let mut pieces = Vec::new();
                for (table, column) in TABLES {
                    let sql = self.0.sql(&format!("SELECT ctid::text, {column} FROM $schema.{table}"));
                    let rows = client.query(&sql, &[]).await.unwrap();
                    pieces.extend(rows.iter().map(|row| (format!("{table} {}", row.get::<_, &str>(0)), row.get(1))));
                }
                pieces
            })
        }

        fn put(&self, name: &str, bytes: &[u8]) {
            let (table, row) = name.split_once(' ').unwrap();
            let (_, column) = TABLES.iter().find(|(name, _)| *name == table).unwrap();
            let sql = format!("UPDATE $schema.{table} SET {column} = $1 WHERE ctid = $2::text::tid");
            let put = apart(async { self.0.client().await.execute(&self.0.sql(&sql), &[&bytes, &row]).await });
            assert_eq!(put.unwrap(), 1);
        }
    }

    pub(super) fn disk() -> Disk {
        let place = Arc::new(Place::new());
        let (opened, kept) = (Arc::clone(&place), Arc::clone(&place));
        Disk::new(
            move |_| {
                let place = Arc::clone(&opened);
                Box::pin(async move { Ok(Arc::new(place.open().await?) as Arc<dyn StorageAdapter>) })
            },
            move |_| {
                let place = Arc::clone(&kept);
                Box::pin(async move {
                    let all = place.open().await.unwrap().quarantined().await.unwrap();
                    all.into_iter().flat_map(|kept| kept.rows).map(|row| row.value.to_vec()).collect()
                })
            },
            Rows(place),
        )
    }
}

/// What `on_error` was told.
#[derive(Clone, Default)]
pub(crate) struct Failures(Arc<Mutex<Vec<Failure>>>);

impl Failures {
    pub(crate) fn note(&self) -> impl Fn(&Failure) + Send + Sync + 'static {
        let failures = Arc::clone(&self.0);
        move |failure| failures.lock().unwrap().push(failure.clone())
    }

    pub(crate) fn all(&self) -> Vec<Failure> {
        self.0.lock().unwrap().clone()
    }
}

/// How many tasks there are in the runtime, this one apart.
pub(crate) fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// Waits until no more tasks are there than there were, without time going by; answers how many there are.
pub(crate) async fn tasks_ended(before: usize) -> usize {
    for _ in 0..1_000 {
        if tasks() <= before {
            break;
        }
        tokio::task::yield_now().await;
    }
    tasks()
}

/// Kills a bucket's actor and waits until it is dead.
pub(crate) async fn kill(bucket: &Bucket) {
    let actor = bucket.actor().await.unwrap();
    actor.get_cell().kill_and_wait(None).await.unwrap();
}

/// Fails the test instead of hanging it. Where time is paused, only the length matters that nobody waits for.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("it hangs")
}

/// The persistence events that are queued.
pub(crate) fn outcomes(events: &mut Subscription) -> Vec<PersistenceEvent> {
    let mut found = Vec::new();
    while let Some(delivery) = events.try_recv() {
        let Delivery::Event(event) = delivery else { panic!("lagged") };
        found.push(event.payload::<PersistenceEvent>().unwrap().clone());
    }
    found
}
