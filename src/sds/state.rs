//! A channel's state and what sending, waiving causes and asking do to it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;

use crate::base::error::{Error, Result};
use crate::base::name::{ChannelId, MAX_ID_BYTES, MessageId};
use crate::sds::bloom::RollingBloom;
use crate::sds::causal::{InOrder, Parking};
use crate::sds::echo::Echoes;
use crate::sds::effects::{Changes, Effects};
use crate::sds::hash::BloomHash;
use crate::sds::history::History;
use crate::sds::lamport::LamportClock;
use crate::sds::message::{HistoryEntry, SdsMessage};
use crate::sds::meta::{ChannelMeta, IncomingMessage, SCHEMA_VERSION, UnacknowledgedMessage};
use crate::sds::options::{ChannelOptions, MAX_HINT_BYTES};
use crate::sds::outbox::Outbox;
use crate::sds::repair::{RepairTiming, Repairs};
use crate::sds::sequence::Sequence;
use crate::sds::time::{Now, whole_ms};
use crate::sds::timer::Timers;
use crate::sds::wire::encode_with;

/// Everything that a channel knows. Each operation takes the time, changes the state, and answers with its [`Effects`];
/// one that is refused changes nothing. After any of them, [`next_due`](Self::next_due) tells when
/// [`tick`](Self::tick) is to be called.
///
/// ```
/// use ractor_persistence::base::name::ChannelId;
/// use ractor_persistence::sds::{ChannelEvent, ChannelOptions, ChannelState, ReceiveStatus};
/// let room = ChannelId::new("room")?;
/// let mut alice = ChannelState::new(room.clone(), ChannelOptions::default().with_participant("alice"))?;
/// let mut bob = ChannelState::new(room, ChannelOptions::default().with_participant("bob"))?;
///
/// let (m1, _) = alice.wrap("m1", "one", 0)?;
/// let (m2, _) = alice.wrap("m2", "two", 0)?;
/// let (second, effects) = bob.receive(&m2, 0)?; // m2 names m1 as its cause: it is held back
/// assert_eq!((second.status, effects.events.len()), (ReceiveStatus::Parked, 1));
/// assert_eq!(second.missing[0].message_id, "m1");
/// let (first, effects) = bob.receive(&m1, 0)?; // m1 releases it
/// assert_eq!(first.status, ReceiveStatus::Delivered);
/// let ids: Vec<_> = effects.events.iter().map(ChannelEvent::message_id).collect();
/// assert_eq!(ids, ["m1", "m2"]);
///
/// let (m3, _) = bob.wrap("m3", "got both", 0)?;
/// let (_, effects) = alice.receive(&m3, 0)?; // m3 names m1 and m2: each is `Sent`, then m3 is `Ready`
/// assert_eq!((effects.events.len(), alice.stats().unacknowledged), (3, 0));
/// # Ok::<(), ractor_persistence::base::error::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelState {
    pub(crate) id: ChannelId,
    /// The id as it stands in every message, shared by all of them.
    pub(crate) wire_id: Bytes,
    pub(crate) options: ChannelOptions,
    pub(crate) clock: LamportClock,
    pub(crate) bloom: RollingBloom,
    pub(crate) history: History,
    /// Ids that are known though they are not in the history (any more), oldest first.
    pub(crate) remembered: Sequence<()>,
    /// Ids of sync messages, apart: however many there are, they do not make a channel forget what it has delivered.
    pub(crate) synced: Sequence<()>,
    /// Messages of ours in order of sending.
    pub(crate) outgoing: Outbox,
    pub(crate) echoes: Echoes,
    pub(crate) parking: Parking,
    pub(crate) hints: HashMap<MessageId, Bytes>,
    pub(crate) repairs: Repairs,
    pub(crate) timing: RepairTiming,
    pub(crate) timers: Timers,
    pub(crate) blooms_rejected: u64,
    pub(crate) clock_clamped: u64,
}

/// Counters of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelStats {
    /// The Lamport clock.
    pub lamport_timestamp: i64,
    /// Messages in the history.
    pub history: usize,
    /// Messages of ours that wait for their acknowledgement.
    pub unacknowledged: usize,
    /// Messages that wait for their causes.
    pub parked: usize,
    /// Bytes of those messages, as `max_parked_bytes` counts them.
    pub parked_bytes: usize,
    /// Ids that they wait for.
    pub missing: usize,
    /// Ids remembered beyond the history.
    pub remembered: usize,
    /// Messages that peers are asked for.
    pub requests: usize,
    /// Messages that peers asked for and that are to be answered.
    pub responses: usize,
    /// Bloom filters of peers that were read as empty, since the channel was opened.
    pub blooms_rejected: u64,
    /// Timestamps of peers that were too far ahead for the clock to follow, since the channel was opened.
    pub clock_clamped: u64,
}

