//! What a save writes, within a transaction that somebody else begins and commits.

use std::sync::Arc;

use redb::{ReadableTable, TableHandle, WriteTransaction};

use crate::adapters::redb::fault::Fault;
use crate::adapters::redb::journal;
use crate::adapters::redb::keys::{self, BucketPlaces, ChannelPlaces, JournalKeys};
use crate::adapters::redb::rows::{self, BucketHeader, Definition, Shelf, Table, Tallied, Tally};
use crate::base::error::{Error, Place};
use crate::base::name::{BucketKey, ChannelKey, StoreName};
use crate::base::value::Key;
use crate::persistence::{Epoch, Save};
use crate::records::{BucketChange, Record, Request};

/// Deltas of more records than that are rows at once where the journal has nothing of the bucket: to write them down twice
/// would cost more than the order of the rows.
const JOURNALLED_AT_MOST: usize = 1 << 17;

/// Writes one save, and answers how many bytes of it the journal got.
pub(super) fn save(txn: &WriteTransaction, store: &StoreName, save: &Save) -> Result<u64, Fault> {
    let bucket = |name: &_| BucketKey::new(store.clone(), Clone::clone(name));
    let channel = |id: &_| ChannelKey::new(store.clone(), Clone::clone(id));
    match save {
        Save::Bucket(name, change) => save_bucket(txn, &bucket(name), change),
        Save::ChannelMeta(id, meta) => journal::channel(txn, &channel(id), |appender| appender.meta(meta)),
        Save::History(id, update) => journal::channel(txn, &channel(id), |appender| appender.history(update)),
        Save::Hint(id, message, hint) => journal::channel(txn, &channel(id), |appender| appender.hint(message, hint)),
        Save::DropBucket(name) => drop_bucket(txn, &bucket(name)),
        Save::DropChannel(id) => drop_channel(txn, &channel(id)),
    }
}

pub(super) fn open<'txn>(txn: &'txn WriteTransaction, table: &str) -> Result<Table<'txn>, Fault> {
    Ok(txn.open_table(Definition::new(table))?)
}

/// The epoch of a store's newest claim, if there was one.
pub(super) fn newest_epoch(txn: &WriteTransaction, store: &StoreName) -> Result<Option<Epoch>, Fault> {
    let table = open(txn, rows::EPOCHS)?;
    let row: Option<EpochRow> = Shelf::new(&rows::EPOCH, rows::EPOCHS).get(&table, store.as_str().as_bytes())?;
    Ok(row.map(|row| Epoch(row.epoch)))
}

/// The same, for a claim to count on from: one that is not found must never have been there, or epochs would be given out
/// twice.
pub(super) fn epoch_before_claim(txn: &WriteTransaction, store: &StoreName) -> Result<Epoch, Fault> {
    // To open a table that is missing would make it.
    if !txn.list_tables()?.any(|table| table.name() == rows::EPOCHS) {
        return Err(Error::corrupt(Place::new(rows::EPOCHS), "the table is missing").into());
    }
    if let Some(newest) = newest_epoch(txn, store)? {
        return Ok(newest);
    }
    // A row whose key is damaged is found by nobody, but its checksum tells.
    let mut shelf = Shelf::new(&rows::EPOCH, rows::EPOCHS);
    for entry in open(txn, rows::EPOCHS)?.iter()? {
        let (key, row) = entry?;
        let _intact: EpochRow = shelf.decode(key.value(), row.value())?;
    }
    Ok(Epoch::default())
}

/// Notes a claim.
pub(super) fn set_epoch(txn: &WriteTransaction, store: &StoreName, epoch: Epoch) -> Result<(), Fault> {
    let mut table = open(txn, rows::EPOCHS)?;
    let row = EpochRow { epoch: epoch.0 };
    Shelf::new(&rows::EPOCH, rows::EPOCHS).put(&mut table, store.as_str().as_bytes(), &row)
}

#[derive(serde::Serialize, serde::Deserialize)]
struct EpochRow {
    epoch: u64,
}

// ---- buckets

