//! Does a table do what the plainest list of records would do, whatever is written to it?
//!
//! The model keeps a list in bucket order and looks through all of it for everything. It knows nothing of indexes, plans
//! and persistent maps.

use std::collections::BTreeMap;

use proptest::prelude::*;
use ractor_persistence::base::error::Error;
use ractor_persistence::base::value::Object;
use ractor_persistence::record;
use ractor_persistence::records::{
    BucketDefinition, Cause, Change, Commit, Draws, Field, Filter, Generated, Patch, Record, Schema, Table, Write,
    Written,
};

use crate::world::START;

const TTL: i64 = 10;
const MAX_SIZE: usize = 5;

fn definition(ordered: bool) -> BucketDefinition {
    let id = Field::int().generated(Generated::Autoincrement);
    let definition = BucketDefinition::new("model")
        .key("id")
        .field("id", id)
        .field("email", Field::int().unique())
        .field("n", Field::int().min(0).max(9))
        .index(["n"])
        .ttl(std::time::Duration::from_millis(10))
        .max_size(MAX_SIZE);
    if ordered { definition.ordered() } else { definition }
}

/// What an insert or a change says.
#[derive(Clone, Debug, Default)]
struct Input {
    id: Option<i64>,
    email: Option<i64>,
    /// 10 is one too many.
    n: Option<i64>,
    /// From now on; none is for ever.
    expires: Option<Option<i64>>,
}

impl Input {
    fn object(&self, now: i64) -> Object {
        let mut object = record! {};
        if let Some(id) = self.id {
            object.insert("id", id);
        }
        if let Some(email) = self.email {
            object.insert("email", email);
        }
        if let Some(n) = self.n {
            object.insert("n", n);
        }
        if let Some(expires) = self.expires {
            object.insert("_expires_at", expires.map(|after| now + after));
        }
        object
    }

