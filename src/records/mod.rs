//! What a bucket holds, pure: every rule is a function of state, input and `now`, without I/O, time or randomness of its
//! own. Rank 1: uses `base`.
//!
//! Invariants: a refused write changes nothing; the revision rises by one at each commit and never otherwise; a record
//! that is handed out never changes; a unique value has one holder.
//!
//! [`BucketDefinition`] (`definition`), [`Field`] (`field`), [`Ttl`] (`ttl`) and [`Format`] (`format`, `date`) are what
//! users say, [`Schema`] (`schema`) is that without faults (`verify`). Input becomes fields in `fill` (`generate`) and
//! [`Patch`] (`patch`), and is checked in `check` and `limits`; `user_code` is where a user's closures are called.
//! [`Record`] (`record`) is one record, [`Table`] (`table`, `index`, `place`) all of them, [`Filter`] (`filter`) which are
//! asked for, `restore` the way from a stored bucket to a table (`migrate`: that of earlier versions), `change` what an
//! adapter is given, `event` what subscribers are told.

mod change;
mod check;
mod date;
mod definition;
mod event;
mod field;
mod fill;
mod filter;
mod format;
mod generate;
mod index;
mod limits;
mod migrate;
mod patch;
mod place;
mod record;
mod restore;
mod schema;
mod table;
mod ttl;
mod user_code;
mod verify;

pub use change::{BucketChange, BucketDelta, BucketSnapshot, ChangeSet};
pub use definition::{
    BucketDefinition, DEFAULT_REQUEST_WINDOW, MAX_FIELDS, MAX_INDEX_PATHS, MAX_INDEXES, MAX_REQUEST_WINDOW,
};
pub use event::{BucketEvent, Change};
pub use field::{Field, Generated};
pub use filter::Filter;
pub use format::Format;
pub use patch::Patch;
pub use record::{Layout, METADATA, Metadata, Record};
pub use restore::Restored;
pub use schema::{Draws, Schema};
pub use table::{Commit, Plan, Remains, Table, Write, Written};
pub use ttl::Ttl;
