//! Sends the events of all buckets elsewhere: to a web socket, a queue, another process.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::base::error::{Error, Failure, Result};
use crate::base::jitter::jitter;
use crate::bucket::caught;
use crate::bus::{DEFAULT_CAPACITY, Delivery, Event, Pattern, SubscriptionGuard};
use crate::persistence::{Backoff, OnError};
use crate::records::{BucketEvent, Cause, Change, guarded};
use crate::store::handle::Store;
use crate::store::inbox::Inbox;
use crate::store::inner::report;

/// Where a [`Bridge`] sends events.
#[async_trait]
pub trait Receiver: Send + Sync + 'static {
    /// Takes one event. It is called with one at a time; what it answers with an error, or with a panic, is sent again.
    async fn emit(
        &self,
        topic: &str,
        data: serde_json::Value,
    ) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

type Filter = Box<dyn Fn(&BucketEvent) -> bool + Send + Sync>;
type MapTopic = Box<dyn Fn(&BucketEvent) -> String + Send + Sync>;
type MapData = Box<dyn Fn(&BucketEvent) -> serde_json::Value + Send + Sync>;

/// What a [`Bridge`] sends, and how.
///
/// The functions run in the bridge's task. A panic of one drops its event, which is counted and reported.
#[must_use]
#[non_exhaustive]
pub struct BridgeOptions {
    /// How many events are queued; further ones are dropped. Default 1,024.
    pub queue: NonZeroUsize,
    /// How often an event is sent before it is dropped. Default 3, 1 to 100.
    pub attempts: u32,
    /// The rests between the attempts. Default: from 100 ms, at most 30 s, with jitter.
    pub backoff: Backoff,
    filter: Option<Filter>,
    map_topic: Option<MapTopic>,
    map_data: Option<MapData>,
}

impl Default for BridgeOptions {
    fn default() -> Self {
        Self {
            queue: DEFAULT_CAPACITY,
            attempts: 3,
            backoff: Backoff::default(),
            filter: None,
            map_topic: None,
            map_data: None,
        }
    }
}

impl fmt::Debug for BridgeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BridgeOptions")
            .field("queue", &self.queue)
            .field("attempts", &self.attempts)
            .field("backoff", &self.backoff)
            .finish_non_exhaustive()
    }
}

impl BridgeOptions {
    /// Sets [`queue`](Self::queue).
    pub fn with_queue(self, queue: NonZeroUsize) -> Self {
        Self { queue, ..self }
    }

    /// Sets [`attempts`](Self::attempts).
    pub fn with_attempts(self, attempts: u32) -> Self {
        Self { attempts, ..self }
    }

    /// Sets [`backoff`](Self::backoff).
    pub fn with_backoff(self, backoff: Backoff) -> Self {
        Self { backoff, ..self }
    }

    /// Sends only events for which this is true. Default: all.
    pub fn with_filter(self, filter: impl Fn(&BucketEvent) -> bool + Send + Sync + 'static) -> Self {
        Self { filter: Some(Box::new(filter)), ..self }
    }

    /// The topic that an event is sent under. Default: its own as text, such as `bucket.users.inserted`, with a
    /// backslash before each `.`, `*` and `\` in a name, as in patterns.
    pub fn with_map_topic(self, map: impl Fn(&BucketEvent) -> String + Send + Sync + 'static) -> Self {
        Self { map_topic: Some(Box::new(map)), ..self }
    }

    /// What is sent of an event. Default: an object with `bucket`, `revision`, `commit`, `at`, `index`, `count`, `type`
    /// (`inserted`, `updated`, `deleted` or `cleared`), and, depending on that, `key` and `record`; `key`, `old` and
    /// `new`; `key`, `record` and `cause` (`requested`, `expired` or `evicted`); the number of `records`.
    pub fn with_map_data(self, map: impl Fn(&BucketEvent) -> serde_json::Value + Send + Sync + 'static) -> Self {
        Self { map_data: Some(Box::new(map)), ..self }
    }

    fn check(&self) -> Result<()> {
        let refused = |fault: &str| Err(Error::invalid_argument(format!("bridge: {fault}")));
        if !(1..=100).contains(&self.attempts) {
            return refused("attempts must be 1 to 100");
        }
        if self.backoff.most < self.backoff.first {
            return refused("the longest rest must not be shorter than the first");
        }
        Ok(())
    }

    /// What is sent of an event, if it is.
    fn mapped(&self, event: &Event, change: &BucketEvent) -> Option<(String, serde_json::Value)> {
        if self.filter.as_ref().is_some_and(|filter| !filter(change)) {
            return None;
        }
        let topic = self.map_topic.as_ref().map_or_else(|| event.topic.to_string(), |map| map(change));
        let data = self.map_data.as_ref().map_or_else(|| described(change), |map| map(change));
        Some((topic, data))
    }
}

fn described(event: &BucketEvent) -> serde_json::Value {
    let BucketEvent { bucket, revision, commit, at, index, count, change } = event;
    let mut data = json!({
        "bucket": bucket.as_str(), "revision": revision, "commit": commit, "at": at, "index": index, "count": count,
        "type": change.kind(),
    });
    if let Some(key) = change.key() {
        data["key"] = json!(key);
    }
    match change {
        Change::Inserted { record } => data["record"] = record.to_json(),
        Change::Updated { old, new } => {
            data["old"] = old.to_json();
            data["new"] = new.to_json();
        }
        Change::Deleted { record, cause } => {
            data["record"] = record.to_json();
            data["cause"] = match cause {
                Cause::Requested => "requested",
                Cause::Expired => "expired",
                Cause::Evicted => "evicted",
            }
            .into();
        }
        Change::Cleared { records } => data["records"] = json!(records),
    }
    data
}

