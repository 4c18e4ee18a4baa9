//! Crashing an application between any two steps of a script, and comparing what comes back.

use std::error::Error as StdError;
use std::fmt::Debug;
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::{Builder, Handle};

use crate::adapters::memory::MemoryAdapter;
use crate::base::error::Result;
use crate::base::name::{BucketKey, ChannelKey, MessageId, StoreName, Subject};
use crate::persistence::{Capabilities, Commit, Epoch, Repair, StorageAdapter, Watcher};
use crate::records::{BucketChange, BucketSnapshot};
use crate::sds::{ChannelData, ChannelMeta, HistoryUpdate};
use crate::testkit::{Broken, Verdict};

/// Whatever goes wrong in an application.
pub type Failure = Box<dyn StdError + Send + Sync>;

/// When [`recovery_check`] lets the process die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Crashes {
    /// After each step, the moment it has been answered, and before the first. What comes back must be what was there.
    BetweenSteps,
    /// At these moments, and after every commit that was made while a step was under way, before it was answered. Whoever
    /// asked for that step asks again, as with a request id, so it must not count twice: the script is taken up with it.
    /// And after every commit that the application makes by itself once a step was answered and before the next is asked
    /// for: what comes back then must be what was there.
    AtEveryCommit,
}

/// What was played.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovered {
    /// How many times the application died and came back.
    pub crashes: usize,
    /// How many commits the uninterrupted run made.
    pub commits: usize,
}

