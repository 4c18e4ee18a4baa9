//! Who makes the tables, and who may not touch them?

use ractor_persistence::adapters::postgres::PostgresAdapter;
use ractor_persistence::base::error::Error;
use ractor_persistence::persistence::StorageAdapter;

use crate::server::{Place, as_role};
use crate::world::*;

#[tokio::test]
async fn adapters_that_open_one_new_schema_at_the_same_time_make_it_once_and_all_work() {
    let place = std::sync::Arc::new(Place::new());
    let opening: Vec<_> = (0..12)
        .map(|number| {
            let place = std::sync::Arc::clone(&place);
            tokio::spawn(async move {
                let adapter = place.open().await.unwrap();
                let own = ractor_persistence::base::name::StoreName::new(format!("store {number}")).unwrap();
                let epoch = adapter.claim(&own).await.unwrap();
                let mut commit = storing(epoch, 1, &[(1, "there")]);
                commit.store = own;
                adapter.commit(&commit).await.unwrap();
            })
        })
        .collect();
    for opened in opening {
        opened.await.unwrap();
    }
    let client = place.client().await;
    let sql = place.sql("SELECT (SELECT count(*) FROM $schema.migrations), (SELECT count(*) FROM $schema.records)");
    let row = client.query_one(&sql, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (1, 12));
}

#[tokio::test]
async fn a_schema_of_a_later_release_is_refused_by_name_and_number_and_left_alone() {
    let place = Place::new();
    let adapter = place.open().await.unwrap();
    let epoch = adapter.claim(&shop()).await.unwrap();
    adapter.commit(&storing(epoch, 1, &[(1, "kept")])).await.unwrap();
    adapter.close(&shop()).await.unwrap();
    let client = place.client().await;
    client.batch_execute(&place.sql("INSERT INTO $schema.migrations (version) VALUES (99)")).await.unwrap();
    for error in [place.open().await.unwrap_err(), adapter.claim(&shop()).await.unwrap_err()] {
        let Error::UnknownFormat { format, at, found, known } = &error else { panic!("{error:?}") };
        assert_eq!((format.as_str(), *found, *known), ("postgres schema", 99, 1));
        assert!(at.container.contains(&place.schema), "{error}");
    }
    client.batch_execute(&place.sql("DELETE FROM $schema.migrations WHERE version = 99")).await.unwrap();
    assert_eq!(adapter.claim(&shop()).await.unwrap().0, epoch.0 + 1, "no claim was counted");
    assert_eq!(stored(&adapter).await, expect([(1, "kept")]));
}

#[tokio::test]
async fn a_row_of_a_later_release_is_refused_by_name_and_number() {
    let place = Place::new();
    let adapter = place.open().await.unwrap();
    let epoch = adapter.claim(&shop()).await.unwrap();
    adapter.commit(&storing(epoch, 1, &[(1, "kept")])).await.unwrap();
    // What a later release would write: another version, with a checksum that fits.
    let key = [&[1_u8][..], &(1_i64 ^ i64::MIN).to_be_bytes()].concat();
    let context = [&b"records\0\x04shop\x05items"[..], &key].concat();
    let format = ractor_persistence::base::codec::Format { name: "postgres record", version: 9 };
    let row = ractor_persistence::base::codec::encode(format, &context, &"later").unwrap();
    let client = place.client().await;
    let changed =
        client.execute(&place.sql("UPDATE $schema.records SET data = $1 WHERE key = $2"), &[&row, &key]).await;
    assert_eq!(changed.unwrap(), 1);
    let bucket = ractor_persistence::base::name::BucketKey::new(shop(), name("items"));
    let error = adapter.load_bucket(&bucket).await.unwrap_err();
    let Error::UnknownFormat { format, at, found, known } = &error else { panic!("{error:?}") };
    assert_eq!((format.as_str(), *found, *known), ("postgres record", 9, 1));
    assert_eq!(at.to_string(), "records of shop/items, key 1");
}

#[tokio::test]
async fn rows_that_were_moved_changed_or_left_without_their_bucket_are_corrupt() {
    let place = Place::new();
    let adapter = place.open().await.unwrap();
    let epoch = adapter.claim(&shop()).await.unwrap();
    let bucket = ractor_persistence::base::name::BucketKey::new(shop(), name("items"));
    let client = place.client().await;
    for (damage, at) in [
        (
            "UPDATE $schema.records SET data = (SELECT data FROM $schema.records WHERE place = 1) WHERE place = 2",
            "key 2",
        ),
        ("UPDATE $schema.records SET data = set_byte(data, 9, get_byte(data, 9) # 1) WHERE place = 1", "key 1"),
        ("UPDATE $schema.records SET data = '' WHERE place = 2", "key 2"),
        ("UPDATE $schema.buckets SET data = substr(data, 2)", "buckets of shop/items"),
        ("DELETE FROM $schema.buckets", "records of shop/items"),
    ] {
        adapter.commit(&storing(epoch, 1, &[(1, "one"), (2, "two")])).await.unwrap();
        assert_eq!(stored(&adapter).await, expect([(1, "one"), (2, "two")]));
        client.batch_execute(&place.sql(damage)).await.unwrap();
        let error = adapter.load_bucket(&bucket).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }) && error.to_string().contains(at), "{damage}: {error}");
    }
}

#[tokio::test]
async fn a_role_that_may_not_create_anything_works_in_a_schema_that_is_there() {
    let place = Place::new();
    let client = place.client().await;
    let role = format!("limited_{}", uuid::Uuid::new_v4().simple());
    client.batch_execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'x'")).await.unwrap();
    let url = as_role(place.url(), &role, "x");
    let error = PostgresAdapter::connect_with(&url, place.options()).await.unwrap_err();
    assert!(matches!(error, Error::Permanent { .. }) && told(&error).contains("42501"), "{}", told(&error));
    place.open().await.unwrap();
    let grant = format!(
        "GRANT USAGE ON SCHEMA $schema TO {role};
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA $schema TO {role}"
    );
    client.batch_execute(&place.sql(&grant)).await.unwrap();
    let adapter = PostgresAdapter::connect_with(&url, place.options()).await.unwrap();
    let epoch = adapter.claim(&shop()).await.unwrap();
    adapter.commit(&storing(epoch, 1, &[(1, "kept")])).await.unwrap();
    assert_eq!(stored(&adapter).await, expect([(1, "kept")]));
    adapter.close(&shop()).await.unwrap();
    client.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.unwrap();
}
