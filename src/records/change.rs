//! What an adapter is given of a bucket, and how changes that were not saved yet add up.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use crate::base::value::Key;
use crate::records::event::Change;
use crate::records::record::Record;
use crate::records::requests::Request;

/// A whole bucket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BucketSnapshot {
    /// The version of the definition that the records fit.
    pub schema_version: u32,
    /// The revision of the newest change in it.
    pub revision: u64,
    /// The autoincrement counter: the highest number given out.
    pub counter: i64,
    /// All records, in any order; their places order them.
    pub records: Vec<Arc<Record>>,
    /// The requests that the bucket remembers, from the oldest to the newest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<Request>,
}

impl BucketSnapshot {
    /// Puts a bucket together, as a loading adapter does.
    pub fn new(schema_version: u32, revision: u64, counter: i64, records: Vec<Arc<Record>>) -> Self {
        Self { schema_version, revision, counter, records, requests: Vec::new() }
    }

    /// Brings the snapshot up to date with a change, as any adapter's stored state must be by it. An adapter that keeps
    /// whole buckets may call this; it costs one pass over the records.
    pub fn apply(&mut self, change: &BucketChange) {
        match change {
            BucketChange::Full(snapshot) => *self = snapshot.clone(),
            BucketChange::Delta(delta) => {
                if delta.cleared {
                    self.records.clear();
                }
                let mut upserts: HashMap<&Key, &Arc<Record>> =
                    delta.upserts.iter().map(|record| (record.key(), record)).collect();
                let gone: hashbrown::HashSet<&Key> = delta.deletes.iter().collect();
                self.records.retain_mut(|record| match upserts.remove(record.key()) {
                    Some(new) => {
                        *record = Arc::clone(new);
                        true
                    }
                    None => !gone.contains(record.key()),
                });
                // What is left is new; the order of the delta is kept.
                let new = delta.upserts.iter().filter(|record| upserts.contains_key(record.key()));
                self.records.extend(new.cloned());
                let mut requests = VecDeque::from(std::mem::take(&mut self.requests));
                delta.remember_in(&mut requests);
                self.requests = requests.into();
                self.counter = delta.counter;
                self.revision = delta.revision;
                self.schema_version = delta.schema_version;
            }
        }
    }
}

/// What changed in a bucket since it was last saved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum BucketChange {
    /// Replaces everything that is stored of the bucket. Adapters that are not incremental get nothing else.
    Full(BucketSnapshot),
    /// Changes what is stored; a bucket of which nothing is stored counts as empty.
    Delta(BucketDelta),
}

/// A change of single records. Applied in the order of its fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BucketDelta {
    /// First of all, every stored record goes.
    pub cleared: bool,
    /// Then these keys go; one that is not stored is fine.
    pub deletes: Vec<Key>,
    /// Then these records are stored, over the old ones of their keys. None of their keys is in `deletes`.
    pub upserts: Vec<Arc<Record>>,
    /// The autoincrement counter.
    pub counter: i64,
    /// The revision that the stored bucket has from then on.
    pub revision: u64,
    /// The schema version that the stored bucket has from then on.
    pub schema_version: u32,
    /// Requests that were applied since, by ascending revision, to be stored after those that are stored already. One
    /// whose revision is stored takes the place of the stored one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<Request>,
    /// How many requests the bucket remembers: beyond it, the oldest stored ones go. It says nothing where `requests` is
    /// empty.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub request_window: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(window: &usize) -> bool {
    *window == 0
}

impl BucketChange {
    /// The revision that the stored bucket has from then on.
    pub fn revision(&self) -> u64 {
        match self {
            Self::Full(snapshot) => snapshot.revision,
            Self::Delta(delta) => delta.revision,
        }
    }

    /// How many records it writes or deletes.
    pub fn len(&self) -> usize {
        match self {
            Self::Full(snapshot) => snapshot.records.len(),
            Self::Delta(delta) => delta.deletes.len() + delta.upserts.len(),
        }
    }

