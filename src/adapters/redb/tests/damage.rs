//! redb serves flipped bytes without a word. Whatever is changed in the file, a load answers with what was saved or with
//! an error, and quarantine keeps the bytes.

use redb::ReadableTable;

use super::*;
use crate::adapters::redb::keys::{BucketPlaces, ChannelPlaces};
use crate::adapters::redb::rows::{self, Definition, Shelf};
use crate::base::error::Error;
use crate::base::name::Subject;
use crate::base::value::Value;
use crate::sds::{ChannelMeta, HistoryUpdate, SdsMessage};

/// Changes the file behind the adapter's back with raw redb.
fn meddle(place: &Place, work: impl FnOnce(&redb::WriteTransaction)) {
    let db = redb::Database::open(place.path()).unwrap();
    let txn = db.begin_write().unwrap();
    work(&txn);
    txn.commit().unwrap();
}

fn table<'txn>(txn: &'txn redb::WriteTransaction, name: &str) -> rows::Table<'txn> {
    txn.open_table(Definition::new(name)).unwrap()
}

fn rows_of(name: &str) -> String {
    BucketPlaces::of(&bucket(name)).rows
}

async fn saved(records: usize) -> Place {
    let place = Place::new();
    let adapter = place.open().await;
    let records = (0..records).map(|n| with_text(i64::try_from(n).unwrap(), 0, &format!("needle {n:06} in hay")));
    adapter.save_bucket(&bucket("users"), &full(records.collect())).await.unwrap();
    close(adapter).await;
    place
}

async fn load(place: &Place) -> Result<Option<Vec<(Key, u64, String)>>> {
    let adapter = RedbAdapter::open(place.path()).await?;
    let outcome = contents(&adapter, &bucket("users")).await;
    close(adapter).await;
    outcome
}

#[track_caller]
fn assert_corrupt<T: std::fmt::Debug>(outcome: Result<T>, container: &str, position: Option<&str>) {
    let Err(Error::Corrupt { at, .. }) = &outcome else { panic!("{outcome:?}") };
    assert_eq!((at.container.as_str(), at.position.as_deref()), (container, position), "{outcome:?}");
}

fn find(bytes: &[u8], needle: &[u8]) -> Vec<usize> {
    bytes.windows(needle.len()).enumerate().filter(|(_, window)| *window == needle).map(|(at, _)| at).collect()
}

#[tokio::test]
async fn a_byte_flipped_in_a_record_is_told_with_table_and_key() {
    let place = saved(500).await;
    let mut bytes = read(&place.path());
    let places = find(&bytes, b"needle 000123 in hay");
    assert!(!places.is_empty());
    for at in places {
        bytes[at + 8] ^= 1;
    }
    std::fs::write(place.path(), bytes).unwrap();
    assert_corrupt(load(&place).await, &rows_of("users"), Some("key 123"));
}

#[tokio::test]
async fn whatever_byte_is_flipped_never_is_a_wrong_record_loaded() {
    let place = saved(150).await;
    let good = load(&place).await.unwrap();
    let original = read(&place.path());
    let damaged = Place::new();
    let (mut noticed, mut harmless) = (0, 0);
    // Every page is hit in its head, where redb keeps offsets, and at a place that differs from page to page.
    let hits = (0..original.len()).step_by(4096).enumerate().flat_map(|(number, page)| {
        [0, 2, 4, 16 + number % 64, 64 + (number * 397) % 4_000].map(|within| page + within)
    });
    for at in hits.filter(|at| original.get(*at).is_some_and(|byte| *byte != 0)) {
        let mut bytes = original.clone();
        bytes[at] ^= 0x11;
        std::fs::write(damaged.path(), bytes).unwrap();
        match load(&damaged).await {
            Ok(loaded) => {
                assert_eq!(loaded, good, "byte {at}");
                harmless += 1;
            }
            Err(_) => noticed += 1,
        }
    }
    assert!(noticed > 10 && harmless > 0, "{noticed} noticed, {harmless} harmless");
}

#[tokio::test]
async fn an_empty_file_is_no_new_database() {
    let place = Place::new();
    std::fs::write(place.path(), "").unwrap();
    let outcome = RedbAdapter::open(place.path()).await;
    assert_corrupt(outcome, &place.path().display().to_string(), None);
    assert_eq!(read(&place.path()), b"", "untouched");
    assert_eq!(place.files(), ["store.redb"]);
}

#[tokio::test]
async fn files_that_are_not_ours_are_refused() {
    for contents in [&b"x"[..], &[0; 4096], &[7; 100_000]] {
        let place = Place::new();
        std::fs::write(place.path(), contents).unwrap();
        assert_corrupt(RedbAdapter::open(place.path()).await, &place.path().display().to_string(), None);
        assert_eq!(read(&place.path()), contents, "untouched");
    }
    let place = Place::new();
    drop(redb::Database::create(place.path()).unwrap());
    assert_corrupt(RedbAdapter::open(place.path()).await, &place.path().display().to_string(), None);
    let place = saved(1).await;
    meddle(&place, |txn| drop(table(txn, rows::META).pop_first().unwrap()));
    assert_corrupt(RedbAdapter::open(place.path()).await, &place.path().display().to_string(), None);
    drop(redb::Database::open(place.path()).expect("a refused file is not kept open"));
}

