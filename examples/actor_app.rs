//! A store inside an application's own supervision tree.
//!
//! ```text
//! Shop (supervisor) ─┬─ the store ── bucket "orders", persister, …
//!                    ├─ Clerk     takes orders and writes them into the bucket
//!                    └─ Auditor   hears of every change of the bucket
//! ```
//!
//! The shop opens, takes orders, closes, and opens again: the orders are still there.
//!
//! ractor's features `async-trait` and `cluster` change the shape of its traits. This file compiles with any of them,
//! so it says `cfg_attr` and `cfg` where your application, which knows what it has turned on, needs one form only:
//! `#[ractor::async_trait]` above each `impl Actor` with the first, `impl ractor::Message for … {}` with the second,
//! neither with none of them.
#![allow(clippy::print_stdout)]

use std::path::{Path, PathBuf};

use ractor::{Actor, ActorProcessingErr, ActorRef, ActorStatus, RpcReplyPort, SupervisionEvent, call, cast};
use ractor_persistence::adapters::redb::RedbAdapter;
use ractor_persistence::base::error::Error;
use ractor_persistence::bucket::{Bucket, BucketMessage};
use ractor_persistence::bus::{Delivery, Pattern, Permit, SubscriptionGuard};
use ractor_persistence::record;
use ractor_persistence::records::{BucketDefinition, BucketEvent, Field, Filter, Generated, Write};
use ractor_persistence::store::Store;

// ---- the clerk: an actor that works with a bucket by messages

struct Clerk;

enum ClerkMessage {
    /// Takes an order, and answers its number.
    Take(&'static str, RpcReplyPort<i64>),
    /// An order is on its way to the customer. Nobody waits for this.
    Ship(i64),
}

#[cfg(feature = "cluster")]
impl ractor::Message for ClerkMessage {}

#[cfg_attr(feature = "async-trait", ractor::async_trait)]
impl Actor for Clerk {
    type Msg = ClerkMessage;
    type State = Bucket;
    type Arguments = Bucket;

    async fn pre_start(&self, _: ActorRef<ClerkMessage>, orders: Bucket) -> Result<Bucket, ActorProcessingErr> {
        Ok(orders)
    }

    async fn handle(
        &self,
        _: ActorRef<ClerkMessage>,
        message: ClerkMessage,
        orders: &mut Bucket,
    ) -> Result<(), ActorProcessingErr> {
        // A bucket is an actor like any other. It is a new one after a restart, so its address is asked for each time.
        let bucket = orders.actor().await?;
        match message {
            ClerkMessage::Take(item, reply) => {
                let order = call!(bucket, BucketMessage::Insert, record! { "item": item })??;
                reply.send(order.key().as_value().as_i64().ok_or("orders have numbers")?)?;
            }
            ClerkMessage::Ship(order) => {
                let shipped = Write::Update(order.into(), record! { "state": "shipped" });
                cast!(bucket, BucketMessage::Post(shipped.into()))?;
            }
        }
        Ok(())
    }
}

// ---- the auditor: an actor that hears of changes

struct Auditor;

enum AuditorMessage {
    /// Something happened to the orders. The permit goes when the message has been handled: that is how the bus learns
    /// that the auditor keeps up.
    Heard(Delivery, #[allow(dead_code, reason = "it is there to be dropped")] Permit),
    /// Answers what was heard so far.
    Report(RpcReplyPort<Vec<String>>),
}

#[cfg(feature = "cluster")]
impl ractor::Message for AuditorMessage {}

struct Audit {
    heard: Vec<String>,
    /// The subscription ends when this is dropped.
    _subscription: SubscriptionGuard,
}

#[cfg_attr(feature = "async-trait", ractor::async_trait)]
impl Actor for Auditor {
    type Msg = AuditorMessage;
    type State = Audit;
    type Arguments = Store;

    async fn pre_start(&self, myself: ActorRef<AuditorMessage>, store: Store) -> Result<Audit, ActorProcessingErr> {
        let changes = Pattern::parse("bucket.orders.*")?;
        let subscription = store
            .bus()
            .subscribe_actor(changes, myself, |arrived| Some(AuditorMessage::Heard(arrived.delivery, arrived.permit)));
        Ok(Audit { heard: Vec::new(), _subscription: subscription })
    }

    async fn handle(
        &self,
        _: ActorRef<AuditorMessage>,
        message: AuditorMessage,
        audit: &mut Audit,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            AuditorMessage::Heard(Delivery::Event(event), _) => {
                if let Some(BucketEvent { revision, change, .. }) = event.payload() {
                    audit.heard.push(format!("{} (revision {revision})", change.kind()));
                }
            }
            AuditorMessage::Heard(Delivery::Lagged(missed), _) => audit.heard.push(format!("{missed} missed")),
            AuditorMessage::Report(reply) => reply.send(audit.heard.clone())?,
        }
        Ok(())
    }
}

// ---- the shop: the supervisor of all of them

struct Shop;

struct ShopState {
    store: Store,
    clerk: ActorRef<ClerkMessage>,
    auditor: ActorRef<AuditorMessage>,
}

enum ShopMessage {
    /// Answers whom to talk to.
    Staff(RpcReplyPort<(Store, ActorRef<ClerkMessage>, ActorRef<AuditorMessage>)>),
}

#[cfg(feature = "cluster")]
impl ractor::Message for ShopMessage {}

#[cfg_attr(feature = "async-trait", ractor::async_trait)]
impl Actor for Shop {
    type Msg = ShopMessage;
    type State = ShopState;
    type Arguments = PathBuf;

