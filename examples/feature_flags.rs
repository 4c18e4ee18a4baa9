//! Feature flags that survive a restart, and a cache of their evaluations that does not.
//!
//! ```text
//! cargo run --example feature_flags
//! ```
#![allow(clippy::print_stdout, reason = "an example tells what it does")]

use ractor_persistence::adapters::redb::RedbAdapter;
use ractor_persistence::base::durability::Durability;
use ractor_persistence::base::error::{Error, Result};
use ractor_persistence::base::value::Value;
use ractor_persistence::bucket::Bucket;
use ractor_persistence::record;
use ractor_persistence::records::{Access, BucketDefinition, Field, Filter, Patch};
use ractor_persistence::store::Store;

fn flags() -> BucketDefinition {
    BucketDefinition::new("flags")
        .key("name")
        .field("name", Field::string().pattern("^[a-z][a-z0-9-]*$"))
        .field("owner", Field::string().required())
        .field("enabled", Field::bool().default(false))
        .field("percent", Field::int().min(0).max(100).default(100))
        .field("rules", Field::object())
        .index(["owner", "enabled"])
}

/// What was worked out for a user is worth keeping for ten minutes, and not worth saving.
fn evaluations() -> BucketDefinition {
    BucketDefinition::new("evaluations")
        .key("id")
        .field("id", Field::string())
        .field("on", Field::bool().required())
        .ttl("10m")
        .max_size(10_000)
        .persistent(false)
}

struct Flags {
    flags: Bucket,
    evaluations: Bucket,
}

impl Flags {
    async fn open(store: &Store) -> Result<Self> {
        let (flags, evaluations) = (store.define_bucket(flags()).await?, store.define_bucket(evaluations()).await?);
        Ok(Self { flags, evaluations })
    }

    /// Whether a flag is on for a user: remembered, or worked out from the flag.
    async fn is_on(&self, flag: &str, user: u32) -> Result<bool> {
        let id = format!("{flag}/{user}");
        if let Some(known) = self.evaluations.get(&id).await? {
            return Ok(known.get("on").and_then(Value::as_bool).unwrap_or_default());
        }
        let on = match self.flags.get(flag).await? {
            None => false,
            Some(flag) => {
                let enabled = flag.get("enabled").and_then(Value::as_bool).unwrap_or_default();
                let percent = flag.get("percent").and_then(Value::as_i64).unwrap_or_default();
                enabled && i64::from(user % 100) < percent
            }
        };
        self.evaluations.upsert(record! { "id": id, "on": on }).await?;
        Ok(on)
    }

    /// Turns a flag on for a part of the users. What was remembered of it does not hold any more.
    async fn roll_out(&self, flag: &str, percent: i64) -> Result<()> {
        let patch = Patch::new().set("enabled", true).set("percent", percent).set("rules.note", "gradual");
        self.flags.with_durability(Durability::Fsync).patch(flag, patch).await?;
        let forgotten = self.evaluations.delete_many(Filter::prefix("id", format!("{flag}/"))).await?;
        println!("{flag} is on for {percent} % of the users; {forgotten} evaluations are forgotten.");
        Ok(())
    }
}

async fn start(directory: &std::path::Path) -> Result<Store> {
    Store::builder("flags").adapter(RedbAdapter::open(directory.join("flags.redb")).await?).start().await
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let store = start(directory.path()).await?;
    let flags = Flags::open(&store).await?;
    for (name, owner) in [("dark-mode", "web"), ("new-search", "search"), ("beta-api", "web")] {
        flags.flags.insert(record! { "name": name, "owner": owner }).await?;
    }
    let refused = flags.flags.insert(record! { "name": "Loud Name", "owner": "web", "percent": 120 }).await;
    let Err(Error::Validation { issues, .. }) = refused else { return Err("a flag without a proper name".into()) };
    for issue in &issues {
        println!("refused: {issue}");
    }
    assert_eq!(issues.len(), 2, "every fault is told at once");

    assert!(!flags.is_on("dark-mode", 7).await?);
    flags.roll_out("dark-mode", 50).await?;
    assert!(flags.is_on("dark-mode", 7).await?);
    assert!(!flags.is_on("dark-mode", 93).await?);
    assert_eq!(flags.evaluations.count(Filter::all()).await?, 2);
    assert!(store.stop().await?.unsaved.is_empty());
    println!("The store has stopped, and starts again.");

    let store = start(directory.path()).await?;
    let flags = Flags::open(&store).await?;
    let on_the_web = Filter::eq("owner", "web").and(Filter::eq("enabled", true));
    let explained = flags.flags.explain(on_the_web.clone()).await?;
    assert_eq!((explained.access, explained.index.as_deref()), (Access::Equality, Some("owner,enabled")));
    let found = flags.flags.find(on_the_web).await?;
    let names: Vec<String> = found.iter().map(|flag| flag.key().to_string()).collect();
    println!("On for the web team, found by the index {:?}: {names:?}", explained.index);
    assert_eq!(names, ["dark-mode"]);
    assert_eq!(found[0].get("rules.note"), Some(&"gradual".into()));
    assert!(flags.evaluations.all().await?.is_empty(), "the evaluations were opted out");
    assert!(flags.is_on("dark-mode", 7).await?, "and are worked out again");
    assert!(store.stop().await?.unsaved.is_empty());
    Ok(())
}