fn save_bucket(txn: &WriteTransaction, key: &BucketKey, change: &BucketChange) -> Result<u64, Fault> {
    let of = JournalKeys::of_bucket(key);
    match change {
        BucketChange::Delta(delta) if delta.upserts.len() <= JOURNALLED_AT_MOST || journal::has(txn, &of)? => {
            return journal::bucket(txn, key, delta);
        }
        BucketChange::Delta(_) => {}
        BucketChange::Full(_) => journal::forget(txn, &of)?,
    }
    let places = BucketPlaces::of(key);
    let mut headers = open(txn, rows::BUCKETS)?;
    let (deletes, upserts, replaced): (&[Key], &[Arc<Record>], bool) = match change {
        BucketChange::Full(snapshot) => (&[], &snapshot.records, true),
        BucketChange::Delta(delta) => (&delta.deletes, &delta.upserts, delta.cleared),
    };
    let mut shelf = Shelf::new(&rows::RECORD, &places.rows);
    // A full snapshot heals whatever there was; a clear still needs to know of the requests.
    let old = match change {
        BucketChange::Full(_) => BucketHeader::default(),
        BucketChange::Delta(_) => BucketHeader::read(&headers, &places.pair)?.unwrap_or_default(),
    };
    let tally = if replaced {
        txn.delete_table(shelf.definition())?;
        Tally::default()
    } else {
        old.rows
    };
    // A header without its table, or a table without its header, is noticed here, before anything is built on it.
    let mut table = Tallied::open(txn, &mut shelf, tally)?;
    if !tally.is_empty() {
        let mut bytes = Vec::with_capacity(64);
        for key in deletes {
            keys::set_record_key(key, &mut bytes);
            table.remove(&bytes)?;
        }
    }
    table.store(&sorted(upserts))?;
    let rows = table.finish()?;
    let header = match change {
        BucketChange::Full(snapshot) => {
            txn.delete_table(Definition::new(&places.requests))?;
            BucketHeader {
                schema_version: snapshot.schema_version,
                revision: snapshot.revision,
                counter: snapshot.counter,
                rows,
                requests: save_requests(txn, &places, Tally::default(), &snapshot.requests, u64::MAX)?,
            }
        }
        BucketChange::Delta(delta) => BucketHeader {
            schema_version: delta.schema_version,
            revision: delta.revision,
            counter: delta.counter,
            rows,
            requests: save_requests(txn, &places, old.requests, &delta.requests, delta.request_window as u64)?,
        },
    };
    header.write(&mut headers, &places.pair)?;
    Ok(0)
}

/// Stores requests over those that add up to `tally`, of which the newest `window` are kept; answers what they add up to
/// then. Without new ones, nothing is looked at.
fn save_requests(
    txn: &WriteTransaction,
    places: &BucketPlaces,
    tally: Tally,
    requests: &[Request],
    window: u64,
) -> Result<Tally, Fault> {
    if requests.is_empty() {
        return Ok(tally);
    }
    let mut shelf = Shelf::new(&rows::REQUEST, &places.requests);
    let mut table = Tallied::open(txn, &mut shelf, tally)?;
    for request in requests {
        table.put(&keys::revision_key(request.revision), request)?;
    }
    table.keep_last(window)?;
    let tally = table.finish()?;
    if tally.is_empty() {
        txn.delete_table(Definition::new(&places.requests))?;
    }
    Ok(tally)
}

/// Records in the order of their keys' bytes, each key once: of two with the same key the later one counts.
fn sorted(records: &[Arc<Record>]) -> Vec<&Record> {
    // The start of a key decides nearly always, without a look at the record.
    let mut entries: Vec<((u8, u64), &Record)> =
        records.iter().map(|record| (keys::record_key_start(record.key()), &**record)).collect();
    let order = |(left_start, left): &((u8, u64), &Record), (right_start, right): &((u8, u64), &Record)| {
        left_start.cmp(right_start).then_with(|| left.key().cmp(right.key()))
    };
    entries.sort_by(order);
    // The sort has kept the order of those with the same key.
    entries.dedup_by(|later, kept| {
        let same = order(later, kept).is_eq();
        if same {
            *kept = *later;
        }
        same
    });
    entries.into_iter().map(|(_, record)| record).collect()
}

fn drop_bucket(txn: &WriteTransaction, key: &BucketKey) -> Result<u64, Fault> {
    journal::forget(txn, &JournalKeys::of_bucket(key))?;
    let places = BucketPlaces::of(key);
    open(txn, rows::BUCKETS)?.remove(places.pair.as_slice())?;
    txn.delete_table(Definition::new(&places.rows))?;
    txn.delete_table(Definition::new(&places.requests))?;
    Ok(0)
}

// ---- channels

fn drop_channel(txn: &WriteTransaction, key: &ChannelKey) -> Result<u64, Fault> {
    journal::forget(txn, &JournalKeys::of_channel(key))?;
    let places = ChannelPlaces::of(key);
    open(txn, rows::CHANNELS)?.remove(places.pair.as_slice())?;
    open(txn, rows::CHANNEL_META)?.remove(places.pair.as_slice())?;
    for table in places.tables() {
        txn.delete_table(Definition::new(table))?;
    }
    Ok(0)
}

/// Takes a row out of a table as it is, readable or not.
pub(super) fn take_raw(txn: &WriteTransaction, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
    let mut table = open(txn, table)?;
    let row = table.get(key)?.map(|row| row.value().to_vec());
    if row.is_some() {
        table.remove(key)?;
    }
    Ok(row)
}
