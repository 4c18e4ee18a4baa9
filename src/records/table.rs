//! A bucket's records: by key, in order, by index and by expiry time; changed by plans alone, which `writing` makes.

use std::sync::Arc;

use hashbrown::HashSet;
use imbl::OrdMap;

use crate::base::error::{Error, Result};
use crate::base::value::{Key, Value};
use crate::records::change::BucketSnapshot;
use crate::records::conflict::Recent;
use crate::records::event::{Cause, Change};
use crate::records::filter::Filter;
use crate::records::index::Index;
use crate::records::keys::Keys;
use crate::records::place::Place;
use crate::records::record::Record;
use crate::records::requests::{Request, Requests};
use crate::records::schema::Schema;
use crate::records::view::View;
use crate::records::write::{Upserted, Write, Written};

/// A write that has passed every check and changes a table at its revision.
#[derive(Debug)]
#[must_use]
pub struct Plan {
    pub(super) at: i64,
    pub(super) steps: Steps,
    pub(super) counter: Option<i64>,
    pub(super) written: Written,
    pub(super) request: Option<Request>,
    /// How many records were looked at to make room.
    pub(super) examined: u64,
}

/// One step is by far the commonest.
#[derive(Debug)]
pub(super) enum Steps {
    One(Step),
    Many(Vec<Step>),
}

/// A change of one record, or of all.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Insert(Arc<Record>),
    Update { old: Arc<Record>, new: Arc<Record> },
    Delete(Arc<Record>, Cause),
    Clear,
}

impl Step {
    /// The key that it touches; none where it touches all.
    pub(super) fn key(&self) -> Option<&Key> {
        match self {
            Self::Insert(record) | Self::Update { old: record, .. } | Self::Delete(record, _) => Some(record.key()),
            Self::Clear => None,
        }
    }
}

impl Steps {
    pub(super) fn as_slice(&self) -> &[Step] {
        match self {
            Self::One(step) => std::slice::from_ref(step),
            Self::Many(steps) => steps,
        }
    }
}

impl Plan {
    /// A plan that changes nothing.
    pub(super) fn nothing(at: i64, written: Written) -> Self {
        Self { at, steps: Steps::Many(Vec::new()), counter: None, written, request: None, examined: 0 }
    }

    /// Whether it changes anything: what changes nothing is no commit.
    pub fn changes_something(&self) -> bool {
        !self.steps.as_slice().is_empty()
    }

    /// The same plan, to be remembered under a request's id.
    pub fn with_request(self, request: Request) -> Self {
        Self { request: Some(request), ..self }
    }

    /// How many records were looked at to make room for what is written.
    pub fn examined(&self) -> u64 {
        self.examined
    }

    /// What the write is answered.
    pub fn written(&self) -> &Written {
        &self.written
    }
}

/// The keys that are deleted and then inserted again. Who looks one up meanwhile must not find it gone.
fn replaced(steps: &[Step]) -> HashSet<Key> {
    let inserted = |step: &Step| matches!(step, Step::Insert(_));
    let deletes = || steps.iter().filter(|step| matches!(step, Step::Delete(..))).filter_map(Step::key);
    if steps.len() <= 8 {
        let comes = |key: &&Key| steps.iter().any(|step| inserted(step) && step.key() == Some(key));
        return deletes().filter(comes).cloned().collect();
    }
    if deletes().next().is_none() {
        return HashSet::new();
    }
    let comes: HashSet<&Key> = steps.iter().filter(|step| inserted(step)).filter_map(Step::key).collect();
    deletes().filter(|key| comes.contains(*key)).cloned().collect()
}

/// What one commit changed, in the order of its events.
#[derive(Clone, Debug)]
pub enum Changes {
    /// A single change.
    One(Change),
    /// None or many.
    Many(Vec<Change>),
}

impl Changes {
    /// The changes.
    pub fn as_slice(&self) -> &[Change] {
        match self {
            Self::One(change) => std::slice::from_ref(change),
            Self::Many(changes) => changes,
        }
    }
}

impl IntoIterator for Changes {
    type Item = Change;
    type IntoIter = std::iter::Chain<std::option::IntoIter<Change>, std::vec::IntoIter<Change>>;

    fn into_iter(self) -> Self::IntoIter {
        let (one, many) = match self {
            Self::One(change) => (Some(change), Vec::new()),
            Self::Many(changes) => (None, changes),
        };
        one.into_iter().chain(many)
    }
}

