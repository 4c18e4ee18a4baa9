//! Does what people are shown of a failure say what they have to know? Which bucket, which field, why, and at the end what
//! the system said: a log line has nothing else. And is it one line of printable text, with nothing of a record in it?
#![cfg(all(feature = "redb", feature = "testkit"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests say what they expect by unwrapping it"
)]

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ractor_persistence::adapters::memory::MemoryAdapter;
use ractor_persistence::adapters::redb::RedbAdapter;
use ractor_persistence::base::durability::Durability;
use ractor_persistence::base::error::{Error, Failure};
use ractor_persistence::base::name::StoreName;
use ractor_persistence::bucket::Bucket;
use ractor_persistence::durable::DurableOptions;
use ractor_persistence::persistence::StorageAdapter;
use ractor_persistence::record;
use ractor_persistence::records::{BucketDefinition, Field};
use ractor_persistence::store::Store;
use ractor_persistence::testkit::{Fault, FaultAdapter, Operation};
use serde::Deserialize;
use serde::de::DeserializeOwned;

fn parcels() -> BucketDefinition {
    BucketDefinition::new("parcels")
        .key("id")
        .field("id", Field::int())
        .field("to", Field::any())
        .field("notes", Field::any())
}

async fn start() -> Store {
    Store::builder("shop").adapter(MemoryAdapter::default()).start().await.unwrap()
}

fn no_space() -> Error {
    Error::transient("commit", std::io::Error::from_raw_os_error(28))
}

#[tokio::test(start_paused = true)]
async fn what_the_callback_is_told_ends_with_what_the_disk_said() {
    let disk = FaultAdapter::new(MemoryAdapter::default());
    let faults = disk.faults();
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let telling = Arc::clone(&told);
    let note = move |failure: &Failure| telling.lock().unwrap().push(failure.to_string());
    let store = Store::builder("shop").adapter(disk).on_error(note).start().await.unwrap();
    let bucket = store.define_bucket(parcels()).await.unwrap();
    faults.inject(Fault::fail(no_space()).on(Operation::Commit).times(1));
    bucket.insert(record! { "id": 1 }).await.unwrap();
    assert!(store.flush().await.is_err());
    tokio::time::sleep(Duration::from_secs(60)).await;
    let said = std::io::Error::from_raw_os_error(28);
    assert_eq!(
        *told.lock().unwrap(),
        [format!("save of bucket parcels failed (attempt 1): transient failure of commit: {said}")]
    );
}

#[tokio::test]
async fn a_file_that_cannot_be_made_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let error = RedbAdapter::open(directory.path().join("no").join("file")).await.unwrap_err();
    let told = Failure::new(None, "load", error, 1).to_string();
    let said = std::io::Error::from_raw_os_error(2).to_string();
    assert_eq!(told.matches(&said).count(), 1, "{told}");
}

#[tokio::test]
async fn an_adapter_whose_store_has_stopped_says_that_its_file_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let adapter = RedbAdapter::open(directory.path().join("shop.redb")).await.unwrap();
    let store = Store::builder("shop").adapter(adapter.clone()).start().await.unwrap();
    store.stop().await.unwrap();
    let error = adapter.quarantined().await.unwrap_err();
    assert_eq!(error.to_string(), "permanent failure of reading the quarantine");
    let told = Failure::new(None, "load", error, 1).to_string();
    assert!(told.ends_with("reading the quarantine: the file is closed; claim a store to open it again"), "{told}");
}

#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "it is never read")]
struct Place {
    street: String,
    #[serde(default)]
    floor: u8,
}

#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "it is never read")]
enum Note {
    Photo(Place),
    Visit { place: Place },
    Both(Place, Place),
}

#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "it is never read")]
struct Parcel {
    id: i64,
    #[serde(default)]
    to: Option<Vec<Place>>,
    #[serde(default)]
    notes: BTreeMap<String, Note>,
}

#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "it is never read")]
struct Wrong {
    id: String,
}

