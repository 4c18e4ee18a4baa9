//! The recovery check notices an application that loses, invents or repeats something in a crash, and passes one that does
//! not.
//!
//! Were this broken, users would believe that their actors come back, and find out otherwise in production.
#![cfg(feature = "testkit")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests say what they expect by unwrapping it")]

use std::sync::Arc;

use ractor_persistence::bucket::Bucket;
use ractor_persistence::records::{BucketDefinition, Field};
use ractor_persistence::testkit::{Crashes, Failure, Recovered, Verdict, recovery_check};
use ractor_persistence::{Durability, Patch, StorageAdapter, Store, record};

/// Adds numbers up, in one way or another.
struct Sums {
    _store: Store,
    bucket: Bucket,
}

async fn start(adapter: Arc<dyn StorageAdapter>) -> Result<Sums, Failure> {
    let store = Store::builder("sums").shared_adapter(adapter).start().await?;
    let sums = BucketDefinition::new("sums").key("id").field("id", Field::int()).field("sum", Field::int());
    let bucket = store.define_bucket(sums).await?;
    Ok(Sums { _store: store, bucket: bucket.with_durability(Durability::Fsync) })
}

async fn sum(sums: &Sums) -> Result<Option<i64>, Failure> {
    let record = sums.bucket.get(1).await?;
    Ok(record.and_then(|record| record.get("sum").and_then(|sum| sum.as_i64())))
}

const SCRIPT: [i64; 4] = [1, 10, 100, 1_000];

fn check(crashes: Crashes, add: impl AsyncFn(&Sums, &i64) -> Result<(), Failure>) -> Verdict<Recovered> {
    recovery_check(crashes, &SCRIPT, start, add, sum)
}

/// Makes the record if it is missing, and adds to it.
async fn add(bucket: &Bucket, number: i64) -> Result<(), Failure> {
    if bucket.get(1).await?.is_none() {
        bucket.insert(record! { "id": 1, "sum": 0 }).await?;
    }
    bucket.patch(1, Patch::new().increment("sum", number)).await?;
    Ok(())
}

/// The same, once per number.
async fn add_once(bucket: &Bucket, number: i64) -> Result<(), Failure> {
    if bucket.get(1).await?.is_none() {
        bucket.with_request_id("the record").insert(record! { "id": 1, "sum": 0 }).await?;
    }
    bucket.with_request_id(number.to_string()).patch(1, Patch::new().increment("sum", number)).await?;
    Ok(())
}

#[test]
fn one_that_saves_before_it_answers_passes() {
    let recovered = check(Crashes::BetweenSteps, async |sums, number| add(&sums.bucket, *number).await).unwrap();
    assert_eq!((recovered.crashes, recovered.commits), (SCRIPT.len() + 1, SCRIPT.len() + 1));
}

#[test]
fn one_that_flushes_before_it_answers_passes() {
    let add = async |sums: &Sums, number: &i64| {
        add(&sums.bucket.with_durability(Durability::Ram), *number).await?;
        Ok(sums.bucket.flush().await?)
    };
    assert_eq!(check(Crashes::BetweenSteps, add).unwrap().crashes, SCRIPT.len() + 1);
}

#[test]
fn one_that_answers_before_it_saves_is_caught_after_its_first_step() {
    let add = async |sums: &Sums, number: &i64| add(&sums.bucket.with_durability(Durability::Ram), *number).await;
    let broken = check(Crashes::BetweenSteps, add).unwrap_err().to_string();
    assert!(broken.starts_with("after a crash after step 1, 1: found None, where it was Some(1)"), "{broken}");
}

#[test]
fn one_that_forgets_the_last_step_only_is_caught_there() {
    let add = async |sums: &Sums, number: &i64| {
        let durability = if *number < 1_000 { Durability::Fsync } else { Durability::Ram };
        add(&sums.bucket.with_durability(durability), *number).await
    };
    let broken = check(Crashes::BetweenSteps, add).unwrap_err().to_string();
    assert!(broken.contains("after step 4, 1000: found Some(111), where it was Some(1111)"), "{broken}");
}