/// Runs a script of steps against an application, lets the process die at many moments, starts the application again on
/// what its adapter had been given by then, and compares with a run that nothing interrupted.
///
/// `setup` starts the application on an adapter, as `main` would; `step` makes one step and waits for its answer; `look`
/// says what of the application has to be the same, and changes nothing. After each crash, what `look` says must be what it
/// said after the last step that was answered; after the rest of the script, what it said at the end.
///
/// An application whose steps are answered while changes wait for their window
/// ([`Durability::Ram`](crate::base::durability::Durability)) loses them in a crash, and the check says so: a step that is
/// to be safe when it is answered awaits more, or flushes.
///
/// The adapter is one in memory. A crash is in-process: each life has a runtime of its own, whose tasks are dropped where
/// they are; nothing is stopped, nothing saved. What is kept in files or statics beside the store is not taken back.
///
/// # Errors
/// `Broken` says after which step what was found instead; also if the application fails, or hangs for ten minutes, and if
/// this is called within a runtime: it is for plain `#[test]` functions.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use ractor_persistence::testkit::{Crashes, Failure, recovery_check};
/// use ractor_persistence::{BucketDefinition, Durability, Field, Store, StorageAdapter, record};
///
/// async fn start(adapter: Arc<dyn StorageAdapter>) -> Result<Store, Failure> {
///     let store = Store::builder("shop").shared_adapter(adapter).start().await?;
///     store.define_bucket(BucketDefinition::new("orders").key("item").field("item", Field::string())).await?;
///     Ok(store)
/// }
///
/// let order = |durability| async move |store: &Store, item: &&str| -> Result<(), Failure> {
///     let orders = store.bucket("orders")?.with_durability(durability);
///     orders.upsert(record! { "item": *item }).await?;
///     Ok(())
/// };
/// let count = async |store: &Store| Ok(store.bucket("orders")?.all().await?.len());
///
/// let script = ["tea", "milk"];
/// let safe = recovery_check(Crashes::AtEveryCommit, &script, start, order(Durability::Fsync), count).unwrap();
/// // Before, between and after the two steps, and behind the commit of each.
/// assert_eq!((safe.commits, safe.crashes), (2, 5));
/// let broken = recovery_check(Crashes::BetweenSteps, &script, start, order(Durability::Ram), count).unwrap_err();
/// assert!(broken.to_string().contains(r#"after step 1, "tea": found 0, where it was 1"#), "{broken}");
/// ```
pub fn recovery_check<Step: Debug, App, Seen: PartialEq + Debug>(
    crashes: Crashes,
    script: &[Step],
    setup: impl AsyncFn(Arc<dyn StorageAdapter>) -> std::result::Result<App, Failure>,
    step: impl AsyncFn(&App, &Step) -> std::result::Result<(), Failure>,
    look: impl AsyncFn(&App) -> std::result::Result<Seen, Failure>,
) -> Verdict<Recovered> {
    let first = Recorder::default();
    // What `look` said after so many steps, and what the adapter held then.
    let (seen, held) = live("the uninterrupted run", async {
        let app = setup(Arc::new(first.clone())).await.map_err(|error| failed("starting", &error))?;
        let (mut seen, mut held) = (Vec::new(), Vec::new());
        for number in 0..=script.len() {
            if let Some(next) = number.checked_sub(1).and_then(|at| script.get(at)) {
                first.at(number);
                step(&app, next).await.map_err(|error| failed(&told(number, next), &error))?;
                first.answered();
            }
            // Before anybody else has a turn.
            held.push(first.held().fork());
            seen.push(look(&app).await.map_err(|error| failed("looking", &error))?);
        }
        Ok((seen, held))
    })?;
    let mut crashes_at: Vec<Crash> =
        held.into_iter().enumerate().map(|(step, held)| Crash { step, held, asked: false }).collect();
    let commits = first.commits();
    let count = commits.len();
    if crashes == Crashes::AtEveryCommit {
        let under_way = commits.into_iter().filter_map(|Noted { during, answered, held }| {
            let before = during.checked_sub(1)?;
            Some(Crash { step: if answered { during } else { before }, held, asked: !answered })
        });
        crashes_at.extend(under_way);
    }
    let mut recovered = Recovered { crashes: 0, commits: count };
    for Crash { step: answered, held, asked } in crashes_at {
        let moment = match answered.checked_sub(1).and_then(|at| script.get(at)) {
            Some(last) => told(answered, last),
            None => "the start".to_owned(),
        };
        let moment = if asked { format!("{moment}, within the next") } else { moment };
        let what = format!("the run after a crash after {moment}");
        live(&what, async {
            let fails =
                |doing: &str, error: &Failure| failed(&format!("{doing}, after a crash after {moment},"), error);
            let app = setup(Arc::new(Recorder { inner: held, ..Recorder::default() }))
                .await
                .map_err(|error| fails("starting", &error))?;
            let found = look(&app).await.map_err(|error| fails("looking", &error))?;
            compare(&moment, &found, seen.get(answered), !asked)?;
            for (number, next) in script.iter().enumerate().skip(answered) {
                step(&app, next).await.map_err(|error| fails(&told(number + 1, next), &error))?;
            }
            let found = look(&app).await.map_err(|error| fails("looking", &error))?;
            compare(&format!("{moment}, and the rest of the script"), &found, seen.last(), true)
        })?;
        recovered.crashes += 1;
    }
    Ok(recovered)
}

/// A moment at which the process dies: so many steps have been answered, and this is what the adapter holds.
struct Crash {
    step: usize,
    held: MemoryAdapter,
    /// The next step had been asked for.
    asked: bool,
}

fn told(number: usize, step: &impl Debug) -> String {
    format!("step {number}, {step:?}")
}

fn failed(doing: &str, error: &Failure) -> Broken {
    let mut text = format!("{doing} failed: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    Broken::new(text)
}

/// Whether two looks are alike, if they have to be.
fn compare<Seen: PartialEq + Debug>(moment: &str, found: &Seen, expected: Option<&Seen>, bound: bool) -> Verdict {
    match expected {
        Some(expected) if bound && found != expected => {
            Err(Broken::new(format!("after a crash after {moment}: found {found:?}, where it was {expected:?}")))
        }
        _ => Ok(()),
    }
}

/// One life of the application: when it is over, all tasks are dropped where they are.
fn live<T>(what: &str, life: impl Future<Output = Verdict<T>>) -> Verdict<T> {
    const PATIENCE: Duration = Duration::from_secs(600);
    if Handle::try_current().is_ok() {
        return Err(Broken::new("a recovery check is called outside of any runtime: from a plain `#[test]`"));
    }
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Broken::new(format!("there is no runtime for {what}: {error}")))?;
    let verdict = runtime.block_on(async {
        match tokio::time::timeout(PATIENCE, life).await {
            Ok(verdict) => verdict,
            Err(_) => Err(Broken::new(format!("{what} hangs"))),
        }
    });
    runtime.shutdown_background();
    verdict
}