impl ChannelState {
    /// A channel that nothing is known of yet. Its timers count from moment 0; those of one that is
    /// [loaded](Self::load), from then.
    ///
    /// # Errors
    /// `InvalidOptions` with all faults of the options.
    pub fn new(id: ChannelId, options: ChannelOptions) -> Result<Self> {
        options.validate()?;
        Ok(Self {
            wire_id: Bytes::copy_from_slice(id.as_str().as_bytes()),
            clock: LamportClock::new(0, options.clock_unit, options.max_clock_skew),
            bloom: RollingBloom::new(options.bloom_capacity, options.bloom_error_rate),
            id,
            history: History::default(),
            remembered: Sequence::default(),
            synced: Sequence::default(),
            outgoing: Outbox::new(whole_ms(options.resend_interval)),
            echoes: Echoes::new(options.max_remembered),
            timing: RepairTiming::of(&options),
            timers: Timers::new(&options, Now::default()),
            repairs: Repairs::default(),
            parking: Parking::default(),
            hints: HashMap::new(),
            options,
            blooms_rejected: 0,
            clock_clamped: 0,
        })
    }

    /// Makes a message of `content` and keeps it until a peer acknowledges it. Answers the bytes to send.
    ///
    /// Raises `Ready` only for messages that waited for this very id.
    ///
    /// # Errors
    /// `EmptyContent`, `MessageTooLarge`, `InvalidId` (1 to 1,024 bytes are valid), `DuplicateId` for an id that is
    /// known, parked or not acknowledged yet, `OutgoingFull`. Nothing has changed then.
    pub fn wrap(
        &mut self,
        id: impl Into<MessageId>,
        content: impl Into<Bytes>,
        now: impl Into<Now>,
    ) -> Result<(Bytes, Effects)> {
        let (id, content, now) = (id.into(), content.into(), now.into());
        self.check_wrap(&id, &content)?;
        let mut changes = Changes::default();
        changes.meta_changed = true;
        let lamport_timestamp = self.clock.send(now.unix_ms);
        self.end_repairs(id.as_bytes(), &mut changes);
        let requests = self.attach_requests(now, &mut changes);
        let message = Arc::new(SdsMessage {
            message_id: id.clone(),
            lamport_timestamp,
            causal_history: self.entries_until(lamport_timestamp),
            channel_id: self.wire_id.clone(),
            content,
            bloom_filter: Bytes::new(),
            sender_id: self.options.participant.clone(),
            repair_request: Vec::new(),
        });
        // Encoded before its own id is in the bloom filter: nobody else has seen it.
        let bytes = encode_with(self.options.wire, &message, self.bloom.serialized(), &requests);

        let hash = BloomHash::of(id.as_bytes());
        self.bloom.add(hash);
        self.outgoing.push(Arc::clone(&message), hash, now);
        self.enter(message, &mut changes);
        // A peer may have told of this id before we did, if what we said then was lost with our memory.
        let met = self.parking.meet(id.as_bytes());
        self.cascade(met.released, now, &mut changes);
        self.timers.spoke(now);
        Ok((bytes, changes.into_effects()))
    }

    fn check_wrap(&self, id: &MessageId, content: &Bytes) -> Result<()> {
        if content.is_empty() {
            return Err(Error::EmptyContent);
        }
        if content.len() > self.options.max_message_size {
            return Err(Error::MessageTooLarge { size: content.len(), max: self.options.max_message_size });
        }
        if id.is_empty() {
            return Err(Error::InvalidId { reason: "it is empty" });
        }
        if id.as_bytes().len() > MAX_ID_BYTES {
            return Err(Error::InvalidId { reason: "it has more than 1,024 bytes" });
        }
        let bytes = id.as_bytes();
        if self.is_known(bytes) || self.parking.contains(bytes) {
            return Err(Error::DuplicateId { id: id.clone() });
        }
        if self.outgoing.len() >= self.options.max_outgoing {
            return Err(Error::OutgoingFull { limit: self.options.max_outgoing });
        }
        Ok(())
    }

