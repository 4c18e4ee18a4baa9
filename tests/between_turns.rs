//! What happens between a bucket's turn and those who do not wait for it: look-ups during a commit, transactions beside
//! posted writes, buckets that end or die meanwhile. Were it wrong, reads would show states that never were, numbers would
//! be given out twice, and acknowledged writes would be lost. Queries of all kinds are held against a look at every record
//! here too, because what a transaction shows is put together from both.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ractor_persistence::adapters::memory::MemoryAdapter;
use ractor_persistence::base::clock::ManualClock;
use ractor_persistence::bucket::{BucketMessage, Retry, WriteRequest};
use ractor_persistence::persistence::PersistenceOptions;
use ractor_persistence::records::{Direction, Generated, Page, Patch, Query, Write};
use ractor_persistence::store::Store;
use ractor_persistence::{Bucket, BucketDefinition, Error, Field, Filter, Value, record};

fn things(name: &str) -> BucketDefinition {
    BucketDefinition::new(name).key("id").field("id", Field::string()).field("n", Field::int())
}

/// A filter that names a key in one branch only: what the other branch finds counts, too.
#[tokio::test]
async fn a_transaction_reads_all_branches_of_an_or_that_names_a_key() {
    let store = Store::builder("s").start().await.unwrap();
    let things = store.define_bucket(things("things")).await.unwrap();
    let outcome = store
        .transaction(|tx| {
            let things = things.clone();
            async move {
                let inner = tx.bucket("things")?;
                let found = inner.count(Filter::eq("id", "x").or(Filter::gt("n", 5))).await?;
                things.insert(record! { "id": "y", "n": 7 }).await?;
                inner.insert(record! { "id": "z", "n": i64::try_from(found).unwrap() }).await?;
                Ok::<_, Error>(())
            }
        })
        .await;
    assert!(matches!(outcome, Err(Error::Conflict { .. })), "{outcome:?}");
}

/// A key that a commit deletes and inserts is there at every moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_key_that_is_replaced_in_one_commit_is_never_absent() {
    let store = Store::builder("s").start().await.unwrap();
    let things = store.define_bucket(things("things")).await.unwrap();
    things.insert(record! { "id": "x", "n": 0 }).await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (things, done) = (things.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            let mut absent = 0;
            while !done.load(Ordering::Relaxed) {
                absent += usize::from(things.get("x").await.unwrap().is_none());
            }
            absent
        })
    };
    for n in 0..3_000 {
        store
            .transaction(|tx| async move {
                let things = tx.bucket("things")?;
                things.delete("x").await?;
                for other in 0..10 {
                    things.upsert(record! { "id": format!("o{other}"), "n": n }).await?;
                }
                things.insert(record! { "id": "x", "n": n }).await?;
                Ok::<_, Error>(())
            })
            .await
            .unwrap();
    }
    done.store(true, Ordering::Relaxed);
    assert_eq!(reader.await.unwrap(), 0);
}

/// Numbers of transactions and of plain inserts differ.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn numbers_of_transactions_and_inserts_differ() {
    let store = Store::builder("s").start().await.unwrap();
    let number = Field::int().generated(Generated::Autoincrement);
    let definition = things("things").field("number", number);
    let things = store.define_bucket(definition).await.unwrap();
    let plain = {
        let things = things.clone();
        tokio::spawn(async move {
            for n in 0..20_000 {
                things.insert(record! { "id": format!("p{n}") }).await.unwrap();
            }
        })
    };
    let mut n = 0;
    while !plain.is_finished() {
        n += 1;
        store
            .transaction(|tx| async move {
                tx.bucket("things")?.insert(record! { "id": format!("t{n}") }).await?;
                Ok::<_, Error>(())
            })
            .await
            .unwrap();
    }
    plain.await.unwrap();
    let all = things.all().await.unwrap();
    let mut numbers: Vec<_> = all.iter().map(|record| record.get("number").unwrap().as_i64().unwrap()).collect();
    let count = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), count);
}

/// A timeout without end is one.
#[tokio::test]
async fn a_timeout_may_be_as_long_as_can_be() {
    let store = Store::builder("s").start().await.unwrap();
    let things = store.define_bucket(things("things")).await.unwrap().with_timeout(Duration::MAX);
    things.actor().await.unwrap();
    things.insert(record! { "id": "x" }).await.unwrap();
    store.transaction(|tx| async move { tx.bucket("things")?.get("x").await }).timeout(Duration::MAX).await.unwrap();
    store.drop_bucket("things").await.unwrap();
    assert!(things.get("x").await.is_err());
    assert!(things.insert(record! { "id": "x" }).await.is_err());
}

