//! What a transaction has read and written of one bucket, before any of it is applied.
//!
//! Everything that was read holds at one revision. Each further read moves that forward to the newest one, if nothing
//! that was read has changed in between; otherwise the transaction has lost already and is told so at once.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::base::error::{Error, Result};
use crate::base::value::{Key, Object, Value};
use crate::records::conflict::{Overtaken, ReadSet};
use crate::records::event::Cause;
use crate::records::field::Generated;
use crate::records::filter::Filter;
use crate::records::query::Query;
use crate::records::record::Record;
use crate::records::schema::{Draws, Schema};
use crate::records::table::{Plan, Step, Steps, Table};
use crate::records::view::View;
use crate::records::write::{Upserted, Write, Written};
use crate::records::writing::{Edit, Running};

/// Inserts of a transaction come after everything that is in the bucket, wherever that ends when it commits.
const PROVISIONAL: u64 = 1 << 63;

/// A transaction's part in one bucket.
#[derive(Debug)]
pub struct Draft {
    schema: Arc<Schema>,
    reads: ReadSet,
    /// What was read holds at this revision,
    revision: u64,
    /// and at this time.
    now: i64,
    staged: HashMap<Key, Staged>,
    /// Counts operations, for the order of events.
    operations: u64,
    next_place: u64,
    /// The highest autoincrement number written.
    counter: i64,
}

#[derive(Clone, Debug)]
struct Staged {
    /// As the bucket has it; none where it has none.
    base: Option<Arc<Record>>,
    /// As the transaction leaves it.
    state: Option<Arc<Record>>,
    /// Whether it was deleted in between: then the two are different records of one key.
    replaced: bool,
    /// When it was last written.
    order: u64,
}

impl Draft {
    /// Nothing read or written yet. The table is watched from here on, until [`end`](Self::end).
    pub fn begin(table: &mut Table, now: i64) -> Self {
        table.recent.watch(table.revision);
        Self {
            schema: Arc::clone(&table.schema),
            reads: ReadSet::default(),
            revision: table.revision,
            now,
            staged: HashMap::new(),
            operations: 0,
            next_place: PROVISIONAL,
            counter: 0,
        }
    }

    /// The table need not remember its changes for this transaction any longer.
    pub fn end(&self, table: &mut Table) {
        table.recent.unwatch();
    }

    /// Whether it changes anything.
    pub fn writes(&self) -> bool {
        self.staged.values().any(|staged| staged.base.is_some() || staged.state.is_some())
    }

    /// Moves what was read to the table's present, if it still holds there.
    ///
    /// # Errors
    /// `Conflict`.
    pub fn advance(&mut self, table: &Table, now: i64) -> Result<()> {
        let now = now.max(self.now);
        let expired = table.expiry_between(self.now, now);
        let checked = self
            .reads
            .check(&table.recent, self.revision, table.revision)
            .and_then(|()| self.reads.check_expired(expired));
        checked.map_err(|Overtaken(key)| Error::Conflict { bucket: self.schema.bucket.clone(), key })?;
        (self.revision, self.now) = (table.revision, now);
        Ok(())
    }

    /// The record of a key, as the transaction sees it.
    ///
    /// # Errors
    /// `Conflict`.
    pub fn get(&mut self, table: &Table, key: &Key, now: i64) -> Result<Option<Arc<Record>>> {
        self.advance(table, now)?;
        Ok(self.look(table, key))
    }

    fn look(&mut self, table: &Table, key: &Key) -> Option<Arc<Record>> {
        if let Some(staged) = self.staged.get(key) {
            return staged.state.clone().filter(|record| !record.is_expired(self.now));
        }
        self.reads.key(key);
        table.get(key, self.now)
    }

    /// What the transaction sees of the bucket, for a query with this filter.
    ///
    /// # Errors
    /// `Conflict`, `InvalidArgument`.
    pub fn view(&mut self, table: &Table, filter: &Filter, now: i64) -> Result<View> {
        self.advance(table, now)?;
        let keys = filter.keys(&self.schema);
        match &keys {
            Some(keys) if filter.is_of_keys(&self.schema) => keys.iter().for_each(|key| self.reads.key(key)),
            _ => self.reads.predicate(filter),
        }
        self.show(table, filter, keys)
    }

    /// What the transaction sees of the bucket, for a page of a query with this filter.
    ///
    /// # Errors
    /// `Conflict`, `InvalidArgument`.
    pub fn page(&mut self, table: &Table, filter: &Filter, now: i64) -> Result<View> {
        self.advance(table, now)?;
        self.reads.whole();
        self.show(table, filter, filter.keys(&self.schema))
    }

    fn show(&self, table: &Table, filter: &Filter, keys: Option<Vec<Key>>) -> Result<View> {
        filter.check()?;
        let keyed = keys.map(|keys| -> Vec<_> {
            let state = |key: &Key| match self.staged.get(key) {
                Some(staged) => staged.state.clone(),
                None => table.get(key, self.now),
            };
            keys.iter().filter_map(state).collect()
        });
        let view = self.overlay(table.whole(self.now));
        Ok(match keyed {
            Some(keyed) => view.with_keyed(keyed, filter.is_of_keys(&self.schema)),
            None => view,
        })
    }