#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "it is never read")]
struct Flat {
    id: i64,
    #[serde(flatten)]
    rest: BTreeMap<String, i64>,
}

/// What is said of a record that does not fit, and of its cause.
async fn misfit<T: DeserializeOwned + serde::Serialize>(bucket: &Bucket, key: i64) -> (String, String) {
    let error = bucket.typed::<T>().get(key).await.err().expect("it does not fit");
    assert!(matches!(&error, Error::Decode { key: told, .. } if *told == key.into()), "{error:?}");
    (error.to_string(), error.source().expect("a type has said so").to_string())
}

macro_rules! unwritten {
    ($($type:ty),*) => {$(
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("it is only read"))
            }
        }
    )*};
}
unwritten!(Parcel, Wrong, Flat);

#[tokio::test]
async fn a_record_that_does_not_fit_is_told_with_its_bucket_and_the_field() {
    let store = start().await;
    let bucket = store.define_bucket(parcels()).await.unwrap();
    bucket.insert(record! { "id": 1, "to": [{ "street": "Elm" }, { "street": 5 }] }).await.unwrap();
    bucket.insert(record! { "id": 2, "notes": { "hunter2": { "Photo": { "street": 5 } } } }).await.unwrap();
    bucket
        .insert(record! { "id": 3, "notes": { "x": { "Visit": { "place": { "street": "a", "floor": 999 } } } } })
        .await
        .unwrap();
    bucket.insert(record! { "id": 4, "notes": { "x": { "Both": [{ "street": "a" }, {}] } } }).await.unwrap();
    bucket.insert(record! { "id": 5, "to": [[1]] }).await.unwrap();
    bucket.insert(record! { "id": 6, "notes": "hunter2", "hunter2": true }).await.unwrap();

    let (told, why) = misfit::<Wrong>(&bucket, 1).await;
    assert_eq!(told, "bucket parcels: a record does not fit the type asked for");
    assert_eq!(why, "id: invalid type: an integer, expected a string");
    assert_eq!(misfit::<Parcel>(&bucket, 1).await.1, "to.1.street: invalid type: an integer, expected a string");
    // A name that only the record has is part of what it holds.
    let why = misfit::<Parcel>(&bucket, 2).await.1;
    assert_eq!(why, "notes.*.Photo.street: invalid type: an integer, expected a string");
    let why = misfit::<Parcel>(&bucket, 3).await.1;
    assert_eq!(why, "notes.*.Visit.place.floor: invalid value: an integer, expected u8");
    assert_eq!(misfit::<Parcel>(&bucket, 4).await.1, "notes.*.Both.1: missing field `street`");
    let why = misfit::<Parcel>(&bucket, 5).await.1;
    assert_eq!(why, "to.0.0: invalid type: an integer, expected a string");
    // A declared name is the bucket's, whatever the type is.
    assert!(misfit::<BTreeMap<String, i64>>(&bucket, 1).await.1.starts_with("to: "));
    let why = misfit::<BTreeMap<String, bool>>(&bucket, 6).await.1;
    assert!(why.starts_with("id: "), "{why}");
    let why = misfit::<Flat>(&bucket, 6).await.1;
    assert!(!why.contains("hunter2"), "{why}");
}

#[tokio::test]
async fn a_durable_value_that_does_not_fit_is_told_by_its_name() {
    let store = start().await;
    store.durable("clock", DurableOptions::starting_with(|| 5_u32)).await.unwrap();
    let error = store.durable("clock", DurableOptions::<String>::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "durable value clock: what is stored does not fit the type asked for");
    assert!(format!("{error:?}").contains("durable value clock"), "{error:?}");
    assert!(!format!("{error:?}").contains("u{1}"), "{error:?}");
}

