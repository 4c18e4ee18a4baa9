//! A bucket's records, and every rule by which they change: planned first, without a change, then applied.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};

use crate::base::error::{Error, Result};
use crate::base::value::{Key, Object, ValueError};
use crate::records::change::BucketSnapshot;
use crate::records::event::Change;
use crate::records::filter::Filter;
use crate::records::index::{Index, Values};
use crate::records::record::{Metadata, Record};
use crate::records::schema::{Changed, Draws, Fields, Schema};

/// What a bucket is asked to change.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Write {
    /// A new record.
    Insert(Object),
    /// Changes merged over the top level of a record.
    Update(Key, Object),
    /// A record goes.
    Delete(Key),
    /// All records go; the counter stays.
    Clear,
}

/// What a write answers.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Written {
    /// The record as it is now.
    Record(Arc<Record>),
    /// Whether the record was there.
    Deleted(bool),
    /// How many records there were.
    Cleared(usize),
}

impl Written {
    /// The record, where an insert or update was answered.
    pub fn into_record(self) -> Option<Arc<Record>> {
        match self {
            Self::Record(record) => Some(record),
            Self::Deleted(_) | Self::Cleared(_) => None,
        }
    }

    /// How many records are gone by it.
    pub fn gone(&self) -> usize {
        match self {
            Self::Record(_) => 0,
            Self::Deleted(was_there) => usize::from(*was_there),
            Self::Cleared(count) => *count,
        }
    }
}

/// A write that has passed every check and changes a table at its revision.
#[derive(Debug)]
#[must_use]
pub struct Plan {
    at: i64,
    step: Step,
    counter: Option<i64>,
}

#[derive(Debug)]
enum Step {
    Insert(Arc<Record>),
    Update {
        old: Arc<Record>,
        new: Arc<Record>,
    },
    Delete(Arc<Record>),
    /// Changes nothing: the record to delete is not there, or there is nothing to clear.
    Nothing(Written),
    Clear,
}

/// One commit of a table.
#[derive(Debug)]
pub struct Commit {
    /// The answer to the write.
    pub written: Written,
    /// What changed; none where the write changed nothing and the revision stays.
    pub change: Option<Change>,
    /// The table's revision since then.
    pub revision: u64,
    /// When, in milliseconds since the Unix epoch.
    pub at: i64,
    /// What a clear left behind: takes time to drop, best elsewhere.
    pub remains: Option<Remains>,
}

/// Records that were cleared.
#[derive(Debug)]
pub struct Remains {
    _by_key: HashTable<Arc<Record>>,
    _by_place: BTreeMap<u64, Arc<Record>>,
    _indexes: Box<[Index]>,
}

/// A bucket's records in insertion order, by key and by index.
#[derive(Debug)]
pub struct Table {
    schema: Arc<Schema>,
    hasher: DefaultHashBuilder,
    by_key: HashTable<Arc<Record>>,
    by_place: BTreeMap<u64, Arc<Record>>,
    indexes: Box<[Index]>,
    counter: i64,
    revision: u64,
    next_place: u64,
}

impl Table {
    /// An empty table at revision 0.
    pub fn new(schema: Arc<Schema>) -> Self {
        let indexes = schema.indexes.iter().map(|_| Index::default()).collect();
        Self {
            schema,
            hasher: DefaultHashBuilder::default(),
            by_key: HashTable::new(),
            by_place: BTreeMap::new(),
            indexes,
            counter: 0,
            revision: 0,
            next_place: 0,
        }
    }

    /// An empty table that goes on from a revision: that of a bucket that lost its records, but not its subscribers.
    pub fn empty_at(schema: Arc<Schema>, revision: u64) -> Self {
        Self { revision, ..Self::new(schema) }
    }

    /// The definition that the records fit.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// 1 more at each commit.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The highest autoincrement number written.
    pub fn counter(&self) -> i64 {
        self.counter
    }

    /// The record of a key.
    pub fn get(&self, key: &Key) -> Option<&Arc<Record>> {
        self.by_key.find(self.hasher.hash_one(key), |record| record.key() == key)
    }

