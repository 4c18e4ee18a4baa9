//! What becomes of those who wait, and of those who do not wait any more?

use std::time::Duration;

use ractor_persistence::Durability;
use ractor_persistence::adapters::postgres::PostgresAdapter;
use ractor_persistence::base::error::Error;
use ractor_persistence::base::name::{BucketKey, ChannelId};
use ractor_persistence::persistence::{Commit, Save, StorageAdapter};
use ractor_persistence::sds::ChannelMeta;

use crate::server::{self, Place};
use crate::world::*;

#[tokio::test]
async fn a_commit_that_waits_for_too_long_may_be_tried_again_and_has_written_nothing() {
    let place = Place::new();
    let short = Duration::from_secs(2);
    let long = Duration::from_secs(60);
    for (options, code) in [
        (place.options().with_statement_timeout(short).with_lock_timeout(long), "57014"),
        (place.options().with_statement_timeout(long).with_lock_timeout(short), "55P03"),
    ] {
        let adapter = PostgresAdapter::connect_with(place.url(), options).await.unwrap();
        let epoch = adapter.claim(&shop()).await.unwrap();
        adapter.commit(&storing(epoch, 1, &[(1, "before")])).await.unwrap();
        let blocker = lock_records(&place).await;
        let error = adapter.commit(&storing(epoch, 2, &[(1, "after")])).await.unwrap_err();
        assert!(matches!(error, Error::Transient { .. }) && told(&error).contains(code), "{error:?}");
        blocker.batch_execute("COMMIT").await.unwrap();
        assert_eq!(stored(&adapter).await, expect([(1, "before")]));
        adapter.commit(&storing(epoch, 2, &[(1, "after")])).await.unwrap();
        assert_eq!(stored(&adapter).await, expect([(1, "after")]));
    }
}

#[tokio::test]
async fn a_commit_whose_caller_has_gone_away_ends_before_anything_else_is_done() {
    let place = Place::new();
    let adapter = place.open().await.unwrap();
    let epoch = adapter.claim(&shop()).await.unwrap();
    adapter.commit(&storing(epoch, 1, &[(1, "first")])).await.unwrap();
    // Only the one record: nothing at the server would keep others from what comes after it.
    let blocker = place.client().await;
    blocker.batch_execute(&place.sql("BEGIN; SELECT FROM $schema.records FOR UPDATE")).await.unwrap();
    let committing = tokio::spawn({
        let adapter = adapter.clone();
        async move { adapter.commit(&storing(epoch, 2, &[(1, "second")])).await }
    });
    waiting(&blocker, &place, "INSERT INTO %records%", 1).await;
    committing.abort();
    assert!(committing.await.unwrap_err().is_cancelled());
    let next = tokio::spawn({
        let adapter = adapter.clone();
        async move { adapter.commit(&storing(epoch, 3, &[(2, "third")])).await }
    });
    let loading = tokio::spawn({
        let adapter = adapter.clone();
        async move { stored(&adapter).await }
    });
    // Time enough for both, had they not to wait.
    let beside = place.open().await.unwrap();
    for _ in 0..5 {
        assert_eq!(stored(&beside).await, expect([(1, "first")]));
    }
    assert!(!next.is_finished() && !loading.is_finished());
    blocker.batch_execute("COMMIT").await.unwrap();
    next.await.unwrap().unwrap();
    assert_eq!(loading.await.unwrap().get(&1).map(String::as_str), Some("second"));
    assert_eq!(stored(&adapter).await, expect([(1, "second"), (2, "third")]));
}

#[tokio::test]
async fn a_load_that_takes_its_time_keeps_no_commit_waiting() {
    let place = Place::new();
    let adapter = place.open().await.unwrap();
    let epoch = adapter.claim(&shop()).await.unwrap();
    adapter.commit(&storing(epoch, 1, &[(1, "here")])).await.unwrap();
    // A load reads this table, and a channel's commit does not write it.
    let blocker = place.client().await;
    blocker.batch_execute(&place.sql("BEGIN; LOCK TABLE $schema.requests IN ACCESS EXCLUSIVE MODE")).await.unwrap();
    let loading = tokio::spawn({
        let adapter = adapter.clone();
        async move { stored(&adapter).await }
    });
    waiting(&blocker, &place, "SELECT %requests%", 1).await;
    let meta = Save::ChannelMeta(ChannelId::new("c").unwrap(), ChannelMeta::default().into());
    let commit = Commit::new(shop(), epoch, Durability::Fsync, vec![meta]);
    let committed = tokio::time::timeout(Duration::from_secs(60), adapter.commit(&commit)).await;
    committed.expect("the commit waits for the load").unwrap();
    blocker.batch_execute("COMMIT").await.unwrap();
    assert_eq!(loading.await.unwrap(), expect([(1, "here")]));
}

