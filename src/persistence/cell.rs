//! What is unsaved of a bucket or channel, kept beside its actor: the persister captures it without a message, and it
//! survives the actor's death.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;

use crate::base::name::{BucketName, Subject};
use crate::base::value::Key;
use crate::persistence::port::Save;
use crate::records::{BucketChange, BucketSnapshot, Change, ChangeSet, Record, Request, Table};

/// What the persister needs of a subject. Its methods are called by the persister alone, in this order: `capture`, then
/// one of `saved`, `handed` and `restore`; `saved` and `restore` also end what was handed over earlier.
pub(crate) trait Cell: fmt::Debug + Send + Sync {
    /// Whose changes these are.
    fn subject(&self) -> &Subject;
    /// Takes everything unsaved; it stays owned until its outcome is known.
    fn capture(&self) -> Captured;
    /// What was captured, and what was handed over before, is saved and can be forgotten.
    fn saved(&self);
    /// What was captured was written, but not at the level at which it counts as saved.
    fn handed(&self);
    /// What was captured, and what was handed over before, has to be written again: it is merged under newer changes.
    fn restore(&self);
}

/// A subject's unsaved changes, as saves.
#[derive(Debug)]
pub(crate) struct Captured {
    /// The revision of the newest change in it.
    pub(crate) revision: u64,
    /// Estimated bytes of what changed.
    pub(crate) bytes: usize,
    /// The saves; none where nothing was unsaved.
    pub(crate) saves: Vec<Save>,
    /// What is unsaved cannot be told as a whole now: nothing of it may be taken for saved.
    pub(crate) torn: bool,
}

/// The unsaved changes of one bucket.
#[derive(Debug)]
pub(crate) struct BucketCell {
    subject: Subject,
    name: BucketName,
    state: Mutex<BucketState>,
}

#[derive(Debug)]
struct BucketState {
    /// Changes since the last capture, where there are any.
    waiting: Option<ChangeSet>,
    /// In flight.
    captured: Option<Arc<BucketChange>>,
    /// Written, but not synced.
    handed: Option<ChangeSet>,
    /// How many keys the last capture had: there will be about as many in the next one.
    usual: usize,
    /// Where the bucket stands.
    revision: u64,
    counter: i64,
    schema_version: u32,
    /// Everything, for adapters that are only ever given whole buckets.
    mirror: Option<HashMap<Key, Arc<Record>>>,
    /// The requests that the bucket remembers, where there is a mirror.
    requests: VecDeque<Request>,
}

/// No more room than for so many keys is made before there are any.
const MOST_USUAL: usize = 1 << 15;

/// Which of the two a bucket's adapter is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Granularity {
    /// What changed.
    Changes,
    /// Everything, each time.
    Whole,
}

