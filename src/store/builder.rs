//! What a store is started from.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ractor::ActorCell;

use crate::base::clock::{Clock, SystemClock};
use crate::base::error::{Failure, Result};
use crate::persistence::{OnError, PersistenceOptions, StorageAdapter};
use crate::store::handle::Store;
use crate::store::routing::AutoCreate;

/// What a store is started from: a name, an adapter if it is to save anything, and options.
#[must_use]
pub struct StoreBuilder {
    pub(super) name: String,
    pub(super) adapter: Option<Arc<dyn StorageAdapter>>,
    pub(super) options: PersistenceOptions,
    pub(super) on_error: Option<OnError>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ttl_check_interval: Duration,
    pub(super) auto_create: AutoCreate,
}

impl fmt::Debug for StoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreBuilder")
            .field("name", &self.name)
            .field("adapter", &self.adapter.is_some())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl StoreBuilder {
    pub(super) fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            adapter: None,
            options: PersistenceOptions::default(),
            on_error: None,
            clock: Arc::new(SystemClock),
            ttl_check_interval: Duration::from_secs(1),
            auto_create: AutoCreate::default(),
        }
    }

    /// Where the store saves; without one it works in memory only.
    pub fn adapter(self, adapter: impl StorageAdapter) -> Self {
        self.shared_adapter(Arc::new(adapter))
    }

    /// Where the store saves, for an adapter that serves several stores.
    pub fn shared_adapter(mut self, adapter: Arc<dyn StorageAdapter>) -> Self {
        self.adapter = Some(adapter);
        self
    }

    /// How and when it saves.
    pub fn persistence(mut self, options: PersistenceOptions) -> Self {
        self.options = options;
        self
    }

    /// Called for every failure that nobody waits for, with subject, operation, error and attempt; a panic in it is
    /// caught. It runs in the store's tasks, so it must not block.
    pub fn on_error(mut self, on_error: impl Fn(&Failure) + Send + Sync + 'static) -> Self {
        self.on_error = Some(Arc::new(on_error));
        self
    }

    /// The clock that records are stamped by; default: the operating system's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// How often records that have expired are removed; default 1 s, 1 ms to 24 h, zero turns it off. They are absent
    /// from every answer from the moment at which they expire, removed or not.
    pub fn ttl_check_interval(mut self, interval: Duration) -> Self {
        self.ttl_check_interval = interval;
        self
    }

    /// What [`Store::receive`] does with a packet of a channel that is not open; default: it is refused.
    pub fn auto_create(mut self, auto_create: AutoCreate) -> Self {
        self.auto_create = auto_create;
        self
    }

    /// Starts the store, supervised by nobody: stop it with [`Store::stop`].
    ///
    /// # Errors
    /// `InvalidName`, `InvalidOptions`, and what the adapter's claim answers: `Locked`, `Corrupt`, `Transient`, ….
    /// `Permanent` outside of a tokio runtime.
    ///
    /// # Panics
    /// Within a tokio runtime whose timers are off (`enable_time`), if there is an adapter. Without one, what is timed
    /// panics later, in tasks of its own.
    pub async fn start(self) -> Result<Store> {
        Store::launch(self, None).await
    }

    /// Starts the store as a child of an application's own supervisor. When that stops it with
    /// `stop_children_and_wait`, the store shuts down as by [`Store::stop`]. A supervisor that merely stops kills its
    /// children; what the store had accepted is then saved in a task of its own, if the adapter fences and the runtime
    /// goes on for as long as that takes. The adapter is closed by [`Store::stop`] on a handle that is left.
    ///
    /// A store that is stopped is a child that has ended: ractor's default `handle_supervisor_evt` stops the supervisor for
    /// that, and with it all its other children.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn spawn_linked(self, supervisor: ActorCell) -> Result<Store> {
        Store::launch(self, Some(supervisor)).await
    }
}
