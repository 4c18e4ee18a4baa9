//! How much longer calls take because something is being saved.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, reason = "a part of programs that print a table")]
#![allow(
    clippy::cast_possible_wrap,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the numbers of a benchmark are small"
)]

use std::time::{Duration, Instant};

use ractor_persistence::adapters::redb::RedbAdapter;
use ractor_persistence::bucket::Bucket;
use ractor_persistence::persistence::PersistenceOptions;
use ractor_persistence::store::Store;
use tokio::time::MissedTickBehavior;

use crate::support::{Goal, Report, all_data, data, definition};

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

/// What a capture adds to the slowest of the calls around it.
pub async fn holds(smoke: bool, mut report: Report) -> Report {
    let (size, rounds) = if smoke { (2_000, 3) } else { (1_000_000, 101) };
    let folder = tempfile::tempdir().unwrap();
    let adapter = RedbAdapter::open(folder.path().join("holds.redb")).await.unwrap();
    let hour = PersistenceOptions::default().with_debounce(Duration::from_secs(3_600)).with_max_unsaved(1 << 30);
    let store = Store::builder("holds").adapter(adapter).persistence(hour).start().await.unwrap();
    let bucket = filled(&store, "b", size).await;
    let mut times = Vec::new();
    for round in 0..rounds {
        for number in 0..1_000 {
            let key = ((round * 1_009 + number * 7_919) % size) as i64;
            bucket.update(key, ractor_persistence::record! { "logins": number as i64 }).await.unwrap();
        }
        let mut slowest = [Duration::ZERO; 2];
        for (flushing, slowest) in [false, true].into_iter().zip(&mut slowest) {
            let flush = flushing.then(|| {
                let store = store.clone();
                tokio::spawn(async move { store.flush().await.unwrap() })
            });
            for number in 0..40 {
                let begun = Instant::now();
                bucket.upsert(data(number)).await.unwrap();
                *slowest = begun.elapsed().max(*slowest);
            }
            if let Some(flush) = flush {
                flush.await.unwrap();
            }
        }
        let [without, with] = slowest;
        // A round in which it was quicker says nothing of the hold, but belongs to the median.
        times.push((with.saturating_sub(without).max(Duration::from_nanos(1)), Duration::from_micros(20)));
    }
    let what = format!("hold at a capture, 1,000 dirty of {size}");
    report.add(&what, "20 us", &times, 1, Goal::AtMost(1.0));
    store.stop().await.unwrap();
    report
}
