//! Rows: their formats, their envelopes, and the tally that notices missing ones.

use std::ops::Bound;

use redb::{ReadableTable, TableDefinition};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::adapters::redb::fault::Fault;
use crate::adapters::redb::keys;
use crate::base::codec::{self, CodecError, Contexts, Format};
use crate::base::error::{Error, Place, Result};
use crate::records::Record;

/// The type of every table.
pub(super) type Definition<'a> = TableDefinition<'a, &'static [u8], &'static [u8]>;
/// A table opened to write.
pub(super) type Table<'txn> = redb::Table<'txn, &'static [u8], &'static [u8]>;

/// A kind of row.
pub(super) struct Kind {
    pub(super) format: Format,
    show: fn(&[u8]) -> String,
}

const fn kind(name: &'static str, show: fn(&[u8]) -> String) -> Kind {
    Kind { format: Format { name, version: 1 }, show }
}

pub(super) const META: &str = "meta";
pub(super) const EPOCHS: &str = "epochs";
pub(super) const BUCKETS: &str = "buckets";
pub(super) const CHANNELS: &str = "channels";
pub(super) const CHANNEL_META: &str = "channel_meta";
pub(super) const QUARANTINE: &str = "quarantine";
/// The tables that a file is born with.
pub(super) const BORN_WITH: [&str; 6] = [META, EPOCHS, BUCKETS, CHANNELS, CHANNEL_META, QUARANTINE];

pub(super) const META_ROW: Kind = kind("redb meta row", keys::show);
pub(super) const EPOCH: Kind = kind("redb epoch", keys::show);
pub(super) const BUCKET_HEADER: Kind = kind("redb bucket header", keys::show_pair);
/// The header of a bucket with request ids.
pub(super) const BUCKET_HEADER_2: Kind =
    Kind { format: Format { version: 2, ..BUCKET_HEADER.format }, ..BUCKET_HEADER };
pub(super) const CHANNEL_HEADER: Kind = kind("redb channel header", keys::show_pair);
pub(super) const CHANNEL_STATE: Kind = kind("redb channel meta", keys::show_pair);
pub(super) const RECORD: Kind = kind("redb record", keys::show_record_key);
pub(super) const REQUEST: Kind = kind("redb request", keys::show_revision);
pub(super) const MESSAGE: Kind = kind("redb message", keys::show_history_key);
pub(super) const MESSAGE_PLACE: Kind = kind("redb message place", keys::show);
pub(super) const HINT: Kind = kind("redb hint", keys::show);
pub(super) const QUARANTINED: Kind = kind("redb quarantine", keys::show);

/// What is kept of a bucket besides its rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct BucketHeader {
    pub(super) schema_version: u32,
    pub(super) revision: u64,
    pub(super) counter: i64,
    pub(super) rows: Tally,
    /// None in version 1, which has no field for it.
    #[serde(default, skip_serializing_if = "Tally::is_empty")]
    pub(super) requests: Tally,
}

impl BucketHeader {
    /// The header of a bucket, if it has one.
    pub(super) fn read(
        headers: &impl ReadableTable<&'static [u8], &'static [u8]>,
        pair: &[u8],
    ) -> Result<Option<Self>, Fault> {
        let Some(row) = headers.get(pair)? else { return Ok(None) };
        let first = row.value().first() == Some(&BUCKET_HEADER.format.version);
        let kind = if first { &BUCKET_HEADER } else { &BUCKET_HEADER_2 };
        let mut shelf = Shelf::new(kind, BUCKETS);
        let header: Self = shelf.decode(pair, row.value())?;
        if first != header.requests.is_empty() {
            return Err(Error::corrupt(shelf.place(pair), "its version and what it says of requests differ").into());
        }
        Ok(Some(header))
    }

    pub(super) fn write(&self, headers: &mut Table<'_>, pair: &[u8]) -> Result<(), Fault> {
        let kind = if self.requests.is_empty() { &BUCKET_HEADER } else { &BUCKET_HEADER_2 };
        Shelf::new(kind, BUCKETS).put(headers, pair, self)
    }
}

/// What is kept of a channel besides its rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct ChannelHeader {
    /// The checksum of the row in `channel_meta`, if there is one.
    pub(super) meta: Option<u32>,
    pub(super) history: Tally,
    pub(super) hints: Tally,
}

/// What rows add up to: a row that is gone, there twice or an older state of itself does not fit it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tally {
    pub(super) count: u64,
    /// The sum, modulo 2^64, of the checksums in the rows' envelopes.
    sum: u64,
}

