//! The parts of a bucket work together as on the first page of a guide: definition, writes, queries, types, a live query
//! and a transaction.

use ractor_persistence::adapters::json_file::JsonFileAdapter;
use ractor_persistence::base::error::Error;
use ractor_persistence::{
    BucketDefinition, Direction, Durability, Field, Filter, Format, Generated, Patch, Query, QueryContext, Retry,
    Store, record,
};

#[derive(serde::Serialize, serde::Deserialize, PartialEq, Debug)]
struct User {
    id: String,
    name: String,
    email: String,
    role: String,
    logins: i64,
}

fn users() -> BucketDefinition {
    BucketDefinition::new("users")
        .key("id")
        .field("id", Field::string().generated(Generated::Uuid))
        .field("name", Field::string().required().min_length(1))
        .field("email", Field::string().required().format(Format::Email).unique())
        .field("role", Field::string().one_of(["user", "admin"]).default("user"))
        .field("logins", Field::int().min(0).default(0))
        .index(["role", "logins"])
}

fn cache() -> BucketDefinition {
    BucketDefinition::new("cache")
        .key("key")
        .field("key", Field::string())
        .field("value", Field::any().required())
        .ttl("10m")
        .max_size(10_000)
        .persistent(false)
}

#[tokio::test]
async fn a_store_with_users_and_a_cache_does_what_the_guide_shows() {
    let directory = tempfile::tempdir().unwrap();
    let open = || JsonFileAdapter::open(directory.path().to_owned());
    let store = Store::builder("user-app").adapter(open().await.unwrap()).start().await.unwrap();
    let users_bucket = store.define_bucket(users()).await.unwrap();
    let cache_bucket = store.define_bucket(cache()).await.unwrap();

    let alice = record! { "name": "Alice", "email": "al@example.com", "role": "admin" };
    let alice = users_bucket.insert(alice).await.unwrap();
    let bob = record! { "name": "Bob", "email": "bob@example.com" };
    users_bucket.with_durability(Durability::Fsync).insert(bob).await.unwrap();
    assert!(cache_bucket.upsert(record! { "key": "theme", "value": "dark" }).await.unwrap().is_inserted());
    let named = Filter::eq("role", "admin").and(Filter::prefix("name", "Al"));
    assert_eq!(users_bucket.find(named).await.unwrap(), std::slice::from_ref(&alice));
    let top = Query::all().order_by("logins", Direction::Descending).limit(5);
    assert_eq!(users_bucket.find(top).await.unwrap().len(), 2);
    let user: Option<User> = users_bucket.typed::<User>().get(alice.key()).await.unwrap();
    assert_eq!(user.map(|user| (user.name, user.logins)), Some(("Alice".to_owned(), 0)));

    let admins = |q: QueryContext| async move { q.bucket("users")?.count(Filter::eq("role", "admin")).await };
    let mut live = store.live(admins).await.unwrap();
    assert_eq!(*live.current(), 1);
    store
        .transaction(|tx| async move {
            let users = tx.bucket("users")?;
            if let Some(bob) = users.find_one(Filter::eq("email", "bob@example.com")).await? {
                users.patch(bob.key(), Patch::new().set("role", "admin").increment("logins", 1)).await?;
            }
            Ok::<_, Error>(())
        })
        .retry(Retry::default())
        .await
        .unwrap();
    assert_eq!(*live.next().await.unwrap(), 2);
    let stats = store.stats().await;
    assert_eq!((stats.buckets, stats.records, stats.queries, stats.subscriptions), (2, 3, 0, 1));
    assert_eq!(stats.ttl_check_interval, std::time::Duration::from_secs(1));
    assert!(store.stop().await.unwrap().unsaved.is_empty());

    let store = Store::builder("user-app").adapter(open().await.unwrap()).start().await.unwrap();
    let users_bucket = store.define_bucket(users()).await.unwrap();
    let cache_bucket = store.define_bucket(cache()).await.unwrap();
    assert_eq!(users_bucket.count(Filter::eq("role", "admin")).await.unwrap(), 2);
    assert_eq!(users_bucket.sum("logins", Filter::all()).await.unwrap(), 1.into());
    assert_eq!(cache_bucket.count(Filter::all()).await.unwrap(), 0);
    store.stop().await.unwrap();
}
