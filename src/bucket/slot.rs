//! Where a bucket's handles find its actor, whichever one it is at the moment.

use std::sync::atomic::{AtomicU64, Ordering};

use ractor::ActorRef;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use crate::base::error::{Error, Result};
use crate::base::name::BucketName;
use crate::bucket::message::BucketMessage;

/// How many calls a bucket admits at a time; others wait within their timeout.
const ADMITTED: u32 = 1_024;

/// Shared by a bucket's handles, its actor and its store.
#[derive(Debug)]
pub(crate) struct Slot {
    name: BucketName,
    place: watch::Sender<Place>,
    pub(super) admission: Semaphore,
    /// The newest revision: a bucket that restarts empty goes on from there.
    revision: AtomicU64,
}

/// Where the actor is.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// It is being loaded or restarted.
    Starting,
    /// There.
    Running(ActorRef<BucketMessage>),
    /// Nowhere, and it is not coming back under this definition.
    Gone(Error),
}

impl Slot {
    pub(crate) fn new(name: BucketName) -> Self {
        Self {
            name,
            place: watch::Sender::new(Place::Starting),
            admission: Semaphore::new(ADMITTED as usize),
            revision: AtomicU64::new(0),
        }
    }

    pub(crate) fn name(&self) -> &BucketName {
        &self.name
    }

    /// The actor has started. Answers whether it is wanted: a slot that was closed meanwhile stays closed.
    #[must_use]
    pub(crate) fn started(&self, actor: ActorRef<BucketMessage>) -> bool {
        self.unless_gone(Place::Running(actor))
    }

    /// The actor is being restarted. Answers whether it is wanted.
    #[must_use]
    pub(crate) fn restarting(&self) -> bool {
        self.unless_gone(Place::Starting)
    }

    fn unless_gone(&self, next: Place) -> bool {
        self.place.send_if_modified(|place| {
            let wanted = !matches!(place, Place::Gone(_));
            if wanted {
                *place = next;
            }
            wanted
        })
    }

    /// From now on callers get this error; answers where the actor was.
    pub(crate) fn close(&self, error: Error) -> Place {
        self.place.send_replace(Place::Gone(error))
    }

    pub(crate) fn place(&self) -> Place {
        self.place.borrow().clone()
    }

    /// All turns at once: granted when the calls under way have ended, and holding up new ones until it is dropped.
    pub(crate) async fn exclusive(&self) -> Result<SemaphorePermit<'_>> {
        self.admission.acquire_many(ADMITTED).await.map_err(|_| Error::Stopping)
    }

    pub(crate) fn reached(&self, revision: u64) {
        self.revision.store(revision, Ordering::Relaxed);
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Relaxed)
    }

    /// The actor, once there is one other than `dead`.
    pub(super) async fn actor(&self, dead: Option<&ActorRef<BucketMessage>>) -> Result<ActorRef<BucketMessage>> {
        if let Some(found) = Self::usable(&self.place.borrow(), dead) {
            return found;
        }
        let mut places = self.place.subscribe();
        let place = places.wait_for(|place| Self::usable(place, dead).is_some()).await;
        // The sender lives in `self`, so that waiting ends with a place.
        place.ok().and_then(|place| Self::usable(&place, dead)).unwrap_or(Err(Error::Stopping))
    }

    fn usable(place: &Place, dead: Option<&ActorRef<BucketMessage>>) -> Option<Result<ActorRef<BucketMessage>>> {
        match place {
            Place::Starting => None,
            Place::Running(actor) if dead.is_some_and(|dead| dead.get_id() == actor.get_id()) => None,
            Place::Running(actor) => Some(Ok(actor.clone())),
            Place::Gone(error) => Some(Err(error.clone())),
        }
    }
}
