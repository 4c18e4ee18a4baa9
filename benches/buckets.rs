//! What buckets cost, each figure as a ratio to a floor that is measured in the same run.
//!
//! `cargo bench --bench buckets`, with `-- --smoke` for a quick run whose figures mean nothing, and with a word to run only
//! the parts whose names have it in them: `calls`, `reads`, `capacity`, `scans`, `transactions`, `memory`, `growth`.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used, reason = "a program that prints a table")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_wrap,
    clippy::cast_possible_truncation,
    reason = "the numbers of a benchmark are small"
)]

use std::collections::{HashMap, HashSet};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ractor::{Actor, ActorRef};
use ractor_persistence::base::error::Error;
use ractor_persistence::base::value::Object;
use ractor_persistence::bucket::{Bucket, BucketMessage};
use ractor_persistence::record;
use ractor_persistence::records::{BucketDefinition, Draws, Field, Filter, Patch, Record, Schema, Table, Write};
use ractor_persistence::store::Store;

mod support;
use support::{Bare, BareCall, Goal, Report, all_data, data, definition, in_flight};

/// The memory that the process holds, in bytes; none where the system does not tell.
fn resident() -> Option<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(pages.split_whitespace().nth(1)?.parse::<u64>().ok()? * 4_096)
}

/// By how much the process grows when this is made.
fn bytes_of<T>(make: impl FnOnce() -> T) -> Option<(u64, T)> {
    let before = resident()?;
    let made = make();
    Some((resident()?.saturating_sub(before), made))
}

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
    if words.is_empty() {
        // In a process of its own: it counts what the process holds, and leaves a heap behind that slows the rest.
        let mut own = std::process::Command::new(std::env::current_exe().unwrap());
        assert!(own.args(smoke.then_some("--smoke")).arg("memory").status().unwrap().success());
    } else {
        part!(memory);
    }
    part!(calls);
    part!(reads);
    part!(capacity);
    part!(scans);
    part!(transactions);
    part!(growth);
    report.print();
    if smoke {
        println!("smoke run: the figures above mean nothing");
    }
}

async fn bare() -> ActorRef<BareCall> {
    Actor::spawn(None, Bare, ()).await.unwrap().0
}

async fn bare_calls(actor: &ActorRef<BareCall>, total: usize) -> Duration {
    let actor = actor.clone();
    in_flight(all_data(0, total), move |data| {
        let actor = actor.clone();
        async move {
            actor.call(|port| BareCall(data, port), Some(Duration::from_secs(5))).await.unwrap().unwrap();
        }
    })
    .await
}

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

// ---- writes

async fn calls(smoke: bool, mut report: Report) -> Report {
    let (total, rounds) = if smoke { (2_000, 1) } else { (100_000, 11) };
    let store = Store::builder("calls").start().await.unwrap();
    let none = store.define_bucket(definition("none")).await.unwrap();
    let one = store.define_bucket(definition("one").index(["role"])).await.unwrap();
    let two = store.define_bucket(definition("two").index(["role"]).index(["logins"])).await.unwrap();
    let unique = store.define_bucket(definition("unique").unique_index(["email"])).await.unwrap();
    let many = store.define_bucket(definition("many")).await.unwrap();
    let actor = bare().await;
    let mut times: [Vec<(Duration, Duration)>; 5] = Default::default();
    for _ in 0..rounds {
        let floor = bare_calls(&actor, total).await;
        for (times, bucket) in times.iter_mut().zip([&none, &one, &two, &unique]) {
            times.push((inserts(bucket, total).await, floor));
        }
        let lists: Vec<Vec<Object>> = (0..total / 100).map(|batch| all_data(batch * 100, 100)).collect();
        let begun = Instant::now();
        for list in lists {
            many.insert_many(list).await.unwrap();
        }
        times[4].push((begun.elapsed(), floor));
        many.clear().await.unwrap();
    }
    let floor = "bare ractor call, same payload and timeout";
    report.add("awaited insert, no index", floor, &times[0], total, Goal::AtLeast(0.8));
    report.add("awaited insert, one index", floor, &times[1], total, Goal::AtLeast(0.7));
    report.add("awaited insert, two indexes", floor, &times[2], total, Goal::AtLeast(0.5));
    report.add("awaited insert, one unique index of texts", floor, &times[3], total, Goal::None);
    report.add("insert_many(100), per record", floor, &times[4], total, Goal::AtLeast(4.0));
    let against: Vec<_> = times[4].iter().zip(&times[0]).map(|(many, single)| (many.0, single.0)).collect();
    report.add("insert_many(100), per record", "awaited insert, no index", &against, total, Goal::None);
    actor.stop(None);
    store.stop().await.unwrap();
    report
}

