//! The newest state of each key that is noted.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};

use crate::base::value::Key;
use crate::records::record::Record;

/// Records, the newest one of each key, in about the order in which their keys were first noted: new records mostly have
/// ascending keys, which is the order that back-ends like.
#[derive(Clone, Debug, Default)]
pub(super) struct Latest {
    records: Vec<Arc<Record>>,
    /// How many of them are in `places`. The others are new, so that nobody has to look for them before one of them, or
    /// any other, changes again: where records are only ever inserted, nobody does.
    placed: usize,
    /// Hashes of keys, with the places of their records. The hashes are kept because to take one again, in order to grow,
    /// would be a look at a record that nobody has looked at for a while.
    places: HashTable<(u32, u32)>,
    hasher: DefaultHashBuilder,
}

impl Latest {
    pub(super) fn reserve(&mut self, keys: usize) {
        self.records.reserve(keys);
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Notes a record of whose key nothing is noted.
    pub(super) fn add(&mut self, record: Arc<Record>) {
        self.records.push(record);
    }

    /// Finds places for all that have none.
    fn place(&mut self) {
        if self.placed == self.records.len() {
            return;
        }
        if self.places.capacity() == 0 {
            self.places.reserve(self.records.capacity(), |(hash, _)| spread(*hash));
        }
        for record in self.records.split_off(self.placed) {
            let twin = self.insert_placed(record);
            debug_assert!(twin.is_none(), "what is new was not noted before");
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "any bits of a hash are as good as others")]
    fn hash(&self, key: &Key) -> u32 {
        self.hasher.hash_one(key) as u32
    }

    /// Answers the record that was there.
    pub(super) fn insert(&mut self, record: Arc<Record>) -> Option<Arc<Record>> {
        self.place();
        if self.places.capacity() == 0 {
            self.places.reserve(self.records.capacity(), |(hash, _)| spread(*hash));
        }
        self.insert_placed(record)
    }

    fn insert_placed(&mut self, record: Arc<Record>) -> Option<Arc<Record>> {
        let hash = self.hash(record.key());
        let Self { records, places, .. } = self;
        let same = |(other, place): &(u32, u32)| {
            *other == hash && at(records, *place).is_some_and(|old| old.key() == record.key())
        };
        match places.entry(spread(hash), same, |(hash, _)| spread(*hash)) {
            Entry::Occupied(found) => {
                let place = found.get().1;
                records.get_mut(place as usize).map(|old| std::mem::replace(old, record))
            }
            Entry::Vacant(free) => {
                // Records take far more memory than there is long before they are so many.
                free.insert((hash, u32::try_from(records.len()).unwrap_or(u32::MAX)));
                records.push(record);
                self.placed += 1;
                None
            }
        }
    }

    /// Answers the record that was there. The last one takes its place.
    pub(super) fn remove(&mut self, key: &Key) -> Option<Arc<Record>> {
        self.place();
        let hash = self.hash(key);
        let Self { records, places, .. } = self;
        let same =
            |(other, place): &(u32, u32)| *other == hash && at(records, *place).is_some_and(|old| old.key() == key);
        let ((_, place), _) = places.find_entry(spread(hash), same).ok()?.remove();
        let last = u32::try_from(records.len() - 1).unwrap_or(u32::MAX);
        if place != last {
            let moved = self.hash(self.records.last()?.key());
            if let Some(found) = self.places.find_mut(spread(moved), |(_, of)| *of == last) {
                found.1 = place;
            }
        }
        self.placed -= 1;
        Some(self.records.swap_remove(place as usize))
    }

    pub(super) fn into_records(self) -> Vec<Arc<Record>> {
        self.records
    }

    pub(super) fn clear(&mut self) {
        self.placed = 0;
        self.records.clear();
        self.places.clear();
    }
}

fn at(records: &[Arc<Record>], place: u32) -> Option<&Arc<Record>> {
    records.get(place as usize)
}

/// A hash table looks at the highest and at the lowest bits.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}
