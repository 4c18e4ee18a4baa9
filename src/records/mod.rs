//! What a bucket holds, pure: every rule is a function of state, input and `now`, without I/O, time or randomness of its
//! own. Rank 1: uses `base`.
//!
//! Invariants: a refused write changes nothing; the revision rises by one at each commit and never otherwise; a record
//! that is handed out never changes; a unique value has one holder.
//!
//! What users say is [`BucketDefinition`] (`definition`), [`Field`] (`field`), [`Ttl`] (`ttl`) and [`Format`] (`format`,
//! `date`); [`Schema`] (`schema`) is that without faults (`verify`). Input becomes fields in `fill` (`generate`) and
//! [`Patch`] (`patch`), and is checked in `check` and `limits`; `user_code` is where a user's closures are called.
//! [`Record`] (`record`, `select`, `packed`) is one record, [`Table`] (`table`, `keys`, `place`, `index`) all of them,
//! `restore` the way from a stored bucket to a table (`migrate`: that of earlier versions).
//!
//! [`Write`] (`write`) is what can be asked for, `writing` plans and checks it, [`Request`] (`requests`) is one with an id;
//! [`Draft`] (`draft`) is a transaction's part, [`ReadSet`] (`conflict`) what it has read. `change` is what an adapter is
//! given, `change_set` (`latest`) how that adds up until it is saved, `event` what subscribers are told.
//!
//! Reads run on a [`View`] (`view`, `aggregate`): [`Filter`] (`filter`, `path`, `matcher`) says which records, [`Query`] and
//! [`Page`] (`query`, `cursor`) in which order and how many, `plan` finds the way with the fewest entries, `span` cuts runs
//! out of an index. A view never changes, so that reads wait for no write and all of an answer is of one revision. What is
//! answered never depends on the plan.

mod aggregate;
mod change;
mod change_set;
mod check;
mod conflict;
mod cursor;
mod date;
mod definition;
mod draft;
mod event;
mod fetch;
mod field;
mod fill;
mod filter;
mod format;
mod generate;
mod index;
mod keys;
mod latest;
mod limits;
mod matcher;
mod migrate;
#[cfg(any(feature = "redb", feature = "postgres", test))]
mod packed;
mod patch;
mod path;
mod place;
mod plan;
mod query;
mod record;
mod requests;
mod restore;
mod schema;
mod select;
mod span;
mod table;
mod ttl;
mod user_code;
mod verify;
mod view;
mod write;
mod writing;

#[cfg(test)]
mod tests;

pub use change::{BucketChange, BucketDelta, BucketSnapshot};
pub use change_set::ChangeSet;
pub use conflict::ReadSet;
pub use cursor::Cursor;
pub use definition::{
    BucketDefinition, DEFAULT_REQUEST_WINDOW, MAX_FIELDS, MAX_INDEX_PATHS, MAX_INDEXES, MAX_REQUEST_WINDOW,
};
pub use draft::Draft;
pub use event::{BucketEvent, Cause, Change};
pub use field::{Field, Generated};
pub use filter::{Filter, MAX_FILTER_DEPTH};
pub use format::Format;
pub use keys::Keys;
pub use patch::Patch;
pub use query::{Access, Direction, Explain, Page, Paged, Query};
pub use record::{Layout, METADATA, Metadata, Record};
pub use requests::{MAX_REQUEST_ID_BYTES, Request};
pub use restore::Restored;
pub use schema::{Draws, Schema};
pub use table::{Changes, Commit, Plan, Remains, Table};
pub use ttl::Ttl;
pub use view::View;
pub use write::{Upserted, Write, Written};
pub use writing::Prepared;

#[cfg(feature = "redb")]
pub(crate) use fetch::fetched;
#[cfg(any(feature = "redb", feature = "postgres"))]
pub(crate) use packed::Unpacker;
pub(crate) use user_code::guarded;
