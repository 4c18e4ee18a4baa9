//! What saving costs, each figure as a ratio to a floor that is measured in the same run.
//!
//! `cargo bench --bench persistence`, with `-- --smoke` for a quick run whose figures mean nothing, and `-- <words>` for
//! the parts whose names contain one of them.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used, reason = "a program that prints a table")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_wrap,
    clippy::cast_possible_truncation,
    reason = "the numbers of a benchmark are small"
)]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::Actor;
use ractor_persistence::adapters::redb::RedbAdapter;
use ractor_persistence::base::durability::Durability;
use ractor_persistence::base::name::{BucketKey, BucketName, StoreName};
use ractor_persistence::bucket::Bucket;
use ractor_persistence::persistence::{Commit, Save, StorageAdapter};
use ractor_persistence::records::{BucketChange, BucketDelta, BucketSnapshot, Metadata, Record, Schema, Table};
use ractor_persistence::store::Store;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

#[path = "support/awaited.rs"]
mod awaited;
#[path = "support/pauses.rs"]
mod pauses;
mod support;
use awaited::awaited;
use pauses::{holds, latencies};
use support::{Bare, BareCall, Goal, Report, all_data, data, definition, in_flight, settle};

const ROWS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("rows");

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let smoke = arguments.iter().any(|argument| argument == "--smoke");
    let words: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut report = Report::default();
    // Each in a task: what runs in `block_on` pays for waking the main thread.
    macro_rules! part {
        ($name:ident) => {
            if wanted(stringify!($name)) {
                report = runtime.block_on(runtime.spawn($name(smoke, report))).unwrap();
            }
        };
    }
    part!(calls);
    part!(awaited);
    part!(latencies);
    part!(commits);
    part!(loads);
    part!(holds);
    #[cfg(feature = "postgres")]
    if wanted("postgres") {
        let work = async move {
            support::postgres::run(smoke, &mut report).await;
            report
        };
        report = runtime.block_on(runtime.spawn(work)).unwrap();
    }
    report.print();
    if smoke {
        println!("smoke run: the figures above mean nothing");
    }
}

// ---- calls

async fn inserts(bucket: &Bucket, total: usize) -> Duration {
    let inserting = bucket.clone();
    let took = in_flight(all_data(0, total), move |data| {
        let bucket = inserting.clone();
        async move {
            bucket.insert(data).await.unwrap();
        }
    })
    .await;
    bucket.clear().await.unwrap();
    took
}