impl Tally {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn add(&mut self, row: &[u8]) {
        self.count = self.count.wrapping_add(1);
        self.sum = self.sum.wrapping_add(share(row));
    }

    fn remove(&mut self, row: &[u8]) {
        self.count = self.count.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(share(row));
    }
}

/// Rows are not as many as they should be.
pub(super) fn missing(table: &str, counted: u64, found: u64) -> Error {
    Error::corrupt(Place::new(table), format!("{counted} rows were stored, {found} are there"))
}

fn share(row: &[u8]) -> u64 {
    codec::stored_checksum(row).map_or(0, u64::from)
}

/// Rows of one kind in one table: puts them into envelopes and takes them out.
pub(super) struct Shelf<'a> {
    kind: &'static Kind,
    pub(super) table: &'a str,
    /// The table's name and a zero byte, behind which each key is put in turn.
    contexts: Contexts,
    /// The newest row.
    row: Vec<u8>,
}

impl<'a> Shelf<'a> {
    pub(super) fn new(kind: &'static Kind, table: &'a str) -> Self {
        let contexts = Contexts::new([table.as_bytes(), &[0]].concat());
        Self { kind, table, contexts, row: Vec::new() }
    }

    pub(super) fn definition(&self) -> Definition<'a> {
        Definition::new(self.table)
    }

    /// The place of a row, for errors.
    pub(super) fn place(&self, key: &[u8]) -> Place {
        Place::new(self.table).at((self.kind.show)(key))
    }

    pub(super) fn encode<T: Serialize + ?Sized>(&mut self, key: &[u8], value: &T) -> Result<&[u8]> {
        self.encode_with(key, |body| codec::serialize(value, body))
    }

    /// The row around what `body` appends, until the next one.
    pub(super) fn encode_with(
        &mut self,
        key: &[u8],
        body: impl FnOnce(&mut Vec<u8>) -> Result<(), CodecError>,
    ) -> Result<&[u8]> {
        let (format, filed) = (self.kind.format, self.contexts.ending(key));
        match codec::encode_into(format, filed, &mut self.row, body) {
            Ok(()) => Ok(&self.row),
            Err(error) => {
                let operation = format!("encoding a {} for {}", format.name, self.place(key));
                Err(Error::permanent(operation, error))
            }
        }
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
        body.and_then(read).map_err(|error| match error {
            CodecError::Version { found, known } => Error::UnknownFormat {
                format: format.name.to_owned(),
                at: self.place(key),
                found: found.into(),
                known: known.into(),
            },
            damage => Error::corrupt(self.place(key), damage.to_string()),
        })
    }

    /// The row of `key`, if there is one.
    pub(super) fn get<T: DeserializeOwned>(
        &mut self,
        table: &impl ReadableTable<&'static [u8], &'static [u8]>,
        key: &[u8],
    ) -> Result<Option<T>, Fault> {
        match table.get(key)? {
            Some(row) => Ok(Some(self.decode(key, row.value())?)),
            None => Ok(None),
        }
    }

    /// Writes the row of `key`.
    pub(super) fn put<T: Serialize + ?Sized>(
        &mut self,
        table: &mut Table<'_>,
        key: &[u8],
        value: &T,
    ) -> Result<(), Fault> {
        table.insert(key, self.encode(key, value)?)?;
        Ok(())
    }

    fn intact(&mut self, key: &[u8], row: &[u8]) -> bool {
        codec::open_filed(self.kind.format, self.contexts.ending(key), row).is_ok()
    }
}

/// Fewer rows than that are stored one by one.
const RUN: usize = 4;
/// Most rows that are stored one by one before a run is looked for again.
const LONGEST_PAUSE: usize = 64;

/// A table whose rows are tallied, opened to write.
pub(super) struct Tallied<'s, 'a, 'txn> {
    pub(super) shelf: &'s mut Shelf<'a>,
    pub(super) table: Table<'txn>,
    tally: Tally,
    /// A row that went was damaged, so what it added to the sum is not known.
    recount: bool,
}

impl<'s, 'a, 'txn> Tallied<'s, 'a, 'txn> {
    pub(super) fn new(shelf: &'s mut Shelf<'a>, table: Table<'txn>, tally: Tally) -> Self {
        Self { shelf, table, tally, recount: false }
    }

    pub(super) fn insert<T: Serialize + ?Sized>(&mut self, key: &[u8], value: &T) -> Result<(), Fault> {
        self.insert_with(key, |body| codec::serialize(value, body))
    }

