//! Who is tried again after a failure, when, and with whom.

use std::time::Duration;

use crate::base::error::{Error, Failure};
use crate::base::name::Subject;
use crate::persistence::dirty::set::{DirtySet, Verdict};
use crate::persistence::dirty::waiters::Covered;

#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    pub(super) attempt: u32,
    pub(super) at: Duration,
}

impl<W> DirtySet<W> {
    pub(super) fn back_off(
        &mut self,
        subjects: &[Subject],
        covered: &Covered,
        error: &Error,
        now: Duration,
        jitter: f64,
        verdict: &mut Verdict<W>,
    ) {
        self.pieces.clear();
        let attempt = self.backoff.map_or(1, |retry| retry.attempt.saturating_add(1));
        self.backoff = Some(Retry { attempt, at: now + self.policy.retry.delay(attempt, jitter) });
        for subject in subjects {
            if let Some(entry) = self.entries.get_mut(subject) {
                entry.failing = true;
                if let Some(alone) = &mut entry.isolated {
                    alone.at = now + self.policy.retry.delay(attempt, jitter);
                }
            }
            verdict.failures.push(Failure::new(Some(subject.clone()), "save", error.clone(), attempt));
        }
        if subjects.is_empty() {
            verdict.failures.push(Failure::new(None, "save", error.clone(), attempt));
        }
        // Everybody who waits for any part of it is told at once. Who waits for a later change has not had his try.
        for waiter in self.waiters.iter_mut().filter(|waiter| waiter.hurries()) {
            if let Some(target) = waiter.targets.iter_mut().find(|target| target.is_covered(covered)) {
                target.outcome = Some(Err(error.clone()));
                waiter.close();
            }
        }
    }

    /// Subjects that are to be committed together fail together: alone in their group, they are tried alone from now on.
    pub(super) fn isolate(
        &mut self,
        subjects: &[Subject],
        covered: &Covered,
        error: &Error,
        now: Duration,
        jitter: f64,
        verdict: &mut Verdict<W>,
    ) {
        let attempts = subjects.iter().filter_map(|subject| self.entries.get(subject)?.isolated);
        let attempt = attempts.map(|retry| retry.attempt.saturating_add(1)).max().unwrap_or(1);
        let retry = Retry { attempt, at: now + self.policy.retry.delay(attempt, jitter) };
        for subject in subjects {
            if let Some(entry) = self.entries.get_mut(subject) {
                entry.isolated = Some(retry);
                entry.failing = true;
                verdict.failures.push(Failure::new(Some(subject.clone()), "save", error.clone(), attempt));
            }
        }
        for waiter in self.waiters.iter_mut().filter(|waiter| waiter.hurries()) {
            let hit = waiter
                .targets
                .iter_mut()
                .filter(|target| subjects.contains(&target.subject) && target.is_covered(covered));
            for target in hit {
                target.outcome = Some(Err(error.clone()));
            }
        }
    }
}
