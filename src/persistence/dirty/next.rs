//! What is to be done, and when.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::base::name::Subject;
use crate::persistence::dirty::set::{DirtySet, Flight, Next};

impl<W> DirtySet<W> {
    /// What to do now.
    pub(crate) fn next(&mut self, now: Duration) -> Next {
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
            return self.start(piece, now);
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
            return self.start(together, now);
        }
        let due = self.due(now, &awaited);
        if due.is_some_and(|due| due <= now) {
            let healthy = self.entries.iter().filter(|(_, entry)| entry.isolated.is_none());
            let mut subjects: Vec<Subject> =
                healthy.filter(|(_, entry)| entry.dirty_since.is_some()).map(|(subject, _)| subject.clone()).collect();
            subjects.sort_unstable();
            return self.start(subjects, now);
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

    fn start(&mut self, subjects: Vec<Subject>, now: Duration) -> Next {
        let waiting = self.waiters.iter().filter(|waiter| waiter.hurries()).filter(|waiter| {
            let mut open = waiter.targets.iter().filter(|target| target.outcome.is_none());
            open.any(|target| subjects.contains(&target.subject) || !self.is_dirty(&target.subject))
        });
        let awaited = waiting.map(|waiter| waiter.level).max();
        // What was handed over is synced by the next commit after one window, whoever asks for that at whatever level.
        let overdue = self.unsynced_since.is_some_and(|since| since + self.policy.debounce <= now);
        let level = match awaited {
            Some(level) if !overdue => level,
            Some(_) => self.policy.top_level,
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
    pub(crate) fn captured(&mut self, subject: &Subject, revision: u64) {
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
}
