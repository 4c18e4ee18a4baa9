//! Everything at once: peers' packets, messages of ours, transactions over two channels joined in either order, channels
//! that are closed, dropped and opened again, actors that are killed, commits that fail. Nothing hangs, what was answered
//! is there at last, and each message is told once. Without it two of these that are each right would undo each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ractor_persistence::base::durability::Durability;
use ractor_persistence::base::error::{Error, Result};
use ractor_persistence::bucket::Retry;
use ractor_persistence::channel::{Channel, ChannelDelivery};
use ractor_persistence::sds::{ChannelEvent, ChannelOptions, HistoryEntry, SdsMessage, WireFormat, encode};
use ractor_persistence::store::Store;
use ractor_persistence::testkit::{Fault, Operation};

use crate::restarts::Tree;
use crate::support::{faulty, history_ids, start, transient};

const ROOMS: [&str; 3] = ["a", "b", "c"];

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn room(&mut self) -> &'static str {
        ROOMS[usize::try_from(self.below(3)).unwrap()]
    }
}

fn options(durability: Durability) -> ChannelOptions {
    let day = Duration::from_secs(86_400);
    ChannelOptions::default()
        .with_participant("us")
        .with_bloom_capacity(100)
        .with_max_history(100_000)
        .with_max_outgoing(100_000)
        .with_max_causal_history(1)
        .with_resend_interval(day)
        .with_sync_interval(Some(Duration::from_millis(20)))
        .with_durability(durability)
}

/// From a peer that knows of nothing: no filter, so that it acknowledges nothing.
fn packet(room: &str, id: &str, cause: Option<&str>) -> bytes::Bytes {
    let mut message = SdsMessage::default();
    message.message_id = id.into();
    message.lamport_timestamp = 5;
    message.causal_history = cause.into_iter().map(HistoryEntry::new).collect();
    message.channel_id = bytes::Bytes::copy_from_slice(room.as_bytes());
    message.content = bytes::Bytes::from_static(b"content");
    encode(WireFormat::NimSds, &message)
}

/// What is to be there at last, by room.
#[derive(Default)]
struct Expected {
    answered: BTreeMap<&'static str, BTreeSet<String>>,
    /// Pairs of a transaction, whatever it answered.
    pairs: Vec<(&'static str, &'static str, String)>,
}

struct World {
    store: Store,
    durability: Durability,
    drops: bool,
    expected: Mutex<Expected>,
    numbers: AtomicU64,
    /// What each worker waits for.
    doing: Mutex<BTreeMap<u64, String>>,
}

/// What may be answered while others end channels and kill actors.
fn is_expected(error: &Error) -> bool {
    let of_others = matches!(error, Error::UnknownChannel { .. } | Error::ActorLost { .. } | Error::Conflict { .. });
    of_others || matches!(error, Error::Transient { .. } | Error::NotSaved { .. })
}

impl World {
    async fn open(&self, room: &str) -> Result<Channel> {
        // What does not come to an end is noticed, however slow the machine is.
        let channel = self.store.open_channel(room, options(self.durability)).await?;
        Ok(channel.with_timeout(Duration::from_secs(3_600)))
    }

    /// Done, and to be there at last, where it is not known to have left no trace.
    fn expect(&self, room: &'static str, id: &str, outcome: &Result<()>) {
        match outcome {
            Ok(()) | Err(Error::NotSaved { .. }) => {
                self.expected.lock().unwrap().answered.entry(room).or_default().insert(id.to_owned());
            }
            Err(error) => assert!(is_expected(error), "{error:?}"),
        }
    }

    /// Says what a worker waits for from now on, for the case that it waits in vain.
    fn does(&self, worker: u64, what: impl Into<String>) {
        self.doing.lock().unwrap().insert(worker, what.into());
    }

