//! Does every operation do what it says, and nothing when it is refused?

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use ractor::call;
use ractor_persistence::base::error::{Error, IssueCode};
use ractor_persistence::base::value::{Key, Value};
use ractor_persistence::bucket::{Bucket, BucketMessage, WriteRequest};
use ractor_persistence::record;
use ractor_persistence::records::{
    BucketDefinition, BucketEvent, Change, Field, Filter, Generated, Patch, Record, Upserted, Write,
};
use ractor_persistence::store::Store;

use crate::world::*;

/// What a refused write must leave as it is.
async fn state(bucket: &Bucket) -> (Vec<Arc<Record>>, u64, i64) {
    let stats = bucket.stats().await.unwrap();
    (bucket.all().await.unwrap(), stats.revision, stats.counter)
}

#[tokio::test]
async fn bk_03_an_upsert_inserts_at_version_1_or_merges_at_the_next_version_and_in_the_same_place() {
    let (store, clock) = start().await;
    let bucket = store.define_bucket(texts("texts").field("other", Field::int())).await.unwrap();
    for id in ["b", "a", "c"] {
        let Upserted::Inserted(record) = bucket.upsert(record! { "id": id, "text": "x" }).await.unwrap() else {
            panic!("{id} was free")
        };
        assert_eq!((record.version(), record.metadata().created_at), (1, START));
    }
    clock.advance(5);
    let Upserted::Updated(merged) = bucket.upsert(record! { "id": "a", "other": 2 }).await.unwrap() else {
        panic!("it was taken")
    };
    assert_eq!((merged.version(), merged.get("text"), merged.get("other")), (2, Some(&"x".into()), Some(&2.into())));
    assert_eq!((merged.metadata().created_at, merged.metadata().updated_at), (START, START + 5));
    assert_eq!(ids(&bucket).await, ["b", "a", "c"]);
    assert_eq!(bucket.get("a").await.unwrap(), Some(merged));
    assert_eq!(revision(&bucket).await, 4);
    // Without a key there is nothing to merge with.
    let bucket = store.define_bucket(numbered("numbers")).await.unwrap();
    for id in 1..3 {
        assert_eq!(bucket.upsert(record! { "text": "x" }).await.unwrap().into_record().key(), &id.into());
    }
}

#[tokio::test]
async fn bk_08_an_update_keeps_key_generated_fields_and_metadata_and_makes_the_other_changes() {
    let (store, clock) = start().await;
    let definition = BucketDefinition::new("users")
        .key("id")
        .field("id", Field::string())
        .field("uuid", Field::string().generated(Generated::Uuid))
        .field("cuid", Field::string().generated(Generated::Cuid))
        .field("born", Field::int().generated(Generated::Timestamp))
        .field("number", Field::int().generated(Generated::Autoincrement))
        .field("name", Field::string());
    let bucket = store.define_bucket(definition.ttl("1h")).await.unwrap();
    let old = bucket.insert(record! { "id": "a", "name": "Ada" }).await.unwrap();
    let changes = record! {
        "id": "b", "uuid": "x", "cuid": "x", "born": 1, "number": 99, "name": "Bob", "extra": [1, 2],
        "_version": 77, "_created_at": 1, "_updated_at": 2
    };
    clock.advance(7);
    for version in 2..6 {
        let new = match version {
            2 => bucket.update("a", &changes).await.unwrap(),
            3 => bucket.update_if("a", 2, &changes).await.unwrap(),
            4 => {
                let mut changes = changes.clone();
                changes.insert("id", "a");
                bucket.upsert(changes).await.unwrap().into_record()
            }
            _ => bucket.update("a", record! {}).await.unwrap(),
        };
        for kept in ["id", "uuid", "cuid", "born", "number"] {
            assert_eq!(new.get(kept), old.get(kept), "{kept}");
        }
        assert_eq!(new.get("name"), Some(&"Bob".into()));
        assert_eq!(new.get("extra"), Some(&Value::Array(vec![1.into(), 2.into()].into())));
        let metadata = new.metadata();
        assert_eq!((metadata.version, metadata.created_at, metadata.updated_at), (version, START, START + 7));
        assert_eq!(metadata.expires_at, old.metadata().expires_at, "updates keep it");
    }
    assert!(bucket.get("b").await.unwrap().is_none());
    // A clock that goes back takes no time from a record.
    clock.set(1);
    assert_eq!(bucket.update("a", record! {}).await.unwrap().metadata().updated_at, START + 7);
    assert_eq!(bucket.stats().await.unwrap().counter, 1);
}

