//! A channel as a transaction sees it.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;

use crate::base::durability::Durability;
use crate::base::error::{Error, Result};
use crate::base::name::{BucketName, ChannelId, MessageId, Subject};
use crate::base::slot::Place;
use crate::channel::actor::{ChannelStart, fresh_id};
use crate::channel::cell::{Applying, ChannelCell, Done};
use crate::channel::handle::Channel;
use crate::channel::teller::{Order, Teller};
use crate::channel::timer::Clocks;
use crate::persistence::{Cell, Coordinator, Joining, Part, Participant, Ready};
use crate::sds::{ChannelEvent, ChannelState, Effects, Now, Received, SdsMessage, Unshown};

/// How a handle reaches the channel's state without asking its actor; it keeps nothing of a closed channel alive.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    cell: Weak<ChannelCell>,
    teller: Weak<Teller>,
    clocks: Clocks,
    coordinator: Coordinator,
    owner: Weak<dyn Owner>,
}

/// Who opens and ends channels: the store.
pub(crate) trait Owner: Send + Sync {
    /// Ends a channel and keeps what is stored of it.
    fn close(self: Arc<Self>, id: ChannelId) -> Closing;
}

/// The end of a channel, under way.
pub(crate) type Closing = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

impl fmt::Debug for dyn Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Owner")
    }
}

impl Reach {
    pub(crate) fn new(start: &ChannelStart, coordinator: Coordinator, owner: Weak<dyn Owner>) -> Self {
        let (cell, teller) = (Arc::downgrade(&start.cell), Arc::downgrade(&start.teller));
        Self { cell, teller, clocks: start.clocks.clone(), coordinator, owner }
    }

    /// The store, unless it is gone.
    pub(super) fn owner(&self) -> Option<Arc<dyn Owner>> {
        self.owner.upgrade()
    }
}

/// A channel as a transaction sees it: as it was when it joined, with what the transaction has sent and received. Nothing
/// is applied before the transaction commits, and no bytes leave before; clones share it.
///
/// Joining copies the channel's state, whose messages are shared: its cost grows with the number of messages that the
/// channel keeps, not with their size. What happens to the channel between joining and the commit makes the transaction
/// fail with `Conflict`, so that a busy channel is joined late in the function.
///
/// Its operations fail with `TransactionClosed` once the transaction has ended.
#[derive(Clone, Debug)]
pub struct TransactionChannel {
    part: Arc<ChannelPart>,
}

/// A message of a transaction's. A cheap clone; clones share it.
#[derive(Clone)]
pub struct Outgoing {
    id: MessageId,
    bytes: Bytes,
    released: Arc<AtomicBool>,
}

impl Outgoing {
    /// The message's id.
    pub fn id(&self) -> &MessageId {
        &self.id
    }

    /// The bytes to send, once the transaction has committed and, where channel or transaction are set so, the commit is
    /// saved; none before, and never where the transaction failed.
    ///
    /// None, too, while that save has not succeeded (`NotSaved`), or goes on without anybody waiting for it: there are
    /// bytes as soon as it has. The message is in the channel then, among those that no peer has acknowledged: it is sent
    /// again by its timer, and not to be sent anew under another id.
    pub fn bytes(&self) -> Option<Bytes> {
        self.released.load(Ordering::Acquire).then(|| self.bytes.clone())
    }
}

/// Without the bytes: they hold what the application sent.
impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, bytes, released } = self;
        let bytes = Unshown(bytes);
        f.debug_struct("Outgoing").field("id", id).field("bytes", &bytes).field("released", released).finish()
    }
}

/// What a packet came to within a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReceivedInside {
    /// The answer to the packet.
    pub received: Received,
    /// The messages that are delivered by it, causes first: its own, and those that had waited for it. The channel's
    /// subscribers hear of them after the commit.
    pub ready: Vec<Arc<SdsMessage>>,
}

/// A channel's part in a transaction.
struct ChannelPart {
    channel: Channel,
    cell: Arc<ChannelCell>,
    teller: Arc<Teller>,
    /// The operations that the channel had done when it joined.
    operations: u64,
    released: Arc<AtomicBool>,
    /// None once the transaction has ended, or where an operation panicked.
    draft: Mutex<Option<Draft>>,
    /// The draft while the transaction commits.
    sealed: Mutex<Option<Draft>>,
}

struct Draft {
    state: ChannelState,
    effects: Effects,
    touched: bool,
}

