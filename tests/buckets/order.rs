//! In which order does a bucket show its records, now and after a restart?

use ractor_persistence::record;
use ractor_persistence::records::{Field, Filter};

use crate::world::*;

#[tokio::test]
async fn bk_17_an_update_keeps_the_place_delete_and_insert_goes_last_and_a_restart_changes_nothing() {
    for home in homes() {
        let (store, _) = home.start().await;
        let definition = || texts("texts").index(["text"]).field("n", Field::int());
        let bucket = store.define_bucket(definition()).await.unwrap();
        for id in ["d", "a", "c", "b"] {
            bucket.insert(record! { "id": id, "text": "x" }).await.unwrap();
        }
        store.flush().await.unwrap();
        bucket.update("a", record! { "text": "y" }).await.unwrap();
        bucket.upsert(record! { "id": "d", "n": 1 }).await.unwrap();
        assert_eq!(ids(&bucket).await, ["d", "a", "c", "b"], "{}", home.name);
        bucket.delete("d").await.unwrap();
        bucket.insert(record! { "id": "d", "text": "x" }).await.unwrap();
        let order = ["a", "c", "b", "d"];
        assert_eq!(ids(&bucket).await, order, "{}", home.name);
        bucket.update("a", record! { "text": "x" }).await.unwrap();
        let found = |records: Vec<std::sync::Arc<ractor_persistence::records::Record>>| -> Vec<String> {
            records.iter().map(|record| id(record)).collect()
        };
        assert_eq!(found(bucket.find(Filter::eq("text", "x")).await.unwrap()), order, "by index, too");
        kill(&bucket).await;
        assert_eq!(ids(&bucket).await, order, "{}: after a kill", home.name);
        store.stop().await.unwrap();

        let (store, _) = home.start().await;
        let bucket = store.define_bucket(definition()).await.unwrap();
        assert_eq!(ids(&bucket).await, order, "{}: reopened", home.name);
        assert_eq!(found(bucket.find(Filter::eq("text", "x")).await.unwrap()), order);
        bucket.insert(record! { "id": "0" }).await.unwrap();
        bucket.update("b", record! { "text": "z" }).await.unwrap();
        assert_eq!(ids(&bucket).await, ["a", "c", "b", "d", "0"], "{}: what is new goes last", home.name);
        // The last place is not given out again after it was deleted before a restart.
        bucket.delete("0").await.unwrap();
        store.stop().await.unwrap();
        let (store, _) = home.start().await;
        let bucket = store.define_bucket(definition()).await.unwrap();
        bucket.insert(record! { "id": "1" }).await.unwrap();
        assert_eq!(ids(&bucket).await, ["a", "c", "b", "d", "1"], "{}", home.name);
        store.stop().await.unwrap();
    }
}
