//! What stands between the pure dirty set, the cells and the adapter. The actor in `actor` drives it; whoever holds the
//! [`Persister`] can tell it of changes and wait for saves.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime};

use hashbrown::HashMap;
use ractor::ActorRef;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::base::blocking;
use crate::base::durability::Durability;
use crate::base::error::{Error, Failure, Result};
use crate::base::jitter::jitter;
use crate::base::name::{BucketKey, BucketName, ChannelId, ChannelKey, StoreName, Subject};
use crate::bus::{Bus, Event, Sink, Topic};
use crate::persistence::actor::PersisterMessage;
use crate::persistence::cell::{Cell, Granularity};
use crate::persistence::dirty::{DirtySet, Next, Policy, Verdict};
use crate::persistence::event::{PersistenceEvent, PersistenceOutcome};
use crate::persistence::health::{Degraded, Health, Reason};
use crate::persistence::options::{LoadFailure, PersistenceOptions};
use crate::persistence::port::{Capabilities, Commit, Epoch, Save, StorageAdapter};
use crate::records::BucketSnapshot;
use crate::sds::ChannelData;

type Token = oneshot::Sender<Result<()>>;

/// Called for every failure that nobody waits for.
pub type OnError = Arc<dyn Fn(&Failure) + Send + Sync>;

/// A handle on a store's persister: clones share it.
#[derive(Clone)]
pub(crate) struct Persister {
    shared: Arc<Shared>,
}

struct Shared {
    store: StoreName,
    adapter: Arc<dyn StorageAdapter>,
    capabilities: Capabilities,
    epoch: Epoch,
    options: PersistenceOptions,
    bus: Bus,
    on_error: Option<OnError>,
    started: Instant,
    /// Locked for moments only, never across an await; may be held while no other lock is.
    dirty: Mutex<DirtySet<Token>>,
    cells: Mutex<HashMap<Subject, Arc<dyn Cell>>>,
    actor: Mutex<Option<ActorRef<PersisterMessage>>>,
    /// A wake-up is on its way to the actor already.
    woken: AtomicBool,
    /// Held from the choice of what to commit to the end of its capture, and from an outcome to the end of what it does
    /// to the cells: a capture in between would be taken for what the outcome is about, and be forgotten with it.
    turn: Mutex<()>,
    /// Shared by transactions while they apply what belongs together, taken alone from the choice of what to commit to
    /// the end of its capture: a transaction in between would be captured by halves.
    gate: RwLock<()>,
    /// Held while an outcome is told, and taken before the turn ends: outcomes are told in the order of commits.
    telling: Mutex<()>,
    /// The adapter's commit in flight.
    flight: Mutex<Option<AbortHandle>>,
    /// Told whenever a commit has ended.
    landed: Notify,
    /// Saving has ended for good.
    ended: AtomicBool,
    loads: Semaphore,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    commits: AtomicU64,
    failed_commits: AtomicU64,
    bytes: AtomicU64,
    last_commit_nanos: AtomicU64,
    loads: AtomicU64,
}

/// What a store's saving has done so far.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct PersistenceStats {
    /// Whether the store has an adapter at all.
    pub enabled: bool,
    /// Commits that succeeded.
    pub commits: u64,
    /// Commits that failed.
    pub failed_commits: u64,
    /// Estimated bytes of the changes that succeeded.
    pub bytes: u64,
    /// How long the newest commit took.
    pub last_commit: Duration,
    /// Buckets and channels that were loaded.
    pub loads: u64,
    /// Estimated bytes that are not saved yet.
    pub unsaved_bytes: usize,
    /// Buckets and channels with changes that are not saved yet.
    pub unsaved: Vec<Subject>,
    /// The saved revision of each bucket and channel.
    pub saved_revisions: Vec<(Subject, u64)>,
}

/// Whether something was saved, as soon as that is known.
#[derive(Debug)]
pub(crate) enum Saved {
    /// It is known.
    Known(Result<()>),
    /// Whoever saves it will tell.
    Coming(oneshot::Receiver<Result<()>>),
}