#[tokio::test]
async fn a_durability_that_cannot_be_had_is_refused_with_whose_it_is_and_why() {
    let store = start().await;
    store.define_bucket(parcels()).await.unwrap();
    let carts = BucketDefinition::new("carts").key("id").field("id", Field::int()).persistent(false);
    let carts = store.define_bucket(carts).await.unwrap();
    let has = "is not supported, Ram is";
    let opted_out = format!("durability Fsync for bucket carts, which is defined as one that is not saved, {has}");
    let refused = carts.with_durability(Durability::Fsync).insert(record! { "id": 1 }).await.unwrap_err();
    assert_eq!(refused.to_string(), opted_out);
    let refused = store
        .transaction(async |tx| {
            tx.bucket("parcels")?.insert(record! { "id": 1 }).await?;
            tx.bucket("carts")?.insert(record! { "id": 1 }).await.map(drop)
        })
        .durability(Durability::Fsync)
        .await
        .unwrap_err();
    assert_eq!(refused.to_string(), opted_out);

    let store = Store::builder("shop").start().await.unwrap();
    let bucket = store.define_bucket(parcels()).await.unwrap();
    let refused = bucket.with_durability(Durability::Wal).insert(record! { "id": 1 }).await.unwrap_err();
    assert_eq!(refused.to_string(), format!("durability Wal for bucket parcels, whose store has no adapter, {has}"));
    let strict = || DurableOptions::<u32>::default().durability(Durability::Fsync);
    let refused = store.durable("clock", strict()).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!("durability Fsync for durable value clock, whose store has no adapter, {has}")
    );
    let value = store.durable("clock", DurableOptions::<u32>::default()).await.unwrap();
    let refused = store
        .transaction(async |tx| tx.join(&value)?.update(|number| *number += 1))
        .durability(Durability::Fsync)
        .await
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!("durability Fsync for durable value clock, whose store has no adapter, {has}")
    );
}

#[tokio::test]
async fn what_does_not_fit_a_definition_is_counted_and_not_repeated() {
    let store = start().await;
    let bucket = store.define_bucket(parcels()).await.unwrap();
    for id in 0..30 {
        let to = if id % 2 == 0 {
            record! { "id": id, "to": 1 }
        } else {
            record! { "id": id, "to": true }
        };
        bucket.insert(to).await.unwrap();
    }
    store.detach_bucket("parcels").await.unwrap();
    let narrower = BucketDefinition::new("parcels").key("id").field("id", Field::int()).field("to", Field::string());
    let refused = store.define_bucket(narrower).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "bucket parcels: 30 stored record(s) of schema version 1 do not fit version 1: to: is int, not string (type) \
         (10 of them); to: is bool, not string (type) (10 of them); and 10 more"
    );
}

#[tokio::test]
async fn a_bad_name_is_escaped_once() {
    let bad = BucketDefinition::new("\u{1}x").key("id").field("id", Field::int());
    let refused = start().await.define_bucket(bad).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        r#"invalid definition of bucket "\u{1}x": invalid bucket name "\u{1}x": it contains a control character"#
    );
}

#[tokio::test]
async fn durable_values_in_quarantine_have_a_name_that_can_be_shown() {
    let directory = tempfile::tempdir().unwrap();
    let redb = RedbAdapter::open(directory.path().join("shop.redb")).await.unwrap();
    let adapters: [Arc<dyn StorageAdapter>; 2] = [Arc::new(redb.clone()), Arc::new(MemoryAdapter::default())];
    for adapter in adapters {
        let store = Store::builder("shop").shared_adapter(Arc::clone(&adapter)).start().await.unwrap();
        let value = store.durable("clock", DurableOptions::starting_with(|| 5_u32)).await.unwrap();
        value.persist().await.unwrap();
        let (subject, _) = store.stats().await.persistence.saved_revisions.remove(0);
        let name = adapter.quarantine(&StoreName::new("shop").unwrap(), &subject).await.unwrap();
        assert!(name.contains("durable values.quarantine-") && !name.contains(char::is_control), "{name:?}");
    }
    let [kept] = &redb.quarantined().await.unwrap()[..] else { panic!("one thing is in quarantine") };
    assert_eq!(kept.subject, "durable values");
    assert!(!kept.name.contains(char::is_control) && !kept.rows.is_empty(), "{kept:?}");
}