async fn calls(smoke: bool, mut report: Report) -> Report {
    let (total, rounds) = if smoke { (2_000, 1) } else { (100_000, 11) };
    let folder = tempfile::tempdir().unwrap();
    let (bare, _) = Actor::spawn(None, Bare, ()).await.unwrap();
    let memory = Store::builder("memory").start().await.unwrap();
    let adapter = RedbAdapter::open(folder.path().join("calls.redb")).await.unwrap();
    let saving = Store::builder("saving").adapter(adapter).start().await.unwrap();
    let plain = memory.define_bucket(definition("plain")).await.unwrap();
    let saved = saving.define_bucket(definition("saved")).await.unwrap();
    let watched = saving.define_bucket(definition("watched").index(["role"])).await.unwrap();
    let mut events = saving.subscribe("bucket.watched.*").unwrap();
    let reading = tokio::spawn(async move {
        // It is told of what it missed, too.
        while events.recv().await.is_some() {}
    });
    let (mut to_bare, mut to_plain, mut all_to_bare) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        // Each right behind its floor, with nothing of earlier ones still at work.
        for (bucket, ratios) in [(&plain, &mut to_bare), (&watched, &mut all_to_bare)] {
            settle().await;
            let calling = bare.clone();
            let floor = in_flight(all_data(0, total), move |data| {
                let bare = calling.clone();
                async move {
                    let limit = Some(Duration::from_secs(5));
                    bare.call(|port| BareCall(data, port), limit).await.unwrap().unwrap();
                }
            })
            .await;
            ratios.push((inserts(bucket, total).await, floor));
        }
        // By turns the first: the other one finds the memory as that has left it.
        let mut times = [Duration::ZERO; 2];
        for turn in [round % 2, 1 - round % 2] {
            settle().await;
            times[turn] = inserts([&plain, &saved][turn], total).await;
        }
        to_plain.push((times[1], times[0]));
    }
    let what = "awaited insert, 1,000 in flight";
    report.add(what, "bare ractor call, same payload and timeout", &to_bare, total, Goal::AtLeast(0.8));
    let what = "the same, saved to redb every 100 ms";
    report.add(what, "the same without an adapter", &to_plain, total, Goal::AtLeast(0.85));
    let what = "the same, with an index and a subscriber";
    report.add(what, "bare ractor call, same payload and timeout", &all_to_bare, total, Goal::AtLeast(0.45));
    let mut sustained = Vec::new();
    for _ in 0..if smoke { 1 } else { 3 } {
        // Ten times as many at a stretch, so that the journal has to be folded meanwhile.
        let mut times = [Duration::ZERO; 2];
        for (bucket, took) in [&plain, &saved].into_iter().zip(&mut times) {
            settle().await;
            for first in (0..10 * total).step_by(total) {
                let bucket = bucket.clone();
                *took += in_flight(all_data(first, total), move |data| {
                    let bucket = bucket.clone();
                    async move {
                        bucket.insert(data).await.unwrap();
                    }
                })
                .await;
            }
            bucket.clear().await.unwrap();
        }
        saving.flush().await.unwrap();
        let [in_memory, with_saving] = times;
        sustained.push((with_saving, in_memory));
    }
    let what = format!("saved to redb every 100 ms, {} at a stretch", 10 * total);
    report.add(&what, "the same without an adapter", &sustained, 10 * total, Goal::None);
    bare.stop(None);
    memory.stop().await.unwrap();
    assert!(saving.stop().await.unwrap().unsaved.is_empty());
    reading.abort();
    report
}

// ---- commits and loads

fn store() -> StoreName {
    StoreName::new("bench").unwrap()
}

fn bucket() -> BucketName {
    BucketName::new("records").unwrap()
}

fn stored(number: usize, version: u64) -> Arc<Record> {
    let mut fields = data(number);
    fields.remove("id");
    let metadata = Metadata { version, created_at: 1_700_000_000_000, updated_at: 1_700_000_000_000, expires_at: None };
    Arc::new(Record::from_parts(number as i64, number as u64, metadata, fields))
}

/// The same rows as a hand-written upsert would have them.
fn raw_row(record: &Record) -> ([u8; 8], Vec<u8>) {
    let key = record.place().to_be_bytes();
    (key, rmp_serde::to_vec_named(record).unwrap())
}

fn raw_upsert(database: &Database, records: &[Arc<Record>]) {
    let transaction = database.begin_write().unwrap();
    {
        let mut table = transaction.open_table(ROWS).unwrap();
        for record in records {
            let (key, row) = raw_row(record);
            table.insert(&key[..], &row[..]).unwrap();
        }
    }
    transaction.commit().unwrap();
}

async fn upsert(
    adapter: &RedbAdapter,
    epoch: ractor_persistence::persistence::Epoch,
    records: Vec<Arc<Record>>,
    revision: u64,
) {
    let mut delta = BucketDelta::new(revision, 0, 1);
    delta.upserts = records;
    let save = Save::Bucket(bucket(), Arc::new(BucketChange::Delta(delta)));
    adapter.commit(&Commit::new(store(), epoch, Durability::Fsync, vec![save])).await.unwrap();
}

/// The same numbers on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        // SplitMix64 (S. Vigna, 2015).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

async fn filled(path: &Path, size: usize) -> (RedbAdapter, ractor_persistence::persistence::Epoch) {
    let adapter = RedbAdapter::open(path).await.unwrap();
    let epoch = adapter.claim(&store()).await.unwrap();
    let records = (0..size).map(|number| stored(number, 1)).collect();
    upsert(&adapter, epoch, records, 1).await;
    (adapter, epoch)
}

