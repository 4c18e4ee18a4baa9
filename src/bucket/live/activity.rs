//! Whether something is under way: events that wait for a handler, evaluations.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts what is under way; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Activity(Arc<Counted>);

#[derive(Debug, Default)]
struct Counted {
    working: AtomicUsize,
    quiet: Notify,
}

/// Something that is under way for as long as this lives.
#[derive(Debug)]
pub(crate) struct Working(Arc<Counted>);

impl Activity {
    /// Something begins.
    pub(crate) fn begin(&self) -> Working {
        self.0.working.fetch_add(1, Ordering::SeqCst);
        Working(Arc::clone(&self.0))
    }

    /// Waits for a moment at which nothing is under way; at once if that is now.
    pub(crate) async fn settled(&self) {
        loop {
            let mut quiet = std::pin::pin!(self.0.quiet.notified());
            // Before looking, so that what ends in between is not missed.
            quiet.as_mut().enable();
            if self.0.working.load(Ordering::SeqCst) == 0 {
                return;
            }
            quiet.await;
        }
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        if self.0.working.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.quiet.notify_waiters();
        }
    }
}