/// A runtime that began to tick and is gone leaves others their timeouts.
#[test]
fn timeouts_outlive_the_runtime_that_first_waited() {
    let main = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (store, things) = main.block_on(async {
        let store = Store::builder("s").start().await.unwrap();
        let things = store.define_bucket(things("things")).await.unwrap().with_timeout(Duration::from_secs(1));
        (store, things)
    });
    // Hold the bucket's turn, so that calls wait.
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let slow = main.block_on(store.define_bucket(
        BucketDefinition::new("slow").key("id").field("id", Field::int().generated(Generated::Autoincrement)).field(
            "n",
            Field::int().default_with(move || {
                let _ = held.lock().unwrap().recv();
                1
            }),
        ),
    ));
    let slow = slow.unwrap().with_timeout(Duration::from_secs(1));
    let actor = main.block_on(slow.actor()).unwrap();
    actor.cast(BucketMessage::Post(WriteRequest::new(Write::Insert(record! {})))).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    {
        let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let slow = slow.clone();
        // Gives up at once, and its runtime goes.
        other.block_on(async {
            let insert = tokio::time::timeout(Duration::from_millis(50), slow.delete(1));
            assert!(insert.await.is_err());
        });
    }
    let begun = std::time::Instant::now();
    let outcome = main.block_on(async { tokio::time::timeout(Duration::from_secs(6), slow.delete(1)).await });
    release.send(()).unwrap();
    drop(release);
    assert!(matches!(outcome, Ok(Err(Error::Timeout { .. }))), "{outcome:?} after {:?}", begun.elapsed());
    drop(things);
}

/// In a transaction, a record that takes the key of an expired one is counted.
#[tokio::test]
async fn a_record_over_an_expired_one_counts_in_its_transaction() {
    let clock = Arc::new(ManualClock::at(1_000));
    let store = Store::builder("s").clock(clock.clone()).ttl_check_interval(Duration::ZERO).start().await.unwrap();
    let things = store.define_bucket(things("things").ordered().index(["n"])).await.unwrap();
    things.insert(record! { "id": "x", "n": 1, "_expires_at": 1_010 }).await.unwrap();
    things.insert(record! { "id": "y", "n": 1 }).await.unwrap();
    clock.advance(20);
    let counts = store
        .transaction(|tx| async move {
            let things = tx.bucket("things")?;
            things.insert(record! { "id": "x", "n": 2 }).await?;
            let all = things.all().await?.len();
            Ok::<_, Error>((all, things.count(Filter::all()).await?, things.count(Filter::eq("n", 1)).await?))
        })
        .await
        .unwrap();
    assert_eq!(counts, (2, 2, 1));
    assert_eq!(things.count(Filter::all()).await.unwrap(), 2);
}

