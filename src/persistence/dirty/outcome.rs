//! What follows from the outcome of what was in flight.

use std::time::Duration;

use crate::base::error::{Error, Failure};
use crate::base::name::Subject;
use crate::persistence::dirty::set::{DirtySet, Flight, Trouble, Verdict};
use crate::persistence::dirty::waiters::{Covered, gone};

impl<W> DirtySet<W> {
    /// The commit in flight succeeded.
    pub(crate) fn saved(&mut self, now: Duration) -> Verdict<W> {
        let mut verdict = Verdict::default();
        match self.flight.take() {
            Some(Flight::Commit { subjects, level, .. }) => {
                let top = level >= self.policy.top_level;
                for subject in subjects {
                    let Some(entry) = self.entries.get_mut(&subject) else { continue };
                    entry.handed = entry.handed.max(entry.captured.take().unwrap_or(0));
                    entry.isolated = None;
                    if std::mem::take(&mut entry.failing) {
                        verdict.recovered.push(subject.clone());
                    }
                    if !top {
                        verdict.handed.push(subject);
                    }
                }
                if top {
                    // It has made durable what earlier commits only handed over.
                    self.unsynced_since = None;
                    for (subject, entry) in &mut self.entries {
                        if entry.captured_bytes > 0 || entry.saved < entry.handed {
                            entry.saved = entry.handed;
                            entry.captured_bytes = 0;
                            // What came since waits for the next commit.
                            let since = std::mem::replace(&mut entry.unsaved_since, entry.dirty_since);
                            verdict.lag = verdict.lag.max(since.map(|since| now.saturating_sub(since)));
                            verdict.saved.push(subject.clone());
                        }
                    }
                } else {
                    self.unsynced_since.get_or_insert(now);
                }
            }
            Some(Flight::Drop { subject, .. }) => {
                if let Some((_, token)) = self.drops.pop_front() {
                    verdict.answers.push((token, Ok(())));
                }
                verdict.answers.extend(self.forget(&subject, &gone(&subject)));
                verdict.dropped = Some(subject);
            }
            None => {}
        }
        self.backoff = None;
        self.part();
        if self.entries.values().all(|entry| entry.isolated.is_none()) {
            self.trouble = None;
        }
        self.settle();
        verdict.answers.extend(self.answers());
        verdict.saved.sort_unstable();
        verdict
    }

    /// The commit in flight failed. `jitter` is drawn evenly from 0 to 1.
    pub(crate) fn failed(&mut self, error: &Error, now: Duration, jitter: f64) -> Verdict<W> {
        let mut verdict = Verdict::default();
        match self.flight.take() {
            Some(Flight::Drop { subject, .. }) => {
                if let Some((_, token)) = self.drops.pop_front() {
                    verdict.answers.push((token, Err(error.clone())));
                }
                verdict.failures.push(Failure::new(Some(subject), "drop", error.clone(), 1));
                if matches!(error, Error::Fenced { .. }) {
                    self.fence(error, now, &mut verdict);
                } else if self.backoff.is_none() && self.entries.values().all(|entry| !entry.failing) {
                    // That it took so long is told by its failure; no save is in trouble.
                    self.trouble = None;
                }
            }
            Some(Flight::Commit { subjects, .. }) => {
                self.trouble.get_or_insert_with(|| Trouble { since: now, error: error.clone() }).error = error.clone();
                let covered = self.uncapture(&subjects, now, &mut verdict);
                match error {
                    Error::Fenced { .. } => {
                        self.fence(error, now, &mut verdict);
                        verdict.failures.push(Failure::new(None, "save", error.clone(), 1));
                    }
                    // These say that one of the subjects is at fault, and which one is found out.
                    Error::Transient { .. } | Error::Unknown { .. } => {
                        self.back_off(&subjects, &covered, error, now, jitter, &mut verdict);
                    }
                    // A bare sync failed: nobody in particular is at fault.
                    _ if subjects.is_empty() => self.back_off(&subjects, &covered, error, now, jitter, &mut verdict),
                    _ => {
                        let mut pieces = self.split(subjects);
                        match pieces.pop() {
                            Some(piece) if pieces.is_empty() => {
                                self.isolate(&piece, &covered, error, now, jitter, &mut verdict);
                            }
                            last => self.pieces.extend(pieces.into_iter().chain(last)),
                        }
                    }
                }
            }
            None => {}
        }
        verdict.answers.extend(self.answers());
        verdict
    }

