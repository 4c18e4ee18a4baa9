//! What a [ractor](https://docs.rs/ractor) actor keeps when its process ends.
//!
//! A [`Store`] supervises *buckets* of records and *channels* of messages. They live in memory and answer from there; what
//! changes in them is saved through an adapter, so that it is there again when the process is not the same any more.
//!
//! ```
//! use ractor_persistence::adapters::memory::MemoryAdapter;
//! use ractor_persistence::{BucketDefinition, Durability, Field, Filter, Generated, Store, record};
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! fn users() -> BucketDefinition {
//!     BucketDefinition::new("users")
//!         .key("id")
//!         .field("id", Field::int().generated(Generated::Autoincrement))
//!         .field("name", Field::string().required())
//!         .field("role", Field::string().default("user"))
//!         .index(["role"])
//! }
//!
//! // Memory that outlives a store, but not the process; `adapters` has the ones that do.
//! let adapter = MemoryAdapter::default();
//! let store = Store::builder("shop").adapter(adapter.clone()).start().await?;
//! let bucket = store.define_bucket(users()).await?;
//!
//! let ada = bucket.insert(record! { "name": "Ada", "role": "admin" }).await?; // in memory, saved soon
//! let durable = bucket.with_durability(Durability::Fsync);
//! durable.insert(record! { "name": "Bob" }).await?; // saved when it answers
//! let ada = bucket.update(ada.key(), record! { "name": "Ada Lovelace" }).await?;
//! assert_eq!((ada.key(), ada.version()), (&1.into(), 2));
//!
//! let report = store.stop().await?; // saves the rest
//! assert!(report.unsaved.is_empty());
//!
//! let store = Store::builder("shop").adapter(adapter).start().await?;
//! let bucket = store.define_bucket(users()).await?;
//! assert_eq!(bucket.count(Filter::all()).await?, 2);
//! assert_eq!(bucket.find_one(Filter::eq("role", "admin")).await?, Some(ada));
//! # Ok::<_, ractor_persistence::Error>(())
//! # }).unwrap();
//! ```
//!
//! # How a change reaches the disk
//!
//! 1. A write is checked (an insert in the caller's task, as far as that is possible); the bucket's actor changes its
//!    table, notes the change in a cell beside itself and publishes it, in one turn without an await.
//! 2. The dirty set, a subscriber of `bucket.*.*` like any other, wakes the persister's actor, which waits for one
//!    debounce window from the first change on: 100 ms unless [`PersistenceOptions`] say otherwise.
//! 3. When the window is over, when too much is unsaved, or at once where somebody waits for durability, the changes of
//!    everything dirty are taken from their cells, without a message to any actor.
//! 4. The adapter is handed all of them as one commit. Only one is in flight per store; the next one collects meanwhile.
//! 5. When it has succeeded, the cells forget and those who waited are answered. When it has failed, everything is kept,
//!    merged under what is newer, reported and tried again.
//!
//! [`Durability`] says, per write, which of these steps an answer waits for. What holds at a crash, a power cut, a kill and
//! a stop is written down in `docs/guarantees.md`, the bytes in `docs/format.md`, how the parts work together in
//! `ARCHITECTURE.md`, and each promise with its number in `docs/promises.md`.
//!
//! # Rooms, in reading order
//!
//! | room | what is in it |
//! |---|---|
//! | [`store`] | [`Store`]: starting, defining, opening, stopping; the supervision tree |
//! | [`records`] | [`BucketDefinition`] and [`Field`], [`Record`], [`Filter`], [`Query`], [`Patch`]: what a bucket holds, as pure rules |
//! | [`bucket`] | [`Bucket`], [`TypedBucket`]: buckets as actors; [`Transaction`]s, [`LiveQuery`] |
//! | [`sds`] | [`ChannelOptions`], events, messages: what a channel knows, as pure rules |
//! | [`channel`] | [`Channel`]: channels as actors |
//! | [`durable`] | [`Durable`]: state of the user's own actors |
//! | [`bus`] | who hears what: streams, actors, sinks |
//! | [`persistence`] | [`PersistenceOptions`], health, and [`StorageAdapter`], the port that back-ends implement |
//! | [`adapters`] | the back-ends |
//! | `testkit` | feature `testkit`: the conformance kit for adapters, and one that fails on demand |
//! | [`base`] | [`Error`], names, [`Value`] and [`Key`], [`Durability`], clock, codec |
//!
//! A room uses only rooms of a lower rank, which its own page names; no room but [`adapters`] knows a back-end.
//!
//! # Errors
//!
//! There is one [`Error`] for the whole crate. Its variants are sorted by what a caller can do about them, the facts are
//! in fields, and messages never contain what a record or message holds.
//!
//! # Runtime
//!
//! Everything that does something runs within a tokio runtime, on its clock; the time of day comes from a
//! [`Clock`](base::clock::Clock) that can be replaced. Blocking work of the crate's own goes to the blocking pool or to a
//! thread of its own.

// Everything here can be said in safe Rust. Whoever wants to map files into memory one day has to argue for it here.
#![forbid(unsafe_code)]
// A public item that nobody explains is one that nobody can rely on.
#![warn(missing_docs)]

#[macro_use]
mod macros;

pub mod adapters;
pub mod base;
pub mod bucket;
pub mod bus;
pub mod channel;
pub mod durable;
pub mod persistence;
pub mod records;
pub mod sds;
pub mod store;
#[cfg(feature = "testkit")]
pub mod testkit;

pub use base::durability::Durability;
pub use base::error::{Error, Result};
pub use base::value::{Key, Value};
pub use bucket::{Bucket, LiveQuery, QueryContext, Retry, Transaction, TypedBucket};
pub use channel::Channel;
pub use durable::Durable;
pub use persistence::{PersistenceOptions, StorageAdapter};
pub use records::{
    BucketDefinition, BucketEvent, Direction, Field, Filter, Format, Generated, Page, Patch, Query, Record, Upserted,
};
pub use sds::ChannelOptions;
pub use store::Store;

// The examples in the documents are compiled and run like those above.
#[cfg(all(doctest, feature = "testkit", feature = "redb"))]
#[doc = include_str!("../README.md")]
struct Readme;
#[cfg(all(doctest, feature = "testkit", feature = "json-file"))]
#[doc = include_str!("../docs/guide/writing-an-adapter.md")]
struct WritingAnAdapter;
#[cfg(all(doctest, feature = "testkit"))]
#[doc = include_str!("../docs/guide/testing.md")]
struct Testing;
#[cfg(doctest)]
#[doc = include_str!("../docs/guide/buckets.md")]
struct Buckets;
#[cfg(doctest)]
#[doc = include_str!("../docs/guide/channels.md")]
struct Channels;
#[cfg(all(doctest, feature = "json-file"))]
#[doc = include_str!("../docs/guide/backup-and-recovery.md")]
struct BackupAndRecovery;
#[cfg(doctest)]
#[doc = include_str!("../docs/guide/supervision.md")]
struct Supervision;