/// A cursor is text from anywhere.
#[tokio::test]
async fn a_cursor_of_anything_is_refused() {
    let store = Store::builder("s").start().await.unwrap();
    let things = store.define_bucket(things("things")).await.unwrap();
    for n in 0..4 {
        things.insert(record! { "id": format!("{n}"), "n": n }).await.unwrap();
    }
    let query = || Query::all().order_by("n", Direction::Ascending);
    let first = things.paginate(query(), Page::new(2)).await.unwrap();
    let good = URL_SAFE_NO_PAD.decode(first.next_cursor.unwrap().as_str()).unwrap();
    // `[format, fingerprint, [value], place, nil]`: other values in place of the one.
    let at = good.iter().rposition(|byte| *byte == 0x91).unwrap();
    for value in [
        vec![0x91; 1_000],
        vec![0x91; 100_000],
        vec![0xdd, 0xff, 0xff, 0xff, 0xff],
        vec![0xdf, 0xff, 0xff, 0xff, 0xff],
        vec![0xc6, 0xff, 0xff, 0xff, 0xff],
        vec![0xdb, 0xff, 0xff, 0xff, 0xff],
        vec![0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 1],
        vec![0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    ] {
        let mut bytes = good[..=at].to_vec();
        bytes.extend(&value);
        if value.len() >= 1_000 {
            bytes.push(0xc0);
        }
        bytes.extend(&good[at + 2..]);
        let cursor = URL_SAFE_NO_PAD.encode(bytes);
        match things.paginate(query(), Page::new(2).after(cursor)).await {
            Ok(page) => assert!(page.records.len() <= 2),
            Err(error) => assert!(matches!(error, Error::InvalidArgument { .. }), "{error:?}"),
        }
    }
}

/// Transfers between two buckets whose actors are killed: nothing is half, and nothing acknowledged is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn transfers_survive_killed_actors_whole() {
    for round in 0..10 {
        let adapter = MemoryAdapter::default();
        let options = PersistenceOptions::default().with_debounce(Duration::from_millis(1));
        let start = || Store::builder("s").adapter(adapter.clone()).persistence(options.clone()).start();
        let store = start().await.unwrap();
        let a = store.define_bucket(things("a")).await.unwrap();
        let b = store.define_bucket(things("b")).await.unwrap();
        for n in 0..8 {
            a.insert(record! { "id": format!("{n}"), "n": 100 }).await.unwrap();
            b.insert(record! { "id": format!("{n}"), "n": 100 }).await.unwrap();
        }
        let workers: Vec<_> = (0..4_i64)
            .map(|worker| {
                let store = store.clone();
                tokio::spawn(async move {
                    let (mut done, mut unknown) = (0, 0);
                    for turn in 0..150_i64 {
                        let key = format!("{}", (worker * 7 + turn) % 8);
                        let outcome = store
                            .transaction(|tx| {
                                let key = key.clone();
                                async move {
                                    let (a, b) = (tx.bucket("a")?, tx.bucket("b")?);
                                    a.patch(key.as_str(), Patch::new().increment("n", -1)).await?;
                                    tokio::task::yield_now().await;
                                    b.patch(key.as_str(), Patch::new().increment("n", 1)).await?;
                                    Ok::<_, Error>(())
                                }
                            })
                            .retry(Retry::default().with_attempts(100))
                            .await;
                        match outcome {
                            Ok(()) => done += 1,
                            Err(_) => unknown += 1,
                        }
                    }
                    (done, unknown)
                })
            })
            .collect();
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(5 + round)).await;
            a.actor().await.unwrap().kill();
            b.actor().await.unwrap().kill();
        }
        let (mut done, mut unknown) = (0, 0);
        for worker in workers {
            let (more, of_unknown) = worker.await.unwrap();
            done += more;
            unknown += of_unknown;
        }
        let sums = |a: Bucket, b: Bucket| async move {
            let of = |value: Value| value.as_i64().unwrap();
            let all = Filter::all();
            (of(a.sum("n", all.clone()).await.unwrap()), of(b.sum("n", all).await.unwrap()))
        };
        let (left, right) = sums(a, b).await;
        assert_eq!((unknown, left, right), (0, 800 - done, 800 + done));
        store.stop().await.unwrap();
        let store = start().await.unwrap();
        let a = store.define_bucket(things("a")).await.unwrap();
        let b = store.define_bucket(things("b")).await.unwrap();
        assert_eq!(sums(a, b).await, (left, right));
        store.stop().await.unwrap();
    }
}

/// A little randomness.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn value(&mut self) -> Value {
        let small = i64::try_from(self.roll(4)).unwrap();
        match self.roll(8) {
            0 => Value::Null,
            1 => Value::Bool(small > 1),
            2 => Value::from(["", "a", "ab", "b"][usize::try_from(small).unwrap()]),
            3 => Value::from(2.0),
            4 => Value::from(vec![1_i64, small]),
            _ => Value::from(small),
        }
    }

    fn filter(&mut self, depth: u64) -> Filter {
        let path = ["id", "n", "m", "x"][usize::try_from(self.roll(4)).unwrap()];
        match self.roll(if depth == 0 { 8 } else { 12 }) {
            0 | 1 if path == "id" => Filter::eq("id", i64::try_from(self.roll(12)).unwrap()),
            0 => Filter::eq(path, self.value()),
            1 => Filter::ne(path, self.value()),
            2 => Filter::is_in(path, (0..self.roll(4)).map(|_| self.value()).collect::<Vec<_>>()),
            3 => Filter::prefix(path, ["", "a", "ab"][usize::try_from(self.roll(3)).unwrap()]),
            4 => Filter::gt(path, i64::try_from(self.roll(4)).unwrap()),
            5 => Filter::le(path, ["", "a", "ab"][usize::try_from(self.roll(3)).unwrap()]),
            6 => Filter::exists(path),
            7 => Filter::is_null(path),
            8 | 9 => self.filter(depth - 1).and(self.filter(depth - 1)),
            10 => self.filter(depth - 1).or(self.filter(depth - 1)),
            _ => self.filter(depth - 1).not(),
        }
    }
}

