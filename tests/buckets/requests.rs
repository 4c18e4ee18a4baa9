//! Is a write that is sent again under its id applied once?

use std::sync::Arc;

use ractor_persistence::base::error::Error;
use ractor_persistence::base::value::Key;
use ractor_persistence::bucket::Bucket;
use ractor_persistence::record;
use ractor_persistence::records::{BucketDefinition, Filter, Patch, Record, Upserted};

use crate::world::*;

fn definition() -> BucketDefinition {
    numbered("numbers").index(["text"])
}

/// Makes one write of each kind under an id of its own; answers what they were answered.
async fn one_of_each(bucket: &Bucket) -> Vec<String> {
    let with = |id: &str| bucket.with_request_id(id);
    let one = |record: Arc<Record>| format!("{} {}", record.key(), record.version());
    let upserted = |upserted: Upserted| format!("{} {}", upserted.is_inserted(), one(upserted.into_record()));
    let many =
        |records: Vec<Arc<Record>>| records.iter().map(|record| one(record.clone())).collect::<Vec<_>>().join(",");
    vec![
        one(with("insert").insert(record! { "text": "a" }).await.unwrap()),
        many(with("insert_many").insert_many([record! { "text": "b" }, record! { "text": "c" }]).await.unwrap()),
        upserted(with("upsert").upsert(record! { "id": 10, "text": "d" }).await.unwrap()),
        upserted(with("upsert again").upsert(record! { "id": 10, "text": "e" }).await.unwrap()),
        one(with("update").update(1, record! { "text": "f" }).await.unwrap()),
        one(with("update_if").update_if(1, 2, record! { "text": "g" }).await.unwrap()),
        one(with("patch").patch(1, Patch::new().increment("count", 1)).await.unwrap()),
        format!("{}", with("delete").delete(2).await.unwrap()),
        format!("{}", with("delete_many").delete_many(Filter::eq("text", "nobody")).await.unwrap()),
    ]
}

/// The same, where all of it has been applied: records are answered as they are by now.
async fn all_again(bucket: &Bucket) {
    let before = (bucket.all().await.unwrap(), bucket.stats().await.unwrap());
    let with = |id: &str| bucket.with_request_id(id);
    let now = |key: i64| async move { bucket.get(key).await.unwrap().unwrap() };
    assert_eq!(with("insert").insert(record! { "text": "a" }).await.unwrap(), now(1).await);
    let many = with("insert_many").insert_many([record! { "text": "b" }, record! { "text": "c" }]).await;
    // The first of them has been deleted since.
    assert!(matches!(many, Err(Error::AlreadyApplied { keys, revision: 2 }) if keys == [Key::from(2), 3.into()]));
    let upsert = with("upsert").upsert(record! { "id": 10, "text": "d" }).await.unwrap();
    assert_eq!(upsert, Upserted::Inserted(now(10).await));
    let upsert = with("upsert again").upsert(record! { "id": 10, "text": "e" }).await.unwrap();
    assert_eq!(upsert, Upserted::Updated(now(10).await));
    assert_eq!(with("update").update(1, record! { "text": "f" }).await.unwrap(), now(1).await);
    assert_eq!(with("update_if").update_if(1, 2, record! { "text": "g" }).await.unwrap(), now(1).await);
    assert_eq!(with("patch").patch(1, Patch::new().increment("count", 1)).await.unwrap(), now(1).await);
    assert!(with("delete").delete(2).await.unwrap());
    let after = (bucket.all().await.unwrap(), bucket.stats().await.unwrap());
    assert_eq!(after, before, "nothing was applied again");

    // The same ids with other arguments, or for other operations.
    let reused =
        |outcome: Option<Error>| assert!(matches!(outcome, Some(Error::RequestIdReused { .. })), "{outcome:?}");
    reused(with("insert").insert(record! { "text": "z" }).await.err());
    reused(with("insert").insert_many([record! { "text": "a" }]).await.err());
    reused(with("upsert").insert(record! { "id": 10, "text": "d" }).await.err());
    reused(with("update").update(3, record! { "text": "f" }).await.err());
    reused(with("update_if").update_if(1, 3, record! { "text": "g" }).await.err());
    reused(with("update_if").update(1, record! { "text": "g" }).await.err());
    reused(with("patch").patch(1, Patch::new().increment("count", 2)).await.err());
    reused(with("delete").delete(3).await.err());
    reused(with("delete").clear().await.err());
    assert_eq!((bucket.all().await.unwrap(), bucket.stats().await.unwrap()), before);
}

