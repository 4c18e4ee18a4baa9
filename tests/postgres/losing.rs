//! What is left when the server, or a connection to it, is gone?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ractor_persistence::adapters::postgres::PostgresAdapter;
use ractor_persistence::base::error::Error;
use ractor_persistence::persistence::{Backoff, PersistenceOptions, StorageAdapter};
use ractor_persistence::{Durability, Store, record};

use crate::server::{Place, Server, apart};
use crate::world::*;

/// Waits for something that happens by itself.
async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..4_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not within 20 s: {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_under_load_has_everything_that_was_acknowledged_and_health_says_so() {
    let server = Server::start();
    let place = Place::on(&server.url);
    let options = PersistenceOptions::default()
        .with_debounce(Duration::from_millis(5))
        .with_retry(Backoff::new(Duration::from_millis(10), Duration::from_millis(100)));
    let start = || async {
        let adapter = place.open().await.unwrap();
        Store::builder("shop").adapter(adapter).persistence(options.clone()).start().await.unwrap()
    };
    let store = start().await;
    let bucket = store.define_bucket(items()).await.unwrap();
    // Of each writer, what it was told is synced.
    let acknowledged: Arc<Mutex<BTreeMap<i64, i64>>> = Arc::default();
    let refused = Arc::new(AtomicBool::new(false));
    let over = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..16_i64)
        .map(|writer| {
            let bucket = bucket.with_durability(Durability::Fsync);
            let (acknowledged, refused, over) = (Arc::clone(&acknowledged), Arc::clone(&refused), Arc::clone(&over));
            tokio::spawn(async move {
                for count in 1_i64.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let written = bucket.upsert(record! { "id": writer, "text": count.to_string() }).await;
                    match written {
                        Ok(_) => {
                            acknowledged.lock().unwrap().insert(writer, count);
                        }
                        Err(Error::NotSaved { source, .. }) => {
                            assert!(may_pass(&Err::<(), _>((*source).clone())), "{source:?}");
                            refused.store(true, Ordering::Relaxed);
                            // An awaited write tries at once: without a pause, all that is left to do is trying.
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                        Err(other) => panic!("{other:?}"),
                    }
                }
            })
        })
        .collect();
    let progress = |least: i64| {
        let acknowledged = acknowledged.lock().unwrap();
        acknowledged.len() == 16 && acknowledged.values().all(|count| *count >= least)
    };
    until("writers get on", || progress(5)).await;
    server.kill();
    until("writers are told", || refused.swap(false, Ordering::Relaxed)).await;
    assert!(!store.health().is_healthy(), "{:?}", store.health());
    let promised = acknowledged.lock().unwrap().clone();
    server.start_again();
    let found = stored(&place.open().await.unwrap()).await;
    for (writer, count) in &promised {
        let found: i64 = found[writer].parse().unwrap();
        assert!(found >= *count, "writer {writer} was promised {count}, there is {found}");
    }
    until("health recovers", || store.health().is_healthy()).await;
    over.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    let last = bucket.all().await.unwrap();
    assert!(store.stop().await.unwrap().unsaved.is_empty());
    let store = start().await;
    assert_eq!(store.define_bucket(items()).await.unwrap().all().await.unwrap(), last);
    store.stop().await.unwrap();
}

#[tokio::test]
async fn connections_that_the_server_ends_are_replaced() {
    let place = Place::new();
    let named = format!("ended {}", uuid::Uuid::new_v4().simple());
    let mut config: ractor_persistence::adapters::postgres::Config = place.url().parse().unwrap();
    config.application_name(&named);
    let adapter = PostgresAdapter::connect_config(config, place.options()).await.unwrap();
    let epoch = adapter.claim(&shop()).await.unwrap();
    let client = place.client().await;
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1";
    for revision in 1..=5 {
        let text = revision.to_string();
        let mut attempts = 0;
        // The first attempt may still be on a connection whose end has not arrived.
        loop {
            let result = adapter.commit(&storing(epoch, revision, &[(1, &text)])).await;
            if result.is_ok() {
                break;
            }
            attempts += 1;
            assert!(may_pass(&result) && attempts < 3, "{result:?}");
        }
        assert_eq!(stored(&adapter).await, expect([(1, &text)]));
        let ended: i64 = client.query_one(end, &[&named]).await.unwrap().get(0);
        assert!(ended > 0);
    }
}

