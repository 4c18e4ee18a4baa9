//! What a bucket holds, pure: every rule is a function of state, input and `now`, without I/O, time or randomness of its
//! own. Rank 1: uses `base`.
//!
//! Invariants: a refused write changes nothing; the revision rises by one at each commit and never otherwise; a record
//! that is handed out never changes; a unique value has one holder.
//!
//! [`BucketDefinition`] and [`Field`] (`definition`) are what users say, [`Schema`] (`schema`, `date`) is that checked,
//! [`Record`] (`record`) one record, [`Table`] (`table`, `index`) all of them, [`Filter`] (`filter`) which are asked for,
//! `restore` the way from a stored bucket to a table, `change` what an adapter is given, `event` what subscribers are
//! told.

mod change;
mod date;
mod definition;
mod event;
mod filter;
mod index;
#[cfg(any(feature = "redb", test))]
mod packed;
mod place;
mod record;
mod restore;
mod schema;
mod table;

pub use change::{BucketChange, BucketDelta, BucketSnapshot, ChangeSet};
pub use definition::{BucketDefinition, Field, Generated, MAX_FIELDS, MAX_INDEX_PATHS, MAX_INDEXES};
pub use event::{BucketEvent, Change};
pub use filter::Filter;
pub use record::{Layout, METADATA, Metadata, Record};
pub use restore::Restored;
pub use schema::{Draws, Schema};
pub use table::{Commit, Plan, Remains, Table, Write, Written};

#[cfg(feature = "redb")]
pub(crate) use packed::Unpacker;
