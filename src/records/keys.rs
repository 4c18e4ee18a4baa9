//! Records by key: hash tables in parts, so that none of them takes long to grow, and each behind a lock of its own, so
//! that who looks up a key meets a writer once in a blue moon.

use std::hash::BuildHasher;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};

use crate::base::value::Key;
use crate::records::record::Record;

/// A table that doubles holds everybody up: at a million records for 77 ms as one table, for 2.6 ms as 64, half that as
/// 128.
const PARTS: usize = 128;

type Part = HashTable<Arc<Record>>;

/// Records by key. Written by who has the bucket's turn, read by anybody at any time: each look-up is of one moment, but
/// two of them need not be of the same.
#[derive(Debug)]
pub struct Keys {
    hasher: DefaultHashBuilder,
    parts: Box<[RwLock<Part>]>,
}

impl Default for Keys {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

impl Keys {
    /// Room for so many records.
    pub(super) fn with_capacity(records: usize) -> Self {
        // Parts fill unevenly: a little more than an even share keeps most of them from growing.
        let share = if records == 0 { 0 } else { records / PARTS + records / PARTS / 8 + 8 };
        let parts = (0..PARTS).map(|_| RwLock::new(HashTable::with_capacity(share))).collect();
        Self { hasher: DefaultHashBuilder::default(), parts }
    }

    /// These records by their keys, and the keys that come twice.
    pub(super) fn of(records: &[Arc<Record>]) -> (Self, Vec<Key>) {
        let keys = Self::with_capacity(records.len());
        let twice = records.iter().filter_map(|record| keys.put(record)).map(|record| record.key().clone());
        let twice = twice.collect();
        (keys, twice)
    }

    /// The tables use the low bits of a hash for the slot and the highest seven as its tag: these are others.
    fn part(&self, hash: u64) -> &RwLock<Part> {
        // There are as many parts as are told apart.
        let [_, _, part, ..] = hash.to_be_bytes();
        &self.parts[usize::from(part) % PARTS]
    }

    /// The record of a key, expired or not.
    pub fn get(&self, key: &Key) -> Option<Arc<Record>> {
        let hash = self.hasher.hash_one(key);
        read(self.part(hash)).find(hash, |record| record.key() == key).cloned()
    }

    /// Puts a record under its key; answers the one that was there.
    pub(super) fn put(&self, record: &Arc<Record>) -> Option<Arc<Record>> {
        let hasher = &self.hasher;
        let hash = hasher.hash_one(record.key());
        let mut part = write(self.part(hash));
        match part.entry(hash, |other| other.key() == record.key(), |other| hasher.hash_one(other.key())) {
            Entry::Occupied(mut entry) => Some(std::mem::replace(entry.get_mut(), Arc::clone(record))),
            Entry::Vacant(entry) => {
                entry.insert(Arc::clone(record));
                None
            }
        }
    }

    pub(super) fn remove(&self, key: &Key) -> Option<Arc<Record>> {
        let hash = self.hasher.hash_one(key);
        let mut part = write(self.part(hash));
        let (record, _) = part.find_entry(hash, |other| other.key() == key).ok()?.remove();
        Some(record)
    }

    /// Takes all records out; dropping them is left to the caller.
    pub(super) fn clear(&self) -> Vec<HashTable<Arc<Record>>> {
        self.parts.iter().map(|part| std::mem::take(&mut *write(part))).collect()
    }
}

// Neither a hash nor a comparison of keys panics, so that a table is whole whatever happens around it.
fn read(part: &RwLock<Part>) -> RwLockReadGuard<'_, Part> {
    part.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(part: &RwLock<Part>) -> RwLockWriteGuard<'_, Part> {
    part.write().unwrap_or_else(PoisonError::into_inner)
}
