//! What a packet does to a channel: it acknowledges, and it is delivered, parked or old news.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashSet;

use crate::base::error::{Error, Result};
use crate::base::name::MessageId;
use crate::sds::bloom::PeerBloom;
use crate::sds::causal::ParkingLimits;
use crate::sds::effects::{Changes, Effects};
use crate::sds::event::ChannelEvent;
use crate::sds::hash::BloomHash;
use crate::sds::message::{HistoryEntry, Unshown};
use crate::sds::options::BloomAck;
use crate::sds::state::ChannelState;
use crate::sds::time::Now;
use crate::sds::wire::{Entry, Packet, decode, own_entries};

/// The answer to a packet.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// What the sender's application sent.
    pub content: Bytes,
    /// The causes that are neither known nor parked, in the order of the causal history.
    pub missing: Vec<HistoryEntry>,
    /// What became of the message.
    pub status: ReceiveStatus,
}

/// Of the content only how long it is.
impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { content, missing, status } = self;
        let content = Unshown(content);
        f.debug_struct("Received").field("content", &content).field("missing", missing).field("status", status).finish()
    }
}

/// What became of a received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReceiveStatus {
    /// All its causes are known: hand it on.
    Delivered,
    /// A cause is not known: hold it back, `Ready` follows.
    Parked,
    /// It was delivered, sent or waived before.
    Duplicate,
    /// It has no content and told only what its sender knows.
    Sync,
    /// It carries no timestamp: take it as it is, nothing is known of it afterwards.
    Ephemeral,
}

impl ChannelState {
    /// Takes a packet in.
    ///
    /// # Errors
    /// `MessageTooLarge`, `MalformedMessage`, `TooManyEntries`, `InvalidId`, `WrongChannel`, and `ParkedFull` for a
    /// message that would have to be parked beyond a limit. Nothing has changed then: with room again, the same bytes
    /// are accepted.
    pub fn receive(&mut self, bytes: &[u8], now: impl Into<Now>) -> Result<(Received, Effects)> {
        let now = now.into();
        let packet = self.check_packet(bytes)?;
        let answer = |status, content, missing| Received { content, missing, status };
        let copy = || Bytes::copy_from_slice(packet.content);
        let Some(timestamp) = packet.lamport_timestamp else {
            return Ok((answer(ReceiveStatus::Ephemeral, copy(), Vec::new()), Effects::default()));
        };
        let mut changes = Changes::default();

        // A copy still tells what its sender has seen meanwhile.
        if self.is_known(packet.message_id) {
            self.heed(&packet, now, &mut changes);
            return Ok((answer(ReceiveStatus::Duplicate, copy(), Vec::new()), changes.into_effects()));
        }
        if self.parking.contains(packet.message_id) {
            self.heed(&packet, now, &mut changes);
            let missing = self.parking.missing_of(packet.message_id);
            return Ok((answer(ReceiveStatus::Parked, copy(), missing), changes.into_effects()));
        }

        let wanted = self.unknown_causes(&packet);
        let is_sync = packet.content.is_empty();
        if !is_sync && !wanted.is_empty() {
            let ids = wanted.iter().map(|entry| entry.message_id);
            self.parking.check_room(self.parking_limits(), packet.parked_bytes(), ids)?;
        }
        // From here on nothing is refused.
        self.heed(&packet, now, &mut changes);
        let before = self.clock.value();
        if self.clock.arrive(timestamp, now.unix_ms) {
            self.clock_clamped += 1;
        }
        let lacking = wanted.iter().filter(|entry| !self.parking.contains(entry.message_id)).copied();
        let missing = own_entries(wanted.len(), lacking.clone());
        if !missing.is_empty() {
            let id = MessageId::from(packet.message_id);
            changes.missing(ChannelEvent::Missing { id, entries: missing.clone() });
        }

        let lacking: Vec<_> = lacking.collect();
        let received = if is_sync {
            // It is never delivered, yet peers may name it as a cause.
            if self.clock.deliver(timestamp, now.unix_ms) {
                self.clock_clamped += 1;
            }
            let id = MessageId::from(packet.message_id);
            let met = self.parking.meet(packet.message_id);
            changes.meta_changed |= met.any;
            self.remember_sync(id);
            self.cascade(met.released, now, &mut changes);
            answer(ReceiveStatus::Sync, Bytes::new(), missing)
        } else {
            self.bloom.add(BloomHash::of(packet.message_id));
            let message = Arc::new(packet.to_stored(self.wire_id.clone()));
            let content = message.content.clone();
            if wanted.is_empty() {
                self.cascade(vec![message], now, &mut changes);
                answer(ReceiveStatus::Delivered, content, missing)
            } else {
                let wanted: BTreeSet<_> = wanted.iter().map(|entry| MessageId::from(entry.message_id)).collect();
                self.parking.park(message, wanted, now);
                changes.meta_changed = true;
                answer(ReceiveStatus::Parked, content, missing)
            }
        };
        self.request_missing(lacking.into_iter(), now, &mut changes);
        self.ask_anew(now, &mut changes);
        changes.meta_changed |= self.clock.value() != before;
        self.arm_sync(now);
        Ok((received, changes.into_effects()))
    }