    fn insert_with(
        &mut self,
        key: &[u8],
        body: impl FnOnce(&mut Vec<u8>) -> Result<(), CodecError>,
    ) -> Result<(), Fault> {
        let row = self.shelf.encode_with(key, body)?;
        self.tally.add(row);
        let old = self.table.insert(key, row)?;
        if let Some(old) = old {
            self.recount |= !self.shelf.intact(key, old.value());
            self.tally.remove(old.value());
        }
        Ok(())
    }

    /// Whether there was such a row.
    pub(super) fn remove(&mut self, key: &[u8]) -> Result<bool, Fault> {
        let Some(old) = self.table.remove(key)? else { return Ok(false) };
        self.recount |= !self.shelf.intact(key, old.value());
        self.tally.remove(old.value());
        Ok(true)
    }

    /// Stores records, each key once, in ascending order of their keys.
    ///
    /// New ones mostly come in runs that fit between two rows that are there: such a run is put there as a whole, which
    /// costs a fraction of looking for the place of each.
    pub(super) fn store(&mut self, records: &[&Record]) -> Result<(), Fault> {
        let (mut key, mut next) = (Vec::with_capacity(64), Vec::with_capacity(64));
        // How many rows are stored one by one before a run is looked for again, and how many are left of them.
        let (mut pause, mut resting) = (0_usize, 0_usize);
        let mut rest = records;
        while let Some((first, behind)) = rest.split_first() {
            keys::set_record_key(first.key(), &mut key);
            let promising =
                resting == 0 && rest.len() >= RUN && rest.iter().take(RUN).all(|record| record.version() == 1);
            if promising {
                let stored = self.store_run(rest, &mut key, &mut next)?;
                if stored > 0 {
                    pause = 0;
                    rest = rest.get(stored..).unwrap_or_default();
                    continue;
                }
                pause = (2 * pause).clamp(RUN, LONGEST_PAUSE);
                resting = pause;
                keys::set_record_key(first.key(), &mut key);
            }
            resting = resting.saturating_sub(1);
            self.insert_with(&key, |body| {
                first.pack(body);
                Ok(())
            })?;
            rest = behind;
        }
        Ok(())
    }

    /// Stores those records at the beginning of `records` that belong between the same two rows, and answers how many
    /// they were: none if they are too few for that, or if the first one is there already. `key` is the first one's.
    fn store_run(&mut self, records: &[&Record], key: &mut Vec<u8>, next: &mut Vec<u8>) -> Result<usize, Fault> {
        let mut cursor = self.table.upper_bound_mut(Bound::Included(key.as_slice()))?;
        if cursor.peek_prev()?.is_some_and(|(there, _)| there.value() == key.as_slice()) {
            return Ok(0);
        }
        let limit = match cursor.peek_next()? {
            Some((there, _)) => {
                next.clear();
                next.extend_from_slice(there.value());
                Some(next.as_slice())
            }
            None => None,
        };
        let belongs = |record: Option<&&Record>, key: &mut Vec<u8>| {
            let Some(record) = record else { return false };
            keys::set_record_key(record.key(), key);
            limit.is_none_or(|limit| key.as_slice() < limit)
        };
        if !belongs(records.get(RUN - 1), key) {
            return Ok(0);
        }
        let mut stored = 0;
        while let Some(record) = records.get(stored).filter(|record| belongs(Some(record), key)) {
            let row = self.shelf.encode_with(key, |body| {
                record.pack(body);
                Ok(())
            })?;
            cursor.insert_before(key.as_slice(), row)?;
            self.tally.add(row);
            stored += 1;
        }
        cursor.close()?;
        Ok(stored)
    }

    /// Removes the rows with the lowest keys until there are no more than `most`.
    pub(super) fn keep_last(&mut self, most: u64) -> Result<(), Fault> {
        while self.tally.count > most {
            let Some((key, row)) = self.table.pop_first()? else { break };
            self.recount |= !self.shelf.intact(key.value(), row.value());
            self.tally.remove(row.value());
        }
        Ok(())
    }

    /// What the rows add up to now.
    pub(super) fn finish(self) -> Result<Tally, Fault> {
        if !self.recount {
            return Ok(self.tally);
        }
        let mut tally = Tally::default();
        for entry in self.table.iter()? {
            tally.add(entry?.1.value());
        }
        if tally.count != self.tally.count {
            return Err(missing(self.shelf.table, self.tally.count, tally.count).into());
        }
        Ok(tally)
    }
}