// ---- reads

fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

async fn reads(smoke: bool, mut report: Report) -> Report {
    let (size, total, rounds) = if smoke { (1_000, 2_000, 1) } else { (10_000, 100_000, 11) };
    let store = Store::builder("reads").start().await.unwrap();
    let bucket = store.define_bucket(definition("b").field("group", Field::int()).index(["group"])).await.unwrap();
    let grouped = |number: usize| {
        let mut data = data(number);
        data.insert("group", ((number * 7_919) % size / 10) as i64);
        data
    };
    bucket.insert_many((0..size).map(grouped)).await.unwrap();
    let actor = bare().await;
    let (mut gets, mut queries) = (Vec::new(), Vec::new());
    let mut plain: HashMap<i64, HashSet<i64>> = HashMap::new();
    let mut records: HashMap<i64, Arc<Record>> = HashMap::new();
    for record in bucket.all().await.unwrap() {
        let (id, group) = (record.get("id").unwrap().as_i64().unwrap(), record.get("group").unwrap().as_i64().unwrap());
        plain.entry(group).or_default().insert(id);
        records.insert(id, record);
    }
    for _ in 0..rounds {
        let floor = bare_calls(&actor, total).await;
        let getting = bucket.clone();
        let took = in_flight((0..total).collect(), move |number: usize| {
            let bucket = getting.clone();
            async move {
                black_box(bucket.get((number % size) as i64).await.unwrap().unwrap());
            }
        })
        .await;
        gets.push((took, floor));
        let begun = Instant::now();
        for number in 0..total {
            let group = (number % (size / 10)) as i64;
            let hits: Vec<Arc<Record>> = plain[&group].iter().map(|id| Arc::clone(&records[id])).collect();
            assert_eq!(black_box(hits).len(), 10);
        }
        let floor = begun.elapsed();
        let begun = Instant::now();
        for number in 0..total {
            let group = (number % (size / 10)) as i64;
            assert_eq!(black_box(bucket.find(Filter::eq("group", group)).await.unwrap()).len(), 10);
        }
        queries.push((begun.elapsed(), floor));
    }
    report.add("get through a handle, 1,000 tasks", "bare ractor call", &gets, total, Goal::AtLeast(3.0));
    let floor = "look-up in HashMap<_, HashSet<_>> and clones";
    report.add("indexed equality, 10 hits of 10,000, one task", floor, &queries, total, Goal::AtMost(3.0));

    // How long a get takes while 1,000 inserts are queued.
    let mut pairs = Vec::new();
    for round in 0..rounds {
        let (mut idle, mut busy) = (Vec::new(), Vec::new());
        for number in 0..5_000 {
            let begun = Instant::now();
            black_box(bucket.get((number % size) as i64).await.unwrap());
            idle.push(begun.elapsed());
        }
        let inbox = bucket.actor().await.unwrap();
        let mut next = (round + 1) * 10_000_000;
        while busy.len() < 5_000 {
            // The queue never runs dry while the gets are timed.
            for _ in 0..1_000 {
                inbox.cast(BucketMessage::Post(Write::Insert(grouped(next)).into())).unwrap();
                next += 1;
            }
            for number in 0..100 {
                let begun = Instant::now();
                black_box(bucket.get((number % size) as i64).await.unwrap());
                busy.push(begun.elapsed());
            }
            // Answered in its turn, after all that was queued.
            bucket.stats().await.unwrap();
        }
        pairs.push((p99(busy), p99(idle)));
    }
    report.add("p99 of get while 1,000 inserts are queued", "p99 of get when idle", &pairs, 1, Goal::AtMost(2.0));
    actor.stop(None);
    store.stop().await.unwrap();
    report
}

// ---- capacity and expiry

