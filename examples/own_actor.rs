//! An actor of your own that keeps its state: it is killed in the middle of its work and started again, the store is
//! stopped and started on the same file, and the count goes on where it stopped.
//!
//! ```text
//! cargo run --example own_actor
//! ```
#![allow(clippy::print_stdout, reason = "an example tells what it does")]

use std::path::Path;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, call};
use ractor_persistence::adapters::redb::RedbAdapter;
use ractor_persistence::durable::DurableOptions;
use ractor_persistence::{Durable, Error, Result, Store};
use serde::{Deserialize, Serialize};

/// What the actor keeps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Visits {
    count: u64,
    last: Option<String>,
}

/// Counts visits. Nothing about it is special but its state.
struct Counter;

enum CounterMessage {
    /// Counts a visit, and answers once that is on disk.
    Visit(String, RpcReplyPort<u64>),
}

#[cfg(feature = "cluster")]
impl ractor::Message for CounterMessage {}

#[cfg_attr(feature = "async-trait", ractor::async_trait)]
impl Actor for Counter {
    type Msg = CounterMessage;
    type State = Durable<Visits>;
    type Arguments = (Store, String);

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        (store, name): Self::Arguments,
    ) -> std::result::Result<Self::State, ActorProcessingErr> {
        // What was stored, or `Visits::default()`. A predecessor that was killed, and may still run, is locked out.
        Ok(store.durable(&name, DurableOptions::default()).await?)
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        CounterMessage::Visit(visitor, reply): Self::Msg,
        visits: &mut Self::State,
    ) -> std::result::Result<(), ActorProcessingErr> {
        let count = visits.update(|visits| {
            visits.count += 1;
            visits.last = Some(visitor);
            visits.count
        })?;
        // Not in the handler's turn: the next visit need not wait for the disk, and shares its commit.
        let visits = visits.clone();
        tokio::spawn(async move {
            match visits.persist().await {
                // Whoever asked may be gone.
                Ok(()) => drop(reply.send(count)),
                // Without an answer, the visitor knows that the visit may be lost.
                Err(error) => println!("visit {count} is not on disk yet: {}", error.report()),
            }
        });
        Ok(())
    }
}

async fn start(file: &Path) -> Result<Store> {
    Store::builder("site").adapter(RedbAdapter::open(file).await?).start().await
}

async fn counter(store: &Store) -> Result<ActorRef<CounterMessage>> {
    let spawned = Actor::spawn(None, Counter, (store.clone(), "counter-1".to_owned())).await;
    let (actor, _ended) = spawned.map_err(|error| Error::permanent("starting the counter", error))?;
    Ok(actor)
}

async fn visit(counter: &ActorRef<CounterMessage>, visitor: &str) -> Result<u64> {
    let answer = call!(counter, CounterMessage::Visit, visitor.to_owned());
    answer.map_err(|error| Error::permanent("a visit", error))
}

async fn tour(file: &Path) -> Result<()> {
    let store = start(file).await?;
    let first = counter(&store).await?;
    assert_eq!(visit(&first, "Ada").await?, 1);
    assert_eq!(visit(&first, "Bob").await?, 2);

    // Killed, and started again by whoever supervises it.
    let killed = first.get_cell().kill_and_wait(None).await;
    killed.map_err(|error| Error::permanent("killing the counter", error))?;
    let second = counter(&store).await?;
    assert_eq!(visit(&second, "Cleo").await?, 3);
    println!("the actor was killed and counts on: 3 visits");

    let report = store.stop().await?;
    assert!(report.unsaved.is_empty());
    // The store has stopped: nothing is accepted that it could not save.
    second.stop(None);

    let store = start(file).await?;
    let third = counter(&store).await?;
    assert_eq!(visit(&third, "Dora").await?, 4);
    let visits: Durable<Visits> = store.durable("counter-1", DurableOptions::default()).await?;
    assert_eq!(visits.get(), Visits { count: 4, last: Some("Dora".to_owned()) });
    println!("the store was stopped and started, and it counts on: {} visits", visits.read(|visits| visits.count));
    third.stop(None);
    store.stop().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let directory = std::env::temp_dir().join(format!("ractor-persistence-own-actor-{}", std::process::id()));
    std::fs::create_dir_all(&directory).map_err(|error| Error::permanent("making a directory", error))?;
    let outcome = tour(&directory.join("site.redb")).await;
    std::fs::remove_dir_all(&directory).map_err(|error| Error::permanent("cleaning up", error))?;
    outcome
}