#[tokio::test]
async fn what_the_server_refuses_for_good_is_permanent_and_disturbs_nothing_else() {
    let place = Place::new();
    let adapter = place.open().await.unwrap();
    let epoch = adapter.claim(&shop()).await.unwrap();
    adapter.commit(&storing(epoch, 1, &[(1, "kept")])).await.unwrap();
    for round in 0..3 {
        let error = adapter.commit(&poisoned(epoch)).await.unwrap_err();
        assert!(matches!(error, Error::Permanent { .. }), "round {round}: {error:?}");
        assert_eq!(stored(&adapter).await, expect([(1, "kept")]));
    }
    adapter.commit(&storing(epoch, 2, &[(2, "too")])).await.unwrap();
    assert_eq!(stored(&adapter).await, expect([(1, "kept"), (2, "too")]));
}

#[tokio::test]
async fn nothing_of_a_commit_is_there_if_a_part_of_it_could_not_even_be_sent() {
    let place = Place::new();
    let adapter = place.open().await.unwrap();
    let epoch = adapter.claim(&shop()).await.unwrap();
    // The driver, not the server, refuses a number for such a column, when it writes the statement's parameters down.
    let client = place.client().await;
    client.batch_execute(&place.sql("ALTER TABLE $schema.buckets ALTER COLUMN revision TYPE text")).await.unwrap();
    let error = adapter.commit(&storing(epoch, 1, &[(1, "half")])).await.unwrap_err();
    assert!(matches!(error, Error::Permanent { .. }), "{error:?}");
    let rows = place.sql("SELECT count(*) FROM $schema.records");
    assert_eq!(client.query_one(&rows, &[]).await.unwrap().get::<_, i64>(0), 0, "records of a commit that was refused");
    let back = "ALTER TABLE $schema.buckets ALTER COLUMN revision TYPE bigint USING revision::bigint";
    client.batch_execute(&place.sql(back)).await.unwrap();
    adapter.commit(&storing(epoch, 1, &[(2, "whole")])).await.unwrap();
    assert_eq!(stored(&adapter).await, expect([(2, "whole")]));
}

#[tokio::test]
async fn a_server_that_has_become_a_standby_may_be_the_right_one_again() {
    let server = Server::start();
    let place = Place::on(&server.url);
    let adapter = place.open().await.unwrap();
    let epoch = adapter.claim(&shop()).await.unwrap();
    adapter.commit(&storing(epoch, 1, &[(1, "before")])).await.unwrap();
    server.become_standby(true);
    // The first attempt may be on a connection whose end has not arrived.
    let commit = storing(epoch, 2, &[(2, "after")]);
    let _ended = adapter.commit(&commit).await;
    let refused = adapter.commit(&commit).await;
    assert!(matches!(refused, Err(Error::Transient { .. })), "{refused:?}");
    assert_eq!(stored(&adapter).await, expect([(1, "before")]), "a standby can be read");
    let claimed = adapter.claim(&shop()).await;
    assert!(matches!(claimed, Err(Error::Transient { .. })), "{claimed:?}");
    server.become_standby(false);
    while let Err(error) = adapter.commit(&commit).await {
        assert!(may_pass::<()>(&Err(error)));
    }
    assert_eq!(stored(&adapter).await, expect([(1, "before"), (2, "after")]));
}

#[tokio::test]
async fn a_stop_within_another_runtime_saves_what_was_accepted_before_the_first_one_was_dropped() {
    let place = Place::new();
    let accepted = async {
        let adapter = place.open().await.unwrap();
        let options = PersistenceOptions::default().with_debounce(Duration::from_secs(3_600));
        let store = Store::builder("shop").adapter(adapter).persistence(options).start().await.unwrap();
        store.define_bucket(items()).await.unwrap().insert(record! { "id": 1, "text": "accepted" }).await.unwrap();
        store
    };
    let store = apart(accepted);
    let report = store.stop().await.unwrap();
    assert!(report.unsaved.is_empty() && report.error.is_none(), "{report:?}");
    let store = Store::builder("shop").adapter(place.open().await.unwrap()).start().await.unwrap();
    assert!(store.define_bucket(items()).await.unwrap().get(1).await.unwrap().is_some());
    store.stop().await.unwrap();
}