    async fn act(&self, worker: u64, random: &mut Random) {
        let (room, other) = (random.room(), random.room());
        let id = format!("m{}", self.numbers.fetch_add(1, Ordering::SeqCst));
        self.does(worker, format!("opening {room}"));
        let channel = match self.open(room).await {
            Ok(channel) => channel,
            Err(error) => return assert!(is_expected(&error), "{error:?}"),
        };
        let action = random.below(20);
        self.does(worker, format!("action {action} on {room} and {other}, {id}"));
        match action {
            0..=4 => self.expect(room, &id, &channel.wrap(id.as_str(), "content").await.map(drop)),
            5..=9 => {
                let cause = format!("cause of {id}");
                let parks = random.below(2) == 0;
                let first = packet(room, &id, parks.then_some(&*cause));
                let outcome = channel.receive(first).await.map(drop);
                if parks && let Err(error) = &outcome {
                    assert!(is_expected(error), "{error:?}");
                } else if parks {
                    let released = channel.receive(packet(room, &cause, None)).await.map(drop);
                    self.expect(room, &cause, &released);
                    self.expect(room, &id, &released);
                } else {
                    self.expect(room, &id, &outcome);
                }
            }
            10..=14 if other != room => {
                let second = match self.open(other).await {
                    Ok(second) => second,
                    Err(error) => return assert!(is_expected(&error), "{error:?}"),
                };
                let outcome = self
                    .store
                    .transaction(async |tx| {
                        let (one, two) = (tx.join(&channel)?, tx.join(&second)?);
                        tokio::task::yield_now().await;
                        one.wrap(id.as_str(), "content")?;
                        two.wrap(id.as_str(), "content").map(drop)
                    })
                    .retry(Retry::default().with_attempts(20))
                    .await;
                self.expect(room, &id, &outcome);
                self.expect(other, &id, &outcome);
                self.expected.lock().unwrap().pairs.push((room, other, id));
            }
            15 => drop(channel.set_retrieval_hint(id.as_str(), "here").await),
            16 => drop(channel.sync_message().await),
            17 if self.drops => drop(self.store.drop_channel(room).await),
            17 | 18 => drop(channel.close().await),
            _ => drop((channel.stats().await, channel.export().await, channel.mark_dependencies_met(["x"]).await)),
        }
    }
}

/// Waits for a minute of running time: a process that is stopped meanwhile, or hardly gets its turn, does not hang for
/// that.
async fn patiently<T>(work: impl Future<Output = T>) -> Option<T> {
    let mut work = std::pin::pin!(work);
    for _ in 0..600 {
        if let Ok(done) = tokio::time::timeout(Duration::from_millis(100), &mut work).await {
            return Some(done);
        }
    }
    None
}

async fn boils(seed: u64, durability: Durability, drops: bool) {
    let (adapter, faults) = faulty();
    let tree = Tree::start(adapter.clone()).await;
    let spared = tree.ids();
    faults.inject(Fault::fail(transient()).on(Operation::Commit).at_random(seed, 0.05));
    let mut ready: Vec<_> = ROOMS.iter().map(|room| tree.store.subscribe_channel(room).unwrap()).collect();
    let world = Arc::new(World {
        store: tree.store.clone(),
        durability,
        drops,
        expected: Mutex::default(),
        numbers: AtomicU64::new(0),
        doing: Mutex::default(),
    });
    let workers: Vec<_> = (0..6)
        .map(|worker| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                let mut random = Random(seed * 100 + worker);
                for _ in 0..60 {
                    world.act(worker, &mut random).await;
                }
                world.does(worker, "nothing");
            })
        })
        .collect();
    let mut random = Random(seed);
    // Fewer kills than make a channel be given up.
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(random.below(40))).await;
        tree.kill_but(&spared);
    }
    for worker in workers {
        let ended = patiently(worker).await;
        let doing = || world.doing.lock().unwrap().clone();
        ended.unwrap_or_else(|| panic!("seed {seed} hangs: {:?}", doing())).unwrap();
    }
    faults.heal();
    let stopped = patiently(tree.store.stop()).await;
    let report = stopped.unwrap_or_else(|| panic!("seed {seed} does not stop")).unwrap();
    assert!(report.unsaved.is_empty(), "{report:?}");

    // Told once each, above `Ram` and without a crash.
    for events in &mut ready {
        let mut seen = BTreeSet::new();
        while let Some(delivery) = events.try_recv() {
            let ChannelDelivery::Event(event) = delivery else { break };
            if let ChannelEvent::Ready { message } = event {
                assert!(seen.insert(message.message_id.clone()), "{} twice", message.message_id);
            }
        }
    }
    let store = start(&adapter).await;
    let mut there = BTreeMap::new();
    for room in ROOMS {
        let ids = history_ids(&store.open_channel(room, options(durability)).await.unwrap()).await;
        let set: BTreeSet<String> = ids.iter().cloned().collect();
        assert_eq!(set.len(), ids.len());
        there.insert(room, set);
    }
    let expected = std::mem::take(&mut *world.expected.lock().unwrap());
    if !drops {
        for (room, answered) in &expected.answered {
            let lost: Vec<_> = answered.difference(&there[room]).collect();
            assert!(lost.is_empty(), "{room} has lost {lost:?}");
        }
        for (one, two, id) in &expected.pairs {
            assert_eq!(there[one].contains(id), there[two].contains(id), "{id} is in one of {one} and {two}");
        }
        assert!(expected.answered.values().map(BTreeSet::len).sum::<usize>() > 50, "too little has happened");
    }
    store.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_happens_at_once_nothing_hangs_and_what_was_answered_is_there_at_last() {
    for seed in 1..=SEEDS {
        boils(seed, Durability::Fsync, false).await;
        boils(seed, Durability::Ram, false).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_channels_that_are_dropped_as_well_nothing_hangs_or_comes_twice() {
    for seed in 1..=SEEDS {
        boils(seed, Durability::Fsync, true).await;
    }
}

const SEEDS: u64 = 5;
