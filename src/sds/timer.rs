//! What the passing of time does to a channel: messages are sent again or given up, peers are answered, and a channel that
//! has been silent says what it knows.
//!
//! Three sweeps tick at their intervals, counted from when the channel was opened, the third one from the last message
//! sent; a tick that has nothing to do is no event, so that [`ChannelState::next_due`] tells the only moment at which
//! anybody has to wake up.

use bytes::Bytes;

use crate::base::error::{Error, Result};
use crate::base::name::{MAX_ID_BYTES, MessageId};
use crate::sds::effects::{Changes, Effects};
use crate::sds::event::LostReason;
use crate::sds::message::SdsMessage;
use crate::sds::options::ChannelOptions;
use crate::sds::state::ChannelState;
use crate::sds::time::{Now, Ticker, whole_ms};
use crate::sds::wire::encode_with;

/// How many packets one tick makes of each kind, and after how many bytes it stops, so that it neither takes long nor fills
/// the memory: peers may ask for what is large. What is left is due at once.
pub(crate) const BATCH: usize = 256;
pub(crate) const BATCH_BYTES: usize = 8 << 20;

/// When the sweeps tick.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Timers {
    buffer: Ticker,
    repair: Ticker,
    sync: Option<Ticker>,
    /// The next tick of `sync`; none as long as there is nothing to say.
    sync_ms: Option<i64>,
    park_timeout_ms: Option<i64>,
}

impl Timers {
    pub(crate) fn new(options: &ChannelOptions, opened: Now) -> Self {
        let ticker = |interval| Ticker::new(opened.monotonic_ms, interval);
        Self {
            buffer: ticker(options.buffer_sweep_interval),
            repair: ticker(options.repair_sweep_interval),
            sync: options.sync_interval.map(ticker),
            sync_ms: None,
            park_timeout_ms: options.park_timeout.map(whole_ms),
        }
    }

    /// A message was sent, which says all that a sync message would.
    pub(crate) fn spoke(&mut self, now: Now) {
        if let Some(ticker) = &mut self.sync {
            ticker.restart(now.monotonic_ms);
            self.sync_ms = Some(ticker.after(now.monotonic_ms));
        }
    }
}

impl ChannelState {
    /// When [`tick`](Self::tick) has something to do, by the monotonic clock: the one timer that a channel needs. It may
    /// have passed. None where nothing is ever due unless something is sent or received before; otherwise any operation
    /// may change it. Costs O(log n).
    pub fn next_due(&self) -> Option<i64> {
        [self.buffer_due(), self.repair_due(), self.sync_due()].into_iter().flatten().min()
    }

    fn buffer_due(&self) -> Option<i64> {
        let timers = &self.timers;
        let expiry = self.parking.oldest().zip(timers.park_timeout_ms).map(|(at, timeout)| at.saturating_add(timeout));
        let first = self.outgoing.first_due().into_iter().chain(expiry).min()?;
        Some(timers.buffer.at_or_after(first))
    }

    fn repair_due(&self) -> Option<i64> {
        let first = self.repairs.first_sweep().filter(|_| self.repairs_on())?;
        Some(self.timers.repair.at_or_after(first))
    }

    /// A history says what there is. Without one, there may still be something to ask for: whoever has received nothing
    /// but what he cannot deliver has to be able to ask.
    fn sync_due(&self) -> Option<i64> {
        let tick = self.timers.sync_ms?;
        if self.history.len() > 0 {
            return Some(tick);
        }
        let asks =
            self.repairs.first_request().filter(|_| self.repairs_on() && self.options.max_repair_requests > 0)?;
        Some(self.timers.sync.as_ref()?.at_or_after(asks.max(tick)))
    }

    /// From when on there is something to say, ticks count; before, they pass.
    pub(crate) fn arm_sync(&mut self, now: Now) {
        let speaks = self.history.len() > 0 || (self.repairs_on() && self.repairs.requests() > 0);
        match (speaks, self.timers.sync_ms, self.timers.sync) {
            (true, None, Some(ticker)) => self.timers.sync_ms = Some(ticker.after(now.monotonic_ms)),
            (false, Some(_), _) => self.timers.sync_ms = None,
            _ => {}
        }
    }

