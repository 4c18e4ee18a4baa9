//! The task of a live query: it evaluates when something has touched what was read, and tells who wants to know.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use tokio::sync::watch;

use crate::base::error::{Error, Failure, Result};
use crate::bucket::directory::Directory;
use crate::bucket::live::context::{Noting, QueryContext};
use crate::bucket::live::engine::{OnFailure, Registration};
use crate::bucket::reads::Reads;
use crate::records::guarded;

/// How often in a row an evaluation is repeated because changes overtake it, before its result is told all the same.
const REPEATS: u32 = 4;

/// What a query function answers.
pub(super) type Answer<R> = Pin<Box<dyn Future<Output = Result<R>> + Send>>;
/// A query function.
pub(super) type Function<R> = Box<dyn Fn(QueryContext) -> Answer<R> + Send + Sync>;

/// Polls a future that is not ours to its end; its panic becomes `UserCode`.
pub(crate) async fn caught<F: Future + ?Sized>(place: &'static str, mut future: Pin<Box<F>>) -> Result<F::Output> {
    let outcome = poll_fn(|cx| match guarded(place, || future.as_mut().poll(cx)) {
        Ok(poll) => poll.map(Ok),
        Err(panicked) => Poll::Ready(Err(panicked)),
    })
    .await;
    // What it holds is not ours either.
    guarded(place, move || drop(future))?;
    outcome
}

/// What a live query has to tell.
#[derive(Debug)]
pub(super) struct Latest<R> {
    /// The newest result.
    pub(super) result: Arc<R>,
    /// Why the newest evaluation gave none, if it did not.
    pub(super) error: Option<Error>,
    /// How many evaluations have failed.
    pub(super) errors: u64,
}

impl<R> Clone for Latest<R> {
    fn clone(&self) -> Self {
        Self { result: Arc::clone(&self.result), error: self.error.clone(), errors: self.errors }
    }
}

/// What a user wants to be called with, and what has been told of that so far.
pub(super) enum Callback<R> {
    Change { told: Arc<R>, call: Box<dyn FnMut(Arc<R>) + Send> },
    Error { told: u64, call: Box<dyn FnMut(Error) + Send> },
}

/// What the handle and the task of a live query share.
pub(super) struct Callbacks<R> {
    /// Those that the task has not taken over yet: while they run, no lock is held.
    fresh: Mutex<Vec<Callback<R>>>,
    panics: AtomicU64,
}

impl<R> Default for Callbacks<R> {
    fn default() -> Self {
        Self { fresh: Mutex::default(), panics: AtomicU64::new(0) }
    }
}

impl<R> Callbacks<R> {
    pub(super) fn add(&self, callback: Callback<R>) {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).push(callback);
    }

    fn take(&self) -> Vec<Callback<R>> {
        std::mem::take(&mut *self.fresh.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }
}

/// Calls a query function, and knows what it has read.
pub(super) struct Evaluator<R> {
    pub(super) directory: Directory,
    pub(super) registration: Arc<Registration>,
    pub(super) function: Function<R>,
}

impl<R> Evaluator<R> {
    /// An answer, repeated where changes have overtaken it; if they do so time and again, the next evaluation is due.
    pub(super) async fn evaluate(&self) -> Result<R> {
        let mut repeated = 0;
        loop {
            let (outcome, overtaken) = self.once().await;
            if !overtaken || repeated == REPEATS {
                return outcome;
            }
            repeated += 1;
        }
    }

    async fn once(&self) -> (Result<R>, bool) {
        let (watch, index) = (self.registration.watch(), self.registration.index());
        let reads = Reads::default();
        let noting = Noting { index: Arc::clone(index), watch: Arc::clone(watch), reads: reads.clone() };
        watch.begin();
        let context = QueryContext::noting(self.directory.clone(), noting);
        let outcome = match guarded("a query", || (self.function)(context)) {
            Ok(answer) => caught("a query", answer).await.and_then(|outcome| outcome),
            Err(panicked) => Err(panicked),
        };
        let overtaken = watch.finish(index, reads.take(), outcome.is_ok());
        (outcome, overtaken)
    }
}

/// The task of a live query, which ends with its store or its handle.
pub(super) struct Task<R> {
    pub(super) evaluator: Evaluator<R>,
    pub(super) latest: watch::Sender<Latest<R>>,
    pub(super) shared: Arc<Callbacks<R>>,
    pub(super) callbacks: Vec<Callback<R>>,
    /// An error has been told to a callback, and no result since.
    pub(super) error_told: bool,
    pub(super) on_failure: OnFailure,
}

impl<R: PartialEq + Send + Sync + 'static> Task<R> {
    pub(super) async fn run(mut self) {
        loop {
            let wanted = self.evaluator.registration.watch().wanted().await;
            if wanted.evaluation {
                let outcome = self.evaluator.evaluate().await;
                self.publish(outcome);
                // Where changes never end, others get their turn.
                tokio::task::yield_now().await;
            } else {
                self.call();
            }
        }
    }

    fn publish(&mut self, outcome: Result<R>) {
        let latest = self.latest.borrow().clone();
        let compared = outcome.and_then(|result| {
            let equal = guarded("a comparison of results", || *latest.result == result)?;
            Ok(if equal { None } else { Some(Arc::new(result)) })
        });
        let next = match compared {
            Ok(None) if latest.error.is_none() => return self.call(),
            Ok(different) => Latest { result: different.unwrap_or(latest.result), error: None, ..latest },
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "a live query failed");
                Latest { error: Some(error), errors: latest.errors + 1, ..latest }
            }
        };
        self.latest.send_replace(next);
        self.call();
    }

    /// Tells the callbacks what they have not been told.
    fn call(&mut self) {
        self.callbacks.append(&mut self.shared.take());
        let Latest { result, error, errors } = self.latest.borrow().clone();
        let recovered = error.is_none() && std::mem::take(&mut self.error_told);
        for callback in &mut self.callbacks {
            let outcome = match callback {
                Callback::Change { told, call } => guarded("a live query's callback", || {
                    if recovered || (!Arc::ptr_eq(told, &result) && **told != *result) {
                        *told = Arc::clone(&result);
                        call(Arc::clone(&result));
                    }
                }),
                Callback::Error { told, call } => {
                    let news = std::mem::replace(told, errors) < errors;
                    let Some(error) = error.clone().filter(|_| news) else { continue };
                    self.error_told = true;
                    guarded("a live query's callback", || call(error))
                }
            };
            if let Err(panicked) = outcome {
                self.shared.panics.fetch_add(1, Ordering::Relaxed);
                (self.on_failure)(Failure::new(None, "subscriber", panicked, 1));
            }
        }
    }
}
