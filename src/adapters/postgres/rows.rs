//! Rows: their formats, their envelopes, and their keys as bytes.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::base::codec::{self, CodecError, Contexts, Format};
use crate::base::error::{Error, Place, Result};
use crate::base::value::{Key, KeyRef};

const INT: u8 = 1;
const TEXT: u8 = 2;
/// Most characters of a key that are shown in an error.
const SHOWN: usize = 80;

/// A kind of row: its table and format, and how its key is shown.
pub(super) struct Kind {
    pub(super) table: &'static str,
    format: Format,
    show: fn(&[u8]) -> String,
}

const fn kind(table: &'static str, name: &'static str, show: fn(&[u8]) -> String) -> Kind {
    Kind { table, format: Format { name, version: 1 }, show }
}

pub(super) const HEADER: Kind = kind("buckets", "postgres bucket header", show);
pub(super) const RECORD: Kind = kind("records", "postgres record", show_record_key);
pub(super) const REQUEST: Kind = kind("requests", "postgres request", show_revision);
pub(super) const META: Kind = kind("channels", "postgres channel meta", show);
pub(super) const MESSAGE: Kind = kind("history", "postgres message", show);
pub(super) const HINT: Kind = kind("hints", "postgres hint", show);

/// What is kept of a bucket besides its rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) schema_version: u32,
    pub(super) revision: u64,
    pub(super) counter: i64,
}

/// Rows of one kind, of one bucket or channel: puts them into envelopes and takes them out.
pub(super) struct Shelf<'a> {
    kind: &'static Kind,
    store: &'a str,
    name: &'a str,
    contexts: Contexts,
}

impl<'a> Shelf<'a> {
    pub(super) fn new(kind: &'static Kind, store: &'a str, name: &'a str) -> Self {
        let mut beginning = kind.table.as_bytes().to_vec();
        beginning.push(0);
        for part in [store, name] {
            // Names have at most 128 bytes; a longer one could not be made.
            beginning.push(u8::try_from(part.len()).unwrap_or(u8::MAX));
            beginning.extend_from_slice(part.as_bytes());
        }
        Self { kind, store, name, contexts: Contexts::new(beginning) }
    }

    /// The place of all of them, for errors.
    pub(super) fn container(&self) -> Place {
        Place::new(format!("{} of {}/{}", self.kind.table, self.store, self.name))
    }

    /// The place of a row, for errors.
    pub(super) fn place(&self, key: &[u8]) -> Place {
        if key.is_empty() { self.container() } else { self.container().at((self.kind.show)(key)) }
    }

    pub(super) fn encode<T: Serialize + ?Sized>(&mut self, key: &[u8], value: &T) -> Result<Vec<u8>> {
        self.encode_with(key, |body| codec::serialize(value, body))
    }

    /// The row around what `body` appends.
    pub(super) fn encode_with(
        &mut self,
        key: &[u8],
        body: impl FnOnce(&mut Vec<u8>) -> Result<(), CodecError>,
    ) -> Result<Vec<u8>> {
        let mut row = Vec::with_capacity(256);
        codec::encode_into(self.kind.format, self.contexts.ending(key), &mut row, body).map_err(|error| {
            Error::permanent(format!("encoding a {} for {}", self.kind.format.name, self.place(key)), error)
        })?;
        Ok(row)
    }

    pub(super) fn decode<T: DeserializeOwned>(&mut self, key: &[u8], row: &[u8]) -> Result<T> {
        self.decode_with(key, row, codec::deserialize)
    }

    /// What `read` makes of the body, once its envelope is found intact.
    pub(super) fn decode_with<T>(
        &mut self,
        key: &[u8],
        row: &[u8],
        read: impl FnOnce(&[u8]) -> Result<T, CodecError>,
    ) -> Result<T> {
        let format = self.kind.format;
        let body = codec::open_filed(format, self.contexts.ending(key), row);
        body.and_then(read).map_err(|error| error.at(format, self.place(key)))
    }
}

