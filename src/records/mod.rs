//! What a bucket holds, pure: every rule is a function of state, input and `now`, without I/O, time or randomness of its
//! own. Rank 1: uses `base`.
//!
//! Invariants: a refused write changes nothing; the revision rises by one at each commit and never otherwise; a record
//! that is handed out never changes; a unique value has one holder.
//!
//! [`BucketDefinition`] and [`Field`] (`definition`) are what users say, [`Schema`] (`schema`, `date`) is that checked,
//! [`Record`] (`record`, `select`) one record, [`Table`] (`table`, `place`, `index`) all of them, `restore` the way from a
//! stored bucket to a table, `change` what an adapter is given, `event` what subscribers are told.
//!
//! Reads run on a [`View`] (`view`, `aggregate`): [`Filter`] (`filter`, `path`, `matcher`) says which records, [`Query`] and
//! [`Page`] (`query`, `cursor`) in which order and how many, `plan` finds the way with the fewest entries, `span` cuts runs
//! out of an index. A view never changes, so that reads wait for no write and all of an answer is of one revision. What is
//! answered never depends on the plan.

mod aggregate;
mod change;
mod cursor;
mod date;
mod definition;
mod event;
mod filter;
mod index;
mod matcher;
mod path;
mod place;
mod plan;
mod query;
mod record;
mod restore;
mod schema;
mod select;
mod span;
mod table;
mod view;

#[cfg(test)]
mod tests;

pub use change::{BucketChange, BucketDelta, BucketSnapshot, ChangeSet};
pub use cursor::Cursor;
pub use definition::{BucketDefinition, Field, Generated, MAX_FIELDS, MAX_INDEX_PATHS, MAX_INDEXES};
pub use event::{BucketEvent, Change};
pub use filter::{Filter, MAX_FILTER_DEPTH};
pub use query::{Access, Direction, Explain, Page, Paged, Query};
pub use record::{Layout, METADATA, Metadata, Record};
pub use restore::Restored;
pub use schema::{Draws, Schema};
pub use table::{Commit, Plan, Remains, Table, Write, Written};
pub use view::View;
