//! Who waits for what, and what they are told.

use std::collections::BTreeSet;

use hashbrown::HashMap;

use crate::base::durability::Durability;
use crate::base::error::Error;
use crate::base::name::Subject;
use crate::persistence::dirty::set::{DirtySet, Flight};

#[derive(Debug)]
pub(super) struct Waiter<W> {
    pub(super) token: W,
    pub(super) level: Durability,
    pub(super) kind: Kind,
    /// The revision by which its answers are ordered.
    pub(super) order: u64,
    pub(super) targets: Vec<Target>,
}

/// What somebody waits for, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// For one change, which is committed at once; told if that fails.
    Change,
    /// For whatever is unsaved, at once: what is dropped meanwhile is nothing to wait for.
    Flush,
    /// For one change, until it is saved, however often that fails first; hurries nothing.
    Patient,
}

#[derive(Debug)]
pub(super) struct Target {
    pub(super) subject: Subject,
    pub(super) revision: u64,
    pub(super) outcome: Option<Result<(), Error>>,
}

/// The revisions that a commit was to save.
pub(super) type Covered = HashMap<Subject, u64>;

impl Target {
    pub(super) fn is_covered(&self, covered: &Covered) -> bool {
        self.outcome.is_none() && covered.get(&self.subject).is_some_and(|revision| *revision >= self.revision)
    }
}

impl<W> Waiter<W> {
    /// Whether a commit is to be made for it.
    pub(super) fn hurries(&self) -> bool {
        self.kind != Kind::Patient
    }

    /// What is still open is not waited for: an outcome that it has been told decides.
    pub(super) fn close(&mut self) {
        for target in &mut self.targets {
            target.outcome.get_or_insert(Ok(()));
        }
    }
}

pub(super) fn gone(subject: &Subject) -> Error {
    Error::Permanent { operation: format!("saving {subject}, which is not there any more"), source: None }
}

impl<W> DirtySet<W> {
    /// Somebody waits for a revision of a subject. `None`: it has to wait; the shell is to be woken.
    pub(crate) fn await_saved(
        &mut self,
        subject: &Subject,
        revision: u64,
        level: Durability,
        token: W,
    ) -> Option<(W, Result<(), Error>)> {
        self.wait(vec![(subject.clone(), revision)], level, Kind::Change, token)
    }

    /// Somebody wants to know when a revision of a subject is saved, and is told of nothing else.
    pub(crate) fn follow(
        &mut self,
        subject: &Subject,
        revision: u64,
        level: Durability,
        token: W,
    ) -> Option<(W, Result<(), Error>)> {
        self.wait(vec![(subject.clone(), revision)], level, Kind::Patient, token)
    }

    /// Somebody waits for everything that is known of now, of one subject or of all.
    pub(crate) fn flush(&mut self, subject: Option<&Subject>, token: W) -> Option<(W, Result<(), Error>)> {
        let all = self.entries.iter().filter(|(other, _)| subject.is_none_or(|subject| subject == *other));
        let targets = all.map(|(subject, entry)| (subject.clone(), entry.newest)).collect();
        self.wait(targets, self.policy.top_level, Kind::Flush, token)
    }

    fn wait(
        &mut self,
        targets: Vec<(Subject, u64)>,
        level: Durability,
        kind: Kind,
        token: W,
    ) -> Option<(W, Result<(), Error>)> {
        let mut open = Vec::new();
        for (subject, revision) in targets {
            let Some(entry) = self.entries.get(&subject) else {
                return Some((token, Err(gone(&subject))));
            };
            // Nothing beyond the newest change can be waited for: it would never come.
            let revision = revision.min(entry.newest);
            // A change that is no commit, such as a migration, leaves the revision as it is.
            let open_change = entry.newest == revision && (entry.dirty_since.is_some() || entry.captured.is_some());
            if open_change || entry.reached(level, self.policy.top_level) < revision {
                open.push((subject, revision));
            }
        }
        let targets = open;
        if targets.is_empty() {
            return Some((token, Ok(())));
        }
        if let Some(error) = &self.fenced {
            return Some((token, Err(error.clone())));
        }
        let order = targets.iter().map(|(_, revision)| *revision).max().unwrap_or(0);
        let target = |(subject, revision)| Target { subject, revision, outcome: None };
        let targets = targets.into_iter().map(target).collect();
        self.waiters.push(Waiter { token, level, kind, order, targets });
        None
    }

    /// The subjects that somebody waits for.
    pub(super) fn awaited(&self) -> BTreeSet<Subject> {
        let targets = self.waiters.iter().filter(|waiter| waiter.hurries()).flat_map(|waiter| &waiter.targets);
        targets.filter(|target| target.outcome.is_none()).map(|target| target.subject.clone()).collect()
    }

    /// Marks the targets that have been reached.
    pub(super) fn settle(&mut self) {
        let top = self.policy.top_level;
        for waiter in &mut self.waiters {
            for target in waiter.targets.iter_mut().filter(|target| target.outcome.is_none()) {
                let entry = self.entries.get(&target.subject);
                // With nothing left to save, nothing is left to wait for: whatever revision somebody made up.
                if entry.is_some_and(|entry| entry.reached(waiter.level, top) >= target.revision || !entry.is_unsaved())
                {
                    target.outcome = Some(Ok(()));
                }
            }
        }
    }

    /// Takes out the waiters whose every target has an outcome.
    pub(super) fn answers(&mut self) -> Vec<(W, Result<(), Error>)> {
        let mut done = self
            .waiters
            .extract_if(.., |waiter| waiter.targets.iter().all(|target| target.outcome.is_some()))
            .collect::<Vec<_>>();
        done.sort_by_key(|waiter| waiter.order);
        done.into_iter()
            .map(|waiter| (waiter.token, waiter.targets.into_iter().filter_map(|target| target.outcome).collect()))
            .collect()
    }

    /// Everybody who still waits is told the same; used when saving ends for good.
    pub(crate) fn dismiss(&mut self, error: &Error) -> Vec<(W, Result<(), Error>)> {
        self.tell_off(0, error)
    }

    /// The same, where nothing is saved for now; a drop in flight still has an outcome to come.
    pub(crate) fn strand(&mut self, error: &Error) -> Vec<(W, Result<(), Error>)> {
        let begun = usize::from(matches!(self.flight, Some(Flight::Drop { .. })));
        self.tell_off(begun.min(self.drops.len()), error)
    }

    fn tell_off(&mut self, first_drop: usize, error: &Error) -> Vec<(W, Result<(), Error>)> {
        for waiter in &mut self.waiters {
            if let Some(target) = waiter.targets.iter_mut().find(|target| target.outcome.is_none()) {
                target.outcome = Some(Err(error.clone()));
            }
            waiter.close();
        }
        let drops = self.drops.drain(first_drop..).map(|(_, token)| (token, Err(error.clone()))).collect::<Vec<_>>();
        self.answers().into_iter().chain(drops).collect()
    }
}
