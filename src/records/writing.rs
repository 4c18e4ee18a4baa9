//! The rules of writes: each is planned against the table as it is, without a change, and answered by a plan or refused.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use crate::base::error::{Error, Result};
use crate::base::value::{Key, Object, Value, ValueError};
use crate::records::event::Cause;
use crate::records::field::Generated;
use crate::records::filter::Filter;
use crate::records::index::Values;
use crate::records::patch::Patch;
use crate::records::query::Query;
use crate::records::record::{METADATA, Metadata, Record};
use crate::records::schema::{Changed, Draws, Fields, Schema};
use crate::records::table::{Plan, Step, Steps, Table};
use crate::records::write::{Upserted, Write, Written};

/// What the inserts of one commit draw on, one after the other.
#[derive(Debug)]
pub(super) struct Running {
    /// The next autoincrement number.
    pub(super) next: Option<i64>,
    /// The next position.
    pub(super) place: u64,
    /// The highest number written.
    pub(super) counter: Option<i64>,
}

/// What a write changes of one record.
#[derive(Debug)]
pub(super) enum Edit {
    Merge(Object),
    Patch(Patch),
}

pub(super) fn check_input(input: &Object) -> Result<()> {
    input.check_limits().map_err(|ValueError { path, reason, .. }| Error::InvalidValue { path, reason })
}

/// An insert that has been checked against its schema, and only has to be put into a table.
#[derive(Debug)]
pub struct Prepared {
    /// Nobody else holds it, and it has no place yet.
    record: Arc<Record>,
    /// Whether it lives as long as records of the bucket do, counted from the insert.
    has_ttl: bool,
}

impl Schema {
    /// Whether inserts can be checked before their turn comes: so it is unless a field depends on the turn, as numbers
    /// and times that are generated do.
    pub fn prepares(&self) -> bool {
        !self.fields.iter().any(|field| {
            matches!(field.rule.generated, Some(Generated::Autoincrement | Generated::Cuid | Generated::Timestamp))
        })
    }

    /// Checks an insert's input and makes it a record, which takes most of an insert's time: done by who wants to insert,
    /// that is time of his own task and not of the bucket's turn. Only for schemas that [`prepare`](Self::prepares).
    ///
    /// # Errors
    /// `InvalidValue`, `Validation`, `UserCode`.
    pub fn prepare(self: &Arc<Self>, input: Object, uuid: &mut dyn FnMut() -> uuid::Uuid) -> Result<Prepared> {
        // The time is that of the turn, and filled in there.
        let draws = &mut Draws { now: 0, uuid };
        let mut running = Running { next: None, place: 0, counter: None };
        let has_ttl = self.ttl_ms().is_some() && !input.contains(METADATA[3]);
        Ok(Prepared { record: self.new_record(input, &mut running, draws)?, has_ttl })
    }
}

impl Prepared {
    /// The record as it is inserted now and here.
    fn settle(self, now: i64, place: u64, ttl_ms: Option<i64>) -> Arc<Record> {
        let Self { mut record, has_ttl } = self;
        // Not a copy: nobody else holds it.
        let fresh = Arc::make_mut(&mut record);
        fresh.place = place;
        (fresh.metadata.created_at, fresh.metadata.updated_at) = (now, now);
        if has_ttl {
            fresh.metadata.expires_at = ttl_ms.map(|ttl| now.saturating_add(ttl));
        }
        record
    }
}

impl Table {
    /// Plans an insert that was checked before.
    ///
    /// # Errors
    /// `DuplicateKey`, `UniqueViolation`, `CapacityExceeded`.
    pub fn plan_prepared(&self, prepared: Prepared, now: i64) -> Result<Plan> {
        let record = prepared.settle(now, self.next_place, self.schema.ttl_ms());
        let step = Step::Insert(Arc::clone(&record));
        self.finish(now, Steps::One(step), None, Written::Record(record))
    }