    /// Does what is due by now; nothing where it is not time yet. The effects tell `Lost`, `Resend`, `Repair` and `Sync`
    /// in this order, with the bytes to send.
    ///
    /// One call makes a bounded number of packets; while there are more, [`next_due`](Self::next_due) has passed. A tick
    /// that comes late is not made up for. `fresh_id` is for a sync message: 1 to 1,024 bytes that no message has.
    pub fn tick(&mut self, now: impl Into<Now>, fresh_id: impl FnOnce() -> MessageId) -> Effects {
        let now = now.into();
        let is_due = |due: Option<i64>| due.is_some_and(|due| due <= now.monotonic_ms);
        let mut changes = Changes::default();
        if is_due(self.buffer_due()) {
            self.sweep_outgoing(now, &mut changes);
            self.sweep_parked(now, &mut changes);
        }
        if is_due(self.repair_due()) {
            self.sweep_repairs(now, &mut changes);
        }
        if is_due(self.sync_due()) {
            let id = fresh_id();
            let bytes = self.make_sync(id.clone(), now, &mut changes);
            changes.sync(id, bytes);
            self.timers.sync_ms = self.timers.sync.map(|ticker| ticker.after(now.monotonic_ms));
        }
        self.arm_sync(now);
        changes.into_effects()
    }

    fn sweep_outgoing(&mut self, now: Now, changes: &mut Changes) {
        let mut made = 0;
        for id in self.outgoing.overdue(now.monotonic_ms, BATCH) {
            if made >= BATCH_BYTES {
                return;
            }
            changes.meta_changed = true;
            let bytes = id.as_bytes();
            if self.outgoing.get(bytes).is_some_and(|it| it.resend_attempts >= self.options.max_resend_attempts) {
                self.drop_outgoing(&id, changes);
                changes.lost(id, LostReason::Unacknowledged);
            } else if let Some(again) = self.outgoing.resend(bytes, now) {
                // The message as it was, but with what we have seen by now.
                let packet = encode_with(self.options.wire, &again.message, self.bloom.serialized(), &[]);
                made += packet.len();
                changes.resend(id, again.resend_attempts, packet);
            }
        }
    }

    fn sweep_parked(&mut self, now: Now, changes: &mut Changes) {
        let Some(timeout) = self.timers.park_timeout_ms else { return };
        for id in self.parking.parked_before(now.monotonic_ms.saturating_sub(timeout)) {
            self.parking.remove(&id);
            changes.meta_changed = true;
            self.drop_hint(&id, changes);
            // Others may wait for it.
            self.note_unasked(&id);
            changes.lost(id, LostReason::Expired);
        }
    }

    /// A message without content, which tells peers what this one has seen and asks for what it lacks. It takes no place
    /// in clock, history or bloom filter; only requests that it carries are saved as asked.
    ///
    /// # Errors
    /// `InvalidId` for an id that has not 1 to 1,024 bytes, `DuplicateId` for one that is known or parked. Nothing has
    /// changed then.
    pub fn sync_message(&mut self, id: impl Into<MessageId>, now: impl Into<Now>) -> Result<(Bytes, Effects)> {
        let (id, now) = (id.into(), now.into());
        if id.is_empty() {
            return Err(Error::InvalidId { reason: "it is empty" });
        }
        if id.as_bytes().len() > MAX_ID_BYTES {
            return Err(Error::InvalidId { reason: "it has more than 1,024 bytes" });
        }
        if self.is_known(id.as_bytes()) || self.parking.contains(id.as_bytes()) {
            return Err(Error::DuplicateId { id });
        }
        let mut changes = Changes::default();
        let bytes = self.make_sync(id, now, &mut changes);
        self.arm_sync(now);
        Ok((bytes, changes.into_effects()))
    }

    fn make_sync(&mut self, id: MessageId, now: Now, changes: &mut Changes) -> Bytes {
        let lamport_timestamp = self.clock.clone().send(now.unix_ms);
        self.end_repairs(id.as_bytes(), changes);
        let requests = self.attach_requests(now, changes);
        let message = SdsMessage {
            message_id: id.clone(),
            lamport_timestamp,
            causal_history: self.entries_until(lamport_timestamp),
            channel_id: self.wire_id.clone(),
            sender_id: self.options.participant.clone(),
            ..SdsMessage::default()
        };
        let bytes = encode_with(self.options.wire, &message, self.bloom.serialized(), &requests);
        // An echo of it is no news. Peers may name it as a cause, and one may have done so before its time.
        let met = self.parking.meet(id.as_bytes());
        changes.meta_changed |= met.any;
        self.echoes.spoke(id.clone());
        self.remember_sync(id);
        self.cascade(met.released, now, changes);
        bytes
    }
}
