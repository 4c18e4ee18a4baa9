//! What a store is made of, shared by its handles and its supervisor.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use ractor::{Actor, ActorCell, ActorId, ActorRef};
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::base::clock::Clock;
use crate::base::error::{Error, Failure, Result};
use crate::base::name::{BucketName, ChannelId, StoreName, Subject};
use crate::base::slot::Place;
use crate::bucket::{Activity, Directory, LiveQueries, NamedQueries};
use crate::bus::{Bus, SubscriptionGuard};
use crate::durable::Values;
use crate::persistence::{Coordinator, OnError, PersistenceOptions, Persister, PersisterActor};
use crate::store::bucket::BucketEntry;
use crate::store::channel::ChannelEntry;
use crate::store::children::{Child, Children};
use crate::store::inbox::Inboxes;
use crate::store::report::StopReport;
use crate::store::routing::{AutoCreate, Created};
use crate::store::supervisor::SupervisorMessage;

/// The least time that actors have to finish what they have accepted.
const LEAST_DRAIN: Duration = Duration::from_secs(1);

/// What a store is made of.
pub(super) struct Inner {
    pub(super) name: StoreName,
    pub(super) bus: Bus,
    pub(super) clock: Arc<dyn Clock>,
    /// None without an adapter.
    pub(super) persister: Option<Persister>,
    pub(super) on_error: Option<OnError>,
    /// The actors that were killed with the supervisor, and whether their subjects are saved.
    dying: Mutex<Vec<(Subject, bool, ActorCell)>>,
    pub(super) buckets: Mutex<HashMap<BucketName, Arc<BucketEntry>>>,
    /// Where handles find the buckets.
    pub(super) directory: Directory,
    /// How often what has expired is removed.
    pub(super) ttl_check_interval: Duration,
    /// Numbers the commits of all buckets.
    pub(super) commits: Arc<AtomicU64>,
    pub(super) channels: Mutex<HashMap<ChannelId, Arc<ChannelEntry>>>,
    /// What packets of channels that are not open do.
    pub(super) auto_create: AutoCreate,
    pub(super) created: Created,
    /// The durable values of users' own actors, and whether they have been loaded.
    pub(super) values: Values,
    pub(super) values_loaded: OnceCell<()>,
    /// What joins transactions belongs to the same one.
    pub(super) coordinator: Coordinator,
    pub(super) children: Children,
    pub(super) supervisor: OnceCell<ActorRef<SupervisorMessage>>,
    /// How long stopping takes at most.
    pub(super) stop_timeout: Duration,
    stopping: AtomicBool,
    /// Closed when stopping begins: ends what would outlast it.
    going: Arc<Semaphore>,
    /// What the one shutdown reported.
    stopped: OnceCell<StopReport>,
    pub(super) live: LiveQueries,
    pub(super) queries: NamedQueries,
    /// Where handlers' and bridges' events wait.
    pub(super) inboxes: Inboxes,
    /// Evaluations and handlers that are under way.
    pub(super) activity: Activity,
    /// Keeps the dirty set subscribed to the bus.
    _dirty: Option<SubscriptionGuard>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("name", &self.name).finish_non_exhaustive()
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Maps of `Arc`s are all that is behind these locks, and no foreign code runs under them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    pub(super) fn new(
        name: StoreName,
        bus: Bus,
        clock: Arc<dyn Clock>,
        persister: Option<Persister>,
        on_error: Option<OnError>,
        dirty: Option<SubscriptionGuard>,
        ttl_check_interval: Duration,
    ) -> Self {
        let (directory, activity) = (Directory::default(), Activity::default());
        let coordinator = Coordinator::new(persister.clone());
        let values = Values::new(coordinator.clone(), Arc::clone(&clock));
        let reporter = on_error.clone();
        let on_failure = Arc::new(move |failure: Failure| report(reporter.as_ref(), &failure));
        let live = LiveQueries::new(bus.clone(), directory.clone(), activity.clone(), on_failure);
        Self {
            ttl_check_interval,
            name,
            bus,
            clock,
            persister,
            on_error,
            dying: Mutex::default(),
            buckets: Mutex::new(HashMap::new()),
            directory,
            commits: Arc::default(),
            channels: Mutex::new(HashMap::new()),
            auto_create: AutoCreate::default(),
            created: Created::default(),
            values,
            values_loaded: OnceCell::new(),
            coordinator,
            children: Children::default(),
            supervisor: OnceCell::new(),
            stop_timeout: PersistenceOptions::default().stop_timeout,
            stopping: AtomicBool::new(false),
            going: Arc::new(Semaphore::new(0)),
            stopped: OnceCell::new(),
            live,
            queries: NamedQueries::default(),
            inboxes: Inboxes::default(),
            activity,
            _dirty: dirty,
        }
    }

