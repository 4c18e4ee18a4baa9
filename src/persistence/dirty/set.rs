//! The set: what comes into it, and what is asked of it.

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::HashMap;

use crate::base::durability::Durability;
use crate::base::error::{Error, Failure};
use crate::base::name::Subject;
use crate::persistence::dirty::retry::Retry;
use crate::persistence::dirty::subject::Entry;
use crate::persistence::dirty::waiters::{Kind, Waiter};
use crate::persistence::options::Backoff;

/// The part of the options that the rules depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    pub(crate) debounce: Duration,
    pub(crate) max_unsaved: usize,
    pub(crate) retry: Backoff,
    /// The level of commits that nobody awaits.
    pub(crate) save_level: Durability,
    /// The level at which a change counts as saved: the highest that the adapter has.
    pub(crate) top_level: Durability,
}

/// What the shell is to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing until the next input.
    Rest,
    /// Nothing until this time or the next input.
    WaitUntil(Duration),
    /// Capture these subjects, tell it with [`DirtySet::captured`], commit at this level, tell the outcome. With `sync`
    /// the commit matters even if it saves nothing: earlier ones become durable by it.
    Commit { subjects: Vec<Subject>, level: Durability, sync: bool },
    /// Commit the drop of this subject, tell the outcome.
    Drop(Subject),
}

/// What an outcome entails.
#[derive(Debug)]
pub(crate) struct Verdict<W> {
    /// Waiters and what they are told, in order of their revisions.
    pub(crate) answers: Vec<(W, Result<(), Error>)>,
    /// Subjects whose captured changes are saved: they can be forgotten.
    pub(crate) saved: Vec<Subject>,
    /// Subjects whose captured changes were handed over: they are kept until a commit at the top level.
    pub(crate) handed: Vec<Subject>,
    /// Subjects whose captured changes must be merged back.
    pub(crate) unsaved: Vec<Subject>,
    /// What is to be reported.
    pub(crate) failures: Vec<Failure>,
    /// Subjects that failed before and are saved now.
    pub(crate) recovered: Vec<Subject>,
    /// A subject of which nothing is stored any more, nor is to be.
    pub(crate) dropped: Option<Subject>,
    /// How old the oldest change was that is saved now.
    pub(crate) lag: Option<Duration>,
}

impl<W> Default for Verdict<W> {
    fn default() -> Self {
        Self {
            answers: Vec::new(),
            saved: Vec::new(),
            handed: Vec::new(),
            unsaved: Vec::new(),
            failures: Vec::new(),
            recovered: Vec::new(),
            dropped: None,
            lag: None,
        }
    }
}

#[derive(Debug)]
pub(super) enum Flight {
    Commit {
        subjects: Vec<Subject>,
        level: Durability,
        /// Whether its timeout has been told.
        overdue: bool,
    },
    Drop {
        subject: Subject,
        /// Whether its timeout has been told.
        overdue: bool,
    },
}

/// Why saves are failing.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) since: Duration,
    pub(crate) error: Error,
}

#[derive(Debug)]
pub(crate) struct DirtySet<W> {
    pub(super) policy: Policy,
    pub(super) entries: HashMap<Subject, Entry>,
    /// The sum of `waiting_bytes` over all entries.
    pub(super) waiting_bytes: usize,
    pub(super) waiters: Vec<Waiter<W>>,
    pub(super) drops: VecDeque<(Subject, W)>,
    pub(super) flight: Option<Flight>,
    /// Subjects of a failed commit that are tried one by one, groups as a whole.
    pub(super) pieces: VecDeque<Vec<Subject>>,
    /// Numbers groups.
    pub(super) groups: u64,
    /// Set while the adapter as a whole fails.
    pub(super) backoff: Option<Retry>,
    /// Since when there are commits that were handed over and not synced.
    pub(super) unsynced_since: Option<Duration>,
    pub(super) trouble: Option<Trouble>,
    pub(super) fenced: Option<Error>,
    /// The time that the shell was last told to wait for; an earlier one has to wake it.
    pub(super) armed: Option<Duration>,
}

impl<W> DirtySet<W> {
    pub(crate) fn new(policy: Policy) -> Self {
        Self {
            policy,
            entries: HashMap::new(),
            waiting_bytes: 0,
            waiters: Vec::new(),
            drops: VecDeque::new(),
            flight: None,
            pieces: VecDeque::new(),
            groups: 0,
            backoff: None,
            unsynced_since: None,
            trouble: None,
            fenced: None,
            armed: None,
        }
    }

    /// A subject stands at a revision that is saved, as after loading. What was known of an earlier one of its name does
    /// not count any more.
    pub(crate) fn loaded(&mut self, subject: Subject, revision: u64) {
        let entry = Entry { newest: revision, handed: revision, saved: revision, ..Entry::default() };
        if let Some(old) = self.entries.insert(subject, entry) {
            self.waiting_bytes -= old.waiting_bytes;
        }
    }

    /// A subject changed. Answers whether the shell has to be woken. O(1). The time is asked for only where it counts,
    /// because asking costs as much as all the rest.
    pub(crate) fn changed(
        &mut self,
        subject: &Subject,
        revision: u64,
        bytes: usize,
        now: impl FnOnce() -> Duration,
    ) -> bool {
        self.mark(subject, revision, bytes, false, now)
    }