    /// Whether it touches no record: a counter, a revision or a clear may still change.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Changes of one bucket that add up until they are saved: the newest state per key, nothing twice.
#[derive(Clone, Debug, Default)]
pub struct ChangeSet {
    /// Everything before these changes is gone.
    cleared: bool,
    /// The stored form is to be replaced as a whole; implies `cleared`.
    replace: bool,
    entries: HashMap<Key, Option<Arc<Record>>>,
    counter: i64,
    revision: u64,
    schema_version: u32,
    bytes: usize,
    requests: Vec<Request>,
    request_window: usize,
}

impl ChangeSet {
    /// An empty set of a bucket that stands at these numbers.
    pub fn new(counter: i64, revision: u64, schema_version: u32) -> Self {
        Self { counter, revision, schema_version, ..Self::default() }
    }

    /// Makes room for about as many keys as there were the last time; what they turn out to be is as before.
    pub(crate) fn with_room_for(mut self, keys: usize) -> Self {
        self.entries.reserve(keys);
        self
    }

    /// How many keys it says something of.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// A set that replaces all that is stored.
    pub fn replacing(snapshot: BucketSnapshot) -> Self {
        let mut set = Self::new(snapshot.counter, snapshot.revision, snapshot.schema_version);
        set.clear();
        set.replace = true;
        set.request_window = snapshot.requests.len();
        set.requests = snapshot.requests;
        for record in snapshot.records {
            set.upsert(record);
        }
        set
    }

    /// Notes one change of a commit, and where the bucket stands after it. Answers [`Change::estimated_bytes`], which it
    /// has to count anyway.
    pub fn note(&mut self, change: &Change, counter: i64, revision: u64) -> usize {
        let bytes = change.estimated_bytes();
        match change {
            Change::Inserted { record } | Change::Updated { new: record, .. } => {
                self.upsert_of(Arc::clone(record), bytes);
            }
            Change::Deleted { record, .. } => self.delete(record.key().clone()),
            Change::Cleared { .. } => self.clear(),
        }
        self.counter = counter;
        self.revision = revision;
        bytes
    }

    /// Notes a request that was applied, and how many the bucket remembers.
    pub fn note_request(&mut self, request: Request, window: usize) {
        self.request_window = window;
        self.requests.push(request);
        // Now and then, so that each is moved once at most.
        if self.requests.len() > window.saturating_mul(2) {
            let beyond = self.requests.len() - window;
            self.requests.drain(..beyond);
        }
    }

    /// The newest requests, as many as the bucket remembers.
    fn remembered(&self) -> Vec<Request> {
        let beyond = self.requests.len().saturating_sub(self.request_window);
        self.requests.get(beyond..).unwrap_or_default().to_vec()
    }

    /// Notes the record's newest state.
    pub fn upsert(&mut self, record: Arc<Record>) {
        let bytes = record.estimated_bytes();
        self.upsert_of(record, bytes);
    }

    /// Notes the newest state of a record of so many bytes.
    fn upsert_of(&mut self, record: Arc<Record>, bytes: usize) {
        self.bytes += bytes;
        if let Some(Some(old)) = self.entries.insert(record.key().clone(), Some(record)) {
            self.bytes -= old.estimated_bytes();
        }
    }

    /// Notes that the key is gone.
    pub fn delete(&mut self, key: Key) {
        let (cost, cleared) = (key.estimated_bytes(), self.cleared);
        let old = if cleared { self.entries.remove(&key).flatten() } else { self.entries.insert(key, None).flatten() };
        if let Some(old) = old {
            self.bytes -= old.estimated_bytes();
        }
        self.bytes += if cleared { 0 } else { cost };
    }

    /// Notes that everything so far is gone.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.cleared = true;
        self.bytes = 64;
    }

    /// The revision of the newest change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Estimated bytes of it.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Puts these changes on top of older ones: per key the newest state counts, and a clear hides what is older.
    #[must_use]
    pub fn over(self, older: Self) -> Self {
        let window = self.request_window.max(older.request_window);
        // What replaces the stored form has all requests already.
        let mut requests = if self.replace { Vec::new() } else { older.requests };
        requests.extend(self.requests);
        let beyond = requests.len().saturating_sub(window);
        requests.drain(..beyond);
        if self.cleared {
            let replace = self.replace || older.replace;
            return Self { replace, requests, request_window: window, ..self };
        }
        let mut sum = Self { requests, request_window: window, ..older };
        for (key, state) in self.entries {
            match state {
                Some(record) => sum.upsert(record),
                None => sum.delete(key),
            }
        }
        sum.counter = self.counter;
        sum.revision = self.revision;
        sum.schema_version = self.schema_version;
        sum
    }

