//! What back-ends that keep rows in tables have moved into quarantine.

use bytes::Bytes;

use crate::base::name::StoreName;

/// A bucket or channel that was moved into quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quarantined {
    /// What [`quarantine`](crate::persistence::StorageAdapter::quarantine) answered.
    pub name: String,
    /// The store that it was of.
    pub store: StoreName,
    /// What it was: `bucket` or `channel`, a blank, and its name; or `durable values`.
    pub subject: String,
    /// When it was moved, in milliseconds since the Unix epoch.
    pub moved_at: i64,
    /// Its rows, by table and key, byte for byte as they were found.
    pub rows: Vec<RawRow>,
}

impl Quarantined {
    /// Puts together what was found.
    pub fn new(name: String, store: StoreName, subject: String, moved_at: i64, rows: Vec<RawRow>) -> Self {
        Self { name, store, subject, moved_at, rows }
    }
}

/// A row as it lay in its table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RawRow {
    /// The table that it was in.
    pub table: String,
    /// Its key in that table; empty where the names of store and subject are all of it.
    pub key: Bytes,
    /// Its value: an envelope, if it is intact.
    pub value: Bytes,
}

impl RawRow {
    /// Puts together what was found.
    pub fn new(table: impl Into<String>, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self { table: table.into(), key: key.into(), value: value.into() }
    }
}
