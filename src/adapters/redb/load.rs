//! Reading a bucket or channel whole, and noticing everything that is not as it was written.

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use redb::{ReadOnlyTable, ReadTransaction, ReadableTableMetadata, TableError};

use crate::adapters::redb::fault::Fault;
use crate::adapters::redb::keys::{self, BucketPlaces, ChannelPlaces};
use crate::adapters::redb::rows::{self, BucketHeader, ChannelHeader, Definition, Shelf, Tally};
use crate::base::codec::{self, CodecError};
use crate::base::error::{Error, Place};
use crate::base::name::{BucketKey, ChannelKey, MessageId};
use crate::records::{BucketSnapshot, Record, Request, Unpacker};
use crate::sds::{ChannelData, ChannelMeta, SdsMessage};

type Table = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// Opens a table that may not be there.
pub(super) fn open(txn: &ReadTransaction, table: &str) -> Result<Option<Table>, Fault> {
    match txn.open_table(Definition::new(table)) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Opens one of the tables that a file is born with.
pub(super) fn born(txn: &ReadTransaction, table: &str) -> Result<Table, Fault> {
    open(txn, table)?.ok_or_else(|| Error::corrupt(Place::new(table), "the table is missing").into())
}

fn headless(table: &str) -> Fault {
    Error::corrupt(Place::new(table), "the table is there, but its header is missing").into()
}

/// What is stored of a bucket.
pub(super) fn bucket(txn: &ReadTransaction, key: &BucketKey) -> Result<Option<BucketSnapshot>, Fault> {
    let places = BucketPlaces::of(key);
    let headers = born(txn, rows::BUCKETS)?;
    let header = BucketHeader::read(&headers, &places.pair)?;
    let (table, request_table) = (open(txn, &places.rows)?, open(txn, &places.requests)?);
    let Some(header) = header else {
        return match (&table, &request_table) {
            (Some(_), _) => Err(headless(&places.rows)),
            (None, Some(_)) => Err(headless(&places.requests)),
            (None, None) => Ok(None),
        };
    };
    let Some(table) = table else {
        return Err(Error::corrupt(Place::new(&places.rows), "the table is missing").into());
    };
    let mut shelf = Shelf::new(&rows::RECORD, &places.rows);
    let mut records: Vec<Arc<Record>> = room(&table, header.rows)?;
    let mut unpacker = Unpacker::default();
    let read = |body: &[u8]| unpacker.record(body).map_or_else(|| codec::deserialize(body), Ok);
    scan(&mut shelf, Some(&table), header.rows, read, |_, record| {
        records.push(Arc::new(record));
        Ok(())
    })?;
    let mut snapshot = BucketSnapshot::new(header.schema_version, header.revision, header.counter, records);
    snapshot.requests = requests(&places.requests, request_table.as_ref(), header.requests)?;
    Ok(Some(snapshot))
}

/// The writes with a request id, in the order in which they were made.
fn requests(name: &str, table: Option<&Table>, tally: Tally) -> Result<Vec<Request>, Fault> {
    if table.is_some() && tally.is_empty() {
        return Err(Error::corrupt(Place::new(name), "the table is there, but the header does not know of it").into());
    }
    let mut requests: Vec<Request> = Vec::new();
    scan(&mut Shelf::new(&rows::REQUEST, name), table, tally, codec::deserialize, |key, request: Request| {
        if key != keys::revision_key(request.revision) {
            let place = Place::new(name).at(keys::show_revision(key));
            return Err(Error::corrupt(place, "the request made another revision").into());
        }
        requests.push(request);
        Ok(())
    })?;
    Ok(requests)
}

/// A list with the capacity for all rows; two counts must agree on it, so a damaged one allocates nothing.
fn room<T>(table: &Table, tally: Tally) -> Result<Vec<T>, Fault> {
    let count = table.len()?;
    let agreed = if count == tally.count { usize::try_from(count).unwrap_or(0) } else { 0 };
    Ok(Vec::with_capacity(agreed))
}

/// Visits all rows of a table in the order of their keys; fails unless they ascend and add up to `tally`.
fn scan<T>(
    shelf: &mut Shelf<'_>,
    table: Option<&Table>,
    tally: Tally,
    mut read: impl FnMut(&[u8]) -> Result<T, CodecError>,
    mut visit: impl FnMut(&[u8], T) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut found = Tally::default();
    if let Some(table) = table {
        let mut last: Vec<u8> = Vec::with_capacity(64);
        for entry in table.range::<&[u8]>(..)? {
            let (key, row) = entry?;
            let (key, row) = (key.value(), row.value());
            if found.count > 0 && key <= last.as_slice() {
                return Err(Error::corrupt(shelf.place(key), "the key is out of order").into());
            }
            last.clear();
            last.extend_from_slice(key);
            found.add(row);
            visit(key, shelf.decode_with(key, row, &mut read)?)?;
        }
    }
    if found.count != tally.count {
        return Err(rows::missing(shelf.table, tally.count, found.count).into());
    }
    if found != tally {
        let reason = "the rows do not add up: at least one of them is an older state of itself";
        return Err(Error::corrupt(Place::new(shelf.table), reason).into());
    }
    Ok(())
}

/// What is stored of a channel.
pub(super) fn channel(txn: &ReadTransaction, key: &ChannelKey) -> Result<ChannelData, Fault> {
    let places = ChannelPlaces::of(key);
    let headers = born(txn, rows::CHANNELS)?;
    let header: Option<ChannelHeader> =
        Shelf::new(&rows::CHANNEL_HEADER, rows::CHANNELS).get(&headers, &places.pair)?;
    let [history, ids, hints] = places.tables().map(|table| open(txn, table));
    let (history, ids, hints) = (history?, ids?, hints?);
    let Some(header) = header else {
        let there = [history.is_some(), ids.is_some(), hints.is_some()].into_iter().zip(places.tables());
        if let Some((_, table)) = there.into_iter().find(|(there, _)| *there) {
            return Err(headless(table));
        }
        return match meta_row(txn, &places.pair)? {
            Some(_) => Err(headless(rows::CHANNEL_META)),
            None => Ok(ChannelData::default()),
        };
    };
    let meta = meta(txn, &places.pair, header.meta)?;
    let mut messages: Vec<SdsMessage> = Vec::new();
    let mut indexed = index(&mut Shelf::new(&rows::MESSAGE_PLACE, &places.ids), ids.as_ref())?;
    let mut shelf = Shelf::new(&rows::MESSAGE, &places.history);
    scan(&mut shelf, history.as_ref(), header.history, codec::deserialize, |key, message: SdsMessage| {
        let (lamport, id) = keys::history_parts(key).unwrap_or_default();
        if indexed.remove(id) != Some(lamport) {
            let place = Place::new(&places.ids).at(keys::show(id));
            return Err(Error::corrupt(place, "the index does not lead to the message").into());
        }
        messages.push(message);
        Ok(())
    })?;
    if let Some(id) = indexed.into_keys().next() {
        let place = Place::new(&places.ids).at(keys::show(&id));
        return Err(Error::corrupt(place, "the index names a message that is missing").into());
    }
    let mut found = Vec::new();
    scan(
        &mut Shelf::new(&rows::HINT, &places.hints),
        hints.as_ref(),
        header.hints,
        codec::deserialize,
        |key, hint: Bytes| {
            found.push((MessageId::from(key), hint));
            Ok(())
        },
    )?;
    Ok(ChannelData::new(meta, messages, found))
}

/// Lamport timestamps by message id.
fn index(shelf: &mut Shelf<'_>, table: Option<&Table>) -> Result<HashMap<Vec<u8>, i64>, Fault> {
    let mut index = HashMap::new();
    if let Some(table) = table {
        for entry in table.range::<&[u8]>(..)? {
            let (key, row) = entry?;
            index.insert(key.value().to_vec(), shelf.decode(key.value(), row.value())?);
        }
    }
    Ok(index)
}

fn meta_row(txn: &ReadTransaction, pair: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
    Ok(born(txn, rows::CHANNEL_META)?.get(pair)?.map(|row| row.value().to_vec()))
}

fn meta(txn: &ReadTransaction, pair: &[u8], checksum: Option<u32>) -> Result<ChannelMeta, Fault> {
    let mut shelf = Shelf::new(&rows::CHANNEL_STATE, rows::CHANNEL_META);
    let reason = match (meta_row(txn, pair)?, checksum) {
        (None, None) => return Ok(ChannelMeta::default()),
        (Some(row), Some(_)) => {
            let meta = shelf.decode(pair, &row)?;
            if codec::stored_checksum(&row) == checksum {
                return Ok(meta);
            }
            "the row is an older state of itself"
        }
        (None, Some(_)) => "the row is missing",
        (Some(_), None) => "the row is there, but the header does not know of it",
    };
    Err(Error::corrupt(shelf.place(pair), reason).into())
}
