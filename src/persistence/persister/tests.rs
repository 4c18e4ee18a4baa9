//! What several threads do to a persister at once, and what it tells of damage. Were it wrong, a change could be forgotten
//! as saved with a commit that it was not in, and damage would be told at the next start, when it is too late.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use crate::base::durability::Durability;
use crate::base::error::{Error, Failure, Place, Result};
use crate::base::name::{BucketKey, BucketName, StoreName, Subject};
use crate::bus::{Bus, Delivery, Pattern};
use crate::persistence::cell::{Captured, Cell};
use crate::persistence::event::{PersistenceEvent, PersistenceOutcome};
use crate::persistence::health::{Health, Reason};
use crate::persistence::options::PersistenceOptions;
use crate::persistence::persister::Persister;
use crate::persistence::port::{Capabilities, Finding, Save, StorageAdapter, Watcher};
use crate::records::{BucketChange, BucketDelta, BucketSnapshot};

/// Every second commit fails.
#[derive(Default)]
struct Moody(AtomicU64);

#[async_trait]
impl StorageAdapter for Moody {
    fn capabilities(&self) -> Capabilities {
        Capabilities::default().with_incremental(true).with_durability(Durability::Fsync)
    }

    async fn save_bucket(&self, _bucket: &BucketKey, _change: &BucketChange) -> Result<()> {
        match self.0.fetch_add(1, Ordering::SeqCst) % 2 {
            0 => Ok(()),
            _ => Err(Error::Transient { operation: "commit".into(), source: None }),
        }
    }

    async fn load_bucket(&self, _bucket: &BucketKey) -> Result<Option<BucketSnapshot>> {
        Ok(None)
    }

    async fn drop_bucket(&self, _bucket: &BucketKey) -> Result<()> {
        Ok(())
    }
}

/// Takes its time with outcomes, and notices when it is captured in the middle of one.
#[derive(Debug)]
struct Slow {
    subject: Subject,
    newest: AtomicU64,
    captured: Mutex<Option<u64>>,
    settling: AtomicBool,
    torn: AtomicBool,
}

impl Slow {
    fn settle(&self) {
        self.settling.store(true, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(20));
        self.torn.fetch_or(self.captured.lock().unwrap().take().is_none(), Ordering::SeqCst);
        self.settling.store(false, Ordering::SeqCst);
    }
}

impl Cell for Slow {
    fn subject(&self) -> &Subject {
        &self.subject
    }

    fn capture(&self) -> Captured {
        let revision = self.newest.load(Ordering::SeqCst);
        let older = self.captured.lock().unwrap().replace(revision);
        self.torn.fetch_or(older.is_some() || self.settling.load(Ordering::SeqCst), Ordering::SeqCst);
        let Subject::Bucket(name) = &self.subject else { panic!("a bucket") };
        let change = BucketChange::Delta(BucketDelta::new(revision, 0, 1));
        Captured { revision, bytes: 1, saves: vec![Save::Bucket(name.clone(), Arc::new(change))], torn: false }
    }

    fn saved(&self) {
        self.settle();
    }

    fn handed(&self) {
        self.settle();
    }