/// What a bridge has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BridgeStats {
    /// Events that the receiver has taken.
    pub sent: u64,
    /// Events that it will never get: the queue was full, all attempts had failed, a function panicked, or the bridge
    /// was stopped.
    pub dropped: u64,
    /// Attempts that have failed.
    pub failed: u64,
}

/// Sends the events of all buckets to a [`Receiver`], see [`Store::bridge`]. Dropping it stops it, as [`stop`](Self::stop)
/// does, without waiting.
#[must_use = "dropping it stops the bridge"]
#[derive(Debug)]
pub struct Bridge {
    shared: Arc<Shared>,
    /// None once it is being waited for.
    task: Option<JoinHandle<()>>,
    _subscription: SubscriptionGuard,
}

#[derive(Debug)]
struct Shared {
    inbox: Arc<Inbox>,
    stopping: AtomicBool,
    /// It has no permits, and is closed when the bridge stops: ends a rest between attempts.
    going: Semaphore,
    sent: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

impl Store {
    /// Sends the events of all buckets to a receiver: in the order in which they were published, one at a time, each up
    /// to three times. What the queue has no room for, and what the receiver does not take, is dropped, counted and told
    /// to `on_error`; a slow receiver never slows a bucket. When the store stops, what is queued is still sent.
    ///
    /// # Errors
    /// `InvalidArgument` for options out of bounds, `Stopping`.
    pub fn bridge(&self, receiver: impl Receiver, options: BridgeOptions) -> Result<Bridge> {
        self.inner.admit()?;
        options.check()?;
        let inbox = Arc::new(Inbox::new(options.queue, None));
        self.inner.inboxes.enter(&inbox);
        let shared = Arc::new(Shared {
            inbox: Arc::clone(&inbox),
            stopping: AtomicBool::new(false),
            going: Semaphore::new(0),
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        });
        let sender = Sender { receiver, options, shared: Arc::clone(&shared), on_error: self.inner.on_error.clone() };
        let everything = Pattern::parse("bucket.*.*")?;
        let subscription = self.inner.bus.subscribe_sink(everything, inbox);
        let task = Some(tokio::spawn(sender.run()));
        Ok(Bridge { shared, task, _subscription: subscription })
    }
}

impl Bridge {
    /// What it has done so far.
    pub fn stats(&self) -> BridgeStats {
        self.shared.stats()
    }

    /// Stops the bridge after the attempt that is under way; what is queued is dropped and counted. Answers what it has
    /// done in all.
    ///
    /// # Cancel safety
    /// It stops when its future is dropped, too.
    pub async fn stop(mut self) -> BridgeStats {
        self.shared.stop();
        if let Some(task) = self.task.take() {
            // It ends by itself; a receiver that panics in its drop ends it as well.
            let _ended = task.await;
        }
        self.shared.stats()
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl Shared {
    fn stats(&self) -> BridgeStats {
        let [sent, dropped, failed] =
            [&self.sent, &self.dropped, &self.failed].map(|count| count.load(Ordering::Relaxed));
        BridgeStats { sent, dropped, failed }
    }

    fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.going.close();
        self.dropped.fetch_add(self.inbox.abandon(), Ordering::Relaxed);
    }
}

/// The bridge's task.
struct Sender<T> {
    receiver: T,
    options: BridgeOptions,
    shared: Arc<Shared>,
    on_error: Option<OnError>,
}

impl<T: Receiver> Sender<T> {
    async fn run(self) {
        while let Some(taken) = self.shared.inbox.next().await {
            match &taken.delivery {
                Delivery::Event(_) if self.shared.stopping.load(Ordering::SeqCst) => {
                    self.shared.dropped.fetch_add(1, Ordering::Relaxed);
                }
                Delivery::Event(event) => self.send(event).await,
                Delivery::Lagged(missed) => self.dropped(None, *missed, Error::Lagged { missed: *missed }, 1),
            }
        }
    }

    fn dropped(&self, event: Option<&Event>, count: u64, error: Error, attempt: u32) {
        self.shared.dropped.fetch_add(count, Ordering::Relaxed);
        let subject = event.and_then(|event| event.subject.clone());
        report(self.on_error.as_ref(), &Failure::new(subject, "bridge", error, attempt));
    }

    async fn send(&self, event: &Event) {
        let Some(change) = event.payload::<BucketEvent>() else { return };
        let (topic, data) = match guarded("a bridge's function", || self.options.mapped(event, change)) {
            Ok(Some(mapped)) => mapped,
            Ok(None) => return,
            Err(panicked) => return self.dropped(Some(event), 1, panicked, 1),
        };
        let mut attempt = 1;
        loop {
            let Err(error) = self.emit(&topic, data.clone()).await else {
                self.shared.sent.fetch_add(1, Ordering::Relaxed);
                return;
            };
            self.shared.failed.fetch_add(1, Ordering::Relaxed);
            if attempt >= self.options.attempts || self.shared.stopping.load(Ordering::SeqCst) {
                return self.dropped(Some(event), 1, error, attempt);
            }
            let rest = self.options.backoff.delay(attempt, jitter());
            // A bridge that is stopped ends the rest, and the event with it.
            if tokio::time::timeout(rest, self.shared.going.acquire()).await.is_ok() {
                return self.dropped(Some(event), 1, error, attempt);
            }
            attempt += 1;
        }
    }

    async fn emit(&self, topic: &str, data: serde_json::Value) -> Result<()> {
        let call = guarded("a bridge's receiver", || self.receiver.emit(topic, data))?;
        let outcome = caught("a bridge's receiver", call).await?;
        outcome.map_err(|error| Error::Transient { operation: "emit".to_owned(), source: Some(error.into()) })
    }
}