    /// What an adapter is given.
    pub fn to_change(&self) -> BucketChange {
        let mut deletes = Vec::new();
        let mut upserts = Vec::with_capacity(self.entries.len());
        for (key, state) in &self.entries {
            match state {
                Some(record) => upserts.push(Arc::clone(record)),
                None => deletes.push(key.clone()),
            }
        }
        let Self { counter, revision, schema_version, cleared, replace, .. } = *self;
        if replace {
            let mut snapshot = BucketSnapshot::new(schema_version, revision, counter, upserts);
            snapshot.requests = self.remembered();
            return BucketChange::Full(snapshot);
        }
        BucketChange::Delta(BucketDelta {
            cleared,
            deletes,
            upserts,
            counter,
            revision,
            schema_version,
            requests: self.remembered(),
            request_window: self.request_window,
        })
    }
}

impl BucketDelta {
    /// A delta that changes nothing but where the bucket stands; push into its fields.
    pub fn new(revision: u64, counter: i64, schema_version: u32) -> Self {
        Self { revision, counter, schema_version, ..Self::default() }
    }

    /// Brings stored requests, which are in order of revision, up to date, as any adapter's must be by this change. To do
    /// it twice is to do it once.
    pub fn remember_in(&self, stored: &mut VecDeque<Request>) {
        if self.requests.is_empty() {
            return;
        }
        for request in &self.requests {
            let at = stored.partition_point(|stored| stored.revision < request.revision);
            match stored.get_mut(at).filter(|stored| stored.revision == request.revision) {
                Some(same) => same.clone_from(request),
                None => stored.insert(at, request.clone()),
            }
        }
        let beyond = stored.len().saturating_sub(self.request_window);
        stored.drain(..beyond);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::write::Write;

    fn request(revision: u64) -> Request {
        Request { revision, ..Request::new(format!("request {revision}"), &Write::Clear).unwrap() }
    }

    fn delta(revisions: &[u64], window: usize) -> BucketChange {
        let requests = revisions.iter().copied().map(request).collect();
        BucketChange::Delta(BucketDelta { requests, request_window: window, ..BucketDelta::new(9, 0, 1) })
    }

    fn revisions(requests: &[Request]) -> Vec<u64> {
        requests.iter().map(|request| request.revision).collect()
    }

    #[test]
    fn a_change_without_requests_leaves_those_that_are_stored_and_one_that_comes_again_counts_once() {
        let mut stored = BucketSnapshot::default();
        let steps: [(&[u64], usize, &[u64]); 6] = [
            (&[1, 3], 3, &[1, 3]),
            (&[], 0, &[1, 3]),
            (&[1, 3], 3, &[1, 3]),
            (&[3, 4], 3, &[1, 3, 4]),
            (&[5, 6], 3, &[4, 5, 6]),
            (&[7], 1, &[7]),
        ];
        for (new, window, expected) in steps {
            stored.apply(&delta(new, window));
            assert_eq!(revisions(&stored.requests), expected);
        }
    }

    #[test]
    fn a_set_that_replaces_what_is_stored_has_its_own_requests_only() {
        let mut older = ChangeSet::new(0, 2, 1);
        [1, 2].into_iter().for_each(|revision| older.note_request(request(revision), 10));
        let whole = BucketSnapshot { requests: vec![request(1), request(2)], ..BucketSnapshot::default() };
        let mut newer = ChangeSet::new(0, 3, 1);
        newer.note_request(request(3), 10);
        let BucketChange::Full(sum) = newer.over(ChangeSet::replacing(whole).over(older)).to_change() else {
            panic!("it replaces")
        };
        assert_eq!(revisions(&sum.requests), [1, 2, 3]);
    }
}
