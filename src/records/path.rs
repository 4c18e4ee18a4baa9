//! Where a path leads in the records of a layout, worked out once and followed for many records.

use crate::base::error::{Error, Result};
use crate::base::value::Value;
use crate::records::record::{Layout, METADATA, Metadata, Record};

/// A path resolved against a layout: following it costs no search among the declared names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lookup<'q> {
    root: Root<'q>,
    /// What comes after the first name.
    rest: Option<&'q str>,
}

#[derive(Clone, Copy, Debug)]
enum Root<'q> {
    /// By position in the layout.
    Declared(usize),
    /// By position in [`METADATA`].
    Metadata(usize),
    Undeclared(&'q str),
}

impl<'q> Lookup<'q> {
    pub(super) fn new(path: &'q str, layout: &Layout) -> Self {
        let (name, rest) = match path.split_once('.') {
            Some((name, rest)) => (name, Some(rest)),
            None => (path, None),
        };
        let root = match layout.position(name) {
            Some(position) => Root::Declared(position),
            None => match METADATA.iter().position(|metadata| *metadata == name) {
                Some(position) => Root::Metadata(position),
                None => Root::Undeclared(name),
            },
        };
        Self { root, rest }
    }

    /// Lends what the path leads to; metadata exists as a value only while it is lent.
    pub(super) fn with<T>(&self, record: &Record, look: impl FnOnce(Option<&Value>) -> T) -> T {
        let root = match self.root {
            Root::Declared(position) => record.at_position(position),
            Root::Undeclared(name) => record.extra.get(name),
            // Nothing is inside of a number.
            Root::Metadata(_) if self.rest.is_some() => None,
            Root::Metadata(position) => return look(metadata(&record.metadata, position).map(Value::Int).as_ref()),
        };
        look(match self.rest {
            None => root,
            Some(rest) => root.and_then(|root| root.at(rest)),
        })
    }

    /// The value, an absent one as Null.
    pub(super) fn value(&self, record: &Record) -> Value {
        self.with(record, |value| value.cloned().unwrap_or_default())
    }
}

fn metadata(metadata: &Metadata, position: usize) -> Option<i64> {
    match position {
        0 => Some(i64::try_from(metadata.version).unwrap_or(i64::MAX)),
        1 => Some(metadata.created_at),
        2 => Some(metadata.updated_at),
        _ => metadata.expires_at,
    }
}

/// Refuses a path that no record can have.
pub(super) fn check_path(path: &str) -> Result<()> {
    if path.split('.').any(str::is_empty) {
        return Err(Error::invalid_argument(format!("path {path:?} has an empty name")));
    }
    Ok(())
}
