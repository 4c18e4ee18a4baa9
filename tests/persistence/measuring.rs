//! What do the facade `metrics` and the spans of `tracing` hear of saving and loading?

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use ractor_persistence::testkit::{Fault, Operation};
use tokio::time::sleep;
use tracing::field::{Field as Traced, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};

use crate::world::*;

/// What was measured, by name and labels.
#[derive(Clone, Default)]
struct Noted {
    values: Arc<Mutex<BTreeMap<String, Vec<f64>>>>,
    described: Arc<Mutex<BTreeMap<String, Option<Unit>>>>,
}

struct One(String, Noted);

impl One {
    fn note(&self, change: impl FnOnce(&mut Vec<f64>)) {
        change(self.1.values.lock().unwrap().entry(self.0.clone()).or_default());
    }
}

impl CounterFn for One {
    fn increment(&self, value: u64) {
        self.note(|values| {
            let so_far = values.pop().unwrap_or_default();
            values.push(so_far + f64::from(u32::try_from(value).unwrap()));
        });
    }

    fn absolute(&self, _value: u64) {
        panic!("nothing is absolute here");
    }
}

impl GaugeFn for One {
    fn increment(&self, _value: f64) {
        panic!("it is set");
    }

    fn decrement(&self, _value: f64) {
        panic!("it is set");
    }

    fn set(&self, value: f64) {
        self.note(|values| values.push(value));
    }
}

impl HistogramFn for One {
    fn record(&self, value: f64) {
        self.note(|values| values.push(value));
    }
}

impl Noted {
    fn one(&self, key: &Key) -> Arc<One> {
        let mut labels: Vec<String> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        labels.sort();
        Arc::new(One(format!("{}{{{}}}", key.name(), labels.join(",")), self.clone()))
    }

    fn of(&self, name: &str) -> Vec<f64> {
        self.values.lock().unwrap().get(&format!("ractor_persistence_{name}")).cloned().unwrap_or_default()
    }

    fn describe(&self, name: &KeyName, unit: Option<Unit>) {
        self.described.lock().unwrap().insert(name.as_str().to_owned(), unit);
    }
}

impl Recorder for Noted {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.describe(&name, unit);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.describe(&name, unit);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        self.describe(&name, unit);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.one(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.one(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.one(key))
    }
}

#[tokio::test(start_paused = true)]
async fn commits_loads_lag_and_what_is_unsaved_are_measured_per_store_and_described() {
    let noted = Noted::default();
    let _recording = metrics::set_default_local_recorder(&noted);
    let (adapter, faults) = faulty();
    let store = start(adapter).await;
    faults.inject(Fault::delay(Duration::from_millis(500)).on(Operation::Load).times(1));
    let bucket = store.define_bucket(items("items")).await.unwrap();
    assert_eq!(noted.of("load_seconds{store=shop}"), [0.5]);

    faults.inject(Fault::delay(Duration::from_millis(250)).on(Operation::Commit).times(1));
    insert(&bucket, 1, "a").await.unwrap();
    sleep(WINDOW / 2).await;
    insert(&bucket, 2, "b").await.unwrap();
    let unsaved = store.stats().await.persistence.unsaved_bytes;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(noted.of("commits_total{outcome=saved,store=shop}"), [1.0]);
    assert_eq!(noted.of("commit_seconds{store=shop}"), [0.25]);
    let bytes = f64::from(u32::try_from(unsaved).unwrap());
    assert_eq!(noted.of("commit_bytes{store=shop}"), [bytes]);
    assert_eq!(noted.of("unsaved_bytes{store=shop}"), [bytes, 0.0]);
    let [lag] = noted.of("flush_lag_seconds{store=shop}")[..] else { panic!("{:?}", noted.values) };
    assert!((0.35..0.36).contains(&lag), "from the first change, the window, and the commit: {lag}");

    // While commits fail, what they would have saved grows older.
    for (error, outcome) in [(transient(), "transient"), (permanent(), "permanent"), (unknown(), "unknown")] {
        faults.inject(Fault::fail(error).on(Operation::Commit).times(2));
        update(&bucket, 1, outcome).await.unwrap();
        sleep(Duration::from_secs(5)).await;
        assert_eq!(noted.of(&format!("commits_total{{outcome={outcome},store=shop}}")), [2.0]);
    }
    assert_eq!(noted.of("commits_total{outcome=saved,store=shop}"), [4.0]);
    let lags = noted.of("flush_lag_seconds{store=shop}");
    assert_eq!(lags.len(), 4, "a failure saves nothing");
    assert!(lags.iter().all(|lag| *lag >= 0.1), "{lags:?}");
    assert_eq!(noted.of("unsaved_bytes{store=shop}").last(), Some(&0.0));

    let described = noted.described.lock().unwrap().clone();
    let names: Vec<&str> = described.keys().map(|name| name.trim_start_matches("ractor_persistence_")).collect();
    let all = ["commit_bytes", "commit_seconds", "commits_total", "flush_lag_seconds", "load_seconds", "unsaved_bytes"];
    assert_eq!(names, all);
    assert!(described.values().all(Option::is_some));
    store.stop().await.unwrap();
}

