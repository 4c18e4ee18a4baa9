//! What users hold of a channel.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ractor::RpcReplyPort;

use crate::base::durability::Durability;
use crate::base::error::{Error, Outcome, Result};
use crate::base::name::{ChannelId, MessageId};
use crate::base::slot::{Place, Slot};
use crate::bus::{Bus, Delivery, Pattern, Subscription};
use crate::channel::actor::fresh_id;
use crate::channel::joined::Reach;
use crate::channel::message::{Answer, ChannelMessage};
use crate::persistence::Persister;
use crate::sds::{ChannelEvent, ChannelStats, Received, SdsMessage};

/// How long a call may take unless the handle says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// A channel: causally ordered, reliable messaging over a transport that the application owns.
///
/// What [`wrap`](Self::wrap) answers goes to the peers by whatever way; what comes from them goes into
/// [`receive`](Self::receive). A handle is a cheap clone that addresses the channel by name and survives restarts of its
/// actor; dropping handles changes nothing.
///
/// # Cancel safety
/// An operation whose future is dropped is done or not done as a whole, and saved if it is done.
#[derive(Clone, Debug)]
pub struct Channel {
    id: ChannelId,
    pub(super) slot: Arc<Slot<ChannelMessage>>,
    bus: Bus,
    /// None where the channel is not saved.
    pub(super) persister: Option<Persister>,
    pub(super) durability: Durability,
    timeout: Duration,
    pub(super) reach: Arc<Reach>,
}

impl Channel {
    pub(crate) fn new(
        id: ChannelId,
        slot: Arc<Slot<ChannelMessage>>,
        bus: Bus,
        persister: Option<Persister>,
        durability: Durability,
        reach: Reach,
    ) -> Self {
        Self { id, slot, bus, persister, durability, timeout: DEFAULT_TIMEOUT, reach: Arc::new(reach) }
    }

    /// The channel's id.
    pub fn id(&self) -> &ChannelId {
        &self.id
    }

