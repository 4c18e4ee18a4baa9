//! What is left of transactions when the process is killed? A child process hands over as fast as it can, or writes to two
//! buckets at once, and tells on its
//! standard output what it was promised to be on disk; it is killed with SIGKILL at a random moment; this process opens the
//! file and compares.
//!
//! The child is this very test binary, run again with the ignored test `child` alone.
//! `RACTOR_PERSISTENCE_CRASH_SECONDS` sets for how long children are killed (default 4),
//! `RACTOR_PERSISTENCE_CRASH_SEED` the seed, which is printed.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ractor_persistence::adapters::redb::RedbAdapter;
use ractor_persistence::bucket::Transaction;
use ractor_persistence::{Bucket, BucketDefinition, Durability, Durable, Error, Field, Record, Store, record};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::world::*;

/// The variable in which a child finds what it is to do, the round and the directory.
const ORDER: &str = "RACTOR_PERSISTENCE_HAND_OVER_ORDER";
const SIGKILL: i32 = 9;
/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// A channel keeps no more messages that nobody acknowledges.
const MOST: i64 = 9_000;

async fn open(directory: &Path) -> Store {
    let adapter = RedbAdapter::open(directory.join("data.redb")).await.unwrap();
    Store::builder("shop").adapter(adapter).persistence(options(Duration::from_millis(2))).start().await.unwrap()
}

