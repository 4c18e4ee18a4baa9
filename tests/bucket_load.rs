//! An upgrade finds every record that an earlier release stored, brought into the form that the new definition asks for,
//! or it changes nothing on disk and says which records do not fit. Without it an upgrade would ruin what is stored.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what they expect by unwrapping it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ractor_persistence::adapters::memory::MemoryAdapter;
use ractor_persistence::base::error::Error;
use ractor_persistence::base::name::{BucketKey, BucketName, StoreName};
use ractor_persistence::base::value::{Key, Object, Value};
use ractor_persistence::record;
use ractor_persistence::records::{
    BucketDefinition, BucketSnapshot, Field, Filter, Generated, Metadata, Record, Restored, Schema, Table,
};
use ractor_persistence::{StorageAdapter, Store};

fn key() -> BucketKey {
    BucketKey::new(StoreName::new("app").unwrap(), BucketName::new("users").unwrap())
}

async fn stored(adapter: &MemoryAdapter) -> BucketSnapshot {
    let mut snapshot = adapter.load_bucket(&key()).await.unwrap().unwrap();
    snapshot.records.sort_by_key(|record| record.place());
    snapshot
}

/// Everything of it as bytes, metadata and places included.
async fn bytes(adapter: &MemoryAdapter) -> Vec<u8> {
    rmp_serde::to_vec_named(&stored(adapter).await).unwrap()
}

async fn open(adapter: &MemoryAdapter) -> Store {
    Store::builder("app").adapter(adapter.clone()).start().await.unwrap()
}

/// Defines the bucket anew, and stops the store.
async fn reopen(adapter: &MemoryAdapter, definition: BucketDefinition) -> Result<Vec<Arc<Record>>, Error> {
    let store = open(adapter).await;
    let outcome = match store.define_bucket(definition).await {
        Ok(users) => users.all().await,
        Err(error) => {
            assert!(matches!(store.bucket("users"), Err(Error::BucketNotDefined { .. })), "nothing is left behind");
            Err(error)
        }
    };
    store.stop().await.unwrap();
    outcome
}

fn users() -> BucketDefinition {
    BucketDefinition::new("users").key("id").field("id", Field::string())
}

#[track_caller]
fn misfits<T: std::fmt::Debug>(refused: Result<T, Error>) -> (Vec<String>, usize, String) {
    let Err(Error::Migration { records, total, .. }) = refused else { panic!("{refused:?}") };
    let reasons = records.iter().map(|misfit| misfit.reason.as_str()).collect::<Vec<_>>().join("; ");
    (records.iter().map(|misfit| misfit.key.to_string()).collect(), total, reasons)
}

async fn with_users(records: impl IntoIterator<Item = Object>) -> MemoryAdapter {
    let adapter = MemoryAdapter::default();
    let store = open(&adapter).await;
    let bucket = store.define_bucket(users()).await.unwrap();
    for record in records {
        bucket.insert(record).await.unwrap();
    }
    store.stop().await.unwrap();
    adapter
}