    /// Plans inserts that were checked before, all or none.
    ///
    /// # Errors
    /// As [`plan_prepared`](Self::plan_prepared).
    pub fn plan_prepared_many(&self, prepared: Vec<Prepared>, now: i64) -> Result<Plan> {
        let ttl = self.schema.ttl_ms();
        let records: Vec<_> =
            (self.next_place..).zip(prepared).map(|(place, prepared)| prepared.settle(now, place, ttl)).collect();
        if records.is_empty() {
            return Ok(Plan::nothing(now, Written::Records(records)));
        }
        let steps = records.iter().cloned().map(Step::Insert).collect();
        self.finish(now, Steps::Many(steps), None, Written::Records(records))
    }
}

impl Schema {
    /// The record that an insert's input becomes.
    pub(super) fn new_record(
        self: &Arc<Self>,
        input: Object,
        running: &mut Running,
        draws: &mut Draws<'_>,
    ) -> Result<Arc<Record>> {
        check_input(&input)?;
        let Fields { key, values, extra, expires_at } = self.fields_of_insert(input, running.next, draws)?;
        let now = draws.now;
        let expires_at = expires_at.of_insert(now, self.ttl_ms());
        if let Some(number) = self.highest_number(&values, &key) {
            running.counter = running.counter.max(Some(number));
            running.next = running.next.max(number.checked_add(1)).filter(|_| number < i64::MAX);
        }
        let metadata = Metadata { version: 1, created_at: now, updated_at: now, expires_at };
        let place = running.place;
        running.place = place.saturating_add(1);
        let layout = Arc::clone(&self.layout);
        Ok(Arc::new(Record { layout, key, values, extra, metadata, place, counted: 0 }.counted()))
    }

    /// The next version of a record.
    pub(super) fn edited_record(&self, old: &Record, edit: Edit, now: i64) -> Result<Arc<Record>> {
        let Changed { values, extra, expires_at } = match edit {
            Edit::Merge(changes) => {
                check_input(&changes)?;
                self.fields_of_update(old.values.clone(), old.extra.clone(), changes)?
            }
            Edit::Patch(patch) => self.fields_of_patch(old, patch)?,
        };
        let expires_at = expires_at.of_update(old.metadata.expires_at);
        let metadata = Metadata {
            version: old.metadata.version.saturating_add(1),
            created_at: old.metadata.created_at,
            updated_at: now.max(old.metadata.updated_at),
            expires_at,
        };
        let (layout, key) = (Arc::clone(&self.layout), old.key.clone());
        Ok(Arc::new(Record { layout, key, values, extra, metadata, place: old.place, counted: 0 }.counted()))
    }
}

/// What the steps of one commit come to.
#[derive(Default)]
struct Outcome<'a> {
    /// The last state of each key that they touch.
    last: HashMap<&'a Key, Option<&'a Arc<Record>>>,
    deleted: HashSet<&'a Key>,
}

/// A record that has expired goes before what takes its key or value.
fn purge(record: &Arc<Record>, before: &mut Vec<Step>) {
    let same = |step: &Step| matches!(step, Step::Delete(other, _) if Arc::ptr_eq(other, record));
    if !before.iter().any(same) {
        before.push(Step::Delete(Arc::clone(record), Cause::Expired));
    }
}

/// The keys that a commit touches: few are compared one by one.
enum Touched<'a> {
    Few(&'a [Step], &'a [Step]),
    Many(HashSet<&'a Key>),
}

impl<'a> Touched<'a> {
    fn of(before: &'a [Step], own: &'a [Step]) -> Self {
        if before.len() + own.len() <= 8 {
            return Self::Few(before, own);
        }
        Self::Many(before.iter().chain(own).filter_map(Step::key).collect())
    }

    fn contains(&self, key: &Key) -> bool {
        match self {
            Self::Few(before, own) => before.iter().chain(*own).any(|step| step.key() == Some(key)),
            Self::Many(keys) => keys.contains(key),
        }
    }
}

