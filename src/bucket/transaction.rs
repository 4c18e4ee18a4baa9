//! Transactions: optimistic, serializable, over several buckets.
//!
//! Reads and writes of the function go into a draft per bucket. To commit, the transaction queues up for the turns of all
//! of its buckets at once, so that two of them never wait for each other; when it has all of them, it checks what
//! was read and builds the changes; and then applies all of them in one stretch without an await, which neither a kill
//! nor a dropped future can cut. What else has joined, a channel or a durable value, has no turn to wait for: it is checked
//! and applied in that same stretch.

use std::collections::BTreeMap;
use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::base::durability::Durability;
use crate::base::error::{Error, Outcome, Result};
use crate::base::jitter::jitter;
use crate::base::name::BucketName;
use crate::base::name::Subject;
use crate::base::patience::deadline;
use crate::base::slot::Place;
use crate::bucket::directory::{Address, Directory};
use crate::bucket::handle::{DEFAULT_TIMEOUT, awaited, is_turn_of_others};
use crate::bucket::hold::{Held, Hold, Switch};
use crate::bucket::instance::{Instance, News};
use crate::bucket::message::BucketMessage;
use crate::bucket::part::TransactionBucket;
use crate::persistence::{Coordinator, Joining, Participant, Parts, Persister, Ready, Saved};
use crate::records::Draft;

/// How often a transaction is tried, and how long it rests in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retry {
    /// Attempts in all; default 8, from 1 to 100.
    pub attempts: u32,
}

/// The longest rest between two attempts.
const LONGEST_REST: Duration = Duration::from_millis(100);

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 8 }
    }
}

impl Retry {
    /// So many attempts in all, from 1 to 100.
    #[must_use]
    pub fn with_attempts(self, attempts: u32) -> Self {
        Self { attempts }
    }

    /// The rest after so many failed attempts: evenly from 0 to 1 ms · 2ⁿ, at most 100 ms.
    fn rest(failed: u32, draw: f64) -> Duration {
        let longest = Duration::from_millis(1).saturating_mul(1 << failed.min(10)).min(LONGEST_REST);
        longest.mul_f64(draw.clamp(0.0, 1.0))
    }
}

/// A transaction that is about to run: set its options, then await it.
///
/// # Errors
/// What the function answers, unchanged, where it fails: then nothing is applied. Else, by `From<Error>`: `Conflict` when
/// something that was read has changed, after the last attempt; `UniqueViolation`, `CapacityExceeded`; `Timeout`,
/// `ActorLost`, `Stopping`; `Unsupported` for a durability above `Ram` where a bucket that is written is opted out, the
/// store has no adapter or the adapter does not reach it, `Fenced` for one that is fenced; `InvalidArgument` if the attempts
/// are not 1 to 100; because of what has joined `Superseded`, `NotFound`, `UnknownChannel`, `GivenUp`, `Backpressure`:
/// nothing is applied. `NotSaved`: applied, but not at the durability asked for, by the transaction or by a
/// channel that has joined.
///
/// # Panics
/// With the function's panic; then nothing is applied.
///
/// # Cancel safety
/// Dropped before the commit, nothing is applied; later, all or nothing.
#[must_use = "a transaction runs when it is awaited"]
pub struct TransactionBuilder<'a, F> {
    directory: Directory,
    coordinator: Coordinator,
    function: F,
    borrows: PhantomData<&'a ()>,
    retry: Retry,
    durability: Durability,
    timeout: Duration,
}

impl<F> fmt::Debug for TransactionBuilder<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionBuilder").field("retry", &self.retry).finish_non_exhaustive()
    }
}

impl<'a, F> TransactionBuilder<'a, F> {
    pub(crate) fn new(directory: Directory, coordinator: Coordinator, function: F) -> Self {
        let retry = Retry { attempts: 1 };
        let (durability, timeout) = (Durability::Ram, DEFAULT_TIMEOUT);
        Self { directory, coordinator, function, borrows: PhantomData, retry, durability, timeout }
    }