async fn commits(smoke: bool, mut report: Report) -> Report {
    let (sizes, rounds): (&[usize], usize) = if smoke { (&[200], 2) } else { (&[1_000, 100_000, 1_000_000], 41) };
    let mut sums = Vec::new();
    for &size in sizes {
        let folder = tempfile::tempdir().unwrap();
        let (adapter, epoch) = filled(&folder.path().join("bucket.redb"), size).await;
        let raw = Arc::new(Database::create(folder.path().join("raw.redb")).unwrap());
        let all: Vec<_> = (0..size).map(|number| stored(number, 1)).collect();
        let database = Arc::clone(&raw);
        tokio::task::spawn_blocking(move || raw_upsert(&database, &all)).await.unwrap();
        let mut random = Random(size as u64);
        let mut times = Vec::new();
        for round in 0..rounds {
            let mut numbers: Vec<usize> = (0..100).map(|_| random.below(size)).collect();
            numbers.sort_unstable();
            numbers.dedup();
            let records: Vec<_> = numbers.into_iter().map(|number| stored(number, round as u64 + 2)).collect();
            let (database, rows) = (Arc::clone(&raw), records.clone());
            let begun = Instant::now();
            tokio::task::spawn_blocking(move || raw_upsert(&database, &rows)).await.unwrap();
            let floor = begun.elapsed();
            let begun = Instant::now();
            upsert(&adapter, epoch, records, round as u64 + 2).await;
            times.push((begun.elapsed(), floor));
        }
        let what = format!("commit of 100 changed records in {size}");
        report.add(&what, "raw redb upsert of the same rows", &times, 1, Goal::AtMost(1.5));
        sums.push(times.into_iter().map(|(took, _)| took).collect::<Vec<_>>());
        adapter.close(&store()).await.unwrap();
    }
    if let (Some(smallest), Some(largest)) = (sums.first(), sums.last()) {
        let times: Vec<_> = largest.iter().copied().zip(smallest.iter().copied()).collect();
        report.add("the same in the largest", "the same in the smallest", &times, 1, Goal::AtMost(3.0));
    }
    report
}

async fn loads(smoke: bool, mut report: Report) -> Report {
    let (size, rounds) = if smoke { (200, 1) } else { (1_000_000, 5) };
    let folder = tempfile::tempdir().unwrap();
    let (adapter, _) = filled(&folder.path().join("bucket.redb"), size).await;
    let raw = Arc::new(Database::create(folder.path().join("raw.redb")).unwrap());
    let all: Vec<_> = (0..size).map(|number| stored(number, 1)).collect();
    let database = Arc::clone(&raw);
    tokio::task::spawn_blocking(move || raw_upsert(&database, &all)).await.unwrap();
    let schema = Arc::new(Schema::new(definition("records")).unwrap());
    let key = BucketKey::new(store(), bucket());
    let (mut times, mut whole) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let database = Arc::clone(&raw);
        let begun = Instant::now();
        let decoded = tokio::task::spawn_blocking(move || {
            let transaction = database.begin_read().unwrap();
            let table = transaction.open_table(ROWS).unwrap();
            let mut records: Vec<Arc<Record>> = Vec::with_capacity(size);
            for row in table.iter().unwrap() {
                records.push(Arc::new(rmp_serde::from_slice(row.unwrap().1.value()).unwrap()));
            }
            records
        })
        .await
        .unwrap();
        let floor = begun.elapsed();
        assert_eq!(black_box(decoded).len(), size);
        let begun = Instant::now();
        let snapshot: BucketSnapshot = adapter.load_bucket(&key).await.unwrap().unwrap();
        times.push((begun.elapsed(), floor));
        let schema = Arc::clone(&schema);
        let restored = tokio::task::spawn_blocking(move || Table::restore(schema, snapshot).unwrap()).await.unwrap();
        whole.push((begun.elapsed(), floor));
        assert_eq!(black_box(restored.table).len(), size);
    }
    let what = format!("load of {size} records");
    report.add(&what, "raw redb scan and decode to the same type", &times, 1, Goal::AtMost(1.5));
    let what = format!("load of {size}, checked and indexed");
    report.add(&what, "raw redb scan and decode to the same type", &whole, 1, Goal::AtMost(1.5));
    adapter.close(&store()).await.unwrap();
    report
}