#[tokio::test]
async fn a_file_cut_short_anywhere_is_never_a_wrong_bucket() {
    let place = saved(400).await;
    let good = load(&place).await.unwrap();
    let original = read(&place.path());
    let damaged = Place::new();
    for length in (1..original.len()).step_by(original.len() / 23) {
        std::fs::write(damaged.path(), &original[..length]).unwrap();
        match load(&damaged).await {
            Ok(loaded) => assert_eq!(loaded, good, "{length} bytes"),
            Err(error) => assert!(matches!(error, Error::Corrupt { .. }), "{length} bytes: {error:?}"),
        }
    }
}

#[tokio::test]
async fn ps_27_later_versions_are_refused_by_name_and_number() {
    let place = saved(3).await;
    meddle(&place, |txn| {
        let mut table = table(txn, &rows_of("users"));
        let name = rows_of("users");
        let key = [1, 0x80, 0, 0, 0, 0, 0, 0, 1];
        let context = [name.as_bytes(), &[0], &key].concat();
        let later = crate::base::codec::Format { version: 9, ..rows::RECORD.format };
        let row = crate::base::codec::encode(later, &context, &1_u8).unwrap();
        table.insert(&key[..], row.as_slice()).unwrap().unwrap();
    });
    let outcome = load(&place).await;
    let Err(Error::UnknownFormat { format, at, found: 9, known: 1 }) = &outcome else { panic!("{outcome:?}") };
    assert_eq!((format.as_str(), at.position.as_deref()), ("redb record", Some("key 1")));

    meddle(&place, |txn| {
        let mut table = table(txn, rows::META);
        let meta = Value::from(record! { "id": "00000000-0000-0000-0000-000000000000", "format": 3, "created_at": 0 });
        Shelf::new(&rows::META_ROW, rows::META).put(&mut table, b"store", &meta).unwrap();
    });
    let outcome = RedbAdapter::open(place.path()).await;
    assert!(matches!(outcome, Err(Error::UnknownFormat { found: 3, known: 2, .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_row_that_is_gone_old_or_moved_is_noticed() {
    let key_of = |number: u8| [1, 0x80, 0, 0, 0, 0, 0, 0, number];
    let place = saved(10).await;
    meddle(&place, |txn| drop(table(txn, &rows_of("users")).remove(&key_of(4)[..]).unwrap()));
    assert_corrupt(load(&place).await, &rows_of("users"), None);

    let place = saved(10).await;
    meddle(&place, |txn| {
        let mut table = table(txn, &rows_of("users"));
        let row = table.get(&key_of(4)[..]).unwrap().unwrap().value().to_vec();
        table.insert(&key_of(5)[..], row.as_slice()).unwrap();
    });
    assert_corrupt(load(&place).await, &rows_of("users"), Some("key 5"));

    let place = saved(10).await;
    let mut old = Vec::new();
    meddle(&place, |txn| {
        old = table(txn, &rows_of("users")).get(&key_of(4)[..]).unwrap().unwrap().value().to_vec();
    });
    let adapter = place.open().await;
    let upserts = vec![with_text(4, 0, "newer")];
    let change = BucketChange::Delta(BucketDelta { upserts, ..delta(2) });
    adapter.save_bucket(&bucket("users"), &change).await.unwrap();
    close(adapter).await;
    meddle(&place, |txn| drop(table(txn, &rows_of("users")).insert(&key_of(4)[..], old.as_slice()).unwrap()));
    assert_corrupt(load(&place).await, &rows_of("users"), None);
}

#[tokio::test]
async fn a_header_or_table_that_is_gone_is_not_an_empty_bucket() {
    let place = saved(10).await;
    meddle(&place, |txn| drop(table(txn, rows::BUCKETS).pop_first().unwrap().unwrap()));
    assert_corrupt(load(&place).await, &rows_of("users"), None);
    let adapter = place.open().await;
    let upserts = vec![with_text(4, 0, "newer")];
    let change = BucketChange::Delta(BucketDelta { upserts, ..delta(2) });
    assert_corrupt(adapter.save_bucket(&bucket("users"), &change).await, &rows_of("users"), None);
    close(adapter).await;

    let place = saved(10).await;
    meddle(&place, |txn| assert!(txn.delete_table(Definition::new(&rows_of("users"))).unwrap()));
    assert_corrupt(load(&place).await, &rows_of("users"), None);
}

#[tokio::test]
async fn a_damaged_row_that_is_overwritten_or_deleted_is_healed() {
    for deleted in [false, true] {
        let place = saved(10).await;
        meddle(&place, |txn| {
            let (mut table, key) = (table(txn, &rows_of("users")), [1, 0x80, 0, 0, 0, 0, 0, 0, 4]);
            let mut row = table.get(&key[..]).unwrap().unwrap().value().to_vec();
            // The checksum itself, which the tally is made of.
            row[2] ^= 1;
            table.insert(&key[..], row.as_slice()).unwrap();
        });
        assert_corrupt(load(&place).await, &rows_of("users"), Some("key 4"));

        let adapter = place.open().await;
        let mut change = delta(2);
        if deleted {
            change.deletes.push(Key::from(4));
        } else {
            change.upserts.push(with_text(4, 0, "healed"));
        }
        adapter.save_bucket(&bucket("users"), &BucketChange::Delta(change)).await.unwrap();
        close(adapter).await;
        let loaded = load(&place).await.unwrap().unwrap();
        assert_eq!(loaded.len(), if deleted { 9 } else { 10 });
    }
}

fn message(id: &str, lamport: i64) -> SdsMessage {
    let (content, channel_id) = ("content".into(), "c".into());
    SdsMessage { message_id: id.into(), lamport_timestamp: lamport, content, channel_id, ..SdsMessage::default() }
}

#[tokio::test]
async fn every_row_of_a_channel_is_missed_when_it_is_gone() {
    let places = ChannelPlaces::of(&channel("c"));
    let tables = [rows::CHANNELS, rows::CHANNEL_META, &places.history, &places.ids, &places.hints];
    for gone in tables {
        let place = Place::new();
        let adapter = place.open().await;
        let update = HistoryUpdate::new(vec![message("a", 1), message("b", 2)], Vec::new());
        adapter.update_history(&channel("c"), &update).await.unwrap();
        adapter.save_channel_meta(&channel("c"), &ChannelMeta::default()).await.unwrap();
        adapter.set_retrieval_hint(&channel("c"), &"a".into(), b"hint").await.unwrap();
        close(adapter).await;
        meddle(&place, |txn| drop(table(txn, gone).pop_last().unwrap().unwrap()));
        let adapter = place.open().await;
        let outcome = adapter.load_channel(&channel("c")).await;
        assert!(matches!(outcome, Err(Error::Corrupt { .. })), "{gone}: {outcome:?}");

        let name = adapter.quarantine(&store("shop"), &Subject::Channel("c".try_into().unwrap())).await.unwrap();
        assert_eq!(adapter.load_channel(&channel("c")).await.unwrap(), crate::sds::ChannelData::default());
        let kept = adapter.quarantined().await.unwrap();
        assert_eq!((kept[0].name.as_str(), kept[0].subject.as_str()), (name.as_str(), "channel c"));
        assert_eq!(kept[0].rows.len(), 6, "seven rows but one");
        close(adapter).await;
    }
}

#[tokio::test]
async fn quarantine_keeps_the_bytes_and_makes_room_for_a_new_start() {
    let place = saved(10).await;
    let mut raw = Vec::new();
    meddle(&place, |txn| {
        let mut table = table(txn, &rows_of("users"));
        table.insert(&b"no key"[..], &b"no row"[..]).unwrap();
        raw = table
            .iter()
            .unwrap()
            .map(|entry| entry.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).unwrap())
            .collect();
        let mut headers = self::table(txn, rows::BUCKETS);
        let (key, _) =
            headers.pop_first().unwrap().map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).unwrap();
        headers.insert(key.as_slice(), &b"no header"[..]).unwrap();
    });
    assert!(load(&place).await.is_err());

    let adapter = place.open().await;
    let subject = Subject::Bucket(bucket("users").bucket);
    let first = adapter.quarantine(&store("shop"), &subject).await.unwrap();
    assert!(first.starts_with("shop/bucket/users.quarantine-20"), "{first}");
    assert_eq!(contents(&adapter, &bucket("users")).await.unwrap(), None);
    adapter.save_bucket(&bucket("users"), &full(vec![with_text(1, 0, "new")])).await.unwrap();
    let second = adapter.quarantine(&store("shop"), &subject).await.unwrap();
    assert_ne!(first, second);
    adapter.save_bucket(&bucket("users"), &full(vec![with_text(1, 0, "newer")])).await.unwrap();
    close(adapter).await;

    let adapter = place.open().await;
    assert_eq!(contents(&adapter, &bucket("users")).await.unwrap().unwrap()[0].2, "newer");
    let mut kept = adapter.quarantined().await.unwrap();
    kept.sort_by_key(|kept| kept.moved_at);
    let names: Vec<_> = kept.iter().map(|kept| kept.name.as_str()).collect();
    assert_eq!(names, [first, second]);
    assert_eq!(kept[0].store, store("shop"));
    let (headers, rows): (Vec<_>, Vec<_>) = kept[0].rows.iter().partition(|row| row.table == rows::BUCKETS);
    assert_eq!(headers.iter().map(|row| &*row.value).collect::<Vec<_>>(), [b"no header"]);
    let rows: Vec<_> = rows.iter().map(|row| (row.key.to_vec(), row.value.to_vec())).collect();
    assert_eq!(rows, raw);
}