    /// Repeats the function on a `Conflict`, and when it failed on reads that are stale by then; default: one attempt.
    pub fn retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }

    /// Answers once the commit is saved at this level; default [`Durability::Ram`].
    pub fn durability(self, durability: Durability) -> Self {
        Self { durability, ..self }
    }

    /// How long each attempt may wait for each of its buckets; default 5 s.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    async fn run<T, E, Fut>(mut self) -> Result<T, E>
    where
        F: FnMut(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        let attempts = self.retry.attempts;
        if !(1..=100).contains(&attempts) {
            return Err(Error::invalid_argument("a transaction is tried 1 to 100 times").into());
        }
        let mut failed = 0;
        loop {
            failed += 1;
            let transaction = Transaction::begin(self.directory.clone(), self.coordinator.clone(), self.timeout);
            // Also where the function panics, or the future is dropped: a handle that is kept does not outlive it.
            let ending = Ending(transaction.clone());
            let outcome = (self.function)(transaction.clone()).await;
            let error = match outcome {
                Ok(answer) => match transaction.commit(self.durability).await {
                    Ok(()) => return Ok(answer),
                    Err(error @ Error::Conflict { .. }) => error.into(),
                    Err(error) => return Err(error.into()),
                },
                Err(error) => {
                    if !transaction.is_stale() {
                        return Err(error);
                    }
                    error
                }
            };
            drop((transaction, ending));
            if failed >= attempts {
                return Err(error);
            }
            tokio::time::sleep(Retry::rest(failed, jitter())).await;
        }
    }
}

