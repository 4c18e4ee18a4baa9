//! What is saved of a channel.

use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::base::codec::content_bytes;
use crate::base::name::MessageId;
use crate::sds::message::{HistoryEntry, SdsMessage, Unshown};

/// The version of [`ChannelMeta`] that this crate writes and reads.
pub const SCHEMA_VERSION: u32 = 1;

/// All of a channel's state but its history: complete in itself, so that a later one makes up for a lost one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChannelMeta {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The Lamport clock.
    pub lamport_timestamp: i64,
    /// Messages that wait for their acknowledgement, in order of sending.
    pub outgoing: Vec<UnacknowledgedMessage>,
    /// Parked messages, by id.
    pub incoming: Vec<IncomingMessage>,
    /// Requests to be attached, by id.
    pub outgoing_repair: Vec<OutgoingRepairEntry>,
    /// Requests to be answered, by id.
    pub incoming_repair: Vec<IncomingRepairEntry>,
}

impl Default for ChannelMeta {
    fn default() -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            lamport_timestamp: 0,
            outgoing: Vec::new(),
            incoming: Vec::new(),
            outgoing_repair: Vec::new(),
            incoming_repair: Vec::new(),
        }
    }
}

/// A message that waits for its acknowledgement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct UnacknowledgedMessage {
    /// The message, without bloom filter and repair requests.
    pub message: SdsMessage,
    /// When it was last sent, in milliseconds since the Unix epoch.
    pub send_time_ms: i64,
    /// How often it has been sent again.
    pub resend_attempts: u32,
    /// Whether a peer's bloom filter seems to contain it.
    pub possibly_acknowledged: bool,
}

/// A message that waits for its causes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct IncomingMessage {
    /// The message, without bloom filter and repair requests.
    pub message: SdsMessage,
    /// The ids that it still waits for.
    pub missing: BTreeSet<MessageId>,
    /// When it was parked, in milliseconds since the Unix epoch.
    pub parked_at_ms: i64,
}

/// A message that this peer will ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OutgoingRepairEntry {
    /// The message.
    pub entry: HistoryEntry,
    /// From when on it is asked for, in milliseconds since the Unix epoch.
    pub due_ms: i64,
    /// When asking ends, in milliseconds since the Unix epoch.
    pub expires_ms: i64,
}

/// A message that this peer was asked for.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct IncomingRepairEntry {
    /// The message.
    pub entry: HistoryEntry,
    /// Stored empty: the history has the message.
    #[serde(default, skip_serializing_if = "Bytes::is_empty", with = "content_bytes")]
    pub cached_message: Bytes,
    /// When it is answered, in milliseconds since the Unix epoch.
    pub due_ms: i64,
}

/// Of the message only how long it is.
impl fmt::Debug for IncomingRepairEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entry, cached_message, due_ms } = self;
        let mut shown = f.debug_struct("IncomingRepairEntry");
        shown.field("entry", entry).field("cached_message", &Unshown(cached_message)).field("due_ms", due_ms).finish()
    }
}

/// What changed in a channel's history. No id is in both lists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HistoryUpdate {
    /// New messages, in order of delivery; one that is stored already is overwritten.
    pub append: Vec<SdsMessage>,
    /// Ids that go, after the appends; one that is not stored is fine.
    pub evict: Vec<MessageId>,
}

impl HistoryUpdate {
    /// Puts an update together.
    pub fn new(append: Vec<SdsMessage>, evict: Vec<MessageId>) -> Self {
        Self { append, evict }
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.append.is_empty() && self.evict.is_empty()
    }
}

/// A channel as it is loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChannelData {
    /// Everything but the history; of a channel never saved, the default.
    pub meta: ChannelMeta,
    /// Delivered messages, by (lamport timestamp, id).
    pub message_history: Vec<SdsMessage>,
    /// Retrieval hints by message id.
    pub hints: Vec<(MessageId, Bytes)>,
}

impl ChannelData {
    /// Puts a channel together, as a loading adapter does.
    pub fn new(meta: ChannelMeta, message_history: Vec<SdsMessage>, hints: Vec<(MessageId, Bytes)>) -> Self {
        Self { meta, message_history, hints }
    }
}