    /// Takes back what was captured or only handed over: all of it has to be written again. Answers which revisions the
    /// failed commit was to save.
    fn uncapture(&mut self, subjects: &[Subject], now: Duration, verdict: &mut Verdict<W>) -> Covered {
        let mut covered = Covered::new();
        for (subject, entry) in &mut self.entries {
            let handed = entry.handed > entry.saved;
            if !handed && !subjects.contains(subject) {
                continue;
            }
            let captured = entry.captured.take();
            covered.insert(subject.clone(), entry.handed.max(captured.unwrap_or(0)));
            entry.handed = entry.saved;
            if captured.is_some() || handed {
                let bytes = std::mem::take(&mut entry.captured_bytes);
                entry.waiting_bytes += bytes;
                self.waiting_bytes += bytes;
                entry.dirty_since.get_or_insert(now);
                verdict.unsaved.push(subject.clone());
            }
        }
        self.unsynced_since = None;
        verdict.unsaved.sort_unstable();
        covered
    }

    fn fence(&mut self, error: &Error, now: Duration, verdict: &mut Verdict<W>) {
        self.trouble.get_or_insert_with(|| Trouble { since: now, error: error.clone() });
        self.fenced = Some(error.clone());
        self.pieces.clear();
        for target in self.waiters.iter_mut().flat_map(|waiter| &mut waiter.targets) {
            target.outcome.get_or_insert_with(|| Err(error.clone()));
        }
        verdict.answers.extend(self.drops.drain(..).map(|(_, token)| (token, Err(error.clone()))));
    }

    /// The commit in flight takes longer than it may, once more: it goes on. Those who wait for it are told the first
    /// time, those who wait for what comes after it the next time.
    pub(crate) fn overdue(&mut self, error: &Error, now: Duration) -> Verdict<W> {
        let mut verdict = Verdict::default();
        let (subjects, operation, told) = match &mut self.flight {
            Some(Flight::Commit { subjects, overdue, .. }) => {
                (subjects.clone(), "save", std::mem::replace(overdue, true))
            }
            Some(Flight::Drop { subject, overdue }) => {
                (vec![subject.clone()], "drop", std::mem::replace(overdue, true))
            }
            None => return verdict,
        };
        self.trouble.get_or_insert_with(|| Trouble { since: now, error: error.clone() }).error = error.clone();
        if !told {
            for subject in subjects {
                if let (Some(entry), "save") = (self.entries.get_mut(&subject), operation) {
                    entry.failing = true;
                }
                verdict.failures.push(Failure::new(Some(subject), operation, error.clone(), 1));
            }
        }
        for waiter in self.waiters.iter_mut().filter(|waiter| waiter.hurries()) {
            let hit = waiter.targets.iter_mut().find(|target| {
                let captured = self.entries.get(&target.subject).and_then(|entry| entry.captured);
                target.outcome.is_none() && (told || captured.is_some_and(|captured| captured >= target.revision))
            });
            if let Some(target) = hit {
                target.outcome = Some(Err(error.clone()));
                waiter.close();
            }
        }
        verdict.answers = self.answers();
        if told {
            // A drop that has not begun is called off; one that has waits for its outcome.
            let begun = usize::from(operation == "drop");
            let waiting = self.drops.drain(begun.min(self.drops.len())..);
            let busy = |subject: &Subject| Error::Transient {
                operation: format!("dropping {subject} while another commit does not end"),
                source: None,
            };
            verdict.answers.extend(waiting.map(|(subject, token)| (token, Err(busy(&subject)))));
        }
        verdict
    }
}