/// The sign bit flipped, so that bytewise order is numeric order.
fn ordered(number: i64) -> [u8; 8] {
    (number ^ i64::MIN).to_be_bytes()
}

/// The bytes of a record's key: bytewise order is that of the keys.
pub(super) fn record_key(key: &Key) -> Vec<u8> {
    match key.parts() {
        KeyRef::Int(number) => [&[INT], &ordered(number)[..]].concat(),
        KeyRef::Text(text) => [&[TEXT], text.as_bytes()].concat(),
    }
}

/// The bytes of a revision: bytewise order is that of the revisions.
pub(super) fn revision_key(revision: u64) -> [u8; 8] {
    revision.to_be_bytes()
}

/// What ends the context of a message: bytewise, as its place in the history is ordered.
pub(super) fn history_key(lamport: i64, id: &[u8]) -> Vec<u8> {
    [&ordered(lamport), id].concat()
}

fn shortened(text: impl Iterator<Item = char>) -> String {
    let mut text = text;
    let mut shown: String = text.by_ref().take(SHOWN).collect();
    if text.next().is_some() {
        shown.push('…');
    }
    shown
}

/// Any key, for people.
fn show(bytes: &[u8]) -> String {
    format!("key \"{}\"", shortened(bytes.escape_ascii().map(char::from)))
}

/// A record's key, for people. A text may be what nobody else is to see, so only what finds it again is shown.
fn show_record_key(bytes: &[u8]) -> String {
    match bytes.split_first() {
        Some((&INT, rest)) => rest.try_into().ok().map(|rest| format!("key {}", i64::from_be_bytes(rest) ^ i64::MIN)),
        _ => None,
    }
    .unwrap_or_else(|| format!("key of {} bytes with crc32c {:08x}", bytes.len(), crc32c::crc32c(bytes)))
}

/// A revision, for people.
fn show_revision(bytes: &[u8]) -> String {
    match bytes.try_into() {
        Ok(bytes) => format!("revision {}", u64::from_be_bytes(bytes)),
        Err(_) => show(bytes),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_key() -> impl Strategy<Value = Key> {
        prop_oneof![
            any::<i64>().prop_map(Key::from),
            "\\PC{1,8}".prop_map(Key::from),
            "[ab\u{0}]{1,12}".prop_map(Key::from)
        ]
    }

    proptest! {
        #[test]
        fn bytewise_order_is_key_order(left in any_key(), right in any_key()) {
            prop_assert_eq!(record_key(&left).cmp(&record_key(&right)), left.cmp(&right));
        }
    }

    #[test]
    fn keys_are_shown_as_people_know_them() {
        let place = |kind, key: &[u8]| Shelf::new(kind, "shop", "users").place(key).to_string();
        assert_eq!(place(&RECORD, &record_key(&Key::from(-7))), "records of shop/users, key -7");
        let text = place(&RECORD, &record_key(&Key::from("secret")));
        assert!(
            text.starts_with("records of shop/users, key of 7 bytes with crc32c ") && !text.contains("secret"),
            "{text}"
        );
        assert!(place(&RECORD, &[9, 255]).starts_with("records of shop/users, key of 2 bytes with crc32c "));
        assert_eq!(place(&REQUEST, &revision_key(7)), "requests of shop/users, revision 7");
        assert_eq!(place(&HEADER, &[]), "buckets of shop/users");
        assert!(place(&HINT, &[b'x'; 300]).chars().count() < 120);
    }

    #[test]
    fn a_row_is_read_only_where_it_was_written() {
        let header = Header { schema_version: 1, revision: 7, counter: 3 };
        let row = Shelf::new(&HEADER, "shop", "users").encode(&[], &header).unwrap();
        let read = |store, name| Shelf::new(&HEADER, store, name).decode::<Header>(&[], &row);
        assert_eq!(read("shop", "users").unwrap(), header);
        for (store, name) in [("shop", "user"), ("shopu", "sers"), ("sho", "pusers")] {
            assert!(matches!(read(store, name), Err(Error::Corrupt { .. })), "{store}/{name}");
        }
    }
}
