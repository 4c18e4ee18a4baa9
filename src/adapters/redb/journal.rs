//! What a change appends to the journal: rows as they will lie in their tables, to be put there later.

use redb::{ReadableTable, WriteTransaction};
use serde::{Deserialize, Serialize};

use crate::adapters::redb::apply;
use crate::adapters::redb::fault::Fault;
use crate::adapters::redb::keys::{self, BucketPlaces, ChannelPlaces, JournalKeys};
use crate::adapters::redb::rows::{self, BucketHeader, ChannelHeader, Shelf, Table, Tallied};
use crate::base::codec::{self, CodecError};
use crate::base::error::{Error, Result};
use crate::base::name::{BucketKey, ChannelKey, MessageId};
use crate::records::{BucketDelta, fetched};
use crate::sds::{ChannelMeta, HistoryUpdate};

/// A section ends behind the operation that takes it beyond so many bytes. redb rounds large values up to pages of a
/// power of two, which this stays just below.
const SECTION: usize = (64 << 10) - 1_024;

/// How many bytes an operation has before its key and row: its code and their lengths.
const PREFIX: usize = 9;

/// What is to be done with a row. The numbers are those on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Code {
    /// A record, over the one of its key.
    Put = 1,
    /// The same, where its key is most likely not there yet.
    PutNew = 2,
    Delete = 3,
    /// A write with a request id.
    Request = 4,
    /// A channel's state.
    Meta = 16,
    /// A message; its key is its place.
    Append = 17,
    /// The message with the id that is the key goes, and its hint.
    Evict = 18,
    Hint = 19,
    NoHint = 20,
}

impl Code {
    fn read(byte: u8) -> Option<Self> {
        use Code::{Append, Delete, Evict, Hint, Meta, NoHint, Put, PutNew, Request};
        let all = [Put, PutNew, Delete, Request, Meta, Append, Evict, Hint, NoHint];
        all.into_iter().find(|code| *code as u8 == byte)
    }
}

/// What is kept of an owner's sections, beside them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Head {
    /// The oldest section that is there.
    pub(super) first: u64,
    /// The one that comes next: all before it are there, from `first` on.
    pub(super) next: u64,
    /// Of the sections that are there.
    pub(super) bytes: u64,
    /// The sum, modulo 2^64, of the checksums in their envelopes.
    pub(super) sum: u64,
    /// Sections before this one say nothing of records any more: they were cleared.
    pub(super) cleared: u64,
}

/// Where a bucket stands, at the beginning of each of its sections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stand {
    pub(super) schema_version: u32,
    pub(super) revision: u64,
    pub(super) counter: i64,
    /// How many requests the bucket remembers.
    pub(super) window: u64,
    /// First of all, every record goes.
    pub(super) cleared: bool,
}

impl Stand {
    const BYTES: usize = 29;

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::BYTES);
        bytes.extend_from_slice(&self.schema_version.to_le_bytes());
        bytes.extend_from_slice(&self.revision.to_le_bytes());
        bytes.extend_from_slice(&self.counter.to_le_bytes());
        bytes.extend_from_slice(&self.window.to_le_bytes());
        bytes.push(u8::from(self.cleared));
        bytes
    }

    /// Where the bucket stands, and the operations behind that.
    pub(super) fn split(body: &[u8]) -> Option<(Self, Operations<'_>)> {
        let (stand, rest) = body.split_at_checked(Self::BYTES)?;
        let (schema_version, stand) = stand.split_first_chunk()?;
        let (revision, stand) = stand.split_first_chunk()?;
        let (counter, stand) = stand.split_first_chunk()?;
        let (window, stand) = stand.split_first_chunk()?;
        let cleared = match stand {
            [0] => false,
            [1] => true,
            _ => return None,
        };
        let stand = Self {
            schema_version: u32::from_le_bytes(*schema_version),
            revision: u64::from_le_bytes(*revision),
            counter: i64::from_le_bytes(*counter),
            window: u64::from_le_bytes(*window),
            cleared,
        };
        Some((stand, Operations(rest)))
    }
}

/// One operation of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Operation<'a> {
    pub(super) code: Code,
    pub(super) key: &'a [u8],
    pub(super) row: &'a [u8],
}

/// The operations of a section, in order; one that is none ends them with `None` inside.
pub(super) struct Operations<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Operations<'a> {
    type Item = Option<Operation<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let split = split(self.0);
        self.0 = split.map(|(_, rest)| rest).unwrap_or_default();
        Some(split.map(|(operation, _)| operation))
    }
}

fn split(bytes: &[u8]) -> Option<(Operation<'_>, &[u8])> {
    let (code, rest) = bytes.split_first()?;
    let (key, rest) = rest.split_first_chunk()?;
    let (row, rest) = rest.split_first_chunk()?;
    let (key, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*key)).ok()?)?;
    let (row, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*row)).ok()?)?;
    Some((Operation { code: Code::read(*code)?, key, row }, rest))
}

