//! What a channel knows: causally ordered, reliable messaging over a lossy transport, after the SDS specification
//! (<https://rfc.vac.dev/vac/raw/sds>), in the bytes of nim-sds.
//!
//! Promise: every message that is received is delivered once, after all the causes that it names, or stays parked until
//! they are known or waived; what is sent is kept until a peer shows that it has it.
//!
//! Nobody is authenticated: ids, authors and timestamps are what a peer claims. So whatever a peer sends is bounded, and
//! no timestamp moves the clock by more than the allowed skew.
//!
//! Invariants
//! - Nothing here reads a clock, draws a number or does I/O: time comes in, effects go out.
//! - A refused operation changes nothing.
//! - No id is parked and in the history, none that is waited for is known, and nobody waits for itself.
//! - Nothing is asked for that is here, and nothing is to be answered that is not in the history.
//! - One moment tells when anything is due next; a channel that waits for nothing has none.
//! - The cost of sending and receiving does not depend on how long the history is.
//! - What changed within one operation adds up to at most one update of the history and one new state of the rest.
//!
//! | file | question |
//! |---|---|
//! | `message` | what is a message? |
//! | `meta` | what is saved of a channel? |
//! | `options` | how can a channel be set up? |
//! | `state` | what does a channel know, and what does sending do to it? |
//! | `receive` | what does a packet do to it? |
//! | `timer` | what does the passing of time do, and when is it next due? |
//! | `outbox` | what is not acknowledged yet, and when is it sent again? |
//! | `echo` | what have we said ourselves? |
//! | `repair` | what is asked for and answered, when, and by whom? |
//! | `time` | what do the two clocks say, and what is due when? |
//! | `load` | how does a channel come back from what was saved? |
//! | `event`, `effects` | what is there to tell and to save afterwards? |
//! | `update` | how do changes that are not saved yet add up? |
//! | `history` | which messages are kept, in which order, and which one goes first? |
//! | `causal` | who waits for what? |
//! | `lamport` | what time is it? |
//! | `bloom`, `hash` | who seems to have seen what? |
//! | `wire`, `proto` | how does a message travel? |
//! | `snapshot` | how does a channel move to and from nim-sds? |
//! | `sequence` | a map that remembers the order of insertion |

mod bloom;
mod causal;
mod echo;
mod effects;
mod event;
mod hash;
mod history;
mod lamport;
mod load;
mod message;
mod meta;
mod options;
mod outbox;
mod proto;
mod receive;
mod repair;
mod sequence;
pub mod snapshot;
mod state;
mod time;
mod timer;
mod update;
mod wire;

#[cfg(test)]
#[allow(unused_must_use, reason = "tests drop the effects that they do not ask about")]
mod tests;

pub use effects::Effects;
pub use event::{ChannelEvent, LostReason};
pub(crate) use message::Unshown;
pub use message::{HistoryEntry, SdsMessage};
pub use meta::{
    ChannelData, ChannelMeta, HistoryUpdate, IncomingMessage, IncomingRepairEntry, OutgoingRepairEntry, SCHEMA_VERSION,
    UnacknowledgedMessage,
};
pub use options::{BloomAck, ChannelOptions, ClockUnit, WireFormat};
pub use receive::{ReceiveStatus, Received};
pub use state::{ChannelState, ChannelStats};
pub use time::Now;
pub use update::{FailedCommit, PendingHistory};
pub use wire::{Entries, Entry, Packet, decode, encode};
