//! What a save writes, within a transaction that somebody else begins and commits.

use std::sync::Arc;

use redb::{ReadableTable, ReadableTableMetadata, WriteTransaction};

use crate::adapters::redb::fault::Fault;
use crate::adapters::redb::keys::{self, BucketPlaces, ChannelPlaces};
use crate::adapters::redb::rows::{self, BucketHeader, ChannelHeader, Definition, Shelf, Table, Tallied, Tally};
use crate::base::codec;
use crate::base::error::Error;
use crate::base::name::{BucketKey, ChannelKey, MessageId, StoreName};
use crate::base::value::Key;
use crate::persistence::{Epoch, Save};
use crate::records::{BucketChange, Record, Request};
use crate::sds::{ChannelMeta, HistoryUpdate};

/// Writes one save.
pub(super) fn save(txn: &WriteTransaction, store: &StoreName, save: &Save) -> Result<(), Fault> {
    let bucket = |name: &_| BucketKey::new(store.clone(), Clone::clone(name));
    let channel = |id: &_| ChannelKey::new(store.clone(), Clone::clone(id));
    match save {
        Save::Bucket(name, change) => save_bucket(txn, &bucket(name), change),
        Save::ChannelMeta(id, meta) => save_meta(txn, &channel(id), meta),
        Save::History(id, update) => save_history(txn, &channel(id), update),
        Save::Hint(id, message, hint) => save_hint(txn, &channel(id), message, hint),
        Save::DropBucket(name) => drop_bucket(txn, &bucket(name)),
        Save::DropChannel(id) => drop_channel(txn, &channel(id)),
    }
}

fn open<'txn>(txn: &'txn WriteTransaction, table: &str) -> Result<Table<'txn>, Fault> {
    Ok(txn.open_table(Definition::new(table))?)
}

