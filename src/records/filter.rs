//! Which records are asked for.

use std::cmp::Ordering;
use std::ops::Bound;

use serde::Serialize;

use crate::base::error::{Error, Result};
use crate::base::value::{Key, Object, Value};
use crate::records::matcher::Matcher;
use crate::records::path::check_path;
use crate::records::record::Record;
use crate::records::schema::Schema;

/// Deepest nesting of a filter; a deeper one is refused when it is used.
pub const MAX_FILTER_DEPTH: usize = 64;

/// Most keys that a filter may name and still be answered by looking them up.
const MAX_KEYS: usize = 4_096;

/// A condition on records.
///
/// A path steps through objects, its names separated by `.`; past anything else the value is absent, and to an equality
/// an absent value is Null. Metadata (`_version`, `_created_at`, `_updated_at`, `_expires_at`) and undeclared fields have
/// paths too. Logic is two-valued: a condition holds or it does not. An object works as a filter: one equality per name.
///
/// Paths with an empty name, numbers that are not finite, ranges over Null, arrays or objects, and nesting of more than
/// [`MAX_FILTER_DEPTH`] levels are `InvalidArgument` wherever the filter is used.
///
/// ```
/// use ractor_persistence::record;
/// use ractor_persistence::records::Filter;
/// let admins = Filter::eq("role", "admin").and(Filter::eq("address.city", "Brno"));
/// assert_eq!(Filter::from(record! { "role": "admin", "address.city": "Brno" }), admins);
/// let busy = Filter::gt("logins", 10).or(Filter::prefix("name", "Al")).and(Filter::is_null("left_at"));
/// assert_ne!(busy, admins.not());
/// ```
#[derive(Clone, Debug, Serialize)]
#[must_use]
pub struct Filter {
    pub(super) node: Node,
    /// How deep the node is nested; bounded, so that recursion over it is.
    depth: usize,
}

#[derive(Clone, Debug, Serialize)]
pub(super) enum Node {
    Eq(String, Value),
    /// The list is sorted and has nothing twice.
    In(String, Vec<Value>),
    Exists(String),
    Range(String, Box<(Bound<Value>, Bound<Value>)>),
    /// Any number; what aggregates ask for.
    Number(String),
    Prefix(String, String),
    Contains(String, Value),
    /// None of the parts is an `And`; an empty one is true.
    And(Vec<Filter>),
    /// None of the parts is an `Or`; an empty one is false.
    Or(Vec<Filter>),
    Not(Box<Filter>),
    /// In place of a filter that is nested too deeply.
    TooDeep,
}

/// The kinds of values that have ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Bool,
    Number,
    Text,
    Bytes,
}

impl Kind {
    pub(super) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(_) => Some(Self::Bool),
            Value::Int(_) | Value::Float(_) => Some(Self::Number),
            Value::String(_) => Some(Self::Text),
            Value::Bytes(_) => Some(Self::Bytes),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

/// The value that a bound is at.
pub(super) fn at(bound: &Bound<Value>) -> Option<&Value> {
    match bound {
        Bound::Included(value) | Bound::Excluded(value) => Some(value),
        Bound::Unbounded => None,
    }
}

impl Filter {
    /// Every record.
    pub fn all() -> Self {
        Self::leaf(Node::And(Vec::new()))
    }

    /// The value at `path` equals `value`; Null also equals an absent one.
    pub fn eq(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::leaf(Node::Eq(path.into(), value.into()))
    }

    /// [`eq`](Self::eq) does not hold; so absent values are included, unless `value` is Null.
    pub fn ne(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::eq(path, value).not()
    }

    /// The value at `path` is absent or Null.
    pub fn is_null(path: impl Into<String>) -> Self {
        Self::eq(path, Value::Null)
    }

    /// There is a value at `path`, be it Null.
    pub fn exists(path: impl Into<String>) -> Self {
        Self::leaf(Node::Exists(path.into()))
    }

    /// The value at `path` is of the same kind (number, text, bytes or bool) and less.
    pub fn lt(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::range(path, Bound::Unbounded, Bound::Excluded(value.into()))
    }

    /// The value at `path` is of the same kind (number, text, bytes or bool) and less or equal.
    pub fn le(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::range(path, Bound::Unbounded, Bound::Included(value.into()))
    }

    /// The value at `path` is of the same kind (number, text, bytes or bool) and greater.
    pub fn gt(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::range(path, Bound::Excluded(value.into()), Bound::Unbounded)
    }

    /// The value at `path` is of the same kind (number, text, bytes or bool) and greater or equal.
    pub fn ge(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::range(path, Bound::Included(value.into()), Bound::Unbounded)
    }

    /// The value at `path` is of the same kind as both ends and between them, ends included. Nothing is between ends of
    /// two kinds.
    pub fn between(path: impl Into<String>, from: impl Into<Value>, to: impl Into<Value>) -> Self {
        Self::range(path, Bound::Included(from.into()), Bound::Included(to.into()))
    }

