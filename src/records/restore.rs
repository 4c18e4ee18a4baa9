//! A stored bucket into a table: every record is bound to the definition, migrated and checked against it.

use std::sync::Arc;

use hashbrown::hash_map::Entry;
use hashbrown::{HashMap, HashSet};

use crate::base::error::{Error, Misfit, Result};
use crate::base::value::Key;
use crate::records::change::BucketSnapshot;
use crate::records::check::Findings;
use crate::records::migrate::Step;
use crate::records::record::Record;
use crate::records::schema::Schema;
use crate::records::table::Table;

/// From so many records on, they are fitted by two threads.
const WORTH_A_THREAD: usize = 10_000;

/// How many misfits an error lists.
const LISTED: usize = 20;

/// A table made of what was stored.
#[derive(Debug)]
pub struct Restored {
    /// The table.
    pub table: Table,
    /// Whether it differs from what was stored, by a default filled in or a later schema version: then the stored form
    /// is to be replaced.
    pub altered: bool,
}

impl Table {
    /// Builds the table of a stored bucket: binds records to the definition, takes those of an earlier schema version
    /// through its steps, fills in defaults of fields that are new, checks every field, key and unique index, and
    /// rebuilds the indexes.
    ///
    /// # Errors
    /// `SchemaTooNew`; `Migration`, if records do not fit; `UserCode` and `InvalidValue` because of a default.
    pub fn restore(schema: Arc<Schema>, snapshot: BucketSnapshot) -> Result<Restored> {
        let BucketSnapshot { schema_version: stored, revision, mut counter, mut records, requests } = snapshot;
        let defined = schema.schema_version();
        if stored > defined {
            return Err(Error::SchemaTooNew { bucket: schema.bucket().clone(), stored, defined });
        }
        let mut misfits = Misfits::default();
        let mut altered = stored != defined;
        let steps = schema.steps_from(stored);
        // Steps may give records other keys; the error is to name those that they had.
        let old_keys: Vec<Key> =
            if steps.is_empty() { Vec::new() } else { records.iter().map(|record| record.key().clone()).collect() };
        let fitted = if records.len() < WORTH_A_THREAD {
            vec![fit_all(&schema, steps, &mut records, altered)]
        } else {
            let half = records.len() / 2;
            let (left, right) = records.split_at_mut(half);
            std::thread::scope(|scope| {
                let left = scope.spawn(|| fit_all(&schema, steps, left, altered));
                let right = fit_all(&schema, steps, right, altered);
                // Code of users is guarded: nothing panics.
                let left = left.join().unwrap_or(Err(Error::UserCode { place: "restoring a record" }));
                vec![left, right]
            })
        };
        for fitted in fitted {
            let fitted = fitted?;
            altered |= fitted.altered;
            counter = counter.max(fitted.counter);
            misfits.merge(fitted.misfits);
        }
        misfits.check(&schema, stored)?;
        if !steps.is_empty() {
            find_met_keys(&records, &old_keys, &mut misfits);
            misfits.check(&schema, stored)?;
        }
        altered |= sort(&mut records);
        let (mut table, twice) = Table::from_parts(schema, records, counter, revision);
        requests.into_iter().for_each(|request| table.requests.push(request));
        for key in twice {
            misfits.add(u64::MAX, &key, "two records have this key");
        }
        find_shared_values(&table, &mut misfits);
        misfits.check(table.schema(), stored)?;
        Ok(Restored { table, altered })
    }
}

/// What fitting records to a definition came to.
struct Fitted {
    altered: bool,
    /// The highest autoincrement number in them.
    counter: i64,
    misfits: Misfits,
}

fn fit_all(schema: &Schema, steps: &[Step], records: &mut [Arc<Record>], altered: bool) -> Result<Fitted> {
    let mut fitted = Fitted { altered: false, counter: 0, misfits: Misfits::default() };
    let mut findings = Findings::default();
    for record in records {
        if !altered && Arc::ptr_eq(&record.layout, &schema.layout) {
            // It was checked against this very definition when it was written or loaded.
        } else if let Err(reason) = fit(schema, steps, record, &mut findings)? {
            fitted.misfits.add(record.place, record.key(), reason);
        }
        if let Some(number) = schema.highest_number(&record.values, &record.key) {
            fitted.counter = fitted.counter.max(number);
        }
    }
    fitted.altered = findings.altered;
    Ok(fitted)
}

