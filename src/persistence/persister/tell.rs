//! Who hears of what: the log, the bus, the callback of the user, whoever waits.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use crate::base::error::Failure;
use crate::base::name::Subject;
use crate::bus::{Event, Topic};
use crate::persistence::dirty::Verdict;
use crate::persistence::event::{PersistenceEvent, PersistenceOutcome};
use crate::persistence::persister::handle::{Persister, Token, answer, lock};

impl Persister {
    /// Tells everybody of outcomes, once they are settled; the turn ends before anybody is told.
    pub(super) fn tell_all(&self, verdicts: impl IntoIterator<Item = Verdict<Token>>, turn: MutexGuard<'_, ()>) {
        let _telling = lock(&self.shared.telling);
        // The next commit may end before these are told.
        let dirty = lock(&self.shared.dirty);
        let with_revisions = |verdict: Verdict<Token>| {
            let revisions: Vec<u64> = verdict.saved.iter().map(|subject| dirty.saved_revision(subject)).collect();
            (verdict, revisions)
        };
        let verdicts: Vec<_> = verdicts.into_iter().map(with_revisions).collect();
        drop(dirty);
        drop(turn);
        for (verdict, revisions) in verdicts {
            self.tell_outcome(verdict, revisions);
        }
    }

    fn tell_outcome(&self, verdict: Verdict<Token>, revisions: Vec<u64>) {
        let Verdict { answers, saved, failures, recovered, .. } = verdict;
        for subject in &recovered {
            tracing::info!(store = %self.shared.store, %subject, "saving works again");
        }
        for (subject, revision) in saved.iter().zip(revisions) {
            self.tell(subject, PersistenceOutcome::Saved { revision });
        }
        for failure in failures {
            self.report(failure);
        }
        answer(answers);
    }

    /// Reports a failure that nobody waits for: to the log, the bus and the user's callback.
    pub(crate) fn report(&self, failure: Failure) {
        let Failure { subject, operation, error, attempt } = &failure;
        tracing::warn!(
            store = %self.shared.store,
            subject = subject.as_ref().map(tracing::field::display),
            operation,
            attempt,
            error = error as &dyn std::error::Error,
            "persistence failed"
        );
        if let (Some(subject), "save" | "load" | "upkeep") = (subject, *operation) {
            self.tell(subject, PersistenceOutcome::Failed { error: error.clone(), attempt: *attempt });
        }
        if let Some(on_error) = &self.shared.on_error
            && catch_unwind(AssertUnwindSafe(|| on_error(&failure))).is_err()
        {
            tracing::error!(store = %self.shared.store, "the on_error callback panicked");
        }
    }

    fn tell(&self, subject: &Subject, outcome: PersistenceOutcome) {
        if self.shared.bus.subscriber_count() == 0 {
            return;
        }
        let topic = Topic::persistence(subject.name(), outcome.kind());
        let revision = match outcome {
            PersistenceOutcome::Saved { revision } => revision,
            _ => 0,
        };
        let payload = Arc::new(PersistenceEvent { subject: subject.clone(), outcome });
        self.shared.bus.publish(Event::new(topic, Some(subject.clone()), revision, 0, false, payload));
    }

    /// Tells that a subject was loaded, or started empty with what could not be read in `quarantine`.
    pub(crate) fn recovered(&self, subject: &Subject, count: usize, took: Duration, quarantine: Option<String>) {
        tracing::debug!(store = %self.shared.store, %subject, count, ?took, "recovered");
        let repairs = lock(&self.shared.repairs).remove(subject).unwrap_or_default();
        self.tell(subject, PersistenceOutcome::Recovered { count, took, repairs, quarantine });
    }
}
