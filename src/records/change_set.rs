//! How changes of a bucket that are not saved yet add up.

use std::sync::Arc;

use hashbrown::HashSet;

use crate::base::value::Key;
use crate::records::change::{BucketChange, BucketDelta, BucketSnapshot};
use crate::records::event::Change;
use crate::records::latest::Latest;
use crate::records::record::Record;
use crate::records::requests::Request;

/// Changes of one bucket that add up until they are saved: the newest state per key, nothing twice.
#[derive(Clone, Debug, Default)]
pub struct ChangeSet {
    /// Everything before these changes is gone.
    cleared: bool,
    /// The stored form is to be replaced as a whole; implies `cleared`.
    replace: bool,
    upserts: Latest,
    /// Keys that are gone and were there before these changes, as far as is known.
    deletes: HashSet<Key>,
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
        self.upserts.reserve(keys);
        self
    }

    /// How many keys it says something of.
    pub(crate) fn len(&self) -> usize {
        self.upserts.len() + self.deletes.len()
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
            Change::Inserted { record } => {
                self.revive(record.key());
                self.bytes += bytes;
                self.upserts.add(Arc::clone(record));
            }
            Change::Updated { new, .. } => self.upsert_of(Arc::clone(new), bytes),
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
        self.revive(record.key());
        self.bytes += bytes;
        if let Some(old) = self.upserts.insert(record) {
            self.bytes -= old.estimated_bytes();
        }
    }

    /// A key is there again, if it was gone.
    fn revive(&mut self, key: &Key) {
        if !self.deletes.is_empty()
            && let Some(key) = self.deletes.take(key)
        {
            self.bytes -= key.estimated_bytes();
        }
    }

    /// Notes that the key is gone.
    pub fn delete(&mut self, key: Key) {
        if let Some(old) = self.upserts.remove(&key) {
            self.bytes -= old.estimated_bytes();
        }
        let cost = key.estimated_bytes();
        if !self.cleared && self.deletes.insert(key) {
            self.bytes += cost;
        }
    }

    /// Notes that everything so far is gone.
    pub fn clear(&mut self) {
        self.upserts.clear();
        self.deletes.clear();
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
        for key in self.deletes {
            sum.delete(key);
        }
        for record in self.upserts.into_records() {
            sum.upsert(record);
        }
        sum.counter = self.counter;
        sum.revision = self.revision;
        sum.schema_version = self.schema_version;
        sum
    }

    /// What an adapter is given.
    pub fn to_change(&self) -> BucketChange {
        self.clone().into_change()
    }

    /// What an adapter is given, without a look at the records.
    pub fn into_change(self) -> BucketChange {
        let requests = self.remembered();
        let Self { counter, revision, schema_version, cleared, replace, request_window, .. } = self;
        let upserts = self.upserts.into_records();
        if replace {
            return BucketChange::Full(BucketSnapshot {
                requests,
                ..BucketSnapshot::new(schema_version, revision, counter, upserts)
            });
        }
        let deletes = self.deletes.into_iter().collect();
        BucketChange::Delta(BucketDelta {
            cleared,
            deletes,
            upserts,
            counter,
            revision,
            schema_version,
            requests,
            request_window,
        })
    }

    /// The set that [`into_change`](Self::into_change) made this change of.
    pub fn of(change: BucketChange) -> Self {
        let delta = match change {
            BucketChange::Full(snapshot) => return Self::replacing(snapshot),
            BucketChange::Delta(delta) => delta,
        };
        let mut set = Self::new(delta.counter, delta.revision, delta.schema_version);
        if delta.cleared {
            set.clear();
        }
        set.upserts.reserve(delta.upserts.len());
        for key in delta.deletes {
            set.delete(key);
        }
        for record in delta.upserts {
            set.upsert(record);
        }
        (set.requests, set.request_window) = (delta.requests, delta.request_window);
        set
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::records::write::Write;

    #[test]
    fn of_each_key_the_newest_state_counts_and_the_bytes_are_those_of_what_is_left() {
        let record = |key: i64, text: &str| {
            let metadata = crate::records::Metadata { version: 1, created_at: 1, updated_at: 1, expires_at: None };
            Arc::new(Record::from_parts(key, 0, metadata, record! { "text": text }))
        };
        // SplitMix64 (S. Vigna, 2015).
        let mut seed = 7_u64;
        let mut random = |bound: u64| {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            ((z ^ (z >> 27)) >> 16) % bound
        };
        for cleared in [false, true] {
            let (mut set, mut model) = (ChangeSet::new(0, 0, 1), BTreeMap::new());
            if cleared {
                set.clear();
            }
            for number in 0..5_000 {
                let key = i64::try_from(random(300)).unwrap();
                let state = (random(3) > 0).then(|| record(key, &"x".repeat(number % 50)));
                match &state {
                    Some(record) => set.upsert(Arc::clone(record)),
                    None => set.delete(Key::from(key)),
                }
                model.insert(Key::from(key), state);
            }
            let bytes = set.bytes();
            let BucketChange::Delta(delta) = set.to_change() else { panic!("a delta") };
            let again = ChangeSet::of(BucketChange::Delta(delta.clone()));
            assert_eq!((again.bytes(), again.len()), (bytes, delta.upserts.len() + delta.deletes.len()));
            let estimates = delta.upserts.iter().map(|record| record.estimated_bytes());
            let gone = delta.deletes.iter().map(Key::estimated_bytes);
            assert_eq!(bytes, estimates.chain(gone).sum::<usize>() + if cleared { 64 } else { 0 });
            let mut found: BTreeMap<_, _> =
                delta.upserts.into_iter().map(|record| (record.key().clone(), Some(record))).collect();
            found.extend(delta.deletes.into_iter().map(|key| (key, None)));
            if cleared {
                model.retain(|_, state| state.is_some());
            }
            assert_eq!(found, model);
        }
    }

    #[test]
    fn changes_of_a_table_add_up_to_what_is_there_in_the_end() {
        let record = |key: i64, version: u64| {
            let metadata = crate::records::Metadata { version, created_at: 1, updated_at: 1, expires_at: None };
            Arc::new(Record::from_parts(
                key,
                0,
                metadata,
                record! { "text": "x".repeat(usize::try_from(key).unwrap() % 7) },
            ))
        };
        // SplitMix64 (S. Vigna, 2015).
        let mut seed = 11_u64;
        let mut random = |bound: u64| {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            ((z ^ (z >> 27)) >> 16) % bound
        };
        for changes_per_insert in [0, 1, 20] {
            let mut stored: BTreeMap<i64, Arc<Record>> = (0..40).map(|key| (key, record(key, 1))).collect();
            let before: Vec<_> = stored.values().cloned().collect();
            let mut set = ChangeSet::new(0, 0, 1);
            for revision in 1..=600 {
                let key = i64::try_from(random(120)).unwrap();
                let change = match stored.get(&key).cloned() {
                    None => Change::Inserted { record: record(key, 1) },
                    Some(_) if random(20) >= changes_per_insert => continue,
                    Some(old) if random(2) == 0 => Change::Updated { new: record(key, old.version() + 1), old },
                    Some(record) => Change::Deleted { record, cause: crate::records::Cause::Requested },
                };
                match &change {
                    Change::Inserted { record } | Change::Updated { new: record, .. } => {
                        stored.insert(key, Arc::clone(record));
                    }
                    _ => drop(stored.remove(&key)),
                }
                set.note(&change, 0, revision);
                assert_eq!(set.len(), set.clone().into_change().len());
            }
            let mut snapshot = BucketSnapshot::new(1, 0, 0, before);
            let change = set.to_change();
            snapshot.apply(&change);
            snapshot.records.sort_by(|left, right| left.key().cmp(right.key()));
            assert_eq!(snapshot.records, stored.into_values().collect::<Vec<_>>());
            let BucketChange::Delta(delta) = change else { panic!("a delta") };
            let keys: HashSet<&Key> = delta.upserts.iter().map(|record| record.key()).chain(&delta.deletes).collect();
            assert_eq!(keys.len(), delta.upserts.len() + delta.deletes.len(), "each key once");
            let estimates = delta.upserts.iter().map(|record| record.estimated_bytes());
            let gone = delta.deletes.iter().map(Key::estimated_bytes);
            assert_eq!(set.bytes(), estimates.chain(gone).sum::<usize>());
        }
    }

    #[test]
    fn new_records_are_handed_over_in_the_order_in_which_they_came() {
        let mut set = ChangeSet::new(0, 0, 1);
        let metadata = crate::records::Metadata { version: 1, created_at: 1, updated_at: 1, expires_at: None };
        for key in (0..2_000).chain(500..700) {
            set.upsert(Arc::new(Record::from_parts(key, 0, metadata, record! {})));
        }
        let BucketChange::Delta(delta) = set.into_change() else { panic!("a delta") };
        assert!(delta.upserts.iter().map(|record| record.key().clone()).eq((0..2_000).map(Key::from)));
    }

    #[test]
    fn a_set_that_replaces_what_is_stored_has_its_own_requests_only() {
        let request = |revision| Request { revision, ..Request::new(format!("{revision}"), &Write::Clear).unwrap() };
        let mut older = ChangeSet::new(0, 2, 1);
        [1, 2].into_iter().for_each(|revision| older.note_request(request(revision), 10));
        let whole = BucketSnapshot { requests: vec![request(1), request(2)], ..BucketSnapshot::default() };
        let mut newer = ChangeSet::new(0, 3, 1);
        newer.note_request(request(3), 10);
        let BucketChange::Full(sum) = newer.over(ChangeSet::replacing(whole).over(older)).to_change() else {
            panic!("it replaces")
        };
        assert!(sum.requests.iter().map(|request| request.revision).eq([1, 2, 3]));
    }
}