    fn restore(&self) {
        self.settle();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_capture_falls_between_an_outcome_and_its_cells_and_outcomes_are_told_in_order() {
    let bus = Bus::new(|failure| panic!("{failure}"));
    let mut events = bus.subscribe(Pattern::parse("persistence.*.saved").unwrap());
    let store = StoreName::new("s").unwrap();
    let options = PersistenceOptions::default().with_debounce(Duration::ZERO);
    let persister = Persister::claim(store, Arc::new(Moody::default()), options, bus, None).await.unwrap();
    let subject = Subject::Bucket(BucketName::new("b").unwrap());
    let cell = Arc::new(Slow {
        subject: subject.clone(),
        newest: AtomicU64::new(0),
        captured: Mutex::new(None),
        settling: AtomicBool::new(false),
        torn: AtomicBool::new(false),
    });
    persister.register(Arc::clone(&cell) as Arc<dyn Cell>, 0);
    // Without an actor, every wake-up is looked after by whichever thread is free.
    for _ in 0..100 {
        let revision = cell.newest.fetch_add(1, Ordering::SeqCst) + 1;
        persister.changed(&subject, revision, 1);
        let (waiting, subject) = (persister.clone(), subject.clone());
        tokio::spawn(async move { waiting.saved(&subject, revision, Durability::Fsync).await });
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    while persister.flush(None).await.is_err() {}
    assert!(!cell.torn.load(Ordering::SeqCst));
    let mut told = 0;
    // A flush that finds everything saved does not wait until that has been told.
    while told < 100 {
        let delivery = tokio::time::timeout(Duration::from_secs(30), events.recv()).await;
        let Ok(Some(Delivery::Event(event))) = delivery else { panic!("told of {told} only: {delivery:?}") };
        let event = event.payload::<PersistenceEvent>().unwrap();
        let PersistenceOutcome::Saved { revision } = event.outcome else { panic!("{event:?}") };
        assert!(revision > told, "{revision} after {told}");
        told = revision;
    }
}

/// Finds what it is told to find.
#[derive(Default)]
struct Finder(Mutex<Option<Watcher>>);

impl Finder {
    fn find(&self, subject: Option<&Subject>, finding: Finding) {
        let watcher = self.0.lock().unwrap().clone().expect("somebody watches");
        // As an adapter's own thread does.
        std::thread::scope(|scope| scope.spawn(|| watcher(subject, finding)).join().unwrap());
    }
}

#[async_trait]
impl StorageAdapter for Finder {
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    async fn save_bucket(&self, _bucket: &BucketKey, _change: &BucketChange) -> Result<()> {
        Ok(())
    }

    async fn load_bucket(&self, _bucket: &BucketKey) -> Result<Option<BucketSnapshot>> {
        Ok(None)
    }

    async fn drop_bucket(&self, _bucket: &BucketKey) -> Result<()> {
        Ok(())
    }

    fn watch(&self, _store: &StoreName, watcher: Watcher) {
        *self.0.lock().unwrap() = Some(watcher);
    }
}

#[tokio::test(start_paused = true)]
async fn damage_that_the_adapter_finds_is_told_at_once_and_health_is_degraded_until_it_is_mended() {
    let bus = Bus::new(|failure| panic!("{failure}"));
    let mut events = bus.subscribe(Pattern::parse("persistence.*.failed").unwrap());
    let adapter = Arc::new(Finder::default());
    let (reported, mut failures) = tokio::sync::mpsc::unbounded_channel();
    let on_error = move |failure: &Failure| reported.send(failure.clone()).unwrap();
    let (store, options) = (StoreName::new("s").unwrap(), PersistenceOptions::default());
    let shared = Arc::clone(&adapter) as Arc<dyn StorageAdapter>;
    let persister = Persister::claim(store, shared, options, bus, Some(Arc::new(on_error))).await.unwrap();
    let subject = Subject::Bucket(BucketName::new("b").unwrap());
    let damage = |at: &str| Error::corrupt(Place::new("journal").at(at), "it does not add up");
    assert!(persister.health().is_healthy());

    adapter.find(Some(&subject), Finding::Damaged(damage("section 7")));
    let Health::Degraded(degraded) = persister.health() else { panic!("{:?}", persister.health()) };
    assert_eq!(degraded.reason, Reason::Damaged);
    let place = |error: &Error| match error {
        Error::Corrupt { at, .. } => at.position.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(place(&degraded.last_error).as_deref(), Some("section 7"));
    let failure = failures.recv().await.unwrap();
    assert_eq!((failure.subject.as_ref(), failure.operation), (Some(&subject), "upkeep"));
    assert_eq!(place(&failure.error).as_deref(), Some("section 7"));
    let Some(Delivery::Event(event)) = events.recv().await else { panic!("no event") };
    assert_eq!(event.payload::<PersistenceEvent>().unwrap().subject, subject);

    tokio::time::advance(Duration::from_secs(1)).await;
    adapter.find(None, Finding::Damaged(damage("everywhere")));
    assert_eq!(failures.recv().await.unwrap().subject, None);
    let newest = |persister: &Persister| match persister.health() {
        Health::Degraded(degraded) => place(&degraded.last_error),
        _ => None,
    };
    assert_eq!(newest(&persister).as_deref(), Some("everywhere"));
    adapter.find(None, Finding::Mended);
    assert_eq!(newest(&persister).as_deref(), Some("section 7"));
    adapter.find(Some(&subject), Finding::Mended);
    assert!(persister.health().is_healthy());

    // Who watches does not keep the adapter's watcher alive, nor the other way round.
    drop(persister);
    adapter.find(Some(&subject), Finding::Damaged(damage("too late")));
}