impl Table {
    /// Checks a write against the table as it is, and works out its result. Nothing changes.
    ///
    /// # Errors
    /// `InvalidValue`, `Validation`, `InvalidArgument`, `DuplicateKey`, `UniqueViolation`, `NotFound`,
    /// `VersionMismatch`, `CapacityExceeded`, `CounterExhausted`, `UserCode`.
    pub fn plan(&self, write: Write, draws: &mut Draws<'_>) -> Result<Plan> {
        let at = draws.now;
        match write {
            Write::Insert(input) => self.plan_insert(input, draws, Written::Record),
            Write::InsertMany(inputs) => self.plan_insert_many(inputs, draws),
            Write::Upsert(input) => {
                let field = &self.schema.fields[self.schema.key].name;
                let key = self.key_of(input.get(field));
                match key.and_then(|key| self.get(&key, at)) {
                    Some(old) => {
                        self.plan_edit(&old, Edit::Merge(input), at, |new| Written::Upserted(Upserted::Updated(new)))
                    }
                    None => self.plan_insert(input, draws, |new| Written::Upserted(Upserted::Inserted(new))),
                }
            }
            Write::Update(key, changes) => {
                self.plan_edit(&self.live(&key, at)?, Edit::Merge(changes), at, Written::Record)
            }
            Write::UpdateIf(key, expected, changes) => {
                let old = self.live(&key, at)?;
                self.schema.check_version(&old, expected)?;
                self.plan_edit(&old, Edit::Merge(changes), at, Written::Record)
            }
            Write::Patch(key, patch) => self.plan_edit(&self.live(&key, at)?, Edit::Patch(patch), at, Written::Record),
            Write::Delete(key) => match self.get(&key, at) {
                Some(record) => {
                    let steps = Steps::One(Step::Delete(record, Cause::Requested));
                    Ok(Plan { at, steps, counter: None, written: Written::Deleted(true), request: None, examined: 0 })
                }
                None => Ok(Plan::nothing(at, Written::Deleted(false))),
            },
            Write::DeleteMany(filter) => self.plan_delete_many(filter, at),
            Write::Clear => {
                let count = self.len() - self.expired(at);
                if self.is_empty() {
                    return Ok(Plan::nothing(at, Written::Count(0)));
                }
                let steps = Steps::One(Step::Clear);
                Ok(Plan { at, steps, counter: None, written: Written::Count(count), request: None, examined: 0 })
            }
        }
    }

    fn live(&self, key: &Key, now: i64) -> Result<Arc<Record>> {
        let missing = || Error::NotFound { bucket: self.schema.bucket.clone(), key: key.clone() };
        self.get(key, now).ok_or_else(missing)
    }

    fn running(&self) -> Running {
        Running { next: self.next_number(), place: self.next_place, counter: None }
    }

    fn plan_insert(
        &self,
        input: Object,
        draws: &mut Draws<'_>,
        written: impl FnOnce(Arc<Record>) -> Written,
    ) -> Result<Plan> {
        let mut running = self.running();
        let record = self.schema.new_record(input, &mut running, draws)?;
        let step = Step::Insert(Arc::clone(&record));
        self.finish(draws.now, Steps::One(step), running.counter, written(record))
    }

    fn plan_insert_many(&self, inputs: Vec<Object>, draws: &mut Draws<'_>) -> Result<Plan> {
        let mut running = self.running();
        let mut records = Vec::with_capacity(inputs.len());
        for (at, input) in inputs.into_iter().enumerate() {
            let record = self.schema.new_record(input, &mut running, draws);
            records.push(record.map_err(|error| error.of_item(at))?);
        }
        if records.is_empty() {
            return Ok(Plan::nothing(draws.now, Written::Records(records)));
        }
        let steps = records.iter().cloned().map(Step::Insert).collect();
        self.finish(draws.now, Steps::Many(steps), running.counter, Written::Records(records))
    }