#[tokio::test]
async fn bk_51_a_new_definition_fills_in_defaults_or_leaves_the_stored_bytes_alone() {
    let adapter = with_users([
        record! { "id": "a", "mail": "same", "age": "1" },
        record! { "id": "b", "mail": "same", "age": 2.0, "nick": null },
    ])
    .await;
    let before = bytes(&adapter).await;

    for (definition, keys) in [
        (users().field("born", Field::int().required()), &["a", "b"][..]),
        (users().field("mail", Field::string().unique()), &["a", "b"]),
        (users().field("mail", Field::string()).unique_index(["mail"]), &["a", "b"]),
        (users().field("age", Field::int()), &["a"]),
        (users().field("nick", Field::string().required()), &["a", "b"]),
        (users().field("mail", Field::string().max_length(3)), &["a", "b"]),
        (BucketDefinition::new("users").key("mail").field("mail", Field::string()), &["a", "b"]),
        (BucketDefinition::new("users").key("id").field("id", Field::int()), &["a", "b"]),
    ] {
        let (found, total, _) = misfits(reopen(&adapter, definition.clone()).await);
        assert_eq!(
            (&found[..], total),
            (&keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>()[..], keys.len()),
            "{definition:?}"
        );
        assert_eq!(bytes(&adapter).await, before, "{definition:?}");
    }
    let panics = users().field("new", Field::int().default_with(|| -> i64 { panic!("a default") }));
    assert!(matches!(reopen(&adapter, panics).await, Err(Error::UserCode { .. })));
    assert_eq!(bytes(&adapter).await, before);

    let made = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&made);
    let defaults =
        users().field("role", Field::string().default("user")).field("nick", Field::string().default("none")).field(
            "number",
            Field::int().default_with(move || i64::try_from(counted.fetch_add(1, Ordering::Relaxed)).unwrap()),
        );
    let filled = reopen(&adapter, defaults).await.unwrap();
    for (number, record) in filled.iter().enumerate() {
        assert_eq!(record.get("role"), Some(&Value::from("user")));
        assert_eq!((record.version(), record.place()), (1, u64::try_from(number).unwrap()), "a load is no update");
    }
    let mut numbers: Vec<_> = filled.iter().map(|record| record.get("number").and_then(Value::as_i64)).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [Some(0), Some(1)], "each record has one of its own");
    assert_eq!(filled[0].get("nick"), Some(&Value::from("none")));
    assert_eq!(filled[1].get("nick"), Some(&Value::Null), "what is null stays so");
    assert_eq!(made.load(Ordering::Relaxed), 2);
    assert_eq!(stored(&adapter).await.records, filled, "saved with the defaults");
    let again = reopen(&adapter, users().field("number", Field::int().default_with(|| 99))).await.unwrap();
    assert_eq!(again, filled);
}

#[tokio::test]
async fn bk_52_steps_lead_from_the_stored_version_to_the_defined_one() {
    let adapter = with_users([
        record! { "id": "u1", "name": "Ada Lovelace", "_expires_at": 9_999_999_999_999_i64 },
        record! { "id": "u2", "name": "Bob" },
    ])
    .await;
    let store = open(&adapter).await;
    store.define_bucket(users()).await.unwrap().update("u1", record! { "more": true }).await.unwrap();
    store.stop().await.unwrap();
    let old = stored(&adapter).await;
    let before = bytes(&adapter).await;
    assert_eq!(old.schema_version, 1);

    let renamed = |new_key: fn(&str) -> String| {
        users()
            .field("first", Field::string().required())
            .field("length", Field::int().required())
            .schema_version(3)
            // Given in any order, run in theirs.
            .migrate(2, move |mut user: Object| {
                let first = user.get("first").and_then(Value::as_str).ok_or("no first name")?;
                // A float: brought into the kind of its field like any input.
                let length = f64::from(u32::try_from(first.len()).map_err(|_| "long")?);
                user.insert("length", length);
                let id = user.get("id").and_then(Value::as_str).ok_or("no key")?;
                let id = new_key(id);
                user.insert("id", id);
                Ok::<_, &str>(user)
            })
            .migrate(1, |mut user: Object| {
                assert!(!user.contains("first") && user.contains("_created_at") && user.contains("id"));
                assert_eq!(user.contains("_expires_at"), user.contains("more"));
                let name = user.remove("name").ok_or("no name")?;
                let first = name.as_str().and_then(|name| name.split(' ').next()).ok_or("no text")?;
                user.insert("first", first);
                user.insert("_version", 99);
                user.remove("_created_at");
                Ok::<_, &str>(user)
            })
    };

    let (keys, total, _) = misfits(reopen(&adapter, renamed(|_| "one".into())).await);
    assert_eq!((keys, total), (vec!["u1".to_owned(), "u2".to_owned()], 2), "both are named, by their old keys");
    assert_eq!(bytes(&adapter).await, before);

    let store = open(&adapter).await;
    let bucket = store.define_bucket(renamed(|id| id.replace('u', "user-"))).await.unwrap();
    assert_eq!(bucket.get("u1").await.unwrap(), None);
    let ada = bucket.get("user-1").await.unwrap().expect("renamed, and found");
    assert_eq!(ada.get("first"), Some(&Value::from("Ada")));
    assert_eq!(format!("{:?}", ada.get("length")), "Some(Int(3))");
    assert_eq!(ada.get("name"), None);
    assert_eq!(ada.get("id"), Some(&Value::from("user-1")));
    let all = bucket.all().await.unwrap();
    for (new, old) in all.iter().zip(&old.records) {
        assert_eq!((new.metadata(), new.place()), (old.metadata(), old.place()), "metadata and place are kept");
    }
    store.stop().await.unwrap();
    let saved = stored(&adapter).await;
    assert_eq!((saved.schema_version, &saved.records), (3, &all));

    // Loaded again, it is of version 3: no step runs.
    let untouched = users().schema_version(3).migrate(2, |_: Object| Err::<Object, _>("runs no more"));
    assert_eq!(reopen(&adapter, untouched).await.unwrap(), all);
    let refused = reopen(&adapter, users().schema_version(2)).await;
    assert!(matches!(refused, Err(Error::SchemaTooNew { stored: 3, defined: 2, .. })));
}