/// Whatever is asked, in and outside of a transaction that has written, the answer is that of a look at every record.
#[tokio::test]
async fn every_query_is_answered_like_a_look_at_every_record() {
    for seed in 0..200 {
        let mut dice = Dice(seed);
        let clock = Arc::new(ManualClock::at(1_000));
        let store = Store::builder("s").clock(clock.clone()).ttl_check_interval(Duration::ZERO).start().await.unwrap();
        let mut definition = BucketDefinition::new("things")
            .key("id")
            .field("id", Field::int())
            .field("n", Field::any())
            .field("m", Field::any());
        for (sides, paths) in [(2, vec!["n"]), (2, vec!["m", "n"]), (3, vec!["n", "m"])] {
            if dice.roll(sides) == 0 {
                definition = definition.index(paths);
            }
        }
        if dice.roll(2) == 0 {
            definition = definition.ordered();
        }
        let things = store.define_bucket(definition).await.unwrap();
        let row = |dice: &mut Dice| {
            let mut row = record! { "id": i64::try_from(dice.roll(12)).unwrap() };
            for name in ["n", "m", "x"] {
                if dice.roll(4) > 0 {
                    row.insert(name, dice.value());
                }
            }
            if dice.roll(4) == 0 {
                row.insert("_expires_at", i64::try_from(1_000 + dice.roll(40)).unwrap());
            }
            row
        };
        for _ in 0..12 {
            let _ = things.upsert(row(&mut dice)).await;
        }
        clock.advance(20);
        let dice = std::sync::Mutex::new(dice);
        store
            .transaction(|tx| {
                let (things, dice) = (things.clone(), &dice);
                async move {
                    let inner = tx.bucket("things")?;
                    for _ in 0..5 {
                        let (row, key, way) = {
                            let mut dice = dice.lock().unwrap();
                            (row(&mut dice), i64::try_from(dice.roll(12)).unwrap(), dice.roll(3))
                        };
                        match way {
                            0 => drop(inner.delete(key).await?),
                            _ => drop(inner.upsert(row).await?),
                        }
                    }
                    for _ in 0..20 {
                        let (filter, order, offset, limit) = {
                            let mut dice = dice.lock().unwrap();
                            (dice.filter(3), dice.roll(4), dice.roll(14), dice.roll(14))
                        };
                        let (offset, limit) = (usize::try_from(offset).unwrap(), usize::try_from(limit).unwrap());
                        let mut query = Query::new(filter.clone());
                        if let Some(path) = [None, Some("n"), Some("m"), Some("id")][usize::try_from(order).unwrap()] {
                            let way = if limit % 2 == 0 { Direction::Ascending } else { Direction::Descending };
                            query = query.order_by(path, way);
                        }
                        for inside in [false, true] {
                            let all = if inside { inner.all().await? } else { things.all().await? };
                            let mut hits: Vec<_> =
                                all.iter().filter(|record| filter.matches(record)).cloned().collect();
                            if let Some(path) =
                                [None, Some("n"), Some("m"), Some("id")][usize::try_from(order).unwrap()]
                            {
                                hits.sort_by(|left, right| {
                                    let value = |record: &ractor_persistence::records::Record| {
                                        record.get(path).cloned().unwrap_or(Value::Null)
                                    };
                                    let order = value(left).cmp(&value(right));
                                    if limit % 2 == 0 { order } else { order.reverse() }
                                });
                            }
                            let found = if inside {
                                inner.find(query.clone()).await?
                            } else {
                                things.find(query.clone()).await?
                            };
                            assert_eq!(found, hits, "seed {seed} inside {inside} {query:?}");
                            let count = if inside {
                                inner.count(filter.clone()).await?
                            } else {
                                things.count(filter.clone()).await?
                            };
                            assert_eq!(count, hits.len(), "seed {seed} inside {inside} {filter:?}");
                            let cut = query.clone().offset(offset).limit(limit);
                            let found = if inside { inner.find(cut).await? } else { things.find(cut).await? };
                            let wanted: Vec<_> = hits.iter().skip(offset).take(limit).cloned().collect();
                            assert_eq!(found, wanted, "seed {seed} inside {inside} {query:?} {offset} {limit}");
                            let mut paged = Vec::new();
                            let mut page = Page::new(limit.max(1));
                            loop {
                                let next = if inside {
                                    inner.paginate(query.clone(), page).await?
                                } else {
                                    things.paginate(query.clone(), page).await?
                                };
                                paged.extend(next.records);
                                let Some(cursor) = next.next_cursor.filter(|_| next.has_more) else { break };
                                page = Page::new(limit.max(1)).after(cursor);
                            }
                            assert_eq!(paged, hits, "seed {seed} inside {inside} {query:?}");
                        }
                    }
                    Ok::<_, Error>(())
                }
            })
            .await
            .unwrap();
    }
}

