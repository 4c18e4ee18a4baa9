//! Transactions over two buckets, killed at any moment: both halves are on disk or none, where the adapter says so.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use ractor_persistence::base::durability::Durability;
use ractor_persistence::base::error::Error;
use ractor_persistence::base::name::{BucketKey, BucketName, StoreName};
use ractor_persistence::bucket::Transaction;
use ractor_persistence::persistence::Atomicity;
use ractor_persistence::record;
use ractor_persistence::records::{BucketDefinition, Field};
use tokio::task::JoinSet;

use crate::data::{State, start};
use crate::random::Random;
use crate::told::{Order, Task, Told};
use crate::victim::Victim;
use crate::{Backend, Ground};

const NAMES: [&str; 2] = ["left", "right"];
const TASKS: i64 = 4;

fn definition(name: &str) -> BucketDefinition {
    BucketDefinition::new(name).key("task").field("task", Field::int()).field("number", Field::int())
}

/// Each task writes the numbers one after the other into both buckets, at any level, and tells of those that are synced.
pub(crate) async fn child(backend: Backend, order: &Order) {
    let store = start((backend.open)(order.directory.clone()).await.unwrap()).await.unwrap();
    for name in NAMES {
        store.define_bucket(definition(name)).await.unwrap();
    }
    Told::Note("ready".to_owned()).tell();
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (store, order) = (store.clone(), order.clone());
        tasks.spawn(async move {
            let mut random = Random::new(order.seed.wrapping_add(task.unsigned_abs()));
            for number in i64::from(order.round) << 32.. {
                let durability =
                    [Durability::Ram, Durability::Wal, Durability::Fsync][usize::try_from(random.below(3)).unwrap()];
                let function = |tx: Transaction| async move {
                    for name in NAMES {
                        tx.bucket(name)?.upsert(record! { "task": task, "number": number }).await?;
                    }
                    Ok::<_, Error>(())
                };
                store.transaction(function).durability(durability).await.unwrap();
                if durability == Durability::Fsync {
                    Told::Note(format!("{task} {number}")).tell();
                }
                tokio::time::sleep(Duration::from_micros(random.below(3_000))).await;
            }
        });
    }
    let ended = tokio::time::timeout(Duration::from_secs(120), tasks.join_next()).await;
    assert!(ended.is_err(), "a task has ended: {ended:?}");
}

/// What a bucket has on disk: number by task.
async fn on_disk(backend: Backend, directory: &Path) -> Vec<BTreeMap<i64, i64>> {
    let adapter = (backend.open)(directory.to_owned()).await.unwrap();
    let store = StoreName::new("crash").unwrap();
    adapter.claim(&store).await.unwrap();
    let mut found = Vec::new();
    for name in NAMES {
        let key = BucketKey::new(store.clone(), BucketName::new(name).unwrap());
        let loaded = adapter.load_bucket(&key).await.unwrap().unwrap_or_default();
        let entries = loaded.records.iter().map(|record| {
            // As it is stored, a record's key is no field of it.
            let (task, number) = (record.key().as_value().as_i64(), record.get("number").and_then(|of| of.as_i64()));
            (task.unwrap(), number.unwrap())
        });
        found.push(entries.collect());
    }
    adapter.close(&store).await.unwrap();
    found
}

/// PS-18, where the adapter declares `Whole`. Where it declares less, each bucket has what was synced.
pub(crate) async fn whole_or_not_at_all(backend: Backend) {
    let directory = Ground::of(backend);
    // On a place of its own: whoever opens the other one is alone there.
    let elsewhere = Ground::of(backend);
    let declared = (backend.open)(elsewhere.path().to_owned()).await.unwrap().capabilities().atomicity;
    let seconds = std::env::var("RACTOR_PERSISTENCE_CRASH_SECONDS").ok();
    let seconds = seconds.map_or(5, |seconds| seconds.parse().expect("a number of seconds"));
    let (begun, mut random) = (Instant::now(), Random::of_this_run());
    let (mut round, mut synced) = (0, 0);
    while begun.elapsed() < Duration::from_secs(seconds) || round < 5 {
        round += 1;
        let seed = random.next();
        let after = Duration::from_micros(random.below(250_000));
        println!("round {round}: by seed {seed}, killed {after:?} after it is open");
        let order = Order { directory: directory.path().to_owned(), task: Task::Pairs, seed, round };
        let mut victim = Victim::start(backend, &order, State::default());
        victim.until(|account| !account.notes.is_empty()).await;
        victim.during(after).await;
        let account = victim.kill().await;

        let found = on_disk(backend, directory.path()).await;
        if declared == Atomicity::Whole {
            assert_eq!(found[0], found[1], "half of a transaction is on disk");
        }
        for note in account.notes.iter().filter_map(|note| note.split_once(' ')) {
            let (task, number): (i64, i64) = (note.0.parse().unwrap(), note.1.parse().unwrap());
            for bucket in &found {
                assert!(bucket[&task] >= number, "transaction {number} of task {task} was synced: {found:?}");
            }
            synced += 1;
        }
    }
    println!("{round} rounds, {synced} transactions told as synced");
    assert!(synced > 0, "a test that never comes to the point would pass");
}
