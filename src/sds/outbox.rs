//! Messages of ours that no peer has acknowledged, and when each is to be sent again.

use std::sync::Arc;

use crate::base::name::MessageId;
use crate::sds::hash::BloomHash;
use crate::sds::message::SdsMessage;
use crate::sds::sequence::Sequence;
use crate::sds::time::{Agenda, Now};

/// A message of ours that waits for its acknowledgement.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outgoing {
    pub(crate) message: Arc<SdsMessage>,
    /// When it was last sent.
    pub(crate) sent: Now,
    pub(crate) resend_attempts: u32,
    pub(crate) possibly_acknowledged: bool,
    /// For looking the id up in the filters of peers.
    pub(crate) hash: BloomHash,
    /// Its place in the order of sending.
    order: u64,
}

impl Outgoing {
    /// What a peer seems to have is sent again half as often.
    fn due_ms(&self, interval_ms: i64) -> i64 {
        let factor = if self.possibly_acknowledged { 2 } else { 1 };
        self.sent.monotonic_ms.saturating_add(interval_ms.saturating_mul(factor))
    }
}

/// All of them in order of sending. Invariant: the agenda has each exactly once, at its due time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outbox {
    messages: Sequence<Outgoing>,
    agenda: Agenda<(u64, MessageId)>,
    interval_ms: i64,
    next_order: u64,
}

impl Outbox {
    pub(crate) fn new(interval_ms: i64) -> Self {
        Self { messages: Sequence::default(), agenda: Agenda::default(), interval_ms, next_order: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(crate) fn contains(&self, id: &[u8]) -> bool {
        self.messages.contains(id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&MessageId, &Outgoing)> {
        self.messages.iter()
    }

    /// Adds a message that is not in it.
    pub(crate) fn push(&mut self, message: Arc<SdsMessage>, hash: BloomHash, sent: Now) {
        self.recall(message, hash, sent, 0, false);
    }

    /// Adds one as it was saved.
    pub(crate) fn recall(
        &mut self,
        message: Arc<SdsMessage>,
        hash: BloomHash,
        sent: Now,
        resend_attempts: u32,
        possibly_acknowledged: bool,
    ) {
        let id = message.message_id.clone();
        let outgoing = Outgoing { message, sent, resend_attempts, possibly_acknowledged, hash, order: self.next_order };
        self.next_order += 1;
        self.agenda.insert(outgoing.due_ms(self.interval_ms), (outgoing.order, id.clone()));
        self.messages.push(id, outgoing);
    }

    pub(crate) fn remove(&mut self, id: &[u8]) -> Option<Outgoing> {
        let outgoing = self.messages.remove(id)?;
        let key = (outgoing.order, outgoing.message.message_id.clone());
        self.agenda.remove(outgoing.due_ms(self.interval_ms), key);
        Some(outgoing)
    }

    fn update(&mut self, id: &[u8], change: impl FnOnce(&mut Outgoing)) {
        let Some(outgoing) = self.messages.get_mut(id) else { return };
        let key = (outgoing.order, outgoing.message.message_id.clone());
        self.agenda.remove(outgoing.due_ms(self.interval_ms), key.clone());
        change(outgoing);
        self.agenda.insert(outgoing.due_ms(self.interval_ms), key);
    }

    /// A peer seems to have it.
    pub(crate) fn suspect(&mut self, id: &[u8]) {
        self.update(id, |outgoing| outgoing.possibly_acknowledged = true);
    }

    /// It is sent once more.
    pub(crate) fn resend(&mut self, id: &[u8], now: Now) -> Option<&Outgoing> {
        self.update(id, |outgoing| {
            outgoing.resend_attempts = outgoing.resend_attempts.saturating_add(1);
            outgoing.sent = now;
        });
        self.messages.get(id)
    }

    pub(crate) fn get(&self, id: &[u8]) -> Option<&Outgoing> {
        self.messages.get(id)
    }

    /// When the first is overdue.
    pub(crate) fn first_due(&self) -> Option<i64> {
        self.agenda.first()
    }

    /// What is overdue by now, at most `count`, in order of sending: causes come before what names them.
    pub(crate) fn overdue(&self, now_ms: i64, count: usize) -> Vec<MessageId> {
        let mut due = self.agenda.due(now_ms, count);
        due.sort_unstable();
        due.into_iter().map(|(_, id)| id).collect()
    }
}
