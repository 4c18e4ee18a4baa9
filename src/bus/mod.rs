//! Who hears what: buckets, channels and the persister publish events, anybody may listen. Rank 1: uses `base`.
//!
//! # Promise
//! Each subscriber hears the events of one publisher in the order in which they were published, or is told at that
//! place how many it missed ([`Delivery::Lagged`]); there is no silent loss. What a subscriber is too slow for costs
//! that subscriber events, and the publisher nothing. A panic of a subscriber's code stays with that subscriber.
//!
//! # Invariants
//! - Topics are lists of segments: a name is one segment whatever it contains, so it can neither collide with another
//!   topic nor escape from its own.
//! - Publishing is synchronous: when it returns, the event is in the queue of every stream and in the mailbox of every
//!   actor that has room for it, and every sink has run.
//! - Publishing takes no lock that two publishers share, beyond the queues of subscribers that they have in common. A
//!   [`Publisher`] keeps the routes of its topic and asks for them again when the subscriptions' generation moved.
//! - No lock of this room is held while a subscriber's code runs, except for the one that keeps the deliveries of one
//!   actor in order; code that publishes from inside a `convert` never waits for it.
//!
//! # Files
//! `topic` what an event is about, `pattern` which topics a subscriber wants, `event` what is told, `bus` publishing and
//! subscribing, `routes` the table of subscriptions, `stream`, `actor` and `sink` the three kinds of subscriber.

mod actor;
#[allow(clippy::module_inception, reason = "the room is named after its main type, and so is the file")]
mod bus;
mod event;
mod pattern;
mod routes;
mod sink;
mod stream;
mod topic;

pub use actor::{ActorDelivery, Permit};
pub use bus::{Bus, Publisher, SubscriptionGuard};
pub use event::{Delivery, Event};
pub use pattern::{Pattern, Segment};
pub use sink::Sink;
pub use stream::Subscription;
pub use topic::Topic;

/// How many events a stream queues, and how many an actor may have in hand, unless said otherwise.
pub const DEFAULT_CAPACITY: std::num::NonZeroUsize = std::num::NonZeroUsize::MIN.saturating_add(1_023);
