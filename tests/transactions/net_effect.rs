//! What is left of a transaction's writes when it commits?

use ractor_persistence::base::error::Error;
use ractor_persistence::bucket::Transaction;
use ractor_persistence::record;
use ractor_persistence::records::{BucketDefinition, Change, Field, Filter, Patch};

use crate::world::*;

#[tokio::test]
async fn bk_43_values_are_handed_over_and_swapped_and_keys_are_changed_deleted_and_inserted_again() {
    let (store, a, _) = bank().await;
    a.update("x", record! { "email": "ex" }).await.unwrap();
    a.update("y", record! { "email": "ey" }).await.unwrap();
    let mut events = store.subscribe("bucket.a.*").unwrap();
    // A value goes to a new record before its holder lets go of it.
    let hand_over = |tx: Transaction| async move {
        let a = tx.bucket("a")?;
        a.insert(record! { "id": "n", "amount": 0, "email": "ex" }).await?;
        a.patch("x", Patch::new().unset("email")).await?;
        Ok::<_, Error>(())
    };
    store.transaction(hand_over).await.unwrap();
    assert_eq!(told(&mut events), ["inserted n 1", "updated x 3"]);
    let deleted = |tx: Transaction| async move {
        let a = tx.bucket("a")?;
        a.update("x", record! { "email": "ex" }).await?;
        a.delete("n").await?;
        Ok::<_, Error>(())
    };
    store.transaction(deleted).await.unwrap();
    assert_eq!(told(&mut events), ["updated x 4", "deleted n 1"]);
    let swap = |tx: Transaction| async move {
        let a = tx.bucket("a")?;
        a.update("x", record! { "email": "ey" }).await?;
        a.update("y", record! { "email": "ex" }).await?;
        Ok::<_, Error>(())
    };
    store.transaction(swap).await.unwrap();
    assert_eq!(told(&mut events), ["updated x 5", "updated y 3"]);
    for (id, email) in [("x", "ey"), ("y", "ex")] {
        assert_eq!(a.find(Filter::eq("email", email)).await.unwrap()[0].key(), &id.into());
    }
    let update_and_delete = |tx: Transaction| async move {
        let a = tx.bucket("a")?;
        a.update("y", record! { "amount": 1 }).await?;
        a.delete("y").await?;
        Ok::<_, Error>(())
    };
    store.transaction(update_and_delete).await.unwrap();
    let heard = heard(&mut events);
    let [event] = &heard[..] else { panic!("{heard:?}") };
    let Change::Deleted { record, .. } = &event.change else { panic!("{event:?}") };
    assert_eq!((record.version(), amount_of(record)), (3, 100), "the original");
    a.insert(record! { "id": "z", "email": "ez" }).await.unwrap();
    told(&mut events);
    let again = |tx: Transaction| async move {
        let a = tx.bucket("a")?;
        a.delete("x").await?;
        a.insert(record! { "id": "x", "email": "ey" }).await?;
        Ok::<_, Error>(())
    };
    store.transaction(again).await.unwrap();
    assert_eq!(told(&mut events), ["deleted x 5", "inserted x 1"]);
    assert_eq!(ids(&a).await, ["z", "x"], "in a new place");
    assert_eq!(a.get("x").await.unwrap().unwrap().get("amount"), None);
    // Against the state that results, and not against each step.
    let refused = |tx: Transaction| async move {
        let a = tx.bucket("a")?;
        a.update("x", record! { "email": "free" }).await?;
        a.insert(record! { "id": "n", "email": "ez" }).await?;
        Ok::<_, Error>(())
    };
    let outcome = store.transaction(refused).await;
    assert!(matches!(outcome, Err(Error::UniqueViolation { holder, .. }) if holder == "z".into()));
    let twice = |tx: Transaction| async move {
        tx.bucket("a")?.insert_many([record! { "id": "n", "email": "q" }, record! { "id": "m", "email": "q" }]).await?;
        Ok::<_, Error>(())
    };
    assert!(matches!(store.transaction(twice).await, Err(Error::UniqueViolation { .. })));
    assert!(told(&mut events).is_empty());
}

