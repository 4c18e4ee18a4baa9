//! What users hold of a live query.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::base::error::{Error, Result};
use crate::bucket::live::engine::Registration;
use crate::bucket::live::task::{Callback, Callbacks, Latest};

/// A query that is evaluated again whenever a commit touches what it has read.
///
/// A commit causes one evaluation, however many records or buckets it changes; commits during an evaluation cause one
/// more. Results that equal the one before are dropped, and who reads slowly gets the newest only; the last one is that
/// of the final state. A query over several buckets may for a moment answer from between two steps of a transaction, and
/// is evaluated again at once. Dropping it ends the query, and the store's end does.
///
/// Callbacks run in the query's task, one after the other: the next evaluation waits for them. A panic of one is caught,
/// counted and reported to the store's `on_error`, and it is called again.
pub struct LiveQuery<R> {
    latest: watch::Receiver<Latest<R>>,
    /// The result that [`next`](Self::next) has answered last, at first the one that it began with.
    seen: Arc<R>,
    /// How many errors there had been when it last answered one.
    errors: u64,
    /// Its last answer was an error.
    failed: bool,
    callbacks: Arc<Callbacks<R>>,
    registration: Arc<Registration>,
    task: AbortHandle,
}

impl<R> LiveQuery<R> {
    pub(super) fn new(
        latest: watch::Receiver<Latest<R>>,
        callbacks: Arc<Callbacks<R>>,
        registration: Arc<Registration>,
        task: AbortHandle,
    ) -> Self {
        let seen = Arc::clone(&latest.borrow().result);
        Self { latest, seen, errors: 0, failed: false, callbacks, registration, task }
    }

    /// The newest result, that of the last evaluation that succeeded.
    pub fn current(&self) -> Arc<R> {
        Arc::clone(&self.latest.borrow().result)
    }

    /// Calls back with each result that differs from the one before, from the last one on that [`next`](Self::next) has
    /// answered, or else the first of all. Once [`on_error`](Self::on_error) was told of an error, the next result is
    /// told whatever it is.
    pub fn on_change(&self, callback: impl FnMut(Arc<R>) + Send + 'static) {
        self.call(Callback::Change { told: Arc::clone(&self.seen), call: Box::new(callback) });
    }

    /// Calls back with the error of each evaluation that fails. The query stays subscribed to what it has read, before
    /// and during that evaluation.
    pub fn on_error(&self, callback: impl FnMut(Error) + Send + 'static) {
        self.call(Callback::Error { told: self.errors, call: Box::new(callback) });
    }

    fn call(&self, callback: Callback<R>) {
        self.callbacks.add(callback);
        self.registration.watch().poke();
    }

    /// How often callbacks have panicked.
    pub fn callback_panics(&self) -> u64 {
        self.callbacks.panics()
    }
}

impl<R: PartialEq> LiveQuery<R> {
    /// Waits for a result that differs from the one answered before, or, after an error, for any.
    ///
    /// # Errors
    /// The newest evaluation's own, `UserCode` if it panicked: the query stays, and the next change is answered again.
    /// `Stopping` once the store stops.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Arc<R>> {
        loop {
            self.latest.changed().await.map_err(|_ended| Error::Stopping)?;
            let Latest { result, error, errors } = self.latest.borrow().clone();
            if let Some(error) = error {
                (self.errors, self.failed) = (errors, true);
                return Err(error);
            }
            if self.failed || *self.seen != *result {
                (self.seen, self.failed) = (Arc::clone(&result), false);
                return Ok(result);
            }
        }
    }
}

impl<R> Drop for LiveQuery<R> {
    fn drop(&mut self) {
        self.registration.end();
        self.task.abort();
    }
}

impl<R: fmt::Debug> fmt::Debug for LiveQuery<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveQuery").field("current", &self.current()).finish_non_exhaustive()
    }
}
