//! How saving ends.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use crate::base::blocking;
use crate::base::error::{Error, Failure, Result};
use crate::base::jitter::jitter;
use crate::base::name::Subject;
use crate::persistence::persister::handle::{Persister, Shared, answer, isolated, lock, timed_out};
use crate::persistence::port::Commit;

/// With less time left, nothing is tried again: no timer is finer.
const LEAST: Duration = Duration::from_millis(2);

impl Persister {
    /// Saves what is unsaved until `limit`, then ends saving for good and releases the store's claim. Answers what could
    /// not be saved and why.
    pub(crate) async fn stop(&self, limit: Instant) -> (Vec<Subject>, Option<Error>) {
        // Closing may hang as well as committing: a part of the time is kept for it.
        let closing = (limit.saturating_duration_since(Instant::now()) / 10).min(Duration::from_secs(1));
        let saving = limit - closing;
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
        match tokio::time::timeout_at(limit, self.close()).await {
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

    /// Releases the store's claim. Not in a task of its own: that it is polled at all has to hang on no time that is left.
    async fn close(&self) -> Result<()> {
        // Made within, because that is code of others as well.
        let mut closing = pin!(async { self.shared.adapter.close(&self.shared.store).await });
        poll_fn(|context| {
            catch_unwind(AssertUnwindSafe(|| closing.as_mut().poll(context)))
                .unwrap_or_else(|_| Poll::Ready(Err(blocking::panicked("close"))))
        })
        .await
    }

    /// Flushes until it succeeds, fails for good, or the time is over. Answers why something is unsaved.
    pub(crate) async fn last_flush(&self, limit: Instant) -> Option<Error> {
        let mut failure = None;
        // What is in flight by now began before: its refusal is not the last word.
        let mut earlier = lock(&self.shared.dirty).in_flight();
        for attempt in 1.. {
            let flushed = async {
                loop {
                    // Not by the store's runtime alone, which may have come to rest: this one is driven.
                    let look = async {
                        let persister = self.clone();
                        tokio::spawn(async move { persister.advance() });
                    };
                    tokio::join!(biased; self.flush(None), look).0?;
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
                    // A runtime that is shut down lets nobody wait on; this one is there.
                    let stranded = matches!(error, Error::Stopping) && !self.shared.ended.load(Ordering::SeqCst);
                    let refused = !error.is_retryable() && !stranded;
                    let for_good = refused && (!earlier || matches!(error, Error::Fenced { .. }));
                    failure = Some(error);
                    let left = limit.saturating_duration_since(Instant::now());
                    if for_good || left < LEAST {
                        break;
                    }
                    earlier = false;
                    if !refused {
                        // None of the time is left unused, however long the pauses have become.
                        tokio::time::sleep(self.shared.options.retry.delay(attempt, jitter()).min(left / 2)).await;
                    }
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

    /// Whether a later claim owns the store by now; one in flight would have told already.
    async fn is_superseded(&self, limit: Instant) -> bool {
        matches!(tokio::time::timeout_at(limit, self.claim_holds()).await, Ok(Err(Error::Fenced { .. })))
    }

    /// Commits nothing, which tells whether a later claim owns the store by now, where the adapter tells that.
    ///
    /// # Errors
    /// `Fenced`; what the adapter said.
    pub(super) async fn claim_holds(&self) -> Result<()> {
        if !self.shared.capabilities.fencing {
            return Ok(());
        }
        let Shared { store, adapter, epoch, capabilities, .. } = &*self.shared;
        let nothing = Commit::new(store.clone(), *epoch, capabilities.durability, Vec::new());
        let adapter = Arc::clone(adapter);
        isolated("commit", async move { adapter.commit(&nothing).await }).await
    }
}
