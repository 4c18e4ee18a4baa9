//! Sorted indexes.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::base::value::{Key, Value};
use crate::records::record::Record;
use crate::records::schema::IndexRule;

/// The values of one record in an index; one value, as most indexes have, is kept in place.
#[derive(Clone, Debug)]
pub(super) enum Values {
    One(Value),
    Many(Box<[Value]>),
}

impl Values {
    pub(super) fn as_slice(&self) -> &[Value] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }
}

impl PartialEq for Values {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Values {}

impl PartialOrd for Values {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Values {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

/// Sorted by (values, place), so that equal values come in bucket order.
#[derive(Debug, Default)]
pub(super) struct Index {
    entries: BTreeMap<(Values, u64), Arc<Record>>,
}

impl IndexRule {
    /// What the index files the record under; an absent value counts as Null.
    pub(super) fn values(&self, record: &Record) -> Values {
        let value = |path: &super::schema::Path| {
            let root = record.at_position(path.position);
            let found = match &path.rest {
                None => root,
                Some(rest) => root.and_then(|root| root.at(rest)),
            };
            found.cloned().unwrap_or_default()
        };
        match &*self.paths {
            [path] => Values::One(value(path)),
            paths => Values::Many(paths.iter().map(value).collect()),
        }
    }
}

impl Index {
    pub(super) fn insert(&mut self, rule: &IndexRule, record: &Arc<Record>) {
        self.entries.insert((rule.values(record), record.place), Arc::clone(record));
    }

    pub(super) fn remove(&mut self, rule: &IndexRule, record: &Record) {
        self.entries.remove(&(rule.values(record), record.place));
    }

    /// Replaces a record by its next version, which has the same place.
    pub(super) fn replace(&mut self, rule: &IndexRule, old: &Record, new: &Arc<Record>) {
        let values = rule.values(new);
        let before = rule.values(old);
        if values != before {
            self.entries.remove(&(before, old.place));
        }
        self.entries.insert((values, new.place), Arc::clone(new));
    }

    /// The records that have exactly these values, in bucket order.
    pub(super) fn equal(&self, values: Values) -> impl Iterator<Item = &Arc<Record>> {
        let bounds = (Bound::Included((values.clone(), 0)), Bound::Included((values, u64::MAX)));
        self.entries.range(bounds).map(|(_, record)| record)
    }

    /// The record that holds `values` in a unique index, unless it is the one with `own` key. Nulls never collide.
    pub(super) fn holder(&self, values: &Values, own: Option<&Key>) -> Option<&Arc<Record>> {
        if values.as_slice().iter().any(Value::is_null) {
            return None;
        }
        self.equal(values.clone()).find(|record| own != Some(record.key()))
    }

    /// Builds the index of many records at once.
    pub(super) fn build<'a>(rule: &IndexRule, records: impl Iterator<Item = &'a Arc<Record>>) -> Self {
        let entries = records.map(|record| ((rule.values(record), record.place), Arc::clone(record))).collect();
        Self { entries }
    }

    /// Pairs of neighbours that hold the same values, none of them Null.
    pub(super) fn collisions(&self) -> impl Iterator<Item = (&Arc<Record>, &Arc<Record>)> {
        let pairs = self.entries.iter().zip(self.entries.iter().skip(1));
        pairs.filter_map(|(((values, _), record), ((next_values, _), next))| {
            let same = values == next_values && !values.as_slice().iter().any(Value::is_null);
            same.then_some((record, next))
        })
    }
}