impl fmt::Debug for ChannelPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelPart").field("channel", self.channel.id()).finish_non_exhaustive()
    }
}

impl Participant for Channel {
    type Joined = TransactionChannel;

    /// # Errors
    /// As [`Participant::join`], and `UnknownChannel`, `Stopping`, `GivenUp` where the channel is not open.
    fn join(&self, joining: &Joining) -> Result<Self::Joined> {
        let key = (self.slot.subject().clone(), String::new());
        let part =
            joining.enlist(&self.reach.coordinator, self.persister.is_some(), &key, || ChannelPart::begin(self))?;
        Ok(TransactionChannel { part })
    }
}

impl ChannelPart {
    fn begin(channel: &Channel) -> Result<Self> {
        if let Place::Gone(error) = channel.slot.place() {
            return Err(error);
        }
        let Reach { cell, teller, .. } = &*channel.reach;
        let closed = || Error::UnknownChannel { id: channel.id().to_string() };
        let (cell, teller) = (cell.upgrade().ok_or_else(closed)?, teller.upgrade().ok_or_else(closed)?);
        let (state, operations) = cell.draft()?;
        let draft = Draft { state, effects: Effects::default(), touched: false };
        let (released, draft, sealed) = (Arc::default(), Mutex::new(Some(draft)), Mutex::default());
        Ok(Self { channel: channel.clone(), cell, teller, operations, released, draft, sealed })
    }

    fn draft(&self) -> MutexGuard<'_, Option<Draft>> {
        // An operation that panics has taken the draft away.
        self.draft.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sealed(&self) -> MutexGuard<'_, Option<Draft>> {
        self.sealed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn conflict(&self) -> Error {
        Error::Conflict { bucket: BucketName::reserved(&format!("channel {}", self.channel.id())), key: None }
    }

    /// One operation on the draft; answers the messages that it delivers, too.
    fn operate<T>(
        &self,
        operation: impl FnOnce(&mut ChannelState, Now) -> Result<(T, Effects)>,
    ) -> Result<(T, Vec<Arc<SdsMessage>>)> {
        let mut place = self.draft();
        let mut draft = place.take().ok_or(Error::TransactionClosed)?;
        let outcome = operation(&mut draft.state, self.channel.reach.clocks.now());
        let answer = outcome.map(|(answer, mut effects)| {
            let ready = effects.events.iter().filter_map(|event| match event {
                ChannelEvent::Ready { message } => Some(Arc::clone(message)),
                _ => None,
            });
            let ready = ready.collect();
            draft.touched = true;
            draft.effects.events.append(&mut effects.events);
            draft.effects.meta_changed |= effects.meta_changed;
            draft.effects.history.merge(effects.history);
            draft.effects.hints.append(&mut effects.hints);
            (answer, ready)
        });
        *place = Some(draft);
        answer
    }

    fn read<T>(&self, read: impl FnOnce(&ChannelState) -> T) -> Result<T> {
        self.draft().as_ref().map(|draft| read(&draft.state)).ok_or(Error::TransactionClosed)
    }
}

impl TransactionChannel {
    /// The channel's id.
    pub fn id(&self) -> &ChannelId {
        self.part.channel.id()
    }

    /// Makes a message of some content under a fresh id, a UUID of version 7 (RFC 9562). Its bytes are to be sent after
    /// the commit, see [`Outgoing::bytes`].
    ///
    /// # Errors
    /// `EmptyContent`, `MessageTooLarge`, `OutgoingFull`, `TransactionClosed`: nothing has changed.
    pub fn send(&self, content: impl Into<Bytes>) -> Result<Outgoing> {
        self.wrap(fresh_id(), content)
    }

    /// [`send`](Self::send) under an id of the application's.
    ///
    /// # Errors
    /// As `send`, and `InvalidId`, `DuplicateId`.
    pub fn wrap(&self, id: impl Into<MessageId>, content: impl Into<Bytes>) -> Result<Outgoing> {
        let (id, content) = (id.into(), content.into());
        let (bytes, _ready) = self.part.operate(|state, now| state.wrap(id.clone(), content, now))?;
        Ok(Outgoing { id, bytes, released: Arc::clone(&self.part.released) })
    }

