//! A channel that comes back from what was saved, made consistent: the parts may be of different moments.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::base::error::{Error, Place, Result};
use crate::base::name::{ChannelId, MessageId};
use crate::sds::causal::InOrder;
use crate::sds::effects::{Changes, Effects};
use crate::sds::event::ChannelEvent;
use crate::sds::hash::BloomHash;
use crate::sds::lamport::LamportClock;
use crate::sds::message::SdsMessage;
use crate::sds::meta::{ChannelData, ChannelMeta, IncomingMessage, SCHEMA_VERSION};
use crate::sds::options::ChannelOptions;
use crate::sds::state::ChannelState;
use crate::sds::time::{Now, whole_ms};
use crate::sds::timer::Timers;

impl ChannelState {
    /// Takes up a channel where it was saved.
    ///
    /// The history is put in order, rid of repeats and trimmed; the clock is moved on to it; what is parked is rid of
    /// what was delivered, and what waits for nothing any more is delivered; of deadlines remains at least nothing and at
    /// most their full interval, whatever the wall clock says meanwhile. The effects tell what this changed,
    /// `Missing` for everything that stays parked and `Ready` for what does not.
    ///
    /// # Errors
    /// `InvalidOptions` with all faults of the options; `UnknownFormat` for a state of another version.
    pub fn load(
        id: ChannelId,
        options: ChannelOptions,
        data: ChannelData,
        now: impl Into<Now>,
    ) -> Result<(Self, Effects)> {
        let now = now.into();
        let ChannelData { meta, message_history, hints } = data;
        if meta.schema_version != SCHEMA_VERSION {
            return Err(Error::UnknownFormat {
                format: "channel state".to_owned(),
                at: Place::new(format!("channel {id}")),
                found: meta.schema_version.into(),
                known: SCHEMA_VERSION.into(),
            });
        }
        let mut state = Self::new(id, options)?;
        state.timers = Timers::new(&state.options, now);
        let mut changes = Changes::default();
        state.hints = hints.into_iter().collect();
        state.load_history(message_history, meta.lamport_timestamp, now, &mut changes);
        state.load_outgoing(&meta, now);
        if !state.outgoing.is_empty() {
            state.echoes.begin(state.clock.clone().send(now.unix_ms));
        }
        let released = state.load_parked(&meta, now);
        state.fill_bloom(&released);
        state.cascade(released, now, &mut changes);
        state.load_repairs(&meta, now);
        state.arm_sync(now);
        state.drop_stray_hints(&mut changes);
        state.announce_missing(&mut changes);
        changes.meta_changed = state.meta() != meta;
        Ok((state, changes.into_effects()))
    }

    /// A message as it is kept, whatever it was stored with.
    fn kept(&self, message: SdsMessage) -> Arc<SdsMessage> {
        let channel_id = self.wire_id.clone();
        Arc::new(SdsMessage { channel_id, bloom_filter: Bytes::new(), repair_request: Vec::new(), ..message })
    }

    fn load_history(&mut self, messages: Vec<SdsMessage>, clock: i64, now: Now, changes: &mut Changes) {
        let mut messages: Vec<_> = messages.into_iter().map(|message| InOrder(self.kept(message))).collect();
        // Stable: of two that are equal in order, the first one stays the first.
        messages.sort();
        let mut repeated = BTreeSet::new();
        let mut largest = None;
        for InOrder(message) in messages {
            if self.history.contains(message.message_id.as_bytes()) {
                repeated.insert(message.message_id.clone());
            } else {
                largest = Some(message.lamport_timestamp);
                self.history.insert(message);
            }
        }
        // A clock that was lost must not make all of the history look like the future, so it catches up first; what is
        // still beyond it then is trimmed before anything else.
        self.clock = LamportClock::new(clock, self.options.clock_unit, self.options.max_clock_skew);
        if let Some(largest) = largest {
            self.clock.catch_up(largest, now.unix_ms);
        }
        self.trim_history(changes);
        // Storing the one that is kept overwrites whichever is stored under its id. Something is, so that the append
        // comes on top of an evict: should the message go again at once, the evict has to stay.
        for message in self.history.iter().filter(|message| repeated.contains(&message.message_id)) {
            changes.history.evict(message.message_id.clone());
            changes.history.append(Arc::clone(message));
        }
    }

