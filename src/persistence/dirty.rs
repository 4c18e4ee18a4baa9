//! What is unsaved, when it is saved, and who is told: the persister's rules, as a state machine without I/O, time or
//! randomness of its own.
//!
//! The shell around it feeds inputs and asks [`DirtySet::next`] what to do. Times are measured from the shell's start.
//!
//! ```text
//!            changed            window over, too much unsaved, somebody waits
//!   clean ───────────▶ dirty ────────────────────────────────────────────────▶ in flight ──saved──▶ clean
//!                        ▲                                                          │
//!                        └───── Transient, Unknown: all wait for the backoff ◀──────┤
//!                        └───── Permanent, Corrupt: each subject alone next ◀───────┤
//!                               Fenced: nothing is saved any more ◀─────────────────┘
//! ```

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use hashbrown::HashMap;

use crate::base::durability::Durability;
use crate::base::error::{Error, Failure};
use crate::base::name::Subject;
use crate::persistence::options::Backoff;

/// The part of the options that the rules depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    pub(super) debounce: Duration,
    pub(super) max_unsaved: usize,
    pub(super) retry: Backoff,
    /// The level of commits that nobody awaits.
    pub(super) save_level: Durability,
    /// The level at which a change counts as saved: the highest that the adapter has.
    pub(super) top_level: Durability,
}

/// What the shell is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
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
pub(super) struct Verdict<W> {
    /// Waiters and what they are told, in order of their revisions.
    pub(super) answers: Vec<(W, Result<(), Error>)>,
    /// Subjects whose captured changes are saved: they can be forgotten.
    pub(super) saved: Vec<Subject>,
    /// Subjects whose captured changes were handed over: they are kept until a commit at the top level.
    pub(super) handed: Vec<Subject>,
    /// Subjects whose captured changes must be merged back.
    pub(super) unsaved: Vec<Subject>,
    /// What is to be reported.
    pub(super) failures: Vec<Failure>,
    /// Subjects that failed before and are saved now.
    pub(super) recovered: Vec<Subject>,
    /// A subject of which nothing is stored any more, nor is to be.
    pub(super) dropped: Option<Subject>,
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
        }
    }
}

#[derive(Debug, Default)]
struct Entry {
    /// When the first change came that is not captured yet.
    dirty_since: Option<Duration>,
    /// Estimated bytes of changes that are not captured yet.
    waiting_bytes: usize,
    /// Estimated bytes of changes that are captured or handed over.
    captured_bytes: usize,
    /// The newest revision known of.
    newest: u64,
    /// The revision in flight.
    captured: Option<u64>,
    /// The revision that was handed over, at whatever level.
    handed: u64,
    /// The revision that was saved at the top level.
    saved: u64,
    /// Set while its commits fail for a reason of its own: it is committed alone then.
    isolated: Option<Retry>,
    /// Whether a failure of it was reported since it was last saved.
    failing: bool,
    /// Whether its stored form is to be replaced, which no revision tells, since it was last captured.
    rewritten: bool,
    /// Subjects of one group have changes that belong together: they are committed together or not at all.
    group: Option<u64>,
}

impl Entry {
    fn reached(&self, level: Durability, top: Durability) -> u64 {
        if level >= top { self.saved } else { self.handed }
    }

    fn unsaved_bytes(&self) -> usize {
        self.waiting_bytes + self.captured_bytes
    }

    fn is_unsaved(&self) -> bool {
        self.dirty_since.is_some() || self.captured.is_some() || self.handed > self.saved
    }
}

#[derive(Clone, Copy, Debug)]
struct Retry {
    attempt: u32,
    at: Duration,
}

#[derive(Debug)]
struct Waiter<W> {
    token: W,
    level: Durability,
    kind: Kind,
    /// The revision by which its answers are ordered.
    order: u64,
    targets: Vec<Target>,
}

/// What somebody waits for, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// For one change, which is committed at once; told if that fails.
    Change,
    /// For whatever is unsaved, at once: what is dropped meanwhile is nothing to wait for.
    Flush,
    /// For one change, until it is saved, however often that fails first; hurries nothing.
    Patient,
}

