//! Where handles find an actor, whichever one it is at the moment: actors die and are replaced, handles stay.

use std::pin::pin;
use std::time::Duration;

use ractor::{ActorRef, ActorStatus, Message, MessagingErr, RpcReplyPort};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use crate::base::error::{Error, Outcome, Result};
use crate::base::name::Subject;
use crate::base::patience::Patience;

/// How many calls one subject admits at a time; others wait within their timeout.
const ADMITTED: u32 = 1_024;

/// Shared by a subject's handles, its actor and its store.
///
/// `S` is what else an actor is found with, such as state that may be read without asking it.
pub(crate) struct Slot<M, S = ()> {
    subject: Subject,
    place: watch::Sender<Place<M, S>>,
    admission: Semaphore,
    patience: Patience,
}

/// Where the actor is.
pub(crate) enum Place<M, S = ()> {
    /// It is being loaded or restarted.
    Starting,
    /// There.
    Running(ActorRef<M>, S),
    /// Nowhere, and it is not coming back.
    Gone(Error),
}

impl<M, S: Clone> Clone for Place<M, S> {
    fn clone(&self) -> Self {
        match self {
            Self::Starting => Self::Starting,
            Self::Running(actor, shared) => Self::Running(actor.clone(), shared.clone()),
            Self::Gone(error) => Self::Gone(error.clone()),
        }
    }
}

impl<M, S> std::fmt::Debug for Slot<M, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").field("subject", &self.subject).finish_non_exhaustive()
    }
}

impl<M: Message, S: Clone> Slot<M, S> {
    pub(crate) fn new(subject: Subject) -> Self {
        let (place, admission) = (watch::Sender::new(Place::Starting), Semaphore::new(ADMITTED as usize));
        Self { subject, place, admission, patience: Patience::default() }
    }

    pub(crate) fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The actor has started. Answers whether it is wanted: a slot that was closed meanwhile stays closed.
    #[must_use]
    pub(crate) fn started(&self, actor: ActorRef<M>, shared: S) -> bool {
        self.unless_gone(Place::Running(actor, shared))
    }

    /// The actor is dead, and is being replaced. Answers what it was found with; none for one that lives, or is being
    /// started or replaced already: it is left alone.
    #[must_use]
    pub(crate) fn replacing(&self) -> Option<S> {
        let mut left = None;
        self.place.send_if_modified(|place| {
            if let Place::Running(actor, shared) = place
                && actor.get_status() >= ActorStatus::Stopping
            {
                left = Some(shared.clone());
                *place = Place::Starting;
            }
            left.is_some()
        });
        left
    }

    fn unless_gone(&self, next: Place<M, S>) -> bool {
        self.place.send_if_modified(|place| {
            let wanted = !matches!(place, Place::Gone(_));
            if wanted {
                *place = next;
            }
            wanted
        })
    }

    /// What limits how long calls of the subject take.
    pub(crate) fn patience(&self) -> &Patience {
        &self.patience
    }

    /// From now on callers get this error; answers where the actor was.
    pub(crate) fn close(&self, error: Error) -> Place<M, S> {
        let place = self.place.send_replace(Place::Gone(error));
        self.patience.end();
        place
    }

    /// Refuses new calls, and waits until the actor has handled what it has.
    pub(crate) async fn drain(&self) {
        if let Place::Running(actor, _) = self.close(Error::Stopping) {
            // An actor that is dead already has nothing left to drain.
            let _dead = actor.drain_and_wait(None).await;
        }
    }

    pub(crate) fn place(&self) -> Place<M, S> {
        self.place.borrow().clone()
    }

