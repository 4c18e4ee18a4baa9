//! Is there an order, one transaction after the other, that explains everything that concurrent ones have read, and what
//! they left?
//!
//! Tasks run random transactions over three buckets and note every operation with its answer. Those that wrote are
//! replayed on a plain model in the order of their commit numbers: each answer has to come out again. Those that only read
//! need some place in that order at which all of their answers do, not before what had ended when they began, and not
//! after what began when they had ended.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use ractor_persistence::base::error::Error;
use ractor_persistence::base::value::Value;
use ractor_persistence::bucket::{Bucket, Transaction, TransactionBucket};
use ractor_persistence::bus::Pattern;
use ractor_persistence::record;
use ractor_persistence::records::{BucketDefinition, Change, Field, Filter, Record};
use ractor_persistence::store::Store;

use crate::world::*;

const BUCKETS: [&str; 3] = ["a", "b", "c"];
/// Where those that delete leave their mark.
const MARKS: &str = "marks";
const KEYS: u32 = 6;
const TASKS: u64 = 5;
const TRANSACTIONS: usize = 30;

fn definition(name: &str) -> BucketDefinition {
    BucketDefinition::new(name)
        .key("id")
        .field("id", Field::int())
        .field("n", Field::int())
        .field("email", Field::int().unique())
        .index(["n"])
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Get(usize, i64),
    /// All whose `n` is at least this, by index.
    Find(usize, i64),
    /// How many have an `n` below this.
    Count(usize, i64),
    All(usize),
    Set(usize, i64, i64),
    Insert(usize, i64, i64),
    Delete(usize, i64),
    /// Takes a unique value from one record and gives it to another.
    HandOver(usize, i64, i64),
}

/// What is read of a record: `n`, `email` and version.
type Seen = (i64, Option<i64>, u64);

#[derive(Clone, Debug, PartialEq)]
enum Answer {
    One(Option<Seen>),
    Many(BTreeMap<i64, Seen>),
    Count(usize),
    Done(bool),
}

fn random_op(random: &mut Random, only_reads: bool) -> Op {
    let bucket = usize::try_from(random.below(3)).unwrap();
    let (key, n) = (random.int(KEYS), random.int(10));
    match random.below(if only_reads { 8 } else { 18 }) {
        0..5 => Op::Get(bucket, key),
        5 => Op::Find(bucket, n),
        6 => Op::Count(bucket, n),
        7 => Op::All(bucket),
        8..13 => Op::Set(bucket, key, n),
        13..15 => Op::Insert(bucket, key, n),
        15 => Op::Delete(bucket, key),
        _ => Op::HandOver(bucket, key, random.int(KEYS)),
    }
}

fn seen(record: &Record) -> Seen {
    let int = |name| record.get(name).and_then(|value| value.as_i64());
    (int("n").unwrap_or(0), int("email"), record.version())
}

fn many(records: &[Arc<Record>]) -> BTreeMap<i64, Seen> {
    records.iter().map(|record| (record.key().as_value().as_i64().unwrap(), seen(record))).collect()
}

/// A write's answer: whether it was made; any error that ends the transaction is one.
fn done<T>(outcome: Result<T, Error>) -> Result<Answer, Error> {
    match outcome {
        Ok(_) => Ok(Answer::Done(true)),
        Err(Error::NotFound { .. } | Error::DuplicateKey { .. }) => Ok(Answer::Done(false)),
        Err(error) => Err(error),
    }
}

async fn perform(op: Op, mark: i64, tx: &Transaction) -> Result<Answer, Error> {
    let open = |bucket: usize| -> Result<TransactionBucket, Error> { tx.bucket(BUCKETS[bucket]) };
    Ok(match op {
        Op::Get(bucket, key) => Answer::One(open(bucket)?.get(key).await?.as_deref().map(seen)),
        Op::Find(bucket, n) => Answer::Many(many(&open(bucket)?.find(Filter::ge("n", n)).await?)),
        Op::Count(bucket, n) => Answer::Count(open(bucket)?.count(Filter::lt("n", n)).await?),
        Op::All(bucket) => Answer::Many(many(&open(bucket)?.all().await?)),
        Op::Set(bucket, key, n) => done(open(bucket)?.update(key, record! { "n": n, "tx": mark }).await)?,
        Op::Insert(bucket, key, n) => done(open(bucket)?.insert(record! { "id": key, "n": n, "tx": mark }).await)?,
        Op::Delete(bucket, key) => Answer::Done(open(bucket)?.delete(key).await?),
        Op::HandOver(bucket, from, to) => {
            let bucket = open(bucket)?;
            let (Some(giver), Some(_), true) = (bucket.get(from).await?, bucket.get(to).await?, from != to) else {
                return Ok(Answer::Done(false));
            };
            // To whom it is given, first: at that moment there are two.
            let email = giver.get("email").cloned().unwrap_or(Value::Null);
            bucket.update(to, record! { "email": email, "tx": mark }).await?;
            bucket.update(from, record! { "email": null, "tx": mark }).await?;
            Answer::Done(true)
        }
    })
}

