//! What can join a transaction beside buckets, and is applied and saved with it as a whole or not at all.
//!
//! A participant that joins gives the transaction a *part*: a draft, on which the transaction's function works. At the
//! commit, all parts are prepared (checked, and kept from changing), then applied in the stretch in which the buckets are,
//! under the commit gate, and told of then; a part that is not applied is aborted by dropping what it prepared, and leaves
//! no trace. The persister captures what was applied from the participants' cells, like any change.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::base::durability::Durability;
use crate::base::error::{Error, Result};
use crate::base::name::Subject;
use crate::persistence::persister::Persister;
use crate::persistence::port::Atomicity;

/// What can join a transaction, with [`Transaction::join`](crate::bucket::Transaction::join): what it changes there is
/// applied with the transaction, and on disk with all of it or not at all.
///
/// [`Channel`](crate::channel::Channel) and [`Durable`](crate::durable::Durable) do. The trait is for bounds: what joins
/// has to be captured with the store's other changes, so that only this crate implements it.
pub trait Participant {
    /// What the transaction's function works with.
    type Joined;

    /// Begins the participant's part in a transaction, or answers the one that has begun.
    ///
    /// # Errors
    /// `TransactionClosed`; `InvalidArgument` if it belongs to another store; `Unsupported` where it is not saved though
    /// the store is, or on a back-end that does not commit as a whole; and what the participant itself answers.
    fn join(&self, joining: &Joining) -> Result<Self::Joined>;
}

/// A participant's part in one transaction, shared by the transaction and what its function works with.
pub(crate) trait Part: Any + fmt::Debug + Send + Sync {
    /// What has joined, for people.
    fn whose(&self) -> String;
    /// Puts the draft away for the commit: what the function still holds of it answers `TransactionClosed`.
    fn seal(&self);
    /// Whether there is something to apply; asked once it is sealed.
    fn writes(&self) -> bool;
    /// Whether the participant is not what it was any more when it joined.
    fn is_stale(&self) -> bool;
    /// Ends the draft: what the function still holds of it answers `TransactionClosed`.
    fn close(&self);
    /// Ends the draft that was sealed, checks that it still fits, and keeps it fitting for as long as the answer lives. Blocks for
    /// moments only.
    ///
    /// # Errors
    /// `Conflict` where the participant has changed; and what says that it cannot change any more.
    fn prepare(&self) -> Result<Box<dyn Ready + '_>>;
    /// At which level the participant itself wants the commit saved before anything of it is revealed.
    fn level(&self) -> Durability {
        Durability::Ram
    }
    /// The commit is saved at the level asked for: what it reveals may be seen.
    fn release(&self) {}
}

/// A part that is sure to apply. Dropped instead, it leaves no trace.
pub(crate) trait Ready {
    /// Applies it, notes it as unsaved and tells the persister so; answers what is to be saved, at which revision, if
    /// anything is. Called once, under the commit gate.
    fn apply(&mut self) -> Option<(Subject, u64)>;
    /// Asked once it is applied and nothing of it is to be saved: what has to be saved all the same before anything of it
    /// may be seen, because it tells of what others have changed.
    fn reveals(&self) -> Option<(Subject, u64)> {
        None
    }
    /// Everything is applied, and the gate is open: whoever has to be told is told.
    fn tell(self: Box<Self>);
}

/// A part's name within its transaction: the subject, and what of it. Parts are prepared in this order.
pub(crate) type PartKey = (Subject, String);

/// One per store: what is joined belongs to the same one.
#[derive(Clone)]
pub(crate) struct Coordinator {
    shared: Arc<Shared>,
}

struct Shared {
    /// None without an adapter.
    persister: Option<Persister>,
    turn: Mutex<Turn>,
}

/// The right to change which parts fit: one transaction with parts is decided at a time, and nobody takes a durable value
/// over meanwhile.
#[derive(Debug)]
pub(crate) struct Turn {
    closed: bool,
}

impl Turn {
    /// Refuses what comes after stopping has begun: it would not be saved any more.
    pub(crate) fn check(&self) -> Result<()> {
        if self.closed { Err(Error::Stopping) } else { Ok(()) }
    }
}

impl fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coordinator").field("persister", &self.shared.persister).finish_non_exhaustive()
    }
}

impl Coordinator {
    pub(crate) fn new(persister: Option<Persister>) -> Self {
        Self { shared: Arc::new(Shared { persister, turn: Mutex::new(Turn { closed: false }) }) }
    }

    /// Who saves what the store keeps; none without an adapter.
    pub(crate) fn persister(&self) -> Option<&Persister> {
        self.shared.persister.as_ref()
    }

