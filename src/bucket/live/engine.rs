//! Subscribing live queries, and letting them go.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, watch};

use crate::base::error::{Error, Failure, Result};
use crate::base::name::BucketName;
use crate::bucket::directory::Directory;
use crate::bucket::live::activity::Activity;
use crate::bucket::live::handle::LiveQuery;
use crate::bucket::live::index::Index;
use crate::bucket::live::task::{Callbacks, Evaluator, Function, Latest, Task};
use crate::bucket::live::watch::Watch;
use crate::bus::{Bus, Pattern, SubscriptionGuard};

/// Told of panics in callbacks.
pub(crate) type OnFailure = Arc<dyn Fn(Failure) + Send + Sync>;

/// The live queries of a store; clones share them.
#[derive(Clone)]
pub(crate) struct LiveQueries {
    shared: Arc<Shared>,
}

struct Shared {
    bus: Bus,
    directory: Directory,
    activity: Activity,
    on_failure: OnFailure,
    index: Arc<Index>,
    subscribed: Mutex<Subscribed>,
    /// It has no permits, and is closed when the store stops.
    going: Semaphore,
}

#[derive(Default)]
struct Subscribed {
    count: usize,
    /// Keeps the index subscribed to the bus while there is anybody to tell.
    sink: Option<SubscriptionGuard>,
}

/// A live query's place among the others, which it loses when this ends.
pub(super) struct Registration {
    shared: Arc<Shared>,
    watch: Arc<Watch>,
}

impl std::fmt::Debug for LiveQueries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveQueries").field("count", &self.count()).finish_non_exhaustive()
    }
}

impl Shared {
    fn subscribed(&self) -> MutexGuard<'_, Subscribed> {
        self.subscribed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registration {
    fn new(shared: &Arc<Shared>) -> Result<Arc<Self>> {
        let everything = Pattern::parse("bucket.*.*")?;
        let silent = {
            let mut subscribed = shared.subscribed();
            subscribed.count += 1;
            subscribed.sink.is_none()
        };
        // From here on the count is given back when this is dropped.
        let watch = Arc::new(Watch::new(shared.activity.clone()));
        let registration = Arc::new(Self { shared: Arc::clone(shared), watch });
        if silent {
            // Outside of the lock, because subscriptions that have ended are dropped here, whoever's they are. One too
            // many, of two at once, does no harm.
            let sink = shared.bus.subscribe_sink(everything, Arc::clone(&shared.index) as _);
            let spare = shared.subscribed().sink.replace(sink);
            drop(spare);
        }
        Ok(registration)
    }

    pub(super) fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    pub(super) fn index(&self) -> &Arc<Index> {
        &self.shared.index
    }

    /// Ends it before the last one who holds it is gone.
    pub(super) fn end(&self) {
        if !self.watch.end(&self.shared.index) {
            return;
        }
        let unheard = {
            let mut subscribed = self.shared.subscribed();
            subscribed.count -= 1;
            if subscribed.count == 0 { subscribed.sink.take() } else { None }
        };
        drop(unheard);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.end();
    }
}

impl LiveQueries {
    pub(crate) fn new(bus: Bus, directory: Directory, activity: Activity, on_failure: OnFailure) -> Self {
        let shared = Shared {
            bus,
            directory,
            activity,
            on_failure,
            index: Arc::default(),
            subscribed: Mutex::default(),
            going: Semaphore::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Evaluates a function, and goes on doing so.
    ///
    /// # Errors
    /// The first evaluation's, after which nothing stays; `Stopping`.
    pub(crate) async fn subscribe<R, F, Fut>(&self, function: F) -> Result<LiveQuery<R>>
    where
        R: PartialEq + Send + Sync + 'static,
        F: Fn(crate::bucket::live::QueryContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R>> + Send + 'static,
    {
        let shared = &self.shared;
        if shared.going.is_closed() {
            return Err(Error::Stopping);
        }
        let function: Function<R> = Box::new(move |context| Box::pin(function(context)));
        let registration = Registration::new(shared)?;
        let directory = shared.directory.clone();
        let evaluator = Evaluator { directory, registration: Arc::clone(&registration), function };
        let first = tokio::select! {
            biased;
            first = evaluator.evaluate() => Arc::new(first?),
            _ = shared.going.acquire() => return Err(Error::Stopping),
        };
        let (sender, latest) = watch::channel(Latest { result: first, error: None, errors: 0 });
        let callbacks = Arc::new(Callbacks::default());
        let task = Task {
            evaluator,
            latest: sender,
            shared: Arc::clone(&callbacks),
            callbacks: Vec::new(),
            error_told: false,
            on_failure: Arc::clone(&shared.on_failure),
        };
        let (shared, ending) = (Arc::clone(shared), Arc::clone(&registration));
        let running = tokio::spawn(async move {
            tokio::select! {
                biased;
                _ = shared.going.acquire() => {}
                () = task.run() => {}
            }
            // The handle may stay, and nothing is under way any more.
            ending.end();
        });
        Ok(LiveQuery::new(latest, callbacks, registration, running.abort_handle()))
    }

    /// The bucket of a name is another one now, or none.
    pub(crate) fn replaced(&self, bucket: &BucketName) {
        self.shared.index.replaced(bucket);
    }

    /// How many live queries there are.
    pub(crate) fn count(&self) -> usize {
        self.shared.subscribed().count
    }

    /// The store stops: all of them end.
    pub(crate) fn close(&self) {
        self.shared.going.close();
    }
}