fn tell(line: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(format!("\n#{line}\n").as_bytes()).and_then(|()| out.flush()).is_err() {
        // Nobody listens any more: the test has ended without killing us.
        std::process::exit(1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the process that the other test starts and kills"]
async fn child() {
    let Ok(order) = std::env::var(ORDER) else { return };
    let (task, rest) = order.split_once(' ').unwrap();
    let (round, directory) = rest.split_once(' ').unwrap();
    let store = open(&PathBuf::from(directory)).await;
    if task == "buckets" {
        write_pairs(Pair::open(&store).await).await;
    }
    let hands = Hands::open_as(&store, &format!("-{round}")).await;
    tell("ready");
    let aside: Durable<i64> = store.durable("aside", Default::default()).await.unwrap();
    let (noisy, ledger) = (aside.clone(), hands.ledger.clone());
    tokio::spawn(async move {
        loop {
            noisy.update(|number| *number += 1).unwrap();
            ledger.upsert(record! { "id": "aside", "number": noisy.get() }).await.unwrap();
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
    });
    let synced = hands.clone();
    tokio::spawn(async move {
        while synced.number.get() < MOST {
            match synced.hand_over(Durability::Fsync).await {
                Ok(message) => tell(message.id().as_str().unwrap()),
                Err(Error::Conflict { .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    });
    while hands.number.get() < MOST {
        match hands.hand_over(Durability::Ram).await {
            Ok(_) | Err(Error::Conflict { .. }) => tokio::time::sleep(Duration::from_micros(200)).await,
            Err(error) => panic!("{error:?}"),
        }
    }
    tokio::time::sleep(2 * PATIENCE).await;
}

/// Two buckets that have one number.
struct Pair {
    store: Store,
    left: Bucket,
    right: Bucket,
}

impl Pair {
    async fn open(store: &Store) -> Self {
        let definition = |name| {
            let definition = BucketDefinition::new(name).key("id").field("id", Field::string());
            definition.field("number", Field::int())
        };
        let left = store.define_bucket(definition("left")).await.unwrap();
        Self { store: store.clone(), left, right: store.define_bucket(definition("right")).await.unwrap() }
    }

    async fn write(&self, number: i64, durability: Durability) {
        let work = |tx: Transaction| async move {
            // A record that is changed, and one that is new, in both.
            for bucket in [tx.bucket("left")?, tx.bucket("right")?] {
                bucket.upsert(record! { "id": "last", "number": number }).await?;
                bucket.upsert(record! { "id": format!("{}", number % 500), "number": number }).await?;
            }
            Ok::<_, Error>(())
        };
        self.store.transaction(work).durability(durability).await.unwrap();
    }

    async fn stand(&self) -> i64 {
        let (left, right) = (self.left.all().await.unwrap(), self.right.all().await.unwrap());
        let all = |records: &[Arc<Record>]| {
            let number = |record: &Record| record.get("number").and_then(|number| number.as_i64()).unwrap();
            let records = records.iter().map(|record| (record.key().to_string(), number(record)));
            records.collect::<BTreeMap<_, _>>()
        };
        let (left, right) = (all(&left), all(&right));
        assert_eq!(left, right, "one half of a transaction is on disk");
        left.get("last").copied().unwrap_or(0)
    }
}

async fn write_pairs(pair: Pair) {
    let begun = pair.stand().await;
    tell("ready");
    let mut random = Random(u64::try_from(begun).unwrap());
    for number in begun + 1.. {
        let durability = if random.below(4) == 0 { Durability::Fsync } else { Durability::Ram };
        pair.write(number, durability).await;
        if durability == Durability::Fsync {
            tell(&format!("m{number}"));
        }
    }
}

/// Kills children at their task until the time is over, and has `look` say at which number each has left the disk; answers
/// how much was found, and promised, in all.
async fn kill_at(task: &str, mut look: impl AsyncFnMut(u32, &Store) -> i64) {
    let directory = tempfile::tempdir().unwrap();
    let seconds = std::env::var("RACTOR_PERSISTENCE_CRASH_SECONDS").ok();
    let seconds = seconds.map_or(4, |seconds| seconds.parse().expect("a number of seconds"));
    let seed = std::env::var("RACTOR_PERSISTENCE_CRASH_SEED").ok().map(|seed| seed.parse().expect("a number"));
    let seed = seed.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    println!("RACTOR_PERSISTENCE_CRASH_SEED={seed}");
    let (mut random, begun) = (Random(seed), Instant::now());
    let (mut round, mut found_in_all, mut promised_in_all) = (0, 0, 0);
    // However slow the machine is, some rounds there are.
    while begun.elapsed() < Duration::from_secs(seconds) || round < 5 {
        round += 1;
        let after = Duration::from_micros(random.below(400_000));
        let promised = promised_by_child(task, round, directory.path(), after).await;
        let store = open(directory.path()).await;
        let found = look(round, &store).await;
        println!("round {round}: killed {after:?} after it was open; {promised} promised, {found} found");
        assert!(found >= promised, "{promised} were promised to be on disk, {found} are");
        assert!(store.stop().await.unwrap().unsaved.is_empty());
        found_in_all += found;
        promised_in_all += promised;
    }
    // A test that never comes to the point would pass.
    assert!(found_in_all > 0 && promised_in_all > 0);
}

/// Starts a child, kills it a time after it is ready, and answers the newest number that it was promised to be on disk.
async fn promised_by_child(task: &str, round: u32, directory: &Path, after: Duration) -> i64 {
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["killed::child", "--exact", "--ignored", "--nocapture"])
        .env(ORDER, format!("{task} {round} {}", directory.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    loop {
        let line = timeout(PATIENCE, lines.next_line()).await.expect("the child goes on").unwrap();
        if line.expect("the child does not end by itself") == "#ready" {
            break;
        }
    }
    tokio::time::sleep(after).await;
    process.start_kill().unwrap();
    let mut promised = 0;
    while let Some(line) = timeout(PATIENCE, lines.next_line()).await.expect("the pipe ends").unwrap() {
        let number = line.strip_prefix("#m").map(|number| number.parse::<i64>().unwrap());
        promised = promised.max(number.unwrap_or(0));
    }
    let status = process.wait().await.unwrap();
    assert_eq!(status.signal(), Some(SIGKILL), "the child died of something else: {status}");
    promised
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_handed_over_is_on_disk_as_a_whole_or_not_at_all_after_sigkill() {
    let mut before: Option<(String, i64)> = None;
    kill_at("hands", async |round, store| {
        let suffix = format!("-{round}");
        let found = Hands::open_as(store, &suffix).await.stand().await;
        if let Some((suffix, number)) = before.replace((suffix, found)) {
            assert_eq!(Hands::open_as(store, &suffix).await.stand().await, number, "the round before");
        }
        found
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ps_18_a_transaction_over_two_buckets_is_on_disk_whole_or_not_at_all_whenever_the_process_is_killed() {
    kill_at("buckets", async |_round, store| Pair::open(store).await.stand().await).await;
}
