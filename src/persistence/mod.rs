//! How state reaches the disk and comes back: the port that back-ends implement, and the persister that decides when
//! what is handed to it. Rank 2: uses `base`, `bus`, `records`, `sds`.
//!
//! Invariants: one commit in flight per store; a change is owned by its cell until a commit that holds it has succeeded
//! at the adapter's top level; a failed save loses nothing and stops nobody; what an adapter is handed is proportional
//! to what changed.
//!
//! `port` has [`StorageAdapter`] and what goes through it, `dirty` the rules as a pure state machine, `cell` what is
//! unsaved of a bucket, `persister` the machine joined to cells, adapter and waiters, `actor` the actor that drives it,
//! `participant` what joins a transaction and is saved with it, `options`, `health` and `event` what users set and are told,
//! `meter` what is measured for the facade `metrics`, `quarantine` what back-ends show of unreadable data, `none`
//! [`NoPersistence`].

mod actor;
mod cell;
mod dirty;
mod event;
mod health;
mod meter;
mod none;
mod options;
mod participant;
mod persister;
mod port;
mod quarantine;

pub use event::{PersistenceEvent, PersistenceOutcome, Repair};
pub use health::{Degraded, Health, Reason};
pub use none::NoPersistence;
pub use options::{Backoff, LoadFailure, PersistenceOptions};
pub use participant::{Joining, Participant};
pub use persister::{OnError, PersistenceStats};
pub use port::{Atomicity, Capabilities, Commit, Epoch, Finding, Save, StorageAdapter, Watcher, apply_save};
pub use quarantine::{Quarantined, RawRow};

pub(crate) use actor::PersisterActor;
pub(crate) use cell::{BucketCell, Captured, Cell};
pub(crate) use participant::{Coordinator, Part, PartKey, Parts, Ready};
pub(crate) use persister::{DirtySink, Persister, Saved};
