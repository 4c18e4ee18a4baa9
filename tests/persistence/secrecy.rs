//! Does anything that is meant for people contain what is in a record?

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ractor_persistence::base::durability::Durability;
use ractor_persistence::base::error::Error;
use ractor_persistence::bucket::BucketMessage;
use ractor_persistence::bus::Delivery;
use ractor_persistence::record;
use ractor_persistence::records::{BucketDefinition, Field, Write};
use ractor_persistence::testkit::{Fault, Operation};
use tokio::time::sleep;
use tracing::field::{Field as Traced, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::world::*;

const SECRET: &str = "hunter2";

/// Writes down everything that is traced.
#[derive(Clone, Default)]
struct Listener(Arc<Mutex<String>>);

impl Visit for Listener {
    fn record_debug(&mut self, field: &Traced, value: &dyn Debug) {
        writeln!(self.0.lock().unwrap(), "{field} {value:?}").unwrap();
    }
}

impl Subscriber for Listener {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut self.clone());
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, values: &Record<'_>) {
        values.record(&mut self.clone());
    }

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

#[tokio::test(start_paused = true)]
async fn health_errors_events_and_logs_never_contain_what_is_in_a_record() {
    let listener = Listener::default();
    let _listening = tracing::subscriber::set_default(listener.clone());
    let (adapter, faults) = faulty();
    let failures = Failures::default();
    let store = builder(adapter).on_error(failures.note()).start().await.unwrap();
    let mut events = store.subscribe("*").unwrap();
    let definition = BucketDefinition::new("items")
        .key("id")
        .field("id", Field::int())
        .field("text", Field::string().unique().default(SECRET))
        .field("number", Field::int());
    let bucket = store.define_bucket(definition.clone()).await.unwrap();
    let mut said = format!("{definition:?} {store:?} {bucket:?}");
    let say = |what: &dyn Debug, said: &mut String| writeln!(said, "{what:?}").unwrap();
    insert(&bucket, 1, SECRET).await.unwrap();

    // Refusals: what they say, not the fields that the caller is meant to read.
    let secret = || record! { "id": 2, "text": SECRET };
    let refused: Vec<Error> = vec![
        insert(&bucket, 1, SECRET).await.unwrap_err(),
        insert(&bucket, 2, SECRET).await.unwrap_err(),
        bucket.insert(record! { "id": SECRET }).await.unwrap_err(),
        bucket.insert(record! { "id": 3, "text": [SECRET] }).await.unwrap_err(),
        bucket.insert(record! { "id": 3, "number": SECRET }).await.unwrap_err(),
        bucket.update(1, record! { "number": SECRET }).await.unwrap_err(),
        bucket.update(9, record! { "text": SECRET }).await.unwrap_err(),
        bucket.insert(SECRET.to_owned()).await.unwrap_err(),
    ];
    for error in &refused {
        writeln!(said, "{error} {:?}", std::error::Error::source(error).map(ToString::to_string)).unwrap();
    }
    bucket.actor().await.unwrap().cast(BucketMessage::Post(Write::Insert(secret()).into())).unwrap();

    // Failures of all kinds.
    for error in [transient(), permanent(), unknown()] {
        faults.inject(Fault::fail(error).on(Operation::Commit).times(4));
        update(&bucket, 1, &format!("{SECRET}, too")).await.unwrap();
        sleep(Duration::from_millis(150)).await;
        say(&store.health(), &mut said);
        say(&store.flush().await, &mut said);
        say(&update(&bucket.with_durability(Durability::Fsync), 1, SECRET).await, &mut said);
        say(&store.stats().await, &mut said);
        sleep(Duration::from_secs(5)).await;
        kill(&bucket).await;
    }
    faults.fail_drops(permanent());
    say(&store.drop_bucket("items").await, &mut said);
    store.detach_bucket("items").await.unwrap();
    let narrower = BucketDefinition::new("items").key("id").field("id", Field::int()).field("text", Field::int());
    let misfit = store.define_bucket(narrower).await.unwrap_err();
    writeln!(said, "{misfit}").unwrap();
    say(&misfit, &mut said);
    let bucket = store.define_bucket(definition).await.unwrap();
    faults.fail_commits(permanent());
    update(&bucket, 1, &format!("{SECRET} again")).await.unwrap();
    say(&store.stop().await, &mut said);
    say(&failures.all(), &mut said);
    while let Some(delivery) = events.try_recv() {
        match delivery {
            Delivery::Event(event) => say(&event, &mut said),
            other => panic!("{other:?}"),
        }
    }
    let logged = listener.0.lock().unwrap().clone();
    assert!(logged.contains("posted write refused") && logged.contains("persistence failed"), "{logged}");
    for (what, text) in [("said", said), ("logged", logged)] {
        let lines: Vec<_> = text.lines().filter(|line| line.contains(SECRET)).collect();
        assert!(lines.is_empty(), "{what}: {lines:#?}");
    }
}