    /// Takes a packet of a peer's in; answers what became of it, and which messages it delivers.
    ///
    /// # Errors
    /// `MessageTooLarge`, `MalformedMessage`, `TooManyEntries`, `InvalidId`, `WrongChannel`, `ParkedFull`,
    /// `TransactionClosed`: nothing has changed.
    pub fn receive(&self, bytes: impl AsRef<[u8]>) -> Result<ReceivedInside> {
        let (received, ready) = self.part.operate(|state, now| state.receive(bytes.as_ref(), now))?;
        Ok(ReceivedInside { received, ready })
    }

    /// Waives causes that the application has obtained otherwise or given up; answers the messages that are delivered by
    /// it.
    ///
    /// # Errors
    /// `InvalidId`, `TransactionClosed`: nothing has changed.
    pub fn mark_dependencies_met<I>(&self, ids: impl IntoIterator<Item = I>) -> Result<Vec<Arc<SdsMessage>>>
    where
        I: Into<MessageId>,
    {
        let ids: Vec<MessageId> = ids.into_iter().map(Into::into).collect();
        let ((), ready) = self.part.operate(|state, now| Ok(((), state.mark_dependencies_met(ids, now)?)))?;
        Ok(ready)
    }

    /// Delivered and own messages by (Lamport timestamp, id), the transaction's included.
    ///
    /// # Errors
    /// `TransactionClosed`.
    pub fn history(&self) -> Result<Vec<Arc<SdsMessage>>> {
        self.part.read(ChannelState::history)
    }

    /// The ids that parked messages wait for.
    ///
    /// # Errors
    /// `TransactionClosed`.
    pub fn missing(&self) -> Result<Vec<MessageId>> {
        self.part.read(ChannelState::missing)
    }
}

impl Part for ChannelPart {
    fn whose(&self) -> String {
        self.channel.slot.subject().to_string()
    }

    fn seal(&self) {
        let draft = self.draft().take();
        *self.sealed() = draft;
    }

    fn writes(&self) -> bool {
        self.sealed().as_ref().is_some_and(|draft| draft.touched)
    }

    fn is_stale(&self) -> bool {
        self.cell.operations() != Some(self.operations)
    }

    fn close(&self) {
        let ended = (self.draft().take(), self.sealed().take());
        drop(ended);
    }

    fn prepare(&self) -> Result<Box<dyn Ready + '_>> {
        let draft = self.sealed().take().ok_or(Error::TransactionClosed)?;
        if let Place::Gone(error) = self.channel.slot.place() {
            return Err(error);
        }
        if draft.touched {
            self.teller.check_room()?;
        }
        let order = self.teller.order();
        let applying = self.cell.applying(self.operations).ok_or_else(|| self.conflict())?;
        Ok(Box::new(ChannelReady {
            part: self,
            draft: Some(draft),
            applying: Some(applying),
            done: None,
            _order: order,
        }))
    }

    fn level(&self) -> Durability {
        self.channel.durability
    }

    fn release(&self) {
        self.released.store(true, Ordering::Release);
    }
}

/// With the channel's state locked, and its turn to tell: nothing happens to it meanwhile.
struct ChannelReady<'a> {
    part: &'a ChannelPart,
    draft: Option<Draft>,
    applying: Option<Applying<'a>>,
    done: Option<Done>,
    _order: Order<'a>,
}

impl Ready for ChannelReady<'_> {
    fn apply(&mut self) -> Option<(Subject, u64)> {
        let Draft { state, effects, .. } = self.draft.take().filter(|draft| draft.touched)?;
        let done = self.applying.take()?.apply(state, effects, |revision, bytes| {
            if let Some(persister) = &self.part.channel.persister {
                persister.changed(self.part.cell.subject(), revision, bytes);
            }
        });
        let saved = done.unsaved.is_some() && self.part.channel.persister.is_some();
        let revision = done.revision;
        self.done = Some(done);
        saved.then(|| (self.part.cell.subject().clone(), revision))
    }

    fn reveals(&self) -> Option<(Subject, u64)> {
        // A copy of a message changes nothing, and tells that the message is here.
        let done = self.done.as_ref().filter(|_| self.part.channel.persister.is_some())?;
        Some((self.part.cell.subject().clone(), done.revision))
    }

    fn tell(self: Box<Self>) {
        if let Some(done) = self.done {
            // Nobody waits for the events to be raised: the commit is waited for.
            let _told = self.part.teller.tell(done.revision, done.events);
            // Its timer may have to fire earlier now.
            self.part.channel.wake();
        }
    }
}