#[tokio::test]
async fn bk_56_a_write_that_is_repeated_with_its_id_is_applied_once_also_after_a_kill_and_a_reopen() {
    for home in homes() {
        let (store, _) = home.start().await;
        let bucket = store.define_bucket(definition()).await.unwrap();
        let mut events = store.subscribe("bucket.*").unwrap();
        let answers = one_of_each(&bucket).await;
        assert_eq!(
            answers,
            ["1 1", "2 1,3 1", "true 10 1", "false 10 2", "1 2", "1 3", "1 4", "true", "0"],
            "the first time they are answered as ever"
        );
        assert_eq!(told(&mut events).len(), 9);
        all_again(&bucket).await;
        kill(&bucket).await;
        all_again(&bucket).await;
        store.flush().await.unwrap();
        // Saves without any id between them and the reopening.
        for text in ["x", "y"] {
            bucket.insert(record! { "text": text }).await.unwrap();
            store.flush().await.unwrap();
        }
        kill(&bucket).await;
        all_again(&bucket).await;
        store.stop().await.unwrap();

        let (store, _) = home.start().await;
        let bucket = store.define_bucket(definition()).await.unwrap();
        all_again(&bucket).await;
        // What is gone is not made again.
        bucket.delete(1).await.unwrap();
        let outcome = bucket.with_request_id("insert").insert(record! { "text": "a" }).await;
        assert!(matches!(outcome, Err(Error::AlreadyApplied { keys, revision: 1 }) if keys == [Key::from(1)]));
        // A clear and a delete_many are answered with the count of the first time.
        assert_eq!(bucket.with_request_id("many").delete_many(Filter::eq("text", "x")).await.unwrap(), 1);
        assert_eq!(bucket.with_request_id("clear").clear().await.unwrap(), 3);
        bucket.insert(record! { "text": "x" }).await.unwrap();
        assert_eq!(bucket.with_request_id("many").delete_many(Filter::eq("text", "x")).await.unwrap(), 1);
        assert_eq!(bucket.with_request_id("clear").clear().await.unwrap(), 3);
        assert_eq!(bucket.count(Filter::all()).await.unwrap(), 1);
        store.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_bucket_remembers_the_newest_ids_of_writes_that_succeeded() {
    let home = memory();
    let (store, _) = home.start().await;
    let bucket = store.define_bucket(definition().request_window(3)).await.unwrap();
    let insert = |bucket: Bucket, id: String| async move { bucket.with_request_id(id).insert(record! {}).await };
    for id in 0..5 {
        // What is refused is not remembered, and takes nobody's place.
        assert!(bucket.with_request_id(format!("bad {id}")).insert(record! { "text": 1 }).await.is_err());
        insert(bucket.clone(), format!("{id}")).await.unwrap();
    }
    assert_eq!(bucket.with_request_id("bad 4").insert(record! { "id": 100 }).await.unwrap().key(), &100.into());
    for (id, key) in [("3", 4), ("4", 5)] {
        assert_eq!(insert(bucket.clone(), id.into()).await.unwrap().key(), &key.into());
    }
    assert_eq!(insert(bucket.clone(), "2".into()).await.unwrap().key(), &101.into(), "forgotten");
    store.stop().await.unwrap();
    let (store, _) = home.start().await;
    let bucket = store.define_bucket(definition().request_window(3)).await.unwrap();
    assert_eq!(insert(bucket.clone(), "4".into()).await.unwrap().key(), &5.into());
    assert_eq!(insert(bucket.clone(), "3".into()).await.unwrap().key(), &102.into(), "forgotten meanwhile");
    for bad in ["", &"x".repeat(129)] {
        assert!(matches!(insert(bucket.clone(), bad.into()).await, Err(Error::InvalidArgument { .. })));
    }
    store.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_write_with_an_id_repeats_itself_when_the_actor_dies_with_it() {
    let (store, _) = memory().start().await;
    let bucket = store.define_bucket(definition()).await.unwrap();
    let writer = |task: usize| {
        let bucket = bucket.clone();
        tokio::spawn(async move {
            let mut lost = 0;
            for number in 0..100 {
                let handle = bucket.with_request_id(format!("{task}-{number}"));
                let text = format!("{task}-{number}");
                // It gives up when the actor dies twice in a row.
                while let Err(error) = handle.insert(record! { "text": &*text }).await {
                    assert!(matches!(error, Error::ActorLost { .. }), "{error:?}");
                    lost += 1;
                }
            }
            lost
        })
    };
    let writers: Vec<_> = (0..4).map(writer).collect();
    for _ in 0..5 {
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
        kill(&bucket).await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let all = bucket.all().await.unwrap();
    let mut texts: Vec<_> = all.iter().filter_map(|record| record.get("text")?.as_str().map(str::to_owned)).collect();
    texts.sort();
    texts.dedup();
    assert_eq!((all.len(), texts.len()), (400, 400), "each exactly once");
    store.stop().await.unwrap();
}
