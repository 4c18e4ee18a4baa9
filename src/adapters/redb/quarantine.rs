//! Data that could not be read, moved out of the way as it is: tables are renamed, rows of shared tables copied raw.

use redb::{ReadTransaction, ReadableTable, TableError, WriteTransaction};
use serde::{Deserialize, Serialize};

use crate::adapters::redb::apply;
use crate::adapters::redb::fault::Fault;
use crate::adapters::redb::journal;
use crate::adapters::redb::keys::{BucketPlaces, ChannelPlaces, JournalKeys};
use crate::adapters::redb::load;
use crate::adapters::redb::rows::{self, Definition, Shelf};
use crate::base::clock::{Clock, SystemClock};
use crate::base::error::Error;
use crate::base::name::{BucketKey, ChannelKey, StoreName, Subject};
use crate::base::utc::Utc;
use crate::persistence::{Quarantined, RawRow};

/// A row of a table that others share, as it is stored.
#[derive(Serialize, Deserialize)]
struct StoredRow {
    table: String,
    #[serde(with = "crate::base::codec::content_bytes")]
    key: bytes::Bytes,
    #[serde(with = "crate::base::codec::content_bytes")]
    value: bytes::Bytes,
}

#[derive(Serialize, Deserialize)]
struct Row {
    store: StoreName,
    subject: String,
    moved_at: i64,
    /// The names that the moved tables had.
    tables: Vec<String>,
    /// What was in tables that others share.
    rows: Vec<StoredRow>,
}

fn moved_table(name: &str, table: &str) -> String {
    format!("quarantine/{name}/{table}")
}

/// Moves everything of a subject away and answers under which name it can be found.
pub(super) fn move_away(txn: &WriteTransaction, store: &StoreName, subject: &Subject) -> Result<String, Fault> {
    let moved_at = SystemClock.now_ms();
    let (shared, tables, pair, of) = match subject {
        Subject::Bucket(name) => {
            let key = BucketKey::new(store.clone(), name.clone());
            let places = BucketPlaces::of(&key);
            let tables = vec![places.rows, places.requests];
            (vec![rows::BUCKETS], tables, places.pair, JournalKeys::of_bucket(&key))
        }
        Subject::Channel(id) => {
            let key = ChannelKey::new(store.clone(), id.clone());
            let places = ChannelPlaces::of(&key);
            let tables = places.tables().map(str::to_owned).to_vec();
            (vec![rows::CHANNELS, rows::CHANNEL_META], tables, places.pair, JournalKeys::of_channel(&key))
        }
    };
    let mut quarantine = txn.open_table(Definition::new(rows::QUARANTINE))?;
    let name = free_name(&quarantine, store, subject, moved_at)?;

    let mut raw = Vec::new();
    for table in shared {
        if let Some(value) = apply::take_raw(txn, table, &pair)? {
            raw.push(StoredRow { table: table.to_owned(), key: pair.clone().into(), value: value.into() });
        }
    }
    let mut moved = Vec::new();
    for table in tables {
        let new = moved_table(&name, &table);
        match txn.rename_table(Definition::new(&table), Definition::new(&new)) {
            Ok(()) => moved.push(table),
            Err(TableError::TableDoesNotExist(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(table) = move_journal(txn, &of, &name)? {
        moved.push(table);
    }
    let row = Row { store: store.clone(), subject: subject.to_string(), moved_at, tables: moved, rows: raw };
    Shelf::new(&rows::QUARANTINED, rows::QUARANTINE).put(&mut quarantine, name.as_bytes(), &row)?;
    Ok(name)
}

/// Moves an owner's rows of the journal into a table of their own, as they are, and answers which table they were of.
fn move_journal(txn: &WriteTransaction, of: &JournalKeys, name: &str) -> Result<Option<String>, Fault> {
    let mut journal = journal::open(txn)?;
    if !journal::has_in(&journal, of)? {
        return Ok(None);
    }
    let (first, head) = (of.section(0), of.head());
    let mut moved = txn.open_table(Definition::new(&moved_table(name, rows::JOURNAL)))?;
    for entry in journal.range(first.as_slice()..=head.as_slice())? {
        let (key, row) = entry?;
        moved.insert(key.value(), row.value())?;
    }
    journal.retain_in(first.as_slice()..=head.as_slice(), |_, _| false)?;
    Ok(Some(rows::JOURNAL.to_owned()))
}

/// A name with the time in it that no other quarantine has.
fn free_name(
    quarantine: &rows::Table<'_>,
    store: &StoreName,
    subject: &Subject,
    moved_at: i64,
) -> Result<String, Fault> {
    let kind = match subject {
        Subject::Bucket(_) => "bucket",
        Subject::Channel(_) => "channel",
    };
    let base = format!("{store}/{kind}/{}.quarantine-{}", subject.shown_name(), Utc(moved_at));
    let mut name = base.clone();
    let mut attempt = 1_u32;
    while quarantine.get(name.as_bytes())?.is_some() {
        attempt += 1;
        name = format!("{base}-{attempt}");
    }
    Ok(name)
}

/// Everything that lies in quarantine, by name.
pub(super) fn list(txn: &ReadTransaction) -> Result<Vec<Quarantined>, Fault> {
    let table = load::born(txn, rows::QUARANTINE)?;
    let mut shelf = Shelf::new(&rows::QUARANTINED, rows::QUARANTINE);
    let mut list = Vec::new();
    for entry in table.range::<&[u8]>(..)? {
        let (key, value) = entry?;
        let row: Row = shelf.decode(key.value(), value.value())?;
        let name = String::from_utf8(key.value().to_vec())
            .map_err(|error| Error::corrupt(shelf.place(key.value()), error.to_string()))?;
        let stored = row.rows.into_iter().map(|row| RawRow::new(row.table, row.key, row.value));
        let mut rows: Vec<RawRow> = stored.collect();
        for original in row.tables {
            let Some(moved) = load::open(txn, &moved_table(&name, &original))? else { continue };
            for entry in moved.range::<&[u8]>(..)? {
                let (key, value) = entry?;
                rows.push(RawRow::new(original.as_str(), key.value().to_vec(), value.value().to_vec()));
            }
        }
        list.push(Quarantined::new(name, row.store, row.subject, row.moved_at, rows));
    }
    Ok(list)
}