pub(super) fn open(txn: &WriteTransaction) -> Result<Table<'_>, Fault> {
    apply::open(txn, rows::JOURNAL)
}

pub(super) fn head(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    of: &JournalKeys,
) -> Result<Option<Head>, Fault> {
    Shelf::new(&rows::JOURNAL_HEAD, rows::JOURNAL).get(table, &of.head())
}

pub(super) fn set_head(table: &mut Table<'_>, of: &JournalKeys, head: &Head) -> Result<(), Fault> {
    Shelf::new(&rows::JOURNAL_HEAD, rows::JOURNAL).put(table, &of.head(), head)
}

/// Whether the journal has anything of an owner, intact or not.
pub(super) fn has(txn: &WriteTransaction, of: &JournalKeys) -> Result<bool, Fault> {
    has_in(&open(txn)?, of)
}

pub(super) fn has_in(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    of: &JournalKeys,
) -> Result<bool, Fault> {
    let (first, head) = (of.section(0), of.head());
    Ok(table.range(first.as_slice()..=head.as_slice())?.next().transpose()?.is_some())
}

/// Removes everything of an owner from the journal.
pub(super) fn forget(txn: &WriteTransaction, of: &JournalKeys) -> Result<(), Fault> {
    let mut table = open(txn)?;
    if has_in(&table, of)? {
        let (first, head) = (of.section(0), of.head());
        table.retain_in(first.as_slice()..=head.as_slice(), |_, _| false)?;
    }
    Ok(())
}

/// About how many bytes are in the journal, of all owners.
pub(super) fn bytes(table: &impl ReadableTable<&'static [u8], &'static [u8]>) -> Result<u64, Fault> {
    let (mut from, mut bytes) = (Vec::new(), 0_u64);
    while let Some((key, _)) = table.range(from.as_slice()..)?.next().transpose()? {
        from = match JournalKeys::parse(key.value()) {
            Some((of, _)) => {
                // One that cannot be read is found by whoever needs it.
                let head = head(table, &of).ok().flatten().unwrap_or_default();
                bytes = bytes.saturating_add(head.bytes).saturating_add(1);
                after(&of.head())
            }
            None => after(key.value()),
        };
    }
    Ok(bytes)
}

/// The least key behind this one.
pub(super) fn after(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// Journals a bucket's change, and answers how many bytes that were.
pub(super) fn bucket(txn: &WriteTransaction, key: &BucketKey, delta: &BucketDelta) -> Result<u64, Fault> {
    let of = JournalKeys::of_bucket(key);
    let places = BucketPlaces::of(key);
    let table = open(txn)?;
    let head = head(&table, &of)?;
    if head.is_none() {
        // A header without its table, or a table without its header, is noticed here, before anything is built on it.
        let header = BucketHeader::read(&apply::open(txn, rows::BUCKETS)?, &places.pair)?.unwrap_or_default();
        Tallied::open(txn, &mut Shelf::new(&rows::RECORD, &places.rows), header.rows)?;
        if !delta.requests.is_empty() {
            Tallied::open(txn, &mut Shelf::new(&rows::REQUEST, &places.requests), header.requests)?;
        }
    }
    let stand = Stand {
        schema_version: delta.schema_version,
        revision: delta.revision,
        counter: delta.counter,
        window: delta.request_window as u64,
        cleared: delta.cleared,
    };
    let mut head = head.unwrap_or_default();
    if delta.cleared {
        head.cleared = head.next;
    }
    // Only the first section of a change clears.
    let behind = Stand { cleared: false, ..stand };
    let mut appender = Appender::new(table, of, head, &stand.bytes(), behind.bytes());
    let mut bytes = Vec::with_capacity(64);
    for key in &delta.deletes {
        keys::set_record_key(key, &mut bytes);
        appender.push(Code::Delete, &bytes, |_| Ok(()))?;
    }
    let mut shelf = Shelf::new(&rows::RECORD, &places.rows);
    for record in fetched(&delta.upserts) {
        keys::set_record_key(record.key(), &mut bytes);
        let code = if record.version() == 1 { Code::PutNew } else { Code::Put };
        appender.push(code, &bytes, |row| {
            shelf.encode_onto(&bytes, row, |body| {
                record.pack(body);
                Ok(())
            })
        })?;
    }
    if !delta.requests.is_empty() {
        let mut shelf = Shelf::new(&rows::REQUEST, &places.requests);
        for request in &delta.requests {
            let key = keys::revision_key(request.revision);
            appender.push(Code::Request, &key, |row| {
                shelf.encode_onto(&key, row, |body| codec::serialize(request, body))
            })?;
        }
    }
    appender.finish()
}

/// Journals a channel's change, and answers how many bytes that were.
pub(super) fn channel(
    txn: &WriteTransaction,
    key: &ChannelKey,
    append: impl FnOnce(&mut ChannelAppender<'_>) -> Result<(), Fault>,
) -> Result<u64, Fault> {
    let of = JournalKeys::of_channel(key);
    let places = ChannelPlaces::of(key);
    let table = open(txn)?;
    let head = head(&table, &of)?;
    if head.is_none() {
        let headers = apply::open(txn, rows::CHANNELS)?;
        let _readable: Option<ChannelHeader> =
            Shelf::new(&rows::CHANNEL_HEADER, rows::CHANNELS).get(&headers, &places.pair)?;
    }
    let appender = Appender::new(table, of, head.unwrap_or_default(), &[], Vec::new());
    let mut appender = ChannelAppender { appender, places };
    append(&mut appender)?;
    appender.appender.finish()
}

/// Appends to a channel's sections.
pub(super) struct ChannelAppender<'txn> {
    appender: Appender<'txn>,
    places: ChannelPlaces,
}

impl ChannelAppender<'_> {
    pub(super) fn meta(&mut self, meta: &ChannelMeta) -> Result<(), Fault> {
        let mut shelf = Shelf::new(&rows::CHANNEL_STATE, rows::CHANNEL_META);
        let pair = &self.places.pair;
        self.appender.push(Code::Meta, &[], |row| shelf.encode_onto(pair, row, |body| codec::serialize(meta, body)))
    }

    pub(super) fn history(&mut self, update: &HistoryUpdate) -> Result<(), Fault> {
        let mut shelf = Shelf::new(&rows::MESSAGE, &self.places.history);
        for message in &update.append {
            let key = keys::history_key(message.lamport_timestamp, message.message_id.as_bytes());
            let body = |body: &mut Vec<u8>| -> Result<(), CodecError> { codec::serialize(message, body) };
            self.appender.push(Code::Append, &key, |row| shelf.encode_onto(&key, row, body))?;
        }
        for message in &update.evict {
            self.appender.push(Code::Evict, message.as_bytes(), |_| Ok(()))?;
        }
        Ok(())
    }

    pub(super) fn hint(&mut self, message: &MessageId, hint: &[u8]) -> Result<(), Fault> {
        let id = message.as_bytes();
        if hint.is_empty() {
            return self.appender.push(Code::NoHint, id, |_| Ok(()));
        }
        let mut shelf = Shelf::new(&rows::HINT, &self.places.hints);
        let hint = bytes::Bytes::copy_from_slice(hint);
        self.appender.push(Code::Hint, id, |row| shelf.encode_onto(id, row, |body| codec::serialize(&hint, body)))
    }
}

