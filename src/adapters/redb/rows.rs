//! Rows: their formats, their envelopes, and the tally that notices missing ones.

use redb::{ReadableTable, TableDefinition};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::adapters::redb::fault::Fault;
use crate::adapters::redb::keys;
use crate::base::codec::{self, CodecError, Format};
use crate::base::error::{Error, Place, Result};

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
pub(super) const CHANNEL_HEADER: Kind = kind("redb channel header", keys::show_pair);
pub(super) const CHANNEL_STATE: Kind = kind("redb channel meta", keys::show_pair);
pub(super) const RECORD: Kind = kind("redb record", keys::show_record_key);
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
    context: Vec<u8>,
    prefix: usize,
}

impl<'a> Shelf<'a> {
    pub(super) fn new(kind: &'static Kind, table: &'a str) -> Self {
        let mut context = Vec::with_capacity(table.len() + 64);
        context.extend_from_slice(table.as_bytes());
        context.push(0);
        Self { kind, table, prefix: context.len(), context }
    }

    pub(super) fn definition(&self) -> Definition<'a> {
        Definition::new(self.table)
    }

    fn context(&mut self, key: &[u8]) -> &[u8] {
        self.context.truncate(self.prefix);
        self.context.extend_from_slice(key);
        &self.context
    }

    /// The place of a row, for errors.
    pub(super) fn place(&self, key: &[u8]) -> Place {
        Place::new(self.table).at((self.kind.show)(key))
    }

    pub(super) fn encode<T: Serialize + ?Sized>(&mut self, key: &[u8], value: &T) -> Result<Vec<u8>> {
        let format = self.kind.format;
        codec::encode(format, self.context(key), value)
            .map_err(|error| Error::permanent(format!("encoding a {} for {}", format.name, self.place(key)), error))
    }

    pub(super) fn decode<T: DeserializeOwned>(&mut self, key: &[u8], row: &[u8]) -> Result<T> {
        let format = self.kind.format;
        codec::decode(format, self.context(key), row).map_err(|error| match error {
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
        let row = self.encode(key, value)?;
        table.insert(key, row.as_slice())?;
        Ok(())
    }

    fn intact(&mut self, key: &[u8], row: &[u8]) -> bool {
        let format = self.kind.format;
        codec::open(format, self.context(key), row).is_ok()
    }
}

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
        let row = self.shelf.encode(key, value)?;
        let old = self.table.insert(key, row.as_slice())?;
        if let Some(old) = old {
            self.recount |= !self.shelf.intact(key, old.value());
            self.tally.remove(old.value());
        }
        self.tally.add(&row);
        Ok(())
    }

    /// Whether there was such a row.
    pub(super) fn remove(&mut self, key: &[u8]) -> Result<bool, Fault> {
        let Some(old) = self.table.remove(key)? else { return Ok(false) };
        self.recount |= !self.shelf.intact(key, old.value());
        self.tally.remove(old.value());
        Ok(true)
    }

    /// Inserts rows into an empty table, in ascending order of their keys: twice as fast as [`insert`](Self::insert).
    pub(super) fn fill<'k, T: Serialize + ?Sized + 'k>(
        &mut self,
        rows: impl Iterator<Item = (&'k [u8], &'k T)>,
    ) -> Result<(), Fault> {
        let mut cursor = self.table.upper_bound_mut(std::ops::Bound::<&[u8]>::Unbounded)?;
        for (key, value) in rows {
            let row = self.shelf.encode(key, value)?;
            cursor.insert_before(key, row.as_slice())?;
            self.tally.add(&row);
        }
        cursor.close()?;
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