    /// Taken before the commit gate and before any lock of a participant; for moments only.
    pub(crate) fn turn(&self) -> MutexGuard<'_, Turn> {
        // A panic under it leaves the flag as it was.
        self.shared.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on nothing that was joined is applied. Whatever has been is known to the persister by now.
    pub(crate) fn close(&self) {
        self.turn().closed = true;
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

/// What has joined one transaction. Users only pass it on.
pub struct Joining {
    coordinator: Coordinator,
    /// None once the transaction has ended.
    parts: Mutex<Option<BTreeMap<PartKey, Arc<dyn Part>>>>,
}

impl fmt::Debug for Joining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Joining").finish_non_exhaustive()
    }
}

/// The parts of a transaction that has ended or is about to: dropped, their drafts end.
#[derive(Debug, Default)]
pub(crate) struct Parts(pub(crate) Vec<Arc<dyn Part>>);

impl Parts {
    /// The commit is saved: what each of them reveals may be seen.
    pub(crate) fn release(&self) {
        self.0.iter().for_each(|part| part.release());
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.0.iter().for_each(|part| part.close());
    }
}

impl Joining {
    pub(crate) fn new(coordinator: Coordinator) -> Self {
        Self { coordinator, parts: Mutex::new(Some(BTreeMap::new())) }
    }

    pub(crate) fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }

    fn parts(&self) -> MutexGuard<'_, Option<BTreeMap<PartKey, Arc<dyn Part>>>> {
        // Parts are moved in whole.
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a part of a participant of this store, unless it has one already.
    ///
    /// # Errors
    /// As [`Participant::join`].
    pub(crate) fn enlist<P: Part>(
        &self,
        of: &Coordinator,
        persistent: bool,
        key: &PartKey,
        begin: impl FnOnce() -> Result<P>,
    ) -> Result<Arc<P>> {
        if !self.coordinator.is(of) {
            return Err(Error::invalid_argument("what joins a transaction belongs to its store"));
        }
        let mut parts = self.parts();
        let parts = parts.as_mut().ok_or(Error::TransactionClosed)?;
        if let Some(persister) = of.persister() {
            if !persistent {
                return Err(Error::unsupported(format!("joining a transaction with {}, which is not saved,", key.0)));
            }
            if persister.capabilities().atomicity != Atomicity::Whole {
                let what =
                    format!("joining a transaction with {} on a back-end that does not commit as a whole", key.0);
                return Err(Error::unsupported(what));
            }
        }
        if let Some(part) = parts.get(key) {
            let part: Arc<dyn Any + Send + Sync> = Arc::<dyn Part>::clone(part);
            return part.downcast().map_err(|_other| Error::invalid_argument("it has joined as another type"));
        }
        let part = Arc::new(begin()?);
        parts.insert(key.clone(), Arc::<P>::clone(&part));
        Ok(part)
    }

    /// Ends it: nothing joins any more. Answers what has joined, in order; none where it had ended before.
    pub(crate) fn end(&self) -> Parts {
        Parts(self.parts().take().into_iter().flatten().map(|(_, part)| part).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_decided_once_stopping_has_begun_which_waits_for_what_is_being_decided() {
        let coordinator = Coordinator::new(None);
        let turn = coordinator.turn();
        assert!(turn.check().is_ok());
        let closing = std::thread::spawn({
            let coordinator = coordinator.clone();
            move || coordinator.close()
        });
        assert!(turn.check().is_ok(), "it is decided to its end");
        drop(turn);
        closing.join().unwrap();
        assert!(matches!(coordinator.turn().check(), Err(Error::Stopping)));
    }

    #[derive(Debug)]
    struct Nothing;

    impl Part for Nothing {
        fn whose(&self) -> String {
            "nothing".to_owned()
        }
        fn seal(&self) {}
        fn writes(&self) -> bool {
            false
        }
        fn is_stale(&self) -> bool {
            false
        }
        fn close(&self) {}
        fn prepare(&self) -> Result<Box<dyn Ready + '_>> {
            Err(Error::TransactionClosed)
        }
    }

    #[test]
    fn a_participant_has_one_part_in_a_transaction_and_none_after_its_end() {
        let coordinator = Coordinator::new(None);
        let joining = Joining::new(coordinator.clone());
        let subject = crate::base::name::BucketName::new("b").unwrap();
        let key = (Subject::Bucket(subject), "value".to_owned());
        let enlist = || joining.enlist(&coordinator, true, &key, || Ok(Nothing));
        assert!(Arc::ptr_eq(&enlist().unwrap(), &enlist().unwrap()));
        assert_eq!(joining.end().0.len(), 1);
        assert!(matches!(enlist(), Err(Error::TransactionClosed)));
        assert!(joining.end().0.is_empty());
    }
}
