//! Request ids are kept at the cost of their own rows, damage to them is noticed, and a file from before there were any
//! is read as having none.

use redb::{ReadableDatabase, ReadableTable, TableHandle};

use super::*;
use crate::adapters::redb::keys::{BucketPlaces, revision_key};
use crate::adapters::redb::rows::{self, Definition};
use crate::base::error::Error;
use crate::base::name::Subject;
use crate::records::{Request, Write};

/// Written by the release before request ids were kept: the bucket `users` of the store `shop`, with three records.
const BEFORE: &[u8] = include_bytes!("../../../../tests/vectors/before_request_ids/store.redb");

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

fn request(revision: u64) -> Request {
    let request = Request::new(format!("request {revision}"), &Write::Clear).unwrap();
    Request { keys: vec![Key::from("k"), Key::from(7)], revision, ..request }
}

fn requested(revisions: impl IntoIterator<Item = u64>, window: usize) -> BucketChange {
    let requests: Vec<Request> = revisions.into_iter().map(request).collect();
    let revision = requests.last().map_or(0, |request| request.revision);
    BucketChange::Delta(BucketDelta { requests, request_window: window, ..delta(revision) })
}

fn requests_of(name: &str) -> String {
    BucketPlaces::of(&bucket(name)).requests
}

fn meddle(place: &Place, work: impl FnOnce(&redb::WriteTransaction)) {
    let db = redb::Database::open(place.path()).unwrap();
    let txn = db.begin_write().unwrap();
    work(&txn);
    txn.commit().unwrap();
}

/// But for the journal, which stays once it has been used.
fn tables(place: &Place) -> Vec<String> {
    let txn = redb::Database::open(place.path()).unwrap().begin_read().unwrap();
    let tables = txn.list_tables().unwrap().map(|table| table.name().to_owned());
    tables.filter(|table| table != rows::JOURNAL).collect()
}

fn rows_in(place: &Place, table: &str) -> Rows {
    let txn = redb::Database::open(place.path()).unwrap().begin_read().unwrap();
    let table = txn.open_table(Definition::new(table)).unwrap();
    let rows = table.iter().unwrap().map(|row| row.unwrap());
    rows.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).collect()
}

async fn revisions(place: &Place) -> Result<Vec<u64>> {
    let adapter = place.open().await;
    let loaded = adapter.load_bucket(&bucket("users")).await;
    close(adapter).await;
    Ok(loaded?.unwrap().requests.iter().map(|request| request.revision).collect())
}

async fn save_in(place: &Place, change: BucketChange) -> Result<()> {
    let adapter = place.open().await;
    let saved = adapter.save_bucket(&bucket("users"), &change).await;
    close(adapter).await;
    saved
}

async fn remembering(revisions: impl IntoIterator<Item = u64>) -> Place {
    let place = Place::new();
    save_in(&place, full(vec![with_text(1, 0, "a")])).await.unwrap();
    save_in(&place, requested(revisions, 100)).await.unwrap();
    place
}

#[tokio::test]
async fn a_file_from_before_request_ids_is_read_as_having_none_and_takes_some() {
    let place = Place::new();
    std::fs::write(place.path(), BEFORE).unwrap();
    assert_eq!(revisions(&place).await.unwrap(), [0_u64; 0]);
    let adapter = place.open().await;
    let loaded = adapter.load_bucket(&bucket("users")).await.unwrap().unwrap();
    assert_eq!((loaded.revision, loaded.counter, loaded.records.len()), (2, 3, 3));
    close(adapter).await;
    save_in(&place, requested([3, 4], 100)).await.unwrap();
    assert_eq!(revisions(&place).await.unwrap(), [3, 4]);
}

#[tokio::test]
async fn a_bucket_without_request_ids_is_stored_as_before_there_were_any() {
    let before = Place::new();
    std::fs::write(before.path(), BEFORE).unwrap();
    let adapter = before.open().await;
    let loaded = adapter.load_bucket(&bucket("users")).await.unwrap().unwrap();
    close(adapter).await;
    let now = Place::new();
    let change = BucketDelta { upserts: loaded.records[2..].to_vec(), request_window: 5, ..BucketDelta::new(2, 3, 1) };
    save_in(&now, BucketChange::Full(BucketSnapshot::new(1, 1, 2, loaded.records[..2].to_vec()))).await.unwrap();
    save_in(&now, BucketChange::Delta(change)).await.unwrap();
    assert_eq!(rows_in(&now, rows::JOURNAL), [], "folded");
    assert_eq!(tables(&now), tables(&before));
    for table in [rows::BUCKETS, &BucketPlaces::of(&bucket("users")).rows] {
        assert_eq!(rows_in(&now, table), rows_in(&before, table), "{table}");
    }
    assert_eq!(rows_in(&now, rows::BUCKETS)[0].1[0], 1, "the version");
}

#[tokio::test]
async fn request_ids_that_go_leave_no_table_behind_and_the_header_as_it_was() {
    let without = remembering([]).await;
    for last in [
        full(vec![with_text(1, 0, "a")]),
        // Of which not even the newest is to be kept.
        requested([9], 0),
    ] {
        let place = remembering(1..=6).await;
        assert!(tables(&place).contains(&requests_of("users")));
        assert_eq!(rows_in(&place, rows::BUCKETS)[0].1[0], 2, "the version");
        save_in(&place, last).await.unwrap();
        assert_eq!(tables(&place), tables(&without));
        assert_eq!(rows_in(&place, rows::BUCKETS)[0].1[0], 1, "the version");
        assert_eq!(revisions(&place).await.unwrap(), [0_u64; 0]);
    }
    let place = remembering(1..=6).await;
    let adapter = place.open().await;
    adapter.drop_bucket(&bucket("users")).await.unwrap();
    close(adapter).await;
    assert_eq!(tables(&place), tables(&Place::new_born().await));
}