/// The epoch of a store's newest claim, if there was one.
pub(super) fn newest_epoch(txn: &WriteTransaction, store: &StoreName) -> Result<Option<Epoch>, Fault> {
    let table = open(txn, rows::EPOCHS)?;
    let row: Option<EpochRow> = Shelf::new(&rows::EPOCH, rows::EPOCHS).get(&table, store.as_str().as_bytes())?;
    Ok(row.map(|row| Epoch(row.epoch)))
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

fn save_bucket(txn: &WriteTransaction, key: &BucketKey, change: &BucketChange) -> Result<(), Fault> {
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
    let table = txn.open_table(shelf.definition())?;
    // A header without its table, or a table without its header, is noticed here, before anything is built on it.
    let (counted, found) = (tally.count, table.len()?);
    if counted != found {
        return Err(rows::missing(&places.rows, counted, found).into());
    }
    let mut table = Tallied::new(&mut shelf, table, tally);
    if found > 0 {
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
    header.write(&mut headers, &places.pair)
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
    let mut table = open_tallied(txn, &mut shelf, tally)?;
    for request in requests {
        table.insert(&keys::revision_key(request.revision), request)?;
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

fn drop_bucket(txn: &WriteTransaction, key: &BucketKey) -> Result<(), Fault> {
    let places = BucketPlaces::of(key);
    open(txn, rows::BUCKETS)?.remove(places.pair.as_slice())?;
    txn.delete_table(Definition::new(&places.rows))?;
    txn.delete_table(Definition::new(&places.requests))?;
    Ok(())
}

// ---- channels

/// The header of a channel, read, changed and written back.
fn with_header(
    txn: &WriteTransaction,
    places: &ChannelPlaces,
    change: impl FnOnce(&mut ChannelHeader) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut headers = open(txn, rows::CHANNELS)?;
    let mut shelf = Shelf::new(&rows::CHANNEL_HEADER, rows::CHANNELS);
    let old: Option<ChannelHeader> = shelf.get(&headers, &places.pair)?;
    let mut header = old.unwrap_or_default();
    change(&mut header)?;
    if old != Some(header) {
        shelf.put(&mut headers, &places.pair, &header)?;
    }
    Ok(())
}

fn save_meta(txn: &WriteTransaction, key: &ChannelKey, meta: &ChannelMeta) -> Result<(), Fault> {
    let places = ChannelPlaces::of(key);
    with_header(txn, &places, |header| {
        let mut table = open(txn, rows::CHANNEL_META)?;
        let mut shelf = Shelf::new(&rows::CHANNEL_STATE, rows::CHANNEL_META);
        let row = shelf.encode(&places.pair, meta)?;
        header.meta = codec::stored_checksum(row);
        table.insert(places.pair.as_slice(), row)?;
        Ok(())
    })
}

fn open_tallied<'s, 'a, 'txn>(
    txn: &'txn WriteTransaction,
    shelf: &'s mut Shelf<'a>,
    tally: Tally,
) -> Result<Tallied<'s, 'a, 'txn>, Fault> {
    let table = txn.open_table(shelf.definition())?;
    let found = table.len()?;
    if tally.count != found {
        return Err(rows::missing(shelf.table, tally.count, found).into());
    }
    Ok(Tallied::new(shelf, table, tally))
}

fn save_history(txn: &WriteTransaction, key: &ChannelKey, update: &HistoryUpdate) -> Result<(), Fault> {
    let places = ChannelPlaces::of(key);
    with_header(txn, &places, |header| {
        let mut ids = open(txn, &places.ids)?;
        let mut id_shelf = Shelf::new(&rows::MESSAGE_PLACE, &places.ids);
        let mut shelf = Shelf::new(&rows::MESSAGE, &places.history);
        let mut history = open_tallied(txn, &mut shelf, header.history)?;
        let unlisted = |history: &Tallied<'_, '_, '_>, place: &[u8]| {
            Error::corrupt(history.shelf.place(place), "the message that the index names is missing")
        };
        for message in &update.append {
            let id = message.message_id.as_bytes();
            let lamport = message.lamport_timestamp;
            let old: Option<i64> = id_shelf.get(&ids, id)?;
            if old != Some(lamport) {
                if let Some(old) = old {
                    let place = keys::history_key(old, id);
                    if !history.remove(&place)? {
                        return Err(unlisted(&history, &place).into());
                    }
                }
                id_shelf.put(&mut ids, id, &lamport)?;
            }
            history.insert(&keys::history_key(lamport, id), message)?;
        }
        for message in &update.evict {
            let id = message.as_bytes();
            let Some(lamport) = id_shelf.get::<i64>(&ids, id)? else { continue };
            let place = keys::history_key(lamport, id);
            if !history.remove(&place)? {
                return Err(unlisted(&history, &place).into());
            }
            ids.remove(id)?;
        }
        header.history = history.finish()?;
        // Those of messages that were never stored too: an append and its eviction may have cancelled out before a save.
        if header.hints.count > 0 && !update.evict.is_empty() {
            let mut shelf = Shelf::new(&rows::HINT, &places.hints);
            let mut hints = open_tallied(txn, &mut shelf, header.hints)?;
            for message in &update.evict {
                hints.remove(message.as_bytes())?;
            }
            header.hints = hints.finish()?;
        }
        Ok(())
    })
}

fn save_hint(txn: &WriteTransaction, key: &ChannelKey, message: &MessageId, hint: &[u8]) -> Result<(), Fault> {
    let places = ChannelPlaces::of(key);
    with_header(txn, &places, |header| {
        let mut shelf = Shelf::new(&rows::HINT, &places.hints);
        let mut hints = open_tallied(txn, &mut shelf, header.hints)?;
        if hint.is_empty() {
            hints.remove(message.as_bytes())?;
        } else {
            hints.insert(message.as_bytes(), &bytes::Bytes::copy_from_slice(hint))?;
        }
        header.hints = hints.finish()?;
        Ok(())
    })
}

fn drop_channel(txn: &WriteTransaction, key: &ChannelKey) -> Result<(), Fault> {
    let places = ChannelPlaces::of(key);
    open(txn, rows::CHANNELS)?.remove(places.pair.as_slice())?;
    open(txn, rows::CHANNEL_META)?.remove(places.pair.as_slice())?;
    for table in places.tables() {
        txn.delete_table(Definition::new(table))?;
    }
    Ok(())
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
