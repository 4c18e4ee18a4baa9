//! Does anything that is meant for people contain what is in a record?

use std::fmt::{Debug, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ractor_persistence::base::clock::Clock;
use ractor_persistence::base::durability::Durability;
use ractor_persistence::base::error::{Error, Place};
use ractor_persistence::bucket::{BucketMessage, QueryContext};
use ractor_persistence::bus::Delivery;
use ractor_persistence::persistence::LoadFailure;
use ractor_persistence::record;
use ractor_persistence::records::{BucketDefinition, Field, Filter, Patch, Write};
use ractor_persistence::store::Store;
use ractor_persistence::testkit::{Fault, Operation};
use serde::Deserialize;
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
        writeln!(self.0.lock().unwrap(), "{}", span.metadata().name()).unwrap();
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

/// An error with everything that stands behind it, in both of its forms.
fn in_full(error: &(dyn std::error::Error + 'static)) -> String {
    let mut said = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        writeln!(said, "{error} {error:?}").unwrap();
        next = error.source();
    }
    said
}

/// A bucket in whose every field, key and default there is a secret.
fn secrets() -> BucketDefinition {
    BucketDefinition::new("items")
        .key("id")
        .field("id", Field::string())
        .field("text", Field::string().unique().default(SECRET))
        .field("number", Field::int())
        .field("short", Field::string().max_length(3))
        .field("any", Field::any())
}

/// A type that no record of these fits.
#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "it is never read")]
struct Misfit {
    text: i64,
}

#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "it is never read")]
struct Choice {
    text: Kind,
}

#[derive(Debug, Deserialize)]
enum Kind {
    One,
}

/// A clock that fails with words of its own, as any code of a user's may.
#[derive(Debug, Default)]
struct Talkative(AtomicBool);

impl Clock for Talkative {
    fn now_ms(&self) -> i64 {
        assert!(!self.0.swap(false, Ordering::SeqCst), "while {SECRET} was being written");
        1
    }
}

fn assert_silent(what: &str, text: &str) {
    let lines: Vec<_> = text.lines().filter(|line| line.contains(SECRET)).collect();
    assert!(lines.is_empty(), "{what}: {lines:#?}");
}

#[tokio::test(start_paused = true)]
async fn ps_33_health_errors_events_and_logs_never_contain_what_is_in_a_record() {
    let listener = Listener::default();
    let _listening = tracing::subscriber::set_default(listener.clone());
    let (adapter, faults) = faulty();
    let (failures, clock) = (Failures::default(), Arc::new(Talkative::default()));
    let store = builder(adapter).on_error(failures.note()).clock(Arc::clone(&clock) as _).start().await.unwrap();
    let mut events = store.subscribe("*").unwrap();
    let mut told = store.subscribe("persistence.*.*").unwrap();
    let bucket = store.define_bucket(secrets()).await.unwrap();
    let mut said = format!("{:?} {store:?} {bucket:?}", secrets());
    let say = |what: &dyn Debug, said: &mut String| writeln!(said, "{what:?}").unwrap();
    let key = format!("{SECRET}@example.org");
    let secret = || record! { "id": SECRET, "text": format!("the {SECRET}"), "any": { "deep": [SECRET] } };
    bucket.insert(secret()).await.unwrap();
    bucket.insert(record! { "id": &*key, "text": "fine" }).await.unwrap();
    bucket.insert(record! { "id": "defaults" }).await.unwrap();

    // Refusals of every kind, with all that stands behind them.
    let unbound = || record! { SECRET: SECRET };
    let found = bucket.get(SECRET).await.unwrap().unwrap();
    let refused: Vec<Error> = vec![
        bucket.insert(secret()).await.unwrap_err(),
        bucket.insert(record! { "id": "2", "text": format!("the {SECRET}") }).await.unwrap_err(),
        bucket.insert(record! { "id": [SECRET] }).await.unwrap_err(),
        bucket.insert(record! { "id": "3", "text": [SECRET] }).await.unwrap_err(),
        bucket.insert(record! { "id": "3", "number": SECRET }).await.unwrap_err(),
        bucket.insert(record! { "id": "3", "short": SECRET }).await.unwrap_err(),
        bucket.insert_many(vec![secret(), unbound()]).await.unwrap_err(),
        bucket.update(SECRET, record! { "number": SECRET }).await.unwrap_err(),
        bucket.update(format!("no {SECRET}"), record! { "text": SECRET }).await.unwrap_err(),
        bucket.patch(SECRET, Patch::new().increment("text", 1)).await.unwrap_err(),
        bucket.insert(SECRET.to_owned()).await.unwrap_err(),
        found.to::<Misfit>().unwrap_err(),
        found.to::<Choice>().unwrap_err(),
        found.to::<Vec<i64>>().unwrap_err(),
        store
            .transaction(|tx| async move {
                tx.bucket("items")?.insert(record! { "id": SECRET }).await?;
                Ok::<_, Error>(())
            })
            .await
            .unwrap_err(),
    ];
    assert!(refused.iter().any(|error| matches!(error, Error::DuplicateKey { key, .. } if *key == SECRET.into())));
    assert!(
        refused.iter().any(|error| matches!(error, Error::UniqueViolation { holder, .. } if *holder == SECRET.into()))
    );
    assert!(refused.iter().any(|error| matches!(error, Error::NotFound { .. })));
    assert!(refused.iter().any(|error| matches!(error, Error::Decode { .. })));
    refused.iter().for_each(|error| said += &in_full(error));
    bucket.actor().await.unwrap().cast(BucketMessage::Post(Write::Insert(secret()).into())).unwrap();

    bucket.stats().await.unwrap();

    // Code of the user's that fails, with words of its own.
    let handler = store.on("bucket.items.*", |_| async { panic!("{SECRET}") }).unwrap();
    let live = store
        .live(|q: QueryContext| async move {
            let found = q.bucket("items")?.count(Filter::eq("text", SECRET)).await?;
            assert!(found < 2, "{SECRET}");
            Ok(found)
        })
        .await
        .unwrap();
    clock.0.store(true, Ordering::SeqCst);
    let died = bucket.update("defaults", record! { "number": 1 }).await.unwrap_err();
    said += &in_full(&died);

    // Failures of all kinds, which name what they are about.
    let damage = Error::corrupt(Place::new("rows"), "torn");
    for error in [transient(), permanent(), unknown(), damage.clone()] {
        faults.inject(Fault::fail(error).on(Operation::Commit).times(4));
        bucket.update(SECRET, record! { "text": format!("{SECRET}, too") }).await.unwrap();
        sleep(Duration::from_millis(150)).await;
        say(&store.health(), &mut said);
        for outcome in [
            store.flush().await,
            bucket
                .with_durability(Durability::Fsync)
                .update(SECRET, record! { "text": SECRET.repeat(2) })
                .await
                .map(drop),
        ] {
            let Err(error) = outcome else { continue };
            said += &in_full(&error);
        }
        say(&store.stats().await, &mut said);
        sleep(Duration::from_secs(5)).await;
        kill(&bucket).await;
        bucket.stats().await.unwrap();
        sleep(Duration::from_secs(31)).await;
    }
    store.settle().await;
    drop((handler, live));
    faults.fail_drops(permanent());
    say(&store.drop_bucket("items").await, &mut said);
    store.detach_bucket("items").await.unwrap();
    for other in [Field::int(), Field::string().max_length(2), Field::string().pattern("^[0-9]$")] {
        let narrower = BucketDefinition::new("items").key("id").field("id", Field::string()).field("text", other);
        let misfit = store.define_bucket(narrower).await.unwrap_err();
        assert!(matches!(misfit, Error::Migration { .. }), "{misfit:?}");
        said += &in_full(&misfit);
    }
    faults.inject(Fault::fail(damage).on(Operation::Load).times(1));
    said += &in_full(&store.define_bucket(secrets()).await.unwrap_err());
    let bucket = store.define_bucket(secrets()).await.unwrap();
    faults.fail_commits(permanent());
    bucket.update(SECRET, record! { "text": format!("{SECRET} again") }).await.unwrap();
    say(&store.stop().await, &mut said);
    say(&failures.all(), &mut said);
    failures.all().iter().for_each(|failure| said += &format!("{failure} {}", in_full(&failure.error)));
    say(&outcomes(&mut told), &mut said);
    while let Some(delivery) = events.try_recv() {
        match delivery {
            Delivery::Event(event) => say(&event, &mut said),
            other => panic!("{other:?}"),
        }
    }
    let logged = listener.0.lock().unwrap().clone();
    for line in ["posted write refused", "persistence failed", "user code panicked", "an actor died", "store.flush"] {
        assert!(logged.contains(line), "{line} is missing: {logged}");
    }
    assert_silent("said", &said);
    assert_silent("logged", &logged);
}

/// What a disk says of a record that was damaged: where it is, and not which.
#[tokio::test]
async fn ps_33_what_is_told_of_a_damaged_record_is_its_place_and_not_what_it_holds() {
    let listener = Listener::default();
    let _listening = tracing::subscriber::set_default(listener.clone());
    for disk in disks() {
        let store = disk.start(options()).await;
        let bucket = store.define_bucket(secrets()).await.unwrap();
        for number in 0..20 {
            let record = record! { "id": format!("{SECRET} {number}"), "text": format!("{SECRET} no. {number};") };
            bucket.insert(record).await.unwrap();
        }
        store.stop().await.unwrap();
        assert!(disk.replace(format!("{SECRET} no. 7;").as_bytes(), format!("{SECRET} no. X;").as_bytes()) > 0);
        let failures = Failures::default();
        let start = async |choice| {
            let builder = Store::builder("shop").shared_adapter(disk.open().await).on_error(failures.note());
            builder.persistence(options().with_load_failure(choice)).start().await.unwrap()
        };
        let store = start(LoadFailure::Fail).await;
        let error = store.define_bucket(secrets()).await.unwrap_err();
        let Error::Corrupt { at, .. } = &error else { panic!("{error:?}") };
        assert!(at.container.contains("items"), "{error}");
        assert_silent("said", &in_full(&error));
        store.stop().await.unwrap();
        let store = start(LoadFailure::StartEmpty).await;
        let mut told = store.subscribe("persistence.*.*").unwrap();
        store.define_bucket(secrets()).await.unwrap();
        assert_silent("said", &format!("{:?} {:?}", failures.all(), outcomes(&mut told)));
        store.stop().await.unwrap();
    }
    let logged = listener.0.lock().unwrap().clone();
    assert!(logged.contains("unreadable data is in quarantine"), "{logged}");
    assert_silent("logged", &logged);
}