#[tokio::test]
async fn the_net_effect_of_each_key_is_one_event_in_the_order_of_the_last_operations_and_one_commit() {
    let (store, a, b) = bank().await;
    let mut events = store.subscribe("bucket.*").unwrap();
    let function = |tx: Transaction| async move {
        let (a, b) = (tx.bucket("a")?, tx.bucket("b")?);
        a.insert(record! { "id": "insert + update" }).await?;
        a.insert(record! { "id": "insert + delete" }).await?;
        a.insert(record! { "id": "second" }).await?;
        for amount in 0..3 {
            a.update("x", record! { "amount": amount }).await?;
        }
        a.delete("insert + delete").await?;
        b.delete("x").await?;
        b.upsert(record! { "id": "x" }).await?;
        b.update("x", record! { "amount": 5 }).await?;
        b.delete("y").await?;
        b.insert(record! { "id": "y" }).await?;
        b.delete("y").await?;
        a.update("insert + update", record! { "amount": 1 }).await?;
        Ok::<_, Error>(())
    };
    store.transaction(function).await.unwrap();
    let heard = heard(&mut events);
    let told: Vec<String> = heard.iter().map(short).collect();
    let expected = [
        "inserted second 1",
        "updated x 4",
        "inserted insert + update 2",
        "deleted x 1",
        "inserted x 2",
        "deleted y 1",
    ];
    assert_eq!(told, expected);
    assert!(heard.iter().all(|event| event.commit == heard[0].commit && event.revision == 3));
    assert_eq!(
        heard.iter().map(|event| (event.index, event.count)).collect::<Vec<_>>(),
        [0, 1, 2, 0, 1, 2].map(|at| (at, 3))
    );
    assert_eq!(ids(&a).await, ["x", "y", "insert + update", "second"], "places are those of the inserts");
    assert_eq!(ids(&b).await, ["x"]);
    // What comes to nothing is no commit.
    let nothing = |tx: Transaction| async move {
        let a = tx.bucket("a")?;
        a.insert(record! { "id": "n" }).await?;
        a.delete("n").await?;
        Ok::<_, Error>(())
    };
    store.transaction(nothing).await.unwrap();
    assert_eq!(revision(&a).await, 3);
    assert!(events.is_empty());
}