/// A write outside of transactions.
async fn perform_alone(op: Op, mark: i64, store: &Store) -> Option<Answer> {
    let open = |bucket: usize| -> Bucket { store.bucket(BUCKETS[bucket]).unwrap() };
    let outcome = match op {
        Op::Set(bucket, key, n) => done(open(bucket).update(key, record! { "n": n, "tx": mark }).await),
        Op::Insert(bucket, key, n) => done(open(bucket).insert(record! { "id": key, "n": n, "tx": mark }).await),
        _ => return None,
    };
    Some(outcome.unwrap())
}

/// One that committed.
#[derive(Debug)]
struct History {
    mark: i64,
    /// Ticks of a clock that all share: when it began and when it had ended.
    begun: u64,
    ended: u64,
    ops: Vec<(Op, Answer)>,
}

type Model = [BTreeMap<i64, Seen>; 3];

fn replay(op: Op, model: &mut Model) -> Answer {
    let of = |bucket: &BTreeMap<i64, Seen>, fits: &dyn Fn(i64) -> bool| -> BTreeMap<i64, Seen> {
        bucket.iter().filter(|(_, seen)| fits(seen.0)).map(|(key, seen)| (*key, *seen)).collect()
    };
    match op {
        Op::Get(bucket, key) => Answer::One(model[bucket].get(&key).copied()),
        Op::Find(bucket, least) => Answer::Many(of(&model[bucket], &|n| n >= least)),
        Op::Count(bucket, most) => Answer::Count(of(&model[bucket], &|n| n < most).len()),
        Op::All(bucket) => Answer::Many(model[bucket].clone()),
        Op::Set(bucket, key, n) => {
            Answer::Done(model[bucket].get_mut(&key).map(|seen| *seen = (n, seen.1, seen.2 + 1)).is_some())
        }
        Op::Insert(bucket, key, n) => {
            let free = !model[bucket].contains_key(&key);
            if free {
                model[bucket].insert(key, (n, None, 1));
            }
            Answer::Done(free)
        }
        Op::Delete(bucket, key) => Answer::Done(model[bucket].remove(&key).is_some()),
        Op::HandOver(bucket, from, to) => {
            let bucket = &mut model[bucket];
            if from == to || !bucket.contains_key(&from) || !bucket.contains_key(&to) {
                return Answer::Done(false);
            }
            let email = bucket[&from].1;
            bucket.entry(to).and_modify(|seen| (seen.1, seen.2) = (email, seen.2 + 1));
            bucket.entry(from).and_modify(|seen| (seen.1, seen.2) = (None, seen.2 + 1));
            Answer::Done(true)
        }
    }
}

/// Whether all answers of a history come out of this state; the state is as it leaves it.
fn explains(history: &History, model: &mut Model) -> Result<(), String> {
    for (at, (op, answer)) in history.ops.iter().enumerate() {
        let expected = replay(*op, model);
        if expected != *answer {
            return Err(format!("operation {at}, {op:?}: {answer:?}, which should be {expected:?}"));
        }
    }
    Ok(())
}