/// One commit of a table.
#[derive(Debug)]
pub struct Commit {
    /// The answer to the write.
    pub written: Written,
    /// What changed; none where the write changed nothing and the revision stays.
    pub changes: Changes,
    /// The table's revision since then.
    pub revision: u64,
    /// When, in milliseconds since the Unix epoch.
    pub at: i64,
    /// What a clear left behind: takes time to drop, best elsewhere.
    pub remains: Option<Remains>,
    /// The request that this commit answered, to be kept with the records.
    pub request: Option<Request>,
}

/// Records that were cleared.
#[derive(Debug)]
pub struct Remains {
    _keys: Vec<hashbrown::HashTable<Arc<Record>>>,
    _order: OrdMap<Place, Arc<Record>>,
    _positions: Option<OrdMap<u64, Arc<Record>>>,
    _indexes: Box<[Index]>,
    _expiry: Expiry,
}

/// From so many records on, a table is built by two threads.
const WORTH_A_THREAD: usize = 10_000;

/// Records that expire, by when.
pub(super) type Expiry = OrdMap<(i64, Place), Arc<Record>>;

/// A bucket's records. Its maps are persistent ones (`imbl`): a [`View`] clones them at no cost, and stays as it is
/// while the table goes on.
#[derive(Debug)]
pub struct Table {
    pub(super) schema: Arc<Schema>,
    pub(super) keys: Arc<Keys>,
    pub(super) order: OrdMap<Place, Arc<Record>>,
    /// By position, where the order is another and `max_size` needs it.
    pub(super) positions: Option<OrdMap<u64, Arc<Record>>>,
    pub(super) indexes: Box<[Index]>,
    pub(super) expiry: Expiry,
    pub(super) counter: i64,
    /// The highest number that a transaction was promised.
    pub(super) reserved: i64,
    pub(super) revision: u64,
    pub(super) next_place: u64,
    pub(super) recent: Recent,
    pub(super) requests: Requests,
}