fn snapshot(records: impl IntoIterator<Item = (Key, u64, Object)>) -> BucketSnapshot {
    let metadata = Metadata { version: 1, created_at: 1, updated_at: 1, expires_at: None };
    let records =
        records.into_iter().map(|(key, place, fields)| Record::from_parts(key, place, metadata, fields).into());
    BucketSnapshot::new(1, 5, 0, records.collect())
}

fn restore(definition: BucketDefinition, snapshot: BucketSnapshot) -> Result<Table, Error> {
    Table::restore(Arc::new(Schema::new(definition).unwrap()), snapshot).map(|restored| restored.table)
}

#[test]
fn a_step_that_fails_panics_or_breaks_the_key_is_told_with_the_records_it_fails_for() {
    let stored =
        snapshot((0..30).map(|number| {
            (Key::from(format!("k{number:02}")), number, record! { "n": i64::try_from(number).unwrap() })
        }));
    let to = |step: fn(Object) -> Result<Object, String>| users().schema_version(2).migrate(1, step);
    fn number(record: &Object) -> i64 {
        record.get("n").and_then(Value::as_i64).unwrap()
    }

    let (keys, total, reasons) = misfits(restore(to(|_| Err("does not like it".to_owned())), stored.clone()));
    assert_eq!((keys.len(), total, keys[19].as_str()), (20, 30, "k19"));
    assert!(reasons.contains("from version 1: does not like it"), "{reasons}");

    let (keys, total, reasons) =
        misfits(restore(to(|record| if number(&record) == 7 { panic!("seven") } else { Ok(record) }), stored.clone()));
    assert_eq!((keys, total), (vec!["k07".to_owned()], 1));
    assert!(reasons.contains("panicked"), "{reasons}");

    for key in [None, Some(Value::Null), Some("".into()), Some(1.into()), Some("x".repeat(1_025).into())] {
        let step = move |mut record: Object| {
            record.remove("id");
            if let Some(key) = key.clone().filter(|_| number(&record) == 3) {
                record.insert("id", key);
            } else if number(&record) != 3 {
                let id = format!("k{:02}", number(&record));
                record.insert("id", id);
            }
            Ok::<_, String>(record)
        };
        let (keys, total, _) = misfits(restore(users().schema_version(2).migrate(1, step), stored.clone()));
        assert_eq!((keys, total), (vec!["k03".to_owned()], 1));
    }

    let deep = |mut record: Object| {
        record.insert("deep", (0..64).fold(Value::Null, |inner, _| vec![inner].into()));
        Ok(record)
    };
    assert_eq!(misfits(restore(to(deep), stored.clone())).1, 30);

    // Three on one key, two on another, the others alone.
    let met = |mut record: Object| {
        let number = record.get("n").and_then(Value::as_i64).unwrap();
        let id = match number {
            1 | 4 | 9 => "x".to_owned(),
            2 | 3 => "y".to_owned(),
            other => format!("k{other:02}"),
        };
        record.insert("id", id);
        Ok(record)
    };
    let (keys, total, _) = misfits(restore(to(met), stored.clone()));
    assert_eq!((keys, total), (["k01", "k02", "k03", "k04", "k09"].map(str::to_owned).to_vec(), 5));

    // All on one unique value: each is told once.
    let alike = |mut record: Object| {
        record.insert("n", 0);
        Ok::<_, String>(record)
    };
    let unique = users().field("n", Field::int().unique()).schema_version(2).migrate(1, alike);
    let (keys, total, _) = misfits(restore(unique, stored));
    assert_eq!((keys.len(), total, keys[0].as_str(), keys[19].as_str()), (20, 30, "k00", "k19"));
}