/// Drops and detaches among writes of all kinds: the next bucket of the name has nothing of the one before, in memory and
/// on disk, and never a record of another schema.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_bucket_that_is_dropped_among_writes_leaves_nothing() {
    let adapter = MemoryAdapter::default();
    let options = PersistenceOptions::default().with_debounce(Duration::from_millis(1));
    let start = || Store::builder("s").adapter(adapter.clone()).persistence(options.clone()).start();
    let store = start().await.unwrap();
    let other = store.define_bucket(things("other")).await.unwrap();
    other.insert(record! { "id": "x", "n": 0 }).await.unwrap();
    let texts = || {
        BucketDefinition::new("things").key("id").field("id", Field::string()).field("n", Field::string().required())
    };
    let numbers = || things("things").field("one", Field::int().default(1));
    let first = store.define_bucket(numbers()).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut workers = Vec::new();
    for worker in 0..3 {
        let (handle, stop, store) = (first.clone(), Arc::clone(&stop), store.clone());
        workers.push(tokio::spawn(async move {
            let mut n = 0_i64;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                let id = format!("{worker}-{n}");
                match worker {
                    0 => drop(handle.insert(record! { "id": id, "n": n }).await),
                    1 => drop(handle.insert(record! { "id": id, "n": format!("{n}") }).await),
                    _ => {
                        let outcome = store
                            .transaction(|tx| {
                                let id = id.clone();
                                async move {
                                    tx.bucket("other")?.patch("x", Patch::new().increment("n", 1)).await?;
                                    tx.bucket("things")?.insert(record! { "id": id, "n": n }).await?;
                                    Ok::<_, Error>(())
                                }
                            })
                            .await;
                        drop(outcome);
                    }
                }
                tokio::task::yield_now().await;
            }
        }));
    }
    for round in 0..60 {
        tokio::time::sleep(Duration::from_millis(3)).await;
        store.drop_bucket("things").await.unwrap();
        let text = round % 2 == 0;
        let things = store.define_bucket(if text { texts() } else { numbers() }).await.unwrap();
        for record in things.all().await.unwrap() {
            let n = record.get("n").unwrap().clone();
            assert_eq!(n.as_str().is_some(), text, "round {round}: {n:?}");
            assert_eq!(record.get("one").is_some(), !text);
        }
    }
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }
    let before = store.bucket("things").unwrap().all().await.unwrap().len();
    let count = other.get("x").await.unwrap().unwrap();
    store.stop().await.unwrap();
    let store = start().await.unwrap();
    let things = store.define_bucket(numbers()).await.unwrap();
    assert_eq!(things.all().await.unwrap().len(), before);
    let other = store.define_bucket(self::things("other")).await.unwrap();
    assert_eq!(other.get("x").await.unwrap().unwrap().get("n"), count.get("n"));
}

/// A sum that fits is right, whatever its parts come to on the way.
#[tokio::test]
async fn a_sum_of_huge_floats_does_not_depend_on_their_order() {
    let store = Store::builder("s").start().await.unwrap();
    for (name, numbers, sum) in [
        ("a", vec![1e308, 1e308, -1e308], 1e308),
        ("b", vec![1e308, -1e308, 1e308], 1e308),
        ("c", vec![1e308, 1e308, -1e308, -1e308, 0.5], 0.5),
        ("d", vec![-1e308, -1e308, -1e308, 1e308, 1e308, 1e308, 1.5e-300], 1.5e-300),
        ("e", vec![f64::MAX, 1.0, -1.0], f64::MAX),
        ("f", vec![1e308, 1e308], f64::INFINITY),
        ("g", vec![-1e308, -1e308], f64::NEG_INFINITY),
        ("h", vec![1e300, 1.0, -1e300], 1.0),
        ("i", vec![5e-324, 1e308, -1e308], 5e-324),
    ] {
        let definition = BucketDefinition::new(name).key("id").field("id", Field::int()).field("x", Field::float());
        let bucket = store.define_bucket(definition).await.unwrap();
        let rows = (0_i64..).zip(numbers).map(|(id, x)| record! { "id": id, "x": x });
        bucket.insert_many(rows).await.unwrap();
        assert_eq!(bucket.sum("x", Filter::all()).await.unwrap(), Value::Float(sum), "{name}");
    }
}