    /// The value at `path` equals one of these, Null as in [`eq`](Self::eq); of an empty list none.
    pub fn is_in<V: Into<Value>>(path: impl Into<String>, values: impl IntoIterator<Item = V>) -> Self {
        let mut values: Vec<Value> = values.into_iter().map(Into::into).collect();
        values.sort_unstable();
        values.dedup();
        Self::leaf(Node::In(path.into(), values))
    }

    /// The value at `path` is a text that begins with `text`.
    pub fn prefix(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self::leaf(Node::Prefix(path.into(), text.into()))
    }

    /// The value at `path` is a text that has the text `part` in it, or an array that has an element equal to it.
    pub fn contains(path: impl Into<String>, part: impl Into<Value>) -> Self {
        Self::leaf(Node::Contains(path.into(), part.into()))
    }

    /// Both hold.
    pub fn and(self, other: Self) -> Self {
        let take = |filter: Self| match filter.node {
            Node::And(parts) => (parts, filter.depth - 1),
            node => (vec![Self { node, ..filter }], filter.depth),
        };
        Self::join(take(self), take(other), Node::And)
    }

    /// One of the two holds, or both.
    pub fn or(self, other: Self) -> Self {
        let take = |filter: Self| match filter.node {
            Node::Or(parts) => (parts, filter.depth - 1),
            node => (vec![Self { node, ..filter }], filter.depth),
        };
        Self::join(take(self), take(other), Node::Or)
    }

    /// It does not hold.
    #[expect(clippy::should_implement_trait, reason = "a builder's word, beside `and` and `or`")]
    pub fn not(self) -> Self {
        match self.node {
            Node::Not(inner) => *inner,
            _ => {
                let depth = self.depth + 1;
                Self { node: Node::Not(Box::new(self)), depth }.bounded()
            }
        }
    }

    /// It holds, and at `path` is a number; not nested any deeper by it.
    pub(super) fn and_number(self, path: &str) -> Self {
        let number = Self::leaf(Node::Number(path.to_owned()));
        let depth = self.depth;
        let mut parts = match self.node {
            Node::And(parts) => parts,
            _ => vec![self],
        };
        parts.push(number);
        Self { node: Node::And(parts), depth }
    }

    fn leaf(node: Node) -> Self {
        Self { node, depth: 1 }
    }

    fn range(path: impl Into<String>, lower: Bound<Value>, upper: Bound<Value>) -> Self {
        Self::leaf(Node::Range(path.into(), Box::new((lower, upper))))
    }

    /// Joins parts that are no such junctions themselves; with each list comes how deep its deepest part is.
    fn join(one: (Vec<Self>, usize), other: (Vec<Self>, usize), node: fn(Vec<Self>) -> Node) -> Self {
        let (mut parts, depth) = (one.0, one.1.max(other.1) + 1);
        parts.extend(other.0);
        match <[Self; 1]>::try_from(parts) {
            Ok([only]) => only,
            Err(parts) => Self { node: node(parts), depth }.bounded(),
        }
    }

    fn bounded(self) -> Self {
        if self.depth > MAX_FILTER_DEPTH { Self { node: Node::TooDeep, ..self } } else { self }
    }

    /// The conditions that must all hold.
    pub(super) fn conjuncts(&self) -> &[Self] {
        match &self.node {
            Node::And(parts) => parts,
            _ => std::slice::from_ref(self),
        }
    }

    /// Whether every record is asked for.
    pub(super) fn is_all(&self) -> bool {
        matches!(&self.node, Node::And(parts) if parts.is_empty())
    }

    /// Refuses what no record could be compared with.
    pub(crate) fn check(&self) -> Result<()> {
        let finite = |path: &str, value: &Value| match value.non_finite() {
            Some(_) => Err(Error::invalid_argument(format!("a number compared with {path:?} is not finite"))),
            None => Ok(()),
        };
        match &self.node {
            Node::Exists(path) | Node::Prefix(path, _) | Node::Number(path) => check_path(path),
            Node::Eq(path, value) | Node::Contains(path, value) => check_path(path).and_then(|()| finite(path, value)),
            Node::In(path, values) => {
                check_path(path)?;
                values.iter().try_for_each(|value| finite(path, value))
            }
            Node::Range(path, ends) => {
                let (lower, upper) = &**ends;
                check_path(path)?;
                [lower, upper].into_iter().filter_map(at).try_for_each(|value| match Kind::of(value) {
                    Some(_) => finite(path, value),
                    None => {
                        let kind = value.kind();
                        Err(Error::invalid_argument(format!("{path:?} has no range over a value of kind {kind}")))
                    }
                })
            }
            Node::And(parts) | Node::Or(parts) => parts.iter().try_for_each(Self::check),
            Node::Not(inner) => inner.check(),
            Node::TooDeep => {
                Err(Error::invalid_argument(format!("a filter has at most {MAX_FILTER_DEPTH} levels of nesting")))
            }
        }
    }

    /// Whether the record is asked for. A filter that is `InvalidArgument` matches by what can be compared.
    pub fn matches(&self, record: &Record) -> bool {
        Matcher::new(self, &record.layout).matches(record)
    }

