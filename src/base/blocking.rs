//! The one way onto the blocking pool.

use crate::base::error::{Error, Result};

/// Runs `work` on the blocking pool of the tokio runtime that this is called in.
///
/// # Errors
/// The work's own; `Unknown` if it panicked or the runtime went away before it was done.
///
/// # Cancel safety
/// Work that has begun runs to its end even if the future is dropped.
pub async fn run<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(lost) => Err(Error::unknown(operation, lost)),
    }
}