    /// A handle whose calls may take this long to be in memory; default 5 s. Waiting for the disk has a bound of its
    /// own, the store's `commit_timeout`.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout, ..self.clone() }
    }

    /// Makes a message of some content; answers the bytes to send. It is kept as unacknowledged until a peer shows that
    /// it has it, and enters the history.
    ///
    /// # Errors
    /// `EmptyContent`, `MessageTooLarge`, `InvalidId`, `DuplicateId`, `OutgoingFull`, `Backpressure`: nothing has
    /// changed. `NotSaved`: in memory, but not at the channel's durability; do not wrap the content again. `Timeout`,
    /// `ActorLost`, `Stopping`, `UnknownChannel`.
    pub async fn wrap(&self, id: impl Into<MessageId>, content: impl Into<Bytes>) -> Result<Bytes> {
        let (id, content) = (id.into(), content.into());
        self.operate(|port| ChannelMessage::Wrap(id, content, port)).await
    }

    /// [`wrap`](Self::wrap) under a fresh id, a UUID of version 7 (RFC 9562); answers it too.
    ///
    /// # Errors
    /// As `wrap`.
    pub async fn wrap_new(&self, content: impl Into<Bytes>) -> Result<(MessageId, Bytes)> {
        let id = fresh_id();
        let bytes = self.wrap(id.clone(), content).await?;
        Ok((id, bytes))
    }

    /// Takes a packet of a peer's in; answers its content, which causes are missing, and what became of it.
    ///
    /// # Errors
    /// `MessageTooLarge`, `MalformedMessage`, `TooManyEntries`, `InvalidId`, `WrongChannel`, `ParkedFull`,
    /// `Backpressure`: nothing has changed. `NotSaved`: in memory, but not at the channel's durability; it may be
    /// received again. `Timeout`, `ActorLost`, `Stopping`, `UnknownChannel`.
    pub async fn receive(&self, bytes: impl AsRef<[u8]>) -> Result<Received> {
        self.take_in(Bytes::copy_from_slice(bytes.as_ref())).await
    }

    pub(crate) async fn take_in(&self, bytes: Bytes) -> Result<Received> {
        self.operate(|port| ChannelMessage::Receive(bytes, port)).await
    }

    /// Waives causes that the application has obtained otherwise or given up: nothing waits for them any more.
    ///
    /// # Errors
    /// `InvalidId`, `Backpressure`: nothing has changed. `NotSaved`, `Timeout`, `ActorLost`, `Stopping`,
    /// `UnknownChannel`.
    pub async fn mark_dependencies_met<I>(&self, ids: impl IntoIterator<Item = I>) -> Result<()>
    where
        I: Into<MessageId>,
    {
        let ids = ids.into_iter().map(Into::into).collect();
        self.operate(|port| ChannelMessage::DependenciesMet(ids, port)).await
    }

    /// Says where a message may be found, which causal histories that name it tell from the next `wrap` on; an empty
    /// hint removes it. Answers `false` for a message that is not here.
    ///
    /// # Errors
    /// `InvalidId` for a hint of more than 4,096 bytes. `Timeout`, `ActorLost`, `Stopping`, `UnknownChannel`. A hint
    /// that could not be saved is reported and retried, not an error of the call.
    pub async fn set_retrieval_hint(&self, id: impl Into<MessageId>, hint: impl Into<Bytes>) -> Result<bool> {
        let (id, hint) = (id.into(), hint.into());
        self.call(|port| ChannelMessage::Hint(id, hint, port)).await
    }

    /// A message without content, which tells peers what this one has and asks for what it lacks: bytes to send when a
    /// peer has just come back, say. It takes no place in clock and history, and only what it asks for is saved. Without
    /// a call, [`ChannelEvent::Sync`] brings one after each `sync_interval` without a [`wrap`](Self::wrap).
    ///
    /// ```
    /// use ractor_persistence::sds::{ChannelOptions, ReceiveStatus};
    /// use ractor_persistence::store::Store;
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let (here, there) = (Store::builder("here").start().await?, Store::builder("there").start().await?);
    /// let alice = here.open_channel("room", ChannelOptions::default().with_participant("alice")).await?;
    /// let bob = there.open_channel("room", ChannelOptions::default().with_participant("bob")).await?;
    /// let m1 = alice.wrap("m1", "hello").await?;
    /// bob.receive(&m1).await?;
    /// let sync = bob.sync_message().await?; // names m1 as seen
    /// assert_eq!(alice.receive(&sync).await?.status, ReceiveStatus::Sync);
    /// assert_eq!(alice.stats().await?.unacknowledged, 0);
    /// # Ok::<(), ractor_persistence::base::error::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// `Backpressure`: nothing has changed. `NotSaved`, `Timeout`, `ActorLost`, `Stopping`, `UnknownChannel`.
    pub async fn sync_message(&self) -> Result<Bytes> {
        self.operate(ChannelMessage::Sync).await
    }

    /// Everything but the retrieval hints, as nim-sds saves a channel: what `Store::import_channel` takes, and nim-sds.
    /// It is of one moment; above `Ram` that moment is saved when this returns.
    ///
    /// # Errors
    /// `NotSaved`, `Timeout`, `ActorLost`, `Stopping`, `UnknownChannel`.
    pub async fn export(&self) -> Result<Bytes> {
        self.operate(ChannelMessage::Export).await
    }

    /// Ends the channel and keeps what is stored of it: what was accepted is finished and saved first. Handles then get
    /// `UnknownChannel`; opening it again goes on from where it was.
    ///
    /// # Errors
    /// `UnknownChannel`, `Stopping`, and what the last commit answers: then the channel serves on.
    ///
    /// # Cancel safety
    /// An end that has begun goes on when its future is dropped.
    pub async fn close(&self) -> Result<()> {
        if let Place::Gone(error @ (Error::UnknownChannel { .. } | Error::Stopping)) = self.slot.place() {
            // Another channel may be open under this id by now; it is not this handle's.
            return Err(error);
        }
        match self.reach.owner() {
            Some(owner) => owner.close(self.id.clone()).await,
            None => Err(Error::Stopping),
        }
    }

    /// Has the actor look when its state is next due.
    pub(super) fn wake(&self) {
        if let Place::Running(actor, ()) = self.slot.place() {
            // One that is dead is replaced by one that looks.
            let _dead = actor.send_message(ChannelMessage::Wake);
        }
    }

    /// The channel's events from now on: a bounded stream, in order.
    pub fn subscribe(&self) -> ChannelEvents {
        ChannelEvents::of(&self.bus, &self.id)
    }

    /// Delivered and own messages by (Lamport timestamp, id).
    ///
    /// # Errors
    /// `Timeout`, `ActorLost`, `UnknownChannel`.
    pub async fn history(&self) -> Result<Vec<Arc<SdsMessage>>> {
        self.read(ChannelMessage::History).await
    }

    /// The ids that parked messages wait for.
    ///
    /// # Errors
    /// As [`history`](Self::history).
    pub async fn missing(&self) -> Result<Vec<MessageId>> {
        self.read(ChannelMessage::Missing).await
    }

    /// Counters.
    ///
    /// # Errors
    /// As [`history`](Self::history).
    pub async fn stats(&self) -> Result<ChannelStats> {
        self.read(ChannelMessage::Stats).await
    }

    /// Waits until everything that the channel has accepted so far is saved; at once where it is not saved at all.
    ///
    /// # Errors
    /// What the commit said: everything is kept and retried. `Stopping`.
    pub async fn flush(&self) -> Result<()> {
        match &self.persister {
            Some(persister) => persister.flush(Some(self.slot.subject())).await,
            None => Ok(()),
        }
    }

    async fn call<T: Send + 'static>(
        &self,
        message: impl FnOnce(RpcReplyPort<Result<T>>) -> ChannelMessage,
    ) -> Result<T> {
        let lost = Err(Error::ActorLost { outcome: Outcome::Unknown });
        self.slot.call(message, self.timeout).await?.unwrap_or(lost)
    }

    /// An operation whose answer comes after the commit that holds what it reveals, where the channel is set so.
    async fn operate<T: Send + 'static>(
        &self,
        message: impl FnOnce(RpcReplyPort<Result<Answer<T>>>) -> ChannelMessage,
    ) -> Result<T> {
        let persister = self.persister.as_ref().filter(|_| self.durability > Durability::Ram);
        if let Some(error) = persister.and_then(Persister::fenced) {
            return Err(error);
        }
        let Answer { value, revision, told } = self.call(message).await?;
        if let Some(persister) = persister {
            let saved = persister.saved(self.slot.subject(), revision, self.durability).await;
            saved.map_err(|error| Error::NotSaved { revision, source: Arc::new(error) })?;
            if let Some(told) = told {
                // Ends without a word if the store stops in between: the commit stands all the same.
                let _stopped = told.await;
            }
        }
        Ok(value)
    }

    async fn read<T: Send + 'static>(
        &self,
        message: impl FnMut(RpcReplyPort<Result<T>>) -> ChannelMessage,
    ) -> Result<T> {
        self.slot.read(message, self.timeout).await
    }
}