/// An adapter in memory that notes what it holds after each commit, and during which step that was.
#[derive(Clone, Debug, Default)]
struct Recorder {
    inner: MemoryAdapter,
    notes: Arc<Mutex<Notes>>,
}

#[derive(Debug, Default)]
struct Notes {
    step: usize,
    /// Whether that step has been answered.
    answered: bool,
    commits: Vec<Noted>,
}

/// What the adapter held after a commit, and when that was.
#[derive(Debug)]
struct Noted {
    during: usize,
    answered: bool,
    held: MemoryAdapter,
}

impl Recorder {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self, step: usize) {
        let mut notes = self.notes();
        (notes.step, notes.answered) = (step, false);
    }

    fn answered(&self) {
        self.notes().answered = true;
    }

    fn held(&self) -> &MemoryAdapter {
        &self.inner
    }

    fn commits(&self) -> Vec<Noted> {
        std::mem::take(&mut self.notes().commits)
    }
}

#[deny(clippy::missing_trait_methods, reason = "a default body would go around the wrapped adapter's own")]
#[async_trait]
impl StorageAdapter for Recorder {
    /// What it holds survives the crashes that are played.
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities().with_survives_restart(true)
    }

    async fn save_bucket(&self, bucket: &BucketKey, change: &BucketChange) -> Result<()> {
        self.inner.save_bucket(bucket, change).await
    }

    async fn load_bucket(&self, bucket: &BucketKey) -> Result<Option<BucketSnapshot>> {
        self.inner.load_bucket(bucket).await
    }

    async fn drop_bucket(&self, bucket: &BucketKey) -> Result<()> {
        self.inner.drop_bucket(bucket).await
    }

    async fn save_channel_meta(&self, channel: &ChannelKey, meta: &ChannelMeta) -> Result<()> {
        self.inner.save_channel_meta(channel, meta).await
    }

    async fn update_history(&self, channel: &ChannelKey, update: &HistoryUpdate) -> Result<()> {
        self.inner.update_history(channel, update).await
    }

    async fn load_channel(&self, channel: &ChannelKey) -> Result<ChannelData> {
        self.inner.load_channel(channel).await
    }

    async fn drop_channel(&self, channel: &ChannelKey) -> Result<()> {
        self.inner.drop_channel(channel).await
    }

    async fn set_retrieval_hint(&self, channel: &ChannelKey, message: &MessageId, hint: &[u8]) -> Result<()> {
        self.inner.set_retrieval_hint(channel, message, hint).await
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        self.inner.commit(commit).await?;
        let held = self.inner.fork();
        let mut notes = self.notes();
        let (during, answered) = (notes.step, notes.answered);
        notes.commits.push(Noted { during, answered, held });
        Ok(())
    }

    async fn claim(&self, store: &StoreName) -> Result<Epoch> {
        self.inner.claim(store).await
    }

    async fn close(&self, store: &StoreName) -> Result<()> {
        self.inner.close(store).await
    }

    async fn repairs(&self, store: &StoreName, subject: &Subject) -> Vec<Repair> {
        self.inner.repairs(store, subject).await
    }

    async fn quarantine(&self, store: &StoreName, subject: &Subject) -> Result<String> {
        self.inner.quarantine(store, subject).await
    }

    fn watch(&self, store: &StoreName, watcher: Watcher) {
        self.inner.watch(store, watcher);
    }

    async fn backup(&self, target: &Path) -> Result<u64> {
        self.inner.backup(target).await
    }

    async fn compact(&self) -> Result<u64> {
        self.inner.compact().await
    }
}
