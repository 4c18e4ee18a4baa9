//! What users hold of a durable value.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::base::durability::{Durability, Lack};
use crate::base::error::{Error, Result};
use crate::base::name::DurableName;
use crate::durable::options::DurableOptions;
use crate::durable::stored::{decode, encode, place_of};
use crate::durable::turn::Turn;
use crate::durable::values::{Claim, Values};
use crate::records::guarded;

/// A value that an actor of the user's keeps: it is there again after a kill of the actor and after a restart of the
/// process.
///
/// An actor opens it in its `pre_start` with [`Store::durable`](crate::store::Store::durable). Reads answer from memory.
/// A change is in memory when [`update`](Self::update) answers and is saved within the store's debounce window, in one
/// commit with whatever else has changed in the store; [`persist`](Self::persist) waits for that.
///
/// Clones share the value; dropping the last one leaves it stored, and open to be opened again. Opening it again under the
/// same name takes it over, with all changes, saved or not: the handles before, which may still be in the hands of an actor
/// that was killed half-way, are refused with `Superseded` from then on, and still read what they last saw.
///
/// **Cost.** Each update clones the value and encodes it, and each commit that it is in writes it as a whole: for a state
/// of many parts that change one by one, a [`Bucket`](crate::bucket::Bucket) is the better home. The value is in memory
/// twice, as itself and in its stored form; values that are stored and not open are there once.
///
/// **What can be stored** is what serializes into a [`Value`](crate::base::value::Value): maps have texts as keys, numbers
/// are finite and fit 64 bits with sign, at most 63 levels and 16 MiB. It should be the type that reads what it has
/// written.
///
/// ```
/// use ractor_persistence::adapters::memory::MemoryAdapter;
/// use ractor_persistence::durable::DurableOptions;
/// use ractor_persistence::{Durable, Store};
///
/// #[derive(Clone, Default, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
/// struct Counter {
///     count: u32,
/// }
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let adapter = MemoryAdapter::default();
/// let store = Store::builder("shop").adapter(adapter.clone()).start().await?;
/// let counter: Durable<Counter> = store.durable("counter-1", DurableOptions::default()).await?;
/// let count = counter.update(|counter| {
///     counter.count += 1;
///     counter.count
/// })?;
/// assert_eq!(count, 1);
/// counter.persist().await?; // on disk when it answers
/// store.stop().await?;
///
/// let store = Store::builder("shop").adapter(adapter).start().await?;
/// let counter: Durable<Counter> = store.durable("counter-1", DurableOptions::default()).await?;
/// assert_eq!(counter.get(), Counter { count: 1 });
/// # Ok::<_, ractor_persistence::Error>(())
/// # }).unwrap();
/// ```
pub struct Durable<S> {
    pub(super) shared: Arc<Shared<S>>,
}

pub(super) struct Shared<S> {
    pub(super) values: Values,
    pub(super) claim: Claim,
    pub(super) schema_version: u32,
    durability: Durability,
    /// Who changes the value, one at a time.
    pub(super) turn: Turn,
    now: Mutex<Now<S>>,
}

/// The value as it is, and the revision that it is saved with.
struct Now<S> {
    value: Arc<S>,
    revision: u64,
}

impl<S> Clone for Durable<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<S> fmt::Debug for Durable<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Claim { name, activation } = &self.shared.claim;
        f.debug_struct("Durable").field("name", name).field("activation", activation).finish_non_exhaustive()
    }
}

impl<S> Shared<S> {
    fn now(&self) -> MutexGuard<'_, Now<S>> {
        // No user code runs under it.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value as it is.
    pub(super) fn current(&self) -> Arc<S> {
        Arc::clone(&self.now().value)
    }

    /// Lets everybody see a value that was noted as unsaved; answers the one before, whose drop is user code.
    #[must_use]
    pub(super) fn show(&self, value: Arc<S>, revision: u64) -> Arc<S> {
        let mut now = self.now();
        now.revision = revision;
        std::mem::replace(&mut now.value, value)
    }
}

impl<S> Durable<S> {
    /// The value's name.
    pub fn name(&self) -> &DurableName {
        &self.shared.claim.name
    }

    /// Calls `read` with the value as it is. Nothing is locked meanwhile: changes go on, and are not seen by it.
    pub fn read<R>(&self, read: impl FnOnce(&S) -> R) -> R {
        read(&self.shared.current())
    }

    /// The value as it is, shared.
    pub fn snapshot(&self) -> Arc<S> {
        self.shared.current()
    }

