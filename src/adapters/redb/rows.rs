//! Rows: their formats, their envelopes, and the tally that notices missing ones.

use std::ops::Bound;

use redb::{ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};
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
/// Comes with the first change that is journalled.
pub(super) const JOURNAL: &str = "journal";
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
pub(super) const SECTION: Kind = kind("redb journal section", keys::show_journal_key);
pub(super) const JOURNAL_HEAD: Kind = kind("redb journal head", keys::show_journal_key);
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

/// What a row adds to a sum of checksums.
pub(super) fn share(row: &[u8]) -> u64 {
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

    /// Appends the row around what `body` appends.
    pub(super) fn encode_onto(
        &mut self,
        key: &[u8],
        bytes: &mut Vec<u8>,
        body: impl FnOnce(&mut Vec<u8>) -> Result<(), CodecError>,
    ) -> Result<()> {
        let (format, filed) = (self.kind.format, self.contexts.ending(key));
        codec::encode_onto(format, filed, bytes, body).map_err(|error| {
            let operation = format!("encoding a {} for {}", format.name, self.place(key));
            Error::permanent(operation, error)
        })
    }

    /// Makes a row of bytes that have room for an envelope's header before their body.
    pub(super) fn seal(&mut self, key: &[u8], row: &mut [u8]) {
        codec::seal(self.kind.format, self.contexts.ending(key), row);
    }

    /// The body of a row, once its envelope is found intact.
    pub(super) fn open<'r>(&mut self, key: &[u8], row: &'r [u8]) -> Result<&'r [u8]> {
        let format = self.kind.format;
        codec::open_filed(format, self.contexts.ending(key), row).map_err(|error| error.at(format, self.place(key)))
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

/// Something that becomes a row.
pub(super) trait Entry {
    /// Replaces what is in `key` by this one's.
    fn set_key(&self, key: &mut Vec<u8>);
    /// Replaces what is in `row` by the whole row.
    fn set_row(&self, shelf: &mut Shelf<'_>, key: &[u8], row: &mut Vec<u8>) -> Result<()>;
    /// Whether its key is most likely not there yet.
    fn is_new(&self) -> bool;
}

impl Entry for &Record {
    fn set_key(&self, key: &mut Vec<u8>) {
        keys::set_record_key(self.key(), key);
    }

    fn set_row(&self, shelf: &mut Shelf<'_>, key: &[u8], row: &mut Vec<u8>) -> Result<()> {
        row.clear();
        shelf.encode_onto(key, row, |body| {
            self.pack(body);
            Ok(())
        })
    }

    fn is_new(&self) -> bool {
        self.version() == 1
    }
}

/// A row that was encoded before.
pub(super) struct Encoded<'a> {
    pub(super) key: &'a [u8],
    pub(super) row: &'a [u8],
    pub(super) new: bool,
}

impl Entry for Encoded<'_> {
    fn set_key(&self, key: &mut Vec<u8>) {
        key.clear();
        key.extend_from_slice(self.key);
    }

    fn set_row(&self, _: &mut Shelf<'_>, _: &[u8], row: &mut Vec<u8>) -> Result<()> {
        row.clear();
        row.extend_from_slice(self.row);
        Ok(())
    }

    fn is_new(&self) -> bool {
        self.new
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
    fn new(shelf: &'s mut Shelf<'a>, table: Table<'txn>, tally: Tally) -> Self {
        Self { shelf, table, tally, recount: false }
    }

    /// Opens the table; it must have as many rows as are tallied.
    pub(super) fn open(txn: &'txn WriteTransaction, shelf: &'s mut Shelf<'a>, tally: Tally) -> Result<Self, Fault> {
        let table = txn.open_table(shelf.definition())?;
        let found = table.len()?;
        if tally.count != found {
            return Err(missing(shelf.table, tally.count, found).into());
        }
        Ok(Self::new(shelf, table, tally))
    }

    /// Stores a row that was encoded before.
    pub(super) fn insert(&mut self, key: &[u8], row: &[u8]) -> Result<(), Fault> {
        self.tally.add(row);
        let old = self.table.insert(key, row)?;
        if let Some(old) = old {
            self.recount |= !self.shelf.intact(key, old.value());
            self.tally.remove(old.value());
        }
        Ok(())
    }

    pub(super) fn put<T: Serialize + ?Sized>(&mut self, key: &[u8], value: &T) -> Result<(), Fault> {
        let mut row = std::mem::take(&mut self.shelf.row);
        row.clear();
        self.shelf.encode_onto(key, &mut row, |body| codec::serialize(value, body))?;
        self.insert(key, &row)?;
        self.shelf.row = row;
        Ok(())
    }

    /// Whether there was such a row.
    pub(super) fn remove(&mut self, key: &[u8]) -> Result<bool, Fault> {
        let Some(old) = self.table.remove(key)? else { return Ok(false) };
        self.recount |= !self.shelf.intact(key, old.value());
        self.tally.remove(old.value());
        Ok(true)
    }

    /// Stores rows, each key once, in ascending order of their keys.
    ///
    /// New ones mostly come in runs that fit between two rows that are there: such a run is put there as a whole, which
    /// costs a fraction of looking for the place of each.
    pub(super) fn store<E: Entry>(&mut self, entries: &[E]) -> Result<(), Fault> {
        let (mut key, mut next, mut row) = (Vec::with_capacity(64), Vec::with_capacity(64), Vec::with_capacity(256));
        // How many rows are stored one by one before a run is looked for again, and how many are left of them.
        let (mut pause, mut resting) = (0_usize, 0_usize);
        let mut rest = entries;
        while let Some((first, behind)) = rest.split_first() {
            first.set_key(&mut key);
            let promising = resting == 0 && rest.len() >= RUN && rest.iter().take(RUN).all(Entry::is_new);
            if promising {
                let stored = self.store_run(rest, &mut key, &mut next, &mut row)?;
                if stored > 0 {
                    pause = 0;
                    rest = rest.get(stored..).unwrap_or_default();
                    continue;
                }
                pause = (2 * pause).clamp(RUN, LONGEST_PAUSE);
                resting = pause;
                first.set_key(&mut key);
            }
            resting = resting.saturating_sub(1);
            first.set_row(self.shelf, &key, &mut row)?;
            self.insert(&key, &row)?;
            rest = behind;
        }
        Ok(())
    }

    /// Stores those rows at the beginning of `entries` that belong between the same two rows, and answers how many they
    /// were: none if they are too few for that, or if the first one is there already. `key` is the first one's.
    fn store_run<E: Entry>(
        &mut self,
        entries: &[E],
        key: &mut Vec<u8>,
        next: &mut Vec<u8>,
        row: &mut Vec<u8>,
    ) -> Result<usize, Fault> {
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
        let belongs = |entry: Option<&E>, key: &mut Vec<u8>| {
            let Some(entry) = entry else { return false };
            entry.set_key(key);
            limit.is_none_or(|limit| key.as_slice() < limit)
        };
        if !belongs(entries.get(RUN - 1), key) {
            return Ok(0);
        }
        let mut stored = 0;
        while let Some(entry) = entries.get(stored).filter(|entry| belongs(Some(entry), key)) {
            entry.set_row(self.shelf, key, row)?;
            cursor.insert_before(key.as_slice(), row.as_slice())?;
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