    async fn pre_start(&self, myself: ActorRef<ShopMessage>, file: PathBuf) -> Result<ShopState, ActorProcessingErr> {
        // The store is a child of the shop, and restarts its own children by itself.
        let store = Store::builder("shop").adapter(RedbAdapter::open(file).await?);
        let store = store.spawn_linked(myself.get_cell()).await?;
        let orders = BucketDefinition::new("orders")
            .key("number")
            .field("number", Field::int().generated(Generated::Autoincrement))
            .field("item", Field::string().required())
            .field("state", Field::string().default("open"))
            .index(["state"]);
        let orders = store.define_bucket(orders).await?;
        let (auditor, _) = Actor::spawn_linked(None, Auditor, store.clone(), myself.get_cell()).await?;
        let (clerk, _) = Actor::spawn_linked(None, Clerk, orders, myself.get_cell()).await?;
        Ok(ShopState { store, clerk, auditor })
    }

    async fn handle(
        &self,
        _: ActorRef<ShopMessage>,
        message: ShopMessage,
        state: &mut ShopState,
    ) -> Result<(), ActorProcessingErr> {
        let ShopMessage::Staff(reply) = message;
        reply.send((state.store.clone(), state.clerk.clone(), state.auditor.clone()))?;
        Ok(())
    }

    /// ractor's default stops the shop when any child ends. A child that was stopped, as the store is by `Store::stop`, is
    /// no reason to close; one that was killed or has failed is.
    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<ShopMessage>,
        event: SupervisionEvent,
        _: &mut ShopState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(_, _, reason) if reason.as_deref() != Some("killed") => {}
            SupervisionEvent::ActorTerminated(..) | SupervisionEvent::ActorFailed(..) => myself.stop(None),
            _ => {}
        }
        Ok(())
    }

    /// A supervisor that merely stops kills its children, and what the clerk has not come to by then is lost. So the
    /// clerk finishes what it was given, and then the children are stopped and waited for: the store saves everything
    /// before it ends.
    async fn post_stop(&self, myself: ActorRef<ShopMessage>, state: &mut ShopState) -> Result<(), ActorProcessingErr> {
        // One that is dead already has nothing left to finish.
        let _dead = state.clerk.drain_and_wait(None).await;
        myself.stop_children_and_wait(None, None).await;
        // A store whose own actor was killed is no child any more, and is saved by this; others answer what they answered
        // when they were stopped.
        let report = state.store.stop().await?;
        if report.unsaved.is_empty() { Ok(()) } else { Err("not everything is saved".into()) }
    }
}

/// A store that is stopped while the shop is open does not close it.
async fn stop_the_store(directory: &Path) -> Result<(), ActorProcessingErr> {
    let (shop, closed) = Actor::spawn(Some("shop".to_owned()), Shop, directory.join("shop.redb")).await?;
    let (store, clerk, auditor) = call!(shop, ShopMessage::Staff)?;
    store.stop().await?;
    // The shop has heard of the end before it answers this.
    call!(shop, ShopMessage::Staff)?;
    assert!(call!(auditor, AuditorMessage::Report)?.is_empty());
    assert!(matches!(store.bucket("orders"), Err(Error::Stopping)));
    assert_eq!(clerk.get_status(), ActorStatus::Running);
    shop.stop(None);
    closed.await?;
    Ok(())
}

/// One run of the application: takes three orders and ships the first. Answers how many orders it found when it opened,
/// and how many of them were shipped.
async fn run(directory: &Path) -> Result<(usize, usize), ActorProcessingErr> {
    let (shop, closed) = Actor::spawn(Some("shop".to_owned()), Shop, directory.join("shop.redb")).await?;
    let (store, clerk, auditor) = call!(shop, ShopMessage::Staff)?;
    let orders = store.bucket("orders")?;
    let found = (orders.count(Filter::all()).await?, orders.count(Filter::eq("state", "shipped")).await?);
    println!("The shop opens. It has {} orders, {} of them shipped.", found.0, found.1);

    let tea = call!(clerk, ClerkMessage::Take, "tea")?;
    let pot = call!(clerk, ClerkMessage::Take, "teapot")?;
    cast!(clerk, ClerkMessage::Ship(tea))?;
    // The clerk handles messages in their order, and so does the bucket: the shipping comes before this order.
    let spoon = call!(clerk, ClerkMessage::Take, "spoon")?;
    println!("  The clerk took the orders {tea}, {pot} and {spoon}.");
    assert_eq!((pot, spoon), (tea + 1, tea + 2));

    // Every subscriber has a change in its mailbox before the writer has its answer.
    let heard = call!(auditor, AuditorMessage::Report)?;
    println!("  The auditor heard of {heard:?}.");
    assert_eq!(heard.len(), 4);

    shop.stop(None);
    closed.await?;
    println!("The shop is closed.");
    Ok(found)
}

#[tokio::main]
async fn main() -> Result<(), ActorProcessingErr> {
    let directory = tempfile::tempdir()?;
    assert_eq!(run(directory.path()).await?, (0, 0));
    assert_eq!(run(directory.path()).await?, (3, 1), "everything of the first run is there");
    stop_the_store(directory.path()).await?;
    Ok(())
}