#[tokio::test]
async fn a_load_that_nobody_waits_for_any_more_is_called_off_at_the_server() {
    let place = Place::new();
    let adapter = place.open().await.unwrap();
    let epoch = adapter.claim(&shop()).await.unwrap();
    adapter.commit(&storing(epoch, 1, &[(1, "kept")])).await.unwrap();
    let blocker = lock_records(&place).await;
    for _ in 0..3 {
        let loading = tokio::spawn({
            let adapter = adapter.clone();
            async move { adapter.load_bucket(&BucketKey::new(shop(), name("items"))).await }
        });
        waiting(&blocker, &place, "SELECT key, data%", 1).await;
        loading.abort();
        assert!(loading.await.unwrap_err().is_cancelled());
        waiting(&blocker, &place, "SELECT key, data%", 0).await;
    }
    blocker.batch_execute("COMMIT").await.unwrap();
    assert_eq!(stored(&adapter).await, expect([(1, "kept")]));
}

#[tokio::test]
async fn more_at_once_than_there_are_connections_wait_for_their_turn() {
    let place = Place::new();
    let adapter = PostgresAdapter::connect_with(place.url(), place.options().with_connections(2)).await.unwrap();
    let epoch = adapter.claim(&shop()).await.unwrap();
    adapter.commit(&storing(epoch, 1, &[(1, "kept")])).await.unwrap();
    let loads: Vec<_> = (0..20)
        .map(|_| {
            let adapter = adapter.clone();
            tokio::spawn(async move { stored(&adapter).await })
        })
        .collect();
    for load in loads {
        assert_eq!(load.await.unwrap(), expect([(1, "kept")]));
    }
    let client = place.client().await;
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE position($1 in query) > 0 AND pid <> pg_backend_pid()";
    let open: i64 = client.query_one(sql, &[&place.quoted()]).await.unwrap().get(0);
    assert!(open <= 2, "{open} connections");
}

#[tokio::test]
async fn closing_ends_all_connections_and_a_later_claim_opens_them_again() {
    let place = Place::new();
    let named = format!("closing {}", uuid::Uuid::new_v4().simple());
    let mut config: ractor_persistence::adapters::postgres::Config = place.url().parse().unwrap();
    config.application_name(&named);
    let adapter = PostgresAdapter::connect_config(config, place.options()).await.unwrap();
    let client = place.client().await;
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
    for round in 1..=3 {
        let epoch = adapter.claim(&shop()).await.unwrap();
        adapter.commit(&storing(epoch, round, &[(1, &round.to_string())])).await.unwrap();
        assert!(client.query_one(sql, &[&named]).await.unwrap().get::<_, i64>(0) > 0);
        adapter.close(&shop()).await.unwrap();
        for attempt in 0.. {
            // The server has been told; it may need a moment to write it down.
            if client.query_one(sql, &[&named]).await.unwrap().get::<_, i64>(0) == 0 {
                break;
            }
            assert!(attempt < 2_000, "connections are still open");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let refused = adapter.load_bucket(&BucketKey::new(shop(), name("items"))).await;
        assert!(matches!(refused, Err(Error::Permanent { .. })), "{refused:?}");
    }
    adapter.claim(&shop()).await.unwrap();
    assert_eq!(stored(&adapter).await, expect([(1, "3")]));
}

#[tokio::test]
async fn a_server_that_has_no_room_or_is_not_there_may_be_tried_again() {
    let place = Place::new();
    let client = place.client().await;
    let role = format!("crowded_{}", uuid::Uuid::new_v4().simple());
    client.batch_execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'x' CONNECTION LIMIT 0")).await.unwrap();
    let crowded = server::as_role(place.url(), &role, "x");
    let error = PostgresAdapter::connect_with(&crowded, place.options()).await.unwrap_err();
    assert!(matches!(error, Error::Transient { .. }) && told(&error).contains("53300"), "{}", told(&error));
    client.batch_execute(&format!("DROP ROLE {role}")).await.unwrap();

    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = nobody.local_addr().unwrap().port();
    let silent = format!("postgres://ada@127.0.0.1:{port}/db?sslmode=disable");
    let options = place.options().with_connect_timeout(Duration::from_millis(50));
    let error = PostgresAdapter::connect_with(&silent, options).await.unwrap_err();
    assert!(matches!(error, Error::Transient { .. }), "{error:?}");
    drop(nobody);
    let error = PostgresAdapter::connect_with(&silent, place.options()).await.unwrap_err();
    assert!(matches!(error, Error::Transient { .. }), "{error:?}");
}