#[test]
fn one_whose_repeated_step_counts_twice_is_caught_by_a_crash_before_the_answer() {
    let twice = async |sums: &Sums, number: &i64| add(&sums.bucket, *number).await;
    assert!(check(Crashes::BetweenSteps, twice).is_ok());
    let broken = check(Crashes::AtEveryCommit, twice).unwrap_err().to_string();
    assert!(broken.contains("within the next, and the rest of the script: found Some(1112)"), "{broken}");
    let recovered = check(Crashes::AtEveryCommit, async |sums, number| add_once(&sums.bucket, *number).await).unwrap();
    assert_eq!(recovered.crashes, SCRIPT.len() + 1 + SCRIPT.len() + 1);
}

#[test]
fn one_that_keeps_a_part_in_memory_only_is_caught() {
    let other = std::sync::atomic::AtomicI64::new(0);
    let seen = async |sums: &Sums| {
        // It was counted by the step, and no life after the first one knows of it.
        Ok((sum(sums).await?, other.load(std::sync::atomic::Ordering::SeqCst)))
    };
    let add = async |sums: &Sums, number: &i64| {
        other.fetch_add(*number, std::sync::atomic::Ordering::SeqCst);
        add(&sums.bucket, *number).await
    };
    let forget = async |adapter| {
        other.store(0, std::sync::atomic::Ordering::SeqCst);
        start(adapter).await
    };
    let broken = recovery_check(Crashes::BetweenSteps, &SCRIPT, forget, add, seen).unwrap_err().to_string();
    assert!(broken.contains("found (Some(1), 0), where it was (Some(1), 1)"), "{broken}");
}

#[test]
fn what_the_application_cannot_do_is_told_with_its_step() {
    let add = async |sums: &Sums, number: &i64| {
        if *number == 100 { Err("no more".into()) } else { add(&sums.bucket, *number).await }
    };
    let broken = check(Crashes::BetweenSteps, add).unwrap_err().to_string();
    assert!(broken.starts_with("step 3, 100 failed: no more"), "{broken}");
}

#[tokio::test]
async fn within_a_runtime_it_is_refused() {
    let broken = check(Crashes::BetweenSteps, async |sums, number| add(&sums.bucket, *number).await).unwrap_err();
    assert!(broken.to_string().contains("outside of any runtime"), "{broken}");
}

/// Adds records, each of which is taken away and put back by a task of its own, once it was answered.
struct Rewriting {
    sums: Sums,
    task: tokio::sync::Mutex<Option<tokio::task::JoinHandle<()>>>,
}

#[test]
fn one_that_takes_back_for_a_moment_what_it_has_answered_is_caught() {
    let start = async |adapter| Ok(Rewriting { sums: start(adapter).await?, task: Default::default() });
    let add = async |app: &Rewriting, number: &i64| {
        let (bucket, id) = (app.sums.bucket.clone(), *number);
        bucket.upsert(record! { "id": id, "sum": id }).await?;
        *app.task.lock().await = Some(tokio::spawn(async move {
            bucket.delete(id).await.unwrap();
            bucket.upsert(record! { "id": id, "sum": id }).await.unwrap();
        }));
        Ok(())
    };
    let count = async |app: &Rewriting| {
        if let Some(task) = app.task.lock().await.take() {
            task.await?;
        }
        Ok(app.sums.bucket.all().await?.len())
    };
    assert!(recovery_check(Crashes::BetweenSteps, &SCRIPT, start, add, count).is_ok());
    let broken = recovery_check(Crashes::AtEveryCommit, &SCRIPT, start, add, count).unwrap_err().to_string();
    assert!(broken.starts_with("after a crash after step 1, 1: found 0, where it was 1"), "{broken}");
}
