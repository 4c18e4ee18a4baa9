//! Is a record gone from everything from the moment at which it expires, and told of when it is removed?

use std::time::Duration;

use ractor_persistence::adapters::memory::MemoryAdapter;
use ractor_persistence::base::error::{Error, IssueCode};
use ractor_persistence::base::name::{BucketKey, BucketName, StoreName};
use ractor_persistence::base::value::{Key, Value};
use ractor_persistence::bucket::Bucket;
use ractor_persistence::persistence::StorageAdapter;
use ractor_persistence::record;
use ractor_persistence::records::{BucketDefinition, Direction, Field, Filter, Page, Patch, Query, Upserted};

use crate::world::*;

fn mortal() -> BucketDefinition {
    texts("texts").field("email", Field::string().unique()).field("n", Field::int()).index(["n"]).ttl("10s")
}

/// Three records; `b` has expired and is not purged yet.
async fn with_one_expired(bucket: &Bucket, clock: &ractor_persistence::base::clock::ManualClock) {
    for (id, n) in [("a", 1), ("b", 2), ("c", 3)] {
        let email = format!("{id}@x.y");
        let expires_at = if id == "b" { START + 5_000 } else { START + 50_000 };
        let data = record! { "id": id, "n": n, "email": email, "text": "x", "_expires_at": expires_at };
        bucket.insert(data).await.unwrap();
    }
    clock.set(START + 4_999);
    assert_eq!(ids(bucket).await, ["a", "b", "c"]);
    clock.set(START + 5_000);
}

#[tokio::test]
async fn bk_25_a_unique_value_is_free_as_soon_as_its_holder_is_deleted_changed_cleared_or_expired() {
    let (store, clock) = start().await;
    let bucket = store.define_bucket(mortal()).await.unwrap();
    let with = |id: &str| record! { "id": id, "email": "e" };
    bucket.insert(with("a")).await.unwrap();
    assert!(bucket.insert(with("b")).await.is_err());
    bucket.delete("a").await.unwrap();
    bucket.insert(with("b")).await.unwrap();
    assert!(bucket.insert(with("c")).await.is_err());
    bucket.update("b", record! { "email": "other" }).await.unwrap();
    bucket.insert(with("c")).await.unwrap();
    bucket.patch("c", Patch::new().unset("email")).await.unwrap();
    bucket.insert(with("d")).await.unwrap();
    bucket.delete_many(Filter::eq("id", "d")).await.unwrap();
    bucket.upsert(with("e")).await.unwrap();
    bucket.clear().await.unwrap();
    bucket.insert(with("f")).await.unwrap();
    clock.advance(9_999);
    assert!(
        matches!(bucket.insert(with("g")).await, Err(Error::UniqueViolation { holder, .. }) if holder == "f".into())
    );
    clock.advance(1);
    bucket.insert(with("g")).await.unwrap();
    assert!(bucket.insert(with("h")).await.is_err());
    // For changes of others as well.
    bucket.insert(record! { "id": "i", "_expires_at": null }).await.unwrap();
    assert!(bucket.update("i", record! { "email": "e" }).await.is_err());
    clock.advance(10_000);
    bucket.update("i", record! { "email": "e" }).await.unwrap();
    assert_eq!(ids(&bucket).await, ["i"]);
}