    /// All records in insertion order.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = &Arc<Record>> {
        self.by_place.values()
    }

    /// The records that a filter matches, in insertion order: by key or by an index where one fits, else by a scan.
    ///
    /// # Errors
    /// `InvalidArgument` for a path with an empty name and for numbers that are not finite.
    pub fn find(&self, filter: &Filter) -> Result<Vec<Arc<Record>>> {
        let mut found = Vec::new();
        self.visit(filter, |record| found.push(Arc::clone(record)))?;
        Ok(found)
    }

    /// How many records a filter matches.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn count(&self, filter: &Filter) -> Result<usize> {
        if filter.equalities().is_empty() {
            return Ok(self.len());
        }
        let mut count = 0;
        self.visit(filter, |_| count += 1)?;
        Ok(count)
    }

    fn visit(&self, filter: &Filter, mut hit: impl FnMut(&Arc<Record>)) -> Result<()> {
        filter.check()?;
        let value_of = |path: &str| filter.equalities().iter().find(|(other, _)| other == path).map(|(_, value)| value);
        let key_field = &self.schema.fields[self.schema.key].name;
        if let Some(value) = value_of(key_field) {
            // The wrong kind of key finds nothing.
            let record = Key::from_value(value.clone()).and_then(|key| self.get(&key));
            record.into_iter().filter(|record| filter.matches(record)).for_each(hit);
            return Ok(());
        }
        // Of the indexes whose every path is asked for, the one with most paths leaves least to check.
        let fitting = self.schema.indexes.iter().zip(&self.indexes);
        let fitting = fitting.filter_map(|(rule, index)| {
            let values: Option<Box<[_]>> = rule.paths.iter().map(|path| value_of(&path.text).cloned()).collect();
            Some((values?, index))
        });
        match fitting.max_by_key(|(values, _)| values.len()) {
            Some((values, index)) => {
                let records = index.equal(Values::Many(values));
                records.filter(|record| filter.matches(record)).for_each(hit);
            }
            None => self.all().filter(|record| filter.matches(record)).for_each(&mut hit),
        }
        Ok(())
    }

    /// Checks a write against the table as it is, and works out its result. Nothing changes.
    ///
    /// # Errors
    /// `InvalidValue`, `Validation`, `DuplicateKey`, `UniqueViolation`, `NotFound`, `CounterExhausted`.
    pub fn plan(&self, write: Write, draws: &mut Draws<'_>) -> Result<Plan> {
        let at = draws.now;
        if let Write::Insert(input) | Write::Update(_, input) = &write {
            input.check_limits().map_err(|ValueError { path, reason, .. }| Error::InvalidValue { path, reason })?;
        }
        match write {
            Write::Insert(input) => self.plan_insert(input, draws),
            Write::Update(key, changes) => self.plan_update(&key, changes, at),
            Write::Delete(key) => {
                let step = match self.get(&key) {
                    Some(record) => Step::Delete(Arc::clone(record)),
                    None => Step::Nothing(Written::Deleted(false)),
                };
                Ok(Plan { at, step, counter: None })
            }
            Write::Clear if self.is_empty() => Ok(Plan { at, step: Step::Nothing(Written::Cleared(0)), counter: None }),
            Write::Clear => Ok(Plan { at, step: Step::Clear, counter: None }),
        }
    }

    fn plan_insert(&self, input: Object, draws: &mut Draws<'_>) -> Result<Plan> {
        let Fields { key, values, extra, expires_at } =
            self.schema.fields_of_insert(input, self.counter.checked_add(1), draws)?;
        if self.get(&key).is_some() {
            return Err(Error::DuplicateKey { bucket: self.schema.bucket.clone(), key });
        }
        let counter = self.schema.highest_number(&values, &key);
        let expires_at = expires_at.of_insert(draws.now, self.schema.ttl_ms());
        let metadata = Metadata { version: 1, created_at: draws.now, updated_at: draws.now, expires_at };
        let layout = Arc::clone(&self.schema.layout);
        let record = Arc::new(Record { layout, key, values, extra, metadata, place: self.next_place });
        self.check_unique(&record, None)?;
        Ok(Plan { at: draws.now, step: Step::Insert(record), counter })
    }

    fn plan_update(&self, key: &Key, changes: Object, at: i64) -> Result<Plan> {
        let not_found = || Error::NotFound { bucket: self.schema.bucket.clone(), key: key.clone() };
        let old = self.get(key).ok_or_else(not_found)?;
        let Changed { values, extra, expires_at } =
            self.schema.fields_of_update(old.values.clone(), old.extra.clone(), changes)?;
        let metadata = Metadata {
            version: old.metadata.version.saturating_add(1),
            updated_at: at.max(old.metadata.updated_at),
            expires_at: expires_at.of_update(old.metadata.expires_at),
            ..old.metadata
        };
        let layout = Arc::clone(&self.schema.layout);
        let new = Arc::new(Record { layout, key: old.key.clone(), values, extra, metadata, place: old.place });
        self.check_unique(&new, Some(key))?;
        Ok(Plan { at, step: Step::Update { old: Arc::clone(old), new }, counter: None })
    }

    fn check_unique(&self, record: &Record, own: Option<&Key>) -> Result<()> {
        for (rule, index) in self.schema.indexes.iter().zip(&self.indexes).filter(|(rule, _)| rule.unique) {
            let values = rule.values(record);
            if let Some(holder) = index.holder(&values, own) {
                return Err(Error::UniqueViolation {
                    bucket: self.schema.bucket.clone(),
                    index: rule.label(),
                    values: values.as_slice().to_vec(),
                    holder: holder.key().clone(),
                });
            }
        }
        Ok(())
    }

    /// Makes a planned change, which must be of this table at this revision; cannot fail.
    pub fn apply(&mut self, plan: Plan) -> Commit {
        let Plan { at, step, counter } = plan;
        let (written, change, remains) = match step {
            Step::Nothing(written) => {
                return Commit { written, change: None, revision: self.revision, at, remains: None };
            }
            Step::Insert(record) => {
                self.add(&record);
                (Written::Record(Arc::clone(&record)), Change::Inserted { record }, None)
            }
            Step::Update { old, new } => {
                self.put(&new);
                self.by_place.insert(new.place, Arc::clone(&new));
                for (rule, index) in self.schema.indexes.iter().zip(&mut self.indexes) {
                    index.replace(rule, &old, &new);
                }
                (Written::Record(Arc::clone(&new)), Change::Updated { old, new }, None)
            }
            Step::Delete(record) => {
                let hash = self.hasher.hash_one(record.key());
                if let Ok(entry) = self.by_key.find_entry(hash, |other| other.key() == record.key()) {
                    entry.remove();
                }
                self.by_place.remove(&record.place);
                for (rule, index) in self.schema.indexes.iter().zip(&mut self.indexes) {
                    index.remove(rule, &record);
                }
                (Written::Deleted(true), Change::Deleted { record }, None)
            }
            Step::Clear => {
                let records = self.len();
                let empty = self.schema.indexes.iter().map(|_| Index::default()).collect();
                let remains = Remains {
                    _by_key: std::mem::take(&mut self.by_key),
                    _by_place: std::mem::take(&mut self.by_place),
                    _indexes: std::mem::replace(&mut self.indexes, empty),
                };
                (Written::Cleared(records), Change::Cleared { records }, Some(remains))
            }
        };
        self.revision += 1;
        if let Some(number) = counter {
            self.counter = self.counter.max(number);
        }
        Commit { written, change: Some(change), revision: self.revision, at, remains }
    }

    /// Puts a record under its key, over the one that is there.
    fn put(&mut self, record: &Arc<Record>) {
        let hash = self.hasher.hash_one(record.key());
        let hasher = &self.hasher;
        let entry = self.by_key.entry(hash, |other| other.key() == record.key(), |other| hasher.hash_one(other.key()));
        match entry {
            Entry::Occupied(mut entry) => *entry.get_mut() = Arc::clone(record),
            Entry::Vacant(entry) => {
                entry.insert(Arc::clone(record));
            }
        }
    }

    fn add(&mut self, record: &Arc<Record>) {
        self.put(record);
        self.by_place.insert(record.place, Arc::clone(record));
        for (rule, index) in self.schema.indexes.iter().zip(&mut self.indexes) {
            index.insert(rule, record);
        }
        self.next_place = self.next_place.max(record.place.saturating_add(1));
    }

    /// The whole table as an adapter keeps it; shares the records.
    pub fn snapshot(&self) -> BucketSnapshot {
        let records = self.all().cloned().collect();
        BucketSnapshot::new(self.schema.schema_version(), self.revision, self.counter, records)
    }

    /// Builds a table of records that are sorted by place; answers too which keys came twice.
    pub(super) fn from_parts(
        schema: Arc<Schema>,
        records: Vec<Arc<Record>>,
        counter: i64,
        revision: u64,
    ) -> (Self, Vec<Key>) {
        let mut table = Self { counter, revision, ..Self::new(schema) };
        let mut twice = Vec::new();
        let hasher = &table.hasher;
        table.by_key = HashTable::with_capacity(records.len());
        for record in &records {
            let hash = hasher.hash_one(record.key());
            match table.by_key.entry(hash, |other| other.key() == record.key(), |other| hasher.hash_one(other.key())) {
                Entry::Occupied(_) => twice.push(record.key().clone()),
                Entry::Vacant(entry) => {
                    entry.insert(Arc::clone(record));
                }
            }
        }
        let rules = table.schema.indexes.iter();
        table.indexes = rules.map(|rule| Index::build(rule, records.iter())).collect();
        table.next_place = records.last().map_or(0, |record| record.place.saturating_add(1));
        // Sorted by place already: built from the bottom up.
        table.by_place = records.into_iter().map(|record| (record.place, record)).collect();
        (table, twice)
    }

    pub(super) fn collisions(&self) -> impl Iterator<Item = (String, &Arc<Record>, &Arc<Record>)> {
        let unique = self.schema.indexes.iter().zip(&self.indexes).filter(|(rule, _)| rule.unique);
        unique.flat_map(|(rule, index)| index.collisions().map(move |(record, next)| (rule.label(), record, next)))
    }
}