impl Saved {
    /// Waits until it is known.
    ///
    /// # Errors
    /// What the commit said; `Stopping` where saving has ended, and what fenced the store.
    pub(crate) async fn outcome(self) -> Result<()> {
        match self {
            Self::Known(outcome) => outcome,
            Self::Coming(outcome) => outcome.await.unwrap_or(Err(Error::Stopping)),
        }
    }
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

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that runs under these locks calls foreign code.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Persister {
    /// Takes the store over on the adapter.
    ///
    /// # Errors
    /// `InvalidOptions`, and what the adapter's claim answers.
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
        let epoch = isolated("claim", async move { claiming.claim(&claimed).await }).await?;
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
            counts: Counts::default(),
            options,
        };
        Ok(Self { shared: Arc::new(shared) })
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
    pub(super) fn driven_by(&self, actor: ActorRef<PersisterMessage>) {
        *lock(&self.shared.actor) = Some(actor);
        self.shared.woken.store(false, Ordering::SeqCst);
    }

    /// The actor is dead. The wake-ups that it had not looked at are gone with it, and whoever sent them still waits.
    pub(super) fn abandoned(&self) {
        self.shared.woken.store(false, Ordering::SeqCst);
        // Without a runtime there is nobody left to wait.
        if !self.shared.ended.load(Ordering::SeqCst) && tokio::runtime::Handle::try_current().is_ok() {
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

    /// Waits until a revision of a subject is saved at a level.
    ///
    /// # Errors
    /// What the commit said; `Stopping` where saving has ended.
    pub(crate) async fn saved(&self, subject: &Subject, revision: u64, level: Durability) -> Result<()> {
        let outcome = self.wait(|dirty, token| dirty.await_saved(subject, revision, level, token)).await;
        self.unless_saved(outcome, subject, revision, level)
    }

    /// When a revision of a subject is saved at a level, however often that fails first; hurries nothing. It is noted
    /// now, so that nothing which happens after the save changes the answer, however late it is asked for.
    pub(crate) fn follow(&self, subject: &Subject, revision: u64, level: Durability) -> Saved {
        match self.begin_wait(|dirty, token| dirty.follow(subject, revision, level, token)) {
            Saved::Known(outcome) => Saved::Known(self.unless_saved(outcome, subject, revision, level)),
            later => later,
        }
    }

    /// The last flush of a stop may have saved a change before it was waited for.
    fn unless_saved(&self, outcome: Result<()>, subject: &Subject, revision: u64, level: Durability) -> Result<()> {
        match outcome {
            Err(Error::Stopping) if lock(&self.shared.dirty).is_saved(subject, revision, level) => Ok(()),
            outcome => outcome,
        }
    }

    /// Waits until everything accepted so far is saved, of one subject or of all.
    ///
    /// # Errors
    /// What the commit said; `Stopping` where saving has ended.
    pub(crate) async fn flush(&self, subject: Option<&Subject>) -> Result<()> {
        self.wait(|dirty, token| dirty.flush(subject, token)).await
    }

    /// Deletes what is stored of a subject and forgets it; waits for a commit in flight first.
    ///
    /// # Errors
    /// What the adapter said; the subject is still there then.
    pub(crate) async fn drop_stored(&self, subject: &Subject) -> Result<()> {
        self.wait(|dirty, token| dirty.drop_subject(subject.clone(), token)).await
    }

    /// Forgets a subject with what is unsaved of it.
    pub(crate) fn forget(&self, subject: &Subject) {
        let gone = Error::Stopping;
        let answers = lock(&self.shared.dirty).forget(subject, &gone);
        lock(&self.shared.cells).remove(subject);
        answer(answers);
    }

    async fn wait(
        &self,
        register: impl FnOnce(&mut DirtySet<Token>, Token) -> Option<(Token, Result<()>)>,
    ) -> Result<()> {
        self.begin_wait(register).outcome().await
    }

    fn begin_wait(&self, register: impl FnOnce(&mut DirtySet<Token>, Token) -> Option<(Token, Result<()>)>) -> Saved {
        let (token, outcome) = oneshot::channel();
        let in_flight = {
            let mut dirty = lock(&self.shared.dirty);
            // Under the lock: who has registered when saving ends is told so, who comes later has to see it here.
            if self.shared.ended.load(Ordering::SeqCst) {
                return Saved::Known(Err(Error::Stopping));
            }
            if let Some((_, answer)) = register(&mut dirty, token) {
                return Saved::Known(answer);
            }
            dirty.in_flight()
        };
        // What is in flight ends with a look at everything.
        if !in_flight {
            self.wake();
        }
        Saved::Coming(outcome)
    }

    /// The actor looks at what there is to do; wake-ups on their way count for one.
    fn wake(&self) {
        if self.shared.woken.swap(true, Ordering::SeqCst) {
            return;
        }
        let actor = lock(&self.shared.actor).clone();
        if actor.is_none_or(|actor| actor.cast(PersisterMessage::Wake).is_err()) {
            // The actor is dead. Whoever waits is served all the same, even if it is never replaced because its
            // supervisor was killed; the debounce timer is what is missing until then.
            let persister = self.clone();
            tokio::spawn(async move { persister.advance() });
        }
    }

    /// Does what is to be done; answers when to look again. Called by the actor.
    pub(super) fn advance(&self) -> Option<Duration> {
        // Cleared first: a change that comes from here on sends a wake-up of its own.
        self.shared.woken.store(false, Ordering::SeqCst);
        loop {
            if self.shared.ended.load(Ordering::SeqCst) {
                return None;
            }
            let turn = lock(&self.shared.turn);
            match self.step() {
                Step::Rest => return None,
                Step::Wait(delay) => return Some(delay),
                Step::Settled(verdict) => self.tell_all(verdict, turn),
            }
        }
    }

    /// One step, in the persister's turn.
    fn step(&self) -> Step {
        let now = self.shared.now();
        let alone = self.shared.gate.write().unwrap_or_else(PoisonError::into_inner);
        let next = lock(&self.shared.dirty).next(now);
        match next {
            Next::Rest => Step::Rest,
            Next::WaitUntil(at) => Step::Wait(at.saturating_sub(now)),
            Next::Drop(subject) => {
                let save = match &subject {
                    Subject::Bucket(name) => Save::DropBucket(name.clone()),
                    Subject::Channel(id) => Save::DropChannel(id.clone()),
                };
                self.launch(vec![save], self.shared.capabilities.durability, 0);
                Step::Rest
            }
            Next::Commit { subjects, level, sync } => {
                let mut saves = Vec::with_capacity(subjects.len());
                let mut bytes = 0;
                for subject in &subjects {
                    let cell = lock(&self.shared.cells).get(subject).cloned();
                    let Some(cell) = cell else { continue };
                    let captured = cell.capture();
                    bytes += captured.bytes;
                    saves.extend(captured.saves);
                    lock(&self.shared.dirty).captured(subject, captured.revision);
                }
                drop(alone);
                if saves.is_empty() && !sync {
                    // Everything was captured by an earlier commit.
                    let verdict = lock(&self.shared.dirty).saved(now);
                    self.settle_cells(&verdict);
                    return Step::Settled(verdict);
                }
                self.launch(saves, level, bytes);
                Step::Rest
            }
        }
    }

    /// Hands a commit to the adapter, in tasks of their own. A panic of the adapter is an unknown outcome.
    fn launch(&self, saves: Vec<Save>, level: Durability, bytes: usize) {
        let shared = &self.shared;
        let limit = shared.options.commit_timeout;
        let commit = Commit::new(shared.store.clone(), shared.epoch, level, saves);
        let adapter = Arc::clone(&shared.adapter);
        let persister = self.clone();
        let begun = Instant::now();
        let mut work = tokio::spawn(async move { adapter.commit(&commit).await });
        *lock(&shared.flight) = Some(work.abort_handle());
        tokio::spawn(async move {
            // It is waited for however long it takes, but whoever waits for it is told in time.
            let ended = loop {
                match tokio::time::timeout(limit, &mut work).await {
                    Ok(ended) => break ended,
                    Err(_) => persister.overdue(limit),
                }
            };
            let outcome = ended.unwrap_or_else(|error| Err(blocking::lost("commit", &error)));
            persister.finished(outcome, bytes, begun.elapsed());
        });
    }

    fn overdue(&self, limit: Duration) {
        let slow = std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer within {limit:?}"));
        let error = Error::unknown("commit", slow);
        let turn = lock(&self.shared.turn);
        let verdict = lock(&self.shared.dirty).overdue(&error, self.shared.now());
        self.tell_all(verdict, turn);
    }

    fn finished(&self, outcome: Result<()>, bytes: usize, took: Duration) {
        let counts = &self.shared.counts;
        counts.last_commit_nanos.store(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let turn = lock(&self.shared.turn);
        *lock(&self.shared.flight) = None;
        let now = self.shared.now();
        let verdict = match &outcome {
            Ok(()) => {
                counts.commits.fetch_add(1, Ordering::Relaxed);
                counts.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
                lock(&self.shared.dirty).saved(now)
            }
            Err(error) => {
                counts.failed_commits.fetch_add(1, Ordering::Relaxed);
                lock(&self.shared.dirty).failed(error, now, jitter())
            }
        };
        self.settle_cells(&verdict);
        self.tell_all(verdict, turn);
        self.shared.landed.notify_waiters();
        self.wake();
    }

    /// Carries out what an outcome means for the cells, in the persister's turn; before anybody is told, so that whoever
    /// is answered finds them settled.
    fn settle_cells(&self, verdict: &Verdict<Token>) {
        let Verdict { saved, handed, unsaved, dropped, .. } = verdict;
        let cells: Vec<(&Subject, Arc<dyn Cell>)> = {
            let mut cells = lock(&self.shared.cells);
            if let Some(dropped) = dropped {
                cells.remove(dropped);
            }
            let all = saved.iter().chain(handed).chain(unsaved);
            all.filter_map(|subject| Some((subject, Arc::clone(cells.get(subject)?)))).collect()
        };
        for (subject, cell) in cells {
            if saved.binary_search(subject).is_ok() {
                cell.saved();
            } else if unsaved.binary_search(subject).is_ok() {
                cell.restore();
            } else {
                cell.handed();
            }
        }
    }

    /// Tells everybody of an outcome, once it is settled; the turn ends before anybody is told.
    fn tell_all(&self, verdict: Verdict<Token>, turn: MutexGuard<'_, ()>) {
        let _telling = lock(&self.shared.telling);
        drop(turn);
        let Verdict { answers, saved, failures, recovered, .. } = verdict;
        for subject in &recovered {
            tracing::info!(store = %self.shared.store, %subject, "saving works again");
        }
        for subject in &saved {
            let revision = lock(&self.shared.dirty).saved_revision(subject);
            self.tell(subject, PersistenceOutcome::Saved { revision });
        }
        for failure in failures {
            self.report(failure);
        }
        answer(answers);
    }

    /// Reports a failure that nobody waits for: to the log, the bus and the user's callback.
    pub(crate) fn report(&self, failure: Failure) {
        let Failure { subject, operation, error, attempt } = &failure;
        tracing::warn!(
            store = %self.shared.store,
            subject = subject.as_ref().map(tracing::field::display),
            operation,
            attempt,
            error = error as &dyn std::error::Error,
            "persistence failed"
        );
        if let (Some(subject), "save") = (subject, *operation) {
            self.tell(subject, PersistenceOutcome::Failed { error: error.clone(), attempt: *attempt });
        }
        if let Some(on_error) = &self.shared.on_error
            && catch_unwind(AssertUnwindSafe(|| on_error(&failure))).is_err()
        {
            tracing::error!(store = %self.shared.store, "the on_error callback panicked");
        }
    }

    fn tell(&self, subject: &Subject, outcome: PersistenceOutcome) {
        if self.shared.bus.subscriber_count() == 0 {
            return;
        }
        let topic = Topic::persistence(subject.name(), outcome.kind());
        let revision = match outcome {
            PersistenceOutcome::Saved { revision } => revision,
            _ => 0,
        };
        let payload = Arc::new(PersistenceEvent { subject: subject.clone(), outcome });
        self.shared.bus.publish(Event::new(topic, Some(subject.clone()), revision, 0, false, payload));
    }

    /// Loads a bucket, when its turn has come.
    ///
    /// # Errors
    /// What the adapter said; `Transient` where it took too long.
    pub(crate) async fn load_bucket(&self, name: &BucketName) -> Result<Option<BucketSnapshot>> {
        let key = BucketKey::new(self.shared.store.clone(), name.clone());
        let adapter = Arc::clone(&self.shared.adapter);
        self.load(&Subject::Bucket(name.clone()), async move { adapter.load_bucket(&key).await }).await
    }

    /// Loads a channel, when its turn has come.
    ///
    /// # Errors
    /// What the adapter said; `Transient` where it took too long.
    pub(crate) async fn load_channel(&self, id: &ChannelId) -> Result<ChannelData> {
        let key = ChannelKey::new(self.shared.store.clone(), id.clone());
        let adapter = Arc::clone(&self.shared.adapter);
        self.load(&Subject::Channel(id.clone()), async move { adapter.load_channel(&key).await }).await
    }

    async fn load<T, F>(&self, subject: &Subject, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let _turn = self.shared.loads.acquire().await.map_err(|_| Error::Stopping)?;
        let limit = self.shared.options.load_timeout;
        let ended = tokio::time::timeout(limit, isolated("load", work)).await.map_err(|_| {
            let slow = std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer within {limit:?}"));
            Error::transient(format!("loading {subject}"), slow)
        })?;
        self.shared.counts.loads.fetch_add(1, Ordering::Relaxed);
        ended
    }

    /// Tells that a subject was loaded.
    pub(crate) fn recovered(&self, subject: &Subject, count: usize, took: Duration) {
        tracing::debug!(store = %self.shared.store, %subject, count, ?took, "recovered");
        self.tell(subject, PersistenceOutcome::Recovered { count, took });
    }

    /// Moves what could not be read out of the way; answers where it is.
    ///
    /// # Errors
    /// What the adapter said: then nothing may be written over the data.
    pub(crate) async fn quarantine(&self, subject: &Subject) -> Result<String> {
        let (shared, subject) = (Arc::clone(&self.shared), subject.clone());
        isolated("quarantine", async move { shared.adapter.quarantine(&shared.store, &subject).await }).await
    }

    /// Saves everything accepted so far, then has the adapter copy what it holds; answers the bytes written.
    ///
    /// # Errors
    /// What the commit or the adapter said.
    pub(crate) async fn backup(&self, target: PathBuf) -> Result<u64> {
        self.flush(None).await?;
        let shared = Arc::clone(&self.shared);
        isolated("backup", async move { shared.adapter.backup(&target).await }).await
    }

    /// Has the adapter give back what space it does not need; answers how many bytes that was.
    ///
    /// # Errors
    /// What the adapter said.
    pub(crate) async fn compact(&self) -> Result<u64> {
        let shared = Arc::clone(&self.shared);
        isolated("compact", async move { shared.adapter.compact().await }).await
    }

    /// The error that fences the store, if one does.
    pub(crate) fn fenced(&self) -> Option<Error> {
        lock(&self.shared.dirty).fenced().cloned()
    }

    pub(crate) fn health(&self) -> Health {
        if self.shared.ended.load(Ordering::SeqCst) {
            return Health::Stopped;
        }
        let dirty = lock(&self.shared.dirty);
        if dirty.fenced().is_some() {
            return Health::Fenced;
        }
        let Some(trouble) = dirty.trouble() else { return Health::Healthy };
        let (now, wall) = (self.shared.now(), SystemTime::now());
        let ago = now.saturating_sub(trouble.since);
        Health::Degraded(Degraded {
            reason: if dirty.under_pressure() { Reason::MemoryPressure } else { Reason::SaveFailing },
            since: wall.checked_sub(ago).unwrap_or(wall),
            last_error: trouble.error.clone(),
            unsaved_bytes: dirty.unsaved_bytes(),
            unsaved_subjects: dirty.unsaved(),
            next_retry: dirty.next_retry().and_then(|at| wall.checked_add(at.saturating_sub(now))),
        })
    }

    pub(crate) fn stats(&self) -> PersistenceStats {
        let counts = &self.shared.counts;
        let dirty = lock(&self.shared.dirty);
        let mut saved_revisions: Vec<_> =
            dirty.saved_revisions().map(|(subject, revision)| (subject.clone(), revision)).collect();
        saved_revisions.sort_unstable();
        PersistenceStats {
            enabled: true,
            commits: counts.commits.load(Ordering::Relaxed),
            failed_commits: counts.failed_commits.load(Ordering::Relaxed),
            bytes: counts.bytes.load(Ordering::Relaxed),
            last_commit: Duration::from_nanos(counts.last_commit_nanos.load(Ordering::Relaxed)),
            loads: counts.loads.load(Ordering::Relaxed),
            unsaved_bytes: dirty.unsaved_bytes(),
            unsaved: dirty.unsaved(),
            saved_revisions,
        }
    }

    /// Saves what is unsaved, for as long as `stop_timeout` allows, then ends saving for good and releases the store's
    /// claim. Answers what could not be saved and why.
    pub(crate) async fn stop(&self) -> (Vec<Subject>, Option<Error>) {
        let stop_timeout = self.shared.options.stop_timeout;
        let limit = Instant::now() + stop_timeout;
        // Closing may hang as well as committing: a part of the time is kept for it.
        let saving = limit - (stop_timeout / 10).min(Duration::from_secs(1));
        let mut failure = self.last_flush(saving).await;
        let superseded = match &failure {
            None => self.is_superseded(saving).await,
            Some(error) => matches!(error, Error::Fenced { .. }),
        };
        self.shared.ended.store(true, Ordering::SeqCst);
        if let Some(flight) = lock(&self.shared.flight).take() {
            flight.abort();
        }
        let (unsaved, answers) = {
            let mut dirty = lock(&self.shared.dirty);
            (dirty.unsaved(), dirty.dismiss(&Error::Stopping))
        };
        answer(answers);
        if superseded {
            // The claim is the successor's, and not ours to release.
            return (unsaved, failure);
        }
        let shared = Arc::clone(&self.shared);
        let close = isolated("close", async move { shared.adapter.close(&shared.store).await });
        match tokio::time::timeout_at(limit, close).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                self.report(Failure::new(None, "close", error.clone(), 1));
                failure.get_or_insert(error);
            }
            Err(_) => {
                failure.get_or_insert_with(|| timed_out("close", "the adapter did not close in time"));
            }
        }
        (unsaved, failure)
    }

    /// Flushes until it succeeds, fails for good, or the time is over. Answers why something is unsaved.
    async fn last_flush(&self, limit: Instant) -> Option<Error> {
        let mut failure = None;
        for attempt in 1.. {
            let flushed = async {
                loop {
                    self.flush(None).await?;
                    // Drops that have been accepted are finished, too.
                    self.landed().await;
                    if lock(&self.shared.dirty).unsaved().is_empty() {
                        return Ok::<(), Error>(());
                    }
                }
            };
            match tokio::time::timeout_at(limit, flushed).await {
                Ok(Ok(())) => return None,
                Ok(Err(error)) => {
                    let again = error.is_retryable();
                    failure = Some(error);
                    let pause = Instant::now() + self.shared.options.retry.delay(attempt, jitter());
                    if !again || pause >= limit {
                        break;
                    }
                    tokio::time::sleep_until(pause).await;
                }
                Err(_) => {
                    failure.get_or_insert_with(|| timed_out("commit", "the last commit did not end in time"));
                    break;
                }
            }
        }
        failure
    }

    /// Waits until no commit is in flight and no drop waits for its turn.
    async fn landed(&self) {
        loop {
            let landed = self.shared.landed.notified();
            tokio::pin!(landed);
            // Before the look, so that what ends after it is noticed.
            landed.as_mut().enable();
            if !lock(&self.shared.dirty).is_busy() {
                return;
            }
            landed.await;
        }
    }

    /// Whether a later claim owns the store by now. A commit of nothing tells; one in flight would have told already.
    async fn is_superseded(&self, limit: Instant) -> bool {
        if !self.shared.capabilities.fencing {
            return false;
        }
        let Shared { store, adapter, epoch, capabilities, .. } = &*self.shared;
        let nothing = Commit::new(store.clone(), *epoch, capabilities.durability, Vec::new());
        let adapter = Arc::clone(adapter);
        let commit = isolated("commit", async move { adapter.commit(&nothing).await });
        let outcome = tokio::time::timeout_at(limit, commit).await;
        matches!(outcome, Ok(Err(Error::Fenced { .. })))
    }
}

/// What [`Persister::step`] came to.
enum Step {
    /// There is nothing to do before the next wake-up.
    Rest,
    /// There will be something to do.
    Wait(Duration),
    /// There was nothing to hand over; this follows all the same.
    Settled(Verdict<Token>),
}

impl Shared {
    fn now(&self) -> Duration {
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
async fn isolated<T: Send + 'static>(
    operation: &'static str,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let mut work = AbortOnDrop(tokio::spawn(work));
    (&mut work.0).await.unwrap_or_else(|error| Err(blocking::lost(operation, &error)))
}

fn answer(answers: Vec<(Token, Result<()>)>) {
    for (token, outcome) in answers {
        // Whoever waited may have stopped waiting.
        let _gone = token.send(outcome);
    }
}

fn timed_out(operation: &'static str, what: &'static str) -> Error {
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