    fn plan_edit(
        &self,
        old: &Arc<Record>,
        edit: Edit,
        at: i64,
        written: impl FnOnce(Arc<Record>) -> Written,
    ) -> Result<Plan> {
        let new = self.schema.edited_record(old, edit, at)?;
        let counter = self.schema.highest_number(&new.values, &new.key);
        let step = Step::Update { old: Arc::clone(old), new: Arc::clone(&new) };
        self.finish(at, Steps::One(step), counter, written(new))
    }

    fn plan_delete_many(&self, filter: Filter, at: i64) -> Result<Plan> {
        let view = self.view(&filter, at);
        let found = view.find(&Query::new(filter))?;
        let written = Written::Count(found.len());
        let steps = Steps::Many(found.into_iter().map(|record| Step::Delete(record, Cause::Requested)).collect());
        Ok(Plan { at, steps, counter: None, written, request: None, examined: 0 })
    }

    /// Removes records that have expired, at most `limit` of them.
    pub fn plan_purge(&self, now: i64, limit: usize) -> Plan {
        let expired = self.expired_by(now).take(limit);
        let steps: Vec<Step> = expired.map(|record| Step::Delete(Arc::clone(record), Cause::Expired)).collect();
        let written = Written::Count(steps.len());
        Plan { at: now, steps: Steps::Many(steps), counter: None, written, request: None, examined: 0 }
    }

    /// Makes room where there are more records than `max_size`, as after loading with a lower one.
    pub fn plan_trim(&self, now: i64) -> Plan {
        let mut steps = Vec::new();
        // Nothing was written, so that everything may go and there is always room.
        let _room = self.make_room(&[], now, &mut steps);
        let written = Written::Count(steps.len());
        Plan { at: now, steps: Steps::Many(steps), counter: None, written, request: None, examined: 0 }
    }

    /// Checks keys, unique values and room against the state after these steps, and puts what has to go before them.
    pub(super) fn finish(&self, at: i64, own: Steps, counter: Option<i64>, written: Written) -> Result<Plan> {
        let mut before = Vec::new();
        match &own {
            Steps::One(step) => self.check_step(step, None, at, &mut before)?,
            Steps::Many(steps) => self.check_steps(steps, at, &mut before)?,
        }
        let examined = self.make_room(own.as_slice(), at, &mut before)?;
        let steps = if before.is_empty() {
            own
        } else {
            match own {
                Steps::One(step) => before.push(step),
                Steps::Many(steps) => before.extend(steps),
            }
            Steps::Many(before)
        };
        Ok(Plan { at, steps, counter, written, request: None, examined })
    }

    fn check_steps(&self, steps: &[Step], at: i64, before: &mut Vec<Step>) -> Result<()> {
        let mut outcome = Outcome::default();
        for step in steps {
            match step {
                Step::Insert(record) => {
                    if let Some(Some(_)) = outcome.last.insert(record.key(), Some(record)) {
                        return Err(self.duplicate(record.key()));
                    }
                }
                Step::Update { new, .. } => drop(outcome.last.insert(new.key(), Some(new))),
                Step::Delete(record, _) => {
                    outcome.deleted.insert(record.key());
                    outcome.last.insert(record.key(), None);
                }
                Step::Clear => {}
            }
        }
        let mut taken: BTreeMap<(usize, Values), &Record> = BTreeMap::new();
        for step in steps {
            self.check_step(step, Some(&outcome), at, before)?;
            let (Step::Insert(record) | Step::Update { new: record, .. }) = step else { continue };
            for (position, rule) in self.schema.indexes.iter().enumerate().filter(|(_, rule)| rule.unique) {
                let values = rule.values(record);
                if values.as_slice().iter().any(Value::is_null) {
                    continue;
                }
                if let Some(holder) = taken.insert((position, values), record) {
                    return Err(self.violation(rule.label(), &rule.values(record), holder));
                }
            }
        }
        Ok(())
    }

