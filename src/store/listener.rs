//! Handlers of events, each in a task of its own.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::AbortHandle;

use crate::base::error::{Error, Failure, Result};
use crate::bucket::caught;
use crate::bus::{DEFAULT_CAPACITY, Delivery, Event, Pattern, SubscriptionGuard};
use crate::records::guarded;
use crate::store::handle::Store;
use crate::store::inbox::Inbox;
use crate::store::inner::report;

/// Where its code panicked, in errors.
const PLACE: &str = "an event handler";

/// Calls a handler with events, until it is dropped or the store has stopped; see [`Store::on`].
///
/// Dropping it drops the call that is under way at its next await, and what is queued.
#[must_use = "dropping it ends the handler"]
pub struct Listener {
    _subscription: SubscriptionGuard,
    inbox: Arc<Inbox>,
    counts: Arc<Counts>,
    task: AbortHandle,
}

#[derive(Debug, Default)]
struct Counts {
    panics: AtomicU64,
    missed: AtomicU64,
}

impl Store {
    /// Calls a handler with each event whose topic matches a pattern such as `bucket.users.*`: one after the other, in
    /// the order in which they were published, in a task of its own.
    ///
    /// At most [`DEFAULT_CAPACITY`] events are queued. A handler that falls behind further misses events; how many is
    /// counted and told to `on_error` as [`Error::Lagged`]; it never slows the bucket. A panic of the handler is caught,
    /// counted and reported, and it is called with the next event. When the store stops, it gets what is queued.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicUsize, Ordering};
    /// use ractor_persistence::{BucketDefinition, Field, Store, record};
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let store = Store::builder("shop").start().await?;
    /// let users = store.define_bucket(BucketDefinition::new("users").key("id").field("id", Field::int())).await?;
    /// let deleted = Arc::new(AtomicUsize::new(0));
    /// let count = Arc::clone(&deleted);
    /// let _listener = store.on("bucket.users.deleted", move |_event| {
    ///     count.fetch_add(1, Ordering::Relaxed);
    ///     async {}
    /// })?;
    /// users.insert(record! { "id": 1 }).await?;
    /// users.delete(1).await?;
    /// store.settle().await;
    /// assert_eq!(deleted.load(Ordering::Relaxed), 1);
    /// # Ok::<_, ractor_persistence::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// `InvalidArgument` if the text is no pattern.
    pub fn on<F, Fut>(&self, pattern: &str, mut handler: F) -> Result<Listener>
    where
        F: FnMut(Arc<Event>) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let pattern = Pattern::parse(pattern)?;
        let inbox = Arc::new(Inbox::new(DEFAULT_CAPACITY, Some(self.inner.activity.clone())));
        self.inner.inboxes.enter(&inbox);
        let counts = Arc::new(Counts::default());
        let (events, counted, on_error) = (Arc::clone(&inbox), Arc::clone(&counts), self.inner.on_error.clone());
        let task = tokio::spawn(async move {
            while let Some(taken) = events.next().await {
                let (subject, error) = match &taken.delivery {
                    Delivery::Event(event) => {
                        let outcome = match guarded(PLACE, || handler(Arc::clone(event))) {
                            Ok(call) => caught(PLACE, Box::pin(call)).await,
                            Err(panicked) => Err(panicked),
                        };
                        let Err(panicked) = outcome else { continue };
                        counted.panics.fetch_add(1, Ordering::Relaxed);
                        (event.subject.clone(), panicked)
                    }
                    Delivery::Lagged(missed) => {
                        counted.missed.fetch_add(*missed, Ordering::Relaxed);
                        (None, Error::Lagged { missed: *missed })
                    }
                };
                report(on_error.as_ref(), &Failure::new(subject, "subscriber", error, 1));
            }
        });
        let subscription = self.inner.bus.subscribe_sink(pattern, Arc::clone(&inbox) as _);
        Ok(Listener { _subscription: subscription, inbox, counts, task: task.abort_handle() })
    }
}

impl Listener {
    /// How often the handler has panicked.
    pub fn panics(&self) -> u64 {
        self.counts.panics.load(Ordering::Relaxed)
    }

    /// How many events it has missed because it had not kept up, as far as that was reported.
    pub fn missed(&self) -> u64 {
        self.counts.missed.load(Ordering::Relaxed)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
        self.inbox.abandon();
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("panics", &self.panics())
            .field("missed", &self.missed())
            .finish_non_exhaustive()
    }
}