    /// What is stored of a subject is to be replaced, at a revision that may be stored already. Answers whether the shell
    /// has to be woken.
    pub(crate) fn rewritten(&mut self, subject: &Subject, revision: u64, now: Duration) -> bool {
        self.mark(subject, revision, 0, true, || now)
    }

    pub(super) fn mark(
        &mut self,
        subject: &Subject,
        revision: u64,
        bytes: usize,
        rewritten: bool,
        now: impl FnOnce() -> Duration,
    ) -> bool {
        let entry = match self.entries.get_mut(subject) {
            Some(entry) if !rewritten && entry.captured.unwrap_or(0).max(entry.handed) >= revision => {
                // It was captured before it was told.
                return false;
            }
            Some(entry) => entry,
            None => self.entries.entry(subject.clone()).or_default(),
        };
        entry.newest = entry.newest.max(revision);
        entry.rewritten |= rewritten;
        entry.waiting_bytes += bytes;
        self.waiting_bytes += bytes;
        let too_much = self.waiting_bytes >= self.policy.max_unsaved;
        let first = entry.dirty_since.is_none();
        if !first && !too_much {
            return false;
        }
        let now = now();
        let since = *entry.dirty_since.get_or_insert(now);
        entry.unsaved_since.get_or_insert(since);
        // What is in flight ends with a look at everything; a failing adapter or subject has its own time.
        if self.flight.is_some() || self.backoff.is_some() || entry.isolated.is_some() || self.fenced.is_some() {
            return false;
        }
        let due = if too_much { now } else { since + self.policy.debounce };
        if self.armed.is_some_and(|armed| armed <= due) {
            return false;
        }
        self.armed = Some(due);
        true
    }

    pub(super) fn too_much_waits(&self) -> bool {
        self.waiting_bytes >= self.policy.max_unsaved
    }

    /// A subject is to be dropped, its unsaved changes with it. Its turn comes when nothing is in flight.
    pub(crate) fn drop_subject(&mut self, subject: Subject, token: W) -> Option<(W, Result<(), Error>)> {
        if let Some(error) = &self.fenced {
            return Some((token, Err(error.clone())));
        }
        self.drops.push_back((subject, token));
        None
    }

    /// A subject is gone: nothing of it is saved any more. Its waiters are told `error`.
    pub(crate) fn forget(&mut self, subject: &Subject, error: &Error) -> Vec<(W, Result<(), Error>)> {
        if let Some(entry) = self.entries.remove(subject) {
            self.waiting_bytes -= entry.waiting_bytes;
        }
        if self.entries.values().all(|entry| entry.handed <= entry.saved) {
            self.unsynced_since = None;
        }
        if self.fenced.is_none() && self.flight.is_none() && self.entries.values().all(|entry| !entry.is_unsaved()) {
            // What was in trouble is gone.
            (self.trouble, self.backoff) = (None, None);
        }
        for piece in &mut self.pieces {
            piece.retain(|other| other != subject);
        }
        self.pieces.retain(|piece| !piece.is_empty());
        for waiter in &mut self.waiters {
            for target in waiter.targets.iter_mut().filter(|target| target.subject == *subject) {
                let outcome = if waiter.kind == Kind::Flush { Ok(()) } else { Err(error.clone()) };
                target.outcome.get_or_insert(outcome);
            }
        }
        self.answers()
    }

    /// Subjects with changes that are not saved.
    pub(crate) fn unsaved(&self) -> Vec<Subject> {
        let unsaved = self.entries.iter().filter(|(_, entry)| entry.is_unsaved());
        let mut subjects: Vec<Subject> = unsaved.map(|(subject, _)| subject.clone()).collect();
        subjects.sort_unstable();
        subjects
    }

    pub(crate) fn unsaved_bytes(&self) -> usize {
        self.entries.values().map(Entry::unsaved_bytes).sum()
    }

    /// The revision of each subject that is saved.
    pub(crate) fn saved_revisions(&self) -> impl Iterator<Item = (&Subject, u64)> {
        self.entries.iter().map(|(subject, entry)| (subject, entry.saved))
    }

    pub(crate) fn saved_revision(&self, subject: &Subject) -> u64 {
        self.entries.get(subject).map_or(0, |entry| entry.saved)
    }

    /// Whether a revision of a subject is saved at a level.
    pub(crate) fn is_saved(&self, subject: &Subject, revision: u64, level: Durability) -> bool {
        self.entries.get(subject).is_some_and(|entry| entry.reached(level, self.policy.top_level) >= revision)
    }

    pub(crate) fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    pub(crate) fn fenced(&self) -> Option<&Error> {
        self.fenced.as_ref()
    }

    /// Whether more is unsaved than memory should hold.
    pub(crate) fn under_pressure(&self) -> bool {
        self.trouble.is_some() && self.unsaved_bytes() > self.policy.max_unsaved.saturating_mul(4)
    }

    /// When saving is tried next while it fails; none while it is being tried.
    pub(crate) fn next_retry(&self) -> Option<Duration> {
        if self.flight.is_some() {
            return None;
        }
        let alone = self.entries.values().filter_map(|entry| entry.isolated).map(|retry| retry.at);
        alone.chain(self.backoff.map(|retry| retry.at)).min()
    }

    pub(crate) fn in_flight(&self) -> bool {
        self.flight.is_some()
    }

    /// Whether a commit is in flight or a drop waits for its turn.
    pub(crate) fn is_busy(&self) -> bool {
        self.flight.is_some() || !self.drops.is_empty()
    }
}