#[tokio::test]
async fn bk_09_generated_numbers_go_on_from_the_highest_one_and_a_refused_insert_uses_up_none() {
    let (store, _) = start().await;
    let bucket = store.define_bucket(numbered("numbers").field("email", Field::string().unique())).await.unwrap();
    bucket.insert(record! { "id": 3, "email": "a" }).await.unwrap();
    let mut given = Vec::new();
    for _ in 0..3 {
        assert!(bucket.insert(record! { "text": 1 }).await.is_err());
        assert!(bucket.insert(record! { "email": "a" }).await.is_err());
        assert!(bucket.insert(record! { "id": 3 }).await.is_err());
        assert!(bucket.insert_many([record! {}, record! { "email": "a" }]).await.is_err());
        given.push(bucket.insert(record! { "id": null }).await.unwrap().key().clone());
    }
    assert_eq!(given, [4.into(), 5.into(), 6.into()]);
    assert_eq!(bucket.stats().await.unwrap().counter, 6);
    // Neither a lower number, nor what is deleted, moves it down.
    bucket.insert(record! { "id": 1 }).await.unwrap();
    bucket.delete(6).await.unwrap();
    assert_eq!(bucket.insert(record! {}).await.unwrap().key(), &7.into());
    // And it ends where 64 bits do.
    bucket.insert(record! { "id": i64::MAX }).await.unwrap();
    assert!(matches!(bucket.insert(record! {}).await, Err(Error::CounterExhausted { .. })));
    assert!(bucket.insert(record! { "id": 100 }).await.is_ok());
}

#[tokio::test]
async fn bk_11_a_key_that_is_absent_is_not_found_and_a_stale_version_is_a_mismatch_without_any_event() {
    let (store, _) = start().await;
    let bucket = store.define_bucket(texts("texts")).await.unwrap();
    bucket.insert(record! { "id": "a", "text": "1" }).await.unwrap();
    bucket.update("a", record! { "text": "2" }).await.unwrap();
    let mut events = store.subscribe("bucket.*").unwrap();
    let before = state(&bucket).await;
    let changes = record! { "text": "3" };
    let refused = [
        bucket.update("b", &changes).await,
        bucket.update_if("b", 1, &changes).await,
        bucket.patch("b", Patch::new().set("text", "3")).await,
        bucket.update(1, &changes).await,
    ];
    for (outcome, key) in refused.into_iter().zip([Key::from("b"), "b".into(), "b".into(), 1.into()]) {
        assert!(matches!(outcome, Err(Error::NotFound { key: missing, .. }) if missing == key));
    }
    assert!(!bucket.delete("b").await.unwrap());
    assert_eq!(bucket.delete_many(Filter::eq("text", "3")).await.unwrap(), 0);
    for stale in [0, 1, 3] {
        let outcome = bucket.update_if("a", stale, &changes).await;
        assert!(matches!(
            outcome,
            Err(Error::VersionMismatch { key, expected, actual: 2, .. }) if expected == stale && key == Key::from("a")
        ));
    }
    assert_eq!(state(&bucket).await, before);
    assert_eq!(told(&mut events), [""; 0]);
    assert_eq!(bucket.update_if("a", 2, &changes).await.unwrap().version(), 3);
    assert!(bucket.delete("a").await.unwrap() && !bucket.delete("a").await.unwrap());
    assert_eq!(bucket.clear().await.unwrap(), 0);
    assert_eq!(told(&mut events), ["updated a", "deleted a"]);
}

#[tokio::test]
async fn bk_12_a_patch_whose_last_operation_fails_changes_nothing_and_what_is_absent_counts_from_0() {
    let (store, _) = start().await;
    let definition = texts("texts").field("count", Field::int().max(5)).field("tags", Field::array());
    let bucket = store.define_bucket(definition).await.unwrap();
    bucket.insert(record! { "id": "a", "text": "x", "tags": [1] }).await.unwrap();
    let mut events = store.subscribe("bucket.*").unwrap();
    let before = state(&bucket).await;
    let good = || Patch::new().set("text", "y").unset("tags").increment("count", 2).set("new.deep", 1);
    for bad in [
        good().increment("text", 1),
        good().push("text", 1),
        good().set("text.deeper", 1),
        good().set("id", "b"),
        good().increment("count", 4),
        good().increment("count", i64::MAX),
    ] {
        bucket.patch("a", bad).await.unwrap_err();
        assert_eq!(state(&bucket).await, before);
    }
    assert_eq!(told(&mut events), [""; 0]);
    let patched = bucket.patch("a", good().push("tags", "z").increment("absent", 2)).await.unwrap();
    assert_eq!(patched.to_json()["count"], 2);
    assert_eq!(patched.to_json()["absent"], 2);
    assert_eq!(patched.to_json()["new"]["deep"], 1);
    assert_eq!(patched.to_json()["tags"], serde_json::json!(["z"]));
    assert_eq!((patched.version(), patched.get("text")), (2, Some(&"y".into())));
    assert_eq!(told(&mut events), ["updated a"]);
}

