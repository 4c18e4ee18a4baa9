//! What a channel knows, pure.

mod message;
mod meta;

pub use message::{HistoryEntry, SdsMessage};
pub use meta::{
    ChannelData, ChannelMeta, HistoryUpdate, IncomingMessage, IncomingRepairEntry, OutgoingRepairEntry, SCHEMA_VERSION,
    UnacknowledgedMessage,
};
