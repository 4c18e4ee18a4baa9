//! What is a bucket after a restart, and what becomes of one that cannot be read?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ractor_persistence::adapters::memory::{MemoryAdapter, QuarantinedData};
use ractor_persistence::base::clock::ManualClock;
use ractor_persistence::base::durability::Durability;
use ractor_persistence::base::error::{Error, Place};
use ractor_persistence::base::value::Value;
use ractor_persistence::bucket::{Bucket, BucketStats};
use ractor_persistence::persistence::{LoadFailure, StorageAdapter};
use ractor_persistence::record;
use ractor_persistence::records::{BucketChange, BucketDefinition, Field, Filter, Generated, Metadata};
use ractor_persistence::store::Store;
use ractor_persistence::testkit::{Call, Fault, FaultAdapter, Operation};
use tokio::time::sleep;

use crate::world::*;

fn users() -> BucketDefinition {
    BucketDefinition::new("users")
        .key("number")
        .field("number", Field::int().generated(Generated::Autoincrement))
        .field("name", Field::string().required())
        .field("email", Field::string().unique())
        .field("role", Field::string().default("user"))
        .field("since", Field::date().generated(Generated::Timestamp))
        .field("score", Field::number())
        .field("picture", Field::bytes())
        .field("address", Field::object())
        .index(["role", "address.city"])
}

/// Everything that a bucket shows of itself.
#[derive(Debug, PartialEq)]
struct Shown {
    records: Vec<(serde_json::Value, Metadata, u64)>,
    stats: BucketStats,
    found: Vec<serde_json::Value>,
}

async fn show(users: &Bucket) -> Shown {
    let records = users.all().await.unwrap();
    let found = users.find(record! { "role": "admin", "address.city": "Brno" }).await.unwrap();
    Shown {
        records: records.iter().map(|user| (user.to_json(), user.metadata(), user.place())).collect(),
        stats: users.stats().await.unwrap(),
        found: found.iter().map(|user| user.to_json()).collect(),
    }
}

/// Fills a bucket, reopens it and compares; `start` starts the store anew each time.
async fn reopened<Starting: Future<Output = Store>>(start: impl Fn(Arc<ManualClock>) -> Starting) {
    let clock = Arc::new(ManualClock::at(1_000));
    let store = start(Arc::clone(&clock)).await;
    let bucket = store.define_bucket(users()).await.unwrap();
    for (name, city) in [("Ada", "Brno"), ("Bo", "Graz"), ("Cy", "Brno"), ("Di", "Graz"), ("Ed", "Brno")] {
        clock.advance(10);
        let email = format!("{name}@example.org");
        let data = record! {
            "name": name, "email": email, "role": "admin", "address": { "city": city, "geo": [0.1, { "deep": null }] },
            "score": 1.5e300, "picture": Value::Bytes(vec![0_u8, 255, 7].into()), "undeclared": [true, -1, "ü😀"],
        };
        bucket.insert(data).await.unwrap();
    }
    clock.advance(1_000);
    bucket.update(2, record! { "score": 7, "role": "user" }).await.unwrap();
    bucket.update(2, record! { "address": null }).await.unwrap();
    assert!(bucket.delete(5).await.unwrap(), "the highest number is free, and not given out again");
    bucket.delete(1).await.unwrap();
    let back = record! { "number": 1, "name": "Ada again", "email": "Ada@example.org", "role": "admin" };
    bucket.insert(back).await.unwrap();
    let before = show(&bucket).await;
    assert_eq!((before.stats.revision, before.stats.counter), (10, 5));
    assert!(store.stop().await.unwrap().unsaved.is_empty());

    for _ in 0..2 {
        let store = start(Arc::clone(&clock)).await;
        let bucket = store.define_bucket(users()).await.unwrap();
        assert_eq!(show(&bucket).await, before);
        let commits = store.stats().await.persistence.commits;
        store.flush().await.unwrap();
        assert_eq!(store.stats().await.persistence.commits, commits, "what was only read is not written");
        store.stop().await.unwrap();
    }

    let store = start(Arc::clone(&clock)).await;
    let bucket = store.define_bucket(users()).await.unwrap();
    let taken = bucket.insert(record! { "name": "Eve", "email": "Cy@example.org" }).await;
    assert!(matches!(taken, Err(Error::UniqueViolation { holder, .. }) if holder == 3.into()));
    assert_eq!(bucket.count(Filter::eq("email", "Ed@example.org")).await.unwrap(), 0);
    let next = bucket.insert(record! { "name": "Flo", "email": "Ed@example.org" }).await.unwrap();
    assert_eq!(next.key(), &6.into());
    assert_eq!(bucket.stats().await.unwrap().revision, before.stats.revision + 1);
    let last = bucket.all().await.unwrap().pop().unwrap();
    assert_eq!(last.key(), &6.into(), "the order goes on, too");
    bucket.clear().await.unwrap();
    store.stop().await.unwrap();

    let store = start(clock).await;
    let bucket = store.define_bucket(users()).await.unwrap();
    assert!(show(&bucket).await.records.is_empty());
    assert_eq!(bucket.stats().await.unwrap().revision, before.stats.revision + 2);
    let next = bucket.insert(record! { "name": "Gus" }).await.unwrap();
    assert_eq!(next.key(), &7.into(), "a cleared bucket's counter stays");
    store.stop().await.unwrap();
}

