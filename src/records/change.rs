//! What an adapter is given of a bucket.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use serde::{Deserialize, Serialize};

use crate::base::value::Key;
use crate::records::fetch::release;
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
                let gone: HashSet<&Key> = delta.deletes.iter().collect();
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

    /// Lets go of it, which is all that dropping it does, in less time.
    pub(crate) fn release(self) {
        release(match self {
            Self::Full(snapshot) => snapshot.records,
            Self::Delta(delta) => delta.upserts,
        });
    }

    /// Whether it touches no record: a counter, a revision or a clear may still change.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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
}