/// Binds a record, migrates it and checks it, or says why it does not fit; then the record has its key and is of no use
/// otherwise. One that nobody else holds, as after a load, is changed in place.
fn fit(
    schema: &Schema,
    steps: &[Step],
    record: &mut Arc<Record>,
    findings: &mut Findings,
) -> Result<std::result::Result<(), String>> {
    let record = Arc::make_mut(record);
    record.counted = 0;
    record.bind(&schema.layout);
    if record.values[schema.key].take().is_some_and(|value| value != *record.key.as_value()) {
        // The field was not the key when it was stored: its values would be lost.
        return Ok(Err(format!("field {:?} is stored with a value of its own", schema.fields[schema.key].name)));
    }
    let migrated = !steps.is_empty();
    record.values[schema.key] = if migrated {
        match schema.migrate(record, steps) {
            Ok(key) => key,
            Err(reason) => return Ok(Err(reason)),
        }
    } else {
        // Moved, not copied: it goes back below.
        Some(std::mem::replace(&mut record.key, Key::from(0)).into_value())
    };
    findings.altered |= schema.fill_defaults(&mut record.values)?;
    schema.check_all(&mut record.values, &mut record.extra, findings);
    let key = record.values[schema.key].take().and_then(Key::from_value);
    let fits = findings.issues.is_empty() && key.is_some();
    // A misfit is named by the key that is stored.
    if let Some(key) = key.filter(|_| fits || !migrated) {
        record.key = key;
    }
    if fits {
        return Ok(Ok(()));
    }
    let issues = std::mem::take(&mut findings.issues);
    Ok(Err(issues.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))
}

/// Adds the records whose keys steps have made the same, by the keys that they had.
fn find_met_keys(records: &[Arc<Record>], old_keys: &[Key], misfits: &mut Misfits) {
    const REASON: &str = "two records have the same key after the migration";
    if records.iter().zip(old_keys).all(|(record, old_key)| record.key() == old_key) {
        return;
    }
    let mut first: HashMap<&Key, Option<usize>> = HashMap::with_capacity(records.len());
    for (at, record) in records.iter().enumerate() {
        match first.entry(record.key()) {
            Entry::Vacant(entry) => {
                entry.insert(Some(at));
            }
            Entry::Occupied(mut entry) => {
                if let Some(earlier) = entry.get_mut().take() {
                    misfits.add(records[earlier].place, &old_keys[earlier], REASON);
                }
                misfits.add(record.place, &old_keys[at], REASON);
            }
        }
    }
}

/// Adds the records that share a value of a unique index, each once.
fn find_shared_values(table: &Table, misfits: &mut Misfits) {
    let mut told = HashSet::new();
    for (index, record, next) in table.collisions() {
        for record in [record, next] {
            if told.insert(record.key()) {
                let reason = format!("another record has the same value of unique index {index}");
                misfits.add(record.place, record.key(), reason);
            }
        }
    }
}

/// Sorts records by place; answers whether places had to be made.
fn sort(records: &mut [Arc<Record>]) -> bool {
    if records.is_sorted_by(|left, right| left.place < right.place) {
        return false;
    }
    // The places are sorted beside the records, which lie all over the memory.
    records.sort_by_cached_key(|record| record.place);
    if records.is_sorted_by(|left, right| left.place < right.place) {
        return false;
    }
    // Only an adapter that makes records up has two in one place: they get places in the order of their keys.
    records.sort_by(|left, right| (left.place, left.key()).cmp(&(right.place, right.key())));
    for (place, record) in (0..).zip(records) {
        Arc::make_mut(record).place = place;
    }
    true
}

/// What does not fit. Adapters give records in any order; those that are listed are the first ones of the bucket.
#[derive(Default)]
struct Misfits {
    /// Sorted by place.
    listed: Vec<(u64, Misfit)>,
    total: usize,
}

impl Misfits {
    fn add(&mut self, place: u64, key: &Key, reason: impl Into<String>) {
        self.total += 1;
        let at = self.listed.partition_point(|(earlier, _)| *earlier <= place);
        if at < LISTED {
            self.listed.truncate(LISTED - 1);
            self.listed.insert(at, (place, Misfit::new(key.clone(), reason)));
        }
    }

    fn merge(&mut self, other: Self) {
        self.total += other.total;
        self.listed.extend(other.listed);
        self.listed.sort_by_key(|(place, _)| *place);
        self.listed.truncate(LISTED);
    }

    fn check(&mut self, schema: &Schema, from: u32) -> Result<()> {
        if self.total == 0 {
            return Ok(());
        }
        Err(Error::Migration {
            bucket: schema.bucket().clone(),
            from,
            to: schema.schema_version(),
            records: self.listed.drain(..).map(|(_, misfit)| misfit).collect(),
            total: self.total,
        })
    }
}
