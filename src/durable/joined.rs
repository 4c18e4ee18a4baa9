//! A durable value as a transaction sees it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::base::error::{Error, Result};
use crate::base::name::{DurableName, Subject};
use crate::base::value::Object;
use crate::durable::handle::Durable;
use crate::durable::stored::{encode, place_of};
use crate::durable::turn::Taken;
use crate::persistence::{Joining, Part, PartKey, Participant, Ready};

/// A durable value as a transaction sees it: as it was when it joined, with the transaction's own changes. Nothing is
/// applied before the transaction commits; clones share it.
///
/// Its operations fail with `TransactionClosed` once the transaction has ended.
pub struct TransactionDurable<S> {
    part: Arc<DurablePart<S>>,
}

/// A value's part in a transaction.
struct DurablePart<S> {
    durable: Durable<S>,
    /// The value when it joined.
    seen: Arc<S>,
    /// None once the transaction has ended.
    draft: Mutex<Option<Draft<S>>>,
    /// The draft while the transaction commits.
    sealed: Mutex<Option<Draft<S>>>,
}

struct Draft<S> {
    value: Arc<S>,
    /// What is to be stored, where it was changed.
    fields: Option<Object>,
}

impl<S> Clone for TransactionDurable<S> {
    fn clone(&self) -> Self {
        Self { part: Arc::clone(&self.part) }
    }
}

impl<S> fmt::Debug for TransactionDurable<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionDurable").field("durable", &self.part.durable).finish_non_exhaustive()
    }
}

impl<S> fmt::Debug for DurablePart<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurablePart").field("durable", &self.durable).finish_non_exhaustive()
    }
}

impl<S: Send + Sync + 'static> Participant for Durable<S> {
    type Joined = TransactionDurable<S>;

    /// # Errors
    /// As [`Participant::join`], and `Superseded`, `NotFound`, `Stopping` where the handle may not change the value.
    fn join(&self, joining: &Joining) -> Result<Self::Joined> {
        let (values, claim) = (&self.shared.values, &self.shared.claim);
        let part = joining.enlist(values.coordinator(), true, &part_key(self), || {
            values.check(claim)?;
            let seen = self.shared.current();
            let draft = Draft { value: Arc::clone(&seen), fields: None };
            let (draft, sealed) = (Mutex::new(Some(draft)), Mutex::new(None));
            Ok(DurablePart { durable: self.clone(), seen, draft, sealed })
        })?;
        // A handle of an earlier or later activation than the one that has joined.
        if Arc::ptr_eq(&part.durable.shared, &self.shared) {
            Ok(TransactionDurable { part })
        } else {
            Err(part.conflict())
        }
    }
}

fn part_key<S>(durable: &Durable<S>) -> PartKey {
    (durable.shared.values.subject().clone(), durable.name().to_string())
}

impl<S> DurablePart<S> {
    fn draft(&self) -> MutexGuard<'_, Option<Draft<S>>> {
        // No user code runs under it.
        self.draft.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sealed(&self) -> MutexGuard<'_, Option<Draft<S>>> {
        self.sealed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> Result<Arc<S>> {
        self.draft().as_ref().map(|draft| Arc::clone(&draft.value)).ok_or(Error::TransactionClosed)
    }

    fn conflict(&self) -> Error {
        Error::Conflict { bucket: place_of(self.durable.name()), key: None }
    }

    fn has_changed(&self) -> bool {
        // Each change makes another one of it.
        !Arc::ptr_eq(&self.durable.shared.current(), &self.seen)
    }
}

impl<S> TransactionDurable<S> {
    /// The value's name.
    pub fn name(&self) -> &DurableName {
        self.part.durable.name()
    }

    /// The value as the transaction sees it, shared.
    ///
    /// # Errors
    /// `TransactionClosed`.
    pub fn snapshot(&self) -> Result<Arc<S>> {
        self.part.current()
    }