async fn capacity(smoke: bool, mut report: Report) -> Report {
    let (size, rounds) = if smoke { (1_000, 1) } else { (100_000, 7) };
    let total = size;
    let store = Store::builder("capacity").ttl_check_interval(Duration::ZERO).start().await.unwrap();
    let plain = store.define_bucket(definition("plain")).await.unwrap();
    let full = store.define_bucket(definition("full").max_size(size)).await.unwrap();
    let batches = |bucket: &Bucket, from: usize| {
        let bucket = bucket.clone();
        async move {
            for batch in 0..size / 1_000 {
                let list: Vec<Object> = (0..1_000).map(|number| data(from + batch * 1_000 + number)).collect();
                bucket.insert_many(list).await.unwrap();
            }
        }
    };
    batches(&full, 0).await;
    let mut pairs = Vec::new();
    for round in 0..rounds {
        // Both hold as many records, and get as many more.
        plain.clear().await.unwrap();
        batches(&plain, 0).await;
        let first = (round + 1) * 10 * size;
        let timed = |bucket: &Bucket| {
            let bucket = bucket.clone();
            in_flight(all_data(first, total), move |data| {
                let bucket = bucket.clone();
                async move {
                    bucket.insert(data).await.unwrap();
                }
            })
        };
        let floor = timed(&plain).await;
        pairs.push((timed(&full).await, floor));
    }
    assert_eq!(full.count(Filter::all()).await.unwrap(), size);
    report.add(
        &format!("insert into a full bucket of {size}"),
        "insert without a limit",
        &pairs,
        total,
        Goal::AtMost(1.5),
    );

    let living = store.define_bucket(definition("living").ttl("1d")).await.unwrap();
    batches(&living, 0).await;
    let mut ticks = Vec::new();
    for round in 0..rounds {
        let begun = Instant::now();
        for number in 0..10 {
            living.insert(data((round + 10) * size + number)).await.unwrap();
        }
        let floor = begun.elapsed();
        let begun = Instant::now();
        assert_eq!(store.purge_expired().await.unwrap(), 0);
        ticks.push((begun.elapsed(), floor));
    }
    report.add(&format!("TTL tick over {size} live records"), "ten awaited inserts", &ticks, 1, Goal::AtMost(1.0));
    store.stop().await.unwrap();
    report
}

// ---- scans

async fn scans(smoke: bool, mut report: Report) -> Report {
    let (size, rounds) = if smoke { (20_000, 1) } else { (1_000_000, 5) };
    let store = Store::builder("scans").start().await.unwrap();
    let bucket = store.define_bucket(definition("b")).await.unwrap();
    for batch in 0..size / 1_000 {
        bucket.insert_many((0..1_000).map(|number| data(batch * 1_000 + number))).await.unwrap();
    }
    let mut next = size;
    let mut pairs = Vec::new();
    for _ in 0..rounds {
        let mut timed = Vec::new();
        for scanning in [false, true] {
            let (stop, scanned) = (Arc::new(AtomicBool::new(false)), bucket.clone());
            let stopped = Arc::clone(&stop);
            let scan = tokio::spawn(async move {
                let mut scans = 0;
                while scanning && !stopped.load(Ordering::Relaxed) {
                    let hits = scanned.count(Filter::contains("note", "no such text")).await.unwrap();
                    assert_eq!(black_box(hits), 0);
                    scans += 1;
                }
                scans
            });
            let mut times = Vec::new();
            for _ in 0..if smoke { 100 } else { 20_000 } {
                let data = data(next);
                next += 1;
                let begun = Instant::now();
                bucket.insert(data).await.unwrap();
                times.push(begun.elapsed());
            }
            stop.store(true, Ordering::Relaxed);
            assert!(scan.await.unwrap() > 0 || !scanning);
            timed.push(p99(times));
        }
        pairs.push((timed[1], timed[0]));
    }
    report.add(&format!("p99 of inserts during scans of {size}"), "p99 without scans", &pairs, 1, Goal::AtMost(2.0));
    store.stop().await.unwrap();
    report
}

// ---- transactions

