//! What do people's own queries see?

use ractor_persistence::base::value::Value;
use ractor_persistence::records::{BucketDefinition, Field, Filter};
use ractor_persistence::{Durability, Store, record};

use crate::server::Place;

#[tokio::test]
async fn sql_sees_each_record_as_the_store_does_but_for_what_jsonb_cannot_hold() {
    let place = Place::new();
    let store = Store::builder("shop").adapter(place.open().await.unwrap()).start().await.unwrap();
    let definition = BucketDefinition::new("people")
        .key("name")
        .field("name", Field::string())
        .field("born", Field::int())
        .field("photo", Field::bytes());
    let people = store.define_bucket(definition).await.unwrap().with_durability(Durability::Fsync);
    let tags = || record! { "tags": ["a", "b"], "deep": { "x": 0.5 } };
    people.insert(record! { "name": "Ada", "born": 1815, "more": tags() }).await.unwrap();
    people.insert(record! { "name": "Bo", "born": 1900 }).await.unwrap();
    people.insert(record! { "name": "Cy", "born": 1950 }).await.unwrap();
    people.insert(record! { "name": "Di", "photo": Value::from(&b"\x00\xff"[..]), "note": "a\0b" }).await.unwrap();
    people.update("Bo", record! { "born": 1901 }).await.unwrap();
    people.delete("Cy").await.unwrap();

    let client = place.client().await;
    let ask = async |sql: &str| -> Vec<String> {
        let rows = client.query(&place.sql(sql), &[]).await.unwrap();
        rows.iter().map(|row| row.get::<_, Option<String>>(0).unwrap_or_default()).collect()
    };
    let born = ask("SELECT doc ->> 'name' FROM $schema.records
         WHERE store = 'shop' AND bucket = 'people' AND (doc -> 'born')::int > 1820 ORDER BY place");
    assert_eq!(born.await, ["Bo"]);
    let nested =
        ask("SELECT doc #>> '{more,deep,x}' FROM $schema.records WHERE doc @> '{\"more\": {\"tags\": [\"b\"]}}'");
    assert_eq!(nested.await, ["0.5"]);
    let order = ask("SELECT doc ->> 'name' FROM $schema.records ORDER BY place").await;
    assert_eq!(order, ["Ada", "Bo", "Di"], "in the order of insertion");
    for record in people.find(Filter::ne("name", "Di")).await.unwrap() {
        let name = record.key().as_value().as_str().unwrap().to_owned();
        let sql = format!("SELECT doc::text FROM $schema.records WHERE doc ->> 'name' = '{name}'");
        let copy: serde_json::Value = serde_json::from_str(&ask(&sql).await[0]).unwrap();
        assert_eq!(copy, record.to_json());
    }
    let left = ask("SELECT k FROM $schema.records, jsonb_object_keys(doc) AS k WHERE doc ->> 'name' = 'Di' ORDER BY k");
    assert_eq!(left.await, ["_created_at", "_updated_at", "_version", "name"]);
    let head = ask("SELECT revision || ' ' || schema_version FROM $schema.buckets WHERE bucket = 'people'").await;
    assert_eq!(head, [format!("{} 1", people.stats().await.unwrap().revision)]);

    // The copies are nobody's source: with all of them gone, nothing is missing.
    let before = people.all().await.unwrap();
    store.stop().await.unwrap();
    client.batch_execute(&place.sql("UPDATE $schema.records SET doc = NULL, place = NULL")).await.unwrap();
    let store = Store::builder("shop").adapter(place.open().await.unwrap()).start().await.unwrap();
    let again = BucketDefinition::new("people")
        .key("name")
        .field("name", Field::string())
        .field("born", Field::int())
        .field("photo", Field::bytes());
    assert_eq!(store.define_bucket(again).await.unwrap().all().await.unwrap(), before);
    store.stop().await.unwrap();
}
