//! What is asked for: which records, in which order, how many of them and how much of each.

use std::fmt;
use std::sync::Arc;

use crate::base::error::{Error, Result};
use crate::base::value::{Key, Object};
use crate::records::cursor::Cursor;
use crate::records::filter::Filter;
use crate::records::path::check_path;
use crate::records::record::Record;

/// Most paths that a query may sort by or select.
const MAX_PATHS: usize = 1_024;

/// A filter, and in which order and how much of the result is wanted.
///
/// ```
/// use ractor_persistence::records::{Direction, Filter, Query};
/// let top = Query::new(Filter::eq("role", "admin")).order_by("logins", Direction::Descending).limit(5);
/// assert_eq!(top.filter(), &Filter::eq("role", "admin"));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct Query {
    pub(super) filter: Filter,
    pub(super) order: Vec<(String, Direction)>,
    pub(super) offset: usize,
    pub(super) limit: Option<usize>,
    pub(super) select: Option<Vec<String>>,
}

/// Which way a query sorts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the least value to the greatest.
    Ascending,
    /// From the greatest value to the least.
    Descending,
}

impl Query {
    /// The records that a filter matches, in bucket order.
    pub fn new(filter: impl Into<Filter>) -> Self {
        Self { filter: filter.into(), ..Self::default() }
    }

    /// All records, in bucket order.
    pub fn all() -> Self {
        Self::default()
    }

    /// Sorts by the value at a path, in the total order of values, an absent one as Null; what is equal, by the next
    /// path that is given, and finally by bucket order.
    pub fn order_by(mut self, path: impl Into<String>, direction: Direction) -> Self {
        self.order.push((path.into(), direction));
        self
    }

    /// Leaves out this many records from the beginning; default 0.
    pub fn offset(mut self, offset: usize) -> Self {
        self.offset = offset;
        self
    }

    /// Answers at most this many records; by default all.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Answers records that have only what is at these paths; the key and the metadata stay.
    pub fn select<P: Into<String>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.select = Some(paths.into_iter().map(Into::into).collect());
        self
    }

    /// Which records are asked for.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Refuses what cannot be answered.
    pub(super) fn check(&self) -> Result<()> {
        self.filter.check()?;
        let selected = self.select.iter().flatten();
        self.order.iter().map(|(path, _)| path).chain(selected).try_for_each(|path| check_path(path))?;
        if self.order.len() > MAX_PATHS || self.select.as_ref().is_some_and(|paths| paths.len() > MAX_PATHS) {
            return Err(Error::invalid_argument(format!("a query sorts by and selects at most {MAX_PATHS} paths")));
        }
        Ok(())
    }
}

impl From<Filter> for Query {
    fn from(filter: Filter) -> Self {
        Self::new(filter)
    }
}

impl From<Object> for Query {
    fn from(object: Object) -> Self {
        Self::new(object)
    }
}

/// Which part of a query's result is wanted, and from where on.
///
/// ```
/// use ractor_persistence::records::Page;
/// let first = Page::new(20);
/// assert_eq!(first.limit(), 20);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Page {
    pub(super) limit: usize,
    pub(super) from: Origin,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Start,
    After(Cursor),
    AfterKey(Key),
}

impl Page {
    /// The first `limit` records; a limit of 0 is `InvalidArgument` where the page is asked for.
    pub fn new(limit: usize) -> Self {
        Self { limit, from: Origin::Start }
    }

    /// Goes on after the page that gave this cursor, whether or not its last record is still there.
    pub fn after(mut self, cursor: impl Into<Cursor>) -> Self {
        self.from = Origin::After(cursor.into());
        self
    }

    /// Goes on after a key, whether or not it exists; only in ordered buckets, and without `order_by`.
    pub fn after_key(mut self, key: impl Into<Key>) -> Self {
        self.from = Origin::AfterKey(key.into());
        self
    }

    /// How many records it has at most.
    pub fn limit(&self) -> usize {
        self.limit
    }
}

/// A page of a query's result.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Paged {
    /// The records, at most as many as the page's limit.
    pub records: Vec<Arc<Record>>,
    /// Whether there are more after them.
    pub has_more: bool,
    /// Where to go on from; only an empty page has none.
    pub next_cursor: Option<Cursor>,
}

/// How a query is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explain {
    /// The paths of the index that is used, joined by commas; several indexes are joined by `" + "`.
    pub index: Option<String>,
    /// How the records are found.
    pub access: Access,
    /// About how many entries are examined: exact for equalities, otherwise an upper bound. A limit may end it sooner.
    pub estimate: usize,
    /// Whether what is found has to be sorted.
    pub sort: bool,
}

/// How records are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Access {
    /// By their key.
    Key,
    /// By equal values in an index.
    Equality,
    /// By a range in an index.
    Range,
    /// By the beginning of a text in an index.
    Prefix,
    /// By several of these together.
    Union,
    /// By looking at all of them, in bucket order or, where an index is named, in its order.
    Scan,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "key",
            Self::Equality => "equality",
            Self::Range => "range",
            Self::Prefix => "prefix",
            Self::Union => "union",
            Self::Scan => "scan",
        })
    }
}
