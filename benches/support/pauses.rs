//! How much longer calls take because something is being saved.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, reason = "a part of programs that print a table")]
#![allow(
    clippy::cast_possible_wrap,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the numbers of a benchmark are small"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor_persistence::adapters::redb::RedbAdapter;
use ractor_persistence::bucket::Bucket;
use ractor_persistence::persistence::PersistenceOptions;
use ractor_persistence::records::ChangeSet;
use ractor_persistence::store::Store;
use tokio::time::MissedTickBehavior;

use crate::support::{Goal, Report, all_data, definition};

fn quantile(mut times: Vec<Duration>, part: f64) -> Duration {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * part) as usize]
}

async fn filled(store: &Store, name: &str, size: usize) -> Bucket {
    let bucket = store.define_bucket(definition(name)).await.unwrap();
    for first in (0..size).step_by(10_000) {
        bucket.insert_many(all_data(first, 10_000.min(size - first))).await.unwrap();
    }
    store.flush().await.unwrap();
    bucket
}

/// Five updates every millisecond for so long, whatever the last ones do; how long each took.
async fn five_thousand_a_second(bucket: &Bucket, size: usize, duration: Duration) -> Vec<Duration> {
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (begun, mut calls, mut number) = (Instant::now(), Vec::new(), 0_usize);
    while begun.elapsed() < duration {
        ticks.tick().await;
        for _ in 0..5 {
            number += 7_919;
            let (bucket, key) = (bucket.clone(), (number % size) as i64);
            calls.push(tokio::spawn(async move {
                let begun = Instant::now();
                bucket.update(key, ractor_persistence::record! { "logins": key }).await.unwrap();
                begun.elapsed()
            }));
        }
    }
    let mut times = Vec::with_capacity(calls.len());
    for call in calls {
        times.push(call.await.unwrap());
    }
    times
}

/// Calls at a steady rate, with a flush every 50 ms and without.
pub async fn latencies(smoke: bool, mut report: Report) -> Report {
    let (size, seconds, rounds) = if smoke { (1_000, 0.05, 1) } else { (100_000, 3.0, 7) };
    let duration = Duration::from_secs_f64(seconds);
    let folder = tempfile::tempdir().unwrap();
    let adapter = RedbAdapter::open(folder.path().join("latencies.redb")).await.unwrap();
    let hour = PersistenceOptions::default().with_debounce(Duration::from_secs(3_600)).with_max_unsaved(1 << 30);
    let often = PersistenceOptions::default().with_debounce(Duration::from_millis(50));
    let rarely = Store::builder("rarely").adapter(adapter.clone()).persistence(hour).start().await.unwrap();
    let often = Store::builder("often").adapter(adapter).persistence(often).start().await.unwrap();
    let (without, with) = (filled(&rarely, "b", size).await, filled(&often, "b", size).await);
    let mut times = Vec::new();
    for _ in 0..rounds {
        let floor = quantile(five_thousand_a_second(&without, size, duration).await, 0.99);
        let measured = quantile(five_thousand_a_second(&with, size, duration).await, 0.99);
        rarely.flush().await.unwrap();
        // What is being folded is nobody's figure.
        tokio::time::sleep(Duration::from_secs_f64(seconds / 3.0)).await;
        times.push((measured, floor));
    }
    let what = "99 % of calls at 5,000/s, saved every 50 ms";
    report.add(what, "the same without saving", &times, 1, Goal::AtMost(2.0));
    rarely.stop().await.unwrap();
    often.stop().await.unwrap();
    report
}

/// For how long a capture has the lock that changes of the bucket take: what is unsaved becomes what the adapter is given.
///
/// Timed by itself, because two cores that also save and call show when they take turns, and not who holds what.
pub async fn holds(smoke: bool, mut report: Report) -> Report {
    let (size, rounds) = if smoke { (2_000, 3) } else { (1_000_000, 301) };
    let all: Vec<_> = (0..size).map(|number| crate::stored(number, 1)).collect();
    let mut times = Vec::new();
    for round in 0..rounds {
        let mut changes = ChangeSet::new(0, round as u64, 1);
        for number in 0..1_000 {
            changes.upsert(Arc::clone(&all[(round * 1_009 + number * 7_919) % size]));
        }
        let begun = Instant::now();
        let change = changes.into_change();
        let took = begun.elapsed();
        assert_eq!(black_box(change).len(), 1_000);
        times.push((took, Duration::from_micros(20)));
    }
    let what = format!("hold at a capture, 1,000 dirty of {size}");
    report.add(&what, "20 us", &times, 1, Goal::AtMost(1.0));
    report
}
