//! Does what was handed over reach the disk together, while commits fail, are applied and yet fail, and are retried?

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ractor_persistence::adapters::memory::MemoryAdapter;
use ractor_persistence::base::name::{BucketKey, BucketName, ChannelId, ChannelKey, MessageId, StoreName, Subject};
use ractor_persistence::persistence::{Capabilities, Commit, Epoch, Save, StorageAdapter};
use ractor_persistence::records::{BucketChange, BucketSnapshot};
use ractor_persistence::sds::{ChannelData, ChannelMeta, HistoryUpdate};
use ractor_persistence::testkit::{Fault, FaultAdapter, Operation};
use ractor_persistence::{Durability, Durable, Error, Result, Store, record};

use crate::world::*;

/// Looks, after every commit, at all that is stored: what a crash at this moment would leave.
#[derive(Clone, Default)]
struct Looking {
    memory: MemoryAdapter,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    durable_values: Option<BucketName>,
    /// At which numbers the disk has stood.
    stood: BTreeSet<i64>,
    torn: Vec<String>,
}

impl Looking {
    async fn number(&self, store: &StoreName, bucket: BucketName, key: &str, field: &str) -> i64 {
        let snapshot = self.memory.load_bucket(&BucketKey::new(store.clone(), bucket)).await.unwrap();
        let records = snapshot.map(|snapshot| snapshot.records).unwrap_or_default();
        let record = records.iter().find(|record| *record.key() == key.into());
        record.and_then(|record| record.get(field)?.as_i64()).unwrap_or(0)
    }

    async fn look(&self, store: &StoreName) {
        let Some(reserved) = self.seen.lock().unwrap().durable_values.clone() else { return };
        let value = self.number(store, reserved, "number", "value").await;
        let ledger = self.number(store, BucketName::new("ledger").unwrap(), "last", "number").await;
        let channel = ChannelKey::new(store.clone(), ChannelId::new("orders").unwrap());
        let data = self.memory.load_channel(&channel).await.unwrap();
        let last = |ids: Vec<&MessageId>| {
            let numbers = ids.into_iter().filter_map(|id| id.as_str()?.strip_prefix('m')?.parse::<i64>().ok());
            numbers.max().unwrap_or(0)
        };
        let sent = last(data.message_history.iter().map(|message| &message.message_id).collect());
        let outgoing = last(data.meta.outgoing.iter().map(|out| &out.message.message_id).collect());
        let mut seen = self.seen.lock().unwrap();
        if [ledger, sent, outgoing].iter().any(|number| *number != value) {
            seen.torn.push(format!("value {value}, ledger {ledger}, history {sent}, outgoing {outgoing}"));
        }
        seen.stood.insert(value);
    }
}

#[async_trait]
impl StorageAdapter for Looking {
    fn capabilities(&self) -> Capabilities {
        self.memory.capabilities()
    }

    async fn save_bucket(&self, bucket: &BucketKey, change: &BucketChange) -> Result<()> {
        self.memory.save_bucket(bucket, change).await
    }

    async fn load_bucket(&self, bucket: &BucketKey) -> Result<Option<BucketSnapshot>> {
        self.memory.load_bucket(bucket).await
    }

    async fn drop_bucket(&self, bucket: &BucketKey) -> Result<()> {
        self.memory.drop_bucket(bucket).await
    }

    async fn save_channel_meta(&self, channel: &ChannelKey, meta: &ChannelMeta) -> Result<()> {
        self.memory.save_channel_meta(channel, meta).await
    }

    async fn update_history(&self, channel: &ChannelKey, update: &HistoryUpdate) -> Result<()> {
        self.memory.update_history(channel, update).await
    }

    async fn load_channel(&self, channel: &ChannelKey) -> Result<ChannelData> {
        self.memory.load_channel(channel).await
    }

    async fn drop_channel(&self, channel: &ChannelKey) -> Result<()> {
        self.memory.drop_channel(channel).await
    }