/// Appends sections of one owner.
struct Appender<'txn> {
    table: Table<'txn>,
    of: JournalKeys,
    head: Head,
    shelf: Shelf<'static>,
    /// What every section but the first begins with.
    beginning: Vec<u8>,
    /// The section that is being filled, with room for its envelope's header.
    section: Vec<u8>,
    /// The bytes of those that are in the table.
    appended: u64,
    /// Whether there are operations in the one that is being filled.
    pending: bool,
}

impl<'txn> Appender<'txn> {
    fn new(table: Table<'txn>, of: JournalKeys, head: Head, first: &[u8], beginning: Vec<u8>) -> Self {
        let mut section = Vec::with_capacity(1 << 10);
        section.extend_from_slice(&[0; codec::HEADER]);
        section.extend_from_slice(first);
        let shelf = Shelf::new(&rows::SECTION, rows::JOURNAL);
        Self { table, of, head, shelf, beginning, section, appended: 0, pending: false }
    }

    fn push(&mut self, code: Code, key: &[u8], row: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<(), Fault> {
        let section = &mut self.section;
        let at = section.len();
        section.push(code as u8);
        section.extend_from_slice(&length(key.len())?);
        section.extend_from_slice(&[0; 4]);
        section.extend_from_slice(key);
        row(section)?;
        let written = length(section.len() - at - PREFIX - key.len())?;
        if let Some(place) = section.get_mut(at + PREFIX - 4..at + PREFIX) {
            place.copy_from_slice(&written);
        }
        self.pending = true;
        if self.section.len() >= SECTION { self.end_section() } else { Ok(()) }
    }

    fn end_section(&mut self) -> Result<(), Fault> {
        let key = self.of.section(self.head.next);
        self.shelf.seal(&key, &mut self.section);
        let bytes = self.section.len() as u64;
        self.head.next += 1;
        self.head.bytes += bytes;
        self.head.sum = self.head.sum.wrapping_add(rows::share(&self.section));
        self.appended += bytes;
        self.table.insert(key.as_slice(), self.section.as_slice())?;
        self.section.truncate(codec::HEADER);
        self.section.extend_from_slice(&self.beginning);
        self.pending = false;
        Ok(())
    }

    fn finish(mut self) -> Result<u64, Fault> {
        // A change without operations still says where the bucket stands.
        if self.appended == 0 || self.pending {
            self.end_section()?;
        }
        set_head(&mut self.table, &self.of, &self.head)?;
        Ok(self.appended)
    }
}

fn length(length: usize) -> Result<[u8; 4]> {
    let length = u32::try_from(length).map_err(|error| Error::permanent("writing a row", error));
    Ok(length?.to_le_bytes())
}