#[tokio::test]
async fn ps_06_after_stop_and_start_everything_is_as_before() {
    for adapter in both_granularities() {
        reopened(|clock| {
            let builder = builder(adapter.clone()).clock(clock);
            async { builder.start().await.unwrap() }
        })
        .await;
    }
    for disk in disks() {
        reopened(|clock| async {
            let builder = Store::builder("shop").shared_adapter(disk.open().await);
            builder.persistence(options()).clock(clock).start().await.unwrap()
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn ps_04_an_opted_out_bucket_is_empty_after_a_restart_and_its_name_never_reaches_the_adapter() {
    let (adapter, faults) = faulty();
    for _ in 0..2 {
        let store = start(adapter.clone()).await;
        let secret = store.define_bucket(items("secret").persistent(false)).await.unwrap();
        let kept = store.define_bucket(items("kept")).await.unwrap();
        assert_eq!(held(&secret).await, Texts::new());
        assert!(!secret.stats().await.unwrap().persistent);
        insert(&secret, 1, "never saved").await.unwrap();
        secret.flush().await.unwrap();
        sleep(WINDOW * 2).await;
        kill(&secret).await;
        insert(&secret, 2, "never saved").await.unwrap();
        insert(&kept, faults.commits().len().try_into().unwrap(), "saved").await.unwrap();
        store.flush().await.unwrap();
        let stats = store.stats().await.persistence;
        assert!(stats.unsaved.is_empty());
        assert_eq!(stats.saved_revisions.len(), 1);
        store.detach_bucket("secret").await.unwrap();
        store.define_bucket(items("secret").persistent(false)).await.unwrap();
        store.drop_bucket("secret").await.unwrap();
        let secret = store.define_bucket(items("secret").persistent(false)).await.unwrap();
        insert(&secret, 3, "never saved").await.unwrap();
        assert!(store.stop().await.unwrap().unsaved.is_empty());
    }
    for logged in faults.calls() {
        assert!(!logged.call.touches(&subject("secret")), "{logged:?}");
        assert!(!format!("{logged:?}").contains("secret"), "{logged:?}");
    }
    assert_eq!(stored(&adapter, "kept").await.unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn ps_05_a_store_without_an_adapter_works_and_says_so_in_its_stats() {
    let before = tasks();
    let store = Store::builder("shop").start().await.unwrap();
    let bucket = store.define_bucket(items("items")).await.unwrap();
    insert(&bucket, 1, "in memory").await.unwrap();
    store.flush().await.unwrap();
    bucket.flush().await.unwrap();
    let stats = store.stats().await;
    assert!(!stats.persistence.enabled);
    assert_eq!((stats.buckets, stats.records, stats.persistence.commits), (1, 1, 0));
    assert!(!bucket.stats().await.unwrap().persistent);
    assert!(store.health().is_healthy());
    for level in [Durability::Wal, Durability::Fsync] {
        let refused = insert(&bucket.with_durability(level), 2, "refused").await;
        assert!(matches!(refused, Err(Error::Unsupported { has: Some(Durability::Ram), .. })), "{refused:?}");
    }
    kill(&bucket).await;
    assert_eq!(held(&bucket).await, Texts::new());
    insert(&bucket, 1, "anew").await.unwrap();
    store.detach_bucket("items").await.unwrap();
    let bucket = store.define_bucket(items("items")).await.unwrap();
    assert_eq!(held(&bucket).await, Texts::new(), "there is nowhere to keep it");
    store.drop_bucket("items").await.unwrap();
    let report = store.stop().await.unwrap();
    assert!(report.unsaved.is_empty() && report.error.is_none());
    drop((store, bucket));
    assert_eq!(tasks_ended(before).await, before);
}

const NEEDLE: &str = "a text that is nowhere else";
const DAMAGED: &str = "a text that is nowhere elsX";

/// A bucket on a disk, one record of which has bytes that nobody wrote.
async fn damaged(disk: &Disk) -> BTreeMap<i64, String> {
    let store = disk.start(options()).await;
    let bucket = store.define_bucket(items("damaged")).await.unwrap();
    for id in 0..20 {
        insert(&bucket, id, if id == 7 { NEEDLE } else { "fine" }).await.unwrap();
    }
    let other = store.define_bucket(items("other")).await.unwrap();
    insert(&other, 1, "fine").await.unwrap();
    let all = held(&bucket).await;
    store.stop().await.unwrap();
    assert!(disk.replace(NEEDLE.as_bytes(), DAMAGED.as_bytes()) > 0);
    all
}

#[tokio::test]
async fn ps_13_an_unreadable_bucket_fails_to_be_defined_and_its_bytes_are_unchanged_after_the_stop() {
    for disk in disks() {
        let all = damaged(&disk).await;
        let count = disk.count(DAMAGED.as_bytes());
        let store = disk.start(options()).await;
        for _ in 0..2 {
            let defined = store.define_bucket(items("damaged")).await;
            let Err(Error::Corrupt { at, reason }) = &defined else { panic!("{defined:?}") };
            assert!(at.container.contains("damaged") && !reason.is_empty(), "{defined:?}");
            assert!(matches!(store.bucket("damaged"), Err(Error::BucketNotDefined { .. })));
        }
        // The others do not mind.
        let other = store.define_bucket(items("other")).await.unwrap();
        insert(&other, 2, "fine").await.unwrap();
        store.flush().await.unwrap();
        assert!(store.health().is_healthy());
        assert!(store.stop().await.unwrap().unsaved.is_empty());
        // A page that is free may have held them too, and be used again.
        assert!((1..=count).contains(&disk.count(DAMAGED.as_bytes())));
        // The bytes put right, nothing is missing: so no other byte of it was touched.
        disk.replace(DAMAGED.as_bytes(), NEEDLE.as_bytes());
        let store = disk.start(options()).await;
        let bucket = store.define_bucket(items("damaged")).await.unwrap();
        assert_eq!(held(&bucket).await, all);
        assert_eq!(bucket.stats().await.unwrap().revision, 20);
        store.stop().await.unwrap();
    }
}

#[tokio::test]
async fn ps_14_with_start_empty_the_unreadable_bytes_are_in_quarantine_and_readable() {
    for disk in disks() {
        damaged(&disk).await;
        let failures = Failures::default();
        let store = Store::builder("shop")
            .shared_adapter(disk.open().await)
            .persistence(options().with_load_failure(LoadFailure::StartEmpty))
            .on_error(failures.note())
            .start()
            .await
            .unwrap();
        let bucket = store.define_bucket(items("damaged")).await.unwrap();
        assert_eq!(held(&bucket).await, Texts::new());
        let [failure] = failures.all().try_into().unwrap();
        assert_eq!((failure.subject, failure.operation), (Some(subject("damaged")), "load"));
        assert!(matches!(failure.error, Error::Corrupt { .. }));
        insert(&bucket, 7, "anew").await.unwrap();
        let other = store.define_bucket(items("other")).await.unwrap();
        assert_eq!(held(&other).await, expect([(1, "fine")]), "what can be read is read");
        assert!(store.stop().await.unwrap().unsaved.is_empty());

        let kept = disk.quarantined().await;
        let contains = |text: &str| kept.iter().any(|blob| blob.windows(text.len()).any(|at| at == text.as_bytes()));
        assert!(contains(DAMAGED), "byte for byte as it was found");
        assert!(contains("fine"), "and what could have been read");
        assert_eq!(disk.stored("damaged").await, Some(expect([(7, "anew")])));
        // Once it is out of the way, there is nothing to complain of.
        let store = disk.start(options()).await;
        let bucket = store.define_bucket(items("damaged")).await.unwrap();
        assert_eq!(held(&bucket).await, expect([(7, "anew")]));
        store.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_can_never_be_read_is_moved_away_and_only_where_that_was_chosen() {
    let damage = || Error::corrupt(Place::new("rows").at("key 1"), "torn");
    let format = Error::UnknownFormat { format: "row".into(), at: Place::new("rows"), found: 9, known: 1 };
    for (error, moved) in
        [(damage(), true), (format, true), (transient(), false), (permanent(), false), (unknown(), false)]
    {
        for choice in [LoadFailure::Fail, LoadFailure::StartEmpty] {
            let memory = MemoryAdapter::default();
            let store = start(memory.clone()).await;
            insert(&store.define_bucket(items("items")).await.unwrap(), 1, "old").await.unwrap();
            store.stop().await.unwrap();

            let adapter = FaultAdapter::new(memory.clone());
            let faults = adapter.faults();
            faults.inject(Fault::fail(error.clone()).on(Operation::Load).times(1));
            let store = builder(adapter).persistence(options().with_load_failure(choice)).start().await.unwrap();
            let defined = store.define_bucket(items("items")).await;
            if moved && choice == LoadFailure::StartEmpty {
                assert_eq!(held(&defined.unwrap()).await, Texts::new());
                let [kept] = memory.quarantined().try_into().unwrap();
                let QuarantinedData::Bucket(snapshot) = kept.data else { panic!("{kept:?}") };
                assert_eq!(texts(&snapshot.records), expect([(1, "old")]));
            } else {
                assert_eq!(defined.unwrap_err().to_string(), error.to_string());
                assert!(memory.quarantined().is_empty());
                let bucket = store.define_bucket(items("items")).await.unwrap();
                assert_eq!(held(&bucket).await, expect([(1, "old")]));
            }
            store.stop().await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_moved_away_is_not_written_over() {
    let (adapter, faults) = faulty();
    let store = start(adapter.clone()).await;
    insert(&store.define_bucket(items("items")).await.unwrap(), 1, "old").await.unwrap();
    store.stop().await.unwrap();
    faults.inject(Fault::fail(Error::corrupt(Place::new("rows"), "torn")).on(Operation::Load).times(1));
    faults.inject(Fault::fail(permanent()).on(Operation::Quarantine));
    let options = options().with_load_failure(LoadFailure::StartEmpty);
    let store = builder(adapter.clone()).persistence(options).start().await.unwrap();
    let defined = store.define_bucket(items("items")).await;
    assert!(matches!(defined, Err(Error::Permanent { .. })), "{defined:?}");
    store.stop().await.unwrap();
    assert_eq!(stored(&adapter, "items").await, Some(expect([(1, "old")])));
}

#[tokio::test(start_paused = true)]
async fn a_restart_never_starts_empty() {
    let (adapter, faults) = faulty();
    let options = options().with_load_failure(LoadFailure::StartEmpty);
    let store = builder(adapter.clone()).persistence(options).start().await.unwrap();
    let bucket = store.define_bucket(items("items")).await.unwrap();
    insert(&bucket, 1, "acknowledged").await.unwrap();
    store.flush().await.unwrap();
    faults.inject(Fault::fail(Error::corrupt(Place::new("rows"), "torn")).on(Operation::Load).times(1));
    kill(&bucket).await;
    assert!(matches!(soon(bucket.get(1)).await, Err(Error::Corrupt { .. })));
    store.stop().await.unwrap();
    assert_eq!(stored(&adapter, "items").await, Some(expect([(1, "acknowledged")])));
    assert!(adapter.inner().quarantined().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_definition_that_stored_records_do_not_fit_fails_and_writes_nothing() {
    let (adapter, faults) = faulty();
    let store = start(adapter.clone()).await;
    let bucket = store.define_bucket(items("items").schema_version(3)).await.unwrap();
    insert(&bucket, 1, "same").await.unwrap();
    insert(&bucket, 2, "same").await.unwrap();
    store.detach_bucket("items").await.unwrap();
    faults.forget_calls();
    let older = store.define_bucket(items("items").schema_version(2)).await;
    assert!(matches!(older, Err(Error::SchemaTooNew { stored: 3, defined: 2, .. })), "{older:?}");
    let unique = store.define_bucket(items("items").schema_version(3).unique_index(["text"])).await;
    assert!(matches!(unique, Err(Error::Migration { total: 2, .. })), "{unique:?}");
    let required = items("items").schema_version(4).field("more", Field::int().required());
    let required = store.define_bucket(required).await;
    assert!(matches!(required, Err(Error::Migration { from: 3, to: 4, total: 2, .. })), "{required:?}");
    sleep(WINDOW * 3).await;
    assert!(faults.commits().is_empty());
    assert!(store.stats().await.persistence.unsaved.is_empty());
    let bucket = store.define_bucket(items("items").schema_version(3)).await.unwrap();
    assert_eq!(held(&bucket).await.len(), 2);
    store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_definition_that_alters_records_is_saved_as_a_whole_once_and_the_old_form_stays_until_then() {
    for adapter in both_granularities() {
        let faults = adapter.faults();
        let store = start(adapter.clone()).await;
        let bucket = store.define_bucket(items("items")).await.unwrap();
        for id in 0..5 {
            insert(&bucket, id, "old").await.unwrap();
        }
        store.detach_bucket("items").await.unwrap();
        faults.forget_calls();
        faults.inject(Fault::fail(transient()).on(Operation::Commit).times(1));
        let wider = || items("items").schema_version(2).field("more", Field::int().default(7));
        let bucket = store.define_bucket(wider()).await.unwrap();
        assert_eq!(store.stats().await.persistence.unsaved, [subject("items")]);
        assert_eq!(bucket.count(record! { "more": 7 }).await.unwrap(), 5);
        let revision = bucket.stats().await.unwrap().revision;
        // A change on top of it, while it is being retried, and a death before it is saved.
        update(&bucket, 1, "new").await.unwrap();
        kill(&bucket).await;
        assert_eq!(bucket.count(record! { "more": 7 }).await.unwrap(), 5);
        let snapshot = adapter.load_bucket(&key("items")).await.unwrap().unwrap();
        assert_eq!((snapshot.schema_version, snapshot.revision), (1, revision));
        sleep(Duration::from_secs(3)).await;
        let snapshot = adapter.load_bucket(&key("items")).await.unwrap().unwrap();
        assert_eq!((snapshot.schema_version, snapshot.revision), (2, revision + 1));
        assert!(snapshot.records.iter().all(|record| record.get("more") == Some(&Value::Int(7))));
        assert!(store.stats().await.persistence.unsaved.is_empty());
        let commits = faults.commits();
        let last = changes(commits.last().unwrap());
        assert!(matches!(last[..], [(_, BucketChange::Full(_))]));
        faults.forget_calls();
        store.detach_bucket("items").await.unwrap();
        store.define_bucket(wider()).await.unwrap();
        sleep(WINDOW * 3).await;
        assert!(faults.commits().is_empty());
        store.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn loads_take_turns_and_one_that_takes_too_long_fails() {
    let (adapter, faults) = faulty();
    let options = options().with_load_concurrency(3).with_load_timeout(Duration::from_secs(5));
    let store = builder(adapter).persistence(options).start().await.unwrap();
    faults.inject(Fault::hang().on(Operation::Load));
    let loading: Vec<_> = (0..7)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move { store.define_bucket(items(&format!("b{number}"))).await.map(drop) })
        })
        .collect();
    let begun = || faults.calls().iter().filter(|logged| matches!(logged.call, Call::LoadBucket(_))).count();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(begun(), 3);
    faults.release();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(begun(), 6);
    // These have had their turn for 5 s then.
    sleep(Duration::from_secs(5)).await;
    assert_eq!(begun(), 7);
    faults.heal();
    let mut failed = 0;
    for outcome in loading {
        match soon(outcome).await.unwrap() {
            Ok(()) => {}
            Err(Error::Transient { .. }) => failed += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(failed, 3);
    assert_eq!(store.stats().await.buckets, 4);
    store.stop().await.unwrap();
}
