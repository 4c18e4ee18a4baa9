//! Channels as actors. Rank 3: uses `base`, `bus`, `sds`, `persistence`.
//!
//! Invariants: an operation changes the state and notes what is unsaved in one turn without an await; above `Ram` nothing
//! leaves the channel before what it reveals is saved; events come in the order of the operations.
//!
//! `handle` has [`Channel`] and [`ChannelEvents`], `actor` the actor, `message` what it is told, `cell` the state with
//! what of it is unsaved, `timer` when it wakes up by itself, `teller` who raises its events and when, `joined` a channel
//! within a transaction.

mod actor;
mod cell;
mod handle;
mod joined;
mod message;
mod teller;
mod timer;

pub use handle::{Channel, ChannelDelivery, ChannelEvents, DEFAULT_TIMEOUT};
pub use joined::{Outgoing, ReceivedInside, TransactionChannel};

pub(crate) use actor::{ChannelActor, ChannelStart};
pub(crate) use cell::ChannelCell;
pub(crate) use joined::{Closing, Owner, Reach};
pub(crate) use message::ChannelMessage;
pub(crate) use teller::Teller;
pub(crate) use timer::Clocks;
