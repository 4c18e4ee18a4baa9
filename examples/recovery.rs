//! Proving that an actor comes back: a till whose sales are in a bucket, crashed between any two of them.
//!
//! The check runs a script of messages once without interruption, then again from every moment at which the process could
//! have died, and compares what the actor answers. A till that answers before its sale is saved is caught.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, call};
use ractor_persistence::bucket::Bucket;
use ractor_persistence::record;
use ractor_persistence::records::{BucketDefinition, Field};
use ractor_persistence::store::Store;
use ractor_persistence::testkit::{Crashes, Failure, recovery_check};
use ractor_persistence::{Durability, Patch, Result, StorageAdapter};

/// Adds up what was sold.
struct Till;

enum TillMessage {
    /// A sale by its number: so many pieces of something. A number that comes again is the same sale.
    Sell(u32, &'static str, i64, RpcReplyPort<Result<()>>),
    /// How many pieces of everything were sold.
    Total(RpcReplyPort<Result<Vec<(String, i64)>>>),
}

#[cfg(feature = "cluster")]
impl ractor::Message for TillMessage {}

#[cfg_attr(feature = "async-trait", ractor::async_trait)]
impl Actor for Till {
    type Msg = TillMessage;
    type State = Bucket;
    type Arguments = Bucket;

    async fn pre_start(&self, _: ActorRef<TillMessage>, sold: Bucket) -> Result<Bucket, ActorProcessingErr> {
        Ok(sold)
    }

    async fn handle(
        &self,
        _: ActorRef<TillMessage>,
        message: TillMessage,
        sold: &mut Bucket,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            TillMessage::Sell(sale, item, pieces, reply) => reply.send(sell(sold, sale, item, pieces).await)?,
            TillMessage::Total(reply) => reply.send(total(sold).await)?,
        }
        Ok(())
    }
}

async fn sell(sold: &Bucket, sale: u32, item: &str, pieces: i64) -> Result<()> {
    if sold.get(item).await?.is_none() {
        sold.upsert(record! { "item": item, "pieces": 0 }).await?;
    }
    let once = sold.with_request_id(format!("sale {sale}"));
    once.patch(item, Patch::new().increment("pieces", pieces)).await?;
    Ok(())
}

async fn total(sold: &Bucket) -> Result<Vec<(String, i64)>> {
    let pieces =
        |value: Option<&ractor_persistence::Value>| value.and_then(|pieces| pieces.as_i64()).unwrap_or_default();
    let all = sold.all().await?;
    Ok(all.iter().map(|record| (record.key().to_string(), pieces(record.get("pieces")))).collect())
}

/// The application: a store, and a till on it.
struct Shop {
    _store: Store,
    till: ActorRef<TillMessage>,
}

async fn open(adapter: Arc<dyn StorageAdapter>, durability: Durability) -> Result<Shop, Failure> {
    let store = Store::builder("shop").shared_adapter(adapter).start().await?;
    let sold = BucketDefinition::new("sold").key("item").field("item", Field::string()).field("pieces", Field::int());
    let sold = store.define_bucket(sold).await?.with_durability(durability);
    let (till, _) = Actor::spawn(Some("till".to_owned()), Till, sold).await?;
    Ok(Shop { _store: store, till })
}

fn main() -> Result<(), Failure> {
    let script = [(1, "tea", 2), (2, "milk", 1), (3, "tea", 5)];
    let sell = async |shop: &Shop, (sale, item, pieces): &(u32, &'static str, i64)| -> Result<(), Failure> {
        Ok(call!(shop.till, TillMessage::Sell, *sale, *item, *pieces)??)
    };
    let total = async |shop: &Shop| -> Result<_, Failure> { Ok(call!(shop.till, TillMessage::Total)??) };

    let safe = async |adapter| open(adapter, Durability::Fsync).await;
    let recovered = recovery_check(Crashes::AtEveryCommit, &script, safe, sell, total)?;
    assert!(recovered.crashes > script.len(), "{recovered:?}");

    let hasty = async |adapter| open(adapter, Durability::Ram).await;
    let Err(broken) = recovery_check(Crashes::BetweenSteps, &script, hasty, sell, total) else {
        return Err("a till that answers before its sale is saved has passed".into());
    };
    assert!(broken.to_string().contains("after step 1"), "{broken}");
    Ok(())
}
