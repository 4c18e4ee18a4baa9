//! Buckets as actors. Rank 3: uses `base`, `bus`, `records`, `persistence`.
//!
//! Invariants: a write is checked, applied, noted as unsaved and published in one turn without an await, so that a kill
//! never finds it half done; its answer comes after all of that; neither a refused write, nor a panic in user code, nor a
//! dropped caller stops the actor. Reads take no turn: they run in the caller's task, on an immutable snapshot. A
//! transaction over several buckets has all of their turns at once, and is applied in one stretch.
//!
//! `handle` has [`Bucket`], `typed` [`TypedBucket`], `message` what the actor is told, `actor` the actor, `instance` the
//! table that actor and readers share, `directory` where a name leads; `transaction` has transactions, `part` what they
//! see of a bucket, `hold` how they take turns; `live` has live queries, `reads` what they remember of their reads.

mod actor;
mod directory;
mod handle;
mod hold;
mod instance;
mod live;
mod message;
mod part;
mod reads;
mod transaction;
mod typed;

pub use handle::{Bucket, DEFAULT_TIMEOUT};
pub use hold::Hold;
pub use live::{LiveQuery, QueryBucket, QueryContext};
pub use message::{Applied, BucketMessage, BucketStats, WriteRequest};
pub use part::TransactionBucket;
pub use transaction::{Retry, Transaction, TransactionBuilder};
pub use typed::{TypedBucket, TypedPage};

pub(crate) use actor::BucketActor;
pub(crate) use directory::{Address, Directory};
pub(crate) use handle::BucketSlot;
pub(crate) use instance::{Instance, Surroundings};
pub(crate) use live::{Activity, LiveQueries, NamedQueries, Working, caught};
