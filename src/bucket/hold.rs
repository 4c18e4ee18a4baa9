//! How a transaction has the turns of several buckets at once: each actor waits for it, with a message in its hands,
//! until the transaction has committed or given up.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::base::patience::Patience;

/// How long a bucket waits for a transaction's decision.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

const OPEN: u8 = 0;
const COMMITTED: u8 = 1;
const ABORTED: u8 = 2;

/// One switch decides a transaction for all of its buckets, once.
#[derive(Debug, Default)]
pub(crate) struct Switch(AtomicU8);

impl Switch {
    fn decide(&self, decision: u8) -> bool {
        let decided = self.0.compare_exchange(OPEN, decision, Ordering::AcqRel, Ordering::Acquire);
        decided.is_ok() || decided == Err(decision)
    }

    /// Commits; answers whether it was not aborted before.
    pub(crate) fn commit(&self) -> bool {
        self.decide(COMMITTED)
    }

    /// Aborts; answers whether it was not committed before.
    pub(crate) fn abort(&self) -> bool {
        self.decide(ABORTED)
    }
}

/// A transaction's hold of a bucket's turn.
#[derive(Debug)]
pub struct Hold {
    switch: Arc<Switch>,
    granted: oneshot::Sender<()>,
    released: oneshot::Receiver<()>,
    patience: Patience,
}

/// What the transaction has of a hold: dropping it releases the bucket.
#[derive(Debug)]
pub(crate) struct Held {
    granted: Option<oneshot::Receiver<()>>,
    _release: oneshot::Sender<()>,
}

impl Hold {
    pub(crate) fn new(switch: &Arc<Switch>, patience: Patience) -> (Self, Held) {
        let (granted, granting) = oneshot::channel();
        let (release, released) = oneshot::channel();
        let hold = Self { switch: Arc::clone(switch), granted, released, patience };
        (hold, Held { granted: Some(granting), _release: release })
    }

    /// Gives the turn away and waits until it is given back. Without a decision in time the transaction is aborted.
    pub(crate) async fn wait(self) {
        let Self { switch, granted, mut released, patience } = self;
        if granted.send(()).is_err() {
            // The transaction has given up meanwhile.
            return;
        }
        if patience.limit(Pin::new(&mut released), PATIENCE).await.is_none() && !switch.abort() {
            // It is committing: that takes moments, and nothing may happen in between.
            let _released = released.await;
        }
    }
}

impl Held {
    /// Waits until the bucket's turn is ours; answers whether it is.
    pub(crate) async fn granted(&mut self) -> bool {
        match self.granted.take() {
            Some(granted) => granted.await.is_ok(),
            None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_decides_once() {
        let switch = Switch::default();
        assert!(switch.commit());
        assert!(switch.commit(), "the same decision stands");
        assert!(!switch.abort());
        let other = Switch::default();
        assert!(other.abort());
        assert!(!other.commit());
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_waits_for_a_decision_for_five_seconds() {
        let switch = Arc::new(Switch::default());
        let (hold, mut held) = Hold::new(&switch, Patience::default());
        let waiting = tokio::spawn(hold.wait());
        assert!(held.granted().await);
        tokio::time::sleep(PATIENCE - Duration::from_millis(1)).await;
        assert!(!waiting.is_finished());
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(waiting.is_finished());
        assert!(!switch.commit(), "it was aborted");
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_waits_for_a_commit_however_long_it_takes() {
        let switch = Arc::new(Switch::default());
        let (hold, mut held) = Hold::new(&switch, Patience::default());
        let waiting = tokio::spawn(hold.wait());
        assert!(held.granted().await);
        assert!(switch.commit());
        tokio::time::sleep(PATIENCE * 3).await;
        assert!(!waiting.is_finished());
        drop(held);
        waiting.await.unwrap();
    }
}
