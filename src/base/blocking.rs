//! The one way onto the blocking pool.

use tokio::runtime::Handle;
use tokio::task::JoinError;

use crate::base::error::{Error, Result};

/// Why blocking work gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Lost {
    /// What a panic said is not repeated: it may contain a record's contents.
    #[error("it panicked")]
    Panicked,
    #[error("the runtime is shutting down")]
    ShuttingDown,
    #[error("there is no tokio runtime here")]
    NoRuntime,
}

/// Runs blocking work on the runtime's blocking pool and answers what it answers.
///
/// `operation` names the work in errors. Nothing happens before the first poll.
///
/// # Errors
/// The work's own; `Unknown` if it panicked or if the runtime shuts down, because a write may have happened or not;
/// `Permanent` outside of a tokio runtime.
///
/// # Cancel safety
/// Once polled, the work runs to its end on its thread, whether or not anybody still waits for the answer. So a future
/// that is dropped leaves a write done or yet to be done, never half done, and whoever needs to know that earlier work
/// has ended takes a lock that the work holds.
///
/// # Examples
/// ```
/// # tokio_test::block_on(async {
/// use ractor_persistence::base::blocking;
/// let length = blocking::run("measuring", || Ok(std::env::args().count())).await?;
/// assert!(length > 0);
/// # Ok::<(), ractor_persistence::base::error::Error>(())
/// # }).unwrap();
/// ```
pub async fn run<T, F>(operation: &'static str, work: F) -> Result<T>
where
    F: FnOnce() -> Result<T> + Send + 'static,
    T: Send + 'static,
{
    let runtime = runtime(operation)?;
    runtime.spawn_blocking(work).await.unwrap_or_else(|error| Err(lost(operation, &error)))
}

/// The runtime that this is called on.
///
/// # Errors
/// `Permanent` outside of a tokio runtime.
pub(crate) fn runtime(operation: impl Into<String>) -> Result<Handle> {
    Handle::try_current().map_err(|_| Error::permanent(operation, Lost::NoRuntime))
}

/// What a task that was lost is told as: of unknown outcome, without the words of its panic.
pub(crate) fn lost(operation: impl Into<String>, error: &JoinError) -> Error {
    if error.is_panic() { panicked(operation) } else { Error::unknown(operation, Lost::ShuttingDown) }
}

/// What work that panicked is told as.
pub(crate) fn panicked(operation: impl Into<String>) -> Error {
    Error::unknown(operation, Lost::Panicked)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn work_that_panics_answers_an_unknown_outcome_without_its_words() {
        let lost = run::<(), _>("saving", || panic!("secret contents")).await.unwrap_err();
        assert!(matches!(&lost, Error::Unknown { operation, .. } if operation == "saving"), "{lost:?}");
        assert!(!format!("{lost:?}").contains("secret"));
    }

    #[tokio::test]
    async fn work_goes_on_when_nobody_waits_any_more() {
        let (go, wait) = mpsc::channel::<()>();
        let (done, ended) = mpsc::channel();
        let mut work = Box::pin(run("saving", move || {
            wait.recv().ok();
            done.send(()).ok();
            Ok(())
        }));
        assert!(futures_poll(&mut work).is_none());
        drop(work);
        go.send(()).unwrap();
        ended.recv().unwrap();
    }

    #[test]
    fn without_a_runtime_there_is_an_error_instead_of_a_panic() {
        let mut work = Box::pin(run("saving", || Ok(())));
        let answer = futures_poll(&mut work).expect("answers at once");
        assert!(matches!(answer, Err(Error::Permanent { .. })));
    }

    #[test]
    fn a_runtime_that_shuts_down_answers_an_unknown_outcome() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let handle = runtime.handle().clone();
        runtime.shutdown_background();
        let _entered = handle.enter();
        let mut work = Box::pin(run("saving", || Ok(())));
        let answer = futures_poll(&mut work).expect("a pool that is gone answers at once");
        assert!(matches!(answer, Err(Error::Unknown { .. })), "{answer:?}");
    }

    fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::Pin::new(future).poll(&mut context) {
            std::task::Poll::Ready(answer) => Some(answer),
            std::task::Poll::Pending => None,
        }
    }
}
