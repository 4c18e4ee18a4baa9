//! Where a page ended, as opaque text.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::base::error::{Error, Result};
use crate::base::value::{Key, Value};
use crate::records::place::Place;
use crate::records::query::{Direction, Query};
use crate::records::schema::Schema;

/// The format that this release writes and reads.
const FORMAT: u8 = 1;

/// Where a page ended: the place of its last record in the query's order, so that it outlives the record. Opaque text,
/// good for the same bucket and order, also after a restart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(String);

impl Cursor {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for Cursor {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Cursor {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<&Cursor> for Cursor {
    fn from(cursor: &Cursor) -> Self {
        cursor.clone()
    }
}

impl From<Cursor> for String {
    fn from(cursor: Cursor) -> Self {
        cursor.0
    }
}

/// What a cursor says: the values that were sorted by, and the place among equals.
#[derive(Clone, Debug)]
pub(super) struct Position {
    /// One per path of the query's order.
    pub(super) values: Vec<Value>,
    pub(super) place: Place,
}

/// `[format, fingerprint, values, position, key]` in MessagePack; one of the last two is nil.
type Packed = (u8, u64, Vec<Value>, Option<u64>, Option<Key>);

/// Tells buckets and orders apart.
fn fingerprint(schema: &Schema, query: &Query) -> u64 {
    // Lengths go before contents, so that no two orders are written alike.
    let mut bytes = Vec::new();
    let mut add = |part: &[u8]| {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part);
    };
    add(schema.bucket().as_str().as_bytes());
    add(if schema.ordered() { b"key" } else { b"position" });
    for (path, direction) in &query.order {
        add(path.as_bytes());
        add(if *direction == Direction::Ascending { b"asc" } else { b"desc" });
    }
    farmhash::fingerprint64(&bytes)
}

impl Position {
    pub(super) fn to_cursor(&self, schema: &Schema, query: &Query) -> Result<Cursor> {
        let (position, key) = match &self.place {
            Place::At(position) => (Some(*position), None),
            Place::Key(key) => (None, Some(key)),
        };
        let packed = (FORMAT, fingerprint(schema, query), &self.values, position, key);
        let bytes = rmp_serde::to_vec(&packed).map_err(|error| Error::permanent("writing a cursor", error))?;
        Ok(Cursor(URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Reads a cursor.
    ///
    /// # Errors
    /// `InvalidArgument` if it is of another bucket or order, or none at all.
    pub(super) fn of_cursor(cursor: &Cursor, schema: &Schema, query: &Query) -> Result<Self> {
        let none = || Error::invalid_argument("the cursor is none of ours");
        let bytes = URL_SAFE_NO_PAD.decode(&cursor.0).map_err(|_| none())?;
        // The format comes first, so that a later one is told from garbage as long as it is a list that begins with it.
        let (format, found, values, position, key): Packed = rmp_serde::from_slice(&bytes).map_err(|_| none())?;
        if format != FORMAT {
            return Err(none());
        }
        if found != fingerprint(schema, query) || values.len() != query.order.len() {
            return Err(Error::invalid_argument("the cursor is of another bucket or order"));
        }
        let place = match (schema.ordered(), position, key) {
            (false, Some(position), None) => Place::At(position),
            (true, None, Some(key)) => Place::Key(key),
            _ => return Err(none()),
        };
        Ok(Self { values, place })
    }
}