#[tokio::test]
async fn bk_13_insert_many_stores_all_in_one_commit_or_nothing_and_names_the_fault() {
    let (store, _) = start().await;
    let bucket = store.define_bucket(numbered("numbers").field("email", Field::string().unique())).await.unwrap();
    bucket.insert(record! { "email": "taken" }).await.unwrap();
    let mut events = store.subscribe("bucket.*").unwrap();
    let before = state(&bucket).await;
    for at in 0..3 {
        let mut list = vec![record! {}; 3];
        list[at] = record! { "text": 1 };
        let Err(Error::Validation { index, issues, .. }) = bucket.insert_many(&list).await else { panic!("stored") };
        assert_eq!((index, issues[0].code), (Some(at), IssueCode::Type));
        list[at] = record! { "email": "taken" };
        assert!(matches!(bucket.insert_many(&list).await, Err(Error::UniqueViolation { .. })));
        list[at] = record! { "id": 1 };
        assert!(matches!(bucket.insert_many(&list).await, Err(Error::DuplicateKey { .. })));
    }
    let twice = [record! { "email": "x" }, record! { "email": "x" }];
    assert!(matches!(bucket.insert_many(&twice).await, Err(Error::UniqueViolation { .. })));
    let twice = [record! { "id": 9 }, record! { "id": 9 }];
    assert!(matches!(bucket.insert_many(&twice).await, Err(Error::DuplicateKey { .. })));
    assert_eq!(bucket.insert_many(Vec::<Record>::new().iter().map(|_| record! {})).await.unwrap(), []);
    assert_eq!(state(&bucket).await, before);
    assert!(told(&mut events).is_empty());

    let inserted = bucket.insert_many(vec![record! {}; 4]).await.unwrap();
    let keys: Vec<&Key> = inserted.iter().map(|record| record.key()).collect();
    assert_eq!(keys, [&2.into(), &3.into(), &4.into(), &5.into()]);
    assert_eq!(ids(&bucket).await, ["1", "2", "3", "4", "5"]);
    let heard = heard(&mut events);
    assert_eq!(heard.iter().map(short).collect::<Vec<_>>(), ["inserted 2", "inserted 3", "inserted 4", "inserted 5"]);
    for (at, event) in heard.iter().enumerate() {
        assert_eq!((event.revision, event.index, event.count), (2, at, 4));
        assert_eq!(event.commit, heard[0].commit);
    }
    assert_eq!(revision(&bucket).await, 2);
}

#[tokio::test]
async fn bk_14_a_key_of_the_other_kind_finds_nothing_and_many_are_answered_in_the_order_asked() {
    let (store, _) = start().await;
    let numbers = store.define_bucket(numbered("numbers")).await.unwrap();
    numbers.insert_many([record! {}, record! {}]).await.unwrap();
    assert!(numbers.get(1).await.unwrap().is_some() && numbers.get("1").await.unwrap().is_none());
    let found = numbers.get_many([Key::from("1"), 2.into(), 1.into(), 2.into()]).await.unwrap();
    let found: Vec<_> = found.iter().map(|found| found.as_deref().map(id)).collect();
    assert_eq!(found, [None, Some("2".to_owned()), Some("1".to_owned()), Some("2".to_owned())]);
    let texts = store.define_bucket(texts("texts")).await.unwrap();
    texts.insert_many([record! { "id": "a" }, record! { "id": "1" }, record! { "id": "b" }]).await.unwrap();
    assert!(texts.get("1").await.unwrap().is_some() && texts.get(1).await.unwrap().is_none());
    let found = texts.get_many(["b", "x", "a"]).await.unwrap();
    let found: Vec<_> = found.iter().map(|found| found.as_deref().map(id)).collect();
    assert_eq!(found, [Some("b".to_owned()), None, Some("a".to_owned())]);
}

