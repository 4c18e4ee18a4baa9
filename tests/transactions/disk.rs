//! Does what a transaction changed in several buckets reach the disk together?
#![cfg(feature = "testkit")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use ractor_persistence::adapters::memory::MemoryAdapter;
use ractor_persistence::base::durability::Durability;
use ractor_persistence::base::error::Error;
use ractor_persistence::base::name::{BucketName, Subject};
use ractor_persistence::bucket::{Retry, Transaction};
use ractor_persistence::persistence::{Backoff, Commit, PersistenceOptions, Save};
use ractor_persistence::record;
use ractor_persistence::records::{BucketChange, BucketDefinition, Field, Record};
use ractor_persistence::store::Store;
use ractor_persistence::testkit::{Fault, FaultAdapter, Faults, Operation};

use crate::world::*;

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Each record says which transaction wrote it last; a record of the same key in the other bucket says the same.
fn pairs(name: &str) -> BucketDefinition {
    let definition = BucketDefinition::new(name).key("id").field("id", Field::string());
    definition.field("number", Field::int()).field("with", Field::string())
}

fn subject(name: &str) -> Subject {
    Subject::Bucket(BucketName::new(name).unwrap())
}

/// Writes one number into two buckets, or, every now and then, something else into one of them alone.
async fn write_pairs(store: Store, task: u64, numbers: Arc<AtomicI64>, done: Arc<AtomicBool>) {
    let mut random = Random(task);
    while !done.load(Ordering::Relaxed) {
        let (first, second) = [("a", "b"), ("b", "c"), ("a", "c")][usize::try_from(random.below(3)).unwrap()];
        let id = format!("{first}{second}-{task}-{}", random.below(3));
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        if random.below(3) == 0 {
            let alone = store.bucket(first).unwrap();
            alone.upsert(record! { "id": "alone", "number": number }).await.unwrap();
            continue;
        }
        let function = |tx: Transaction| {
            let id = id.clone();
            async move {
                for name in [first, second] {
                    let data = record! { "id": &*id, "number": number, "with": format!("{first}{second}") };
                    tx.bucket(name)?.upsert(data).await?;
                }
                Ok::<_, Error>(())
            }
        };
        match store.transaction(function).retry(Retry::default()).await {
            Ok(()) | Err(Error::Conflict { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
        if random.below(4) == 0 {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }
}

/// The numbers of one bucket's pairs by key, as they are stored.
type Stored = BTreeMap<String, i64>;

fn note(stored: &mut Stored, record: &Record) {
    if record.get("with").is_some() {
        stored.insert(record.key().to_string(), record.get("number").and_then(|number| number.as_i64()).unwrap());
    }
}

/// Applies a commit to what is stored.
fn apply(stored: &mut BTreeMap<String, Stored>, commit: &Commit) {
    for save in &commit.saves {
        let Save::Bucket(name, change) = save else { panic!("{save:?}") };
        let stored = stored.entry(name.as_str().to_owned()).or_default();
        match &**change {
            BucketChange::Full(snapshot) => {
                stored.clear();
                snapshot.records.iter().for_each(|record| note(stored, record));
            }
            BucketChange::Delta(delta) => delta.upserts.iter().for_each(|record| note(stored, record)),
            other => panic!("{other:?}"),
        }
    }
}

/// Every key of a pair has the same number in both of its buckets, or is in neither.
fn check(stored: &BTreeMap<String, Stored>, when: &str) -> usize {
    let none = Stored::new();
    let of = |name: &str| stored.get(name).unwrap_or(&none);
    let mut found = 0;
    for name in NAMES {
        for (key, number) in of(name) {
            let pair = key.split('-').next().unwrap();
            let other = pair.replace(name, "");
            assert_eq!(of(&other).get(key), Some(number), "{when}: {key} of {name} and {other}");
            found += 1;
        }
    }
    found
}

/// Every commit that succeeded, one after the other, leaves both halves of every transaction or neither.
fn check_commits(faults: &Faults) -> usize {
    let mut stored = BTreeMap::new();
    let mut checked = 0;
    for logged in faults.calls() {
        let ractor_persistence::testkit::Call::Commit(commit) = &logged.call else { continue };
        if matches!(logged.result, Some(Ok(()))) {
            apply(&mut stored, commit);
            check(&stored, "after a commit");
            checked += 1;
        }
    }
    assert!(!stored.is_empty());
    checked
}

async fn captured_whole(options: PersistenceOptions, faulty: bool, runtime: Duration) {
    let adapter = FaultAdapter::new(MemoryAdapter::default());
    let faults = adapter.faults();
    let (builder, _) = builder();
    let store = builder.adapter(adapter).persistence(options).start().await.unwrap();
    for name in NAMES {
        store.define_bucket(pairs(name)).await.unwrap();
    }
    if faulty {
        let broken = || Error::permanent("commit", std::io::Error::other("on purpose"));
        faults.inject(Fault::fail(broken()).on(Operation::Commit).touching(subject("b")).at_random(7, 0.5));
        faults.inject(Fault::fail(broken()).on(Operation::Commit).touching(subject("c")).at_random(8, 0.3));
        let shaky = Error::transient("commit", std::io::Error::other("on purpose"));
        faults.inject(Fault::fail(shaky).on(Operation::Commit).at_random(9, 0.1));
    }
    let (numbers, done) = (Arc::new(AtomicI64::new(1)), Arc::new(AtomicBool::new(false)));
    let write = |task| tokio::spawn(write_pairs(store.clone(), task, numbers.clone(), done.clone()));
    let tasks: Vec<_> = (0..4).map(write).collect();
    tokio::time::sleep(runtime).await;
    done.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    faults.heal();
    assert_eq!(store.stop().await.unwrap().unsaved, []);
    let commits = check_commits(&faults);
    println!("{commits} commits, {} transactions and writes", numbers.load(Ordering::Relaxed));
    assert!(commits > 20, "{commits}");
}

fn quick(debounce: Duration) -> PersistenceOptions {
    let retry = Backoff::new(Duration::from_millis(1), Duration::from_millis(5));
    PersistenceOptions::default().with_debounce(debounce).with_retry(retry)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_commit_holds_half_of_a_transaction() {
    for debounce in [Duration::ZERO, Duration::from_micros(300)] {
        captured_whole(quick(debounce), false, Duration::from_millis(700)).await;
    }
    let below = quick(Duration::ZERO).with_save_durability(Durability::Wal);
    captured_whole(below, false, Duration::from_millis(300)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_commit_holds_half_of_a_transaction_while_commits_fail_for_one_of_the_buckets() {
    for debounce in [Duration::ZERO, Duration::from_micros(300)] {
        captured_whole(quick(debounce), true, Duration::from_millis(700)).await;
    }
    let below = quick(Duration::ZERO).with_save_durability(Durability::Wal);
    captured_whole(below, true, Duration::from_millis(300)).await;
}

#[tokio::test]
async fn two_buckets_of_a_transaction_fail_together_as_long_as_one_of_them_does() {
    let adapter = FaultAdapter::new(MemoryAdapter::default());
    let faults = adapter.faults();
    let (builder, _) = builder();
    let store = builder.adapter(adapter).persistence(quick(Duration::from_millis(1))).start().await.unwrap();
    for name in NAMES {
        store.define_bucket(pairs(name)).await.unwrap();
    }
    let broken = Error::permanent("commit", std::io::Error::other("on purpose"));
    faults.fail_subject(subject("b"), broken);
    let both = |tx: Transaction| async move {
        for name in ["a", "b"] {
            tx.bucket(name)?.insert(record! { "id": "ab-0", "number": 1, "with": "ab" }).await?;
        }
        Ok::<_, Error>(())
    };
    let outcome = store.transaction(both).durability(Durability::Fsync).await;
    assert!(matches!(outcome, Err(Error::NotSaved { .. })), "{outcome:?}");
    assert!(store.bucket("a").unwrap().get("ab-0").await.unwrap().is_some(), "applied all the same");
    // The one that is well could be saved, and is not, as long as the other is not.
    let a = store.bucket("a").unwrap().with_durability(Durability::Fsync);
    assert!(matches!(a.insert(record! { "id": "alone" }).await, Err(Error::NotSaved { .. })));
    let c = store.bucket("c").unwrap().with_durability(Durability::Fsync);
    c.insert(record! { "id": "alone" }).await.unwrap();
    faults.heal();
    store.flush().await.unwrap();
    a.insert(record! { "id": "later" }).await.unwrap();
    let apart = |commit: &Commit| {
        let has = |name: &str| {
            commit.saves.iter().any(|save| matches!(save, Save::Bucket(other, _) if other.as_str() == name))
        };
        (has("a"), has("b"))
    };
    let seen: Vec<_> = faults.commits().iter().map(apart).filter(|(a, b)| *a || *b).collect();
    let (last, before) = seen.split_last().unwrap();
    assert!(before.iter().all(|seen| *seen == (true, true)), "{before:?}");
    assert_eq!(*last, (true, false), "saved, they are strangers again");
    store.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_not_saved_of_a_transaction_survives_the_death_of_its_buckets() {
    let adapter = FaultAdapter::new(MemoryAdapter::default());
    let (builder, _) = builder();
    let store = builder.adapter(adapter).start().await.unwrap();
    for name in ["a", "b"] {
        store.define_bucket(pairs(name)).await.unwrap();
    }
    let (a, b) = (store.bucket("a").unwrap(), store.bucket("b").unwrap());
    let mut committed = 0;
    for number in 0..200 {
        let function = |tx: Transaction| async move {
            for name in ["a", "b"] {
                tx.bucket(name)?.upsert(record! { "id": "ab", "number": number, "with": "ab" }).await?;
            }
            Ok::<_, Error>(())
        };
        let killed = if number % 2 == 0 { a.clone() } else { b.clone() };
        let killer = (number % 50 == 20).then(|| tokio::spawn(async move { kill(&killed).await }));
        if store.transaction(function).retry(Retry::default()).await.is_ok() {
            committed = number;
        }
        if let Some(killer) = killer {
            killer.await.unwrap();
        }
        let found = |tx: Transaction| async move {
            let mut numbers = Vec::new();
            for name in ["a", "b"] {
                let record = tx.bucket(name)?.get("ab").await?;
                numbers.push(record.and_then(|record| record.get("number")?.as_i64()));
            }
            Ok::<_, Error>(numbers)
        };
        let found = store.transaction(found).retry(Retry::default()).await.unwrap();
        assert_eq!(found[0], found[1]);
        assert_eq!(found[0], Some(committed));
    }
    store.stop().await.unwrap();
}

#[cfg(all(unix, feature = "redb"))]
mod killed {
    use std::path::PathBuf;
    use std::process::Stdio;

    use ractor_persistence::adapters::redb::RedbAdapter;
    use tokio::io::{AsyncBufReadExt, BufReader};
    use tokio::process::Command;

    use super::*;

    /// The variable in which a child finds its place.
    const PLACE: &str = "RACTOR_PERSISTENCE_TRANSACTIONS_PLACE";

    async fn open(place: PathBuf) -> Store {
        let (builder, _) = builder();
        let builder =
            builder.adapter(RedbAdapter::open(place).await.unwrap()).persistence(quick(Duration::from_micros(500)));
        let store = builder.start().await.unwrap();
        for name in NAMES {
            store.define_bucket(pairs(name)).await.unwrap();
        }
        store
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "the process that the other test starts and kills"]
    async fn child() {
        let Ok(place) = std::env::var(PLACE) else { return };
        let store = open(place.into()).await;
        let numbers = Arc::new(AtomicI64::new(1));
        let tasks: Vec<_> = (0..3)
            .map(|task| tokio::spawn(write_pairs(store.clone(), task, numbers.clone(), Arc::default())))
            .collect();
        println!("\nready");
        for task in tasks {
            let timely = tokio::time::timeout(Duration::from_secs(60), task);
            if let Ok(ended) = timely.await {
                ended.unwrap();
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn bk_48_a_process_that_is_killed_in_transactions_leaves_both_halves_or_neither() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("data.redb");
        let mut found = 0;
        for round in 0..8 {
            let mut process = Command::new(std::env::current_exe().unwrap())
                .args(["disk::killed::child", "--exact", "--ignored", "--nocapture"])
                .env(PLACE, &place)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
            let ready = async {
                while let Some(line) = lines.next_line().await.unwrap() {
                    if line == "ready" {
                        return;
                    }
                }
                panic!("the child has ended by itself");
            };
            tokio::time::timeout(Duration::from_secs(60), ready).await.unwrap();
            tokio::time::sleep(Duration::from_millis(40 + 17 * round)).await;
            process.kill().await.unwrap();

            let store = open(place.clone()).await;
            let mut stored = BTreeMap::new();
            for name in NAMES {
                let records = store.bucket(name).unwrap().all().await.unwrap();
                let of: &mut Stored = stored.entry(name.to_owned()).or_default();
                records.iter().for_each(|record| note(of, record));
            }
            found = check(&stored, &format!("round {round}"));
            store.stop().await.unwrap();
        }
        assert!(found > 10, "{found}");
    }
}
