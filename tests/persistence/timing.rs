//! When is a change captured, and how many commits does that take?

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ractor_persistence::adapters::memory::MemoryAdapter;
use ractor_persistence::base::durability::Durability;
use ractor_persistence::base::error::{Error, Result};
use ractor_persistence::base::name::{BucketKey, StoreName};
use ractor_persistence::persistence::{
    Backoff, Capabilities, Commit, Epoch, PersistenceOptions, PersistenceOutcome, StorageAdapter,
};
use ractor_persistence::records::{BucketChange, BucketSnapshot};
use ractor_persistence::store::Store;
use ractor_persistence::testkit::{Fault, Operation};
use tokio::time::{Instant, sleep, sleep_until};

use crate::world::*;

/// When a commit came, and the keys in it.
type Begun = (Duration, Vec<i64>);

/// A memory adapter that notes when which keys came, and how old the oldest change in a commit was.
#[derive(Clone)]
struct Watched {
    memory: MemoryAdapter,
    begun: Instant,
    commits: Arc<Mutex<Vec<Begun>>>,
}

impl Watched {
    fn new() -> Self {
        Self { memory: MemoryAdapter::default(), begun: Instant::now(), commits: Arc::default() }
    }

    fn commits(&self) -> Vec<Begun> {
        self.commits.lock().unwrap().clone()
    }
}

#[async_trait]
impl StorageAdapter for Watched {
    fn capabilities(&self) -> Capabilities {
        self.memory.capabilities()
    }

    async fn save_bucket(&self, bucket: &BucketKey, change: &BucketChange) -> Result<()> {
        self.memory.save_bucket(bucket, change).await
    }

    async fn load_bucket(&self, bucket: &BucketKey) -> Result<Option<BucketSnapshot>> {
        self.memory.load_bucket(bucket).await
    }

    async fn drop_bucket(&self, bucket: &BucketKey) -> Result<()> {
        self.memory.drop_bucket(bucket).await
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        let mut keys = Vec::new();
        for (_, change) in changes(commit) {
            let BucketChange::Delta(delta) = change else { panic!("{change:?}") };
            keys.extend(texts(&delta.upserts).into_keys());
        }
        keys.sort_unstable();
        self.commits.lock().unwrap().push((self.begun.elapsed(), keys));
        self.memory.commit(commit).await
    }

    async fn claim(&self, store: &StoreName) -> Result<Epoch> {
        self.memory.claim(store).await
    }
}