impl<'a, F, T, E, Fut> IntoFuture for TransactionBuilder<'a, F>
where
    F: FnMut(Transaction) -> Fut + Send + 'a,
    Fut: Future<Output = Result<T, E>> + Send + 'a,
    T: Send + 'a,
    E: From<Error> + Send + 'a,
{
    type Output = Result<T, E>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// A transaction that runs: what its function reads and writes with. A cheap clone; clones share it.
#[derive(Clone)]
pub struct Transaction {
    shared: Arc<Shared>,
}

struct Shared {
    directory: Directory,
    /// What else takes part.
    joining: Joining,
    timeout: Duration,
    /// None once it has ended.
    parts: Mutex<Option<BTreeMap<BucketName, Part>>>,
}

/// Ends a transaction when it is dropped.
struct Ending(Transaction);

impl Drop for Ending {
    fn drop(&mut self) {
        let parts = self.0.parts().take();
        // Not under the lock: parts take others when they are dropped.
        drop((parts, self.0.shared.joining.end()));
    }
}

/// A transaction's part in one bucket.
pub(super) struct Part {
    pub(super) address: Arc<Address>,
    pub(super) instance: Arc<Instance>,
    pub(super) draft: Draft,
}

impl Drop for Part {
    fn drop(&mut self) {
        self.instance.adjust(|table| self.draft.end(table));
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").finish_non_exhaustive()
    }
}

impl Transaction {
    fn begin(directory: Directory, coordinator: Coordinator, timeout: Duration) -> Self {
        let joining = Joining::new(coordinator);
        Self { shared: Arc::new(Shared { directory, joining, timeout, parts: Mutex::new(Some(BTreeMap::new())) }) }
    }

    /// A bucket, as the transaction sees it.
    ///
    /// # Errors
    /// `InvalidName`, `BucketNotDefined`.
    pub fn bucket(&self, name: &str) -> Result<TransactionBucket> {
        let address = self.shared.directory.get(&BucketName::new(name)?)?;
        Ok(TransactionBucket::new(self.clone(), address))
    }

    /// Takes a [`Channel`](crate::channel::Channel) or a [`Durable`](crate::durable::Durable) value into the transaction:
    /// what is done with the answer is applied with everything else that the transaction writes, and on disk with all of it
    /// or not at all, at whatever moment the process is killed. Joining twice answers the same part.
    ///
    /// It is optimistic, like the rest: the part begins as a copy, and the commit fails with `Conflict` if the participant
    /// has changed since it joined.
    ///
    /// ```
    /// use ractor_persistence::adapters::memory::MemoryAdapter;
    /// use ractor_persistence::durable::DurableOptions;
    /// use ractor_persistence::{ChannelOptions, Error, Retry, Store};
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let store = Store::builder("shop").adapter(MemoryAdapter::default()).start().await?;
    /// let orders = store.open_channel("orders", ChannelOptions::default()).await?;
    /// let count = store.durable::<u32>("orders sent", DurableOptions::default()).await?;
    /// let message = store
    ///     .transaction(async |tx| {
    ///         let number = tx.join(&count)?.update(|count| {
    ///             *count += 1;
    ///             *count
    ///         })?;
    ///         let message = tx.join(&orders)?.send(format!("order {number}"))?;
    ///         assert!(message.bytes().is_none()); // nothing leaves before the commit
    ///         Ok::<_, Error>(message)
    ///     })
    ///     .retry(Retry::default())
    ///     .await?;
    /// assert!(message.bytes().is_some()); // to be sent to the peers
    /// assert_eq!((count.get(), orders.stats().await?.unacknowledged), (1, 1));
    /// # Ok::<_, Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// `TransactionClosed`; `InvalidArgument` for what belongs to another store; `Unsupported` on a back-end that does not
    /// commit as a whole ([`Atomicity`](crate::persistence::Atomicity)), and for a channel that is not saved though its
    /// store is; `UnknownChannel` and `GivenUp` of a channel, `Superseded` and `NotFound` of a durable value; `Stopping`.
    pub fn join<P: Participant>(&self, participant: &P) -> Result<P::Joined> {
        participant.join(&self.shared.joining)
    }

    /// Works on the part in a bucket, which begins with the first such work. The lock is held for moments only.
    pub(super) async fn part<T>(&self, address: &Arc<Address>, work: impl FnOnce(&mut Part) -> Result<T>) -> Result<T> {
        if is_turn_of_others() {
            tokio::task::coop::consume_budget().await;
        }
        let began = self.parts().as_ref().ok_or(Error::TransactionClosed)?.contains_key(&address.name);
        if !began {
            let instance = match address.slot.shared_now() {
                Some(found) => found?,
                None => address.slot.shared(deadline(self.shared.timeout), |_| true).await?,
            };
            let now = instance.now();
            let draft = instance.adjust(|table| Draft::begin(table, now));
            let part = Part { address: Arc::clone(address), instance, draft };
            let mut parts = self.parts();
            let parts = parts.as_mut().ok_or(Error::TransactionClosed)?;
            if !parts.contains_key(&address.name) {
                parts.insert(address.name.clone(), part);
            }
        }
        let mut parts = self.parts();
        let part = parts.as_mut().and_then(|parts| parts.get_mut(&address.name)).ok_or(Error::TransactionClosed)?;
        match work(part) {
            // The bucket was restarted: what was read of it before may not hold.
            Err(Error::ActorLost { .. }) => Err(Error::Conflict { bucket: address.name.clone(), key: None }),
            outcome => outcome,
        }
    }

    fn parts(&self) -> std::sync::MutexGuard<'_, Option<BTreeMap<BucketName, Part>>> {
        // What a panic leaves under the lock belongs to a transaction that will never commit.
        self.shared.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the transaction; answers whether something that it read has changed.
    fn is_stale(&self) -> bool {
        let parts = self.parts().take();
        let joined = self.shared.joining.end();
        joined.0.iter().any(|part| part.is_stale())
            || parts.into_iter().flatten().any(|(_, mut part)| {
                let (now, draft) = (part.instance.now(), &mut part.draft);
                let instance = Arc::clone(&part.instance);
                !matches!(instance.read(|table| draft.advance(table, now)), Ok(Ok(())))
            })
    }

    async fn commit(&self, durability: Durability) -> Result<()> {
        let joined = self.shared.joining.end();
        // From here on it is settled what is written, and so at which level: the function may have left handles with others.
        joined.0.iter().for_each(|part| part.seal());
        let coordinator = self.shared.joining.coordinator();
        let Some(parts) = self.parts().take() else { return Err(Error::TransactionClosed) };
        let mut parts: Vec<Part> = parts.into_values().collect();
        for part in parts.iter().filter(|part| part.draft.writes()) {
            part.address.awaited(durability)?;
        }
        // What joins may have a level of its own, before which nothing of it may be seen.
        let mut level = durability;
        for part in joined.0.iter().filter(|part| part.writes()) {
            level = level.max(part.level());
            awaited(coordinator.persister(), level, &part.whose(), true)?;
        }
        let switch = Arc::new(Switch::default());
        let mut holds = {
            let _queueing = self.shared.directory.queueing();
            parts.iter().map(|part| hold(part, &switch)).collect::<Result<Vec<_>>>()?
        };
        for (part, held) in parts.iter().zip(&mut holds) {
            granted(part, held, self.shared.timeout).await?;
        }
        let outcome = decide(&mut parts, &joined, coordinator, &switch);
        // The buckets go on.
        drop(holds);
        Applied { changed: outcome?, level, joined: Some(joined) }.saved().await
    }
}

/// A transaction that is applied. What it reveals is released once it is saved: dropped before, whether the save has
/// failed at first or nobody waits for it any more, it leaves a task behind that sees to it.
struct Applied {
    changed: Vec<Changed>,
    level: Durability,
    /// None once they are released.
    joined: Option<Parts>,
}

impl Applied {
    async fn saved(mut self) -> Result<()> {
        // Asked for before; what has become impossible since is an answer of the save.
        for Changed { persister, subject, revision } in self.changed.iter().filter(|_| self.level > Durability::Ram) {
            let saved = persister.saved(subject, *revision, self.level).await;
            saved.map_err(|error| Error::NotSaved { revision: *revision, source: Arc::new(error) })?;
        }
        self.joined.take().iter().for_each(Parts::release);
        Ok(())
    }
}

impl Drop for Applied {
    fn drop(&mut self) {
        let Some(joined) = self.joined.take().filter(|joined| !joined.0.is_empty()) else { return };
        // Without a runtime there is nobody left to send anything.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let level = self.level;
        let saves: Vec<Saved> = self
            .changed
            .iter()
            .map(|Changed { persister, subject, revision }| persister.follow(subject, *revision, level))
            .collect();
        runtime.spawn(async move {
            for saved in saves {
                if saved.outcome().await.is_err() {
                    // It never will be.
                    return;
                }
            }
            joined.release();
        });
    }
}

/// What a transaction has changed that is to be saved.
struct Changed {
    persister: Persister,
    subject: Subject,
    revision: u64,
}

fn conflict(part: &Part) -> Error {
    Error::Conflict { bucket: part.address.name.clone(), key: None }
}

/// Queues up for the turn of a part's bucket.
fn hold(part: &Part, switch: &Arc<Switch>) -> Result<Held> {
    let actor = match part.address.slot.place() {
        Place::Running(actor, instance) if Arc::ptr_eq(&instance, &part.instance) => actor,
        Place::Running(..) | Place::Starting => return Err(conflict(part)),
        Place::Gone(error) => return Err(error),
    };
    let (hold, held) = Hold::new(switch, part.address.slot.patience().clone());
    // An actor that died takes what was read from it along.
    actor.send_message(BucketMessage::Hold(hold)).map_err(|_dead| conflict(part))?;
    Ok(held)
}

/// Waits until a bucket's turn is the transaction's.
async fn granted(part: &Part, held: &mut Held, timeout: Duration) -> Result<()> {
    match part.address.slot.patience().limit(pin!(held.granted()), timeout).await {
        Some(true) => Ok(()),
        Some(false) => Err(conflict(part)),
        None => Err(Error::Timeout { outcome: Outcome::NotApplied }),
    }
}

/// With all turns taken: checks everything, and applies everything or nothing. Answers what has changed and is to be
/// saved.
fn decide(parts: &mut [Part], joined: &Parts, coordinator: &Coordinator, switch: &Switch) -> Result<Vec<Changed>> {
    let turn = (!joined.0.is_empty()).then(|| coordinator.turn());
    if let Some(turn) = &turn {
        turn.check()?;
    }
    // While it is held, the persister captures nothing: what belongs together is saved together.
    let of_buckets = parts.iter().find_map(|part| part.address.persister.clone());
    let persister = of_buckets.or_else(|| coordinator.persister().filter(|_| turn.is_some()).cloned());
    let gate = persister.as_ref().map(Persister::gate);
    let mut told: Vec<(Arc<Instance>, News)> = Vec::with_capacity(parts.len());
    let mut changed: Vec<Changed> = Vec::with_capacity(parts.len() + joined.0.len());
    let mut ready: Vec<Box<dyn Ready + '_>> = Vec::with_capacity(joined.0.len());
    {
        let instances: Vec<Arc<Instance>> = parts.iter().map(|part| Arc::clone(&part.instance)).collect();
        let mut tables = Vec::with_capacity(parts.len());
        for (part, instance) in parts.iter().zip(&instances) {
            let conflict = |_lost| Error::Conflict { bucket: part.address.name.clone(), key: None };
            tables.push(instance.writing().map_err(conflict)?);
        }
        let mut plans = Vec::with_capacity(parts.len());
        for (part, table) in parts.iter_mut().zip(&mut tables) {
            plans.push(part.draft.plan(table.table(), part.instance.now())?);
        }
        for part in &joined.0 {
            ready.push(part.prepare()?);
        }
        if !switch.commit() {
            return Err(Error::Timeout { outcome: Outcome::NotApplied });
        }
        for ((part, table), plan) in parts.iter().zip(&mut tables).zip(plans) {
            if let (_, Some(news)) = table.apply(plan) {
                if let Some(persister) = part.address.persister.clone() {
                    let (subject, revision) = (part.address.slot.subject().clone(), news.revision());
                    changed.push(Changed { persister, subject, revision });
                }
                told.push((Arc::clone(&part.instance), news));
            }
        }
        let mut revealed = Vec::new();
        for part in &mut ready {
            let saves = part.apply();
            let told = if saves.is_some() { None } else { part.reveals() };
            for (list, found) in [(&mut changed, saves), (&mut revealed, told)] {
                if let (Some((subject, revision)), Some(persister)) = (found, persister.clone()) {
                    list.push(Changed { persister, subject, revision });
                }
            }
        }
        let saved: Vec<_> = changed.iter().map(|changed| (&changed.subject, changed.revision)).collect();
        if let (Some(gate), true) = (&gate, saved.len() > 1) {
            gate.join(&saved);
        }
        changed.append(&mut revealed);
    }
    // Code of users' hears of it, and may have something to do with what has joined: nothing of that is held any more.
    drop((gate, turn));
    ready.into_iter().for_each(Ready::tell);
    if let Some((first, _)) = told.first() {
        let commit = first.next_commit();
        for (instance, news) in told {
            instance.tell(news, commit);
        }
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_grow_to_a_tenth_of_a_second() {
        assert_eq!(Retry::rest(1, 1.0), Duration::from_millis(2));
        assert_eq!(Retry::rest(3, 0.5), Duration::from_millis(4));
        assert_eq!(Retry::rest(90, 1.0), LONGEST_REST);
        assert_eq!(Retry::rest(90, 0.0), Duration::ZERO);
    }
}
