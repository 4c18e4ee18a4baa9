//! What is left to do after an operation: events to raise, changes to save.

use std::sync::Arc;

use bytes::Bytes;

use crate::base::name::MessageId;
use crate::sds::event::{ChannelEvent, LostReason};
use crate::sds::message::SdsMessage;
use crate::sds::update::PendingHistory;

/// What one operation did to a channel, beyond its answer.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
#[must_use = "events are raised and changes saved by whoever holds the effects"]
pub struct Effects {
    /// Events to raise, in this order.
    pub events: Vec<ChannelEvent>,
    /// Whether [`ChannelState::meta`](crate::sds::ChannelState::meta) is not what it was.
    pub meta_changed: bool,
    /// What changed in the history.
    pub history: PendingHistory,
    /// Retrieval hints that changed; an empty one is to be deleted. They are saved after the history's update.
    pub hints: Vec<(MessageId, Bytes)>,
}

impl Effects {
    /// Whether there is nothing to save.
    pub fn saves_nothing(&self) -> bool {
        !self.meta_changed && self.history.is_empty() && self.hints.is_empty()
    }
}

/// Effects while they come up, events by kind.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    sent: Vec<ChannelEvent>,
    missing: Vec<ChannelEvent>,
    ready: Vec<ChannelEvent>,
    /// What a tick made, in its order.
    ticked: Vec<ChannelEvent>,
    pub(crate) meta_changed: bool,
    pub(crate) history: PendingHistory,
    pub(crate) hints: Vec<(MessageId, Bytes)>,
}

impl Changes {
    pub(crate) fn sent(&mut self, id: MessageId, certain: bool) {
        self.sent.push(ChannelEvent::Sent { id, certain });
    }

    pub(crate) fn missing(&mut self, event: ChannelEvent) {
        self.missing.push(event);
    }

    pub(crate) fn ready(&mut self, message: Arc<SdsMessage>) {
        self.ready.push(ChannelEvent::Ready { message });
    }

    pub(crate) fn lost(&mut self, id: MessageId, reason: LostReason) {
        self.ticked.push(ChannelEvent::Lost { id, reason });
    }

    pub(crate) fn resend(&mut self, id: MessageId, attempt: u32, bytes: Bytes) {
        self.ticked.push(ChannelEvent::Resend { id, attempt, bytes });
    }

    pub(crate) fn repair(&mut self, id: MessageId, bytes: Bytes) {
        self.ticked.push(ChannelEvent::Repair { id, bytes });
    }

    pub(crate) fn sync(&mut self, id: MessageId, bytes: Bytes) {
        self.ticked.push(ChannelEvent::Sync { id, bytes });
    }

    pub(crate) fn into_effects(self) -> Effects {
        let Self { sent: mut events, missing, ready, mut ticked, meta_changed, history, hints } = self;
        events.extend(missing);
        events.extend(ready);
        let kind = |event: &ChannelEvent| match event {
            ChannelEvent::Lost { .. } => 0,
            ChannelEvent::Resend { .. } => 1,
            ChannelEvent::Repair { .. } => 2,
            _ => 3,
        };
        ticked.sort_by_key(kind);
        events.extend(ticked);
        Effects { events, meta_changed, history, hints }
    }
}
