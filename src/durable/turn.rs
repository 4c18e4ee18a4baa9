//! One change of a value at a time.

use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{self, ThreadId};

use crate::base::error::{Error, Result};

/// Held while a value is changed, user code included. That code may try to change the value it is changing: it is told so
/// instead of waiting for itself.
#[derive(Debug, Default)]
pub(super) struct Turn {
    lock: Mutex<()>,
    holder: Mutex<Option<ThreadId>>,
}

/// The turn, until it is dropped.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    turn: &'a Turn,
    _lock: MutexGuard<'a, ()>,
}

impl Turn {
    fn holder(&self) -> MutexGuard<'_, Option<ThreadId>> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the turn.
    ///
    /// # Errors
    /// `InvalidArgument` where this very thread has it.
    pub(super) fn take(&self) -> Result<Taken<'_>> {
        if *self.holder() == Some(thread::current().id()) {
            return Err(Error::invalid_argument("a durable value is changed from within its own change"));
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
        *self.holder() = Some(thread::current().id());
        Taken { turn: self, _lock: lock }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        // Before the lock is free: whoever takes it next enters himself.
        *self.turn.holder() = None;
    }
}