async fn transactions(smoke: bool, mut report: Report) -> Report {
    let (total, rounds) = if smoke { (100, 1) } else { (20_000, 11) };
    let store = Store::builder("transactions").start().await.unwrap();
    let account =
        |name: &str| BucketDefinition::new(name).key("id").field("id", Field::string()).field("amount", Field::int());
    let savings = store.define_bucket(account("savings")).await.unwrap();
    let current = store.define_bucket(account("current")).await.unwrap();
    savings.insert(record! { "id": "ada", "amount": 0 }).await.unwrap();
    current.insert(record! { "id": "ada", "amount": 0 }).await.unwrap();
    let actor = bare().await;
    let mut pairs = Vec::new();
    for _ in 0..rounds {
        let payloads = all_data(0, total);
        let begun = Instant::now();
        for data in payloads {
            actor.call(|port| BareCall(data, port), Some(Duration::from_secs(5))).await.unwrap().unwrap();
        }
        let floor = begun.elapsed();
        let begun = Instant::now();
        for _ in 0..total {
            store
                .transaction(|tx| async move {
                    tx.bucket("savings")?.patch("ada", Patch::new().increment("amount", -1)).await?;
                    tx.bucket("current")?.patch("ada", Patch::new().increment("amount", 1)).await?;
                    Ok::<_, Error>(())
                })
                .await
                .unwrap();
        }
        pairs.push((begun.elapsed(), floor));
    }
    let (what, floor) = ("transaction over two buckets, one task", "bare ractor call, one task");
    report.add(what, floor, &pairs, total, Goal::AtMost(6.0));
    actor.stop(None);
    store.stop().await.unwrap();
    report
}

// ---- memory and growth

fn filled(schema: &Arc<Schema>, size: usize, mut each: impl FnMut(Duration)) -> Table {
    let mut table = Table::new(Arc::clone(schema));
    for number in 0..size {
        let data = data(number);
        let begun = Instant::now();
        let mut draws = Draws { now: 1_700_000_000_000, uuid: &mut uuid::Uuid::new_v4 };
        let plan = table.plan(Write::Insert(data), &mut draws).unwrap();
        drop(table.apply(plan));
        each(begun.elapsed());
    }
    table
}

async fn memory(smoke: bool, mut report: Report) -> Report {
    let size = if smoke { 1_000 } else { 300_000 };
    let schema = Arc::new(Schema::new(definition("b")).unwrap());
    let indexed = Arc::new(Schema::new(definition("b").index(["logins"]).unique_index(["email"])).unwrap());
    // The largest first, and all of them kept: what one of them frees is no help to the next.
    let theirs = bytes_of(|| {
        let table = filled(&schema, 1, |_| {});
        let one = table.all().next().unwrap().to_json();
        (0..size)
            .map(|number| {
                let mut json = one.clone();
                for (name, value) in data(number).iter() {
                    json[name.as_str()] = value.to_json();
                }
                (number.to_string(), json)
            })
            .collect::<HashMap<String, serde_json::Value>>()
    });
    let ours = bytes_of(|| filled(&schema, size, |_| {}));
    let with = bytes_of(|| filled(&indexed, size, |_| {}));
    let (Some((theirs, maps)), Some((ours, table)), Some((with, _indexed))) = (theirs, ours, with) else {
        println!("  the system does not tell how much memory a process holds");
        return report;
    };
    assert_eq!(maps.len(), table.len());
    let each = |bytes: u64| bytes / size as u64;
    println!("  bytes per record: {} against {}", each(ours), each(theirs));
    println!("  bytes per index entry, values included: {}", each(with.saturating_sub(ours)) / 2);
    let bytes = |count: u64| Duration::from_micros(count);
    let pair = [(bytes(ours), bytes(theirs.max(1)))];
    report.add("bytes per record (read us as bytes)", "as serde_json::Value maps", &pair, size, Goal::AtMost(0.45));
    report
}

async fn growth(smoke: bool, mut report: Report) -> Report {
    let size = if smoke { 10_000 } else { 1_000_000 };
    let schema = Arc::new(Schema::new(definition("b")).unwrap());
    let mut rounds = Vec::new();
    for _ in 0..3 {
        let mut longest = Duration::ZERO;
        drop(filled(&schema, size, |took| longest = longest.max(took)));
        rounds.push((longest, Duration::from_millis(5)));
    }
    rounds.sort_unstable();
    // The least of three: what the machine does to a process is no pause of ours.
    report.add(&format!("longest insert while growing to {size}"), "5 ms", &rounds[..1], 1, Goal::AtMost(1.0));
    report
}