    /// What the transaction sees of the bucket, for reads that depend on all of it.
    ///
    /// # Errors
    /// `Conflict`.
    pub fn whole(&mut self, table: &Table, now: i64) -> Result<View> {
        self.advance(table, now)?;
        self.reads.whole();
        Ok(self.overlay(table.whole(self.now)))
    }

    fn overlay(&self, mut view: View) -> View {
        // All that go before all that come: a value may be handed over from one record to another.
        for base in self.staged.values().filter_map(|staged| staged.base.as_ref()) {
            view.take(base);
        }
        for state in self.staged.values().filter_map(|staged| staged.state.as_ref()) {
            view.put(state);
        }
        view
    }

    /// Makes a write as the transaction sees the bucket; nothing of it is applied. `Clear` is not offered.
    ///
    /// # Errors
    /// As [`Table::plan`], but for unique values and room, which are checked at the commit; `Conflict`.
    pub fn write(
        &mut self,
        table: &Table,
        write: Write,
        number: Option<i64>,
        draws: &mut Draws<'_>,
    ) -> Result<Written> {
        self.advance(table, draws.now)?;
        match write {
            Write::Insert(input) => self.insert(table, input, number, draws).map(Written::Record),
            Write::InsertMany(inputs) => self.insert_many(table, inputs, number, draws),
            Write::Upsert(input) => {
                let field = &self.schema.fields[self.schema.key].name;
                let key = table.key_of(input.get(field));
                let old = key.and_then(|key| self.look(table, &key));
                Ok(Written::Upserted(match old {
                    Some(old) => Upserted::Updated(self.edit(table, &old, Edit::Merge(input))?),
                    None => Upserted::Inserted(self.insert(table, input, number, draws)?),
                }))
            }
            Write::Update(key, changes) => {
                let old = self.live(table, &key)?;
                self.edit(table, &old, Edit::Merge(changes)).map(Written::Record)
            }
            Write::UpdateIf(key, expected, changes) => {
                let old = self.live(table, &key)?;
                self.schema.check_version(&old, expected)?;
                self.edit(table, &old, Edit::Merge(changes)).map(Written::Record)
            }
            Write::Patch(key, patch) => {
                let old = self.live(table, &key)?;
                self.edit(table, &old, Edit::Patch(patch)).map(Written::Record)
            }
            Write::Delete(key) => {
                let there = self.look(table, &key).is_some();
                if there {
                    self.stage(table, &key, None);
                }
                Ok(Written::Deleted(there))
            }
            Write::DeleteMany(filter) => {
                let now = self.now;
                let found = self.view(table, &filter, now)?.find(&Query::new(filter))?;
                for record in &found {
                    self.stage(table, record.key(), None);
                }
                Ok(Written::Count(found.len()))
            }
            Write::Clear => Err(Error::unsupported("clear in a transaction")),
        }
    }

    /// How many autoincrement numbers a write asks for, and above which: those that the transaction has written itself.
    pub fn numbers(&self, write: &Write) -> (usize, i64) {
        let inputs = match write {
            Write::Insert(input) | Write::Upsert(input) => std::slice::from_ref(input),
            Write::InsertMany(inputs) => inputs,
            _ => &[],
        };
        let count = inputs.iter().filter(|input| self.schema.wants_number(input)).count();
        let given = inputs.iter().flat_map(|input| self.schema.numbers_in(input)).max();
        (count, self.counter.max(given.unwrap_or(0)))
    }

    fn live(&mut self, table: &Table, key: &Key) -> Result<Arc<Record>> {
        let found = self.look(table, key);
        found.ok_or_else(|| Error::NotFound { bucket: self.schema.bucket.clone(), key: key.clone() })
    }

    fn insert(
        &mut self,
        table: &Table,
        input: Object,
        number: Option<i64>,
        draws: &mut Draws<'_>,
    ) -> Result<Arc<Record>> {
        let mut running = Running { next: number, place: self.next_place, counter: None };
        let record = self.schema.new_record(input, &mut running, draws)?;
        if self.look(table, record.key()).is_some() {
            return Err(Error::DuplicateKey { bucket: self.schema.bucket.clone(), key: record.key().clone() });
        }
        self.next_place = running.place;
        self.counter = self.counter.max(running.counter.unwrap_or(0));
        if let Some(staged) = self.staged.get_mut(record.key()) {
            // What is there has been deleted, or has expired since it was written.
            staged.replaced |= staged.base.is_some();
        }
        self.stage(table, record.key(), Some(Arc::clone(&record)));
        Ok(record)
    }