    /// Works for the subject for as long as it is wanted: a slot that is closed ends the work.
    ///
    /// # Errors
    /// The work's own, and what the slot was closed with.
    pub(crate) async fn while_open<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut places = self.place.subscribe();
        let closed = async move {
            match places.wait_for(|place| matches!(place, Place::Gone(_))).await.as_deref() {
                Ok(Place::Gone(error)) => error.clone(),
                // The sender lives in `self`, so that waiting ends with a place.
                _ => Error::Stopping,
            }
        };
        tokio::select! {
            biased;
            outcome = work => outcome,
            error = closed => Err(error),
        }
    }

    /// All turns at once: granted when the calls under way have ended, and holding up new ones until it is dropped.
    pub(crate) async fn exclusive(&self) -> Result<SemaphorePermit<'_>> {
        self.admission.acquire_many(ADMITTED).await.map_err(|_| Error::Stopping)
    }

    /// The actor, once there is one.
    pub(crate) async fn actor(&self, deadline: Instant) -> Result<ActorRef<M>> {
        let timely = timeout_at(deadline, self.other_than(None)).await;
        timely.map_err(|_| Error::Timeout { outcome: Outcome::NotApplied })?
    }

    /// Whether the actor is nowhere, and not coming back.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(&*self.place.borrow(), Place::Gone(_))
    }

    /// What the actor is found with, if it is there.
    pub(crate) fn shared_now(&self) -> Option<Result<S>> {
        Self::shared_of(&self.place.borrow())
    }

    fn shared_of(place: &Place<M, S>) -> Option<Result<S>> {
        match place {
            Place::Starting => None,
            Place::Running(_, shared) => Some(Ok(shared.clone())),
            Place::Gone(error) => Some(Err(error.clone())),
        }
    }

    /// What the actor is found with, once it is there and `wanted`.
    ///
    /// # Errors
    /// `Timeout`, and what the slot was closed with.
    pub(crate) async fn shared(&self, deadline: Instant, wanted: impl Fn(&S) -> bool) -> Result<S> {
        let mut places = self.place.subscribe();
        let fits = |place: &Place<M, S>| match place {
            Place::Starting => false,
            Place::Running(_, shared) => wanted(shared),
            Place::Gone(_) => true,
        };
        let place = timeout_at(deadline, places.wait_for(fits)).await;
        let place = place.map_err(|_| Error::Timeout { outcome: Outcome::NotApplied })?;
        // The sender lives in `self`, so that waiting ends with a place.
        place.ok().and_then(|place| Self::shared_of(&place)).unwrap_or(Err(Error::Stopping))
    }

    async fn other_than(&self, dead: Option<&ActorRef<M>>) -> Result<ActorRef<M>> {
        if let Some(found) = Self::usable(&self.place.borrow(), dead) {
            return found;
        }
        let mut places = self.place.subscribe();
        let place = places.wait_for(|place| Self::usable(place, dead).is_some()).await;
        // The sender lives in `self`, so that waiting ends with a place.
        place.ok().and_then(|place| Self::usable(&place, dead)).unwrap_or(Err(Error::Stopping))
    }

    fn usable(place: &Place<M, S>, dead: Option<&ActorRef<M>>) -> Option<Result<ActorRef<M>>> {
        match place {
            Place::Starting => None,
            Place::Running(actor, _) if dead.is_some_and(|dead| dead.get_id() == actor.get_id()) => None,
            Place::Running(actor, _) => Some(Ok(actor.clone())),
            Place::Gone(error) => Some(Err(error.clone())),
        }
    }

    /// Sends a message and waits for its answer; none where the actor died with it.
    ///
    /// # Errors
    /// `Timeout` with what is known of the effect, and what the slot was closed with.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        message: impl FnOnce(RpcReplyPort<T>) -> M,
        timeout: Duration,
    ) -> Result<Option<T>> {
        let mut outcome = Outcome::NotApplied;
        let call = async {
            // The semaphore is never closed.
            let _turn = match self.admission.try_acquire() {
                Ok(turn) => turn,
                Err(_) => self.admission.acquire().await.map_err(|_| Error::Stopping)?,
            };
            let (port, answer) = oneshot::channel();
            let sent = self.send(message(port.into()));
            if let Some((message, dead)) = sent? {
                // Rare, and large: not a part of every call.
                Box::pin(self.send_to_next(message, dead)).await?;
            }
            outcome = Outcome::Unknown;
            Ok(answer.await.ok())
        };
        let timely = self.patience.limit(pin!(call), timeout).await;
        timely.unwrap_or(Err(Error::Timeout { outcome }))
    }

    /// Sends a message to the first actor that is there and takes it: a dead one gives it back.
    async fn send_to_next(&self, mut message: M, mut dead: Option<ActorRef<M>>) -> Result<()> {
        loop {
            let actor = self.other_than(dead.as_ref()).await?;
            message = match Self::hand(&actor, message)? {
                None => return Ok(()),
                Some(returned) => returned,
            };
            dead = Some(actor);
        }
    }

    /// Sends a message where the actor is there to take it; else it comes back, with the actor that is dead.
    #[allow(clippy::type_complexity, reason = "one use")]
    fn send(&self, message: M) -> Result<Option<(M, Option<ActorRef<M>>)>> {
        match &*self.place.borrow() {
            Place::Starting => Ok(Some((message, None))),
            Place::Running(actor, _) => Ok(Self::hand(actor, message)?.map(|returned| (returned, Some(actor.clone())))),
            Place::Gone(error) => Err(error.clone()),
        }
    }

    /// Hands a message to an actor; it comes back from a dead one.
    fn hand(actor: &ActorRef<M>, message: M) -> Result<Option<M>> {
        match actor.send_message(message) {
            Ok(()) => Ok(None),
            Err(MessagingErr::SendErr(returned)) => Ok(Some(returned)),
            Err(_) => Err(Error::ActorLost { outcome: Outcome::NotApplied }),
        }
    }

    /// Calls for what changes nothing: repeated when the actor dies.
    ///
    /// # Errors
    /// As [`call`](Self::call), and the answer's own.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        mut message: impl FnMut(RpcReplyPort<Result<T>>) -> M,
        timeout: Duration,
    ) -> Result<T> {
        loop {
            if let Some(answer) = self.call(&mut message, timeout).await? {
                return answer;
            }
        }
    }
}
