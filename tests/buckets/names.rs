//! Do buckets keep apart, whatever their names look like?

use std::collections::BTreeMap;

use ractor_persistence::base::error::Error;
use ractor_persistence::record;

use crate::world::*;

const NAMES: [&str; 14] =
    ["a.b", "a:b", "a/b", "*", "A", "a", "🦀", "a.*", "..", "a b", "a\\b", "%2E", "con", "é\u{301}"];

#[tokio::test]
async fn bk_35_buckets_of_any_names_keep_apart_are_reloaded_and_are_heard_on_bucket_star_star() {
    for home in homes() {
        let (store, _) = home.start().await;
        let mut everything = store.subscribe("bucket.*.*").unwrap();
        for (number, name) in NAMES.into_iter().enumerate() {
            let bucket = store.define_bucket(numbered(name)).await.unwrap();
            bucket.insert_many(vec![record! { "text": name }; number + 1]).await.unwrap();
        }
        let mut counts = BTreeMap::<String, usize>::new();
        for event in heard(&mut everything) {
            *counts.entry(event.bucket.as_str().to_owned()).or_default() += 1;
        }
        for round in 0..2 {
            for (number, name) in NAMES.into_iter().enumerate() {
                let bucket = store.bucket(name).unwrap();
                let all = bucket.all().await.unwrap();
                assert_eq!(all.len(), number + 1, "{} {name}", home.name);
                assert!(all.iter().all(|record| record.get("text") == Some(&name.into())), "{} {name}", home.name);
                assert_eq!(counts.get(name), Some(&(number + 1)), "{} {name}", home.name);
                if round == 0 {
                    kill(&bucket).await;
                }
            }
        }
        // One that goes takes nobody along.
        store.drop_bucket("a").await.unwrap();
        store.bucket("A").unwrap().insert(record! {}).await.unwrap();
        assert_eq!(told(&mut everything), ["inserted 6"]);
        assert!(matches!(store.bucket("a"), Err(Error::BucketNotDefined { .. })));
        store.stop().await.unwrap();

        let (store, _) = home.start().await;
        for (number, name) in NAMES.into_iter().enumerate() {
            let bucket = store.define_bucket(numbered(name)).await.unwrap();
            let expected = match name {
                "a" => 0,
                "A" => number + 2,
                _ => number + 1,
            };
            assert_eq!(bucket.all().await.unwrap().len(), expected, "{} {name}", home.name);
            bucket.insert(record! { "text": name }).await.unwrap();
        }
        store.stop().await.unwrap();
    }
}