/// Writes at random, through the handle and the mailbox, until it has made so many calls.
async fn write_at_random(bucket: Bucket, seed: u64, calls: usize) {
    let mut random = Random(seed);
    for _ in 0..calls {
        let key = random.int(12);
        let email = || record! { "id": key, "email": random_email(seed, key) };
        // Whether it is refused does not matter here.
        match random.below(10) {
            0..3 => drop(bucket.insert(email()).await),
            3 => drop(bucket.insert_many([email(), record! {}, record! { "text": "x" }]).await),
            4 => drop(bucket.upsert(email()).await),
            5 => drop(bucket.update(key, record! { "text": format!("{key}") }).await),
            6 => drop(bucket.patch(key, Patch::new().increment("count", 1)).await),
            7 => drop(bucket.delete_many(Filter::gt("id", 20)).await),
            8 => {
                let actor = bucket.actor().await.unwrap();
                let delete = WriteRequest::new(Write::Delete(key.into()));
                actor.cast(BucketMessage::Post(delete)).unwrap();
            }
            _ if random.below(8) == 0 => drop(bucket.clear().await),
            _ => drop(bucket.delete(key).await),
        }
    }
}

fn random_email(seed: u64, key: i64) -> String {
    format!("{seed}-{key}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn bk_32_any_run_of_writes_is_told_in_commit_order_without_a_gap_and_with_old_and_new() {
    let seed = seed();
    let (store, clock) = start().await;
    let definition = numbered("items").field("email", Field::string().unique()).ttl("10s").max_size(15);
    let bucket = store.define_bucket(definition).await.unwrap();
    let many = std::num::NonZeroUsize::new(1 << 20).unwrap();
    let pattern = ractor_persistence::bus::Pattern::parse("bucket.items.*").unwrap();
    let mut events = store.bus().subscribe_bounded(pattern, many);
    let tasks: Vec<_> =
        (0..4).map(|task| tokio::spawn(write_at_random(bucket.clone(), seed.wrapping_add(task), 500))).collect();
    while tasks.iter().any(|task| !task.is_finished()) {
        clock.advance(300);
        store.purge_expired().await.unwrap();
        tokio::task::yield_now().await;
    }
    for task in tasks {
        task.await.unwrap();
    }
    let stats = bucket.stats().await.unwrap();
    let heard = heard(&mut events);

    let mut now: Vec<Arc<Record>> = Vec::new();
    let mut revision = 0;
    let mut at = 0;
    while at < heard.len() {
        let first = &heard[at];
        revision += 1;
        assert_eq!(first.revision, revision, "a revision is missing or out of order");
        for index in 0..first.count {
            let event: &BucketEvent = &heard[at + index];
            assert_eq!((event.revision, event.commit, event.index), (revision, first.commit, index));
            assert_eq!((event.count, event.at), (first.count, first.at));
            replay(&mut now, &event.change);
        }
        at += first.count;
    }
    assert_eq!(revision, stats.revision);
    let live: Vec<_> =
        now.into_iter().filter(|record| record.metadata().expires_at > Some(clock_now(&clock))).collect();
    assert_eq!(live, bucket.all().await.unwrap(), "what was told is what is there, in its order");
    assert!(revision > 500);
}

fn clock_now(clock: &ractor_persistence::base::clock::ManualClock) -> i64 {
    ractor_persistence::base::clock::Clock::now_ms(clock)
}

/// Does to a list what an event tells of.
fn replay(now: &mut Vec<Arc<Record>>, change: &Change) {
    let place = |now: &[Arc<Record>], record: &Record| now.iter().position(|other| other.key() == record.key());
    match change {
        Change::Inserted { record } => {
            assert_eq!(place(now, record), None, "inserted over another one");
            now.push(record.clone());
        }
        Change::Updated { old, new } => {
            let at = place(now, old).expect("updated, and not there");
            assert_eq!((&now[at], old.key(), old.version() + 1), (old, new.key(), new.version()));
            now[at] = new.clone();
        }
        Change::Deleted { record, .. } => {
            let at = place(now, record).expect("deleted, and not there");
            assert_eq!(&now.remove(at), record);
        }
        Change::Cleared { records } => {
            assert_eq!(now.len(), *records);
            now.clear();
        }
        other => panic!("no such change: {other:?}"),
    }
}

#[tokio::test]
async fn bk_55_a_refused_insert_and_a_panicking_default_are_answered_and_the_actor_goes_on() {
    let (store, _) = start().await;
    // Every other call panics, the first does not.
    let calls = Arc::new(AtomicI64::new(1));
    let counted = calls.clone();
    let default = move || -> i64 {
        let call = counted.fetch_add(1, Ordering::SeqCst);
        assert!(call % 2 == 1, "on purpose");
        call
    };
    let definition = texts("texts").field("made", Field::int().default_with(default));
    let bucket = store.define_bucket(definition).await.unwrap();
    let actor = bucket.actor().await.unwrap();
    let refused = call!(actor, BucketMessage::Insert, record! { "id": 1 }).unwrap();
    assert!(matches!(refused, Err(Error::Validation { .. })), "{refused:?}");
    calls.store(0, Ordering::SeqCst);
    let panicked = call!(actor, BucketMessage::Insert, record! { "id": "a" }).unwrap();
    assert!(matches!(panicked, Err(Error::UserCode { .. })), "{panicked:?}");
    let inserted = call!(actor, BucketMessage::Insert, record! { "id": "a" }).unwrap().unwrap();
    assert_eq!(inserted.get("made"), Some(&1.into()));
    let duplicate = call!(actor, BucketMessage::Insert, record! { "id": "a", "made": 1 }).unwrap();
    assert!(matches!(duplicate, Err(Error::DuplicateKey { .. })));
    // What nobody waits for is counted.
    for _ in 0..3 {
        let again = Write::Insert(record! { "id": "a", "made": 1 });
        actor.cast(BucketMessage::Post(WriteRequest::new(again))).unwrap();
    }
    let stats = call!(actor, BucketMessage::Stats).unwrap().unwrap();
    assert_eq!((stats.refused_posts, stats.records, stats.revision), (3, 1, 1));
    assert_eq!(bucket.actor().await.unwrap().get_id(), actor.get_id(), "it is the same actor");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_awaited_a_write_sees_it_in_every_later_read() {
    let (store, _) = start().await;
    let bucket = store.define_bucket(texts("texts").index(["text"])).await.unwrap();
    let task = |task: usize| {
        let bucket = bucket.clone();
        async move {
            let key = format!("{task}");
            bucket.insert(record! { "id": &*key, "text": "0" }).await.unwrap();
            for round in 1..200 {
                let text = format!("{task}-{round}");
                let written = bucket.update(&*key, record! { "text": &*text }).await.unwrap();
                assert_eq!(bucket.get(&*key).await.unwrap().as_ref(), Some(&written));
                assert_eq!(
                    bucket.find(Filter::eq("text", text)).await.unwrap().as_slice(),
                    std::slice::from_ref(&written)
                );
                assert!(bucket.all().await.unwrap().contains(&written));
                if round % 50 == 0 {
                    assert!(bucket.delete(&*key).await.unwrap());
                    assert!(bucket.get(&*key).await.unwrap().is_none());
                    bucket.insert(record! { "id": &*key }).await.unwrap();
                }
            }
        }
    };
    let tasks: Vec<_> = (0..8).map(|number| tokio::spawn(task(number))).collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_queue_of_writes_holds_up_no_read() {
    let (store, _) = start().await;
    let bucket = store.define_bucket(texts("texts")).await.unwrap();
    bucket.insert(record! { "id": "a" }).await.unwrap();
    let actor = bucket.actor().await.unwrap();
    for _ in 0..1_000 {
        let change = Write::Patch("a".into(), Patch::new().increment("count", 1));
        actor.cast(BucketMessage::Post(WriteRequest::new(change))).unwrap();
    }
    // On one thread the actor has had no turn yet, and has none while a read is answered at its first poll.
    let got = tokio_test::task::spawn(bucket.get("a")).poll();
    let std::task::Poll::Ready(Ok(Some(record))) = got else { panic!("it waited: {got:?}") };
    assert_eq!(record.version(), 1);
    assert_eq!(call!(actor, BucketMessage::Get, "a".into()).unwrap().unwrap().unwrap().version(), 1_001);
}

#[tokio::test]
async fn delete_many_is_one_commit_with_an_event_for_each_record() {
    let (store, _) = start().await;
    let bucket = store.define_bucket(numbered("numbers").index(["text"])).await.unwrap();
    bucket.insert_many((0..10).map(|id| record! { "text": if id % 3 == 0 { "go" } else { "stay" } })).await.unwrap();
    let mut events = store.subscribe("bucket.*").unwrap();
    assert_eq!(bucket.delete_many(record! { "text": "go" }).await.unwrap(), 4);
    let heard = heard(&mut events);
    assert_eq!(heard.iter().map(short).collect::<Vec<_>>(), ["deleted 1", "deleted 4", "deleted 7", "deleted 10"]);
    assert!(heard.iter().all(|event| event.revision == 2 && event.count == 4));
    assert_eq!(bucket.count(Filter::all()).await.unwrap(), 6);
    assert!(matches!(bucket.delete_many(Filter::lt("a..b", 1)).await, Err(Error::InvalidArgument { .. })));
    assert_eq!(revision(&bucket).await, 2);
}

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct User {
    id: String,
    name: String,
    logins: i64,
    #[serde(default)]
    _version: u64,
}

#[tokio::test]
async fn a_typed_handle_answers_its_type_and_says_which_record_does_not_fit() {
    let (store, _) = start().await;
    let definition = BucketDefinition::new("users").key("id").field("id", Field::string());
    let bucket = store.define_bucket(definition.field("logins", Field::int())).await.unwrap();
    let users = bucket.typed::<User>();
    let user = |id: &str, logins, version| User { id: id.into(), name: id.into(), logins, _version: version };
    assert_eq!(users.insert(&user("a", 1, 9)).await.unwrap(), user("a", 1, 1));
    assert_eq!(users.insert_many(&[user("b", 2, 0), user("c", 3, 0)]).await.unwrap()[1], user("c", 3, 1));
    assert_eq!(users.upsert(&user("a", 5, 0)).await.unwrap(), Upserted::Updated(user("a", 5, 2)));
    assert_eq!(users.upsert(&user("d", 4, 0)).await.unwrap(), Upserted::Inserted(user("d", 4, 1)));
    assert_eq!(users.update("d", record! { "logins": 6 }).await.unwrap(), user("d", 6, 2));
    assert_eq!(users.update_if("d", 2, record! { "logins": 7 }).await.unwrap(), user("d", 7, 3));
    assert_eq!(users.patch("d", Patch::new().increment("logins", 1)).await.unwrap(), user("d", 8, 4));
    assert_eq!(users.get("b").await.unwrap(), Some(user("b", 2, 1)));
    assert_eq!(users.get_many(["x", "c"]).await.unwrap(), [None, Some(user("c", 3, 1))]);
    assert_eq!(users.find(Filter::ge("logins", 5)).await.unwrap(), [user("a", 5, 2), user("d", 8, 4)]);
    assert_eq!(users.find_one(Filter::ge("logins", 5)).await.unwrap(), Some(user("a", 5, 2)));
    assert_eq!(users.first(1).await.unwrap(), [user("a", 5, 2)]);
    assert_eq!(users.last(1).await.unwrap(), [user("d", 8, 4)]);
    assert_eq!(users.sum("logins", Filter::all()).await.unwrap(), 18.into());
    bucket.insert(record! { "id": "odd", "name": 5, "logins": 0 }).await.unwrap();
    assert!(matches!(users.all().await, Err(Error::Decode { key, .. }) if key == "odd".into()));
    assert_eq!(users.count(Filter::all()).await.unwrap(), 5);
    assert_eq!(users.delete_many(Filter::eq("id", "odd")).await.unwrap(), 1);
    assert!(users.delete("a").await.unwrap());
    assert_eq!(users.clear().await.unwrap(), 3);
}

#[tokio::test]
async fn a_handle_recovers_when_its_name_is_defined_again() {
    let (store, _) = start().await;
    let handle = store.define_bucket(texts("texts")).await.unwrap();
    handle.insert(record! { "id": "a" }).await.unwrap();
    let gone = |store: Store| async move { store.drop_bucket("texts").await.unwrap() };
    for round in 0..3 {
        gone(store.clone()).await;
        assert!(matches!(handle.get("a").await, Err(Error::BucketNotDefined { .. })));
        assert!(matches!(handle.insert(record! { "id": "a" }).await, Err(Error::BucketNotDefined { .. })));
        assert!(matches!(handle.stats().await, Err(Error::BucketNotDefined { .. })));
        store.define_bucket(texts("texts")).await.unwrap();
        assert!(handle.get("a").await.unwrap().is_none());
        handle.insert(record! { "id": "a", "round": round }).await.unwrap();
        assert_eq!(handle.all().await.unwrap()[0].get("round"), Some(&round.into()));
        assert_eq!(handle.stats().await.unwrap().records, 1);
        assert!(handle.flush().await.is_ok() && handle.actor().await.is_ok());
    }
}