#[tokio::test]
async fn bk_27_a_record_that_has_expired_is_absent_from_every_read_and_count_and_from_updates() {
    let (store, clock) = start().await;
    for ordered in [false, true] {
        let name = if ordered { "ordered" } else { "texts" };
        let definition = BucketDefinition::new(name).key("id").field("id", Field::string());
        let definition = definition.field("email", Field::string().unique()).field("n", Field::int()).index(["n"]);
        let definition = if ordered { definition.ordered().max_size(50) } else { definition };
        clock.set(START);
        let bucket = store.define_bucket(definition).await.unwrap();
        with_one_expired(&bucket, &clock).await;
        let mut events = store.subscribe("bucket.*").unwrap();

        assert!(bucket.get("b").await.unwrap().is_none());
        assert_eq!(bucket.get_many(["a", "b"]).await.unwrap()[1], None);
        let live = ["a", "c"];
        assert_eq!(ids(&bucket).await, live);
        let filters = [
            Filter::all(),
            Filter::gt("n", 0),
            Filter::is_in("n", [1, 2, 3]),
            Filter::is_in("id", ["a", "b", "c"]),
            Filter::prefix("text", "x"),
            Filter::eq("n", 2).or(Filter::ne("n", 2)),
            Filter::is_in("email", ["a@x.y", "b@x.y", "c@x.y"]),
        ];
        for filter in filters {
            let found = bucket.find(filter.clone()).await.unwrap();
            assert_eq!(found.iter().map(|record| id(record)).collect::<Vec<_>>(), live, "{filter:?}");
            let sorted = bucket.find(Query::new(filter.clone()).order_by("n", Direction::Descending)).await.unwrap();
            assert_eq!(sorted.iter().map(|record| id(record)).collect::<Vec<_>>(), ["c", "a"], "{filter:?}");
            assert_eq!(bucket.count(filter.clone()).await.unwrap(), 2, "{filter:?}");
            assert_eq!(bucket.sum("n", filter.clone()).await.unwrap(), 4.into());
            let page = bucket.paginate(filter.clone(), Page::new(1)).await.unwrap();
            assert!(page.has_more);
            let next = Page::new(1).after(page.next_cursor.unwrap());
            let page = bucket.paginate(filter.clone(), next).await.unwrap();
            assert_eq!((id(&page.records[0]), page.has_more), ("c".to_owned(), false), "{filter:?}");
        }
        for filter in [Filter::eq("id", "b"), Filter::eq("n", 2), Filter::eq("email", "b@x.y")] {
            assert_eq!(bucket.find_one(filter.clone()).await.unwrap(), None);
            assert_eq!(bucket.count(filter.clone()).await.unwrap(), 0);
            assert_eq!(bucket.max("n", filter.clone()).await.unwrap(), None);
            assert_eq!(bucket.delete_many(filter).await.unwrap(), 0);
        }
        assert_eq!(bucket.first(2).await.unwrap().len() + bucket.last(2).await.unwrap().len(), 4);
        assert_eq!(
            (id(&bucket.first(2).await.unwrap()[1]), id(&bucket.last(2).await.unwrap()[0])),
            ("c".into(), "a".into())
        );
        assert!((bucket.avg("n", Filter::all()).await.unwrap() - 2.0).abs() < 1e-9);
        assert_eq!(bucket.min("n", Filter::gt("n", 1)).await.unwrap(), Some(3.into()));
        let stats = bucket.stats().await.unwrap();
        assert_eq!((stats.records, stats.expired), (2, 1));

        let missing = [
            bucket.update("b", record! { "n": 9 }).await,
            bucket.update_if("b", 1, record! { "n": 9 }).await,
            bucket.patch("b", Patch::new().set("n", 9)).await,
        ];
        assert!(missing.iter().all(|outcome| matches!(outcome, Err(Error::NotFound { .. }))), "{missing:?}");
        assert!(!bucket.delete("b").await.unwrap());
        assert_eq!(told(&mut events), [""; 0]);
        assert_eq!(bucket.clear().await.unwrap(), 2, "only those that were there are counted");
    }
}

#[tokio::test]
async fn bk_28_an_insert_over_an_expired_key_or_unique_value_succeeds_and_tells_of_the_purge_first() {
    let (store, clock) = start().await;
    let bucket = store.define_bucket(mortal()).await.unwrap();
    let again: [&str; 6] = ["insert", "upsert", "insert_many", "unique", "unique by update", "both in one"];
    for how in again {
        clock.set(START);
        bucket.clear().await.unwrap();
        with_one_expired(&bucket, &clock).await;
        let mut events = store.subscribe("bucket.*").unwrap();
        let before = revision(&bucket).await;
        let b = record! { "id": "b", "text": "new" };
        let holder = record! { "id": "z", "email": "b@x.y" };
        let expected: &[&str] = match how {
            "insert" => {
                let new = bucket.insert(b).await.unwrap();
                assert_eq!((new.version(), new.get("email"), new.metadata().created_at), (1, None, START + 5_000));
                &["deleted b (Expired)", "inserted b"]
            }
            "upsert" => {
                assert!(matches!(bucket.upsert(b).await.unwrap(), Upserted::Inserted(_)));
                &["deleted b (Expired)", "inserted b"]
            }
            "insert_many" => {
                bucket.insert_many([record! { "id": "y" }, b, record! { "id": "x" }]).await.unwrap();
                &["deleted b (Expired)", "inserted y", "inserted b", "inserted x"]
            }
            "unique" => {
                bucket.insert(holder).await.unwrap();
                &["deleted b (Expired)", "inserted z"]
            }
            "unique by update" => {
                bucket.update("a", record! { "email": "b@x.y" }).await.unwrap();
                &["deleted b (Expired)", "updated a"]
            }
            _ => {
                bucket.insert_many([holder, b]).await.unwrap();
                &["deleted b (Expired)", "inserted z", "inserted b"]
            }
        };
        let heard = heard(&mut events);
        assert_eq!(heard.iter().map(short).collect::<Vec<_>>(), expected, "{how}");
        assert!(heard.iter().all(|event| event.revision == before + 1), "{how}: one commit");
        assert_eq!(bucket.stats().await.unwrap().expired, 0, "{how}");
        assert!(bucket.insert(record! { "id": "q", "email": "a@x.y" }).await.is_err() || how == "unique by update");
    }
}

/// What is stored of the bucket `texts`.
async fn stored(adapter: &MemoryAdapter) -> Vec<Key> {
    let key = BucketKey::new(StoreName::new("shop").unwrap(), BucketName::new("texts").unwrap());
    let snapshot = adapter.load_bucket(&key).await.unwrap().unwrap_or_default();
    let mut keys: Vec<Key> = snapshot.records.iter().map(|record| record.key().clone()).collect();
    keys.sort();
    keys
}