    /// Refuses what comes after stopping has begun.
    pub(super) fn admit(&self) -> Result<()> {
        if self.stopping.load(Ordering::SeqCst) { Err(Error::Stopping) } else { Ok(()) }
    }

    fn begin_to_stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.coordinator.close();
        self.values.close();
        self.going.close();
        self.live.close();
    }

    /// Works until stopping begins.
    ///
    /// # Errors
    /// The work's own; `Stopping`.
    pub(super) async fn unless_stopping<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            outcome = work => outcome,
            // It has no permits: this ends when it is closed.
            _ = self.going.acquire() => Err(Error::Stopping),
        }
    }

    /// Ends when stopping begins; keeps nothing of the store alive.
    pub(super) fn going(&self) -> impl Future<Output = ()> + Send + 'static {
        let going = Arc::clone(&self.going);
        // It has no permits: this ends when it is closed.
        async move { drop(going.acquire().await.map(drop)) }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    pub(super) fn supervisor(&self) -> Result<&ActorRef<SupervisorMessage>> {
        self.supervisor.get().ok_or(Error::Stopping)
    }

    /// Starts the actor that drives the persister.
    pub(super) async fn spawn_persister(self: &Arc<Self>) -> Result<()> {
        let Some(persister) = &self.persister else { return Ok(()) };
        let supervisor = self.supervisor()?.get_cell();
        let spawned = PersisterActor::spawn_linked(None, PersisterActor, persister.clone(), supervisor).await;
        let (actor, _ended) = spawned.map_err(|error| Error::permanent("starting the persister", error))?;
        if !self.children.born(actor.get_id(), Child::Persister) {
            self.revive(Child::Persister);
        }
        Ok(())
    }

    /// A child's actor is dead. What it said when it failed is not repeated: it may be what a record holds.
    pub(super) fn child_died(self: &Arc<Self>, id: ActorId, failed: bool) {
        let Some(child) = self.children.died(id) else { return };
        if self.is_stopping() {
            return;
        }
        tracing::error!(store = %self.name, ?child, failed, "an actor died and is restarted");
        self.revive(child);
    }

    /// Restarts a child, outside of the supervisor's turn, so that it stays responsive.
    pub(super) fn revive(self: &Arc<Self>, child: Child) {
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            match child {
                Child::Persister => {
                    if let Err(error) = inner.spawn_persister().await {
                        inner.report(Failure::new(None, "restart", error, 1));
                    }
                }
                Child::Subject(Subject::Bucket(name)) => inner.revive_bucket(&name).await,
                Child::Subject(Subject::Channel(id)) => inner.revive_channel(&id).await,
            }
        });
    }

    /// Reports a failure that nobody waits for.
    pub(super) fn report(&self, failure: Failure) {
        report(self.on_error.as_ref(), &failure);
    }

    /// The supervisor is gone, and its children with it. What was accepted is saved all the same, while there is a runtime.
    /// The claim is not given back by that: somebody else may have it by then.
    pub(super) fn orphaned(self: &Arc<Self>) {
        self.begin_to_stop();
        let mut dying = Vec::new();
        for entry in lock(&self.buckets).values() {
            if let Place::Running(actor, _) = entry.slot().close(Error::Stopping) {
                dying.push((entry.slot().subject().clone(), entry.is_saved(), actor.get_cell()));
            }
        }
        for live in lock(&self.channels).values().filter_map(|entry| entry.live()) {
            if let Place::Running(actor, ()) = live.slot.close(Error::Stopping) {
                dying.push((live.slot.subject().clone(), live.is_saved(), actor.get_cell()));
            }
        }
        lock(&self.dying).extend(dying);
        self.inboxes.close();
        let fences = self.persister.as_ref().is_some_and(|persister| persister.capabilities().fencing);
        if fences
            && !self.stopped.initialized()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let inner = Arc::clone(self);
            runtime.spawn(async move {
                let limit = Instant::now() + inner.stop_timeout;
                inner.drain().await;
                let Some(persister) = &inner.persister else { return };
                // Nobody has asked for it, so nobody may ever look.
                if let Some(error) = persister.last_flush(limit).await {
                    inner.report(Failure::new(None, "stop", error, 1));
                }
            });
        }
    }

    /// Lets buckets and channels finish what they have accepted, all at once. They have half of the time that a stop has,
    /// but a second at least, because the rest is for saving. Answers those that did not come to an end, and whether they
    /// are saved.
    async fn drain(&self) -> BTreeMap<Subject, bool> {
        let mut left = BTreeMap::new();
        let mut draining = JoinSet::new();
        let buckets: Vec<_> = lock(&self.buckets).values().cloned().collect();
        for entry in buckets {
            left.insert(entry.slot().subject().clone(), entry.is_saved());
            draining.spawn(async move {
                entry.slot().drain().await;
                entry.slot().subject().clone()
            });
        }
        let channels: Vec<_> = lock(&self.channels).values().cloned().collect();
        for entry in channels {
            let Some(live) = entry.live() else { continue };
            left.insert(live.slot.subject().clone(), live.is_saved());
            let slot = Arc::clone(&live.slot);
            draining.spawn(async move {
                slot.drain().await;
                slot.subject().clone()
            });
        }
        for (subject, is_saved, actor) in lock(&self.dying).clone() {
            left.insert(subject.clone(), is_saved);
            draining.spawn(async move {
                // A turn that a kill has found under way goes on to its end.
                let _ended = actor.wait(None).await;
                subject
            });
        }
        let limit = Instant::now() + (self.stop_timeout / 2).max(LEAST_DRAIN);
        while let Ok(Some(ended)) = tokio::time::timeout_at(limit, draining.join_next()).await {
            if let Ok(subject) = ended {
                left.remove(&subject);
            }
        }
        left
    }

    /// The one way a store ends: refuse what is new, finish what was accepted, save, release the adapter. Whoever calls
    /// it again gets the same report.
    pub(super) async fn shut_down(&self) -> StopReport {
        let report = self.stopped.get_or_init(|| async {
            self.begin_to_stop();
            let limit = Instant::now() + self.stop_timeout;
            let stuck = self.drain().await;
            let channels: Vec<_> = lock(&self.channels).values().cloned().collect();
            let mut report = match &self.persister {
                Some(persister) => {
                    let (unsaved, error) = persister.stop(limit).await;
                    StopReport { unsaved, error }
                }
                None => StopReport::default(),
            };
            if !stuck.is_empty() {
                // What they had not come to is not saved either.
                report
                    .unsaved
                    .extend(stuck.into_iter().filter(|(_, persistent)| *persistent).map(|(subject, _)| subject));
                report.unsaved.sort_unstable();
                report.unsaved.dedup();
                let slow = std::io::Error::new(std::io::ErrorKind::TimedOut, "actors did not come to an end in time");
                report.error.get_or_insert_with(|| Error::unknown("finishing what was accepted", slow));
            }
            // What was saved by the last commit is told before the bus closes.
            for live in channels.iter().filter_map(|entry| entry.live()) {
                live.hushed().await;
            }
            lock(&self.buckets).clear();
            lock(&self.channels).clear();
            self.bus.close();
            self.inboxes.close();
            report
        });
        report.await.clone()
    }
}

/// Reports a failure to the log and to the user's callback, whose panic is caught.
pub(super) fn report(on_error: Option<&OnError>, failure: &Failure) {
    tracing::warn!(failure = %failure, error = &failure.error as &dyn std::error::Error, "failure");
    if let Some(on_error) = on_error
        && std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| on_error(failure))).is_err()
    {
        tracing::error!("the on_error callback panicked");
    }
}