    fn check_packet<'a>(&self, bytes: &'a [u8]) -> Result<Packet<'a>> {
        let too_large = |size, max| Err(Error::MessageTooLarge { size, max });
        if bytes.len() > self.options.max_packet_size {
            return too_large(bytes.len(), self.options.max_packet_size);
        }
        let packet = decode(self.options.wire, bytes)?;
        if packet.channel_id != self.wire_id {
            return Err(Error::WrongChannel);
        }
        if packet.content.len() > self.options.max_message_size {
            return too_large(packet.content.len(), self.options.max_message_size);
        }
        if packet.message_id.is_empty() {
            return Err(Error::InvalidId { reason: "it is empty" });
        }
        Ok(packet)
    }

    pub(crate) fn parking_limits(&self) -> ParkingLimits {
        ParkingLimits {
            messages: self.options.max_parked,
            bytes: self.options.max_parked_bytes,
            missing: self.options.max_missing,
        }
    }

    /// The causes that are not known, each once, without the message itself.
    fn unknown_causes<'a>(&self, packet: &Packet<'a>) -> Vec<Entry<'a>> {
        let mut seen = HashSet::new();
        let causes = packet.causal_history.iter();
        causes
            .filter(|entry| {
                entry.message_id != packet.message_id
                    && !self.is_known(entry.message_id)
                    && seen.insert(entry.message_id)
            })
            .collect()
    }

    /// What every packet tells that is accepted, copies too: that its message is about, what its sender has seen, and
    /// what he lacks.
    fn heed(&mut self, packet: &Packet<'_>, now: Now, changes: &mut Changes) {
        self.end_repairs(packet.message_id, changes);
        self.review(packet, changes);
        self.take_over_requests(packet.repair_request.iter(), now, changes);
    }

    /// Looks for messages of ours among what the packet's sender has seen.
    fn review(&mut self, packet: &Packet<'_>, changes: &mut Changes) {
        let bloom = PeerBloom::read(packet.bloom_filter).unwrap_or_else(|_| {
            self.blooms_rejected += 1;
            None
        });
        if self.outgoing.is_empty() || self.outgoing.contains(packet.message_id) {
            return;
        }
        if self.echoes.has(packet, &self.options.participant) {
            return;
        }
        let named = packet.causal_history.iter().map(|entry| entry.message_id);
        let named: HashSet<&[u8]> = named.filter(|id| self.outgoing.contains(id)).collect();
        let mut acknowledged = Vec::new();
        let mut suspected = Vec::new();
        for (id, outgoing) in self.outgoing.iter() {
            if named.contains(id.as_bytes()) {
                acknowledged.push((id.clone(), true));
            } else if bloom.is_some_and(|bloom| bloom.contains(outgoing.hash)) {
                match self.options.bloom_ack {
                    BloomAck::Accept => acknowledged.push((id.clone(), false)),
                    BloomAck::Hint if outgoing.possibly_acknowledged => {}
                    BloomAck::Hint => suspected.push(id.clone()),
                }
            }
        }
        for id in suspected {
            self.outgoing.suspect(id.as_bytes());
            changes.meta_changed = true;
        }
        for (id, certain) in acknowledged {
            self.drop_outgoing(&id, changes);
            changes.sent(id, certain);
        }
    }
}