impl Table {
    /// An empty table at revision 0.
    pub fn new(schema: Arc<Schema>) -> Self {
        let indexes = schema.indexes.iter().map(|_| Index::default()).collect();
        let positions = (schema.ordered() && schema.max_size().is_some()).then(OrdMap::new);
        let requests = Requests::new(schema.request_window());
        Self {
            schema,
            keys: Arc::default(),
            order: OrdMap::new(),
            positions,
            indexes,
            expiry: Expiry::new(),
            counter: 0,
            reserved: 0,
            revision: 0,
            next_place: 0,
            recent: Recent::default(),
            requests,
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

    /// How many records there are, expired ones that are not purged yet included.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The records by key, for those who look up a single one at any time.
    pub fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    /// 1 more at each commit.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The highest autoincrement number written.
    pub fn counter(&self) -> i64 {
        self.counter
    }

    /// The requests that the bucket remembers, from the oldest to the newest.
    pub fn requests(&self) -> impl Iterator<Item = &Request> {
        self.requests.all()
    }

    /// The record of a key, unless it has expired by `now`.
    pub fn get(&self, key: &Key, now: i64) -> Option<Arc<Record>> {
        self.keys.get(key).filter(|record| !record.is_expired(now))
    }

    /// All records in bucket order, expired ones that are not purged yet included.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = &Arc<Record>> {
        self.order.values()
    }

    /// How many records have expired by `now` and are not purged yet. O(the number).
    pub fn expired(&self, now: i64) -> usize {
        self.expired_by(now).count()
    }

    /// When the next record expires, in milliseconds since the Unix epoch.
    pub fn next_expiry(&self) -> Option<i64> {
        self.expiry.get_min().map(|((at, _), _)| *at)
    }

    /// Records that expire after one time and by another.
    pub(super) fn expiry_between(&self, after: i64, by: i64) -> impl Iterator<Item = &Arc<Record>> {
        // Nothing expires between a time and itself: most reads of a transaction ask at the time of the one before.
        let from = after.saturating_add(1);
        let nothing = Place::At(0);
        let range = (from <= by).then(|| self.expiry.range((from, nothing)..));
        range.into_iter().flatten().take_while(move |((at, _), _)| *at <= by).map(|(_, record)| record)
    }

    pub(super) fn expired_by(&self, now: i64) -> impl Iterator<Item = &Arc<Record>> {
        self.expiry.iter().take_while(move |((at, _), _)| *at <= now).map(|(_, record)| record)
    }

    /// The next autoincrement number; none where they are used up.
    pub(super) fn next_number(&self) -> Option<i64> {
        self.counter.max(self.reserved).checked_add(1)
    }

    /// What a write is answered that was applied before under this id: the records of the same keys as they are now, and
    /// the revision that it made. None where the bucket knows no such write.
    ///
    /// # Errors
    /// `RequestIdReused` where it was another write, `AlreadyApplied` where a record of it is gone.
    pub fn repeated(&self, request: &Request, write: &Write, now: i64) -> Result<Option<(Written, u64)>> {
        let Some(applied) = self.requests.get(&request.id) else { return Ok(None) };
        if applied.fingerprint != request.fingerprint {
            return Err(Error::RequestIdReused { bucket: self.schema.bucket.clone() });
        }
        let gone = || Error::AlreadyApplied { keys: applied.keys.clone(), revision: applied.revision };
        let records: Option<Vec<_>> = applied.keys.iter().map(|key| self.get(key, now)).collect();
        let records = records.ok_or_else(gone)?;
        let first = || records.first().cloned().ok_or_else(gone);
        let written = match write {
            Write::Insert(_) | Write::Update(..) | Write::UpdateIf(..) | Write::Patch(..) => Written::Record(first()?),
            Write::InsertMany(_) => Written::Records(records),
            Write::Upsert(_) if applied.inserted => Written::Upserted(Upserted::Inserted(first()?)),
            Write::Upsert(_) => Written::Upserted(Upserted::Updated(first()?)),
            Write::Delete(_) => Written::Deleted(applied.removed > 0),
            Write::DeleteMany(_) | Write::Clear => {
                Written::Count(usize::try_from(applied.removed).unwrap_or(usize::MAX))
            }
        };
        Ok(Some((written, applied.revision)))
    }

    /// Gives out the next autoincrement numbers above this one, ahead of a commit that may never come; answers the first
    /// of them.
    ///
    /// # Errors
    /// `CounterExhausted`.
    pub fn reserve_numbers(&mut self, count: usize, above: i64) -> Result<i64> {
        let first = self.counter.max(self.reserved).max(above).checked_add(1);
        let last = first.and_then(|first| first.checked_add(i64::try_from(count.max(1)).ok()? - 1));
        match (first, last) {
            (Some(first), Some(last)) => {
                self.reserved = last;
                Ok(first)
            }
            _ => Err(Error::CounterExhausted { bucket: self.schema.bucket.clone() }),
        }
    }

    /// An immutable snapshot, for a query with this filter: where only certain keys can match, their records are looked
    /// up here.
    pub fn view(&self, filter: &Filter, now: i64) -> View {
        match filter.keys(&self.schema) {
            Some(keys) => {
                let keyed = keys.iter().filter_map(|key| self.get(key, now)).collect();
                self.whole(now).with_keyed(keyed, filter.is_of_keys(&self.schema))
            }
            None => self.whole(now),
        }
    }

    /// An immutable snapshot, for reads that depend on all of it.
    pub fn whole(&self, now: i64) -> View {
        let (order, indexes, expiry) = (self.order.clone(), self.indexes.clone(), self.expiry.clone());
        View::new(Arc::clone(&self.schema), order, indexes, expiry, self.revision, now)
    }

    /// Makes a planned change, which must be of this table at this revision; cannot fail.
    pub fn apply(&mut self, plan: Plan) -> Commit {
        let Plan { at, steps, counter, written, request, examined: _ } = plan;
        let mut remains = None;
        let changes = match steps {
            Steps::Many(steps) if steps.is_empty() => {
                let changes = Changes::Many(Vec::new());
                return Commit { written, changes, revision: self.revision, at, remains, request: None };
            }
            Steps::One(step) => Changes::One(self.perform(step, &HashSet::new(), &mut remains)),
            Steps::Many(steps) => {
                let replaced = replaced(&steps);
                let changes = steps.into_iter().map(|step| self.perform(step, &replaced, &mut remains));
                Changes::Many(changes.collect())
            }
        };
        self.revision += 1;
        if let Some(number) = counter {
            self.counter = self.counter.max(number);
        }
        if self.recent.is_watched() {
            for change in changes.as_slice() {
                self.recent.note(self.revision, change);
            }
        }
        let request = request.map(|request| self.requests.note(request, &written, self.revision));
        Commit { written, changes, revision: self.revision, at, remains, request }
    }

    fn perform(&mut self, step: Step, replaced: &HashSet<Key>, remains: &mut Option<Remains>) -> Change {
        match step {
            Step::Insert(record) => {
                self.add(&record);
                Change::Inserted { record }
            }
            Step::Update { old, new } => {
                self.exchange(&old, &new);
                Change::Updated { old, new }
            }
            Step::Delete(record, cause) => {
                if !replaced.contains(record.key()) {
                    self.keys.remove(record.key());
                }
                self.take(&record);
                Change::Deleted { record, cause }
            }
            Step::Clear => {
                let records = self.len();
                let empty = Self::empty_at(Arc::clone(&self.schema), self.revision);
                *remains = Some(Remains {
                    _keys: self.keys.clear(),
                    _order: std::mem::take(&mut self.order),
                    _positions: std::mem::replace(&mut self.positions, empty.positions),
                    _indexes: std::mem::replace(&mut self.indexes, empty.indexes),
                    _expiry: std::mem::take(&mut self.expiry),
                });
                Change::Cleared { records }
            }
        }
    }

    fn add(&mut self, record: &Arc<Record>) {
        let place = self.schema.place_of(record);
        self.keys.put(record);
        if let Some(at) = record.metadata.expires_at {
            self.expiry.insert((at, place.clone()), Arc::clone(record));
        }
        for (rule, index) in self.schema.indexes.iter().zip(&mut self.indexes) {
            index.insert(rule, &self.schema, record);
        }
        if let Some(positions) = &mut self.positions {
            positions.insert(record.place, Arc::clone(record));
        }
        self.order.insert(place, Arc::clone(record));
        self.next_place = self.next_place.max(record.place.saturating_add(1));
    }

    /// Takes a record out of everything but the keys.
    fn take(&mut self, record: &Arc<Record>) {
        let place = self.schema.place_of(record);
        self.order.remove(&place);
        if let Some(positions) = &mut self.positions {
            positions.remove(&record.place);
        }
        for (rule, index) in self.schema.indexes.iter().zip(&mut self.indexes) {
            index.remove(rule, &self.schema, record);
        }
        if let Some(at) = record.metadata.expires_at {
            self.expiry.remove(&(at, place));
        }
    }

    /// The next version of a record, which has the same key and place.
    fn exchange(&mut self, old: &Arc<Record>, new: &Arc<Record>) {
        let place = self.schema.place_of(new);
        self.keys.put(new);
        if let Some(positions) = &mut self.positions {
            positions.insert(new.place, Arc::clone(new));
        }
        for (rule, index) in self.schema.indexes.iter().zip(&mut self.indexes) {
            index.replace(rule, &self.schema, old, new);
        }
        if let Some(at) = old.metadata.expires_at {
            self.expiry.remove(&(at, place.clone()));
        }
        if let Some(at) = new.metadata.expires_at {
            self.expiry.insert((at, place.clone()), Arc::clone(new));
        }
        self.order.insert(place, Arc::clone(new));
    }

    /// The whole table as an adapter keeps it; shares the records.
    pub fn snapshot(&self) -> BucketSnapshot {
        let records = self.all().cloned().collect();
        let mut snapshot = BucketSnapshot::new(self.schema.schema_version(), self.revision, self.counter, records);
        snapshot.requests = self.requests.all().cloned().collect();
        snapshot
    }

    /// Builds a table of records that are sorted by place; answers too which keys came twice.
    pub(super) fn from_parts(
        schema: Arc<Schema>,
        records: Vec<Arc<Record>>,
        counter: i64,
        revision: u64,
    ) -> (Self, Vec<Key>) {
        let mut table = Self { counter, revision, ..Self::new(schema) };
        let schema = Arc::clone(&table.schema);
        let expiring = records
            .iter()
            .filter_map(|record| Some(((record.metadata.expires_at?, schema.place_of(record)), Arc::clone(record))));
        table.expiry = expiring.collect();
        table.next_place = records.last().map_or(0, |record| record.place.saturating_add(1));
        if table.positions.is_some() {
            table.positions = Some(records.iter().map(|record| (record.place, Arc::clone(record))).collect());
        }
        let rest = || {
            let order = records.iter().map(|record| (schema.place_of(record), Arc::clone(record)));
            let indexes = schema.indexes.iter().map(|rule| Index::build(rule, &schema, records.iter()));
            (order.collect(), indexes.collect())
        };
        let (keyed, (order, indexes)) = if records.len() < WORTH_A_THREAD {
            (Keys::of(&records), rest())
        } else {
            // The two take about as long.
            std::thread::scope(|scope| {
                let keys = scope.spawn(|| Keys::of(&records));
                let rest = rest();
                (keys.join().unwrap_or_else(|_| Keys::of(&records)), rest)
            })
        };
        let (keys, twice) = keyed;
        (table.keys, table.order, table.indexes) = (Arc::new(keys), order, indexes);
        (table, twice)
    }

    pub(super) fn collisions(&self) -> impl Iterator<Item = (String, &Arc<Record>, &Arc<Record>)> {
        let unique = self.schema.indexes.iter().zip(&self.indexes).filter(|(rule, _)| rule.unique);
        unique.flat_map(|(rule, index)| index.collisions().map(move |(record, next)| (rule.label(), record, next)))
    }

    /// The key that an input names, in the kind that the bucket's keys have.
    pub(super) fn key_of(&self, input: Option<&Value>) -> Option<Key> {
        input.cloned().and_then(Key::from_value)
    }
}
