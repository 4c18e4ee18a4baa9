//! What several threads do to a persister at once, how it stops, and what it tells of damage. Were it wrong, a change could
//! be forgotten as saved with a commit that it was not in, or be lost by a stop that could have saved it, and damage would
//! be told at the next start, when it is too late.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use ractor::Actor;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::base::durability::Durability;
use crate::base::error::{Error, Failure, Place, Result};
use crate::base::name::{BucketKey, BucketName, StoreName, Subject};
use crate::bus::{Bus, Delivery, Pattern};
use crate::persistence::actor::PersisterActor;
use crate::persistence::cell::{Captured, Cell};
use crate::persistence::event::{PersistenceEvent, PersistenceOutcome};
use crate::persistence::health::{Health, Reason};
use crate::persistence::options::PersistenceOptions;
use crate::persistence::persister::handle::lock;
use crate::persistence::persister::{OnError, Persister};
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

/// Answers saves as it was told, then well, each when it is let; keeps what was asked of it.
struct Scripted {
    answers: Mutex<VecDeque<Result<()>>>,
    lets: Semaphore,
    asked: Mutex<Vec<&'static str>>,
}

impl Scripted {
    fn new(answers: impl IntoIterator<Item = Error>) -> Arc<Self> {
        let answers = Mutex::new(answers.into_iter().map(Err).collect());
        Arc::new(Self { answers, lets: Semaphore::new(0), asked: Mutex::default() })
    }

