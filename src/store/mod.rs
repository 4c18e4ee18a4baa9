//! Stores: life and death of buckets and channels. Rank 4: takes ports, names no adapter.
//!
//! Invariants: a definition that fails leaves nothing behind; a bucket that dies is back with every acknowledged change;
//! after stopping has begun nothing is accepted that could not be saved; the report never hides what was not saved.
//!
//! `builder` and `handle` are what users hold, `inner` what a store is made of, `supervisor` the actor above its
//! children, `children` who they are, `bucket` and `channel` a bucket's and a channel's life, `restart` what both have in
//! common of it, `routing` which channel a packet is for, `durable` how durable values are opened, `report` what a store tells of itself. `live` is what a store
//! offers for live queries, `listener` handlers of events, `bridge` events for elsewhere,
//! `inbox` the queue between the bus and either of them.

mod bridge;
mod bucket;
mod builder;
mod channel;
mod children;
mod durable;
mod expiry;
mod handle;
mod inbox;
mod inner;
mod listener;
mod live;
mod report;
mod restart;
mod routing;
mod supervisor;

pub use bridge::{Bridge, BridgeOptions, BridgeStats, Receiver};
pub use builder::StoreBuilder;
pub use handle::Store;
pub use listener::Listener;
pub use report::{StopReport, StoreStats};
pub use routing::AutoCreate;
