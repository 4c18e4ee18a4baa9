//! A filter made ready for the records of one layout: it matches without searching names and without allocating.

use std::ops::Bound;

use crate::base::value::Value;
use crate::records::filter::{Filter, Kind, Node, at};
use crate::records::path::Lookup;
use crate::records::record::{Layout, Record};

#[derive(Debug)]
pub(super) enum Matcher<'q> {
    Eq(Lookup<'q>, &'q Value),
    In(Lookup<'q>, &'q [Value]),
    Exists(Lookup<'q>),
    Range(Lookup<'q>, Kind, Bound<&'q Value>, Bound<&'q Value>),
    Number(Lookup<'q>),
    Prefix(Lookup<'q>, &'q str),
    Contains(Lookup<'q>, &'q Value),
    And(Vec<Self>),
    Or(Vec<Self>),
    Not(Box<Self>),
    Never,
}

impl<'q> Matcher<'q> {
    pub(super) fn new(filter: &'q Filter, layout: &Layout) -> Self {
        let lookup = |path: &'q String| Lookup::new(path, layout);
        let all = |parts: &'q [Filter]| parts.iter().map(|part| Self::new(part, layout)).collect();
        match &filter.node {
            Node::Eq(path, value) => Self::Eq(lookup(path), value),
            Node::In(path, values) => Self::In(lookup(path), values),
            Node::Exists(path) => Self::Exists(lookup(path)),
            Node::Range(path, ends) => {
                let (lower, upper) = &**ends;
                let kinds = (at(lower).map(Kind::of), at(upper).map(Kind::of));
                match kinds {
                    // Nothing is of two kinds at once.
                    (Some(from), Some(to)) if from != to => Self::Never,
                    (Some(Some(kind)), _) | (None, Some(Some(kind))) => {
                        Self::Range(lookup(path), kind, lower.as_ref(), upper.as_ref())
                    }
                    _ => Self::Never,
                }
            }
            Node::Number(path) => Self::Number(lookup(path)),
            Node::Prefix(path, text) => Self::Prefix(lookup(path), text),
            Node::Contains(path, part) => Self::Contains(lookup(path), part),
            Node::And(parts) => Self::And(all(parts)),
            Node::Or(parts) => Self::Or(all(parts)),
            Node::Not(inner) => Self::Not(Box::new(Self::new(inner, layout))),
            Node::TooDeep => Self::Never,
        }
    }

    pub(super) fn matches(&self, record: &Record) -> bool {
        match self {
            Self::Eq(path, value) => path.with(record, |found| found.unwrap_or(&Value::Null) == *value),
            Self::In(path, values) => {
                path.with(record, |found| values.binary_search(found.unwrap_or(&Value::Null)).is_ok())
            }
            Self::Exists(path) => path.with(record, |found| found.is_some()),
            Self::Range(path, kind, lower, upper) => path.with(record, |found| {
                found.is_some_and(|value| {
                    Kind::of(value) == Some(*kind)
                        && match lower {
                            Bound::Included(lower) => value >= *lower,
                            Bound::Excluded(lower) => value > *lower,
                            Bound::Unbounded => true,
                        }
                        && match upper {
                            Bound::Included(upper) => value <= *upper,
                            Bound::Excluded(upper) => value < *upper,
                            Bound::Unbounded => true,
                        }
                })
            }),
            Self::Number(path) => path.with(record, |found| found.and_then(Kind::of) == Some(Kind::Number)),
            Self::Prefix(path, text) => {
                path.with(record, |found| found.and_then(Value::as_str).is_some_and(|found| found.starts_with(text)))
            }
            Self::Contains(path, part) => path.with(record, |found| match (found, part) {
                (Some(Value::String(text)), Value::String(part)) => text.contains(part.as_str()),
                (Some(Value::Array(items)), part) => items.contains(part),
                _ => false,
            }),
            Self::And(parts) => parts.iter().all(|part| part.matches(record)),
            Self::Or(parts) => parts.iter().any(|part| part.matches(record)),
            Self::Not(inner) => !inner.matches(record),
            Self::Never => false,
        }
    }
}