    /// Calls `read` with the value as the transaction sees it.
    ///
    /// # Errors
    /// `TransactionClosed`.
    pub fn read<R>(&self, read: impl FnOnce(&S) -> R) -> Result<R> {
        Ok(read(&*self.part.current()?))
    }
}

impl<S: Clone> TransactionDurable<S> {
    /// A copy of the value as the transaction sees it.
    ///
    /// # Errors
    /// `TransactionClosed`.
    pub fn get(&self) -> Result<S> {
        self.read(S::clone)
    }
}

impl<S: Clone + Serialize> TransactionDurable<S> {
    /// Changes the value within the transaction and answers what `change` answers. It works on a copy: a panic in it
    /// leaves the value as it was.
    ///
    /// # Errors
    /// `InvalidValue` if what `change` has made cannot be stored; `Conflict` if another change within the transaction came
    /// in between; `TransactionClosed`. Nothing has changed then.
    pub fn update<R>(&self, change: impl FnOnce(&mut S) -> R) -> Result<R> {
        self.try_update(|value| Ok(change(value)))
    }

    /// [`update`](Self::update) with a change that may fail: then nothing has changed.
    ///
    /// # Errors
    /// What `change` answers, and by `From<Error>` those of `update`.
    pub fn try_update<R, E: From<Error>>(&self, change: impl FnOnce(&mut S) -> Result<R, E>) -> Result<R, E> {
        let before = self.part.current()?;
        let mut value = S::clone(&before);
        let answer = change(&mut value)?;
        let fields = encode(self.part.durable.shared.schema_version, &value)?;
        let mut draft = self.part.draft();
        let draft = draft.as_mut().ok_or(Error::TransactionClosed)?;
        if !Arc::ptr_eq(&draft.value, &before) {
            return Err(self.part.conflict().into());
        }
        *draft = Draft { value: Arc::new(value), fields: Some(fields) };
        Ok(answer)
    }
}

impl<S: Send + Sync + 'static> Part for DurablePart<S> {
    fn whose(&self) -> String {
        place_of(self.durable.name()).to_string()
    }

    fn seal(&self) {
        let draft = self.draft().take();
        *self.sealed() = draft;
    }

    fn writes(&self) -> bool {
        self.sealed().as_ref().is_some_and(|draft| draft.fields.is_some())
    }

    fn is_stale(&self) -> bool {
        self.has_changed() || self.durable.shared.values.check(&self.durable.shared.claim).is_err()
    }

    fn close(&self) {
        let ended = (self.draft().take(), self.sealed().take());
        drop(ended);
    }

    fn prepare(&self) -> Result<Box<dyn Ready + '_>> {
        let draft = self.sealed().take().ok_or(Error::TransactionClosed)?;
        let shared = &*self.durable.shared;
        // Whoever has it is about to change the value, and may take his time.
        let turn = shared.turn.try_take().ok_or_else(|| self.conflict())?;
        shared.values.check(&shared.claim)?;
        if self.has_changed() {
            return Err(self.conflict());
        }
        Ok(Box::new(DurableReady { part: self, draft: Some(draft), old: None, _turn: turn }))
    }
}

/// With the value's turn, and within the coordinator's: nobody changes it, or takes it over, meanwhile.
struct DurableReady<'a, S> {
    part: &'a DurablePart<S>,
    _turn: Taken<'a>,
    // Dropped last: their drop is user code, which may have something to do with the value.
    draft: Option<Draft<S>>,
    old: Option<Arc<S>>,
}

impl<S> Ready for DurableReady<'_, S> {
    fn apply(&mut self) -> Option<(Subject, u64)> {
        let Draft { value, fields } = self.draft.take()?;
        let shared = &*self.part.durable.shared;
        let revision = shared.values.apply(&shared.claim, fields?);
        self.old = Some(shared.show(value, revision));
        shared.values.persister().map(|_| (shared.values.subject().clone(), revision))
    }

    fn tell(self: Box<Self>) {}
}