    /// The causal history that a message of this timestamp gets: oldest first, with the hints that were set here.
    pub(crate) fn entries_until(&self, timestamp: i64) -> Vec<HistoryEntry> {
        let recent = self.history.recent(timestamp, self.options.max_causal_history);
        // A message without an id, which an import may bring, is none that peers take, so they would wait for it for ever.
        let mut entries: Vec<_> = recent
            .filter(|message| !message.message_id.is_empty())
            .map(|message| HistoryEntry {
                message_id: message.message_id.clone(),
                retrieval_hint: self.hints.get(&message.message_id).cloned().unwrap_or_default(),
                sender_id: message.sender_id.clone(),
            })
            .collect();
        entries.reverse();
        entries
    }

    /// Waives causes that the application has obtained otherwise or given up: nothing waits for them any more, and they
    /// count as known. Ids that are known already change nothing.
    ///
    /// # Errors
    /// `InvalidId` for an id of more than 1,024 bytes, which no message can name. Nothing has changed then.
    pub fn mark_dependencies_met(
        &mut self,
        ids: impl IntoIterator<Item = impl Into<MessageId>>,
        now: impl Into<Now>,
    ) -> Result<Effects> {
        let now = now.into();
        let ids: Vec<MessageId> = ids.into_iter().map(Into::into).collect();
        if ids.iter().any(|id| id.as_bytes().len() > MAX_ID_BYTES) {
            return Err(Error::InvalidId { reason: "it has more than 1,024 bytes" });
        }
        let mut changes = Changes::default();
        let mut released = Vec::new();
        for id in ids {
            if self.is_known(id.as_bytes()) {
                continue;
            }
            let hash = BloomHash::of(id.as_bytes());
            if !self.bloom.contains(hash) {
                self.bloom.add(hash);
            }
            let met = self.parking.meet(id.as_bytes());
            changes.meta_changed |= met.any;
            released.extend(met.released);
            self.end_repairs(id.as_bytes(), &mut changes);
            self.remember(id);
        }
        self.cascade(released, now, &mut changes);
        self.arm_sync(now);
        Ok(changes.into_effects())
    }

    /// Says where a message may be found; from the next [`wrap`](Self::wrap) on, causal histories that name it tell so.
    /// An empty hint removes it. Answers `false` for a message that is not in the history, outgoing or parked.
    ///
    /// # Errors
    /// `InvalidId` for a hint of more than 4,096 bytes. Nothing has changed then.
    pub fn set_hint(&mut self, id: impl Into<MessageId>, hint: impl Into<Bytes>) -> Result<(bool, Effects)> {
        let (id, hint) = (id.into(), hint.into());
        if hint.len() > MAX_HINT_BYTES {
            return Err(Error::InvalidId { reason: "its retrieval hint has more than 4,096 bytes" });
        }
        let mut changes = Changes::default();
        if !self.holds(id.as_bytes()) {
            return Ok((false, changes.into_effects()));
        }
        let old = if hint.is_empty() { self.hints.remove(&id) } else { self.hints.insert(id.clone(), hint.clone()) };
        if old.unwrap_or_default() != hint {
            changes.hints.push((id, hint));
        }
        Ok((true, changes.into_effects()))
    }

    /// Whether the message itself is here, in whatever role.
    pub(crate) fn holds(&self, id: &[u8]) -> bool {
        self.history.contains(id) || self.outgoing.contains(id) || self.parking.contains(id)
    }

    /// Whether nobody has to wait for a message, and a copy of it is no news. One that is outgoing is known even where
    /// the history has lost it and nobody remembers: it is ours.
    pub(crate) fn is_known(&self, id: &[u8]) -> bool {
        self.history.contains(id)
            || self.remembered.contains(id)
            || self.outgoing.contains(id)
            || self.synced.contains(id)
    }

    pub(crate) fn remember(&mut self, id: MessageId) {
        self.remembered.push_within(self.options.max_remembered, id);
    }

    pub(crate) fn remember_sync(&mut self, id: MessageId) {
        self.synced.push_within(self.options.max_remembered, id);
    }

