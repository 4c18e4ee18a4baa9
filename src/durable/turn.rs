//! One change of a value at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use crate::base::error::{Error, Result};
use crate::base::name::DurableName;
use crate::durable::stored::place_of;

/// Held while a value is changed, user code included. That code may try to change the value it is changing, or another one
/// whose change waits for this one: it is told so instead of waiting for itself.
#[derive(Debug, Default)]
pub(super) struct Turn {
    lock: Mutex<()>,
    holder: Arc<Holder>,
}

/// Who has a turn: set by who has taken the lock, and taken back before it is free.
#[derive(Debug, Default)]
struct Holder(Mutex<Option<Arc<Waiter>>>);

/// A thread, as far as others have to know: which turn it waits for.
#[derive(Debug, Default)]
struct Waiter(Mutex<Option<Arc<Holder>>>);

thread_local! {
    static THIS_THREAD: Arc<Waiter> = Arc::default();
}

fn this_thread() -> Arc<Waiter> {
    // While a thread ends, it waits for nothing else.
    THIS_THREAD.try_with(Arc::clone).unwrap_or_default()
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Held for moments, without user code; what is behind it is replaced as a whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Holder {
    fn is(&self, thread: &Arc<Waiter>) -> bool {
        hold(&self.0).as_ref().is_some_and(|holder| Arc::ptr_eq(holder, thread))
    }

    /// Whether who has this turn waits, maybe over others, for one that a thread has.
    fn waits_for(&self, thread: &Arc<Waiter>) -> bool {
        let mut seen: Vec<Arc<Waiter>> = Vec::new();
        let mut holder = hold(&self.0).clone();
        while let Some(waiter) = holder {
            if Arc::ptr_eq(&waiter, thread) {
                return true;
            }
            if seen.iter().any(|seen| Arc::ptr_eq(seen, &waiter)) {
                return false;
            }
            let next = hold(&waiter.0).clone();
            holder = next.and_then(|next| hold(&next.0).clone());
            seen.push(waiter);
        }
        false
    }
}

/// Says what this thread waits for, until it is dropped.
struct Waiting(Arc<Waiter>);

impl Waiting {
    fn new(thread: Arc<Waiter>, turn: &Turn) -> Self {
        *hold(&thread.0) = Some(Arc::clone(&turn.holder));
        Self(thread)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let waited_for = hold(&self.0.0).take();
        drop(waited_for);
    }
}

/// The turn, until it is dropped.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    turn: &'a Turn,
    _lock: MutexGuard<'a, ()>,
}

impl Turn {
    /// Waits for the turn of the value of this name.
    ///
    /// # Errors
    /// `InvalidArgument` where this very thread has it; `Conflict` where who has it waits for a turn of this thread's.
    pub(super) fn take(&self, name: &DurableName) -> Result<Taken<'_>> {
        let thread = this_thread();
        if self.holder.is(&thread) {
            return Err(Error::invalid_argument("a durable value is changed from within its own change"));
        }
        if let Some(taken) = self.try_take() {
            return Ok(taken);
        }
        // Said before the look at who waits for whom, so that of those who close a circle the last one sees all of it.
        let _waiting = Waiting::new(Arc::clone(&thread), self);
        // Whoever waits for a turn of this thread's has still got his own. What a first look saw of others on the way may
        // have ended meanwhile, which a second one tells.
        if self.holder.waits_for(&thread) && self.holder.waits_for(&thread) {
            return Err(Error::Conflict { bucket: place_of(name), key: None });
        }
        // A panic in user code leaves nothing half done.
        Ok(self.taken(self.lock.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// The turn, if nobody has it.
    pub(super) fn try_take(&self) -> Option<Taken<'_>> {
        match self.lock.try_lock() {
            Ok(lock) => Some(self.taken(lock)),
            Err(TryLockError::Poisoned(poisoned)) => Some(self.taken(poisoned.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn taken<'a>(&'a self, lock: MutexGuard<'a, ()>) -> Taken<'a> {
        *hold(&self.holder.0) = Some(this_thread());
        Taken { turn: self, _lock: lock }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        // Before the lock is free: whoever takes it next enters himself.
        let holder = hold(&self.turn.holder.0).take();
        drop(holder);
    }
}
