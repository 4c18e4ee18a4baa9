//! A store with two buckets: users, which are still there when the store starts again, and a cache, which is not.
//!
//! ```text
//! cargo run --example quickstart               in a folder of its own, emptied first
//! cargo run --example quickstart -- some/dir   in some/dir, which is kept
//! ```
#![allow(clippy::print_stdout)]

use std::path::Path;
use std::sync::Arc;
use std::{env, fs};

use ractor_persistence::adapters::redb::RedbAdapter;
use ractor_persistence::base::durability::Durability;
use ractor_persistence::base::error::Error;
use ractor_persistence::record;
use ractor_persistence::records::{BucketDefinition, Field, Filter, Generated};
use ractor_persistence::store::Store;

fn users() -> BucketDefinition {
    BucketDefinition::new("users")
        .key("id")
        .field("id", Field::int().generated(Generated::Autoincrement))
        .field("name", Field::string().required())
        .field("email", Field::string().required().unique())
        .field("role", Field::string().default("user"))
        .index(["role"])
}

/// Opted out: never saved, empty after a restart.
fn cache() -> BucketDefinition {
    BucketDefinition::new("cache")
        .key("key")
        .field("key", Field::string())
        .field("value", Field::any().required())
        .persistent(false)
}

async fn start(directory: &Path) -> Result<Store, Error> {
    let adapter = RedbAdapter::open(directory.join("quickstart.redb")).await?;
    Store::builder("quickstart").adapter(adapter).start().await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = match env::args_os().nth(1) {
        Some(given) => given.into(),
        None => {
            let own = env::temp_dir().join("ractor-persistence-quickstart");
            if own.exists() {
                fs::remove_dir_all(&own)?;
            }
            own
        }
    };
    fs::create_dir_all(&directory)?;

    println!("The store starts in {}.", directory.display());
    let store = start(&directory).await?;
    let users_bucket = store.define_bucket(users()).await?;
    let cache_bucket = store.define_bucket(cache()).await?;
    let left = users_bucket.clear().await?;
    if left > 0 {
        println!("  {left} users of an earlier run are there; this one starts over.");
    }

    // An insert answers the record as it was stored. It is in memory now, and on disk 100 ms later at most.
    let ada = users_bucket.insert(record! { "name": "Ada", "email": "ada@example.com", "role": "admin" }).await?;
    println!("  Ada is user {:?}.", ada.key());

    // A refused write changes nothing.
    let refused = users_bucket.insert(record! { "name": "Another Ada", "email": "ada@example.com" }).await;
    assert!(matches!(&refused, Err(Error::UniqueViolation { holder, .. }) if holder == ada.key()));
    println!("  A second user with her e-mail address is refused.");

    // An update merges its changes over the record.
    let ada = users_bucket.update(ada.key().clone(), record! { "name": "Ada Lovelace" }).await?;
    assert_eq!(ada.version(), 2);

    // With `Fsync`, a write answers once it is on disk: no crash and no power cut takes it back.
    let fsync = users_bucket.with_durability(Durability::Fsync);
    let bob = fsync.insert(record! { "name": "Bob", "email": "bob@example.com" }).await?;
    println!("  Bob is user {:?}, and on disk already.", bob.key());

    cache_bucket.insert(record! { "key": "theme", "value": "dark" }).await?;

    // Stopping saves what is unsaved, and says what it could not save.
    let report = store.stop().await?;
    assert!(report.unsaved.is_empty() && report.error.is_none(), "{report:?}");
    println!("The store has stopped; nothing is unsaved.");

    println!("It starts again.");
    let store = start(&directory).await?;
    let users_bucket = store.define_bucket(users()).await?;
    let cache_bucket = store.define_bucket(cache()).await?;

    let found = users_bucket.all().await?;
    assert_eq!(found, [Arc::clone(&ada), Arc::clone(&bob)], "the same records, metadata included, in the same order");
    println!("  {} users are back.", found.len());

    let admins = users_bucket.find(Filter::eq("role", "admin")).await?;
    assert_eq!(admins.len(), 1);
    println!("  The index on roles finds {} admin: user {:?}.", admins.len(), admins[0].key());

    let refused = users_bucket.insert(record! { "name": "Yet another Ada", "email": "ada@example.com" }).await;
    assert!(matches!(&refused, Err(Error::UniqueViolation { holder, .. }) if holder == ada.key()));
    println!("  Her e-mail address is still taken.");

    let eve = users_bucket.insert(record! { "name": "Eve", "email": "eve@example.com" }).await?;
    assert!(eve.key() > bob.key());
    println!("  Eve is user {:?}: numbers go on where they stood.", eve.key());

    assert!(cache_bucket.all().await?.is_empty());
    println!("  The cache is empty.");

    assert!(store.stop().await?.unsaved.is_empty());
    Ok(())
}