    fn is_valid(&self) -> bool {
        self.n.is_none_or(|n| n <= 9)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert(Input),
    InsertMany(Vec<Input>),
    Upsert(Input),
    Update(i64, Input),
    UpdateIf(i64, u64, Input),
    Increment(i64, i64),
    Delete(i64),
    /// All whose `n` is below.
    DeleteMany(i64),
    Clear,
    Purge(usize),
    Pass(i64),
}

fn input() -> impl Strategy<Value = Input> {
    let expires = prop_oneof![5 => Just(None), 1 => Just(Some(None)), 2 => (0..15_i64).prop_map(|at| Some(Some(at)))];
    let parts =
        (proptest::option::of(1..9_i64), proptest::option::of(0..6_i64), proptest::option::of(0..=10_i64), expires);
    parts.prop_map(|(id, email, n, expires)| Input { id, email, n, expires })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || 1..12_i64;
    let step = prop_oneof![
        4 => input().prop_map(Step::Insert),
        2 => proptest::collection::vec(input(), 0..7).prop_map(Step::InsertMany),
        3 => input().prop_map(Step::Upsert),
        3 => (key(), input()).prop_map(|(key, input)| Step::Update(key, input)),
        2 => (key(), 1..4_u64, input()).prop_map(|(key, version, input)| Step::UpdateIf(key, version, input)),
        2 => (key(), 0..6_i64).prop_map(|(key, by)| Step::Increment(key, by)),
        2 => key().prop_map(Step::Delete),
        1 => (0..9_i64).prop_map(Step::DeleteMany),
        1 => Just(Step::Clear),
        1 => (0..4_usize).prop_map(Step::Purge),
        4 => (0..8_i64).prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 0..60)
}

/// A record of the model.
#[derive(Clone, Debug, PartialEq)]
struct Plain {
    id: i64,
    email: Option<i64>,
    n: Option<i64>,
    version: u64,
    created_at: i64,
    updated_at: i64,
    expires_at: Option<i64>,
}

fn plain(record: &Record) -> Plain {
    let int = |name| record.get(name).and_then(|value| value.as_i64());
    let metadata = record.metadata();
    Plain {
        id: record.key().as_value().as_i64().unwrap(),
        email: int("email"),
        n: int("n"),
        version: metadata.version,
        created_at: metadata.created_at,
        updated_at: metadata.updated_at,
        expires_at: metadata.expires_at,
    }
}

/// Why a write is refused.
#[derive(Debug, PartialEq)]
enum Refusal {
    Invalid(Option<usize>),
    Duplicate(i64),
    Unique(i64),
    NotFound,
    Version(u64),
    Capacity,
}

fn refusal(error: &Error) -> Refusal {
    let int = |key: &ractor_persistence::base::value::Key| key.as_value().as_i64().unwrap();
    match error {
        Error::Validation { index, .. } => Refusal::Invalid(*index),
        Error::DuplicateKey { key, .. } => Refusal::Duplicate(int(key)),
        Error::UniqueViolation { holder, .. } => Refusal::Unique(int(holder)),
        Error::NotFound { .. } => Refusal::NotFound,
        Error::VersionMismatch { actual, .. } => Refusal::Version(*actual),
        Error::CapacityExceeded { .. } => Refusal::Capacity,
        other => panic!("{other:?}"),
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Answer {
    Records(Vec<Plain>),
    Upserted(bool, Plain),
    Gone(usize),
}

fn answer(written: &Written) -> Answer {
    match written {
        Written::Upserted(upserted) => Answer::Upserted(upserted.is_inserted(), plain(&upserted.clone().into_record())),
        Written::Record(_) | Written::Records(_) => {
            Answer::Records(written.records().iter().map(|record| plain(record)).collect())
        }
        _ => Answer::Gone(written.gone()),
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Told {
    Inserted(Plain),
    Updated(Plain, Plain),
    Deleted(Plain, Cause),
    Cleared(usize),
}

fn told(change: &Change) -> Told {
    match change {
        Change::Inserted { record } => Told::Inserted(plain(record)),
        Change::Updated { old, new } => Told::Updated(plain(old), plain(new)),
        Change::Deleted { record, cause } => Told::Deleted(plain(record), *cause),
        Change::Cleared { records } => Told::Cleared(*records),
        other => panic!("{other:?}"),
    }
}

#[derive(Clone, Debug, Default)]
struct Model {
    /// In the order of their inserts.
    records: Vec<Plain>,
    counter: i64,
    revision: u64,
    now: i64,
    ordered: bool,
}

impl Model {
    /// The order in which what has expired goes: by when, then in bucket order.
    fn expired(&self) -> Vec<Plain> {
        let mut expired: Vec<Plain> = self.records.iter().filter(|record| !self.is_live(record)).cloned().collect();
        expired.sort_by_key(|record| (record.expires_at, if self.ordered { record.id } else { 0 }));
        expired
    }

    fn is_live(&self, record: &Plain) -> bool {
        record.expires_at.is_none_or(|at| at > self.now)
    }

    fn live(&self, id: i64) -> Option<&Plain> {
        self.records.iter().find(|record| record.id == id && self.is_live(record))
    }

    fn expiry(&self, input: &Input, before: Option<i64>) -> Option<i64> {
        input.expires.map_or(before, |after| after.map(|after| self.now + after))
    }

    fn inserted(&self, input: &Input, counter: &mut i64) -> Plain {
        let id = input.id.unwrap_or(*counter + 1);
        *counter = (*counter).max(id);
        let expires_at = self.expiry(input, Some(self.now + TTL));
        let (created_at, updated_at) = (self.now, self.now);
        Plain { id, email: input.email, n: input.n, version: 1, created_at, updated_at, expires_at }
    }

    fn updated(&self, old: &Plain, input: &Input) -> Plain {
        Plain {
            email: input.email.or(old.email),
            n: input.n.or(old.n),
            version: old.version + 1,
            updated_at: self.now,
            expires_at: self.expiry(input, old.expires_at),
            ..old.clone()
        }
    }

    /// Puts in what was checked: expired records in its way go first, then those beyond the room that there is.
    fn put(&mut self, new: Vec<Plain>, inserts: bool) -> Result<Vec<Told>, Refusal> {
        let mut next = self.clone();
        let mut events = Vec::new();
        let mut seen: Vec<&Plain> = Vec::new();
        // Keys that are in the list twice are found before anything else.
        for record in &new {
            if inserts && seen.iter().any(|other| other.id == record.id) {
                return Err(Refusal::Duplicate(record.id));
            }
            seen.push(record);
        }
        for (at, record) in new.iter().enumerate() {
            let purge = |next: &mut Self, events: &mut Vec<Told>, id: i64| {
                if let Some(at) = next.records.iter().position(|other| other.id == id) {
                    events.push(Told::Deleted(next.records.remove(at), Cause::Expired));
                }
            };
            if inserts {
                if self.live(record.id).is_some() {
                    return Err(Refusal::Duplicate(record.id));
                }
                purge(&mut next, &mut events, record.id);
            }
            let Some(email) = record.email else { continue };
            let holder = self.records.iter().find(|other| other.email == Some(email) && other.id != record.id);
            if let Some(holder) = holder {
                if self.is_live(holder) {
                    return Err(Refusal::Unique(holder.id));
                }
                purge(&mut next, &mut events, holder.id);
            }
            if let Some(other) = new[..at].iter().find(|other| other.email == Some(email)) {
                return Err(Refusal::Unique(other.id));
            }
        }
        if inserts {
            let written: Vec<i64> = new.iter().map(|record| record.id).collect();
            while next.records.len() + new.len() > MAX_SIZE {
                let (goes, cause) = match (next.expired().first(), next.records.first()) {
                    (Some(expired), _) => (expired.clone(), Cause::Expired),
                    (None, Some(oldest)) => (oldest.clone(), Cause::Evicted),
                    (None, None) => return Err(Refusal::Capacity),
                };
                assert!(!written.contains(&goes.id));
                next.records.retain(|record| record.id != goes.id);
                events.push(Told::Deleted(goes, cause));
            }
            events.extend(new.iter().cloned().map(Told::Inserted));
            next.records.extend(new);
        } else {
            for new in new {
                let old = next.records.iter_mut().find(|old| old.id == new.id).unwrap();
                events.push(Told::Updated(old.clone(), new.clone()));
                *old = new;
            }
        }
        *self = next;
        Ok(events)
    }

    fn insert(&mut self, inputs: &[Input], many: bool) -> Result<(Vec<Plain>, Vec<Told>), Refusal> {
        if let Some(at) = inputs.iter().position(|input| !input.is_valid()) {
            return Err(Refusal::Invalid(many.then_some(at)));
        }
        let mut counter = self.counter;
        let new: Vec<Plain> = inputs.iter().map(|input| self.inserted(input, &mut counter)).collect();
        if new.is_empty() {
            return Ok((new, Vec::new()));
        }
        let events = self.put(new.clone(), true)?;
        self.counter = counter;
        Ok((new, events))
    }

    fn update(&mut self, id: i64, input: &Input) -> Result<(Plain, Vec<Told>), Refusal> {
        let old = self.live(id).cloned().ok_or(Refusal::NotFound)?;
        let new = self.updated(&old, input);
        if new.n.is_some_and(|n| n > 9) {
            return Err(Refusal::Invalid(None));
        }
        Ok((new.clone(), self.put(vec![new], false)?))
    }

    fn delete(&mut self, goes: impl Fn(&Self, &Plain) -> bool, cause: Cause, most: usize) -> (Answer, Vec<Told>) {
        let going: Vec<Plain> = self.records.iter().filter(|record| goes(self, record)).take(most).cloned().collect();
        self.records.retain(|record| !going.contains(record));
        (Answer::Gone(going.len()), going.into_iter().map(|record| Told::Deleted(record, cause)).collect())
    }

    fn write(&mut self, step: &Step) -> Result<(Answer, Vec<Told>), Refusal> {
        Ok(match step {
            Step::Insert(input) => {
                let (records, events) = self.insert(std::slice::from_ref(input), false)?;
                (Answer::Records(records), events)
            }
            Step::InsertMany(inputs) => {
                let (records, events) = self.insert(inputs, true)?;
                (Answer::Records(records), events)
            }
            Step::Upsert(input) => match input.id.filter(|id| self.live(*id).is_some()) {
                Some(id) => {
                    let (record, events) = self.update(id, input)?;
                    (Answer::Upserted(false, record), events)
                }
                None => {
                    let (mut records, events) = self.insert(std::slice::from_ref(input), false)?;
                    (Answer::Upserted(true, records.remove(0)), events)
                }
            },
            Step::Update(id, input) => {
                let (record, events) = self.update(*id, input)?;
                (Answer::Records(vec![record]), events)
            }
            Step::UpdateIf(id, version, input) => {
                let actual = self.live(*id).ok_or(Refusal::NotFound)?.version;
                if actual != *version {
                    return Err(Refusal::Version(actual));
                }
                let (record, events) = self.update(*id, input)?;
                (Answer::Records(vec![record]), events)
            }
            Step::Increment(id, by) => {
                let n = self.live(*id).ok_or(Refusal::NotFound)?.n.unwrap_or(0) + by;
                let (record, events) = self.update(*id, &Input { n: Some(n), ..Input::default() })?;
                (Answer::Records(vec![record]), events)
            }
            Step::Delete(id) => {
                self.delete(|model, record| record.id == *id && model.is_live(record), Cause::Requested, 1)
            }
            Step::DeleteMany(below) => {
                let goes = |model: &Self, record: &Plain| model.is_live(record) && record.n.is_some_and(|n| n < *below);
                self.delete(goes, Cause::Requested, usize::MAX)
            }
            Step::Clear => {
                let (live, all) =
                    (self.records.iter().filter(|record| self.is_live(record)).count(), self.records.len());
                self.records.clear();
                let events = if all == 0 { Vec::new() } else { vec![Told::Cleared(all)] };
                (Answer::Gone(live), events)
            }
            Step::Purge(most) => {
                let mut expired = self.expired();
                expired.truncate(*most);
                let (answer, _) = self.delete(|_, record| expired.contains(record), Cause::Expired, usize::MAX);
                (answer, expired.into_iter().map(|record| Told::Deleted(record, Cause::Expired)).collect())
            }
            Step::Pass(_) => unreachable!("it is no write"),
        })
    }
}

fn write(step: &Step, now: i64) -> Option<Write> {
    let object = |input: &Input| input.object(now);
    Some(match step {
        Step::Insert(input) => Write::Insert(object(input)),
        Step::InsertMany(inputs) => Write::InsertMany(inputs.iter().map(object).collect()),
        Step::Upsert(input) => Write::Upsert(object(input)),
        Step::Update(id, input) => Write::Update((*id).into(), object(input)),
        Step::UpdateIf(id, version, input) => Write::UpdateIf((*id).into(), *version, object(input)),
        Step::Increment(id, by) => Write::Patch((*id).into(), Patch::new().increment("n", *by)),
        Step::Delete(id) => Write::Delete((*id).into()),
        Step::DeleteMany(below) => Write::DeleteMany(Filter::lt("n", *below)),
        Step::Clear => Write::Clear,
        Step::Purge(_) | Step::Pass(_) => return None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn a_table_does_what_a_plain_list_does(steps in steps(), ordered in any::<bool>()) {
        let schema = Schema::new(definition(ordered)).unwrap();
        let mut table = Table::new(schema.into());
        let mut model = Model { now: START, ordered, ..Model::default() };
        for step in &steps {
            if let Step::Pass(ms) = step {
                model.now += ms;
            } else {
                let expected = model.write(step);
                let plan = match (step, write(step, model.now)) {
                    (_, Some(write)) => table.plan(write, &mut Draws { now: model.now, uuid: &mut uuid::Uuid::new_v4 }),
                    (Step::Purge(most), None) => Ok(table.plan_purge(model.now, *most)),
                    _ => unreachable!("all others are writes"),
                };
                match (plan, expected) {
                    (Ok(plan), Ok((expected, events))) => {
                        prop_assert_eq!(plan.changes_something(), !events.is_empty());
                        let Commit { written, changes, revision, .. } = table.apply(plan);
                        prop_assert_eq!(answer(&written), expected);
                        let found: Vec<Told> = changes.as_slice().iter().map(told).collect();
                        model.revision += u64::from(!events.is_empty());
                        prop_assert_eq!(revision, model.revision);
                        if ordered && matches!(step, Step::DeleteMany(_)) {
                            // In bucket order, which is not the model's.
                            let ids: Vec<_> = found.iter().map(|event| match event {
                                Told::Deleted(record, _) => record.id,
                                _ => 0,
                            }).collect();
                            prop_assert!(ids.is_sorted());
                            prop_assert_eq!(found.len(), events.len());
                        } else {
                            prop_assert_eq!(found, events);
                        }
                    }
                    (Err(error), Err(expected)) => {
                        let taken = |refusal: &Refusal| matches!(refusal, Refusal::Duplicate(_) | Refusal::Unique(_));
                        let found = refusal(&error);
                        // Which of several faults of a list is named does not matter.
                        let either = matches!(step, Step::InsertMany(_)) && taken(&found) && taken(&expected);
                        prop_assert!(either || found == expected, "{:?}: {:?}, expected {:?}", step, found, expected);
                    }
                    (plan, expected) => prop_assert!(false, "{step:?}: {plan:?}, expected {expected:?}"),
                }
            }
            // Whatever was refused has changed nothing.
            let mut live: Vec<Plain> = model.records.iter().filter(|record| model.is_live(record)).cloned().collect();
            if ordered {
                live.sort_by_key(|record| record.id);
            }
            let view = table.whole(model.now);
            let all: Vec<Plain> = view.all().iter().map(|record| plain(record)).collect();
            prop_assert_eq!(&all, &live, "after {:?}", step);
            prop_assert_eq!((table.len(), table.revision()), (model.records.len(), model.revision));
            prop_assert_eq!(table.expired(model.now), model.records.len() - live.len());
            prop_assert_eq!(table.counter(), model.counter);
            // By key and by index as well.
            for id in 1..12 {
                let found = table.get(&id.into(), model.now).map(|record| plain(&record));
                prop_assert_eq!(found, live.iter().find(|record| record.id == id).cloned());
            }
            let mut by_n: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
            for record in &live {
                by_n.entry(record.n.unwrap_or(-1)).or_default().push(record.id);
            }
            for n in 0..10 {
                let found = view.find(&Filter::eq("n", n).into()).unwrap();
                let ids: Vec<i64> = found.iter().map(|record| plain(record).id).collect();
                prop_assert_eq!(ids, by_n.remove(&n).unwrap_or_default());
            }
        }
    }
}