#[tokio::test]
async fn bk_29_a_purge_tells_of_each_record_answers_their_count_and_is_in_the_next_save() {
    let adapter = MemoryAdapter::default();
    let (store, clock) = start_on(adapter.clone()).await;
    let bucket = store.define_bucket(mortal()).await.unwrap();
    let other = store.define_bucket(texts("other").ttl("1h")).await.unwrap();
    with_one_expired(&bucket, &clock).await;
    bucket.insert(record! { "id": "d", "_expires_at": START }).await.unwrap();
    other.insert(record! { "id": "gone", "_expires_at": START }).await.unwrap();
    store.flush().await.unwrap();
    assert_eq!(stored(&adapter).await.len(), 4);
    let mut events = store.subscribe("bucket.*").unwrap();
    assert_eq!(store.purge_expired().await.unwrap(), 3);
    let mut told = told(&mut events);
    told.sort();
    assert_eq!(told, ["deleted b (Expired)", "deleted d (Expired)", "deleted gone (Expired)"]);
    store.flush().await.unwrap();
    assert_eq!(stored(&adapter).await, ["a".into(), "c".into()]);
    assert_eq!(store.purge_expired().await.unwrap(), 0);
    assert!(events.is_empty());
    // More of them than one turn takes.
    let many = (0..2_500).map(|id| record! { "id": format!("{id}"), "_expires_at": START });
    bucket.insert_many(many).await.unwrap();
    let before = revision(&bucket).await;
    assert_eq!(store.purge_expired().await.unwrap(), 2_500);
    assert_eq!(revision(&bucket).await, before + 3);
    assert_eq!(ids(&bucket).await, ["a", "c"]);
    store.stop().await.unwrap();
    assert!(matches!(store.purge_expired().await, Err(Error::Stopping)));
}

#[tokio::test(start_paused = true)]
async fn the_tick_purges_what_has_expired_and_rests_when_it_is_turned_off() {
    for interval in [Duration::from_secs(1), Duration::ZERO] {
        let (builder, clock) = builder();
        let store = builder.ttl_check_interval(interval).start().await.unwrap();
        let bucket = store.define_bucket(mortal()).await.unwrap();
        bucket.insert(record! { "id": "a" }).await.unwrap();
        let mut events = store.subscribe("bucket.*").unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(events.is_empty(), "it has not expired yet");
        clock.advance(10_000);
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let expected: &[&str] = if interval.is_zero() { &[] } else { &["deleted a (Expired)"] };
        assert_eq!(told(&mut events), expected);
        store.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_record_may_say_itself_when_it_expires_in_any_bucket() {
    let (store, clock) = start().await;
    let plain = store.define_bucket(texts("plain")).await.unwrap();
    let mortal = store.define_bucket(mortal()).await.unwrap();
    let at = |bucket: Bucket, id: &'static str| async move {
        bucket.get(id).await.unwrap().map(|record| record.metadata().expires_at)
    };
    for bucket in [&plain, &mortal] {
        bucket.insert(record! { "id": "never", "_expires_at": null }).await.unwrap();
        bucket.insert(record! { "id": "soon", "_expires_at": START + 1 }).await.unwrap();
        bucket.insert(record! { "id": "default" }).await.unwrap();
        assert_eq!(at(bucket.clone(), "never").await, Some(None));
        assert_eq!(at(bucket.clone(), "soon").await, Some(Some(START + 1)));
        for bad in [Value::from("tomorrow"), true.into(), f64::NAN.into()] {
            let Err(Error::Validation { issues, .. }) = bucket.insert(record! { "id": "x", "_expires_at": bad }).await
            else {
                panic!("stored")
            };
            assert_eq!((issues[0].field.as_str(), issues[0].code), ("_expires_at", IssueCode::Type));
        }
    }
    assert_eq!(at(plain.clone(), "default").await, Some(None));
    assert_eq!(at(mortal.clone(), "default").await, Some(Some(START + 10_000)));
    clock.advance(1);
    assert_eq!((at(plain.clone(), "soon").await, at(mortal.clone(), "soon").await), (None, None));
    // Updates keep it, unless they say otherwise.
    mortal.update("default", record! { "text": "y" }).await.unwrap();
    assert_eq!(at(mortal.clone(), "default").await, Some(Some(START + 10_000)));
    mortal.update("default", record! { "_expires_at": null }).await.unwrap();
    assert_eq!(at(mortal.clone(), "default").await, Some(None));
    plain.update("never", record! { "_expires_at": START + 2 }).await.unwrap();
    clock.advance(1_000_000);
    assert_eq!(
        (ids(&plain).await, ids(&mortal).await),
        (vec!["default".into()], vec!["never".into(), "default".into()])
    );
    assert_eq!(store.purge_expired().await.unwrap(), 3);
}