#[tokio::test]
async fn bk_44_what_a_transaction_inserts_expires_and_evicts_as_outside_of_one() {
    let (builder, clock) = builder();
    let store = builder.start().await.unwrap();
    let definition = |name: &str| {
        let definition = BucketDefinition::new(name).key("id").field("id", Field::string());
        definition.field("email", Field::string().unique()).ttl("10s").max_size(3)
    };
    let cache = store.define_bucket(definition("cache")).await.unwrap();
    for id in ["a", "b", "c"] {
        cache.insert(record! { "id": id, "email": id }).await.unwrap();
    }
    let mut events = store.subscribe("bucket.*").unwrap();
    let function = |tx: Transaction| async move {
        let cache = tx.bucket("cache")?;
        cache.update("a", record! { "n": 1 }).await?;
        cache.insert(record! { "id": "d" }).await?;
        Ok::<_, Error>(cache.get("d").await?.unwrap())
    };
    let inserted = store.transaction(function).await.unwrap();
    assert_eq!(inserted.metadata().expires_at, Some(START + 10_000));
    assert_eq!(told(&mut events), ["deleted b (Evicted)", "updated a 2", "inserted d 1"], "not what it wrote");
    let refused = |tx: Transaction| async move {
        let cache = tx.bucket("cache")?;
        cache.update("a", record! { "n": 2 }).await?;
        cache.insert_many((0..3).map(|id| record! { "id": format!("{id}") })).await?;
        Ok::<_, Error>(())
    };
    assert!(matches!(store.transaction(refused).await, Err(Error::CapacityExceeded { max_size: 3, .. })));
    assert_eq!((ids(&cache).await, told(&mut events).len()), (vec!["a".into(), "c".into(), "d".into()], 0));
    let room = |tx: Transaction| async move {
        let cache = tx.bucket("cache")?;
        cache.insert_many((0..3).map(|id| record! { "id": format!("{id}") })).await?;
        assert_eq!(cache.delete_many(Filter::is_in("id", ["a", "c", "d"])).await?, 3);
        Ok::<_, Error>(())
    };
    store.transaction(room).await.unwrap();
    let expected = ["inserted 0 1", "inserted 1 1", "inserted 2 1", "deleted a 2", "deleted c 1", "deleted d 1"];
    assert_eq!(told(&mut events), expected, "there is room in what results");

    // What has expired is gone for everybody, and in nobody's way.
    cache.update("0", record! { "email": "e" }).await.unwrap();
    clock.advance(10_000);
    told(&mut events);
    let over = |tx: Transaction| async move {
        let cache = tx.bucket("cache")?;
        assert!(cache.get("1").await?.is_none() && cache.all().await?.is_empty());
        assert!(matches!(cache.update("1", record! {}).await, Err(Error::NotFound { .. })));
        cache.insert(record! { "id": "1", "email": "e" }).await?;
        Ok::<_, Error>(())
    };
    store.transaction(over).await.unwrap();
    assert_eq!(told(&mut events), ["deleted 1 (Expired)", "deleted 0 (Expired)", "inserted 1 1"]);
    assert_eq!(ids(&cache).await, ["1"]);
    // A record that was read and expires before the commit has been removed, as far as anybody can see.
    let moving = clock.clone();
    let outcome = store
        .transaction(|tx| {
            let clock = moving.clone();
            async move {
                tx.bucket("cache")?.get("1").await?;
                clock.advance(10_000);
                tx.bucket("cache")?.insert(record! { "id": "z" }).await?;
                Ok::<_, Error>(())
            }
        })
        .await;
    assert!(matches!(outcome, Err(Error::Conflict { .. })), "{outcome:?}");
    // One of its own is absent from then on.
    let moving = clock.clone();
    let own = store.transaction(|tx| {
        let clock = moving.clone();
        async move {
            let cache = tx.bucket("cache")?;
            cache.insert(record! { "id": "own", "email": "own" }).await?;
            clock.advance(10_000);
            assert!(cache.get("own").await?.is_none() && cache.find(Filter::eq("email", "own")).await?.is_empty());
            assert!(matches!(cache.update("own", record! {}).await, Err(Error::NotFound { .. })));
            cache.insert(record! { "id": "own", "email": "again" }).await?;
            Ok::<_, Error>(())
        }
    });
    own.await.unwrap();
    assert_eq!(cache.find(Filter::eq("email", "again")).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn bk_46_when_one_of_two_participants_refuses_the_other_is_unchanged_at_every_moment() {
    let (store, a, b) = bank().await;
    b.update("y", record! { "email": "taken" }).await.unwrap();
    let mut events = store.subscribe("bucket.*").unwrap();
    let before = (a.all().await.unwrap(), revision(&a).await);
    let watching = {
        let (a, before) = (a.clone(), before.clone());
        tokio::spawn(async move {
            loop {
                assert_eq!((a.all().await.unwrap(), revision(&a).await), before);
                tokio::task::yield_now().await;
            }
        })
    };
    for round in 0..200 {
        // Bucket `a` comes first in every order.
        let function = |tx: Transaction| async move {
            tx.bucket("a")?.update("x", record! { "amount": round }).await?;
            tx.bucket("a")?.insert(record! { "id": "n" }).await?;
            tx.bucket("b")?.insert(record! { "id": "n", "email": "taken" }).await?;
            Ok::<_, Error>(())
        };
        assert!(
            matches!(store.transaction(function).await, Err(Error::UniqueViolation { bucket, .. }) if bucket.as_str() == "b")
        );
    }
    assert!(!watching.is_finished());
    watching.abort();
    assert!(told(&mut events).is_empty());
    assert_eq!((a.all().await.unwrap(), revision(&a).await), before);
}

#[tokio::test]
async fn generated_numbers_go_on_from_explicit_ones_of_the_same_transaction() {
    let (builder, _) = builder();
    let store = builder.start().await.unwrap();
    let bucket = store.define_bucket(numbered("numbers")).await.unwrap();
    let function = |tx: Transaction| async move {
        let numbers = tx.bucket("numbers")?;
        numbers.insert(record! { "id": 2 }).await?;
        for expected in 3..6 {
            assert_eq!(numbers.insert(record! {}).await?.key(), &expected.into());
        }
        let many = numbers.insert_many([record! { "id": 8 }, record! {}, record! {}]).await?;
        assert_eq!(many.iter().map(|record| record.key().to_string()).collect::<Vec<_>>(), ["8", "9", "10"]);
        Ok::<_, Error>(())
    };
    store.transaction(function).await.unwrap();
    assert_eq!(bucket.stats().await.unwrap().counter, 10);
    // What is aborted leaves a gap at most, and the counter where it is.
    let aborted = |tx: Transaction| async move {
        tx.bucket("numbers")?.insert(record! {}).await?;
        Err::<(), _>(Error::unsupported("this"))
    };
    store.transaction(aborted).await.unwrap_err();
    assert_eq!(bucket.stats().await.unwrap().counter, 10);
    assert_eq!(bucket.insert(record! {}).await.unwrap().key(), &12.into());
}
