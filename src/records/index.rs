//! Sorted indexes.

use std::borrow::Borrow;
use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;

use crate::base::value::{Key, Value};
use crate::records::place::Place;
use crate::records::record::Record;
use crate::records::schema::{IndexRule, Schema};
use crate::records::span::{Cut, NULL, Refs, Span};

/// The values of one record in an index; one value, as most indexes have, is kept in place. They sort by the first that
/// differs, so that the entries that begin alike are neighbours.
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

    fn has_null(&self) -> bool {
        self.as_slice().iter().any(Value::is_null)
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

impl Borrow<[Value]> for Values {
    fn borrow(&self) -> &[Value] {
        self.as_slice()
    }
}

/// The records that share their values, in bucket order; a single one, as most values have, is kept in place.
#[derive(Clone, Debug)]
pub(super) enum Postings {
    One(Arc<Record>),
    /// At least two.
    Many(OrdMap<Place, Arc<Record>>),
}

impl Postings {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(records) => records.len(),
        }
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Record>> {
        let (one, many) = match self {
            Self::One(record) => (Some(record), None),
            Self::Many(records) => (None, Some(records.values())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// Those after a place, or those before it from the last to the first.
    pub(super) fn from<'a>(
        &'a self,
        schema: &Schema,
        place: &Place,
        backward: bool,
    ) -> Box<dyn Iterator<Item = &'a Arc<Record>> + 'a> {
        match self {
            Self::One(record) => {
                let own = schema.place_of(record);
                let fits = if backward { own < *place } else { own > *place };
                Box::new(fits.then_some(record).into_iter())
            }
            Self::Many(records) if backward => {
                Box::new(records.range::<_, Place>(..place).rev().map(|(_, record)| record))
            }
            Self::Many(records) => {
                let bounds = (Bound::Excluded(place), Bound::Unbounded);
                Box::new(records.range::<_, Place>(bounds).map(|(_, record)| record))
            }
        }
    }

    fn insert(&mut self, schema: &Schema, record: &Arc<Record>) {
        let place = schema.place_of(record);
        match self {
            Self::One(other) => {
                let other_place = schema.place_of(other);
                if other_place == place {
                    *other = Arc::clone(record);
                } else {
                    let mut records = OrdMap::unit(other_place, Arc::clone(other));
                    records.insert(place, Arc::clone(record));
                    *self = Self::Many(records);
                }
            }
            Self::Many(records) => {
                records.insert(place, Arc::clone(record));
            }
        }
    }

    /// Takes a record out of many; what one is left is kept in place.
    fn remove(&mut self, place: &Place) {
        if let Self::Many(records) = self {
            records.remove(place);
            if let (1, Some((_, last))) = (records.len(), records.get_min()) {
                *self = Self::One(Arc::clone(last));
            }
        }
    }
}

/// Records sorted by (values, place), so that equal values come in bucket order. A clone is cheap and shares everything
/// until one of the two is changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    entries: OrdMap<Values, Postings>,
}

impl IndexRule {
    /// What the index files the record under; an absent value counts as Null.
    pub(super) fn values(&self, record: &Record) -> Values {
        let refs = self.refs(record);
        match refs.as_slice() {
            [value] => Values::One((*value).clone()),
            values => Values::Many(values.iter().copied().cloned().collect()),
        }
    }

    pub(super) fn refs<'a>(&self, record: &'a Record) -> Refs<'a> {
        let mut refs = Refs::new();
        for path in &self.paths {
            let root = record.at_position(path.position);
            let found = match &path.rest {
                None => root,
                Some(rest) => root.and_then(|root| root.at(rest)),
            };
            refs.push(found.unwrap_or(&NULL));
        }
        refs
    }
}

impl Index {
    pub(super) fn insert(&mut self, rule: &IndexRule, schema: &Schema, record: &Arc<Record>) {
        match self.entries.get_mut(&rule.refs(record)) {
            Some(postings) => postings.insert(schema, record),
            None => {
                self.entries.insert(rule.values(record), Postings::One(Arc::clone(record)));
            }
        }
    }

    pub(super) fn remove(&mut self, rule: &IndexRule, schema: &Schema, record: &Record) {
        let refs = rule.refs(record);
        let place = schema.place_of(record);
        match self.entries.get_mut(&refs) {
            Some(Postings::One(only)) if schema.place_of(only) == place => {
                self.entries.remove(&refs);
            }
            Some(postings) => postings.remove(&place),
            None => {}
        }
    }

    /// Replaces a record by its next version, which has the same place.
    pub(super) fn replace(&mut self, rule: &IndexRule, schema: &Schema, old: &Record, new: &Arc<Record>) {
        if rule.refs(old) != rule.refs(new) {
            self.remove(rule, schema, old);
        }
        self.insert(rule, schema, new);
    }

    /// The records that have exactly these values.
    pub(super) fn equal(&self, values: &[Value]) -> Option<&Postings> {
        self.entries.get(values)
    }

    pub(super) fn equal_refs(&self, values: &Refs<'_>) -> Option<&Postings> {
        self.entries.get(values)
    }

    /// The entries between two cuts.
    pub(super) fn between(
        &self,
        lower: Cut<'_>,
        upper: Cut<'_>,
    ) -> impl DoubleEndedIterator<Item = (&Values, &Postings)> {
        self.entries.range((Bound::Included(lower), Bound::Included(upper)))
    }

    /// How many records are in a run, counted until there are more than `limit`.
    pub(super) fn count(&self, rule: &IndexRule, span: &Span<'_>, limit: usize) -> usize {
        if span.equal.as_slice().len() == rule.paths.len() {
            return self.equal_refs(&span.equal).map_or(0, Postings::len);
        }
        let mut count = 0;
        for (_, postings) in self.between(span.start(), span.end()) {
            count += postings.len();
            if count > limit {
                break;
            }
        }
        count
    }

    /// The record that holds `values` in a unique index, unless it is the one with `own` key. Nulls never collide.
    pub(super) fn holder(&self, values: &Values, own: Option<&Key>) -> Option<&Arc<Record>> {
        if values.has_null() {
            return None;
        }
        self.equal(values.as_slice())?.iter().find(|record| own != Some(record.key()))
    }

    /// Builds the index of many records at once.
    pub(super) fn build<'a>(rule: &IndexRule, schema: &Schema, records: impl Iterator<Item = &'a Arc<Record>>) -> Self {
        let mut sorted: Vec<(Values, &Arc<Record>)> = records.map(|record| (rule.values(record), record)).collect();
        // Ascending inserts stay in the nodes that the one before has touched.
        sorted.sort_by(|left, right| left.0.cmp(&right.0));
        let mut index = Self::default();
        let mut run: Option<(Values, Postings)> = None;
        for (values, record) in sorted {
            match &mut run {
                Some((held, postings)) if *held == values => postings.insert(schema, record),
                _ => {
                    if let Some((values, postings)) = run.replace((values, Postings::One(Arc::clone(record)))) {
                        index.entries.insert(values, postings);
                    }
                }
            }
        }
        if let Some((values, postings)) = run {
            index.entries.insert(values, postings);
        }
        index
    }

    /// Pairs of neighbours that hold the same values, none of them Null.
    pub(super) fn collisions(&self) -> impl Iterator<Item = (&Arc<Record>, &Arc<Record>)> {
        let shared = self.entries.iter().filter(|(values, postings)| postings.len() > 1 && !values.has_null());
        shared.flat_map(|(_, postings)| postings.iter().zip(postings.iter().skip(1)))
    }
}