impl BucketCell {
    /// A cell beside a bucket that nothing is stored of yet.
    pub(crate) fn new(name: BucketName, schema_version: u32, granularity: Granularity) -> Self {
        let mirror = match granularity {
            Granularity::Changes => None,
            Granularity::Whole => Some(HashMap::new()),
        };
        let state = BucketState {
            waiting: None,
            captured: None,
            handed: None,
            usual: 0,
            revision: 0,
            counter: 0,
            schema_version,
            mirror,
            requests: VecDeque::new(),
        };
        Self { subject: Subject::Bucket(name.clone()), name, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, BucketState> {
        // A panic while it was held can only come from an allocation: the changes themselves are moved in whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bucket was loaded and stands here; what is stored is as it is.
    pub(crate) fn loaded(&self, table: &Table) {
        let mut state = self.state();
        state.revision = table.revision();
        state.counter = table.counter();
        state.mirror(table.all());
        state.requests = table.requests().cloned().collect();
    }

    /// What is stored is this, and stays as it is.
    pub(crate) fn stands_at(&self, revision: u64, records: &[Arc<Record>]) {
        let mut state = self.state();
        state.revision = revision;
        state.mirror(records.iter());
    }

    /// The stored form is to be replaced by this.
    pub(crate) fn replace(&self, snapshot: BucketSnapshot) {
        let mut state = self.state();
        state.revision = snapshot.revision;
        state.counter = snapshot.counter;
        state.mirror(snapshot.records.iter());
        state.requests = snapshot.requests.iter().cloned().collect();
        state.waiting = Some(ChangeSet::replacing(snapshot));
    }

    /// Notes a commit of the bucket, whole, and answers the estimated bytes of what changed. Called in the bucket's turn;
    /// O(1) per change but for a clear, which frees what it hides.
    pub(crate) fn note(
        &self,
        changed: &[Change],
        request: Option<Request>,
        counter: i64,
        revision: u64,
        request_window: usize,
    ) -> usize {
        let mut state = self.state();
        let BucketState { waiting, schema_version, mirror, usual, requests, .. } = &mut *state;
        let changes =
            waiting.get_or_insert_with(|| ChangeSet::new(counter, revision, *schema_version).with_room_for(*usual));
        let mut bytes = 0;
        for change in changed {
            bytes += changes.note(change, counter, revision);
            match (&mut *mirror, change) {
                (None, _) => {}
                (Some(mirror), Change::Inserted { record } | Change::Updated { new: record, .. }) => {
                    mirror.insert(record.key().clone(), Arc::clone(record));
                }
                (Some(mirror), Change::Deleted { record, .. }) => {
                    mirror.remove(record.key());
                }
                (Some(mirror), Change::Cleared { .. }) => mirror.clear(),
            }
        }
        if let Some(request) = request {
            if mirror.is_some() {
                requests.push_back(request.clone());
                while requests.len() > request_window {
                    requests.pop_front();
                }
            }
            changes.note_request(request, request_window);
        }
        state.revision = revision;
        state.counter = counter;
        bytes
    }

    /// What is unsaved, in flight or only handed over, as one change over what is stored; taken before a load, so that
    /// nothing falls between the two.
    pub(crate) fn overlay(&self) -> Option<BucketChange> {
        let state = self.state();
        let captured = state.captured.as_deref().cloned().map(ChangeSet::of);
        let parts = [state.handed.clone(), captured, state.waiting.clone()];
        parts.into_iter().flatten().reduce(|older, newer| newer.over(older)).map(ChangeSet::into_change)
    }
}

impl BucketState {
    fn mirror<'a>(&mut self, records: impl Iterator<Item = &'a Arc<Record>>) {
        if let Some(mirror) = &mut self.mirror {
            *mirror = records.map(|record| (record.key().clone(), Arc::clone(record))).collect();
        }
    }
}

impl Cell for BucketCell {
    fn subject(&self) -> &Subject {
        &self.subject
    }

    fn capture(&self) -> Captured {
        let mut state = self.state();
        let Some(changes) = state.waiting.take() else {
            return Captured { revision: state.revision, bytes: 0, saves: Vec::new(), torn: false };
        };
        let (revision, bytes) = (changes.revision(), changes.bytes());
        state.usual = changes.len().min(MOST_USUAL);
        let whole = state.mirror.as_ref().map(|mirror| {
            let records = mirror.values().cloned().collect();
            let mut snapshot = BucketSnapshot::new(state.schema_version, state.revision, state.counter, records);
            snapshot.requests = state.requests.iter().cloned().collect();
            BucketChange::Full(snapshot)
        });
        // No record is looked at for that, so the bucket is not held up by it.
        let captured = Arc::new(changes.into_change());
        state.captured = Some(Arc::clone(&captured));
        drop(state);
        let change = whole.map_or(captured, Arc::new);
        Captured { revision, bytes, saves: vec![Save::Bucket(self.name.clone(), change)], torn: false }
    }

    fn saved(&self) {
        let mut state = self.state();
        let done = (state.captured.take(), state.handed.take());
        drop(state);
        // Letting go of many records takes time: not under the lock.
        let captured = done.0.and_then(Arc::into_inner);
        captured.into_iter().chain(done.1.map(ChangeSet::into_change)).for_each(BucketChange::release);
    }

    fn handed(&self) {
        let mut state = self.state();
        if let Some(captured) = state.captured.take().map(Arc::unwrap_or_clone).map(ChangeSet::of) {
            state.handed = Some(match state.handed.take() {
                Some(older) => captured.over(older),
                None => captured,
            });
        }
    }

    fn restore(&self) {
        let mut state = self.state();
        let captured = state.captured.take().map(Arc::unwrap_or_clone).map(ChangeSet::of);
        let parts = [state.handed.take(), captured, state.waiting.take()];
        state.waiting = parts.into_iter().flatten().reduce(|older, newer| newer.over(older));
    }
}
