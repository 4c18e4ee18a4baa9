//! What a persister is made of, and what it is told.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use hashbrown::HashMap;
use ractor::ActorRef;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::base::blocking;
use crate::base::error::{Error, Failure, Result};
use crate::base::name::{StoreName, Subject};
use crate::bus::{Bus, Event, Sink};
use crate::persistence::actor::PersisterMessage;
use crate::persistence::cell::{Cell, Granularity};
use crate::persistence::dirty::{DirtySet, Policy};
use crate::persistence::event::Repair;
use crate::persistence::meter;
use crate::persistence::options::{LoadFailure, PersistenceOptions};
use crate::persistence::persister::damage::Damage;
use crate::persistence::port::{Capabilities, Epoch, StorageAdapter};

pub(super) type Token = oneshot::Sender<Result<()>>;

/// Called for every failure that nobody waits for.
pub type OnError = Arc<dyn Fn(&Failure) + Send + Sync>;

/// A handle on a store's persister: clones share it.
#[derive(Clone)]
pub(crate) struct Persister {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) store: StoreName,
    pub(super) adapter: Arc<dyn StorageAdapter>,
    pub(super) capabilities: Capabilities,
    pub(super) epoch: Epoch,
    pub(super) options: PersistenceOptions,
    pub(super) bus: Bus,
    pub(super) on_error: Option<OnError>,
    pub(super) started: Instant,
    /// The runtime on which the store was started.
    pub(super) home: Handle,
    /// Locked for moments only, never across an await; may be held while no other lock is.
    pub(super) dirty: Mutex<DirtySet<Token>>,
    pub(super) cells: Mutex<HashMap<Subject, Arc<dyn Cell>>>,
    pub(super) actor: Mutex<Option<ActorRef<PersisterMessage>>>,
    /// A wake-up is on its way to the actor already.
    pub(super) woken: AtomicBool,
    /// Held from the choice of what to commit to the end of its capture, and from an outcome to the end of what it does
    /// to the cells: a capture in between would be taken for what the outcome is about, and be forgotten with it.
    pub(super) turn: Mutex<()>,
    /// Shared by transactions while they apply what belongs together, taken alone from the choice of what to commit to
    /// the end of its capture: a transaction in between would be captured by halves.
    pub(super) gate: RwLock<()>,
    /// Held while an outcome is told, and taken before the turn ends: outcomes are told in the order of commits.
    pub(super) telling: Mutex<()>,
    /// The adapter's commit in flight; there is none to come where saving has ended before this is locked.
    pub(super) flight: Mutex<Option<AbortHandle>>,
    /// Told whenever a commit has ended.
    pub(super) landed: Notify,
    /// Saving has ended for good.
    pub(super) ended: AtomicBool,
    pub(super) loads: Semaphore,
    /// What was repaired while a subject was loaded, until that is told.
    pub(super) repairs: Mutex<HashMap<Subject, Vec<Repair>>>,
    /// What the adapter has found damaged of its own accord; without a subject, the back-end as a whole.
    pub(super) damaged: Mutex<HashMap<Option<Subject>, Damage>>,
    pub(super) counts: Counts,
}

#[derive(Default)]
pub(super) struct Counts {
    pub(super) commits: AtomicU64,
    pub(super) failed_commits: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) last_commit_nanos: AtomicU64,
    pub(super) loads: AtomicU64,
}

/// Keeps the persister from capturing anything.
pub(crate) struct Gate<'a> {
    persister: &'a Persister,
    _open: RwLockReadGuard<'a, ()>,
}

impl Gate<'_> {
    /// What was noted of these subjects under the gate, each at its revision, belongs together and is never saved apart.
    pub(crate) fn join(&self, changes: &[(&Subject, u64)]) {
        let shared = &self.persister.shared;
        if !shared.ended.load(Ordering::Relaxed) && lock(&shared.dirty).join(changes, || shared.now()) {
            self.persister.wake();
        }
    }
}

impl fmt::Debug for Persister {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Persister").field("store", &self.shared.store).finish_non_exhaustive()
    }
}

pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that runs under these locks calls foreign code.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Persister {
    /// Takes the store over on the adapter.
    ///
    /// # Errors
    /// `InvalidOptions`, what the adapter's claim answers, and `Transient` where that takes longer than `load_timeout`.
    pub(crate) async fn claim(
        store: StoreName,
        adapter: Arc<dyn StorageAdapter>,
        options: PersistenceOptions,
        bus: Bus,
        on_error: Option<OnError>,
    ) -> Result<Self> {
        options.validate()?;
        let capabilities = adapter.capabilities();
        let (claiming, claimed) = (Arc::clone(&adapter), store.clone());
        let claim = isolated("claim", async move { claiming.claim(&claimed).await });
        let epoch = timely(format!("claiming store {store}"), options.load_timeout, claim).await?;
        meter::describe();
        // A level that the adapter does not have is lowered for what nobody awaits.
        let policy = Policy {
            debounce: options.debounce,
            max_unsaved: options.max_unsaved,
            retry: options.retry,
            save_level: options.save_durability.min(capabilities.durability),
            top_level: capabilities.durability,
        };
        let shared = Shared {
            store,
            adapter,
            capabilities,
            epoch,
            bus,
            on_error,
            started: Instant::now(),
            home: Handle::current(),
            dirty: Mutex::new(DirtySet::new(policy)),
            cells: Mutex::new(HashMap::new()),
            actor: Mutex::new(None),
            woken: AtomicBool::new(false),
            turn: Mutex::new(()),
            gate: RwLock::new(()),
            telling: Mutex::new(()),
            flight: Mutex::new(None),
            landed: Notify::new(),
            ended: AtomicBool::new(false),
            loads: Semaphore::new(options.load_concurrency),
            repairs: Mutex::default(),
            damaged: Mutex::default(),
            counts: Counts::default(),
            options,
        };
        let persister = Self { shared: Arc::new(shared) };
        persister.watch();
        Ok(persister)
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        self.shared.capabilities
    }

    pub(crate) fn load_failure(&self) -> LoadFailure {
        self.shared.options.load_failure
    }

    /// What the adapter of this store is given of a bucket.
    pub(crate) fn granularity(&self) -> Granularity {
        if self.shared.capabilities.incremental { Granularity::Changes } else { Granularity::Whole }
    }

    /// From now on this actor is woken when there is something to do.
    pub(in crate::persistence) fn driven_by(&self, actor: ActorRef<PersisterMessage>) {
        *lock(&self.shared.actor) = Some(actor);
        self.shared.woken.store(false, Ordering::SeqCst);
    }

    /// The actor is dead. The wake-ups that it had not looked at are gone with it, and whoever sent them still waits.
    pub(in crate::persistence) fn abandoned(&self) {
        self.shared.woken.store(false, Ordering::SeqCst);
        if !self.shared.ended.load(Ordering::SeqCst) {
            self.wake();
        }
    }

    /// A bucket or channel is there, and stands at a revision that is saved.
    pub(crate) fn register(&self, cell: Arc<dyn Cell>, revision: u64) {
        lock(&self.shared.dirty).loaded(cell.subject().clone(), revision);
        lock(&self.shared.cells).insert(cell.subject().clone(), cell);
    }

    /// A subject changed. O(1), for the subject's own turn.
    pub(crate) fn changed(&self, subject: &Subject, revision: u64, bytes: usize) {
        if self.shared.ended.load(Ordering::Relaxed) {
            return;
        }
        if lock(&self.shared.dirty).changed(subject, revision, bytes, || self.shared.now()) {
            self.wake();
        }
    }

    /// What is stored of a subject is to be replaced by what its cell has been given for that.
    pub(crate) fn rewritten(&self, subject: &Subject, revision: u64) {
        let now = self.shared.now();
        if lock(&self.shared.dirty).rewritten(subject, revision, now) {
            self.wake();
        }
    }

    /// While it is held, nothing is captured: what is noted meanwhile is saved together. For moments only.
    pub(crate) fn gate(&self) -> Gate<'_> {
        Gate { persister: self, _open: self.shared.gate.read().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Forgets a subject with what is unsaved of it.
    pub(crate) fn forget(&self, subject: &Subject) {
        let gone = Error::Stopping;
        let answers = lock(&self.shared.dirty).forget(subject, &gone);
        lock(&self.shared.cells).remove(subject);
        lock(&self.shared.repairs).remove(subject);
        answer(answers);
    }

    /// The error that fences the store, if one does.
    pub(crate) fn fenced(&self) -> Option<Error> {
        lock(&self.shared.dirty).fenced().cloned()
    }
}

impl Shared {
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The adapter's work in a task of its own, which ends with this future: a panic of the adapter is an unknown outcome.
pub(super) async fn isolated<T: Send + 'static>(
    operation: &'static str,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let mut work = AbortOnDrop(tokio::spawn(work));
    (&mut work.0).await.unwrap_or_else(|error| Err(blocking::lost(operation, &error)))
}

pub(super) fn answer(answers: Vec<(Token, Result<()>)>) {
    for (token, outcome) in answers {
        // Whoever waited may have stopped waiting.
        let _gone = token.send(outcome);
    }
}

/// Work for which there is only so much time.
pub(super) async fn timely<T>(operation: String, limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        let slow = std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer within {limit:?}"));
        Err(Error::transient(operation, slow))
    })
}

pub(super) fn timed_out(operation: &'static str, what: &'static str) -> Error {
    Error::unknown(operation, std::io::Error::new(std::io::ErrorKind::TimedOut, what))
}

/// Keeps the dirty set up to date: subscribed to `bucket.*.*` like anybody else.
#[derive(Debug)]
pub(crate) struct DirtySink(pub(crate) Persister);

impl Sink for DirtySink {
    fn event(&self, event: &Event) {
        if let (true, Some(subject)) = (event.persistent, &event.subject) {
            self.0.changed(subject, event.revision, event.bytes);
        }
    }

    fn reads_payload(&self) -> bool {
        false
    }
}
