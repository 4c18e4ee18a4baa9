//! Timeouts for many short calls: a timer per call costs as much as half a call, a shared tick next to nothing.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// How often those who wait look whether they have waited long enough.
const TICK: Duration = Duration::from_millis(100);
/// Shorter timeouts have timers of their own, and are exact.
const EXACT: Duration = Duration::from_secs(1);
/// The ticking ends after so many ticks, or with the runtime that it is on; whoever still waits starts it again.
const TICKS: u32 = 20;

/// When a timeout that begins now ends; one that is too long to be told is as good as endless.
pub(crate) fn deadline(timeout: Duration) -> Instant {
    const LONGEST: Duration = Duration::from_secs(30 * 365 * 86_400);
    Instant::now() + timeout.min(LONGEST)
}

/// Limits how long futures may take, with one timer for all of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Patience {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    ticking: AtomicBool,
    waiting: Notify,
    ticker: Mutex<Option<AbortHandle>>,
}

/// That somebody ticks, until it is dropped: at the end, or where the ticking is aborted or its runtime shut down.
struct Ticking(Arc<Shared>);

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.ticking.store(false, Ordering::Release);
        // Who registered before the line above saw a ticker: woken, he starts another one.
        self.0.waiting.notify_waiters();
    }
}

impl Patience {
    /// Runs a future for at most this long; none if it is not ready by then. From one second on, up to two tenths of a
    /// second more may pass before that is noticed.
    pub(crate) async fn limit<T>(&self, mut future: Pin<&mut impl Future<Output = T>>, timeout: Duration) -> Option<T> {
        if timeout < EXACT {
            return tokio::time::timeout(timeout, future).await.ok();
        }
        let mut end = None;
        loop {
            let mut tick = pin!(self.shared.waiting.notified());
            let ready = poll_fn(|context| {
                if let Poll::Ready(output) = future.as_mut().poll(context) {
                    return Poll::Ready(Some(output));
                }
                // Only who has to wait asks for the time, and for ticks.
                end.get_or_insert_with(|| deadline(timeout));
                if tick.as_mut().poll(context).is_ready() {
                    return Poll::Ready(None);
                }
                // Registered first: a ticker that ends wakes all that are registered.
                self.tick();
                Poll::Pending
            })
            .await;
            if ready.is_some() {
                return ready;
            }
            if end.is_some_and(|end| end <= Instant::now()) {
                return None;
            }
        }
    }

    /// Sees to it that there are ticks.
    fn tick(&self) {
        if self.shared.ticking.load(Ordering::Acquire) || self.shared.ticking.swap(true, Ordering::AcqRel) {
            return;
        }
        let ticking = Ticking(Arc::clone(&self.shared));
        let ticker = tokio::spawn(async move {
            for _ in 0..TICKS {
                tokio::time::sleep(TICK).await;
                ticking.0.waiting.notify_waiters();
            }
        });
        *self.ticker() = Some(ticker.abort_handle());
    }

    /// Ends the ticking where nothing is going to be waited for; whoever still waits starts it again.
    pub(crate) fn end(&self) {
        if let Some(ticker) = self.ticker().take() {
            ticker.abort();
        }
    }

    fn ticker(&self) -> MutexGuard<'_, Option<AbortHandle>> {
        self.shared.ticker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_ready_needs_no_time_and_what_never_is_ends_in_time() {
        let patience = Patience::default();
        assert_eq!(patience.limit(pin!(async { 7 }), Duration::from_secs(5)).await, Some(7));
        for timeout in [Duration::from_millis(20), Duration::from_secs(1), Duration::from_secs(5)] {
            let begun = Instant::now();
            assert_eq!(patience.limit(pin!(std::future::pending::<()>()), timeout).await, None);
            let late = begun.elapsed() - timeout;
            assert!(late <= TICK * 2, "{timeout:?} took {late:?} more");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_comes_when_it_comes_however_many_wait() {
        let patience = Patience::default();
        let waiting: Vec<_> = (1..50_u64)
            .map(|tenths| {
                let patience = patience.clone();
                tokio::spawn(async move {
                    let work = tokio::time::sleep(Duration::from_millis(tenths * 90));
                    patience.limit(pin!(work), Duration::from_secs(60)).await
                })
            })
            .collect();
        for waiting in waiting {
            assert_eq!(waiting.await.unwrap(), Some(()));
        }
        // Long after the first call, a new one has all of its time.
        let late = patience.limit(pin!(tokio::time::sleep(Duration::from_secs(4))), Duration::from_secs(5)).await;
        assert_eq!(late, Some(()));
        // Ended while somebody waits, it goes on for him.
        let waiting = {
            let patience = patience.clone();
            tokio::spawn(
                async move { patience.limit(pin!(std::future::pending::<()>()), Duration::from_secs(2)).await },
            )
        };
        tokio::time::sleep(TICK).await;
        patience.end();
        assert_eq!(waiting.await.unwrap(), None);
        // The ticks end some time after the last one who waits.
        tokio::time::sleep(TICK * (TICKS + 1)).await;
        assert!(!patience.shared.ticking.load(Ordering::Relaxed));
    }
}