    /// The keys that the filter names, where it names any and not too many: a view that is given their records answers by
    /// them.
    pub(crate) fn keys(&self, schema: &Schema) -> Option<Vec<Key>> {
        let mut keys = None;
        self.collect_keys(&schema.fields[schema.key].name, &mut keys);
        keys.filter(|keys| keys.len() <= MAX_KEYS)
    }

    /// Whether nothing but records of the keys that it names can match.
    pub(super) fn is_of_keys(&self, schema: &Schema) -> bool {
        self.has_only_keys(&schema.fields[schema.key].name)
    }

    fn has_only_keys(&self, field: &str) -> bool {
        self.conjuncts().iter().any(|conjunct| match &conjunct.node {
            Node::Or(branches) => branches.iter().all(|branch| branch.has_only_keys(field)),
            _ => conjunct.own_keys(field).is_some(),
        })
    }

    fn collect_keys(&self, field: &str, keys: &mut Option<Vec<Key>>) {
        match &self.node {
            Node::Eq(..) | Node::In(..) => {
                if let Some(mut own) = self.own_keys(field) {
                    keys.get_or_insert_default().append(&mut own);
                }
            }
            Node::And(parts) | Node::Or(parts) => parts.iter().for_each(|part| part.collect_keys(field, keys)),
            _ => {}
        }
    }

    /// The only keys that can match, where this very condition says so; the wrong kind of key is none.
    pub(super) fn own_keys(&self, field: &str) -> Option<Vec<Key>> {
        match &self.node {
            Node::Eq(path, value) if path == field => Some(Key::from_value(value.clone()).into_iter().collect()),
            Node::In(path, values) if path == field && values.len() <= MAX_KEYS => {
                Some(values.iter().filter_map(|value| Key::from_value(value.clone())).collect())
            }
            _ => None,
        }
    }

    /// An order in which filters are equal whatever the order of their parts.
    fn compare(&self, other: &Self) -> Ordering {
        let bound = |bound: &Bound<Value>| match bound {
            Bound::Unbounded => (0, Value::Null),
            Bound::Included(value) => (1, value.clone()),
            Bound::Excluded(value) => (2, value.clone()),
        };
        match (&self.node, &other.node) {
            (Node::Eq(path, value), Node::Eq(path2, value2))
            | (Node::Contains(path, value), Node::Contains(path2, value2)) => (path, value).cmp(&(path2, value2)),
            (Node::In(path, values), Node::In(path2, values2)) => (path, values).cmp(&(path2, values2)),
            (Node::Exists(path), Node::Exists(path2)) | (Node::Number(path), Node::Number(path2)) => path.cmp(path2),
            (Node::Range(path, ends), Node::Range(path2, ends2)) => {
                let ((lower, upper), (lower2, upper2)) = (&**ends, &**ends2);
                path.cmp(path2).then_with(|| (bound(lower), bound(upper)).cmp(&(bound(lower2), bound(upper2))))
            }
            (Node::Prefix(path, text), Node::Prefix(path2, text2)) => (path, text).cmp(&(path2, text2)),
            (Node::And(parts), Node::And(parts2)) | (Node::Or(parts), Node::Or(parts2)) => {
                let sorted = |parts: &[Self]| {
                    let mut order: Vec<usize> = (0..parts.len()).collect();
                    order.sort_by(|left, right| parts[*left].compare(&parts[*right]));
                    order
                };
                let (left, right) = (sorted(parts), sorted(parts2));
                let pairs = left.iter().zip(&right).map(|(left, right)| parts[*left].compare(&parts2[*right]));
                pairs.fold(Ordering::Equal, Ordering::then).then(left.len().cmp(&right.len()))
            }
            (Node::Not(inner), Node::Not(inner2)) => inner.compare(inner2),
            (left, right) => left.rank().cmp(&right.rank()),
        }
    }
}

impl Node {
    fn rank(&self) -> u8 {
        match self {
            Self::Eq(..) => 0,
            Self::In(..) => 1,
            Self::Exists(_) => 2,
            Self::Range(..) => 3,
            Self::Number(_) => 4,
            Self::Prefix(..) => 5,
            Self::Contains(..) => 6,
            Self::And(_) => 7,
            Self::Or(_) => 8,
            Self::Not(_) => 9,
            Self::TooDeep => 10,
        }
    }
}

impl Default for Filter {
    fn default() -> Self {
        Self::all()
    }
}

/// Equal whatever the order in which `and` and `or` name their parts.
impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        self.compare(other) == Ordering::Equal
    }
}

impl From<Object> for Filter {
    fn from(object: Object) -> Self {
        let parts = object.into_iter().map(|(name, value)| Self::eq(name.as_str(), value)).collect();
        Self::join((parts, 1), (Vec::new(), 0), Node::And)
    }
}

impl FromIterator<Filter> for Filter {
    /// All of them hold.
    fn from_iter<T: IntoIterator<Item = Filter>>(filters: T) -> Self {
        filters.into_iter().fold(Self::all(), Self::and)
    }
}