    fn load_outgoing(&mut self, meta: &ChannelMeta, now: Now) {
        let interval = whole_ms(self.options.resend_interval);
        for unacknowledged in &meta.outgoing {
            let id = &unacknowledged.message.message_id;
            if self.outgoing.contains(id.as_bytes()) {
                continue;
            }
            let factor = if unacknowledged.possibly_acknowledged { 2 } else { 1 };
            self.outgoing.recall(
                self.kept(unacknowledged.message.clone()),
                BloomHash::of(id.as_bytes()),
                now.past(unacknowledged.send_time_ms, interval.saturating_mul(factor)),
                unacknowledged.resend_attempts,
                unacknowledged.possibly_acknowledged,
            );
        }
    }

    /// Answers the parked messages that wait for nothing; the others are parked.
    fn load_parked(&mut self, meta: &ChannelMeta, now: Now) -> Vec<Arc<SdsMessage>> {
        let timeout = self.options.park_timeout.map_or(i64::MAX, whole_ms);
        let mut released: Vec<Arc<SdsMessage>> = Vec::new();
        let mut repeats = BTreeSet::new();
        // nim-sds parks sync messages too. They are met, and nothing is left to deliver.
        for IncomingMessage { message, .. } in &meta.incoming {
            if message.content.is_empty() && !self.is_known(message.message_id.as_bytes()) {
                self.remember_sync(message.message_id.clone());
            }
        }
        for incoming in &meta.incoming {
            let id = &incoming.message.message_id;
            if self.is_known(id.as_bytes()) || !repeats.insert(id) {
                continue;
            }
            let wanted = incoming.missing.iter().filter(|cause| *cause != id && !self.is_known(cause.as_bytes()));
            let wanted: BTreeSet<MessageId> = wanted.cloned().collect();
            let message = self.kept(incoming.message.clone());
            if wanted.is_empty() {
                released.push(message);
            } else {
                self.parking.park(message, wanted, now.past(incoming.parked_at_ms, timeout));
            }
        }
        released
    }

    /// The history in order, then what is parked or was until now, in order.
    fn fill_bloom(&mut self, released: &[Arc<SdsMessage>]) {
        let mut parked: Vec<_> =
            self.parking.iter().map(|parked| &parked.message).chain(released).cloned().map(InOrder).collect();
        parked.sort();
        for message in self.history.iter() {
            self.bloom.add(BloomHash::of(message.message_id.as_bytes()));
        }
        for InOrder(message) in parked {
            self.bloom.add(BloomHash::of(message.message_id.as_bytes()));
        }
    }

    /// Hints of messages that are not here are deleted.
    fn drop_stray_hints(&mut self, changes: &mut Changes) {
        let stray = |(id, hint): &(&MessageId, &Bytes)| hint.is_empty() || !self.holds(id.as_bytes());
        let mut stray: Vec<MessageId> = self.hints.iter().filter(stray).map(|(id, _)| id.clone()).collect();
        stray.sort_unstable();
        for id in stray {
            self.hints.remove(&id);
            changes.hints.push((id, Bytes::new()));
        }
    }

    fn announce_missing(&mut self, changes: &mut Changes) {
        let mut parked: Vec<_> = self.parking.iter().map(|parked| InOrder(Arc::clone(&parked.message))).collect();
        parked.sort();
        for InOrder(message) in parked {
            let entries = self.parking.missing_of(message.message_id.as_bytes());
            if !entries.is_empty() {
                changes.missing(ChannelEvent::Missing { id: message.message_id.clone(), entries });
            }
        }
    }
}