    /// Waits until the value as it is now is saved, at the level of the value's options; at once
    /// without an adapter.
    ///
    /// # Errors
    /// `NotSaved` with what the commit said: the change is kept and retried.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn persist(&self) -> Result<()> {
        let revision = self.shared.now().revision;
        self.shared.values.saved(revision, self.shared.durability).await
    }

    /// Deletes the value, and waits until that is saved, at the level of the value's options. Then nobody has it open, and
    /// opening it begins anew.
    ///
    /// # Errors
    /// `Superseded`; `NotFound` if it was deleted before; `Stopping`; `InvalidArgument` and `Conflict` as
    /// [`update`](Self::update): nothing has changed. `NotSaved`: it is deleted in memory, and that is kept and retried.
    ///
    /// # Cancel safety
    /// Polled once, it is deleted in memory.
    pub async fn delete(&self) -> Result<()> {
        let revision = {
            let _turn = self.shared.turn.take(self.name())?;
            self.shared.values.remove(&self.shared.claim)?
        };
        self.shared.values.saved(revision, self.shared.durability).await
    }
}

impl<S: Clone> Durable<S> {
    /// A copy of the value as it is.
    pub fn get(&self) -> S {
        S::clone(&self.shared.current())
    }
}

impl<S: Clone + Serialize> Durable<S> {
    /// Changes the value and answers what `change` answers. It works on a copy, which takes the value's place when it has
    /// returned: a panic in it leaves the value as it was, and goes on.
    ///
    /// One change is made at a time; another one waits for it on its thread, so that `change` must not block. It may change
    /// other values. Where two do that in both orders at once, one of them is refused with `Conflict` when it would wait for
    /// the other for ever; `tx.join` changes several values as a whole.
    ///
    /// ```
    /// # use ractor_persistence::{Error, Store, durable::DurableOptions};
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let store = Store::builder("shop").start().await?;
    /// let ratio = store.durable("ratio", DurableOptions::starting_with(|| 0.5)).await?;
    /// assert_eq!(ratio.update(|ratio| std::mem::replace(ratio, 0.75))?, 0.5);
    /// let refused = ratio.update(|ratio| *ratio = f64::NAN);
    /// assert!(matches!(refused, Err(Error::InvalidValue { .. })));
    /// assert_eq!(ratio.get(), 0.75);
    /// # Ok::<_, Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// `InvalidValue` if what `change` has made cannot be stored; `Superseded` if the value was opened again since;
    /// `NotFound` if it was deleted; `Stopping`; `InvalidArgument` within another update of the same value; `Conflict` within
    /// an update of another value, if whoever changes this one waits for that. Nothing has changed then.
    pub fn update<R>(&self, change: impl FnOnce(&mut S) -> R) -> Result<R> {
        self.try_update(|value| Ok(change(value)))
    }

    /// [`update`](Self::update) with a change that may fail: then nothing has changed.
    ///
    /// # Errors
    /// What `change` answers, and by `From<Error>` those of `update`.
    pub fn try_update<R, E: From<Error>>(&self, change: impl FnOnce(&mut S) -> Result<R, E>) -> Result<R, E> {
        let shared = &*self.shared;
        let turn = shared.turn.take(self.name())?;
        // Before the change is made: its side effects are for those who may.
        shared.values.check(&shared.claim)?;
        let mut value = S::clone(&shared.current());
        let answer = change(&mut value)?;
        let fields = encode(shared.schema_version, &value)?;
        let revision = shared.values.write(&shared.claim, fields)?;
        let old = shared.show(Arc::new(value), revision);
        drop(turn);
        drop(old);
        Ok(answer)
    }
}

impl<S: Serialize + DeserializeOwned> Durable<S> {
    /// Opens a value: what is stored, or what it begins with, is from now on changed through this handle and its clones
    /// only. Everything stored has been loaded.
    pub(crate) fn open(values: &Values, name: &DurableName, options: DurableOptions<S>) -> Result<Self> {
        let options = options.checked()?;
        let has = values.persister().map_or(Durability::Ram, |persister| persister.capabilities().durability);
        let durability = options.durability.unwrap_or(has);
        if durability > has {
            let why = if values.persister().is_some() { Lack::OfAdapter } else { Lack::NoAdapter };
            return Err(durability.refused(place_of(name), why, has));
        }
        loop {
            // The handle before may change it while user code runs here, which nothing is locked for.
            let seen = values.record(name);
            let (value, fields) = match &seen {
                Some(record) => match decode(name, record, &options)? {
                    (value, false) => (value, None),
                    (value, true) => {
                        let fields = encode(options.schema_version, &value)?;
                        (value, Some(fields))
                    }
                },
                None => {
                    let value = guarded("the initial value", || (options.initial)())?;
                    let fields = encode(options.schema_version, &value)?;
                    (value, Some(fields))
                }
            };
            let Some((activation, revision)) = values.take_over(name, seen.as_ref(), fields)? else { continue };
            let shared = Shared {
                values: values.clone(),
                claim: Claim { name: name.clone(), activation },
                schema_version: options.schema_version,
                durability,
                turn: Turn::default(),
                now: Mutex::new(Now { value: Arc::new(value), revision }),
            };
            return Ok(Self { shared: Arc::new(shared) });
        }
    }
}