    /// All or none of them.
    fn insert_many(
        &mut self,
        table: &Table,
        inputs: Vec<Object>,
        first: Option<i64>,
        draws: &mut Draws<'_>,
    ) -> Result<Written> {
        let before = (self.staged.clone(), self.operations, self.next_place);
        let mut number = first;
        let mut records = Vec::with_capacity(inputs.len());
        for (at, input) in inputs.into_iter().enumerate() {
            let takes = self.schema.wants_number(&input);
            match self.insert(table, input, number, draws) {
                Ok(record) => records.push(record),
                Err(error) => {
                    (self.staged, self.operations, self.next_place) = before;
                    return Err(error.of_item(at));
                }
            }
            if takes {
                number = number.and_then(|number| number.checked_add(1));
            }
        }
        Ok(Written::Records(records))
    }

    fn edit(&mut self, table: &Table, old: &Record, edit: Edit) -> Result<Arc<Record>> {
        let new = self.schema.edited_record(old, edit, self.now)?;
        self.counter = self.counter.max(self.schema.highest_number(&new.values, &new.key).unwrap_or(0));
        self.stage(table, new.key(), Some(Arc::clone(&new)));
        Ok(new)
    }

    fn stage(&mut self, table: &Table, key: &Key, state: Option<Arc<Record>>) {
        self.operations += 1;
        let order = self.operations;
        match self.staged.get_mut(key) {
            Some(staged) => {
                staged.replaced |= staged.base.is_some() && state.is_none();
                (staged.state, staged.order) = (state, order);
            }
            None => {
                let base = table.get(key, self.now);
                let replaced = base.is_some() && state.is_none();
                self.staged.insert(key.clone(), Staged { base, state, replaced, order });
            }
        }
    }

    /// The commit that the transaction comes to, checked against the table as it is.
    ///
    /// # Errors
    /// `Conflict`, `UniqueViolation`, `CapacityExceeded`.
    pub fn plan(&mut self, table: &Table, now: i64) -> Result<Plan> {
        self.advance(table, now)?;
        let mut net: Vec<&Staged> = self.staged.values().collect();
        net.sort_unstable_by_key(|staged| staged.order);
        let mut counter = None;
        let mut steps = Vec::with_capacity(net.len());
        for Staged { base, state, replaced, .. } in net {
            if let Some(new) = state {
                counter = counter.max(self.schema.highest_number(&new.values, &new.key));
            }
            match (base, state) {
                (None, None) => {}
                (Some(old), Some(new)) if !replaced => {
                    steps.push(Step::Update { old: Arc::clone(old), new: Arc::clone(new) });
                }
                (old, new) => {
                    steps.extend(old.iter().map(|old| Step::Delete(Arc::clone(old), Cause::Requested)));
                    if let Some(new) = new {
                        let mut placed = Arc::clone(new);
                        // A copy where somebody else holds it, as its answer: the place is not seen by anybody. In the
                        // order of the inserts, whatever was changed last.
                        let after = new.place.saturating_sub(PROVISIONAL);
                        Arc::make_mut(&mut placed).place = table.next_place.saturating_add(after);
                        steps.push(Step::Insert(placed));
                    }
                }
            }
        }
        if steps.is_empty() {
            return Ok(Plan::nothing(self.now, Written::Count(0)));
        }
        table.finish(self.now, Steps::Many(steps), counter, Written::Count(0))
    }
}

impl Schema {
    /// Whether an insert of this input draws an autoincrement number.
    pub(super) fn wants_number(&self, input: &Object) -> bool {
        self.autoincrements
            && self.fields.iter().any(|field| {
                field.rule.generated == Some(Generated::Autoincrement)
                    && input.get(&field.name).is_none_or(Value::is_null)
            })
    }

    /// The numbers that an input gives autoincrement fields.
    fn numbers_in<'a>(&'a self, input: &'a Object) -> impl Iterator<Item = i64> + 'a {
        let fields = self.fields.iter().filter(|field| field.rule.generated == Some(Generated::Autoincrement));
        fields.filter_map(|field| input.get(&field.name)?.as_i64())
    }
}

impl View {
    /// Shows the bucket without a record.
    fn take(&mut self, record: &Record) {
        let place = self.schema.place_of(record);
        self.order.remove(&place);
        for (rule, index) in self.schema.indexes.iter().zip(&mut self.indexes) {
            index.remove(rule, &self.schema, record);
        }
        if let Some(at) = record.metadata.expires_at {
            self.expiry.remove(&(at, place));
        }
    }

    /// Shows the bucket with a record. Where the order is that of the keys, an expired one may be in its place.
    fn put(&mut self, record: &Arc<Record>) {
        let place = self.schema.place_of(record);
        if let Some(expired) = self.order.get(&place).cloned() {
            self.take(&expired);
        }
        for (rule, index) in self.schema.indexes.iter().zip(&mut self.indexes) {
            index.insert(rule, &self.schema, record);
        }
        if let Some(at) = record.metadata.expires_at {
            self.expiry.insert((at, place.clone()), Arc::clone(record));
        }
        self.order.insert(place, Arc::clone(record));
    }
}
