//! A disk that fails for a while: what the store says of it, and that nothing is lost.
//!
//! The disk is a redb file behind the test kit's `FaultAdapter`, which fails on demand.
//!
//! ```text
//! cargo run --example faults --features testkit
//! ```
#![allow(clippy::print_stdout, clippy::panic, reason = "an example tells what it does, and fails if that is not so")]

use std::time::Duration;

use ractor_persistence::adapters::redb::RedbAdapter;
use ractor_persistence::bus::Delivery;
use ractor_persistence::persistence::{Backoff, Health, PersistenceEvent, PersistenceOutcome};
use ractor_persistence::testkit::{Fault, FaultAdapter, Operation};
use ractor_persistence::{
    BucketDefinition, Durability, Error, Field, Filter, Generated, PersistenceOptions, Result, Store, record,
};

fn orders() -> BucketDefinition {
    BucketDefinition::new("orders")
        .key("id")
        .field("id", Field::int().generated(Generated::Autoincrement))
        .field("item", Field::string().required())
}

fn no_space() -> Error {
    Error::transient("commit", std::io::Error::from(std::io::ErrorKind::StorageFull))
}

fn tell(what: &str, health: &Health) {
    match health {
        Health::Degraded(state) => {
            let unsaved = (state.unsaved_subjects.len(), state.unsaved_bytes);
            println!("{what}: {:?}, {} bucket(s) with about {} bytes unsaved", state.reason, unsaved.0, unsaved.1);
            println!("    because of: {}", state.last_error.report());
        }
        other => println!("{what}: {other:?}"),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let directory = std::env::temp_dir().join(format!("faults-{}", std::process::id()));
    std::fs::create_dir_all(&directory).map_err(|error| Error::transient("making the directory", error))?;
    let file = directory.join("shop.redb");

    let disk = FaultAdapter::new(RedbAdapter::open(&file).await?);
    let faults = disk.faults();
    let retry = Backoff::new(Duration::from_millis(10), Duration::from_millis(100));
    let store = Store::builder("shop")
        .adapter(disk)
        .persistence(PersistenceOptions::default().with_debounce(Duration::from_millis(20)).with_retry(retry))
        .on_error(|failure| println!("    told by the callback: {failure}"))
        .start()
        .await?;
    let bucket = store.define_bucket(orders()).await?;
    let mut events = store.subscribe("persistence.orders.*")?;
    bucket.insert(record! { "item": "tea" }).await?;
    store.flush().await?;
    tell("with a disk that works", &store.health());
    assert!(store.health().is_healthy());

    // The disk is full. Writes go on, in memory; whoever asks for durability is told the truth.
    faults.inject(Fault::fail(no_space()).on(Operation::Commit));
    bucket.insert(record! { "item": "cups" }).await?;
    let durable = bucket.with_durability(Durability::Fsync);
    let refused = durable.insert(record! { "item": "pot" }).await;
    assert!(matches!(refused, Err(Error::NotSaved { .. })), "{refused:?}");
    bucket.insert(record! { "item": "spoons" }).await?;
    tell("with a full disk", &store.health());
    let Health::Degraded(state) = store.health() else { panic!("a failure goes unnoticed") };
    assert_eq!(state.unsaved_subjects.len(), 1);
    assert_eq!(bucket.count(Filter::all()).await?, 4, "everything is in memory, and answered from there");

    // There is room again. Nobody does anything about it but the store itself.
    faults.heal();
    loop {
        let Some(Delivery::Event(event)) = events.recv().await else { panic!("the events have ended") };
        match event.payload::<PersistenceEvent>().map(|event| &event.outcome) {
            Some(PersistenceOutcome::Saved { revision: 4 }) => break,
            Some(PersistenceOutcome::Failed { attempt, .. }) => println!("    attempt {attempt} had failed"),
            _ => {}
        }
    }
    tell("with room on the disk", &store.health());
    assert!(store.health().is_healthy());
    let stats = store.stats().await.persistence;
    assert!(stats.unsaved.is_empty() && stats.failed_commits > 0);
    println!("{} commits succeeded, {} failed", stats.commits, stats.failed_commits);

    // A process that ended now, however it does, would find everything.
    let report = store.stop().await?;
    assert!(report.unsaved.is_empty(), "{report:?}");
    let store = Store::builder("shop").adapter(RedbAdapter::open(&file).await?).start().await?;
    let bucket = store.define_bucket(orders()).await?;
    assert_eq!(bucket.count(Filter::all()).await?, 4);
    println!("all 4 orders are on the disk");
    store.stop().await?;
    std::fs::remove_dir_all(&directory).map_err(|error| Error::transient("removing the directory", error))
}