/// A recorder that does with every value what it was made for.
#[derive(Clone)]
struct Foreign(Arc<dyn Fn() + Send + Sync>);

impl CounterFn for Foreign {
    fn increment(&self, _value: u64) {
        (self.0)();
    }

    fn absolute(&self, _value: u64) {}
}

impl GaugeFn for Foreign {
    fn increment(&self, _value: f64) {}

    fn decrement(&self, _value: f64) {}

    fn set(&self, _value: f64) {
        (self.0)();
    }
}

impl HistogramFn for Foreign {
    fn record(&self, _value: f64) {
        (self.0)();
    }
}

impl Recorder for Foreign {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::new(self.clone()))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Arc::new(self.clone()))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(self.clone()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_recorder_that_panics_stops_no_save() {
    let recorder = Foreign(Arc::new(|| panic!("a recorder")));
    let _recording = metrics::set_default_local_recorder(&recorder);
    let (adapter, faults) = faulty();
    let store = start(adapter.clone()).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    faults.inject(Fault::delay(WINDOW / 2).on(Operation::Commit));
    insert(&bucket, 1, "a").await.unwrap();
    // While the first commit is in flight: only its end leads to the next one.
    sleep(WINDOW + WINDOW / 4).await;
    insert(&bucket, 2, "b").await.unwrap();
    sleep(WINDOW * 5).await;
    assert_eq!(stored(&adapter, "items").await, Some(expect([(1, "a"), (2, "b")])));
    assert!(store.stop().await.unwrap().error.is_none());
}

#[tokio::test]
async fn a_recorder_may_wait_for_somebody_who_looks_at_the_store() {
    let looker: Arc<Mutex<Option<ractor_persistence::Store>>> = Arc::default();
    let refused = Arc::new(AtomicU64::new(0));
    let (shared, failed) = (Arc::clone(&looker), Arc::clone(&refused));
    let recorder = Foreign(Arc::new(move || {
        let Some(store) = shared.lock().unwrap().clone() else { return };
        let (told, looked) = std::sync::mpsc::channel();
        std::thread::spawn(move || told.send(store.health().is_healthy()));
        // Only a deadlock takes as long.
        failed.fetch_add(u64::from(looked.recv_timeout(Duration::from_secs(10)).is_err()), Ordering::SeqCst);
    }));
    let _recording = metrics::set_default_local_recorder(&recorder);
    let (adapter, _) = faulty();
    let store = start(adapter).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    *looker.lock().unwrap() = Some(store.clone());
    insert(&bucket, 1, "a").await.unwrap();
    store.flush().await.unwrap();
    store.drop_bucket("items").await.unwrap();
    store.stop().await.unwrap();
    looker.lock().unwrap().take();
    assert_eq!(refused.load(Ordering::SeqCst), 0);
}

/// Spans by their ids, with their fields.
#[derive(Clone, Default)]
struct Spans {
    count: Arc<AtomicU64>,
    all: Arc<Mutex<BTreeMap<u64, String>>>,
}

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Traced, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

impl Subscriber for Spans {
    fn enabled(&self, _metadata: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let id = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        let mut text = span.metadata().name().to_owned();
        span.record(&mut Fields(&mut text));
        if let Some(parent) = span.parent() {
            let parents = self.all.lock().unwrap();
            let parent = parents[&parent.into_u64()].split(' ').next().unwrap();
            write!(text, " in={parent}").unwrap();
        }
        self.all.lock().unwrap().insert(id, text);
        Id::from_u64(id)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        if let Some(text) = self.all.lock().unwrap().get_mut(&span.into_u64()) {
            values.record(&mut Fields(text));
        }
    }

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, _event: &Event<'_>) {}

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

#[tokio::test(start_paused = true)]
async fn flushes_commits_and_loads_are_spans_with_counts_and_bytes() {
    let spans = Spans::default();
    let _listening = tracing::subscriber::set_default(spans.clone());
    let (adapter, _) = faulty();
    let store = start(adapter).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    let other = store.define_bucket(items("other")).await.unwrap();
    insert(&bucket, 1, "a").await.unwrap();
    insert(&bucket, 2, "b").await.unwrap();
    insert(&other, 1, "a").await.unwrap();
    let bytes = store.stats().await.persistence.unsaved_bytes;
    store.flush().await.unwrap();
    store.detach_bucket("items").await.unwrap();
    store.define_bucket(items("items")).await.unwrap();
    store.open_channel("room", ractor_persistence::ChannelOptions::default()).await.unwrap();
    store.stop().await.unwrap();
    let all: Vec<String> = spans.all.lock().unwrap().values().cloned().collect();
    let has = |text: &str| assert!(all.iter().any(|span| span.starts_with(text)), "no {text} in {all:#?}");
    has(&format!("store.flush store=shop subjects=2 bytes={bytes}"));
    has(&format!("adapter.commit store=shop epoch=1 saves=2 bytes={bytes} level=Fsync in=store.flush"));
    has("bucket.load store=shop subject=bucket items records=0 bytes=0");
    has("bucket.load store=shop subject=bucket items records=2 bytes=");
    has("channel.load store=shop subject=channel room messages=0 bytes=0");
}
