//! Buckets as actors. Rank 3: uses `base`, `bus`, `records`, `persistence`.
//!
//! Invariants: a write is checked, applied, noted as unsaved and published in one turn without an await, so that a kill
//! never finds it half done; its answer comes after all of that; neither a refused write nor a dropped caller stops the
//! actor.
//!
//! `handle` has [`Bucket`] and [`TypedBucket`], `message` what the actor is told, `actor` the actor.

mod actor;
mod handle;
mod message;

pub use handle::{Bucket, DEFAULT_TIMEOUT, TypedBucket};
pub use message::{Applied, BucketMessage, BucketStats};

pub(crate) use actor::{BucketActor, BucketStart};
