//! Two processes and one PostgreSQL database: the second one takes a store over, and the first one, which does not know
//! yet, cannot overwrite what the second has written.
//!
//! `DATABASE_URL=postgres://… cargo run --features postgres --example postgres`
//!
//! Without `DATABASE_URL` it runs on a throwaway server of this machine, if PostgreSQL is installed. It uses the schema
//! `ractor_persistence_example`, and a store of its own in it, whose bucket it drops in the end.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::process::Command;

use ractor_persistence::adapters::postgres::{PostgresAdapter, PostgresOptions};
use ractor_persistence::persistence::Health;
use ractor_persistence::{BucketDefinition, Durability, Error, Field, Filter, Generated, Store, record};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// What the second process is told: the store's name. The URL comes the way the first one got it, because what stands
/// in a command line is seen by everybody on the machine.
const SUCCESSOR: &str = "--successor";

fn orders() -> BucketDefinition {
    BucketDefinition::new("orders")
        .key("id")
        .field("id", Field::int().generated(Generated::Autoincrement))
        .field("what", Field::string().required())
        .field("by", Field::string().required())
}

async fn connect(url: &str) -> ractor_persistence::Result<PostgresAdapter> {
    let options = PostgresOptions::default().with_schema("ractor_persistence_example").with_connections(2);
    PostgresAdapter::connect_with(url, options).await
}

/// The server to use, or why there is none.
fn server() -> Outcome<String> {
    if let Ok(url) = std::env::var("DATABASE_URL") {
        return Ok(url);
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/postgres");
    // It goes away when this process has ended.
    let output = Command::new(script).args(["share", &std::process::id().to_string()]).output()?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?.trim().to_owned());
    }
    let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("set DATABASE_URL to postgres://user:password@host/database; no throwaway server: {reason}").into())
}

/// The second process: it finds what the first one has saved, and goes on from there.
async fn succeed(url: &str, name: &str) -> Outcome {
    let store = Store::builder(name).adapter(connect(url).await?).start().await?;
    let orders = store.define_bucket(orders()).await?.with_durability(Durability::Fsync);
    assert_eq!(orders.count(Filter::eq("by", "the first")).await?, 2);
    let order = orders.insert(record! { "what": "tea", "by": "the second" }).await?;
    assert_eq!(order.get("id").and_then(|id| id.as_i64()), Some(3), "the counter goes on as well");
    assert!(store.stop().await?.unsaved.is_empty());
    println!("second process: took over, found 2 orders, added a third");
    Ok(())
}

async fn run(url: &str, name: &str) -> Outcome {
    let store = Store::builder(name).adapter(connect(url).await?).start().await?;
    let bucket = store.define_bucket(orders()).await?.with_durability(Durability::Fsync);
    bucket.insert(record! { "what": "coffee", "by": "the first" }).await?;
    bucket.insert(record! { "what": "cake", "by": "the first" }).await?;
    println!("first process: two orders are in the database");

    let this = std::env::current_exe()?;
    let successor = Command::new(this).args([SUCCESSOR, name]).env("DATABASE_URL", url).status()?;
    assert!(successor.success(), "the second process failed: {successor}");

    // This one was presumed dead and is not. What it has in memory is old, and none of it gets into the database.
    let late = bucket.update(1, record! { "what": "decaf" }).await;
    let Err(Error::NotSaved { source, .. }) = late else { return Err(format!("not refused: {late:?}").into()) };
    assert!(matches!(*source, Error::Fenced { .. }), "{source}");
    assert!(matches!(store.health(), Health::Fenced));
    println!("first process: {source}");
    let report = store.stop().await?;
    assert_eq!(report.unsaved.len(), 1, "what could not be saved is named");

    let store = Store::builder(name).adapter(connect(url).await?).start().await?;
    let bucket = store.define_bucket(orders()).await?;
    let mut found = Vec::new();
    for order in bucket.all().await? {
        found.push(order.get("what").and_then(|what| what.as_str()).unwrap_or_default().to_owned());
    }
    assert_eq!(found, ["coffee", "cake", "tea"]);
    println!("in the database: {}", found.join(", "));
    store.drop_bucket("orders").await?;
    store.stop().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let url = server()?;
    match arguments.as_slice() {
        [] => run(&url, &format!("shop {}", uuid::Uuid::new_v4())).await,
        [flag, name] if flag == SUCCESSOR => succeed(&url, name).await,
        other => Err(format!("takes no arguments, was given {other:?}").into()),
    }
}