    /// Delivers messages that wait for nothing, and what that releases, causes first and otherwise in order.
    pub(crate) fn cascade(&mut self, released: Vec<Arc<SdsMessage>>, now: Now, changes: &mut Changes) {
        let mut heap: BinaryHeap<_> = released.into_iter().map(|message| Reverse(InOrder(message))).collect();
        while let Some(Reverse(InOrder(message))) = heap.pop() {
            let before = self.clock.value();
            if self.clock.deliver(message.lamport_timestamp, now.unix_ms) {
                self.clock_clamped += 1;
            }
            let met = self.parking.meet(message.message_id.as_bytes());
            changes.meta_changed |= met.any || self.clock.value() != before;
            heap.extend(met.released.into_iter().map(|message| Reverse(InOrder(message))));
            self.enter(Arc::clone(&message), changes);
            changes.ready(message);
        }
    }

    /// Enters a message into the history and makes room for it.
    fn enter(&mut self, message: Arc<SdsMessage>, changes: &mut Changes) {
        changes.history.append(Arc::clone(&message));
        self.history.insert(message);
        self.trim_history(changes);
    }

    pub(crate) fn trim_history(&mut self, changes: &mut Changes) {
        while self.history.len() > self.options.max_history {
            let Some(evicted) = self.history.evict(self.clock.value()) else { return };
            let id = evicted.message_id.clone();
            self.drop_hint(&id, changes);
            self.end_response(id.as_bytes(), changes);
            changes.history.evict(id.clone());
            self.remember(id);
        }
    }

    /// Adapters delete a hint with its message; this also overrides one that is not saved yet.
    pub(crate) fn drop_hint(&mut self, id: &MessageId, changes: &mut Changes) {
        if self.hints.remove(id).is_some() {
            changes.hints.push((id.clone(), Bytes::new()));
        }
    }

    /// Waits for no acknowledgement of a message any more. One that the history has lost was known as outgoing until now,
    /// and its hint goes with it.
    pub(crate) fn drop_outgoing(&mut self, id: &MessageId, changes: &mut Changes) {
        self.outgoing.remove(id.as_bytes());
        self.echoes.spoke(id.clone());
        changes.meta_changed = true;
        if !self.history.contains(id.as_bytes()) {
            self.remember(id.clone());
            self.drop_hint(id, changes);
        }
    }

    /// The channel's id.
    pub fn id(&self) -> &ChannelId {
        &self.id
    }

    /// The options that it was opened with.
    pub fn options(&self) -> &ChannelOptions {
        &self.options
    }

    /// All of the state that is saved besides history and hints; costs one pass over outgoing and parked messages
    /// and repairs.
    pub fn meta(&self) -> ChannelMeta {
        let outgoing = self.outgoing.iter().map(|(_, outgoing)| UnacknowledgedMessage {
            message: SdsMessage::clone(&outgoing.message),
            send_time_ms: outgoing.sent.unix_ms,
            resend_attempts: outgoing.resend_attempts,
            possibly_acknowledged: outgoing.possibly_acknowledged,
        });
        let incoming = self.parking.iter().map(|parked| IncomingMessage {
            message: SdsMessage::clone(&parked.message),
            missing: parked.missing.clone(),
            parked_at_ms: parked.parked_at.unix_ms,
        });
        ChannelMeta {
            schema_version: SCHEMA_VERSION,
            lamport_timestamp: self.clock.value(),
            outgoing: outgoing.collect(),
            incoming: incoming.collect(),
            outgoing_repair: self.repairs.outgoing().collect(),
            incoming_repair: self.repairs.incoming().collect(),
        }
    }

    /// Delivered and own messages by (Lamport timestamp, id).
    pub fn history(&self) -> Vec<Arc<SdsMessage>> {
        self.history.iter().cloned().collect()
    }

    /// The retrieval hints that were set here, by message, in no order.
    pub fn hints(&self) -> impl Iterator<Item = (&MessageId, &Bytes)> {
        self.hints.iter()
    }

    /// The ids that parked messages wait for, in order. Parked ones are among them, so that a circle of messages that
    /// wait for each other can be found and waived.
    pub fn missing(&self) -> Vec<MessageId> {
        self.parking.waited_for_ids()
    }

    /// Counters.
    pub fn stats(&self) -> ChannelStats {
        ChannelStats {
            lamport_timestamp: self.clock.value(),
            history: self.history.len(),
            unacknowledged: self.outgoing.len(),
            parked: self.parking.len(),
            parked_bytes: self.parking.bytes(),
            missing: self.parking.waited_for(),
            remembered: self.remembered.len() + self.synced.len(),
            requests: self.repairs.requests(),
            responses: self.repairs.responses(),
            blooms_rejected: self.blooms_rejected,
            clock_clamped: self.clock_clamped,
        }
    }
}