#[tokio::test]
async fn a_change_reads_and_writes_no_request_but_its_own_and_those_that_go() {
    let place = remembering(1..=6).await;
    let damage = |revision: u64| {
        meddle(&place, |txn| {
            let mut table = txn.open_table(Definition::new(&requests_of("users"))).unwrap();
            let key = revision_key(revision);
            let mut row = table.get(&key[..]).unwrap().unwrap().value().to_vec();
            row[2] ^= 1;
            table.insert(&key[..], row.as_slice()).unwrap();
        });
    };
    damage(1);
    save_in(&place, requested([7, 8], 100)).await.unwrap();
    let outcome = revisions(&place).await;
    let Err(Error::Corrupt { at, .. }) = &outcome else { panic!("{outcome:?}") };
    assert_eq!((at.container.as_str(), at.position.as_deref()), (&*requests_of("users"), Some("revision 1")));
    // When its turn has come, it goes, and what it added to the tally with it.
    save_in(&place, requested([9], 5)).await.unwrap();
    assert_eq!(revisions(&place).await.unwrap(), [5, 6, 7, 8, 9]);
}

#[tokio::test]
async fn a_request_that_is_gone_old_moved_or_surplus_is_noticed() {
    type Damage = fn(&redb::WriteTransaction, &str);
    fn row(table: &rows::Table<'_>, revision: u64) -> Vec<u8> {
        table.get(&revision_key(revision)[..]).unwrap().unwrap().value().to_vec()
    }
    fn open<'txn>(txn: &'txn redb::WriteTransaction, name: &str) -> rows::Table<'txn> {
        txn.open_table(Definition::new(name)).unwrap()
    }
    let damages: [(&str, Damage); 5] = [
        ("gone", |txn, name| drop(open(txn, name).pop_last().unwrap().unwrap())),
        ("moved", |txn, name| {
            let mut table = open(txn, name);
            let moved = row(&table, 2);
            table.insert(&revision_key(3)[..], moved.as_slice()).unwrap();
        }),
        ("no request", |txn, name| drop(open(txn, name).insert(&b"no revision"[..], &b"no row"[..]).unwrap())),
        ("without its table", |txn, name| assert!(txn.delete_table(Definition::new(name)).unwrap())),
        ("without its header", |txn, _| drop(open(txn, rows::BUCKETS).pop_first().unwrap().unwrap())),
    ];
    for (what, damage) in damages {
        let place = remembering(1..=4).await;
        meddle(&place, |txn| damage(txn, &requests_of("users")));
        let outcome = revisions(&place).await;
        assert!(matches!(outcome, Err(Error::Corrupt { .. })), "{what}: {outcome:?}");
        // A change is not built on it where it meets it, and quarantine makes room.
        if what != "moved" {
            let saved = save_in(&place, requested([5], 100)).await;
            assert!(matches!(saved, Err(Error::Corrupt { .. })), "{what}: {saved:?}");
        }
        let adapter = place.open().await;
        adapter.quarantine(&store("shop"), &Subject::Bucket(bucket("users").bucket)).await.unwrap();
        assert_eq!(adapter.load_bucket(&bucket("users")).await.unwrap(), None);
        let kept = adapter.quarantined().await.unwrap();
        assert_eq!(kept[0].rows.iter().any(|row| row.table == requests_of("users")), what != "without its table");
        close(adapter).await;
    }

    // A table that the header does not know of.
    let place = remembering([]).await;
    meddle(&place, |txn| drop(open(txn, &requests_of("users"))));
    let outcome = revisions(&place).await;
    assert!(matches!(outcome, Err(Error::Corrupt { .. })), "{outcome:?}");

    // An older state of itself.
    let (old, new) = (remembering([1, 2]).await, remembering([1]).await);
    let later = Request { removed: 9, ..request(2) };
    let change = BucketDelta { requests: vec![later], request_window: 100, ..delta(2) };
    save_in(&new, BucketChange::Delta(change)).await.unwrap();
    let stale = rows_in(&old, &requests_of("users"))[1].1.clone();
    meddle(&new, |txn| {
        drop(open(txn, &requests_of("users")).insert(&revision_key(2)[..], stale.as_slice()).unwrap());
    });
    let outcome = revisions(&new).await;
    assert!(matches!(outcome, Err(Error::Corrupt { .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_later_version_of_a_header_is_refused_by_name_and_number() {
    let place = remembering([1]).await;
    meddle(&place, |txn| {
        let pair = BucketPlaces::of(&bucket("users")).pair;
        let context = [rows::BUCKETS.as_bytes(), &[0], &pair].concat();
        let later = crate::base::codec::Format { version: 3, ..rows::BUCKET_HEADER.format };
        let row = crate::base::codec::encode(later, &context, &1_u8).unwrap();
        let mut table = txn.open_table(Definition::new(rows::BUCKETS)).unwrap();
        table.insert(pair.as_slice(), row.as_slice()).unwrap().unwrap();
    });
    let outcome = revisions(&place).await;
    let Err(Error::UnknownFormat { format, found: 3, known: 2, .. }) = &outcome else { panic!("{outcome:?}") };
    assert_eq!(format, "redb bucket header");
}
