//! How an actor that died comes back, and what becomes of data that cannot be read.

use std::sync::Mutex;
use std::time::Duration;

use ractor::Message;
use tokio::time::Instant;

use crate::base::error::{Error, Failure, Result};
use crate::base::name::Subject;
use crate::base::slot::{Place, Slot};
use crate::persistence::{LoadFailure, Persister};
use crate::store::children::{RESTARTS, Restarts, WITHIN};
use crate::store::inner::{Inner, lock};

/// Between attempts to restart while the adapter cannot be reached, the first and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// See [`FIRST_PAUSE`].
const LAST_PAUSE: Duration = Duration::from_secs(30);

impl Inner {
    /// Restarts a subject's actor until that succeeds, nobody wants it any more, or it is final that it cannot be. Answers
    /// whether it has been given up.
    pub(super) async fn bring_back<M, S, Restarting>(
        &self,
        slot: &Slot<M, S>,
        restarts: &Mutex<Restarts>,
        restart: impl Fn() -> Restarting,
    ) -> bool
    where
        M: Message,
        S: Clone,
        Restarting: Future<Output = Result<()>>,
    {
        let subject = slot.subject().clone();
        if !lock(restarts).allow(Instant::now()) {
            let given_up = Error::GivenUp { subject: subject.clone(), restarts: RESTARTS, within: WITHIN };
            slot.close(given_up.clone());
            self.report(Failure::new(Some(subject), "restart", given_up, RESTARTS));
            return true;
        }
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            match restart().await {
                Ok(()) | Err(Error::Stopping) => return false,
                // Stopped, ended or dropped meanwhile.
                Err(_) if self.is_stopping() || matches!(slot.place(), Place::Gone(_)) => return false,
                Err(error) => {
                    self.report(Failure::new(Some(subject.clone()), "restart", error.clone(), attempt));
                    if !error.is_retryable() {
                        slot.close(error);
                        return true;
                    }
                }
            }
            // The adapter may be back later; callers wait within their timeouts.
            let rest = async {
                tokio::time::sleep(pause).await;
                Ok(())
            };
            if self.unless_stopping(slot.while_open(rest)).await.is_err() {
                return false;
            }
            pause = (pause * 2).min(LAST_PAUSE);
        }
        false
    }

    /// Moves data that could not be read out of the way, so that the subject may start empty, and reports both. Answers
    /// where it is.
    ///
    /// # Errors
    /// `error` itself, unless it says that the data can never be read and an empty start was chosen; what the adapter
    /// answers if it cannot be moved. Then it is where it was, and nothing may be written over it.
    pub(super) async fn set_aside(&self, persister: &Persister, subject: &Subject, error: Error) -> Result<String> {
        let unreadable = matches!(error, Error::Corrupt { .. } | Error::UnknownFormat { .. });
        if !unreadable || persister.load_failure() != LoadFailure::StartEmpty {
            return Err(error);
        }
        let place = persister.quarantine(subject).await?;
        tracing::warn!(store = %self.name, %subject, place, "unreadable data is in quarantine");
        persister.report(Failure::new(Some(subject.clone()), "load", error, 1));
        Ok(place)
    }
}