/// A bounded stream of one channel's events. One that falls behind is told how many it missed.
#[derive(Debug)]
pub struct ChannelEvents(Subscription);

/// What a stream of channel events yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelDelivery {
    /// An event.
    Event(ChannelEvent),
    /// So many events were missed here.
    Lagged(u64),
}

impl ChannelEvents {
    /// The events of a channel, open already or later.
    pub(crate) fn of(bus: &Bus, id: &ChannelId) -> Self {
        Self(bus.subscribe(Pattern::channel(id.as_str())))
    }

    /// The next event; none after the store has stopped and everything was read.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn recv(&mut self) -> Option<ChannelDelivery> {
        loop {
            let delivery = self.0.recv().await?;
            if let Some(delivery) = Self::of_channel(&delivery) {
                return Some(delivery);
            }
        }
    }

    /// The next event, if there is one already.
    pub fn try_recv(&mut self) -> Option<ChannelDelivery> {
        loop {
            let delivery = self.0.try_recv()?;
            if let Some(delivery) = Self::of_channel(&delivery) {
                return Some(delivery);
            }
        }
    }

    fn of_channel(delivery: &Delivery) -> Option<ChannelDelivery> {
        match delivery {
            Delivery::Event(event) => event.payload::<ChannelEvent>().cloned().map(ChannelDelivery::Event),
            Delivery::Lagged(missed) => Some(ChannelDelivery::Lagged(*missed)),
        }
    }
}