#[test]
fn steps_may_swap_keys_and_a_missing_step_changes_nothing() {
    let stored = || snapshot([("a".into(), 1, record! { "n": 1 }), ("b".into(), 0, record! { "n": 2 })]);
    let swapped = users().schema_version(3).migrate(2, |mut record: Object| {
        let id = if record.get("id") == Some(&Value::from("a")) { "b" } else { "a" };
        record.insert("id", id);
        Ok::<_, String>(record)
    });
    let table = restore(swapped, stored()).unwrap();
    let seen: Vec<_> = table.all().map(|record| (record.key().to_string(), record.get("n").cloned())).collect();
    assert_eq!(seen, [("a".to_owned(), Some(Value::Int(2))), ("b".to_owned(), Some(Value::Int(1)))]);
    assert_eq!((table.revision(), table.get(&"a".into(), 0).map(|record| record.place())), (5, Some(0)));
    assert_eq!(restore(users().schema_version(9), stored()).unwrap().len(), 2);
}

#[test]
fn stored_values_are_brought_into_the_kind_that_is_declared_now_if_that_is_exact() {
    let stored = |value: Value| snapshot([("a".into(), 0, record! { "f": value })]);
    let load = |field: Field, value: Value| {
        let table = restore(users().field("f", field), stored(value));
        table.map(|table| format!("{:?}", table.all().next().unwrap().get("f").unwrap()))
    };
    assert_eq!(load(Field::int(), Value::Float(2.0)).unwrap(), "Int(2)");
    assert_eq!(load(Field::float(), Value::Int(2)).unwrap(), "Float(2.0)");
    assert_eq!(load(Field::bytes(), "AQI=".into()).unwrap(), "Bytes([1, 2])");
    misfits(load(Field::int(), Value::Float(2.5)));
    misfits(load(Field::float(), Value::Int((1 << 53) + 1)));
    misfits(load(Field::string(), Value::Int(1)));
    misfits(load(Field::any(), Value::Float(f64::NAN)));
}

#[test]
fn records_come_in_their_places_however_they_were_stored() {
    let order = |places: &[(&str, u64)]| {
        let stored = snapshot(places.iter().map(|(key, place)| (Key::from(*key), *place, record! {})));
        let table = restore(users(), stored).unwrap();
        table.all().map(|record| record.key().to_string()).collect::<String>()
    };
    assert_eq!(order(&[("a", 1), ("b", 5), ("c", 9)]), "abc");
    assert_eq!(order(&[("a", 9), ("b", 1), ("c", 5)]), "bca");
    assert_eq!(order(&[("c", 1), ("b", 0), ("a", 1)]), "bac", "two in one place");
}

#[test]
fn a_large_bucket_is_restored_by_two_threads_and_its_misfits_are_listed_in_order_all_the_same() {
    const RECORDS: u64 = 25_000;
    let schema = |required: bool| {
        let name = if required { Field::string().required() } else { Field::string() };
        let definition = BucketDefinition::new("many")
            .key("id")
            .field("id", Field::int().generated(Generated::Autoincrement))
            .field("name", name)
            .index(["name"]);
        Arc::new(Schema::new(definition).unwrap())
    };
    let stored = || {
        let records = (0..RECORDS).map(|place| {
            let metadata = Metadata { version: 1, created_at: 1, updated_at: 1, expires_at: None };
            let id = i64::try_from(place).unwrap() + 1;
            let fields = if place % 1_000 == 999 {
                record! {}
            } else {
                record! { "name": format!("n{}", place % 100) }
            };
            Arc::new(Record::from_parts(id, place, metadata, fields))
        });
        BucketSnapshot::new(1, 7, 0, records.collect())
    };
    let Restored { table, altered, .. } = Table::restore(schema(false), stored()).unwrap();
    assert!(!altered);
    assert_eq!((table.len() as u64, table.revision(), table.counter()), (RECORDS, 7, 25_000));
    assert!(table.all().zip(0..).all(|(record, place)| record.place() == place));
    let filter = Filter::eq("name", "n5");
    assert_eq!(table.view(&filter, 1).count(&filter).unwrap(), 250);
    assert_eq!(table.get(&12_345.into(), 1).map(|record| record.place()), Some(12_344));

    let refused = Table::restore(schema(true), stored()).unwrap_err();
    let Error::Migration { records, total, .. } = refused else { panic!("{refused:?}") };
    let listed: Vec<_> = records.iter().map(|misfit| misfit.key.clone()).collect();
    let expected: Vec<Key> = (1..=20_i64).map(|thousand| Key::from(thousand * 1_000)).collect();
    assert_eq!((total, listed), (25, expected));
}