#[tokio::test(start_paused = true)]
async fn ps_01_a_change_is_captured_one_window_after_it_without_any_call() {
    let adapter = Watched::new();
    let store = start(adapter.clone()).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    let mut changed = Vec::new();
    for id in 0..3 {
        sleep(Duration::from_millis(777)).await;
        changed.push(adapter.begun.elapsed());
        insert(&bucket, id, "a").await.unwrap();
        sleep(WINDOW - Duration::from_millis(1)).await;
        assert_eq!(adapter.commits().len(), usize::try_from(id).unwrap(), "not before the window is over");
        sleep(Duration::from_millis(2)).await;
        assert!(stored(&adapter, "items").await.unwrap().contains_key(&id), "on disk when the commit has ended");
    }
    for ((at, keys), (changed, id)) in adapter.commits().into_iter().zip(changed.into_iter().zip(0..)) {
        assert_eq!(keys, [id]);
        assert!((WINDOW..=WINDOW + Duration::from_millis(1)).contains(&(at - changed)), "{:?}", at - changed);
    }
    // And then nothing at all.
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(adapter.commits().len(), 3);
    store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn ps_02_a_hundred_changes_in_one_window_make_one_commit() {
    let adapter = Watched::new();
    let store = start(adapter.clone()).await;
    let one = store.define_bucket(items("one")).await.unwrap();
    let two = store.define_bucket(items("two")).await.unwrap();
    for id in 0..50 {
        insert(&one, id, "a").await.unwrap();
        insert(&two, 100 + id, "a").await.unwrap();
        sleep(Duration::from_millis(1)).await;
    }
    sleep(Duration::from_secs(10)).await;
    let commits = adapter.commits();
    assert_eq!(commits.len(), 1);
    assert_eq!(commits[0].1, (0..50).chain(100..150).collect::<Vec<_>>());
    assert_eq!(store.stats().await.persistence.commits, 1);
    store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn ps_03_steady_changes_cannot_postpone_a_save_beyond_the_window() {
    let adapter = Watched::new();
    let store = start(adapter.clone()).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    let begun = Instant::now();
    let mut changed = Vec::new();
    for id in 0..100 {
        sleep_until(begun + Duration::from_millis(10) * u32::try_from(id).unwrap()).await;
        changed.push(adapter.begun.elapsed());
        insert(&bucket, id, "a").await.unwrap();
    }
    sleep(WINDOW * 2).await;
    let commits = adapter.commits();
    assert!((9..=11).contains(&commits.len()), "one a window: {}", commits.len());
    let mut seen = 0;
    for (at, keys) in commits {
        seen += keys.len();
        let oldest = changed[usize::try_from(keys[0]).unwrap()];
        assert!(at - oldest <= WINDOW + Duration::from_millis(1), "{:?} old", at - oldest);
    }
    assert_eq!(seen, 100);
    store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn changes_during_a_commit_are_captured_after_what_is_left_of_their_own_window() {
    let (adapter, faults) = faulty();
    let store = start(adapter).await;
    let bucket = store.define_bucket(items("items")).await.unwrap();
    faults.inject(Fault::delay(WINDOW * 5).on(Operation::Commit).times(1));
    insert(&bucket, 1, "a").await.unwrap();
    sleep(WINDOW * 2).await;
    insert(&bucket, 2, "a").await.unwrap();
    sleep(WINDOW * 3 + Duration::from_millis(50)).await;
    insert(&bucket, 3, "a").await.unwrap();
    assert_eq!(faults.commits().len(), 1);
    // The commit ends 600 ms after the first change; the second has waited for longer than its window by then.
    sleep(Duration::from_millis(60)).await;
    assert_eq!(faults.commits().len(), 2);
    assert_eq!(faults.most_commits_at_once(), 1);
    store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn too_much_unsaved_is_saved_before_its_window_is_over() {
    let adapter = Watched::new();
    let options = options().with_max_unsaved(20_000).with_debounce(Duration::from_secs(3_600));
    let store = builder(adapter.clone()).persistence(options).start().await.unwrap();
    let bucket = store.define_bucket(items("items")).await.unwrap();
    for id in 0..200 {
        insert(&bucket, id, &"x".repeat(1_000)).await.unwrap();
        tokio::task::yield_now().await;
    }
    let commits = adapter.commits();
    assert!((5..=15).contains(&commits.len()), "{}", commits.len());
    assert!(store.stats().await.persistence.unsaved_bytes <= 21_500);
    store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_window_of_an_hour_is_kept() {
    let adapter = Watched::new();
    let hour = Duration::from_secs(3_600);
    let store = builder(adapter.clone()).persistence(options().with_debounce(hour)).start().await.unwrap();
    let bucket = store.define_bucket(items("items")).await.unwrap();
    insert(&bucket, 1, "a").await.unwrap();
    sleep(hour - Duration::from_millis(1)).await;
    insert(&bucket, 2, "a").await.unwrap();
    assert!(adapter.commits().is_empty());
    sleep(Duration::from_millis(2)).await;
    assert_eq!(adapter.commits().len(), 1);
    store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn options_at_their_bounds_are_taken() {
    let (millisecond, hour) = (Duration::from_millis(1), Duration::from_secs(3_600));
    let least = PersistenceOptions::default()
        .with_debounce(Duration::ZERO)
        .with_max_unsaved(1)
        .with_retry(Backoff::new(millisecond, millisecond))
        .with_commit_timeout(millisecond)
        .with_stop_timeout(millisecond)
        .with_save_durability(Durability::Wal)
        .with_load_concurrency(1)
        .with_load_timeout(millisecond);
    let most = PersistenceOptions::default()
        .with_debounce(hour)
        .with_max_unsaved(usize::MAX)
        .with_retry(Backoff::new(hour, hour))
        .with_commit_timeout(hour)
        .with_stop_timeout(hour)
        .with_load_concurrency(1_024)
        .with_load_timeout(hour);
    for (options, saves_by_itself) in [(least, true), (most, false)] {
        let (adapter, _) = faulty();
        let store = builder(adapter.clone()).persistence(options).start().await.unwrap();
        let bucket = store.define_bucket(items("items")).await.unwrap();
        insert(&bucket, 1, "a").await.unwrap();
        sleep(Duration::from_secs(60)).await;
        assert_eq!(stored(&adapter, "items").await.is_some(), saves_by_itself);
        store.flush().await.unwrap();
        assert_eq!(stored(&adapter, "items").await, Some(expect([(1, "a")])));
        assert!(store.stop().await.unwrap().unsaved.is_empty());
    }
}

#[tokio::test]
async fn an_interval_that_would_keep_a_core_busy_or_never_end_is_refused() {
    for interval in [Duration::from_nanos(1), Duration::MAX] {
        let refused = Store::builder("shop").ttl_check_interval(interval).start().await;
        assert!(matches!(refused, Err(Error::InvalidOptions { .. })), "{interval:?}");
    }
    let off = Store::builder("shop").ttl_check_interval(Duration::ZERO).start().await.unwrap();
    off.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_a_window_a_change_is_captured_at_once() {
    let adapter = Watched::new();
    let store = builder(adapter.clone()).persistence(options().with_debounce(Duration::ZERO)).start().await.unwrap();
    let bucket = store.define_bucket(items("items")).await.unwrap();
    let begun = Instant::now();
    for id in 0..10 {
        insert(&bucket, id, "a").await.unwrap();
    }
    while stored(&adapter, "items").await.is_none_or(|stored| stored.len() < 10) {
        tokio::task::yield_now().await;
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn debounced_commits_below_the_top_level_are_followed_by_a_synced_one_and_count_as_saved_only_then() {
    let (adapter, faults) = faulty();
    let options = options().with_save_durability(Durability::Wal);
    let store = builder(adapter.clone()).persistence(options).start().await.unwrap();
    let bucket = store.define_bucket(items("items")).await.unwrap();
    let mut events = store.subscribe("persistence.items.saved").unwrap();
    insert(&bucket, 1, "a").await.unwrap();
    faults.until_commits_ended(1).await;
    tokio::task::yield_now().await;
    assert_eq!(faults.commits()[0].durability, Durability::Wal);
    assert_eq!(store.stats().await.persistence.unsaved, [subject("items")]);
    assert!(outcomes(&mut events).is_empty());
    sleep(WINDOW * 2).await;
    let commits = faults.commits();
    assert_eq!((commits.len(), commits[1].durability, commits[1].saves.len()), (2, Durability::Fsync, 0));
    assert!(store.stats().await.persistence.unsaved.is_empty());
    let saved = outcomes(&mut events);
    assert!(matches!(saved[..], [ref event] if matches!(event.outcome, PersistenceOutcome::Saved { revision: 1 })));

    // A sync that fails brings everything back that was only handed over.
    faults.forget_calls();
    insert(&bucket, 2, "a").await.unwrap();
    faults.until_commits_ended(1).await;
    faults.inject(Fault::fail(unknown()).on(Operation::Commit).times(1));
    sleep(Duration::from_secs(5)).await;
    let commits = faults.commits();
    let again = commits.iter().flat_map(changes).filter(|(_, change)| change.revision() == 2).count();
    assert_eq!(again, 2, "{commits:?}");
    assert!(store.stats().await.persistence.unsaved.is_empty());
    assert!(store.health().is_healthy());

    // Steady changes cannot postpone the sync.
    faults.forget_calls();
    for id in 10..210 {
        insert(&bucket, id, "a").await.unwrap();
        sleep(Duration::from_millis(10)).await;
    }
    let levels: Vec<_> = faults.commits().iter().map(|commit| commit.durability).collect();
    assert!(!levels.windows(2).any(|pair| pair == [Durability::Wal; 2]), "{levels:?}");
    store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn waits_after_failures_grow_up_to_their_bound_and_changes_do_not_shorten_them() {
    let (adapter, faults) = faulty();
    let options = options().with_retry(Backoff::new(Duration::from_secs(1), Duration::from_secs(64)));
    let store = builder(adapter).persistence(options).start().await.unwrap();
    let bucket = store.define_bucket(items("items")).await.unwrap();
    faults.fail_commits(transient());
    let next = AtomicI64::new(0);
    insert(&bucket, next.fetch_add(1, Ordering::Relaxed), "a").await.unwrap();
    let (mut ended, mut waits) = (0, Vec::new());
    for _ in 0..40 {
        let begun = Instant::now();
        ended += 1;
        // Changes come all the time.
        loop {
            let waiting = faults.until_commits_ended(ended);
            if tokio::time::timeout(Duration::from_millis(500), waiting).await.is_ok() {
                break;
            }
            insert(&bucket, next.fetch_add(1, Ordering::Relaxed), "a").await.unwrap();
        }
        waits.push(begun.elapsed());
    }
    for (attempt, wait) in waits.iter().enumerate().skip(1) {
        let bound = Duration::from_secs(1 << (attempt - 1).min(6)) + Duration::from_millis(10);
        assert!(*wait <= bound, "attempt {attempt}: {wait:?}");
    }
    // Drawn evenly from up to 64 s, thirty of them add up to about 960 s.
    assert!(waits[8..].iter().sum::<Duration>() > Duration::from_secs(320), "{waits:?}");
    faults.heal();
    let begun = Instant::now();
    store.flush().await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO, "a flush tries at once");
    store.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn options_out_of_bounds_are_all_told_at_the_start_and_nothing_is_claimed() {
    let (adapter, faults) = faulty();
    let options = PersistenceOptions::default()
        .with_debounce(Duration::from_secs(3_601))
        .with_load_concurrency(0)
        .with_save_durability(Durability::Ram);
    let started = builder(adapter).persistence(options).start().await;
    let Err(Error::InvalidOptions { problems }) = started else { panic!("{started:?}") };
    assert_eq!(problems.len(), 3);
    assert!(faults.calls().is_empty());
}