async fn run_task(
    store: Store,
    task: u64,
    seed: u64,
    clock: Arc<AtomicU64>,
    marks: Arc<AtomicI64>,
) -> (Vec<History>, u32) {
    let mut random = Random(seed.wrapping_mul(1_000).wrapping_add(task));
    let (mut histories, mut lost) = (Vec::new(), 0);
    for _ in 0..TRANSACTIONS {
        let mark = marks.fetch_add(1, Ordering::Relaxed);
        let begun = clock.fetch_add(1, Ordering::SeqCst);
        let kind = random.below(6);
        if kind == 0 {
            let op = random_op(&mut random, false);
            if let Some(answer) = perform_alone(op, mark, &store).await {
                let ended = clock.fetch_add(1, Ordering::SeqCst);
                histories.push(History { mark, begun, ended, ops: vec![(op, answer)] });
            }
            continue;
        }
        let plan: Vec<(Op, u64)> =
            (0..=random.below(5)).map(|_| (random_op(&mut random, kind == 1), random.below(4))).collect();
        let outcome = store
            .transaction(|tx| {
                let plan = plan.clone();
                async move {
                    let mut ops = Vec::new();
                    for (op, rest) in plan {
                        ops.push((op, perform(op, mark, &tx).await?));
                        for _ in 0..rest {
                            tokio::task::yield_now().await;
                        }
                    }
                    if ops.iter().any(deleted) {
                        tx.bucket(MARKS)?.upsert(record! { "id": i64::try_from(task).unwrap(), "tx": mark }).await?;
                    }
                    Ok::<_, Error>(ops)
                }
            })
            .await;
        let ended = clock.fetch_add(1, Ordering::SeqCst);
        match outcome {
            Ok(ops) => histories.push(History { mark, begun, ended, ops }),
            Err(Error::Conflict { .. } | Error::UniqueViolation { .. }) => lost += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    (histories, lost)
}

/// Whether it took a record away, with whatever mark that had.
fn deleted((op, answer): &(Op, Answer)) -> bool {
    matches!(op, Op::Delete(..)) && *answer == Answer::Done(true)
}

async fn history(seed: u64) -> (usize, u32) {
    let (builder, _) = builder();
    let store = builder.start().await.unwrap();
    let mut model = Model::default();
    for (bucket, name) in BUCKETS.into_iter().enumerate() {
        let opened = store.define_bucket(definition(name)).await.unwrap();
        for key in (0..i64::from(KEYS)).filter(|key| key % 2 == 0) {
            opened.insert(record! { "id": key, "n": key, "email": key }).await.unwrap();
            model[bucket].insert(key, (key, Some(key), 1));
        }
    }
    store.define_bucket(definition(MARKS)).await.unwrap();
    let many_events = NonZeroUsize::new(1 << 20).unwrap();
    let mut events = store.bus().subscribe_bounded(Pattern::parse("bucket.*.*").unwrap(), many_events);
    let (clock, marks) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicI64::new(1)));
    let task = |task| tokio::spawn(run_task(store.clone(), task, seed, clock.clone(), marks.clone()));
    let tasks: Vec<_> = (0..TASKS).map(task).collect();
    let (mut histories, mut lost) = (Vec::new(), 0);
    for task in tasks {
        let (more, conflicts) = task.await.unwrap();
        histories.extend(more);
        lost += conflicts;
    }

    // By mark, the number of the commit.
    let mut commits: BTreeMap<i64, u64> = BTreeMap::new();
    for event in heard(&mut events) {
        if let Change::Inserted { record } | Change::Updated { new: record, .. } = &event.change {
            let mark = record.get("tx").and_then(|mark| mark.as_i64()).unwrap();
            assert_eq!(*commits.entry(mark).or_insert(event.commit), event.commit, "seed {seed}: one commit in two");
        }
    }
    let (mut order, mut reading) = (BTreeMap::new(), Vec::new());
    for history in histories {
        match commits.remove(&history.mark) {
            Some(commit) => drop(order.insert(commit, history)),
            None => reading.push(history),
        }
    }
    assert!(commits.is_empty(), "seed {seed}: one that did not commit has written: {commits:?}");

    let mut states = vec![model.clone()];
    let mut times = Vec::new();
    for (commit, history) in order {
        if let Err(wrong) = explains(&history, &mut model) {
            panic!("seed {seed}: transaction {} in commit {commit}: {wrong}\n{history:?}", history.mark);
        }
        times.push((history.begun, history.ended));
        states.push(model.clone());
    }
    for history in &reading {
        let first = times.iter().rposition(|(_, ended)| *ended < history.begun).map_or(0, |at| at + 1);
        let last = times.iter().position(|(begun, _)| *begun > history.ended).unwrap_or(times.len());
        let fits = (first..=last).any(|at| {
            let mut after = states[at].clone();
            explains(history, &mut after).is_ok()
        });
        assert!(fits, "seed {seed}: nothing between {first} and {last} explains {history:?}");
    }
    for (bucket, name) in BUCKETS.into_iter().enumerate() {
        assert_eq!(many(&store.bucket(name).unwrap().all().await.unwrap()), model[bucket], "seed {seed}: {name}");
    }
    (times.len() + reading.len(), lost)
}

#[test]
fn a_serial_order_explains_all_reads_and_the_final_state_of_concurrent_transactions() {
    let seeds =
        std::env::var("RACTOR_PERSISTENCE_HISTORY_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(30);
    let (mut committed, mut lost) = (0, 0);
    for seed in 0..seeds {
        println!("seed {seed}");
        // On one thread it can be repeated; on several it meets what only happens there.
        let runtime = if seed % 2 == 0 {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
        } else {
            tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap()
        };
        let (more, conflicts) = runtime.block_on(history(seed));
        committed += more;
        lost += conflicts;
    }
    println!("{committed} committed, {lost} lost");
    assert!(committed > 1_000 * usize::try_from(seeds).unwrap() / 30 && lost > 0);
}