    fn asked(&self, what: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| **asked == what).count()
    }

    async fn is_asked(&self, what: &str, times: usize) {
        while self.asked(what) < times {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[async_trait]
impl StorageAdapter for Scripted {
    fn capabilities(&self) -> Capabilities {
        Capabilities::default().with_incremental(true).with_durability(Durability::Fsync)
    }

    async fn save_bucket(&self, _bucket: &BucketKey, _change: &BucketChange) -> Result<()> {
        self.asked.lock().unwrap().push("save");
        let answer = self.answers.lock().unwrap().pop_front().unwrap_or(Ok(()));
        self.lets.acquire().await.unwrap().forget();
        answer
    }

    async fn load_bucket(&self, _bucket: &BucketKey) -> Result<Option<BucketSnapshot>> {
        Ok(None)
    }

    async fn drop_bucket(&self, _bucket: &BucketKey) -> Result<()> {
        Ok(())
    }

    async fn close(&self, _store: &StoreName) -> Result<()> {
        self.asked.lock().unwrap().push("close");
        Ok(())
    }
}

/// Stands at its newest revision, whatever becomes of it.
#[derive(Debug)]
struct Plain {
    subject: Subject,
    newest: AtomicU64,
}

impl Plain {
    fn change(&self, persister: &Persister) {
        let revision = self.newest.fetch_add(1, Ordering::SeqCst) + 1;
        persister.changed(&self.subject, revision, 1);
    }

    /// Nobody is woken for it, but by who waits for it.
    fn change_unheard(&self, persister: &Persister) {
        let revision = self.newest.fetch_add(1, Ordering::SeqCst) + 1;
        lock(&persister.shared.dirty).changed(&self.subject, revision, 1, || persister.shared.now());
    }
}

impl Cell for Plain {
    fn subject(&self) -> &Subject {
        &self.subject
    }

    fn capture(&self) -> Captured {
        let revision = self.newest.load(Ordering::SeqCst);
        let Subject::Bucket(name) = &self.subject else { panic!("a bucket") };
        let change = BucketChange::Delta(BucketDelta::new(revision, 0, 1));
        Captured { revision, bytes: 1, torn: false, saves: vec![Save::Bucket(name.clone(), Arc::new(change))] }
    }

    fn saved(&self) {}

    fn handed(&self) {}

    fn restore(&self) {}
}

/// A persister of one bucket, without an actor.
async fn persister_of(adapter: &Arc<Scripted>) -> (Persister, Arc<Plain>) {
    let persister = empty_persister(adapter, None).await;
    let cell = bucket_of(&persister, "b");
    (persister, cell)
}

async fn empty_persister(adapter: &Arc<Scripted>, on_error: Option<OnError>) -> Persister {
    let adapter = Arc::clone(adapter) as Arc<dyn StorageAdapter>;
    let options = PersistenceOptions::default().with_debounce(Duration::ZERO);
    let bus = Bus::new(|failure| panic!("{failure}"));
    Persister::claim(StoreName::new("s").unwrap(), adapter, options, bus, on_error).await.unwrap()
}

fn bucket_of(persister: &Persister, name: &str) -> Arc<Plain> {
    let subject = Subject::Bucket(BucketName::new(name).unwrap());
    let cell = Arc::new(Plain { subject, newest: AtomicU64::new(0) });
    persister.register(Arc::clone(&cell) as Arc<dyn Cell>, 0);
    cell
}

fn refused() -> Error {
    Error::Permanent { operation: "commit".into(), source: None }
}

#[tokio::test(start_paused = true)]
async fn a_stop_tries_once_more_what_was_refused_by_a_commit_that_was_in_flight_before_it() {
    let adapter = Scripted::new([refused()]);
    let (persister, cell) = persister_of(&adapter).await;
    cell.change(&persister);
    adapter.is_asked("save", 1).await;
    let limit = Instant::now() + Duration::from_secs(30);
    let stopping = tokio::spawn({
        let persister = persister.clone();
        async move { persister.stop(limit).await }
    });
    // The stop waits for what is in flight by now.
    tokio::time::sleep(Duration::from_secs(1)).await;
    adapter.lets.add_permits(10);
    let (unsaved, failure) = stopping.await.unwrap();
    assert!(unsaved.is_empty() && failure.is_none(), "{unsaved:?}, {failure:?}");
    assert_eq!(*adapter.asked.lock().unwrap(), ["save", "save", "close"]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_gives_up_on_what_was_refused_in_its_own_time() {
    let adapter = Scripted::new(vec![refused(); 100]);
    adapter.lets.add_permits(200);
    let (persister, cell) = persister_of(&adapter).await;
    cell.change(&persister);
    let (unsaved, failure) = persister.stop(Instant::now() + Duration::from_secs(30)).await;
    assert_eq!(unsaved, std::slice::from_ref(&cell.subject));
    assert!(matches!(failure, Some(Error::Permanent { .. })), "{failure:?}");
    assert!(adapter.asked("save") <= 3, "{:?}", adapter.asked);
}

#[tokio::test(start_paused = true)]
async fn a_stop_leaves_none_of_its_time_unused_while_saving_may_yet_work() {
    for round in 0..20 {
        // The pauses grow beyond what is left of the time.
        let lost = Error::Transient { operation: "commit".into(), source: None };
        let adapter = Scripted::new(vec![lost; 1_000]);
        adapter.lets.add_permits(1_000);
        let (persister, cell) = persister_of(&adapter).await;
        cell.change(&persister);
        let limit = Instant::now() + Duration::from_secs(10);
        let stopping = tokio::spawn(async move { persister.stop(limit).await });
        // Saving is sound again for the last tenth of the time that is there for it.
        tokio::time::sleep_until(limit - Duration::from_millis(1_900)).await;
        adapter.answers.lock().unwrap().clear();
        let (unsaved, failure) = stopping.await.unwrap();
        assert!(unsaved.is_empty() && failure.is_none(), "round {round}: {unsaved:?}, {failure:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_handed_to_the_adapter_once_a_stop_has_given_up() {
    let adapter = Scripted::new([]);
    let (persister, cell) = persister_of(&adapter).await;
    let (release, released) = mpsc::channel::<()>();
    let (held, holds) = mpsc::channel();
    // Somebody has the turn for long: whoever wants it next has seen that saving had not ended.
    let holder = std::thread::spawn({
        let persister = persister.clone();
        move || {
            let _turn = lock(&persister.shared.turn);
            held.send(()).unwrap();
            released.recv().unwrap();
        }
    });
    holds.recv().unwrap();
    cell.change(&persister);
    let (unsaved, failure) = persister.stop(Instant::now() + Duration::from_millis(100)).await;
    assert_eq!(unsaved, std::slice::from_ref(&cell.subject));
    assert!(failure.is_some());
    release.send(()).unwrap();
    holder.join().unwrap();
    // Whoever had waited for the turn has it by now.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(adapter.asked("save"), 0);
}

fn home() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

#[test]
fn whoever_waits_without_a_runtime_leaves_the_commit_to_the_one_of_the_store() {
    let (home, adapter) = (home(), Scripted::new([]));
    adapter.lets.add_permits(2);
    let (persister, cell) = home.block_on(persister_of(&adapter));
    home.block_on(Actor::spawn(None, PersisterActor, persister.clone())).unwrap();
    cell.change_unheard(&persister);
    let mut flush = tokio_test::task::spawn(persister.flush(None));
    let mut outcome = flush.poll();
    while outcome.is_pending() {
        std::thread::sleep(Duration::from_millis(1));
        outcome = if flush.is_woken() { flush.poll() } else { outcome };
    }
    let Poll::Ready(outcome) = outcome else { panic!("it is pending") };
    outcome.unwrap();
}

#[test]
fn saving_goes_on_after_the_runtime_on_which_somebody_waited_has_come_to_rest() {
    let (home, adapter) = (home(), Scripted::new([]));
    let (persister, cell) = home.block_on(persister_of(&adapter));
    home.block_on(Actor::spawn(None, PersisterActor, persister.clone())).unwrap();
    cell.change_unheard(&persister);
    let elsewhere = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (registered, registers) = mpsc::channel();
    let waiting = std::thread::spawn({
        let persister = persister.clone();
        move || {
            elsewhere.block_on(async {
                let mut flush = pin!(persister.flush(None));
                let waits = poll_fn(|context| Poll::Ready(flush.as_mut().poll(context).is_pending())).await;
                registered.send(waits).unwrap();
                flush.await.unwrap();
            });
            // Nothing runs on it from here on.
            elsewhere
        }
    });
    assert!(registers.recv().unwrap());
    home.block_on(adapter.is_asked("save", 1));
    // Nobody who waits by now waits for this.
    cell.change_unheard(&persister);
    adapter.lets.add_permits(1);
    let _elsewhere = waiting.join().unwrap();
    home.block_on(adapter.is_asked("save", 2));
    adapter.lets.add_permits(1);
    let next = home.block_on(async { tokio::time::timeout(Duration::from_secs(10), persister.flush(None)).await });
    next.expect("the next commit ends").unwrap();
}

#[test]
fn a_stop_saves_though_the_runtime_of_the_store_has_come_to_rest() {
    let at_rest = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let adapter = Scripted::new([]);
    adapter.lets.add_permits(1);
    let (persister, cell) = at_rest.block_on(persister_of(&adapter));
    cell.change_unheard(&persister);
    let stop = async { persister.stop(Instant::now() + Duration::from_secs(10)).await };
    let (unsaved, failure) = home().block_on(stop);
    assert!(unsaved.is_empty() && failure.is_none(), "{unsaved:?}, {failure:?}");
    assert_eq!(*adapter.asked.lock().unwrap(), ["save", "close"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_next_commit_is_on_its_way_before_anybody_is_told_of_the_last_one() {
    let adapter = Scripted::new([refused()]);
    let (tell, told) = mpsc::channel();
    let on_error: OnError = {
        let adapter = Arc::clone(&adapter);
        Arc::new(move |_: &Failure| {
            // Whoever is told takes long over it.
            let begun = std::time::Instant::now();
            while adapter.asked("save") < 2 && begun.elapsed() < Duration::from_secs(10) {
                std::thread::sleep(Duration::from_millis(1));
            }
            tell.send(adapter.asked("save")).unwrap();
        })
    };
    let persister = empty_persister(&adapter, Some(on_error)).await;
    let (first, second) = (bucket_of(&persister, "first"), bucket_of(&persister, "second"));
    first.change(&persister);
    adapter.is_asked("save", 1).await;
    // It is not woken for, so that nothing but the end of the first commit begins the second.
    second.change_unheard(&persister);
    adapter.lets.add_permits(1);
    assert_eq!(tokio::task::spawn_blocking(move || told.recv().unwrap()).await.unwrap(), 2);
    adapter.lets.add_permits(10);
    persister.flush(None).await.unwrap();
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
