//! Runs of an index: cuts between its entries, found without building the values of an entry.

use std::cmp::Ordering;
use std::ops::Bound;

use equivalent::{Comparable, Equivalent};

use crate::base::value::Value;
use crate::records::definition::MAX_INDEX_PATHS;
use crate::records::filter::Kind;
use crate::records::index::Values;

pub(super) static NULL: Value = Value::Null;

/// Up to as many borrowed values as an index has paths, in place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refs<'q> {
    values: [&'q Value; MAX_INDEX_PATHS],
    len: usize,
}

impl<'q> Refs<'q> {
    pub(super) fn new() -> Self {
        Self { values: [&NULL; MAX_INDEX_PATHS], len: 0 }
    }

    /// Adds a value; an index has no more paths than there is room, so none is lost.
    pub(super) fn push(&mut self, value: &'q Value) {
        if let Some(slot) = self.values.get_mut(self.len) {
            *slot = value;
            self.len += 1;
        }
    }

    pub(super) fn as_slice(&self) -> &[&'q Value] {
        &self.values[..self.len]
    }
}

impl PartialEq for Refs<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Equivalent<Values> for Refs<'_> {
    fn equivalent(&self, values: &Values) -> bool {
        self.compare(values).is_eq()
    }
}

impl Comparable<Values> for Refs<'_> {
    fn compare(&self, values: &Values) -> Ordering {
        self.as_slice().iter().copied().cmp(values.as_slice())
    }
}

/// A cut between values: it equals none of them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Edge<'q> {
    Before(&'q Value),
    After(&'q Value),
    /// Before and after all values of a kind.
    Start(Kind),
    End(Kind),
    /// Before and after all texts that begin with this one.
    BeforePrefix(&'q str),
    AfterPrefix(&'q str),
}

impl Edge<'_> {
    fn compare(&self, value: &Value) -> Ordering {
        // Before Bool is Null; after Bytes are arrays and objects.
        let kinds = |kind: Kind| match (Kind::of(value), value) {
            (Some(other), _) => kind.cmp(&other),
            (None, Value::Null) => Ordering::Greater,
            (None, _) => Ordering::Less,
        };
        match *self {
            Self::Before(edge) => edge.cmp(value).then(Ordering::Less),
            Self::After(edge) => edge.cmp(value).then(Ordering::Greater),
            Self::Start(kind) => kinds(kind).then(Ordering::Less),
            Self::End(kind) => kinds(kind).then(Ordering::Greater),
            Self::BeforePrefix(text) => match value.as_str() {
                Some(value) => text.cmp(value).then(Ordering::Less),
                None => kinds(Kind::Text),
            },
            Self::AfterPrefix(text) => match value.as_str() {
                Some(value) if value.starts_with(text) => Ordering::Greater,
                Some(value) => text.cmp(value),
                None => kinds(Kind::Text),
            },
        }
    }
}

/// The values of one path between two cuts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interval<'q> {
    pub(super) lower: Edge<'q>,
    pub(super) upper: Edge<'q>,
    /// Whether it is that of a prefix.
    pub(super) prefix: bool,
}

impl<'q> Interval<'q> {
    /// Of a filter's bounds; none where they are of two kinds or of one without ranges.
    pub(super) fn of_bounds(lower: Bound<&'q Value>, upper: Bound<&'q Value>) -> Option<Self> {
        let kind = |bound: Bound<&Value>| match bound {
            Bound::Included(value) | Bound::Excluded(value) => Some(Kind::of(value)),
            Bound::Unbounded => None,
        };
        let kind = match (kind(lower), kind(upper)) {
            (Some(lower), Some(upper)) if lower != upper => None,
            (Some(kind), _) | (None, Some(kind)) => kind,
            (None, None) => None,
        }?;
        let lower = match lower {
            Bound::Included(value) => Edge::Before(value),
            Bound::Excluded(value) => Edge::After(value),
            Bound::Unbounded => Edge::Start(kind),
        };
        let upper = match upper {
            Bound::Included(value) => Edge::After(value),
            Bound::Excluded(value) => Edge::Before(value),
            Bound::Unbounded => Edge::End(kind),
        };
        Some(Self { lower, upper, prefix: false })
    }

    pub(super) fn of_kind(kind: Kind) -> Self {
        Self { lower: Edge::Start(kind), upper: Edge::End(kind), prefix: false }
    }

    pub(super) fn of_prefix(text: &'q str) -> Self {
        Self { lower: Edge::BeforePrefix(text), upper: Edge::AfterPrefix(text), prefix: true }
    }
}

/// A run of an index: entries whose first values equal these and whose next is in the interval.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span<'q> {
    pub(super) equal: Refs<'q>,
    pub(super) interval: Option<Interval<'q>>,
}

impl<'q> Span<'q> {
    pub(super) fn new() -> Self {
        Self { equal: Refs::new(), interval: None }
    }

    /// The cut before its first entry.
    pub(super) fn start(&self) -> Cut<'q> {
        Cut { equal: self.equal, edge: self.interval.map(|interval| interval.lower), after: false }
    }

    /// The cut after its last entry.
    pub(super) fn end(&self) -> Cut<'q> {
        Cut { equal: self.equal, edge: self.interval.map(|interval| interval.upper), after: true }
    }
}

/// A cut between the entries of an index: it equals none of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut<'q> {
    pub(super) equal: Refs<'q>,
    pub(super) edge: Option<Edge<'q>>,
    /// Where there is no edge: after all entries that begin with the equal values, or before them.
    pub(super) after: bool,
}

impl Equivalent<Values> for Cut<'_> {
    fn equivalent(&self, _: &Values) -> bool {
        false
    }
}

impl Comparable<Values> for Cut<'_> {
    fn compare(&self, values: &Values) -> Ordering {
        let values = values.as_slice();
        let equal = self.equal.as_slice();
        for (own, value) in equal.iter().zip(values) {
            match (*own).cmp(value) {
                Ordering::Equal => {}
                unequal => return unequal,
            }
        }
        match (&self.edge, values.get(equal.len())) {
            (Some(edge), Some(value)) => edge.compare(value),
            _ if self.after => Ordering::Greater,
            _ => Ordering::Less,
        }
    }
}