    async fn set_retrieval_hint(&self, channel: &ChannelKey, message: &MessageId, hint: &[u8]) -> Result<()> {
        self.memory.set_retrieval_hint(channel, message, hint).await
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        for save in &commit.saves {
            if let Save::Bucket(name, _) = save
                && name.is_reserved()
            {
                self.seen.lock().unwrap().durable_values.get_or_insert_with(|| name.clone());
            }
        }
        let outcome = self.memory.commit(commit).await;
        self.look(&commit.store).await;
        outcome
    }

    async fn claim(&self, store: &StoreName) -> Result<Epoch> {
        self.memory.claim(store).await
    }

    async fn close(&self, store: &StoreName) -> Result<()> {
        self.memory.close(store).await
    }
}

fn subjects() -> [Subject; 2] {
    [Subject::Bucket(BucketName::new("ledger").unwrap()), Subject::Channel(ChannelId::new("orders").unwrap())]
}

/// Hands over at two levels at once, while each participant also changes by itself; answers how often it was handed over.
async fn load(store: &Store, hands: &Hands, seed: u64) {
    println!("seed {seed}");
    let aside: Durable<i64> = store.durable("aside", Default::default()).await.unwrap();
    let mut random = Random(seed);
    for _ in 0..150 {
        match random.below(8) {
            0 => aside.update(|number| *number += 1).unwrap(),
            1 => drop(hands.orders.wrap_new("aside").await.unwrap()),
            2 => drop(hands.ledger.upsert(record! { "id": "aside", "number": 1 }).await.unwrap()),
            3 => match hands.hand_over(Durability::Fsync).await {
                Ok(message) => assert!(message.bytes().is_some()),
                Err(Error::NotSaved { .. }) => {}
                Err(error) => panic!("{error:?}"),
            },
            4 => tokio::time::sleep(Duration::from_micros(random.below(2_000))).await,
            _ => drop(hands.hand_over(Durability::Ram).await.unwrap()),
        }
        tokio::task::yield_now().await;
    }
}

async fn saved_whole(debounce: Duration, seed: u64, faults: impl Fn(&ractor_persistence::testkit::Faults)) {
    let looking = Looking::default();
    let adapter = FaultAdapter::new(looking.clone());
    let controls = adapter.faults();
    let store = Store::builder("shop").adapter(adapter).persistence(options(debounce)).start().await.unwrap();
    let hands = Hands::open(&store).await;
    faults(&controls);
    load(&store, &hands, seed).await;
    controls.heal();
    let number = hands.stand().await;
    assert!(store.stop().await.unwrap().unsaved.is_empty());
    {
        let seen = looking.seen.lock().unwrap();
        assert!(seen.torn.is_empty(), "torn after a commit: {:?}", seen.torn);
        assert!(seen.stood.len() > 3 && seen.stood.last() == Some(&number), "{:?}", seen.stood);
    }
    let store = start(looking.memory).await;
    assert_eq!(Hands::open(&store).await.stand().await, number);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_commit_holds_a_part_of_a_hand_over() {
    for (debounce, seed) in [(Duration::ZERO, 1), (Duration::from_micros(500), 2)] {
        saved_whole(debounce, seed, |_| {}).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_commit_holds_a_part_of_a_hand_over_while_commits_fail_for_one_of_the_participants() {
    for seed in 3..7 {
        saved_whole(Duration::ZERO, seed, |faults| {
            for (at, subject) in (0..).zip(subjects()) {
                let fault = Fault::fail(permanent()).on(Operation::Commit).touching(subject);
                faults.inject(fault.at_random(seed + at, 0.4));
            }
            faults.inject(Fault::fail(transient()).on(Operation::Commit).at_random(seed + 9, 0.1));
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_commit_holds_a_part_of_a_hand_over_while_answers_of_commits_are_lost() {
    for seed in 7..10 {
        saved_whole(Duration::ZERO, seed, |faults| {
            let lost = || Error::unknown("commit", std::io::Error::other("on purpose"));
            faults.inject(Fault::apply_then_fail(lost()).on(Operation::Commit).at_random(seed, 0.3));
            faults.inject(Fault::apply_then_fail(permanent()).on(Operation::Commit).at_random(seed + 1, 0.2));
        })
        .await;
    }
}
