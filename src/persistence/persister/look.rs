//! How saving is doing.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use crate::base::name::Subject;
use crate::persistence::health::{Degraded, Health, Reason};
use crate::persistence::persister::handle::{Persister, lock};

/// What a store's saving has done so far.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct PersistenceStats {
    /// Whether the store has an adapter at all.
    pub enabled: bool,
    /// Commits that succeeded.
    pub commits: u64,
    /// Commits that failed.
    pub failed_commits: u64,
    /// Estimated bytes of the changes that succeeded.
    pub bytes: u64,
    /// How long the newest commit took.
    pub last_commit: Duration,
    /// Buckets and channels that were loaded.
    pub loads: u64,
    /// Estimated bytes that are not saved yet.
    pub unsaved_bytes: usize,
    /// Buckets and channels with changes that are not saved yet.
    pub unsaved: Vec<Subject>,
    /// The saved revision of each bucket and channel.
    pub saved_revisions: Vec<(Subject, u64)>,
}

impl Persister {
    pub(crate) fn health(&self) -> Health {
        if self.shared.ended.load(Ordering::SeqCst) {
            return Health::Stopped;
        }
        let dirty = lock(&self.shared.dirty);
        if dirty.fenced().is_some() {
            return Health::Fenced;
        }
        let damage = self.newest_damage();
        let (reason, since, last_error) = match (dirty.trouble(), damage) {
            (Some(trouble), _) if dirty.under_pressure() => {
                (Reason::MemoryPressure, trouble.since, trouble.error.clone())
            }
            (Some(trouble), _) => (Reason::SaveFailing, trouble.since, trouble.error.clone()),
            (None, Some(damage)) => (Reason::Damaged, damage.since, damage.error),
            (None, None) => return Health::Healthy,
        };
        let (now, wall) = (self.shared.now(), SystemTime::now());
        let ago = now.saturating_sub(since);
        Health::Degraded(Degraded {
            reason,
            since: wall.checked_sub(ago).unwrap_or(wall),
            last_error,
            unsaved_bytes: dirty.unsaved_bytes(),
            unsaved_subjects: dirty.unsaved(),
            next_retry: dirty.next_retry().and_then(|at| wall.checked_add(at.saturating_sub(now))),
        })
    }

    pub(crate) fn stats(&self) -> PersistenceStats {
        let counts = &self.shared.counts;
        let dirty = lock(&self.shared.dirty);
        let mut saved_revisions: Vec<_> =
            dirty.saved_revisions().map(|(subject, revision)| (subject.clone(), revision)).collect();
        saved_revisions.sort_unstable();
        PersistenceStats {
            enabled: true,
            commits: counts.commits.load(Ordering::Relaxed),
            failed_commits: counts.failed_commits.load(Ordering::Relaxed),
            bytes: counts.bytes.load(Ordering::Relaxed),
            last_commit: Duration::from_nanos(counts.last_commit_nanos.load(Ordering::Relaxed)),
            loads: counts.loads.load(Ordering::Relaxed),
            unsaved_bytes: dirty.unsaved_bytes(),
            unsaved: dirty.unsaved(),
            saved_revisions,
        }
    }
}
