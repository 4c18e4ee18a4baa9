//! Messages as they travel and are kept.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::base::codec::content_bytes;
use crate::base::name::{MessageId, ParticipantId};

/// A message, by the names of the SDS specification (<https://rfc.vac.dev/vac/raw/sds>).
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SdsMessage {
    /// Its id.
    pub message_id: MessageId,
    /// The sender's Lamport clock.
    pub lamport_timestamp: i64,
    /// Messages that it came after, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causal_history: Vec<HistoryEntry>,
    /// The channel it belongs to, as on the wire.
    #[serde(with = "crate::sds::message::channel_bytes")]
    pub channel_id: Bytes,
    /// What the application sent; empty in sync messages.
    #[serde(with = "content_bytes")]
    pub content: Bytes,
    /// The sender's serialized bloom filter; empty where stored.
    #[serde(default, skip_serializing_if = "Bytes::is_empty", with = "content_bytes")]
    pub bloom_filter: Bytes,
    /// Its author; may be empty.
    #[serde(default, skip_serializing_if = "ParticipantId::is_empty")]
    pub sender_id: ParticipantId,
    /// Messages that the sender asks for; empty where stored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repair_request: Vec<HistoryEntry>,
}

/// Of content and filter only how long they are: what people say to each other does not belong into a log.
impl fmt::Debug for SdsMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("SdsMessage");
        shown.field("message_id", &self.message_id).field("lamport_timestamp", &self.lamport_timestamp);
        shown.field("causal_history", &self.causal_history).field("channel_id", &self.channel_id);
        shown.field("content", &Unshown(&self.content)).field("bloom_filter", &Unshown(&self.bloom_filter));
        shown.field("sender_id", &self.sender_id).field("repair_request", &self.repair_request).finish()
    }
}

/// Shows how many bytes there are, and not which.
pub(crate) struct Unshown<'a>(pub(crate) &'a [u8]);

impl fmt::Debug for Unshown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl SdsMessage {
    /// The bytes of what is kept of it: content, ids, authors and hints.
    pub(crate) fn stored_bytes(&self) -> usize {
        let entries = self.causal_history.iter().map(|entry| {
            entry.message_id.as_bytes().len() + entry.retrieval_hint.len() + entry.sender_id.as_bytes().len()
        });
        self.message_id.as_bytes().len() + self.content.len() + self.sender_id.as_bytes().len() + entries.sum::<usize>()
    }

    /// What it counts for while it is parked.
    pub(crate) fn parked_bytes(&self) -> usize {
        self.stored_bytes() + self.causal_history.len() * CAUSE_BYTES
    }
}

/// What a cause of a parked message counts for beyond its bytes: about what it takes in memory to keep it as it is named,
/// to wait for it, and to find who does. Without that, many short ids would take many times what is allowed.
pub(crate) const CAUSE_BYTES: usize = 128;

/// A message named by another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HistoryEntry {
    /// Its id.
    pub message_id: MessageId,
    /// Where it may be found: opaque, may be empty.
    #[serde(default, skip_serializing_if = "Bytes::is_empty", with = "content_bytes")]
    pub retrieval_hint: Bytes,
    /// Its author; may be empty.
    #[serde(default, skip_serializing_if = "ParticipantId::is_empty")]
    pub sender_id: ParticipantId,
}

impl HistoryEntry {
    /// An entry with neither hint nor author.
    pub fn new(message_id: impl Into<MessageId>) -> Self {
        Self { message_id: message_id.into(), ..Self::default() }
    }

    /// A copy that keeps no more memory alive than its own: entries of one message share theirs.
    pub(crate) fn detached(&self) -> Self {
        Self {
            message_id: MessageId::from(self.message_id.as_bytes()),
            retrieval_hint: Bytes::copy_from_slice(&self.retrieval_hint),
            sender_id: ParticipantId::from(self.sender_id.as_bytes()),
        }
    }
}

pub(crate) mod channel_bytes {
    pub(crate) use crate::base::codec::id_bytes::{deserialize, serialize};
}