#[derive(Debug)]
struct Target {
    subject: Subject,
    revision: u64,
    outcome: Option<Result<(), Error>>,
}

/// The revisions that a commit was to save.
type Covered = HashMap<Subject, u64>;

impl Target {
    fn is_covered(&self, covered: &Covered) -> bool {
        self.outcome.is_none() && covered.get(&self.subject).is_some_and(|revision| *revision >= self.revision)
    }
}

fn gone(subject: &Subject) -> Error {
    Error::Permanent { operation: format!("saving {subject}, which is not there any more"), source: None }
}

#[derive(Debug)]
enum Flight {
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
pub(super) struct Trouble {
    pub(super) since: Duration,
    pub(super) error: Error,
}

#[derive(Debug)]
pub(super) struct DirtySet<W> {
    policy: Policy,
    entries: HashMap<Subject, Entry>,
    /// The sum of `waiting_bytes` over all entries.
    waiting_bytes: usize,
    waiters: Vec<Waiter<W>>,
    drops: VecDeque<(Subject, W)>,
    flight: Option<Flight>,
    /// Subjects of a failed commit that are tried one by one, groups as a whole.
    pieces: VecDeque<Vec<Subject>>,
    /// Numbers groups.
    groups: u64,
    /// Set while the adapter as a whole fails.
    backoff: Option<Retry>,
    /// Since when there are commits that were handed over and not synced.
    unsynced_since: Option<Duration>,
    trouble: Option<Trouble>,
    fenced: Option<Error>,
    /// The time that the shell was last told to wait for; an earlier one has to wake it.
    armed: Option<Duration>,
}

impl<W> DirtySet<W> {
    pub(super) fn new(policy: Policy) -> Self {
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
    pub(super) fn loaded(&mut self, subject: Subject, revision: u64) {
        let entry = Entry { newest: revision, handed: revision, saved: revision, ..Entry::default() };
        if let Some(old) = self.entries.insert(subject, entry) {
            self.waiting_bytes -= old.waiting_bytes;
        }
    }

    /// A subject changed. Answers whether the shell has to be woken. O(1). The time is asked for only where it counts,
    /// because asking costs as much as all the rest.
    pub(super) fn changed(
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
    pub(super) fn rewritten(&mut self, subject: &Subject, revision: u64, now: Duration) -> bool {
        self.mark(subject, revision, 0, true, || now)
    }

    fn mark(
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

    fn too_much_waits(&self) -> bool {
        self.waiting_bytes >= self.policy.max_unsaved
    }

    /// Somebody waits for a revision of a subject. `None`: it has to wait; the shell is to be woken.
    pub(super) fn await_saved(
        &mut self,
        subject: &Subject,
        revision: u64,
        level: Durability,
        token: W,
    ) -> Option<(W, Result<(), Error>)> {
        self.wait(vec![(subject.clone(), revision)], level, Kind::Change, token)
    }

    /// Somebody wants to know when a revision of a subject is saved, and is told of nothing else.
    pub(super) fn follow(
        &mut self,
        subject: &Subject,
        revision: u64,
        level: Durability,
        token: W,
    ) -> Option<(W, Result<(), Error>)> {
        self.wait(vec![(subject.clone(), revision)], level, Kind::Patient, token)
    }

    /// Somebody waits for everything that is known of now, of one subject or of all.
    pub(super) fn flush(&mut self, subject: Option<&Subject>, token: W) -> Option<(W, Result<(), Error>)> {
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

    /// A subject is to be dropped, its unsaved changes with it. Its turn comes when nothing is in flight.
    pub(super) fn drop_subject(&mut self, subject: Subject, token: W) -> Option<(W, Result<(), Error>)> {
        if let Some(error) = &self.fenced {
            return Some((token, Err(error.clone())));
        }
        self.drops.push_back((subject, token));
        None
    }

    /// A subject is gone: nothing of it is saved any more. Its waiters are told `error`.
    pub(super) fn forget(&mut self, subject: &Subject, error: &Error) -> Vec<(W, Result<(), Error>)> {
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

    /// What to do now.
    pub(super) fn next(&mut self, now: Duration) -> Next {
        self.armed = None;
        if self.flight.is_some() || self.fenced.is_some() {
            return Next::Rest;
        }
        if let Some((subject, _)) = self.drops.front() {
            let subject = subject.clone();
            self.flight = Some(Flight::Drop { subject: subject.clone(), overdue: false });
            return Next::Drop(subject);
        }
        if let Some(piece) = self.pieces.pop_front() {
            // It may have been joined by others since it failed.
            let piece = self.whole(piece);
            self.pieces.iter_mut().for_each(|other| other.retain(|subject| !piece.contains(subject)));
            self.pieces.retain(|other| !other.is_empty());
            return self.start(piece);
        }
        // A subject that fails alone is tried alone, when somebody waits for it or its time has come.
        let awaited = self.awaited();
        let lonely = self.entries.iter().filter_map(|(subject, entry)| {
            let retry = entry.isolated.filter(|_| entry.is_unsaved())?;
            Some((if awaited.contains(subject) { Duration::ZERO } else { retry.at }, subject))
        });
        let lonely = lonely.min().map(|(at, subject)| (at, subject.clone()));
        if let Some((at, subject)) = &lonely
            && *at <= now
        {
            let together = self.whole(vec![subject.clone()]);
            return self.start(together);
        }
        let due = self.due(now, &awaited);
        if due.is_some_and(|due| due <= now) {
            let healthy = self.entries.iter().filter(|(_, entry)| entry.isolated.is_none());
            let mut subjects: Vec<Subject> =
                healthy.filter(|(_, entry)| entry.dirty_since.is_some()).map(|(subject, _)| subject.clone()).collect();
            subjects.sort_unstable();
            return self.start(subjects);
        }
        let wake = due.into_iter().chain(lonely.map(|(at, _)| at)).min();
        self.armed = wake;
        wake.map_or(Next::Rest, Next::WaitUntil)
    }

    /// When the subjects that do not fail on their own are due.
    fn due(&self, now: Duration, awaited: &BTreeSet<Subject>) -> Option<Duration> {
        let healthy = || self.entries.iter().filter(|(_, entry)| entry.isolated.is_none());
        if healthy().any(|(subject, _)| awaited.contains(subject)) {
            return Some(now);
        }
        let first_change = healthy().filter_map(|(_, entry)| entry.dirty_since).min();
        let since = first_change.into_iter().chain(self.unsynced_since).min()?;
        Some(match self.backoff {
            // Neither a new change nor their amount shortens it.
            Some(retry) => retry.at,
            None if self.too_much_waits() => now,
            None => since + self.policy.debounce,
        })
    }

    /// The subjects that somebody waits for.
    fn awaited(&self) -> BTreeSet<Subject> {
        let targets = self.waiters.iter().filter(|waiter| waiter.hurries()).flat_map(|waiter| &waiter.targets);
        targets.filter(|target| target.outcome.is_none()).map(|target| target.subject.clone()).collect()
    }

    fn start(&mut self, subjects: Vec<Subject>) -> Next {
        let waiting = self.waiters.iter().filter(|waiter| waiter.hurries()).filter(|waiter| {
            let mut open = waiter.targets.iter().filter(|target| target.outcome.is_none());
            open.any(|target| subjects.contains(&target.subject) || !self.is_dirty(&target.subject))
        });
        let awaited = waiting.map(|waiter| waiter.level).max();
        // What was handed over is synced by the next commit after one window, whoever asks for it.
        let level = match awaited {
            Some(level) => level,
            None if self.unsynced_since.is_some() => self.policy.top_level,
            None => self.policy.save_level,
        };
        let level = level.min(self.policy.top_level);
        let sync = level >= self.policy.top_level && self.unsynced_since.is_some();
        // From here on they count as captured: a change that comes while the shell captures makes them dirty anew, so
        // that it is not forgotten, whether the capture still gets hold of it or not.
        for subject in &subjects {
            if let Some(entry) = self.entries.get_mut(subject) {
                entry.dirty_since = None;
                entry.rewritten = false;
                entry.captured = Some(entry.newest);
                let bytes = std::mem::take(&mut entry.waiting_bytes);
                entry.captured_bytes += bytes;
                self.waiting_bytes -= bytes;
            }
        }
        self.flight = Some(Flight::Commit { subjects: subjects.clone(), level, overdue: false });
        Next::Commit { subjects, level, sync }
    }

    fn is_dirty(&self, subject: &Subject) -> bool {
        self.entries.get(subject).is_some_and(|entry| entry.dirty_since.is_some())
    }

    /// A subject of the commit to come was captured at this revision, all its unsaved changes with it.
    pub(super) fn captured(&mut self, subject: &Subject, revision: u64) {
        if let Some(entry) = self.entries.get_mut(subject) {
            entry.captured = Some(revision);
            if entry.newest <= revision && !entry.rewritten {
                // What was told between the start and the capture is in it.
                entry.dirty_since = None;
                let bytes = std::mem::take(&mut entry.waiting_bytes);
                entry.captured_bytes += bytes;
                self.waiting_bytes -= bytes;
            }
            entry.newest = entry.newest.max(revision);
        }
    }

    /// The commit in flight succeeded.
    pub(super) fn saved(&mut self, now: Duration) -> Verdict<W> {
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
        if self.entries.values().all(|entry| entry.isolated.is_none()) {
            self.trouble = None;
        }
        self.part();
        self.settle();
        verdict.answers.extend(self.answers());
        verdict.saved.sort_unstable();
        verdict
    }

    /// The commit in flight failed. `jitter` is drawn evenly from 0 to 1.
    pub(super) fn failed(&mut self, error: &Error, now: Duration, jitter: f64) -> Verdict<W> {
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

    fn back_off(
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
    fn isolate(
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

    /// Subjects have changed, each to its revision, and these changes belong together: until all of them are saved, the
    /// subjects are committed together or not at all. Answers whether the shell has to be woken. O(subjects known).
    ///
    /// Both at once: a subject that is not known to be unsaved would be left out of the next commit, or lose its group
    /// when one ends.
    pub(super) fn join(&mut self, changes: &[(&Subject, u64)], now: impl Fn() -> Duration) -> bool {
        let mut wake = false;
        for (subject, revision) in changes {
            wake |= self.changed(subject, *revision, 0, &now);
        }
        self.groups += 1;
        let group = Some(self.groups);
        let joined = |subject: &Subject| changes.iter().any(|(other, _)| *other == subject);
        let known: Vec<u64> = changes.iter().filter_map(|(subject, _)| self.entries.get(*subject)?.group).collect();
        let members = |subject: &Subject, entry: &Entry| {
            joined(subject) || entry.group.is_some_and(|group| known.contains(&group))
        };
        // Whoever joins one that is tried alone is tried with it.
        let alone = self.entries.iter().filter(|(subject, entry)| members(subject, entry));
        let alone = alone.filter_map(|(_, entry)| entry.isolated).max_by_key(|retry| (retry.attempt, retry.at));
        for (subject, entry) in &mut self.entries {
            if members(subject, entry) {
                entry.group = group;
                entry.isolated = alone;
            }
        }
        wake
    }

    /// These subjects and all unsaved ones that are committed with any of them.
    fn whole(&self, mut subjects: Vec<Subject>) -> Vec<Subject> {
        let groups: Vec<u64> = subjects.iter().filter_map(|subject| self.entries.get(subject)?.group).collect();
        if !groups.is_empty() {
            let members = self
                .entries
                .iter()
                .filter(|(_, entry)| entry.group.is_some_and(|group| groups.contains(&group)) && entry.is_unsaved());
            subjects.extend(members.map(|(subject, _)| subject.clone()));
            subjects.sort_unstable();
            subjects.dedup();
        }
        subjects
    }

    /// Splits subjects into what can be committed apart, each with all that it is committed with.
    fn split(&self, subjects: Vec<Subject>) -> Vec<Vec<Subject>> {
        let mut pieces: Vec<Vec<Subject>> = Vec::new();
        for subject in subjects {
            if !pieces.iter().any(|piece| piece.contains(&subject)) {
                pieces.push(self.whole(vec![subject]));
            }
        }
        pieces
    }

    /// Subjects that have nothing unsaved belong to no group any more. Those that do are tried alone if any of theirs is:
    /// one that was in flight when it joined has only saved what it had before.
    fn part(&mut self) {
        let mut alone: HashMap<u64, Retry> = HashMap::new();
        for entry in self.entries.values_mut().filter(|entry| entry.group.is_some()) {
            if !entry.is_unsaved() {
                entry.group = None;
            }
            if let (Some(group), Some(retry)) = (entry.group, entry.isolated) {
                alone.insert(group, retry);
            }
        }
        for entry in self.entries.values_mut() {
            if let Some(retry) = entry.group.and_then(|group| alone.get(&group)) {
                entry.isolated = Some(*retry);
            }
        }
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
    pub(super) fn overdue(&mut self, error: &Error, now: Duration) -> Verdict<W> {
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

    /// Marks the targets that have been reached.
    fn settle(&mut self) {
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
    fn answers(&mut self) -> Vec<(W, Result<(), Error>)> {
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
    pub(super) fn dismiss(&mut self, error: &Error) -> Vec<(W, Result<(), Error>)> {
        for waiter in &mut self.waiters {
            if let Some(target) = waiter.targets.iter_mut().find(|target| target.outcome.is_none()) {
                target.outcome = Some(Err(error.clone()));
            }
            waiter.close();
        }
        let drops = self.drops.drain(..).map(|(_, token)| (token, Err(error.clone()))).collect::<Vec<_>>();
        self.answers().into_iter().chain(drops).collect()
    }

    /// Subjects with changes that are not saved.
    pub(super) fn unsaved(&self) -> Vec<Subject> {
        let unsaved = self.entries.iter().filter(|(_, entry)| entry.is_unsaved());
        let mut subjects: Vec<Subject> = unsaved.map(|(subject, _)| subject.clone()).collect();
        subjects.sort_unstable();
        subjects
    }

    pub(super) fn unsaved_bytes(&self) -> usize {
        self.entries.values().map(Entry::unsaved_bytes).sum()
    }

    /// The revision of each subject that is saved.
    pub(super) fn saved_revisions(&self) -> impl Iterator<Item = (&Subject, u64)> {
        self.entries.iter().map(|(subject, entry)| (subject, entry.saved))
    }

    pub(super) fn saved_revision(&self, subject: &Subject) -> u64 {
        self.entries.get(subject).map_or(0, |entry| entry.saved)
    }

    /// Whether a revision of a subject is saved at a level.
    pub(super) fn is_saved(&self, subject: &Subject, revision: u64, level: Durability) -> bool {
        self.entries.get(subject).is_some_and(|entry| entry.reached(level, self.policy.top_level) >= revision)
    }

    pub(super) fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    pub(super) fn fenced(&self) -> Option<&Error> {
        self.fenced.as_ref()
    }

    /// Whether more is unsaved than memory should hold.
    pub(super) fn under_pressure(&self) -> bool {
        self.trouble.is_some() && self.unsaved_bytes() > self.policy.max_unsaved.saturating_mul(4)
    }

    /// When saving is tried next while it fails; none while it is being tried.
    pub(super) fn next_retry(&self) -> Option<Duration> {
        if self.flight.is_some() {
            return None;
        }
        let alone = self.entries.values().filter_map(|entry| entry.isolated).map(|retry| retry.at);
        alone.chain(self.backoff.map(|retry| retry.at)).min()
    }

    pub(super) fn in_flight(&self) -> bool {
        self.flight.is_some()
    }

    /// Whether a commit is in flight or a drop waits for its turn.
    pub(super) fn is_busy(&self) -> bool {
        self.flight.is_some() || !self.drops.is_empty()
    }
}

impl<W> Waiter<W> {
    /// Whether a commit is to be made for it.
    fn hurries(&self) -> bool {
        self.kind != Kind::Patient
    }

    /// What is still open is not waited for: an outcome that it has been told decides.
    fn close(&mut self) {
        for target in &mut self.targets {
            target.outcome.get_or_insert(Ok(()));
        }
    }
}
