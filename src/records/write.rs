//! What a bucket can be asked to change, and what it answers.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::base::value::{Key, Object, Value};
use crate::records::filter::Filter;
use crate::records::patch::Patch;
use crate::records::record::Record;

/// What a bucket is asked to change. Each is one commit, or none where it is refused or changes nothing.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum Write {
    /// A new record.
    Insert(Object),
    /// New records, all or none.
    InsertMany(Vec<Object>),
    /// A new record, or changes merged over the one of its key.
    Upsert(Object),
    /// Changes merged over the top level of a record.
    Update(Key, Object),
    /// The same, if the record still has this version.
    UpdateIf(Key, u64, Object),
    /// Changes by path, all or none.
    Patch(Key, Patch),
    /// A record goes.
    Delete(Key),
    /// All records that a filter matches go.
    DeleteMany(Filter),
    /// All records go; the counter stays.
    Clear,
}

impl Write {
    /// The operation's name, as in the handle's methods.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Insert(_) => "insert",
            Self::InsertMany(_) => "insert_many",
            Self::Upsert(_) => "upsert",
            Self::Update(..) => "update",
            Self::UpdateIf(..) => "update_if",
            Self::Patch(..) => "patch",
            Self::Delete(_) => "delete",
            Self::DeleteMany(_) => "delete_many",
            Self::Clear => "clear",
        }
    }
}

/// Its name and its arguments, all of them stored as values are.
impl Serialize for Write {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name = self.name();
        let value = |object: &Object| Value::Object(object.clone());
        match self {
            Self::Insert(data) | Self::Upsert(data) => (name, value(data)).serialize(serializer),
            Self::InsertMany(list) => (name, list.iter().map(value).collect::<Vec<_>>()).serialize(serializer),
            Self::Update(key, changes) => (name, key, value(changes)).serialize(serializer),
            Self::UpdateIf(key, version, changes) => (name, key, version, value(changes)).serialize(serializer),
            Self::Patch(key, patch) => (name, key, patch).serialize(serializer),
            Self::Delete(key) => (name, key).serialize(serializer),
            Self::DeleteMany(filter) => (name, filter).serialize(serializer),
            Self::Clear => name.serialize(serializer),
        }
    }
}

impl fmt::Debug for Write {
    /// The operation, without contents: they do not belong into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Write").field(&self.name()).finish()
    }
}

/// What a write answers.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Written {
    /// The record as it is now.
    Record(Arc<Record>),
    /// The records, in the order in which they were given.
    Records(Vec<Arc<Record>>),
    /// The record, and whether it is new.
    Upserted(Upserted),
    /// Whether the record was there.
    Deleted(bool),
    /// How many records are gone.
    Count(usize),
}

/// What an upsert did.
#[derive(Clone, Debug, PartialEq)]
pub enum Upserted<R = Arc<Record>> {
    /// The key was free.
    Inserted(R),
    /// The changes were merged over the record of the key.
    Updated(R),
}

impl<R> Upserted<R> {
    /// The record as it is now.
    pub fn into_record(self) -> R {
        match self {
            Self::Inserted(record) | Self::Updated(record) => record,
        }
    }

    /// Whether the record is new.
    pub fn is_inserted(&self) -> bool {
        matches!(self, Self::Inserted(_))
    }
}

impl Written {
    /// The record, where one was answered.
    pub fn into_record(self) -> Option<Arc<Record>> {
        match self {
            Self::Record(record) => Some(record),
            Self::Upserted(upserted) => Some(upserted.into_record()),
            Self::Records(_) | Self::Deleted(_) | Self::Count(_) => None,
        }
    }

    /// The records that were answered: one, many or none.
    pub fn records(&self) -> &[Arc<Record>] {
        match self {
            Self::Record(record) | Self::Upserted(Upserted::Inserted(record) | Upserted::Updated(record)) => {
                std::slice::from_ref(record)
            }
            Self::Records(records) => records,
            Self::Deleted(_) | Self::Count(_) => &[],
        }
    }

    /// How many records are gone by it.
    pub fn gone(&self) -> usize {
        match self {
            Self::Record(_) | Self::Records(_) | Self::Upserted(_) => 0,
            Self::Deleted(was_there) => usize::from(*was_there),
            Self::Count(count) => *count,
        }
    }
}
