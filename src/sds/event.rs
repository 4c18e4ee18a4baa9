//! What a channel tells its subscribers.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::base::name::MessageId;
use crate::sds::message::{HistoryEntry, SdsMessage, Unshown};

/// Something that happened in a channel. Within one operation `Sent` comes before `Missing`, and that before `Ready`; what
/// comes by timer is `Lost`, then `Resend`, `Repair` and `Sync`, whose bytes are to be sent to all peers.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChannelEvent {
    /// A message of a peer's has been delivered, after all its causes. Own messages raise none.
    Ready {
        /// The message, without bloom filter and repair requests.
        message: Arc<SdsMessage>,
    },
    /// A message of ours has been received by a peer.
    Sent {
        /// Its id.
        id: MessageId,
        /// Whether a peer named it. Otherwise a peer's bloom filter contains it, which may err.
        certain: bool,
    },
    /// A message has been given up.
    Lost {
        /// Its id.
        id: MessageId,
        /// Why.
        reason: LostReason,
    },
    /// A message names causes that were never received: obtain them, or waive them as met.
    Missing {
        /// The message that names them.
        id: MessageId,
        /// The causes, in its order, with the hints and authors that it gives.
        entries: Vec<HistoryEntry>,
    },
    /// Nothing was sent for a while: bytes that tell peers what this one has, and ask for what it lacks.
    Sync {
        /// The id of the sync message; it is not kept.
        id: MessageId,
        /// What to send.
        bytes: Bytes,
    },
    /// A peer asked for a message that is in the history here.
    Repair {
        /// Its id.
        id: MessageId,
        /// What to send.
        bytes: Bytes,
    },
    /// A message of ours was not acknowledged in time.
    Resend {
        /// Its id.
        id: MessageId,
        /// How often it has been sent again, this time included.
        attempt: u32,
        /// What to send.
        bytes: Bytes,
    },
}

/// Of bytes only how many there are: they hold what the application sent.
impl fmt::Debug for ChannelEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready { message } => f.debug_struct("Ready").field("message", message).finish(),
            Self::Sent { id, certain } => f.debug_struct("Sent").field("id", id).field("certain", certain).finish(),
            Self::Lost { id, reason } => f.debug_struct("Lost").field("id", id).field("reason", reason).finish(),
            Self::Missing { id, entries } => {
                f.debug_struct("Missing").field("id", id).field("entries", entries).finish()
            }
            Self::Sync { id, bytes } => f.debug_struct("Sync").field("id", id).field("bytes", &Unshown(bytes)).finish(),
            Self::Repair { id, bytes } => {
                f.debug_struct("Repair").field("id", id).field("bytes", &Unshown(bytes)).finish()
            }
            Self::Resend { id, attempt, bytes } => {
                let mut shown = f.debug_struct("Resend");
                shown.field("id", id).field("attempt", attempt).field("bytes", &Unshown(bytes)).finish()
            }
        }
    }
}

impl ChannelEvent {
    /// The last segment of the event's topic: `"ready"`, `"sent"`, `"lost"`, `"missing"`, `"sync"`, `"repair"` or `"resend"`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Ready { .. } => "ready",
            Self::Sent { .. } => "sent",
            Self::Lost { .. } => "lost",
            Self::Missing { .. } => "missing",
            Self::Sync { .. } => "sync",
            Self::Repair { .. } => "repair",
            Self::Resend { .. } => "resend",
        }
    }

    /// The message that it is about.
    pub fn message_id(&self) -> &MessageId {
        match self {
            Self::Ready { message } => &message.message_id,
            Self::Sent { id, .. }
            | Self::Lost { id, .. }
            | Self::Missing { id, .. }
            | Self::Sync { id, .. }
            | Self::Repair { id, .. }
            | Self::Resend { id, .. } => id,
        }
    }
}

/// Why a message has been given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LostReason {
    /// A message of ours was sent as often as allowed and never acknowledged.
    Unacknowledged,
    /// A message of a peer's waited for its causes for too long.
    Expired,
}