    /// Checks one step against the state after all of them; records that have expired are no obstacle, and go.
    fn check_step(&self, step: &Step, all: Option<&Outcome<'_>>, at: i64, before: &mut Vec<Step>) -> Result<()> {
        let record = match step {
            Step::Insert(record) => {
                match self.keys.get(record.key()) {
                    // A transaction that deletes and inserts a key does both in this order.
                    Some(old) if all.is_some_and(|all| all.deleted.contains(old.key())) => {}
                    Some(old) if old.is_expired(at) => purge(&old, before),
                    Some(_) => return Err(self.duplicate(record.key())),
                    None => {}
                }
                record
            }
            Step::Update { new, .. } => new,
            Step::Delete(..) | Step::Clear => return Ok(()),
        };
        for (rule, index) in self.schema.indexes.iter().zip(&self.indexes).filter(|(rule, _)| rule.unique) {
            let values = rule.values(record);
            let Some(holder) = index.holder(&values, Some(record.key())) else { continue };
            if holder.is_expired(at) {
                purge(holder, before);
                continue;
            }
            match all.and_then(|all| all.last.get(holder.key())) {
                // It goes, or takes other values, in the same commit.
                Some(None) => {}
                Some(Some(new)) if rule.values(new) != values => {}
                _ => return Err(self.violation(rule.label(), &values, holder)),
            }
        }
        Ok(())
    }

    fn duplicate(&self, key: &Key) -> Error {
        Error::DuplicateKey { bucket: self.schema.bucket.clone(), key: key.clone() }
    }

    fn violation(&self, index: String, values: &Values, holder: &Record) -> Error {
        let (bucket, holder) = (self.schema.bucket.clone(), holder.key().clone());
        Error::UniqueViolation { bucket, index, values: values.as_slice().to_vec(), holder }
    }

    /// Finds out which records have to go so that the steps leave no more than `max_size`: expired ones, then those at
    /// the lowest positions, none of them written by the steps themselves. Answers how many records it has looked at.
    fn make_room(&self, own: &[Step], at: i64, before: &mut Vec<Step>) -> Result<u64> {
        let Some(max_size) = self.schema.max_size() else { return Ok(0) };
        let mut after = self.len().saturating_sub(before.len());
        for step in own {
            match step {
                Step::Insert(_) => after += 1,
                Step::Delete(..) => after = after.saturating_sub(1),
                Step::Clear => after = 0,
                Step::Update { .. } => {}
            }
        }
        let Some(needed) = after.checked_sub(max_size).filter(|needed| *needed > 0) else { return Ok(0) };
        let mut over = needed;
        let examined = Cell::new(0);
        let look = |_: &&Arc<Record>| examined.set(examined.get() + 1);
        let touched = Touched::of(before, own);
        let goes = |record: &&Arc<Record>| !touched.contains(record.key());
        let expired = self.expired_by(at).inspect(look).filter(goes).take(over);
        let mut room: Vec<_> = expired.map(|record| Step::Delete(Arc::clone(record), Cause::Expired)).collect();
        over -= room.len();
        let oldest = self.by_position().inspect(look).filter(|record| !record.is_expired(at)).filter(goes).take(over);
        room.extend(oldest.map(|record| Step::Delete(Arc::clone(record), Cause::Evicted)));
        drop(touched);
        if room.len() < needed {
            return Err(Error::CapacityExceeded { bucket: self.schema.bucket.clone(), max_size });
        }
        before.extend(room);
        Ok(examined.get())
    }

    fn by_position(&self) -> Box<dyn Iterator<Item = &Arc<Record>> + '_> {
        match &self.positions {
            Some(positions) => Box::new(positions.values()),
            None => Box::new(self.order.values()),
        }
    }
}

impl Schema {
    pub(super) fn check_version(&self, record: &Record, expected: u64) -> Result<()> {
        let actual = record.version();
        if actual == expected {
            return Ok(());
        }
        let (bucket, key) = (self.bucket.clone(), record.key().clone());
        Err(Error::VersionMismatch { bucket, key, expected, actual })
    }
}
