//! Removes what has expired, once in a while.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::base::error::{Error, Result};
use crate::bucket::{Address, BucketMessage, DEFAULT_TIMEOUT};
use crate::store::inner::Inner;

/// Most records that one turn removes: others come in between.
const PER_TURN: usize = 1_000;

/// Refuses an interval that would keep a core busy, or never end.
pub(super) fn validate(interval: Duration) -> Result<()> {
    let bounds = Duration::from_millis(1)..=Duration::from_secs(24 * 3_600);
    if interval.is_zero() || bounds.contains(&interval) {
        return Ok(());
    }
    Err(Error::InvalidOptions { problems: vec!["ttl_check_interval is 0 or 1 ms to 24 h".to_owned()] })
}

/// Starts the ticks, which end with the store.
pub(super) fn tick(inner: &Arc<Inner>, interval: Duration) {
    let (store, going) = (Arc::downgrade(inner), inner.going());
    let ticking = async move {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is at once, and nothing has expired yet.
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let Some(inner) = Weak::upgrade(&store) else { return };
            if let Err(error) = inner.purge_expired().await
                && !matches!(error, Error::Stopping)
            {
                // It is tried again at the next tick; until then nobody sees what has expired.
                tracing::debug!(store = %inner.name, error = &error as &dyn std::error::Error, "not purged");
            }
        }
    };
    tokio::spawn(async move {
        tokio::select! {
            () = ticking => {}
            () = going => {}
        }
    });
}

impl Inner {
    /// Removes what has expired from every bucket; answers how much. O(1) for a bucket of which nothing has.
    pub(super) async fn purge_expired(&self) -> Result<usize> {
        let (mut purged, mut failure) = (0, None);
        for address in self.directory.list() {
            while has_expired(&address) {
                let count = address.slot.call(|port| BucketMessage::Purge(PER_TURN, port), DEFAULT_TIMEOUT).await;
                match count {
                    Ok(Some(Ok(0)) | None) => break,
                    Ok(Some(Ok(count))) => purged += count,
                    // Dropped or restarted meanwhile: nothing of it is left to purge, or the next tick does it.
                    Ok(Some(Err(Error::ActorLost { .. }))) | Err(Error::BucketNotDefined { .. }) => break,
                    Ok(Some(Err(error))) | Err(error) => {
                        // The others need not wait for it.
                        failure.get_or_insert(error);
                        break;
                    }
                }
            }
        }
        failure.map_or(Ok(purged), Err)
    }
}

fn has_expired(address: &Address) -> bool {
    let Some(Ok(instance)) = address.slot.shared_now() else { return false };
    let now = instance.now();
    instance.read(|table| table.next_expiry().is_some_and(|at| at <= now)).unwrap_or(false)
}
